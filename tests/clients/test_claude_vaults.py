"""Vaults and credentials with Anthropic's SDK, and MCP servers that are called with them. Runs with the newest version and
with an old one."""

import asyncio
import datetime
import http.server
import json
import threading
import urllib.parse
import uuid

import anthropic
import httpx
import pytest

from canary import PREFIX as CANARY
from conftest import Server, script
from test_claude_client import answered, connect, message, only

SOON = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)


class Upstream(http.server.ThreadingHTTPServer):
    """An MCP server that takes one token, and the issuer of tokens for it, which rotates refresh tokens."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.good = f"{CANARY}access-0"
        self.refresh = f"{CANARY}refresh-0"
        self.issued = 0
        self.refuses_refresh = False
        self.forms = []
        self.calls = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_DELETE(self):
        self.answer(204)

    def do_GET(self):
        self.answer(405)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            if self.path == "/token":
                self.issue(dict(urllib.parse.parse_qsl(body.decode())))
            else:
                self.serve(json.loads(body))

    def issue(self, form):
        server = self.server
        server.forms.append(form | {"authorization": self.headers.get("authorization", "")})
        if server.refuses_refresh or form.get("refresh_token") != server.refresh:
            self.answer(400, {"error": "invalid_grant", "hint": form.get("refresh_token")})
            return
        server.issued += 1
        server.good = f"{CANARY}access-{server.issued}"
        server.refresh = f"{CANARY}refresh-{server.issued}"
        self.answer(200, {"access_token": server.good, "refresh_token": server.refresh, "expires_in": 3600})

    def serve(self, call):
        authorization = self.headers.get("authorization", "")
        if authorization != f"Bearer {self.server.good}":
            self.answer(401, {"error": "invalid_token", "you_sent": authorization})
            return
        method = call["method"]
        self.server.calls.append(method)
        results = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "upstream", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": f"you came with {authorization}"}]},
        }
        if "id" not in call:
            self.answer(202)
        else:
            self.answer(200, {"jsonrpc": "2.0", "id": call["id"], "result": results.get(method, {})}, mcp_session_id="s")


@pytest.fixture()
def upstream():
    upstream = Upstream()
    thread = threading.Thread(target=upstream.serve_forever)
    thread.start()
    yield upstream
    upstream.shutdown()
    thread.join()
    upstream.server_close()


@pytest.fixture()
def near(upstream):
    """A server that may call the upstream."""
    server = Server(OPENCLAW_DIAL_ALLOW=upstream.url.removeprefix("http://"))
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture()
def beta(server):
    with connect(server) as client:
        yield client.beta


def bearer(url="https://a.example/mcp", token=f"{CANARY}token"):
    return {"type": "static_bearer", "mcp_server_url": url, "token": token}


def oauth(upstream=None, **refresh):
    url = upstream.url if upstream else "https://b.example"
    return {
        "type": "mcp_oauth",
        "mcp_server_url": f"{url}/mcp",
        "access_token": f"{CANARY}access-0",
        "expires_at": SOON,
        "refresh": {
            "client_id": "client",
            "refresh_token": f"{CANARY}refresh-0",
            "token_endpoint": f"{url}/token",
            "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": f"{CANARY}secret"},
        }
        | refresh,
    }


def variable(name="API_KEY", **more):
    return {
        "type": "environment_variable",
        "secret_name": name,
        "secret_value": f"{CANARY}variable",
        "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "*.cdn.example.com"]},
    } | more


def test_environment_variables(beta):
    vault = beta.vaults.create(display_name="v")
    credentials = beta.vaults.credentials
    made = credentials.create(vault.id, auth=variable(), display_name="key")
    assert (made.auth.type, made.auth.secret_name) == ("environment_variable", "API_KEY")
    assert made.auth.networking.allowed_hosts == ["api.example.com", "*.cdn.example.com"]
    assert (made.auth.injection_location.header, made.auth.injection_location.body) == (True, True)
    assert credentials.retrieve(made.id, vault_id=vault.id) == made
    with pytest.raises(anthropic.ConflictError):
        credentials.create(vault.id, auth=variable())
    header = credentials.create(vault.id, auth=variable("OTHER_KEY", injection_location={"header": True}))
    assert (header.auth.injection_location.header, header.auth.injection_location.body) == (True, False)
    anywhere = credentials.create(vault.id, auth=variable("THIRD_KEY", networking={"type": "unrestricted"}))
    assert anywhere.auth.networking.type == "unrestricted"

    change = {"type": "environment_variable", "injection_location": {"body": False}}
    merged = credentials.update(made.id, vault_id=vault.id, auth=change)
    assert (merged.auth.injection_location.header, merged.auth.injection_location.body) == (True, False)
    change = {"type": "environment_variable", "secret_value": f"{CANARY}next", "networking": {"type": "unrestricted"}}
    assert credentials.update(made.id, vault_id=vault.id, auth=change).auth.networking.type == "unrestricted"
    for auth, problem in (
        (variable("PATH"), "auth.secret_name"),
        (variable("NO-NAME"), "auth.secret_name"),
        (variable("A", secret_value=CANARY[:5]), "auth.secret_value"),
        (variable("A", secret_value=f"{CANARY}\nvalue"), "auth.secret_value"),
        (variable("A", networking={"type": "limited", "allowed_hosts": ["10.0.0.1"]}), "auth.networking"),
        (variable("A", injection_location={"header": False, "body": False}), "auth.injection_location"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=problem) as refused:
            credentials.create(vault.id, auth=auth)
        assert CANARY not in str(refused.value)
    with pytest.raises(anthropic.BadRequestError, match="auth.injection_location"):
        change = {"type": "environment_variable", "injection_location": {"header": False}}
        credentials.update(made.id, vault_id=vault.id, auth=change)
    archived = credentials.archive(made.id, vault_id=vault.id)
    assert archived.archived_at is not None
    again = credentials.create(vault.id, auth=variable())
    assert credentials.delete(again.id, vault_id=vault.id).type == "vault_credential_deleted"


def test_vaults(beta):
    made = beta.vaults.create(display_name="Ada", metadata={"a": "1"})
    assert (made.type, made.display_name, made.metadata, made.archived_at) == ("vault", "Ada", {"a": "1"}, None)
    assert isinstance(made.created_at, datetime.datetime)
    assert beta.vaults.retrieve(made.id) == made
    updated = beta.vaults.update(made.id, display_name="Grace", metadata={"a": None, "b": "2"})
    assert (updated.display_name, updated.metadata) == ("Grace", {"b": "2"})
    newer = beta.vaults.create(display_name="newer")
    listed = [vault.id for vault in beta.vaults.list(limit=1)]
    assert listed.index(newer.id) < listed.index(made.id), "newest first, over pages"

    archived = beta.vaults.archive(made.id)
    assert archived.archived_at is not None and beta.vaults.archive(made.id) == archived
    assert made.id not in [vault.id for vault in beta.vaults.list()]
    assert made.id in [vault.id for vault in beta.vaults.list(include_archived=True)]
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        beta.vaults.update(made.id, display_name="late")
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        beta.vaults.credentials.create(made.id, auth=bearer())
    deleted = beta.vaults.delete(made.id)
    assert (deleted.id, deleted.type) == (made.id, "vault_deleted")
    for lost in (beta.vaults.retrieve, beta.vaults.archive, beta.vaults.delete, beta.vaults.credentials.list):
        with pytest.raises(anthropic.NotFoundError):
            lost(made.id)
    with pytest.raises(anthropic.BadRequestError, match="display_name"):
        beta.vaults.create(display_name="")


def test_credentials(beta):
    vault = beta.vaults.create(display_name="v")
    credentials = beta.vaults.credentials
    fixed = credentials.create(vault.id, auth=bearer(), display_name="Fixed", metadata={"k": "v"})
    assert (fixed.type, fixed.vault_id, fixed.display_name) == ("vault_credential", vault.id, "Fixed")
    assert (fixed.auth.type, fixed.auth.mcp_server_url) == ("static_bearer", "https://a.example/mcp")
    made = credentials.create(vault.id, auth=oauth(scope="read write"))
    assert (made.auth.refresh.client_id, made.auth.refresh.scope) == ("client", "read write")
    assert made.auth.refresh.token_endpoint_auth.type == "client_secret_basic"
    assert abs(made.auth.expires_at - SOON) < datetime.timedelta(milliseconds=1)
    assert [one.id for one in credentials.list(vault.id, limit=1)] == [made.id, fixed.id]
    assert credentials.retrieve(made.id, vault_id=vault.id) == made

    with pytest.raises(anthropic.ConflictError) as taken:
        credentials.create(vault.id, auth=bearer("https://A.example:443/mcp/"))
    assert taken.value.response.headers["x-should-retry"] == "false"
    renamed = credentials.update(
        made.id, vault_id=vault.id, display_name="n", auth={"type": "mcp_oauth", "refresh": {"scope": ""}}
    )
    assert (renamed.display_name, renamed.auth.refresh.scope) == ("n", None)
    assert renamed.auth.expires_at == made.auth.expires_at
    assert credentials.update(made.id, vault_id=vault.id, display_name=None).display_name is None
    for change in (
        {"type": "static_bearer", "token": f"{CANARY}x"},
        {"type": "mcp_oauth", "mcp_server_url": "https://evil.example/"},
        {"type": "mcp_oauth", "refresh": {"token_endpoint": "https://evil.example/"}},
        {"type": "mcp_oauth", "refresh": {"token_endpoint_auth": {"type": "client_secret_post"}}},
    ):
        with pytest.raises(anthropic.BadRequestError, match="Can't be changed"):
            credentials.update(made.id, vault_id=vault.id, auth=change)
    with pytest.raises(anthropic.BadRequestError, match="mcp_oauth"):
        credentials.mcp_oauth_validate(fixed.id, vault_id=vault.id)

    archived = credentials.archive(fixed.id, vault_id=vault.id)
    assert archived.archived_at is not None
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        credentials.update(fixed.id, vault_id=vault.id, display_name="late")
    again = credentials.create(vault.id, auth=bearer())
    assert [one.id for one in credentials.list(vault.id)] == [again.id, made.id]
    assert len(list(credentials.list(vault.id, include_archived=True))) == 3
    deleted = credentials.delete(made.id, vault_id=vault.id)
    assert (deleted.id, deleted.type) == (made.id, "vault_credential_deleted")
    with pytest.raises(anthropic.NotFoundError):
        credentials.retrieve(made.id, vault_id=vault.id)
    with pytest.raises(anthropic.NotFoundError):
        credentials.retrieve(again.id, vault_id=beta.vaults.create(display_name="other").id)


def test_a_vault_takes_twenty(beta):
    vault = beta.vaults.create(display_name="full")
    for number in range(20):
        beta.vaults.credentials.create(vault.id, auth=bearer(f"https://a.example/{number}"))
    with pytest.raises(anthropic.BadRequestError, match="20"):
        beta.vaults.credentials.create(vault.id, auth=bearer())


def test_the_other_dialect(server, beta):
    with httpx.Client(base_url=server.url, trust_env=False) as other:
        theirs = other.post("/v1/vaults", json={"userId": "u", "name": "theirs"}).json()["vault_id"]
        body = {"type": "static_bearer", "name": "n", "matchUrl": "https://a.example/", "token": f"{CANARY}t"}
        other.post(f"/v1/vaults/{theirs}/credentials", json=body).raise_for_status()
        assert beta.vaults.retrieve(theirs).display_name == "theirs"
        (found,) = beta.vaults.credentials.list(theirs)
        assert (found.display_name, found.auth.mcp_server_url) == ("n", "https://a.example/")
        ours = beta.vaults.create(display_name="ours")
        beta.vaults.credentials.create(ours.id, auth=bearer())
        beta.vaults.archive(ours.id)
        shown = other.get(f"/v1/vaults/{ours.id}").json()
        assert (shown["name"], shown["user_id"]) == ("ours", None) and shown["archived_at"]
        (credential,) = other.get(f"/v1/vaults/{ours.id}/credentials").json()["credentials"]
        assert credential["match_url"] == "https://a.example/mcp" and credential["archived_at"]
        agent = other.post("/v1/agents", json={"model": "scripted/echo"}).json()["agent_id"]
        refused = other.post("/v1/sessions", json={"agentId": agent, "vaultId": ours.id})
        assert (refused.status_code, refused.json()["error"]) == (409, "vault_archived")


def test_validation(upstream, near):
    with connect(near) as client:
        vaults = client.beta.vaults
        vault = vaults.create(display_name="v")
        made = vaults.credentials.create(vault.id, auth=oauth(upstream))

        def validate():
            found = vaults.credentials.mcp_oauth_validate(made.id, vault_id=vault.id)
            assert CANARY not in found.model_dump_json()
            return found

        found = validate()
        assert (found.type, found.credential_id, found.vault_id) == ("vault_credential_validation", made.id, vault.id)
        assert (found.status, found.has_refresh_token, found.mcp_probe, found.refresh) == ("valid", True, None, None)
        assert upstream.calls == ["initialize", "notifications/initialized", "tools/list"]
        # The token is worth nothing any more; the refresh token still is.
        upstream.good = f"{CANARY}another"
        found = validate()
        assert (found.status, found.refresh.status, found.mcp_probe) == ("valid", "succeeded", None)
        assert upstream.forms[0]["grant_type"] == "refresh_token"
        assert upstream.forms[0]["authorization"].startswith("Basic ")
        upstream.good, upstream.refuses_refresh = f"{CANARY}another", True
        found = validate()
        assert (found.status, found.refresh.status) == ("invalid", "failed")
        assert found.refresh.http_response.status_code == 400
        assert json.loads(found.refresh.http_response.body) == {"error": "invalid_grant"}
        assert (found.mcp_probe.method, found.mcp_probe.http_response.status_code) == ("initialize", 401)
        assert "invalid_token" in found.mcp_probe.http_response.body
        assert "[secret]" in found.mcp_probe.http_response.body
        assert not found.mcp_probe.http_response.body_truncated

        vaults.credentials.archive(made.id, vault_id=vault.id)
        plain = oauth(upstream)
        del plain["refresh"]
        made = vaults.credentials.create(vault.id, auth=plain)
        found = validate()
        assert (found.status, found.has_refresh_token, found.refresh.status) == ("invalid", False, "no_refresh_token")
        upstream.good = f"{CANARY}access-0"
        assert validate().status == "valid"


def test_a_session_calls_its_server_with_its_vault(upstream, near):
    with connect(near) as client:
        beta = client.beta
        vault = beta.vaults.create(display_name="v")
        made = beta.vaults.credentials.create(vault.id, auth=oauth(upstream))
        environment = beta.environments.create(name=f"e {uuid.uuid4()}")
        calls = [[{"tool": "mcp__up__whoami", "input": {}}], [{"text": "{{last_tool_result}}"}]]
        agent = beta.agents.create(
            name="Caller",
            model="scripted/script",
            system=script(calls, calls, [[{"text": "no tool left"}]]),
            mcp_servers=[{"type": "url", "name": "up", "url": f"{upstream.url}/mcp"}],
            tools=[
                {
                    "type": "mcp_toolset",
                    "mcp_server_name": "up",
                    "default_config": {"permission_policy": {"type": "always_allow"}},
                }
            ],
        )
        session = beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        assert session.vault_ids == [vault.id]
        seen = answered(beta, session, message("one"))
        result = only(seen, "agent.mcp_tool_result")
        assert "you came with Bearer [secret]" in result.content[0].text
        # A token that is replaced while the session rests is the next one that is presented.
        upstream.good = f"{CANARY}rotated"
        beta.vaults.credentials.update(
            made.id, vault_id=vault.id, auth={"type": "mcp_oauth", "access_token": f"{CANARY}rotated"}
        )
        seen = answered(beta, session, message("two"))
        assert "you came with" in only(seen, "agent.mcp_tool_result").content[0].text
        assert upstream.issued == 0
        # Without its secrets the session goes on, and says what it lacks.
        beta.vaults.archive(vault.id)
        upstream.good = f"{CANARY}nobody-has-this"
        seen = answered(beta, session, message("three"))
        assert only(seen, "session.status_idle").stop_reason.type == "end_turn"
        with pytest.raises(anthropic.BadRequestError, match="archived"):
            beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        beta.vaults.delete(vault.id)
        with pytest.raises(anthropic.NotFoundError):
            beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        events = [event.model_dump_json() for event in beta.sessions.events.list(session.id)]
        assert CANARY not in "".join(events)


def test_the_asynchronous_client(server):
    async def run():
        async with connect(server, anthropic.AsyncAnthropic) as client:
            vaults = client.beta.vaults
            vault = await vaults.create(display_name="async")
            made = await vaults.credentials.create(vault.id, auth=bearer())
            found = [one.id async for one in vaults.credentials.list(vault.id)]
            assert found == [made.id]
            await vaults.credentials.delete(made.id, vault_id=vault.id)
            await vaults.delete(vault.id)

    asyncio.run(run())
