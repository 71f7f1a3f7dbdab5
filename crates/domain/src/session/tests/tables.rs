//! Each row: inputs, the whole log that they lead to, and the phase afterwards.

mod budgets;
mod outcomes;

use super::*;
use crate::environment::build::Progress;
use crate::outcome::Evaluation;

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
fn messages_to_a_busy_session_wait_and_follow_without_a_pause() {
    let busy = vec![post("m1"), begin("r1"), post("m2"), post("m3")];
    let machine = check(busy, "RUN user:m1 (r1", "sampling");
    assert_eq!(machine.state.turns, 3);
    let machine = check_from(
        machine,
        vec![reply("r1", vec![text("t1")])],
        "RUN user:m1 (r1 says:t1 ) user:m2",
        "ready",
    );
    check_from(
        machine,
        vec![
            begin("r2"),
            reply("r2", vec![]),
            begin("r3"),
            reply("r3", vec![text("t3")]),
        ],
        "RUN user:m1 (r1 says:t1 ) user:m2 (r2 ) user:m3 (r3 says:t3 ) IDLE:end",
        "idle:end",
    );
}

#[test]
fn overrides_are_logged_once_and_stay() {
    let set = |name: &str| {
        Input::Post(Arc::new(Queued {
            id: id(name),
            content: vec![],
            model: Some("p/other".into()),
            thinking_level: Some(ThinkingLevel::High),
            trace: None,
            charged: None,
            system: None,
            from: None,
        }))
    };
    let machine = check(
        vec![
            set("m1"),
            begin("r1"),
            reply("r1", vec![]),
            set("m2"),
            begin("r2"),
            reply("r2", vec![]),
        ],
        "RUN model=p/other thinking=high user:m1 (r1 ) IDLE:end RUN user:m2 (r2 ) IDLE:end",
        "idle:end",
    );
    assert_eq!(machine.state.model.as_deref(), Some("p/other"));
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
fn a_turn_blocks_on_confirmations_and_says_on_which() {
    let asks = vec![
        post("m1"),
        begin("r1"),
        reply("r1", vec![tool("a", Ask), tool("b", Ask), tool("c", Allow)]),
    ];
    let prefix = "RUN user:m1 (r1 uses:a uses:b uses:c )";
    check(asks.clone(), prefix, "acting:3");
    let blocked = [asks.clone(), vec![done("c")]].concat();
    check(
        blocked.clone(),
        &format!("{prefix} result:c IDLE:asks(a,b)"),
        "blocked",
    );
    let half = [blocked, vec![confirm("a", true)]].concat();
    check(
        half.clone(),
        &format!("{prefix} result:c IDLE:asks(a,b) a=true IDLE:asks(b)"),
        "blocked",
    );
    let denied = [half.clone(), vec![confirm("b", false)]].concat();
    check(
        denied,
        &format!("{prefix} result:c IDLE:asks(a,b) a=true IDLE:asks(b) b=false RUN error:b"),
        "acting:1",
    );
    let allowed = [half, vec![confirm("b", true), done("a"), done("b")]].concat();
    check(
        allowed,
        &format!("{prefix} result:c IDLE:asks(a,b) a=true IDLE:asks(b) b=true RUN result:a result:b"),
        "ready",
    );
    // An answer that comes while another tool still runs does not interrupt anything.
    check(
        [
            asks,
            vec![confirm("a", true), confirm("b", false), done("a"), done("c")],
        ]
        .concat(),
        &format!("{prefix} a=true b=false error:b result:a result:c"),
        "ready",
    );
}

#[test]
fn confirmations_that_do_not_come_in_time_count_as_denied() {
    let mut machine = Machine {
        confirmation_timeout_ms: Some(100),
        ..Machine::default()
    };
    let uses = vec![tool("a", Ask), tool("b", Ask), tool("c", Allow)];
    for input in [post("m1"), begin("r1"), reply("r1", uses)] {
        machine.feed(input).unwrap();
    }
    assert_eq!(machine.state.deadline(), Some(Timestamp(1100)));
    machine.passed = 99;
    assert_eq!(machine.feed(Input::Lapse), Err(Rejection::Stale));
    // One is answered, one is not, and a tool that runs is not touched.
    machine.feed(confirm("b", true)).unwrap();
    machine.passed = 100;
    let mut machine = check_from(
        machine,
        vec![Input::Lapse],
        "RUN user:m1 (r1 uses:a uses:b uses:c ) b=true error:a",
        "acting:2",
    );
    assert_eq!(machine.state.deadline(), None);
    assert_eq!(machine.feed(Input::Lapse), Err(Rejection::Stale));
    // A blocked turn goes on.
    let mut blocked = Machine {
        confirmation_timeout_ms: Some(100),
        ..Machine::default()
    };
    for input in [
        post("m1"),
        begin("r1"),
        reply("r1", vec![tool("a", Ask), tool("b", Ask)]),
    ] {
        blocked.feed(input).unwrap();
    }
    blocked.passed = 200;
    check_from(
        blocked,
        vec![Input::Lapse],
        "RUN user:m1 (r1 uses:a uses:b ) IDLE:asks(a,b) RUN error:a error:b",
        "ready",
    );
}

#[test]
fn denying_the_only_question_asks_the_model_again() {
    let mut machine = check(
        vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Ask)])],
        "RUN user:m1 (r1 uses:a ) IDLE:asks(a)",
        "blocked",
    );
    assert_eq!(
        machine.feed(post("m2")),
        Ok(vec![]),
        "a message to a blocked session waits"
    );
    assert_eq!(machine.feed(confirm("a", false)), Ok(vec![Effect::Drive]));
    assert_eq!(
        machine.shorthand(),
        "RUN user:m1 (r1 uses:a ) IDLE:asks(a) a=false RUN error:a"
    );
    assert_eq!(machine.phase(), "ready");
}

