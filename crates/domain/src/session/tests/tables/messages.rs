//! Messages to sessions that are busy, and what goes with them.

use super::*;

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
fn the_queue_is_bounded() {
    let mut machine = Machine::default();
    machine.feed(post("m")).unwrap();
    for n in 0..MAX_QUEUE {
        machine.feed(post(&format!("q{n}"))).unwrap();
    }
    assert_eq!(machine.feed(post("late")), Err(Rejection::QueueFull));
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
