//! What environments have installed: by the real installers, from the registries that this machine reaches, once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::process::Command;

use oma_fake_provider::Reply;
use serde_json::{Value, json};

use crate::containers::{contained, engine};
use crate::system::client::{Chat, Client, said};
use crate::system::{Options, System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// A program of a few lines, without dependencies. Where there is no `cargo`, Debian's is brought first.
pub(crate) const CRATE: &str = "hello_cargo@0.1.0";

/// Variables that tell programs of this machine whom to trust, and by which other name an installer knows them.
const TRUST: [(&str, &str); 5] = [
    ("SSL_CERT_FILE", "SSL_CERT_FILE"),
    ("SSL_CERT_FILE", "CARGO_HTTP_CAINFO"),
    ("SSL_CERT_FILE", "PIP_CERT"),
    ("SSL_CERT_FILE", "npm_config_cafile"),
    ("NODE_EXTRA_CA_CERTS", "NODE_EXTRA_CA_CERTS"),
];

/// The hosts that this machine has its own packages from.
fn hosts() -> BTreeSet<String> {
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)"])
        .output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let host = |line: &str| Some(reqwest::Url::parse(line).ok()?.host_str()?.to_owned());
    listed.unwrap_or_default().lines().filter_map(host).collect()
}

/// What the builds of a test have besides what installing this machine's own packages takes.
#[derive(Default)]
pub(crate) struct Given<'a> {
    /// Where the file with those that are trusted lies, if that is another place than on this machine.
    pub(crate) place: Option<&'a str>,
    /// A further registry, `host:port`.
    pub(crate) host: Option<String>,
    /// Variables, `NAME=VALUE`.
    pub(crate) variables: Vec<String>,
}

/// A server whose environments can have packages, as far as this machine can give them.
pub(crate) async fn start(adjust: impl FnOnce(Options) -> Options) -> Option<System> {
    start_given(Given::default(), adjust).await
}

/// The same with more than that.
pub(crate) async fn start_given(given: Given<'_>, adjust: impl FnOnce(Options) -> Options) -> Option<System> {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let hosts = hosts();
    let found = hosts
        .iter()
        .filter_map(|host| (host.as_str(), 443).to_socket_addrs().ok());
    let addresses: Vec<IpAddr> = found.flatten().map(|address| address.ip()).collect();
    if addresses.is_empty() {
        assert!(
            !is_ci,
            "packages can't be installed: nobody knows where this machine has its own from"
        );
        return None;
    }
    // A mirror may have an address that is not public.
    let allowed = addresses
        .iter()
        .flat_map(|address| [80, 443].map(|port| SocketAddr::new(*address, port).to_string()));
    let allowed: Vec<String> = allowed.chain(given.host.clone()).collect();
    let registry = given.host.as_deref().map(|host| match host.rsplit_once(':') {
        Some((name, _port)) => name.to_owned(),
        None => host.to_owned(),
    });
    let registries: Vec<String> = hosts.into_iter().chain(registry).collect();
    let trust = TRUST.into_iter().filter_map(|(name, known_as)| {
        let path = std::env::var(name).ok()?;
        Some(format!("{known_as}={}", given.place.unwrap_or(&path)))
    });
    let variables: Vec<String> = trust.chain(given.variables).collect();
    let system = System::start_with(|options| {
        adjust(options)
            .set("OPENCLAW_SANDBOX_EGRESS_ALLOW", &allowed.join(","))
            .set("OPENCLAW_SANDBOX_REGISTRIES", &registries.join(","))
            .set("OPENCLAW_SANDBOX_BUILD_VARIABLES", &variables.join(","))
            // What needs this must still work, and is told from the packages of a build.
            .set("OPENCLAW_SANDBOX_MEMORY", "1GiB")
    });
    Some(system.await)
}

