//! Running the open tool uses, each result committed as it lands.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use oma_domain::environment::Networking;
use oma_domain::multiagent::{LIST_AGENTS, SEND_TO_AGENT};
use oma_domain::policy::MCP_PREFIX;
use oma_domain::session::{CALL_AGENT, Gate, Input, OpenTool, Outcome, SandboxSource, Spending};
use oma_domain::{ContentBlock, EventId};
use oma_runtime::{Answer, Port, PortError, SessionInfo, aside};
use oma_sandbox::pool::Provenance;
use oma_sandbox::protocol::{Call, Reply};
use oma_sandbox::{Error as SandboxError, Lease, Origin};
use oma_tools::Place;
use tokio::sync::OnceCell;
use tracing::Instrument as _;

use crate::inline::Own;
use crate::spans;
use crate::turn::Run;
use crate::{Native, advice, delegation, threads, workflows};

/// The most tool uses of one session at work at once; the others follow.
const PARALLEL: usize = 16;
/// How long one command may take to be ended when its turn is cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a turn waits for its hand to forget.
const FORGET_TIMEOUT: Duration = Duration::from_millis(500);

/// What tools of MCP servers are called where names are few: theirs are their servers' words.
const MCP: &str = "mcp";

const UNKNOWN_FATE_OF_CALL: &str = "The server restarted during this call of an MCP server. It may or may not have \
taken effect, in whole or in part: check before you call it again.";

const UNKNOWN_FATE: &str = "The server restarted and the sandbox is gone. This command may or may not have \
run, in whole or in part: check before you run it again.";

