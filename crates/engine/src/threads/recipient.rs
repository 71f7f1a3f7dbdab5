//! Whom a message is meant for: a thread that is there, or an agent that a new one is opened for.

use std::sync::Arc;

use oma_domain::session::{State, Thread};
use oma_domain::{Agent, AgentId, SessionId};
use oma_runtime::Recipient;

use super::Errand;
use crate::roster;

/// A thread that a message goes to.
pub(super) struct Chosen {
    pub(super) thread: SessionId,
    pub(super) agent: AgentId,
    pub(super) agent_name: String,
    pub(super) is_new: bool,
}

impl Errand<'_> {
    /// Which thread is meant, or why there is none, in words for the model.
    pub(super) fn choose(&self, state: &State, to: &Recipient) -> Result<Chosen, String> {
        let new = |agent: &Arc<Agent>| Chosen {
            thread: SessionId::of_child(self.tool_use),
            agent: agent.id.clone(),
            agent_name: agent.shown_name().to_owned(),
            is_new: true,
        };
        let known = |(thread, known): (&SessionId, &Thread)| Chosen {
            thread: thread.clone(),
            agent: known.agent.clone(),
            agent_name: known.agent_name.clone(),
            is_new: false,
        };
        let takes = |(_, thread): &(&SessionId, &Thread)| !thread.is_over && !thread.ends_with_answer();
        let live = || state.threads.iter().filter(takes);
        match to {
            Recipient::Advisor => self.advisor().map(|advisor| new(&advisor)),
            Recipient::Defined(agent) => Ok(new(agent)),
            Recipient::New(name) => self.member(name).map(new),
            Recipient::Newest(name) => {
                let member = self.member(name);
                let is_its = |thread: &Thread| match &member {
                    Ok(agent) => thread.agent == agent.id,
                    Err(_) => thread.agent.is_inline() && thread.agent_name == *name,
                };
                // Ids sort by time.
                let newest = live().rfind(|(_, thread)| is_its(thread)).map(known);
                newest.map_or_else(|| member.map(new), Ok)
            }
            Recipient::Thread(name) => {
                let found = live().find(|(id, _)| SessionId::of_thread(name).any(|meant| meant == **id));
                found.map(known).ok_or_else(|| {
                    format!("There is no thread {name} that could take a message. list_agents tells which there are.")
                })
            }
        }
    }

    /// The advisor, as it works in threads.
    pub(super) fn advisor(&self) -> Result<Arc<Agent>, String> {
        let coordinator = &self.info.agent;
        let model = coordinator.advisor().ok_or("You have no advisor.")?;
        Ok(Arc::new(roster::advisor(coordinator, model)))
    }

    /// One of those who may work in threads, by id or name.
    pub(super) fn member(&self, name: &str) -> Result<&Arc<Agent>, String> {
        let mut members = self.info.members();
        let is_meant = |agent: &&Arc<Agent>| agent.id.as_str() == name || agent.shown_name() == name;
        members.find(is_meant).ok_or_else(|| {
            let names: Vec<&str> = self.info.members().map(|agent| agent.shown_name()).collect();
            let others = match names.as_slice() {
                [] => String::new(),
                names => format!(" You may to: {}.", names.join(", ")),
            };
            let threads = match self.info.may_define() {
                true => " To an agent that you have created you send messages by the name of its thread.",
                false => "",
            };
            format!("You may not send messages to the agent {name}.{others}{threads}")
        })
    }
}
