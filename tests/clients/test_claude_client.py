"""Anthropic's SDK, with nothing changed but the base URL and the key. Runs with the newest version and with an old one,
which knows less of the API."""

import asyncio
import datetime
import json
import uuid

import anthropic
import httpx
import pytest

from conftest import Server, script

TOOLSET = {"type": "agent_toolset_20260401"}
NO_MATTER = "unused"
# Before that, the key goes into another header, and streams leave out the events that are not known.
IS_NEW = int(anthropic.__version__.split(".")[0]) >= 2


def connect(server, kind=anthropic.Anthropic):
    """A client; the newest one checks that every response and every event is of the type that the SDK says."""
    return kind(
        base_url=server.url,
        api_key=server.token or NO_MATTER,
        max_retries=0,
        _strict_response_validation=IS_NEW,
    )


@pytest.fixture()
def client(server):
    with connect(server) as client:
        yield client


@pytest.fixture()
def beta(client):
    return client.beta


@pytest.fixture(scope="session")
def environment(server):
    with connect(server) as client:
        return client.beta.environments.create(name=f"tests {uuid.uuid4()}")


def scripted(beta, *turns, tools=(TOOLSET,), **options):
    return beta.agents.create(
        name="Coder", model="scripted/script", system=script(*turns), tools=list(tools), **options
    )


def message(text):
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def answered(beta, session, *events, **options):
    """Posts events and gives what is streamed until the session is idle."""
    seen = []
    with beta.sessions.events.stream(session.id, **options) as stream:
        beta.sessions.events.send(session.id, events=list(events))
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                return seen
    raise AssertionError(f"the stream ended: {seen}")


def only(events, kind):
    found = [event for event in events if event.type == kind]
    assert len(found) == 1, [event.type for event in events]
    return found[0]


