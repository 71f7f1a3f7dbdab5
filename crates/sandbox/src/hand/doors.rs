//! The doors as they are passed to the server, which takes what comes to them itself from then on.
//!
//! They stay the hand's as well: what comes while no server is there waits in them, and the next server gets them anew.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio_util::sync::CancellationToken;

use super::eager::ReadHalf;
use super::port::say;
use crate::descriptors;
use crate::gateway::Doors;
use crate::protocol::{Order, Report};
use crate::wire::{Reader, Writer, framed};

/// What is passed.
pub(super) struct Passing {
    ports: Vec<u16>,
    sockets: Vec<OwnedFd>,
}

impl Passing {
    pub(super) fn new(doors: &Doors) -> io::Result<Self> {
        let streams = doors.streams.iter().map(|(_, listener)| listener.as_fd());
        let all = streams.chain([doors.datagrams.as_fd()]);
        Ok(Self {
            ports: doors.streams.iter().map(|(port, _)| *port).collect(),
            sockets: all
                .map(|socket| socket.try_clone_to_owned())
                .collect::<io::Result<_>>()?,
        })
    }

    async fn pass(&self, socket: &UnixStream) -> io::Result<()> {
        let report = Report::Doors {
            ports: self.ports.clone(),
        };
        let frame = framed(&report).map_err(io::Error::other)?;
        let sockets: Vec<_> = self.sockets.iter().map(OwnedFd::as_fd).collect();
        let send = || descriptors::send(socket, &frame, &sockets);
        let sent = socket.async_io(Interest::WRITABLE, send).await?;
        if sent < frame.len() {
            // It is short, and the first thing of its size on this connection.
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

/// Passes the doors, and stays until the server goes away or the hand ends.
pub(super) async fn run(
    (mut reader, mut writer): (Reader<ReadHalf>, Writer<OwnedWriteHalf>),
    passing: Option<&Passing>,
    end: &CancellationToken,
) {
    let passed = match passing {
        Some(passing) => passing.pass(writer.get_ref().as_ref()).await,
        None => Err(io::Error::other("this sandbox has no doors")),
    };
    if let Err(error) = passed {
        // Such as where this is no kernel that can do it. Then they are carried.
        let reason = error.to_string();
        say(&mut writer, &Report::Refused { reason }).await;
        return;
    }
    tokio::select! {
        // The server has nothing more to say: it is gone.
        _ = reader.next::<Order>() => {}
        () = end.cancelled() => {}
    }
}
