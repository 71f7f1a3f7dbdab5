// Agents that have others work in threads of their sessions.

import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import {
  Anthropic,
  agentOf,
  all,
  answered,
  ask,
  assert,
  bash,
  beta,
  message,
  of,
  only,
  opened,
  refused,
  report,
  said,
  scripted,
  ticket,
  toolset,
} from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const send = (agent, text, more = {}) => ({ tool: "send_to_agent", input: { agent, message: text, ...more } });
const lead = (members, turns, fields = {}) =>
  agentOf(turns, { multiagent: { type: "coordinator", agents: members }, ...fields });
const listed = (session) => all(beta.sessions.events.list(session.id));

export default {
  async alone() {
    const session = await scripted([[[{ text: "hi" }]]]);
    await answered(session, [message("go")]);
    const { data } = await beta.sessions.threads.list(session.id);
    assert.deepEqual(
      data.map((thread) => thread.parent_thread_id),
      [null],
    );
    const own = await all(beta.sessions.threads.events.list(data[0].id, { session_id: session.id, limit: 2 }));
    assert.equal(said(own), "hi");
  },

  async askedAgain() {
    const worker = await agentOf([
      [[bash("echo by the worker >> shared; cat shared")], [report]],
      [[{ text: "You said: {{last_user}}" }]],
    ]);
    const agent = await lead(
      [worker.id, { type: "self" }],
      [
        [
          [bash("echo by the lead > shared")],
          [send(worker.id, "go")],
          [send(worker.id, "and now?", { thread: "latest" })],
          [report],
        ],
      ],
    );
    assert.deepEqual(
      agent.multiagent.agents.map((member) => member.id),
      [worker.id, agent.id],
    );
    const session = await opened(agent);
    const events = await answered(session, [message("go")]);
    assert.match(said(events), /You said: and now\?/);
    assert.deepEqual(await listed(session), events);
    const thread = only(events, "session.thread_created").session_thread_id;
    const received = of(events, "agent.thread_message_received");
    assert.deepEqual(received[0].content[0].text.trim().split("\n"), ["by the lead", "by the worker"]);
    assert.ok(received.every((event) => event.from_session_thread_id === thread));
    assert.equal(of(events, "session.thread_status_idle").length, 3);

    const threads = await all(beta.sessions.threads.list(session.id, { limit: 1 }));
    const [primary] = threads;
    assert.deepEqual(
      threads.map((found) => [found.id, found.parent_thread_id, found.status]),
      [
        [primary.id, null, "idle"],
        [thread, primary.id, "idle"],
      ],
    );
    const at = { session_id: session.id };
    // Time goes on between the two.
    const { stats: _, ...found } = await beta.sessions.threads.retrieve(thread, at);
    const { stats: __, ...listedThread } = threads[1];
    assert.deepEqual(found, listedThread);
    const { usage } = await beta.sessions.retrieve(session.id);
    assert.equal(usage.output_tokens, threads[0].usage.output_tokens + threads[1].usage.output_tokens);
    const own = await all(beta.sessions.threads.events.list(thread, at));
    assert.deepEqual(of(own, "agent.message").length, 2);

    const archived = await beta.sessions.threads.archive(thread, at);
    assert.ok(archived.status === "terminated" && archived.archived_at);
    assert.equal((await listed(session)).at(-1).type, "session.thread_status_terminated");
    const late = beta.sessions.events.send(session.id, {
      events: [{ type: "user.interrupt", session_thread_id: thread }],
    });
    await refused(late, BadRequestError);
    await refused(beta.sessions.threads.retrieve("sthr_nobody", at), NotFoundError);
  },

  async ownStream() {
    // A thread's own stream tells what goes on in it from the moment at which it is opened.
    const worker = await agentOf([[[bash("echo ran")], [report]]], { tools: [ask] });
    const session = await opened(await lead([worker.id], [[[send(worker.id, "go")], [report]]]));
    const events = await answered(session, [message("go")]);
    const use = only(events, "agent.tool_use");
    const thread = use.session_thread_id;
    const stream = await beta.sessions.threads.events.stream(thread, { session_id: session.id });
    const allow = { type: "user.tool_confirmation", tool_use_id: use.id, result: "allow" };
    await beta.sessions.events.send(session.id, { events: [allow] });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "session.thread_status_idle" && event.stop_reason.type === "end_turn") break;
    }
    assert.equal(only(seen, "agent.tool_result").content[0].text.trim(), "ran");
    assert.match(said(seen), /ran/);
    const own = await all(beta.sessions.threads.events.list(thread, { session_id: session.id }));
    assert.deepEqual(own.slice(-seen.length), seen);
  },

  async questions() {
    const turn = [[{ tool: ticket.name, input: { title: "a" } }, bash("echo ran")], [report]];
    const worker = await agentOf([turn], { tools: [ask, ticket] });
    const session = await opened(await lead([worker.id], [[[send(worker.id, "go")], [report]]]));
    const events = await answered(session, [message("go")]);
    const [opens, run] = [only(events, "agent.custom_tool_use"), only(events, "agent.tool_use")];
    const thread = only(events, "session.thread_created").session_thread_id;
    assert.deepEqual(
      [opens.session_thread_id, run.session_thread_id, run.evaluated_permission],
      [thread, thread, "ask"],
    );
    assert.deepEqual(events.at(-1).stop_reason.event_ids, [opens.id, run.id]);
    const more = beta.sessions.events.send(session.id, { events: [message("more")] });
    await refused(more, BadRequestError, new RegExp(opens.id));
    const content = [{ type: "text", text: "T-1" }];
    const answer = { type: "user.custom_tool_result", custom_tool_use_id: opens.id, content };
    const partly = await answered(session, [answer]);
    assert.deepEqual(partly.at(-1).stop_reason.event_ids, [run.id]);
    const rest = await answered(session, [{ type: "user.tool_confirmation", tool_use_id: run.id, result: "allow" }]);
    assert.equal(rest.at(-1).stop_reason.type, "end_turn");
    assert.match(said(rest), /ran/);
  },

  async interrupted() {
    const worker = await agentOf([[[{ tool: ticket.name, input: {} }], [{ text: "never" }]]], { tools: [ticket] });
    const agent = await lead([worker.id], [[[send(worker.id, "go")], [{ text: "It says: {{last_tool_result}}" }]]]);
    const session = await opened(agent);
    const thread = only(await answered(session, [message("go")]), "session.thread_created").session_thread_id;
    const rest = await answered(session, [{ type: "user.interrupt", session_thread_id: thread }]);
    assert.equal(only(rest, "user.interrupt").session_thread_id, thread);
    assert.match(said(rest), /cancelled/);
    // Without a thread's name all are.
    const other = await opened(agent);
    await answered(other, [message("go")]);
    assert.deepEqual(of(await answered(other, [{ type: "user.interrupt" }]), "agent.message"), []);
    const threads = await all(beta.sessions.threads.list(other.id));
    assert.deepEqual(
      threads.map((found) => found.status),
      ["idle", "idle"],
    );
    await beta.sessions.archive(other.id);
    assert.deepEqual(
      (await listed(other)).slice(-3).map((event) => event.type),
      ["session.thread_status_terminated", "session.thread_status_terminated", "session.status_terminated"],
    );
  },

  async sideBySide() {
    const worker = await agentOf([[[{ text: "re: {{last_user}}" }]]], { tools: [] });
    const both = [send(worker.id, "one"), send(worker.id, "two"), { tool: "list_agents", input: {} }];
    const session = await opened(await lead([worker.id], [[both, [{ text: "end" }]]]));
    const events = await answered(session, [message("go")]);
    const texts = of(events, "agent.thread_message_received").map((event) => event.content[0].text);
    assert.deepEqual(texts.toSorted(), ["re: one", "re: two"]);
    assert.equal((await all(beta.sessions.threads.list(session.id))).length, 3);
  },

  async advised() {
    const advisor = { type: "advisor", model: "scripted/echo" };
    const turns = [[[{ tool: "consult_advisor", input: { question: "Left or right?" } }], [report]]];
    const session = await opened(await lead([advisor], turns));
    assert.deepEqual(session.agent.multiagent.agents, [advisor]);
    const events = await answered(session, [message("go")]);
    assert.match(said(events), /Left or right\?/);
    const thread = only(events, "session.thread_created").session_thread_id;
    const advice = only(events, "agent.thread_message_received");
    assert.deepEqual([advice.from_session_thread_id, advice.from_agent_name], [thread, "anthropic.advisor"]);
    assert.equal(only(events, "session.thread_status_terminated").session_thread_id, thread);
    const found = await beta.sessions.threads.retrieve(thread, { session_id: session.id });
    assert.deepEqual(found.agent, advisor);
  },

  async runner() {
    const worker = await agentOf([[[{ tool: ticket.name, input: { title: "broken" } }], [report]]], {
      tools: [ticket],
    });
    const session = await opened(
      await lead([worker.id], [[[send(worker.id, "go")], [{ text: "got {{last_tool_result}}" }]]], {
        tools: [toolset],
      }),
    );
    const { name, description, input_schema: inputSchema } = ticket;
    const tool = betaTool({ name, description, inputSchema, run: ({ title }) => `opened: ${title}` });
    await beta.sessions.events.send(session.id, { events: [message("go")] });
    const calls = await all(beta.sessions.events.toolRunner(session.id, { tools: [tool], maxIdleMs: 300 }));
    assert.deepEqual(
      calls.map((call) => [call.name, call.posted]),
      [[name, true]],
    );
    assert.match(said(await listed(session)), /opened: broken/);
  },
};
