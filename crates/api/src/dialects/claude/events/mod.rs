//! A session's events: post, list, stream.

pub(crate) mod attachments;
mod body;
mod content;
mod frame;
pub(crate) mod page;
pub(crate) mod projection;
mod reasons;
pub(crate) mod stream;
mod tool_uses;
mod workflows;

pub(crate) use body::{define_outcome, message, system_message};
pub(crate) use content::{outcome, view as content};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::session::Rejection;
use oma_domain::{EventId, OutcomeId, Session, SessionId};
use oma_engine::{Error, Submission, Submitted};
use serde_json::{Value, json};

use super::body::{Sent, bad};
use super::time;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::SessionPath;
use body::Posted;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/sessions/{session_id}/events", post(send).get(page::list))
        .route("/v1/sessions/{session_id}/events/stream", get(stream::follow))
}

async fn send(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    mut sent: Sent,
) -> Result<Json<Value>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    // Most events say nothing that depends on the session: it need not be read for them.
    let named = match body::names_threads(&sent.value) {
        true => Some(open(&state, &caller, &id).await?),
        false => None,
    };
    let posted = match read(&state, &caller, &mut sent.value, named.as_ref()).await {
        Ok(posted) => posted,
        Err(fault) => {
            // A missing session is reported before a bad body.
            open(&state, &caller, &id).await?;
            return Err(fault);
        }
    };
    let (submissions, echoes): (Vec<Submission>, Vec<Value>) = posted
        .into_iter()
        .map(|Posted { submission, echo }| (submission, echo))
        .unzip();
    let is_result = |submission: &Submission| matches!(submission, Submission::Answer { .. });
    if caller.is_hands() && !submissions.iter().all(is_result) {
        return Err(crate::hands::forbidden());
    }
    let first_work = submissions
        .iter()
        .enumerate()
        .find_map(|(at, submission)| match submission {
            Submission::Message(_) => Some((at, "user.message")),
            Submission::DefineOutcome { .. } => Some((at, "user.define_outcome")),
            _ => None,
        });
    let outcome_at = submissions
        .iter()
        .position(|submission| matches!(submission, Submission::DefineOutcome { .. }));
    let has_custom = submissions
        .iter()
        .any(|submission| matches!(submission, Submission::Answer { remote: false, .. }));
    let outcome = engine
        .submit(
            workspace,
            &id,
            submissions,
            caller.key(),
            sent.key,
            caller.success(),
        )
        .await;
    let submitted = outcome.map_err(|error| worded(error, &id, first_work, outcome_at, has_custom))?;
    caller.recorded();
    let data: Vec<Value> = submitted.into_iter().zip(echoes).map(echoed).collect();
    Ok(Json(json!({ "data": data })))
}

/// What a request wants of a session.
async fn read(
    state: &AppState,
    caller: &Caller,
    sent: &mut Value,
    session: Option<&Session>,
) -> Result<Vec<Posted>> {
    attachments::resolve(state, caller, sent, "events").await?;
    body::events(sent, session)
}

/// A session that takes events.
async fn open(state: &AppState, caller: &Caller, id: &SessionId) -> Result<Session> {
    let session = state.engine.session(caller.workspace(), id).await?;
    match session.state.archived_at {
        Some(_) => Err(archived(id)),
        None => Ok(session),
    }
}

/// An event as it was taken, with its id.
fn echoed((Submitted { event, at, thread }, fields): (Submitted, Value)) -> Value {
    let mut echo = json!({"id": event.as_str()});
    if let (Value::Object(echo), Value::Object(fields)) = (&mut echo, fields) {
        echo.extend(fields);
    }
    if echo["type"] == "user.define_outcome" {
        echo["outcome_id"] = json!(OutcomeId::of(&event).as_str());
    }
    if let Some(thread) = thread {
        echo["session_thread_id"] = json!(thread.thread_name());
    }
    echo["processed_at"] = time::optional(at);
    echo
}

fn archived(id: &SessionId) -> Fault {
    bad(format!("Cannot send events to archived session: {id}"))
}

/// The errors that clients of this dialect know by their texts.
fn worded(
    error: Error,
    id: &SessionId,
    first_work: Option<(usize, &'static str)>,
    outcome_at: Option<usize>,
    has_custom: bool,
) -> Fault {
    match error {
        Error::Rejected(Rejection::Archived) => archived(id),
        Error::Rejected(Rejection::AwaitsAnswers(ids)) => {
            let ids: Vec<&str> = ids.iter().map(EventId::as_str).collect();
            let (at, kind) = first_work.unwrap_or((0, "user.message"));
            bad(format!(
                "Invalid {kind} event at events[{at}]: waiting on responses to events [{}]; only \
                 `user.tool_confirmation`, `user.custom_tool_result`, `user.tool_result`, or `user.interrupt` may \
                 be sent",
                ids.join(", ")
            ))
        }
        Error::Rejected(Rejection::NotAsking) => bad(
            "`tool_use_id` does not match any `agent.tool_use` event in this session that waits for a confirmation",
        ),
        Error::Rejected(Rejection::NotAwaited) if !has_custom => bad(
            "`tool_use_id` does not match any `agent.tool_use` event in this session that waits for its result",
        ),
        Error::Rejected(rejection @ (Rejection::NoThread | Rejection::OfThread)) => {
            bad(rejection.to_string())
        }
        Error::Rejected(Rejection::NotAwaited) => bad(
            "`custom_tool_use_id` does not match any `agent.custom_tool_use` event in this session that waits for \
             its result",
        ),
        Error::Rejected(Rejection::OutcomeActive) => bad(format!(
            "Invalid user.define_outcome event at events[{}]: the session works towards an outcome that has not ended",
            outcome_at.unwrap_or_default()
        )),
        Error::Rejected(Rejection::QuotaExceeded(_)) => bad(
            "The session's budget is used up; only `user.tool_confirmation`, `user.tool_result`, \
             `user.custom_tool_result` or `user.interrupt` may be sent",
        ),
        error => error.into(),
    }
}
