//! Consultations of advisors: threads that end for good with what they have led to.

use super::threads::{check, finish, mirror, thread};
use super::*;
use crate::id::AgentId;
use crate::multiagent::{ADVISOR, CONSULT_ADVISOR};

fn consults(name: &str) -> ReplyBlock {
    calls(name, CONSULT_ADVISOR)
}

fn dispatch(tool: &str, to: &str) -> Input {
    Input::Send(Box::new(Dispatch {
        tool_use: id(tool),
        thread: thread(to),
        agent: AgentId::of_advisors(),
        agent_name: ADVISOR.into(),
        content: vec![ContentBlock::text("what now?")],
        head: Seq(0),
        known: None,
    }))
}

/// A session that has asked its advisor, in a thread of this name for each tool use.
fn asked(threads: &[(&str, &str)]) -> Machine {
    let mut machine = Machine::default();
    let blocks = threads.iter().map(|(tool, _)| consults(tool)).collect();
    for input in [post("m1"), begin("r1"), reply("r1", blocks)] {
        machine.feed(input).unwrap();
    }
    for (tool, to) in threads {
        machine.feed(dispatch(tool, to)).unwrap();
    }
    machine
}

fn close(name: &str) -> Input {
    Input::CloseThread { thread: thread(name) }
}

#[test]
fn a_consultation_ends_with_its_advice() {
    let mut machine = Machine::default();
    for input in [post("m1"), begin("r1"), reply("r1", vec![consults("a")])] {
        machine.feed(input).unwrap();
    }
    // What the advisor is asked is in its own thread alone. Carried out again, it is not asked again.
    let machine = check(
        machine,
        vec![
            dispatch("a", "t1"),
            dispatch("a", "t1"),
            mirror("t1", 2, vec![News::Works]),
            finish("a", 9),
        ],
        "new:t1 run:t1 from:t1 idle:t1:end over:t1 result:a",
        "ready",
    );
    assert!(machine.state.has_threads_to_close());
    // What it consumed counts, also when nothing is known of it any more.
    let machine = check(
        machine,
        vec![close("t1"), begin("r2"), reply("r2", vec![text("x")])],
        "(r2 says:x ) IDLE:end",
        "idle:end",
    );
    assert_eq!(machine.state.total().usage.total(), 15 + 15 + 100);
    assert_eq!(machine.state.threads_active_ms(), 5);
    assert!(machine.state.threads.is_empty() && machine.state.delegated.opened.is_empty());
}

#[test]
fn an_interrupt_ends_a_consultation_for_good() {
    let machine = asked(&[("a", "t1")]);
    let machine = check(
        machine,
        vec![mirror("t1", 2, vec![News::Works]), interrupt(false)],
        "run:t1 error:a interrupt idle:t1:interrupted over:t1 IDLE:interrupted",
        "idle:interrupted",
    );
    assert!(machine.state.has_threads_to_close());
    // One that has not begun yet ends, too.
    check(
        asked(&[("a", "t1")]),
        vec![interrupt(false)],
        "error:a interrupt over:t1 IDLE:interrupted",
        "idle:interrupted",
    );
    // With its session it ends once.
    check(
        asked(&[("a", "t1")]),
        vec![interrupt(false), Input::Archive],
        "error:a interrupt over:t1 IDLE:interrupted OVER",
        "idle:interrupted",
    );
}

#[test]
fn a_consultation_that_is_deleted_ends_once() {
    let deleted = Input::FinishErrand {
        tool_use: id("a"),
        outcome: Outcome::error("gone"),
        through: Seq(0),
        news: vec![News::Ends],
        standing: None,
        active_ms: 0,
    };
    let machine = check(
        asked(&[("a", "t1")]),
        vec![mirror("t1", 2, vec![News::Works]), deleted],
        "run:t1 over:t1 error:a",
        "ready",
    );
    assert!(machine.state.threads.is_empty());
}

#[test]
fn consultations_take_no_places_of_threads() {
    let names: Vec<(String, String)> = (0..=MAX_THREADS)
        .map(|at| (format!("s{at}"), format!("t{at}")))
        .collect();
    let names: Vec<(&str, &str)> = names
        .iter()
        .map(|(tool, to)| (tool.as_str(), to.as_str()))
        .collect();
    let machine = asked(&names);
    assert_eq!(machine.state.threads.len(), MAX_THREADS + 1);
}

#[test]
fn a_consultation_has_a_part_of_what_is_left() {
    let mut machine = Machine {
        quota: Some(Quota {
            max_tokens: Some(30_015),
            ..Quota::default()
        }),
        ..Machine::default()
    };
    for input in [
        post("m1"),
        begin_bounded("r1", 10, 5, false),
        reply("r1", vec![consults("a"), consults("b")]),
        dispatch("a", "t1"),
        dispatch("b", "t2"),
    ] {
        machine.feed(input).unwrap();
    }
    // One for each, and one for whoever asks.
    let share = |name: &str| machine.state.delegated.opened[&thread(name)].share;
    let tokens = |name: &str| share(name).unwrap().max_tokens;
    assert_eq!((tokens("t1"), tokens("t2")), (Some(10_000), Some(10_000)));
    // What is cut off is counted, once its session says what it was.
    machine.feed(interrupt(false)).unwrap();
    let before = machine.state.total().usage.total();
    let counted = Input::GiveBack {
        child: thread("t1"),
        standing: Some(standing(1, 70)),
    };
    machine.feed(counted).unwrap();
    machine.feed(close("t1")).unwrap();
    assert_eq!(machine.state.total().usage.total(), before + 70);
    assert!(!machine.state.threads.contains_key(&thread("t1")));
}
