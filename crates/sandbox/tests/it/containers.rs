//! The whole suite once more over containers, and what concerns containers only: each by an engine of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use oma_docker_engine::{BARE, Engine, HOSTED};
use oma_domain::{EventId, SessionId};
use oma_sandbox::docker::{self, Config, probe};
use oma_sandbox::doctor::Status;
use oma_sandbox::fittings::Fittings;
use oma_sandbox::layers::Layers as _;
use oma_sandbox::protocol::Call;
use oma_sandbox::{Error, Hand, Origin, Provider as _};
use serde_json::json;

use crate::support::{Folder, bash, said, sh, spec};

/// Sandboxes of the bare image.
pub(crate) fn bare(engine: &Engine, data: &Path) -> Config {
    let mut config = Config::new(crate::support::config(data), BARE);
    config.engine = engine.address();
    config
}

/// An engine with the bare image.
pub(crate) fn engine(is_live_restoring: bool) -> Option<Engine> {
    let engine = oma_docker_engine::is_possible().then(|| Engine::start(is_live_restoring))?;
    engine.import_bare();
    Some(engine)
}

/// Runs those tests of the suite whose names have one of `names` in them and none of `without`, with these further
/// variables, and says how many.
pub(crate) fn suite(names: &[&str], without: &[&str], variables: &[(&str, &str)]) -> u32 {
    let engine = Engine::start(false);
    engine.import_hosted();
    engine.import_bare();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(names);
    for name in ["ordinary_user", "containers", "relayed", "doctor"]
        .iter()
        .chain(without)
    {
        command.args(["--skip", name]);
    }
    let output = command
        .args(["--include-ignored", "--test-threads", "2"])
        .env("OMA_TEST_DOCKER", engine.address())
        .env("OMA_TEST_IMAGE", HOSTED)
        .env("OMA_TEST_BARE_IMAGE", BARE)
        .env("OMA_TEST_READABLE", "/usr:/etc/alternatives")
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
    let passed = text
        .split(" passed")
        .next()
        .and_then(|text| text.rsplit(' ').next());
    passed.and_then(|count| count.parse().ok()).unwrap()
}

#[test]
fn the_bombs_go_off_in_containers() {
    if oma_docker_engine::is_possible() {
        assert!(suite(&["bombs::"], &["disk_bombs::"], &[]) > 10);
    }
}

#[test]
fn the_disk_bombs_go_off_in_containers() {
    if oma_docker_engine::is_possible() {
        assert!(suite(&["disk_bombs::"], &[], &[]) > 5);
    }
}

#[test]
fn the_rest_of_the_suite_passes_in_containers() {
    if oma_docker_engine::is_possible() {
        // Layers are images here, which have tests of their own.
        assert!(suite(&[], &["bombs::", "layers::"], &[]) > 30);
    }
}

pub(crate) async fn tool(hand: &dyn Hand, tool: &str, input: serde_json::Value) -> (String, bool) {
    let call = Call {
        tool: tool.to_owned(),
        input,
    };
    said(&hand.run(&EventId::generate(), call).await.unwrap())
}

