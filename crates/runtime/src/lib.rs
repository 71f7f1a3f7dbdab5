//! The boundary between the engine, which owns a session's truth, and a runtime, which does a turn's work.
//!
//! The engine calls [`Runtime::drive`] whenever a session has work. The runtime looks at the state, does the
//! next thing (a model request, a tool, a summary) and reports it as an [`Input`] through [`Port::commit`];
//! the engine applies it, makes it durable and answers with the new state. So a turn can be driven from any
//! point: after a crash, `drive` is simply called again.
//!
//! Invariant: a runtime never writes to the log or to a client itself.
//! Invariant: `drive` may be dropped at any await (that is how a cancel works); [`Runtime::abort`] then ends
//! whatever it had started outside the process.
//!
//! Where it sits: below the engine and above `domain` (and the sandbox's file trait); runtimes implement it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::agent::Agent;
use oma_domain::environment::{self, Environment};
use oma_domain::memory::Attachment;
use oma_domain::session::{Input, OpenTool, Outcome, Rejection, Spending, State};
use oma_domain::workflow::Call;
use oma_domain::{
    EnvironmentId, Event, EventId, KeyId, Member, Multiagent, Seq, SessionId, Team, Timestamp, VaultId,
    WorkspaceId,
};
use oma_sandbox::files::Workspace;
use oma_sandbox::files::archive::{Bounds, Contents};
use oma_sandbox::pool::Counts;

/// What does not change while a turn goes on.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The agent version that it runs.
    pub agent: Arc<Agent>,
    /// The other agents that may work in its threads.
    pub roster: Vec<Arc<Agent>>,
    /// The session whose sandbox it works in: itself, or the one that it is a thread of.
    pub sandbox: SessionId,
    /// The environment that it runs in.
    pub environment: Option<Arc<Environment>>,
    /// The vaults whose credentials its MCP servers are called with, in the order in which they are asked.
    pub vaults: Vec<VaultId>,
    /// The memory stores that it has.
    pub memories: Vec<Attachment>,
    /// The key that it was opened with.
    pub created_by: Option<KeyId>,
    /// How deep it may delegate.
    pub delegation_depth: u32,
    /// When it was created.
    pub created_at: Timestamp,
}

impl SessionInfo {
    /// Whether its agent has others work in threads: a thread itself has none.
    #[must_use]
    pub fn coordinates(&self) -> bool {
        self.sandbox == self.id && self.agent.has_subagents()
    }

    /// Whether its agent may define others on the fly that work in threads.
    #[must_use]
    pub fn may_define(&self) -> bool {
        self.sandbox == self.id && self.agent.may_define()
    }

    /// Whether its agent has an advisor that it can ask: in a thread it has none.
    #[must_use]
    pub fn is_advised(&self) -> bool {
        self.sandbox == self.id && self.agent.advisor().is_some()
    }

    /// Those who may work in its threads.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.definitions(self.agent.members())
    }

    /// Whether its agent has others work in workflow runs, and whether it may define agents in them: a thread has no runs.
    #[must_use]
    pub fn workflows(&self) -> Option<&Team> {
        let multiagent = self.agent.spec.multiagent.as_ref();
        multiagent
            .filter(|_| self.sandbox == self.id)
            .and_then(Multiagent::workflows)
    }

    /// Those who may be called by name in its workflow runs.
    pub fn callees(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.definitions(self.workflows().map_or(&[], |team| &team.members))
    }

    fn definitions<'a>(&'a self, members: &'a [Member]) -> impl Iterator<Item = &'a Arc<Agent>> {
        members.iter().filter_map(|member| match member {
            Member::This => Some(&self.agent),
            Member::Agent { id, .. } => self.roster.iter().find(|agent| agent.id == *id),
        })
    }
}

/// Who a message goes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipient {
    /// A new thread of a member, by the member's id or name.
    New(String),
    /// The newest thread of a member that is not archived, or a new one; or the newest one of an agent of this name that
    /// was defined on the fly.
    Newest(String),
    /// A new thread of an agent that was defined on the fly.
    Defined(Arc<Agent>),
    /// A thread, by its name.
    Thread(String),
    /// A new thread of the advisor.
    Advisor,
}

/// What came of having another agent do a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The tool's result.
    pub outcome: Outcome,
    /// What the other agent's session and its children consumed.
    pub spent: Spending,
}

/// A piece of an answer as it arrives. Deltas are shown to subscribers and never stored; joined in order they
/// are a prefix of the message that is committed under the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// An `agent.message` with this id has begun.
    MessageStart {
        /// The event's future id.
        event: EventId,
    },
    /// An `agent.thinking` with this id has begun.
    ThinkingStart {
        /// The event's future id.
        event: EventId,
    },
    /// More text of a message.
    Text {
        /// The event's future id.
        event: EventId,
        /// The text.
        text: String,
    },
    /// More text of a thought.
    Thinking {
        /// The event's future id.
        event: EventId,
        /// The text.
        text: String,
    },
}

