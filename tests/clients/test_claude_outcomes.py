"""Outcomes, system messages and changes of sessions, with Anthropic's SDK in its newest version and in an old one."""

import json

import anthropic
import pytest

from test_claude_client import TOOLSET, answered, beta, client, environment, message, only, scripted  # noqa: F401


def graded(*iterations):
    """A rubric whose grader gives these verdicts, one for each iteration; each is a list of steps."""
    return {"type": "text", "content": f"- It is good.\n```script\n{json.dumps([[steps] for steps in iterations])}\n```\n"}


def verdict(result, explanation="because"):
    return {"verdict": result, "explanation": explanation}


def outcome(rubric, **options):
    return {"type": "user.define_outcome", "description": "A haiku", "rubric": rubric, **options}


def of(events, kind):
    return [event for event in events if event.type == kind]


def open_session(beta, environment, *turns, **options):
    agent = scripted(beta, *turns)
    return beta.sessions.create(agent=agent.id, environment_id=environment.id, **options)


def test_work_is_revised_until_the_grader_is_satisfied(beta, environment):
    session = open_session(beta, environment, [[{"text": "A draft."}]], [[{"text": "Better: {{last_user}}"}]])
    rubric = graded([verdict("needs_revision", "It has no title.")], [verdict("satisfied", "Now it has.")])
    with beta.sessions.events.stream(session.id) as stream:
        sent = beta.sessions.events.send(session.id, events=[outcome(rubric, max_iterations=4)])
        (echo,) = sent.data
        assert echo.type == "user.define_outcome" and echo.outcome_id.startswith("outc_") and echo.processed_at
        assert (echo.rubric.type, echo.max_iterations) == ("text", 4)
        events = []
        for event in stream:
            events.append(event)
            if event.type == "session.status_idle":
                break
    assert only(events, "user.define_outcome").outcome_id == echo.outcome_id
    starts, ends = of(events, "span.outcome_evaluation_start"), of(events, "span.outcome_evaluation_end")
    assert [(end.iteration, end.result, end.explanation) for end in ends] == [
        (0, "needs_revision", "It has no title."),
        (1, "satisfied", "Now it has."),
    ]
    assert [end.outcome_evaluation_start_id for end in ends] == [start.id for start in starts]
    assert {event.outcome_id for event in starts + ends} == {echo.outcome_id}
    assert ends[0].usage.input_tokens > 0
    said = [event.content[0].text for event in of(events, "agent.message")]
    assert said[0] == "A draft." and "It has no title." in said[1]
    read = beta.sessions.retrieve(session.id)
    (evaluation,) = read.outcome_evaluations
    assert (evaluation.outcome_id, evaluation.result, evaluation.iteration) == (echo.outcome_id, "satisfied", 1)
    assert evaluation.completed_at and evaluation.description == "A haiku"
    # The list has what the stream had.
    # (Streams of old versions of the SDK leave out what they do not know.)
    def told(events):
        return [event.id for event in events if event.type != "session.usage"]

    assert told(events) == told(beta.sessions.events.list(session.id))


def test_the_last_iteration_is_followed_by_one_answer(beta, environment):
    session = open_session(beta, environment, [[{"text": "No."}]], [[{"text": "It stays so."}]])
    rubric = graded([verdict("needs_revision")])
    events = answered(beta, session, outcome(rubric, max_iterations=1))
    kinds = [event.type for event in events]
    assert only(events, "span.outcome_evaluation_end").result == "max_iterations_reached"
    assert len(of(events, "agent.message")) == 2
    assert kinds.index("span.outcome_evaluation_end") < len(kinds) - 1 - kinds[::-1].index("agent.message")
    assert only(events, "session.status_idle").stop_reason.type == "end_turn"


def test_a_rubric_may_be_a_file(beta, environment):  # noqa: F811
    text = graded([verdict("satisfied", "as the file says")])["content"]
    uploaded = beta.files.upload(file=("rubric.md", text.encode(), "text/markdown"))
    session = open_session(beta, environment, [[{"text": "Done."}]])
    events = answered(beta, session, outcome({"type": "file", "file_id": uploaded.id}))
    defined = only(events, "user.define_outcome")
    assert (defined.rubric.type, defined.rubric.content) == ("text", text)
    assert only(events, "span.outcome_evaluation_end").explanation == "as the file says"
    for content, said in [(b"x" * (2 << 20), "262144 characters"), (b"\xff", "UTF-8")]:
        bad = beta.files.upload(file=("rubric.md", content, "text/markdown"))
        with pytest.raises(anthropic.BadRequestError, match=f"events.0.rubric.file_id: .*{said}"):
            beta.sessions.events.send(session.id, events=[outcome({"type": "file", "file_id": bad.id})])