pub(crate) async fn environment(client: &Client, body: Value) -> String {
    let made = client.post("/v1/environments", &body).await.good();
    made["environment_id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn session(client: &Client, environment: &str) -> Chat {
    let agent = client.agent(json!({"model": MODEL})).await;
    let body = json!({"agentId": agent, "environmentId": environment});
    let session = client.post("/v1/sessions", &body).await.good();
    Chat {
        client: client.clone(),
        agent,
        session: session["session_id"].as_str().expect("an id").to_owned(),
    }
}

pub(crate) async fn run(chat: &Chat, command: &str) -> String {
    let result = chat.run(&format!("{{ {command} ; }} 2>&1; true")).await;
    result["content"].as_str().expect("text").to_owned()
}

/// What the session's log says of builds, in short.
async fn told(chat: &Chat) -> Vec<String> {
    let events = chat.events().await;
    let builds = events
        .iter()
        .filter(|event| event["type"] == "session.environment_build");
    let word = |event: &Value| {
        let build = &event["build"];
        let status = build["status"].as_str().expect("a status");
        let has_time = build["duration_ms"].is_u64();
        assert_eq!(
            has_time,
            matches!(status, "step_ended" | "ready" | "failed"),
            "{event}"
        );
        assert_eq!(build["layer"].as_str().map(str::len), Some(64), "{event}");
        match build["step"].as_str() {
            Some(step) => format!("{status} {step} {}", build["packages"]),
            None => status.to_owned(),
        }
    };
    builds.map(word).collect()
}

/// The build of an environment, once it has ended.
pub(crate) async fn built(client: &Client, environment: &str) -> Value {
    loop {
        let build = client
            .get(&format!("/v1/environments/{environment}/build"))
            .await
            .good();
        if !matches!(build["status"].as_str(), Some("waiting" | "building")) {
            return build;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn packages_are_installed_once_and_shared() {
    let Some(system) = start(|options| options).await else {
        return;
    };
    let client = system.client();
    let packages = json!({"apt": ["hello"], "npm": ["left-pad@1.3.0"], "pip": ["six==1.17.0"]});
    let body = json!({"name": "e", "packages": packages});
    let first = environment(client, body.clone()).await;
    // Another environment that says the same, and two sessions at once: one build for all of them.
    let second = environment(client, body).await;
    let (one, two) = (session(client, &first).await, session(client, &second).await);
    // One of them needs its sandbox before that is built.
    assert_eq!(run(&one, "echo here").await.trim(), "here");
    let steps = [
        "apt [\"hello\"]",
        "npm [\"left-pad@1.3.0\"]",
        "pip [\"six==1.17.0\"]",
    ];
    let steps = steps.map(|step| [format!("step_started {step}"), format!("step_ended {step}")]);
    let mut all = steps.concat();
    all.insert(0, "started".to_owned());
    all.push("ready".to_owned());
    assert_eq!(told(&one).await, all);
    let build = built(client, &first).await;
    assert_eq!(build["status"], "ready", "{build:#}");
    let log = build["log"].as_str().expect("a log");
    for expected in [
        "$ apt-get",
        "hello",
        "$ npm install",
        "$ python3 -m pip install -- six==1.17.0",
        "Successfully installed six",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let use_them = "hello; python3 -c 'import six; print(six.__version__)'; \
                    node -e 'console.log(require(\"left-pad\")(7, 3, 0))'; env | grep -c -i -E 'pip_cert|cafile'";
    for chat in [&one, &two] {
        let said = run(chat, use_them).await;
        assert!(said.starts_with("Hello, world!\n1.17.0\n007\n0"), "{said}");
    }
    assert_eq!(told(&one).await, all, "once");
    assert_eq!(told(&two).await, Vec::<String>::new(), "it waited for nothing");
    assert_eq!(
        client.metric("environment_build_duration_seconds_count").await,
        1.0
    );
    assert_eq!(built(client, &second).await["layer"], build["layer"]);

    // A server that is started anew has it still.
    let system = system.crash().await;
    let client = system.client();
    let three = session(client, &first).await;
    assert!(
        run(&three, use_them)
            .await
            .starts_with("Hello, world!\n1.17.0\n007\n0")
    );
    assert_eq!(
        client.metric("environment_build_duration_seconds_count").await,
        0.0
    );
    // What has nothing to build has nothing of it.
    let plain = environment(client, json!({"name": "plain"})).await;
    assert_eq!(built(client, &plain).await["status"], "none");
    let four = session(client, &plain).await;
    assert!(run(&four, "hello").await.contains("not found"));
    system.stop().await;
}

/// The name of an image of Debian's least, without Python.
pub(crate) const DEBIAN: &str = "oma-test/debian:1";

/// Makes that image.
pub(crate) fn import_debian(engine: &oma_docker_engine::Engine) {
    engine.import(DEBIAN, &[], |root| {
        let made = Command::new("debootstrap")
            .args(["--variant=minbase", "bookworm"])
            .arg(root)
            .output()
            .expect("debootstrap runs");
        let said = String::from_utf8_lossy(&made.stdout);
        assert!(made.status.success(), "{said}");
    });
}

#[tokio::test]
async fn packages_are_installed_into_containers() {
    let Some(engine) = engine(false) else { return };
    // Files of builds: whom to trust, where an image does not know.
    let trusted = std::env::var("SSL_CERT_FILE").ok();
    let given = Given {
        place: Some("/etc/trusted.pem"),
        ..Given::default()
    };
    let started = start_given(given, |options| {
        let options = contained(&engine)(options).set("OPENCLAW_SANDBOX_IMAGES", DEBIAN);
        match &trusted {
            Some(path) => options.set(
                "OPENCLAW_SANDBOX_BUILD_FILES",
                &format!("/etc/trusted.pem={path}"),
            ),
            None => options,
        }
    });
    let Some(system) = started.await else { return };
    import_debian(&engine);
    let client = system.client();
    // The server's own image has no apt-get.
    let bare = environment(client, json!({"name": "bare", "packages": {"apt": ["hello"]}})).await;
    let failed = built(client, &bare).await;
    assert!(
        failed["error"]
            .as_str()
            .expect("an error")
            .starts_with("there is no apt-get"),
        "{failed}"
    );

    let id = environment(
        client,
        json!({
            "name": "e", "image": DEBIAN, "packages": {"apt": ["hello"], "cargo": [CRATE], "pip": ["six==1.17.0"]},
            "setupScript": "cat /etc/trusted.pem | head -c 0; echo kept > /usr/local/kept",
        }),
    )
    .await;
    let (one, two) = (session(client, &id).await, session(client, &id).await);
    let build = built(client, &id).await;
    assert_eq!(build["status"], "ready", "{build:#}");
    for chat in [&one, &two] {
        let said = run(
            chat,
            "hello; python3 -c 'import six; print(six.__version__)'; cat /usr/local/kept; hello_cargo; touch /usr/x",
        )
        .await;
        assert!(
            said.starts_with("Hello, world!\n1.17.0\nkept\nHello, world!\n") && said.contains("Read-only"),
            "{said}"
        );
    }
    assert_eq!(engine.api().images("oma.layer").len(), 1);
    assert_eq!(
        client.metric("environment_build_duration_seconds_count").await,
        2.0
    );
    // What one has said of its image is not another one's.
    let plain = session(client, &environment(client, json!({"name": "plain"})).await).await;
    assert!(run(&plain, "hello").await.contains("not found"));
    system.stop().await;
}

#[tokio::test]
async fn a_package_that_does_not_exist_is_told_in_the_installers_words() {
    let Some(system) = start(|options| options).await else {
        return;
    };
    let client = system.client();
    let nothing = "oma-no-such-package-anywhere";
    for (packages, who, words) in [
        (json!({"apt": [nothing]}), "apt", "Unable to locate package"),
        (json!({"pip": [nothing]}), "pip", "No matching distribution"),
        (json!({"npm": [nothing]}), "npm", "404"),
    ] {
        let id = environment(client, json!({"name": who, "packages": packages})).await;
        // One that is there before the build has ended.
        let early = session(client, &id).await;
        let build = built(client, &id).await;
        assert_eq!(build["status"], "failed", "{build:#}");
        let error = build["error"].as_str().expect("an error");
        let begins = format!("{who} could not install {nothing} (exit status ");
        assert!(error.starts_with(&begins) && error.contains(words), "{error}");

        let agent = client.agent(json!({"model": MODEL})).await;
        let refused = client
            .post("/v1/sessions", &json!({"agentId": agent, "environmentId": id}))
            .await;
        assert_eq!((refused.status, &*refused.code()), (400, "unsupported"));
        assert!(refused.text().contains(&begins), "{}", refused.text());

        // Whoever only talks needs no sandbox.
        let talk = early.turn(&json!([{"text": "good day"}])).await;
        assert_eq!(said(&talk), "good day");
        system
            .provider
            .push(Reply::new().tool("bash", json!({"command": "true"})));
        early.post("go").await;
        let ended = soon("the turn", async {
            loop {
                let events = early.events().await;
                if let Some(event) = events.iter().find(|event| event["type"] == "agent.error") {
                    return event.clone();
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(ended["error_type"], "environment_build_error", "{ended}");
        assert!(
            ended["content"].as_str().expect("text").starts_with(&begins),
            "{ended}"
        );
    }
    assert_eq!(system.provider.requests().len(), 6, "no model was asked in vain");
    system.stop().await;
}

#[tokio::test]
async fn a_turn_waits_for_the_build_and_ends_with_its_failure() {
    let Some(system) = start(|options| options).await else {
        return;
    };
    let client = system.client();
    let body = json!({
        "name": "slow", "setupScript": "echo begun\nwhile [ ! -e /tmp/go ]; do sleep 0.1; [ $((n+=1)) -lt 20 ] || break; done\n\
                                         echo kept > /usr/local/kept; echo \"$GREETING\"; exit 3",
        "variables": {"GREETING": "good day"},
    });
    let id = environment(client, body).await;
    let chat = session(client, &id).await;
    system
        .provider
        .push(Reply::new().tool("bash", json!({"command": "cat /usr/local/kept"})));
    system.provider.push(Reply::new().text("never said"));
    chat.post("go").await;
    let events = soon("the end", async {
        loop {
            let events = chat.events().await;
            if events.iter().any(|event| event["type"] == "agent.error") {
                return events;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = events
        .iter()
        .find(|event| event["type"] == "agent.error")
        .expect("one");
    assert_eq!(error["error_type"], "environment_build_error");
    let text = error["content"].as_str().expect("text");
    assert!(
        text.starts_with("the setup script failed (exit status 3):") && text.ends_with("good day"),
        "{text}"
    );
    let steps = [
        "started",
        "step_started setup_script null",
        "step_ended setup_script null",
        "failed",
    ];
    assert_eq!(told(&chat).await, steps);
    let failed = events
        .iter()
        .rfind(|event| event["type"] == "session.environment_build");
    let failed = failed.expect("its end");
    assert_eq!(
        (&failed["content"], &failed["is_error"]),
        (&json!(text), &json!(true))
    );
    // The other dialect has no word for it.
    let path = format!("/v1/sessions/{}/events", chat.session);
    let request = client.request(reqwest::Method::GET, &format!("{path}?limit=100"));
    let listed = client
        .send(request.header("anthropic-version", "2023-06-01"))
        .await
        .good();
    let kinds: Vec<&str> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert!(kinds.contains(&"session.error"), "{kinds:?}");
    assert!(!kinds.iter().any(|kind| kind.contains("build")), "{kinds:?}");
    system.stop().await;
}

#[tokio::test]
async fn variables_limits_and_what_a_script_leaves_are_in_all_sandboxes() {
    let Some(system) = start(|options| options).await else {
        return;
    };
    let client = system.client();
    let body = json!({
        "name": "e",
        "setupScript": "#!/usr/bin/env python3\nopen('/usr/local/bin/made', 'w').write('#!/bin/sh\\necho made $MOOD\\n')\n\
                        import os; os.chmod('/usr/local/bin/made', 0o755)",
        "variables": {"MOOD": "well"},
        "limits": {"memory": 67_108_864, "processes": 24, "cpus": 0.5, "disk": 2_097_152},
    });
    let made = client.post("/v1/environments", &body).await.good();
    for field in ["setupScript", "variables", "limits"] {
        assert_eq!(made[field], body[field]);
    }
    let chat = session(client, made["environment_id"].as_str().expect("an id")).await;
    assert_eq!(run(&chat, "made").await.trim(), "made well");
    let refused = run(&chat, "for n in $(seq 40); do sleep 5 & done; kill $(jobs -p)").await;
    assert!(refused.contains("Resource temporarily unavailable"), "{refused}");
    let too_much = run(&chat, "python3 -c 'x = bytearray(200 << 20); print(6 * 7)'").await;
    assert!(!too_much.contains("42"), "{too_much}");
    let too_large = run(&chat, "head -c 8M /dev/zero > big; ls -l big; sleep 1; ls -l big").await;
    assert!(
        too_large.contains("disk") || !too_large.contains("8388608"),
        "{too_large}"
    );
    system.stop().await;
}

#[tokio::test]
async fn what_environments_may_not_say_is_refused() {
    let system = System::start().await;
    let client = system.client();
    let limited = json!({"type": "limited", "allowedHosts": ["good.test"]});
    let long = "x".repeat((64 << 10) + 1);
    for (extra, code, field) in [
        (
            json!({"packages": {"apt": ["--purge"]}}),
            "invalid_request",
            "packages",
        ),
        (
            json!({"packages": {"pip": ["./x"]}}),
            "invalid_request",
            "packages",
        ),
        (
            json!({"packages": {"npm": ["a; rm -rf /"]}}),
            "invalid_request",
            "packages",
        ),
        (
            json!({"packages": {"pip": ["six"]}, "networking": limited}),
            "unsupported",
            "networking",
        ),
        (json!({"image": "other:1"}), "unsupported", "image"),
        (json!({"image": "--other"}), "invalid_request", "image"),
        (
            json!({"variables": {"HOME": "/x"}}),
            "invalid_request",
            "variables",
        ),
        (json!({"variables": {"A B": "x"}}), "invalid_request", "variables"),
        (json!({"variables": {"A": 1}}), "invalid_request", "variables"),
        (json!({"limits": {"memory": 1}}), "invalid_request", "limits"),
        (json!({"limits": {"cpus": 0}}), "invalid_request", "limits"),
        (json!({"limits": {"ram": 1}}), "invalid_request", "limits"),
        (json!({"setupScript": ""}), "invalid_request", "setupScript"),
        (json!({"setupScript": long}), "invalid_request", "setupScript"),
    ] {
        let mut body = json!({"name": "e"});
        body.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        let refused = client.post("/v1/environments", &body).await;
        assert_eq!((refused.status, &*refused.code()), (400, code), "{extra}");
        assert!(
            refused.json()["details"][field].is_object(),
            "{extra}: {}",
            refused.text()
        );
    }
    assert_eq!(client.get("/v1/environments").await.json()["count"], 0);
    system.stop().await;
}

#[tokio::test]
async fn a_build_that_takes_too_long_or_too_much_is_ended_and_leaves_nothing() {
    let started = start(|options| {
        options
            .set("OPENCLAW_SANDBOX_BUILD_TIMEOUT_MS", "8000")
            .set("OPENCLAW_SANDBOX_BUILD_DISK", "8MiB")
    });
    let Some(system) = started.await else { return };
    let client = system.client();
    let mut names = Vec::new();
    for (script, words) in [
        ("echo begun; exec sleep 600", "took longer than 8s"),
        (
            "head -c 64M /dev/zero > /opt/big; exec sleep 600",
            "more than 8388608 bytes",
        ),
    ] {
        let id = environment(client, json!({"name": "e", "setupScript": script})).await;
        names.push((id, words));
    }
    for (id, words) in names {
        let build = built(client, &id).await;
        let error = build["error"].as_str().expect("an error");
        assert!(error.contains(words), "{error}");
    }
    let data = system.data.path();
    for folder in ["layers/new", "sandboxes", "workspaces"] {
        let left = std::fs::read_dir(data.join(folder)).expect("a folder").count();
        assert_eq!(left, 0, "{folder}");
    }
    system.stop().await;
}
