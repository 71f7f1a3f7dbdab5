//! The hand's end of its connections.
//!
//! The server that launched the hand may die and come back: calls belong to the hand and not to a connection.
//! When no server has been connected for long enough, the hand ends itself and the sandbox with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::Mode;
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, Outcome};
use super::datagrams::Datagrams;
use super::doors::Passing;
use super::eager::Eager;
use super::entrance::Entrance;
use super::launch::Duties;
use super::log_ring::LogRing;
use super::port::Ports;
use super::process::Table;
use crate::gateway::Doors;
use crate::protocol::{Order, Report, VERSION};
use crate::wire;

/// How long a new connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once: one server, and one that has just died or is just starting, with room to spare, and one for
/// each service and each connection to a port.
const MAX_CONNECTIONS: usize = 8 + 64 + 16 + 128;

/// Answers that one connection may wait for.
const MAX_PENDING: usize = 256;

/// Reports that may wait for the socket to take them.
const QUEUE: usize = 64;

/// How long after its launch the first server must have come.
const FIRST_SERVER: Duration = Duration::from_secs(30);

/// How often a hand without a server looks whether its workspace is still there.
const DELETED_LOOK: Duration = Duration::from_secs(5);

/// What is made in the workspace for a moment to see whether it is there, where nothing else tells.
const TRIED: &str = ".oma-is-it-there";

/// How long running calls may take to end when the hand ends.
const GRACE: Duration = Duration::from_secs(3);

/// How long the last answer may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) calls: Arc<Calls>,
    pub(crate) log: Arc<LogRing>,
    workspace: PathBuf,
    ports: Ports,
    datagrams: Datagrams,
    passing: Option<Passing>,
    /// Fires when the hand is to end.
    pub(crate) end: CancellationToken,
    connected: watch::Sender<usize>,
}

impl Shared {
    /// Must be called in a runtime.
    pub(crate) fn new(
        calls: Arc<Calls>,
        log: Arc<LogRing>,
        workspace: PathBuf,
        doors: Option<Doors>,
    ) -> io::Result<Arc<Self>> {
        let passing = doors.as_ref().map(Passing::new).transpose()?;
        let (streams, datagrams) = match doors {
            Some(Doors { streams, datagrams }) => (streams, Some(datagrams)),
            None => (Vec::new(), None),
        };
        Ok(Arc::new(Self {
            calls,
            log,
            workspace,
            ports: Ports::new(streams)?,
            datagrams: Datagrams::new(datagrams),
            passing,
            end: CancellationToken::new(),
            connected: watch::Sender::new(0),
        }))
    }
}

/// Accepts connections until the server says `Shutdown`, or none has been there for `orphan_timeout`, or none is
/// there and the workspace has been deleted on the host.
///
/// # Errors
/// When the listening socket breaks.
pub(crate) async fn serve(entrance: &mut Entrance, shared: &Arc<Shared>, duties: &Duties) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let orphaned = orphaned(shared, duties);
    tokio::pin!(orphaned);
    let outcome = loop {
        tokio::select! {
            next = entrance.next(), if connections.len() < MAX_CONNECTIONS => match next {
                Ok(stream) => {
                    connections.spawn(connection(stream, Arc::clone(shared)));
                }
                Err(error) => break Err(error),
            },
            Some(_) = connections.join_next() => {}
            () = &mut orphaned => break Ok(()),
            () = shared.end.cancelled() => break Ok(()),
        }
    };
    // The answer to `Shutdown` is still on its way out.
    shared.end.cancel();
    let _ = timeout(FAREWELL, connections.join_all()).await;
    outcome
}

/// Ends every call, within a bound.
pub(crate) async fn wind_down(shared: &Shared) {
    let _ = timeout(GRACE, shared.calls.cancel_all()).await;
}

/// Returns when no server has been connected for `patience`, or none has come at all: then the one that
/// launched this hand died in that moment, and no other may know of it.
async fn orphaned(shared: &Shared, duties: &Duties) {
    let patience = duties.orphan_timeout;
    let mut connected = shared.connected.subscribe();
    if timeout(FIRST_SERVER.min(patience), connected.wait_for(|count| *count > 0))
        .await
        .is_err()
    {
        return;
    }
    loop {
        // The sender lives in `shared`, so the waits can't fail.
        let _ = connected.wait_for(|count| *count == 0).await;
        let since = Instant::now();
        // The kernel gives no word of the end of a folder that is mounted somewhere, so now and then it is
        // looked at; only while there is no server.
        loop {
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() || is_deleted(&shared.workspace, duties.has_own_kernel) {
                return;
            }
            if timeout(left.min(DELETED_LOOK), connected.wait_for(|count| *count > 0))
                .await
                .is_ok()
            {
                break;
            }
        }
    }
}

/// Whether the folder has no name any more. One that can't be looked at is not known to be deleted.
fn is_deleted(folder: &Path, has_own_kernel: bool) -> bool {
    match rustix::fs::stat(folder) {
        Ok(stat) if stat.st_nlink == 0 => true,
        // gVisor never says so, and 1 is also what some file systems say of every folder.
        Ok(stat) if stat.st_nlink == 1 && has_own_kernel => takes_nothing(folder),
        Ok(_) | Err(_) => false,
    }
}

/// Whether nothing can be made in a folder since it is none any more, which is tried.
fn takes_nothing(folder: &Path) -> bool {
    let tried = folder.join(TRIED);
    match rustix::fs::mkdir(&tried, Mode::RWXU) {
        // One that is there already is of a hand that was killed before it could take it away.
        Ok(()) | Err(Errno::EXIST) => {
            // It is empty, unless a process of the session has put something into it: then it is that one's.
            let _ = rustix::fs::rmdir(&tried);
            false
        }
        Err(error) => error == Errno::NOENT,
    }
}

