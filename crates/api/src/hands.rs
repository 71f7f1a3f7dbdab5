//! Whoever carries out the tools of self-hosted environments: with a key that is bound to one environment, or with the
//! token of one work item.
//!
//! Invariant: such a caller may poll for work, keep and end it, read the sessions that it is about and send results of
//! their tools; nothing else, and nothing of another environment. What is not listed here is refused.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use oma_domain::memory::Access;
use oma_domain::{EnvironmentId, SessionId, WorkspaceId};
use oma_engine::{Error, MemoryError, work_token};

use crate::AppState;
use crate::dialect::Dialect;
use crate::fault::{Fault, Result};

/// What a caller carries out.
#[derive(Debug, Clone)]
pub(crate) enum Hands {
    /// Whatever there is in this environment.
    Environment(EnvironmentId),
    /// One item.
    Item(Box<work_token::Claims>),
}

/// What is called.
pub(crate) struct Call {
    method: Method,
    /// The pattern of the path; empty for what no route takes, and for other dialects, which know no work.
    route: String,
    path: String,
}

impl Call {
    pub(crate) fn of(request: &Request, dialect: Dialect) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        let route = route.filter(|_| dialect == Dialect::Claude);
        Self {
            method: request.method().clone(),
            route: route.map(|route| route.as_str().to_owned()).unwrap_or_default(),
            path: request.uri().path().to_owned(),
        }
    }
}

/// What a route is about.
enum About {
    /// The environment's queue.
    Queue,
    /// An item of it.
    Item,
    /// A session.
    Session,
    /// A skill, which every agent of the workspace may have.
    Skill,
    /// A memory store, to read it or to write to it.
    Memory(Access),
}

const QUEUE: &str = "/v1/environments/{environment_id}/work";

/// The routes that such callers may use.
fn about(method: &Method, route: &str) -> Option<About> {
    if let Some(rest) = route.strip_prefix(QUEUE) {
        return match (method.as_str(), rest) {
            ("GET", "" | "/poll" | "/stats") => Some(About::Queue),
            ("GET" | "POST", "/{work_id}")
            | ("POST", "/{work_id}/ack" | "/{work_id}/heartbeat" | "/{work_id}/stop") => Some(About::Item),
            _ => None,
        };
    }
    match (method.as_str(), route) {
        ("GET", "/v1/sessions/{session_id}" | "/v1/sessions/{session_id}/events/stream")
        | ("GET" | "POST", "/v1/sessions/{session_id}/events") => Some(About::Session),
        ("GET", route)
            if route == "/v1/skills/{skill_id}" || route.starts_with("/v1/skills/{skill_id}/versions") =>
        {
            Some(About::Skill)
        }
        (
            "GET",
            "/v1/memory_stores/{memory_store_id}"
            | "/v1/memory_stores/{memory_store_id}/memories"
            | "/v1/memory_stores/{memory_store_id}/memories/{memory_id}",
        ) => Some(About::Memory(Access::ReadOnly)),
        ("POST", "/v1/memory_stores/{memory_store_id}/memories")
        | ("POST" | "DELETE", "/v1/memory_stores/{memory_store_id}/memories/{memory_id}") => {
            Some(About::Memory(Access::ReadWrite))
        }
        _ => None,
    }
}

/// The text of a path where its pattern has this parameter.
fn parameter<'a>(route: &str, path: &'a str, name: &str) -> &'a str {
    let mut segments = route.split('/').zip(path.split('/'));
    let found = segments
        .find(|(pattern, _)| pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(name));
    found.map_or("", |(_, text)| text)
}

impl Hands {
    fn environment(&self) -> &EnvironmentId {
        match self {
            Self::Environment(id) => id,
            Self::Item(claims) => &claims.environment,
        }
    }

    /// Lets a request through that is among what such a caller may do.
    ///
    /// # Errors
    /// 403 for other routes; 404 for what is not its own; 401 when its item is somebody else's by now.
    pub(crate) async fn permit(&self, state: &AppState, workspace: &WorkspaceId, call: Call) -> Result<()> {
        let Some(about) = about(&call.method, &call.route) else {
            return Err(forbidden());
        };
        let named = |name| parameter(&call.route, &call.path, name);
        let is_over = match self {
            Self::Environment(_) => false,
            Self::Item(claims) => !state.engine.is_at_work(claims).await?,
        };
        match about {
            About::Queue | About::Item if named("environment_id") != self.environment().as_str() => {
                Err(Error::EnvironmentNotFound.into())
            }
            About::Queue if matches!(self, Self::Item(_)) => Err(forbidden()),
            About::Item => match self {
                Self::Item(claims) if named("work_id") != claims.work.as_str() => {
                    Err(Error::WorkNotFound.into())
                }
                _ => Ok(()),
            },
            About::Queue => Ok(()),
            // Of an item that is over no more than that may be learned.
            About::Session | About::Skill | About::Memory(_) if is_over => {
                Err(Error::InvalidWorkToken.into())
            }
            About::Memory(access) => match self {
                Self::Item(claims) => {
                    permit_memory(
                        state,
                        workspace,
                        &claims.session,
                        named("memory_store_id"),
                        access,
                    )
                    .await
                }
                Self::Environment(_) => Err(forbidden()),
            },
            About::Session => self.permit_session(state, workspace, named("session_id")).await,
            About::Skill => Ok(()),
        }
    }

    async fn permit_session(&self, state: &AppState, workspace: &WorkspaceId, named: &str) -> Result<()> {
        let id = SessionId::parse(named).map_err(|_| Fault::from(Error::SessionNotFound))?;
        let is_own = match self {
            Self::Item(claims) => claims.session == id,
            Self::Environment(own) => {
                let session = state.engine.session(workspace, &id).await?;
                session
                    .environment
                    .is_some_and(|environment| environment.id == *own)
            }
        };
        is_own.then_some(()).ok_or_else(|| Error::SessionNotFound.into())
    }
}

/// A worker reads the memory stores that its session has, and writes to those that the session may write to.
async fn permit_memory(
    state: &AppState,
    workspace: &WorkspaceId,
    session: &SessionId,
    store: &str,
    wanted: Access,
) -> Result<()> {
    let session = state.engine.session(workspace, session).await?;
    let attached = session
        .memories
        .iter()
        .find(|attached| attached.store.as_str() == store);
    match attached.map(|attached| attached.access) {
        None => Err(Error::from(MemoryError::StoreNotFound).into()),
        Some(Access::ReadOnly) if wanted == Access::ReadWrite => Err(forbidden()),
        Some(_) => Ok(()),
    }
}

/// This is nothing that such callers may do.
pub(crate) fn forbidden() -> Fault {
    let message =
        "This key or token is for carrying out the work of a self-hosted environment, and for nothing else";
    Fault::new(StatusCode::FORBIDDEN, "forbidden", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_place() {
        let route = "/v1/environments/{environment_id}/work/{work_id}/ack";
        let path = "/v1/environments/env_1/work/work_2/ack";
        assert_eq!(parameter(route, path, "environment_id"), "env_1");
        assert_eq!(parameter(route, path, "work_id"), "work_2");
        assert_eq!(parameter(route, path, "session_id"), "");
    }
}
