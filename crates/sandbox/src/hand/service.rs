//! Processes that the server talks to over their standard input and output: one connection each.
//!
//! What one side does not take waits in the pipe or the socket, so nothing here grows. A process lives as long as
//! its connection: when the server closes it, or dies, the process gets a moment to end by itself; whoever wants it
//! again starts it anew.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::eager::ReadHalf;
use super::log_ring::LogRing;
use super::process::Tree;
use crate::protocol::{Report, Service};
use crate::wire::{Reader, Writer, encode};

/// How long a process may take to end once its standard input has ended.
const GRACE: Duration = Duration::from_secs(2);

/// How much of what it prints as errors is read at once.
const CHUNK: usize = 8 << 10;

/// Starts the process and carries bytes between it and the connection until either ends, or the hand.
pub(super) async fn run(
    service: Service,
    (reader, mut writer): (Reader<ReadHalf>, Writer<OwnedWriteHalf>),
    workspace: &Path,
    calls: &Calls,
    log: &Arc<LogRing>,
    end: &CancellationToken,
) {
    let started = start(&service, workspace);
    let report = match &started {
        Ok(_) => Report::Serving { to: None },
        Err(error) => Report::Refused {
            reason: format!("{} can't be started: {error}", service.program),
        },
    };
    let sent = match encode(&report) {
        Ok(frame) => writer.send(frame).await,
        Err(error) => Err(error),
    };
    let Ok((mut child, tree)) = started else { return };
    calls.note_service();
    if sent.is_ok() {
        let ends = (reader, writer.into_inner());
        tokio::select! {
            () = carry(&mut child, ends, log) => {}
            () = end.cancelled() => {}
        }
    }
    tree.kill().await;
    // It is dead, and must not stay a zombie. Its exit status is of no interest: what matters is that it is gone.
    let _ = child.wait().await;
}

fn start(service: &Service, workspace: &Path) -> io::Result<(Child, Tree)> {
    let folder = service
        .folder
        .as_deref()
        .map_or_else(|| workspace.to_owned(), |folder| workspace.join(folder));
    if !folder.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no folder {}", folder.display()),
        ));
    }
    let mut command = Command::new(&service.program);
    command
        .args(&service.arguments)
        .envs(service.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Tree::spawn_service(&mut command)
}

/// Returns when the process has closed its standard output, or some time after the connection has ended.
async fn carry(child: &mut Child, (reader, mut write): (Reader<ReadHalf>, OwnedWriteHalf), log: &LogRing) {
    let (Some(mut input), Some(mut output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let (mut read, begun) = reader.into_parts();
    // An error is an end like any other: the other side sees the connection close.
    let from = async {
        let _ = copy(&mut output, &mut write).await;
        let _ = write.shutdown().await;
    };
    let to = async {
        if input.write_all(&begun).await.is_ok() {
            let _ = copy(&mut read, &mut input).await;
        }
        drop(input);
        let _ = timeout(GRACE, child.wait()).await;
        // What it has said last may not have been carried yet.
        sleep(GRACE).await;
    };
    tokio::select! {
        () = from => {}
        () = to => {}
        () = note(errors, log) => {}
    }
}

/// Writes what a process prints as errors to the log; never returns.
async fn note(mut errors: ChildStderr, log: &LogRing) {
    let mut lines = log.writer();
    let mut chunk = vec![0; CHUNK];
    loop {
        match errors.read(&mut chunk).await {
            Ok(read) if read > 0 => lines.write(&chunk[..read]),
            _ => return std::future::pending().await,
        }
    }
}
