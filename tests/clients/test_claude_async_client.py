"""The asynchronous client of Anthropic's SDK, which has code of its own for pages, streams and helpers."""

import asyncio
import uuid

import anthropic
import pytest

from conftest import script
from test_claude_client import TOOLSET, connect, message


@pytest.fixture()
def run(server):
    """Runs a coroutine function with a client, within bounded time."""

    def run(play):
        async def connected():
            async with connect(server, anthropic.AsyncAnthropic) as client:
                return await play(client.beta)

        return asyncio.run(asyncio.wait_for(connected(), 60))

    return run


async def opened(beta, *turns, **fields):
    """A session of an agent whose model answers by this script."""
    fields = {"tools": [TOOLSET]} | fields
    agent = await beta.agents.create(name="Coder", model="scripted/script", system=script(*turns), **fields)
    environment = await beta.environments.create(name=f"async {uuid.uuid4()}")
    return await beta.sessions.create(agent=agent.id, environment_id=environment.id)


async def answered(beta, session, *events, **options):
    seen = []
    async with await beta.sessions.events.stream(session.id, **options) as stream:
        await beta.sessions.events.send(session.id, events=list(events))
        async for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                return seen
    raise AssertionError(f"the stream ended: {seen}")


def test_agents_and_pages(run):
    async def play(beta):
        made = [(await beta.agents.create(name=f"P{n}", model="scripted/echo")).id for n in range(3)]
        listed = [agent.id async for agent in beta.agents.list(limit=1)]
        assert [id for id in listed if id in made] == made[::-1]
        second = await beta.agents.update(made[0], version=1, system="s")
        assert [agent.version async for agent in beta.agents.versions.list(made[0], limit=1)] == [second.version, 1]
        with pytest.raises(anthropic.ConflictError):
            await beta.agents.update(made[0], version=1, name="late")
        assert (await beta.agents.archive(made[0])).archived_at is not None

    run(play)


def test_environments(run):
    async def play(beta):
        made = await beta.environments.create(name=f"async {uuid.uuid4()}", metadata={"a": "1"})
        updated = await beta.environments.update(made.id, metadata={"a": None, "b": "2"})
        assert updated.metadata == {"b": "2"}
        assert made.id in [found.id async for found in beta.environments.list(limit=1)]
        assert (await beta.environments.archive(made.id)).archived_at is not None
        assert (await beta.environments.delete(made.id)).id == made.id

    run(play)


def test_a_turn_with_previews(run):
    from anthropic.lib.sessions import accumulate_managed_agents_event

    async def play(beta):
        text = "word " * 100
        bash = {"tool": "bash", "input": {"command": "echo there"}}
        session = await opened(beta, [[bash], [{"text": text}]])
        events = await answered(beta, session, message("go"), event_deltas=["agent.message"])
        shown = None
        for event in events:
            shown = accumulate_managed_agents_event(shown, event)
        assert shown.content[0].text == text
        assert len([event for event in events if event.type == "event_delta"]) > 1
        listed = [event.id async for event in beta.sessions.events.list(session.id, limit=2)]
        streamed = [event.id for event in events if not event.type.startswith("event_")]
        assert [id for id in listed if id in streamed] == streamed

    run(play)


def test_confirmations_and_interrupts(run):
    async def play(beta):
        ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
        bash = {"tool": "bash", "input": {"command": "echo done"}}
        session = await opened(beta, [[bash], [{"text": "{{last_tool_result}}"}]], [[bash]], tools=[ask])
        (use,) = [event for event in await answered(beta, session, message("go")) if event.type == "agent.tool_use"]
        allow = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"}
        events = await answered(beta, session, allow)
        assert [event.content[0].text for event in events if event.type == "agent.message"] == ["done\n"]
        assert (await answered(beta, session, message("again")))[-1].stop_reason.type == "requires_action"
        events = await answered(beta, session, {"type": "user.interrupt"})
        assert events[-1].stop_reason.type == "end_turn"
        assert [event.is_error for event in events if event.type == "agent.tool_result"] == [True]

    run(play)


def test_sessions_in_both_directions(run):
    async def play(beta):
        session = await opened(beta, [[{"text": "hi"}]])
        for _ in range(2):
            await beta.sessions.create(agent=session.agent.id, environment_id=session.environment_id)
        page = await beta.sessions.list(agent_id=session.agent.id, limit=2)
        second = await beta.sessions.list(agent_id=session.agent.id, limit=2, page=page.next_page)
        assert [found.id for found in second.data] == [session.id]
        back = await beta.sessions.list(agent_id=session.agent.id, limit=2, page=second.prev_page)
        assert [found.id for found in back.data] == [found.id for found in page.data]
        with pytest.raises(anthropic.BadRequestError):
            await beta.sessions.list(agent_id=session.agent.id, order="asc", page=page.next_page)
        assert (await beta.sessions.update(session.id, title="T")).title == "T"
        assert (await beta.sessions.archive(session.id)).status == "terminated"
        assert (await beta.sessions.delete(session.id)).type == "session_deleted"

    run(play)
