//! The API of the real binary over real connections: what it refuses, who it lets in, and what it keeps to when
//! clients, networks and model providers don't behave.

mod access;
mod bodies;
mod budgets;
mod chat;
mod claude_refusals;
mod compaction;
mod confirmations;
mod delegation;
mod drain;
mod files;
mod heads;
mod lists;
mod load;
mod messages;
mod parent_tokens;
mod providers;
mod refusals;
mod streams;
mod threads;
mod uploads;
