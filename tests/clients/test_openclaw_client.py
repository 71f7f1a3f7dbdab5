"""The reference system's published Python client, unchanged, against the real binary."""

import threading

import httpx
import pytest
from openclaw_managed_agents import OpenClawClient

from conftest import script


@pytest.fixture()
def client(server):
    with OpenClawClient(base_url=server.url) as client:
        yield client


def finish(client, session_id):
    """Follows the session until it has come to rest and returns what was streamed."""
    seen = []
    for event in client.sessions.stream(session_id):
        seen.append(event)
        if event.type in ("session.status_idle", "session.status_failed"):
            return seen
    raise AssertionError(f"the stream ended before the session was idle: {[e.type for e in seen]}")


def test_quick_start(client):
    agent = client.agents.create(model="scripted/echo", instructions="You are helpful.")
    session = client.sessions.create(agent_id=agent.agent_id)
    assert (session.status, session.output, session.turns) == ("idle", None, 0)
    reply = client.sessions.send(session.session_id, content="What is 2+2?")
    assert reply["session_id"] == session.session_id and reply["queued"] is False
    for event in client.sessions.stream(session.session_id):
        if event.type == "agent.message":
            assert event.content == "What is 2+2?"
            assert event.tokens["output"] > 0
            break
    finish(client, session.session_id)
    done = client.sessions.get(session.session_id)
    assert (done.status, done.output, done.turns, done.error) == ("idle", "What is 2+2?", 1, None)


def test_stream_equals_list_and_every_frame_is_whole(client):
    agent = client.agents.create(
        model="scripted/script",
        instructions=script([[{"tool": "bash", "input": {"command": "echo $((6*7))"}}], [{"text": "It is 42."}]]),
    )
    session = client.sessions.create(agent_id=agent.agent_id)
    client.sessions.send(session.session_id, content="compute")
    streamed = finish(client, session.session_id)
    listed = client.sessions.events(session.session_id)
    assert streamed == listed
    kinds = [event.type for event in listed]
    assert kinds == [
        "session.status_running",
        "user.message",
        "agent.tool_use",
        "agent.tool_result",
        "agent.message",
        "session.status_idle",
    ]
    use, result = listed[2], listed[3]
    assert use.tool_name == "bash" and use.tool_arguments == {"command": "echo $((6*7))"}
    assert result.tool_call_id == use.tool_call_id and "42" in result.content and not result.is_error
    assert "42" in client.sessions.logs(session.session_id, tail=10)


def test_agents(client):
    agent = client.agents.create(
        model="scripted/echo", instructions="one", name="first", tools=["bash", "read"], thinking_level="low"
    )
    assert (agent.version, agent.tools, agent.name) == (1, ["bash", "read"], "first")
    updated = client.agents.update(agent.agent_id, version=1, instructions="two")
    assert (updated.version, updated.instructions) == (2, "two")
    assert client.agents.update(agent.agent_id, version=2, instructions="two").version == 2
    with pytest.raises(httpx.HTTPStatusError) as conflict:
        client.agents.update(agent.agent_id, version=1, instructions="three")
    assert conflict.value.response.status_code == 409
    assert conflict.value.response.json()["error"] == "version_conflict"
    assert [v.instructions for v in client.agents.list_versions(agent.agent_id)] == ["one", "two"]
    assert agent.agent_id in [a.agent_id for a in client.agents.list()]
    assert client.agents.archive(agent.agent_id).archived_at is not None
    with pytest.raises(httpx.HTTPStatusError) as archived:
        client.sessions.create(agent_id=agent.agent_id)
    assert archived.value.response.status_code == 409
    client.agents.delete(agent.agent_id)
    with pytest.raises(httpx.HTTPStatusError) as gone:
        client.agents.get(agent.agent_id)
    assert gone.value.response.status_code == 404


def test_run(client):
    agent = client.agents.create(model="scripted/echo")
    run = client.agents.run(agent.agent_id, task="hello")
    finish(client, run["session_id"])
    again = client.agents.run(agent.agent_id, task="once more", session_id=run["session_id"])
    assert again["session_id"] == run["session_id"]
    for event in client.sessions.stream(run["session_id"]):
        if event.type == "agent.message" and event.content == "once more":
            break


