//! A client of the API that shows answers as they are.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::stream::Frames;
use super::{canary, soon};

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The error's code.
    pub(crate) fn code(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body of an answer that must be a good one.
    #[track_caller]
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(base: &str, token: Option<&str>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self {
            http,
            base: base.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// The same holder at a server that was started anew.
    pub(crate) fn at(&self, server: &Self) -> Self {
        Self {
            base: server.base.clone(),
            ..self.clone()
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// A request to be completed by the caller.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails: the server may or may not have got the request.
    pub(crate) async fn try_send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        soon("an answer", async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let body = response.bytes().await?.to_vec();
            canary::absent("an answer", &body);
            for (name, value) in &headers {
                canary::absent(name.as_str(), value.as_bytes());
            }
            Ok(Answer {
                status,
                headers,
                body,
            })
        })
        .await
    }

    /// The same where the connection must not fail.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        Self::try_send(request).await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// The same in the Claude dialect, by any method.
    pub(crate) async fn claude(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .request(method, path)
            .header("anthropic-version", "2026-10-21");
        self.send(request.json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(Method::PUT, path).body(body)).await
    }

    /// A metric, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").await.text();
        let is_it = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let values = metrics
            .lines()
            .filter(is_it)
            .map(|line| line.rsplit(' ').next().expect("a value"));
        let values: Vec<f64> = values.map(|value| value.parse().expect("a number")).collect();
        assert!(!values.is_empty(), "there is no {name}: {metrics}");
        values.iter().sum()
    }

    /// Makes an agent and gives its id.
    pub(crate) async fn agent(&self, body: Value) -> String {
        self.post("/v1/agents", &body).await.good()["agent_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Opens a session of an agent and gives its id.
    pub(crate) async fn session(&self, agent: &str) -> String {
        let opened = self
            .post("/v1/sessions", &json!({ "agentId": agent }))
            .await
            .good();
        opened["session_id"].as_str().expect("an id").to_owned()
    }

    /// A session of a fresh agent of a model.
    pub(crate) async fn session_of(&self, model: &str) -> Chat {
        let agent = self.agent(json!({ "model": model })).await;
        let session = self.session(&agent).await;
        Chat {
            client: self.clone(),
            agent,
            session,
        }
    }

    /// The stream of a session's events after a cursor.
    ///
    /// # Errors
    /// When the connection fails.
    pub(crate) async fn try_follow(
        &self,
        session: &str,
        after: Option<&str>,
        deltas: bool,
    ) -> Result<Frames, reqwest::Error> {
        let mut request = self.request(
            Method::GET,
            &format!("/v1/sessions/{session}/events?stream=true&deltas={deltas}"),
        );
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        Ok(Frames::new(request.send().await?.error_for_status()?))
    }

    /// The stream of a session's events from the start.
    pub(crate) async fn follow(&self, session: &str) -> Frames {
        soon("a stream", self.try_follow(session, None, false))
            .await
            .expect("a stream")
    }

    /// All events of a session, read page by page.
    pub(crate) async fn events(&self, session: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/sessions/{session}/events?limit=100&after={after}");
            let page = self.get(&path).await.good();
            all.extend(page["events"].as_array().expect("events").iter().cloned());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return all,
            }
        }
    }
}

/// One session and who it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Chat {
    pub(crate) client: Client,
    pub(crate) agent: String,
    pub(crate) session: String,
}

impl Chat {
    /// The same session on another server.
    pub(crate) fn at(&self, client: &Client) -> Self {
        Self {
            client: client.clone(),
            ..self.clone()
        }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/sessions/{}{rest}", self.session)
    }

    pub(crate) fn file_path(&self, file: &str) -> String {
        format!(
            "/v1/agents/{}/files/{file}?session_id={}",
            self.agent, self.session
        )
    }

    pub(crate) async fn post(&self, content: &str) -> Value {
        self.client
            .post(&self.path("/events"), &json!({ "content": content }))
            .await
            .good()
    }

    /// Posts a message that the fake provider answers by its script.
    pub(crate) async fn play(&self, script: &Value) -> Value {
        self.post(&format!("script:{script}")).await
    }

    pub(crate) async fn read(&self) -> Value {
        self.client.get(&self.path("")).await.good()
    }

    pub(crate) async fn follow(&self) -> Frames {
        self.client.follow(&self.session).await
    }

    pub(crate) async fn events(&self) -> Vec<Value> {
        self.client.events(&self.session).await
    }

    /// Plays a script to its end and gives the events of that turn.
    pub(crate) async fn turn(&self, script: &Value) -> Vec<Value> {
        let posted = self.play(script).await;
        let mut frames = self.follow().await;
        frames
            .until(|frame| frame["event_id"] == posted["event_id"])
            .await;
        let mut events = frames.until(is_end).await;
        events.retain(|event| event["type"] != "heartbeat");
        events
    }

    /// Runs a command in the sandbox and gives its result event.
    pub(crate) async fn run(&self, command: &str) -> Value {
        let script = json!([{"tool": "bash", "input": {"command": command}}, {"text": "ran"}]);
        let events = self.turn(&script).await;
        let found = events
            .into_iter()
            .find(|event| event["type"] == "agent.tool_result");
        found.expect("a result")
    }
}

/// Whether an event ends a turn.
pub(crate) fn is_end(event: &Value) -> bool {
    matches!(
        event["type"].as_str(),
        Some("session.status_idle" | "session.status_failed")
    )
}

/// What the agent said in a turn, as one text.
pub(crate) fn said(events: &[Value]) -> String {
    let messages = events.iter().filter(|event| event["type"] == "agent.message");
    messages
        .map(|event| event["content"].as_str().expect("text"))
        .collect()
}
