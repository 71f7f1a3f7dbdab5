// Memory stores, memories, and the versions of memories.

import { createHash, randomUUID } from "node:crypto";
import { Anthropic, all, answered, assert, bash, beta, message, refused, report, said, scripted } from "./shared.mjs";

const { BadRequestError, ConflictError, NotFoundError } = Anthropic;
const sha = (text) => createHash("sha256").update(text).digest("hex");
const storeOf = () =>
  beta.memoryStores.create({ name: `Store ${randomUUID()}`, description: "facts", metadata: { a: "1" } });

export default {
  async stores() {
    const store = await storeOf();
    assert.deepEqual([store.type, store.description, store.metadata], ["memory_store", "facts", { a: "1" }]);
    const changed = await beta.memoryStores.update(store.id, { name: "Other", metadata: { a: null, b: "2" } });
    assert.deepEqual([changed.name, changed.metadata, changed.description], ["Other", { b: "2" }, "facts"]);
    assert.deepEqual(await beta.memoryStores.retrieve(store.id), changed);
    const ids = async (params) => (await all(beta.memoryStores.list(params))).map((found) => found.id);
    assert.ok((await ids({ limit: 1 })).includes(store.id));
    assert.ok((await beta.memoryStores.archive(store.id)).archived_at);
    assert.ok(!(await ids({})).includes(store.id));
    assert.ok((await ids({ include_archived: true })).includes(store.id));
    const late = beta.memoryStores.memories.create(store.id, { path: "/a", content: "x" });
    await refused(late, BadRequestError, /archived/);
    const gone = await beta.memoryStores.delete(store.id);
    assert.deepEqual([gone.id, gone.type], [store.id, "memory_store_deleted"]);
    await refused(beta.memoryStores.retrieve(store.id), NotFoundError);
  },

  async memories() {
    const store = await storeOf();
    const at = { memory_store_id: store.id };
    const { memories } = beta.memoryStores;
    const made = await memories.create(store.id, { path: "/notes/a.md", content: "eins", view: "full" });
    assert.deepEqual(
      [made.type, made.path, made.content, made.content_sha256],
      ["memory", "/notes/a.md", "eins", sha("eins")],
    );
    assert.equal((await memories.create(store.id, { path: "/b.md", content: "" })).content ?? null, null);
    assert.equal((await memories.retrieve(made.id, at)).content, "eins");

    const taken = await refused(memories.create(store.id, { path: "/notes/a.md", content: "x" }), ConflictError);
    assert.equal(taken.headers.get("x-should-retry"), "false");
    assert.equal(taken.type, "memory_path_conflict_error");
    assert.equal(taken.error.error.conflicting_memory_id, made.id);

    const precondition = { type: "content_sha256", content_sha256: made.content_sha256 };
    const updated = await memories.update(made.id, { ...at, content: "zwei", precondition });
    assert.deepEqual([updated.id, updated.content_sha256], [made.id, sha("zwei")]);
    const stale = await refused(memories.update(made.id, { ...at, content: "drei", precondition }), ConflictError);
    assert.equal(stale.type, "memory_precondition_failed_error");

    const top = await all(memories.list(store.id, { depth: 1, limit: 1 }));
    assert.deepEqual(
      top.map((item) => [item.type, item.path]),
      [
        ["memory", "/b.md"],
        ["memory_prefix", "/notes/"],
      ],
    );
    const below = await all(memories.list(store.id, { path_prefix: "/notes/", view: "full" }));
    assert.deepEqual(
      below.map((item) => item.content),
      ["zwei"],
    );
    await refused(memories.list(store.id, { depth: 7 }), BadRequestError, /depth/);

    const wrong = memories.delete(made.id, { ...at, expected_content_sha256: sha("eins") });
    await refused(wrong, ConflictError);
    const gone = await memories.delete(made.id, { ...at, expected_content_sha256: sha("zwei") });
    assert.deepEqual([gone.id, gone.type], [made.id, "memory_deleted"]);
  },

  async versions() {
    const store = await storeOf();
    const at = { memory_store_id: store.id };
    const { memories, memoryVersions: versions } = beta.memoryStores;
    const made = await memories.create(store.id, { path: "/a", content: "eins" });
    await memories.update(made.id, { ...at, path: "/b" });
    const head = (await memories.retrieve(made.id, at)).memory_version_id;
    await refused(versions.redact(head, at), BadRequestError);
    await memories.delete(made.id, at);
    const found = await all(versions.list(store.id, { memory_id: made.id, limit: 1 }));
    const told = found.map((version) => [version.operation, version.path]);
    assert.deepEqual(told, [
      ["deleted", "/b"],
      ["modified", "/b"],
      ["created", "/a"],
    ]);
    assert.equal(found[0].content_sha256 ?? null, null);
    assert.equal(found[0].created_by.type, "api_actor");
    const created = await all(versions.list(store.id, { operation: "created" }));
    assert.deepEqual(
      created.map((version) => version.id),
      [found[2].id],
    );
    assert.equal((await versions.retrieve(found[2].id, at)).content, "eins");
    const redacted = await versions.redact(found[2].id, at);
    assert.deepEqual([redacted.content ?? null, redacted.path, redacted.content_sha256], [null, null, null]);
    assert.ok(redacted.redacted_at && redacted.redacted_by.type === "api_actor");
    assert.equal((await versions.retrieve(found[2].id, at)).content ?? null, null);
  },

  async session() {
    const store = await storeOf();
    const folder = `/mnt/memory/${store.name.toLowerCase().replace(" ", "-")}`;
    await beta.memoryStores.memories.create(store.id, { path: "/known.md", content: "known" });
    const turn = [[bash(`cat ${folder}/known.md && printf new > ${folder}/made.md`)], [report]];
    const resources = [{ type: "memory_store", memory_store_id: store.id, instructions: "look" }];
    const session = await scripted([turn], {}, { resources });
    const [attached] = session.resources;
    assert.deepEqual(
      [attached.type, attached.memory_store_id, attached.mount_path],
      ["memory_store", store.id, folder],
    );
    assert.deepEqual([attached.access, attached.instructions, attached.description], ["read_write", "look", "facts"]);
    assert.match(said(await answered(session, [message("go")])), /known/);
    const memories = await all(beta.memoryStores.memories.list(store.id, { view: "full" }));
    const made = memories.find((memory) => memory.path === "/made.md");
    assert.equal(made.content, "new");
    const { memoryVersions: versions } = beta.memoryStores;
    const version = await versions.retrieve(made.memory_version_id, { memory_store_id: store.id });
    assert.deepEqual([version.created_by.type, version.created_by.session_id], ["session_actor", session.id]);
    const own = await all(versions.list(store.id, { session_id: session.id }));
    assert.deepEqual(
      own.map((found) => found.id),
      [version.id],
    );
  },
};
