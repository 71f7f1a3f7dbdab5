//! Ports of the sandbox's loopback address behind which the server is: what a process connects to one of them for is
//! the server's affair.
//!
//! The server asks for one connection at a time and brings a connection of its own for it; the two become one. A
//! process that connects while no server asks waits in the port's backlog, also over a restart of the server.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::eager::ReadHalf;
use super::splice;
use crate::gateway;
use crate::protocol::{Order, Report};
use crate::wire::{Reader, Writer, encode};

/// How long a process may go on once the server has said all.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The most ports of one sandbox, beside those that it is made with.
const MAX_PORTS: usize = 4;

/// The ports that are open.
pub(super) struct Ports {
    open: tokio::sync::Mutex<BTreeMap<u16, Arc<TcpListener>>>,
    most: usize,
}

impl Ports {
    /// Those that the sandbox is made with. Must be called in a runtime.
    pub(super) fn new(given: Vec<(u16, std::net::TcpListener)>) -> io::Result<Self> {
        let open = given
            .into_iter()
            .map(|(port, listener)| Ok((port, Arc::new(TcpListener::from_std(listener)?))))
            .collect::<io::Result<BTreeMap<_, _>>>()?;
        Ok(Self {
            most: open.len() + MAX_PORTS,
            open: tokio::sync::Mutex::new(open),
        })
    }

    async fn open(&self, port: u16) -> io::Result<Arc<TcpListener>> {
        let mut open = self.open.lock().await;
        if let Some(listener) = open.get(&port) {
            return Ok(Arc::clone(listener));
        }
        if open.len() >= self.most {
            return Err(io::Error::other("there are too many ports"));
        }
        let listener = gateway::listen(Ipv4Addr::LOCALHOST, port)?;
        let listener = Arc::new(TcpListener::from_std(listener)?);
        open.insert(port, Arc::clone(&listener));
        Ok(listener)
    }
}

/// Waits for a process to connect and carries bytes between it and the server's connection, until the server closes
/// that or goes away, or the hand ends.
pub(super) async fn run(
    port: u16,
    (mut reader, mut writer): (Reader<ReadHalf>, Writer<OwnedWriteHalf>),
    ports: &Ports,
    end: &CancellationToken,
) {
    let opened = ports.open(port).await;
    let report = match &opened {
        Ok(_) => Report::Listening,
        Err(error) => Report::Refused {
            reason: format!("port {port} can't be opened: {error}"),
        },
    };
    let sent = say(&mut writer, &report).await;
    let Ok(listener) = opened else { return };
    if !sent {
        return;
    }
    let accepted = tokio::select! {
        // A process that connects must not get a server that is gone, so that is looked at first.
        biased;
        // The server has nothing to say before it has been told of a connection: it is gone.
        _ = reader.next::<Order>() => return,
        () = end.cancelled() => return,
        accepted = listener.accept() => accepted,
    };
    // Without one the server sees the connection close, and asks again.
    let Ok((stream, _)) = accepted else { return };
    let to = stream.local_addr().ok();
    if !say(&mut writer, &Report::Serving { to }).await {
        return;
    }
    tokio::select! {
        _ = carry(stream, reader, writer.into_inner()) => {}
        () = end.cancelled() => {}
    }
}

pub(super) async fn say(writer: &mut Writer<OwnedWriteHalf>, report: &Report) -> bool {
    match encode(report) {
        Ok(frame) => writer.send(frame).await.is_ok(),
        Err(_) => false,
    }
}

/// Returns when both have said all, or some time after the server has. An error is an end like any other.
async fn carry(
    mut process: TcpStream,
    reader: Reader<ReadHalf>,
    to_server: OwnedWriteHalf,
) -> io::Result<()> {
    let (from_server, begun) = reader.into_parts();
    let server = from_server.0.reunite(to_server).map_err(io::Error::other)?;
    process.write_all(&begun).await?;
    let there = async {
        let _ = splice::one_way(&process, &server).await;
        let _ = rustix::net::shutdown(&server, Shutdown::Write);
    };
    let back = async {
        let _ = splice::one_way(&server, &process).await;
        let _ = rustix::net::shutdown(&process, Shutdown::Write);
    };
    tokio::pin!(there, back);
    let is_said = tokio::select! {
        () = &mut there => true,
        () = &mut back => false,
    };
    if is_said {
        // The answer may still be under way.
        back.await;
    } else {
        // The process may still be saying something, and would lose what it has been told if it were cut off.
        let _ = timeout(LAST_WORDS, there).await;
    }
    Ok(())
}
