//! What requests consume, and what budgets make of it.

use super::*;

#[test]
fn what_a_failed_request_consumed_is_counted() {
    let usage = Usage {
        input: 100,
        ..Usage::default()
    };
    let cost = Some(Cost {
        amount: NanoUsd(40),
        source: "test".into(),
    });
    let all = Spent::All {
        usage,
        cost: cost.clone(),
    };
    let part = Spent::AtLeast {
        usage,
        cost: cost.clone(),
        arrived: 0,
    };
    let known = |known, unknown_requests| CostTotal {
        known: NanoUsd(known),
        unknown_requests,
    };
    for (spent, tokens, total, stated) in [
        (Spent::Nothing, 0, known(0, 0), None),
        (all, 100, known(40, 0), cost),
        (part, 100, known(40, 1), None),
        (Spent::unknown(), 0, known(0, 1), None),
    ] {
        let input = Input::FailRequest {
            request: id("r1"),
            failure: failure(),
            spent: spent.clone(),
            retry: true,
        };
        let machine = check(
            vec![post("m1"), begin("r1"), input],
            "RUN user:m1 (r1 !) retry",
            "ready",
        );
        assert_eq!(machine.state.usage.total(), tokens, "{spent:?}");
        assert_eq!(machine.state.cost, total, "{spent:?}");
        let end = machine.log.iter().find_map(|event| match &event.body {
            Body::ModelRequestEnd { usage, cost, .. } => Some((usage.total(), cost.clone())),
            _ => None,
        });
        assert_eq!(end, Some((tokens, stated)), "{spent:?}");
    }
    // A turn that ends under a request, a cancel and a restart leave its cost unknown.
    for input in [
        Input::FailTurn { failure: failure() },
        interrupt(false),
        Input::Wake,
    ] {
        let mut machine = Machine::default();
        for input in [post("m1"), begin("r1"), input.clone()] {
            machine.feed(input).expect("legal");
        }
        assert_eq!(machine.state.cost.total(), None, "{input:?}");
    }
}

#[test]
fn what_nobody_reported_counts_against_budgets_alone() {
    let cancel = |arrived| Input::Interrupt {
        id: id("stop"),
        clear_queue: true,
        partial: vec![],
        arrived,
        outcomes: vec![],
        delegated: vec![],
    };
    let broken_off = |input, output| Input::FailRequest {
        request: id("r1"),
        failure: failure(),
        spent: Spent::AtLeast {
            usage: Usage {
                input,
                output,
                ..Usage::default()
            },
            cost: None,
            arrived: 30,
        },
        retry: true,
    };
    for (input, tokens) in [
        (cancel(0), 1_000),
        (cancel(70), 1_070),
        (Input::Wake, 1_000),
        (Input::FailTurn { failure: failure() }, 1_000),
        (broken_off(0, 0), 1_030),
        // The provider had said what the input was, and some of the output.
        (broken_off(400, 10), 20),
        (broken_off(400, 40), 0),
        (fail("r1", true), 0),
    ] {
        let mut machine = Machine::default();
        for input in [post("m1"), begin_bounded("r1", 1_000, 500, true), input.clone()] {
            machine.feed(input).expect("legal");
        }
        let state = &machine.state;
        let expected = Unreported {
            tokens,
            cost: NanoUsd(tokens),
        };
        assert_eq!(state.unreported, expected, "{input:?}");
        assert!(
            state.usage.total() <= 440 && state.cost.known == NanoUsd(0),
            "{input:?}"
        );
        let reckoned = state.total().reckoned();
        assert_eq!(
            reckoned.usage.total(),
            state.usage.total() + tokens,
            "budgets see it: {input:?}"
        );
        assert_eq!(reckoned.cost.known, NanoUsd(tokens), "{input:?}");
    }
}

