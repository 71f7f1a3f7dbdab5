// Anthropic's SDK for JavaScript, with nothing changed but the base URL and the key.
//
// `node claude.mjs SCENARIO` plays one scenario against the server that OMA_URL names and exits with 0 if it went
// well; `node claude.mjs` lists the scenarios.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";
import { accumulateManagedAgentsEvent } from "@anthropic-ai/sdk/lib/sessions/accumulate";

const baseURL = process.env.OMA_URL;
const apiKey = process.env.OMA_TOKEN ?? "unused";
const client = baseURL && new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const toolset = { type: "agent_toolset_20260401" };
const ticket = {
  type: "custom",
  name: "open_ticket",
  description: "Opens a ticket",
  input_schema: { type: "object", properties: { title: { type: "string" } }, required: ["title"] },
};

const message = (text) => ({ type: "user.message", content: [{ type: "text", text }] });

/** A session of an agent whose model answers, for each turn, with a list of replies, each a list of steps. */
async function scripted(turns, fields = {}) {
  const agent = await client.beta.agents.create({
    name: "Coder",
    model: "scripted/script",
    system: JSON.stringify({ turns }),
    tools: [toolset],
    ...fields,
  });
  const environment = await client.beta.environments.create({ name: `node ${randomUUID()}` });
  return client.beta.sessions.create({ agent: agent.id, environment_id: environment.id });
}

/** Posts events and gives what is streamed until the session is idle. */
async function answered(session, events, params = {}) {
  const stream = await client.beta.sessions.events.stream(session.id, params);
  await client.beta.sessions.events.send(session.id, { events });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === "session.status_idle") return seen;
  }
  throw new Error("the stream ended");
}

const of = (events, type) => events.filter((event) => event.type === type);

