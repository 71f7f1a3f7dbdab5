//! What makes the sandboxes of a test.

use std::net::Ipv4Addr;

use oma_docker_engine::{Engine, GVISOR, HOSTED};
use serde_json::Value;

use crate::containers::contained;
use crate::system::{Options, System};

/// What makes the sandboxes of a test.
pub(super) struct Place {
    /// Where this machine serves the ports of the web, for the tests of this place only.
    pub(super) web: Ipv4Addr,
    engine: Option<Engine>,
    /// Of the containers, where it is not the engine's own.
    pub(super) runtime: Option<&'static str>,
}

impl Place {
    /// This machine's namespaces.
    pub(super) fn local() -> Self {
        Self {
            web: Ipv4Addr::new(127, 9, 8, 7),
            engine: None,
            runtime: None,
        }
    }

    /// Containers with this machine's programs, where there can be any.
    pub(super) fn contained() -> Option<Self> {
        let engine = oma_docker_engine::is_possible().then(|| Engine::start(false))?;
        engine.import_hosted();
        Some(Self {
            web: Ipv4Addr::new(127, 9, 8, 6),
            engine: Some(engine),
            runtime: None,
        })
    }

    /// The same, with a kernel of their own.
    pub(super) fn apart() -> Option<Self> {
        if !oma_docker_engine::is_gvisor_possible() {
            return None;
        }
        Some(Self {
            web: Ipv4Addr::new(127, 9, 8, 5),
            runtime: Some(GVISOR),
            ..Self::contained()?
        })
    }

    pub(super) fn adjust(&self, options: Options) -> Options {
        match &self.engine {
            None => options,
            Some(engine) => contained(engine)(options)
                .set("OPENCLAW_SANDBOX_RUNTIME", self.runtime.unwrap_or_default())
                // gVisor needs so many threads for a hundred programs at once.
                .set("OPENCLAW_SANDBOX_PROCESSES", "6000")
                .set("OPENCLAW_SANDBOX_IMAGE", HOSTED)
                .set(
                    "OPENCLAW_SANDBOX_READABLE",
                    "/usr,/etc/alternatives,/etc/ssl/certs",
                ),
        }
    }

    /// Kills what a session's sandbox consists of.
    pub(super) fn kill(&self, system: &System, session: &str) {
        if let Some(engine) = &self.engine {
            for container in engine.api().containers(&format!("oma.session={session}")) {
                let path = format!("/containers/{container}/kill");
                engine.api().ask("POST", &path, &[]).expect("an answer");
            }
            return;
        }
        let record = system
            .data
            .path()
            .join("sandboxes")
            .join(session)
            .join("record.json");
        let record: Value = serde_json::from_slice(&std::fs::read(record).expect("a record")).expect("JSON");
        let hand = i32::try_from(record["hand"]["pid"].as_i64().expect("a pid")).expect("a pid");
        let hand = rustix::process::Pid::from_raw(hand).expect("a pid");
        rustix::process::kill_process(hand, rustix::process::Signal::KILL).expect("it runs");
    }

    /// A server whose guard knows `good.test` and `evil.test`, which are this machine, and would reach both.
    pub(super) async fn start(&self, ports: &[u16]) -> System {
        let names = ["good.test", "a.cdn.test", "evil.test"];
        let allowed = names
            .iter()
            .flat_map(|name| ports.iter().map(move |port| format!("{name}:{port}")));
        let allowed: Vec<String> = allowed.collect();
        let hosts = names.map(|name| format!("{name}={}", self.web));
        System::start_with(|options| {
            self.adjust(options)
                .set("OPENCLAW_SANDBOX_EGRESS_ALLOW", &allowed.join(","))
                .set("OPENCLAW_SANDBOX_EGRESS_HOSTS", &hosts.join(","))
        })
        .await
    }
}
