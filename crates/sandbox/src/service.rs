//! The server's end of a connection that is the standard input and output of a process in a sandbox, or one that a
//! process there has made to a port.

use std::io::Cursor;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::Error;
use crate::protocol::{Order, Report, Service, VERSION};
use crate::wire::{self, Datagram};

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
        self.writer.send(wire::encode(order)?).await?;
        self.hear().await
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
