"""Events that clients may send and what becomes of them, at moments and in shapes that the other suites leave out."""

import anthropic
import httpx
import pytest

from test_claude_client import (  # noqa: F401 (fixtures)
    IS_NEW,
    TICKET,
    TOOLSET,
    answered,
    beta,
    client,
    environment,
    message,
    only,
    scripted,
)

ASK = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
RUN = {"tool": "bash", "input": {"command": "echo ran"}}


def opened(beta, environment, *turns, **options):  # noqa: F811
    return beta.sessions.create(agent=scripted(beta, *turns, **options).id, environment_id=environment.id)


def of(events, kind):
    return [event for event in events if event.type == kind]


def refused(beta, session, event, match):  # noqa: F811
    with pytest.raises(anthropic.BadRequestError, match=match):
        beta.sessions.events.send(session.id, events=[event])


def confirmation(use, result="allow", **more):
    return {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": result} | more


def test_answers_that_fit_nothing_are_refused(beta, environment):  # noqa: F811
    session = opened(beta, environment, [[RUN], [{"text": "done"}]])
    use = only(answered(beta, session, message("go")), "agent.tool_use")
    assert use.evaluated_permission == "allow"
    before = [event.id for event in beta.sessions.events.list(session.id)]
    refused(beta, session, confirmation(use), "tool_use_id")
    result = {"type": "user.tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "x"}]}
    refused(beta, session, result, "tool_use_id|self-hosted|self_hosted")
    refused(beta, session, {"type": "user.message", "content": [{"type": "redacted"}]}, "content")
    refused(beta, session, {"type": "user.message", "content": []}, "content")
    refused(beta, session, {"type": "agent.message", "content": [{"type": "text", "text": "x"}]}, "type")
    # One event of several that is wrong is enough.
    with pytest.raises(anthropic.BadRequestError, match="events.1"):
        beta.sessions.events.send(session.id, events=[message("fine"), message("bad") | {"surprise": 1}])
    with pytest.raises(anthropic.BadRequestError, match="events"):
        beta.sessions.events.send(session.id, events=[])
    assert [event.id for event in beta.sessions.events.list(session.id)] == before
    asking = opened(beta, environment, [[RUN], [{"text": "done"}]], tools=[ASK])
    use = only(answered(beta, asking, message("go")), "agent.tool_use")
    refused(beta, asking, confirmation(use, deny_message="why not"), "deny_message")
    refused(beta, asking, confirmation(use, "perhaps"), "result")
    assert answered(beta, asking, confirmation(use))[-1].stop_reason.type == "end_turn"


def test_an_interrupt_closes_what_waits_without_asking_the_model(beta, environment):  # noqa: F811
    session = opened(beta, environment, [[RUN], [{"text": "never"}]], [[{"text": "next"}]], tools=[ASK])
    use = only(answered(beta, session, message("go")), "agent.tool_use")
    events = answered(beta, session, {"type": "user.interrupt"})
    result = only(events, "agent.tool_result")
    assert (result.tool_use_id, result.is_error) == (use.id, True)
    assert not of(events, "span.model_request_start") and not of(events, "agent.message")
    assert events[-1].stop_reason.type == "end_turn"
    assert only(answered(beta, session, message("on")), "agent.message").content[0].text == "next"


def test_an_interrupt_while_nothing_goes_on_is_echoed_and_forgotten(beta, environment):  # noqa: F811
    session = opened(beta, environment, [[{"text": "hi"}]])
    (echo,) = beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}]).data
    assert echo.type == "user.interrupt"
    assert list(beta.sessions.events.list(session.id)) == []
    assert beta.sessions.retrieve(session.id).status == "idle"


def test_a_message_to_a_running_session_waits(beta, environment):  # noqa: F811
    session = opened(beta, environment, [[{"text": "begun "}, {"delay_ms": 600_000}]], [[{"text": "re: {{last_user}}"}]])
    with beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream:
        beta.sessions.events.send(session.id, events=[message("first")])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "event_delta" and len(of(seen, "event_delta")) == 1:
                assert beta.sessions.retrieve(session.id).status == "running"
                (echo,) = beta.sessions.events.send(session.id, events=[message("second")]).data
                assert echo.processed_at is None
                waiting = list(beta.sessions.events.list(session.id))[-1]
                assert (waiting.id, waiting.processed_at) == (echo.id, None)
                beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
            if event.type == "session.status_idle" and len(of(seen, "agent.message")) == 2:
                break
    assert of(seen, "agent.message")[1].content[0].text == "re: second"
    processed = [event for event in beta.sessions.events.list(session.id) if event.id == echo.id]
    assert [event.processed_at is not None for event in processed] == [True]


def test_a_custom_tool_is_answered_before_the_session_is_idle(beta, environment):  # noqa: F811
    opens = {"tool": "open_ticket", "input": {"title": "it broke"}}
    session = opened(beta, environment, [[opens], [{"text": "{{last_tool_result}}"}]], tools=[TICKET])
    with beta.sessions.events.stream(session.id) as stream:
        beta.sessions.events.send(session.id, events=[message("go")])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "agent.custom_tool_use":
                content = [{"type": "text", "text": "No. 1"}]
                result = {"type": "user.custom_tool_result", "custom_tool_use_id": event.id, "content": content}
                (echo,) = beta.sessions.events.send(session.id, events=[result]).data
                assert echo.processed_at is not None
            if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                break
    assert only(seen, "agent.message").content[0].text == "No. 1"


