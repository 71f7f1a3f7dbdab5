//! Outcomes: what the agent's answers and the grader's verdicts lead to.

use super::*;
use crate::outcome::Evaluation;

fn worked(request: &str) -> Vec<Input> {
    vec![
        begin(request),
        reply(request, vec![text(&format!("t-{request}"))]),
    ]
}

const FIRST: &str = "RUN defines (r1 says:t-r1 ) <0";

fn first() -> Vec<Input> {
    [vec![define("o")], worked("r1")].concat()
}

fn standing(machine: &Machine) -> (&'static str, u32, Option<&str>, bool) {
    let last = machine.state.evaluations.last().expect("an outcome");
    let Evaluation {
        standing,
        iteration,
        explanation,
        completed_at,
        ..
    } = last;
    (
        standing.as_str(),
        *iteration,
        explanation.as_deref(),
        completed_at.is_some(),
    )
}

#[test]
fn a_satisfied_grader_ends_the_turn() {
    let machine = check(
        [first(), vec![grade("g1"), verdict("g1", Verdict::Satisfied)]].concat(),
        &format!("{FIRST} (g1 grading ) satisfied> IDLE:end"),
        "idle:end",
    );
    assert_eq!(standing(&machine), ("satisfied", 0, Some("because of g1"), true));
    assert_eq!(machine.state.goal, None);
    assert_eq!(machine.state.output.as_deref(), Some("t-r1"));
    // The grader's request counts as any other does.
    assert_eq!(machine.state.usage.total(), 115);
    assert_eq!(machine.state.cost.total(), Some(NanoUsd(10)));
    // What the agent has in its context is its own alone.
    assert_eq!(machine.state.context_tokens, 15);
    let usage = machine.log.iter().find_map(|event| match &event.body {
        Body::OutcomeEvaluationEnd { usage, .. } => Some(usage.total()),
        _ => None,
    });
    assert_eq!(usage, Some(100), "the grader's alone");
}

#[test]
fn work_is_revised_until_there_are_no_more_iterations() {
    let revised = [first(), vec![grade("g1"), verdict("g1", Verdict::NeedsRevision)]].concat();
    let told = format!("{FIRST} (g1 grading ) needs_revision>");
    let machine = check(revised.clone(), &told, "ready");
    assert_eq!(
        standing(&machine),
        ("needs_revision", 0, Some("because of g1"), false)
    );
    assert_eq!(
        machine.state.turn().map(|turn| turn.requests),
        Some(0),
        "counted anew"
    );
    let again = [revised, worked("r2")].concat();
    let told = format!("{told} (r2 says:t-r2 ) <1");
    let machine = check(again.clone(), &told, "ready");
    assert_eq!(
        standing(&machine),
        ("evaluating", 1, Some("because of g1"), false)
    );
    check(
        [
            again.clone(),
            vec![grade("g2"), verdict("g2", Verdict::Satisfied)],
        ]
        .concat(),
        &format!("{told} (g2 grading ) satisfied> IDLE:end"),
        "idle:end",
    );
    // One more answer, which nobody grades.
    let machine = check(
        [
            again,
            vec![grade("g2"), verdict("g2", Verdict::NeedsRevision)],
            worked("r3"),
        ]
        .concat(),
        &format!("{told} (g2 grading ) max_iterations_reached> (r3 says:t-r3 ) IDLE:end"),
        "idle:end",
    );
    assert_eq!(
        standing(&machine),
        ("max_iterations_reached", 1, Some("because of g2"), true)
    );
}

#[test]
fn a_rubric_that_does_not_apply_ends_the_outcome() {
    let machine = check(
        [first(), vec![grade("g1"), verdict("g1", Verdict::Failed)]].concat(),
        &format!("{FIRST} (g1 grading ) failed> IDLE:end"),
        "idle:end",
    );
    assert_eq!(standing(&machine), ("failed", 0, Some("because of g1"), true));
}

