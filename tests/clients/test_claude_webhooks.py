"""Webhooks: what endpoints are told, verified as Anthropic's SDK does it."""

import http.server
import json
import os
import queue
import signal
import threading
import uuid

import anthropic
import pytest

from canary import SEARCH
from conftest import Server
from test_claude_client import IS_NEW, answered, connect, message, scripted
from test_claude_outcomes import graded, outcome
from test_claude_vaults import oauth, upstream  # noqa: F401

# How long a notice may take, in seconds.
PATIENCE = 30
ENDPOINTS = "/v1/organizations/webhooks"


class Receiver:
    """An endpoint on this machine. It answers with the status that it is told to, once the event is set that stands
    beside it, and keeps what it got."""

    def __init__(self):
        self.got = queue.Queue()
        self.statuses = queue.Queue()
        # What was answered to each notice, by its id.
        self.answers = {}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["content-length"]))
                SEARCH.message("a webhook", str(self.headers).encode() + content)
                body = content.decode()
                try:
                    status = receiver.statuses.get_nowait()
                except queue.Empty:
                    status = 204
                receiver.got.put((dict((k.lower(), v) for k, v in self.headers.items()), body))
                if isinstance(status, tuple):
                    gate, status = status
                    gate.wait(PATIENCE)
                receiver.answers[self.headers["webhook-id"]] = status
                if status is None:
                    # It hangs until the other side gives up.
                    self.rfile.read(1)
                    return
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?from=oma"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self):
        return self.got.get(timeout=PATIENCE)

    def close(self):
        self.server.shutdown()


@pytest.fixture()
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def own():
    """A server that may dial this machine."""
    server = Server(OPENCLAW_DIAL_ALLOW="127.0.0.1", OPENCLAW_SCHEDULE_JITTER_MS="0")
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture()
def client(own):
    with connect(own) as client:
        yield client


def endpoint(client, url, *events, **more):
    """An endpoint, made with a plain request: the older SDK does not know of these."""
    body = {"url": url, "enabled_events": list(events)} | more
    return client.post(ENDPOINTS, body=body, cast_to=object)


def remove(client, made):
    client.delete(f"{ENDPOINTS}/{made['id']}", cast_to=object)


def test_what_an_agent_does_is_told_and_verified(client, receiver):
    made = endpoint(client, receiver.url, "agent.created", "agent.archived", "session.status_idled")
    secret = made["signing_secret"]
    assert secret.startswith("whsec_") and made["state"] == "enabled" and made["disabled_reason"] == ""
    agent = client.beta.agents.create(name="Echo", model="scripted/echo")
    headers, body = receiver.next()
    event = client.beta.webhooks.unwrap(body, headers=headers, key=secret)
    assert (event.type, event.data.type, event.data.id) == ("event", "agent.created", agent.id)
    assert event.id == headers["webhook-id"] and event.id.startswith("whe_")
    assert event.data.workspace_id.startswith("wrk_") and event.data.organization_id
    with pytest.raises(Exception):
        client.beta.webhooks.unwrap(body.replace(agent.id, "agt_other"), headers=headers, key=secret)

    environment = client.beta.environments.create(name=f"hooks {uuid.uuid4()}")
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    answered(client.beta, session, message("hello"))
    headers, body = receiver.next()
    event = client.beta.webhooks.unwrap(body, headers=headers, key=secret)
    assert (event.data.type, event.data.id) == ("session.status_idled", session.id)

    # Another secret; the one before verifies nothing any more.
    path = f"{ENDPOINTS}/{made['id']}"
    renewed = client.post(f"{path}/regenerate_signing_secret", cast_to=object)["signing_secret"]
    client.beta.agents.archive(agent.id)
    headers, body = receiver.next()
    assert client.beta.webhooks.unwrap(body, headers=headers, key=renewed).data.type == "agent.archived"
    with pytest.raises(Exception):
        client.beta.webhooks.unwrap(body, headers=headers, key=secret)
    assert "signing_secret" not in client.get(path, cast_to=object)
    remove(client, made)
    with pytest.raises(anthropic.NotFoundError):
        client.get(path, cast_to=object)


