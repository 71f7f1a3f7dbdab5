//! The server's end of a connection that is the standard input and output of a process in a sandbox, or one that a
//! process there has made to a port.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::Error;
use crate::descriptors;
use crate::error::io as io_error;
use crate::gateway::{Passed, Shared};
use crate::protocol::{Order, Report, Service, VERSION};
use crate::wire::{self, Datagram};

/// The longest answer with descriptors, in bytes.
const MAX_REPORT: usize = 4 << 10;

/// What is written goes to the process's standard input; what is read is its standard output. Bytes wait in the
/// socket until the other side takes them. Dropping it ends the process, or closes the connection that it has made.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A connection to a port that a process in the sandbox has yet to make.
pub type Incoming = BoxFuture<'static, Result<Arrived, Error>>;

/// A connection to a port that a process in the sandbox has made.
pub struct Arrived {
    /// The way to the process.
    pub pipe: Box<dyn Pipe>,
    /// The address that it has connected to; hands of an older server don't say.
    pub to: Option<SocketAddr>,
}

/// The datagrams of a sandbox's processes. Dropping both ends leaves them waiting.
pub struct Datagrams {
    /// What they send.
    pub from: From,
    /// The way back.
    pub to: To,
}

impl Datagrams {
    /// Those that a connection carries of which each frame is one. Either side of it may be at either end.
    #[must_use]
    pub fn over(pipe: Box<dyn Pipe>) -> Self {
        let ends = Ends::of(pipe);
        Self {
            from: From(ends.reader),
            to: To(ends.writer),
        }
    }
}

/// What processes send.
pub struct From(wire::Reader<ReadHalf<Box<dyn Pipe>>>);

/// The way back to processes.
pub struct To(wire::Writer<WriteHalf<Box<dyn Pipe>>>);

impl From {
    /// The next one.
    ///
    /// # Errors
    /// [`Error::Lost`] when the sandbox is gone, [`Error::Protocol`] when the hand makes no sense.
    pub async fn next(&mut self) -> Result<Datagram, Error> {
        let frame = self.0.next_bytes().await?;
        let frame = frame.ok_or_else(|| Error::Lost("it closed the connection".to_owned()))?;
        Datagram::decode(frame.freeze())
            .ok_or_else(|| Error::Protocol("a datagram has no whole address".to_owned()))
    }
}

impl To {
    /// Sends one.
    ///
    /// # Errors
    /// [`Error::Lost`] when the sandbox is gone.
    pub async fn send(&mut self, datagram: &Datagram) -> Result<(), Error> {
        self.0.send(datagram.encode()).await
    }
}

/// Has the hand at the other end of a fresh connection start a process.
///
/// # Errors
/// [`Error::Refused`] when it can't be started, and what else can go wrong with a hand.
pub(crate) async fn start(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: Service,
    patience: Duration,
) -> Result<Box<dyn Pipe>, Error> {
    let mut ends = Ends::of(stream);
    let asking = async {
        match ends.ask(&Order::Serve { service }).await? {
            Report::Serving { .. } => Ok(()),
            report => Err(refused("serve", report)),
        }
    };
    within(patience, asking).await?;
    Ok(ends.into_pipe())
}

/// Has the hand at the other end of a fresh connection open a port. There is no bound to how long it may then take
/// until somebody connects to it; dropping what waits ends the wait.
///
/// # Errors
/// [`Error::Refused`] when it can't be opened, and what else can go wrong with a hand.
pub(crate) async fn listen(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    port: u16,
    patience: Duration,
) -> Result<Incoming, Error> {
    let mut ends = Ends::of(stream);
    let asking = async {
        match ends.ask(&Order::Listen { port }).await? {
            Report::Listening => Ok(()),
            report => Err(refused("listen", report)),
        }
    };
    within(patience, asking).await?;
    Ok(Box::pin(async move {
        match ends.hear().await? {
            Report::Serving { to } => Ok(Arrived {
                pipe: ends.into_pipe(),
                to,
            }),
            report => Err(refused("listen", report)),
        }
    }))
}

