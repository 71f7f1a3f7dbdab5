//! A real S3-compatible store beside the server, which checks each signature: moto, installed by `scripts/test`.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::system::{Options, soon};

/// Where objects of these tests are in the bucket.
pub(super) const PREFIX: &str = "team/one";

/// A running store with a bucket. Killed when it is dropped.
pub(super) struct Store {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(super) facts: Value,
}

impl Store {
    /// Starts one, where it is installed. Only continuous integration insists that it is.
    pub(super) async fn start() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join(".venv-s3/bin/python");
        if !python.exists() {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(
                !is_ci,
                "{} is not there: scripts/test installs tests/s3/requirements.txt",
                python.display()
            );
            return None;
        }
        let mut child = Command::new(python)
            .arg(root.join("tests/s3/server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Python runs");
        let mut store = Self {
            input: child.stdin.take().expect("piped"),
            output: BufReader::new(child.stdout.take().expect("piped")),
            _child: child,
            facts: Value::Null,
        };
        store.facts = store.line().await;
        Some(store)
    }

    async fn line(&mut self) -> Value {
        let mut line = String::new();
        soon("the store's answer", self.output.read_line(&mut line))
            .await
            .expect("readable");
        serde_json::from_str(&line).expect("the store runs")
    }

    async fn ask(&mut self, command: &str) -> Value {
        let line = format!("{command}\n");
        self.input.write_all(line.as_bytes()).await.expect("it listens");
        self.line().await
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().expect("text")
    }

    /// What the server is told of it.
    pub(super) fn options(&self, options: Options, endpoint: &str) -> Options {
        options
            .set(
                "OPENCLAW_CHECKPOINTS",
                &format!("s3://{}/{PREFIX}/", self.fact("bucket")),
            )
            .set("OPENCLAW_S3_ENDPOINT", endpoint)
            .set("OPENCLAW_S3_REGION", self.fact("region"))
            .set("OPENCLAW_S3_ACCESS_KEY_ID", self.fact("access_key_id"))
            .set("OPENCLAW_S3_SECRET_ACCESS_KEY", self.fact("secret_access_key"))
    }

    pub(super) fn endpoint(&self) -> String {
        self.fact("endpoint").to_owned()
    }

    /// The names of all objects.
    pub(super) async fn keys(&mut self) -> Vec<String> {
        serde_json::from_value(self.ask("keys").await).expect("names")
    }

    /// The names for which an upload was begun and has not ended.
    pub(super) async fn uploads(&mut self) -> Vec<String> {
        serde_json::from_value(self.ask("uploads").await).expect("names")
    }

    /// Changes a bit of an object.
    pub(super) async fn flip(&mut self, key: &str) {
        self.ask(&format!("flip {key}")).await;
    }

    /// Takes an object away.
    pub(super) async fn take_away(&mut self, key: &str) {
        self.ask(&format!("drop {key}")).await;
    }

    /// Panics when its key is in something that somebody gets to see.
    pub(super) fn assert_secret(&self, place: &str, text: &str) {
        for secret in ["access_key_id", "secret_access_key"] {
            assert!(!text.contains(self.fact(secret)), "the {secret} is in {place}");
        }
    }
}