#[test]
fn tools_and_messages_belong_to_the_iteration() {
    let work = vec![
        define("o"),
        begin("r1"),
        reply("r1", vec![tool("a", Allow)]),
        post("m1"),
        done("a"),
        begin("r2"),
        reply("r2", vec![text("t2")]),
    ];
    // The agent sees the message before the grader sees the work.
    let told = "RUN defines (r1 uses:a ) result:a (r2 says:t2 ) user:m1";
    check(work.clone(), told, "ready");
    check(
        [
            work,
            worked("r3"),
            vec![grade("g1"), post("m2"), verdict("g1", Verdict::Satisfied)],
        ]
        .concat(),
        &format!("{told} (r3 says:t-r3 ) <0 (g1 grading ) satisfied> user:m2"),
        "ready",
    );
}

#[test]
fn what_is_defined_in_mid_turn_begins_after_it() {
    let begun = vec![
        post("m1"),
        begin("r1"),
        define("o"),
        post("m2"),
        reply("r1", vec![text("t1")]),
    ];
    let told = "RUN user:m1 (r1 defines-later says:t1 ) user:m2";
    let machine = check(begun.clone(), told, "ready");
    assert_eq!(standing(&machine), ("pending", 0, None, false));
    let machine = check(
        [begun.clone(), worked("r2"), worked("r3")].concat(),
        &format!("{told} (r2 says:t-r2 ) begins:4 (r3 says:t-r3 ) <0"),
        "ready",
    );
    assert_eq!(standing(&machine).0, "evaluating");
    // A turn that fails is not the outcome's, and does not end it; the session is seen idle first.
    check(
        [begun.clone(), vec![begin("r2"), fail("r2", false)]].concat(),
        &format!("{told} (r2 !) failed IDLE:failed RUN begins:4"),
        "ready",
    );
    check(
        [begun, vec![interrupt(true)]].concat(),
        &format!("{told} interrupt ?interrupted> IDLE:interrupted"),
        "idle:interrupted",
    );
}

#[test]
fn there_is_one_outcome_at_a_time() {
    refuses(first(), define("p"), Rejection::OutcomeActive);
    refuses(
        vec![post("m1"), define("o")],
        define("p"),
        Rejection::OutcomeActive,
    );
    check(
        [
            first(),
            vec![grade("g1"), verdict("g1", Verdict::Satisfied), define("p")],
        ]
        .concat(),
        &format!("{FIRST} (g1 grading ) satisfied> IDLE:end RUN defines"),
        "ready",
    );
    refuses(
        vec![post("m1"), begin("r1"), reply("r1", vec![custom("a")])],
        define("o"),
        Rejection::AwaitsAnswers(vec![id("a")]),
    );
    refuses(vec![Input::Archive], define("o"), Rejection::Archived);
}

#[test]
fn work_that_stops_ends_the_outcome() {
    for (inputs, told, result) in [
        (
            vec![define("o"), interrupt(false)],
            "RUN defines interrupt ?interrupted> IDLE:interrupted",
            "interrupted",
        ),
        (
            [first(), vec![interrupt(false)]].concat(),
            &*format!("{FIRST} interrupt interrupted> IDLE:interrupted"),
            "interrupted",
        ),
        (
            [first(), vec![grade("g1"), interrupt(false)]].concat(),
            &*format!("{FIRST} (g1 grading !) interrupt interrupted> IDLE:interrupted"),
            "interrupted",
        ),
        (
            vec![define("o"), begin("r1"), fail("r1", false)],
            "RUN defines (r1 !) failed ?failed> IDLE:failed",
            "failed",
        ),
        (
            [first(), vec![grade("g1"), fail("g1", false)]].concat(),
            &*format!("{FIRST} (g1 grading !) failed failed> IDLE:failed"),
            "failed",
        ),
        (
            vec![
                define("o"),
                begin("r1"),
                reply("r1", vec![custom("a")]),
                Input::Archive,
            ],
            "RUN defines (r1 uses:a ) IDLE:asks(a) error:a ?interrupted> IDLE:interrupted OVER",
            "interrupted",
        ),
    ] {
        let machine = check(inputs, told, &format!("idle:{result}"));
        let (standing, _, explanation, completed) = standing(&machine);
        assert_eq!((standing, completed), (result, true), "{told}");
        assert!(explanation.is_some(), "{told}");
    }
}

