//! What a layer costs those that reuse it: it is built once, by a script that writes 2,000 files of 100 KiB, and then shown to
//! sandboxes that begin with it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::fittings::{Fit, Fittings};
use oma_sandbox::host::Host;
use oma_sandbox::layers::{Build, Layer, Layers as _};
use oma_sandbox::limits::Limits;
use oma_sandbox::protocol::{Call, Service};
use oma_sandbox::{Error, Hand, Provider as _, Spec};
use tokio::io::AsyncReadExt as _;

use super::{Failure, WARM_UP};

/// What is built. Each file is another one.
const SCRIPT: &str = "set -e
mkdir -p /opt/thing; head -c 102400 /dev/urandom > /opt/seed; n=0
while [ $n -lt 2000 ]; do (echo $n; cat /opt/seed) > /opt/thing/$n; n=$((n + 1)); done
rm /opt/seed; echo built";

/// What tells that it is there.
const LOOK: &str = "read -r line < /opt/thing/1999; echo $line";

struct With(Layer);

#[async_trait::async_trait]
impl Fit for With {
    async fn fit(&self, _: &Spec) -> Result<Fittings, Error> {
        Ok(Fittings {
            layer: Some(self.0.clone()),
            ..Fittings::default()
        })
    }
}

/// How long the build took, and then each sandbox with its first command; `None` where no layers can be built.
pub(crate) async fn built_and_reused(
    host: &Host,
    runs: usize,
) -> Result<Option<(Duration, Vec<Duration>)>, Failure> {
    if host.lacks().is_some() {
        return Ok(None);
    }
    let begun = Instant::now();
    let site = host
        .begin(Build {
            workspace: WorkspaceId::default_workspace(),
            image: None,
            limits: Limits::default(),
            files: Vec::new(),
        })
        .await?;
    let service = Service {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), format!("exec 2>&1\n{SCRIPT}")],
        variables: Vec::new(),
        folder: None,
    };
    let mut said = String::new();
    site.hand.serve(service).await?.read_to_string(&mut said).await?;
    if said != "built\n" {
        return Err(format!("the build said {said:?}").into());
    }
    let mut name = String::new();
    for byte in 0..32_u8 {
        write!(name, "{byte:02x}")?;
    }
    let layer = Layer::parse(&name).ok_or("no name of a layer")?;
    host.keep(&site, &layer).await?;
    let built = begun.elapsed();

    let mut times = Vec::new();
    for run in 0..runs + WARM_UP {
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let begun = Instant::now();
        let attached = host.attach_fitted(&spec, Arc::new(With(layer.clone()))).await?;
        look(&*attached.hand).await?;
        if run >= WARM_UP {
            times.push(begun.elapsed());
        }
        host.destroy(&spec.session).await?;
    }
    Ok(Some((built, times)))
}

async fn look(hand: &dyn Hand) -> Result<(), Failure> {
    let call = Call {
        tool: "bash".to_owned(),
        input: serde_json::json!({ "command": LOOK }),
    };
    let reply = hand.run(&EventId::generate(), call).await?;
    match reply.is_error || !format!("{reply:?}").contains("1999") {
        true => Err(format!("{reply:?}").into()),
        false => Ok(()),
    }
}