/// What a commit led to.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The state afterwards.
    pub state: Arc<State>,
    /// The events that were appended.
    pub events: Vec<Event>,
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortError {
    /// The input is not legal any more; look at the state and go on from there, or return.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The engine is stopping, or the store failed: return at once. The turn goes on after a restart.
    #[error("the session's engine is gone: {0}")]
    Gone(String),
}

/// A runtime's way to the session that it drives.
#[async_trait]
pub trait Port: Send + Sync {
    /// The state and the log's head as of the latest commit.
    fn state(&self) -> (Arc<State>, Seq);

    /// Waits until the state is another than when it was last looked at through this port.
    async fn changed(&self);

    /// Has an input applied and made durable.
    ///
    /// # Errors
    /// [`PortError`]: nothing has been committed.
    async fn commit(&self, input: Input) -> Result<Committed, PortError>;

    /// Committed events after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`PortError::Gone`] when the store fails.
    async fn history(&self, after: Seq, limit: u32) -> Result<Vec<Event>, PortError>;

    /// Shows a piece of an answer to whoever follows the session.
    fn delta(&self, delta: Delta);

    /// Has another agent do the task of an open tool use, in a session that belongs to that tool use, and waits for
    /// its answer, which can take long: the turn should leave its place meanwhile. Asked again for the same tool
    /// use, also after a restart, it waits for the same session. Whether this session's agent may call the other
    /// one is the engine's to say.
    ///
    /// # Errors
    /// [`PortError`]: the tool use is not open any more, or the engine is gone.
    async fn delegate(&self, tool_use: &EventId, agent: &str, task: &str) -> Result<Answer, PortError>;

    /// Sends the message of an open tool use to a thread, which belongs to this session and shares its sandbox, and
    /// waits until the thread rests, which can take long: the turn should leave its place meanwhile. Asked again for the
    /// same tool use, also after a restart, it waits for the same thread and sends nothing twice. Returns the input that
    /// ends the tool use. Whether there is such a member or thread is the engine's to say.
    ///
    /// # Errors
    /// [`PortError`]: the tool use is not open any more, or the engine is gone.
    async fn send(&self, tool_use: &EventId, to: Recipient, message: &str) -> Result<Input, PortError>;

    /// Has an agent answer a call of a workflow run, in a thread of its own, and waits for its answer, as
    /// [`Port::send`] waits. The run waits for the call already. Asked again for the same call, also after a restart, it
    /// waits for the same thread. Returns the input that records the answer.
    ///
    /// # Errors
    /// [`PortError`]: the run is not there any more, somebody else has recorded the answer, or the engine is gone.
    async fn call(&self, call: &Call, agent: &Arc<Agent>, prompt: &str) -> Result<Input, PortError>;

    /// Lets another session's turn have this one's place among the turns at work, because this one only waits.
    fn leave_place(&self);

    /// Waits for a place among the turns at work, first come, first served; at once when it has one.
    async fn take_place(&self);
}

/// What a turn may wait for without giving up its place.
const MOMENT: Duration = Duration::from_millis(50);

/// Waits for something that is no work of the turn's own, such as a provider's pause or a free sandbox. When
/// that takes longer than a moment, other turns get the place meanwhile.
pub async fn aside<T>(port: &dyn Port, wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    if let Ok(outcome) = tokio::time::timeout(MOMENT, &mut wait).await {
        return outcome;
    }
    port.leave_place();
    let outcome = wait.await;
    port.take_place().await;
    outcome
}

/// Something that can't be run here. The message is for the client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Unsupported {
    /// The request field that asks for it.
    pub field: &'static str,
    /// Why it can't be.
    pub message: String,
}

/// The build of what an environment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Names what is built: the same for all that is alike.
    pub layer: String,
    /// Where it stands.
    pub stage: BuildStage,
    /// The newest that was printed.
    pub log: String,
}

/// Where a build stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStage {
    /// Others are before it.
    Waiting,
    /// It is under way.
    Building {
        /// What is being done: the name of an installer, or `setup_script`.
        step: String,
    },
    /// It is there.
    Ready,
    /// It failed.
    Failed {
        /// Why, at the end in the installer's words.
        reason: String,
    },
}

/// How a drive has left its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Whatever it had started is in the log.
    Tidy,
    /// Tool uses that are open now may have run, in whole or in part.
    Unsettled,
}

