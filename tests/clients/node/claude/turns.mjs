// What goes on in a session's turns: tools, confirmations, custom tools, the SDK's tool runner, previews, interrupts.

import { accumulateManagedAgentsEvent } from "@anthropic-ai/sdk/lib/sessions/accumulate";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import {
  Anthropic,
  all,
  answered,
  ask,
  assert,
  bash,
  beta,
  message,
  of,
  only,
  refused,
  report,
  said,
  scripted,
  ticket,
} from "./shared.mjs";

const { BadRequestError } = Anthropic;
const opens = { tool: "open_ticket", input: { title: "it broke" } };
const result = (use, text) => ({
  type: "user.custom_tool_result",
  custom_tool_use_id: use.id,
  content: [{ type: "text", text }],
});

export default {
  async tool() {
    const session = await scripted([[[bash("echo there")], [{ text: "It says {{last_tool_result}}" }]]]);
    const events = await answered(session, [message("go")], { event_deltas: ["agent.message"] });
    const whole = only(events, "agent.message");
    assert.equal(whole.content[0].text.trim(), "It says there");
    const pieces = of(events, "event_delta").map((event) => event.delta.content.text);
    assert.ok(pieces.length > 0 && whole.content[0].text.startsWith(pieces.join("")));
    assert.equal(events.at(-1).stop_reason.type, "end_turn");
    const listed = await all(beta.sessions.events.list(session.id, { limit: 4 }));
    assert.deepEqual(
      listed,
      events.filter((event) => !event.type.startsWith("event_")),
    );
    assert.ok((await beta.sessions.retrieve(session.id)).usage.output_tokens > 0);
  },

  async previews() {
    const text = "word ".repeat(200);
    const session = await scripted([[[{ text }]]]);
    let shown;
    const lengths = [];
    for (const event of await answered(session, [message("go")], {
      event_deltas: ["agent.message", "agent.thinking"],
    })) {
      shown = accumulateManagedAgentsEvent(shown, event);
      if (event.type === "event_delta") {
        assert.ok(text.startsWith(shown.content[0].text));
        lengths.push(shown.content[0].text.length);
      }
    }
    assert.ok(lengths.length > 1);
    assert.deepEqual(
      lengths,
      lengths.toSorted((one, other) => one - other),
    );
    assert.equal(shown.content[0].text, text);
  },

  async interrupt() {
    const session = await scripted([[[{ text: "begun " }, { delay_ms: 600_000 }]], [[{ text: "second" }]]]);
    const stream = await beta.sessions.events.stream(session.id, { event_deltas: ["agent.message"] });
    await beta.sessions.events.send(session.id, { events: [message("go")] });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "event_delta" && of(seen, "event_delta").length === 1) {
        // What is under way can be neither archived nor deleted.
        await refused(beta.sessions.archive(session.id), BadRequestError, /running/);
        await refused(beta.sessions.delete(session.id), BadRequestError, /running/);
        const events = [{ type: "user.interrupt" }, message("on")];
        const sent = await beta.sessions.events.send(session.id, { events });
        assert.deepEqual(
          sent.data.map((echo) => echo.type),
          ["user.interrupt", "user.message"],
        );
      }
      if (event.type === "session.status_idle" && of(seen, "agent.message").length === 2) break;
    }
    assert.deepEqual(
      of(seen, "agent.message").map((event) => event.content[0].text),
      ["begun ", "second"],
    );
    assert.deepEqual(
      of(seen, "session.status_idle").map((event) => event.stop_reason.type),
      ["end_turn", "end_turn"],
    );
  },

  async confirmation() {
    const session = await scripted([[[bash("echo one"), bash("echo two")], [{ text: "ok" }]]], { tools: [ask] });
    const events = await answered(session, [message("go")]);
    const uses = of(events, "agent.tool_use");
    assert.deepEqual(
      uses.map((use) => use.evaluated_permission),
      ["ask", "ask"],
    );
    assert.deepEqual(events.at(-1).stop_reason, { type: "requires_action", event_ids: uses.map((use) => use.id) });
    const more = beta.sessions.events.send(session.id, { events: [message("more")] });
    await refused(more, BadRequestError, /waiting on responses to events/);
    const answer = (use, fields) => ({ type: "user.tool_confirmation", tool_use_id: use.id, ...fields });
    const first = await answered(session, [answer(uses[0], { result: "deny", deny_message: "not now" })]);
    assert.deepEqual(first.at(-1).stop_reason.event_ids, [uses[1].id]);
    const last = await answered(session, [answer(uses[1], { result: "allow" })]);
    const results = of([...first, ...last], "agent.tool_result");
    const [denied, ran] = uses.map((use) => results.find((found) => found.tool_use_id === use.id));
    assert.ok(denied.is_error && denied.content[0].text.includes("not now"));
    assert.equal(ran.content[0].text.trim(), "two");
    assert.equal(last.at(-1).stop_reason.type, "end_turn");
    const again = beta.sessions.events.send(session.id, { events: [answer(uses[1], { result: "allow" })] });
    await refused(again, BadRequestError);
  },

  async customTool() {
    const session = await scripted([[[opens], [{ text: "Ticket: {{last_tool_result}}" }]]], { tools: [ticket] });
    const events = await answered(session, [message("go")]);
    const use = only(events, "agent.custom_tool_use");
    assert.deepEqual([use.name, use.input], ["open_ticket", { title: "it broke" }]);
    assert.deepEqual(events.at(-1).stop_reason, { type: "requires_action", event_ids: [use.id] });
    assert.equal(said(await answered(session, [result(use, "No. 7")])), "Ticket: No. 7");
    await refused(beta.sessions.events.send(session.id, { events: [result(use, "No. 7")] }), BadRequestError);
  },

  async customToolFails() {
    const session = await scripted([[[opens], [report]]], { tools: [ticket] });
    const use = only(await answered(session, [message("go")]), "agent.custom_tool_use");
    const events = await answered(session, [{ ...result(use, "the printer burns"), is_error: true }]);
    assert.equal(only(events, "user.custom_tool_result").is_error, true);
    assert.match(said(events), /the printer burns/);
  },

  async runner() {
    const session = await scripted([[[opens], [report]]], { tools: [ticket] });
    const titles = [];
    const tool = betaTool({
      name: ticket.name,
      description: ticket.description,
      inputSchema: ticket.input_schema,
      run: async ({ title }) => {
        titles.push(title);
        return "No. 9";
      },
    });
    await beta.sessions.events.send(session.id, { events: [message("go")] });
    const calls = await all(beta.sessions.events.toolRunner(session.id, { tools: [tool], maxIdleMs: 200 }));
    assert.deepEqual(
      calls.map((call) => [call.name, call.isError, call.posted]),
      [["open_ticket", false, true]],
    );
    assert.deepEqual(titles, ["it broke"]);
    const messages = await beta.sessions.events.list(session.id, { types: ["agent.message"] });
    assert.equal(messages.data.at(-1).content[0].text, "No. 9");
  },

  async runnersShareTheWork() {
    // Each of two clients owns one of the tools that a turn uses at once; neither answers for the other.
    const other = { ...ticket, name: "close_ticket", description: "Closes a ticket" };
    const turn = [[opens, { tool: "close_ticket", input: { title: "it works" } }], [{ text: "both" }]];
    const session = await scripted([turn], { tools: [ticket, other] });
    const run = async (definition, word) => {
      const { name, description, input_schema: inputSchema } = definition;
      const tool = betaTool({ name, description, inputSchema, run: ({ title }) => `${word}: ${title}` });
      const calls = await all(beta.sessions.events.toolRunner(session.id, { tools: [tool], maxIdleMs: 200 }));
      return calls.filter((call) => call.posted).map((call) => call.name);
    };
    await beta.sessions.events.send(session.id, { events: [message("go")] });
    const owners = await Promise.all([run(ticket, "opened"), run(other, "closed")]);
    assert.deepEqual(owners, [["open_ticket"], ["close_ticket"]]);
    const events = await all(beta.sessions.events.list(session.id));
    const texts = of(events, "user.custom_tool_result").map((event) => event.content[0].text);
    assert.deepEqual(texts.toSorted(), ["closed: it works", "opened: it broke"]);
    assert.equal(said(events), "both");
  },

  async errorsOfTheModel() {
    const failing = await scripted([[[{ error: { kind: "request_failed", message: "no such thing" } }]]]);
    const events = await answered(failing, [message("go")]);
    const { error } = only(events, "session.error");
    assert.deepEqual([error.type, error.retry_status.type], ["model_request_failed_error", "exhausted"]);
    assert.match(error.message, /no such thing/);
    assert.equal(events.at(-1).stop_reason.type, "retries_exhausted");
    const declining = await scripted([[[{ text: "No." }, { stop: "refusal", explanation: "I can't." }]]]);
    const end = (await answered(declining, [message("go")])).at(-1);
    assert.deepEqual([end.stop_reason.type, end.stop_details.explanation], ["refusal", "I can't."]);
  },
};
