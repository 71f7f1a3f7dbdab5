//! Threads: each row is what happens, the log that it leads to, and the phase afterwards.

use super::*;
use crate::content::joined_text;
use crate::id::{AgentId, SessionId};
use crate::multiagent::{CREATE_AGENT, SEND_TO_AGENT};

pub(super) fn thread(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

fn sends(name: &str) -> ReplyBlock {
    calls(name, SEND_TO_AGENT)
}

fn dispatch(tool: &str, to: &str, known: Option<(Option<Quota>, Standing)>, head: u64) -> Input {
    dispatch_to(AgentId::parse("agt_1").unwrap(), (tool, to), known, head)
}

fn dispatch_to(
    agent: AgentId,
    (tool, to): (&str, &str),
    known: Option<(Option<Quota>, Standing)>,
    head: u64,
) -> Input {
    Input::Send(Box::new(Dispatch {
        tool_use: id(tool),
        thread: thread(to),
        agent,
        agent_name: "worker".into(),
        content: vec![ContentBlock::text("go")],
        head: Seq(head),
        known,
    }))
}

pub(super) fn mirror(name: &str, through: u64, news: Vec<News>) -> Input {
    Input::Mirror {
        thread: thread(name),
        through: Seq(through),
        news,
    }
}

fn awaits(tool: &str, custom: bool) -> News {
    News::Awaits {
        tool_use: id(tool),
        name: "bash".into(),
        input: serde_json::json!({}),
        custom,
        origin: None,
    }
}

fn asks() -> News {
    let tool_uses = vec![id("theirs")];
    News::Rests {
        stop: StopReason::RequiresAction { tool_uses },
    }
}

pub(super) fn finish(tool: &str, through: u64) -> Input {
    let content = vec![ContentBlock::text("done")];
    let stop = StopReason::EndTurn;
    Input::FinishErrand {
        tool_use: id(tool),
        outcome: Outcome::text("done"),
        through: Seq(through),
        news: vec![News::Says { content }, News::Rests { stop }],
        standing: Some(standing(1, 100)),
        active_ms: 5,
    }
}

/// A session that has sent a message to a new thread.
fn sent(blocks: Vec<ReplyBlock>) -> Machine {
    let mut machine = Machine::default();
    for input in [
        post("m1"),
        begin("r1"),
        reply("r1", blocks),
        dispatch("a", "t1", None, 0),
    ] {
        machine.feed(input).unwrap();
    }
    machine
}

fn blocked() -> Machine {
    let mut machine = sent(vec![sends("a")]);
    machine
        .feed(mirror(
            "t1",
            4,
            vec![News::Works, awaits("x", false), awaits("y", true), asks()],
        ))
        .unwrap();
    machine
}

#[track_caller]
pub(super) fn check(mut machine: Machine, inputs: Vec<Input>, log: &str, phase: &str) -> Machine {
    machine.log.clear();
    for input in inputs {
        machine.feed(input).unwrap();
    }
    assert_eq!(
        (machine.shorthand().as_str(), machine.phase().as_str()),
        (log, phase)
    );
    machine
}

#[test]
fn a_message_to_a_thread_and_its_answer() {
    let machine = check(
        sent(vec![sends("a")]),
        vec![
            // Carried out again, it is not sent again.
            dispatch("a", "t1", None, 0),
            mirror("t1", 2, vec![News::Works]),
            finish("a", 9),
            begin("r2"),
            reply("r2", vec![text("x")]),
        ],
        "run:t1 from:t1 idle:t1:end result:a (r2 says:x ) IDLE:end",
        "idle:end",
    );
    let known = &machine.state.threads[&thread("t1")];
    assert_eq!(
        (known.errand.as_ref(), known.seen, known.works),
        (None, Seq(9), false)
    );
    // What it consumed counts, once.
    assert_eq!(machine.state.total().usage.total(), 15 + 15 + 100);
    assert_eq!(machine.state.delegated.opened[&thread("t1")].share, None);
    assert_eq!(machine.state.threads_active_ms(), 5);
}

#[test]
fn what_was_entered_is_not_entered_again() {
    let mut machine = sent(vec![sends("a")]);
    machine.feed(mirror("t1", 2, vec![News::Works])).unwrap();
    let before = machine.clone();
    assert_eq!(
        machine.feed(mirror("t1", 2, vec![News::Works])),
        Err(Rejection::Stale)
    );
    assert_eq!(
        machine.feed(mirror("t2", 2, vec![News::Works])),
        Err(Rejection::Stale)
    );
    assert_eq!((machine.state, machine.log), (before.state, before.log));
}

#[test]
fn a_thread_that_waits_for_clients_blocks_the_session_until_all_have_answered() {
    let machine = blocked();
    assert!(
        machine.shorthand().ends_with(
            "new:t1 to:t1 run:t1 shows:e6:t1:x shows:e7:t1:y idle:t1:asks(e6,e7) IDLE:asks(e6,e7)"
        ),
        "{}",
        machine.shorthand()
    );
    assert_eq!(machine.phase(), "blocked");
    // Under the thread's own id, or the one that is shown.
    let machine = check(machine, vec![answer("y")], "answer:e7 IDLE:asks(e6)", "blocked");
    let machine = check(machine, vec![confirm("e6", true)], "e6=true RUN", "acting:1");
    let orders = &machine.state.threads[&thread("t1")].orders;
    let meant = |order: &Order| match order {
        Order::Confirm { tool_use, .. } | Order::Answer { tool_use, .. } => tool_use.to_string(),
        Order::Interrupt => "interrupt".to_owned(),
    };
    assert_eq!(orders.iter().map(meant).collect::<Vec<_>>(), ["y", "x"]);
    // The second answer comes too late; what is told is forgotten; the thread goes on.
    let mut machine = machine;
    assert_eq!(machine.feed(answer("y")), Err(Rejection::NotAwaited));
    let delivered = Input::Delivered {
        thread: thread("t1"),
        count: 2,
    };
    let machine = check(
        machine,
        vec![delivered, mirror("t1", 7, vec![News::Works]), finish("a", 9)],
        "run:t1 from:t1 idle:t1:end result:a",
        "ready",
    );
    assert!(machine.state.threads[&thread("t1")].orders.is_empty());
}

#[test]
fn a_system_message_goes_to_the_thread_that_the_answer_goes_to() {
    let accompanied = match answer("y") {
        Input::Answer {
            id: event,
            tool_use,
            outcome,
            remote,
            ..
        } => Input::Answer {
            id: event,
            tool_use,
            outcome,
            remote,
            system: Some(SystemNote {
                id: id("s"),
                content: vec![ContentBlock::text("be brief")],
            }),
        },
        other => other,
    };
    let machine = check(
        blocked(),
        vec![accompanied],
        "answer:e7 system:s IDLE:asks(e6)",
        "blocked",
    );
    let entered = machine.log.iter().any(
        |event| matches!(&event.body, Body::SystemMessage { thread: Some(to), .. } if *to == thread("t1")),
    );
    assert!(entered, "{:?}", machine.log);
    let orders = &machine.state.threads[&thread("t1")].orders;
    let told = |order: &Order| matches!(order, Order::Answer { system: Some(content), .. } if joined_text(content) == "be brief");
    assert!(orders.iter().all(told), "{orders:?}");
}

#[test]
fn answers_may_come_before_the_thread_waits() {
    let mut machine = sent(vec![sends("a")]);
    machine
        .feed(mirror("t1", 3, vec![News::Works, awaits("y", true)]))
        .unwrap();
    let machine = check(machine, vec![answer("y")], "answer:e6", "acting:1");
    // It had not been told yet when it came to rest: it is about to go on.
    check(machine, vec![mirror("t1", 4, vec![asks()])], "", "acting:1");
}

#[test]
fn the_wrong_kind_of_answer_is_refused() {
    let mut machine = blocked();
    assert_eq!(machine.feed(answer("x")), Err(Rejection::NotAwaited));
    assert_eq!(machine.feed(confirm("y", true)), Err(Rejection::NotAsking));
    assert_eq!(machine.feed(confirm("z", true)), Err(Rejection::NotAsking));
}

#[test]
fn one_thread_goes_on_while_the_session_still_asks_for_another_tool() {
    let mut machine = sent(vec![
        sends("a"),
        tool("b", Permission::Ask),
        tool("c", Permission::Ask),
    ]);
    machine
        .feed(mirror("t1", 4, vec![News::Works, awaits("y", true), asks()]))
        .unwrap();
    assert!(
        machine.shorthand().ends_with("IDLE:asks(e6,b,c)"),
        "{}",
        machine.shorthand()
    );
    let machine = check(
        machine,
        vec![confirm("c", true), answer("y"), done("c")],
        "c=true IDLE:asks(e6,b) answer:e6 RUN result:c",
        "acting:2",
    );
    check(
        machine,
        vec![finish("a", 9)],
        "from:t1 idle:t1:end result:a IDLE:asks(b)",
        "blocked",
    );
}

#[test]
fn an_interrupt_stops_the_threads_too() {
    check(
        blocked(),
        vec![interrupt(true)],
        "error:a interrupt idle:t1:interrupted IDLE:interrupted",
        "idle:interrupted",
    );
    let machine = check(
        sent(vec![sends("a")]),
        vec![mirror("t1", 2, vec![News::Works]), interrupt(false)],
        "run:t1 error:a interrupt idle:t1:interrupted IDLE:interrupted",
        "idle:interrupted",
    );
    // It takes further messages.
    let known = Some((None, standing(1, 0)));
    let mut machine = machine;
    let counted = Input::GiveBack {
        child: thread("t1"),
        standing: known.as_ref().map(|(_, standing)| *standing),
    };
    for input in [counted, post("m2"), begin("r2"), reply("r2", vec![sends("b")])] {
        machine.feed(input).unwrap();
    }
    let machine = check(machine, vec![dispatch("b", "t1", known, 7)], "to:t1", "acting:1");
    assert_eq!(machine.state.threads[&thread("t1")].seen, Seq(7));
}

#[test]
fn one_thread_is_interrupted() {
    let stop = |name: &str| Input::InterruptThread {
        id: id("stop"),
        thread: thread(name),
    };
    let machine = check(
        blocked(),
        vec![stop("t1"), stop("t1")],
        "interrupt:t1 RUN",
        "acting:1",
    );
    assert_eq!(machine.state.threads[&thread("t1")].orders, [Order::Interrupt]);
    let mut machine = check(
        machine,
        vec![finish("a", 9)],
        "from:t1 idle:t1:end result:a",
        "ready",
    );
    // At rest it stays as it is.
    check(machine.clone(), vec![stop("t1")], "", "ready");
    assert_eq!(machine.feed(stop("t2")), Err(Rejection::NoThread));
}

#[test]
fn a_thread_is_archived_unless_it_works() {
    let archive = || Input::ArchiveThread { thread: thread("t1") };
    let close = || Input::CloseThread { thread: thread("t1") };
    let mut machine = sent(vec![sends("a")]);
    assert_eq!(machine.feed(archive()), Err(Rejection::Busy));
    assert_eq!(machine.feed(close()), Err(Rejection::Stale));
    let machine = check(
        machine,
        vec![finish("a", 9), archive(), archive()],
        "from:t1 idle:t1:end result:a over:t1",
        "ready",
    );
    assert!(machine.state.has_threads_to_close());
    let machine = check(machine, vec![close()], "", "ready");
    assert!(machine.state.threads.is_empty() && machine.state.delegated.opened.is_empty());
    // What it worked still counts.
    assert_eq!(machine.state.threads_active_ms(), 5);
    // One that waits for clients gives its coordinator no answer.
    check(blocked(), vec![archive()], "over:t1 RUN error:a", "ready");
    // With the session, all are.
    check(
        blocked(),
        vec![Input::Archive],
        "error:a idle:t1:interrupted IDLE:interrupted over:t1 OVER",
        "idle:interrupted",
    );
}

#[test]
fn threads_are_bounded_in_number_and_by_what_is_left() {
    let names: Vec<String> = (0..=MAX_THREADS).map(|number| format!("s{number}")).collect();
    let mut machine = Machine::default();
    let blocks = names.iter().map(|name| sends(name)).collect();
    for input in [post("m1"), begin("r1"), reply("r1", blocks)] {
        machine.feed(input).unwrap();
    }
    for name in &names[..MAX_THREADS] {
        machine
            .feed(dispatch(name, &format!("t-{name}"), None, 0))
            .unwrap();
    }
    let last = &names[MAX_THREADS];
    assert_eq!(
        machine.feed(dispatch(last, "t-last", None, 0)),
        Err(Rejection::TooManyThreads)
    );
    // Agents that are defined on the fly take places as others do.
    let defined = dispatch_to(AgentId::of_inline(), (last, "t-last"), None, 0);
    assert_eq!(machine.feed(defined), Err(Rejection::TooManyThreads));
    // One message at a time.
    assert_eq!(
        machine.feed(dispatch(last, "t-s0", None, 0)),
        Err(Rejection::Busy)
    );

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
        reply("r1", vec![sends("a"), calls("b", CREATE_AGENT)]),
        dispatch("a", "t1", None, 0),
        dispatch_to(AgentId::of_inline(), ("b", "t2"), None, 0),
    ] {
        machine.feed(input).unwrap();
    }
    // A part for each that is asked, and one for the coordinator.
    let share = |name: &str| {
        machine.state.delegated.opened[&thread(name)]
            .share
            .unwrap()
            .max_tokens
    };
    assert_eq!((share("t1"), share("t2")), (Some(10_000), Some(10_000)));
}

