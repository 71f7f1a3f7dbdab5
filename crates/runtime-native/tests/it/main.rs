//! The agent loop against the fake provider, over a log in memory.

mod bench;
mod compaction;
mod cost;
mod media;
mod recent;
