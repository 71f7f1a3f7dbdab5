//! The engine: it owns every session's truth.
//!
//! A session with work to do has one *actor* ([`actor`]): it holds the state, applies every input through the
//! domain's state machine, commits the result and only then tells anybody. An idle session has none and costs
//! no memory. The actor calls the runtime to do the turn's work, within a bound on concurrent turns
//! ([`Config::max_turns`], first come first served).
//!
//! Invariants kept here:
//! - an accepted post is durable before the call returns, and takes effect once (I1);
//! - what a stream delivers is what the list contains, in the same order (I3);
//! - a cancel ends within a second and keeps the partial output (I7);
//! - after a restart every turn that was under way goes on by itself (I6).
//!
//! Where it sits: below `api`, which only ever talks to [`Engine`]; above the runtimes, the sandbox and the store.

pub mod error;

pub use error::{Error, Result};

use std::sync::Arc;

use oma_domain::page::{Order, Page};
use oma_domain::session::{Session, State};
use oma_domain::thinking::ThinkingLevel;
use oma_domain::{
    Agent, AgentId, ContentBlock, Environment, EnvironmentId, Event, EventId, Seq, SessionId, WorkspaceId, agent,
    environment,
};
pub use oma_runtime::Delta;

/// An idempotency key of a client, with a digest of the request that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// What the client chose.
    pub key: String,
    /// A digest of method, path and body.
    pub fingerprint: String,
}

/// A session to create.
#[derive(Debug, Clone)]
pub struct CreateSession {
    /// The agent; its current version is pinned.
    pub agent: AgentId,
    /// The environment.
    pub environment: Option<EnvironmentId>,
    /// An id that the client chose; a fresh one otherwise.
    pub id: Option<SessionId>,
    /// Whether it goes away by itself some time after it became idle.
    pub ephemeral: bool,
}

/// A message to post.
#[derive(Debug, Clone)]
pub struct Post {
    /// What it says; not empty.
    pub content: Vec<ContentBlock>,
    /// A model for this and later turns.
    pub model: Option<String>,
    /// A thinking level for this and later turns.
    pub thinking_level: Option<ThinkingLevel>,
    /// Refuse with `Busy` instead of queueing when the session is busy.
    pub only_if_idle: bool,
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// The id that its event has or will have.
    pub event: EventId,
    /// Whether it waits behind other work.
    pub queued: bool,
    /// Whether this call had been carried out before, under the same idempotency key.
    pub replayed: bool,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A committed event.
    Event(Event),
    /// A piece of an answer on its way (only when asked for).
    Delta(Delta),
    /// The session was deleted; nothing follows.
    Deleted,
}

/// A model that agents may name.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// `provider/model`.
    pub id: String,
    /// The provider.
    pub provider: String,
    /// A name for people.
    pub name: Option<String>,
    /// The context window in tokens, when it is known.
    pub context_window: Option<u64>,
    /// For example `text`, `image`.
    pub input_modalities: Vec<String>,
}