#[test]
fn a_thread_reports_to_its_coordinator() {
    let from = Some(crate::event::ThreadRef {
        thread: thread("ses_lead"),
        agent_name: "lead".into(),
    });
    let message = |name: &str| {
        Input::Post(Arc::new(Queued {
            id: id(name),
            content: vec![ContentBlock::text(name)],
            model: None,
            thinking_level: None,
            trace: None,
            charged: None,
            from: from.clone(),
            system: None,
        }))
    };
    let said = |machine: &Machine| {
        machine.log.iter().rev().find_map(|event| match &event.body {
            Body::ThreadMessageSent { content, .. } => Some(crate::content::joined_text(content)),
            _ => None,
        })
    };
    let machine = check(
        Machine::default(),
        vec![message("m1"), begin("r1"), reply("r1", vec![text("x")])],
        "RUN user:m1 (r1 says:x ) to:ses_lead IDLE:end",
        "idle:end",
    );
    assert_eq!(said(&machine).as_deref(), Some("x"));
    // What was said in an earlier turn is no answer.
    let machine = check(
        machine,
        vec![message("m2"), begin("r2"), reply("r2", vec![])],
        "RUN user:m2 (r2 ) to:ses_lead IDLE:end",
        "idle:end",
    );
    assert_eq!(said(&machine).as_deref(), Some(""));
    check(
        machine,
        vec![message("m3"), begin("r3"), fail("r3", false)],
        "RUN user:m3 (r3 !) failed IDLE:failed",
        "idle:failed",
    );
}