def test_environments(client):
    environment = client.environments.create(name="plain")
    assert environment.networking == {"type": "unrestricted"}
    assert client.environments.get(environment.environment_id).name == "plain"
    agent = client.agents.create(model="scripted/echo")
    session = client.sessions.create(agent_id=agent.agent_id, environment_id=environment.environment_id)
    with pytest.raises(httpx.HTTPStatusError) as in_use:
        client.environments.delete(environment.environment_id)
    assert in_use.value.response.json()["error"] == "environment_in_use"
    client.sessions.delete(session.session_id)
    client.environments.delete(environment.environment_id)
    assert environment.environment_id not in [e.environment_id for e in client.environments.list()]


def test_confirmations(client):
    agent = client.agents.create(
        model="scripted/script",
        instructions=script([[{"tool": "bash", "input": {"command": "touch made"}}], [{"text": "Done."}]]),
        permission_policy={"type": "always_ask", "tools": ["bash"]},
    )
    for verdict, is_error in (("allow", False), ("deny", True)):
        session = client.sessions.create(agent_id=agent.agent_id)
        client.sessions.send(session.session_id, content="go")
        result = None
        for event in client.sessions.stream(session.session_id):
            if event.type == "agent.tool_confirmation_request":
                client.sessions.confirm_tool(
                    session.session_id, tool_use_id=event.approval_id, result=verdict, deny_message="not today"
                )
            if event.type == "agent.tool_result":
                result = event
            if event.type == "agent.message":
                break
        assert bool(result.is_error) is is_error
        if is_error:
            assert "not today" in result.content


def test_cancel_keeps_the_partial_output(client):
    agent = client.agents.create(
        model="scripted/script",
        instructions=script([[{"tool": "bash", "input": {"command": "echo begun; sleep 600"}}], [{"text": "never"}]]),
    )
    session = client.sessions.create(agent_id=agent.agent_id)
    with pytest.raises(httpx.HTTPStatusError) as idle:
        client.sessions.cancel(session.session_id)
    assert idle.value.response.json()["error"] == "session_not_running"
    client.sessions.send(session.session_id, content="go")
    for event in client.sessions.stream(session.session_id):
        if event.type == "agent.tool_use":
            break
    reply = client.sessions.cancel(session.session_id)
    assert reply == {"session_id": session.session_id, "session_status": "idle", "cancelled": True}
    results = [e for e in client.sessions.events(session.session_id) if e.type == "agent.tool_result"]
    assert len(results) == 1 and results[0].is_error
    client.sessions.delete(session.session_id)


def test_queue_and_overrides(client):
    agent = client.agents.create(
        model="scripted/script",
        instructions=script(
            [[{"tool": "bash", "input": {"command": "cat gate"}}], [{"text": "first"}]], [[{"text": "second"}]]
        ),
    )
    session = client.sessions.create(agent_id=agent.agent_id)
    client.sessions.send(session.session_id, content="one")
    client.sessions.send(session.session_id, content="two", model="scripted/echo", thinking_level="high")
    finish(client, session.session_id)
    kinds = [(e.type, e.content) for e in client.sessions.events(session.session_id)]
    assert [c for k, c in kinds if k == "user.message"] == ["one", "two"]
    assert ("session.model_change", "scripted/echo") in kinds
    assert client.sessions.get(session.session_id).output == "two"


def test_compact(client):
    agent = client.agents.create(model="scripted/echo")
    session = client.sessions.create(agent_id=agent.agent_id)
    client.sessions.send(session.session_id, content="remember the blue door")
    finish(client, session.session_id)
    assert client.sessions.compact(session.session_id)["compacted"] is True
    assert "session.compaction" in [e.type for e in client.sessions.events(session.session_id)]


def test_many_streams_at_once(client, server):
    agent = client.agents.create(model="scripted/echo")
    session = client.sessions.create(agent_id=agent.agent_id)
    opened, results = threading.Barrier(9), []

    def follow():
        with OpenClawClient(base_url=server.url) as own:
            opened.wait()
            results.append([e.event_id for e in finish(own, session.session_id)])

    threads = [threading.Thread(target=follow) for _ in range(8)]
    [thread.start() for thread in threads]
    opened.wait()
    client.sessions.send(session.session_id, content="to everybody")
    [thread.join() for thread in threads]
    assert len(results) == 8 and all(result == results[0] for result in results)


def test_authentication(guarded):
    with OpenClawClient(base_url=guarded.url) as nobody, pytest.raises(httpx.HTTPStatusError) as refused:
        nobody.agents.list()
    assert refused.value.response.status_code == 401
    assert refused.value.response.json()["error"] == "unauthorized"
    with OpenClawClient(base_url=guarded.url, api_token="correct-horse-battery-staple") as client:
        assert client.agents.list() == []
