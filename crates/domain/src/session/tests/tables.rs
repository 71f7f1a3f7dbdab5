//! Each row: inputs, the whole log that they lead to, and the phase afterwards.

mod answers;
mod budgets;
mod confirmations;
mod endings;
mod messages;
mod outcomes;
mod turns;

use super::*;

#[track_caller]
fn check(inputs: Vec<Input>, log: &str, phase: &str) -> Machine {
    check_from(Machine::default(), inputs, log, phase)
}

#[track_caller]
fn check_from(mut machine: Machine, inputs: Vec<Input>, log: &str, phase: &str) -> Machine {
    for (index, input) in inputs.into_iter().enumerate() {
        let shown = format!("{input:?}");
        machine
            .feed(input)
            .unwrap_or_else(|rejection| panic!("input {index} ({shown}): {rejection}"));
    }
    assert_eq!(
        (machine.shorthand().as_str(), machine.phase().as_str()),
        (log, phase)
    );
    machine
}

#[track_caller]
fn refuses(inputs: Vec<Input>, last: Input, rejection: Rejection) {
    let mut machine = Machine::default();
    for input in inputs {
        machine.feed(input).unwrap();
    }
    let before = machine.clone();
    assert_eq!(machine.feed(last), Err(rejection));
    assert_eq!(
        (machine.state, machine.log),
        (before.state, before.log),
        "a rejected input changed something"
    );
}

use Permission::{Allow, Ask, Deny};

#[test]
fn what_is_not_legal_changes_nothing() {
    use Rejection::{Busy, NotAsking, NotRunning, NothingToCompact, Stale};
    let asks = || vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Ask)])];
    let acts = || {
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Allow), tool("b", Allow)]),
        ]
    };
    for (before, last, rejection) in [
        (vec![], interrupt(true), NotRunning),
        (vec![], Input::Compact { charged: None }, NothingToCompact),
        (vec![], begin("r1"), Stale),
        (vec![], confirm("a", true), NotAsking),
        (vec![], Input::FailTurn { failure: failure() }, Stale),
        (vec![], Input::Remark { failure: failure() }, Stale),
        (asks(), Input::Remark { failure: failure() }, Stale),
        (vec![post("m1")], Input::Compact { charged: None }, Busy),
        (vec![post("m1")], done("a"), Stale),
        (vec![post("m1")], reply("r1", vec![]), Stale),
        (vec![post("m1"), begin("r1")], begin("r2"), Stale),
        (vec![post("m1"), begin("r1")], reply("r2", vec![]), Stale),
        (vec![post("m1"), begin("r1")], fail("r0", true), Stale),
        (acts(), confirm("a", true), NotAsking),
        (acts(), begin("r2"), Stale),
        ([acts(), vec![done("a")]].concat(), done("a"), Stale),
        (asks(), done("a"), Stale),
        (
            [asks(), vec![confirm("a", true)]].concat(),
            confirm("a", false),
            NotAsking,
        ),
    ] {
        refuses(before, last, rejection);
    }
}
