//! The whole server over sandboxes in containers, when one of the parts dies in the middle of a command.

use oma_docker_engine::{BARE, Engine};
use oma_fake_provider::Reply;
use serde_json::{Value, json};

use crate::system::client::{Chat, is_end, said};
use crate::system::{Options, System, leftovers, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// Says that it has begun, and ends when it is let.
const COMMAND: &str = "echo begun >> runs; while [ ! -e go ]; do /bin/sleep 0.05; done; echo ended";

/// An engine with the bare image, where there can be one.
pub(crate) fn engine(is_live_restoring: bool) -> Option<Engine> {
    let engine = oma_docker_engine::is_possible().then(|| Engine::start(is_live_restoring))?;
    engine.import_bare();
    Some(engine)
}

pub(crate) fn contained(engine: &Engine) -> impl FnOnce(Options) -> Options {
    let address = engine.address();
    move |options| {
        options
            .set("OPENCLAW_SANDBOX_BACKEND", "docker")
            .set("OPENCLAW_SANDBOX_ENGINE", &address)
            .set("OPENCLAW_SANDBOX_IMAGE", BARE)
    }
}

/// Has the agent run the command, and returns once that has begun.
async fn begin(system: &System, chat: &Chat) {
    let input = json!({"command": COMMAND});
    system.provider.push(Reply::new().tool("bash", input));
    system.provider.push(Reply::new().text("done"));
    chat.post("go").await;
    let begun = async {
        while system.client().get(&chat.file_path("runs")).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    soon("the command", begun).await;
}

fn results(events: &[Value]) -> Vec<String> {
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    results
        .map(|event| event["content"].as_str().expect("text").trim().to_owned())
        .collect()
}

#[tokio::test]
async fn a_command_survives_the_server_and_its_result_comes_once() {
    let Some(engine) = engine(false) else { return };
    survives(&engine).await;
}

#[tokio::test]
async fn podman_serves_as_well() {
    if !oma_docker_engine::is_podman_possible() {
        return;
    }
    let engine = Engine::podman();
    engine.import_bare();
    survives(&engine).await;
}

async fn survives(engine: &Engine) {
    let system = System::start_with(contained(engine)).await;
    let chat = system.client().session_of(MODEL).await;
    begin(&system, &chat).await;
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let mut frames = chat.follow().await;
    system.client().put(&chat.file_path("go"), "x").await.good();
    let events = frames.until(is_end).await;
    assert_eq!(results(&events), ["ended"]);
    assert_eq!(said(&events), "done");
    assert_eq!(results(&chat.events().await), ["ended"]);
    let runs = system.client().get(&chat.file_path("runs")).await.text();
    assert_eq!(runs, "begun\n", "it ran once");

    system.client().delete(&chat.path("")).await.good();
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
    let data = system.stop().await;
    assert_eq!(leftovers::find(&data.path()), []);
}

#[tokio::test]
async fn a_container_that_is_killed_costs_its_command_and_no_more() {
    let Some(engine) = engine(false) else { return };
    let system = System::start_with(contained(&engine)).await;
    let chat = system.client().session_of(MODEL).await;
    begin(&system, &chat).await;
    let mut frames = chat.follow().await;
    let api = engine.api();
    let [container] = &*api.containers(&format!("oma.session={}", chat.session)) else {
        panic!("one container");
    };
    api.ask("POST", &format!("/containers/{container}/kill"), &[])
        .expect("an answer");
    let events = frames.until(is_end).await;
    let [result] = &*results(&events) else {
        panic!("one result: {events:?}");
    };
    assert!(result.contains("may or may not have finished"), "{result}");
    // The next one has the workspace.
    let next = chat.run("read line < runs; echo $line").await;
    assert!(
        next["content"].as_str().expect("text").contains("begun"),
        "{next}"
    );
    assert_eq!(api.containers("").len(), 1);
    let System { server, data, .. } = system;
    server.terminate().await;
    assert_eq!(
        api.containers(""),
        Vec::<String>::new(),
        "it retires with the server"
    );
    assert_eq!(leftovers::processes(&data.path()), Vec::<i32>::new());
}

#[tokio::test]
async fn an_engine_that_restarts_costs_no_session() {
    // With containers that go on meanwhile, and with those that end.
    for is_live_restoring in [true, false] {
        let Some(mut engine) = engine(is_live_restoring) else {
            return;
        };
        let system = System::start_with(|options| {
            contained(&engine)(options).set("OPENCLAW_SANDBOX_ENGINE_TIMEOUT_MS", "200")
        })
        .await;
        let chat = system.client().session_of(MODEL).await;
        begin(&system, &chat).await;
        let mut frames = chat.follow().await;
        engine.stop();
        if is_live_restoring {
            system.client().put(&chat.file_path("go"), "x").await.good();
        }
        let events = frames.until(is_end).await;
        let expected = if is_live_restoring {
            "ended"
        } else {
            "may or may not have finished"
        };
        assert!(
            results(&events).iter().any(|result| result.contains(expected)),
            "{events:?}"
        );

        // A session that needs a container now is told, and is served once the engine is back.
        let other = system.client().session_of(MODEL).await;
        let refused = other.run("echo here").await;
        let text = refused["content"].as_str().expect("text");
        assert!(
            text.contains("container engine") && text.contains("try"),
            "{text}"
        );
        engine.restart();
        for chat in [&other, &chat] {
            let served = chat.run("echo here").await;
            assert!(
                served["content"].as_str().expect("text").contains("here"),
                "{served}"
            );
            system.client().delete(&chat.path("")).await.good();
        }
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
        let data = system.stop().await;
        assert_eq!(leftovers::find(&data.path()), []);
    }
}

#[tokio::test]
async fn a_server_whose_engine_is_not_there_says_so() {
    let data = crate::system::Data::new();
    let socket = data.beside("nobody.sock");
    let output = Options::default()
        .set("OPENCLAW_SANDBOX_BACKEND", "docker")
        .set("OPENCLAW_SANDBOX_ENGINE", socket.to_str().expect("text"))
        .set("OPENCLAW_SANDBOX_ENGINE_TIMEOUT_MS", "100")
        .command(&data.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("container engine") && text.contains("nobody.sock"),
        "{text}"
    );
}