/// Runs turns.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Whether it can run this agent in this environment; checked when a session is created.
    ///
    /// # Errors
    /// [`Unsupported`], naming the field.
    fn check(&self, agent: &Agent, environment: Option<&Environment>) -> Result<(), Unsupported>;

    /// Whether it can make what an environment asks for; checked when one is created or changed, too.
    ///
    /// # Errors
    /// [`Unsupported`], naming the field.
    fn check_environment(&self, environment: &environment::Spec) -> Result<(), Unsupported> {
        let _ = environment;
        Ok(())
    }

    /// Whether it could ever ask a model of this name, keys aside; checked when a client names one.
    ///
    /// # Errors
    /// What there is instead, for the client.
    fn check_model(&self, model: &str) -> Result<(), String>;

    /// Whether the price of a model is known, so that a budget in money means something.
    fn has_price(&self, model: &str) -> bool {
        let _ = model;
        true
    }

    /// The session has other MCP servers from its next turn on.
    fn servers_changed(&self, session: &SessionId) {
        let _ = session;
    }

    /// An environment has been changed, and sandboxes of its sessions may be running.
    fn environment_changed(&self, environment: &EnvironmentId) {
        let _ = environment;
    }

    /// An environment has been created or changed, or a session of it is: what it needs may be prepared.
    fn prepare_environment(&self, environment: &Environment) {
        let _ = environment;
    }

    /// What is known of an environment's build; none where there is nothing to build.
    ///
    /// # Errors
    /// The reason in words.
    async fn environment_build(&self, environment: &Environment) -> Result<Option<Build>, String> {
        let _ = environment;
        Ok(None)
    }

    /// Does the work of the session's present turn until that turn ends, blocks, or the port is gone. With `recovering`
    /// open tool uses may have run already: the process has restarted, or an earlier drive was left.
    async fn drive(&self, session: &SessionInfo, port: Arc<dyn Port>, recovering: bool) -> Left;

    /// Ends what a dropped `drive` left behind (running commands, with their whole process trees), within
    /// half a second, and returns what the tool uses had achieved.
    async fn abort(&self, session: &SessionInfo, open: &[OpenTool]) -> Vec<(EventId, Outcome)>;

    /// The newest lines that the session's sandbox printed; `None` when it has no sandbox now.
    async fn logs(&self, session: &SessionId, tail: usize) -> Option<String>;

    /// The host's access to the session's workspace.
    ///
    /// # Errors
    /// The reason in words.
    async fn workspace(&self, session: &SessionId) -> Result<Arc<dyn Workspace>, String>;

    /// The sessions that have a sandbox or a workspace, for finding orphans after a restart.
    ///
    /// # Errors
    /// The reason in words.
    async fn inventory(&self) -> Result<Vec<SessionId>, String>;

    /// The sandboxes that are there now.
    fn sandboxes(&self) -> Counts;

    /// How many sandboxes there may be in advance, for no session in particular; 0 where none are started.
    fn max_warm(&self) -> usize {
        0
    }

    /// Has sandboxes started in advance like the one that the session has or would have; with no session, like that of
    /// one without anything special. In the background, and only as far as there is room.
    fn warm(&self, workspace: &WorkspaceId, like: Option<&SessionId>) {
        let _ = (workspace, like);
    }

    /// The server stops: ends the sandboxes in which nothing runs, within a bound. Those of the `unfinished`
    /// sessions stay: their turns go on after the next start, and find them as they left them.
    async fn retire(&self, unfinished: &HashSet<SessionId>);

    /// Packs the workspace of a session in which no turn is at work; its sandbox ends for that.
    ///
    /// # Errors
    /// [`Busy`](oma_sandbox::Error::Busy) when something runs there all the same, and what else can go wrong.
    async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn std::io::Write + Send>,
        bounds: Bounds,
    ) -> Result<Contents, oma_sandbox::Error> {
        let _ = (session, to, bounds);
        Err(oma_sandbox::Error::Refused(
            "this runtime has no workspaces".to_owned(),
        ))
    }

    /// Puts what is in the archive in the place of the session's workspace; its sandbox ends for that.
    ///
    /// # Errors
    /// As [`Runtime::save`]; the workspace is as it was then.
    async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn std::io::Read + Send>,
        bounds: Bounds,
    ) -> Result<Contents, oma_sandbox::Error> {
        let _ = (session, from, bounds);
        Err(oma_sandbox::Error::Refused(
            "this runtime has no workspaces".to_owned(),
        ))
    }

    /// Ends the session's sandbox and removes its workspace, because the session is deleted.
    ///
    /// # Errors
    /// The reason in words when something is left behind.
    async fn discard(&self, session: &SessionId) -> Result<(), String>;
}
