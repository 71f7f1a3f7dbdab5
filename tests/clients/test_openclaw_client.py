"""The reference system's published Python client, unchanged, against the real binary."""

import functools
import inspect
import json
import threading
import time

import httpx
import pytest
from openclaw_managed_agents import OpenClawClient
from openclaw_managed_agents.resources.agents import Agents
from openclaw_managed_agents.resources.environments import Environments
from openclaw_managed_agents.resources.sessions import Sessions
from openclaw_managed_agents.resources.vaults import Vaults

from conftest import START_TIMEOUT, Server, script


def methods():
    """What can be called on the resources that this server has, with their optional arguments."""
    for resource in (Agents, Environments, Sessions, Vaults):
        for name, function in inspect.getmembers(resource, inspect.isfunction):
            if name.startswith("_"):
                continue
            yield resource, name, function


# What has not been called yet, as `Agents.create(quota)`; `Agents.create()` is the call as such.
undriven = {
    f"{resource.__name__}.{name}({argument})"
    for resource, name, function in methods()
    for argument in ["", *(p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty)]
}


def note(resource, name, function):
    @functools.wraps(function)
    def noted(self, *args, **kwargs):
        result = function(self, *args, **kwargs)
        # Only what went well counts.
        for argument in ["", *kwargs]:
            undriven.discard(f"{resource.__name__}.{name}({argument})")
        return result

    setattr(resource, name, noted)


for resource, name, function in list(methods()):
    note(resource, name, function)


@pytest.fixture()
def client(server):
    with OpenClawClient(base_url=server.url) as client:
        yield client


def refused(call, *, status=400, code="unsupported", field=None):
    """A call that this server refuses; with the field that it can't do anything with."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        call()
    answer = error.value.response
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert field is None or field in answer.json()["details"], answer.text


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


def test_everything_that_an_agent_can_be(client):
    callee = client.agents.create(model="scripted/echo")
    fields = {
        "instructions": "Be brief.",
        "tools": ["bash"],
        "name": "whole",
        "permission_policy": {"type": "always_ask", "tools": ["bash"]},
        "callable_agents": [callee.agent_id],
        "max_subagent_depth": 2,
        "mcp_servers": {"docs": {"url": "https://mcp.example/"}},
        "quota": {"maxTokensPerSession": 1000, "maxCostUsdPerSession": 2.5, "maxWallDurationMs": 60_000},
        "thinking_level": "high",
        "channels": {"telegram": {"enabled": False}},
    }
    agent = client.agents.create(model="scripted/echo", **fields)
    assert {name: getattr(agent, name) for name in fields} == fields
    assert client.agents.get(agent.agent_id) == agent
    others = {
        "model": "scripted/script",
        "instructions": "Be verbose.",
        "tools": [],
        "name": "other",
        "permission_policy": {"type": "deny", "tools": ["write"]},
        "callable_agents": [],
        "max_subagent_depth": 0,
        "mcp_servers": {},
        "quota": {"maxTokensPerSession": 2000},
        "thinking_level": "low",
        "channels": {"telegram": {"enabled": False}},
    }
    updated = client.agents.update(agent.agent_id, version=1, **others)
    assert {name: getattr(updated, name) for name in others} == others
    assert (updated.version, updated.created_at) == (2, agent.created_at)
    assert client.agents.warm(agent.agent_id) == {"agent_id": agent.agent_id, "queued": True}
    # What is not there yet is refused and not ignored.
    create = functools.partial(client.agents.create, model="scripted/echo")
    refused(lambda: create(tools=["no_such_tool"]), field="tools")
    refused(lambda: client.agents.warm("agt_nobody"), status=404, code="agent_not_found")


def test_warm():
    """A sandbox is there before its session asks for it, which the session can't tell from any other."""
    server = Server(OPENCLAW_MAX_WARM_CONTAINERS="1")
    server.start()

    def metric(name):
        lines = httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    def ready():
        # Only a record that is whole names a process.
        records = (server.data / "warm" / "sandboxes").glob("*/record.json")
        return any(json.loads(record.read_text())["hand"] for record in records)

    def until(is_so):
        deadline = time.monotonic() + START_TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline

    with OpenClawClient(base_url=server.url) as client:
        command = {"tool": "bash", "input": {"command": "echo $((6*7)) > answer; cat answer"}}
        turn = [[command], [{"text": "done"}]]
        agent = client.agents.create(model="scripted/script", instructions=script(turn))
        assert client.agents.warm(agent.agent_id) == {"agent_id": agent.agent_id, "queued": True}
        until(lambda: ready() and metric("pool_warm_containers") == 1)
        session = client.sessions.create(agent_id=agent.agent_id)
        client.sessions.send(session.session_id, content="go")
        finish(client, session.session_id)
        results = [e for e in client.sessions.events(session.session_id) if e.type == "agent.tool_result"]
        assert [result.content.strip() for result in results] == ["42"]
        # Whoever came first, the model's first word or its call, found it.
        assert (metric("pool_cold_starts_total"), metric("container_boot_duration_seconds_count")) == (0, 0)
    server.stop()
    assert not list((server.data / "warm" / "sandboxes").iterdir())
    server.remove()


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
    environment = client.environments.create(
        name="plain", description="Nothing special.", networking={"type": "unrestricted"}, packages={}
    )
    assert environment.networking == {"type": "unrestricted"}
    assert environment.description == "Nothing special."
    create = functools.partial(client.environments.create, name="special")
    refused(lambda: create(packages={"pip": ["--pre"]}), code="invalid_request", field="packages")
    limited = {"type": "limited", "allowedHosts": ["example.com"], "allowMcpServers": True}
    special = create(networking=limited)
    assert special.networking == limited | {"allowPackageManagers": False}
    client.environments.delete(special.environment_id)
    address = {"type": "limited", "allowedHosts": ["10.0.0.1"]}
    refused(lambda: create(networking=address), code="invalid_request", field="networking")
    assert client.environments.get(environment.environment_id).name == "plain"
    agent = client.agents.create(model="scripted/echo")
    session = client.sessions.create(agent_id=agent.agent_id, environment_id=environment.environment_id)
    assert session.environment_id == environment.environment_id
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


