"""Deployments and their runs, by Anthropic's SDK."""

import datetime
import json
import os
import signal
import uuid

import anthropic
import pytest

from conftest import Server
from test_claude_client import connect, scripted
from test_claude_webhooks import Receiver, endpoint

HELLO = [{"type": "user.message", "content": [{"type": "text", "text": "hello"}]}]
EVERY_MINUTE = {"type": "cron", "expression": "* * * * *", "timezone": "UTC"}


@pytest.fixture()
def beta(server):
    with connect(server) as client:
        yield client.beta


@pytest.fixture(scope="module")
def environment(server):
    with connect(server) as client:
        return client.beta.environments.create(name=f"deployments {uuid.uuid4()}")


def deploy(beta, environment, agent=None, **more):
    agent = agent or beta.agents.create(name="Echo", model="scripted/echo")
    return beta.deployments.create(
        name="Nightly",
        agent=agent.id,
        environment_id=environment.id,
        **{"initial_events": HELLO} | more,
    )


def wait_for(beta, session_id):
    """Waits until a session has come to rest, by its stream; gives its events."""
    with beta.sessions.events.stream(session_id) as stream:
        if beta.sessions.retrieve(session_id).status != "idle":
            for event in stream:
                if event.type == "session.status_idle":
                    break
    return list(beta.sessions.events.list(session_id))


