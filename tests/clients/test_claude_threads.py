"""Agents that have others work in threads of their sessions, with Anthropic's SDK. Where the old SDK does not know a
field or leaves an event out of streams, the list of events is looked at instead."""

import asyncio
import uuid

import anthropic
import pytest

from conftest import script
from test_claude_client import IS_NEW, TOOLSET, answered, connect, message, only, scripted

TICKET = {
    "type": "custom",
    "name": "ticket",
    "description": "Opens a ticket",
    "input_schema": {"type": "object", "properties": {"title": {"type": "string"}}},
}


@pytest.fixture()
def beta(server):
    with connect(server) as client:
        yield client.beta


@pytest.fixture(scope="module")
def environment(server):
    with connect(server) as client:
        return client.beta.environments.create(name=f"threads {uuid.uuid4()}")


def send(agent, text, **more):
    return {"tool": "send_to_agent", "input": {"agent": agent, "message": text} | more}


def lead(beta, members, *turns, tools=(TOOLSET,)):
    return scripted(beta, *turns, tools=tools, multiagent={"type": "coordinator", "agents": members})


def opened(beta, environment, agent):
    return beta.sessions.create(agent=agent.id, environment_id=environment.id)


def kinds(events):
    return [event.type for event in events]


def listed(beta, session):
    return list(beta.sessions.events.list(session.id))


def test_threads_are_made_and_asked_again(beta, environment):
    worker = scripted(
        beta,
        [[{"tool": "bash", "input": {"command": "echo by the worker >> shared; cat shared"}}], [{"text": "{{last_tool_result}}"}]],
        [[{"text": "You said: {{last_user}}"}]],
    )
    agent = lead(
        beta,
        [worker.id, {"type": "self"}],
        [
            [{"tool": "bash", "input": {"command": "echo by the lead > shared"}}],
            [send(worker.id, "go")],
            [send(worker.id, "and now?", thread="latest")],
            [{"text": "{{last_tool_result}}"}],
        ],
    )
    assert [member.id for member in agent.multiagent.agents] == [worker.id, agent.id]
    session = opened(beta, environment, agent)
    assert [member.name for member in session.agent.multiagent.agents] == ["Coder", "Coder"]
    events = answered(beta, session, message("go"))
    assert "You said: and now?" in only(events, "agent.message").content[0].text
    log = listed(beta, session)
    of_threads = [event for event in log if ".thread_" in event.type]
    thread = only(log, "session.thread_created").session_thread_id
    primary = of_threads[0].session_thread_id
    assert [(event.type, getattr(event, "session_thread_id", thread)) for event in of_threads] == [
        ("session.thread_status_running", primary),
        ("session.thread_created", thread),
        ("agent.thread_message_sent", thread),
        ("session.thread_status_running", thread),
        ("agent.thread_message_received", thread),
        ("session.thread_status_idle", thread),
        ("agent.thread_message_sent", thread),
        ("session.thread_status_running", thread),
        ("agent.thread_message_received", thread),
        ("session.thread_status_idle", thread),
        ("session.thread_status_idle", primary),
    ]
    received = [event for event in log if event.type == "agent.thread_message_received"]
    assert received[0].content[0].text.strip().split("\n") == ["by the lead", "by the worker"]
    assert received[0].from_session_thread_id == thread
    # What the coordinator delegates with is hidden; what is streamed is listed.
    assert [event.name for event in log if event.type == "agent.tool_use"] == ["bash"]
    assert [event.id for event in log if IS_NEW or event.type != "session.usage"] == [event.id for event in events]

    threads = list(beta.sessions.threads.list(session.id))
    assert [(found.id, found.parent_thread_id, found.status) for found in threads] == [
        (primary, None, "idle"),
        (thread, primary, "idle"),
    ]
    assert threads[1].agent.id == worker.id and threads[1].usage.output_tokens > 0
    own = list(beta.sessions.threads.events.list(thread, session_id=session.id))
    assert [event.type for event in own if "message" in event.type] == [
        "agent.thread_message_received",
        "agent.message",
        "agent.thread_message_sent",
        "agent.thread_message_received",
        "agent.message",
        "agent.thread_message_sent",
    ]
    assert own[1].from_session_thread_id == primary and own[0].session_thread_id == thread
    of_primary = list(beta.sessions.threads.events.list(primary, session_id=session.id))
    named = [getattr(event, "session_thread_id", None) for event in of_primary if "created" not in event.type]
    assert {name for name in named if name} == {primary}
    totals = beta.sessions.retrieve(session.id).usage
    parts = [found.usage for found in threads]
    assert totals.output_tokens == sum(part.output_tokens for part in parts)

    archived = beta.sessions.threads.archive(thread, session_id=session.id)
    assert archived.status == "terminated" and archived.archived_at
    assert listed(beta, session)[-1].type == "session.thread_status_terminated"
    assert beta.sessions.threads.archive(thread, session_id=session.id).status == "terminated"
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(session.id, events=[{"type": "user.interrupt", "session_thread_id": thread}])


