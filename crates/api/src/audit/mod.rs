//! Recording what is done: one entry of the audit trail for every call that changes something, or tried to, written
//! before the client is answered.
//!
//! A call of somebody known is noted before it changes anything ([`begin`]), without waiting: the note goes to the disk
//! with the change or before it, and at once where the change is not the store's. When the call ends, its entry takes the place of the note; when the server dies, the
//! next one makes an entry of it with the outcome `cut_off`.
//!
//! An entry says who, what, to what and with what outcome. It is made of ids, codes and names; bodies and headers,
//! where secrets are, are not looked at.
//!
//! Who is refused at the door (a wrong key, too many requests) is recorded, too, but no more often than
//! [`REFUSALS_PER_MINUTE`]: nobody without a key may fill the disk. What was left out is counted in the next entry.
//!
//! A posted message is the most frequent of these calls. Its entry is written by the transaction that accepts it, so no
//! note is needed: further transactions would have its sender wait for the disk again. So is that of signing up, where
//! nobody is known before, and that of an item that a worker takes.
//!
//! Invariant: a client that was told of a success finds it in the trail, and so is what was done with a key and nobody
//! was told of.

mod actions;
mod notes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_domain::AuditId;
use oma_domain::audit::Entry;
use oma_engine::Engine;

use crate::AppState;
use crate::fault::Fault;
use crate::params::segment;
use crate::rate::{self, Buckets, Peer, Taken};
use crate::request_id::RequestId;
pub(crate) use notes::Notes;
use notes::{About, SUCCESS};

/// How many refusals at the door are recorded in a minute.
const REFUSALS_PER_MINUTE: u32 = 60;
/// The longest id from a path that is kept, in characters.
const TARGET: usize = 128;

/// How many refusals may still be recorded, and how many were not.
#[derive(Debug)]
pub(crate) struct Refusals {
    allowed: Buckets<()>,
    left_out: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            allowed: Buckets::per_minute(REFUSALS_PER_MINUTE),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// Whether this one is to be recorded; with how many were left out before it.
    fn admit(&self) -> Option<u64> {
        match self.allowed.take((), Instant::now()) {
            Taken::Granted(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Taken::Refused(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                metrics::counter!("audit_refusals_left_out_total").increment(1);
                None
            }
        }
    }
}

/// A call that is under way. When it is dropped before it was answered, its client has gone away, and nobody can say
/// any more how far it came; that is recorded, too.
struct Call {
    engine: Engine,
    notes: Notes,
    about: Arc<About>,
    answered: bool,
}

impl Call {
    fn entry(&self, outcome: &str) -> Entry {
        self.about.entry(self.notes.known(), outcome)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_open = !self.answered && !self.notes.known().recorded && !self.about.action.changes_seldom();
        if is_open && tokio::runtime::Handle::try_current().is_ok() {
            self.engine.record_behind(self.entry("client_gone"));
        }
    }
}

/// Notes a call that changes something, when its caller is known and it is about to be carried out.
pub(crate) async fn begin(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if let Some(notes) = request.extensions().get::<Notes>().cloned()
        && !notes.is_atomic()
        && let Err(fault) = note(&state, &notes).await
    {
        return fault.into_response();
    }
    next.run(request).await
}

/// Notes that a call is under way.
pub(crate) async fn note(state: &AppState, notes: &Notes) -> Result<(), Fault> {
    if let Some(entry) = notes.beginning() {
        let reaches_out = notes.reaches_out();
        state.engine.record_beginning(&entry, reaches_out).await?;
        notes.begun();
    }
    Ok(())
}

/// Records a call.
pub(crate) async fn record(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let Some(action) = route.and_then(|route| actions::of(request.method(), route.as_str())) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let target = match action.target {
        // What the path names is no text then, and the call is refused for it.
        Some(name) => segment(&mut parts, name, &())
            .await
            .ok()
            .map(|text| text.chars().take(TARGET).collect()),
        None => None,
    };
    let peer = parts.extensions.get::<Peer>();
    let address = rate::origin(peer, &parts.headers, &state.config.trusted_proxies);
    let request_id = parts.extensions.get::<RequestId>();
    let about = Arc::new(About {
        id: AuditId::generate(),
        action,
        request_id: request_id.map(ToString::to_string).unwrap_or_default(),
        address: format!("ip:{address}"),
        target,
    });
    let notes = Notes::of(Arc::clone(&about));
    let mut call = Call {
        engine: state.engine.clone(),
        notes: notes.clone(),
        about,
        answered: false,
    };
    parts.extensions.insert(notes.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    call.answered = true;

    let outcome = match response.extensions().get::<Fault>() {
        Some(fault) => fault.code(),
        None if response.status().is_success() => SUCCESS,
        None => "failed",
    };
    let known = notes.known();
    if outcome == SUCCESS && (known.recorded || call.about.action.changes_seldom()) {
        return response;
    }
    if !known.has_begun && (outcome == "rate_limited" || known.caller.is_none()) {
        match state.refusals.admit() {
            None => return response,
            Some(0) => {}
            Some(left_out) => notes.fact("left_out", left_out.into()),
        }
    }
    let entry = call.entry(outcome);
    match call.engine.record(entry).await {
        Ok(()) => response,
        // What failed anyway is told as it is; the log has the rest.
        Err(_) if !response.status().is_success() => response,
        Err(_) => {
            let message = "The call was carried out, but it could not be recorded in the audit trail";
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_failed", message).into_response()
        }
    }
}