/// Has the hand at the other end of a fresh connection carry the datagrams of its processes.
///
/// # Errors
/// [`Error::Refused`] when the sandbox has no port for them, and what else can go wrong with a hand.
pub(crate) async fn datagrams(stream: Box<dyn Pipe>, patience: Duration) -> Result<Datagrams, Error> {
    let mut ends = Ends::of(stream);
    let asking = async {
        match ends.ask(&Order::Datagrams).await? {
            Report::Listening => Ok(()),
            report => Err(refused("datagrams", report)),
        }
    };
    within(patience, asking).await?;
    Ok(Datagrams {
        from: From(ends.reader),
        to: To(ends.writer),
    })
}

/// Has the hand at the other end of a fresh connection pass the sandbox's doors.
///
/// # Errors
/// [`Error::Refused`] when it has none or can't pass them, and what else can go wrong with a hand; one of an older
/// server hangs up.
pub(crate) async fn doors(stream: UnixStream, patience: Duration) -> Result<Passed, Error> {
    descriptors::accept(&stream, true);
    let asking = async {
        let mut ends = Ends::of(stream);
        ends.order(&Order::Doors).await?;
        let (read, begun) = ends.reader.into_parts();
        if !begun.is_empty() {
            return Err(Error::Protocol("it answered before it was asked".to_owned()));
        }
        let stream = read.unsplit(ends.writer.into_inner());
        // What came is discarded however this ends, also by the patience's end.
        let mut sockets = Shared::default();
        let report = receive(&stream, sockets.as_mut()).await;
        descriptors::accept(&stream, false);
        match report? {
            Report::Doors { ports } => Passed::new(&ports, sockets, stream).map_err(Error::Protocol),
            other => Err(refused("doors", other)),
        }
    };
    timeout(patience, asking)
        .await
        .map_err(|_| Error::Timeout(patience))?
}

/// Receives one short frame, and what descriptors come with it.
async fn receive(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> Result<Report, Error> {
    // One of an older server hangs up. Whatever else goes wrong says nothing of the hand.
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Error::Lost(error.to_string()),
        _ => io_error("taking the doors of a sandbox", error),
    };
    let mut said = Vec::new();
    let mut bytes = [0; 1024];
    while said.len() < MAX_REPORT {
        let received = stream
            .async_io(Interest::READABLE, || {
                descriptors::receive(stream, &mut bytes, descriptors)
            })
            .await
            .map_err(failed)?;
        if received == 0 {
            return Err(Error::Lost("it closed the connection".to_owned()));
        }
        said.extend_from_slice(&bytes[..received]);
        if descriptors.len() > descriptors::MOST {
            return Err(Error::Protocol("it passes too much".to_owned()));
        }
        if let Some(report) = wire::unframed(&said)? {
            return Ok(report);
        }
    }
    Err(Error::Protocol("it says too much".to_owned()))
}

async fn within(patience: Duration, asking: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    timeout(patience, asking)
        .await
        .map_err(|_| Error::Timeout(patience))?
}

/// A connection that is still spoken on in frames.
struct Ends<S> {
    reader: wire::Reader<ReadHalf<S>>,
    writer: wire::Writer<WriteHalf<S>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Ends<S> {
    fn of(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            reader: wire::Reader::new(read),
            writer: wire::Writer::new(write),
        }
    }

    /// Greets the hand and gives it its order.
    async fn ask(&mut self, order: &Order) -> Result<Report, Error> {
        self.order(order).await?;
        self.hear().await
    }

    async fn order(&mut self, order: &Order) -> Result<(), Error> {
        let hello = wire::encode(&Order::Hello { version: VERSION })?;
        self.writer.send(hello).await?;
        match self.hear().await? {
            Report::Hello { version: VERSION, .. } => {}
            _ => {
                return Err(Error::Protocol(
                    "it did not greet first, or is of another version".to_owned(),
                ));
            }
        }
        self.writer.send(wire::encode(order)?).await
    }