#[test]
fn budgets_stop_before_the_request_and_hold_the_queue() {
    let quota = Some(Quota {
        max_tokens: Some(15),
        ..Quota::default()
    });
    let machine = Machine {
        quota,
        ..Machine::default()
    };
    let mut machine = check_from(
        machine,
        vec![
            post("m1"),
            begin("r1"),
            post("m2"),
            reply("r1", vec![tool("a", Allow)]),
            done("a"),
            begin("r2"),
        ],
        "RUN user:m1 (r1 uses:a ) result:a IDLE:tokens",
        "idle:tokens",
    );
    assert_eq!(
        machine.feed(post("m3")),
        Err(Rejection::QuotaExceeded(crate::quota::Exceeded::Tokens))
    );
    machine.quota = None;
    check_from(
        machine,
        vec![post("m3")],
        "RUN user:m1 (r1 uses:a ) result:a IDLE:tokens RUN user:m2",
        "ready",
    );
}

fn capped(max_tokens: Option<u64>, max_cost: Option<u64>) -> Machine {
    let quota = Some(Quota {
        max_cost: max_cost.map(NanoUsd),
        max_tokens,
        max_wall_ms: None,
    });
    Machine {
        quota,
        ..Machine::default()
    }
}

#[test]
fn a_request_gets_what_the_budgets_leave() {
    for (tokens, cost, input, output, priced, expected) in [
        // Nothing binds.
        (None, None, 100, 5000, true, Ok(None)),
        (Some(5100), Some(5100), 100, 5000, true, Ok(None)),
        // Less than it could produce, but worth it.
        (Some(5099), None, 100, 5000, true, Ok(Some(4999))),
        (Some(612), None, 100, 5000, true, Ok(Some(512))),
        (None, Some(612), 100, 5000, true, Ok(Some(512))),
        (Some(2000), Some(1000), 100, 5000, true, Ok(Some(900))),
        // A request that can't produce much needs no more.
        (Some(110), None, 100, 10, true, Ok(None)),
        // Too little.
        (Some(611), None, 100, 5000, true, Err(Exceeded::Tokens)),
        (Some(50), None, 100, 10, true, Err(Exceeded::Tokens)),
        (None, Some(611), 100, 5000, true, Err(Exceeded::Cost)),
        (None, Some(99), 100, 0, true, Err(Exceeded::Cost)),
        // What has no price is held to the tokens alone.
        (None, Some(1), 100, 5000, false, Ok(None)),
        (Some(612), Some(1), 100, 5000, false, Ok(Some(512))),
    ] {
        let mut machine = capped(tokens, cost);
        machine.feed(post("m1")).unwrap();
        machine.feed(begin_bounded("r1", input, output, priced)).unwrap();
        let found = match &machine.state.phase {
            Phase::Idle {
                stop: Some(StopReason::BudgetReached { cap }),
            } => Err(*cap),
            Phase::Running { turn } => match &turn.step {
                Step::Sampling { max_output, .. } => Ok(*max_output),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{tokens:?} {cost:?} {input} {output} {priced}");
    }
}

#[test]
fn a_held_session_takes_messages_again_once_the_budgets_are_others() {
    let mut machine = capped(Some(600), None);
    for input in [post("m1"), begin_bounded("r1", 100, 5000, true)] {
        machine.feed(input).unwrap();
    }
    let refused = Err(Rejection::QuotaExceeded(Exceeded::Tokens));
    assert_eq!(machine.feed(post("m2")), refused);
    machine.quota = capped(Some(10_000), None).quota;
    check_from(
        machine,
        vec![post("m2"), begin_bounded("r2", 100, 5000, true)],
        "RUN user:m1 IDLE:tokens RUN user:m2 (r2",
        "sampling",
    );
}

/// A session with a budget of its own, which stopped it before it could ask for what follows a tool.
fn stopped() -> (Machine, String) {
    let mut machine = Machine::default();
    machine.state.budget = Some(NanoUsd(1_000));
    let machine = check_from(
        machine,
        vec![
            post("m1"),
            begin_bounded("r1", 100, 500, true),
            reply("r1", vec![tool("a", Allow)]),
            post("m2"),
            done("a"),
            begin_bounded("r2", 900, 500, true),
        ],
        "RUN user:m1 (r1 uses:a ) result:a IDLE:cost",
        "idle:cost",
    );
    let told = machine.shorthand();
    (machine, told)
}

#[test]
fn a_session_goes_on_by_itself_once_its_budget_is_raised() {
    let (machine, told) = stopped();
    for raised in [Some(100_000), None] {
        let shown = raised.unwrap_or(0);
        // The turn that was stopped goes on, and the message that waits follows it.
        check_from(
            machine.clone(),
            vec![
                budget(raised),
                begin_bounded("r2", 900, 500, true),
                reply("r2", vec![text("t2")]),
            ],
            &format!("{told} budget:{shown} RUN (r2 says:t2 ) user:m2"),
            "ready",
        );
    }
    // A budget that is higher, and yet used up by what is reckoned.
    let mut broke = machine.clone();
    broke.state.unreported.cost = NanoUsd(2_000);
    check_from(
        broke,
        vec![budget(Some(1_500))],
        &format!("{told} budget:1500"),
        "idle:cost",
    );
    // The same budget is no change.
    check_from(machine, vec![budget(Some(1_000))], &told, "idle:cost");
}

#[test]
fn a_budget_is_raised_or_taken_away() {
    let (machine, _) = stopped();
    for (with, change, expected) in [
        (Some(1_000), Some(7), Err(Rejection::BudgetNotRaised)),
        (Some(1_000), Some(8), Ok(())),
        (None, Some(5_000), Err(Rejection::BudgetCreateOnly)),
        (None, None, Ok(())),
    ] {
        let mut machine = machine.clone();
        machine.state.budget = with.map(NanoUsd);
        let fed = machine.feed(budget(change)).map(drop);
        assert_eq!(fed, expected, "{with:?} {change:?}");
    }
}

#[test]
fn a_months_budget_limits_a_request_or_holds_the_session() {
    for (granted, phase, limit) in [
        (Ok(u64::MAX), "sampling", None),
        (Ok(700), "sampling", Some(700)),
        (Err(Exceeded::KeyCost), "idle:key_cost", None),
    ] {
        let mut machine = Machine {
            granted: Some(granted),
            ..Machine::default()
        };
        machine.feed(post("m1")).unwrap();
        machine.feed(begin_bounded("r1", 100, 5_000, true)).unwrap();
        assert_eq!(machine.phase(), phase);
        let turn = machine.state.turn();
        let found = turn.and_then(|turn| match &turn.step {
            Step::Sampling { max_output, .. } => *max_output,
            _ => None,
        });
        assert_eq!(found, limit);
        assert_eq!(machine.state.held_for.is_some(), granted.is_err());
        // The tighter one counts.
        let mut machine = Machine {
            granted: Some(granted),
            quota: Some(Quota {
                max_tokens: Some(700),
                ..Quota::default()
            }),
            ..Machine::default()
        };
        machine.feed(post("m1")).unwrap();
        machine.feed(begin_bounded("r1", 100, 5_000, true)).unwrap();
        if let Some(Step::Sampling { max_output, .. }) = machine.state.turn().map(|turn| &turn.step) {
            assert_eq!(*max_output, Some(600));
        }
    }
    // Another message, once there is room, begins with what was held back.
    let mut machine = Machine {
        granted: Some(Err(Exceeded::WorkspaceTokens)),
        ..Machine::default()
    };
    machine.feed(post("m1")).unwrap();
    machine.feed(begin_bounded("r1", 100, 5_000, true)).unwrap();
    machine.granted = None;
    machine.feed(post("m2")).unwrap();
    assert_eq!(machine.state.held_for, None);
}
