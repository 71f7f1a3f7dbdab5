//! What each route that changes something is called in the audit trail.

use axum::http::Method;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) name: &'static str,
    /// The part of the path that names what it is done to.
    pub(super) target: Option<&'static str>,
}

impl Action {
    /// Whether its entry is written by the transaction that carries it out, so that there is never one without the
    /// other, and nothing has to be noted before. Where a call of that name is something else, its handler notes it.
    pub(super) fn is_atomic(self) -> bool {
        self.name == "session.event" || self.changes_seldom()
    }

    /// Whether it may change something elsewhere than in the store: files of a session, tokens at an issuer.
    pub(super) fn reaches_out(self) -> bool {
        matches!(
            self.name,
            "agent.file.write"
                | "agent.file.delete"
                | "credential.validate"
                | "checkpoint.create"
                | "session.restore"
        )
    }

    /// Whether most calls that succeed change nothing: then only those are recorded whose transaction does it, and
    /// those that fail.
    pub(super) fn changes_seldom(self) -> bool {
        self.name == TAKE
    }
}

/// A worker asks for work, and mostly there is none.
const TAKE: &str = "work.take";

/// The action of a call; `None` for calls that only look. `route` is the pattern that matched.
pub(super) fn of(method: &Method, route: &str) -> Option<Action> {
    if matches!(*method, Method::GET | Method::HEAD) && route == "/auth/github/callback" {
        // A browser comes by; it makes a user or a new token all the same.
        let name = "user.sign_in";
        return Some(Action { name, target: None });
    }
    if *method == Method::GET && route == "/v1/environments/{environment_id}/work/poll" {
        // Whoever gets an item gets a token with it. The environment, until it is known which item.
        let target = Some("environment_id");
        return Some(Action { name: TAKE, target });
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let (name, target) = match (method.as_str(), route) {
        ("POST", "/v1/agents") => ("agent.create", None),
        ("PATCH", "/v1/agents/{agent_id}") => ("agent.update", Some("agent_id")),
        ("DELETE", "/v1/agents/{agent_id}") => ("agent.delete", Some("agent_id")),
        ("POST", "/v1/agents/{agent_id}/archive") => ("agent.archive", Some("agent_id")),
        ("POST", "/v1/agents/{agent_id}/warm") => ("agent.warm", Some("agent_id")),
        ("POST", "/v1/agents/{agent_id}/run") => ("agent.run", Some("agent_id")),
        ("PUT", "/v1/agents/{agent_id}/files/{*path}") => ("agent.file.write", Some("agent_id")),
        ("DELETE", "/v1/agents/{agent_id}/files/{*path}") => ("agent.file.delete", Some("agent_id")),
        ("POST", "/v1/agents/{agent_id}") => ("agent.update", Some("agent_id")),
        ("POST", "/v1/environments") => ("environment.create", None),
        ("DELETE", "/v1/environments/{environment_id}") => ("environment.delete", Some("environment_id")),
        ("POST", "/v1/environments/{environment_id}") => ("environment.update", Some("environment_id")),
        ("POST", "/v1/environments/{environment_id}/archive") => {
            ("environment.archive", Some("environment_id"))
        }
        ("POST", "/v1/deployments") => ("deployment.create", None),
        ("POST", "/v1/deployments/{deployment_id}") => ("deployment.update", Some("deployment_id")),
        ("POST", "/v1/deployments/{deployment_id}/archive") => ("deployment.archive", Some("deployment_id")),
        ("POST", "/v1/deployments/{deployment_id}/pause") => ("deployment.pause", Some("deployment_id")),
        ("POST", "/v1/deployments/{deployment_id}/unpause") => ("deployment.unpause", Some("deployment_id")),
        ("POST", "/v1/deployments/{deployment_id}/run") => ("deployment.run", Some("deployment_id")),
        ("POST", "/v1/organizations/webhooks") => ("webhook.create", None),
        ("POST", "/v1/organizations/webhooks/{webhook_endpoint_id}") => {
            ("webhook.update", Some("webhook_endpoint_id"))
        }
        ("DELETE", "/v1/organizations/webhooks/{webhook_endpoint_id}") => {
            ("webhook.delete", Some("webhook_endpoint_id"))
        }
        ("POST", "/v1/organizations/webhooks/{webhook_endpoint_id}/regenerate_signing_secret") => {
            ("webhook.rotate", Some("webhook_endpoint_id"))
        }
        ("POST", "/v1/environments/{environment_id}/work/{work_id}") => ("work.update", Some("work_id")),
        ("POST", "/v1/environments/{environment_id}/work/{work_id}/ack") => ("work.ack", Some("work_id")),
        ("POST", "/v1/environments/{environment_id}/work/{work_id}/heartbeat") => {
            ("work.heartbeat", Some("work_id"))
        }
        ("POST", "/v1/environments/{environment_id}/work/{work_id}/stop") => ("work.stop", Some("work_id")),
        ("POST", "/v1/vaults") => ("vault.create", None),
        ("PATCH", "/v1/vaults/{vault_id}") => ("vault.update", Some("vault_id")),
        ("POST", "/v1/vaults/{vault_id}") => ("vault.update", Some("vault_id")),
        ("POST", "/v1/vaults/{vault_id}/archive") => ("vault.archive", Some("vault_id")),
        ("DELETE", "/v1/vaults/{vault_id}") => ("vault.delete", Some("vault_id")),
        // The vault, until the handler knows the credential.
        ("POST", "/v1/vaults/{vault_id}/credentials") => ("credential.create", Some("vault_id")),
        ("PATCH", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
            ("credential.update", Some("credential_id"))
        }
        ("POST", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
            ("credential.update", Some("credential_id"))
        }
        ("POST", "/v1/vaults/{vault_id}/credentials/{credential_id}/archive") => {
            ("credential.archive", Some("credential_id"))
        }
        // It may replace the tokens.
        ("POST", "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate") => {
            ("credential.validate", Some("credential_id"))
        }
        ("DELETE", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
            ("credential.delete", Some("credential_id"))
        }
        ("POST", "/v1/sessions") => ("session.create", None),
        ("DELETE", "/v1/sessions/{session_id}") => ("session.delete", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}") => ("session.update", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/archive") => ("session.archive", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/threads/{thread_id}/archive") => {
            ("session.thread.archive", Some("thread_id"))
        }
        ("POST", "/v1/files") => ("file.create", None),
        ("DELETE", "/v1/files/{file_id}") => ("file.delete", Some("file_id")),
        // The session, until the handler knows the resource.
        ("POST", "/v1/sessions/{session_id}/resources") => ("session.resource.add", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/resources/{resource_id}") => {
            ("session.resource.update", Some("resource_id"))
        }
        ("DELETE", "/v1/sessions/{session_id}/resources/{resource_id}") => {
            ("session.resource.remove", Some("resource_id"))
        }
        ("POST", "/v1/sessions/{session_id}/events") => ("session.event", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/cancel") => ("session.cancel", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/parent_token") => ("session.parent_token", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/checkpoints") => ("checkpoint.create", Some("session_id")),
        ("DELETE", "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}") => {
            ("checkpoint.delete", Some("checkpoint_id"))
        }
        ("POST", "/v1/sessions/{session_id}/restore") => ("session.restore", Some("session_id")),
        ("POST", "/v1/sessions/{session_id}/compact") => ("session.compact", Some("session_id")),
        ("POST", "/v1/memory_stores") => ("memory_store.create", None),
        ("POST", "/v1/memory_stores/{memory_store_id}") => ("memory_store.update", Some("memory_store_id")),
        ("DELETE", "/v1/memory_stores/{memory_store_id}") => ("memory_store.delete", Some("memory_store_id")),
        ("POST", "/v1/memory_stores/{memory_store_id}/archive") => {
            ("memory_store.archive", Some("memory_store_id"))
        }
        // The store, until the handler knows the memory.
        ("POST", "/v1/memory_stores/{memory_store_id}/memories") => {
            ("memory.create", Some("memory_store_id"))
        }
        ("POST", "/v1/memory_stores/{memory_store_id}/memories/{memory_id}") => {
            ("memory.update", Some("memory_id"))
        }
        ("DELETE", "/v1/memory_stores/{memory_store_id}/memories/{memory_id}") => {
            ("memory.delete", Some("memory_id"))
        }
        ("POST", "/v1/memory_stores/{memory_store_id}/memory_versions/{memory_version_id}/redact") => {
            ("memory_version.redact", Some("memory_version_id"))
        }
        ("POST", "/v1/skills") => ("skill.create", None),
        ("DELETE", "/v1/skills/{skill_id}") => ("skill.delete", Some("skill_id")),
        // The skill, until the handler knows the version.
        ("POST", "/v1/skills/{skill_id}/versions") => ("skill_version.create", Some("skill_id")),
        ("DELETE", "/v1/skills/{skill_id}/versions/{version}") => ("skill_version.delete", Some("version")),
        ("POST", "/v1/chat/completions") => ("chat.completion", None),
        ("POST", "/auth/anonymous") => ("user.create", None),
        ("POST", "/v1/workspaces") => ("workspace.create", None),
        ("PATCH", "/v1/workspaces/{workspace_id}") => ("workspace.update", Some("workspace_id")),
        ("PATCH", "/v1/keys/{key_id}") => ("key.update", Some("key_id")),
        ("POST", "/v1/keys") => ("key.create", None),
        ("POST", "/v1/keys/{key_id}/rotate") => ("key.rotate", Some("key_id")),
        ("DELETE", "/v1/keys/{key_id}") => ("key.revoke", Some("key_id")),
        // A test sees to it that every route of the document has a name; a method that a route does not take, or
        // a path of another dialect, has none.
        _ => (UNNAMED, None),
    };
    Some(Action { name, target })
}

/// The action of calls that no route takes.
pub(super) const UNNAMED: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_of_the_document_has_a_name() {
        let document = serde_json::to_value(crate::openapi::document()).expect("JSON");
        let mut named = 0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("operations").keys() {
                let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                    continue;
                };
                // The document has no word for a parameter that takes the rest of a path.
                let route = path.replace("{path}", "{*path}");
                if let Some(action) = of(&method, &route) {
                    assert_ne!(action.name, UNNAMED, "{method} {path}: name it here");
                    named += 1;
                }
            }
        }
        assert!(named >= 19, "{named}");
    }
}
