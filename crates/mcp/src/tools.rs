//! What the servers of a session offer at one moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oma_domain::origin::{Origin, ServerTool};
use oma_domain::policy::{Permission, PermissionPolicy};
use oma_domain::session::Outcome;
use serde_json::Value;

use crate::connection::Connection;
use crate::names;

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// `mcp__server__tool`.
    pub name: String,
    /// What it does, in the server's words.
    pub description: String,
    /// The server's JSON schema of its arguments.
    pub input_schema: Value,
}

/// What the servers of a session offer at one moment. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tools {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    definitions: Vec<Definition>,
    routes: HashMap<String, Route>,
    patience: Duration,
}

struct Route {
    connection: Arc<Connection>,
    tool: String,
}

impl Tools {
    /// The tools of these connections, each with its server's name within names.
    pub(crate) fn gather(connections: &[(String, Arc<Connection>)], patience: Duration) -> Self {
        let mut inner = Inner {
            patience,
            ..Inner::default()
        };
        for (server, connection) in connections {
            let listed = connection.tools();
            let raw: Vec<&str> = listed.iter().map(|tool| tool.name.as_str()).collect();
            for (name, tool) in names::of_tools(server, &raw).into_iter().zip(listed.iter()) {
                let route = Route {
                    connection: Arc::clone(connection),
                    tool: tool.name.clone(),
                };
                if inner.routes.insert(name.clone(), route).is_none() {
                    inner.definitions.push(Definition {
                        name,
                        description: tool.description.clone(),
                        input_schema: Value::Object((*tool.schema).clone()),
                    });
                }
            }
        }
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What the model is told.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.inner.definitions
    }

    /// Whether there is such a tool now.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.inner.routes.contains_key(name)
    }

    /// What a policy says of a tool, by every name that it may know the tool by.
    #[must_use]
    pub fn permission(&self, policy: &PermissionPolicy, name: &str) -> Permission {
        match self.inner.routes.get(name) {
            Some(route) => policy.evaluate_any(&names::aliases(route.connection.server(), &route.tool, name)),
            None => policy.evaluate(name),
        }
    }

    /// Where a tool comes from, and who is to say whether it runs.
    #[must_use]
    pub fn origin(&self, policy: &PermissionPolicy, name: &str) -> Option<Origin> {
        let route = self.inner.routes.get(name)?;
        let server = ServerTool {
            server: route.connection.server().to_owned(),
            tool: route.tool.clone(),
        };
        let names = names::aliases(&server.server, &server.tool, name);
        Some(Origin::of(policy, &names, Some(server)))
    }

    /// Calls a tool, within the bound on one call. Dropping the future cancels the call at the server.
    pub async fn call(&self, name: &str, input: &Value) -> Outcome {
        match self.inner.routes.get(name) {
            Some(route) => {
                let outcome = route
                    .connection
                    .call(&route.tool, input, self.inner.patience)
                    .await;
                let label = if outcome.is_error { "error" } else { "ok" };
                metrics::counter!("mcp_calls_total", "outcome" => label).increment(1);
                outcome
            }
            None => Outcome::error(format!(
                "There is no tool called {name} now: its MCP server does not offer it, or can't be reached."
            )),
        }
    }
}