const scenarios = {
  async agents() {
    const agent = await client.beta.agents.create({ name: "A", model: "scripted/echo", metadata: { a: "1" } });
    assert.equal(agent.version, 1);
    const second = await client.beta.agents.update(agent.id, { version: 1, system: "s", metadata: { a: null } });
    assert.deepEqual([second.version, second.system, second.metadata], [2, "s", {}]);
    await assert.rejects(client.beta.agents.update(agent.id, { version: 1, name: "B" }), Anthropic.ConflictError);
    const versions = [];
    for await (const version of client.beta.agents.versions.list(agent.id, { limit: 1 })) versions.push(version.version);
    assert.deepEqual(versions, [2, 1]);
    assert.ok((await client.beta.agents.archive(agent.id)).archived_at);
    await assert.rejects(client.beta.agents.retrieve("agent_nobody"), (error) => {
      assert.ok(error instanceof Anthropic.NotFoundError);
      assert.equal(error.error.error.type, "not_found_error");
      assert.ok(error.requestID);
      return true;
    });
  },

  async environments() {
    const name = `node ${randomUUID()}`;
    const made = await client.beta.environments.create({ name, description: "d", metadata: { a: "1" } });
    assert.equal(made.config.networking.type, "unrestricted");
    await assert.rejects(client.beta.environments.create({ name }), (error) => {
      assert.ok(error instanceof Anthropic.ConflictError);
      assert.equal(error.headers.get("x-should-retry"), "false");
      return true;
    });
    const updated = await client.beta.environments.update(made.id, { description: null, metadata: { a: null, b: "2" } });
    assert.deepEqual([updated.description, updated.metadata], [null, { b: "2" }]);
    const listed = [];
    for await (const found of client.beta.environments.list({ limit: 1 })) listed.push(found.id);
    assert.ok(listed.includes(made.id));
    assert.ok((await client.beta.environments.archive(made.id)).archived_at);
    await assert.rejects(client.beta.environments.update(made.id, { name: "late" }), Anthropic.BadRequestError);
    assert.equal((await client.beta.environments.delete(made.id)).type, "environment_deleted");
    await assert.rejects(client.beta.environments.retrieve(made.id), Anthropic.NotFoundError);
  },

  async previews() {
    const text = "word ".repeat(200);
    const session = await scripted([[[{ text }]]]);
    let shown;
    const lengths = [];
    for (const event of await answered(session, [message("go")], { event_deltas: ["agent.message", "agent.thinking"] })) {
      shown = accumulateManagedAgentsEvent(shown, event);
      if (event.type === "event_delta") {
        assert.ok(text.startsWith(shown.content[0].text));
        lengths.push(shown.content[0].text.length);
      }
    }
    assert.ok(lengths.length > 1);
    assert.deepEqual(lengths, lengths.toSorted((one, other) => one - other));
    assert.equal(shown.content[0].text, text);
  },

  async interrupt() {
    const session = await scripted([[[{ text: "begun " }, { delay_ms: 600_000 }]], [[{ text: "second" }]]]);
    const stream = await client.beta.sessions.events.stream(session.id, { event_deltas: ["agent.message"] });
    await client.beta.sessions.events.send(session.id, { events: [message("go")] });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "event_delta" && of(seen, "event_delta").length === 1) {
        const events = [{ type: "user.interrupt" }, message("on")];
        const sent = await client.beta.sessions.events.send(session.id, { events });
        assert.deepEqual(sent.data.map((echo) => echo.type), ["user.interrupt", "user.message"]);
      }
      if (event.type === "session.status_idle" && of(seen, "agent.message").length === 2) break;
    }
    assert.deepEqual(of(seen, "agent.message").map((event) => event.content[0].text), ["begun ", "second"]);
    assert.deepEqual(of(seen, "session.status_idle").map((event) => event.stop_reason.type), ["end_turn", "end_turn"]);
  },

  async threads() {
    const session = await scripted([[[{ text: "hi" }]]]);
    await answered(session, [message("go")]);
    const { data } = await client.beta.sessions.threads.list(session.id);
    assert.deepEqual(data.map((thread) => thread.parent_thread_id), [null]);
    const own = await client.beta.sessions.threads.events.list(data[0].id, { session_id: session.id });
    assert.equal(of(own.data, "agent.message")[0].content[0].text, "hi");
  },

  async turn() {
    const session = await scripted([
      [[{ tool: "bash", input: { command: "echo there" } }], [{ text: "It says {{last_tool_result}}" }]],
    ]);
    const events = await answered(session, [message("go")], { event_deltas: ["agent.message"] });
    const [whole] = of(events, "agent.message");
    assert.equal(whole.content[0].text.trim(), "It says there");
    const pieces = of(events, "event_delta").map((event) => event.delta.content.text);
    assert.ok(pieces.length > 0 && whole.content[0].text.startsWith(pieces.join("")));
    assert.equal(events.at(-1).stop_reason.type, "end_turn");
    const listed = [];
    for await (const event of client.beta.sessions.events.list(session.id, { limit: 4 })) listed.push(event);
    const logged = events.filter((event) => !event.type.startsWith("event_"));
    assert.deepEqual(listed, logged);
    assert.ok((await client.beta.sessions.retrieve(session.id)).usage.output_tokens > 0);
  },

  async confirmation() {
    const ask = { ...toolset, default_config: { permission_policy: { type: "always_ask" } } };
    const turns = [[[{ tool: "bash", input: { command: "echo done" } }], [{ text: "ok" }]]];
    const session = await scripted(turns, { tools: [ask] });
    const [use] = of(await answered(session, [message("go")]), "agent.tool_use");
    assert.equal(use.evaluated_permission, "ask");
    await assert.rejects(
      client.beta.sessions.events.send(session.id, { events: [message("more")] }),
      /waiting on responses to events/,
    );
    const events = await answered(session, [
      { type: "user.tool_confirmation", tool_use_id: use.id, result: "allow" },
    ]);
    assert.equal(of(events, "agent.tool_result")[0].content[0].text.trim(), "done");
  },

  async customTool() {
    const turns = [[[{ tool: "open_ticket", input: { title: "it broke" } }], [{ text: "Ticket: {{last_tool_result}}" }]]];
    const session = await scripted(turns, { tools: [ticket] });
    const events = await answered(session, [message("go")]);
    const [use] = of(events, "agent.custom_tool_use");
    assert.deepEqual(events.at(-1).stop_reason, { type: "requires_action", event_ids: [use.id] });
    const result = {
      type: "user.custom_tool_result",
      custom_tool_use_id: use.id,
      content: [{ type: "text", text: "No. 7" }],
    };
    assert.equal(of(await answered(session, [result]), "agent.message")[0].content[0].text, "Ticket: No. 7");
    await assert.rejects(client.beta.sessions.events.send(session.id, { events: [result] }), Anthropic.BadRequestError);
  },

  async runner() {
    const turns = [[[{ tool: "open_ticket", input: { title: "it broke" } }], [{ text: "{{last_tool_result}}" }]]];
    const session = await scripted(turns, { tools: [ticket] });
    const opened = [];
    const tool = {
      ...ticket,
      run: async ({ title }) => {
        opened.push(title);
        return "No. 9";
      },
      parse: (input) => input,
    };
    await client.beta.sessions.events.send(session.id, { events: [message("go")] });
    const runner = client.beta.sessions.events.toolRunner(session.id, { tools: [tool], maxIdle: 200, maxIdleMs: 200 });
    for await (const call of runner) assert.equal(call.name, "open_ticket");
    assert.deepEqual(opened, ["it broke"]);
    const said = await client.beta.sessions.events.list(session.id, { types: ["agent.message"] });
    assert.equal(said.data.at(-1).content[0].text, "No. 9");
  },

  async sessions() {
    const session = await scripted([[[{ text: "hi" }]]]);
    const updated = await client.beta.sessions.update(session.id, { title: "T", metadata: { k: "v" } });
    assert.deepEqual([updated.title, updated.metadata], ["T", { k: "v" }]);
    const page = await client.beta.sessions.list({ statuses: ["idle"], agent_id: session.agent.id });
    assert.deepEqual(page.data.map((found) => found.id), [session.id]);
    assert.equal((await client.beta.sessions.archive(session.id)).status, "terminated");
    assert.equal((await client.beta.sessions.delete(session.id)).type, "session_deleted");
  },

  async authentication() {
    assert.deepEqual((await client.beta.environments.list()).data, []);
    const stranger = new Anthropic({ baseURL, apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.beta.agents.list(), Anthropic.AuthenticationError);
  },
};

const chosen = process.argv[2];
if (chosen === undefined) {
  console.log(Object.keys(scenarios).join(" "));
} else {
  await scenarios[chosen]();
  process.exit(0);
}
