// What the scenarios of all topics need: a client, agents that do as they are told, and checks that are counted.

import strict from "node:assert/strict";
import { randomUUID } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";

export { Anthropic };

/** How many checks have passed so far. */
export const checks = { passed: 0 };

function counted(check) {
  return (...given) => {
    const result = check(...given);
    if (result instanceof Promise) {
      return result.then((value) => {
        checks.passed += 1;
        return value;
      });
    }
    checks.passed += 1;
    return result;
  };
}

/** `node:assert/strict`, counting. */
export const assert = Object.fromEntries(
  ["ok", "equal", "notEqual", "deepEqual", "match", "doesNotMatch", "rejects", "throws"].map((name) => [
    name,
    counted(strict[name]),
  ]),
);

export const baseURL = process.env.OMA_URL;
/** The token of the server, where it asks for one. */
export const token = process.env.OMA_TOKEN;
/** A client of this server, with another key if need be. */
export const connect = (credentials = { apiKey: token ?? "unused" }) =>
  new Anthropic({ baseURL, maxRetries: 0, ...credentials });
/** Nobody's, as long as only the scenarios' names are asked for. */
export const client = baseURL && connect();
export const beta = client?.beta;

/** What every secret that is given to the server begins with: none of them comes back, nor is it in any file. */
export const CANARY = "canary-";

export const toolset = { type: "agent_toolset_20260401" };
export const ask = { ...toolset, default_config: { permission_policy: { type: "always_ask" } } };
export const ticket = {
  type: "custom",
  name: "open_ticket",
  description: "Opens a ticket",
  input_schema: { type: "object", properties: { title: { type: "string" } }, required: ["title"] },
};

export const message = (text) => ({ type: "user.message", content: [{ type: "text", text }] });
export const bash = (command) => ({ tool: "bash", input: { command } });
/** Says what the last tool's result was. */
export const report = { text: "{{last_tool_result}}" };

/** An agent whose model answers, for each turn, with a list of replies, each a list of steps. */
export const agentOf = (turns, fields = {}) =>
  beta.agents.create({
    name: "Coder",
    model: "scripted/script",
    system: JSON.stringify({ turns }),
    tools: [toolset],
    ...fields,
  });

export const environmentOf = (fields = {}) => beta.environments.create({ name: `node ${randomUUID()}`, ...fields });

/** A session of an agent; one with `turns`, or one that is there already. */
export async function opened(agent, fields = {}) {
  const environment = fields.environment_id ?? (await environmentOf()).id;
  return beta.sessions.create({ agent: agent.id, ...fields, environment_id: environment });
}

/** A session of an agent with these turns. */
export const scripted = async (turns, fields = {}, session = {}) => opened(await agentOf(turns, fields), session);

/** Posts events and gives what is streamed until the session is idle. */
export async function answered(session, events, params = {}) {
  const stream = await beta.sessions.events.stream(session.id, params);
  await beta.sessions.events.send(session.id, { events });
  return idle(stream);
}

/** What a stream tells until the session is idle, which is the last. */
export async function idle(stream) {
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === "session.status_idle") return seen;
  }
  throw new Error("the stream ended");
}

export const of = (events, type) => events.filter((event) => event.type === type);

/** The only event of a type. */
export function only(events, type) {
  const found = of(events, type);
  assert.equal(found.length, 1, `${type} among ${events.map((event) => event.type)}`);
  return found[0];
}

/** What the agent has said, the only message of these events. */
export const said = (events) => only(events, "agent.message").content[0].text;

/** All rows of a list, over as many pages as there are. */
export async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

/** The error of a request that is refused with this class of the SDK, in the shape of this API. */
export async function refused(request, kind, pattern = /./) {
  let error;
  await assert.rejects(request, (thrown) => {
    error = thrown;
    return true;
  });
  assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error?.message}`);
  assert.equal(error.error.type, "error");
  assert.equal(error.error.request_id, error.requestID);
  assert.match(error.apiMessage, pattern);
  return error;
}