def test_a_session_may_begin_with_an_outcome(beta, environment):
    define = outcome(graded([verdict("failed", "The rubric is about cats.")]))
    session = open_session(beta, environment, [[{"text": "Done."}]], initial_events=[define])
    assert session.status == "running"
    with beta.sessions.events.stream(session.id) as stream:
        if beta.sessions.retrieve(session.id).status == "running":
            for event in stream:
                if event.type == "session.status_idle":
                    break
    (evaluation,) = beta.sessions.retrieve(session.id).outcome_evaluations
    assert (evaluation.result, evaluation.explanation) == ("failed", "The rubric is about cats.")
    twice = [define, define]
    with pytest.raises(anthropic.BadRequestError, match="at most one"):
        open_session(beta, environment, [[{"text": "x"}]], initial_events=twice)


def test_one_outcome_at_a_time_and_an_interrupt_ends_it(beta, environment):
    session = open_session(beta, environment, [[{"text": "Done."}]])
    slow = graded([{"delay_ms": 600_000}, verdict("satisfied")])
    with beta.sessions.events.stream(session.id) as stream:
        beta.sessions.events.send(session.id, events=[outcome(slow)])
        for event in stream:
            if event.type == "span.outcome_evaluation_ongoing":
                break
        assert beta.sessions.retrieve(session.id).outcome_evaluations[0].result == "evaluating"
        with pytest.raises(anthropic.BadRequestError, match="has not ended"):
            beta.sessions.events.send(session.id, events=[outcome(slow)])
        beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    assert only(seen, "span.outcome_evaluation_end").result == "interrupted"
    events = answered(beta, session, outcome({"type": "text", "content": "Anything."}))
    assert only(events, "span.outcome_evaluation_end").result == "satisfied"


