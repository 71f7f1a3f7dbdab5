// The OpenAI SDK for JavaScript, with nothing changed but the base URL and one header.
//
// `node chat.mjs SCENARIO` plays one scenario against the server that OMA_URL names and exits with 0 if it went
// well; `node chat.mjs` lists the scenarios.

import assert from "node:assert/strict";
import OpenAI from "openai";

const base = process.env.OMA_URL;
const token = process.env.OMA_TOKEN ?? "unused";

/** A client of one agent. */
function connect(agent, headers = {}) {
  return new OpenAI({
    baseURL: `${base}/v1`,
    apiKey: token,
    maxRetries: 0,
    defaultHeaders: { "x-openclaw-agent-id": agent, ...headers },
  });
}

/** Asks the native API. */
async function native(method, path, body) {
  const answer = await fetch(`${base}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  assert.equal(answer.status, 200, `${method} ${path}: ${answer.status}`);
  return answer.json();
}

async function agent(fields) {
  return (await native("POST", "/v1/agents", fields)).agent_id;
}

/** An agent whose model answers, for each turn, with a list of replies, each a list of steps. */
function scripted(...turns) {
  return agent({ model: "scripted/script", instructions: JSON.stringify({ turns }) });
}

function ask(client, content, options = {}, request = {}) {
  const body = { model: "placeholder", messages: [{ role: "user", content }], ...options };
  return client.chat.completions.create(body, request);
}

/** Waits for the end of a session's turn and gives its events. */
async function ended(session) {
  const answer = await fetch(`${base}/v1/sessions/${session}/events?stream=true`, {
    headers: { authorization: `Bearer ${token}` },
  });
  let text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (/event: session\.status_(idle|failed)\n.*\n/.test(text)) break;
  }
  return (await native("GET", `/v1/sessions/${session}/events`)).events;
}

const scenarios = {
  async whole() {
    const client = connect(await agent({ model: "scripted/echo" }));
    const { data, response } = await ask(client, "What is 2+2?").withResponse();
    assert.equal(data.object, "chat.completion");
    assert.equal(data.choices[0].message.role, "assistant");
    assert.equal(data.choices[0].message.content, "What is 2+2?");
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.ok(data.usage.completion_tokens > 0);
    assert.equal(data.model, "scripted/echo");
    assert.match(response.headers.get("x-openclaw-session-id"), /^ses_/);
  },

  async parts() {
    const client = connect(await agent({ model: "scripted/echo" }));
    const picture = "data:image/png;base64,iVBORw0KGgo=";
    const answer = await client.chat.completions.create({
      model: "placeholder",
      messages: [
        { role: "system", content: "ignored" },
        { role: "user", content: "before" },
        { role: "assistant", content: "an answer" },
        {
          role: "user",
          content: [
            { type: "text", text: "größe 🦀" },
            { type: "image_url", image_url: { url: picture } },
          ],
        },
      ],
      temperature: 0.5,
    });
    assert.equal(answer.choices[0].message.content, "größe 🦀");
  },

  async streamed() {
    const client = connect(await agent({ model: "scripted/echo" }));
    const text = "wörd ".repeat(200).trim();
    const pieces = [];
    let usage = null;
    let reason = null;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await ask(client, text, options)) {
      usage = chunk.usage ?? usage;
      for (const choice of chunk.choices) {
        reason = choice.finish_reason ?? reason;
        if (choice.delta.content) pieces.push(choice.delta.content);
      }
    }
    assert.equal(pieces.join(""), text);
    assert.ok(pieces.length > 1, "the answer came in one piece");
    assert.equal(reason, "stop");
    assert.ok(usage.completion_tokens > 0);
  },

  async accumulated() {
    // The SDK's own accumulator checks the shape of every chunk.
    const client = connect(
      await scripted([
        [{ text: "Let me see." }, { tool: "bash", input: { command: "echo 42" } }],
        [{ text: "It is 42." }],
      ]),
    );
    const stream = client.chat.completions.stream({
      model: "placeholder",
      messages: [{ role: "user", content: "compute" }],
    });
    const seen = [];
    stream.on("content", (delta) => seen.push(delta));
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, "stop");
    assert.equal(final.choices[0].message.content, "Let me see.\n\nIt is 42.");
    assert.equal(seen.join(""), "Let me see.\n\nIt is 42.");
  },

  async sticky() {
    const id = await scripted([[{ text: "one" }]], [[{ text: "two" }]], [[{ text: "three" }]]);
    const key = `node-${process.pid}`;
    const first = await ask(connect(id), "a", { user: key });
    assert.equal(first.choices[0].message.content, "one");
    const again = await ask(connect(id), "b", { user: key });
    assert.equal(again.choices[0].message.content, "two");
    const byHeader = await ask(connect(id, { "x-openclaw-session-key": key }), "c");
    assert.equal(byHeader.choices[0].message.content, "three");
    assert.equal((await native("GET", `/v1/sessions/${key}`)).turns, 3);
    const other = connect(await agent({ model: "scripted/echo" }), { "x-openclaw-session-key": key });
    await assert.rejects(ask(other, "d"), OpenAI.ConflictError);
  },

  async errors() {
    await assert.rejects(ask(connect(""), "a"), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.type, "invalid_request_error");
      return true;
    });
    await assert.rejects(ask(connect("agt_nobody"), "a"), OpenAI.NotFoundError);
    const empty = connect(await agent({ model: "scripted/echo" }));
    await assert.rejects(ask(empty, ""), OpenAI.BadRequestError);
    const failing = () =>
      scripted([[{ error: { kind: "request_failed", message: "no such thing" } }]]);
    for (const stream of [false, true]) {
      const client = connect(await failing());
      await assert.rejects(ask(client, "a", { stream }), (error) => {
        assert.ok(error instanceof OpenAI.InternalServerError, `${error}`);
        assert.match(error.message, /no such thing/);
        return true;
      });
    }
    // One that fails after it has begun to speak can only say so in its stream.
    const late = connect(
      await scripted([[{ text: "begun " }, { error: { kind: "request_failed", message: "no more" } }]]),
    );
    const read = async () => {
      for await (const chunk of await ask(late, "a", { stream: true })) assert.ok(chunk.id);
    };
    await assert.rejects(read, (error) => {
      assert.ok(error instanceof OpenAI.APIError, `${error}`);
      assert.match(error.message, /no more/);
      return true;
    });
  },

  async aborted() {
    const id = await scripted([[{ text: "begun " }, { delay_ms: 600_000 }, { text: "never" }]]);
    for (const how of ["controller", "break"]) {
      const key = `node-abort-${how}-${process.pid}`;
      const stream = await ask(connect(id), "go", { stream: true, user: key });
      for await (const chunk of stream) {
        if (!chunk.choices[0]?.delta.content) continue;
        if (how === "break") break;
        stream.controller.abort();
      }
      const events = await ended(key);
      assert.equal(events.at(-1).stop_reason, "interrupted");
      assert.equal(events.find((event) => event.type === "agent.message").content, "begun ");
    }
  },

  async timeout() {
    const id = await scripted([[{ delay_ms: 600_000 }, { text: "never" }]]);
    const key = `node-timeout-${process.pid}`;
    await assert.rejects(
      ask(connect(id), "go", { user: key }, { timeout: 500 }),
      OpenAI.APIConnectionTimeoutError,
    );
    const events = await ended(key);
    assert.equal(events.at(-1).stop_reason, "interrupted");
  },

  async models() {
    const client = connect(await agent({ model: "scripted/echo" }));
    const ids = [];
    for await (const model of client.models.list()) {
      assert.equal(model.object, "model");
      ids.push(model.id);
    }
    assert.ok(ids.includes("scripted/echo"), `${ids}`);
  },

  async authentication() {
    const client = connect(await agent({ model: "scripted/echo" }));
    assert.equal((await ask(client, "let me in")).choices[0].message.content, "let me in");
    const stranger = new OpenAI({ baseURL: `${base}/v1`, apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(ask(stranger, "let me in"), OpenAI.AuthenticationError);
  },
};

const [name] = process.argv.slice(2);
if (name === undefined) {
  console.log(Object.keys(scenarios).join("\n"));
} else {
  await scenarios[name]();
}
