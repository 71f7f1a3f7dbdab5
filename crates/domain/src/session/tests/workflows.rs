//! Workflow runs: each row is what happens, the log that it leads to, and the phase afterwards.

use std::collections::HashMap;

use proptest::prelude::*;

use super::threads::{check, mirror};
use super::*;
use crate::id::{AgentId, SessionId, WorkflowRunId};
use crate::workflow::{Call, Ending, Error, ErrorKind, LIFETIME_MS, MAX_AT_ONCE, MAX_RUNS, RUN_WORKFLOW};
use crate::workflow::{Phase as Part, Status};

fn runs(name: &str) -> ReplyBlock {
    ReplyBlock::ToolUse {
        id: id(name),
        name: RUN_WORKFLOW.into(),
        input: serde_json::json!({}),
        call_id: name.into(),
        permission: Permission::Allow,
        custom: false,
        remote: false,
        origin: Origin::default(),
        opaque: None,
    }
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
        standing: Some(Standing {
            turns: 1,
            spent: Spending {
                usage: Usage {
                    input: 100,
                    ..Usage::default()
                },
                ..Spending::default()
            },
        }),
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
    let messages = ReplyBlock::ToolUse {
        id: id("b"),
        name: crate::multiagent::SEND_TO_AGENT.into(),
        input: serde_json::json!({}),
        call_id: "b".into(),
        permission: Permission::Allow,
        custom: false,
        remote: false,
        origin: Origin::default(),
        opaque: None,
    };
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
        known: Some((
            None,
            Standing {
                turns: 1,
                spent: Spending::default(),
            },
        )),
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
        standing: Some(Standing {
            turns: 1,
            spent: Spending::default(),
        }),
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

/// A step of a random run of runs.
#[derive(Debug, Clone)]
enum Move {
    Advance { marks: Vec<u32>, more: u32 },
    Begin,
    Refuse,
    Works { nth: u32 },
    Waits { nth: u32 },
    Answer { nth: usize },
    Delivered { nth: u32 },
    Finish { nth: u32 },
    Archive { nth: u32 },
    End { fails: bool },
    Other,
    Lapse,
    Interrupt,
    FailTurn,
}

fn moves() -> impl Strategy<Value = Vec<(bool, Move)>> {
    let one = prop_oneof![
        4 => (prop::collection::vec(0..2u32, 0..4), 0..3u32).prop_map(|(marks, more)| Move::Advance { marks, more }),
        6 => Just(Move::Begin),
        1 => Just(Move::Refuse),
        4 => (0..6u32).prop_map(|nth| Move::Works { nth }),
        5 => (0..6u32).prop_map(|nth| Move::Waits { nth }),
        4 => (0..6usize).prop_map(|nth| Move::Answer { nth }),
        3 => (0..6u32).prop_map(|nth| Move::Delivered { nth }),
        4 => (0..6u32).prop_map(|nth| Move::Finish { nth }),
        1 => (0..6u32).prop_map(|nth| Move::Archive { nth }),
        1 => any::<bool>().prop_map(|fails| Move::End { fails }),
        1 => Just(Move::Other),
        1 => Just(Move::Lapse),
        1 => prop_oneof![Just(Move::Interrupt), Just(Move::FailTurn)],
    ];
    prop::collection::vec((any::<bool>(), one), 0..60)
}

fn input(machine: &Machine, (second, step): (bool, Move), n: u64) -> Input {
    let tool = if second { "b" } else { "a" };
    let run = machine.state.runs.get(&run_of(tool));
    let (begun, asked) = run.map_or((0, 0), |run| (run.begun, run.asked));
    let through = 10 + n;
    match step {
        Move::Advance { marks, more } => advance(tool, &marks, asked + more),
        Move::Begin => begin_call(tool, begun),
        Move::Refuse => Input::RefuseCall {
            call: call(tool, begun),
            text: "no".into(),
        },
        Move::Works { nth } => works(tool, nth, through),
        Move::Waits { nth } => waits(tool, nth, &format!("w{n}"), through),
        Move::Answer { nth } => {
            let awaited = machine.state.threads.values().flat_map(|thread| &thread.awaited);
            let awaited: Vec<&EventId> = awaited.map(|awaited| &awaited.id).collect();
            let chosen = awaited.get(nth % awaited.len().max(1));
            answer(chosen.map_or("nothing", |id| id.as_str()))
        }
        Move::Delivered { nth } => Input::Delivered {
            thread: SessionId::of_call(&call(tool, nth)),
            count: 9,
        },
        Move::Finish { nth } => finish_call(tool, nth, through),
        Move::Archive { nth } => Input::ArchiveThread {
            thread: SessionId::of_call(&call(tool, nth)),
        },
        Move::End { fails: false } => end_run(tool, Ending::Completed),
        Move::End { fails: true } => {
            let error = Error {
                kind: ErrorKind::Timeout,
                message: "late".into(),
            };
            end_run(tool, Ending::Error { error })
        }
        Move::Other => done("c"),
        Move::Lapse => Input::Lapse,
        Move::Interrupt => interrupt(false),
        Move::FailTurn => Input::FailTurn { failure: failure() },
    }
}

/// What the log says of a run so far.
#[derive(Default)]
struct Seen {
    running: bool,
    ended: bool,
    phase: Option<EventId>,
    live: HashMap<SessionId, bool>,
    answered: Vec<u32>,
}

/// The order of a run's events, and that the state says the same.
fn check_order(machine: &Machine) {
    let mut seen: HashMap<WorkflowRunId, Seen> = HashMap::new();
    for event in &machine.log {
        let of_thread = |thread: &SessionId| thread.call().map(|call| call.run);
        match &event.body {
            Body::WorkflowRunCreated { run, .. } => {
                assert!(
                    seen.insert(run.clone(), Seen::default()).is_none(),
                    "created twice"
                );
            }
            Body::WorkflowRunStatus { run, status } => {
                let run = seen.get_mut(run).expect("it was created");
                assert!(!run.ended, "a status after the end");
                match status {
                    Status::Running => assert!(!std::mem::replace(&mut run.running, true), "runs twice"),
                    Status::Idle => assert!(std::mem::replace(&mut run.running, false), "idle twice"),
                    Status::Ended { .. } => {
                        run.ended = true;
                        assert_eq!(run.phase, None, "a phase outlives its run");
                        assert!(run.live.is_empty(), "threads outlive their run");
                    }
                }
            }
            Body::WorkflowPhaseStarted { run, .. } => {
                let run = seen.get_mut(run).expect("it was created");
                assert_eq!(run.phase.replace(event.id.clone()), None, "two phases at once");
            }
            Body::WorkflowPhaseEnded { run, start, .. } => {
                let run = seen.get_mut(run).expect("it was created");
                assert_eq!(run.phase.take().as_ref(), Some(start), "the end of another phase");
            }
            Body::ThreadCreated {
                thread,
                run: Some(run),
                ..
            } => {
                assert_eq!(of_thread(thread).as_ref(), Some(run));
                let run = seen.get_mut(run).expect("it was created");
                assert!(!run.ended, "a thread after the end");
                assert_eq!(run.live.insert(thread.clone(), false), None, "created twice");
            }
            Body::ThreadStatus { thread, status, .. } => {
                let run = seen
                    .get_mut(&of_thread(thread).expect("a run's"))
                    .expect("it was created");
                match status {
                    ThreadStatus::Terminated => {
                        run.live.remove(thread).expect("it was live");
                    }
                    _ => assert!(run.live.contains_key(thread), "a status of one that is over"),
                }
            }
            Body::WorkflowRunAnswer { call, .. } => {
                let run = seen.get_mut(&call.run).expect("it was created");
                assert!(
                    !run.live.contains_key(&SessionId::of_call(call)),
                    "it goes on after its answer"
                );
                assert!(!run.answered.contains(&call.index), "answered twice");
                run.answered.push(call.index);
            }
            Body::AgentToolResult { tool_use, .. } if *tool_use != id("c") => {
                let of_interrupt = !machine.state.is_running();
                let run = &seen[&WorkflowRunId::of(tool_use)];
                assert!(run.ended || of_interrupt, "a result before the end");
            }
            _ => {}
        }
    }
    for (id, run) in &seen {
        assert_eq!(run.ended, !machine.state.runs.contains_key(id), "{id}");
        let live = machine.state.calls_of(id).count();
        assert_eq!(run.live.len(), live, "{id}");
        if let Some(known) = machine.state.runs.get(id) {
            let tool = machine
                .state
                .open_tools()
                .iter()
                .find(|tool| tool.id == known.tool_use);
            let tool = tool.expect("a run's tool use is open");
            assert_eq!(run.running, tool.gate == Gate::Open, "{id}");
            assert_eq!(run.answered.len() + live, known.begun as usize, "{id}");
        }
    }
}

proptest! {
    #[test]
    fn events_of_runs_have_their_order(steps in moves()) {
        let mut machine = Machine::default();
        let blocks = vec![runs("a"), runs("b"), tool("c", Permission::Allow)];
        for input in [post("m1"), begin("r1"), reply("r1", blocks), begin_run("a"), begin_run("b")] {
            machine.feed(input).unwrap();
        }
        for (n, step) in (0..).zip(steps) {
            let input = input(&machine, step, n);
            let _rejected = machine.feed(input);
            check_order(&machine);
        }
        // Nobody waits for what can't come: a blocked turn waits for clients, and they can answer.
        if matches!(machine.state.phase, Phase::Blocked { .. }) {
            prop_assert!(!machine.state.awaited().is_empty());
        }
        let _idle = machine.feed(interrupt(true));
        check_order(&machine);
        prop_assert!(machine.state.runs.is_empty());
    }
}
