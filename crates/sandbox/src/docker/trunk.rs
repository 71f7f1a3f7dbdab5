//! The server's end of a relay ([`crate::hand::relay`]): one command that the container engine runs in the container,
//! over which there are as many connections to the hand as are wanted.
//!
//! Invariant: dropping the last connection and the [`Trunk`] ends the relay, and so does the end of its container.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::InspectContainerOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future};
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio::time::{sleep, timeout};
use tokio_util::io::StreamReader;

use super::branch::Branch;
use super::connection::{Connection, is_absent, is_conflict};
use super::container::wait;
use super::severable::Severable;
use crate::hand::relay::{TOKEN, WINDOW, WINDOW_OF_ALL};
use crate::hand::token::Token;
use crate::host::record;
use crate::{Error, Pipe};

/// How long a relay may take to connect to its hand; longer than it tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to leave an engine alone that does not say whether a container runs.
const AGAIN: Duration = Duration::from_secs(1);

/// The most of a relay's complaint that is kept, in bytes.
const MAX_COMPLAINT: usize = 1 << 10;

/// What programs are started with is the image's; what that would have the loader load into them is not.
const VARIABLES: [&str; 3] = ["LD_PRELOAD=", "LD_AUDIT=", "LD_LIBRARY_PATH="];

/// A relay that runs.
#[derive(Debug)]
pub(super) struct Trunk {
    requests: SendRequest<Empty<Bytes>>,
    token: Token,
    complaint: Complaint,
}

impl Trunk {
    /// Starts a relay by this command.
    ///
    /// # Errors
    /// [`Error::Lost`] when there is no such container or it does not run, [`Error::Engine`] when the engine stays away
    /// or can't start it.
    pub(super) async fn open(
        connection: &Connection,
        container: &str,
        command: Vec<String>,
        record::Relay { user, token }: record::Relay,
    ) -> Result<Self, Error> {
        let what = "starting a relay in a container";
        let order = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            env: Some(VARIABLES.map(str::to_owned).into()),
            cmd: Some(command),
            user: Some(format!("{user}:{user}")),
            working_dir: Some("/".to_owned()),
            ..ExecConfig::default()
        };
        let failed = |error: &bollard::errors::Error| {
            // No such container, or one that does not run.
            if is_absent(error) || is_conflict(error) || does_not_run(error) {
                Error::Lost("its container does not run".to_owned())
            } else {
                connection.failed(what, error)
            }
        };
        // The engine may be asked twice: what was made and is not started is nothing but a note of its own.
        let docker = connection.docker();
        let made = connection.ask(what, || docker.create_exec(container, order.clone()));
        let made = made.await?.map_err(|error| failed(&error))?;
        let started = docker.start_exec(&made.id, Some(StartExecOptions::default()));
        let started = timeout(CONNECT_TIMEOUT, started)
            .await
            .map_err(|_| Error::Timeout(CONNECT_TIMEOUT))?;
        let (output, input) = match started.map_err(|error| failed(&error))? {
            StartExecResults::Attached { output, input } => (output, input),
            StartExecResults::Detached => {
                return Err(Error::Engine(
                    "has started a relay and keeps it to itself".to_owned(),
                ));
            }
        };
        let complaint = Complaint::default();
        let said = StreamReader::new(said(output, complaint.clone()));
        let (knife, io) = Severable::new(join(said, input));
        let (connection, container) = (connection.clone(), container.to_owned());
        // The engine keeps the way to a command open when its container ends while it has more to tell it.
        tokio::spawn(async move {
            let mut knife = knife;
            tokio::select! {
                () = ended(&connection, &container) => {}
                () = knife.closed() => {}
            }
        });
        Self::over(io, token, complaint).await
    }

    async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        token: Token,
        complaint: Complaint,
    ) -> Result<Self, Error> {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW_OF_ALL)
            .handshake(TokioIo::new(io));
        let (requests, driver) = timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| Error::Timeout(CONNECT_TIMEOUT))?
            .map_err(|error| complaint.lost(&error))?;
        // It ends with the relay, or when nobody has any use for it any more.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a relay to a sandbox has ended");
            }
        });
        Ok(Self {
            requests,
            token,
            complaint,
        })
    }

    /// Whether the relay has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Another connection to the hand.
    ///
    /// # Errors
    /// [`Error::Lost`] when the relay has ended or finds no hand.
    pub(super) async fn connect(&self) -> Result<Box<dyn Pipe>, Error> {
        let mut requests = self.requests.clone();
        let connecting = async {
            let mut request = Request::new(Empty::new());
            *request.method_mut() = Method::CONNECT;
            // Where to is known at the other end.
            *request.uri_mut() = hyper::Uri::from_static("hand:0");
            let mut token = HeaderValue::from_bytes(&self.token.words())
                .map_err(|_| Error::Protocol("its token is no text".to_owned()))?;
            token.set_sensitive(true);
            request.headers_mut().insert(TOKEN, token);
            let lost = |error: hyper::Error| self.complaint.lost(&error);
            requests.ready().await.map_err(lost)?;
            let response = requests.send_request(request).await.map_err(lost)?;
            if response.status() != StatusCode::OK {
                return Err(Error::Lost("its hand does not listen".to_owned()));
            }
            hyper::upgrade::on(response).await.map_err(lost)
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| Error::Timeout(CONNECT_TIMEOUT))??;
        Ok(Box::new(Branch::new(stream)))
    }
}

/// Returns once a container does not run any more. That the engine has stopped answering does not tell: whatever is
/// between it and here may have ended a question that takes so long.
async fn ended(connection: &Connection, container: &str) {
    let look = || {
        let options = None::<InspectContainerOptions>;
        connection.docker().inspect_container(container, options)
    };
    loop {
        wait(connection, container, "not-running").await;
        match connection.ask("looking at a container", look).await {
            Ok(Ok(found)) => match found.state.and_then(|state| state.running) {
                Some(true) => sleep(AGAIN).await,
                Some(false) | None => return,
            },
            Ok(Err(error)) if is_absent(&error) => return,
            Ok(Err(_)) | Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Whether the engine says that the container does not run, in the words that it has for it: the status is another one
/// for one that has just ended.
fn does_not_run(error: &bollard::errors::Error) -> bool {
    matches!(
        error,
        bollard::errors::Error::DockerResponseServerError { message, .. } if message.contains("is not running")
    )
}

/// What a relay, or the engine in its place, has said of why it can't do its work.
#[derive(Debug, Clone, Default)]
struct Complaint(Arc<Mutex<Vec<u8>>>);

impl Complaint {
    fn hear(&self, bytes: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_COMPLAINT.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn lost(&self, error: &hyper::Error) -> Error {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        match text.trim() {
            "" => Error::Lost(format!("the relay to it has ended: {error}")),
            said => Error::Lost(format!("the relay to it has ended: {said}")),
        }
    }
}

/// What the relay says to us, out of all that it says.
fn said(
    output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>>,
    complaint: Complaint,
) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
    Box::pin(output.filter_map(move |piece| {
        let piece = match piece {
            Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
            // The engine speaks in its own name where it can't start it.
            Ok(LogOutput::StdErr { message } | LogOutput::Console { message }) => {
                complaint.hear(&message);
                None
            }
            Ok(LogOutput::StdIn { .. }) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        };
        future::ready(piece)
    }))
}