#[tokio::test]
async fn any_image_will_do() {
    let Some(engine) = engine(false) else { return };
    engine.import(
        "oma-test/odd:1",
        &["VOLUME /data", "ENV GREETING=hi", "USER 4711"],
        |root| {
            std::fs::create_dir(root.join("etc")).unwrap();
            std::fs::write(root.join("etc/passwd"), "odd:x:4711:4711::/:/none\n").unwrap();
        },
    );
    let folder = Folder::new();
    let mut config = bare(&engine, &folder.path());
    for image in [BARE, "oma-test/odd:1"] {
        config.image = image.to_owned();
        let host = docker::open(config.clone()).await.unwrap();
        let session = SessionId::generate();
        let attached = host.attach(&spec(&session)).await.unwrap();
        let hand = &*attached.hand;
        // No image here has a `bash`, or a library.
        assert_eq!(
            sh(
                hand,
                "cd /tmp; x=5; echo $((x + 1)) > f; read y < f; echo $y $HOME"
            )
            .await,
            ("6 /workspace".to_owned(), false),
            "{image}"
        );
        assert_eq!(
            sh(hand, "echo $x; pwd").await.0,
            "5\n/tmp",
            "one shell for all commands"
        );
        let (text, failed) = tool(
            hand,
            "write",
            json!({"file_path": "a/b.txt", "content": "needle\n"}),
        )
        .await;
        assert!(!failed, "{text}");
        let (text, failed) = tool(hand, "grep", json!({"pattern": "need", "path": "."})).await;
        assert!(!failed && text.contains("a/b.txt"), "{text}");
        let users = sh(hand, "while read line; do echo $line; done < /etc/passwd")
            .await
            .0;
        assert!(users.contains("agent:x:"), "{users}");
        if image == BARE {
            assert_eq!(
                sh(hand, "/bin/busybox id -un; /bin/ls /workspace").await.0,
                "agent\na"
            );
        } else {
            assert!(users.starts_with("odd:x:4711:"), "{users}");
            let own = "echo $GREETING; echo x > /data/f && echo room; ulimit -f unlimited; echo x > /y";
            let (text, _) = sh(hand, own).await;
            assert!(
                text.starts_with("hi\nroom") && text.contains("Read-only"),
                "{text}"
            );
        }
        host.destroy(&session).await.unwrap();
        assert_eq!(host.inventory().await.unwrap(), []);
    }
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
    assert_eq!(engine.api().volumes(), 0, "an image's volumes are not made");
}

#[tokio::test]
async fn a_container_is_as_strong_as_configured() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let config = bare(&engine, &folder.path());
    let host = docker::open(config.clone()).await.unwrap();
    let spec = spec(&SessionId::generate());
    host.attach(&spec).await.unwrap();
    let api = engine.api();
    let [id] = &*api.containers(&format!("oma.session={}", spec.session)) else {
        panic!("one container");
    };
    let found = api.get(&format!("/containers/{id}/json")).unwrap();
    let limits = &config.host.limits;
    let wanted = [
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/CapAdd", json!(null)),
        ("/HostConfig/SecurityOpt", json!(["no-new-privileges"])),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/Privileged", json!(false)),
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/PidMode", json!("")),
        ("/HostConfig/IpcMode", json!("private")),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        ("/HostConfig/AutoRemove", json!(false)),
        ("/HostConfig/LogConfig/Type", json!("none")),
        ("/HostConfig/Memory", json!(limits.memory)),
        ("/HostConfig/PidsLimit", json!(limits.processes)),
        ("/HostConfig/NanoCpus", json!(2_000_000_000_u64)),
        ("/Config/Labels/oma.workspace", json!(spec.workspace.as_str())),
    ];
    for (path, value) in wanted {
        assert_eq!(found.pointer(path), Some(&value), "{path}");
    }
    let user = found["Config"]["User"].as_str().unwrap();
    assert!(user.starts_with("2"), "a user of the host's range: {user}");
    host.destroy(&spec.session).await.unwrap();
}

#[tokio::test]
async fn a_container_that_is_killed_is_told_and_replaced() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let host = docker::open(bare(&engine, &folder.path())).await.unwrap();
    let spec = spec(&SessionId::generate());
    let attached = host.attach(&spec).await.unwrap();
    sh(&*attached.hand, "echo kept > file").await;
    let key = EventId::generate();
    let api = engine.api();
    let (ran, ()) = tokio::join!(attached.hand.run(&key, bash("/bin/sleep 1000")), async {
        attached.hand.logs(0).await.unwrap();
        let id = &api.containers(&format!("oma.session={}", spec.session))[0];
        api.ask("POST", &format!("/containers/{id}/kill"), &[]).unwrap();
    });
    assert!(matches!(ran, Err(Error::Lost(_))), "{ran:?}");
    let again = host.attach(&spec).await.unwrap();
    assert_eq!(again.origin, Origin::Replaced);
    let read = "read x < file; echo $x";
    assert_eq!(sh(&*again.hand, read).await.0, "kept");
    assert_eq!(api.containers("").len(), 1, "the other one is gone");
    host.destroy(&spec.session).await.unwrap();
    assert_eq!(api.containers(""), Vec::<String>::new());
}

