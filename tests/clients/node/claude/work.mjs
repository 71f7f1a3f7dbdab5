// Self-hosted environments: the SDK's own worker and poller carry out the tools of their sessions, on this machine. The
// server asks for a token, so that keys mean something.

import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toFile } from "@anthropic-ai/sdk";
import {
  Anthropic,
  agentOf,
  all,
  answered,
  ask,
  assert,
  baseURL,
  bash,
  beta,
  connect,
  environmentOf,
  message,
  of,
  only,
  opened,
  refused,
  report,
  said,
  token,
} from "./shared.mjs";

const { APIError, BadRequestError, ConflictError, NotFoundError, PermissionDeniedError, PreconditionFailedError } =
  Anthropic;
const count = bash("echo $((6 * 7)); pwd");

const selfHosted = () => environmentOf({ config: { type: "self_hosted" } });

async function keyOf(environment) {
  const made = await fetch(`${baseURL}/v1/keys`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ name: "worker", scope: "write", environmentId: environment.id }),
  });
  assert.equal(made.status, 200);
  return (await made.json()).secret;
}

/** Has the SDK's worker poll an environment, in a folder of its own, while something is done. */
async function working(environment, action, options = {}) {
  const folder = mkdtempSync(join(tmpdir(), "oma-worker-"));
  const stop = new AbortController();
  try {
    const fields = {
      environmentId: environment.id,
      environmentKey: await keyOf(environment),
      workdir: folder,
      maxIdleMs: 200,
    };
    const running = beta.environments.work.worker({ ...fields, ...options }).run(stop.signal);
    // It ends when it is told to and no sooner.
    const result = await Promise.race([
      action(folder),
      running.then(() => Promise.reject(new Error("the worker ended"))),
    ]);
    stop.abort();
    await running.catch((error) => assert.equal(error.name, "APIUserAbortError"));
    return result;
  } finally {
    stop.abort();
    rmSync(folder, { recursive: true });
  }
}

/** Posts events and gives what is streamed until the turn is over. */
async function done(session, events) {
  const stream = await beta.sessions.events.stream(session.id);
  await beta.sessions.events.send(session.id, { events });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === "session.status_idle" && event.stop_reason.type !== "requires_action") return seen;
  }
  throw new Error("the stream ended");
}

/** A session that waits for hands, and a client with the key of its environment. */
async function waiting(fields = {}) {
  const environment = await selfHosted();
  const agent = await agentOf([[[count], [{ text: "done" }]]]);
  const session = await opened(agent, { environment_id: environment.id, ...fields });
  const events = await answered(session, [message("go")]);
  const own = connect({ apiKey: null, authToken: await keyOf(environment) }).beta;
  return { environment, session, use: only(events, "agent.tool_use"), own };
}

/** What there is to do in an environment, as the SDK's poller hands it out. */
const claimed = (environment, environmentKey) =>
  all(beta.environments.work.poller({ environmentId: environment.id, environmentKey, autoStop: false, drain: true }));

const holderOf = (item) => {
  const { sessions_token: authToken } = JSON.parse(Buffer.from(item.secret, "base64url").toString());
  return connect({ apiKey: null, authToken }).beta;
};

