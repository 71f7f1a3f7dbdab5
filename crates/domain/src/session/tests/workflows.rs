//! Workflow runs: each row is what happens, the log that it leads to, and the phase afterwards.

mod order;

use super::threads::{check, mirror};
use super::*;
use crate::id::{AgentId, SessionId, WorkflowRunId};
use crate::workflow::{Call, Ending, Error, ErrorKind, LIFETIME_MS, MAX_AT_ONCE, MAX_RUNS, RUN_WORKFLOW};
use crate::workflow::{Phase as Part, Status};

fn runs(name: &str) -> ReplyBlock {
    calls(name, RUN_WORKFLOW)
}

fn run_of(tool: &str) -> WorkflowRunId {
    WorkflowRunId::of(&id(tool))
}

fn call(tool: &str, index: u32) -> Call {
    Call {
        run: run_of(tool),
        index,
    }
}

fn thread_of(tool: &str, index: u32) -> String {
    SessionId::of_call(&call(tool, index)).to_string()
}

fn begin_run(tool: &str) -> Input {
    let part = |name: &str| Part {
        name: name.into(),
        description: None,
    };
    Input::BeginRun {
        tool_use: id(tool),
        name: "n".into(),
        description: None,
        phases: vec![part("one"), part("two")],
    }
}

fn advance(tool: &str, marks: &[u32], asked: u32) -> Input {
    Input::AdvanceRun {
        run: run_of(tool),
        marks: marks.to_vec(),
        asked,
    }
}

fn begin_call(tool: &str, index: u32) -> Input {
    Input::BeginCall(BeginCall {
        call: call(tool, index),
        agent: AgentId::parse("agt_1").unwrap(),
        agent_name: "worker".into(),
    })
}

fn works(tool: &str, index: u32, through: u64) -> Input {
    mirror(&thread_of(tool, index), through, vec![News::Works])
}

/// A call that waits for a client to carry out a tool of this name.
fn waits(tool: &str, index: u32, name: &str, through: u64) -> Input {
    let awaits = News::Awaits {
        tool_use: id(name),
        name: "ticket".into(),
        input: serde_json::json!({}),
        custom: true,
        origin: None,
    };
    let stop = StopReason::RequiresAction {
        tool_uses: vec![id(name)],
    };
    mirror(
        &thread_of(tool, index),
        through,
        vec![awaits, News::Rests { stop }],
    )
}

fn finish_call(tool: &str, index: u32, through: u64) -> Input {
    let stop = StopReason::EndTurn;
    let content = vec![ContentBlock::text("done")];
    Input::FinishCall {
        call: call(tool, index),
        ok: true,
        text: "done".into(),
        through: Seq(through),
        news: vec![News::Says { content }, News::Rests { stop }],
        standing: Some(standing(1, 100)),
        active_ms: 5,
    }
}

fn end_run(tool: &str, result: Ending) -> Input {
    let outcome = match &result {
        Ending::Completed => Outcome::text("result"),
        _ => Outcome::error("no"),
    };
    Input::EndRun {
        run: run_of(tool),
        result,
        outcome,
    }
}

fn close(tool: &str, index: u32) -> Input {
    Input::CloseThread {
        thread: SessionId::of_call(&call(tool, index)),
    }
}

/// A session whose tool uses of these names have begun runs.
fn begun(tools: &[&str]) -> Machine {
    let mut machine = Machine::default();
    let blocks = tools.iter().map(|tool| runs(tool)).collect();
    for input in [post("m1"), begin("r1"), reply("r1", blocks)] {
        machine.feed(input).unwrap();
    }
    for tool in tools {
        machine.feed(begin_run(tool)).unwrap();
    }
    machine
}

/// A run with two calls under way.
fn called() -> Machine {
    let mut machine = begun(&["a"]);
    for input in [
        advance("a", &[0], 2),
        begin_call("a", 0),
        begin_call("a", 1),
        works("a", 0, 2),
        works("a", 1, 2),
    ] {
        machine.feed(input).unwrap();
    }
    machine
}

#[test]
fn a_run_from_its_beginning_to_its_end() {
    let mut machine = Machine::default();
    for input in [post("m1"), begin("r1"), reply("r1", vec![runs("a")])] {
        machine.feed(input).unwrap();
    }
    let machine = check(
        machine,
        vec![
            begin_run("a"),
            // Carried out again, nothing is begun again.
            begin_run("a"),
            advance("a", &[0], 1),
            advance("a", &[0], 1),
            begin_call("a", 0),
            begin_call("a", 0),
            works("a", 0, 2),
            finish_call("a", 0, 9),
            advance("a", &[0, 1], 2),
            begin_call("a", 1),
            finish_call("a", 1, 4),
            end_run("a", Ending::Completed),
        ],
        "flow:a flow-runs:a one>a new:ses_a_w0 run:ses_a_w0 idle:ses_a_w0:end over:ses_a_w0 a0=true <a two>a \
         new:ses_a_w1 idle:ses_a_w1:end over:ses_a_w1 a1=true <a flow-completed:a result:a",
        "ready",
    );
    // What its calls consumed counts, also when nothing is known of them any more.
    let machine = check(
        machine,
        vec![
            close("a", 0),
            close("a", 1),
            begin("r2"),
            reply("r2", vec![text("x")]),
        ],
        "(r2 says:x ) IDLE:end",
        "idle:end",
    );
    assert_eq!(machine.state.total().usage.total(), 15 + 15 + 200);
    assert_eq!(machine.state.threads_active_ms(), 10);
    let state = &machine.state;
    assert!(state.runs.is_empty() && state.threads.is_empty() && state.delegated.opened.is_empty());
}