// The engine ends with the thread that has started it, so that has to be the test's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_engine_costs_the_command_and_not_the_session() {
    let Some(mut engine) = engine(false) else { return };
    let folder = Folder::new();
    let host = docker::open(bare(&engine, &folder.path())).await.unwrap();
    let spec = spec(&SessionId::generate());
    let attached = host.attach(&spec).await.unwrap();
    sh(&*attached.hand, "echo kept > file").await;
    let hand = attached.hand.clone();
    let run = tokio::spawn(async move { hand.run(&EventId::generate(), bash("/bin/sleep 1000")).await });
    attached.hand.logs(0).await.unwrap();
    engine.stop();
    let ran = run.await.unwrap();
    assert!(matches!(ran, Err(Error::Lost(_))), "{ran:?}");

    // Somebody asks while it is away, and is served when it is back.
    let (waiting, spec_of_it) = (host.clone(), spec.clone());
    let attach = tokio::spawn(async move { waiting.attach(&spec_of_it).await });
    engine.restart();
    let again = attach.await.unwrap().unwrap();
    assert_eq!(again.origin, Origin::Replaced);
    assert_eq!(sh(&*again.hand, "read x < file; echo $x").await.0, "kept");
    assert_eq!(engine.api().containers("").len(), 1);
    host.destroy(&spec.session).await.unwrap();
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}

#[tokio::test]
async fn another_backend_does_not_leave_the_sandboxes_of_the_one_before() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let spec = spec(&SessionId::generate());
    let config = crate::support::config(&folder.path());
    let open = async |is_docker: bool| {
        if is_docker {
            docker::open(bare(&engine, &folder.path())).await.unwrap()
        } else {
            oma_sandbox::local::open(config.clone()).await.unwrap()
        }
    };
    for is_docker in [false, true] {
        let first = open(is_docker).await;
        first.attach(&spec).await.unwrap();
        let pid = crate::support::hand_pid_by(Some(engine.api()), &folder.path(), &spec.session);
        drop(first);
        let second = open(!is_docker).await;
        crate::support::wait_for_end(pid);
        assert_eq!(second.survivors(), []);
        assert_eq!(second.attach(&spec).await.unwrap().origin, Origin::Replaced);
        second.destroy(&spec.session).await.unwrap();
    }
    // What it was made of goes when its backend comes back.
    drop(open(true).await);
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
    drop(open(false).await);
    assert_eq!(crate::support::groups_left(&folder.path()), "");
}

