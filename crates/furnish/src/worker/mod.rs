//! `oma egress`: the proxy of one session as a process of its own.
//!
//! What sandboxes and strangers say (TLS, HTTP, names) is read there and not in the server. The process has the
//! session's doors, its rules, and where it has vaults its secrets; it has no privilege, no file, no environment and no
//! way to open anything ([`oma_sandbox::confine`]). It can't even dial: the server does, and passes it the connection
//! ([`parent`]). So whoever takes it over has what the session has, and nothing of any other.
//!
//! Invariant: the process dies with the server and with the sandbox.
//! Invariant: the server looks up and dials nothing for it that the session's rules do not admit.

mod child;
mod messages;
mod parent;
mod trial;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitCode;

use oma_sandbox::confine;
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

pub(crate) use parent::{Apart, Common, Source};
pub use trial::try_out;

/// The whole of `oma egress`: `arguments` are those after `egress`. Must be called before anything else in the process:
/// before any thread, and before any descriptor is opened.
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let argument = arguments.next();
    if argument
        .as_ref()
        .is_some_and(|argument| argument == trial::ARGUMENT)
    {
        return trial::main();
    }
    let is_given = is_local_socket(io::stdin()) && is_local_socket(io::stdout());
    if argument.is_some() || !is_given {
        let _ = writeln!(
            io::stderr(),
            "This command is for the server's own use: it is the proxy of a sandbox."
        );
        return ExitCode::from(2);
    }
    match confine::reduce().and_then(|()| work()) {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell: the server sees it end.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Hears what a proxy says, as the server does, and returns how many reports it was until it stopped or was refused.
#[cfg(any(test, fuzzing))]
pub async fn hear(mut from: &[u8]) -> usize {
    let mut heard = 0;
    while let Ok(Some(report)) = messages::read::<messages::Report>(&mut from, messages::MAX_REPORT).await {
        if let messages::Report::Decided { host, secrets, .. } = report {
            for text in [messages::plain(&host), messages::plain(&secrets)] {
                assert!(text.len() <= messages::MAX_TEXT && !text.contains(char::is_control));
            }
        }
        heard += 1;
    }
    heard
}

fn is_local_socket(stream: impl AsFd) -> bool {
    socket_domain(stream).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

fn work() -> io::Result<()> {
    // The streams themselves stay as they are.
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let dialled = UnixDatagram::from(io::stdout().as_fd().try_clone_to_owned()?);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(child::serve(control, dialled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_a_proxy_says_is_heard_or_refused() {
        let reports: [&[u8]; 4] = [
            br#"{"op":"dial","id":3,"host":"a.test","port":443}"#,
            br#"{"op":"secrets","id":4,"known":null}"#,
            br#"{"op":"decided","protocol":"dns","host":"a","port":0,"verdict":"allowed","secrets":"","untold":0}"#,
            br#"{"op":"decided","protocol":"dns","host":"\n","port":1,"verdict":{"denied":"not_listed"},"secrets":"A","untold":3}"#,
        ];
        let mut whole = Vec::new();
        for report in reports {
            whole.extend_from_slice(&u32::try_from(report.len()).expect("short").to_be_bytes());
            whole.extend_from_slice(report);
        }
        assert_eq!(hear(&whole).await, reports.len());
        // Each byte is each of these once; the rest is the fuzz target's.
        for at in 0..whole.len() {
            for byte in [0, b'"', b'{', b'9', b'\\', 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                assert!(hear(&broken).await <= reports.len());
            }
            assert!(hear(&whole[..at]).await < reports.len());
        }
    }
}
