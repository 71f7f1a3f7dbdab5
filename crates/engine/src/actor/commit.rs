//! Applying an input: the state machine's word, made durable, then told.

use std::sync::Arc;
use std::sync::PoisonError;

use oma_domain::agent::Agent;
use oma_domain::audit::Entry;
use oma_domain::event::{Body, Failure, FailureKind, StopReason};
use oma_domain::quota::{Bound, Exceeded, Quota, Unreported};
use oma_domain::session::{Context, Effect, Input, Phase, Rejection, State, Step, Transition};
use oma_domain::usage::{CostTotal, Usage};
use oma_domain::{Event, EventId, KeyId, Seq, SessionId, Timestamp};
use oma_runtime::{Committed, SessionInfo};
use oma_store::{Commit, Once, Used};

use super::port::Request;
use super::{Actor, Arriving};
use crate::error::Error;
use crate::hub::Note;
use crate::ledger::{Account, MILLIS_PER_DAY, Verdict};
use crate::parents::{at_rest, standing};
use crate::quotas::Current;
use crate::{Inner, audit, measure, now};

/// What is to be checked and remembered in the same transaction.
#[derive(Debug, Default)]
pub(super) struct With {
    /// The client's idempotency key.
    pub(super) once: Option<Once>,
    /// The agent must still be there.
    pub(super) needs_agent: bool,
    /// What the audit trail is to say of it.
    pub(super) audit: Option<Box<Entry>>,
}

/// Why an input was not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Store(#[from] oma_store::Error),
    /// A model request has to wait until others have ended, of which nobody knows yet what they consume.
    #[error("what is left of a budget is reserved for requests that are under way")]
    Crowded,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Store(error) => error.into(),
            Refusal::Crowded => Self::Internal(refusal.to_string()),
        }
    }
}

impl Actor {
    /// Applies and commits an input, then tells the followers and notes what is to be done.
    pub(super) async fn apply(&mut self, input: Input, with: With) -> Result<Committed, Refusal> {
        if matches!(
            input,
            Input::Post(_)
                | Input::BeginRequest { .. }
                | Input::Delegate { .. }
                | Input::Send(_)
                | Input::Lend { .. }
                | Input::Update { budget: Some(_), .. }
        ) {
            self.refresh_quota().await?;
            self.count_children().await?;
        }
        // Its siblings are followed, and are counted as they end.
        if matches!(input, Input::BeginCall(_)) {
            self.refresh_quota().await?;
        }
        match &input {
            Input::Post(message) => self.check_month(message.charged.as_ref()).await?,
            Input::BeginRequest { id, bound, .. } => {
                let (id, bound) = (id.clone(), *bound);
                return self.begin_request(&id, &bound, input, with).await;
            }
            _ => {}
        }
        self.apply_all(vec![input], with).await
    }

    /// Applies several inputs, one after the other, and commits them as one. The caller has seen to it that the
    /// budgets are those of now.
    pub(super) async fn apply_all(&mut self, inputs: Vec<Input>, with: With) -> Result<Committed, Refusal> {
        self.make(inputs, with, Ok(u64::MAX)).await
    }

    /// Writes an entry of the audit trail that no commit comes with: what it tells of had been done before.
    pub(super) async fn record(&self, entry: Option<Box<Entry>>) -> Result<(), oma_store::Error> {
        match entry {
            Some(entry) => audit::write(Arc::clone(&self.inner.store), *entry).await,
            None => Ok(()),
        }
    }

    /// Refuses a message when the month's budgets of whoever is charged leave nothing.
    pub(super) async fn check_month(&self, charged: Option<&KeyId>) -> Result<(), Refusal> {
        let accounts = Account::of(&self.session.workspace, charged);
        let ledger = &self.inner.ledger;
        ledger.open(&*self.inner.store, &accounts, now()).await?;
        let held = self.session.state.held_for.as_ref();
        match ledger.exceeded(&accounts, held) {
            Some(cap) => Err(Rejection::QuotaExceeded(cap).into()),
            None => Ok(()),
        }
    }

