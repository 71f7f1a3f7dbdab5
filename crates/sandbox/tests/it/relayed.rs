//! Containers whose hands are reached through the engine: of the usual runtime, so that this is tested wherever there is
//! an engine, and of one with a kernel of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use oma_docker_engine::{BARE, Engine, GVISOR};
use oma_domain::{EventId, SessionId};
use oma_sandbox::docker::{self, Config, Transport, probe};
use oma_sandbox::doctor::Status;
use oma_sandbox::fittings::Fittings;
use oma_sandbox::layers::Layers as _;
use oma_sandbox::protocol::Service;
use oma_sandbox::{Error, Hand, Origin, Provider as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::containers::{bare, engine, suite, tool};
use crate::support::{BY_EXEC, Folder, RUNTIME, bash, said, sh, spec};

/// A runtime, by its name for the engine; the default one without.
pub(crate) type Runtime = Option<&'static str>;

/// The runtimes that can be tested here.
pub(crate) fn runtimes() -> Vec<Runtime> {
    let gvisor = oma_docker_engine::is_gvisor_possible().then_some(Some(GVISOR));
    [None].into_iter().chain(gvisor).collect()
}

/// Sandboxes of the bare image whose hands are reached through the engine.
pub(crate) fn relayed(engine: &Engine, data: &Path, runtime: Runtime) -> Config {
    Config {
        runtime: runtime.map(str::to_owned),
        // That it has to be so with the other one is for the server to know.
        transport: runtime.is_none().then_some(Transport::Exec),
        ..bare(engine, data)
    }
}

/// The relays that run in a sandbox, once there are as many as there should be, or for a while: one that nobody uses any
/// more ends by itself.
pub(crate) async fn relays(hand: &dyn Hand) -> Vec<String> {
    let look = "for one in /proc/[0-9]*; do [[ $(/bin/cat $one/cmdline) == *--relay ]] && echo ${one#/proc/}; done 2>/dev/null; true";
    let begun = Instant::now();
    loop {
        let (pids, _) = sh(hand, look).await;
        let pids: Vec<String> = pids.lines().map(str::to_owned).collect();
        if pids.len() == 1 || begun.elapsed() > Duration::from_secs(20) {
            return pids;
        }
    }
}

/// Doors are carried here, and not passed.
const PASSED: &str = "the_doors_are_passed_and_stay";
const NOT_PASSED: &str = "a_sandbox_without_doors_passes_none";

#[test]
fn the_suite_passes_through_a_relay() {
    if oma_docker_engine::is_possible() {
        let without = ["bombs::", "layers::", PASSED, NOT_PASSED];
        assert!(suite(&[], &without, &[(BY_EXEC, "")]) > 30);
    }
}

#[test]
fn the_suite_passes_over_a_kernel_of_its_own() {
    if oma_docker_engine::is_gvisor_possible() {
        assert!(suite(WITH_ANY_KERNEL, &[], &[(RUNTIME, GVISOR)]) > 20);
    }
}

#[test]
fn the_bombs_go_off_over_a_kernel_of_its_own() {
    if oma_docker_engine::is_gvisor_possible() {
        assert!(suite(&["bombs::"], &[], &[(RUNTIME, GVISOR)]) > 18);
    }
}

/// What does not depend on how a kernel names its refusals, on the numbers that Linux has for what it shows in `/proc`, and
/// on calls of programs of the host that gVisor of some versions does not know (`ls`).
const WITH_ANY_KERNEL: &[&str] = &[
    "basics::",
    "isolation::the_hand_can_not_be_killed_from_inside",
    "lifecycle::a_sandbox_retires",
    "lifecycle::an_orphan_ends",
    "lifecycle::idle_and_evicted",
    "lifecycle::many_start",
    "lifecycle::processes_reach",
    "lifecycle::two_data_folders",
    "mounts::a_sandbox_is_furnished",
    "mounts::outputs_and_memory",
    "reattach::a_killed_server",
    "reattach::a_launch_that",
    "reattach::a_lost_sandbox",
    "reattach::a_result_waits",
    "reattach::a_running_command",
    "saving::half_of",
    "saving::who_uses",
    "shell::a_process_without",
    "shell::what_ends",
    "warm::a_pool",
    "warm::it_is_the_session_s",
    "warm::none_outlives",
    "warm::one_that_has_died",
    "warm::they_are_as_strong",
];

#[tokio::test]
async fn tools_work_and_what_is_carried_is_whole() {
    let Some(engine) = engine(false) else { return };
    for runtime in runtimes() {
        let folder = Folder::new();
        let host = docker::open(relayed(&engine, &folder.path(), runtime))
            .await
            .unwrap();
        let session = SessionId::generate();
        let attached = host.attach(&spec(&session)).await.unwrap();
        let hand = &*attached.hand;
        assert_eq!(
            sh(
                hand,
                "cd /tmp; x=5; echo $((x + 1)) > f; read y < f; echo $y $HOME"
            )
            .await,
            ("6 /workspace".to_owned(), false),
            "{runtime:?}"
        );
        assert_eq!(
            sh(hand, "echo $x; pwd; /bin/id -un").await.0,
            "5\n/tmp\nagent",
            "{runtime:?}"
        );
        let content = "needle and more of it\n".repeat(100_000);
        let (text, failed) = tool(hand, "write", json!({"file_path": "a/b.txt", "content": content})).await;
        assert!(!failed, "{text}");
        let (text, failed) = tool(hand, "grep", json!({"pattern": "need", "path": "."})).await;
        assert!(!failed && text.contains("a/b.txt"), "{runtime:?} {text}");
        let edit = json!({"file_path": "a/b.txt", "old_string": "needle", "new_string": "thread", "replace_all": true});
        let (text, failed) = tool(hand, "edit", edit).await;
        assert!(!failed, "{runtime:?} {text}");
        let (text, failed) = tool(hand, "glob", json!({"pattern": "**/*.txt"})).await;
        assert!(!failed && text.contains("b.txt"), "{runtime:?} {text}");
        let files = host.workspace(&session).await.unwrap();
        let read = files.read("a/b.txt", u64::MAX).await.unwrap();
        assert_eq!(read.len(), content.len(), "{runtime:?}");
        // Both ways at once, more than is ever on its way, and with an end of its own for each direction.
        let service = Service {
            program: "/bin/cat".to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: None,
        };
        let pipe = hand.serve(service).await.unwrap();
        let (mut from, mut to) = tokio::io::split(pipe);
        let sent = content.clone().into_bytes();
        let send = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut came = Vec::new();
        let (_, received) = tokio::join!(send, from.read_to_end(&mut came));
        received.unwrap();
        assert!(
            came == sent,
            "{runtime:?}: {} of {} bytes",
            came.len(),
            sent.len()
        );
        // Many connections, one relay.
        let relays = relays(hand).await;
        assert_eq!(relays.len(), 1, "{runtime:?} {relays:?}");
        host.destroy(&session).await.unwrap();
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_command_is_cancelled_and_outlives_the_server() {
    let Some(engine) = engine(false) else { return };
    for runtime in runtimes() {
        let folder = Folder::new();
        let config = relayed(&engine, &folder.path(), runtime);
        let host = docker::open(config.clone()).await.unwrap();
        let spec = spec(&SessionId::generate());
        let attached = host.attach(&spec).await.unwrap();
        let hand = attached.hand.clone();
        let key = EventId::generate();
        let (run, begun) = (hand.clone(), key.clone());
        let long = tokio::spawn(async move { run.run(&begun, bash("echo before; /bin/sleep 1000")).await });
        hand.logs(0).await.unwrap();
        let cancelled = hand.cancel(&key).await.unwrap().unwrap();
        assert!(cancelled.is_error, "{runtime:?} {cancelled:?}");
        assert_eq!(long.await.unwrap().unwrap(), cancelled);

        let key = EventId::generate();
        let wait = "echo x >> runs; while [ ! -e go ]; do /bin/sleep 0.05; done; echo done";
        let (run, begun) = (hand.clone(), key.clone());
        let lost = tokio::spawn(async move { run.run(&begun, bash(wait)).await });
        hand.logs(0).await.unwrap();
        lost.abort();
        drop((attached, hand, host));
        let host = docker::open(config).await.unwrap();
        assert_eq!(
            host.survivors(),
            std::slice::from_ref(&spec.session),
            "{runtime:?}"
        );
        let attached = host.attach(&spec).await.unwrap();
        assert_eq!(attached.origin, Origin::Running);
        let files = host.workspace(&spec.session).await.unwrap();
        files.write("go", bytes::Bytes::from_static(b"x")).await.unwrap();
        let reply = attached.hand.run(&key, bash(wait)).await.unwrap();
        assert_eq!(said(&reply), ("done".to_owned(), false), "{runtime:?}");
        assert_eq!(sh(&*attached.hand, "/bin/cat runs").await.0, "x", "it ran once");
        assert_eq!(relays(&*attached.hand).await.len(), 1, "the one before has ended");
        host.destroy(&spec.session).await.unwrap();
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
    }
}

// The engine ends with the thread that has started it, so that has to be the test's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_found_again_when_the_engine_is_back() {
    for runtime in runtimes() {
        let Some(mut engine) = engine(true) else { return };
        let folder = Folder::new();
        let host = docker::open(relayed(&engine, &folder.path(), runtime))
            .await
            .unwrap();
        let spec = spec(&SessionId::generate());
        let attached = host.attach(&spec).await.unwrap();
        let key = EventId::generate();
        let wait = "while [ ! -e go ]; do /bin/sleep 0.05; done; echo done";
        let (hand, begun) = (attached.hand.clone(), key.clone());
        let run = tokio::spawn(async move { hand.run(&begun, bash(wait)).await });
        attached.hand.logs(0).await.unwrap();
        engine.kill();
        let ran = run.await.unwrap();
        assert!(matches!(ran, Err(Error::Lost(_))), "{runtime:?} {ran:?}");

        // Somebody asks while it is away.
        let (waiting, spec_of_it) = (host.clone(), spec.clone());
        let attach = tokio::spawn(async move { waiting.attach(&spec_of_it).await });
        engine.restart();
        let again = attach.await.unwrap().unwrap();
        assert_eq!(again.origin, Origin::Running, "{runtime:?}");
        let files = host.workspace(&spec.session).await.unwrap();
        files.write("go", bytes::Bytes::from_static(b"x")).await.unwrap();
        let reply = again.hand.run(&key, bash(wait)).await.unwrap();
        assert_eq!(said(&reply), ("done".to_owned(), false), "{runtime:?}");
        host.destroy(&spec.session).await.unwrap();
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_is_not_given_up_while_the_engine_can_t_be_asked() {
    let Some(mut engine) = engine(true) else { return };
    let folder = Folder::new();
    let mut config = relayed(&engine, &folder.path(), None);
    config.patience = Duration::from_millis(200);
    let host = docker::open(config).await.unwrap();
    let spec = spec(&SessionId::generate());
    let attached = host.attach(&spec).await.unwrap();
    sh(&*attached.hand, "x=kept").await;
    engine.kill();
    let refused = host.attach(&spec).await;
    // The connection may be seen to end a moment later.
    let refused = match refused {
        Ok(again) => match again.hand.run(&EventId::generate(), bash("true")).await {
            Err(Error::Lost(_)) => host.attach(&spec).await.err(),
            other => panic!("{other:?}"),
        },
        Err(error) => Some(error),
    };
    assert!(
        matches!(&refused, Some(Error::Engine(why)) if why.contains("can't be reached")),
        "{refused:?}"
    );
    engine.restart();
    let again = host.attach(&spec).await.unwrap();
    assert_eq!(again.origin, Origin::Running);
    assert_eq!(sh(&*again.hand, "echo $x").await.0, "kept");
    host.destroy(&spec.session).await.unwrap();
}

#[tokio::test]
async fn one_that_was_started_in_advance_serves_and_a_build_is_kept() {
    let Some(engine) = engine(false) else { return };
    for runtime in runtimes() {
        let folder = Folder::new();
        let host = docker::open(relayed(&engine, &folder.path(), runtime))
            .await
            .unwrap();
        let spec = spec(&SessionId::generate());
        let id = host
            .start_warm(&spec.workspace, Fittings::default())
            .await
            .unwrap();
        let attached = host.claim(&id, &spec).await.unwrap().unwrap();
        assert_eq!(
            sh(&*attached.hand, "echo a > f; /bin/cat f").await.0,
            "a",
            "{runtime:?}"
        );
        host.destroy(&spec.session).await.unwrap();

        let site = host.begin(crate::layers::build(Vec::new())).await.unwrap();
        let built = crate::layers::run(&site, "/bin/id -u; echo made > /made; echo done").await;
        assert_eq!(built, "0\ndone\n", "{runtime:?}");
        let layer = crate::layers::layer('1');
        host.keep(&site, &layer).await.unwrap();
        let session = SessionId::generate();
        let hand = crate::layers::attach(&host, &session, &layer).await.unwrap();
        assert_eq!(sh(&*hand, "/bin/cat /made").await.0, "made", "{runtime:?}");
        host.destroy(&session).await.unwrap();
        assert!(host.discard(&layer).await.unwrap());
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_doctor_says_how_hands_are_reached() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    for runtime in runtimes() {
        let checks = probe(&relayed(&engine, &folder.path(), runtime)).await;
        let found = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(found("a sandbox").status, Status::Ok, "{checks:?}");
        let way = found("way to the hand");
        assert_eq!(way.status, Status::Ok, "{checks:?}");
        assert!(way.detail.contains("through the engine"), "{way:?}");
    }
    let checks = probe(&bare(&engine, &folder.path())).await;
    let way = checks
        .iter()
        .find(|check| check.name == "way to the hand")
        .unwrap();
    assert!(way.detail.contains("a socket"), "{way:?}");
}

#[tokio::test]
async fn an_entrance_that_the_runtime_can_t_pass_is_refused_with_a_reason() {
    if !oma_docker_engine::is_gvisor_possible() {
        return;
    }
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let mut config = relayed(&engine, &folder.path(), Some(GVISOR));
    config.transport = Some(Transport::Socket);
    config.image = BARE.to_owned();
    let host = docker::open(config).await.unwrap();
    let refused = host.attach(&spec(&SessionId::generate())).await.err().unwrap();
    assert!(matches!(refused, Error::Lost(_)), "{refused}");
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}