#[tokio::test]
async fn commands_go_on_while_an_engine_that_can_restore_is_away() {
    let Some(mut engine) = engine(true) else { return };
    let folder = Folder::new();
    let mut config = bare(&engine, &folder.path());
    config.patience = Duration::from_millis(200);
    let host = docker::open(config).await.unwrap();
    let spec = spec(&SessionId::generate());
    let attached = host.attach(&spec).await.unwrap();
    let hand = attached.hand.clone();
    let wait = "while [ ! -e go ]; do /bin/sleep 0.05; done; echo done";
    let run = tokio::spawn(async move { hand.run(&EventId::generate(), bash(wait)).await });
    attached.hand.logs(0).await.unwrap();
    engine.kill();

    // What needs no engine works; what needs one says so, and nothing is lost by that.
    let input = json!({"file_path": "here", "content": "x"});
    let (text, failed) = tool(&*attached.hand, "write", input).await;
    assert!(!failed, "{text}");
    assert_eq!(host.attach(&spec).await.unwrap().origin, Origin::Running);
    let other = self::spec(&SessionId::generate());
    let refused = host.attach(&other).await.err().unwrap();
    assert!(
        matches!(&refused, Error::Engine(why) if why.contains("can't be reached")),
        "{refused}"
    );
    engine.restart();
    assert_eq!(host.attach(&other).await.unwrap().origin, Origin::Started);
    let files = host.workspace(&spec.session).await.unwrap();
    let again = host.attach(&spec).await.unwrap();
    assert_eq!(again.origin, Origin::Running, "the engine has let it be");
    files.write("go", bytes::Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(said(&run.await.unwrap().unwrap()), ("done".to_owned(), false));
    for spec in [spec, other] {
        host.destroy(&spec.session).await.unwrap();
    }
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}

#[tokio::test]
async fn orphans_of_this_data_folder_are_removed_and_no_others() {
    let Some(engine) = engine(false) else { return };
    let (folder, other) = (Folder::new(), Folder::new());
    let (host, neighbour) = (
        docker::open(bare(&engine, &folder.path())).await.unwrap(),
        docker::open(bare(&engine, &other.path())).await.unwrap(),
    );
    let [lost, kept, theirs] = [(); 3].map(|()| spec(&SessionId::generate()));
    for (host, spec) in [(&host, &lost), (&host, &kept), (&neighbour, &theirs)] {
        host.attach(spec).await.unwrap();
    }
    drop(host);
    // The record is lost, and a launch has never got further than its container.
    std::fs::remove_file(
        folder
            .path()
            .join("sandboxes")
            .join(lost.session.as_str())
            .join("record.json"),
    )
    .unwrap();
    let instance = std::fs::read_to_string(folder.path().join("sandboxes.instance")).unwrap();
    let body = json!({"Image": BARE, "Cmd": ["/bin/sleep", "1"], "Labels": {"oma.installation": instance}});
    let made = engine
        .api()
        .ask("POST", "/containers/create", body.to_string().as_bytes());
    assert_eq!(made.unwrap().0, 201);
    assert_eq!(engine.api().containers("").len(), 4);

    let host = docker::open(bare(&engine, &folder.path())).await.unwrap();
    assert_eq!(host.survivors(), std::slice::from_ref(&kept.session));
    assert_eq!(engine.api().containers("").len(), 2);
    assert_eq!(host.attach(&kept).await.unwrap().origin, Origin::Running);
    assert_eq!(neighbour.attach(&theirs).await.unwrap().origin, Origin::Running);
    host.destroy(&kept.session).await.unwrap();
    host.destroy(&lost.session).await.unwrap();
    neighbour.destroy(&theirs.session).await.unwrap();
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}

#[tokio::test]
async fn the_doctor_says_what_an_engine_can_do() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let config = bare(&engine, &folder.path());
    let status = |checks: &[oma_sandbox::doctor::Check], name: &str| {
        let found = checks.iter().find(|check| check.name == name);
        found.map(|check| check.status)
    };
    let well = probe(&config).await;
    assert!(well.iter().all(|check| check.status != Status::Fail), "{well:?}");
    assert!(
        well.iter()
            .all(|check| check.status == Status::Ok || check.remedy.is_some()),
        "{well:?}"
    );
    assert_eq!(status(&well, "a sandbox"), Some(Status::Ok));
    assert_eq!(status(&well, "restarts of the engine"), Some(Status::Warn));

    let missing = Config {
        image: "oma-test/missing:1".to_owned(),
        ..config.clone()
    };
    let checks = probe(&missing).await;
    assert_eq!(status(&checks, "image"), Some(Status::Fail), "{checks:?}");
    let unknown = Config {
        runtime: Some("nowhere".to_owned()),
        ..config.clone()
    };
    let checks = probe(&unknown).await;
    assert_eq!(status(&checks, "runtime"), Some(Status::Fail), "{checks:?}");
    assert_eq!(status(&checks, "a sandbox"), Some(Status::Fail), "{checks:?}");
    let away = Config {
        engine: folder.path().join("nobody.sock").to_str().unwrap().to_owned(),
        ..config
    };
    let checks = probe(&away).await;
    assert_eq!(
        status(&checks, "container engine"),
        Some(Status::Fail),
        "{checks:?}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the data folder is not touched"
    );
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}