export default {
  async worker() {
    const environment = await selfHosted();
    assert.equal(environment.config.type, "self_hosted");
    const write = { tool: "write", input: { file_path: "note.txt", content: "from the model" } };
    const agent = await agentOf([[[count, write], [report]], [[{ text: "again" }]]]);
    const session = await opened(agent, { environment_id: environment.id });
    await working(environment, async (folder) => {
      const events = await done(session, [message("go")]);
      const results = of(events, "user.tool_result");
      assert.equal(results.length, 2);
      assert.ok(!results.some((result) => result.is_error), JSON.stringify(results));
      assert.deepEqual(results[0].content[0].text.trim().split(/\s+/), ["42", folder]);
      assert.equal(readFileSync(join(folder, "note.txt"), "utf8"), "from the model");
      assert.deepEqual(of(events, "agent.tool_result"), []);
      assert.equal(said(await done(session, [message("more")])), "again");
    });
  },

  async workerAsks() {
    const environment = await selfHosted();
    const agent = await agentOf([[[count, count], [{ text: "over" }]]], { tools: [ask] });
    const session = await opened(agent, { environment_id: environment.id });
    const events = await working(environment, async () => {
      const stream = await beta.sessions.events.stream(session.id);
      await beta.sessions.events.send(session.id, { events: [message("go")] });
      const seen = [];
      for await (const event of stream) {
        seen.push(event);
        if (event.type !== "session.status_idle") continue;
        if (event.stop_reason.type === "end_turn") return seen;
        if (of(seen, "user.tool_confirmation").length > 0) continue;
        const [allowed, denied] = of(seen, "agent.tool_use");
        const answer = (use, result) => ({ type: "user.tool_confirmation", tool_use_id: use.id, result });
        await beta.sessions.events.send(session.id, { events: [answer(allowed, "allow"), answer(denied, "deny")] });
      }
      throw new Error("the stream ended");
    });
    const [allowed, denied] = of(events, "agent.tool_use");
    assert.deepEqual(
      of(events, "user.tool_result").map((event) => event.tool_use_id),
      [allowed.id],
    );
    assert.equal(only(events, "agent.tool_result").tool_use_id, denied.id);
  },

  async workerHasSkillsAndMemories() {
    const main = "---\nname: counting\ndescription: Counts\n---\nUse your fingers.\n";
    const files = [await toFile(Buffer.from(main), "counting/SKILL.md", { type: "text/markdown" })];
    const skill = await beta.skills.create({ files, display_name: "Counting" });
    const store = await beta.memoryStores.create({ name: "notes" });
    await beta.memoryStores.memories.create(store.id, { path: "/old.md", content: "what was known" });
    const environment = await selfHosted();
    const look = "cat skills/counting/SKILL.md; cd memory/notes; cat old.md; printf fresh > made.md";
    const agent = await agentOf([[[bash(look)], [report]]], { skills: [{ type: "custom", skill_id: skill.id }] });
    const resources = [{ type: "memory_store", memory_store_id: store.id }];
    const session = await opened(agent, { environment_id: environment.id, resources });
    assert.equal(session.resources[0].mount_path, "/mnt/memory/notes");
    await answered(session, [message("go")]);

    // The worker puts a store where the session says it is. That is no place for a test to write to, so this worker's
    // client is told of another one.
    const folder = mkdtempSync(join(tmpdir(), "oma-worker-"));
    const elsewhere = async (url, init) => {
      const response = await fetch(url, init);
      if (new URL(url).pathname !== `/v1/sessions/${session.id}`) return response;
      const text = (await response.text()).replaceAll('"/mnt/memory/', `"${folder}/memory/`);
      return new Response(text, { status: response.status, headers: { "content-type": "application/json" } });
    };
    const key = await keyOf(environment);
    const [item] = await claimed(environment, key);
    const worker = connect({ apiKey: token, fetch: elsewhere }).beta.environments.work.worker({
      workdir: folder,
      maxIdleMs: 200,
    });
    const [workId, environmentId, sessionId] = [item.id, environment.id, session.id];
    await worker.handleItem({ workId, environmentId, sessionId, environmentKey: key, workSecret: item.secret });
    assert.deepEqual(readdirSync(join(folder, "skills")), []);
    rmSync(folder, { recursive: true });

    const seen = said(await all(beta.sessions.events.list(session.id)));
    assert.match(seen, /Use your fingers/);
    assert.match(seen, /what was known/);
    const memories = await all(beta.memoryStores.memories.list(store.id, { view: "full" }));
    const made = memories.find((memory) => memory.path === "/made.md");
    assert.equal(made?.content, "fresh", JSON.stringify(memories));
    const at = { memory_store_id: store.id };
    const version = await beta.memoryStores.memoryVersions.retrieve(made.memory_version_id, at);
    assert.deepEqual([version.created_by.type, version.created_by.session_id], ["session_actor", session.id]);
    const done = await beta.environments.work.retrieve(item.id, { environment_id: environment.id });
    assert.equal(done.state, "stopped");
  },

  async poller() {
    const { environment, session, use } = await waiting();
    const found = [];
    for (const item of await claimed(environment, await keyOf(environment))) {
      found.push([item.data.type, item.data.id]);
      const holder = holderOf(item);
      assert.equal((await holder.sessions.retrieve(session.id)).id, session.id);
      const content = [{ type: "text", text: "by hand" }];
      await holder.sessions.events.send(session.id, {
        events: [{ type: "user.tool_result", tool_use_id: use.id, content }],
      });
    }
    assert.deepEqual(found, [["session", session.id]]);
    const events = await all(beta.sessions.events.list(session.id));
    assert.equal(only(events, "user.tool_result").content[0].text, "by hand");
  },

  async item() {
    const { environment, session, own } = await waiting();
    const { work } = own.environments;
    const at = { environment_id: environment.id };
    const item = await work.poll(environment.id, { block_ms: 999, "Anthropic-Worker-ID": "w1" });
    assert.deepEqual([item.data.type, item.data.id, item.state], ["session", session.id, "starting"]);
    assert.equal(await work.poll(environment.id), null);
    const stats = await work.stats(environment.id);
    assert.deepEqual([stats.depth, stats.pending, stats.workers_polling], [0, 1, 1]);
    // What nobody acknowledges is handed out again, and whoever had it first has it no more.
    const again = await work.poll(environment.id, { reclaim_older_than_ms: 0 });
    assert.ok(again.id === item.id && again.secret !== item.secret);
    assert.ok((await work.ack(item.id, at)).acknowledged_at);
    assert.equal((await work.retrieve(item.id, at)).secret, null);
    const beat = (expected_last_heartbeat, more = {}) =>
      work.heartbeat(item.id, { ...at, expected_last_heartbeat, ...more });
    const first = await beat("NO_HEARTBEAT", { desired_ttl_seconds: 60 });
    assert.deepEqual([first.lease_extended, first.state, first.ttl_seconds], [true, "active", 60]);
    const lost = await refused(beat("NO_HEARTBEAT"), PreconditionFailedError);
    assert.equal(lost.constructor.name, "BetaHeartbeatPreconditionFailedError");
    assert.equal(lost.details.current_state.state, "active");
    assert.ok((await beat(first.last_heartbeat)).lease_extended);
    assert.deepEqual((await work.update(item.id, { ...at, metadata: { host: "mine" } })).metadata, { host: "mine" });
    assert.equal((await work.stop(item.id, at)).state, "stopping");
    assert.equal((await beat("NO_HEARTBEAT")).state, "stopping");
    assert.equal((await work.stop(item.id, { ...at, force: true })).state, "stopped");
    await refused(work.stop(item.id, at), ConflictError);
    // The session still waits for its result, so another item follows.
    const items = await all(work.list(environment.id, { limit: 1 }));
    assert.deepEqual(
      items.map((found) => [found.state, found.data.id]),
      [
        ["queued", session.id],
        ["stopped", session.id],
      ],
    );
    await refused(work.poll(environment.id, { block_ms: 0 }), BadRequestError);
  },

  async keys() {
    const { environment, session, own, use } = await waiting();
    const other = await opened(await agentOf([]), { environment_id: (await selfHosted()).id });
    const item = await own.environments.work.poll(environment.id, { block_ms: 999 });
    const holder = holderOf(item);
    for (const who of [own, holder]) {
      assert.equal((await who.sessions.retrieve(session.id)).id, session.id);
      for (const request of [
        () => who.agents.list(),
        () => who.sessions.list(),
        () => who.sessions.events.send(session.id, { events: [message("x")] }),
        () => who.sessions.delete(session.id),
      ]) {
        await refused(request(), PermissionDeniedError);
      }
      await refused(who.sessions.retrieve(other.id), NotFoundError);
    }
    await refused(holder.environments.work.poll(environment.id), PermissionDeniedError);
    const at = { environment_id: environment.id };
    await holder.environments.work.heartbeat(item.id, at);
    const result = { type: "user.tool_result", tool_use_id: use.id, content: [{ type: "text", text: "x" }] };
    await holder.sessions.events.send(session.id, { events: [result] });
    await holder.environments.work.stop(item.id, { ...at, force: true });
    await refused(holder.sessions.retrieve(session.id), Anthropic.AuthenticationError);
  },

  async environments() {
    const cloud = await environmentOf();
    await refused(beta.environments.work.poll(cloud.id), BadRequestError);
    const own = await selfHosted();
    const kept = await refused(beta.environments.update(own.id, { config: { type: "cloud" } }), BadRequestError);
    assert.deepEqual(
      [kept.errorCode, kept.constructor.name],
      ["invalid_config_type_change", "BetaInvalidConfigTypeChangeError"],
    );
    assert.deepEqual((await beta.environments.work.list(own.id)).data, []);
    const nobody = beta.environments.work.retrieve("work_nobody", { environment_id: own.id });
    assert.equal((await refused(nobody, APIError)).status, 404);
  },
};
