//! Whatever happens, in whatever order: the invariants hold over the log.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::outcome::Ending;

/// A step of a random run; what it refers to is chosen from what is open then, or invented.
#[derive(Debug, Clone)]
enum Move {
    Post,
    Begin,
    Reply {
        tools: Vec<(Permission, bool)>,
    },
    Fail {
        retry: bool,
    },
    Tool {
        nth: usize,
    },
    Confirm {
        nth: usize,
        allow: bool,
    },
    Answer {
        nth: usize,
    },
    Lapse,
    Interrupt {
        clear_queue: bool,
    },
    Compact,
    Summary,
    FailTurn,
    Remark,
    Restart,
    Define,
    Verdict(Verdict),
    /// A budget leaves too little for the next request.
    Hold,
    Raise,
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
        6 => prop::collection::vec((permission, prop::bool::weighted(0.3)), 0..4)
            .prop_map(|tools| Move::Reply { tools }),
        2 => any::<bool>().prop_map(|retry| Move::Fail { retry }),
        6 => (0..4usize).prop_map(|nth| Move::Tool { nth }),
        4 => (0..4usize, any::<bool>()).prop_map(|(nth, allow)| Move::Confirm { nth, allow }),
        3 => (0..4usize).prop_map(|nth| Move::Answer { nth }),
        1 => Just(Move::Lapse),
        1 => any::<bool>().prop_map(|clear_queue| Move::Interrupt { clear_queue }),
        1 => Just(Move::Compact),
        1 => Just(Move::Summary),
        1 => Just(Move::FailTurn),
        1 => Just(Move::Remark),
        2 => Just(Move::Restart),
        2 => Just(Move::Define),
        4 => (0..3usize).prop_map(|nth| Move::Verdict(Verdict::ALL[nth])),
        1 => Just(Move::Hold),
        1 => Just(Move::Raise),
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
        Move::Begin | Move::Hold => ask(machine, &format!("r{n}")),
        Move::Reply { tools } => {
            let uses = tools
                .into_iter()
                .enumerate()
                .map(|(i, (permission, by_client))| match by_client {
                    true => custom(&format!("u{n}-{i}")),
                    false => tool(&format!("u{n}-{i}"), permission),
                });
            reply(
                &request,
                std::iter::once(text(&format!("t{n}"))).chain(uses).collect(),
            )
        }
        Move::Fail { retry } => fail(&request, retry),
        Move::Tool { nth } => done(&tool_at(nth)),
        Move::Confirm { nth, allow } => confirm(&tool_at(nth), allow),
        Move::Answer { nth } => answer(&tool_at(nth)),
        Move::Lapse => Input::Lapse,
        Move::Interrupt { clear_queue } => interrupt(clear_queue),
        Move::Compact => Input::Compact { charged: None },
        Move::Summary => Input::FinishCompaction {
            request: id(&request),
            summary: "s".into(),
            kept: None,
            usage: Usage::default(),
            cost: None,
        },
        Move::FailTurn => Input::FailTurn { failure: failure() },
        Move::Remark => Input::Remark { failure: failure() },
        Move::Restart => Input::Wake,
        Move::Define => define(&format!("o{n}")),
        Move::Verdict(given) => verdict(&request, given),
        Move::Raise => budget(Some(1_000_000 + n as u64)),
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
    let mut outcomes: HashMap<OutcomeId, bool> = HashMap::new();
    let mut evaluated: Option<EventId> = None;
    for event in &machine.log {
        match &event.body {
            Body::StatusRunning => {
                assert!(!running, "running twice");
                running = true;
            }
            Body::StatusIdle { stop_reason, .. } => {
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
            Body::AgentToolResult { tool_use, .. } | Body::UserCustomToolResult { tool_use, .. } => {
                *uses.get_mut(tool_use).expect("a use") += 1
            }
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
            Body::UserDefineOutcome { outcome, waits, .. } => {
                assert!(outcomes.values().all(|ended| *ended), "two outcomes at once");
                assert!(*waits || requests.is_empty(), "a definition inside a reply");
                outcomes.insert(outcome.clone(), false);
            }
            Body::OutcomeBegun { .. } => assert!(requests.is_empty(), "a definition inside a reply"),
            Body::OutcomeEvaluationStart { .. } => {
                assert_eq!(
                    evaluated.replace(event.id.clone()),
                    None,
                    "two evaluations at once"
                );
            }
            Body::OutcomeEvaluationEnd {
                start,
                outcome,
                result,
                ..
            } => {
                assert_eq!(evaluated.take(), *start, "the end of another evaluation");
                let ended = outcomes.get_mut(outcome).expect("an outcome");
                assert!(!*ended, "the outcome had ended");
                *ended = *result != Ending::NeedsRevision;
            }
            Body::UserInterrupt { dropped: ids, .. } => dropped.extend(ids.iter().cloned()),
            _ => {}
        }
    }
    let active = outcomes.values().filter(|ended| !**ended).count();
    assert_eq!(
        active,
        usize::from(machine.state.goal.is_some()),
        "outcomes that have not ended"
    );
    let last = machine.state.evaluations.last();
    assert_eq!(last.is_some_and(|last| last.completed_at.is_none()), active == 1);
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

fn machine() -> Machine {
    let mut machine = Machine {
        confirmation_timeout_ms: Some(5),
        ..Machine::default()
    };
    machine.state.budget = Some(NanoUsd(1_000_000));
    machine
}

proptest! {
    #[test]
    fn invariants_hold(steps in moves()) {
        let mut machine = machine();
        let mut accepted = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            machine.passed += 1;
            machine.granted = matches!(step, Move::Hold).then_some(Err(Exceeded::WorkspaceCost));
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
        let mut machine = machine();
        for (n, step) in steps.into_iter().enumerate() {
            machine.passed += 1;
            machine.granted = matches!(step, Move::Hold).then_some(Err(Exceeded::WorkspaceCost));
            let input = input(&machine, step, n);
            let _rejected = machine.feed(input);
        }
        machine.granted = None;
        for n in 1000..4000 {
            let next = match &machine.state.phase {
                Phase::Idle { .. } => break,
                Phase::Blocked { .. } => {
                    let awaited = machine.state.open_tools().iter().find(|tool| tool.gate.awaits_client());
                    let awaited = awaited.expect("a blocked turn waits for somebody");
                    match awaited.gate {
                        Gate::Client => answer(awaited.id.as_str()),
                        _ => confirm(awaited.id.as_str(), n % 2 == 0),
                    }
                }
                Phase::Running { turn } => match &turn.step {
                    Step::Ready => ask(&machine, &format!("r{n}")),
                    Step::Sampling { request, purpose: Purpose::Reply, .. } if turn.purpose == Purpose::Compaction => {
                        Input::FinishCompaction {
                            request: request.clone(),
                            summary: String::new(),
                            kept: None,
                            usage: Usage::default(),
                            cost: None,
                        }
                    }
                    Step::Sampling { request, purpose: Purpose::Evaluation, .. } => {
                        verdict(request.as_str(), Verdict::NeedsRevision)
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

/// A request of a random run against budgets: what it announces, and the part of that which it really takes.
#[derive(Debug, Clone)]
struct Asked {
    input: u64,
    output: u64,
    priced: bool,
    takes: (f64, f64),
    end: End,
}

/// How a request ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Answered,
    /// It failed, and the provider said what it took.
    Failed,
    /// It broke off; whether the provider had said what the input was.
    BrokenOff {
        said_input: bool,
    },
    Cancelled,
    /// The server died meanwhile.
    Crashed,
}

fn asked() -> impl Strategy<Value = Asked> {
    let part = 0.0..=1.0f64;
    let end = prop_oneof![
        4 => Just(End::Answered),
        2 => Just(End::Failed),
        1 => any::<bool>().prop_map(|said_input| End::BrokenOff { said_input }),
        1 => Just(End::Cancelled),
        1 => Just(End::Crashed),
    ];
    let takes = (part.clone(), part);
    (0..4000u64, 0..8000u64, any::<bool>(), takes, end).prop_map(|(input, output, priced, takes, end)| {
        Asked {
            input,
            output,
            priced,
            takes,
            end,
        }
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]
fn part_of(amount: u64, part: f64) -> u64 {
    (amount as f64 * part).floor() as u64
}

proptest! {
    /// As long as no request takes more than it announced and was allowed, no cap is ever passed, whatever is
    /// posted, fails, breaks off or waits. What a crash cut off is the exception: of that answer nobody has seen
    /// anything.
    #[test]
    fn budgets_are_hard(
        requests in prop::collection::vec(asked(), 0..40),
        max_tokens in prop::option::of(1..40_000u64),
        max_cost in prop::option::of(1..40_000u64),
    ) {
        let quota = Quota { max_cost: max_cost.map(NanoUsd), max_tokens, max_wall_ms: None };
        let mut machine = Machine { quota: Some(quota), ..Machine::default() };
        // What is really consumed: a billionth of a dollar for each token.
        let (mut consumed, mut reported) = (0, 0);
        for (n, asked) in requests.into_iter().enumerate() {
            let _refused = machine.feed(post(&format!("m{n}")));
            if !machine.state.is_running() {
                continue;
            }
            let request = format!("r{n}");
            // Without a price a request can't be held to a cap on cost.
            let priced = asked.priced || max_cost.is_some();
            machine.feed(begin_bounded(&request, asked.input, asked.output, priced)).unwrap();
            let Some(Step::Sampling { max_output, .. }) = machine.state.turn().map(|turn| &turn.step) else {
                continue;
            };
            let usage = Usage {
                input: part_of(asked.input, asked.takes.0),
                output: part_of(max_output.unwrap_or(asked.output), asked.takes.1),
                ..Usage::default()
            };
            let cost = |usage: Usage| Some(Cost { amount: NanoUsd(usage.total()), source: "test".into() });
            let fail = |spent| Input::FailRequest { request: id(&request), failure: failure(), spent, retry: true };
            consumed += usage.total();
            let (end, said) = match asked.end {
                End::Answered => {
                    let cost = cost(usage);
                    let reply = Reply { blocks: vec![], model: "p/m".into(), usage, cost, stop: ReplyStop::Done };
                    (Input::FinishRequest { request: id(&request), reply }, usage)
                }
                End::Failed => (fail(Spent::All { usage, cost: cost(usage) }), usage),
                End::BrokenOff { said_input } => {
                    let said = Usage { input: if said_input { usage.input } else { 0 }, ..Usage::default() };
                    let cost = cost(said).filter(|_| said_input);
                    (fail(Spent::AtLeast { usage: said, cost, arrived: usage.output }), said)
                }
                End::Cancelled => {
                    let Input::Interrupt { id, clear_queue, partial, outcomes, delegated, .. } = interrupt(true) else {
                        unreachable!("made so")
                    };
                    let arrived = usage.output;
                    (Input::Interrupt { id, clear_queue, partial, arrived, outcomes, delegated }, Usage::default())
                }
                End::Crashed => {
                    consumed -= usage.output;
                    (Input::Wake, Usage::default())
                }
            };
            reported += said.total();
            machine.feed(end).unwrap();
            prop_assert!(max_tokens.is_none_or(|max| consumed <= max), "{consumed} tokens");
            prop_assert!(max_cost.is_none_or(|max| consumed <= max), "{consumed} nanodollars");
            // Estimates are in no report.
            prop_assert_eq!(machine.state.usage.total(), reported);
            prop_assert_eq!(machine.state.cost.known.0, reported);
        }
    }
}

/// A family: a parent whose children work side by side, each within its share, and are cut off now and then.
#[derive(Debug, Clone)]
struct Round {
    children: Vec<(f64, u32)>,
    own: (f64, f64),
    cancelled: bool,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let part = || 0.0..=1.0f64;
    let round = (
        prop::collection::vec((part(), any::<u32>()), 0..5),
        (part(), part()),
        prop::bool::weighted(0.2),
    );
    let round = round.prop_map(|(children, own, cancelled)| Round {
        children,
        own,
        cancelled,
    });
    prop::collection::vec(round, 0..12)
}

proptest! {
    /// Whatever children do side by side, in whatever order they answer: with their parent they stay within its
    /// budgets, as long as each stays within its share, which is what its own budgets see to.
    #[test]
    fn families_stay_within_their_budgets(rounds in rounds(), max_tokens in 1..60_000u64, max_cost in 1..60_000u64) {
        let quota = Quota { max_cost: Some(NanoUsd(max_cost)), max_tokens: Some(max_tokens), max_wall_ms: None };
        let mut machine = Machine { quota: Some(quota), ..Machine::default() };
        for (n, round) in rounds.into_iter().enumerate() {
            let _refused = machine.feed(post(&format!("m{n}")));
            let request = format!("r{n}");
            if !machine.state.is_running() {
                continue;
            }
            machine.feed(begin_bounded(&request, 1_000, 4_000, true)).unwrap();
            let Some(Step::Sampling { max_output, .. }) = machine.state.turn().map(|turn| &turn.step) else {
                continue;
            };
            let usage = Usage {
                input: part_of(1_000, round.own.0),
                output: part_of(max_output.unwrap_or(4_000), round.own.1),
                ..Usage::default()
            };
            let cost = Some(Cost { amount: NanoUsd(usage.total()), source: "test".into() });
            let uses: Vec<String> = (0..round.children.len()).map(|child| format!("u{n}-{child}")).collect();
            let blocks = uses.iter().map(|name| calls(name, CALL_AGENT));
            let reply = Reply { blocks: blocks.collect(), model: "p/m".into(), usage, cost, stop: ReplyStop::Done };
            machine.feed(Input::FinishRequest { request: id(&request), reply }).unwrap();
            let mut children: Vec<_> = uses.iter().zip(round.children).collect();
            for (name, _) in &children {
                machine.feed(Input::Delegate { tool_use: id(name) }).unwrap();
                let shares = machine.state.delegated.shares.clone();
                // A restart carries it out again.
                machine.feed(Input::Delegate { tool_use: id(name) }).unwrap();
                prop_assert_eq!(&shares, &machine.state.delegated.shares);
            }
            children.sort_by_key(|(_, (_, order))| *order);
            let spent = |machine: &Machine, name: &str, part: f64| {
                let share = machine.state.delegated.shares[name];
                let tokens = part_of(share.max_tokens.unwrap_or(0), part);
                let cost = part_of(share.max_cost.unwrap_or_default().0, part);
                Spending {
                    usage: Usage { input: tokens, ..Usage::default() },
                    cost: CostTotal { known: NanoUsd(cost), unknown_requests: 0 },
                    ..Spending::default()
                }
            };
            if round.cancelled && !children.is_empty() {
                // Of some of them nobody learns what they consumed; their shares stay set aside.
                let known = children.iter().filter(|(_, (_, order))| order % 2 == 0);
                let delegated = known.map(|(name, (part, _))| (id(name), spent(&machine, name, *part))).collect();
                let Input::Interrupt { id, clear_queue, partial, arrived, outcomes, .. } = interrupt(true) else {
                    unreachable!("made so")
                };
                machine.feed(Input::Interrupt { id, clear_queue, partial, arrived, outcomes, delegated }).unwrap();
            } else {
                for (name, (part, _)) in children {
                    let spent = spent(&machine, name, part);
                    let outcome = Outcome::text("done");
                    machine.feed(Input::FinishDelegation { tool_use: id(name), outcome, spent }).unwrap();
                }
                let left = machine.state.delegated.shares.keys().any(|name| uses.iter().any(|it| it == name.as_str()));
                prop_assert!(!left, "a share was not given back");
            }
            let most = machine.state.spoken_for();
            prop_assert!(most.usage.total() <= max_tokens, "{most:?}");
            prop_assert!(most.cost.known.0 <= max_cost, "{most:?}");
            if machine.state.is_running() {
                machine.feed(interrupt(true)).unwrap();
            }
        }
    }
}