    /// Reserves what a model request can consume at the most, in the month's budgets, before it begins.
    async fn begin_request(
        &mut self,
        id: &EventId,
        bound: &Bound,
        input: Input,
        with: With,
    ) -> Result<Committed, Refusal> {
        let accounts = self.accounts();
        let inner = Arc::clone(&self.inner);
        inner.ledger.open(&*inner.store, &accounts, now()).await?;
        let granted = match inner.ledger.reserve(&accounts, id, bound) {
            Verdict::Granted(output) => Ok(output),
            Verdict::Exceeded(cap) => Err(cap),
            Verdict::Crowded => return Err(Refusal::Crowded),
        };
        let made = self.make(vec![input], with, granted).await;
        let step = self.session.state.turn().map(|turn| &turn.step);
        match step {
            // The session's own budgets may leave it less.
            Some(Step::Sampling {
                request,
                max_output: Some(output),
                ..
            }) if request == id => inner.ledger.shrink(&accounts, id, bound, *output),
            Some(Step::Sampling { request, .. }) if request == id => {}
            // It does not begin.
            _ => inner.ledger.settle(&accounts, id, None, Unreported::default()),
        }
        made
    }

    /// Who is charged for the turn.
    fn accounts(&self) -> Vec<Account> {
        let turn = self.session.state.turn();
        let key = turn.and_then(|turn| turn.charged.as_ref());
        Account::of(&self.session.workspace, key)
    }

    /// Applies and commits inputs as things stand.
    async fn make(
        &mut self,
        inputs: Vec<Input>,
        with: With,
        granted: Result<u64, Exceeded>,
    ) -> Result<Committed, Refusal> {
        let at = now();
        let prepared = self.prepare(inputs, with, granted, at);
        let (commit, effects) = prepared.inspect_err(measure::rejection)?;
        let (events, state) = (commit.events.clone(), Arc::clone(&commit.state));
        let agent = commit.agent.clone();
        self.store(commit).await?;
        if state.deadline().is_some() && state.deadline() != self.session.state.deadline() {
            self.inner.deadline_set.notify_one();
        }
        measure::transition(&self.session.state, &state, &events, at);
        let before = std::mem::replace(&mut self.session.state, Arc::clone(&state));
        if let Some(agent) = agent {
            self.take_agent(agent);
        }
        if let Some(last) = events.last() {
            self.session.head = last.seq;
            self.session.last_event_at = Some(at);
        }
        self.forget_partials();
        let head = self.session.head;
        self.view.send_modify(|view| {
            view.version += 1;
            view.state = Arc::clone(&state);
            view.head = head;
            if !events.is_empty() {
                view.newest = events.iter().cloned().collect();
            }
        });
        let notes = || events.iter().cloned().map(Note::Event);
        self.inner.hub.publish(&self.session.id, notes);
        self.note_effects(&effects);
        self.close_threads(Some(&before));
        let is_blocked = |state: &State| matches!(state.phase, Phase::Blocked { .. });
        if is_blocked(&before) && !is_blocked(&state) {
            self.tell_coordinator();
        }
        if let Some(outcome) = compaction_outcome(&events) {
            self.settle_compaction(outcome);
        }
        Ok(Committed { state, events })
    }

    /// From now on the session has another agent.
    fn take_agent(&mut self, agent: Arc<Agent>) {
        self.info = Arc::new(SessionInfo {
            agent: Arc::clone(&agent),
            ..(*self.info).clone()
        });
        self.session.agent = agent;
        self.inner.runtime.servers_changed(&self.session.id);
    }

    /// Makes a commit durable; what it says of a request that has ended takes the place of what was reserved for it.
    async fn store(&self, commit: Commit) -> Result<(), oma_store::Error> {
        let inner = &self.inner;
        let Some(ended) = self.ended(&commit.state) else {
            return inner.store.commit(commit).await;
        };
        let (accounts, used) = (self.accounts(), commit.used.clone());
        let unreported = commit.state.unreported.since(&self.session.state.unreported);
        let _counting = inner.ledger.counting().await;
        inner.store.commit(commit).await?;
        inner.ledger.settle(&accounts, &ended, used.as_ref(), unreported);
        Ok(())
    }

