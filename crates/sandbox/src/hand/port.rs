//! Ports of the sandbox's loopback address behind which the server is: what a process connects to one of them for is
//! the server's affair.
//!
//! The server asks for one connection at a time and brings a connection of its own for it; the two become one. A
//! process that connects while no server asks waits in the port's backlog, also over a restart of the server.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::protocol::{Order, Report};
use crate::wire::{Reader, Writer, encode};

/// The most ports of one sandbox.
const MAX_PORTS: usize = 4;

/// The ports that are open.
#[derive(Default)]
pub(super) struct Ports(tokio::sync::Mutex<BTreeMap<u16, Arc<TcpListener>>>);

impl Ports {
    async fn open(&self, port: u16) -> io::Result<Arc<TcpListener>> {
        let mut open = self.0.lock().await;
        if let Some(listener) = open.get(&port) {
            return Ok(Arc::clone(listener));
        }
        if open.len() >= MAX_PORTS {
            return Err(io::Error::other("there are too many ports"));
        }
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?);
        open.insert(port, Arc::clone(&listener));
        Ok(listener)
    }
}

/// Waits for a process to connect and carries bytes between it and the server's connection, until the server closes
/// that or goes away, or the hand ends.
pub(super) async fn run(
    port: u16,
    (mut reader, mut writer): (Reader<OwnedReadHalf>, Writer<OwnedWriteHalf>),
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
    if !say(&mut writer, &Report::Serving).await {
        return;
    }
    tokio::select! {
        () = carry(stream, reader, writer.into_inner()) => {}
        () = end.cancelled() => {}
    }
}

async fn say(writer: &mut Writer<OwnedWriteHalf>, report: &Report) -> bool {
    match encode(report) {
        Ok(frame) => writer.send(frame).await.is_ok(),
        Err(_) => false,
    }
}

/// Returns when the server has closed its side. An error is an end like any other.
async fn carry(mut stream: TcpStream, reader: Reader<OwnedReadHalf>, mut to_server: OwnedWriteHalf) {
    let (mut from_server, begun) = reader.into_parts();
    let (mut from_process, mut to_process) = stream.split();
    let there = async {
        let _ = copy(&mut from_process, &mut to_server).await;
        let _ = to_server.shutdown().await;
        // The answer may still be under way.
        std::future::pending::<()>().await;
    };
    let back = async {
        if to_process.write_all(&begun).await.is_ok() {
            let _ = copy(&mut from_server, &mut to_process).await;
        }
        let _ = to_process.shutdown().await;
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
