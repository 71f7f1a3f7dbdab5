//! What clients of several things at once ask for, and what they say about a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::agent::Agent;
use oma_domain::audit::Entry;
use oma_domain::outcome::Definition;
use oma_domain::page::Order;
use oma_domain::policy::PermissionPolicy;
use oma_domain::session::{AgentChange, Input, Phase, Queued, Rejection, SystemNote};
use oma_domain::{EventId, OutcomeId, Seq, SessionId, Timestamp, TraceParent};
use serde_json::json;

use super::Actor;
use super::commit::With;
use super::stop::Stopped;
use crate::error::{Error, Result};
use crate::{AgentUpdate, IdempotencyKey, SessionUpdate, Submission, Submitted, now, once};

/// Submissions as the state machine takes them. An interrupt of a session that rests is none.
pub(super) struct Plan {
    pub(super) inputs: Vec<Input>,
    interrupts: bool,
}

impl Actor {
    /// Applies all of them in one commit, or none.
    pub(super) async fn submit(
        &mut self,
        submissions: Vec<Submission>,
        trace: Option<TraceParent>,
        key: Option<IdempotencyKey>,
        audit: Option<Box<Entry>>,
    ) -> Result<Vec<Submitted>> {
        let scope = format!("session.submit:{}", self.session.id);
        let known = once::lookup(&*self.inner.store, &self.session.workspace, &scope, key.as_ref()).await?;
        if let Some(receipt) = known {
            self.record(audit).await?;
            return self.submitted_before(&receipt).await;
        }
        self.refresh_quota().await?;
        self.count_children().await?;
        for submission in &submissions {
            match submission {
                Submission::Message(post) => self.check_month(post.charged.as_ref()).await?,
                Submission::DefineOutcome { charged, .. } => self.check_month(charged.as_ref()).await?,
                _ => {}
            }
        }
        let ids: Vec<EventId> = submissions.iter().map(|_| EventId::generate()).collect();
        let routed: Vec<Option<SessionId>> = submissions.iter().map(|one| self.thread_of(one)).collect();
        // First it is seen whether all of it is legal: work is stopped only then.
        let mut plan = self.plan(&submissions, &ids, &trace, Stopped::default())?;
        let stops = plan.interrupts && self.session.state.turn().is_some();
        let mut opened = Vec::new();
        if stops {
            let mut stopped = self.stop_work().await;
            opened = std::mem::take(&mut stopped.opened);
            plan = self.plan(&submissions, &ids, &trace, stopped)?;
        }
        let with = With {
            once: once::record(&scope, key.as_ref(), json!({ "events": ids, "threads": routed })),
            needs_agent: submissions.iter().any(Submission::is_work),
            audit,
        };
        let outcome = self.apply_all(plan.inputs, with).await;
        if outcome.is_err() && stops {
            self.take_up_again();
        }
        self.count_stopped(opened).await;
        // Without events nothing happened, as when a session at rest is interrupted.
        let at = outcome?.events.first().map_or_else(now, |event| event.at);
        let became = ids.into_iter().zip(routed);
        Ok(became
            .map(|(event, thread)| Submitted {
                thread,
                ..self.became(event, at)
            })
            .collect())
    }

    /// The thread that a submission is meant for.
    fn thread_of(&self, submission: &Submission) -> Option<SessionId> {
        let state = &self.session.state;
        match submission {
            Submission::Confirm { tool_use, .. } | Submission::Answer { tool_use, .. } => {
                state.thread_awaiting(tool_use).map(|(thread, _)| thread.clone())
            }
            Submission::InterruptThread(thread) => Some(thread.clone()),
            Submission::Message(_)
            | Submission::Interrupt
            | Submission::System(_)
            | Submission::DefineOutcome { .. } => None,
        }
    }

    /// What became of an event that was accepted.
    fn became(&self, event: EventId, at: Timestamp) -> Submitted {
        let is_it = |message: &Arc<Queued>| {
            message.id == event || message.system.as_ref().is_some_and(|note| note.id == event)
        };
        let waits = self.session.state.queue.iter().any(is_it);
        Submitted {
            event,
            at: (!waits).then_some(at),
            thread: None,
        }
    }

