"""Self-hosted environments: the SDK's own worker carries out the tools of their sessions, on this machine."""

import asyncio
import base64
import contextlib
import json
import uuid

import anthropic
import httpx
import pytest

from canary import API_TOKEN
from conftest import Server, script
from test_claude_client import IS_NEW, TOOLSET, connect, message, only


@pytest.fixture(scope="module")
def hosted():
    """A server that asks for a token, so that keys mean something."""
    server = Server(OPENCLAW_API_TOKEN=API_TOKEN)
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture()
def beta(hosted):
    with connect(hosted) as client:
        yield client.beta


def environment_key(server, environment):
    body = {"name": "worker", "scope": "write", "environmentId": environment.id}
    headers = {"authorization": f"Bearer {server.token}"}
    made = httpx.post(f"{server.url}/v1/keys", json=body, headers=headers, trust_env=False)
    assert made.status_code == 200, made.text
    assert made.json()["environment_id"] == environment.id
    return made.json()["secret"]


def self_hosted(beta):
    return beta.environments.create(name=f"own {uuid.uuid4()}", config={"type": "self_hosted"})


def opened(beta, environment, *turns, **fields):
    fields = {"tools": [TOOLSET]} | fields
    agent = beta.agents.create(name="Coder", model="scripted/script", system=script(*turns), **fields)
    return beta.sessions.create(agent=agent.id, environment_id=environment.id)


BASH = {"tool": "bash", "input": {"command": "echo $((6 * 7)); pwd"}}