#[tokio::test]
async fn one_that_was_started_in_advance_has_the_name_of_its_session() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let host = docker::open(bare(&engine, &folder.path())).await.unwrap();
    let spec = spec(&SessionId::generate());
    let id = host
        .start_warm(&spec.workspace, Fittings::default())
        .await
        .unwrap();
    let api = engine.api();
    let label = format!("oma.session={id}");
    let [container] = &*api.containers(&label) else {
        panic!("one container, labelled with what it was started as");
    };
    let attached = host.claim(&id, &spec).await.unwrap().unwrap();
    let name = || {
        let found = api.get(&format!("/containers/{container}/json")).unwrap();
        found["Name"].as_str().unwrap().to_owned()
    };
    let begun = Instant::now();
    while !name().ends_with(spec.session.as_str()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", name());
        tokio::task::yield_now().await;
    }
    assert_eq!(
        sh(&*attached.hand, "echo a > f; read x < f; echo $x").await.0,
        "a"
    );
    // The next server finds it, and the next container gets that name.
    drop((attached, host));
    let host = docker::open(bare(&engine, &folder.path())).await.unwrap();
    assert_eq!(host.survivors(), std::slice::from_ref(&spec.session));
    assert_eq!(host.attach(&spec).await.unwrap().origin, Origin::Running);
    host.stop(&spec.session).await.unwrap();
    assert_eq!(host.attach(&spec).await.unwrap().origin, Origin::Started);
    host.destroy(&spec.session).await.unwrap();
    assert_eq!(api.containers(""), Vec::<String>::new());
}

/// A host over an engine, with the layers that it keeps.
async fn layered(engine: &Engine, folder: &Folder) -> oma_sandbox::host::Host {
    docker::open(bare(engine, &folder.path())).await.unwrap()
}

