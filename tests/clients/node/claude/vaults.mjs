// Vaults, their credentials, and MCP servers that are called with them. The server of `validation` and `session` may
// dial this machine, where the MCP server and the issuer of its tokens are.

import { createServer } from "node:http";
import { once } from "node:events";
import {
  Anthropic,
  CANARY,
  agentOf,
  all,
  answered,
  assert,
  beta,
  environmentOf,
  message,
  only,
  opened,
  refused,
} from "./shared.mjs";

const { BadRequestError, ConflictError, NotFoundError } = Anthropic;
const SOON = new Date(Date.now() + 3_600_000).toISOString();

const bearer = (url = "https://a.example/mcp") => ({
  type: "static_bearer",
  mcp_server_url: url,
  token: `${CANARY}node-token`,
});

const oauth = (url, refresh = {}) => ({
  type: "mcp_oauth",
  mcp_server_url: `${url}/mcp`,
  access_token: `${CANARY}access-0`,
  expires_at: SOON,
  refresh: {
    client_id: "client",
    refresh_token: `${CANARY}refresh-0`,
    token_endpoint: `${url}/token`,
    token_endpoint_auth: { type: "client_secret_basic", client_secret: `${CANARY}secret` },
    ...refresh,
  },
});

/** An MCP server that takes one token, and the issuer of tokens for it, which rotates refresh tokens. */
async function upstream() {
  const state = {
    good: `${CANARY}access-0`,
    refresh: `${CANARY}refresh-0`,
    issued: 0,
    refuses: false,
    forms: [],
    calls: [],
  };
  const server = createServer(async (request, response) => {
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(body && JSON.stringify(body));
    };
    if (request.method !== "POST") return answer(request.method === "DELETE" ? 204 : 405);
    let body = "";
    for await (const chunk of request) body += chunk;
    const authorization = request.headers.authorization ?? "";
    if (request.url === "/token") {
      const form = Object.fromEntries(new URLSearchParams(body));
      state.forms.push({ ...form, authorization });
      if (state.refuses || form.refresh_token !== state.refresh) {
        return answer(400, { error: "invalid_grant", hint: form.refresh_token });
      }
      state.issued += 1;
      state.good = `${CANARY}access-${state.issued}`;
      state.refresh = `${CANARY}refresh-${state.issued}`;
      return answer(200, { access_token: state.good, refresh_token: state.refresh, expires_in: 3600 });
    }
    if (authorization !== `Bearer ${state.good}`)
      return answer(401, { error: "invalid_token", you_sent: authorization });
    const { id, method } = JSON.parse(body);
    state.calls.push(method);
    if (id === undefined) return answer(202);
    const serverInfo = { name: "upstream", version: "1" };
    const results = {
      initialize: { protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo },
      "tools/list": { tools: [{ name: "whoami", inputSchema: { type: "object" } }] },
      "tools/call": { content: [{ type: "text", text: `you came with ${authorization}` }] },
    };
    return answer(200, { jsonrpc: "2.0", id, result: results[method] ?? {} }, { "mcp-session-id": "s" });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return Object.assign(state, { url: `http://127.0.0.1:${server.address().port}` });
}

export default {
  async life() {
    const made = await beta.vaults.create({ display_name: "Ada", metadata: { a: "1" } });
    assert.deepEqual(
      [made.type, made.display_name, made.metadata, made.archived_at],
      ["vault", "Ada", { a: "1" }, null],
    );
    assert.deepEqual(await beta.vaults.retrieve(made.id), made);
    const updated = await beta.vaults.update(made.id, { display_name: "Grace", metadata: { a: null, b: "2" } });
    assert.deepEqual([updated.display_name, updated.metadata], ["Grace", { b: "2" }]);
    const newer = await beta.vaults.create({ display_name: "newer" });
    const ids = async (params) => (await all(beta.vaults.list(params))).map((vault) => vault.id);
    const listed = await ids({ limit: 1 });
    assert.ok(
      listed.includes(made.id) && listed.indexOf(newer.id) < listed.indexOf(made.id),
      "newest first, over pages",
    );

    const archived = await beta.vaults.archive(made.id);
    assert.ok(archived.archived_at);
    assert.deepEqual(await beta.vaults.archive(made.id), archived);
    assert.ok(!(await ids({})).includes(made.id));
    assert.ok((await ids({ include_archived: true })).includes(made.id));
    await refused(beta.vaults.update(made.id, { display_name: "late" }), BadRequestError, /archived/);
    await refused(beta.vaults.credentials.create(made.id, { auth: bearer() }), BadRequestError, /archived/);
    const deleted = await beta.vaults.delete(made.id);
    assert.deepEqual([deleted.id, deleted.type], [made.id, "vault_deleted"]);
    for (const call of ["retrieve", "archive", "delete"]) await refused(beta.vaults[call](made.id), NotFoundError);
    await refused(beta.vaults.credentials.list(made.id), NotFoundError);
    await refused(beta.vaults.create({ display_name: "" }), BadRequestError, /display_name/);
  },

  async credentials() {
    const vault = await beta.vaults.create({ display_name: "v" });
    const { credentials } = beta.vaults;
    const at = { vault_id: vault.id };
    const fixed = await credentials.create(vault.id, { auth: bearer(), display_name: "Fixed", metadata: { k: "v" } });
    assert.deepEqual([fixed.type, fixed.vault_id, fixed.display_name], ["vault_credential", vault.id, "Fixed"]);
    assert.deepEqual(fixed.auth, { type: "static_bearer", mcp_server_url: "https://a.example/mcp" });
    const made = await credentials.create(vault.id, { auth: oauth("https://b.example", { scope: "read write" }) });
    assert.deepEqual([made.auth.refresh.client_id, made.auth.refresh.scope], ["client", "read write"]);
    assert.deepEqual(made.auth.refresh.token_endpoint_auth, { type: "client_secret_basic" });
    assert.equal(new Date(made.auth.expires_at).getTime(), new Date(SOON).getTime());
    const ids = async (params) => (await all(credentials.list(vault.id, params))).map((found) => found.id);
    assert.deepEqual(await ids({ limit: 1 }), [made.id, fixed.id]);
    assert.deepEqual(await credentials.retrieve(made.id, at), made);
    const taken = credentials.create(vault.id, { auth: bearer("https://A.example:443/mcp/") });
    assert.equal((await refused(taken, ConflictError)).headers.get("x-should-retry"), "false");

    const auth = { type: "mcp_oauth", refresh: { scope: "" } };
    const renamed = await credentials.update(made.id, { ...at, display_name: "n", auth });
    assert.deepEqual([renamed.display_name, renamed.auth.refresh.scope], ["n", null]);
    assert.equal((await credentials.update(made.id, { ...at, display_name: null })).display_name, null);
    for (const change of [
      { type: "static_bearer", token: `${CANARY}x` },
      { type: "mcp_oauth", mcp_server_url: "https://evil.example/" },
      { type: "mcp_oauth", refresh: { token_endpoint: "https://evil.example/" } },
      { type: "mcp_oauth", refresh: { token_endpoint_auth: { type: "client_secret_post" } } },
    ]) {
      await refused(credentials.update(made.id, { ...at, auth: change }), BadRequestError, /Can't be changed/);
    }
    await refused(credentials.mcpOAuthValidate(fixed.id, at), BadRequestError, /mcp_oauth/);

    assert.ok((await credentials.archive(fixed.id, at)).archived_at);
    await refused(credentials.update(fixed.id, { ...at, display_name: "late" }), BadRequestError, /archived/);
    const again = await credentials.create(vault.id, { auth: bearer() });
    assert.deepEqual(await ids({}), [again.id, made.id]);
    assert.equal((await ids({ include_archived: true })).length, 3);
    assert.equal((await credentials.delete(made.id, at)).type, "vault_credential_deleted");
    await refused(credentials.retrieve(made.id, at), NotFoundError);
    const other = await beta.vaults.create({ display_name: "other" });
    await refused(credentials.retrieve(again.id, { vault_id: other.id }), NotFoundError);
  },

  async validation() {
    const server = await upstream();
    const vault = await beta.vaults.create({ display_name: "v" });
    const made = await beta.vaults.credentials.create(vault.id, { auth: oauth(server.url) });
    const validate = () => beta.vaults.credentials.mcpOAuthValidate(made.id, { vault_id: vault.id });

    let found = await validate();
    assert.deepEqual(
      [found.type, found.credential_id, found.vault_id],
      ["vault_credential_validation", made.id, vault.id],
    );
    assert.deepEqual(
      [found.status, found.has_refresh_token, found.mcp_probe, found.refresh],
      ["valid", true, null, null],
    );
    assert.deepEqual(server.calls, ["initialize", "notifications/initialized", "tools/list"]);
    // The token is worth nothing any more; the refresh token still is.
    server.good = `${CANARY}another`;
    found = await validate();
    assert.deepEqual([found.status, found.refresh.status, found.mcp_probe], ["valid", "succeeded", null]);
    assert.equal(server.forms[0].grant_type, "refresh_token");
    assert.match(server.forms[0].authorization, /^Basic /);
    Object.assign(server, { good: `${CANARY}another`, refuses: true });
    found = await validate();
    assert.deepEqual([found.status, found.refresh.status], ["invalid", "failed"]);
    assert.equal(found.refresh.http_response.status_code, 400);
    assert.deepEqual(JSON.parse(found.refresh.http_response.body), { error: "invalid_grant" });
    assert.deepEqual([found.mcp_probe.method, found.mcp_probe.http_response.status_code], ["initialize", 401]);
    assert.match(found.mcp_probe.http_response.body, /invalid_token.*\[secret\]/);
  },

  async session() {
    const server = await upstream();
    const vault = await beta.vaults.create({ display_name: "v" });
    const made = await beta.vaults.credentials.create(vault.id, { auth: oauth(server.url) });
    const environment = await environmentOf();
    const calls = [[{ tool: "mcp__up__whoami", input: {} }], [{ text: "{{last_tool_result}}" }]];
    const allow = { permission_policy: { type: "always_allow" } };
    const agent = await agentOf([calls, calls, [[{ text: "no tool left" }]]], {
      mcp_servers: [{ type: "url", name: "up", url: `${server.url}/mcp` }],
      tools: [{ type: "mcp_toolset", mcp_server_name: "up", default_config: allow }],
    });
    const fields = { environment_id: environment.id, vault_ids: [vault.id] };
    const session = await opened(agent, fields);
    assert.deepEqual(session.vault_ids, [vault.id]);
    let events = await answered(session, [message("one")]);
    assert.deepEqual(
      [only(events, "agent.mcp_tool_use").name, only(events, "agent.mcp_tool_use").mcp_server_name],
      ["whoami", "up"],
    );
    assert.match(only(events, "agent.mcp_tool_result").content[0].text, /you came with Bearer \[secret\]/);
    // A token that is replaced while the session rests is the next one that is presented.
    server.good = `${CANARY}rotated`;
    const auth = { type: "mcp_oauth", access_token: server.good };
    await beta.vaults.credentials.update(made.id, { vault_id: vault.id, auth });
    events = await answered(session, [message("two")]);
    assert.match(only(events, "agent.mcp_tool_result").content[0].text, /you came with/);
    assert.equal(server.issued, 0);
    // Without its secrets the session goes on, and says what it lacks.
    await beta.vaults.archive(vault.id);
    server.good = `${CANARY}nobody-has-this`;
    events = await answered(session, [message("three")]);
    assert.equal(events.at(-1).stop_reason.type, "end_turn");
    await refused(opened(agent, fields), BadRequestError, /archived/);
    await beta.vaults.delete(vault.id);
    await refused(opened(agent, fields), NotFoundError);
    assert.ok(!JSON.stringify(await all(beta.sessions.events.list(session.id))).includes(CANARY));
  },
};