def test_a_grader_that_can_not_be_asked_ends_the_outcome(beta, environment):
    session = open_session(beta, environment, [[{"text": "Done."}]])
    broken = graded([{"error": {"kind": "request_failed", "message": "no"}}])
    events = answered(beta, session, outcome(broken))
    assert only(events, "span.outcome_evaluation_end").result == "failed"
    assert only(events, "session.status_idle").stop_reason.type == "retries_exhausted"
    # A message starts afresh, without the outcome.
    events = answered(beta, session, message("And now?"))
    assert not of(events, "span.outcome_evaluation_start")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"max_iterations": 21}, "max_iterations"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"description": ""}, "description"),
        ({"rubric": {"type": "text", "content": ""}}, "rubric"),
        ({"rubric": {"type": "text", "content": "x", "more": 1}}, "Extra inputs"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_bad_outcomes(beta, environment, fields, match):
    session = open_session(beta, environment, [[{"text": "x"}]])
    with pytest.raises(anthropic.BadRequestError, match=match):
        beta.sessions.events.send(session.id, events=[outcome({"type": "text", "content": "r"}) | fields])
    assert not list(beta.sessions.events.list(session.id))


def system(text):
    return {"type": "system.message", "content": [{"type": "text", "text": text}]}


def test_a_system_message_reaches_the_model(beta, environment):
    session = open_session(beta, environment, [[{"text": "told: {{last_system}}, asked: {{last_user}}"}]])
    events = answered(beta, session, message("hello"), system("be kind"))
    assert only(events, "agent.message").content[0].text == "told: be kind, asked: hello"
    kinds = [event.type for event in events]
    assert kinds.index("system.message") == kinds.index("user.message") + 1
    for bad in [
        [system("x")],
        [system("x"), message("y")],
        [message("y"), system("x"), system("z")],
        [{"type": "user.interrupt"}, system("x")],
    ]:
        with pytest.raises(anthropic.BadRequestError, match="system.message"):
            beta.sessions.events.send(session.id, events=bad)


def test_a_session_gets_other_tools_for_itself(beta, environment):
    session = open_session(beta, environment, [[{"tool": "bash", "input": {"command": "true"}}], [{"text": "done"}]])
    off = [{"type": "agent_toolset_20260401", "configs": [{"name": "bash", "enabled": False}]}]
    updated = beta.sessions.update(session.id, extra_body={"agent": {"tools": off}})
    assert updated.agent.tools[0].configs[0].enabled is False
    events = answered(beta, session, message("go"))
    assert only(events, "agent.tool_use").evaluated_permission == "deny"
    (change,) = [event for event in beta.sessions.events.list(session.id) if event.type == "session.updated"]
    raw = change.to_dict()
    assert raw["agent"]["id"] == session.agent.id and "title" not in raw
    assert beta.agents.retrieve(session.agent.id).tools[0].configs == []
    with pytest.raises(anthropic.BadRequestError, match="mcp_toolset"):
        beta.sessions.update(session.id, extra_body={"agent": {"mcp_servers": [{"type": "url", "name": "a", "url": "https://a.org"}]}})


def test_budgets_need_a_price_and_come_with_the_session(beta, environment):
    limit = {"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}}
    agent = scripted(beta, [[{"text": "x"}]])
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.sessions.create(agent=agent.id, environment_id=environment.id, extra_body={"budget": limit})
    assert refused.value.body["error"]["details"]["error_code"] == "model_not_budgetable"
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.sessions.update(session.id, extra_body={"budget": limit})
    assert refused.value.body["error"]["details"]["error_code"] == "budget_create_only"
    assert beta.sessions.update(session.id, extra_body={"budget": None}).id == session.id


def test_web_tools_have_limits(beta, environment):
    fetch = {
        "name": "web_fetch",
        "allowed_domains": ["example.com"],
        "max_content_tokens": 1000,
        "url_sources": {"user_input": "all", "server_tool_results": {"type": "only", "tools": [{"type": "tool_reference", "name": "web_search"}]}},
    }
    search = {"name": "web_search", "blocked_domains": ["example.org/docs"], "user_location": {"type": "approximate", "country": "at"}}
    tools = [{"type": "agent_toolset_20260401", "configs": [fetch, search]}]
    turns = [
        [{"tool": "web_fetch", "input": {"url": "https://elsewhere.org/x"}}],
        [{"tool": "web_fetch", "input": {"url": "https://example.com/unheard"}}],
        [{"text": "done"}],
    ]
    agent = scripted(beta, turns, tools=tools)
    configs = [config.to_dict() for config in agent.tools[0].configs]
    assert configs[0]["allowed_domains"] == ["example.com"] and configs[0]["max_content_tokens"] == 1000
    assert configs[0]["url_sources"] == {
        "user_input": {"type": "all"},
        "client_tool_results": None,
        "server_tool_results": {"type": "only", "tools": [{"type": "tool_reference", "name": "web_search"}]},
    }
    assert configs[1]["user_location"]["country"] == "AT"
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    events = answered(beta, session, message("Read https://elsewhere.org/x for me."))
    results = of(events, "agent.tool_result")
    assert all(result.is_error and "url_not_allowed" in result.content[0].text for result in results), results
    assert len(results) == 2
    for bad in [
        {"name": "web_fetch", "allowed_domains": []},
        {"name": "web_fetch", "allowed_domains": ["a.org"], "blocked_domains": ["b.org"]},
        {"name": "web_fetch", "allowed_domains": ["a.org/docs"]},
        {"name": "web_fetch", "allowed_domains": ["10.0.0.1"]},
        {"name": "web_fetch", "allowed_domains": ["localhost"]},
        {"name": "web_fetch", "allowed_domains": ["db.internal"]},
        {"name": "web_fetch", "allowed_domains": ["com"]},
        {"name": "web_fetch", "allowed_domains": ["a.org", "A.org"]},
        {"name": "web_fetch", "allowed_domains": ["https://a.org"]},
        {"name": "web_fetch", "user_location": {"type": "approximate"}},
        {"name": "web_fetch", "url_sources": {"user_input": "none", "client_tool_results": "none", "server_tool_results": "none"}},
        {"name": "web_search", "max_content_tokens": 5},
        {"name": "bash", "allowed_domains": ["a.org"]},
    ]:
        with pytest.raises(anthropic.BadRequestError):
            scripted(beta, [[{"text": "x"}]], tools=[{"type": "agent_toolset_20260401", "configs": [bad]}])


def test_a_search_result_comes_back_as_it_was(beta, environment):
    custom = {"type": "custom", "name": "find", "description": "Finds.", "input_schema": {"type": "object"}}
    agent = scripted(
        beta, [[{"tool": "find", "input": {}}], [{"text": "{{last_tool_result}}"}]], tools=[TOOLSET, custom]
    )
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    use = only(events, "agent.custom_tool_use")
    found = {
        "type": "search_result",
        "source": "https://a.org",
        "title": "A",
        "content": [{"type": "text", "text": "all about A"}],
        "citations": {"enabled": True},
    }
    result = {"type": "user.custom_tool_result", "custom_tool_use_id": use.id, "content": [found]}
    events = answered(beta, session, result)
    assert only(events, "user.custom_tool_result").to_dict()["content"] == [found]
    assert "all about A" in only(events, "agent.message").content[0].text
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.events.send(session.id, events=[result])