impl Run<'_> {
    /// Refuses to fetch an address that nobody has mentioned who may.
    fn is_unheard_of(&self, tool: &OpenTool) -> Option<Outcome> {
        if tool.name != "web_fetch" {
            return None;
        }
        let sources = self.toolbox.fetches().sources.as_ref()?;
        // Without an address the tool itself says what is wrong.
        let url = tool.input.get("url")?.as_str()?;
        let spec = &self.session.agent.spec;
        let is_custom = |name: &str| spec.is_custom_tool(name);
        let heard = self.conversation.mentions(url, sources, is_custom);
        (!heard).then(|| oma_tools::url_not_allowed(url))
    }

    /// Runs the open tool uses until none is left that may run. Confirmations that come meanwhile open more.
    pub(crate) async fn act(&mut self) -> Result<(), PortError> {
        // Tool uses that were open at a restart may have run, and only the sandbox knows. One look settles it
        // for all of them: their results wait in the hand, or the hand is gone.
        let mut lost: HashSet<EventId> = HashSet::new();
        // Held until they have been asked for: a sandbox that nobody holds may be stopped to make room.
        let mut kept = None;
        if std::mem::take(&mut self.recovering) {
            let (state, _) = self.port.state();
            let old: Vec<EventId> = state
                .open_tools()
                .iter()
                .filter(|tool| tool.gate == Gate::Open && self.needs_sandbox(tool))
                .map(|tool| tool.id.clone())
                .collect();
            if !old.is_empty() {
                kept = self.sandbox_of_before().await;
                if kept.is_none() {
                    lost.extend(old);
                }
            }
            // Nobody can be asked what became of these.
            let calls = state
                .open_tools()
                .iter()
                .filter(|tool| tool.gate == Gate::Open && is_call(tool));
            lost.extend(calls.map(|tool| tool.id.clone()));
        }
        if self.toolbox.fetches().sources.is_some() {
            // After a restart nothing has been read yet.
            let (_, head) = self.port.state();
            self.conversation.catch_up(self.port, head).await?;
        }
        if self.offered.is_none() && self.port.state().0.open_tools().iter().any(is_call) {
            self.ask_servers().await?;
        }
        let mut started: HashSet<EventId> = HashSet::new();
        let mut running = FuturesUnordered::new();
        let mut ended = VecDeque::new();
        // How many of them are the turn's own work, and no other agent's.
        let mut at_work: usize = 0;
        let mut has_left = false;
        loop {
            let (state, _) = self.port.state();
            if !state.is_running() {
                return Ok(());
            }
            let startable = state
                .open_tools()
                .iter()
                .filter(|tool| tool.gate == Gate::Open && !started.contains(&tool.id))
                .take(PARALLEL.saturating_sub(running.len()))
                .cloned()
                .collect::<Vec<_>>();
            // Those that start together ask for the sandbox once; the others don't wait for it.
            let sandbox = Arc::new(OnceCell::new());
            for tool in startable {
                started.insert(tool.id.clone());
                let (native, session, port) = (self.native, self.session, self.port);
                let (toolbox, sandbox) = (self.toolbox.clone(), Arc::clone(&sandbox));
                let offered = self.offered.clone().unwrap_or_default();
                let unbuilt = Arc::clone(&self.unbuilt);
                let is_lost = lost.contains(&tool.id);
                let unheard_of = self.is_unheard_of(&tool);
                let calls = tool.name == CALL_AGENT && delegation::is_offered(session);
                let sends = tool.name == SEND_TO_AGENT && session.coordinates();
                let creates = threads::creates(session, &tool.name);
                let consults = advice::is_it(session, &tool.name);
                let runs = workflows::is_it(session, &tool.name);
                let delegates = calls || sends || creates || consults || runs;
                at_work += usize::from(!delegates);
                running.push(async move {
                    if sends {
                        let done = threads::send(port, &tool).await;
                        return (delegates, done);
                    }
                    if creates {
                        let own = Own::of(session, &toolbox);
                        let done = threads::create(port, &own, &tool).await;
                        return (delegates, done);
                    }
                    if runs {
                        let own = Own::of(session, &toolbox);
                        let done = workflows::run(session, port, &own, &tool).await;
                        return (delegates, done);
                    }
                    if consults {
                        let done = advice::consult(native, session, port, &tool).await;
                        return (delegates, done);
                    }
                    if calls {
                        let answer = call_agent(port, &tool).await;
                        let done = answer.map(|Answer { outcome, spent }| Input::FinishDelegation {
                            tool_use: tool.id,
                            outcome,
                            spent,
                        });
                        return (delegates, done);
                    }
                    let outcome = if let Some(refusal) = unheard_of {
                        refusal
                    } else if tool.name == LIST_AGENTS && session.coordinates() {
                        threads::list(session, &port.state().0)
                    } else if !is_call(&tool) {
                        let lease = async {
                            if is_lost {
                                return Err(Outcome::error(UNKNOWN_FATE));
                            }
                            let acquire = || async {
                                let acquired = native.sandbox(session, port).await;
                                if let Err(SandboxError::Build(reason)) = &acquired {
                                    let mut unbuilt = unbuilt.lock().unwrap_or_else(PoisonError::into_inner);
                                    *unbuilt = Some(reason.clone());
                                }
                                acquired.map_err(|error| Outcome::error(unavailable(&error)))
                            };
                            sandbox.get_or_init(acquire).await.clone()
                        };
                        native.run_tool(session, &toolbox, &tool, lease).await
                    } else if is_lost {
                        Outcome::error(UNKNOWN_FATE_OF_CALL)
                    } else {
                        native.call_server(session, &offered, &tool).await
                    };
                    // With the result, so that it costs no commit of its own.
                    let lease = sandbox.get().and_then(|lease| lease.as_ref().ok());
                    let done = Input::FinishTool {
                        tool_use: tool.id,
                        outcome,
                        sandbox: lease.map(|lease| source(session, lease)),
                    };
                    (delegates, Ok(done))
                });
            }
            if running.is_empty() && ended.is_empty() {
                break;
            }
            // When only other agents work for this turn, they may need its place. Nothing else waits for a place
            // here meanwhile: tools that begin now have not been polled.
            if at_work == 0 && !has_left {
                self.port.leave_place();
                has_left = true;
            } else if at_work > 0 && has_left {
                beside(&mut running, &mut ended, self.port.take_place()).await;
                has_left = false;
                // A tool may have committed something meanwhile, and somebody else, too.
                continue;
            }
            let Some((delegated, done)) = ended.pop_front() else {
                tokio::select! {
                    Some(one) = running.next() => ended.push_back(one),
                    () = self.port.changed() => {}
                }
                continue;
            };
            let mut input = done?;
            at_work -= usize::from(!delegated);
            let notes = self.native.pool.notes(&self.session.sandbox);
            if !notes.is_empty() {
                // After a restart nothing has been read yet.
                let (_, head) = self.port.state();
                let reading = self.conversation.catch_up(self.port, head);
                beside(&mut running, &mut ended, reading).await?;
                self.add_notes(&mut input, &notes);
            }
            let committed = beside(&mut running, &mut ended, self.port.commit(input)).await?;
            self.conversation.extend(&committed.events);
        }
        if has_left {
            self.port.take_place().await;
        }
        self.native.forget_results(self.session).await;
        drop(kept);
        Ok(())
    }

    /// Adds to a tool's result what the model has to know of its sandbox and does not know yet, or has forgotten with a
    /// summary. There, all that was sent before stays as it was, so providers' caches are hit.
    fn add_notes(&self, input: &mut Input, notes: &[Arc<str>]) {
        let Input::FinishTool { outcome, .. } = input else {
            return;
        };
        let new = notes.iter().filter(|note| !self.conversation.has_note(note));
        outcome
            .content
            .extend(new.map(|note| ContentBlock::text(&**note)));
    }

    fn needs_sandbox(&self, tool: &OpenTool) -> bool {
        self.toolbox.place(&tool.name) == Place::Sandbox
    }

    /// The sandbox that this session had before a restart, or a first one; none when that one is gone without a
    /// proper stop. One that can't be had now counts as gone: what may have run in it must not run again when it
    /// can be had later.
    async fn sandbox_of_before(&self) -> Option<Lease> {
        let lease = self.native.sandbox(self.session, self.port).await.ok();
        let replaced = self
            .native
            .replaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lease.filter(|lease| lease.origin() != Origin::Replaced && !replaced.contains(&self.session.sandbox))
    }
}