def test_a_deployment_over_its_life(beta, environment):
    schedule = {"type": "cron", "expression": "30 2 * * 1-5", "timezone": "Europe/Berlin"}
    budget = {"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}}
    with pytest.raises(anthropic.BadRequestError) as refused:
        deploy(beta, environment, schedule=schedule, budget=budget)
    assert refused.value.body["error"]["details"]["error_code"] == "model_not_budgetable"
    made = deploy(beta, environment, schedule=schedule, description="d", metadata={"k": "v"})
    assert (made.type, made.status, made.agent.version, made.paused_reason) == ("deployment", "active", 1, None)
    assert (made.schedule.expression, made.schedule.timezone) == ("30 2 * * 1-5", "Europe/Berlin")
    upcoming = made.schedule.upcoming_runs_at
    assert len(upcoming) == 5 and made.schedule.last_run_at is None
    assert beta.deployments.retrieve(made.id) == made
    assert made.id in [found.id for found in beta.deployments.list(agent_id=made.agent.id, status="active")]

    updated = beta.deployments.update(made.id, name="Other", description=None, metadata={"k": None})
    assert (updated.name, updated.description, updated.metadata) == ("Other", None, {})
    assert updated.schedule.upcoming_runs_at == upcoming
    paused = beta.deployments.pause(made.id)
    assert (paused.status, paused.paused_reason.type) == ("paused", "manual")
    run = beta.deployments.run(made.id)
    assert (run.type, run.trigger_context.type, run.error) == ("deployment_run", "manual", None)
    events = wait_for(beta, run.session_id)
    assert [event.content[0].text for event in events if event.type == "agent.message"] == ["hello"]
    session = beta.sessions.retrieve(run.session_id)
    assert (session.deployment_id, session.agent.id) == (made.id, made.agent.id)
    assert session.budget is None
    assert [found.id for found in beta.sessions.list(deployment_id=made.id)] == [run.session_id]
    assert beta.deployment_runs.retrieve(run.id) == run
    assert [found.id for found in beta.deployment_runs.list(deployment_id=made.id, has_error=False)] == [run.id]
    assert list(beta.deployment_runs.list(deployment_id="depl_none")) == []
    assert beta.deployments.unpause(made.id).status == "active"

    archived = beta.deployments.archive(made.id)
    assert archived.archived_at is not None and archived.schedule.upcoming_runs_at == []
    with pytest.raises(anthropic.BadRequestError):
        beta.deployments.run(made.id)
    assert made.id not in [found.id for found in beta.deployments.list()]


def test_a_budget_reaches_the_sessions(tmp_path):
    prices = tmp_path / "prices.toml"
    dollar_a_token = "input = 1_000_000\noutput = 1_000_000\n"
    prices.write_text(f'["scripted/echo"]\ninput = 3\noutput = 15\n["scripted/script"]\n{dollar_a_token}')
    server = Server(OPENCLAW_PRICE_FILE=str(prices))
    server.start()
    try:
        with connect(server) as client:
            beta = client.beta
            environment = beta.environments.create(name="e")

            def run(amount, agent=None):
                budget = {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}
                made = deploy(beta, environment, agent, budget=budget)
                assert made.budget.max_list_cost.amount == amount
                session = beta.deployments.run(made.id).session_id
                events = wait_for(beta, session)
                return beta.sessions.retrieve(session), events

            session, events = run("100")
            assert session.budget.max_list_cost.amount == "100"
            assert [event.content[0].text for event in events if event.type == "agent.message"] == ["hello"]
            assert events[-1].stop_reason.type == "end_turn"
            # Where there is room for no request, none is made.
            _, events = run("1", scripted(beta, [[{"text": "too dear"}]]))
            assert "agent.message" not in [event.type for event in events]
            assert events[-1].stop_reason.type == "budget_reached"
    finally:
        server.stop()
        server.remove()


def test_runs_that_fail_say_why_and_pause(beta, environment):
    gone = beta.environments.create(name=f"gone {uuid.uuid4()}")
    made = deploy(beta, gone)
    beta.environments.archive(gone.id)
    run = beta.deployments.run(made.id)
    assert run.session_id is None and run.error.type == "environment_archived_error"
    found = beta.deployments.retrieve(made.id)
    assert (found.status, found.paused_reason.error.type) == ("paused", "environment_archived_error")
    assert [r.id for r in beta.deployment_runs.list(deployment_id=made.id, has_error=True)] == [run.id]


def test_what_sessions_are_given(server, beta, environment):
    with connect(server) as client:
        file = client.files.upload(file=("data.csv", b"a,b\n", "text/csv"))
    store = beta.memory_stores.create(name=f"Notes {uuid.uuid4()}")
    resources = [
        {"type": "file", "file_id": file.id, "mount_path": "/data.csv"},
        {"type": "memory_store", "memory_store_id": store.id, "instructions": "look"},
        {"type": "github_repository", "url": "https://localhost/a/tool", "authorization_token": "ghp_1"},
    ]
    command = "cat /mnt/session/uploads/data.csv; ls /mnt/memory /workspace"
    agent = scripted(beta, [[{"tool": "bash", "input": {"command": command}}], [{"text": "{{last_tool_result}}"}]])
    made = deploy(beta, environment, agent, resources=resources)
    kinds = ["file", "memory_store", "github_repository"]
    assert [one.type for one in made.resources] == kinds
    assert made.resources[0].mount_path == "/data.csv" and made.resources[1].access == "read_write"
    assert not hasattr(made.resources[2], "authorization_token")
    run = beta.deployments.run(made.id)
    session = beta.sessions.retrieve(run.session_id)
    assert sorted(one.type for one in session.resources) == sorted(kinds)
    events = wait_for(beta, run.session_id)
    said = [event.content[0].text for event in events if event.type == "agent.message"]
    assert "a,b" in said[-1] and "notes-" in said[-1]

    beta.memory_stores.archive(store.id)
    assert beta.deployments.run(made.id).error.type == "memory_store_archived_error"
    found = beta.deployments.retrieve(made.id)
    assert found.paused_reason.error.type == "memory_store_archived_error"
    assert beta.deployments.update(made.id, resources=None).resources == []


def test_what_is_refused(beta, environment):
    for schedule in [
        EVERY_MINUTE | {"expression": "0 0 L * *"},
        EVERY_MINUTE | {"expression": "@daily"},
        EVERY_MINUTE | {"timezone": "Mars/Base"},
    ]:
        with pytest.raises(anthropic.BadRequestError) as refused:
            deploy(beta, environment, schedule=schedule)
        assert "schedule." in str(refused.value)
    with pytest.raises(anthropic.NotFoundError):
        beta.deployments.retrieve("depl_none")


def test_archiving_an_agent_archives_its_deployments(beta, environment):
    agent = beta.agents.create(name="Echo", model="scripted/echo")
    made = deploy(beta, environment, agent, schedule=EVERY_MINUTE)
    beta.agents.archive(agent.id)
    assert beta.deployments.retrieve(made.id).archived_at is not None


def test_schedules_run_once_over_a_kill():
    """A schedule of every minute, and a server that is killed in the middle of the run that it made. The test lasts for as
    long as the minute has left."""
    server = Server(OPENCLAW_SCHEDULE_JITTER_MS="0", OPENCLAW_DIAL_ALLOW="127.0.0.1")
    server.start()
    receiver = Receiver()
    try:
        with connect(server) as client:
            beta = client.beta
            endpoint(client, receiver.url, "deployment_run.started")
            environment = beta.environments.create(name="e")
            # The first answer hangs until the kill; the one after the restart does not.
            slow = scripted(beta, [[{"text": "begun "}, {"delay_ms": 3_000}]])
            made = deploy(beta, environment, slow, schedule=EVERY_MINUTE)
            first = made.schedule.upcoming_runs_at[0]
            _, told = receiver.got.get(timeout=90)
            run = beta.deployment_runs.retrieve(json.loads(told)["data"]["id"])
            assert run.trigger_context.scheduled_at == first
            assert run.created_at - first < datetime.timedelta(seconds=10)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.start()
        with connect(server) as client:
            beta = client.beta
            events = wait_for(beta, run.session_id)
            assert [event.type for event in events].count("user.message") == 1
            assert events[-1].type == "session.status_idle"
            runs = [found for found in beta.deployment_runs.list(deployment_id=made.id)]
            assert [r.id for r in runs if r.trigger_context.scheduled_at == first] == [run.id]
            assert beta.deployments.retrieve(made.id).schedule.last_run_at == run.created_at or len(runs) > 1
        server.stop()
    finally:
        receiver.close()
        server.process.kill()
        server.remove()
