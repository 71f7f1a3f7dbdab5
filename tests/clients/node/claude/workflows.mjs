// Agents that write programs which have others work, and agents that are defined on the fly.

import { agentOf, all, answered, assert, beta, message, of, only, opened, said } from "./shared.mjs";

const multiagent = { type: "multiagent_20261001" };
const report = { text: "{{last_tool_result}}" };
const run = (program, phases) => ({
  tool: "run_workflow",
  input: { name: "A run", phases: phases.map((name) => ({ name, description: `the phase ${name}` })), program },
});
const echo = { turns: [[[{ text: "{{last_user}}" }]]] };
const listed = (session) => all(beta.sessions.events.list(session.id));

export default {
  async run() {
    const worker = await agentOf(echo.turns);
    const jobs = ["a", "b"].map((prompt) => `#{agent: "${worker.id}", prompt: "${prompt}"}`);
    const program = `phase("ask"); let text = ""; for one in parallel([${jobs}]) { text += one.text; } text`;
    const workflows = { type: "enabled", predefined_agents: [worker.id], inline_agents: { type: "disabled" } };
    const agent = await agentOf([[[run(program, ["ask"])], [report]]], {
      multiagent: { ...multiagent, subagents: { type: "disabled" }, workflows },
    });
    const session = await opened(agent);
    const events = await answered(session, [message("go")]);
    assert.equal(said(events), "ab");
    assert.deepEqual(await listed(session), events);
    const created = only(events, "workflow_run.created");
    assert.equal(only(events, "workflow_run.phase_started").workflow_run_phase_id, created.phases[0].id);
    assert.deepEqual(only(events, "workflow_run.status_ended").result, { type: "completed" });
    const made = of(events, "session.thread_created");
    assert.deepEqual(
      made.map((event) => event.workflow_run_id),
      [created.workflow_run_id, created.workflow_run_id],
    );
    const threads = await all(beta.sessions.threads.list(session.id));
    assert.deepEqual(
      threads.map((thread) => thread.workflow_run_id),
      [null, created.workflow_run_id, created.workflow_run_id],
    );
  },

  async fails() {
    const agent = await agentOf([[[run("throw `no more`;", [])], [report]]], { multiagent });
    const session = await opened(agent);
    const events = await answered(session, [message("go")]);
    assert.match(said(events), /no more/);
    const { result } = only(events, "workflow_run.status_ended");
    assert.deepEqual([result.type, result.error.type], ["error", "program_error"]);
  },

  async definedOnTheFly() {
    const saying = (text) => JSON.stringify({ turns: [[[{ text }]]] });
    const scout = { name: "Scout", system: saying("seen"), message: "look" };
    const called = `agent(#{name: "Critic", system: ${JSON.stringify(saying("judged"))}, prompt: "judge"}).text`;
    const agent = await agentOf([[[{ tool: "create_agent", input: scout }], [run(called, [])], [report]]], { multiagent });
    assert.equal(agent.multiagent.subagents.inline_agents.type, "enabled");
    assert.equal(agent.multiagent.workflows.inline_agents.type, "enabled");
    const session = await opened(agent);
    const events = await answered(session, [message("go")]);
    assert.equal(said(events), "judged");
    assert.equal(only(events, "agent.thread_message_received").content[0].text, "seen");
    const threads = await all(beta.sessions.threads.list(session.id));
    assert.deepEqual(
      threads.slice(1).map((thread) => [thread.agent.type, thread.agent.name]),
      [
        ["inline", "Scout"],
        ["inline", "Critic"],
      ],
    );
  },
};