def test_a_threads_questions_are_answered_through_the_session(beta, environment):
    ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
    worker = scripted(
        beta,
        [
            [{"tool": "ticket", "input": {"title": "a"}}, {"tool": "bash", "input": {"command": "echo ran"}}],
            [{"text": "{{last_tool_result}}"}],
        ],
        tools=[ask, TICKET],
    )
    agent = lead(beta, [worker.id], [[send(worker.id, "go")], [{"text": "{{last_tool_result}}"}]])
    session = opened(beta, environment, agent)
    events = answered(beta, session, message("go"))
    ticket, run = only(events, "agent.custom_tool_use"), only(events, "agent.tool_use")
    thread = only(events, "session.thread_created").session_thread_id
    assert (ticket.session_thread_id, run.session_thread_id, run.evaluated_permission) == (thread, thread, "ask")
    assert events[-1].stop_reason.event_ids == [ticket.id, run.id]
    assert beta.sessions.retrieve(session.id).status == "idle"
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.sessions.events.send(session.id, events=[message("more")])
    assert ticket.id in str(refused.value)
    # Only a part of the answers, then the rest.
    answer = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": ticket.id,
        "content": [{"type": "text", "text": "T-1"}],
    }
    note = {"type": "system.message", "content": [{"type": "text", "text": "Tickets are urgent."}]}
    partly = answered(beta, session, answer, note)
    assert partly[-1].stop_reason.event_ids == [run.id]
    assert partly[0].session_thread_id == thread
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(session.id, events=[answer])
    rest = answered(beta, session, {"type": "user.tool_confirmation", "tool_use_id": run.id, "result": "allow"})
    assert rest[-1].stop_reason.type == "end_turn"
    assert "ran" in only(rest, "agent.message").content[0].text
    own = list(beta.sessions.threads.events.list(thread, session_id=session.id))
    # The thread has them under ids of its own.
    uses = [event for event in own if event.type in ("agent.custom_tool_use", "agent.tool_use")]
    assert len(uses) == 2 and not {use.id for use in uses} & {ticket.id, run.id}
    assert [event.type for event in own].count("user.custom_tool_result") == 1
    # What accompanies an answer goes where the answer goes.
    at = [event.type for event in own].index("user.custom_tool_result")
    assert own[at + 1].type == "system.message" and own[at + 1].content[0].text == "Tickets are urgent."
    assert kinds(listed(beta, session)).count("system.message") == 1
    primary = next(found.id for found in beta.sessions.threads.list(session.id) if found.parent_thread_id is None)
    assert "system.message" not in kinds(beta.sessions.threads.events.list(primary, session_id=session.id))


