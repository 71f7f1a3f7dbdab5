//! The way to a hand in a container whose runtime has a kernel of its own, where no socket of the host can be passed: a
//! process that the container engine starts in it, at whose standard input and output is the server.
//!
//! Both speak HTTP/2 there. Each `CONNECT` is one connection to the hand, which listens at an abstract address of the
//! container ([`bind`]), so that a connection costs no process of its own, has its own flow control, and ends by
//! itself, half or whole.
//!
//! The session's processes can connect there, too. So the server has a [`Token`] for its hand, which comes with each
//! `CONNECT`, and which the relay says first; that it is the hand that hears it is sure, since that one listens before
//! anything of the session runs, and as long as the container is there.
//!
//! Invariant: the processes of a session or a build can neither signal nor trace the relay, nor have anything loaded into it: its
//! user is another one ([`user`]), whom root of a build can't become, and the container shows nothing of the image's or the
//! build's to its loader. Some kernels have root open what the relay has open; there, what is said over a build's relay may be
//! the build's word.
//! Invariant: it ends with the connection to the server.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::fs::OFlags;
use rustix::process::DumpableBehavior;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional, join};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};

use super::eager::Eager;

/// The argument after `hand` that relays.
pub(crate) const RELAY: &str = "--relay";

/// Where the hand listens.
const ADDRESS: &str = "oma-hand";

/// What a request has its token in.
pub(crate) const TOKEN: &str = "oma-token";

/// Users that relays are: the first one that the session is not. Nothing belongs to them.
const USERS: [u32; 2] = [65_534, 65_533];

/// The user that relays of builds are. Installers have work done by the usual one, which has the name `nobody`; this one
/// nothing in a build can become ([`filter::commands`](super::launch::filter::commands)).
const OF_BUILDS: u32 = USERS[1];

/// Connections at once: more than a hand takes.
pub(crate) const MAX_CONNECTIONS: u32 = 512;

/// Bytes of one connection that may be on their way, and of all: so none is held up by another one whose reader is slow.
pub(crate) const WINDOW: u32 = 256 << 10;
pub(crate) const WINDOW_OF_ALL: u32 = WINDOW * MAX_CONNECTIONS;

/// How long the hand may take to listen, or to have room for one more that waits, and how long apart it is tried:
/// nobody gives word of either.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// The user of the relay to the hand of a session with this user, or of a build.
pub(crate) fn user(session: u32, builds: bool) -> u32 {
    if builds {
        return OF_BUILDS;
    }
    let [usual, other] = USERS;
    if session == usual { other } else { usual }
}

/// Listens where the relay connects.
///
/// # Errors
/// When somebody listens there already.
pub(super) fn bind() -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(ADDRESS)?)
}

/// The whole of the relay.
pub(super) fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let relayed = runtime.and_then(|runtime| {
        close()?;
        runtime.block_on(async { relay(standard()?).await })
    });
    match relayed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The server reads it, if it is still there.
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("the relay to the hand: {error}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

/// Closes this process to others.
fn close() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The standard input and output, which are pipes or sockets to the container engine.
fn standard() -> io::Result<(pipe::Receiver, pipe::Sender)> {
    let take = |fd: i32| -> io::Result<File> {
        // SAFETY: 0 and 1 are open, since the standard library sees to it before `main`, and nobody else uses them.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let flags = rustix::fs::fcntl_getfl(owned.as_fd())?;
        rustix::fs::fcntl_setfl(owned.as_fd(), flags | OFlags::NONBLOCK)?;
        Ok(owned.into())
    };
    let (input, output) = (take(0)?, take(1)?);
    Ok((
        pipe::Receiver::from_file_unchecked(input)?,
        pipe::Sender::from_file_unchecked(output)?,
    ))
}

/// Serves until the server goes away.
async fn relay((input, output): (pipe::Receiver, pipe::Sender)) -> io::Result<()> {
    let served = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_CONNECTIONS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW_OF_ALL)
        .serve_connection(TokioIo::new(join(Eager(input), output)), service_fn(answer));
    served.await.map_err(io::Error::other)
}

/// Connects to the hand for the server.
async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    if request.method() != Method::CONNECT {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return Ok(response);
    }
    let token = request
        .headers()
        .get(TOKEN)
        .map(|token| token.as_bytes().to_vec());
    match connect(&token.unwrap_or_default()).await {
        Ok(hand) => {
            tokio::spawn(carry(request, hand));
        }
        // The hand is gone, and with it the container, soon.
        Err(_) => *response.status_mut() = StatusCode::BAD_GATEWAY,
    }
    Ok(response)
}

async fn connect(token: &[u8]) -> io::Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(format!("\0{ADDRESS}")).await {
            Err(error) if may_pass(&error) && Instant::now() < deadline => sleep(PAUSE).await,
            Err(error) => return Err(error),
            Ok(mut hand) => {
                // At once: among many that say nothing, the hand keeps who has spoken.
                hand.write_all(token).await?;
                return Ok(hand);
            }
        }
    }
}

/// Whether it may be another matter soon: the hand does not listen yet, or others wait already.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

/// Carries bytes both ways until both sides have said all, or one of them is gone.
async fn carry(request: Request<Incoming>, hand: UnixStream) {
    // An error is an end like any other: both see the connection close.
    if let Ok(server) = hyper::upgrade::on(request).await {
        let (read, write) = hand.into_split();
        let _ = copy_bidirectional(&mut TokioIo::new(server), &mut join(Eager(read), write)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_never_the_session_s_user() {
        assert_ne!(user(0, true), 0);
        for session in [0, 1_000, 65_533, 65_534, 200_000] {
            assert_ne!(user(session, false), session);
            assert_ne!(user(session, false), 0);
        }
    }
}