@pytest.mark.skipif(not IS_NEW, reason="the older SDK does not know of endpoints")
def test_endpoints_by_the_sdk(client, receiver):
    webhooks = client.beta.organization.webhooks
    kind = "user_profile.program_status_updated"
    made = [webhooks.create(url=receiver.url, enabled_events=[kind], name=f"e{n}") for n in range(3)]
    listed = [found.id for found in webhooks.list(limit=2)]
    assert [found for found in listed if found in [m.id for m in made]] == [m.id for m in reversed(made)]
    updated = webhooks.update(made[0].id, name="other", state="disabled")
    assert (updated.name, updated.state, updated.disabled_reason) == ("other", "disabled", "")
    assert webhooks.retrieve(made[0].id).state == "disabled"
    assert webhooks.update(made[0].id, state="enabled").state == "enabled"
    assert webhooks.regenerate_signing_secret(made[1].id).signing_secret != made[1].signing_secret
    for one in made:
        assert webhooks.delete(one.id).type == "webhook_endpoint_deleted"
    assert not set(found.id for found in webhooks.list()) & {one.id for one in made}


def test_what_is_refused(client, server):
    for url in ["ftp://a.example/", "http://a.example/hook", "http://10.0.0.1/hook", "https://127.0.0.1:1/x", "x"]:
        with pytest.raises(anthropic.BadRequestError) as refused:
            with connect(server) as guarded:
                endpoint(guarded, url, "agent.created")
        assert "url" in str(refused.value), url
    with pytest.raises(anthropic.BadRequestError) as refused:
        endpoint(client, "https://a.example/", "agent.exploded")
    assert "enabled_events.0" in str(refused.value)
    with pytest.raises(anthropic.BadRequestError):
        endpoint(client, "https://a.example/")


def test_a_redirect_disables_an_endpoint(client, receiver):
    made = endpoint(client, receiver.url, "agent.created")
    other = Receiver()
    watching = endpoint(client, other.url, "agent.created")
    receiver.statuses.put(302)
    client.beta.agents.create(name="Echo", model="scripted/echo")
    receiver.next()
    # Notices are tried within seconds, and the second agent's tells that the first is done with.
    other.next()
    client.beta.agents.create(name="Echo", model="scripted/echo")
    other.next()
    found = client.get(f"{ENDPOINTS}/{made['id']}", cast_to=object)
    assert (found["state"], found["disabled_reason"]) == ("disabled", "redirect")
    assert receiver.got.empty()
    for one in (made, watching):
        remove(client, one)
    other.close()


def test_what_arrived_beside_a_redirect_is_not_sent_again(client, receiver):
    # One change, two notices, which are on their way at once.
    made = endpoint(client, receiver.url, "session.archived", "session.status_terminated")
    agent = client.beta.agents.create(name="Echo", model="scripted/echo")
    environment = client.beta.environments.create(name=f"hooks {uuid.uuid4()}")
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    gate = threading.Event()
    for status in (204, 302):
        receiver.statuses.put((gate, status))
    client.beta.sessions.archive(session.id)
    ids = {receiver.next()[0]["webhook-id"] for _ in range(2)}
    assert len(ids) == 2
    # The endpoint moves before they are answered, so it stays; what was refused is told at its new place.
    other = Receiver()
    client.post(f"{ENDPOINTS}/{made['id']}", body={"url": other.url}, cast_to=object)
    gate.set()
    headers, _ = other.next()
    (refused,) = [notice for notice, status in receiver.answers.items() if status == 302]
    assert headers["webhook-id"] == refused
    second = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    client.beta.sessions.archive(second.id)
    ids |= {other.next()[0]["webhook-id"] for _ in range(2)}
    assert len(ids) == 4 and other.got.empty() and receiver.got.empty()
    assert client.get(f"{ENDPOINTS}/{made['id']}", cast_to=object)["state"] == "enabled"
    remove(client, made)
    other.close()


def heard(client, receiver, secret, count):
    """The next notices, in the order in which they came up, as pairs of what they are about."""
    events = [client.beta.webhooks.unwrap(body, headers=headers, key=secret) for headers, body in
              (receiver.next() for _ in range(count))]
    return [event.data for event in sorted(events, key=lambda event: event.created_at)]


def test_threads_are_told_of(client, receiver):
    beta = client.beta
    worker = scripted(beta, [[{"text": "done"}]])
    calls = [[{"tool": "send_to_agent", "input": {"agent": worker.id, "message": "go"}}], [{"text": "so be it"}]]
    agent = scripted(beta, calls, multiagent={"type": "coordinator", "agents": [worker.id]})
    environment = beta.environments.create(name=f"hooks {uuid.uuid4()}")
    kinds = ["session.thread_created", "session.thread_idled", "session.thread_terminated"]
    made = endpoint(client, receiver.url, *kinds)
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    answered(beta, session, message("go"))
    told = heard(client, receiver, made["signing_secret"], 2)
    (thread,) = [found.id for found in beta.sessions.threads.list(session.id) if found.parent_thread_id]
    beta.sessions.threads.archive(thread, session_id=session.id)
    told += heard(client, receiver, made["signing_secret"], 1)
    assert sorted(data.type for data in told) == kinds
    assert {(data.id, data.session_thread_id) for data in told} == {(session.id, thread)}
    remove(client, made)


