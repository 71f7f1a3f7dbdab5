// Sessions themselves: their lists in both directions, changes, overrides, streams that are taken up again, budgets.

import {
  Anthropic,
  agentOf,
  all,
  answered,
  assert,
  baseURL,
  beta,
  environmentOf,
  idle,
  message,
  of,
  only,
  opened,
  refused,
  said,
  scripted,
} from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const limit = (amount) => ({ type: "limit", max_list_cost: { amount, currency: "USD" } });

export default {
  async life() {
    const session = await scripted([[[{ text: "hi" }]]], {}, { title: "Old", metadata: { a: "1" } });
    const updated = await beta.sessions.update(session.id, { title: "T", metadata: { a: null, k: "v" } });
    assert.deepEqual([updated.title, updated.metadata], ["T", { k: "v" }]);
    const gone = await beta.sessions.archive(session.id);
    assert.ok(gone.status === "terminated" && gone.archived_at);
    const late = beta.sessions.events.send(session.id, { events: [message("late")] });
    await refused(late, BadRequestError, /archived/);
    const kinds = (await all(beta.sessions.events.list(session.id))).map((event) => event.type);
    assert.deepEqual(kinds, ["session.updated", "session.thread_status_terminated", "session.status_terminated"]);
    const stream = await beta.sessions.events.stream(session.id);
    assert.equal((await beta.sessions.delete(session.id)).type, "session_deleted");
    assert.deepEqual(
      (await all(stream)).map((event) => event.type),
      ["session.deleted"],
    );
    await refused(beta.sessions.retrieve(session.id), NotFoundError);
  },

  async pages() {
    const agent = await agentOf([]);
    const environment = await environmentOf();
    const ids = [];
    for (let made = 0; made < 5; made += 1) ids.push((await opened(agent, { environment_id: environment.id })).id);
    const list = (params) => beta.sessions.list({ agent_id: agent.id, ...params });
    const idsOf = (sessions) => sessions.map((session) => session.id);
    assert.deepEqual(idsOf(await all(list({ limit: 2 }))), ids.toReversed());
    assert.deepEqual(idsOf(await all(list({ limit: 2, order: "asc" }))), ids);
    // Forwards by the SDK's own means, and backwards over the same pages.
    const pages = [await list({ limit: 2, order: "asc" })];
    while (pages.at(-1).hasNextPage()) pages.push(await pages.at(-1).getNextPage());
    assert.deepEqual(
      pages.map((page) => page.data.length),
      [2, 2, 1],
    );
    assert.equal(pages[0].prev_page, null);
    for (const [index, page] of pages.entries()) {
      if (index === 0) continue;
      const back = await list({ limit: 2, order: "asc", page: page.prev_page });
      assert.deepEqual(idsOf(back.data), idsOf(pages[index - 1].data));
    }
    await beta.sessions.archive(ids[0]);
    assert.ok(!idsOf(await all(list({}))).includes(ids[0]));
    assert.equal((await all(list({ include_archived: true }))).length, 5);
    assert.equal((await all(list({ statuses: ["idle", "running"] }))).length, 4);
    assert.deepEqual((await list({ statuses: ["running"] })).data, []);
    await refused(list({ page: "nonsense" }), BadRequestError, /page/);
  },

  async events() {
    const session = await scripted([[[{ text: "one" }]], [[{ text: "two" }]]]);
    const seen = [...(await answered(session, [message("go")])), ...(await answered(session, [message("on")]))];
    const list = (params) => all(beta.sessions.events.list(session.id, params));
    assert.deepEqual(await list({ limit: 3 }), seen);
    assert.deepEqual(await list({ limit: 3, order: "desc" }), seen.toReversed());
    const types = ["agent.message", "user.message"];
    const chosen = await list({ types, order: "desc", limit: 1 });
    assert.deepEqual(chosen, seen.filter((event) => types.includes(event.type)).toReversed());
    const from = of(seen, "user.message")[1].processed_at;
    const later = await list({ "created_at[gte]": from });
    assert.deepEqual(
      later,
      seen.filter((event) => event.processed_at >= from),
    );
  },

  async resumedStream() {
    const session = await scripted([[[{ text: "one" }]]]);
    const events = await answered(session, [message("go")]);
    const headers = { "last-event-id": events[3].id };
    const rest = [];
    for await (const event of await beta.sessions.events.stream(session.id, {}, { headers })) {
      rest.push(event);
      if (rest.length === events.length - 4) break;
    }
    assert.deepEqual(rest, events.slice(4));
    // Its frames name the event that each is about.
    const frames = await fetch(`${baseURL}/v1/sessions/${session.id}/events/stream?after=${events.at(-2).id}`, {
      headers: { "anthropic-version": "2026-10-21" },
    });
    let text = "";
    for await (const piece of frames.body.pipeThrough(new TextDecoderStream())) {
      text += piece;
      // Frames come whole, and the one that is looked for is the first that is about an event.
      if (text.includes("evt_")) break;
    }
    assert.match(text, new RegExp(`^id: ${events.at(-1).id}$`, "m"));
  },

  async initialEvents() {
    const session = await scripted([[[{ text: "You said {{last_user}}" }]]], {}, { initial_events: [message("go")] });
    const stream = await beta.sessions.events.stream(session.id);
    if ((await beta.sessions.retrieve(session.id)).status === "running") {
      for await (const event of stream) if (event.type === "session.status_idle") break;
    }
    assert.equal(said(await all(beta.sessions.events.list(session.id))), "You said go");
  },

  async overrides() {
    const agent = await agentOf([[[{ text: "as it was" }]]]);
    const own = { type: "agent_with_overrides", id: agent.id, model: "scripted/echo", system: null, tools: [] };
    const session = await beta.sessions.create({ agent: own, environment_id: (await environmentOf()).id });
    assert.deepEqual([session.agent.model.id, session.agent.system, session.agent.tools], ["scripted/echo", null, []]);
    assert.equal(said(await answered(session, [message("hello")])), "hello");
    assert.equal((await beta.agents.retrieve(agent.id)).model.id, "scripted/script");
  },

  async ownTools() {
    const session = await scripted([[[{ tool: "bash", input: { command: "true" } }], [{ text: "done" }]]]);
    const tools = [{ type: "agent_toolset_20260401", configs: [{ name: "bash", enabled: false }] }];
    const updated = await beta.sessions.update(session.id, { agent: { tools } });
    assert.equal(updated.agent.tools[0].configs[0].enabled, false);
    const events = await answered(session, [message("go")]);
    assert.equal(only(events, "agent.tool_use").evaluated_permission, "deny");
    const change = only(await all(beta.sessions.events.list(session.id)), "session.updated");
    assert.ok(change.agent.id === session.agent.id && !("title" in change));
    assert.deepEqual((await beta.agents.retrieve(session.agent.id)).tools[0].configs, []);
  },

  async budgetsNeedAPrice() {
    const agent = await agentOf([[[{ text: "x" }]]], { model: "scripted/echo" });
    const unpriced = await refused(opened(agent, { budget: limit("100") }), BadRequestError);
    assert.equal(unpriced.errorCode, "model_not_budgetable");
    const session = await opened(agent);
    const late = await refused(beta.sessions.update(session.id, { budget: limit("100") }), BadRequestError);
    assert.equal(late.errorCode, "budget_create_only");
  },

  async budgets() {
    // The server of this scenario has a model with a price: it uses a tool, and each request costs three cents.
    const session = await scripted([], { model: "claude-priced" }, { budget: limit("3") });
    assert.deepEqual(session.budget, limit("3"));
    const events = await answered(session, [message("go")]);
    // The request that crosses the limit is finished, and so are its tools; the next is not begun.
    assert.equal(events.at(-1).stop_reason.type, "budget_reached");
    assert.equal(of(events, "agent.tool_result").length, 1);
    assert.deepEqual(only(events, "session.usage").budget, limit("3"));
    await refused(beta.sessions.events.send(session.id, { events: [message("more")] }), BadRequestError, /budget/);
    const low = await refused(beta.sessions.update(session.id, { budget: limit("1") }), BadRequestError);
    assert.equal(low.errorCode, "budget_not_raised");
    // With more to spend the turn goes on by itself where it stopped.
    const stream = await beta.sessions.events.stream(session.id);
    assert.deepEqual((await beta.sessions.update(session.id, { budget: limit("5000") })).budget, limit("5000"));
    const rest = await idle(stream);
    assert.equal(rest.at(-1).stop_reason.type, "end_turn");
    assert.equal(said(rest), "after");
    assert.equal((await beta.sessions.update(session.id, { budget: null })).budget, null);
    const again = await refused(beta.sessions.update(session.id, { budget: limit("9000") }), BadRequestError);
    assert.equal(again.errorCode, "budget_create_only");
  },
};