#[test]
fn calls_begin_in_order_and_within_bounds() {
    let mut machine = begun(&["a"]);
    assert_eq!(machine.feed(begin_call("a", 0)), Err(Rejection::Stale));
    machine.feed(advance("a", &[], 70)).unwrap();
    assert_eq!(machine.feed(begin_call("a", 1)), Err(Rejection::Stale));
    for index in 0..MAX_AT_ONCE as u32 {
        machine.feed(begin_call("a", index)).unwrap();
    }
    assert_eq!(machine.feed(begin_call("a", 64)), Err(Rejection::Busy));
    machine.feed(finish_call("a", 3, 9)).unwrap();
    machine.feed(begin_call("a", 64)).unwrap();
    assert_eq!(machine.feed(finish_call("a", 3, 9)), Err(Rejection::Stale));
    // Those that messages go to have a bound of their own.
    assert_eq!(machine.state.threads.len(), MAX_AT_ONCE + 1);
    assert_eq!(machine.feed(begin_call("b", 0)), Err(Rejection::Stale));
}

#[test]
fn no_message_goes_to_the_thread_of_a_call() {
    let mut machine = Machine::default();
    let messages = calls("b", crate::multiagent::SEND_TO_AGENT);
    for input in [
        post("m1"),
        begin("r1"),
        reply("r1", vec![runs("a"), messages]),
        begin_run("a"),
        advance("a", &[], 1),
        begin_call("a", 0),
        waits("a", 0, "x", 4),
    ] {
        machine.feed(input).unwrap();
    }
    let archived = Input::ArchiveThread {
        thread: SessionId::of_call(&call("a", 0)),
    };
    machine.feed(archived).unwrap();
    let dispatch = Dispatch {
        tool_use: id("b"),
        thread: SessionId::of_call(&call("a", 0)),
        agent: AgentId::parse("agt_1").unwrap(),
        agent_name: "worker".into(),
        content: Vec::new(),
        head: Seq(0),
        known: Some((None, standing(1, 0))),
    };
    assert_eq!(
        machine.feed(Input::Send(Box::new(dispatch))),
        Err(Rejection::Stale)
    );
}

#[test]
fn a_session_has_so_many_runs_at_once() {
    let names: Vec<String> = (0..=MAX_RUNS).map(|n| format!("t{n}")).collect();
    let mut machine = Machine::default();
    let blocks = names.iter().map(|name| runs(name)).collect();
    for input in [post("m1"), begin("r1"), reply("r1", blocks)] {
        machine.feed(input).unwrap();
    }
    let refuse = |name: &str| Input::RefuseRun { tool_use: id(name) };
    assert_eq!(machine.feed(refuse("t0")), Err(Rejection::Stale));
    for name in &names[..MAX_RUNS] {
        machine.feed(begin_run(name)).unwrap();
    }
    assert_eq!(
        machine.feed(begin_run(&names[MAX_RUNS])),
        Err(Rejection::TooManyRuns)
    );
    check(
        machine,
        vec![refuse(&names[MAX_RUNS])],
        "flow-error:max_workflow_runs_error error:t10",
        "acting:10",
    );
}

#[test]
fn a_run_is_idle_when_all_that_it_waits_for_waits_for_clients() {
    let machine = check(
        called(),
        vec![waits("a", 0, "x", 4)],
        "shows:e10:ses_a_w0:x idle:ses_a_w0:asks(e10)",
        "acting:1",
    );
    let machine = check(
        machine,
        vec![waits("a", 1, "y", 4)],
        "shows:e12:ses_a_w1:y idle:ses_a_w1:asks(e12) flow-idle:a IDLE:asks(e10,e12)",
        "blocked",
    );
    // One that can go on is enough.
    let machine = check(
        machine,
        vec![answer("y")],
        "answer:e12 RUN flow-runs:a",
        "acting:1",
    );
    let delivered = Input::Delivered {
        thread: SessionId::of_call(&call("a", 1)),
        count: 1,
    };
    let machine = check(
        machine,
        vec![delivered, works("a", 1, 5), finish_call("a", 1, 9)],
        "run:ses_a_w1 idle:ses_a_w1:end over:ses_a_w1 a1=true flow-idle:a IDLE:asks(e10)",
        "blocked",
    );
    let machine = check(
        machine,
        vec![answer("x")],
        "answer:e10 RUN flow-runs:a",
        "acting:1",
    );
    check(
        machine,
        vec![finish_call("a", 0, 9), end_run("a", Ending::Completed)],
        "idle:ses_a_w0:end over:ses_a_w0 a0=true <a flow-completed:a result:a",
        "ready",
    );
}

