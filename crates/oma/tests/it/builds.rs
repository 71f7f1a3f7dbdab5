//! Builds of environments while the server does other things: it stops, and has sandboxes in advance.

use std::fs;

use serde_json::{Value, json};

use crate::environments::{built, environment, run, session, start};
use crate::system::client::Client;
use crate::system::{Server, System, leftovers, soon};

/// Until the setup script of an environment runs.
async fn runs(client: &Client, environment: &str) {
    soon("the setup script", async {
        let path = format!("/v1/environments/{environment}/build");
        while client.get(&path).await.good()["step"] != "setup_script" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_build_under_way_ends_with_the_server() {
    let Some(system) = start(|options| options).await else {
        return;
    };
    let script = "echo half > /opt/half; exec sleep 600";
    let id = environment(system.client(), json!({"name": "e", "setupScript": script})).await;
    runs(system.client(), &id).await;
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    server.terminate().await;
    assert_eq!(leftovers::processes(&data.path()), Vec::<i32>::new());
    assert_eq!(leftovers::groups(&data.path()), Vec::<std::path::PathBuf>::new());
    for folder in ["layers/new", "sandboxes", "workspaces"] {
        let left = fs::read_dir(data.path().join(folder)).expect("a folder").count();
        assert_eq!(left, 0, "{folder}");
    }
    // The next server begins anew when somebody asks.
    let server = Server::start(&data, &options).await;
    runs(&server.client, &id).await;
    server.terminate().await;
    provider.assert_clean();
}

#[tokio::test]
async fn a_sandbox_in_advance_that_waits_for_a_build_is_started_after_it() {
    let Some(system) = start(|options| options.set("OPENCLAW_MAX_WARM_CONTAINERS", "1")).await else {
        return;
    };
    let client = system.client();
    let script = "sleep 1; echo made > /usr/local/made";
    let id = environment(client, json!({"name": "e", "setupScript": script})).await;
    let chat = session(client, &id).await;
    let asked = client
        .post(&format!("/v1/agents/{}/warm", chat.agent), &json!({}))
        .await;
    assert_eq!(asked.status, 202);
    let build = client.get(&format!("/v1/environments/{id}/build")).await.good();
    assert_ne!(build["status"], "ready", "it was asked for before: {build}");
    assert_eq!(built(client, &id).await["status"], "ready");
    soon("one that shows the layer", async {
        let folder = system.data.path().join("warm/sandboxes");
        let shows = |name: fs::DirEntry| {
            let text = fs::read_to_string(name.path().join("record.json")).unwrap_or_default();
            let record: Value = serde_json::from_str(&text).unwrap_or_default();
            record["layer"].is_string() && record["hand"].is_object()
        };
        while !fs::read_dir(&folder).expect("a folder").flatten().any(shows) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Until it can be given away.
    soon("a warm one", async {
        while client.metric("pool_warm_containers").await < 1.0 {}
    })
    .await;
    assert_eq!(run(&chat, "cat /usr/local/made").await.trim(), "made");
    let view = client.get(&format!("/v1/sessions/{}", chat.session)).await.good();
    assert_eq!(
        (&view["pool_source"], &view["boot_ms"]),
        (&json!("warm"), &json!(0))
    );
    system.stop().await;
}

#[tokio::test]
async fn a_workspace_has_its_share_of_the_disk_and_is_told_when_that_is_full() {
    let started = start(|options| options.set("OPENCLAW_SANDBOX_LAYERS_SHARE", "32MiB"));
    let Some(system) = started.await else { return };
    let client = system.client();
    let make = async |name: &str, size: &str| {
        let script = format!("head -c {size} /dev/urandom > /opt/{name}");
        let id = environment(client, json!({"name": name, "setupScript": script})).await;
        built(client, &id).await
    };
    let too_large = make("large", "40M").await;
    let error = too_large["error"].as_str().expect("an error");
    assert!(
        error.contains("which is what is left beside what was built before"),
        "{error}"
    );
    assert_eq!(make("first", "20M").await["status"], "ready");
    let error = make("second", "16M").await["error"].to_string();
    assert!(error.contains("the build has put more than"), "{error}");
    assert_eq!(make("small", "1K").await["status"], "ready");
    system.stop().await;
}

#[tokio::test]
async fn the_home_of_a_build_counts() {
    let started = start(|options| options.set("OPENCLAW_SANDBOX_BUILD_DISK", "8MiB"));
    let Some(system) = started.await else { return };
    let client = system.client();
    for script in [
        "head -c 32M /dev/urandom > big",
        "head -c 5M /dev/urandom > half; head -c 5M /dev/urandom > /opt/half",
    ] {
        // That is where scripts are.
        let script = format!("[ $(pwd) = /workspace ]; {script}; exec sleep 600");
        let id = environment(client, json!({"name": "e", "setupScript": script})).await;
        let build = built(client, &id).await;
        let error = build["error"].as_str().expect("an error");
        assert!(
            error.starts_with("the build has put more than 8388608 bytes"),
            "{error}"
        );
    }
    system.stop().await;
}
