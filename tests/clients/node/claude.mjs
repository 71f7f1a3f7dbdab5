// Anthropic's SDK for JavaScript, with nothing changed but the base URL and the key.
//
// `node claude.mjs TOPIC SCENARIO` plays one scenario of `claude/TOPIC.mjs` against the server that OMA_URL names. It
// exits with 0 if the scenario went well and prints how many checks it passed, so that a scenario that checks nothing is
// seen; `node claude.mjs` prints what there is: `{topic: [scenario, …]}`.

import { readdirSync } from "node:fs";
import { parse } from "node:path";
import { checks } from "./claude/shared.mjs";

const folder = new URL("claude/", import.meta.url);
const topics = {};
for (const name of readdirSync(folder).sort()) {
  if (name === "shared.mjs") continue;
  topics[parse(name).name] = (await import(new URL(name, folder))).default;
}

const [topic, scenario] = process.argv.slice(2);
if (topic === undefined) {
  const names = Object.entries(topics).map(([name, scenarios]) => [name, Object.keys(scenarios)]);
  console.log(JSON.stringify(Object.fromEntries(names)));
} else {
  await topics[topic][scenario]();
  console.log(JSON.stringify({ checks: checks.passed }));
  // Streams that a scenario has left open do not keep it.
  process.exit(0);
}
