// Errors in the classes that the SDK has for them, with what it reads from them. The server asks for a token.

import { APIConnectionError, APIUserAbortError } from "@anthropic-ai/sdk";
import { Anthropic, assert, beta, connect, refused } from "./shared.mjs";

const { AuthenticationError, BadRequestError, ConflictError, NotFoundError } = Anthropic;

export default {
  async authentication() {
    assert.ok(Array.isArray((await beta.agents.list()).data));
    const stranger = await refused(connect({ apiKey: "wrong" }).beta.agents.list(), AuthenticationError);
    assert.deepEqual([stranger.status, stranger.type], [401, "authentication_error"]);
    await refused(connect({ apiKey: null, authToken: "wrong" }).beta.agents.list(), AuthenticationError);
  },

  async fields() {
    const missing = await refused(beta.agents.retrieve("agent_nobody"), NotFoundError, /agent/i);
    assert.deepEqual([missing.status, missing.type, missing.errorCode], [404, "not_found_error", "agent_not_found"]);
    assert.match(missing.requestID, /^req_/);
    assert.equal(missing.headers.get("request-id"), missing.requestID);
    const fields = { name: "A", model: "scripted/echo", temperature: 1 };
    const extra = await refused(
      beta.agents.create(fields),
      BadRequestError,
      /^temperature: Extra inputs are not permitted$/,
    );
    assert.equal(extra.type, "invalid_request_error");
    const agent = await beta.agents.create({ name: "A", model: "scripted/echo" });
    await beta.agents.update(agent.id, { version: 1, name: "B" });
    const stale = await refused(beta.agents.update(agent.id, { version: 1, name: "C" }), ConflictError);
    assert.deepEqual([stale.status, stale.type], [409, "conflict_error"]);
  },

  async whatIsNotThere() {
    await refused(beta.dreams.list(), NotFoundError);
    const vault = await beta.vaults.create({ display_name: "v" });
    const auth = {
      type: "environment_variable",
      secret_name: "HTTPS_PROXY",
      secret_value: "canary-value",
      networking: { type: "unrestricted" },
    };
    const made = beta.vaults.credentials.create(vault.id, { auth });
    await refused(made, BadRequestError, /auth\.secret_name: The sandbox gives/);
  },

  async connection() {
    const aborted = new AbortController();
    const request = beta.agents.list({}, { signal: aborted.signal });
    aborted.abort();
    await assert.rejects(request, APIUserAbortError);
    // Nobody listens there.
    const nowhere = new Anthropic({ baseURL: "http://127.0.0.1:9", apiKey: "unused", maxRetries: 0 });
    await assert.rejects(nowhere.beta.agents.list(), APIConnectionError);
  },
};
