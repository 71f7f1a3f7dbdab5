// Webhooks: endpoints, and what they are told, verified as the SDK does it. The server may dial this machine.

import { createServer } from "node:http";
import { on } from "node:events";
import { Anthropic, agentOf, all, answered, assert, beta, client, message, opened, refused } from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const endpoints = beta?.organization.webhooks;

/** An endpoint on this machine: `next()` gives what it got. It answers with the statuses in turn, then with 204. */
async function receiver(...statuses) {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.writeHead(statuses.shift() ?? 204, { location: "/elsewhere" }).end();
    server.emit("told", { headers: request.headers, body });
  });
  const told = on(server, "told");
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const next = async () => (await told.next()).value[0];
  return { url: `http://127.0.0.1:${server.address().port}/hook?from=oma`, next };
}

export default {
  async verified() {
    const { url, next } = await receiver();
    const kinds = ["agent.created", "agent.archived", "session.status_idled"];
    const made = await endpoints.create({ url, enabled_events: kinds, name: "mine" });
    const key = made.signing_secret;
    assert.match(key, /^whsec_/);
    assert.deepEqual([made.state, made.disabled_reason], ["enabled", ""]);
    const agent = await agentOf([[[{ text: "hi" }]]]);
    const { headers, body } = await next();
    const event = beta.webhooks.unwrap(body, { headers, key });
    assert.deepEqual([event.type, event.data.type, event.data.id], ["event", "agent.created", agent.id]);
    assert.ok(event.id === headers["webhook-id"] && event.id.startsWith("whe_"));
    assert.ok(event.data.workspace_id.startsWith("wrk_") && event.data.organization_id);
    // With the key from the client's options it is the same; with another body, time or key it is not.
    const keyed = client.withOptions({ webhookKey: key });
    assert.deepEqual(keyed.beta.webhooks.unwrap(body, { headers }), event);
    assert.throws(() => beta.webhooks.unwrap(body.replace(agent.id, "agt_other"), { headers, key }));
    const late = { ...headers, "webhook-timestamp": String(Number(headers["webhook-timestamp"]) + 1) };
    assert.throws(() => beta.webhooks.unwrap(body, { headers: late, key }));

    const session = await opened(agent);
    await answered(session, [message("hello")]);
    let told = await next();
    const { data } = beta.webhooks.unwrap(told.body, { headers: told.headers, key });
    assert.deepEqual([data.type, data.id], ["session.status_idled", session.id]);

    // Another secret; the one before verifies nothing any more.
    const { signing_secret: renewed } = await endpoints.regenerateSigningSecret(made.id);
    await beta.agents.archive(agent.id);
    told = await next();
    assert.equal(beta.webhooks.unwrap(told.body, { headers: told.headers, key: renewed }).data.type, "agent.archived");
    assert.throws(() => beta.webhooks.unwrap(told.body, { headers: told.headers, key }));
    assert.ok(!("signing_secret" in (await endpoints.retrieve(made.id))));
    assert.equal((await endpoints.delete(made.id)).type, "webhook_endpoint_deleted");
    await refused(endpoints.retrieve(made.id), NotFoundError);
  },

  async endpoints() {
    const url = "https://a.example/hook";
    const kind = "user_profile.program_status_updated";
    const made = [];
    for (const name of ["e0", "e1", "e2"]) made.push(await endpoints.create({ url, enabled_events: [kind], name }));
    const mine = made.map((endpoint) => endpoint.id);
    const ids = (found) => found.map((endpoint) => endpoint.id).filter((id) => mine.includes(id));
    assert.deepEqual(ids(await all(endpoints.list({ limit: 2 }))), mine.toReversed());
    assert.deepEqual(ids(await all(endpoints.list({ limit: 2, order: "asc" }))), mine);
    // Backwards, too: what comes before the oldest of the three, page after page away from it.
    assert.deepEqual(
      ids(await all(endpoints.list({ limit: 1, before_id: mine[0] }))).toSorted(),
      mine.slice(1).toSorted(),
    );
    const updated = await endpoints.update(mine[0], { name: "other", state: "disabled" });
    assert.deepEqual([updated.name, updated.state, updated.disabled_reason], ["other", "disabled", ""]);
    assert.equal((await endpoints.retrieve(mine[0])).state, "disabled");
    assert.equal((await endpoints.update(mine[0], { state: "enabled" })).state, "enabled");
    for (const id of mine) assert.equal((await endpoints.delete(id)).id, id);
    assert.deepEqual(ids(await all(endpoints.list())), []);
    for (const bad of ["ftp://a.example/", "http://a.example/hook", "http://10.0.0.1/hook", "x"]) {
      await refused(endpoints.create({ url: bad, enabled_events: [kind], name: "bad" }), BadRequestError, /url/);
    }
    const exploded = endpoints.create({ url, enabled_events: ["agent.exploded"], name: "bad" });
    await refused(exploded, BadRequestError, /enabled_events\.0/);
  },

  async triedAgain() {
    const { url, next } = await receiver(500);
    const made = await endpoints.create({ url, enabled_events: ["vault.created"], name: "again" });
    const vault = await beta.vaults.create({ display_name: "v" });
    const [first, again] = [await next(), await next()];
    assert.deepEqual([again.headers["webhook-id"], again.body], [first.headers["webhook-id"], first.body]);
    const event = beta.webhooks.unwrap(again.body, { headers: again.headers, key: made.signing_secret });
    assert.deepEqual([event.data.type, event.data.id], ["vault.created", vault.id]);
    await endpoints.delete(made.id);
  },
};