#[tokio::test]
async fn what_a_build_leaves_is_an_image_that_sandboxes_are_made_of() {
    let Some(engine) = engine(false) else { return };
    let folder = Folder::new();
    let host = layered(&engine, &folder).await;
    let ours = |engine: &Engine| engine.api().images("oma.layer");
    let secret = folder.path().join("mirror.conf");
    std::fs::write(&secret, "mirror\n").unwrap();
    let files = vec![(secret, "/etc/mirror.conf".into())];
    let site = host.begin(crate::layers::build(files)).await.unwrap();
    let said = crate::layers::run(
        &site,
        "id -u; cat /etc/mirror.conf; grep CapEff /proc/self/status; mkdir -p /opt /tmp; chmod 1777 /tmp; echo made > /opt/made
         chown 33:33 /opt/made; touch /tmp/left /workspace/left; mknod /opt/null c 1 3 && echo DEVICE
         mount -t tmpfs none /opt && echo MOUNTED; ping -c1 127.0.0.2 >/dev/null 2>&1 && echo PINGED; echo done",
    )
    .await;
    assert!(
        said.starts_with("0\nmirror\nCapEff:\t00000000000000db\n") && said.ends_with("done\n"),
        "{said}"
    );
    for forbidden in ["DEVICE", "MOUNTED", "PINGED"] {
        assert!(!said.contains(forbidden), "{said}");
    }
    let size = host.size(&site, u64::MAX).await.unwrap();
    assert!(size.bytes > 0, "{size:?}");
    let one = crate::layers::layer('1');
    host.keep(&site, &one).await.unwrap();
    assert_eq!((ours(&engine).len(), engine.api().containers("").len()), (1, 0));
    assert_eq!(host.inventory().await.unwrap(), []);

    let session = SessionId::generate();
    let hand = crate::layers::attach(&host, &session, &one).await.unwrap();
    let (text, _) = sh(&*hand, "cat /opt/made; ls /tmp /workspace; cat /etc/mirror.conf; echo end; id -un; echo x > /opt/made && echo WRITTEN").await;
    assert!(
        text.starts_with("made\n") && text.contains("end\nagent\n"),
        "{text}"
    );
    assert!(!text.contains("WRITTEN") && !text.contains("left"), "{text}");
    assert!(!host.discard(&one).await.unwrap(), "a sandbox has it");
    host.destroy(&session).await.unwrap();

    // What an engine has lost is not there; what nobody knows of goes at the next start.
    assert!(host.touch(&one).await.unwrap());
    let lost = ours(&engine).remove(0);
    engine
        .api()
        .ask("DELETE", &format!("/images/{lost}?force=true"), &[])
        .unwrap();
    assert!(!host.touch(&one).await.unwrap());
    assert_eq!(host.kept().await.unwrap(), []);
    let site = host.begin(crate::layers::build(Vec::new())).await.unwrap();
    crate::layers::run(&site, "echo two > /two").await;
    host.keep(&site, &one).await.unwrap();
    let unfinished = host.begin(crate::layers::build(Vec::new())).await.unwrap();
    crate::layers::run(&unfinished, "echo half > /half").await;
    std::fs::remove_dir_all(folder.path().join("layers").join(one.as_str())).unwrap();
    drop((site, unfinished, hand, host));
    let host = layered(&engine, &folder).await;
    assert_eq!((ours(&engine).len(), engine.api().containers("").len()), (0, 0));

    let site = host.begin(crate::layers::build(Vec::new())).await.unwrap();
    host.keep(&site, &one).await.unwrap();
    assert!(host.discard(&one).await.unwrap());
    assert_eq!((ours(&engine).len(), host.kept().await.unwrap().len()), (0, 0));
    let mut other = crate::layers::build(Vec::new());
    other.image = Some("oma-test/none:1".to_owned());
    let none = host.begin(other).await.err().unwrap().to_string();
    assert!(none.contains("no image oma-test/none:1"), "{none}");
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}

#[tokio::test]
async fn a_build_sees_nothing_readable_and_has_its_image_s_volumes_in_memory() {
    let Some(engine) = engine(false) else { return };
    engine.import("oma-test/volumes:1", &["VOLUME /data", "VOLUME /tmp"], |root| {
        std::fs::create_dir(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    });
    let (folder, shown) = (Folder::new(), Folder::new());
    let secret = shown.path().join("secret");
    std::fs::write(&secret, "for root\n").unwrap();
    let mut config = bare(&engine, &folder.path());
    config.host.readable = vec![shown.path()];
    let host = docker::open(config).await.unwrap();
    let mut of = crate::layers::build(Vec::new());
    of.image = Some("oma-test/volumes:1".to_owned());
    let site = host.begin(of).await.unwrap();
    let script = format!(
        "busybox cat {} && echo SEEN
         for at in /data /tmp; do echo x > $at/x && busybox grep \" $at tmpfs \" /proc/mounts; done
         busybox grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; echo done",
        secret.display()
    );
    let said = crate::layers::run(&site, &script).await;
    assert!(!said.contains("SEEN") && said.ends_with("done\n"), "{said}");
    assert_eq!(said.matches(" tmpfs ").count(), 2, "{said}");
    assert!(said.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{said}");
    assert_eq!(engine.api().volumes(), 0, "none that nobody counts");
    host.give_up(&site).await.unwrap();
    assert_eq!(engine.api().containers(""), Vec::<String>::new());
}