#[test]
fn an_interrupt_closes_everything_and_keeps_what_there_was() {
    let partial = Input::Interrupt {
        id: id("stop"),
        clear_queue: true,
        partial: vec![Partial {
            id: id("t1"),
            text: "half".into(),
            model: "p/m".into(),
        }],
        arrived: 2,
        outcomes: vec![],
        delegated: vec![],
    };
    let machine = check(
        vec![post("m1"), begin("r1"), post("m2"), partial],
        "RUN user:m1 (r1 partial:t1 !) interrupt-1 IDLE:interrupted",
        "idle:interrupted",
    );
    assert_eq!(machine.state.output.as_deref(), Some("half"));
    assert_eq!(
        machine.state.cost.total(),
        None,
        "nobody knows what the cut-off request cost"
    );
    let with_outcome = Input::Interrupt {
        id: id("stop"),
        clear_queue: false,
        partial: vec![],
        arrived: 0,
        outcomes: vec![(id("b"), Outcome::text("so far"))],
        delegated: vec![],
    };
    check(
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Ask), tool("b", Allow)]),
            post("m2"),
            with_outcome,
        ],
        "RUN user:m1 (r1 uses:a uses:b ) error:a result:b interrupt IDLE:interrupted RUN user:m2",
        "ready",
    );
    check(
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Ask)]),
            interrupt(true),
        ],
        "RUN user:m1 (r1 uses:a ) IDLE:asks(a) error:a interrupt IDLE:interrupted",
        "idle:interrupted",
    );
    check(
        vec![post("m1"), interrupt(true)],
        "RUN user:m1 interrupt IDLE:interrupted",
        "idle:interrupted",
    );
}

#[test]
fn failures() {
    check(
        vec![
            post("m1"),
            begin("r1"),
            fail("r1", true),
            begin("r2"),
            reply("r2", vec![text("t")]),
        ],
        "RUN user:m1 (r1 !) retry (r2 says:t ) IDLE:end",
        "idle:end",
    );
    check(
        vec![post("m1"), begin("r1"), post("m2"), fail("r1", false)],
        "RUN user:m1 (r1 !) failed IDLE:failed RUN user:m2",
        "ready",
    );
    check(
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Allow)]),
            Input::FailTurn { failure: failure() },
        ],
        "RUN user:m1 (r1 uses:a ) error:a failed IDLE:failed",
        "idle:failed",
    );
}

