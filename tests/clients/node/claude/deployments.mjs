// Deployments and their runs.

import { Anthropic, agentOf, all, assert, beta, environmentOf, message, of, refused } from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const WEEKDAYS = { type: "cron", expression: "30 2 * * 1-5", timezone: "Europe/Berlin" };

async function deploy(fields = {}) {
  const agent = fields.agent ?? (await agentOf([[[{ text: "You said {{last_user}}" }]]])).id;
  const environment = fields.environment_id ?? (await environmentOf()).id;
  const initial_events = [message("hello")];
  return beta.deployments.create({ name: "Nightly", initial_events, ...fields, agent, environment_id: environment });
}

/** A session's events, once it has come to rest. */
async function rested(id) {
  const stream = await beta.sessions.events.stream(id);
  if ((await beta.sessions.retrieve(id)).status !== "idle") {
    for await (const event of stream) if (event.type === "session.status_idle") break;
  }
  stream.controller.abort();
  return all(beta.sessions.events.list(id));
}

const idsOf = async (pages) => (await all(pages)).map((found) => found.id);

export default {
  async life() {
    const made = await deploy({ schedule: WEEKDAYS, description: "d", metadata: { k: "v" } });
    assert.deepEqual(
      [made.type, made.status, made.agent.version, made.paused_reason],
      ["deployment", "active", 1, null],
    );
    assert.deepEqual([made.schedule.expression, made.schedule.timezone], ["30 2 * * 1-5", "Europe/Berlin"]);
    const upcoming = made.schedule.upcoming_runs_at;
    assert.ok(upcoming.length === 5 && made.schedule.last_run_at === null);
    assert.deepEqual(upcoming, upcoming.toSorted());
    assert.deepEqual(await beta.deployments.retrieve(made.id), made);
    assert.deepEqual(await idsOf(beta.deployments.list({ agent_id: made.agent.id, status: "active" })), [made.id]);

    const updated = await beta.deployments.update(made.id, { name: "Other", description: null, metadata: { k: null } });
    assert.deepEqual([updated.name, updated.description, updated.metadata], ["Other", null, {}]);
    const paused = await beta.deployments.pause(made.id);
    assert.deepEqual([paused.status, paused.paused_reason.type], ["paused", "manual"]);
    const run = await beta.deployments.run(made.id);
    assert.deepEqual([run.type, run.trigger_context.type, run.error], ["deployment_run", "manual", null]);
    const [said] = of(await rested(run.session_id), "agent.message");
    assert.equal(said.content[0].text, "You said hello");
    const session = await beta.sessions.retrieve(run.session_id);
    assert.deepEqual([session.deployment_id, session.agent.id], [made.id, made.agent.id]);
    assert.deepEqual(await idsOf(beta.sessions.list({ deployment_id: made.id })), [run.session_id]);
    assert.equal((await beta.deployments.unpause(made.id)).status, "active");

    const archived = await beta.deployments.archive(made.id);
    assert.ok(archived.archived_at);
    assert.deepEqual(archived.schedule.upcoming_runs_at, []);
    await refused(beta.deployments.run(made.id), BadRequestError, /archived/);
    assert.ok(!(await idsOf(beta.deployments.list())).includes(made.id));
    await refused(beta.deployments.retrieve("depl_none"), NotFoundError);
  },

  async runs() {
    const made = await deploy();
    const runs = [];
    for (let times = 0; times < 3; times += 1) runs.push(await beta.deployments.run(made.id));
    const newest = runs.map((run) => run.id).toReversed();
    assert.deepEqual(await idsOf(beta.deploymentRuns.list({ deployment_id: made.id, limit: 1 })), newest);
    const good = { deployment_id: made.id, has_error: false, trigger_type: "manual" };
    assert.deepEqual(await idsOf(beta.deploymentRuns.list(good)), newest);
    assert.deepEqual(await idsOf(beta.deploymentRuns.list({ ...good, trigger_type: "schedule" })), []);
    assert.deepEqual(await beta.deploymentRuns.retrieve(runs[0].id), runs[0]);
    assert.deepEqual(await idsOf(beta.deploymentRuns.list({ deployment_id: "depl_none" })), []);
    await refused(beta.deploymentRuns.retrieve("drun_none"), NotFoundError);
    for (const run of runs) await rested(run.session_id);
  },

  async failures() {
    const environment = await environmentOf();
    const made = await deploy({ environment_id: environment.id });
    await beta.environments.archive(environment.id);
    const run = await beta.deployments.run(made.id);
    assert.deepEqual([run.session_id, run.error.type], [null, "environment_archived_error"]);
    const found = await beta.deployments.retrieve(made.id);
    assert.deepEqual([found.status, found.paused_reason.error.type], ["paused", "environment_archived_error"]);
    assert.deepEqual(await idsOf(beta.deploymentRuns.list({ deployment_id: made.id, has_error: true })), [run.id]);
    const agent = await agentOf([]);
    const other = await deploy({ agent: agent.id, schedule: WEEKDAYS });
    await beta.agents.archive(agent.id);
    assert.ok((await beta.deployments.retrieve(other.id)).archived_at);
  },

  async bad() {
    for (const change of [{ expression: "0 0 L * *" }, { expression: "@daily" }, { timezone: "Mars/Base" }]) {
      await refused(deploy({ schedule: { ...WEEKDAYS, ...change } }), BadRequestError, /schedule\./);
    }
    await refused(deploy({ initial_events: [] }), BadRequestError, /initial_events/);
    await refused(deploy({ resources: [{ type: "file", file_id: "file_x" }] }), NotFoundError, /file/);
    const elsewhere = { type: "github_repository", url: "ssh://git.example/a" };
    await refused(deploy({ resources: [elsewhere] }), BadRequestError, /resources\.0\.url/);
    const budget = { type: "limit", max_list_cost: { amount: "100", currency: "USD" } };
    const agent = await agentOf([], { model: "scripted/echo" });
    const unpriced = await refused(deploy({ agent: agent.id, budget }), BadRequestError);
    assert.equal(unpriced.errorCode, "model_not_budgetable");
  },
};
