//! What a pool with sandboxes in advance gives: one that is there, and many at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::host::Host;
use oma_sandbox::protocol::Call;
use oma_sandbox::{Lease, Origin, Pool, PoolConfig, Spec};

use super::{Failure, WARM_UP};

/// How long sandboxes in advance may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

fn pool(host: &Host, max_warm: usize) -> Pool {
    let config = PoolConfig {
        max_live: 64,
        max_warm,
        ..PoolConfig::default()
    };
    let pool = Pool::new(Arc::new(host.clone()), config);
    pool.warm_plain(&WorkspaceId::default_workspace());
    pool
}

async fn ready(pool: &Pool, count: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    while pool.ready() < count {
        if begun.elapsed() > PATIENCE {
            return Err("no sandboxes in advance".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn spec() -> Spec {
    Spec {
        session: SessionId::generate(),
        workspace: WorkspaceId::default_workspace(),
    }
}

async fn first_command(lease: &Lease) -> Result<(), Failure> {
    let call = Call {
        tool: "bash".to_owned(),
        input: serde_json::json!({ "command": "true" }),
    };
    let reply = lease.run(&EventId::generate(), call).await?;
    if reply.is_error {
        return Err(format!("{reply:?}").into());
    }
    Ok(())
}

/// How long one takes that is there, and with its first command.
pub(crate) async fn claims(host: &Host, runs: usize) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let pool = pool(host, 1);
    let (mut claim, mut first) = (Vec::new(), Vec::new());
    for run in 0..runs + WARM_UP {
        ready(&pool, 1).await?;
        let spec = spec();
        let begun = Instant::now();
        let lease = pool.acquire(&spec).await?;
        let up = begun.elapsed();
        first_command(&lease).await?;
        let done = begun.elapsed();
        if run >= WARM_UP {
            claim.push(up);
            first.push(done);
        }
        drop(lease);
        pool.destroy(&spec.session).await?;
    }
    pool.retire(&std::collections::HashSet::new()).await;
    Ok((claim, first))
}

/// How long it takes until each of so many that are asked for at once has run its first command, in order, when so many
/// are there in advance.
pub(crate) async fn at_once(host: &Host, count: usize, max_warm: usize) -> Result<Vec<Duration>, Failure> {
    let pool = pool(host, max_warm);
    ready(&pool, max_warm).await?;
    let begun = Instant::now();
    let all = (0..count).map(|_| {
        let pool = pool.clone();
        async move {
            let task = tokio::spawn(async move {
                let spec = spec();
                let lease = pool.acquire(&spec).await.map_err(|error| error.to_string())?;
                if lease.origin() != Origin::Started {
                    return Err("it was there before".to_owned());
                }
                first_command(&lease).await.map_err(|error| error.to_string())?;
                Ok((begun.elapsed(), spec.session, lease))
            });
            task.await.map_err(|error| error.to_string())?
        }
    });
    let mut times = Vec::new();
    let leases = try_join_all(all).await?;
    for (time, session, lease) in leases {
        times.push(time);
        drop(lease);
        pool.destroy(&session).await?;
    }
    pool.retire(&std::collections::HashSet::new()).await;
    Ok(times)
}
