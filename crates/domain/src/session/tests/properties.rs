//! Whatever happens, in whatever order: the invariants hold over the log.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A step of a random run; what it refers to is chosen from what is open then, or invented.
#[derive(Debug, Clone)]
enum Move {
    Post,
    Begin,
    Reply { tools: Vec<Permission> },
    Fail { retry: bool },
    Tool { nth: usize },
    Confirm { nth: usize, allow: bool },
    Lapse,
    Interrupt { clear_queue: bool },
    Compact,
    Summary,
    FailTurn,
    Restart,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let permission = prop_oneof![
        Just(Permission::Allow),
        Just(Permission::Ask),
        Just(Permission::Deny)
    ];
    let one = prop_oneof![
        3 => Just(Move::Post),
        6 => Just(Move::Begin),
        6 => prop::collection::vec(permission, 0..4).prop_map(|tools| Move::Reply { tools }),
        2 => any::<bool>().prop_map(|retry| Move::Fail { retry }),
        6 => (0..4usize).prop_map(|nth| Move::Tool { nth }),
        4 => (0..4usize, any::<bool>()).prop_map(|(nth, allow)| Move::Confirm { nth, allow }),
        1 => Just(Move::Lapse),
        1 => any::<bool>().prop_map(|clear_queue| Move::Interrupt { clear_queue }),
        1 => Just(Move::Compact),
        1 => Just(Move::Summary),
        1 => Just(Move::FailTurn),
        2 => Just(Move::Restart),
    ];
    prop::collection::vec(one, 0..80)
}

fn input(machine: &Machine, step: Move, n: usize) -> Input {
    let request = match machine.state.turn().map(|turn| &turn.step) {
        Some(Step::Sampling { request, .. }) => request.to_string(),
        _ => "nothing".to_owned(),
    };
    let open = machine.state.open_tools();
    let tool_at = |nth: usize| match open.get(nth % open.len().max(1)) {
        Some(tool) => tool.id.to_string(),
        None => "nothing".to_owned(),
    };
    match step {
        Move::Post => post(&format!("m{n}")),
        Move::Begin => begin(&format!("r{n}")),
        Move::Reply { tools } => {
            let uses = tools
                .into_iter()
                .enumerate()
                .map(|(i, permission)| tool(&format!("u{n}-{i}"), permission));
            reply(
                &request,
                std::iter::once(text(&format!("t{n}"))).chain(uses).collect(),
            )
        }
        Move::Fail { retry } => fail(&request, retry),
        Move::Tool { nth } => done(&tool_at(nth)),
        Move::Confirm { nth, allow } => confirm(&tool_at(nth), allow),
        Move::Lapse => Input::Lapse,
        Move::Interrupt { clear_queue } => interrupt(clear_queue),
        Move::Compact => Input::Compact,
        Move::Summary => Input::FinishCompaction {
            request: id(&request),
            summary: "s".into(),
            kept: None,
            usage: Usage::default(),
            cost: None,
        },
        Move::FailTurn => Input::FailTurn { failure: failure() },
        Move::Restart => Input::Wake,
    }
}

