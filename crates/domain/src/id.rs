//! Typed ids: a prefix that names the kind, then a ULID in lower case. They sort by creation time and are
//! opaque to clients.

use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::workflow::Call;

/// The longest id that is accepted from a client, in bytes.
pub const MAX_LEN: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_LEN} characters of A-Z, a-z, 0-9, '_' and '-'")]
pub struct Invalid;

fn check(text: &str) -> Result<(), Invalid> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.is_empty() || text.len() > MAX_LEN || !text.bytes().all(legal) {
        return Err(Invalid);
    }
    Ok(())
}

/// Within a millisecond it counts up, so that ids sort as they were made.
static GENERATOR: Mutex<ulid::Generator> = Mutex::new(ulid::Generator::new());

fn fresh(prefix: &str) -> Arc<str> {
    let mut generator = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    // After some 2^79 ids in one millisecond the order is lost, but not the uniqueness.
    let ulid = generator
        .generate()
        .unwrap_or_else(|full| full.commit_overflow_random());
    let text = ulid.to_string().to_ascii_lowercase();
    Arc::from(format!("{prefix}_{text}"))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A new id; later ones of one process sort after earlier ones.
            #[must_use]
            pub fn generate() -> Self {
                Self(fresh($prefix))
            }

            /// Accepts an id that came from outside.
            ///
            /// # Errors
            /// [`Invalid`] when the text is empty, too long or has a character no id has.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.to_string()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// An agent definition, over all its versions.
    AgentId, "agt"
);
id!(
    /// An environment.
    EnvironmentId, "env"
);
id!(
    /// A session. Also holds the keys that clients choose for sticky chat sessions.
    SessionId, "ses"
);
id!(
    /// An event of a session's log. A tool use's id is the id of its event.
    EventId, "evt"
);
id!(
    /// An entry of the audit trail.
    AuditId, "aud"
);
id!(
    /// An API key. It names the key; it is no secret.
    KeyId, "key"
);
id!(
    /// Somebody who signed up.
    UserId, "usr"
);
id!(
    /// A file of the files API.
    FileId, "file"
);
id!(
    /// Something that a session's sandbox is given.
    ResourceId, "sesrsc"
);
id!(
    /// A vault.
    VaultId, "vlt"
);
id!(
    /// A credential of a vault.
    CredentialId, "crd"
);
id!(
    /// A store of memories.
    MemoryStoreId, "memstore"
);
id!(
    /// A memory, over all its versions.
    MemoryId, "mem"
);
id!(
    /// A change of a memory.
    MemoryVersionId, "memver"
);
id!(
    /// A skill, over all its versions.
    SkillId, "skill"
);
id!(
    /// A version of a skill.
    SkillVersionId, "skver"
);
id!(
    /// A deployment.
    DeploymentId, "depl"
);
id!(
    /// A run of a deployment.
    RunId, "drun"
);
id!(
    /// What a session is to achieve.
    OutcomeId, "outc"
);
id!(
    /// A webhook endpoint.
    WebhookId, "whk"
);
id!(
    /// A notice to a webhook endpoint, the same at every attempt.
    DeliveryId, "whe"
);
id!(
    /// A workflow run.
    WorkflowRunId, "wrun"
);
id!(
    /// A phase of a workflow run.
    WorkflowPhaseId, "wrph"
);
id!(
    /// An item of a self-hosted environment's work queue.
    WorkId, "work"
);
id!(
    /// A saved state of a session's workspace.
    CheckpointId, "chk"
);
id!(
    /// The tenant that a row belongs to.
    WorkspaceId, "wrk"
);

impl SessionId {
    /// The id of the session that a tool use has another agent work in: always the same one, so that a tool use
    /// that is carried out again after a restart finds the session that it had opened.
    #[must_use]
    pub fn of_child(tool_use: &EventId) -> Self {
        let name = tool_use.as_str();
        let name = name.strip_prefix("evt_").unwrap_or(name);
        // Ids of tool uses are ours and short; the bound is for the type's sake.
        let mut id = format!("ses_{name}");
        id.truncate(MAX_LEN);
        Self(Arc::from(id))
    }
}

/// What stands between the name of a run and the place of a call in the ids of the call's session. The names that we make
/// have none of it.
const OF_RUN: &str = "_w";

impl SessionId {
    /// The id of the session that is the thread of a call: always the same one, so that a call is made once.
    #[must_use]
    pub fn of_call(call: &Call) -> Self {
        let name = call.run.name();
        // Ids of runs are ours and short; the bound is for the type's sake.
        let end = name.len().min(MAX_LEN - 20);
        Self(Arc::from(format!(
            "{SESSION}{}{OF_RUN}{}",
            &name[..end],
            call.index
        )))
    }

    /// The call that it is the thread of, if it is a thread of a run's.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        let name = self.as_str().strip_prefix(SESSION)?;
        let (run, index) = name.rsplit_once(OF_RUN)?;
        let run = WorkflowRunId(Arc::from(format!("{RUN}{run}")));
        let call = Call {
            run,
            index: index.parse().ok()?,
        };
        (Self::of_call(&call) == *self).then_some(call)
    }
}

/// What the ids of workflow runs begin with.
const RUN: &str = "wrun_";