#[test]
fn a_grader_that_fails_or_is_cut_off_is_asked_again() {
    for (cut, told) in [(fail("g1", true), "!) retry"), (Input::Wake, "!)")] {
        let again = vec![grade("g1"), cut, grade("g2"), verdict("g2", Verdict::Satisfied)];
        check(
            [first(), again].concat(),
            &format!("{FIRST} (g1 grading {told} (g2 grading ) satisfied> IDLE:end"),
            "idle:end",
        );
    }
}

#[test]
fn each_request_is_made_when_it_is_due() {
    refuses(vec![define("o")], grade("g1"), Rejection::Stale);
    refuses(first(), begin("r2"), Rejection::Stale);
    refuses(
        vec![define("o"), begin("r1")],
        verdict("r1", Verdict::Satisfied),
        Rejection::Stale,
    );
    refuses(
        [first(), vec![grade("g1")]].concat(),
        reply("g1", vec![text("t")]),
        Rejection::Stale,
    );
    refuses(first(), verdict("g1", Verdict::Satisfied), Rejection::Stale);
}

#[test]
fn the_grader_s_model_is_known() {
    let mut machine = Machine::default();
    for input in [first(), vec![grade("g1")]].concat() {
        machine.feed(input).expect("legal");
    }
    let step = machine.state.turn().map(|turn| &turn.step);
    let Some(Step::Sampling { model, .. }) = step else {
        panic!("{step:?}");
    };
    assert_eq!(model.as_deref(), Some("p/grader"));
}

#[test]
fn a_budget_holds_the_work_where_it_stands() {
    for (before, due, told) in [
        (vec![define("o")], begin("r1"), "RUN defines"),
        (first(), grade("g1"), FIRST),
    ] {
        let mut machine = Machine::default();
        machine.state.budget = Some(NanoUsd(1_000));
        let mut machine = check_from(machine, before, told, "ready");
        machine.granted = Some(Err(Exceeded::WorkspaceCost));
        let told = format!("{told} IDLE:workspace_cost");
        let mut machine = check_from(machine, vec![due.clone()], &told, "idle:workspace_cost");
        machine.granted = None;
        assert!(machine.state.goal.is_some() && machine.state.suspended.is_some());
        let raised = check_from(
            machine.clone(),
            vec![budget(Some(2_000)), due.clone()],
            &format!(
                "{told} budget:2000 RUN {}",
                if matches!(
                    machine.state.goal.as_ref().map(|goal| &goal.stage),
                    Some(Stage::Working)
                ) {
                    "(r1"
                } else {
                    "(g1 grading"
                }
            ),
            "sampling",
        );
        assert_eq!(raised.state.suspended, None);
        // A message does not overtake it.
        let posted = check_from(machine.clone(), vec![post("m1")], &format!("{told} RUN"), "ready");
        assert_eq!(posted.state.queue.len(), 1);
        // Nor does a summary lose it.
        let summary = vec![
            Input::Compact { charged: None },
            begin("c1"),
            Input::FinishCompaction {
                request: id("c1"),
                summary: "s".into(),
                kept: None,
                usage: Usage::default(),
                cost: None,
            },
        ];
        let mut compacted = machine.clone();
        for input in summary {
            compacted.feed(input).expect("legal");
        }
        assert_eq!(compacted.phase(), "ready");
        compacted.feed(due).expect("it goes on");
        let archived = check_from(
            machine,
            vec![Input::Archive],
            &{
                let start = if told.contains('<') { "" } else { "?" };
                format!("{told} {start}interrupted> OVER")
            },
            "idle:workspace_cost",
        );
        assert_eq!(standing(&archived).0, "interrupted");
    }
}
