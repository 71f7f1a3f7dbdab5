// Skills and their versions.

import { toFile } from "@anthropic-ai/sdk";
import {
  Anthropic,
  agentOf,
  all,
  answered,
  assert,
  beta,
  message,
  refused,
  report,
  said,
  scripted,
} from "./shared.mjs";

const { BadRequestError, NotFoundError } = Anthropic;
const MAIN = "---\nname: pdf-tools\ndescription: Fills forms\n---\nRead forms.md.\n";

const file = (name, content, type) => toFile(Buffer.from(content), name, { type });
const files = (main = MAIN) =>
  Promise.all([file("pdf/SKILL.md", main, "text/markdown"), file("pdf/forms.md", "How to fill them", "text/markdown")]);
const skillOf = async () => beta.skills.create({ files: await files(), display_name: "PDF tools" });

export default {
  async life() {
    const skill = await skillOf();
    const at = { skill_id: skill.id };
    assert.deepEqual([skill.type, skill.display_name, skill.source.type], ["skill", "PDF tools", "custom"]);
    assert.deepEqual(await beta.skills.retrieve(skill.id), skill);
    const first = await beta.skills.versions.retrieve(skill.latest_version_id, at);
    assert.deepEqual([first.type, first.name, first.description], ["skill_version", "pdf-tools", "Fills forms"]);
    assert.deepEqual(await beta.skills.versions.retrieve("latest", at), first);
    const second = await beta.skills.versions.create(skill.id, { files: await files(MAIN.replace("Fills", "Reads")) });
    assert.equal(second.description, "Reads forms");
    assert.equal((await beta.skills.retrieve(skill.id)).latest_version_id, second.id);
    const versions = await all(beta.skills.versions.list(skill.id, { limit: 1 }));
    assert.deepEqual(
      versions.map((version) => version.id),
      [second.id, first.id],
    );
    const custom = await all(beta.skills.list({ limit: 1, source: "custom" }));
    assert.ok(custom.map((found) => found.id).includes(skill.id));
    assert.deepEqual(await all(beta.skills.list({ source: "anthropic" })), []);
    await refused(beta.skills.delete(skill.id), BadRequestError, /version/);
    for (const version of [first, second]) {
      const gone = await beta.skills.versions.delete(version.id, at);
      assert.deepEqual([gone.id, gone.type], [version.id, "skill_version_deleted"]);
    }
    assert.equal((await beta.skills.retrieve(skill.id)).latest_version_id, null);
    const gone = await beta.skills.delete(skill.id);
    assert.deepEqual([gone.id, gone.type], [skill.id, "skill_deleted"]);
    await refused(beta.skills.retrieve(skill.id), NotFoundError);
  },

  async archives() {
    const skill = await skillOf();
    const download = async (found) => {
      const response = await beta.skills.versions.download(found.latest_version_id, { skill_id: found.id });
      return Buffer.from(await response.arrayBuffer());
    };
    const content = await download(skill);
    assert.equal(content.subarray(0, 4).toString("latin1"), "PK\x03\x04");
    for (const name of ["pdf/SKILL.md", "pdf/forms.md"]) assert.ok(content.includes(name), name);
    const again = await beta.skills.create({ files: [await file("pdf.zip", content, "application/zip")] });
    assert.ok(content.equals(await download(again)));
    assert.equal(again.display_name, "pdf-tools");
    const bad = beta.skills.create({ files: [await file("pdf/forms.md", "x", "text/plain")] });
    await refused(bad, BadRequestError, /SKILL\.md is missing/);
  },

  async session() {
    const skill = await skillOf();
    const turn = [[{ tool: "read", input: { file_path: "/mnt/skills/pdf/SKILL.md" } }], [report]];
    const session = await scripted([turn], { skills: [{ type: "custom", skill_id: skill.id }] });
    assert.deepEqual(
      session.agent.skills.map((found) => [found.type, found.skill_id]),
      [["custom", skill.id]],
    );
    assert.match(said(await answered(session, [message("go")])), /Read forms\.md\./);
    const theirs = agentOf([], { skills: [{ type: "anthropic", skill_id: "pdf" }] });
    await refused(theirs, BadRequestError, /skills\.0\.skill_id/);
  },
};
