//! A client changes what is said about the session.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::input::AgentChange;
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use crate::agent::Agent;
use crate::event::{Body, BudgetChange};
use crate::usage::NanoUsd;

impl Transition {
    /// Notes what the agent's MCP servers were called before other ones took their place. What a turn works with
    /// can't change under it.
    pub(super) fn update_agent(
        &mut self,
        change: Option<AgentChange>,
    ) -> Result<Option<Arc<Agent>>, Rejection> {
        let Some(AgentChange {
            agent,
            former_servers,
        }) = change
        else {
            return Ok(None);
        };
        if !matches!(self.state.phase, Phase::Idle { .. }) {
            return Err(Rejection::Busy);
        }
        self.state.former_servers.extend(former_servers);
        Ok(Some(agent))
    }

    /// Changes the session's own budget, and tells what there is to record of that.
    pub(super) fn update_budget(
        &mut self,
        budget: Option<Option<NanoUsd>>,
    ) -> Result<Option<BudgetChange>, Rejection> {
        let Some(budget) = budget.filter(|budget| *budget != self.state.budget) else {
            return Ok(None);
        };
        match (self.state.budget, budget) {
            (None, Some(_)) => return Err(Rejection::BudgetCreateOnly),
            (_, Some(raised)) if raised <= self.state.total().cost.known => {
                return Err(Rejection::BudgetNotRaised);
            }
            (_, Some(_) | None) => {}
        }
        self.state.budget = budget;
        Ok(Some(BudgetChange { max_cost: budget }))
    }

    /// Records what is other than before, if anything is.
    pub(super) fn update(
        &mut self,
        title: Option<Option<String>>,
        metadata: Option<BTreeMap<String, String>>,
        agent: Option<Arc<Agent>>,
        budget: Option<BudgetChange>,
        ctx: &mut Context<'_>,
    ) {
        let title = title.filter(|title| *title != self.state.title);
        let metadata = metadata.filter(|metadata| *metadata != self.state.metadata);
        if title.is_none() && metadata.is_none() && agent.is_none() && budget.is_none() {
            return;
        }
        if let Some(title) = &title {
            self.state.title.clone_from(title);
        }
        if let Some(metadata) = &metadata {
            self.state.metadata.clone_from(metadata);
        }
        self.push(
            ctx,
            Body::SessionUpdated {
                title: title.map(Option::unwrap_or_default),
                metadata,
                agent,
                budget,
            },
        );
        if budget.is_some() {
            self.resume(ctx);
        }
    }
}