def test_agents(beta):
    agent = beta.agents.create(
        name="A",
        model={"id": "scripted/echo", "effort": "low"},
        system="Be brief.",
        metadata={"a": "1"},
        tools=[TOOLSET | {"configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]}],
    )
    assert (agent.type, agent.version, agent.model.id, agent.model.effort.type) == ("agent", 1, "scripted/echo", "low")
    assert agent.tools[0].default_config.enabled is True
    assert agent.tools[0].configs[0].permission_policy.type == "always_ask"
    assert (agent.skills, agent.mcp_servers, agent.archived_at) == ([], [], None)
    assert isinstance(agent.created_at, datetime.datetime)

    same = beta.agents.update(agent.id, version=1, name="A")
    assert same.version == 1
    second = beta.agents.update(agent.id, version=1, system=None, metadata={"a": None, "b": "2"})
    assert (second.version, second.system, second.metadata) == (2, None, {"b": "2"})
    with pytest.raises(anthropic.ConflictError) as stale:
        beta.agents.update(agent.id, version=1, name="B")
    assert stale.value.response.headers["x-should-retry"] == "false"
    assert stale.value.request_id and stale.value.body["error"]["type"] == "conflict_error"
    assert beta.agents.retrieve(agent.id, version=1).system == "Be brief."
    assert [version.version for version in beta.agents.versions.list(agent.id, limit=1)] == [2, 1]

    archived = beta.agents.archive(agent.id)
    assert archived.archived_at is not None
    assert agent.id not in [found.id for found in beta.agents.list(limit=2)]
    assert agent.id in [found.id for found in beta.agents.list(include_archived=True, created_at_gte=agent.created_at)]
    with pytest.raises(anthropic.BadRequestError):
        beta.agents.update(agent.id, name="B")
    with pytest.raises(anthropic.NotFoundError):
        beta.agents.retrieve("agent_nobody")
    with pytest.raises(anthropic.BadRequestError) as unknown:
        beta.agents.create(name="A", model="scripted/echo", extra_body={"temperature": 1})
    assert "temperature: Extra inputs are not permitted" in str(unknown.value)


def test_environments(beta):
    name = f"mine {uuid.uuid4()}"
    made = beta.environments.create(name=name, description="d", config={"type": "cloud"})
    assert made.config.networking.type == "unrestricted" and made.config.packages.pip == []
    with pytest.raises(anthropic.ConflictError):
        beta.environments.create(name=name)
    assert beta.environments.update(made.id, description=None, metadata={"k": "v"}).metadata == {"k": "v"}
    assert beta.environments.retrieve(made.id).description is None
    assert made.id in [found.id for found in beta.environments.list()]
    assert beta.environments.archive(made.id).archived_at is not None
    with pytest.raises(anthropic.BadRequestError):
        beta.environments.update(made.id, name="late")
    assert beta.environments.delete(made.id).type == "environment_deleted"
    with pytest.raises(anthropic.BadRequestError):
        beta.environments.create(name=name, config={"type": "mainframe"})


def test_a_turn_with_a_tool(beta, environment):
    agent = scripted(
        beta,
        [
            [{"thinking": "hm"}, {"tool": "bash", "input": {"command": "echo over there"}}],
            [{"text": "It says: {{last_tool_result}}"}],
        ],
    )
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id, title="T", metadata={"k": "v"})
    assert (session.status, session.agent.version, session.usage.input_tokens) == ("idle", 1, 0)
    events = answered(beta, session, message("go"))
    kinds = [
        "session.status_running",
        "session.thread_status_running",
        "user.message",
        "span.model_request_start",
        "agent.thinking",
        "agent.tool_use",
        "span.model_request_end",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.thread_status_idle",
        "session.usage",
        "session.status_idle",
    ]
    assert [event.type for event in events] == [kind for kind in kinds if IS_NEW or kind != "session.usage"]
    assert only(events, "agent.message").content[0].text.strip() == "It says: over there"
    use, result = only(events, "agent.tool_use"), only(events, "agent.tool_result")
    assert (use.name, use.input, use.evaluated_permission) == ("bash", {"command": "echo over there"}, "allow")
    assert (result.tool_use_id, result.is_error) == (use.id, False)
    assert events[-1].stop_reason.type == "end_turn"
    listed = list(beta.sessions.events.list(session.id, limit=3))
    assert [event.type for event in listed] == kinds
    assert [event.to_dict() for event in listed if IS_NEW or event.type != "session.usage"] == [
        event.to_dict() for event in events
    ]
    messages = list(beta.sessions.events.list(session.id, types=["agent.message", "user.message"], order="desc"))
    assert [event.type for event in messages] == ["agent.message", "user.message"]
    after = beta.sessions.retrieve(session.id)
    assert after.usage.output_tokens == only(listed, "session.usage").usage.output_tokens > 0
    assert after.stats.active_seconds > 0


def test_previews_add_up(beta, environment):
    from anthropic.lib.sessions import accumulate_managed_agents_event

    agent = beta.agents.create(name="Echo", model="scripted/echo")
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    text = "word " * 200
    events = answered(beta, session, message(text), event_deltas=["agent.message", "agent.thinking"])
    shown, lengths = None, []
    for event in events:
        shown = accumulate_managed_agents_event(shown, event)
        if event.type == "event_delta":
            so_far = shown.content[0].text
            assert text.startswith(so_far)
            lengths.append(len(so_far))
    assert len(lengths) > 1 and lengths == sorted(lengths)
    assert shown.content[0].text == text and shown.id == only(events, "event_start").event.id


def test_confirmations(beta, environment):
    ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
    run = {"tool": "bash", "input": {"command": "echo done"}}
    agent = scripted(beta, [[run, run], [{"text": "{{last_tool_result}}"}]], tools=[ask])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    uses = [event for event in events if event.type == "agent.tool_use"]
    assert [use.evaluated_permission for use in uses] == ["ask"] * 2
    assert [use.to_dict()["evaluation"] for use in uses] == [{"type": "always_ask"}] * 2
    assert events[-1].stop_reason.event_ids == [use.id for use in uses]
    with pytest.raises(anthropic.BadRequestError) as waiting:
        beta.sessions.events.send(session.id, events=[message("more")])
    assert "waiting on responses to events" in str(waiting.value)
    answer = lambda use, **more: {"type": "user.tool_confirmation", "tool_use_id": use.id} | more
    first = answered(beta, session, answer(uses[0], result="deny", deny_message="no"))
    assert first[-1].stop_reason.event_ids == [uses[1].id]
    last = answered(beta, session, answer(uses[1], result="allow"))
    results = {event.tool_use_id: event for event in first + last if event.type == "agent.tool_result"}
    assert results[uses[0].id].is_error and "no" in results[uses[0].id].content[0].text
    assert results[uses[1].id].content[0].text.strip() == "done"
    assert last[-1].stop_reason.type == "end_turn"
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(session.id, events=[answer(uses[1], result="allow")])


def test_interrupt_keeps_what_was_said_and_the_next_message_follows(beta, environment):
    agent = scripted(beta, [[{"text": "begun "}, {"delay_ms": 600_000}]], [[{"text": "second"}]])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    seen = []
    with beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream:
        beta.sessions.events.send(session.id, events=[message("go")])
        for event in stream:
            seen.append(event)
            if event.type == "event_delta" and len([e for e in seen if e.type == "event_delta"]) == 1:
                sent = beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}, message("on")])
                assert [echo.type for echo in sent.data] == ["user.interrupt", "user.message"]
            if event.type == "session.status_idle" and any(
                e.type == "agent.message" and e.content[0].text == "second" for e in seen
            ):
                break
    stops = [event.stop_reason.type for event in seen if event.type == "session.status_idle"]
    assert stops == ["end_turn", "end_turn"]
    assert [e.content[0].text for e in seen if e.type == "agent.message"] == ["begun ", "second"]


