//! Signing up with the real binary: anonymously, and with a GitHub that the test plays.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::command_line::oma;
use crate::system::client::{Answer, Client, is_end};
use crate::system::{System, soon};

const TOKEN: &str = "canary-api-token-2f6a";
const APP_SECRET: &str = "canary-github-app-9be1";

async fn start(more: &[(&str, &str)]) -> System {
    System::start_with(|options| {
        more.iter().fold(options.token(TOKEN), |options, (name, value)| {
            options.set(name, value)
        })
    })
    .await
}

fn nobody(system: &System) -> Client {
    Client::new(system.client().url(), None)
}

async fn sign_up(anybody: &Client) -> Answer {
    anybody.post("/auth/anonymous", &json!({})).await
}

fn holder(system: &System, signed_up: &Value) -> Client {
    Client::new(system.client().url(), signed_up["api_token"].as_str())
}

#[tokio::test]
async fn nobody_signs_up_unless_the_operator_says_so() {
    let system = start(&[]).await;
    let anybody = nobody(&system);
    let refused = sign_up(&anybody).await;
    assert_eq!((refused.status, refused.code().as_str()), (501, "auth_disabled"));
    for path in ["/auth/github", "/auth/github/callback?code=x&state=y"] {
        let refused = anybody.get(path).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (501, "github_not_configured")
        );
    }
    assert_eq!(anybody.get("/auth/me").await.status, 401);
    let me = system.client().get("/auth/me").await.good();
    assert_eq!(me, json!({"role": "admin", "tier": "admin"}));
    system.stop().await;
    // What makes no sense keeps the server from starting.
    for (settings, words) in [
        (&[("OPENCLAW_SIGNUP_ANONYMOUS", "true")][..], "server.api_token"),
        (
            &[("OPENCLAW_SIGNUP_GITHUB", "true"), ("OPENCLAW_API_TOKEN", TOKEN)],
            "signup.github_redirect_url",
        ),
        (
            &[
                ("OPENCLAW_SIGNUP_GITHUB", "true"),
                ("OPENCLAW_API_TOKEN", TOKEN),
                ("GITHUB_CLIENT_ID", "app"),
                ("GITHUB_CLIENT_SECRET", APP_SECRET),
                (
                    "OPENCLAW_GITHUB_REDIRECT_URL",
                    "http://public.example/auth/github/callback",
                ),
            ],
            "https",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = oma(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("OPENCLAW_DATA_DIR", folder.path());
        let output = command.envs(settings.iter().copied()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(words),
            "{words}: {said}"
        );
        assert!(!said.contains(APP_SECRET));
    }
}

#[tokio::test]
async fn anonymous_users_have_a_workspace_of_their_own_within_bounds() {
    let system = start(&[
        ("OPENCLAW_SIGNUP_ANONYMOUS", "true"),
        ("OPENCLAW_SIGNUP_ANONYMOUS_MAX_SESSIONS", "2"),
        ("OPENCLAW_SIGNUP_ANONYMOUS_MAX_TOKENS", "2000"),
        ("OPENCLAW_SIGNUP_ANONYMOUS_MAX_USERS", "3"),
    ])
    .await;
    let anybody = nobody(&system);
    let answer = sign_up(&anybody).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let one = answer.good();
    let two = sign_up(&anybody).await.good();
    assert_eq!(one["tier"], "anonymous");
    let (us, them) = (holder(&system, &one), holder(&system, &two));
    let me = us.get("/auth/me").await.good();
    assert_eq!(
        (
            &me["user_id"],
            &me["tier"],
            &me["expires_at"],
            &me["github_username"]
        ),
        (
            &one["user_id"],
            &json!("anonymous"),
            &one["expires_at"],
            &Value::Null
        )
    );
    let agent = us.agent(json!({"model": "scripted/echo"})).await;
    assert_eq!(them.get(&format!("/v1/agents/{agent}")).await.status, 404);
    assert_eq!(them.get("/v1/agents").await.good()["count"], 0);
    for path in ["/v1/audit", "/v1/keys"] {
        assert_eq!(us.get(path).await.status, 403, "{path}");
    }
    // Sessions and tokens are bounded.
    let session = us.session(&agent).await;
    us.session(&agent).await;
    let third = us.post("/v1/sessions", &json!({ "agentId": agent })).await;
    assert_eq!((third.status, third.code().as_str()), (429, "quota_exceeded"));
    let path = format!("/v1/sessions/{session}/events");
    let mut accepted = 0;
    let refused = loop {
        let posted = us.post(&path, &json!({"content": "word ".repeat(200)})).await;
        if posted.status != 200 {
            break posted;
        }
        accepted += 1;
        assert!(accepted < 20, "there is no end of it");
        let mut frames = us.follow(&session).await;
        let event = posted.json()["event_id"].clone();
        frames.until(|frame| frame["event_id"] == event).await;
        frames.until(is_end).await;
    };
    assert_eq!(refused.code(), "quota_exceeded");
    // So are users, and tries of one address.
    sign_up(&anybody).await.good();
    let full = sign_up(&anybody).await;
    assert_eq!((full.status, full.code().as_str()), (429, "signup_full"));
    sign_up(&anybody).await;
    let limited = sign_up(&anybody).await;
    assert_eq!((limited.status, limited.code().as_str()), (429, "rate_limited"));
    assert!(limited.header("retry-after").is_some());
    let trail = system.client().get("/v1/audit?action=user.create").await.good();
    let rows = trail["events"].as_array().expect("rows");
    let made = rows.iter().filter(|row| row["outcome"] == "ok").count();
    assert_eq!(made, 3, "{trail}");
    assert!(rows.iter().any(|row| row["target"] == one["user_id"]));
    let token = one["api_token"].as_str().expect("a token").to_owned();
    assert!(!trail.to_string().contains(&token));
    let data = system.stop().await;
    assert!(!data.log().contains(&token));
    let stored = std::fs::read(data.path().join("store.db")).expect("the database");
    assert!(
        !stored
            .windows(token.len())
            .any(|window| window == token.as_bytes())
    );
}

#[tokio::test]
async fn expired_users_go_with_everything_of_theirs() {
    let system = start(&[
        ("OPENCLAW_SIGNUP_ANONYMOUS", "true"),
        ("OPENCLAW_SIGNUP_ANONYMOUS_LIFETIME_MS", "3000"),
    ])
    .await;
    let one = sign_up(&nobody(&system)).await.good();
    let us = holder(&system, &one);
    let agent = us.agent(json!({"model": "scripted/echo"})).await;
    us.session(&agent).await;
    let vault = us.post("/v1/vaults", &json!({"userId": "u"})).await.good();
    let bearer =
        json!({"type": "static_bearer", "name": "c", "matchUrl": "https://mcp.example/", "token": "t"});
    let path = format!(
        "/v1/vaults/{}/credentials",
        vault["vault_id"].as_str().expect("an id")
    );
    us.post(&path, &bearer).await.good();
    us.post("/v1/environments", &json!({"name": "e"})).await.good();
    soon("the user's end", async {
        while us.get("/v1/agents").await.status == 200 {}
    })
    .await;
    assert_eq!(us.get("/v1/agents").await.status, 401, "the token ends in time");
    // A starting server looks for the expired at once.
    let system = system.crash().await;
    let workspaces = async {
        loop {
            let listed = system.client().get("/v1/workspaces").await.good();
            if listed["count"] == 1 {
                return;
            }
        }
    };
    soon("the removal of everything", workspaces).await;
    let data = system.stop().await;
    let conn = rusqlite::Connection::open(data.path().join("store.db")).expect("the database");
    for table in [
        "agents",
        "agent_versions",
        "agent_snapshots",
        "sessions",
        "environments",
        "vaults",
        "credentials",
        "users",
        "api_keys",
        "usage",
    ] {
        let count: i64 = conn
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("a count");
        assert_eq!(count, 0, "{table}");
    }
}

/// What the test's GitHub was asked.
#[derive(Debug, Default)]
struct Asked {
    forms: Vec<Value>,
    bearers: Vec<String>,
}

type Shared = Arc<Mutex<Asked>>;

/// A GitHub that gives a token for the code `good`.
async fn github() -> (String, Shared) {
    let asked = Shared::default();
    let token = |State(asked): State<Shared>, body: String| async move {
        let query = reqwest::Url::parse(&format!("http://form/?{body}")).expect("a form");
        let form: Value = query
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect();
        let answer = match form["code"].as_str() {
            Some("good") => json!({"access_token": "gho_canary", "token_type": "bearer"}),
            _ => json!({"error": "bad_verification_code"}),
        };
        asked.lock().expect("no panic").forms.push(form);
        Json(answer)
    };
    let user = |State(asked): State<Shared>, headers: HeaderMap| async move {
        let bearer = headers["authorization"].to_str().expect("text").to_owned();
        asked.lock().expect("no panic").bearers.push(bearer);
        Json(json!({"id": 583_231, "login": "octo<b>cat", "avatar_url": "https://a.example/1"}))
    };
    let router = Router::new()
        .route("/login/oauth/access_token", post(token))
        .route("/user", get(user))
        .with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// A browser on its way: what the server gave it.
struct Way {
    state: String,
    challenge: String,
    cookie: String,
}

async fn begin(anybody: &Client) -> Way {
    let answer = anybody.get("/auth/github").await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    let location = reqwest::Url::parse(answer.header("location").expect("a way")).expect("an address");
    assert_eq!(location.path(), "/login/oauth/authorize");
    let pair = |name: &str| {
        let found = location.query_pairs().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.into_owned()
    };
    assert_eq!(
        (
            pair("client_id").as_str(),
            pair("scope").as_str(),
            pair("code_challenge_method").as_str()
        ),
        ("app", "read:user", "S256")
    );
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    Way {
        state: pair("state"),
        challenge: pair("code_challenge"),
        cookie: cookie.split(';').next().expect("a pair").to_owned(),
    }
}

async fn come_back(anybody: &Client, code: &str, state: &str, cookie: &str) -> Answer {
    let path = format!("/auth/github/callback?code={code}&state={state}");
    let request = anybody.request(Method::GET, &path).header("cookie", cookie);
    anybody.send(request).await
}

#[tokio::test]
async fn a_github_account_signs_in_by_state_cookie_and_pkce() {
    let (url, asked) = github().await;
    let system = start(&[
        ("OPENCLAW_SIGNUP_GITHUB", "true"),
        ("GITHUB_CLIENT_ID", "app"),
        ("GITHUB_CLIENT_SECRET", APP_SECRET),
        (
            "OPENCLAW_GITHUB_REDIRECT_URL",
            "http://127.0.0.1:1/auth/github/callback",
        ),
        ("OPENCLAW_GITHUB_URL", &url),
        ("OPENCLAW_GITHUB_API_URL", &url),
        ("OPENCLAW_DIAL_ALLOW", "127.0.0.0/8"),
    ])
    .await;
    let anybody = nobody(&system);
    let way = begin(&anybody).await;
    let page = come_back(&anybody, "good", &way.state, &way.cookie).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(
        page.header("content-security-policy")
            .expect("a policy")
            .contains("default-src 'none'")
    );
    let html = page.text();
    assert!(
        html.contains("octo&lt;b&gt;cat") && !html.contains("octo<b>cat"),
        "{html}"
    );
    let token = |html: &str| {
        let (_, rest) = html.split_once("<pre>").expect("a token");
        rest.split_once("</pre>").expect("its end").0.to_owned()
    };
    let first = token(&html);
    // The secret behind the challenge was shown to GitHub, and the app's own.
    let form = asked.lock().expect("no panic").forms[0].clone();
    let verifier = form["code_verifier"].as_str().expect("a verifier");
    assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)), way.challenge);
    assert_eq!(
        (&form["client_secret"], &form["redirect_uri"]),
        (
            &json!(APP_SECRET),
            &json!("http://127.0.0.1:1/auth/github/callback")
        )
    );
    assert_eq!(asked.lock().expect("no panic").bearers, ["Bearer gho_canary"]);
    let us = Client::new(anybody.url(), Some(&first));
    let me = us.get("/auth/me").await.good();
    assert_eq!(
        (&me["tier"], &me["github_username"], &me["expires_at"]),
        (&json!("github"), &json!("octo<b>cat"), &Value::Null)
    );
    let agent = us.agent(json!({"model": "scripted/echo"})).await;

    // Nobody else comes back with it, it counts once, and GitHub has the last word.
    let stolen = begin(&anybody).await;
    for (code, state, cookie) in [
        ("good", way.state.as_str(), way.cookie.as_str()),
        ("good", &stolen.state, "oma_signin=somebody-elses"),
        ("good", &stolen.state, &stolen.cookie),
        ("good", "nonsense", &stolen.cookie),
        ("good", "", ""),
    ] {
        let refused = come_back(&anybody, code, state, cookie).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (401, "github_auth_failed"),
            "{state}"
        );
    }
    let way = begin(&anybody).await;
    let refused = come_back(&anybody, "bad", &way.state, &way.cookie).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (401, "github_auth_failed")
    );
    let refused = anybody.get("/auth/github/callback?state=x").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "missing_code"));

    // The same account finds the same workspace, with a new token.
    let way = begin(&anybody).await;
    let again = come_back(&anybody, "good", &way.state, &way.cookie).await;
    let second = token(&again.text());
    assert_eq!(
        us.get("/v1/agents").await.status,
        401,
        "the token before works no more"
    );
    let us = Client::new(anybody.url(), Some(&second));
    us.get(&format!("/v1/agents/{agent}")).await.good();
    let trail = system.client().get("/v1/audit?action=user.sign_in").await.good();
    let outcomes: Vec<&str> = trail["events"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["outcome"].as_str().expect("text"))
        .collect();
    assert_eq!(
        outcomes.iter().filter(|outcome| **outcome == "ok").count(),
        2,
        "{trail}"
    );
    assert!(outcomes.contains(&"github_auth_failed"));
    let data = system.stop().await;
    for secret in [first.as_str(), &second, APP_SECRET, "gho_canary", verifier] {
        assert!(!data.log().contains(secret) && !trail.to_string().contains(secret));
    }
}
