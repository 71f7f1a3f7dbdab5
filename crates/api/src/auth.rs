//! Who is calling, in which workspace, with which rights. Handlers learn it from [`Caller`] (or from [`Admin`] and
//! [`Operator`], which let only such callers through); only this module can make one.
//!
//! Which scope a request needs is decided here by its method: reading needs `read`, everything else `write`. A
//! handler that needs more says so by the extractor that it takes.

use std::sync::Arc;

use axum::extract::{Extension, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_domain::audit::Entry;
use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::{Actor, KeyId, Scope, WorkspaceId};
use oma_engine::keys;
use oma_engine::parent_token::Claims;
use oma_engine::work_token;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::AppState;
use crate::audit::{self, Notes};
use crate::dialect::Dialect;
use crate::fault::Fault;
use crate::hands::{Call, Hands};
use crate::rate::{self, Pass, Peer};

/// The paths that need no key. They tell nothing about any workspace; those below `/auth` make new ones, where the
/// operator has turned that on.
pub const OPEN_PATHS: [&str; 9] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/auth/anonymous",
    "/auth/github",
    "/auth/github/callback",
];

/// The header with a parent token.
pub const PARENT_TOKEN: &str = "x-openclaw-parent-token";

/// What whoever has nothing but a parent token may call. The handlers see to it that it is about the parent's own
/// children.
const FOR_PARENTS: [(Method, &str); 4] = [
    (Method::POST, "/v1/sessions"),
    (Method::GET, "/v1/sessions/{session_id}"),
    (Method::GET, "/v1/sessions/{session_id}/events"),
    (Method::POST, "/v1/sessions/{session_id}/events"),
];

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    workspace: WorkspaceId,
    actor: Actor,
    scope: Scope,
    /// What its key is recognised by, when it has one.
    digest: Option<[u8; 32]>,
    /// What its parent token says, when it has nothing else.
    parent: Option<Arc<Claims>>,
    /// What it carries out, when it may do nothing else.
    hands: Option<Arc<Hands>>,
    notes: Notes,
}

impl Caller {
    /// Whether it might still call: a key may be revoked, rotated or expire while its answer is on the way.
    pub(crate) fn is_welcome(&self, state: &AppState) -> bool {
        let in_time = |claims: &Arc<Claims>| oma_engine::now() < claims.expires_at;
        let at_work = |hands: &Arc<Hands>| match &**hands {
            Hands::Environment(_) => true,
            Hands::Item(claims) => oma_engine::now() < claims.expires_at,
        };
        self.parent.as_ref().is_none_or(in_time)
            && self.hands.as_ref().is_none_or(at_work)
            && self
                .digest
                .is_none_or(|digest| matches!(state.engine.authenticate(digest), Ok(Some(_))))
    }

    /// The workspace that the caller works in.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    /// Who it is.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The key that it holds, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        match &self.actor {
            Actor::Key(id) => Some(id.clone()),
            Actor::Operator | Actor::Local | Actor::Session(_) => None,
        }
    }

    /// What it may do in its workspace.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What its parent token says, when that is all that it has: it may do so much for that session and nothing else.
    #[must_use]
    pub fn parent(&self) -> Option<&Claims> {
        self.parent.as_deref()
    }

    /// Whether it carries out the tools of a self-hosted environment, and may do nothing else.
    #[must_use]
    pub fn is_hands(&self) -> bool {
        self.hands.is_some()
    }

    /// Notes for the audit trail what the call made, or is about, where the path does not say it.
    pub fn note_target(&self, id: impl ToString) {
        self.notes.target(id.to_string());
    }

    /// Notes a fact for the audit trail. Never a secret.
    pub fn note(&self, name: &str, value: impl Into<serde_json::Value>) {
        self.notes.fact(name, value.into());
    }

    /// What the audit trail is to say of this call if it succeeds, for whoever writes it together with what the call
    /// does; [`Self::recorded`] says that it was.
    #[must_use]
    pub fn success(&self) -> Option<Box<Entry>> {
        self.notes.success().map(Box::new)
    }

    /// That has been written.
    pub fn recorded(&self) {
        self.notes.recorded();
    }

    /// Notes in the store that this call is under way, where its entry does not come with what it does.
    ///
    /// # Errors
    /// The store takes nothing.
    pub(crate) async fn begin(&self, state: &AppState) -> Result<(), Fault> {
        audit::note(state, &self.notes).await
    }

    /// Notes the budgets that something gets.
    pub fn note_budget(&self, budget: &Monthly) {
        self.note("max_cost_usd_per_month", budget.max_cost.map(NanoUsd::as_usd));
        self.note("max_tokens_per_month", budget.max_tokens);
    }

    /// The workspace that a call is about, where one may be named: the operator may name any, everybody else only
    /// their own.
    ///
    /// # Errors
    /// 404: others are not there for this caller.
    pub fn chosen_workspace(&self, named: Option<WorkspaceId>) -> Result<WorkspaceId, Fault> {
        match named {
            None => Ok(self.workspace.clone()),
            Some(id) if id == self.workspace || self.actor.is_operator() => Ok(id),
            Some(_) => Err(oma_engine::Error::WorkspaceNotFound.into()),
        }
    }

    /// Passes when the caller's scope includes `needed`.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn require(&self, needed: Scope) -> Result<(), Fault> {
        if self.scope.allows(needed) {
            return Ok(());
        }
        let message = format!("This needs a key of scope {needed}; yours has {}", self.scope);
        Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        // An unauthenticated request gets to no handler, except on open paths, whose handlers ask for no caller.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Fault::internal("a handler ran without a caller"))
    }
}