#[test]
fn a_run_is_not_idle_while_another_call_can_begin() {
    let mut machine = begun(&["a"]);
    for input in [advance("a", &[], 2), begin_call("a", 0)] {
        machine.feed(input).unwrap();
    }
    let machine = check(
        machine,
        vec![waits("a", 0, "x", 4)],
        "shows:e6:ses_a_w0:x idle:ses_a_w0:asks(e6)",
        "acting:1",
    );
    let refuse = Input::RefuseCall {
        call: call("a", 1),
        text: "no".into(),
    };
    check(
        machine,
        vec![refuse],
        "a1=false flow-idle:a IDLE:asks(e6)",
        "blocked",
    );
}

#[test]
fn an_interrupt_stops_runs() {
    check(
        called(),
        vec![interrupt(true)],
        "error:a interrupt idle:ses_a_w0:interrupted over:ses_a_w0 idle:ses_a_w1:interrupted over:ses_a_w1 <a \
         flow-stopped:a IDLE:interrupted",
        "idle:interrupted",
    );
    let mut machine = called();
    machine.feed(interrupt(true)).unwrap();
    // What nobody asks for any more is forgotten, whichever of the two comes first.
    let counted = |index: u32| Input::GiveBack {
        child: SessionId::of_call(&call("a", index)),
        standing: Some(standing(1, 0)),
    };
    for input in [close("a", 0), counted(0), counted(1), close("a", 1)] {
        machine.feed(input).unwrap();
    }
    let state = &machine.state;
    assert!(state.runs.is_empty() && state.threads.is_empty() && state.delegated.opened.is_empty());
}

#[test]
fn a_turn_that_fails_ends_its_runs() {
    check(
        begun(&["a", "b"]),
        vec![Input::FailTurn { failure: failure() }],
        "error:a error:b flow-error:unknown_error flow-failed:a flow-error:unknown_error flow-failed:b failed \
         IDLE:failed",
        "idle:failed",
    );
}

#[test]
fn a_run_that_fails_says_why() {
    let error = Error {
        kind: ErrorKind::Program,
        message: "no such phase".into(),
    };
    check(
        called(),
        vec![end_run("a", Ending::Error { error })],
        "idle:ses_a_w0:interrupted over:ses_a_w0 idle:ses_a_w1:interrupted over:ses_a_w1 <a \
         flow-error:program_error flow-failed:a error:a",
        "ready",
    );
}

#[test]
fn a_run_that_waits_for_clients_has_its_time() {
    let mut machine = called();
    for input in [waits("a", 0, "x", 4), waits("a", 1, "y", 4)] {
        machine.feed(input).unwrap();
    }
    let deadline = Timestamp(1000 + i64::try_from(LIFETIME_MS).unwrap());
    assert_eq!(machine.state.deadline(), Some(deadline));
    assert_eq!(machine.feed(Input::Lapse), Err(Rejection::Stale));
    machine.passed = i64::try_from(LIFETIME_MS).unwrap();
    let machine = check(machine, vec![Input::Lapse], "RUN flow-runs:a", "acting:1");
    assert_eq!(machine.state.deadline(), None);
}

#[test]
fn a_client_archives_the_thread_of_a_call() {
    let archive = |index: u32| Input::ArchiveThread {
        thread: SessionId::of_call(&call("a", index)),
    };
    let mut machine = called();
    assert_eq!(machine.feed(archive(0)), Err(Rejection::Busy));
    for input in [waits("a", 0, "x", 4), waits("a", 1, "y", 4)] {
        machine.feed(input).unwrap();
    }
    assert_eq!(machine.feed(Input::Archive), Err(Rejection::RunOpen));
    let machine = check(
        machine,
        vec![archive(0)],
        "over:ses_a_w0 a0=false IDLE:asks(e12)",
        "blocked",
    );
    // With the last one its program has all that it waited for.
    let machine = check(
        machine,
        vec![archive(1)],
        "over:ses_a_w1 a1=false RUN flow-runs:a",
        "acting:1",
    );
    check(
        machine,
        vec![end_run("a", Ending::Completed)],
        "<a flow-completed:a result:a",
        "ready",
    );
}

#[test]
fn long_answers_are_cut() {
    let mut machine = begun(&["a"]);
    machine.feed(advance("a", &[], 1)).unwrap();
    let refuse = Input::RefuseCall {
        call: call("a", 0),
        text: "ä".repeat(100_000),
    };
    machine.feed(refuse).unwrap();
    let Body::WorkflowRunAnswer { text, .. } = &machine.log.last().unwrap().body else {
        panic!("an answer");
    };
    assert!(
        text.len() <= crate::workflow::MAX_ANSWER && text.ends_with("[cut: the answer has 200000 bytes]")
    );
}