impl Native {
    /// The session's sandbox.
    async fn sandbox(&self, session: &SessionInfo, port: &dyn Port) -> Result<Lease, SandboxError> {
        let spec = self.sandbox_spec(session);
        let acquire = async {
            self.built(session, port).await?;
            self.pool.acquire(&spec).await
        };
        let acquired = aside(port, acquire).await;
        let is_shared =
            session.coordinates() || session.workflows().is_some() || session.sandbox != session.id;
        if is_shared
            && acquired
                .as_ref()
                .is_ok_and(|lease| lease.origin() == Origin::Replaced)
        {
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.insert(session.sandbox.clone());
        }
        match &acquired {
            Ok(_) => {}
            // It is the developer's, and the log has it already.
            Err(SandboxError::Build(_)) => {
                tracing::warn!("a sandbox could not be had: its environment can't be built");
            }
            Err(error) => tracing::error!(%error, "a sandbox could not be had"),
        }
        acquired
    }

    async fn run_tool(
        &self,
        session: &SessionInfo,
        toolbox: &oma_tools::Toolbox,
        tool: &OpenTool,
        sandbox: impl Future<Output = Result<Lease, Outcome>>,
    ) -> Outcome {
        let name = known_tool(&tool.name);
        let running = async {
            if let Err(message) = toolbox.validate(&tool.name, &tool.input) {
                return Outcome::error(message);
            }
            metrics::counter!("tool_uses_total", "tool" => name).increment(1);
            match toolbox.place(&tool.name) {
                Place::Sandbox => match sandbox.await {
                    Ok(lease) => {
                        let outcome = run_in_sandbox(&lease, tool).await;
                        self.keep_memories(session, outcome).await
                    }
                    Err(refusal) => refusal,
                },
                // These only read, so after a restart they are simply made again.
                Place::Server => {
                    let outcome = toolbox.run_on_server(&tool.name, &tool.input).await;
                    self.spill(session, &tool.id, outcome).await
                }
                Place::Unknown => Outcome::error(format!("There is no tool called {}.", tool.name)),
            }
        };
        let span = spans::tool(name, &tool.id);
        let outcome = running.instrument(span.clone()).await;
        spans::used(&span, &outcome);
        outcome
    }

    /// Has an MCP server run one of its tools.
    async fn call_server(&self, session: &SessionInfo, offered: &oma_mcp::Tools, tool: &OpenTool) -> Outcome {
        metrics::counter!("tool_uses_total", "tool" => MCP).increment(1);
        let calling = async {
            let outcome = offered.call(&tool.name, &tool.input).await;
            self.spill(session, &tool.id, outcome).await
        };
        let span = spans::tool(MCP, &tool.id);
        let outcome = calling.instrument(span.clone()).await;
        spans::used(&span, &outcome);
        outcome
    }

    /// Ends the commands of a dropped drive and returns what they had printed.
    pub(crate) async fn end_tools(
        &self,
        session: &SessionInfo,
        open: &[OpenTool],
    ) -> Vec<(EventId, Outcome)> {
        let started = |tool: &&OpenTool| tool.gate == Gate::Open && oma_tools::is_sandboxed(&tool.name);
        let open: Vec<&OpenTool> = open.iter().filter(started).collect();
        if open.is_empty() {
            return Vec::new();
        }
        // Right after a restart too: the pool knows the sandboxes that have outlived it. Without one, nothing runs.
        let Some(lease) = self.pool.peek(&session.sandbox).await else {
            return Vec::new();
        };
        let cancels = open.into_iter().map(|tool| {
            let lease = &lease;
            async move {
                let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, lease.cancel(&tool.id)).await;
                match cancelled {
                    Ok(Ok(Some(Reply { content, .. }))) => Some((
                        tool.id.clone(),
                        Outcome {
                            content,
                            is_error: true,
                        },
                    )),
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "a command could not be ended");
                        None
                    }
                    Err(_) => {
                        tracing::error!(tool_use = %tool.id, "a command did not end in time");
                        None
                    }
                }
            }
        });
        let ended = futures_util::future::join_all(cancels).await;
        self.keep_memories_behind(session);
        ended.into_iter().flatten().collect()
    }

    /// Lets the hand forget results that are committed.
    async fn forget_results(&self, session: &SessionInfo) {
        // Others may have results waiting in the sandbox of a thread. When its coordinator has acted, none works.
        if session.sandbox != session.id {
            return;
        }
        let forget = async {
            match self.pool.peek(&session.id).await {
                Some(lease) => lease.forget_all_but(&[]).await,
                None => Ok(()),
            }
        };
        // The results do no harm there, so a slow hand does not hold up the turn.
        match tokio::time::timeout(FORGET_TIMEOUT, forget).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a hand keeps results that are committed"),
            Err(_) => tracing::warn!("a hand is slow to forget results that are committed"),
        }
    }
}

