//! What a hand, which the session's commands may have taken over, says to the server.
//!
//! The first byte says whether a proper greeting goes before the rest, and whether the rest are raw bytes or
//! messages, one a line, that are put into proper frames.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use oma_domain::EventId;
use oma_sandbox::protocol::{Call, VERSION};
use oma_sandbox::{Client, Hand};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long enough never to pass: the hand's end of the connection closes.
const FOREVER: Duration = Duration::from_secs(3_600);

fuzz_target!(|data: &[u8]| {
    let [mode, rest @ ..] = data else { return };
    let mut bytes = Vec::new();
    if mode & 1 == 0 {
        frame(&mut bytes, format!(r#"{{"op":"hello","version":{VERSION},"known":["evt_a"]}}"#).as_bytes());
    }
    if mode & 2 == 0 {
        rest.split(|byte| *byte == b'\n').for_each(|line| frame(&mut bytes, line));
    } else {
        bytes.extend_from_slice(rest);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(converse(bytes));
});

fn frame(bytes: &mut Vec<u8>, message: &[u8]) {
    let length = u32::try_from(message.len()).expect("a short message");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
}

async fn converse(bytes: Vec<u8>) {
    let (near, far) = tokio::io::duplex(256);
    let (mut read, mut write) = tokio::io::split(far);
    let hand = async {
        // The server may hang up in the middle, and then nobody reads.
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
    };
    let server = async {
        let Ok(client) = Client::connect(near, FOREVER, FOREVER).await else {
            return;
        };
        let key = EventId::parse("evt_a").expect("an id");
        let call = Call {
            tool: "read".to_owned(),
            input: serde_json::json!({}),
        };
        let (ran, cancelled, forgotten, logs) = tokio::join!(
            client.run(&key, call),
            client.cancel(&key),
            client.forget_all_but(std::slice::from_ref(&key)),
            client.logs(10),
        );
        drop((ran, cancelled, forgotten, logs));
    };
    let mut ignored = Vec::new();
    tokio::select! {
        ((), ()) = async { tokio::join!(hand, server) } => {}
        _ = async { read.read_to_end(&mut ignored).await.ok(); std::future::pending::<()>().await } => {}
    }
}
