//! The order of a run's events, over random runs of runs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

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
