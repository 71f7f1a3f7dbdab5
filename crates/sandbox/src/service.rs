//! The server's end of a connection that is the standard input and output of a process in a sandbox.

use std::io::Cursor;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;

use crate::protocol::{Order, Report, Service, VERSION};
use crate::{Error, wire};

/// What is written goes to the process's standard input; what is read is its standard output. Bytes wait in the
/// socket until the other side takes them. Dropping it ends the process.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Has the hand at the other end of a fresh connection start a process.
///
/// # Errors
/// [`Error::Refused`] when it can't be started, and what else can go wrong with a hand.
pub(crate) async fn start(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: Service,
    patience: Duration,
) -> Result<Box<dyn Pipe>, Error> {
    let (read, write) = tokio::io::split(stream);
    let mut reader = wire::Reader::new(read);
    let mut writer = wire::Writer::new(write);
    let (hello, serve) = (
        wire::encode(&Order::Hello { version: VERSION })?,
        wire::encode(&Order::Serve { service })?,
    );
    let greeting = async {
        writer.send(hello).await?;
        match reader.next::<Report>().await? {
            Some(Report::Hello { version: VERSION, .. }) => {}
            Some(_) => {
                return Err(Error::Protocol(
                    "it did not greet first, or is of another version".to_owned(),
                ));
            }
            None => return Err(closed()),
        }
        writer.send(serve).await?;
        match reader.next::<Report>().await? {
            Some(Report::Serving) => Ok(()),
            Some(Report::Refused { reason }) => Err(Error::Refused(reason)),
            Some(_) => Err(Error::Protocol(
                "the answer to serve is of another kind".to_owned(),
            )),
            None => Err(closed()),
        }
    };
    timeout(patience, greeting)
        .await
        .map_err(|_| Error::Timeout(patience))??;
    let (read, begun) = reader.into_parts();
    let read = Cursor::new(begun).chain(read);
    Ok(Box::new(tokio::io::join(read, writer.into_inner())))
}

fn closed() -> Error {
    Error::Lost("it closed the connection".to_owned())
}