impl WorkflowRunId {
    /// The id of the run that a tool use begins: always the same one, so that a tool use that is carried out again has no
    /// second run.
    #[must_use]
    pub fn of(tool_use: &EventId) -> Self {
        let name = tool_use.as_str();
        let name = name.strip_prefix("evt_").unwrap_or(name);
        // Ids of tool uses are ours and short; the bound is for the type's sake.
        let mut id = format!("{RUN}{name}");
        id.truncate(MAX_LEN);
        Self(Arc::from(id))
    }

    fn name(&self) -> &str {
        self.0.strip_prefix(RUN).unwrap_or(&self.0)
    }
}

impl WorkflowPhaseId {
    /// The id of a run's phase at this place.
    #[must_use]
    pub fn of(run: &WorkflowRunId, index: u32) -> Self {
        let name = run.name();
        let end = name.len().min(MAX_LEN - 20);
        Self(Arc::from(format!("wrph_{}_{index}", &name[..end])))
    }
}

impl AgentId {
    /// What stands for all advisors where an agent is named: they are models, and no agents of anybody's. No id that is
    /// generated is like it.
    const OF_ADVISORS: &str = "agt_advisor";
    /// What stands for all agents that coordinators have defined on the fly: they are their sessions', and kept with these
    /// alone. No id that is generated is like it.
    const OF_INLINE: &str = "agt_inline";

    /// The id under which advisors work in threads.
    #[must_use]
    pub fn of_advisors() -> Self {
        Self(Arc::from(Self::OF_ADVISORS))
    }

    /// The id under which agents work in threads that were defined on the fly.
    #[must_use]
    pub fn of_inline() -> Self {
        Self(Arc::from(Self::OF_INLINE))
    }

    /// Whether it stands for an agent that was defined on the fly.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.as_str() == Self::OF_INLINE
    }

    /// Whether it stands for an advisor.
    #[must_use]
    pub fn is_advisor(&self) -> bool {
        self.as_str() == Self::OF_ADVISORS
    }
}

impl RunId {
    /// The id of the run that a deployment makes at a time of its schedule: always the same one, so that no time is run
    /// twice.
    #[must_use]
    pub fn of_tick(deployment: &DeploymentId, tick: Timestamp) -> Self {
        let name = deployment.as_str();
        let name = name.strip_prefix("depl_").unwrap_or(name);
        let mut id = format!("drun_{name}");
        // Ids of deployments are ours and short; the bound is for the type's sake.
        id.truncate(MAX_LEN - 24);
        id.push_str(&format!("_{}", tick.as_millis()));
        Self(Arc::from(id))
    }
}

impl OutcomeId {
    /// The id of the outcome that an event defines.
    #[must_use]
    pub fn of(event: &EventId) -> Self {
        let name = event.as_str();
        let name = name.strip_prefix("evt_").unwrap_or(name);
        // Ids of events are ours and short; the bound is for the type's sake.
        let mut id = format!("outc_{name}");
        id.truncate(MAX_LEN);
        Self(Arc::from(id))
    }
}

/// What the names of threads begin with.
const THREAD: &str = "sthr_";
/// What the ids of sessions begin with.
const SESSION: &str = "ses_";

impl SessionId {
    /// The name that the session has as a thread.
    #[must_use]
    pub fn thread_name(&self) -> String {
        let name = self.as_str();
        format!("{THREAD}{}", name.strip_prefix(SESSION).unwrap_or(name))
    }

    /// The sessions that a thread's name may mean: ids that clients chose have no prefix.
    pub fn of_thread(name: &str) -> impl Iterator<Item = Self> + use<> {
        let name = name.strip_prefix(THREAD).unwrap_or_default().to_owned();
        let ids = [format!("{SESSION}{name}"), name];
        ids.into_iter().filter_map(|id| Self::parse(&id).ok())
    }
}

impl WorkspaceId {
    /// The workspace of a single-tenant installation.
    #[must_use]
    pub fn default_workspace() -> Self {
        Self(Arc::from("wrk_default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_prefix_and_parse_back() {
        let id = AgentId::generate();
        assert!(id.as_str().starts_with("agt_"), "{id}");
        assert_eq!(AgentId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn ids_sort_by_time() {
        let first = EventId::generate();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < EventId::generate());
    }

    #[test]
    fn the_threads_of_a_run_say_which_call_they_are() {
        let run = WorkflowRunId::of(&EventId::generate());
        let call = Call { run, index: 17 };
        let thread = SessionId::of_call(&call);
        assert!(thread.as_str().ends_with("_w17"), "{thread}");
        assert_eq!(thread.call(), Some(call.clone()));
        assert_eq!(SessionId::parse(thread.as_str()), Ok(thread));
        let phase = WorkflowPhaseId::of(&call.run, 3);
        assert_eq!(WorkflowPhaseId::parse(phase.as_str()), Ok(phase));
        for other in [
            "ses_1",
            "ses_1_w",
            "ses_1_wx",
            "ses_1_w01",
            "1_w1",
            "ses_1_w99999999999",
        ] {
            assert_eq!(SessionId::parse(other).unwrap().call(), None, "{other}");
        }
        assert_eq!(SessionId::of_child(&EventId::generate()).call(), None);
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in ["", "..", "a/b", "a\0", "a b", "é", &"x".repeat(129)] {
            assert_eq!(SessionId::parse(text), Err(Invalid), "{text:?}");
        }
    }
}