def test_the_policy_auto_asks_and_says_why(beta, environment):  # noqa: F811
    auto = TOOLSET | {"default_config": {"permission_policy": {"type": "auto"}}}
    session = opened(beta, environment, [[RUN], [{"text": "{{last_tool_result}}"}]], tools=[auto])
    use = only(answered(beta, session, message("go")), "agent.tool_use")
    assert use.evaluated_permission == "ask"
    assert use.to_dict()["evaluation"] == {
        "type": "auto",
        "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
    }
    assert "ran" in only(answered(beta, session, confirmation(use)), "agent.message").content[0].text


def test_thinking_is_announced_and_never_shown(beta, environment):  # noqa: F811
    session = opened(beta, environment, [[{"thinking": "a private thought"}, {"text": "a word"}]])
    events = answered(beta, session, message("go"), event_deltas=["agent.thinking"])
    begun = only(events, "event_start").event
    assert (begun.type, begun.id) == ("agent.thinking", only(events, "agent.thinking").id)
    assert not of(events, "event_delta")
    assert "private" not in "".join(event.to_json() for event in events)


def test_streams_that_can_not_be(client, beta, environment):  # noqa: F811
    session = opened(beta, environment, [[{"text": "hi"}]])
    for deltas in (["agent.tool_use"], ["agent.message"] * 101):
        with pytest.raises(anthropic.BadRequestError, match="event_deltas"):
            beta.sessions.events.stream(session.id, event_deltas=deltas)
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.events.stream("ses_nobody")
    beta.sessions.delete(session.id)
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.events.stream(session.id)


@pytest.mark.skipif(not IS_NEW, reason="older SDKs leave some of these events out of streams")
def test_what_happens_to_a_session_is_streamed(server, beta, environment):  # noqa: F811
    session = opened(beta, environment, [[{"text": "word " * 50}]], [[{"text": "more"}]])
    answered(beta, session, message("go"))
    with beta.sessions.events.stream(session.id) as stream:
        beta.sessions.update(session.id, title="T", metadata={"k": "v"})
        # Asked for in the other dialect, since this one has no request for it.
        compacted = httpx.post(f"{server.url}/v1/sessions/{session.id}/compact", trust_env=False, timeout=30)
        assert compacted.status_code < 300, compacted.text
        beta.sessions.events.send(session.id, events=[message("on")])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle" and of(seen, "agent.message"):
                beta.sessions.archive(session.id)
            if event.type == "session.status_terminated":
                break
    change = only(seen, "session.updated").to_dict()
    assert (change["title"], change["metadata"]) == ("T", {"k": "v"}) and "agent" not in change
    assert only(seen, "agent.thread_context_compacted").processed_at
    assert only(seen, "session.thread_status_terminated").session_thread_id
    assert [event.to_dict() for event in beta.sessions.events.list(session.id)][-len(seen) :] == [
        event.to_dict() for event in seen
    ]


def test_a_thread_has_a_stream_of_its_own(beta, environment):  # noqa: F811
    worker = scripted(beta, [[RUN], [{"text": "{{last_tool_result}}"}]], tools=[ASK])
    send = {"tool": "send_to_agent", "input": {"agent": worker.id, "message": "go"}}
    lead = scripted(
        beta,
        [[send], [{"text": "{{last_tool_result}}"}]],
        multiagent={"type": "coordinator", "agents": [worker.id]},
    )
    session = beta.sessions.create(agent=lead.id, environment_id=environment.id)
    use = only(answered(beta, session, message("go")), "agent.tool_use")
    thread = use.session_thread_id
    seen = []
    with beta.sessions.threads.events.stream(thread, session_id=session.id, event_deltas=["agent.message"]) as stream:
        beta.sessions.events.send(session.id, events=[confirmation(use)])
        for event in stream:
            seen.append(event)
            if event.type == "session.thread_status_idle" and event.stop_reason.type == "end_turn":
                break
    whole = only(seen, "agent.message").content[0].text
    pieces = [event.delta.content.text for event in of(seen, "event_delta")]
    assert whole.strip() == "ran" and pieces and whole.startswith("".join(pieces))
    own = [event.id for event in beta.sessions.threads.events.list(thread, session_id=session.id)]
    logged = [event.id for event in seen if not event.type.startswith("event_")]
    assert own[-len(logged) :] == logged
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.threads.events.stream("sthr_nobody", session_id=session.id)
    # The thread of another session is none of this one's.
    other = beta.sessions.create(agent=lead.id, environment_id=environment.id)
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.threads.retrieve(thread, session_id=other.id)


def test_members_that_can_not_be(beta):  # noqa: F811
    plain = scripted(beta, [])
    nested = scripted(beta, [], multiagent={"type": "coordinator", "agents": [plain.id]})
    gone = scripted(beta, [])
    beta.agents.archive(gone.id)
    for members in ([nested.id], [plain.id, plain.id], [gone.id], ["agent_nobody"], [], [plain.id] * 21):
        with pytest.raises(anthropic.APIStatusError) as wrong:
            scripted(beta, [], multiagent={"type": "coordinator", "agents": members})
        assert wrong.value.status_code in (400, 404), members
        assert "multiagent" in str(wrong.value), wrong.value