/// Counts a greeted connection while it lives.
struct Presence<'a>(&'a watch::Sender<usize>);

impl<'a> Presence<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let (read, write) = stream.into_split();
    let mut reader = wire::Reader::new(Eager(read));
    let mut writer = wire::Writer::new(write);

    let hello = timeout(HELLO_TIMEOUT, reader.next::<Order>()).await;
    let Ok(Ok(Some(Order::Hello { version }))) = hello else {
        return;
    };
    let Ok(frame) = wire::encode(&Report::Hello {
        version: VERSION,
        known: shared.calls.known(),
    }) else {
        return;
    };
    // Also to a server of another version, so that it can say what is wrong; they part then.
    if writer.send(frame).await.is_err() || version != VERSION {
        return;
    }
    let _presence = Presence::new(&shared.connected);

    let first = tokio::select! {
        order = reader.next::<Order>() => order,
        () = shared.end.cancelled() => return,
    };
    let mut first = match first {
        Ok(Some(Order::Serve { service })) => {
            let ends = (reader, writer);
            return super::service::run(
                service,
                ends,
                &shared.workspace,
                &shared.calls,
                &shared.log,
                &shared.end,
            )
            .await;
        }
        Ok(Some(Order::Datagrams)) => {
            return super::datagrams::run((reader, writer), &shared.datagrams, &shared.end).await;
        }
        Ok(Some(Order::Doors)) => {
            return super::doors::run((reader, writer), shared.passing.as_ref(), &shared.end).await;
        }
        Ok(Some(Order::Listen { port })) => {
            return super::port::run(port, (reader, writer), &shared.ports, &shared.end).await;
        }
        Ok(Some(order)) => Some(order),
        Ok(None) | Err(_) => return,
    };
    let (reports, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    let writing = tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if writer.send(frame).await.is_err() {
                break;
            }
        }
    });
    let mut pending = JoinSet::new();
    loop {
        let next = async {
            match first.take() {
                Some(order) => Ok(Some(order)),
                None => reader.next::<Order>().await,
            }
        };
        tokio::select! {
            order = next => {
                let Ok(Some(order)) = order else { break };
                if pending.len() >= MAX_PENDING || !answer(order, &shared, &reports, &mut pending).await {
                    break;
                }
            }
            Some(_) = pending.join_next() => {}
            () = shared.end.cancelled() => break,
        }
    }
    // Whoever waited on this connection will ask again on another one; what runs goes on.
    pending.shutdown().await;
    drop(reports);
    let _ = timeout(FAREWELL, writing).await;
}

/// Answers one order, now or when its call has finished. `false` ends the connection.
async fn answer(
    order: Order,
    shared: &Arc<Shared>,
    reports: &mpsc::Sender<Bytes>,
    pending: &mut JoinSet<()>,
) -> bool {
    let report = match order {
        // Only as the first frames.
        Order::Hello { .. }
        | Order::Serve { .. }
        | Order::Listen { .. }
        | Order::Datagrams
        | Order::Doors => return false,
        Order::Run { id, key, call } => {
            pending.spawn(report_outcome(id, shared.calls.start(key, call), reports.clone()));
            return true;
        }
        Order::Cancel { id, key } => match shared.calls.cancel(&key) {
            Some(outcome) => {
                pending.spawn(report_outcome(id, outcome, reports.clone()));
                return true;
            }
            None => Report::Unknown { id },
        },
        Order::ForgetAllBut { id, keep } => {
            shared.calls.forget_all_but(&keep);
            Report::Ok { id }
        }
        Order::Logs { id, tail } => Report::Logs {
            id,
            text: shared.log.tail(tail),
        },
        Order::Retire { id } if is_at_work(shared) => Report::Busy { id },
        Order::Retire { id } | Order::Shutdown { id } => {
            wind_down(shared).await;
            let sent = send(reports, &Report::Ok { id }).await;
            shared.end.cancel();
            return sent;
        }
    };
    send(reports, &report).await
}

/// Whether anything runs that somebody may want to go on. Services don't count: they end with their connections.
fn is_at_work(shared: &Shared) -> bool {
    // What can't be seen may be there.
    *shared.calls.running().borrow() > 0 || Table::read().map_or(true, |table| table.has_work())
}

async fn report_outcome(id: u64, mut outcome: Outcome, reports: mpsc::Sender<Bytes>) {
    let Ok(finished) = outcome.wait_for(Option::is_some).await.map(|done| done.clone()) else {
        return;
    };
    if let Some(finished) = finished {
        let took = finished
            .took
            .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        send(
            &reports,
            &Report::Done {
                id,
                reply: finished.reply.clone(),
                took_us: took,
            },
        )
        .await;
    }
}

/// Whether the report is on its way. One that can't be encoded ends the connection; the parts of a report are
/// bounded where they come into being, so this doesn't happen.
async fn send(reports: &mpsc::Sender<Bytes>, report: &Report) -> bool {
    match wire::encode(report) {
        Ok(frame) => reports.send(frame).await.is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn a_folder_that_is_deleted_takes_nothing_and_another_one_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_deleted(folder.path(), true) && !takes_nothing(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What a hand that was killed has left goes, and what is somebody else's stays.
        let tried = folder.path().join(TRIED);
        std::fs::create_dir(&tried).unwrap();
        assert!(!takes_nothing(folder.path()) && !tried.exists());
        std::fs::create_dir_all(tried.join("own")).unwrap();
        assert!(!takes_nothing(folder.path()) && tried.join("own").is_dir());
        let open = std::fs::File::open(folder.path()).unwrap();
        drop(folder);
        let place = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        assert!(takes_nothing(&place));
    }
}
