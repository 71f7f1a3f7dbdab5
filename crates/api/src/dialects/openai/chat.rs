//! `POST /v1/chat/completions`.

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use oma_domain::{Agent, AgentId, ContentBlock, EventId, KeyId, Session, SessionId};
use oma_engine::{CreateSession, Engine, Error, IdempotencyKey};
use tokio::time::{Instant, timeout_at};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::ChatRequest;
use super::error::ChatErrorBody;
use super::reply::{ChatCompletion, ChunkHead, now_seconds};
use super::stream;
use super::turn::{Progress, Running, finish_reason};
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::payload::Payload;

const AGENT: HeaderName = HeaderName::from_static("x-openclaw-agent-id");
const KEY: HeaderName = HeaderName::from_static("x-openclaw-session-key");
const SESSION: HeaderName = HeaderName::from_static("x-openclaw-session-id");
/// Tells OpenAI's clients whether to repeat a failed request.
const RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(complete))
}

/// Complete a chat.
///
/// The agent named by `x-openclaw-agent-id` answers the last user message. With a session key (the header
/// `x-openclaw-session-key`, or `user`) the session is kept and goes on with the next request; without one it
/// goes away by itself. A busy session refuses with 409. When the client disconnects the turn is stopped. The
/// answer's header `x-openclaw-session-id` names the session: in the default workspace its id is the key, in others one that
/// is derived from it.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat", request_body = ChatRequest,
    params(
        ("x-openclaw-agent-id" = String, Header, description = "The agent that answers"),
        ("x-openclaw-session-key" = Option<String>, Header,
            description = "1 to 128 of A-Z, a-z, 0-9, `_` and `-`; wins over `user`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once"),
    ),
    responses(
        (status = 200, description = "The answer, or a stream of its pieces", content(
            (ChatCompletion = "application/json"), (String = "text/event-stream"),
        )),
        (status = 400, body = ChatErrorBody), (status = 404, body = ChatErrorBody),
        (status = 409, body = ChatErrorBody), (status = 429, body = ChatErrorBody),
        (status = 500, body = ChatErrorBody), (status = 504, body = ChatErrorBody),
    ),
)]
async fn complete(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response> {
    // The agent comes before the body, like in the reference.
    let headers = request.headers().clone();
    let agent = agent(&state.engine, &caller, &headers).await?;
    let payload = Payload::from_request(request, &state).await?;
    let request = payload.parse::<ChatRequest>()?;
    let session_key = session_key(&headers, request.user.as_deref())?;
    let Some((content, streams, include_usage)) = request.last_user_message() else {
        return Err(Fault::invalid_field(
            &["messages"],
            "No user message has any content",
        ));
    };
    if agent.archived_at.is_some() {
        return Err(Error::AgentArchived.into());
    }
    let session = session(
        &state.engine,
        &caller,
        &agent.id,
        session_key,
        payload.key.as_ref(),
    )
    .await?;
    caller.note_target(&session.id);
    caller.note("agent_id", agent.id.as_str());
    let turn = start(
        &state.engine,
        &session,
        content,
        caller.key(),
        payload.key,
        streams,
    )
    .await?;
    let deadline = Instant::now() + state.config.chat_timeout;
    let answered = if streams {
        stream::open(&state, &caller, &session, turn, deadline, include_usage).await
    } else {
        complete_whole(&session, turn, deadline)
            .await
            .map(|answer| Json(answer).into_response())
    };
    let mut response = answered.unwrap_or_else(|fault| {
        // OpenAI's clients repeat failed requests by themselves. This one has had its turn: asked again, the
        // agent would do it all again.
        let mut response = fault.into_response();
        response
            .headers_mut()
            .insert(RETRY, HeaderValue::from_static("false"));
        response
    });
    if let Ok(value) = HeaderValue::from_str(session.id.as_str()) {
        response.headers_mut().insert(SESSION, value);
    }
    Ok(response)
}

async fn agent(engine: &Engine, caller: &Caller, headers: &HeaderMap) -> Result<Agent> {
    let Some(id) = headers.get(&AGENT).filter(|value| !value.is_empty()) else {
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            "missing_agent_id",
            "The header x-openclaw-agent-id is missing",
        ));
    };
    let id = id.to_str().ok().and_then(|text| AgentId::parse(text.trim()).ok());
    Ok(engine
        .agent(caller.workspace(), &id.ok_or(Error::AgentNotFound)?)
        .await?)
}

