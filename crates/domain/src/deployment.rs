//! Deployments: sessions that are opened again and again, by a schedule or by hand, and the record of each time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::content::ContentBlock;
use crate::cron::Cron;
use crate::id::{
    AgentId, DeploymentId, EnvironmentId, FileId, KeyId, MemoryStoreId, RunId, SessionId, VaultId,
    WorkspaceId,
};
use crate::memory::Access;
use crate::quota::Quota;
use crate::resource::Checkout;
use crate::time::Timestamp;
use crate::vault::Sealed;

/// The most deployments of a workspace that are not archived.
pub const MAX_DEPLOYMENTS: u32 = 1000;
/// The most events that a run's session begins with.
pub const MAX_INITIAL_EVENTS: usize = 50;

/// When a deployment runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The times of its wall clock.
    pub cron: Cron,
    /// The IANA name of the time zone whose clock it is.
    pub timezone: String,
}

/// What a run's session begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InitialEvent {
    /// A message of the user.
    Message {
        /// What it says.
        content: Vec<ContentBlock>,
    },
    /// What is to be achieved.
    DefineOutcome {
        /// The outcome.
        description: String,
        /// What the grader goes by.
        rubric: String,
        /// How often the grader looks at the work at the most.
        max_iterations: u32,
    },
    /// A system message, which accompanies the message before it.
    System {
        /// What it says.
        content: Vec<ContentBlock>,
    },
}

/// What each run's session is given, as a session of its own kind is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Resource {
    /// A file.
    File {
        /// Which; each session gets a copy of its own.
        file: FileId,
        /// Its path in the sandbox, where the client gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mount_path: Option<String>,
    },
    /// A git repository.
    Repository {
        /// Where it is from.
        url: String,
        /// What its host asks for, sealed for this deployment and this URL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Sealed>,
        /// What of it; its default branch without this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkout: Option<Checkout>,
        /// Its path in the sandbox, where the client gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mount_path: Option<String>,
    },
    /// A memory store.
    MemoryStore {
        /// Which.
        store: MemoryStoreId,
        /// What the session may do with it.
        access: Access,
        /// How to use it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instructions: Option<String>,
    },
}

/// What a client gives to create a deployment, with the agent's version pinned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The agent whose sessions it opens.
    pub agent: AgentId,
    /// The version of the agent that they run.
    pub agent_version: u32,
    /// The environment that they run in.
    pub environment: EnvironmentId,
    /// What they begin with.
    pub initial_events: Vec<InitialEvent>,
    /// When it runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The vaults that they name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vaults: Vec<VaultId>,
    /// What they are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// What each of them may consume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Quota>,
    /// Whatever the client wants to remember with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A time of a schedule, and when its run is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The time of the schedule.
    pub scheduled_at: Timestamp,
    /// When the run is made: a little later, so that not all deployments run at once.
    pub fires_at: Timestamp,
}

/// Why a deployment does not run by itself at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "error", rename_all = "snake_case")]
pub enum Pause {
    /// A client wanted it so.
    Manual,
    /// A run met something that does not go away by itself.
    Error(ErrorKind),
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal, lasts: $lasts:literal;)+) => {
        /// Why a run opened no session.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum ErrorKind {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl ErrorKind {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As clients read it, and as it is stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Whether the next run would meet it again, so that the deployment is paused.
            #[must_use]
            pub fn lasts(self) -> bool {
                match self {
                    $(Self::$name => $lasts,)+
                }
            }
        }
    };
}

error_kinds! {
    /// The environment is archived.
    EnvironmentArchived = "environment_archived_error", lasts: true;
    /// The environment is gone.
    EnvironmentNotFound = "environment_not_found_error", lasts: true;
    /// The agent is archived or gone.
    AgentArchived = "agent_archived_error", lasts: true;
    /// A vault is gone.
    VaultNotFound = "vault_not_found_error", lasts: true;
    /// A version of a skill that the agent has is gone.
    SkillNotFound = "skill_not_found_error", lasts: true;
    /// A file is gone.
    FileNotFound = "file_not_found_error", lasts: true;
    /// A memory store is archived.
    MemoryStoreArchived = "memory_store_archived_error", lasts: true;
    /// Something else that the session is to be given is gone.
    SessionResourceNotFound = "session_resource_not_found_error", lasts: true;
    /// A self-hosted environment takes none of these.
    SelfHostedResources = "self_hosted_resources_unsupported_error", lasts: true;
    /// A vault is archived.
    VaultArchived = "vault_archived_error", lasts: true;
    /// A budget or a bound leaves no room for now.
    SessionRateLimited = "session_rate_limited_error", lasts: false;
    /// This server can't run the session as it is asked for.
    SessionCreationRejected = "session_creation_rejected_error", lasts: false;
}

impl ErrorKind {
    /// Reads what [`ErrorKind::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it does.
    pub spec: Spec,
    /// The API key that it was created with, which is charged for its sessions.
    pub created_by: Option<KeyId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a client changed it last, or it was paused.
    pub updated_at: Timestamp,
    /// When it was archived; it never runs again.
    pub archived_at: Option<Timestamp>,
    /// Why it does not run by itself at present.
    pub paused: Option<Pause>,
    /// When it runs next; `None` while it does not run by itself.
    pub next: Option<Tick>,
    /// When its schedule ran it last.
    pub last_run_at: Option<Timestamp>,
    /// Counts its changes, from 1.
    pub revision: u64,
}

impl Deployment {
    /// Its schedule, while it runs by it.
    #[must_use]
    pub fn live_schedule(&self) -> Option<&Schedule> {
        let live = self.archived_at.is_none() && self.paused.is_none();
        self.spec.schedule.as_ref().filter(|_| live)
    }
}

/// What made a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A client.
    Manual,
    /// The schedule.
    Schedule {
        /// The time of the schedule.
        scheduled_at: Timestamp,
    },
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It opened this session.
    Session(SessionId),
    /// It opened none.
    Failed {
        /// Why.
        kind: ErrorKind,
        /// Why, for people.
        message: String,
    },
}

/// The record of one run. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The agent whose session was to be opened.
    pub agent: AgentId,
    /// Its version.
    pub agent_version: u32,
    /// What made it.
    pub trigger: Trigger,
    /// What came of it.
    pub outcome: Outcome,
    /// When it was made.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_errors_read_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::parse(kind.as_str()), Some(*kind));
            let json = serde_json::to_value(kind).expect("JSON");
            assert_eq!(json, kind.as_str());
        }
        let pause = serde_json::to_string(&Pause::Error(ErrorKind::AgentArchived)).expect("JSON");
        assert_eq!(pause, r#"{"type":"error","error":"agent_archived_error"}"#);
    }

    #[test]
    fn a_time_of_a_schedule_has_one_run() {
        let deployment = DeploymentId::generate();
        let run = |at| RunId::of_tick(&deployment, Timestamp(at));
        assert_eq!(run(60_000), run(60_000));
        assert_ne!(run(60_000), run(120_000));
        assert!(run(60_000).as_str().starts_with("drun_"));
        assert_ne!(run(0), RunId::of_tick(&DeploymentId::generate(), Timestamp(0)));
    }
}