    /// The model request that ends with a transition.
    fn ended(&self, next: &State) -> Option<EventId> {
        let before = self.session.state.turn().map(|turn| &turn.step);
        match before {
            Some(Step::Sampling { request, .. }) if next.turn().map(|turn| &turn.step) != before => {
                Some(request.clone())
            }
            _ => None,
        }
    }

    /// Looks whether the agent has other budgets by now. What the session was given instead of those of its agent's
    /// version holds until there is another version.
    pub(super) async fn refresh_quota(&mut self) -> Result<(), oma_store::Error> {
        let Inner { store, quotas, .. } = &*self.inner;
        let agent = (self.session.workspace.clone(), self.session.agent.id.clone());
        let changes = quotas.changes();
        let current = match quotas.get(&agent, changes) {
            Some(known) => known,
            None => {
                let Some(found) = store.agent(&agent.0, &agent.1).await? else {
                    // Without an agent, those that were seen last stay.
                    return Ok(());
                };
                let current = Current {
                    version: found.version,
                    quota: found.spec.quota,
                };
                quotas.learn(agent, changes, current);
                current
            }
        };
        if current.version != self.quota.version {
            self.quota = current;
        }
        Ok(())
    }

    /// Counts what children have consumed that rest or are gone and of which nobody told: the server stopped before.
    pub(super) async fn count_children(&mut self) -> Result<(), Refusal> {
        let opened = self.session.state.delegated.opened.iter();
        let lent = opened.filter(|(_, opened)| opened.share.is_some());
        let lent: Vec<(SessionId, u64)> = lent
            .map(|(child, opened)| (child.clone(), opened.turns))
            .collect();
        for (child, turns) in lent {
            let found = self.inner.store.session(&self.session.workspace, &child).await?;
            let due = match &found {
                Some(child) => at_rest(child) && child.state.turns > turns,
                None => {
                    let is_thread = self.session.state.threads.contains_key(&child);
                    !is_thread && !self.inner.opening.has(&child)
                }
            };
            if due {
                let standing = found.as_ref().map(standing);
                let counted = Input::GiveBack { child, standing };
                self.make(vec![counted], With::default(), Ok(u64::MAX)).await?;
            }
        }
        Ok(())
    }

    /// What the session may consume: its agent's budgets, and its share of its parent's.
    fn budgets(&self) -> Option<Quota> {
        match (self.quota.quota, self.session.share) {
            (Some(quota), Some(share)) => Some(quota.and(share)),
            (quota, share) => quota.or(share),
        }
    }

    /// Asks the state machine, and puts its answer into the form that the store takes.
    pub(super) fn prepare(
        &self,
        inputs: Vec<Input>,
        With {
            once,
            needs_agent,
            audit,
        }: With,
        granted: Result<u64, Exceeded>,
        at: Timestamp,
    ) -> Result<(Commit, Vec<Effect>), Rejection> {
        let head = self.session.head;
        let mut whole = Transition {
            state: (*self.session.state).clone(),
            events: Vec::new(),
            queue: Vec::new(),
            effects: Vec::new(),
        };
        for input in inputs {
            let next = self.step(
                &whole.state,
                input,
                granted,
                Seq(head.0 + whole.events.len() as u64),
                at,
            )?;
            whole.state = next.state;
            whole.events.extend(next.events);
            whole.queue.extend(next.queue);
            whole.effects.extend(next.effects);
        }
        let Transition {
            state,
            events,
            queue,
            effects,
        } = whole;
        let mut seq = head;
        let events = events
            .into_iter()
            .map(|event| {
                seq = seq.next();
                let session = self.session.id.clone();
                Event {
                    id: event.id,
                    seq,
                    session,
                    at,
                    body: Arc::new(event.body),
                }
            })
            .collect::<Vec<Event>>();
        let used = self.used(&state, at);
        let output = state.output.clone();
        let before = &self.session.state;
        let evaluations = Arc::clone(&state.evaluations);
        let changed = !Arc::ptr_eq(&evaluations, &before.evaluations);
        let agent = events.iter().rev().find_map(|event| match &*event.body {
            Body::SessionUpdated { agent, .. } => agent.clone(),
            _ => None,
        });
        let commit = Commit {
            workspace: self.session.workspace.clone(),
            session: self.session.id.clone(),
            expected_head: head,
            events,
            queue,
            output: output.filter(|output| self.session.state.output.as_ref() != Some(output)),
            evaluations: changed.then_some(evaluations),
            agent,
            state: Arc::new(state),
            needs_agent: needs_agent.then(|| self.session.agent.id.clone()),
            once,
            used,
            audit: audit.map(|entry| *entry),
        };
        Ok((commit, effects))
    }

