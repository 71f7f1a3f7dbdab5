//! What the tests share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oma_domain::content::joined_text;
use oma_domain::{EventId, SessionId};
use oma_sandbox::local::{Config, Local};
use oma_sandbox::protocol::{Call, Reply};
use oma_sandbox::{Attached, Hand, Provider, Spec};

/// A data folder of a test, and a server's sandboxes in it.
pub(crate) struct Fixture {
    pub(crate) data: PathBuf,
    pub(crate) local: Local,
    _folder: tempfile::TempDir,
}

/// The hand's program.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os("OMA_TEST_HAND").map_or_else(|| env!("CARGO_BIN_EXE_hand-harness").into(), PathBuf::from)
}

/// The configuration of the tests: everything small, so that a bomb goes off soon.
pub(crate) fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.exe = exe();
    config.limits.memory = 256 << 20;
    config.limits.processes = 128;
    config.limits.disk = 32 << 20;
    config.limits.inodes = 5_000;
    config.limits.disk_floor = 1 << 20;
    config.limits.tmp = 64 << 20;
    config.tools.default_wall = Duration::from_secs(60);
    config
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut config = config(&data);
        adjust(&mut config);
        let local = Local::open(config).await.unwrap();
        Self {
            data,
            local,
            _folder: folder,
        }
    }

    pub(crate) async fn attach(&self, session: &SessionId) -> Attached {
        self.local
            .attach(&Spec {
                session: session.clone(),
            })
            .await
            .unwrap()
    }
}

/// A call of `bash`.
pub(crate) fn bash(command: &str) -> Call {
    Call {
        tool: "bash".to_owned(),
        input: serde_json::json!({ "command": command }),
    }
}

/// What a command printed, and whether it failed.
pub(crate) async fn sh(hand: &dyn Hand, command: &str) -> (String, bool) {
    said(&hand.run(&EventId::generate(), bash(command)).await.unwrap())
}

pub(crate) fn said(reply: &Reply) -> (String, bool) {
    (joined_text(&reply.content).trim_end().to_owned(), reply.is_error)
}
