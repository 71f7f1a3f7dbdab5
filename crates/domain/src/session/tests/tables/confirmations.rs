//! Tool uses that ask: confirmations, refusals and silence.

use super::*;

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