    /// One step of the state machine, from a state of this session.
    pub(super) fn step(
        &self,
        state: &State,
        input: Input,
        granted: Result<u64, Exceeded>,
        head: Seq,
        at: Timestamp,
    ) -> Result<Transition, Rejection> {
        let mut ctx = Context {
            now: at,
            created_at: self.session.created_at,
            quota: self.budgets(),
            granted,
            confirmation_timeout_ms: self.session.agent.spec.permission_policy.timeout_ms(),
            head,
            max_requests_per_turn: self.inner.config.max_requests_per_turn,
            new_id: &mut EventId::generate,
        };
        state.apply(input, &mut ctx)
    }

    /// What a model request consumed that ends with this transition. The session's model was not another one when
    /// it began: only the start of a turn changes that.
    fn used(&self, next: &State, at: Timestamp) -> Option<Used> {
        let before = &self.session.state;
        self.ended(next)?;
        let usage = next.usage.since(&before.usage);
        let cost = next.cost.since(&before.cost);
        let nothing = usage == Usage::default() && cost == CostTotal::default();
        (!nothing).then(|| Used {
            day: at.as_millis().div_euclid(MILLIS_PER_DAY),
            model: match before.turn().map(|turn| &turn.step) {
                Some(Step::Sampling {
                    model: Some(model), ..
                }) => model.clone(),
                _ => self.session.model().to_owned(),
            },
            key: before.turn().and_then(|turn| turn.charged.clone()),
            requests: 1,
            usage,
            cost,
        })
    }

    /// Applies what the driving task reports. What an earlier one still had to say is refused.
    pub(super) async fn serve(&mut self, request: Request) {
        let Request {
            generation,
            input,
            reply,
        } = request;
        let current = self
            .drive
            .as_ref()
            .is_some_and(|drive| drive.generation == generation);
        let outcome = if current {
            self.apply(input, With::default()).await
        } else {
            Err(Rejection::Stale.into())
        };
        // The task may have been dropped while this was being applied.
        let _gone = reply.send(outcome);
    }

    /// The pieces of an answer matter only while its request is under way.
    fn forget_partials(&self) {
        if !self.is_sampling() {
            *self.partials.lock().unwrap_or_else(PoisonError::into_inner) = Arriving::default();
        }
    }
}

/// How the turn that was a compaction ended, if it did with these events. Whatever follows in the same commit
/// belongs to the next turn.
fn compaction_outcome(events: &[Event]) -> Option<crate::Result<()>> {
    events.iter().find_map(|event| match &*event.body {
        Body::Compaction { .. } => Some(Ok(())),
        Body::StatusIdle {
            stop_reason: StopReason::Failed { failure },
            ..
        } => Some(Err(Error::CompactionFailed(failure.clone()))),
        Body::StatusIdle { stop_reason, .. } => {
            let why = match stop_reason {
                StopReason::BudgetReached { .. } => "the session's budget is used up",
                _ => "the compaction was cancelled",
            };
            let failure = Failure {
                kind: FailureKind::ModelUnavailable,
                message: why.to_owned(),
            };
            Some(Err(Error::CompactionFailed(failure)))
        }
        _ => None,
    })
}