def test_one_thread_is_interrupted(beta, environment):
    worker = scripted(beta, [[{"tool": "ticket", "input": {}}], [{"text": "never"}]], tools=[TICKET])
    agent = lead(beta, [worker.id], [[send(worker.id, "go")], [{"text": "It says: {{last_tool_result}}"}]])
    session = opened(beta, environment, agent)
    events = answered(beta, session, message("go"))
    thread = only(events, "session.thread_created").session_thread_id
    rest = answered(beta, session, {"type": "user.interrupt", "session_thread_id": thread})
    assert only(rest, "user.interrupt").session_thread_id == thread
    assert "cancelled" in only(rest, "agent.message").content[0].text
    assert rest[-1].stop_reason.type == "end_turn"

    # Whoever asks once more with the same key is told the same.
    once = opened(beta, environment, agent)
    asked = only(answered(beta, once, message("go")), "session.thread_created").session_thread_id
    interrupt = {"type": "user.interrupt", "session_thread_id": asked}
    twice = [
        beta.sessions.events.send(once.id, events=[interrupt], extra_headers={"Idempotency-Key": "once"}).data[0]
        for _ in range(2)
    ]
    assert [(event.id, event.session_thread_id) for event in twice] == [(twice[0].id, asked)] * 2

    # Without a thread's name all are.
    again = opened(beta, environment, agent)
    answered(beta, again, message("go"))
    rest = answered(beta, again, {"type": "user.interrupt"})
    assert "agent.message" not in kinds(rest)
    statuses = [found.status for found in beta.sessions.threads.list(again.id)]
    assert statuses == ["idle", "idle"]
    beta.sessions.archive(again.id)
    assert [event.type for event in listed(beta, again)][-3:] == [
        "session.thread_status_terminated",
        "session.thread_status_terminated",
        "session.status_terminated",
    ]
    beta.sessions.delete(session.id)
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.threads.retrieve(thread, session_id=session.id)


def test_several_threads_side_by_side(beta, environment):
    worker = scripted(beta, [[{"text": "re: {{last_user}}"}]], tools=[])
    agent = lead(
        beta,
        [worker.id],
        [[send(worker.id, "one"), send(worker.id, "two"), {"tool": "list_agents", "input": {}}], [{"text": "end"}]],
    )
    session = opened(beta, environment, agent)
    answered(beta, session, message("go"))
    log = listed(beta, session)
    texts = sorted(event.content[0].text for event in log if event.type == "agent.thread_message_received")
    assert texts == ["re: one", "re: two"]
    assert len(list(beta.sessions.threads.list(session.id, extra_query={"statuses[]": "idle"}))) == 3


@pytest.mark.parametrize("form", ["coordinator", pytest.param("parts", marks=pytest.mark.skipif(not IS_NEW, reason="newer"))])
def test_an_advisor_is_asked(beta, environment, form):
    off = {"type": "disabled"}
    multiagent = {
        "coordinator": {"type": "coordinator", "agents": [{"type": "advisor", "model": "scripted/echo"}]},
        "parts": {
            "type": "multiagent_20261001",
            "advisor": {"type": "enabled", "model": "scripted/echo"},
            "subagents": off,
            "workflows": off,
        },
    }[form]
    turn = [[{"tool": "consult_advisor", "input": {"question": "Left or right?"}}], [{"text": "done"}]]
    agent = scripted(beta, turn, tools=(), multiagent=multiagent)
    session = opened(beta, environment, agent)
    shown = session.agent.multiagent
    advisor = shown.agents[0] if form == "coordinator" else shown.advisor
    assert advisor.model == "scripted/echo"
    answered(beta, session, message("go"))
    log = listed(beta, session)
    thread = only(log, "session.thread_created").session_thread_id
    primary = next(found for found in beta.sessions.threads.list(session.id) if found.parent_thread_id is None)
    about = [event for event in log if getattr(event, "session_thread_id", thread) != primary.id]
    assert [event.type for event in about if ".thread_" in event.type] == [
        "session.thread_created",
        "session.thread_status_running",
        "agent.thread_message_received",
        "session.thread_status_idle",
        "session.thread_status_terminated",
    ]
    # The advisor that answers with what it was asked shows what that was.
    advice = only(log, "agent.thread_message_received")
    assert (advice.from_session_thread_id, advice.from_agent_name) == (thread, "anthropic.advisor")
    assert "The user said:\ngo" in advice.content[0].text and "Left or right?" in advice.content[0].text
    found = beta.sessions.threads.retrieve(thread, session_id=session.id)
    assert (found.agent.type, found.agent.model, found.parent_thread_id) == ("advisor", "scripted/echo", primary.id)