TICKET = {
    "type": "custom",
    "name": "open_ticket",
    "description": "Opens a ticket",
    "input_schema": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
}


def ticket_agent(beta):
    opens = {"tool": "open_ticket", "input": {"title": "it broke"}}
    return scripted(beta, [[opens], [{"text": "Ticket: {{last_tool_result}}"}]], tools=[TICKET])


def test_custom_tools_by_hand(beta, environment):
    session = beta.sessions.create(agent=ticket_agent(beta).id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    use = only(events, "agent.custom_tool_use")
    assert (use.name, use.input) == ("open_ticket", {"title": "it broke"})
    assert events[-1].stop_reason.event_ids == [use.id]
    result = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": use.id,
        "content": [{"type": "text", "text": "No. 7"}],
    }
    events = answered(beta, session, result)
    assert only(events, "user.custom_tool_result").custom_tool_use_id == use.id
    assert only(events, "agent.message").content[0].text == "Ticket: No. 7"
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(session.id, events=[result])


def test_the_tool_runner(server, environment):
    async def run():
        opened = []

        @anthropic.beta_async_tool
        async def open_ticket(title: str) -> str:
            """Opens a ticket.

            Args:
                title: What it is about.
            """
            opened.append(title)
            return "No. 8"

        async with connect(server, anthropic.AsyncAnthropic) as client:
            agent = await client.beta.agents.create(
                name="Clerk",
                model="scripted/script",
                system=script(
                    [
                        [{"tool": "open_ticket", "input": {"title": "it broke"}}],
                        [{"text": "Ticket: {{last_tool_result}}"}],
                    ]
                ),
                tools=[TICKET],
            )
            session = await client.beta.sessions.create(
                agent=agent.id, environment_id=environment.id, initial_events=[message("go")]
            )
            runner = client.beta.sessions.events.tool_runner(session.id, tools=[open_ticket], max_idle=0.2)
            async for call in runner:
                assert call.name == "open_ticket"
            assert opened == ["it broke"]
            said = [e async for e in client.beta.sessions.events.list(session.id, types=["agent.message"])]
            assert said[-1].content[0].text == "Ticket: No. 8"

    asyncio.run(asyncio.wait_for(run(), 60))


