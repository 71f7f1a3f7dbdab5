//! What a session's proxy, which a stranger may have taken over, says to the server.
//!
//! The first byte says whether the rest are raw bytes or messages, one a line, that are put into proper frames.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [mode, rest @ ..] = data else { return };
    let mut bytes = Vec::new();
    if mode & 1 == 0 {
        for line in rest.split(|byte| *byte == b'\n') {
            let length = u32::try_from(line.len()).expect("a short message");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(line);
        }
    } else {
        bytes.extend_from_slice(rest);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let heard = runtime.block_on(oma_furnish::worker::hear(&bytes));
    // Each has a length before it.
    assert!(heard <= bytes.len() / 4);
});