/// A caller of the scope `admin`; others are refused before the handler runs.
#[derive(Debug, Clone)]
pub struct Admin(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(Scope::Admin)?;
        Ok(Self(caller))
    }
}

/// The operator; others are refused before the handler runs.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.actor.is_operator() {
            return Ok(Self(caller));
        }
        let message = "This needs the server's own token";
        Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

/// The scope that a request needs at least.
fn needed(method: &Method) -> Scope {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Scope::Read,
        _ => Scope::Write,
    }
}

/// Lets a request through if it may pass, and says who is calling.
pub(crate) async fn require(
    State(state): State<AppState>,
    Extension(dialect): Extension<Dialect>,
    mut request: Request,
    next: Next,
) -> Response {
    if rate::EXEMPT.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let (pass, caller) = match admit(&state, &request, dialect) {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    if let Some(caller) = caller {
        if let Some(hands) = &caller.hands {
            let call = Call::of(&request, dialect);
            if let Err(fault) = hands.permit(&state, &caller.workspace, call).await {
                return refuse(fault, pass);
            }
        }
        request.extensions_mut().insert(caller);
    }
    let mut response = next.run(request).await;
    if let Some(pass) = pass {
        pass.tell(&mut response);
    }
    response
}

fn refuse(fault: Fault, pass: Option<Pass>) -> Response {
    let mut response = fault.into_response();
    if let Some(pass) = pass {
        pass.tell(&mut response);
    }
    response
}

/// Whether a request may pass, with what its answer says about the rate limit, and who sent it, unless anybody may.
fn admit(
    state: &AppState,
    request: &Request,
    dialect: Dialect,
) -> Result<(Option<Pass>, Option<Caller>), Box<Response>> {
    let too_many = |refused: rate::TooMany| Box::new(refused.into_response());
    let peer = request.extensions().get::<Peer>();
    let address = rate::origin(peer, request.headers(), &state.config.trusted_proxies);
    let limits = state.limits.as_deref();
    let unknown = limits.map(|limits| limits.unknown(address));
    let unknown = unknown.transpose().map_err(too_many)?;
    if OPEN_PATHS.contains(&request.uri().path()) {
        return Ok((unknown, None));
    }
    let refused = |fault: Fault, pass: Option<Pass>| Box::new(refuse(fault, pass));
    let caller = authenticate(state, request, dialect).map_err(|fault| refused(fault, unknown))?;
    let known = limits.map(|limits| {
        limits.recognised(address);
        limits.known(caller.actor(), address)
    });
    let known = known.transpose().map_err(too_many)?;
    let needed = needed(request.method());
    caller.require(needed).map_err(|fault| refused(fault, known))?;
    if caller.parent.is_some() && !is_for_parents(request) {
        let message = "A parent token may open sessions, and post to and read those that it opened";
        let fault = Fault::new(StatusCode::FORBIDDEN, "forbidden", message);
        return Err(refused(fault, known));
    }
    Ok((known, Some(caller)))
}

fn is_for_parents(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| {
        let call = (request.method(), route.as_str());
        FOR_PARENTS.iter().any(|(method, path)| call == (method, *path))
    })
}