    pub(super) fn plan(
        &self,
        submissions: &[Submission],
        ids: &[EventId],
        trace: &Option<TraceParent>,
        stopped: Stopped,
    ) -> std::result::Result<Plan, Rejection> {
        let mut stopped = Some(stopped);
        let mut plan = Plan {
            inputs: Vec::new(),
            interrupts: false,
        };
        let at = now();
        let mut state = (*self.session.state).clone();
        let mut head = self.session.head;
        for (index, (submission, id)) in submissions.iter().zip(ids).enumerate() {
            let id = id.clone();
            let system = match (submissions.get(index + 1), ids.get(index + 1)) {
                (Some(Submission::System(content)), Some(id)) => Some(SystemNote {
                    id: id.clone(),
                    content: content.clone(),
                }),
                _ => None,
            };
            let input = match submission {
                Submission::Message(post) => {
                    if self.session.is_thread {
                        return Err(Rejection::OfThread);
                    }
                    if let Phase::Blocked { .. } = &state.phase {
                        return Err(Rejection::AwaitsAnswers(state.awaited()));
                    }
                    Input::Post(Arc::new(Queued {
                        id,
                        content: post.content.clone(),
                        model: post.model.clone(),
                        thinking_level: post.thinking_level,
                        trace: trace.clone(),
                        charged: post.charged.clone(),
                        system,
                        from: None,
                    }))
                }
                Submission::Interrupt => {
                    if state.archived_at.is_some() {
                        return Err(Rejection::Archived);
                    }
                    if state.turn().is_none() {
                        continue;
                    }
                    plan.interrupts = true;
                    stopped.take().unwrap_or_default().into_input(id, false)
                }
                Submission::InterruptThread(thread) => Input::InterruptThread {
                    id,
                    thread: thread.clone(),
                },
                Submission::Confirm {
                    tool_use,
                    allow,
                    deny_message,
                } => Input::Confirm {
                    id,
                    tool_use: tool_use.clone(),
                    allow: *allow,
                    deny_message: deny_message.clone(),
                },
                Submission::Answer {
                    tool_use,
                    outcome,
                    remote,
                } => Input::Answer {
                    id,
                    tool_use: tool_use.clone(),
                    outcome: outcome.clone(),
                    system,
                    remote: *remote,
                },
                // It goes with what it accompanies.
                Submission::System(_) => continue,
                Submission::DefineOutcome { .. } if self.session.is_thread => {
                    return Err(Rejection::OfThread);
                }
                Submission::DefineOutcome {
                    description,
                    rubric,
                    max_iterations,
                    charged,
                } => Input::DefineOutcome(Arc::new(Definition {
                    outcome: OutcomeId::of(&id),
                    event: id,
                    description: description.clone(),
                    rubric: rubric.clone(),
                    max_iterations: *max_iterations,
                    trace: trace.clone(),
                    charged: charged.clone(),
                })),
            };
            let next = self.step(&state, input.clone(), Ok(u64::MAX), head, at)?;
            state = next.state;
            head = Seq(head.0 + next.events.len() as u64);
            plan.inputs.push(input);
        }
        Ok(plan)
    }

    /// The answer to submissions that had been carried out before, as things stand now.
    async fn submitted_before(&self, receipt: &serde_json::Value) -> Result<Vec<Submitted>> {
        let unreadable = || Error::Internal("an idempotency record can't be read".into());
        let ids: Vec<EventId> = serde_json::from_value(receipt.get("events").cloned().unwrap_or_default())
            .map_err(|_| unreadable())?;
        // Earlier versions did not write them down.
        let routed: Vec<Option<SessionId>> = match receipt.get("threads") {
            Some(threads) => serde_json::from_value(threads.clone()).map_err(|_| unreadable())?,
            None => vec![None; ids.len()],
        };
        let (store, session) = (&self.inner.store, &self.session);
        let mut submitted = Vec::new();
        for (event, thread) in ids.into_iter().zip(routed) {
            let at = match store.locate(&session.workspace, &session.id, &event).await? {
                Some(seq) => {
                    let before = Some(Seq(seq.0.saturating_sub(1)));
                    let page = store
                        .events(&session.workspace, &session.id, before, Order::Ascending, 1)
                        .await?;
                    page.rows.first().map(|event| event.at)
                }
                None => None,
            };
            submitted.push(Submitted { event, at, thread });
        }
        Ok(submitted)
    }

    pub(super) async fn update(&mut self, update: SessionUpdate) -> Result<()> {
        let SessionUpdate {
            title,
            metadata: changes,
            agent,
            budget,
        } = update;
        let agent = match agent {
            // Somebody else has changed it meanwhile, so this would undo that.
            Some(AgentUpdate { base, .. }) if *base != *self.session.agent => {
                return Err(Rejection::Busy.into());
            }
            Some(AgentUpdate { base, spec }) => (spec != base.spec).then(|| AgentChange {
                former_servers: servers(&base),
                agent: Arc::new(Agent {
                    spec,
                    ..(*base).clone()
                }),
            }),
            None => None,
        };
        let mut metadata = self.session.state.metadata.clone();
        for (name, value) in changes {
            match value {
                Some(value) => metadata.insert(name, value),
                None => metadata.remove(&name),
            };
        }
        let input = Input::Update {
            title,
            metadata: Some(metadata),
            agent,
            budget,
        };
        self.apply(input, With::default()).await?;
        Ok(())
    }

    /// Archives the session. Its workspace stays: what the agent has made can still be fetched.
    pub(super) async fn archive(&mut self) -> Result<()> {
        self.apply(Input::Archive, With::default()).await?;
        Ok(())
    }
}

/// The names of an agent's MCP servers, by what the names of their tools begin with.
fn servers(agent: &Agent) -> BTreeMap<String, String> {
    match &agent.spec.permission_policy {
        PermissionPolicy::Toolsets(sets) => sets
            .mcp
            .iter()
            .map(|set| (set.prefix.clone(), set.server.clone()))
            .collect(),
        _ => BTreeMap::new(),
    }
}
