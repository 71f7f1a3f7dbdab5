//! Webhooks: endpoints of clients that are told what happens, and what they are told.

use serde::{Deserialize, Serialize};

use crate::event::{Body, StopReason, ThreadStatus};
use crate::id::{DeliveryId, SessionId, WebhookId, WorkspaceId};
use crate::time::Timestamp;

/// The most endpoints of a workspace.
pub const MAX_ENDPOINTS: u32 = 50;
/// The most notices that wait for one endpoint; later ones are dropped.
pub const MAX_BACKLOG: u32 = 10_000;

macro_rules! topics {
    ($($name:ident = $text:literal,)+) => {
        /// What a notice is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each says itself what it is, in the words of the API")]
        pub enum Topic {
            $(#[serde(rename = $text)] $name,)+
        }

        impl Topic {
            /// All there are, those that never come up here included.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As clients read it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

topics! {
    SessionCreated = "session.created",
    SessionPending = "session.pending",
    SessionRunning = "session.running",
    SessionIdled = "session.idled",
    SessionRequiresAction = "session.requires_action",
    SessionArchived = "session.archived",
    SessionDeleted = "session.deleted",
    SessionUpdated = "session.updated",
    SessionRunStarted = "session.status_run_started",
    SessionStatusIdled = "session.status_idled",
    SessionRescheduled = "session.status_rescheduled",
    SessionTerminated = "session.status_terminated",
    SessionBudgetReached = "session.budget_reached",
    ThreadCreated = "session.thread_created",
    ThreadIdled = "session.thread_idled",
    ThreadTerminated = "session.thread_terminated",
    OutcomeEvaluationEnded = "session.outcome_evaluation_ended",
    AgentCreated = "agent.created",
    AgentUpdated = "agent.updated",
    AgentArchived = "agent.archived",
    AgentDeleted = "agent.deleted",
    EnvironmentCreated = "environment.created",
    EnvironmentUpdated = "environment.updated",
    EnvironmentArchived = "environment.archived",
    EnvironmentDeleted = "environment.deleted",
    DeploymentCreated = "deployment.created",
    DeploymentUpdated = "deployment.updated",
    DeploymentPaused = "deployment.paused",
    DeploymentUnpaused = "deployment.unpaused",
    DeploymentArchived = "deployment.archived",
    DeploymentDeleted = "deployment.deleted",
    RunStarted = "deployment_run.started",
    RunSucceeded = "deployment_run.succeeded",
    RunFailed = "deployment_run.failed",
    VaultCreated = "vault.created",
    VaultArchived = "vault.archived",
    VaultDeleted = "vault.deleted",
    CredentialCreated = "vault_credential.created",
    CredentialArchived = "vault_credential.archived",
    CredentialDeleted = "vault_credential.deleted",
    CredentialRefreshFailed = "vault_credential.refresh_failed",
    MemoryStoreCreated = "memory_store.created",
    MemoryStoreArchived = "memory_store.archived",
    MemoryStoreDeleted = "memory_store.deleted",
    UserProfileStatusUpdated = "user_profile.program_status_updated",
    UserProfileActionOpened = "user_profile.enforcement_action_opened",
    UserProfileActionResolved = "user_profile.enforcement_action_resolved",
    ExternalKeyFailed = "external_key.failed",
    ExternalKeyRecovered = "external_key.recovered",
    ExternalStorageFailed = "external_storage.failed",
    ExternalStorageRecovered = "external_storage.recovered",
}

impl Topic {
    /// Reads what [`Topic::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|topic| topic.as_str() == text)
    }

    /// What an event of a session is told as.
    #[must_use]
    pub fn of_event(body: &Body) -> &'static [Self] {
        match body {
            Body::StatusRunning => &[Self::SessionRunning, Self::SessionRunStarted],
            Body::StatusIdle { stop_reason, .. } => match stop_reason {
                StopReason::RequiresAction { .. } => &[
                    Self::SessionRequiresAction,
                    Self::SessionIdled,
                    Self::SessionStatusIdled,
                ],
                StopReason::BudgetReached { .. } => &[
                    Self::SessionBudgetReached,
                    Self::SessionIdled,
                    Self::SessionStatusIdled,
                ],
                _ => &[Self::SessionIdled, Self::SessionStatusIdled],
            },
            Body::StatusTerminated => &[Self::SessionArchived, Self::SessionTerminated],
            Body::SessionUpdated { .. } => &[Self::SessionUpdated],
            Body::OutcomeEvaluationEnd { .. } => &[Self::OutcomeEvaluationEnded],
            Body::ThreadCreated { .. } => &[Self::ThreadCreated],
            Body::ThreadStatus { status, .. } => match status {
                ThreadStatus::Running => &[],
                ThreadStatus::Idle { .. } => &[Self::ThreadIdled],
                ThreadStatus::Terminated => &[Self::ThreadTerminated],
            },
            _ => &[],
        }
    }

    /// The thread that an event of a session is told with.
    #[must_use]
    pub fn thread_of_event(body: &Body) -> Option<&SessionId> {
        match body {
            Body::ThreadCreated { thread, .. } | Body::ThreadStatus { thread, .. } => Some(thread),
            _ => None,
        }
    }
}

/// Why an endpoint is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disabled {
    /// A client wanted it so.
    Manual,
    /// It redirected.
    Redirect,
    /// It has an address that may not be dialled.
    AddressNotAllowed,
}

impl Disabled {
    /// As clients read it: they know what they did themselves.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "",
            Self::Redirect => "redirect",
            Self::AddressNotAllowed => "address_not_allowed",
        }
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: WebhookId,
    /// Whose it is; it is told what happens there.
    pub workspace: WorkspaceId,
    /// A name for people.
    pub name: String,
    /// What it is for, for people.
    pub description: String,
    /// Where it is.
    pub url: String,
    /// What it is told.
    pub topics: Vec<Topic>,
    /// Why it is told nothing at present.
    pub disabled: Option<Disabled>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
    /// Counts its changes, from 1.
    pub revision: u64,
}

/// A notice on its way to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same at every attempt.
    pub id: DeliveryId,
    /// What it is about.
    pub topic: Topic,
    /// The id of what it is about.
    pub resource: String,
    /// The vault of a credential.
    pub vault: Option<String>,
    /// The thread of a session.
    pub thread: Option<SessionId>,
    /// When it happened.
    pub created_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back() {
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(topic.as_str()), Some(*topic));
            assert_eq!(serde_json::to_value(topic).expect("JSON"), topic.as_str());
        }
        assert_eq!(Topic::parse("session"), None);
    }
}