@pytest.mark.skipif(not IS_NEW, reason="the old SDK has no such form")
def test_agents_are_defined_on_the_fly(beta, environment):
    worker = scripted(beta, [[{"text": "by the worker"}]])
    scout = {
        "name": "Scout",
        # Without placeholders: the coordinator's script would fill them in.
        "system": script(
            [[{"tool": "bash", "input": {"command": "echo by the scout > shared"}}], [{"text": "written"}]],
            [[{"text": "asked again"}]],
        ),
        "tools": ["bash", "ticket"],
        "message": "go",
    }
    turn = [
        [{"tool": "create_agent", "input": scout}, send(worker.id, "go")],
        [send("Scout", "and now?", thread="latest")],
        [{"tool": "bash", "input": {"command": "cat shared"}}],
        [{"text": "{{last_tool_result}}"}],
    ]
    subagents = {"type": "enabled", "predefined_agents": [worker.id]}
    multiagent = {"type": "multiagent_20261001", "subagents": subagents, "workflows": {"type": "disabled"}}
    agent = scripted(beta, turn, tools=(TOOLSET, TICKET), multiagent=multiagent)
    assert agent.multiagent.subagents.inline_agents.type == "enabled"
    assert [member.id for member in agent.multiagent.subagents.predefined_agents] == [worker.id]
    updated = beta.agents.update(agent.id, version=agent.version, multiagent={"type": "multiagent_20261001"})
    assert (updated.version, updated.multiagent) == (agent.version, agent.multiagent)
    session = opened(beta, environment, agent)
    assert [member.name for member in session.agent.multiagent.subagents.predefined_agents] == [worker.name]
    events = answered(beta, session, message("go"))
    assert "by the scout" in only(events, "agent.message").content[0].text
    log = listed(beta, session)
    created = [event.session_thread_id for event in log if event.type == "session.thread_created"]
    threads = {found.id: found for found in beta.sessions.threads.list(session.id)}
    assert set(created) < set(threads) and len(created) == 2
    thread = only([threads[id].agent for id in created], "inline")
    assert (thread.name, thread.system, thread.model.id) == ("Scout", scout["system"], agent.model.id)
    assert [tool.type for tool in thread.tools] == ["agent_toolset_20260401", "custom"]
    assert [config.name for config in thread.tools[0].configs if config.enabled] == ["bash"]
    assert thread.tools[0].default_config.enabled is False
    received = [event for event in log if event.type == "agent.thread_message_received"]
    texts = sorted((event.from_agent_name, event.content[0].text) for event in received)
    assert texts == [("Coder", "by the worker"), ("Scout", "asked again"), ("Scout", "written")]
    # What it is created and asked with is hidden.
    assert [event.name for event in log if event.type == "agent.tool_use"] == ["bash"]


@pytest.mark.skipif(not IS_NEW, reason="the old SDK has no such helper")
def test_the_tool_runner_works_for_threads(server, environment):
    async def run():
        async with connect(server, anthropic.AsyncAnthropic) as client:
            beta = client.beta
            worker = await beta.agents.create(
                name="Worker",
                model="scripted/script",
                system=script([[{"tool": "ticket", "input": {"title": "broken"}}], [{"text": "{{last_tool_result}}"}]]),
                tools=[TICKET],
            )
            agent = await beta.agents.create(
                name="Lead",
                model="scripted/script",
                system=script([[send("Worker", "go")], [{"text": "got {{last_tool_result}}"}]]),
                multiagent={"type": "coordinator", "agents": [worker.id]},
            )
            session = await beta.sessions.create(agent=agent.id, environment_id=environment.id)

            @anthropic.beta_async_tool
            async def ticket(title: str) -> str:
                """Opens a ticket."""
                return f"opened: {title}"

            await beta.sessions.events.send(session.id, events=[message("go")])
            async for _ in beta.sessions.events.tool_runner(session.id, tools=[ticket], max_idle=1):
                pass
            events = [event async for event in beta.sessions.events.list(session.id)]
            assert "opened: broken" in only(events, "agent.message").content[0].text
            assert (await beta.sessions.retrieve(session.id)).status == "idle"

    asyncio.run(run())