    async fn hear(&mut self) -> Result<Report, Error> {
        let report = self.reader.next::<Report>().await?;
        report.ok_or_else(|| Error::Lost("it closed the connection".to_owned()))
    }

    /// What follows the last frame.
    fn into_pipe(self) -> Box<dyn Pipe> {
        let (read, begun) = self.reader.into_parts();
        let read = Cursor::new(begun).chain(read);
        Box::new(tokio::io::join(read, self.writer.into_inner()))
    }
}

fn refused(order: &str, report: Report) -> Error {
    match report {
        Report::Refused { reason } => Error::Refused(reason),
        _ => Error::Protocol(format!("the answer to {order} is of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;
    use crate::gateway::PROXY;

    /// What the server makes of a hand that answers to the order for doors with these bytes and descriptors.
    async fn answered(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<Passed, Error> {
        let (near, far) = UnixStream::pair().unwrap();
        let hand = async {
            let (read, write) = far.into_split();
            let (mut reader, mut writer) = (wire::Reader::new(read), wire::Writer::new(write));
            let hello = reader.next::<Order>().await.unwrap();
            assert_eq!(hello, Some(Order::Hello { version: VERSION }));
            let known = Vec::new();
            let hello = Report::Hello {
                version: VERSION,
                known,
            };
            writer.send(wire::encode(&hello).unwrap()).await.unwrap();
            assert_eq!(reader.next::<Order>().await.unwrap(), Some(Order::Doors));
            if !bytes.is_empty() {
                send(writer.get_ref().as_ref(), bytes, &descriptors);
            }
        };
        let (doors, ()) = tokio::join!(doors(near, Duration::from_secs(10)), hand);
        doors
    }

    /// More of them than we would send, too.
    fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        assert!(borrowed.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        let bytes = [io::IoSlice::new(bytes)];
        rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
    }

    fn listener() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn frame(report: &Report) -> Vec<u8> {
        wire::framed(report).unwrap().to_vec()
    }

    #[tokio::test]
    async fn a_hand_that_passes_something_else_is_not_believed() {
        let doors = frame(&Report::Doors { ports: vec![PROXY] });
        let datagrams = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let refused = frame(&Report::Refused {
            reason: "no doors".to_owned(),
        });
        let many = |count: usize| (0..count).map(|_| listener()).collect();
        for (name, bytes, descriptors) in [
            ("an old hand hangs up", Vec::new(), vec![]),
            ("it refuses", refused, vec![]),
            ("no descriptor comes", doors.clone(), vec![]),
            (
                "it is another port's",
                doors.clone(),
                vec![listener(), datagrams()],
            ),
            ("too many", doors.clone(), many(descriptors::MOST)),
            // As when this process may have no more.
            ("not all of them", doors.clone(), many(descriptors::MOST + 4)),
            (
                "another answer",
                frame(&Report::Listening),
                vec![listener(), datagrams()],
            ),
            (
                "half an answer",
                doors[..7].to_vec(),
                vec![listener(), datagrams()],
            ),
            (
                "more than an answer",
                [&doors[..], b"more"].concat(),
                vec![listener(), datagrams()],
            ),
            ("no answer", vec![0; 6], vec![]),
            ("a length beyond the bound", vec![0xff; 8], vec![]),
        ] {
            let failed = answered(&bytes, descriptors).await.err();
            let is_expected = match name {
                "an old hand hangs up" | "half an answer" => matches!(failed, Some(Error::Lost(_))),
                "not all of them" => matches!(failed, Some(Error::Io { .. })),
                "it refuses" => matches!(failed, Some(Error::Refused(_))),
                _ => matches!(failed, Some(Error::Protocol(_))),
            };
            assert!(is_expected, "{name}: {failed:?}");
        }
    }
}
