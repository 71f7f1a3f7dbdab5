//! How turns and sessions end: interrupts, failures, restarts and the archive.

use super::*;

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