def test_sessions_are_listed_until_they_are_deleted(client):
    agent = client.agents.create(model="scripted/echo")
    sessions = [client.sessions.create(agent_id=agent.agent_id) for _ in range(3)]
    client.sessions.send(sessions[1].session_id, content="hello")
    finish(client, sessions[1].session_id)
    listed = {session.session_id: session for session in client.sessions.list()}
    assert listed[sessions[0].session_id] == client.sessions.get(sessions[0].session_id)
    done = listed[sessions[1].session_id]
    assert (done.agent_id, done.status, done.output, done.turns) == (agent.agent_id, "idle", "hello", 1)
    assert done.tokens["output"] > 0 and done.last_event_at >= done.created_at
    client.sessions.delete(sessions[1].session_id)
    left = {session.session_id for session in client.sessions.list()}
    assert sessions[1].session_id not in left and sessions[2].session_id in left
    for call in (client.sessions.get, client.sessions.events, client.sessions.cancel, client.sessions.compact):
        refused(lambda: call(sessions[1].session_id), status=404, code="session_not_found")


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
    with OpenClawClient(base_url=guarded.url) as nobody, pytest.raises(httpx.HTTPStatusError) as error:
        nobody.agents.list()
    assert error.value.response.status_code == 401
    assert error.value.response.json()["error"] == "unauthorized"
    with OpenClawClient(base_url=guarded.url, api_token=guarded.token) as client:
        agent = client.agents.create(model="scripted/echo")
        assert agent.agent_id in [a.agent_id for a in client.agents.list()]


def test_vaults(client):
    """The client sends an empty name unless it is told one; the reference refuses that."""
    vault = client.vaults.create(user_id="user-1")
    named = client.vaults.create(user_id="user-2", name="second")
    assert (vault.user_id, vault.name, named.name) == ("user-1", "", "second")
    assert client.vaults.get(vault.vault_id) == vault
    ids = [found.vault_id for found in client.vaults.list()]
    assert ids.index(named.vault_id) < ids.index(vault.vault_id)
    assert client.vaults.list(user_id="user-1") == [vault]

    bearer = client.vaults.add_static_bearer_credential(
        vault.vault_id, name="github", match_url="https://mcp.example/github", token="canary-static"
    )
    assert (bearer.type, bearer.match_url, bearer.expires_at) == ("static_bearer", "https://mcp.example/github", None)
    oauth = client.vaults.add_mcp_oauth_credential(
        vault.vault_id,
        name="linear",
        match_url="https://mcp.example/linear",
        access_token="canary-access",
        refresh_token="canary-refresh",
        expires_at=1900000000000,
        token_endpoint="https://id.example/token",
        client_id="client",
        client_secret="canary-client",
        scopes=["read"],
    )
    assert (oauth.token_endpoint, oauth.client_id, oauth.scopes) == ("https://id.example/token", "client", ["read"])
    assert oauth.expires_at == 1900000000000
    assert client.vaults.list_credentials(vault.vault_id) == [bearer, oauth]
    assert client.vaults.get(vault.vault_id).updated_at >= oauth.created_at
    raw = httpx.get(f"{client._client.base_url}/v1/vaults/{vault.vault_id}/credentials", trust_env=False)
    assert raw.status_code == 200 and "canary" not in raw.text

    agent = client.agents.create(model="scripted/echo")
    session = client.sessions.create(agent_id=agent.agent_id, vault_id=vault.vault_id)
    assert client.sessions.get(session.session_id).status == "idle"

    client.vaults.delete_credential(vault.vault_id, bearer.credential_id)
    assert client.vaults.list_credentials(vault.vault_id) == [oauth]
    client.vaults.delete(vault.vault_id)
    for call in (
        lambda: client.vaults.get(vault.vault_id),
        lambda: client.vaults.list_credentials(vault.vault_id),
        lambda: client.sessions.create(agent_id=agent.agent_id, vault_id=vault.vault_id),
    ):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            call()
        assert refused.value.response.status_code == 404
        assert refused.value.response.json()["error"] == "vault_not_found"


def test_every_method_was_driven_with_every_argument():
    """Runs last, and means something only when the whole file was run."""
    assert undriven == set()