def test_consultations_are_told_of(client, receiver):
    beta = client.beta
    turn = [[{"tool": "consult_advisor", "input": {"question": "Left or right?"}}], [{"text": "done"}]]
    advisor = {"type": "advisor", "model": "scripted/echo"}
    agent = scripted(beta, turn, multiagent={"type": "coordinator", "agents": [advisor]})
    environment = beta.environments.create(name=f"hooks {uuid.uuid4()}")
    kinds = ["session.thread_created", "session.thread_idled", "session.thread_terminated"]
    made = endpoint(client, receiver.url, *kinds)
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    answered(beta, session, message("go"))
    # A consultation is over with its answer.
    told = heard(client, receiver, made["signing_secret"], 3)
    (thread,) = [found.id for found in beta.sessions.threads.list(session.id) if found.parent_thread_id]
    assert sorted(data.type for data in told) == kinds
    assert {(data.id, data.session_thread_id) for data in told} == {(session.id, thread)}
    assert receiver.got.empty()
    remove(client, made)


def test_evaluations_are_told_of(client, receiver):
    beta = client.beta
    made = endpoint(client, receiver.url, "session.outcome_evaluation_ended")
    environment = beta.environments.create(name=f"hooks {uuid.uuid4()}")
    agent = scripted(beta, [[{"text": "A draft."}]], [[{"text": "Better."}]])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    verdicts = [{"verdict": "needs_revision", "explanation": "no"}], [{"verdict": "satisfied", "explanation": "yes"}]
    answered(beta, session, outcome(graded(*verdicts), max_iterations=3))
    told = heard(client, receiver, made["signing_secret"], 2)
    assert [(data.type, data.id) for data in told] == [("session.outcome_evaluation_ended", session.id)] * 2
    assert receiver.got.empty()
    remove(client, made)


def test_a_refresh_that_fails_is_told_of_once(client, receiver, upstream):
    vaults = client.beta.vaults
    made = endpoint(client, receiver.url, "vault_credential.refresh_failed", "vault_credential.archived")
    vault = vaults.create(display_name="v")
    credential = vaults.credentials.create(vault.id, auth=oauth(upstream))
    upstream.good, upstream.refuses_refresh = "another", True
    for _ in range(2):
        assert vaults.credentials.mcp_oauth_validate(credential.id, vault_id=vault.id).refresh.status == "failed"
    vaults.credentials.archive(credential.id, vault_id=vault.id)
    told = heard(client, receiver, made["signing_secret"], 2)
    assert sorted(data.type for data in told) == ["vault_credential.archived", "vault_credential.refresh_failed"]
    assert {(data.id, data.vault_id) for data in told} == {(credential.id, vault.id)}
    assert receiver.got.empty()
    remove(client, made)


def test_a_notice_is_tried_again_under_the_same_id(client, receiver):
    made = endpoint(client, receiver.url, "agent.created")
    receiver.statuses.put(500)
    client.beta.agents.create(name="Echo", model="scripted/echo")
    first, body = receiver.next()
    again, same = receiver.next()
    assert (again["webhook-id"], same) == (first["webhook-id"], body)
    client.beta.webhooks.unwrap(same, headers=again, key=made["signing_secret"])
    remove(client, made)


def test_a_notice_survives_a_kill(receiver):
    server = Server(OPENCLAW_DIAL_ALLOW="127.0.0.1")
    server.start()
    try:
        with connect(server) as client:
            made = endpoint(client, receiver.url, "agent.created")
            # The first attempt is under way when the server dies.
            receiver.statuses.put(None)
            agent = client.beta.agents.create(name="Echo", model="scripted/echo")
        headers, body = receiver.next()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.start()
        again, same = receiver.next()
        assert again["webhook-id"] == headers["webhook-id"] and same == body
        with connect(server) as client:
            event = client.beta.webhooks.unwrap(same, headers=again, key=made["signing_secret"])
        assert event.data.id == agent.id
        server.stop()
    finally:
        server.process.kill()
        server.remove()


def test_secrets_are_nowhere_in_the_clear(own, client, receiver):
    made = endpoint(client, receiver.url, "agent.created")
    secret = made["signing_secret"].removeprefix("whsec_")
    for folder, _, files in os.walk(own.data):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                assert secret.encode() not in open(path, "rb").read(), name
    assert secret not in json.dumps(client.get(ENDPOINTS, cast_to=object))
    remove(client, made)
