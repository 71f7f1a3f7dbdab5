"""The search for secrets (`canary.py`) finds them where they must not be, and leaves them where they may be."""

import base64
import dataclasses
import gzip
import json
import os
import subprocess
import uuid

import anthropic
import httpx
import pytest

import canary
import traffic
from canary import PREFIX, Search, spellings
from conftest import NODE_TIMEOUT, Server, check_traffic
from provider import Provider
from stub import answering
from test_claude_client import TOOLSET, answered, connect, message, only, scripted
from traffic import Exchange

SECRET = f"{PREFIX}planted-0000"
SIGNING = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
WORK = base64.urlsafe_b64encode(b'{"sessions_token":"token-of-an-item-1234"}').rstrip(b"=").decode()


def exchange(body, method="GET", path="/v1/agents/a", status=200, whole=True, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Exchange(method, f"http://h:1{path}", {"anthropic-version": "2026-10-21"}, status, headers, raw, whole)


def found(*exchanges):
    search = Search()
    for one in exchanges:
        search.answer(one)
    return search.take()


SHOWN = {
    "a key": exchange({"key_id": "k", "secret": "key-1234567890"}, "POST", "/v1/keys"),
    "a key that is rotated": exchange({"secret": "key-0987654321"}, "POST", "/v1/keys/k/rotate"),
    "a signing secret": exchange({"signing_secret": SIGNING}, "POST", "/v1/organizations/webhooks"),
    "another signing secret": exchange(
        {"signing_secret": SIGNING}, "POST", "/v1/organizations/webhooks/e/regenerate_signing_secret"
    ),
    "a work item": exchange({"id": "w", "secret": WORK}, "GET", "/v1/environments/e/work/poll"),
    "no work": exchange(None, "GET", "/v1/environments/e/work/poll"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_secret_may_be_shown_once(name):
    assert found(SHOWN[name]) == []


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "no work"])
def test_a_secret_may_not_be_shown_again(name):
    assert found(SHOWN[name], SHOWN[name])
    secret = SHOWN[name].body
    assert found(SHOWN[name], exchange(secret, path="/v1/elsewhere"))
    # Where two servers make the same one, it is no longer one server's secret that another shows.
    assert not found(SHOWN[name], dataclasses.replace(SHOWN[name], url=SHOWN[name].url.replace("h:1", "h:2")))


def test_a_secret_may_not_be_shown_twice_in_one_answer():
    body = {"signing_secret": SIGNING, "url": f"https://a.example/?{SIGNING.removeprefix('whsec_')}"}
    assert found(exchange(body, "POST", "/v1/organizations/webhooks"))


def test_the_token_within_a_work_item_is_a_secret():
    assert found(SHOWN["a work item"], exchange({"message": "no such token: token-of-an-item-1234"}, status=401))


LEAKS = {
    "an answer": exchange({"name": SECRET}),
    "an answer of another dialect": dataclasses.replace(exchange({"deep": [{"in": SECRET}]}), request={}),
    "an error": exchange({"error": {"message": f"not {SECRET}"}}, status=400),
    "a compressed answer": exchange(gzip.compress(SECRET.encode()), **{"content-encoding": "gzip"}),
    "a frame": exchange(f'event: x\ndata: {{"text": "{SECRET}"}}\n\n'.encode()),
    "a frame of a stream that goes on": exchange(f"data: {SECRET}".encode(), whole=False),
    "a header": exchange({}, location=f"https://a.example/?{SECRET}"),
    "bytes": exchange(b"\0\xff" + SECRET.encode() + b"\xff", path="/v1/files/f/content"),
    "an answer that may show another secret": exchange({"secret": "key-1", "name": SECRET}, "POST", "/v1/keys"),
    "a secret that may be shown, twice": exchange({"secret": SECRET, "hint": SECRET}, "POST", "/v1/keys"),
}
LEAKS |= {
    f"base64 from the letter {at} on": exchange(base64.b64encode(bytes(at) + f"client:{SECRET}".encode()))
    for at in range(3)
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found(name):
    assert found(LEAKS[name])
    assert not found(dataclasses.replace(LEAKS[name], headers={}, body=b"{}"))


def test_what_comes_later_in_a_stream_is_found():
    search = Search()
    stream = exchange(b"data: nothing\n\n", whole=False)
    search.answer(stream)
    assert search.take() == []
    stream.body += f"data: {SECRET}\n\n".encode()
    search.answers_that_were_open()
    assert search.take()


@pytest.mark.parametrize("length", [7, 8, 9])
def test_spellings_are_those_of_base64(length):
    secret = b"\xfb\xff" * 8
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(6):
            text = encode(b"\xfe" * before + secret[:length] + b"more")
            assert any(spelling in text for spelling in spellings(secret[:length])), (encode, before)
            assert not any(spelling in encode(b"\xfe" * 64) for spelling in spellings(secret[:length]))


def below(folder, **known):
    search = Search()
    for one in known.values():
        search.answer(one)
    search.below(folder, ["h:1"])
    return search.take()


def test_a_leak_in_a_data_folder_is_found(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "fine").write_text("nothing to see")
    assert below(tmp_path) == []
    place = tmp_path / "deep" / "er" / "store.db"
    place.write_bytes(b"\0" * 100_000 + SECRET.encode())
    assert str(place) in below(tmp_path)[0]
    # What the server itself has made, as text and as the bytes that a signing secret stands for.
    assert not below(tmp_path / "deep" / ".." / "nowhere", webhook=SHOWN["a signing secret"])
    for content in (SIGNING.removeprefix("whsec_").encode(), bytes(range(100, 132))):
        place.write_bytes(content)
        assert below(tmp_path, webhook=SHOWN["a signing secret"])
        assert not below(tmp_path)


def test_the_key_of_the_vaults_is_in_its_own_file_only(tmp_path):
    (tmp_path / canary.VAULT_KEY).write_text("the-key-of-the-vaults\n")
    assert below(tmp_path) == []
    (tmp_path / "copy").write_text("x the-key-of-the-vaults x")
    assert below(tmp_path)


def test_a_leak_to_a_sandbox_is_found(tmp_path):
    # A child of this process is for the search what a sandbox of a server is.
    environment = {"PATH": os.environ["PATH"], "TOKEN": SECRET}
    for env, argument in ((environment, "x"), ({"PATH": os.environ["PATH"]}, SECRET)):
        child = subprocess.Popen(["cat", "-", argument], env=env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            search = Search()
            search.sandboxes(os.getpid(), tmp_path)
            leaks = search.take()
            assert any(f"/proc/{child.pid}/" in leak for leak in leaks), leaks
        finally:
            child.kill()
            child.communicate()


def test_what_servers_send_is_looked_at():
    search = Search()
    search.answer(SHOWN["a signing secret"])
    search.message("a webhook", b'{"type": "event"}')
    assert search.take() == []
    for content in (SECRET.encode(), SHOWN["a signing secret"].body):
        search.message("a webhook", content)
        assert search.take()


@pytest.fixture()
def traitor():
    """A server that answers everything with a secret."""
    body = json.dumps({"secret": SECRET}).encode()
    with answering(body) as url:
        yield url


def test_every_test_looks_at_what_it_received(traitor):
    httpx.get(f"{traitor}/v1/x", trust_env=False)
    assert SECRET in check_traffic()[0]
    program = 'await (await fetch(process.argv[1])).text()'
    command = ["node", "--input-type=module", "-e", program, f"{traitor}/v1/y"]
    subprocess.run(command, cwd=traffic.NODE, env=os.environ, check=True, timeout=NODE_TIMEOUT)
    assert SECRET in check_traffic()[0]
    assert check_traffic() == []


@pytest.mark.parametrize("place", ["data", "log"])
def test_every_server_is_looked_at_when_it_has_ended(place):
    server = Server()
    server.start()
    server.stop()
    path = server.data / "a-file" if place == "data" else server.data.with_suffix(".log")
    with path.open("a") as file:
        file.write(f"token={SECRET}\n")
    with pytest.raises(AssertionError, match=SECRET):
        server.remove()
    assert not server.data.exists()


def test_an_agent_finds_no_secrets_around_it():
    """An agent looks for secrets wherever it can, on a server that has all kinds of them, at the log level `debug`."""
    provider = Provider(canary.SEARCH.message)
    address = f"http://{provider.address}"
    server = Server(OPENCLAW_API_TOKEN=canary.API_TOKEN, ANTHROPIC_BASE_URL=address, OPENCLAW_DIAL_ALLOW="127.0.0.1")
    server.start()
    try:
        with connect(server) as client:
            beta = client.beta
            vault = beta.vaults.create(display_name="v")
            auth = {"type": "static_bearer", "mcp_server_url": "https://a.example/mcp", "token": f"{PREFIX}bearer-9"}
            beta.vaults.credentials.create(vault.id, auth=auth)
            # The words are put together in the sandbox, so that the question is no find itself.
            look = (
                'word="cana""ry-"; env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" "\\n"; '
                'grep -rls -- "$word" /etc /home /mnt /root /run /tmp /var /workspace; echo looked'
            )
            agent = scripted(beta, [[{"tool": "bash", "input": {"command": look}}], [{"text": "{{last_tool_result}}"}]])
            environment = beta.environments.create(name=f"around {uuid.uuid4()}")
            session = beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
            seen = only(answered(beta, session, message("go")), "agent.message").content[0].text
            assert "PATH=" in seen and seen.rstrip().endswith("looked") and PREFIX not in seen
            before = canary.SEARCH.processes
            assert check_traffic() == []
            assert canary.SEARCH.processes > before, "the sandbox's processes are there to be looked at"

            # A provider that repeats the key it was given.
            asked = beta.agents.create(name="Asked", model="claude-any", tools=[TOOLSET])
            failing, working = [
                beta.sessions.create(agent=asked.id, environment_id=environment.id) for _ in range(2)
            ]
            said = only(answered(beta, failing, message("fail")), "session.error").error.message
            assert "not with" in said and canary.PROVIDER_KEY not in said
            assert answered(beta, working, message("go"))[-1].stop_reason.type == "end_turn"
            # A caller with another token learns nothing of the right one.
            with anthropic.Anthropic(base_url=server.url, api_key=f"{PREFIX}wrong", max_retries=0) as stranger:
                with pytest.raises(anthropic.AuthenticationError):
                    stranger.beta.agents.list()
            # A key and a signing secret, which are shown once.
            key = httpx.post(
                f"{server.url}/v1/keys",
                json={"name": "k", "scope": "write"},
                headers={"authorization": f"Bearer {server.token}"},
                trust_env=False,
            )
            assert key.status_code == 200, key.text
            client.post(
                "/v1/organizations/webhooks",
                body={"url": "https://a.example/", "enabled_events": ["agent.created"]},
                cast_to=object,
            )
            assert check_traffic() == []
            assert len(canary.SEARCH.learned[server.origins[0]]) == 3
        server.stop()
    finally:
        server.process.kill()
        server.process.wait()
        server.remove()
        provider.close()
