//! A token endpoint that rotates refresh tokens: each is good once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<Issued>,
    /// Answers wait for a permit.
    gate: Semaphore,
    /// Has a permit for each request that came.
    arrived: Semaphore,
}

#[derive(Default)]
pub(crate) struct Issued {
    /// How many pairs were issued.
    pub(crate) count: u64,
    /// The form and the `Authorization` header of each request.
    pub(crate) requests: Vec<BTreeMap<String, String>>,
    /// What to answer instead.
    pub(crate) failure: Option<(u16, String)>,
    /// For how long tokens are good, in seconds.
    pub(crate) life: i64,
}

pub(crate) fn access(count: u64) -> String {
    format!("canary-access-{count}")
}

pub(crate) fn refresh(count: u64) -> String {
    format!("canary-refresh-{count}")
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            state: Mutex::new(Issued {
                life: 3600,
                ..Issued::default()
            }),
            gate: Semaphore::new(1 << 20),
            arrived: Semaphore::new(0),
        });
        let router = Router::new()
            .route("/token", post(answer))
            .with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Issued) -> T) -> T {
        look(&mut self.inner.state.lock().unwrap())
    }

    /// Lets no answer out from now on.
    pub(crate) async fn hold(&self) {
        self.inner.gate.acquire_many(1 << 20).await.unwrap().forget();
    }

    pub(crate) fn release(&self) {
        self.inner.gate.add_permits(1 << 20);
    }

    /// Waits until a request has come that nobody has waited for yet.
    pub(crate) async fn asked(&self) {
        self.inner.arrived.acquire().await.unwrap().forget();
    }
}

async fn answer(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: String) -> Response {
    let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    if let Some(value) = headers.get("authorization") {
        form.insert("authorization".into(), value.to_str().unwrap().into());
    }
    inner.arrived.add_permits(1);
    let _permit = inner.gate.acquire().await.unwrap();
    let mut state = inner.state.lock().unwrap();
    let presented = form.get("refresh_token").cloned().unwrap_or_default();
    state.requests.push(form);
    if let Some((status, body)) = state.failure.clone() {
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    if presented != refresh(state.count) {
        return (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#).into_response();
    }
    state.count += 1;
    serde_json::json!({
        "access_token": access(state.count), "refresh_token": refresh(state.count), "expires_in": state.life,
    })
    .to_string()
    .into_response()
}