@contextlib.asynccontextmanager
async def working(server, environment, key, folder):
    """The SDK's worker, polling while this is entered."""
    async with connect(server, anthropic.AsyncAnthropic) as client:
        hands = client.beta.environments.work.worker(
            environment_id=environment.id, environment_key=key, workdir=str(folder), max_idle=0.2
        )
        running = asyncio.create_task(hands.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def said(server, session, *events):
    """Posts events and gives what is streamed until the turn is over."""
    seen = []
    async with connect(server, anthropic.AsyncAnthropic) as client:
        async with await client.beta.sessions.events.stream(session.id) as stream:
            await client.beta.sessions.events.send(session.id, events=list(events))
            async for event in stream:
                seen.append(event)
                if event.type == "session.status_idle" and event.stop_reason.type != "requires_action":
                    return seen
    raise AssertionError(f"the stream ended: {seen}")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_the_sdks_worker_is_the_hands(hosted, beta, tmp_path):
    environment = self_hosted(beta)
    assert environment.config.type == "self_hosted"
    key = environment_key(hosted, environment)
    write = {"tool": "write", "input": {"file_path": "note.txt", "content": "from the model"}}
    session = opened(beta, environment, [[BASH, write], [{"text": "{{last_tool_result}}"}]], [[{"text": "again"}]])

    async def play():
        async with working(hosted, environment, key, tmp_path):
            events = await said(hosted, session, message("go"))
            again = await said(hosted, session, message("more"))
            return events, again

    events, again = run(play())
    results = [event for event in events if event.type == "user.tool_result"]
    assert len(results) == 2 and not any(result.is_error for result in results)
    assert results[0].content[0].text.split() == ["42", str(tmp_path)]
    assert (tmp_path / "note.txt").read_text() == "from the model"
    assert [event.type for event in events if event.type == "agent.tool_result"] == []
    assert only(again, "agent.message").content[0].text == "again"
    # Streams of old versions of the SDK leave out what they do not know.
    known = [event.to_dict() for event in beta.sessions.events.list(session.id) if IS_NEW or event.type != "session.usage"]
    assert [event.to_dict() for event in events] == known[: len(events)]


def test_what_asks_is_confirmed_first(hosted, beta, tmp_path):
    environment = self_hosted(beta)
    key = environment_key(hosted, environment)
    ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
    session = opened(beta, environment, [[BASH, BASH], [{"text": "over"}]], tools=[ask])

    async def play():
        seen = []
        async with working(hosted, environment, key, tmp_path):
            async with connect(hosted, anthropic.AsyncAnthropic) as client:
                events = client.beta.sessions.events
                async with await events.stream(session.id) as stream:
                    await events.send(session.id, events=[message("go")])
                    async for event in stream:
                        seen.append(event)
                        if event.type != "session.status_idle":
                            continue
                        if event.stop_reason.type == "end_turn":
                            return seen
                        uses = [event for event in seen if event.type == "agent.tool_use"]
                        if not any(event.type == "user.tool_confirmation" for event in seen):
                            answers = [
                                {"type": "user.tool_confirmation", "tool_use_id": uses[0].id, "result": "allow"},
                                {"type": "user.tool_confirmation", "tool_use_id": uses[1].id, "result": "deny"},
                            ]
                            await events.send(session.id, events=answers)

    events = run(play())
    uses = [event for event in events if event.type == "agent.tool_use"]
    assert [event.tool_use_id for event in events if event.type == "user.tool_result"] == [uses[0].id]
    assert only(events, "agent.tool_result").tool_use_id == uses[1].id


def test_a_worker_goes_on_after_a_crash_of_the_server(tmp_path):
    server = Server(OPENCLAW_API_TOKEN=API_TOKEN)
    server.start()
    try:
        with connect(server) as client:
            environment = self_hosted(client.beta)
            key = environment_key(server, environment)
            session = opened(client.beta, environment, [[BASH], [{"text": "{{last_tool_result}}"}]])
            with client.beta.sessions.events.stream(session.id) as stream:
                client.beta.sessions.events.send(session.id, events=[message("go")])
                for event in stream:
                    if event.type == "session.status_idle":
                        break
            assert event.stop_reason.type == "requires_action"
            queued = client.beta.environments.work.stats(environment.id)
            assert (queued.depth, queued.pending) == (1, 0)
        server.process.kill()
        server.process.wait()
        server.start()

        async def play():
            async with working(server, environment, key, tmp_path):
                async with connect(server, anthropic.AsyncAnthropic) as client:
                    async with await client.beta.sessions.events.stream(session.id) as stream:
                        async for event in stream:
                            if event.type == "agent.message":
                                return event.content[0].text

        # The stream tells what happens from now on; what happened before it was opened is in the list.
        async def result():
            live = asyncio.create_task(play())
            return await live

        assert run(result()).split() == ["42", str(tmp_path)]
        server.stop()
    finally:
        server.remove()


@pytest.fixture()
def claimed(hosted, beta):
    """A session that waits for hands, and what a worker gets for it."""
    environment = self_hosted(beta)
    session = opened(beta, environment, [[BASH], [{"text": "done"}]])
    with beta.sessions.events.stream(session.id) as stream:
        beta.sessions.events.send(session.id, events=[message("go")])
        for event in stream:
            if event.type == "session.status_idle":
                break
    with anthropic.Anthropic(base_url=hosted.url, api_key=environment_key(hosted, environment), max_retries=0) as own:
        yield environment, session, own.beta.environments.work, event.stop_reason.event_ids[0]


def token_of(item):
    return json.loads(base64.urlsafe_b64decode(item.secret + "=" * (-len(item.secret) % 4)))["sessions_token"]


def test_the_life_of_an_item(beta, claimed):
    environment, session, work, _ = claimed
    at = {"environment_id": environment.id}
    item = work.poll(environment.id, block_ms=999, anthropic_worker_id="w1")
    assert (item.data.type, item.data.id, item.state) == ("session", session.id, "starting")
    assert work.poll(environment.id) is None
    stats = work.stats(environment.id)
    assert (stats.depth, stats.pending, stats.workers_polling) == (0, 1, 1)
    # What nobody acknowledges is handed out again, and whoever had it first has it no more.
    again = work.poll(environment.id, reclaim_older_than_ms=0)
    assert again.id == item.id and again.secret != item.secret
    assert work.ack(item.id, **at).acknowledged_at is not None
    assert work.retrieve(item.id, **at).secret is None
    first = work.heartbeat(item.id, expected_last_heartbeat="NO_HEARTBEAT", desired_ttl_seconds=60, **at)
    assert (first.lease_extended, first.state, first.ttl_seconds) == (True, "active", 60)
    with pytest.raises(anthropic.APIStatusError) as lost:
        work.heartbeat(item.id, expected_last_heartbeat="NO_HEARTBEAT", **at)
    assert lost.value.status_code == 412
    details = lost.value.body["error"]["details"]
    assert details["error_code"] == "heartbeat_precondition_failed" and details["current_state"]["state"] == "active"
    exact = first.to_dict()["last_heartbeat"]
    text = exact if isinstance(exact, str) else exact.isoformat()
    assert work.heartbeat(item.id, expected_last_heartbeat=text, **at).lease_extended
    assert work.update(item.id, metadata={"host": "mine"}, **at).metadata == {"host": "mine"}
    assert work.stop(item.id, **at).state == "stopping"
    assert work.heartbeat(item.id, expected_last_heartbeat="NO_HEARTBEAT", **at).state == "stopping"
    assert work.stop(item.id, force=True, **at).state == "stopped"
    with pytest.raises(anthropic.ConflictError):
        work.stop(item.id, **at)
    # The session still waits for its result, so another item follows.
    follower, old = work.list(environment.id).data
    assert (follower.state, old.id, follower.data.id) == ("queued", item.id, session.id)
    with pytest.raises(anthropic.BadRequestError):
        work.poll(environment.id, block_ms=0)


def test_tokens_and_keys_are_good_for_their_own_work_only(hosted, beta, claimed):
    environment, session, work, use = claimed
    other = opened(beta, self_hosted(beta), [[{"text": "hi"}]])
    item = work.poll(environment.id)
    result = {"type": "user.tool_result", "tool_use_id": use, "content": [{"type": "text", "text": "x"}]}
    with anthropic.Anthropic(base_url=hosted.url, auth_token=token_of(item), api_key=None, max_retries=0) as holder:
        for who in (work._client.beta, holder.beta):
            assert who.sessions.retrieve(session.id).id == session.id
            assert who.sessions.events.list(session.id).data
            for refused in (
                lambda: who.agents.list(),
                lambda: who.sessions.list(),
                lambda: who.environments.list(),
                lambda: who.sessions.events.send(session.id, events=[message("x")]),
                lambda: who.sessions.delete(session.id),
            ):
                with pytest.raises(anthropic.PermissionDeniedError):
                    refused()
            for missing in (
                lambda: who.sessions.retrieve(other.id),
                lambda: who.environments.work.retrieve(item.id, environment_id=other.environment_id),
            ):
                with pytest.raises(anthropic.NotFoundError):
                    missing()
        with pytest.raises(anthropic.PermissionDeniedError):
            holder.beta.environments.work.poll(environment.id)
        plain = httpx.get(
            f"{hosted.url}/v1/agents", headers={"authorization": f"Bearer {token_of(item)}"}, trust_env=False
        )
        assert plain.status_code == 403
        holder.beta.environments.work.heartbeat(item.id, environment_id=environment.id)
        holder.beta.sessions.events.send(session.id, events=[result])
        holder.beta.environments.work.stop(item.id, environment_id=environment.id, force=True)
        with pytest.raises(anthropic.AuthenticationError):
            holder.beta.sessions.retrieve(session.id)


def test_other_environments_have_no_work(beta):
    cloud = beta.environments.create(name=f"cloud {uuid.uuid4()}")
    with pytest.raises(anthropic.BadRequestError):
        beta.environments.work.poll(cloud.id)
    own = self_hosted(beta)
    with pytest.raises(anthropic.BadRequestError) as kept:
        beta.environments.update(own.id, config={"type": "cloud"})
    assert kept.value.body["error"]["details"]["error_code"] == "invalid_config_type_change"
    assert beta.environments.update(own.id, config={"type": "self_hosted"}, description="d").description == "d"
    assert beta.environments.work.list(own.id).data == []
    with pytest.raises(anthropic.NotFoundError):
        beta.environments.work.retrieve("work_nobody", environment_id=own.id)


def test_a_worker_has_the_memory_stores_of_its_session(hosted, beta):
    environment = self_hosted(beta)
    notes, rules, other = [beta.memory_stores.create(name=f"{name} {uuid.uuid4()}") for name in ("n", "r", "o")]
    agent = beta.agents.create(name="Coder", model="scripted/script", system=script([[BASH]]), tools=[TOOLSET])
    session = beta.sessions.create(
        agent=agent.id,
        environment_id=environment.id,
        resources=[
            {"type": "memory_store", "memory_store_id": notes.id},
            {"type": "memory_store", "memory_store_id": rules.id, "access": "read_only"},
        ],
        initial_events=[message("go")],
    )
    own = anthropic.Anthropic(base_url=hosted.url, api_key=environment_key(hosted, environment), max_retries=0)
    with own:
        item = own.beta.environments.work.poll(environment.id, block_ms=999)
        assert item.data.id == session.id
        with pytest.raises(anthropic.PermissionDeniedError):
            own.beta.memory_stores.memories.list(notes.id)
    with anthropic.Anthropic(base_url=hosted.url, auth_token=token_of(item), api_key=None, max_retries=0) as holder:
        memories = holder.beta.memory_stores.memories
        made = memories.create(notes.id, path="/a.md", content="kept")
        assert memories.retrieve(made.id, memory_store_id=notes.id).content == "kept"
        assert memories.update(made.id, memory_store_id=notes.id, content="changed").path == "/a.md"
        assert memories.delete(made.id, memory_store_id=notes.id).id == made.id
        assert list(memories.list(rules.id)) == []
        with pytest.raises(anthropic.PermissionDeniedError):
            memories.create(rules.id, path="/a.md", content="no")
        for missing in (lambda: memories.list(other.id), lambda: holder.beta.memory_stores.retrieve(other.id)):
            with pytest.raises(anthropic.NotFoundError):
                missing()
        for refused in (
            lambda: holder.beta.memory_stores.list(),
            lambda: holder.beta.memory_stores.delete(notes.id),
            lambda: holder.beta.memory_stores.archive(notes.id),
        ):
            with pytest.raises(anthropic.PermissionDeniedError):
                refused()
