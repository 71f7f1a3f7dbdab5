// Files, and sessions' resources: what goes in is seen in the sandbox, and what agents write comes out.

import { createHash, randomBytes } from "node:crypto";
import { toFile } from "@anthropic-ai/sdk";
import {
  Anthropic,
  CANARY,
  all,
  answered,
  assert,
  bash,
  beta,
  client,
  message,
  only,
  refused,
  report,
  said,
  scripted,
} from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

const upload = async (name = "data.csv", content = "a,b\n1,2\n", type = "text/csv", more = {}) =>
  client.files.upload({ file: await toFile(Buffer.from(content), name, { type }), ...more });
const bytes = async (response) => Buffer.from(await (await response).arrayBuffer());
/** The files that a session's agent has written, by name. */
async function outputs(session) {
  const files = await all(beta.files.list({ scope_id: session.id, betas: ["managed-agents-2026-04-01"] }));
  return Object.fromEntries(files.filter((file) => file.downloadable).map((file) => [file.filename, file]));
}

export default {
  async life() {
    const file = await upload("data.csv", "a,b\n1,2\n", "text/csv", { expires_in_seconds: 3600 });
    assert.deepEqual([file.type, file.filename, file.mime_type, file.size_bytes], ["file", "data.csv", "text/csv", 8]);
    assert.equal(file.downloadable, false);
    assert.equal(new Date(file.expires_at) - new Date(file.created_at), 3_600_000);
    assert.deepEqual(await client.files.retrieveMetadata(file.id), file);
    const download = await refused(client.files.download(file.id), BadRequestError);
    assert.equal(download.errorCode, "file_not_downloadable");
    const guessed = await client.files.upload({ file: await toFile(PIXEL, "picture.png") });
    assert.deepEqual([guessed.mime_type, guessed.expires_at, guessed.scope ?? null], ["image/png", null, null]);
    const deleted = await client.files.delete(file.id);
    assert.deepEqual([deleted.id, deleted.type], [file.id, "file_deleted"]);
    for (const call of ["retrieveMetadata", "delete", "download"])
      await refused(client.files[call](file.id), NotFoundError);
    const short = upload("a", "x", "text/plain", { expires_in_seconds: 10 });
    await refused(short, BadRequestError, /expires_in_seconds/);
  },

  async pages() {
    const files = [];
    for (let number = 0; number < 5; number += 1) files.push(await upload(`${number}.csv`));
    const newest = files.map((file) => file.id).toReversed();
    const page = await client.files.list({ limit: 2 });
    assert.deepEqual(
      page.data.map((file) => file.id),
      newest.slice(0, 2),
    );
    const listed = [];
    for await (const file of page) if (listed.push(file.id) === 5) break;
    assert.deepEqual(listed, newest);
    const named = await client.files.list({ ids: [files[3].id, files[1].id, "file_unknown"] });
    assert.deepEqual(named.data.map((file) => file.id).toSorted(), [files[1].id, files[3].id].toSorted());
    await refused(client.files.list({ ids: [files[0].id], limit: 5 }), BadRequestError);
  },

  async largeFile() {
    const content = randomBytes(12 << 20);
    const file = await client.files.upload({ file: await toFile(content, "large.bin") });
    assert.equal(file.size_bytes, content.length);
    const command = "cd /mnt/session && sha256sum < uploads/large.bin && cp uploads/large.bin outputs/copy.bin";
    const resources = [{ type: "file", file_id: file.id, mount_path: "/large.bin" }];
    const session = await scripted([[[bash(command)], [report]]], {}, { resources });
    const digest = createHash("sha256").update(content).digest("hex");
    assert.ok(said(await answered(session, [message("go")])).includes(digest));
    const made = await outputs(session);
    assert.ok(content.equals(await bytes(beta.files.download(made["copy.bin"].id))));
  },

  async resources() {
    const data = await upload();
    const make =
      "cd /mnt/session/outputs; mkdir sub; echo '<b>1</b>' > page.html; echo 2 > sub/two.txt; ln -s /etc/passwd link";
    const look = "cd /mnt/session/uploads; ls; cat data.csv; echo x > data.csv; echo x > new";
    const again = "ls /mnt/session/uploads; echo 3 > /mnt/session/outputs/page.html";
    const turns = [
      [[bash(`${look}; ${make}`)], [report]],
      [[bash(again)], [report]],
    ];
    const resources = [
      { type: "file", file_id: data.id, mount_path: "/data.csv" },
      { type: "file", file_id: data.id },
    ];
    const session = await scripted(turns, {}, { resources });
    const [first, second] = session.resources;
    assert.equal(first.mount_path, "/mnt/session/uploads/data.csv");
    assert.equal(second.mount_path, `/mnt/session/uploads/${data.id}`);
    assert.equal(new Set([first.file_id, second.file_id, data.id]).size, 3, "each is a copy of its own");
    const at = { session_id: session.id };
    assert.deepEqual(await beta.sessions.resources.retrieve(first.id, at), first);
    assert.deepEqual(await all(beta.sessions.resources.list(session.id, { limit: 1 })), session.resources);

    const seen = said(await answered(session, [message("look")]));
    assert.ok(seen.includes("a,b\n1,2"), seen);
    assert.equal(seen.match(/Read-only file system/g).length, 2, seen);
    const made = await outputs(session);
    assert.deepEqual(Object.keys(made).toSorted(), ["page.html", "two.txt"]);
    const page = made["page.html"];
    assert.deepEqual([page.mime_type, page.scope], ["text/html", { type: "session", id: session.id }]);
    const answer = await beta.files.download(page.id);
    assert.match(answer.headers.get("content-disposition"), /^attachment/);
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.equal(await answer.text(), "<b>1</b>\n");

    // While the sandbox is there, what is added and removed is seen at once.
    const late = await upload("late.txt", "late", "text/plain");
    const added = await beta.sessions.resources.add(session.id, {
      type: "file",
      file_id: late.id,
      mount_path: "late.txt",
    });
    const removed = await beta.sessions.resources.delete(first.id, at);
    assert.deepEqual([removed.id, removed.type], [first.id, "session_resource_deleted"]);
    const then = said(await answered(session, [message("again")]));
    assert.ok(then.includes("late.txt") && !then.includes("data.csv"), then);
    const left = (await all(beta.sessions.resources.list(session.id))).map((resource) => resource.id);
    assert.deepEqual(left, [second.id, added.id]);
    await refused(beta.sessions.resources.retrieve(first.id, at), NotFoundError);
    const changed = await outputs(session);
    assert.ok(changed["two.txt"].id === made["two.txt"].id && changed["page.html"].id !== page.id);
    await refused(beta.files.download(page.id), NotFoundError);
    // Only the token of a repository can be changed, and this is a file.
    const update = beta.sessions.resources.update(second.id, { ...at, authorization_token: "unused" });
    await refused(update, BadRequestError);

    // With the session go its files, and only they.
    await beta.sessions.delete(session.id);
    assert.deepEqual(await outputs(session), {});
    await refused(beta.files.download(changed["page.html"].id), NotFoundError);
    assert.equal((await client.files.retrieveMetadata(data.id)).id, data.id);
  },

  async badResources() {
    const { id } = await upload();
    for (const [resources, pattern] of [
      [[{ type: "file", file_id: "file_unknown" }], /file/],
      [[{ type: "file", file_id: id, mount_path: "/../x" }], /mount_path/],
      [
        [
          { type: "file", file_id: id, mount_path: "/a" },
          { type: "file", file_id: id, mount_path: "/a/b" },
        ],
        /mount_path/,
      ],
      [[{ type: "github_repository", url: "http://github.com/a/b" }], /url: repositories are cloned over https only/],
      [[{ type: "github_repository", url: "https://10.0.0.1/a/b" }], /url: /],
      [[{ type: "github_repository", url: "https://github.com/a/b", authorization_token: "a b" }], /authorization_token/],
    ]) {
      const error = await refused(scripted([], {}, { resources }), Anthropic.APIError, pattern);
      assert.ok([400, 404].includes(error.status), error.message);
    }
  },

  async repositories() {
    // A name that leads to an address which may not be dialled.
    const url = "https://localhost/owner/tool";
    const given = {
      type: "github_repository",
      url,
      authorization_token: `${CANARY}git-token`,
      checkout: { type: "branch", name: "x" },
    };
    const session = await scripted([[[bash("ls -A /workspace")], [report]]], {}, { resources: [given] });
    const [resource] = session.resources;
    assert.deepEqual([resource.mount_path, resource.checkout], ["/workspace/tool", given.checkout]);
    const { error } = only(await answered(session, [message("go")]), "session.error");
    assert.deepEqual([error.type, error.repository_url], ["repository_clone_error", url]);
    assert.equal(error.retry_status.type, "retrying");
    const at = { session_id: session.id };
    const authorization_token = `${CANARY}git-other-token`;
    const rotated = await beta.sessions.resources.update(resource.id, { ...at, authorization_token });
    assert.ok(rotated.updated_at > resource.updated_at);
    await refused(beta.sessions.resources.delete(resource.id, at), BadRequestError);
    assert.deepEqual(await all(beta.sessions.resources.list(session.id)), [rotated]);
  },

  async messages() {
    const picture = await upload("picture.png", PIXEL, "image/png");
    const text = await upload("notes.txt", "größe", "text/plain");
    const session = await scripted([[[{ text: "seen" }]]]);
    const of = (type, file_id, more = {}) => ({ type, source: { type: "file", file_id }, ...more });
    const content = [of("image", picture.id), of("document", text.id, { title: "Notes" })];
    const events = await answered(session, [{ type: "user.message", content }]);
    const shown = only(events, "user.message").content;
    assert.ok(PIXEL.equals(Buffer.from(shown[0].source.data, "base64")));
    assert.deepEqual([shown[1].source.data, shown[1].title], ["größe", "Notes"]);
    for (const [block, pattern] of [
      [of("image", text.id), /no image/],
      [of("document", picture.id), /no document/],
      [of("image", "file_none"), /events\.0\.content\.0\.source\.file_id/],
    ]) {
      const sent = beta.sessions.events.send(session.id, { events: [{ type: "user.message", content: [block] }] });
      await refused(sent, BadRequestError, pattern);
    }
  },
};
