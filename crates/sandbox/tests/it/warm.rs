//! Sandboxes that are started in advance become those of sessions.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use oma_domain::{SessionId, WorkspaceId};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::mounts::{Access, Place, Slug};
use oma_sandbox::protocol::Service;
use oma_sandbox::{Origin, Pool, PoolConfig, Provider as _, WarmId};
use tokio::io::AsyncReadExt as _;

use crate::support::{
    FROM_RESERVE, Fixture, Folder, config, engine, groups_left, hand_pid, hand_pid_of, is_alive, open, sh,
    spec, wait_for_end,
};

const FOLDERS: [&str; 3] = ["workspaces", "mounts", "sandboxes"];

fn workspace() -> WorkspaceId {
    WorkspaceId::default_workspace()
}

async fn start(fixture: &Fixture) -> WarmId {
    let started = fixture.local.start_warm(&workspace(), Fittings::default()).await;
    started.unwrap()
}

/// Where its folder of this name lies.
fn folder(data: &Path, name: &str, id: &WarmId) -> PathBuf {
    data.join("warm").join(name).join(id.to_string())
}

#[tokio::test]
async fn it_is_the_session_s_in_every_way() {
    let fixture = Fixture::new().await;
    let local = &fixture.local;
    let id = start(&fixture).await;
    assert_eq!(local.inventory().await.unwrap(), [], "it is nobody's");
    assert!(local.survivors().is_empty());
    let pid = hand_pid_of(engine(), &folder(&fixture.data, "sandboxes", &id));
    let session = SessionId::generate();
    let spec = spec(&session);
    assert!(local.is_untouched(&session).await.unwrap());
    let attached = local.claim(&id, &spec).await.unwrap().unwrap();
    assert_eq!(attached.origin, Origin::Started);
    assert_eq!(hand_pid(&fixture.data, &session), pid, "it is the same one");
    assert!(!local.is_untouched(&session).await.unwrap());
    assert_eq!(local.inventory().await.unwrap(), std::slice::from_ref(&session));

    // What the server puts there it shows, and the other way round.
    let hand = &*attached.hand;
    let files = local.workspace(&session).await.unwrap();
    files.write("given", Bytes::from_static(b"in")).await.unwrap();
    assert_eq!(sh(hand, "cat given; echo -n out > made").await.0, "in");
    assert_eq!(files.read("made", 10).await.unwrap(), "out");
    let uploads = local.mount(&session, &Place::Uploads).await.unwrap();
    uploads.write("up", Bytes::from_static(b"load")).await.unwrap();
    assert_eq!(
        sh(
            hand,
            "cat /mnt/session/uploads/up; echo x > /mnt/session/outputs/o"
        )
        .await
        .0,
        "load"
    );
    let outputs = local.mount(&session, &Place::Outputs).await.unwrap();
    assert_eq!(outputs.read("o", 10).await.unwrap(), "x\n");
    assert!(hand.logs(10).await.unwrap().contains("load"));
    let made = std::fs::metadata(
        fixture
            .data
            .join("workspaces")
            .join(session.as_str())
            .join("made"),
    );
    let given = std::fs::metadata(
        fixture
            .data
            .join("workspaces")
            .join(session.as_str())
            .join("given"),
    );
    assert_eq!(made.unwrap().uid(), given.unwrap().uid(), "both have its user");

    // It stops and starts again like any other, and goes with the session.
    assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Running);
    local.stop(&session).await.unwrap();
    wait_for_end(pid);
    let again = local.attach(&spec).await.unwrap();
    assert_eq!(again.origin, Origin::Started);
    assert_eq!(sh(&*again.hand, "cat given made").await.0, "inout");
    local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn services_ports_and_losses_are_the_session_s() {
    let fixture = Fixture::with(|config| config.gateway = true).await;
    let spec = spec(&SessionId::generate());
    let attached = fixture.claim(&spec).await;
    let service = Service {
        program: "cat".to_owned(),
        arguments: Vec::new(),
        variables: Vec::new(),
        folder: None,
    };
    let mut pipe = attached.hand.serve(service).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut pipe, b"echo")
        .await
        .unwrap();
    let mut answer = [0; 4];
    pipe.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"echo");
    drop(attached.hand.datagrams().await.unwrap());
    assert!(
        sh(&*attached.hand, "env").await.0.contains("http_proxy="),
        "its programs know of the doors"
    );
    // That it is gone without a proper stop is told.
    let pid = hand_pid(&fixture.data, &spec.session);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for_end(pid);
    while attached.hand.logs(0).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let next = fixture.local.attach(&spec).await.unwrap();
    assert_eq!(next.origin, Origin::Replaced);
    fixture.local.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn who_has_something_of_its_own_is_given_none() {
    let fixture = Fixture::new().await;
    let local = &fixture.local;
    let id = start(&fixture).await;
    let [with_files, with_mounts, with_sandbox, with_loss] = [(); 4].map(|()| SessionId::generate());
    let files = local.workspace(&with_files).await.unwrap();
    files.write("kept", Bytes::from_static(b"x")).await.unwrap();
    local.mount(&with_mounts, &Place::Skills).await.unwrap();
    fixture.attach(&with_sandbox).await;
    fixture.attach(&with_loss).await;
    let pid = hand_pid(&fixture.data, &with_loss);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for_end(pid);
    let all = [with_files, with_mounts, with_sandbox, with_loss];
    for session in &all {
        assert!(!local.is_untouched(session).await.unwrap());
        assert!(local.claim(&id, &spec(session)).await.unwrap().is_none());
    }
    assert_eq!(files.read("kept", 10).await.unwrap(), "x");
    let origins = [
        Origin::Started,
        Origin::Started,
        Origin::Running,
        Origin::Replaced,
    ];
    for (session, origin) in all.iter().zip(origins) {
        assert_eq!(fixture.attach(session).await.origin, origin);
    }
    // Nobody has been given it, so somebody else may have it, once.
    let session = SessionId::generate();
    assert!(local.claim(&id, &spec(&session)).await.unwrap().is_some());
    let late = SessionId::generate();
    assert!(local.claim(&id, &spec(&late)).await.unwrap().is_none());
    for session in all.iter().chain([&session, &late]) {
        local.destroy(session).await.unwrap();
    }
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn one_that_has_died_is_of_no_use() {
    let fixture = Fixture::new().await;
    let id = start(&fixture).await;
    let pid = hand_pid_of(engine(), &folder(&fixture.data, "sandboxes", &id));
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for_end(pid);
    let spec = spec(&SessionId::generate());
    // Until the server has heard of it, it may be given away, as any other may die at any time.
    if fixture.local.claim(&id, &spec).await.unwrap().is_some() {
        fixture.local.destroy(&spec.session).await.unwrap();
    }
    fixture.local.stop_warm(&id).await.unwrap();
    fixture.local.stop_warm(&id).await.unwrap();
    assert!(fixture.local.is_untouched(&spec.session).await.unwrap());
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn it_is_made_with_what_was_asked_for() {
    let fixture = Fixture::new().await;
    let local = &fixture.local;
    let store = |name, access| Place::Memory {
        slug: Slug::parse(name).unwrap(),
        access,
    };
    let fittings = Fittings {
        variables: [("GREETING".to_owned(), "good day".to_owned())].into(),
        stores: vec![
            store("notes", Access::ReadOnly),
            store("diary", Access::ReadWrite),
        ],
        ..Fittings::default()
    };
    let id = local.start_warm(&workspace(), fittings).await.unwrap();
    let spec = spec(&SessionId::generate());
    let attached = local.claim(&id, &spec).await.unwrap().unwrap();
    let notes = store("notes", Access::ReadOnly);
    let notes = local.mount(&spec.session, &notes).await.unwrap();
    notes.write("a", Bytes::from_static(b"here")).await.unwrap();
    let (text, _) = sh(
        &*attached.hand,
        "echo $GREETING; cat /mnt/memory/notes/a; echo x > /mnt/memory/diary/d; touch /mnt/memory/notes/b",
    )
    .await;
    assert!(text.starts_with("good day\nhere"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    let diary = store("diary", Access::ReadWrite);
    let diary = local.mount(&spec.session, &diary).await.unwrap();
    assert_eq!(diary.read("d", 10).await.unwrap(), "x\n");
    local.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn none_outlives_its_server() {
    let folder_of_all = Folder::new();
    let fixture = Fixture::in_folder(folder_of_all, |_| {}).await;
    let Fixture { data, local, folder } = fixture;
    let ids = [
        local.start_warm(&workspace(), Fittings::default()).await.unwrap(),
        local.start_warm(&workspace(), Fittings::default()).await.unwrap(),
    ];
    let pids = ids.map(|id| hand_pid_of(engine(), &super::warm::folder(&data, "sandboxes", &id)));
    drop(local);
    assert!(pids.iter().all(|pid| is_alive(*pid)), "nobody has ended them yet");
    let local = open(config(&data)).await.unwrap();
    pids.into_iter().for_each(wait_for_end);
    assert_eq!(local.survivors(), []);
    assert_eq!(groups_left(&data), "");
    Fixture { data, local, folder }.assert_nothing_left();
}

/// A server that dies after so many of the folders have been moved.
#[tokio::test]
async fn a_crash_while_it_is_handed_over_leaves_it_with_somebody_or_nobody() {
    for moved in 0..=FOLDERS.len() {
        let fixture = Fixture::new().await;
        let Fixture { data, local, folder } = fixture;
        let id = local.start_warm(&workspace(), Fittings::default()).await.unwrap();
        let pid = hand_pid_of(engine(), &super::warm::folder(&data, "sandboxes", &id));
        drop(local);
        let session = SessionId::generate();
        for name in &FOLDERS[..moved] {
            let from = super::warm::folder(&data, name, &id);
            std::fs::rename(from, data.join(name).join(session.as_str())).unwrap();
        }
        let local = open(config(&data)).await.unwrap();
        let is_its_own = moved == FOLDERS.len();
        if is_its_own {
            assert!(is_alive(pid));
        } else {
            wait_for_end(pid);
        }
        let survivors = if is_its_own {
            vec![session.clone()]
        } else {
            Vec::new()
        };
        assert_eq!(local.survivors(), survivors);
        // The session works all the same, and nothing is told to be lost that never ran.
        let attached = local.attach(&spec(&session)).await.unwrap();
        let origin = if is_its_own {
            Origin::Running
        } else {
            Origin::Started
        };
        assert_eq!(attached.origin, origin, "after {moved}");
        let (text, failed) = sh(
            &*attached.hand,
            "echo x > f && echo y > /mnt/session/outputs/o && cat f /mnt/session/outputs/o",
        )
        .await;
        assert_eq!((text.as_str(), failed), ("x\ny", false), "after {moved}");
        local.destroy(&session).await.unwrap();
        Fixture { data, local, folder }.assert_nothing_left();
    }
}

#[tokio::test]
async fn nothing_is_lost_to_who_comes_at_the_same_time() {
    let fixture = Fixture::new().await;
    let local = &fixture.local;
    for _ in 0..10 {
        let id = start(&fixture).await;
        let spec = spec(&SessionId::generate());
        let write = async {
            let files = local.workspace(&spec.session).await.unwrap();
            files.write("kept", Bytes::from_static(b"x")).await.unwrap();
        };
        let put = async {
            let uploads = local.mount(&spec.session, &Place::Uploads).await.unwrap();
            uploads.write("kept", Bytes::from_static(b"x")).await.unwrap();
        };
        let (claimed, (), ()) = tokio::join!(local.claim(&id, &spec), write, put);
        let hand = match claimed.unwrap() {
            Some(attached) => attached.hand,
            None => {
                local.stop_warm(&id).await.unwrap();
                local.attach(&spec).await.unwrap().hand
            }
        };
        assert_eq!(
            sh(&*hand, "cat kept /mnt/session/uploads/kept").await,
            ("xx".to_owned(), false)
        );
        local.destroy(&spec.session).await.unwrap();
    }
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_pool_over_real_sandboxes_has_some_in_advance() {
    let fixture = Fixture::new().await;
    let config = PoolConfig {
        max_live: 4,
        max_warm: 2,
        ..PoolConfig::default()
    };
    let pool = Pool::new(Arc::new(fixture.local.clone()), config);
    pool.warm_plain(&workspace());
    let specs = [(); 6].map(|()| spec(&SessionId::generate()));
    let begun = Instant::now();
    for (number, spec) in specs.iter().enumerate() {
        // As long as there is room for two.
        while number < 3 && pool.counts().warm < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", pool.counts());
            tokio::task::yield_now().await;
        }
        let lease = pool.acquire(spec).await.unwrap();
        assert_eq!(lease.origin(), Origin::Started);
        assert_eq!(sh(&*lease, "echo a > f; ls").await.0, "f");
        assert!(pool.counts().live <= 4);
    }
    assert!(pool.counts().started < 6, "some were there: {:?}", pool.counts());
    pool.retire(&std::collections::HashSet::new()).await;
    for spec in &specs {
        pool.destroy(&spec.session).await.unwrap();
    }
    fixture.assert_nothing_left();
}

/// Runs tests of this suite with sandboxes that were started in advance.
#[test]
fn they_are_as_strong_as_others() {
    if std::env::var_os(FROM_RESERVE).is_some() || engine().is_some() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["isolation::", "shell::", "mounts::", "basics::", "bombs::"])
        .args([
            "--skip",
            "disk_bombs",
            "--skip",
            "containers",
            "--skip",
            "ordinary_user",
            "--test-threads",
            "2",
        ])
        .env(FROM_RESERVE, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let passed = text
        .split(" passed")
        .next()
        .and_then(|text| text.rsplit(' ').next());
    let passed: u32 = passed.and_then(|count| count.parse().ok()).unwrap();
    assert!(passed > 20, "{text}");
}
