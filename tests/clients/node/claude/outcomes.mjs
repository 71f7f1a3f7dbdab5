// Outcomes: work that is revised until a grader is satisfied. System messages, too.

import { Anthropic, all, answered, assert, beta, message, of, only, refused, said, scripted } from "./shared.mjs";

const { BadRequestError } = Anthropic;

/** A rubric whose grader gives these verdicts, one for each iteration; each is a list of steps. */
const graded = (...iterations) => ({
  type: "text",
  content: `- It is good.\n\`\`\`script\n${JSON.stringify(iterations.map((steps) => [steps]))}\n\`\`\`\n`,
});
const verdict = (result, explanation = "because") => ({ verdict: result, explanation });
const outcome = (rubric, more = {}) => ({ type: "user.define_outcome", description: "A haiku", rubric, ...more });
const anything = { type: "text", content: "Anything." };
const system = (text) => ({ type: "system.message", content: [{ type: "text", text }] });

export default {
  async revised() {
    const session = await scripted([[[{ text: "A draft." }]], [[{ text: "Better: {{last_user}}" }]]]);
    const rubric = graded([verdict("needs_revision", "It has no title.")], [verdict("satisfied", "Now it has.")]);
    const events = await answered(session, [outcome(rubric, { max_iterations: 4 })]);
    const defined = only(events, "user.define_outcome");
    assert.ok(defined.outcome_id.startsWith("outc_") && defined.max_iterations === 4);
    const starts = of(events, "span.outcome_evaluation_start");
    const ends = of(events, "span.outcome_evaluation_end");
    assert.deepEqual(
      ends.map((end) => [end.iteration, end.result, end.explanation]),
      [
        [0, "needs_revision", "It has no title."],
        [1, "satisfied", "Now it has."],
      ],
    );
    assert.deepEqual(
      ends.map((end) => end.outcome_evaluation_start_id),
      starts.map((start) => start.id),
    );
    assert.ok(ends[0].usage.input_tokens > 0);
    const texts = of(events, "agent.message").map((event) => event.content[0].text);
    assert.ok(texts[0] === "A draft." && texts[1].includes("It has no title."));
    const [evaluation] = (await beta.sessions.retrieve(session.id)).outcome_evaluations;
    assert.deepEqual(
      [evaluation.outcome_id, evaluation.result, evaluation.iteration],
      [defined.outcome_id, "satisfied", 1],
    );
    assert.ok(evaluation.completed_at && evaluation.description === "A haiku");
    assert.deepEqual(await all(beta.sessions.events.list(session.id)), events);
  },

  async lastIteration() {
    const session = await scripted([[[{ text: "No." }]], [[{ text: "It stays so." }]]]);
    const events = await answered(session, [outcome(graded([verdict("needs_revision")]), { max_iterations: 1 })]);
    assert.equal(only(events, "span.outcome_evaluation_end").result, "max_iterations_reached");
    assert.equal(of(events, "agent.message").length, 2);
    assert.equal(events.at(-1).stop_reason.type, "end_turn");
  },

  async interrupted() {
    const session = await scripted([[[{ text: "Done." }]]]);
    const slow = graded([{ delay_ms: 600_000 }, verdict("satisfied")]);
    const stream = await beta.sessions.events.stream(session.id);
    await beta.sessions.events.send(session.id, { events: [outcome(slow)] });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "span.outcome_evaluation_ongoing" && of(seen, event.type).length === 1) {
        const { outcome_evaluations: evaluations } = await beta.sessions.retrieve(session.id);
        assert.equal(evaluations[0].result, "evaluating");
        const second = beta.sessions.events.send(session.id, { events: [outcome(slow)] });
        await refused(second, BadRequestError, /has not ended/);
        await beta.sessions.events.send(session.id, { events: [{ type: "user.interrupt" }] });
      }
      if (event.type === "session.status_idle") break;
    }
    assert.equal(only(seen, "span.outcome_evaluation_end").result, "interrupted");
    const events = await answered(session, [outcome(anything)]);
    assert.equal(only(events, "span.outcome_evaluation_end").result, "satisfied");
  },

  async bad() {
    const session = await scripted([[[{ text: "x" }]]]);
    for (const [fields, pattern] of [
      [{ max_iterations: 21 }, /max_iterations/],
      [{ max_iterations: 0 }, /max_iterations/],
      [{ description: "" }, /description/],
      [{ rubric: { type: "text", content: "" } }, /rubric/],
      [{ rubric: { type: "file", file_id: "file_x" } }, /rubric/],
      [{ surprise: 1 }, /Extra inputs/],
    ]) {
      const sent = beta.sessions.events.send(session.id, { events: [outcome(anything, fields)] });
      await refused(sent, BadRequestError, pattern);
    }
    assert.deepEqual(await all(beta.sessions.events.list(session.id)), []);
  },

  async systemMessage() {
    const session = await scripted([[[{ text: "told: {{last_system}}, asked: {{last_user}}" }]]]);
    const events = await answered(session, [message("hello"), system("be kind")]);
    assert.equal(said(events), "told: be kind, asked: hello");
    const kinds = events.map((event) => event.type);
    assert.equal(kinds.indexOf("system.message"), kinds.indexOf("user.message") + 1);
    for (const bad of [[system("x")], [system("x"), message("y")], [{ type: "user.interrupt" }, system("x")]]) {
      await refused(beta.sessions.events.send(session.id, { events: bad }), BadRequestError, /system\.message/);
    }
  },
};