/// Waits for something while the tools go on. One of them may be next where many wait, and would hold up everybody,
/// this turn included, if nobody looked after it.
async fn beside<F: Future, T>(
    running: &mut FuturesUnordered<F>,
    ended: &mut VecDeque<F::Output>,
    wait: impl Future<Output = T>,
) -> T {
    let mut wait = pin!(wait);
    loop {
        tokio::select! {
            value = &mut wait => return value,
            Some(one) = running.next() => ended.push_back(one),
        }
    }
}

async fn call_agent(port: &dyn Port, tool: &OpenTool) -> Result<Answer, PortError> {
    metrics::counter!("tool_uses_total", "tool" => CALL_AGENT).increment(1);
    let calling = async {
        match delegation::parse(&tool.input) {
            Ok((agent, task)) => port.delegate(&tool.id, agent, task).await,
            Err(message) => Ok(Answer {
                outcome: Outcome::error(message),
                spent: Spending::default(),
            }),
        }
    };
    // The other agent's turn is a part of this trace, below this span.
    let span = spans::tool(CALL_AGENT, &tool.id);
    let answer = calling.instrument(span.clone()).await;
    if let Ok(answer) = &answer {
        spans::used(&span, &answer.outcome);
    }
    answer
}

async fn run_in_sandbox(lease: &Lease, tool: &OpenTool) -> Outcome {
    let call = Call {
        tool: tool.name.clone(),
        input: tool.input.clone(),
    };
    match lease.run(&tool.id, call).await {
        Ok(Reply { content, is_error }) => Outcome { content, is_error },
        Err(error) => {
            tracing::error!(%error, tool = tool.name, "a tool's sandbox failed");
            Outcome::error(format!(
                "The sandbox failed while the tool ran: {error}. It may or may not have finished; the next \
                 tool use gets a fresh sandbox with the same workspace."
            ))
        }
    }
}

/// Where a sandbox came from, in the words of the session's log.
fn source(session: &SessionInfo, lease: &Lease) -> SandboxSource {
    let environment = session.environment.as_ref();
    let is_limited = environment.is_some_and(|it| it.spec.networking != Networking::Unrestricted);
    match lease.provenance() {
        Provenance::Started(boot) => {
            let boot_ms = u64::try_from(boot.as_millis()).unwrap_or(u64::MAX);
            if is_limited {
                SandboxSource::Limited { boot_ms }
            } else {
                SandboxSource::Cold { boot_ms }
            }
        }
        Provenance::Reserve => SandboxSource::Warm,
        Provenance::Survivor => SandboxSource::Adopt,
    }
}

fn unavailable(error: &SandboxError) -> String {
    match error {
        SandboxError::TooWeak(_) => {
            "The server refuses to start a sandbox here: the machine can't make it as strong as it is \
             configured to be. The operator can see why with `oma doctor`."
                .to_owned()
        }
        SandboxError::Engine(_) => {
            "The container engine did not give a sandbox; the server's log says why. The workspace is kept: try \
             again in a while."
                .to_owned()
        }
        SandboxError::Build(reason) => format!("There is no sandbox, for its environment could not be built: {reason}"),
        SandboxError::Unbuilt => {
            "There is no sandbox yet, for its environment is being built. Try again in a while.".to_owned()
        }
        SandboxError::Exhausted(_) => "No sandbox became free in time. Try again in a while.".to_owned(),
        _ => "The sandbox could not be started; the server's log says why.".to_owned(),
    }
}

/// Whether it is a call of an MCP server.
fn is_call(tool: &OpenTool) -> bool {
    tool.name.starts_with(MCP_PREFIX)
}

/// A tool's name as a metrics label: names that a model made up are not labels.
fn known_tool(name: &str) -> &'static str {
    oma_tools::known_names()
        .iter()
        .find(|known| **known == name)
        .copied()
        .unwrap_or("unknown")
}
