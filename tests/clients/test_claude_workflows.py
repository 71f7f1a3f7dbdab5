"""Agents whose programs have others work, with Anthropic's SDK. Where the old SDK does not know the events, the test is left
to the new one."""

import uuid

import anthropic
import pytest

from conftest import script
from test_claude_client import IS_NEW, answered, connect, message, only, scripted

pytestmark = pytest.mark.skipif(not IS_NEW, reason="the old SDK knows no workflow runs")

DISABLED = {"type": "disabled"}


@pytest.fixture()
def beta(server):
    with connect(server) as client:
        yield client.beta


@pytest.fixture(scope="module")
def environment(server):
    with connect(server) as client:
        return client.beta.environments.create(name=f"workflows {uuid.uuid4()}")


def runs(program, phases=()):
    phases = [{"name": name, "description": f"the phase {name}"} for name in phases]
    return {"tool": "run_workflow", "input": {"name": "A run", "phases": phases, "program": program}}


def lead(beta, members, *turns):
    workflows = {"type": "enabled", "predefined_agents": [member.id for member in members], "inline_agents": DISABLED}
    multiagent = {"type": "multiagent_20261001", "subagents": DISABLED, "workflows": workflows}
    return scripted(beta, *turns, multiagent=multiagent)


def listed(beta, session):
    return list(beta.sessions.events.list(session.id))


def of_runs(events):
    return [event for event in events if event.type.startswith("workflow_run.")]


def test_a_run_is_streamed_and_listed(beta, environment):
    worker = scripted(beta, [[{"text": "{{last_user}}"}]])
    program = f"""
        phase("ask");
        let jobs = [];
        for name in ["a", "b"] {{ jobs.push(#{{agent: "{worker.id}", prompt: name}}); }}
        let text = "";
        for one in parallel(jobs) {{ text += one.text; }}
        phase("end");
        text
    """
    agent = lead(beta, [worker], [[runs(program, ("ask", "end"))], [{"text": "{{last_tool_result}}"}]])
    assert agent.multiagent.workflows.predefined_agents[0].id == worker.id
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    assert session.agent.multiagent.workflows.predefined_agents[0].name == "Coder"
    events = answered(beta, session, message("go"))
    assert only(events, "agent.message").content[0].text == "ab"
    log = listed(beta, session)
    assert [event.id for event in log] == [event.id for event in events]
    created = only(log, "workflow_run.created")
    assert created.name == "A run" and created.description is None
    assert [(phase.name, phase.description) for phase in created.phases] == [("ask", "the phase ask"), ("end", "the phase end")]
    ask, end = [phase.id for phase in created.phases]
    assert [(event.type, getattr(event, "workflow_run_phase_id", None)) for event in of_runs(log)] == [
        ("workflow_run.created", None),
        ("workflow_run.status_running", None),
        ("workflow_run.phase_started", ask),
        ("workflow_run.phase_ended", ask),
        ("workflow_run.phase_started", end),
        ("workflow_run.phase_ended", end),
        ("workflow_run.status_ended", None),
    ]
    assert {event.workflow_run_id for event in of_runs(log)} == {created.workflow_run_id}
    assert only(log, "workflow_run.status_ended").result.type == "completed"
    made = [event for event in log if event.type == "session.thread_created"]
    assert [event.workflow_run_id for event in made] == [created.workflow_run_id] * 2
    threads = list(beta.sessions.threads.list(session.id))
    assert [thread.workflow_run_id for thread in threads] == [None] + [created.workflow_run_id] * 2
    asked = list(beta.sessions.events.list(session.id, types=["workflow_run.phase_started"]))
    assert [event.workflow_run_phase_id for event in asked] == [ask, end]


def test_a_run_that_fails_and_one_that_waits(beta, environment):
    ticket = {"type": "custom", "name": "ticket", "description": "d", "input_schema": {"type": "object"}}
    worker = scripted(beta, [[{"tool": "ticket", "input": {}}], [{"text": "{{last_tool_result}}"}]], tools=[ticket])
    waits = runs(f'agent(#{{agent: "{worker.id}", prompt: "x"}}).text')
    agent = lead(beta, [worker], [[runs("throw `no`")], [waits], [{"text": "{{last_tool_result}}"}]])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    assert only(events, "workflow_run.error").error.type == "program_error"
    assert only(events, "workflow_run.status_ended").result.error.type == "program_error"
    assert events[-1].stop_reason.type == "requires_action"
    assert only(events, "workflow_run.status_idle")
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.agents.archive(agent.id)
    assert refused.value.body["error"]["details"]["error_code"] == "workflow_run_open"
    with pytest.raises(anthropic.BadRequestError):
        beta.sessions.delete(session.id)
    use = only(events, "agent.custom_tool_use")
    text = [{"type": "text", "text": "T-1"}]
    events = answered(
        beta, session, {"type": "user.custom_tool_result", "custom_tool_use_id": use.id, "content": text}
    )
    assert only(events, "agent.message").content[0].text == "T-1"
    assert only(events, "workflow_run.status_ended").result.type == "completed"
    beta.agents.archive(agent.id)


def test_a_program_defines_an_agent(beta, environment):
    system = script([[{"text": "a rhyme"}]])
    program = f"agent(#{{name: \"Poet\", system: `{system}`, prompt: \"go\"}}).text"
    agent = scripted(
        beta,
        [[runs(program)], [{"text": "{{last_tool_result}}"}]],
        multiagent={"type": "multiagent_20261001"},
    )
    assert agent.multiagent.workflows.inline_agents.type == "enabled"
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    events = answered(beta, session, message("go"))
    assert only(events, "agent.message").content[0].text == "a rhyme"
    thread = list(beta.sessions.threads.list(session.id))[1]
    assert thread.agent.type == "inline" and thread.agent.name == "Poet"
    assert thread.workflow_run_id == only(events, "workflow_run.created").workflow_run_id