/// The key of a kept session, which has the form of an id.
fn session_key(headers: &HeaderMap, user: Option<&str>) -> Result<Option<SessionId>> {
    let header = headers
        .get(&KEY)
        .map(|value| value.to_str().unwrap_or("\0").trim());
    let Some(key) = header.or(user).filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    SessionId::parse(key).map(Some).map_err(|problem| {
        Fault::new(
            StatusCode::BAD_REQUEST,
            "invalid_session_key",
            format!("The session key {problem}"),
        )
    })
}

/// The session to answer in.
async fn session(
    engine: &Engine,
    caller: &Caller,
    agent: &AgentId,
    key: Option<SessionId>,
    once: Option<&IdempotencyKey>,
) -> Result<Session> {
    let workspace = caller.workspace();
    let Some(key) = key else {
        let create = CreateSession {
            ephemeral: true,
            created_by: caller.key(),
            ..CreateSession::of(agent.clone())
        };
        return Ok(engine.create_session(workspace, create, once.cloned()).await?);
    };
    let session = engine.keyed_session(workspace, agent, &key, caller.key()).await?;
    if session.agent.id != *agent {
        let message = "The session of this key belongs to another agent";
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "session_agent_mismatch",
            message,
        ));
    }
    Ok(session)
}

/// Starts the turn; a session that was made for it alone does not outlive a refusal.
async fn start(
    engine: &Engine,
    session: &Session,
    content: Vec<ContentBlock>,
    charged: Option<KeyId>,
    key: Option<IdempotencyKey>,
    deltas: bool,
) -> Result<Running> {
    let (engine, session) = (engine.clone(), session.clone());
    // In a task of its own: when the client leaves right here, the message may have been accepted, and whoever
    // drops the turn then stops it.
    let started = tokio::spawn(async move {
        let keyed = key.is_some();
        let started = Running::start(&engine, &session, content, charged, key, deltas).await;
        if started.is_err()
            && session.ephemeral
            && !keyed
            && let Err(error) = engine.delete_session(&session.workspace, &session.id).await
        {
            tracing::warn!(session_id = %session.id, %error, "an unused session stays until it expires");
        }
        started
    });
    started
        .await
        .unwrap_or_else(|error| Err(Fault::internal(format!("a turn could not be started: {error}"))))
}

/// Waits for the whole answer: the text of the turn's last model request.
async fn complete_whole(session: &Session, mut turn: Running, deadline: Instant) -> Result<ChatCompletion> {
    let mut last: Option<Said> = None;
    let stop = loop {
        let Ok(progress) = timeout_at(deadline, turn.next()).await else {
            turn.give_up().await;
            return Err(timed_out());
        };
        match progress? {
            Progress::Piece { .. } => {}
            Progress::Message {
                event,
                request,
                text,
                model,
            } => match &mut last {
                Some(said) if said.request == request => {
                    said.text.push('\n');
                    said.text.push_str(&text);
                    said.event = event;
                }
                _ => {
                    last = Some(Said {
                        event,
                        request,
                        text,
                        model,
                    })
                }
            },
            Progress::End(stop) => break stop,
        }
    };
    let finish = finish_reason(&stop)?;
    let Said {
        event, text, model, ..
    } = last.unwrap_or_else(|| Said::nothing(session));
    Ok(ChatCompletion::new(&event, model, text, finish, &turn.usage))
}

/// What the agent said in one model request.
struct Said {
    event: EventId,
    request: EventId,
    text: String,
    model: String,
}

impl Said {
    /// For a turn without any message.
    fn nothing(session: &Session) -> Self {
        let event = EventId::generate();
        Self {
            request: event.clone(),
            event,
            text: String::new(),
            model: session.model().to_owned(),
        }
    }
}

/// The turn took too long and was stopped.
pub(super) fn timed_out() -> Fault {
    Fault::new(
        StatusCode::GATEWAY_TIMEOUT,
        "timeout",
        "The turn took too long and was stopped",
    )
}

/// What the chunks of an answer share, before any message has come.
pub(super) fn head(session: &Session) -> ChunkHead {
    ChunkHead {
        id: format!("chatcmpl-{}", EventId::generate()),
        created: now_seconds(),
        model: session.model().to_owned(),
    }
}
