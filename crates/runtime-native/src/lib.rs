//! The native agent loop: asks the model, runs the tools, asks again, until the turn is over.
//!
//! [`Native`] drives a turn from whatever point the state says it is at, so a restart needs nothing special:
//! [`turn`] looks at the step and does the next thing. The context of a request is folded from the log by
//! [`conversation`], which only ever reads what it has not read yet.
//!
//! Invariants kept here:
//! - a tool use that may have run before a restart is never run again (I6): its result is fetched from the
//!   sandbox's hand, or an error says that nobody knows;
//! - no model request waits for a sandbox, and a session that only talks never has one;
//! - model keys never leave this process.
//!
//! Where it sits: below the engine, behind the `Runtime` trait; above models, tools and sandbox.

mod acting;
mod advice;
mod building;
mod compaction;
mod conversation;
mod delegation;
mod deliverables;
mod dossier;
mod grading;
mod inline;
mod mentions;
mod meter;
mod native;
mod prompt;
mod recent;
mod sampling;
mod shrink;
mod spans;
mod threads;
mod turn;
mod weight;
mod workflows;

pub use native::{Config, Native};