def test_sessions_are_listed_updated_and_archived(beta, environment):
    agent = beta.agents.create(name="Echo", model="scripted/echo")
    made = [
        beta.sessions.create(agent={"type": "agent", "id": agent.id, "version": 1}, environment_id=environment.id)
        for _ in range(3)
    ]
    ids = [session.id for session in reversed(made)]
    assert [session.id for session in beta.sessions.list(agent_id=agent.id, limit=1)] == ids
    page = beta.sessions.list(agent_id=agent.id, limit=2, order="asc")
    assert page.next_page and page.prev_page is None
    second = beta.sessions.list(agent_id=agent.id, limit=2, order="asc", page=page.next_page)
    back = beta.sessions.list(agent_id=agent.id, limit=2, order="asc", page=second.prev_page)
    assert [session.id for session in back.data] == [session.id for session in page.data]
    assert beta.sessions.list(agent_id=agent.id, statuses=["running"]).data == []
    assert len(beta.sessions.list(agent_id=agent.id, statuses=["idle", "running"]).data) == 3

    one = beta.sessions.update(made[0].id, title="New", metadata={"k": "v"})
    assert (one.title, one.metadata) == ("New", {"k": "v"})
    gone = beta.sessions.archive(one.id)
    assert gone.status == "terminated" and gone.archived_at is not None
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(one.id, events=[message("late")])
    kinds = [event.type for event in beta.sessions.events.list(one.id)]
    assert kinds == ["session.updated", "session.thread_status_terminated", "session.status_terminated"]
    assert one.id not in [session.id for session in beta.sessions.list(agent_id=agent.id)]
    assert len(beta.sessions.list(agent_id=agent.id, include_archived=True).data) == 3

    seen = []
    with beta.sessions.events.stream(one.id) as stream:
        assert beta.sessions.delete(one.id).type == "session_deleted"
        seen = [event.type for event in stream]
    assert seen == ["session.deleted"]
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.retrieve(one.id)


def test_overrides_hold_for_their_session_only(beta, environment):
    agent = scripted(beta, [[{"text": "as it was"}]])
    session = beta.sessions.create(
        agent={"type": "agent_with_overrides", "id": agent.id, "model": "scripted/echo", "system": None, "tools": []},
        environment_id=environment.id,
    )
    assert (session.agent.model.id, session.agent.system, session.agent.tools) == ("scripted/echo", None, [])
    assert only(answered(beta, session, message("hello")), "agent.message").content[0].text == "hello"
    assert beta.agents.retrieve(agent.id).model.id == "scripted/script"