#[test]
fn what_a_turn_can_do_without_fails_beside_it() {
    let remark = || Input::Remark { failure: failure() };
    check(vec![post("m1"), remark()], "RUN user:m1 retry", "ready");
    check(
        vec![
            post("m1"),
            begin("r1"),
            remark(),
            reply("r1", vec![tool("a", Allow)]),
            remark(),
        ],
        "RUN user:m1 (r1 retry uses:a ) retry",
        "acting:1",
    );
}

#[test]
fn a_restart_closes_the_request_and_keeps_the_tools_open() {
    let asked = vec![post("m1"), begin("r1"), Input::Wake];
    let machine = check(asked, "RUN user:m1 (r1 !)", "ready");
    assert_eq!(machine.state.turn().unwrap().requests, 0);
    let mut acting = check(
        vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Allow)])],
        "RUN user:m1 (r1 uses:a )",
        "acting:1",
    );
    assert_eq!(acting.feed(Input::Wake), Ok(vec![Effect::Drive]));
    assert_eq!(acting.phase(), "acting:1");
    let mut blocked = check(
        vec![post("m1"), begin("r1"), reply("r1", vec![tool("a", Ask)])],
        "RUN user:m1 (r1 uses:a ) IDLE:asks(a)",
        "blocked",
    );
    assert_eq!(blocked.feed(Input::Wake), Ok(vec![]));
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

#[test]
fn custom_tools_wait_for_the_client() {
    let uses = || vec![custom("x"), tool("a", Ask), tool("b", Allow)];
    let asked = || vec![post("m1"), begin("r1"), reply("r1", uses())];
    let told = "RUN user:m1 (r1 uses:x uses:a uses:b )";
    // An answer may come while others still run, and nobody else can give it.
    check(
        [asked(), vec![answer("x")]].concat(),
        &format!("{told} answer:x"),
        "acting:2",
    );
    refuses(asked(), done("x"), Rejection::Stale);
    refuses(asked(), confirm("x", true), Rejection::NotAsking);
    refuses(asked(), answer("a"), Rejection::NotAwaited);
    refuses(
        [asked(), vec![answer("x")]].concat(),
        answer("x"),
        Rejection::NotAwaited,
    );
    refuses(vec![], answer("x"), Rejection::NotAwaited);
    let blocked = || [asked(), vec![done("b")]].concat();
    let told = format!("{told} result:b IDLE:asks(x,a)");
    check(blocked(), &told, "blocked");
    check(
        [blocked(), vec![answer("x")]].concat(),
        &format!("{told} answer:x IDLE:asks(a)"),
        "blocked",
    );
    check(
        [blocked(), vec![answer("x"), confirm("a", true)]].concat(),
        &format!("{told} answer:x IDLE:asks(a) a=true RUN"),
        "acting:1",
    );
    check(
        [blocked(), vec![confirm("a", false), answer("x")]].concat(),
        &format!("{told} a=false error:a IDLE:asks(x) answer:x RUN"),
        "ready",
    );
    check(
        [blocked(), vec![interrupt(true)]].concat(),
        &format!("{told} error:x error:a interrupt IDLE:interrupted"),
        "idle:interrupted",
    );
}

