//! The Claude Managed Agents dialect, as Anthropic's SDKs use it. What of that API exists here and what does not, and where this server is
//! different on purpose, is in DIVERGENCES.md.
//!
//! Requests and responses use snake_case names, times are RFC 3339 texts, updates are `POST`s, lists are pages of
//! `{data, next_page}`. Fields that are not known are refused by name. Paths that are not built answer 404 in the
//! envelope that the SDKs read.

mod agents;
mod body;
mod deployments;
mod environments;
pub(crate) mod error;
mod events;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod memory;
mod model;
mod page;
mod query;
mod sessions;
mod skills;
mod threads;
mod time;
mod tools;
mod vaults;
mod webhooks;
mod work;

use axum::Router;

use crate::AppState;

/// The routes of this dialect.
pub(crate) fn router(state: AppState) -> Router {
    Router::new()
        .merge(agents::routes())
        .merge(environments::routes())
        .merge(sessions::routes())
        .merge(events::routes())
        .merge(files::routes())
        .merge(threads::routes())
        .merge(deployments::routes())
        .merge(memory::routes())
        .merge(skills::routes())
        .merge(vaults::routes())
        .merge(webhooks::routes())
        .merge(work::routes())
        .with_state(state)
}