/// I2, I4 and I5 over a log, and that requests are framed.
fn check_log(machine: &Machine, accepted: &[EventId]) {
    let mut running = false;
    let mut blocked = false;
    let mut requests = HashSet::new();
    let mut uses: HashMap<EventId, u32> = HashMap::new();
    let mut seen = Vec::new();
    let mut dropped = HashSet::new();
    for event in &machine.log {
        match &event.body {
            Body::StatusRunning => {
                assert!(!running, "running twice");
                running = true;
            }
            Body::StatusIdle { stop_reason } => {
                // A blocked turn is idle already; what it still asks for, or its end, is said anew.
                assert!(running || blocked, "idle twice");
                blocked = matches!(stop_reason, StopReason::RequiresAction { .. });
                running = false;
            }
            Body::ModelRequestStart { .. } => {
                assert!(requests.is_empty(), "two requests at once");
                requests.insert(event.id.clone());
            }
            Body::ModelRequestEnd { request, .. } => assert!(requests.remove(request), "end without start"),
            Body::AgentToolUse { .. } => assert_eq!(uses.insert(event.id.clone(), 0), None),
            Body::AgentToolResult { tool_use, .. } => *uses.get_mut(tool_use).expect("a use") += 1,
            Body::UserMessage { .. } => {
                assert!(
                    requests.is_empty(),
                    "a message inside a reply that did not see it"
                );
                assert!(
                    uses.values().all(|results| *results == 1),
                    "a message among open tool uses"
                );
                seen.push(event.id.clone());
            }
            Body::UserInterrupt { dropped: ids } => dropped.extend(ids.iter().cloned()),
            _ => {}
        }
    }
    let sampling = matches!(
        machine.state.turn().map(|turn| &turn.step),
        Some(Step::Sampling { .. })
    );
    assert_eq!(requests.len(), usize::from(sampling));
    assert_eq!(running, machine.state.is_running());
    let open: HashSet<EventId> = machine
        .state
        .open_tools()
        .iter()
        .map(|tool| tool.id.clone())
        .collect();
    for (id, results) in uses {
        assert_eq!(results, u32::from(!open.contains(&id)), "results of {id}");
    }
    // Every accepted message is in the log, waits, or was dropped by name; once, and in order.
    let waiting = machine.state.queue.iter().map(|message| message.id.clone());
    let kept: Vec<EventId> = seen.into_iter().chain(waiting).collect();
    let expected: Vec<EventId> = accepted
        .iter()
        .filter(|id| !dropped.contains(*id))
        .cloned()
        .collect();
    assert_eq!(kept, expected);
}

proptest! {
    #[test]
    fn invariants_hold(steps in moves()) {
        let mut machine = Machine { confirmation_timeout_ms: Some(5), ..Machine::default() };
        let mut accepted = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            machine.passed += 1;
            let posts = matches!(step, Move::Post);
            let input = input(&machine, step, n);
            if machine.feed(input).is_ok() && posts {
                accepted.push(id(&format!("m{n}")));
            }
            check_log(&machine, &accepted);
        }
    }

    /// From wherever a session is, a runtime that just does its work brings it to rest.
    #[test]
    fn nothing_wedges(steps in moves()) {
        let mut machine = Machine { confirmation_timeout_ms: Some(5), ..Machine::default() };
        for (n, step) in steps.into_iter().enumerate() {
            machine.passed += 1;
            let input = input(&machine, step, n);
            let _rejected = machine.feed(input);
        }
        for n in 1000..4000 {
            let next = match &machine.state.phase {
                Phase::Idle { .. } => break,
                Phase::Blocked { .. } => {
                    let asking = machine.state.open_tools().iter().find(|tool| tool.gate == Gate::Asking);
                    confirm(asking.expect("a blocked turn asks").id.as_str(), n % 2 == 0)
                }
                Phase::Running { turn } => match &turn.step {
                    Step::Ready => begin(&format!("r{n}")),
                    Step::Sampling { request, purpose: Purpose::Reply } if turn.purpose == Purpose::Compaction => {
                        Input::FinishCompaction {
                            request: request.clone(),
                            summary: String::new(),
                            kept: None,
                            usage: Usage::default(),
                            cost: None,
                        }
                    }
                    Step::Sampling { request, .. } => reply(request.as_str(), vec![text(&format!("t{n}"))]),
                    Step::Acting { open } => {
                        done(open.iter().find(|tool| tool.gate == Gate::Open).expect("one runs").id.as_str())
                    }
                },
            };
            machine.feed(next).expect("the plain next step is legal");
        }
        prop_assert!(matches!(machine.state.phase, Phase::Idle { .. }), "not at rest: {}", machine.phase());
    }
}