def test_threads(server, beta, environment):
    from openclaw_managed_agents import OpenClawClient

    worker = beta.agents.create(name="Worker", model="scripted/echo")
    asks = {"tool": "call_agent", "input": {"agent": worker.id, "task": "say this"}}
    with OpenClawClient(base_url=server.url) as native:
        lead = native.agents.create(
            model="scripted/script",
            instructions=script([[asks], [{"text": "{{last_tool_result}}"}]]),
            callable_agents=[worker.id],
            max_subagent_depth=1,
        )
    session = beta.sessions.create(agent=lead.agent_id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    assert only(events, "agent.message").content[0].text == "say this"
    primary, child = list(beta.sessions.threads.list(session.id))
    assert (primary.parent_thread_id, child.parent_thread_id) == (None, primary.id)
    assert (child.agent.name, child.status, child.session_id) == ("Worker", "idle", session.id)
    assert only(events, "session.thread_status_running").session_thread_id == primary.id
    own = list(beta.sessions.threads.events.list(child.id, session_id=session.id))
    assert only(own, "user.message").content[0].text == only(own, "agent.message").content[0].text == "say this"
    assert session.id in [found.id for found in beta.sessions.list()]
    assert len([found for found in beta.sessions.list() if found.agent.id == worker.id]) == 0
    archived = beta.sessions.threads.archive(child.id, session_id=session.id)
    assert (archived.status, archived.id) == ("terminated", child.id)
    assert beta.sessions.threads.retrieve(primary.id, session_id=session.id).usage.output_tokens > 0


def test_a_custom_tool_is_awaited_across_a_crash():
    server = Server()
    server.start()
    try:
        with connect(server) as client:
            place = client.beta.environments.create(name="e")
            session = client.beta.sessions.create(agent=ticket_agent(client.beta).id, environment_id=place.id)
            use = only(answered(client.beta, session, message("go")), "agent.custom_tool_use")
        server.process.kill()
        server.process.wait()
        server.start()
        with connect(server) as client:
            assert client.beta.sessions.retrieve(session.id).status == "idle"
            result = {
                "type": "user.custom_tool_result",
                "custom_tool_use_id": use.id,
                "content": [{"type": "text", "text": "No. 7"}],
            }
            events = answered(client.beta, session, result)
            assert only(events, "agent.message").content[0].text == "Ticket: No. 7"
        server.stop()
    finally:
        server.remove()


def test_errors_of_the_model(beta, environment):
    failing = scripted(beta, [[{"error": {"kind": "request_failed", "message": "no such thing"}}]])
    session = beta.sessions.create(agent=failing.id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    error = only(events, "session.error").error
    assert (error.type, error.retry_status.type) == ("model_request_failed_error", "exhausted")
    assert "no such thing" in error.message
    assert events[-1].stop_reason.type == "retries_exhausted"
    declining = scripted(beta, [[{"text": "No."}, {"stop": "refusal", "explanation": "I can't."}]])
    session = beta.sessions.create(agent=declining.id, environment_id=environment.id)
    idle = answered(beta, session, message("go"))[-1]
    assert (idle.stop_reason.type, idle.to_dict()["stop_details"]["explanation"]) == ("refusal", "I can't.")


def test_a_stream_resumes_without_loss_or_repeats(server, beta, environment):
    agent = beta.agents.create(name="Echo", model="scripted/echo")
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    answered(beta, session, message("one"))
    events = [event.to_dict() for event in beta.sessions.events.list(session.id)]
    headers = {"anthropic-version": "2023-06-01", "last-event-id": events[3]["id"]}
    url = f"{server.url}/v1/sessions/{session.id}/events/stream"
    resumed = []
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=30) as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and (data := json.loads(line[6:]))["type"] != "ping":
                resumed.append(data["id"])
                if len(resumed) == len(events) - 4:
                    break
    assert resumed == [event["id"] for event in events[4:]]


def test_keys(guarded):
    with connect(guarded) as client:
        assert client.beta.agents.list().data == []
    for header, value in (("x-api-key", guarded.token), ("authorization", f"Bearer {guarded.token}")):
        headers = {"anthropic-version": "2023-06-01", header: value}
        assert httpx.get(f"{guarded.url}/v1/agents", headers=headers, trust_env=False).json()["data"] == []
    with anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client.beta.agents.list()
        assert refused.value.type == "authentication_error"


def test_what_is_not_there_says_so(beta):
    for call in (lambda: beta.dreams.list(),):
        with pytest.raises(anthropic.NotFoundError) as missing:
            call()
        assert missing.value.body["error"]["type"] == "not_found_error" and missing.value.request_id


def test_agents_are_the_same_in_both_dialects(server, beta):
    from openclaw_managed_agents import OpenClawClient

    with OpenClawClient(base_url=server.url) as native:
        made = native.agents.create(model="scripted/echo", instructions="Be brief.", tools=["bash"])
        seen = beta.agents.retrieve(made.agent_id)
        assert (seen.model.id, seen.system, seen.name) == ("scripted/echo", "Be brief.", made.agent_id)
        off = [config.name for config in seen.tools[0].configs if not config.enabled]
        assert "read" in off and "bash" not in off
        mine = beta.agents.create(name="Mine", model="claude-sonnet-5", tools=[TOOLSET])
        found = native.agents.get(mine.id)
        assert (found.model, found.name) == ("anthropic/claude-sonnet-5", "Mine")
