//! Turns: what the agent says, the tools that it uses, and what is asked of the model.

use super::*;
use crate::environment::build::Progress;

#[test]
fn a_plain_turn() {
    let machine = check(
        vec![post("m1"), begin("r1"), reply("r1", vec![text("t1")])],
        "RUN user:m1 (r1 says:t1 ) IDLE:end",
        "idle:end",
    );
    assert_eq!(machine.state.output.as_deref(), Some("t1"));
    assert_eq!(machine.state.usage.total(), 15);
    assert_eq!(machine.state.cost.total(), Some(NanoUsd(7)));
    assert_eq!(machine.state.turns, 1);
}

#[test]
fn tools_run_in_any_order_and_then_the_model_is_asked_again() {
    let ask = vec![
        post("m1"),
        begin("r1"),
        reply("r1", vec![text("t1"), tool("a", Allow), tool("b", Allow)]),
    ];
    check(ask.clone(), "RUN user:m1 (r1 says:t1 uses:a uses:b )", "acting:2");
    let both = [ask, vec![done("b"), done("a")]].concat();
    check(
        both.clone(),
        "RUN user:m1 (r1 says:t1 uses:a uses:b ) result:b result:a",
        "ready",
    );
    let end = [both, vec![begin("r2"), reply("r2", vec![text("t2")])]].concat();
    check(
        end,
        "RUN user:m1 (r1 says:t1 uses:a uses:b ) result:b result:a (r2 says:t2 ) IDLE:end",
        "idle:end",
    );
}

#[test]
fn where_a_sandbox_came_from_stays_until_another_one_is_used() {
    let used = |name: &str, sandbox| Input::FinishTool {
        tool_use: id(name),
        outcome: Outcome::text("ok"),
        sandbox,
    };
    let (cold, adopted) = (SandboxSource::Cold { boot_ms: 12 }, SandboxSource::Adopt);
    let mut machine = Machine::default();
    let names = ["a", "b", "c"];
    let uses = names.map(|name| tool(name, Allow)).to_vec();
    for input in [post("m1"), begin("r1"), reply("r1", uses)] {
        machine.feed(input).unwrap();
    }
    assert_eq!(machine.state.sandbox, None);
    for (input, sandbox) in [
        (used("a", Some(cold)), cold),
        (used("b", None), cold),
        (used("c", Some(adopted)), adopted),
    ] {
        machine.feed(input).unwrap();
        assert_eq!(machine.state.sandbox, Some(sandbox));
    }
    assert_eq!((cold.as_str(), cold.boot_ms()), ("cold", Some(12)));
    assert_eq!(SandboxSource::Warm.boot_ms(), Some(0));
    assert_eq!((adopted.as_str(), adopted.boot_ms()), ("adopt", None));
}

#[test]
fn a_build_is_told_of_while_a_turn_waits_for_it() {
    let note = || Input::NoteBuild {
        layer: "l".into(),
        progress: vec![Progress::Started, Progress::Ready { took_ms: 7 }],
    };
    let ask = vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Allow)])];
    check(
        [ask, vec![note(), done("a")]].concat(),
        "RUN user:m1 (r1 uses:a ) build:started build:ready result:a",
        "ready",
    );
    refuses(vec![], note(), Rejection::Stale);
}

#[test]
fn denied_tools_get_their_result_at_once() {
    check(
        vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Deny)])],
        "RUN user:m1 (r1 uses:a ) error:a",
        "ready",
    );
    check(
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Deny), tool("b", Allow)]),
        ],
        "RUN user:m1 (r1 uses:a uses:b ) error:a",
        "acting:1",
    );
}

#[test]
fn a_turn_makes_only_so_many_requests() {
    let machine = Machine {
        max_requests: Some(1),
        ..Machine::default()
    };
    check_from(
        machine,
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Allow)]),
            done("a"),
            begin("r2"),
        ],
        "RUN user:m1 (r1 uses:a ) result:a failed IDLE:failed",
        "idle:failed",
    );
}

#[test]
fn compaction() {
    let summary = |request: &str| Input::FinishCompaction {
        request: id(request),
        summary: "s".into(),
        kept: None,
        usage: Usage {
            output: 3,
            ..Usage::default()
        },
        cost: None,
    };
    let turn = vec![post("m1"), begin("r1"), reply("r1", vec![text("t1")])];
    let asked = [
        turn,
        vec![Input::Compact { charged: None }, begin("r2"), summary("r2")],
    ]
    .concat();
    let machine = check(
        asked,
        "RUN user:m1 (r1 says:t1 ) IDLE:end RUN (r2 summary<=8 ) IDLE:end",
        "idle:end",
    );
    assert_eq!(machine.state.compacted_through, Seq(8));
    assert_eq!(machine.state.context_tokens, 3);
    // Within a turn the turn goes on.
    check(
        vec![
            post("m1"),
            begin("r1"),
            summary("r1"),
            begin("r2"),
            reply("r2", vec![text("t")]),
        ],
        "RUN user:m1 (r1 summary<=3 ) (r2 says:t ) IDLE:end",
        "idle:end",
    );
}

#[test]
fn only_work_counts_as_time() {
    let mut machine = Machine::default();
    for (at, input) in [
        (0, post("m1")),
        (10, begin("r1")),
        (20, reply("r1", vec![tool("a", Ask)])),
        (500, confirm("a", true)),
        (530, done("a")),
        (540, begin("r2")),
        (550, reply("r2", vec![text("t1")])),
        (900, post("m2")),
    ] {
        machine.passed = at;
        machine.feed(input).unwrap();
    }
    assert_eq!(machine.state.active_ms, 70);
    assert_eq!(machine.state.totals(Timestamp(1905)).active_ms, 75);
    let totals = machine.log.iter().filter_map(|event| match &event.body {
        Body::StatusIdle { totals, .. } => *totals,
        _ => None,
    });
    let totals: Vec<_> = totals
        .map(|totals| (totals.active_ms, totals.usage.total()))
        .collect();
    assert_eq!(totals, [(20, 15), (70, 30)]);
}
