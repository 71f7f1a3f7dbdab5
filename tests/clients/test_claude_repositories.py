"""Repositories among a session's resources with Anthropic's SDK, newest and old, from a host that asks for a token."""

import base64
import http.server
import os
import subprocess
import tempfile
import threading
import uuid

import anthropic
import pytest

import canary
from conftest import Server
from test_claude_client import IS_NEW, answered, connect, message, only, scripted

# That they show nowhere is what `canary` sees to, also as they are sent.
TOKENS = [f"{canary.PREFIX}git-first-5c1e", f"{canary.PREFIX}git-second-77a0"]
PLAIN = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder, *arguments):
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    run = subprocess.run(["git", *identity, *arguments], cwd=folder, env=os.environ | PLAIN, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.decode().strip()


class Host:
    """Git's own server behind HTTP, for who has the token."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.token = TOKENS[0]
        git(self.folder.name, "init", "-q", "tool")
        self.source = f"{self.folder.name}/tool"
        git(self.source, "config", "http.receivepack", "true")
        self.commit("first")
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def answer(self):
                body = self.body()
                expected = base64.b64encode(f"x-access-token:{host.token}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {expected}":
                    return self.send_error(401)
                path, _, query = self.path.partition("?")
                name, _, rest = path.lstrip("/").partition("/")
                variables = {
                    "GIT_PROJECT_ROOT": host.folder.name,
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": f"/{name}/.git/{rest}",
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                run = subprocess.run(
                    ["git", "http-backend"], input=body, env=os.environ | PLAIN | variables, capture_output=True
                )
                head, _, content = run.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(fields.pop("Status", "200").split()[0]))
                for field, value in fields.items():
                    self.send_header(field, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, content):
        with open(f"{self.source}/README", "w") as file:
            file.write(content + "\n")
        git(self.source, "add", ".")
        git(self.source, "commit", "-q", "-m", content)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()


@pytest.fixture(scope="module")
def host():
    host = Host()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def beta(host):
    server = Server(OPENCLAW_DIAL_ALLOW=host.url.removeprefix("http://"))
    server.start()
    with connect(server) as client:
        yield client.beta
    server.stop()
    server.remove()


def opened(beta, commands, resources):
    turns = [
        [[{"tool": "bash", "input": {"command": command}}], [{"text": "{{last_tool_result}}"}]] for command in commands
    ]
    environment = beta.environments.create(name=f"repositories {uuid.uuid4()}")
    return beta.sessions.create(
        agent=scripted(beta, *turns).id, environment_id=environment.id, resources=resources
    )


def turn(beta, session):
    seen = answered(beta, session, message("go"))
    said = [block.text for event in seen if event.type == "agent.message" for block in event.content]
    return "".join(said).strip(), [event.error for event in seen if event.type == "session.error"]


def test_a_private_repository(beta, host):
    host.token = TOKENS[0]
    resource = {
        "type": "github_repository",
        "url": f"{host.url}/tool",
        "authorization_token": TOKENS[0],
        "checkout": {"type": "branch", "name": "main"},
    }
    push = (
        "cd /workspace/tool; git config user.name A; git config user.email a@example.org; echo mine > mine; git add .;"
        "git commit -q -m mine; git push -q origin HEAD:refs/heads/mine 2>&1; git fetch -q 2>&1; git branch -r --list 'origin/m*'"
    )
    fetch = "cd /workspace/tool; git fetch -q 2>&1 && echo fetched"
    session = opened(beta, ["cat /workspace/tool/README; env", push, fetch, fetch], [resource])
    given = session.resources[0]
    assert (given.type, given.mount_path, given.url) == ("github_repository", "/workspace/tool", resource["url"])
    assert (given.checkout.type, given.checkout.name) == ("branch", "main")
    assert not hasattr(given, "authorization_token")
    assert beta.sessions.resources.retrieve(given.id, session_id=session.id) == given

    said, errors = turn(beta, session)
    assert said.startswith("first\n") and errors == []
    assert not any(token in said for token in TOKENS)
    said, _ = turn(beta, session)
    assert said.split() == ["origin/main", "origin/mine"]
    assert git(host.source, "log", "-1", "--format=%s", "mine") == "mine"

    host.token = TOKENS[1]
    assert "token" in turn(beta, session)[0]
    rotated = beta.sessions.resources.update(given.id, session_id=session.id, authorization_token=TOKENS[1])
    assert rotated.id == given.id and rotated.updated_at > given.updated_at
    assert turn(beta, session) == ("fetched", [])


@pytest.mark.skipif(not IS_NEW, reason="the old SDK has no such errors, and wants a token")
def test_what_fails_is_told(beta, host):
    host.token = TOKENS[0]
    session = opened(
        beta,
        ["ls /workspace"],
        [
            {"type": "github_repository", "url": f"{host.url}/tool"},
            {
                "type": "github_repository",
                "url": f"{host.url}/tool",
                "authorization_token": TOKENS[0],
                "mount_path": "/workspace/other",
                "checkout": {"type": "branch", "name": "none"},
            },
            {"type": "github_repository", "url": f"{host.url}/none", "authorization_token": TOKENS[0]},
        ],
    )
    said, errors = turn(beta, session)
    assert said == "(no output)"
    told = [(error.type, error.repository_url, error.retry_status.type) for error in errors]
    assert told == [
        ("repository_authentication_error", f"{host.url}/tool", "retrying"),
        ("repository_checkout_error", f"{host.url}/tool", "retrying"),
        ("repository_not_found_error", f"{host.url}/none", "retrying"),
    ]


def test_a_repository_stays_as_it_is(beta, host):
    resource = {"type": "github_repository", "url": f"{host.url}/tool", "authorization_token": TOKENS[0]}
    session = opened(beta, [], [resource])
    given = session.resources[0]
    calls = [
        lambda: beta.sessions.resources.delete(given.id, session_id=session.id),
        lambda: beta.sessions.resources.add(session.id, **{"file_id": "file_x", "type": "github_repository"}),
        lambda: beta.sessions.resources.update(given.id, session_id=session.id, authorization_token=""),
        lambda: opened(beta, [], [resource | {"url": "https://10.0.0.1/a"}]),
        lambda: opened(beta, [], [resource | {"url": "http://example.org/a"}]),
    ]
    for call in calls:
        with pytest.raises(anthropic.BadRequestError) as refused:
            call()
        assert TOKENS[0] not in str(refused.value)
    assert [one.id for one in beta.sessions.resources.list(session.id)] == [given.id]
    assert only(list(beta.sessions.retrieve(session.id).resources), "github_repository") == given
