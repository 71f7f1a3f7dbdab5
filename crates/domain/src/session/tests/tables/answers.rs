//! Tool uses that clients and workers carry out.

use super::*;

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
