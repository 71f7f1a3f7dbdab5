//! Datagrams of the sandbox's processes, for the server: each with the address of whoever sent it, and the answers to
//! that address.
//!
//! What the server does not take in time is lost, as datagrams are.

use std::io;
use std::net::UdpSocket as StdSocket;

use tokio::net::UdpSocket;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::eager::ReadHalf;
use super::port::say;
use crate::protocol::Report;
use crate::wire::{Datagram, Reader, Writer};

/// The longest datagram, in bytes; a question for a name is a small one. What is longer is cut, and no question.
const MAX_DATAGRAM: usize = 1_233;

/// The socket that datagrams come to, where the sandbox has one.
#[derive(Default)]
pub(super) struct Datagrams {
    given: std::sync::Mutex<Option<StdSocket>>,
    socket: OnceCell<UdpSocket>,
}

impl Datagrams {
    pub(super) fn new(given: Option<StdSocket>) -> Self {
        Self {
            given: std::sync::Mutex::new(given),
            socket: OnceCell::new(),
        }
    }

    async fn socket(&self) -> io::Result<&UdpSocket> {
        let open = async || {
            let given = self.given.lock().ok().and_then(|mut given| given.take());
            UdpSocket::from_std(given.ok_or_else(|| io::Error::other("this sandbox has no such port"))?)
        };
        self.socket.get_or_try_init(open).await
    }
}

/// Carries datagrams until the server goes away or the hand ends.
pub(super) async fn run(
    (mut reader, mut writer): (Reader<ReadHalf>, Writer<OwnedWriteHalf>),
    datagrams: &Datagrams,
    end: &CancellationToken,
) {
    let opened = datagrams.socket().await;
    let report = match &opened {
        Ok(_) => Report::Listening,
        Err(error) => Report::Refused {
            reason: error.to_string(),
        },
    };
    let sent = say(&mut writer, &report).await;
    let Ok(socket) = opened else { return };
    if !sent {
        return;
    }
    let out = async {
        let mut bytes = vec![0; MAX_DATAGRAM];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
                return;
            };
            let datagram = Datagram::new(from, &bytes[..length]);
            if writer.send(datagram.encode()).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Ok(Some(frame)) = reader.next_bytes().await {
            if let Some(datagram) = Datagram::decode(frame.freeze()) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&datagram.bytes, datagram.peer).await;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
        () = end.cancelled() => {}
    }
}
