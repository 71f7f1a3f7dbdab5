//! Reaching a server: transport, handshake and first list of tools.

use std::sync::Arc;

use oma_egress::Guard;
use oma_runtime::SessionInfo;
use oma_sandbox::protocol::Service;
use oma_sandbox::{Error as SandboxError, Pipe, Pool, Spec};
use rmcp::model::ProtocolVersion;
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use url::Url;

use crate::config::{Command, Place, Server};
use crate::connection::{Client, Connection};
use crate::error::Error;
use crate::remote::Remote;
use crate::secrets::Secrets;
use crate::token::TokenSource;

/// The longest answer, in bytes; of a process, the longest line.
const MAX_ANSWER: usize = 16 << 20;

/// The longest diagnostic of a failure, in bytes.
const MAX_DIAGNOSTIC: usize = 4 << 10;

/// What servers are reached with.
pub(crate) struct Reach {
    pub(crate) guard: Arc<Guard>,
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) pool: Pool,
}

impl Reach {
    /// Connects to a server for a session.
    ///
    /// # Errors
    /// Why that is not possible, without secrets.
    pub(crate) async fn connect(
        &self,
        session: &SessionInfo,
        spec: &Spec,
        server: &Server,
    ) -> Result<Connection, Error> {
        // Most servers know the handshake; those that only speak the newest protocol have none.
        match self
            .attempt(session, spec, server, ClientLifecycleMode::Initialize)
            .await
        {
            Err(Attempt::Rejected(_)) => {
                let newest = ClientLifecycleMode::Discover {
                    preferred_versions: vec![ProtocolVersion::LATEST],
                };
                self.attempt(session, spec, server, newest)
                    .await
                    .map_err(Attempt::into_error)
            }
            other => other.map_err(Attempt::into_error),
        }
    }

    /// Starts a server in the session's sandbox.
    async fn start(&self, spec: &Spec, command: &Command) -> Result<Box<dyn Pipe>, Error> {
        let Command {
            program,
            arguments,
            variables,
            folder,
        } = command.clone();
        // Whoever runs commands there must still hear how the sandbox came to be.
        let lease = self.pool.acquire_beside(spec).await.map_err(|error| {
            tracing::error!(%error, "a sandbox for an MCP server could not be had");
            let why = match error {
                SandboxError::Exhausted(_) => "no sandbox became free in time",
                _ => "its sandbox could not be started; the server's log says why",
            };
            Error::connection(why)
        })?;
        let service = Service {
            program,
            arguments,
            variables,
            folder,
        };
        lease
            .serve(service)
            .await
            .map_err(|error| Error::connection(error.to_string()))
    }

    async fn attempt(
        &self,
        session: &SessionInfo,
        spec: &Spec,
        server: &Server,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Connection, Attempt> {
        match &server.place {
            Place::Remote { url, headers } => {
                let secrets = Arc::new(Secrets::of_headers(headers.iter().map(|(_, value)| value)));
                let url =
                    Url::parse(url).map_err(|error| Attempt::Failed(Error::connection(error.to_string())))?;
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_sse_event_size(MAX_ANSWER)
                    .max_json_response_size(MAX_ANSWER)
                    .max_error_response_size(MAX_DIAGNOSTIC);
                config.retry_config = Arc::new(retries());
                config.custom_headers = remote_headers(headers)?;
                let remote = Remote::new(
                    Arc::clone(&self.guard),
                    Arc::clone(&self.tokens),
                    session.clone(),
                    Arc::clone(&secrets),
                    url,
                );
                let transport = StreamableHttpClientTransport::with_client(remote.clone(), config);
                let service = Client::new()
                    .serve_with_lifecycle(transport, lifecycle)
                    .await
                    .map_err(|error| rejected(error, remote.cause(), &secrets))?;
                Connection::new(&server.name, service, secrets)
                    .await
                    .map_err(|error| {
                        // What the transport says is more than that it failed.
                        Attempt::Failed(remote.cause().unwrap_or(error))
                    })
            }
            Place::Sandboxed(command) => {
                let pipe = self.start(spec, command).await.map_err(Attempt::Failed)?;
                let (read, write) = tokio::io::split(pipe);
                let transport = AsyncRwTransport::new(read, write).with_max_line_length(MAX_ANSWER);
                let secrets = Arc::new(Secrets::default());
                let service = Client::new()
                    .serve_with_lifecycle(transport, lifecycle)
                    .await
                    .map_err(|error| rejected(error, None, &secrets))?;
                Connection::new(&server.name, service, secrets)
                    .await
                    .map_err(Attempt::Failed)
            }
        }
    }
}

/// Why an attempt failed.
enum Attempt {
    /// The server speaks the protocol and does not want this handshake.
    Rejected(Error),
    Failed(Error),
}

impl Attempt {
    fn into_error(self) -> Error {
        match self {
            Self::Rejected(error) | Self::Failed(error) => error,
        }
    }
}

fn rejected(error: ClientInitializeError, cause: Option<Error>, secrets: &Secrets) -> Attempt {
    if let Some(cause) = cause {
        return Attempt::Failed(cause);
    }
    let said = |text: String| Error::connection(secrets.scrub(text));
    match error {
        ClientInitializeError::JsonRpcError(data) => {
            Attempt::Rejected(said(format!("it refuses the handshake: {}", data.message)))
        }
        ClientInitializeError::ConnectionClosed(_) => {
            Attempt::Failed(said("it closed the connection during the handshake".to_owned()))
        }
        other => Attempt::Failed(said(format!("its handshake failed: {other}"))),
    }
}

/// How often a broken event stream is taken up again before the connection is left without one.
fn retries() -> rmcp::transport::common::client_side_sse::ExponentialBackoff {
    let mut retries = rmcp::transport::common::client_side_sse::ExponentialBackoff::default();
    retries.max_times = Some(5);
    retries
}

fn remote_headers(
    headers: &[(http::HeaderName, secrecy::SecretString)],
) -> Result<std::collections::HashMap<http::HeaderName, http::HeaderValue>, Attempt> {
    use secrecy::ExposeSecret;
    let value = |(name, value): &(http::HeaderName, secrecy::SecretString)| {
        let mut value = http::HeaderValue::from_str(value.expose_secret())
            .map_err(|_| Attempt::Failed(Error::connection(format!("its header {name} can't be sent"))))?;
        value.set_sensitive(true);
        Ok((name.clone(), value))
    };
    headers.iter().map(value).collect()
}
