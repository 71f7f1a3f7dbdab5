//! One connection to one server: what it offers, and calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oma_domain::session::Outcome;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation, JsonObject,
    PaginatedRequestParams, ProtocolVersion, Tool,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::{ClientHandler, RoleClient, ServiceError};
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{Error, short};
use crate::outcome;
use crate::secrets::Secrets;

/// The most tools of one server; further ones are left out.
const MAX_TOOLS: usize = 256;

/// The most bytes of names, descriptions and schemas of one server's tools; further ones are left out.
const MAX_TOOL_BYTES: usize = 1 << 20;

/// The most pages that a list of tools has.
const MAX_PAGES: usize = 64;

/// The longest description of a tool, in characters.
const MAX_DESCRIPTION: usize = 8_000;

/// Our side of a connection: offers the server nothing, and hears that its tools have changed.
#[derive(Clone)]
pub(crate) struct Client {
    changes: Arc<AtomicU64>,
}

impl Client {
    pub(crate) fn new() -> Self {
        // The first list is due as if it had changed.
        Self {
            changes: Arc::new(AtomicU64::new(1)),
        }
    }
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("openclaw-managed-agents", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) schema: Arc<JsonObject>,
}

/// A connection that has been greeted. Dropping it closes it.
pub(crate) struct Connection {
    server: String,
    service: RunningService<RoleClient, Client>,
    client: Client,
    secrets: Arc<Secrets>,
    tools: Mutex<Arc<[Listed]>>,
    /// The change that the list of tools is as new as.
    listed: AtomicU64,
    broken: AtomicBool,
}

impl Connection {
    /// Takes over a connection and asks what it offers.
    ///
    /// # Errors
    /// When it does not say.
    pub(crate) async fn new(
        server: &str,
        service: RunningService<RoleClient, Client>,
        secrets: Arc<Secrets>,
    ) -> Result<Self, Error> {
        let client = service.service().clone();
        let connection = Self {
            server: server.to_owned(),
            service,
            client,
            secrets,
            tools: Mutex::new(Arc::new([])),
            listed: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        };
        connection.refresh().await?;
        Ok(connection)
    }

    /// The server's name in the agent.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Whether it can't be used any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.broken.load(Ordering::Acquire) || self.service.is_closed() || self.service.is_transport_closed()
    }

    /// What it offers.
    pub(crate) fn tools(&self) -> Arc<[Listed]> {
        Arc::clone(&self.tools.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for the list of tools if it has changed.
    ///
    /// # Errors
    /// When it is not given; the connection counts as lost then.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let change = self.client.changes.load(Ordering::Acquire);
        if self.listed.load(Ordering::Acquire) == change {
            return Ok(());
        }
        let tools = self
            .list()
            .await
            .inspect_err(|_| self.broken.store(true, Ordering::Release))?;
        *self.tools.lock().unwrap_or_else(PoisonError::into_inner) = tools.into();
        self.listed.store(change, Ordering::Release);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut tools: Vec<Listed> = Vec::new();
        let offers_tools = self
            .service
            .peer_info()
            .is_some_and(|info| info.capabilities.tools.is_some());
        if !offers_tools {
            return Ok(tools);
        }
        let mut bytes = 0;
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let mut page = PaginatedRequestParams::default();
            page.cursor = cursor;
            let page = self
                .service
                .peer()
                .list_tools(Some(page))
                .await
                .map_err(|error| {
                    Error::connection(format!("it does not list its tools: {}", self.cause(&error)))
                })?;
            for tool in page.tools {
                if self.secrets.are_in(&tool.name) {
                    tracing::warn!(
                        server = self.server,
                        "an MCP server has a secret in a tool's name; it is left out"
                    );
                    continue;
                }
                let tool = listed(tool, &self.secrets);
                bytes += tool.name.len() + tool.description.len() + json_len(&tool.schema);
                let is_known = tools.iter().any(|known| known.name == tool.name);
                if tools.len() == MAX_TOOLS || bytes > MAX_TOOL_BYTES {
                    tracing::warn!(server = self.server, "an MCP server's list of tools is cut off");
                    return Ok(tools);
                }
                if !is_known {
                    tools.push(tool);
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        tracing::warn!(
            server = self.server,
            "an MCP server's list of tools has too many pages"
        );
        Ok(tools)
    }

    /// Calls a tool. Dropping the future tells the server that nobody waits any more.
    pub(crate) async fn call(&self, tool: &str, input: &Value, patience: Duration) -> Outcome {
        let Value::Object(arguments) = input else {
            return Outcome::error("The tool's input must be a JSON object.");
        };
        let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.clone());
        let answer = timeout(patience, self.service.peer().call_tool_once(request)).await;
        let server = &self.server;
        match answer {
            Ok(Ok(CallToolResponse::Complete(result))) => outcome::outcome(result, &self.secrets),
            Ok(Ok(_)) => Outcome::error(format!(
                "The MCP server {server:?} wants more than this tool use can give (further input, or a task to \
                 follow)."
            )),
            Ok(Err(ServiceError::McpError(error))) => {
                let message = short(&self.secrets.scrub(error.message.to_string()));
                Outcome::error(format!(
                    "The MCP server {server:?} answered with an error: {message}"
                ))
            }
            Ok(Err(error)) => {
                self.broken.store(true, Ordering::Release);
                Outcome::error(format!(
                    "The MCP server {server:?} failed during the call: {}. The call may or may not have taken \
                     effect.",
                    self.cause(&error)
                ))
            }
            Err(_) => Outcome::error(format!(
                "The MCP server {server:?} did not answer within {patience:?} and was told that nobody waits any \
                 more. The call may or may not have taken effect."
            )),
        }
    }

    fn cause(&self, error: &ServiceError) -> String {
        let text = match error {
            ServiceError::McpError(error) => error.message.to_string(),
            ServiceError::TransportClosed => "the connection is closed".to_owned(),
            ServiceError::TransportSend(error) => error.to_string(),
            other => other.to_string(),
        };
        short(&self.secrets.scrub(text))
    }
}

fn listed(tool: Tool, secrets: &Secrets) -> Listed {
    let described = tool
        .description
        .as_deref()
        .or(tool.title.as_deref())
        .unwrap_or_default();
    let described = secrets.scrub(described.to_owned());
    let mut schema = secrets.scrub_object(Arc::unwrap_or_clone(tool.input_schema));
    // Every provider wants this said.
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        schema.insert("type".to_owned(), "object".into());
    }
    Listed {
        name: tool.name.into_owned(),
        description: described.chars().take(MAX_DESCRIPTION).collect(),
        schema: Arc::new(schema),
    }
}

fn json_len(schema: &JsonObject) -> usize {
    serde_json::to_string(schema).map_or(usize::MAX / 2, |text| text.len())
}
