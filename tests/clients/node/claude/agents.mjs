// Agents, their versions, and environments.

import { randomUUID } from "node:crypto";
import { Anthropic, all, assert, beta, environmentOf, refused, toolset } from "./shared.mjs";

const { BadRequestError, ConflictError, NotFoundError } = Anthropic;

export default {
  async life() {
    const agent = await beta.agents.create({
      name: "A",
      model: { id: "scripted/echo", effort: "low" },
      metadata: { a: "1" },
      tools: [{ ...toolset, configs: [{ name: "bash", permission_policy: { type: "always_ask" } }] }],
    });
    assert.equal(agent.version, 1);
    assert.deepEqual([agent.model.id, agent.model.effort.type], ["scripted/echo", "low"]);
    assert.equal(agent.tools[0].default_config.enabled, true);
    assert.equal(agent.tools[0].configs[0].permission_policy.type, "always_ask");
    const second = await beta.agents.update(agent.id, { version: 1, system: "s", metadata: { a: null } });
    assert.deepEqual([second.version, second.system, second.metadata], [2, "s", {}]);
    const stale = await refused(beta.agents.update(agent.id, { version: 1, name: "B" }), ConflictError);
    assert.equal(stale.headers.get("x-should-retry"), "false");
    assert.equal((await beta.agents.update(agent.id, { version: 2, name: "A" })).version, 2);
    assert.equal((await beta.agents.retrieve(agent.id, { version: 1 })).system, null);
    const versions = await all(beta.agents.versions.list(agent.id, { limit: 1 }));
    assert.deepEqual(
      versions.map((found) => found.version),
      [2, 1],
    );
    assert.ok((await beta.agents.archive(agent.id)).archived_at);
    const ids = async (params) => (await all(beta.agents.list(params))).map((found) => found.id);
    assert.ok(!(await ids({ limit: 3 })).includes(agent.id));
    const since = { include_archived: true, "created_at[gte]": agent.created_at };
    assert.ok((await ids(since)).includes(agent.id));
    await refused(beta.agents.update(agent.id, { version: 2, name: "late" }), BadRequestError, /archived/);
  },

  async environments() {
    const name = `node ${randomUUID()}`;
    const made = await beta.environments.create({ name, description: "d", metadata: { a: "1" } });
    assert.equal(made.config.networking.type, "unrestricted");
    const taken = await refused(beta.environments.create({ name }), ConflictError);
    assert.equal(taken.headers.get("x-should-retry"), "false");
    const updated = await beta.environments.update(made.id, { description: null, metadata: { a: null, b: "2" } });
    assert.deepEqual([updated.description, updated.metadata], [null, { b: "2" }]);
    await environmentOf();
    const listed = (await all(beta.environments.list({ limit: 1 }))).map((found) => found.id);
    assert.ok(listed.includes(made.id));
    assert.equal(new Set(listed).size, listed.length);
    assert.ok((await beta.environments.archive(made.id)).archived_at);
    await refused(beta.environments.update(made.id, { name: "late" }), BadRequestError);
    assert.equal((await beta.environments.delete(made.id)).type, "environment_deleted");
    await refused(beta.environments.retrieve(made.id), NotFoundError);
  },
};