#[test]
fn tools_of_self_hosted_environments_wait_for_a_worker() {
    let uses = || vec![remote("w", Allow), remote("a", Ask), tool("b", Allow)];
    let asked = || vec![post("m1"), begin("r1"), reply("r1", uses())];
    let told = "RUN user:m1 (r1 uses:w uses:a uses:b )";
    refuses(asked(), done("w"), Rejection::Stale);
    // Neither a client's answer to a custom tool nor one that comes before the confirmation.
    refuses(asked(), answer("w"), Rejection::NotAwaited);
    refuses(asked(), worked("a"), Rejection::NotAwaited);
    refuses(asked(), worked("b"), Rejection::NotAwaited);
    let blocked = || [asked(), vec![done("b")]].concat();
    let told = format!("{told} result:b IDLE:asks(w,a)");
    check(blocked(), &told, "blocked");
    // What is confirmed goes on waiting, now for the worker.
    let confirmed = || [blocked(), vec![confirm("a", true)]].concat();
    let told_more = format!("{told} a=true IDLE:asks(w,a)");
    check(confirmed(), &told_more, "blocked");
    refuses(confirmed(), confirm("a", true), Rejection::NotAsking);
    check(
        [confirmed(), vec![worked("a"), worked("w")]].concat(),
        &format!("{told_more} answer:a IDLE:asks(w) answer:w RUN"),
        "ready",
    );
    check(
        [blocked(), vec![confirm("a", false), worked("w")]].concat(),
        &format!("{told} a=false error:a IDLE:asks(w) answer:w RUN"),
        "ready",
    );
    refuses(
        [confirmed(), vec![worked("a")]].concat(),
        worked("a"),
        Rejection::NotAwaited,
    );
    check(
        [confirmed(), vec![interrupt(true)]].concat(),
        &format!("{told_more} error:w error:a interrupt IDLE:interrupted"),
        "idle:interrupted",
    );
    // While others run, a worker's result is taken, too.
    check(
        [asked(), vec![worked("w"), confirm("a", true)]].concat(),
        "RUN user:m1 (r1 uses:w uses:a uses:b ) answer:w a=true",
        "acting:2",
    );
}

#[test]
fn an_archived_session_takes_nothing() {
    let update = |title: Option<&str>| Input::Update {
        title: Some(title.map(str::to_owned)),
        metadata: Some([("k".to_owned(), "v".to_owned())].into()),
        agent: None,
        budget: None,
    };
    let turn = || vec![post("m1"), begin("r1"), reply("r1", vec![text("t1")])];
    let told = "RUN user:m1 (r1 says:t1 ) IDLE:end";
    let over = [turn(), vec![Input::Archive]].concat();
    check(
        [over.clone(), vec![Input::Archive]].concat(),
        &format!("{told} OVER"),
        "idle:end",
    );
    for late in [
        post("m2"),
        interrupt(true),
        confirm("a", true),
        answer("a"),
        update(None),
        Input::Compact { charged: None },
    ] {
        refuses(over.clone(), late, Rejection::Archived);
    }
    refuses(vec![post("m1")], Input::Archive, Rejection::Busy);
    check(
        vec![
            post("m1"),
            begin("r1"),
            reply("r1", vec![tool("a", Ask)]),
            Input::Archive,
        ],
        "RUN user:m1 (r1 uses:a ) IDLE:asks(a) error:a IDLE:interrupted OVER",
        "idle:interrupted",
    );
    check(
        vec![update(Some("t")), update(Some("t")), update(None)],
        "updated:t:k updated::",
        "new",
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

#[test]
fn the_queue_is_bounded() {
    let mut machine = Machine::default();
    machine.feed(post("m")).unwrap();
    for n in 0..MAX_QUEUE {
        machine.feed(post(&format!("q{n}"))).unwrap();
    }
    assert_eq!(machine.feed(post("late")), Err(Rejection::QueueFull));
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

#[test]
fn a_system_message_stands_behind_what_it_accompanies() {
    let note = |name: &str| {
        Some(SystemNote {
            id: id(name),
            content: vec![ContentBlock::text(name)],
        })
    };
    let accompanied = |input: Input, name: &str| match input {
        Input::Post(message) => Input::Post(Arc::new(Queued {
            system: note(name),
            ..(*message).clone()
        })),
        Input::Answer {
            id,
            tool_use,
            outcome,
            remote,
            ..
        } => Input::Answer {
            id,
            tool_use,
            outcome,
            remote,
            system: note(name),
        },
        other => other,
    };
    check(
        vec![
            accompanied(post("m1"), "s1"),
            begin("r1"),
            accompanied(post("m2"), "s2"),
            reply("r1", vec![custom("a"), custom("b")]),
            accompanied(answer("a"), "s3"),
            answer("b"),
            begin("r2"),
            reply("r2", vec![text("t2")]),
        ],
        "RUN user:m1 system:s1 (r1 uses:a uses:b ) IDLE:asks(a,b) answer:a system:s3 IDLE:asks(b) answer:b RUN (r2 \
         says:t2 ) user:m2 system:s2",
        "ready",
    );
}