/// Finds out who is calling. It costs one SHA-256 and a look into a table in memory.
fn authenticate(state: &AppState, request: &Request, dialect: Dialect) -> Result<Caller, Fault> {
    let notes = request.extensions().get::<Notes>().cloned().unwrap_or_default();
    let headers = request.headers();
    // The handlers of the Claude dialect know nothing of parents, and would let them at every session.
    let token = headers
        .get(PARENT_TOKEN)
        .filter(|_| dialect != Dialect::Claude && !has_credential(headers, dialect));
    let (recognised, parent) = match token {
        Some(token) => {
            let claims = state.engine.verify_parent_token(token.as_bytes())?;
            let actor = Actor::Session(claims.parent_session_id.clone());
            let recognised = Recognised {
                workspace: claims.workspace_id.clone(),
                actor,
                scope: Scope::Write,
                digest: None,
                hands: None,
            };
            (recognised, Some(Arc::new(claims)))
        }
        None => (recognise(state, headers, dialect)?, None),
    };
    let Recognised {
        workspace,
        actor,
        scope,
        digest,
        hands,
    } = recognised;
    notes.caller(&workspace, &actor);
    tracing::Span::current().record("workspace_id", workspace.as_str());
    Ok(Caller {
        workspace,
        actor,
        scope,
        digest,
        parent,
        hands: hands.map(Arc::new),
        notes,
    })
}

/// Whether a request presents a key, which then says who is calling.
fn has_credential(headers: &HeaderMap, dialect: Dialect) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || (dialect == Dialect::Claude && headers.contains_key("x-api-key"))
}

/// What a credential stands for.
struct Recognised {
    workspace: WorkspaceId,
    actor: Actor,
    scope: Scope,
    digest: Option<[u8; 32]>,
    hands: Option<Hands>,
}

fn operator(actor: Actor) -> Recognised {
    Recognised {
        workspace: WorkspaceId::default_workspace(),
        actor,
        scope: Scope::Admin,
        digest: None,
        hands: None,
    }
}

/// Whoever carries out an item acts for its session.
fn by_work_token(state: &AppState, token: &[u8]) -> Result<Recognised, Fault> {
    let claims = state.engine.verify_work_token(token)?;
    Ok(Recognised {
        workspace: claims.workspace.clone(),
        actor: Actor::Session(claims.session.clone()),
        scope: Scope::Write,
        digest: None,
        hands: Some(Hands::Item(Box::new(claims))),
    })
}

fn recognise(state: &AppState, headers: &HeaderMap, dialect: Dialect) -> Result<Recognised, Fault> {
    let Some(expected) = &state.operator else {
        // A server without a token asks for no key. One that is presented all the same counts, and whoever sent it
        // should learn that it does not work, rather than get more rights than it has.
        return match credential(headers, dialect) {
            Ok(text) if text.starts_with(keys::PREFIX.as_bytes()) => {
                by_key(state, Sha256::digest(text).into())
            }
            Ok(text) if text.starts_with(work_token::PREFIX.as_bytes()) => by_work_token(state, text),
            _ => Ok(operator(Actor::Local)),
        };
    };
    let credential = credential(headers, dialect)?;
    if credential.starts_with(work_token::PREFIX.as_bytes()) {
        return by_work_token(state, credential);
    }
    let digest: [u8; 32] = Sha256::digest(credential).into();
    // Digests are compared, so that neither the content nor the length shows in the time that it takes.
    if digest.ct_eq(expected).into() {
        return Ok(operator(Actor::Operator));
    }
    by_key(state, digest)
}

/// Looking a digest up tells nothing about the secrets behind the others: nobody can choose what it begins with.
fn by_key(state: &AppState, digest: [u8; 32]) -> Result<Recognised, Fault> {
    match state.engine.authenticate(digest)? {
        Some(found) => Ok(Recognised {
            workspace: found.workspace,
            actor: Actor::Key(found.key),
            scope: found.scope,
            digest: Some(digest),
            hands: found.environment.map(Hands::Environment),
        }),
        None => Err(refused("The API key is not valid").with_challenge("Bearer error=\"invalid_token\"")),
    }
}

/// What the operator's token is recognised by.
pub(crate) fn digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

/// The key that a request presents. Claude clients may send it as `x-api-key` too.
fn credential(headers: &HeaderMap, dialect: Dialect) -> Result<&[u8], Fault> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return match headers.get("x-api-key") {
            Some(key) if dialect == Dialect::Claude => Ok(key.as_bytes()),
            _ => Err(refused("The Authorization header is missing")),
        };
    };
    let value = value.as_bytes().trim_ascii();
    let (scheme, key) = value.split_at(
        value
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(value.len()),
    );
    let key = key.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(refused("The Authorization header must use the Bearer scheme"));
    }
    if key.is_empty() {
        return Err(refused("The bearer token is empty"));
    }
    Ok(key)
}

fn refused(message: &str) -> Fault {
    Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", message).with_challenge("Bearer")
}

#[cfg(test)]
mod tests;
