mod warm;

use super::*;
use crate::WarmId;
use crate::files::Workspace;
use crate::fittings::{Fit, Fittings};
use crate::protocol::{Call, Reply};
use async_trait::async_trait;
use oma_domain::{EventId, WorkspaceId};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A backend whose sandboxes take a second to start and to stop.
#[derive(Default)]
struct Fake {
    live: Mutex<BTreeMap<SessionId, bool>>,
    most: Mutex<usize>,
    log: Mutex<Vec<String>>,
    broken: Mutex<bool>,
    survivors: Vec<SessionId>,
    /// Those that belong to no session, by what they are made with.
    warm: Mutex<Vec<(WarmId, String)>>,
    /// Sessions that can't take any, for they have something of their own.
    touched: Mutex<Vec<SessionId>>,
}

impl Fake {
    fn count(&self, live: &BTreeMap<SessionId, bool>) {
        let there = live.len() + self.warm.lock().unwrap().len();
        let mut most = self.most.lock().unwrap();
        *most = there.max(*most);
    }
}

struct FakeHand;

#[async_trait]
impl Hand for FakeHand {
    async fn run(&self, _: &EventId, _: Call) -> Result<Reply, Error> {
        Err(Error::Lost("fake".to_owned()))
    }
    async fn cancel(&self, _: &EventId) -> Result<Option<Reply>, Error> {
        Ok(None)
    }
    async fn forget_all_but(&self, _: &[EventId]) -> Result<(), Error> {
        Ok(())
    }
    async fn logs(&self, _: usize) -> Result<String, Error> {
        Ok("logs".to_owned())
    }
}

#[async_trait]
impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    async fn attach_fitted(&self, spec: &Spec, _: Arc<dyn Fit>) -> Result<Attached, Error> {
        if *self.broken.lock().unwrap() {
            return Err(Error::TooWeak("broken".to_owned()));
        }
        let origin = {
            let mut live = self.live.lock().unwrap();
            let known = live.insert(spec.session.clone(), true).is_some();
            self.count(&live);
            if known { Origin::Running } else { Origin::Started }
        };
        if origin == Origin::Started {
            self.log.lock().unwrap().push(format!("start {}", spec.session));
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Attached {
            hand: Arc::new(FakeHand),
            origin,
            boot: Duration::from_secs(u64::from(origin == Origin::Started)),
            trusts: false,
        })
    }
    async fn reattach(&self, session: &SessionId) -> Result<Option<Attached>, Error> {
        if *self.broken.lock().unwrap() {
            return Err(Error::Lost("broken".to_owned()));
        }
        let is_live = self.live.lock().unwrap().contains_key(session);
        Ok(is_live.then(|| Attached {
            hand: Arc::new(FakeHand),
            origin: Origin::Running,
            boot: Duration::ZERO,
            trusts: false,
        }))
    }
    fn survivors(&self) -> Vec<SessionId> {
        self.survivors.clone()
    }
    async fn stop(&self, session: &SessionId) -> Result<(), Error> {
        sleep(Duration::from_secs(1)).await;
        if self.live.lock().unwrap().remove(session).is_some() {
            self.log.lock().unwrap().push(format!("stop {session}"));
        }
        Ok(())
    }
    async fn retire(&self, session: &SessionId) -> Result<bool, Error> {
        if session.as_str().starts_with("busy") {
            return Ok(false);
        }
        self.stop(session).await?;
        Ok(true)
    }
    async fn destroy(&self, session: &SessionId) -> Result<(), Error> {
        self.stop(session).await
    }
    async fn inventory(&self) -> Result<Vec<SessionId>, Error> {
        Ok(self.live.lock().unwrap().keys().cloned().collect())
    }
    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, Error> {
        Err(Error::TooWeak("none".to_owned()))
    }
    async fn start_warm(&self, workspace: &WorkspaceId, fittings: Fittings) -> Result<WarmId, Error> {
        if *self.broken.lock().unwrap() {
            return Err(Error::TooWeak("broken".to_owned()));
        }
        let (id, kind) = (WarmId::generate(), warm::kind(workspace, &fittings));
        {
            let live = self.live.lock().unwrap();
            self.warm.lock().unwrap().push((id.clone(), kind.clone()));
            self.count(&live);
        }
        sleep(Duration::from_secs(1)).await;
        self.log.lock().unwrap().push(format!("warm {kind}"));
        Ok(id)
    }
    async fn stop_warm(&self, id: &WarmId) -> Result<(), Error> {
        sleep(Duration::from_secs(1)).await;
        let mut warm = self.warm.lock().unwrap();
        if let Some(index) = warm.iter().position(|(known, _)| known == id) {
            let (_, kind) = warm.remove(index);
            self.log.lock().unwrap().push(format!("cool {kind}"));
        }
        Ok(())
    }
    async fn is_untouched(&self, session: &SessionId) -> Result<bool, Error> {
        let is_live = self.live.lock().unwrap().contains_key(session);
        Ok(!is_live && !self.touched.lock().unwrap().contains(session))
    }
    async fn claim(&self, id: &WarmId, spec: &Spec) -> Result<Option<Attached>, Error> {
        if *self.broken.lock().unwrap() {
            return Err(Error::Lost("broken".to_owned()));
        }
        let mut live = self.live.lock().unwrap();
        let mut warm = self.warm.lock().unwrap();
        let Some(index) = warm.iter().position(|(known, _)| known == id) else {
            return Ok(None);
        };
        let (_, kind) = warm.remove(index);
        live.insert(spec.session.clone(), true);
        self.log
            .lock()
            .unwrap()
            .push(format!("{} takes {kind}", spec.session));
        Ok(Some(Attached {
            hand: Arc::new(FakeHand),
            origin: Origin::Started,
            boot: Duration::ZERO,
            trusts: false,
        }))
    }
}

fn spec(name: &str) -> Spec {
    Spec {
        session: SessionId::parse(name).unwrap(),
        workspace: WorkspaceId::default_workspace(),
    }
}

fn pool(max_live: usize) -> (Pool, Arc<Fake>) {
    pool_after_a_restart(max_live, &[])
}

/// A pool that comes to a provider with sandboxes of these sessions.
fn pool_after_a_restart(max_live: usize, survivors: &[&str]) -> (Pool, Arc<Fake>) {
    let survivors: Vec<SessionId> = survivors.iter().map(|name| spec(name).session).collect();
    let fake = Arc::new(Fake {
        live: Mutex::new(survivors.iter().cloned().map(|session| (session, true)).collect()),
        survivors,
        ..Fake::default()
    });
    let config = PoolConfig {
        max_live,
        wait: Duration::from_secs(100),
        idle_timeout: Duration::from_secs(1_000),
        ..PoolConfig::default()
    };
    (Pool::new(Arc::<Fake>::clone(&fake), config), fake)
}

fn later(pool: &Pool, name: &'static str) -> JoinHandle<Result<Lease, Error>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.acquire(&spec(name)).await })
}

fn log(fake: &Fake) -> Vec<String> {
    fake.log.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn one_sandbox_serves_all_leases_of_a_session() {
    let (pool, fake) = pool(2);
    let first = pool.acquire(&spec("a")).await.unwrap();
    let second = pool.acquire(&spec("a")).await.unwrap();
    assert_eq!(
        (first.origin(), second.origin()),
        (Origin::Started, Origin::Running)
    );
    let came = Provenance::Started(Duration::from_secs(1));
    assert_eq!((first.provenance(), second.provenance()), (came, came));
    assert_eq!(second.logs(1).await.unwrap(), "logs", "a lease is a hand");
    assert_eq!(
        pool.counts(),
        Counts {
            live: 1,
            leased: 1,
            started: 1,
            ..Counts::default()
        }
    );
    drop(first);
    assert_eq!(pool.counts().leased, 1);
    drop(second);
    assert_eq!(
        pool.counts(),
        Counts {
            live: 1,
            started: 1,
            ..Counts::default()
        }
    );
    assert_eq!(log(&fake), ["start a"]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_one_makes_room() {
    let (pool, fake) = pool(2);
    drop(pool.acquire(&spec("a")).await.unwrap());
    drop(pool.acquire(&spec("b")).await.unwrap());
    sleep(Duration::from_millis(1)).await;
    drop(pool.acquire(&spec("a")).await.unwrap());
    let held = pool.acquire(&spec("c")).await.unwrap();
    assert_eq!(log(&fake), ["start a", "start b", "stop b", "start c"]);
    // Wanted again while it is on its way down.
    let (d, a) = (later(&pool, "d"), later(&pool, "a"));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(pool.counts().live, 2);
    drop(d.await.unwrap().unwrap());
    let a = a.await.unwrap().unwrap();
    assert_eq!(a.origin(), Origin::Started);
    assert_eq!(*fake.most.lock().unwrap(), 2, "never more than allowed");
    assert_eq!(pool.counts().evicted, 3);
    drop((a, held));
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_order_and_waits_end() {
    let (pool, fake) = pool(1);
    let held = pool.acquire(&spec("a")).await.unwrap();
    let mut waiting = Vec::new();
    for name in ["b", "c", "d"] {
        waiting.push(later(&pool, name));
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pool.counts().waiting, 3);
    pool.try_warm(&spec("e"));
    waiting[1].abort();
    drop(held);
    for task in waiting {
        if let Ok(lease) = task.await {
            drop(lease.unwrap());
        }
    }
    assert_eq!(
        log(&fake),
        ["start a", "stop a", "start b", "stop b", "start d"],
        "nobody jumped the queue"
    );
    let held = pool.acquire(&spec("d")).await.unwrap();
    let started = Instant::now();
    assert!(matches!(pool.acquire(&spec("f")).await, Err(Error::Exhausted(1))));
    assert_eq!(started.elapsed().as_secs(), 100);
    assert_eq!((pool.counts().waiting, pool.counts().refused), (0, 1));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn idle_ones_stop_in_time_and_used_ones_never() {
    let (pool, fake) = pool(3);
    let held = pool.acquire(&spec("held")).await.unwrap();
    drop(pool.acquire(&spec("a")).await.unwrap());
    sleep(Duration::from_secs(500)).await;
    drop(pool.acquire(&spec("b")).await.unwrap());
    sleep(Duration::from_secs(502)).await;
    assert_eq!(log(&fake), ["start held", "start a", "start b", "stop a"]);
    sleep(Duration::from_secs(502)).await;
    assert_eq!(fake.inventory().await.unwrap(), [spec("held").session]);
    assert_eq!(pool.counts().idled, 2);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn warming_tells_the_first_user_the_truth() {
    let (pool, fake) = pool(1);
    pool.try_warm(&spec("a"));
    pool.try_warm(&spec("b"));
    let first = pool.acquire(&spec("a")).await.unwrap();
    assert_eq!(first.origin(), Origin::Started);
    assert_eq!(pool.acquire(&spec("a")).await.unwrap().origin(), Origin::Running);
    assert_eq!(log(&fake), ["start a"], "there was no place for b");
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn failures_and_removals_give_the_place_back() {
    let (pool, fake) = pool(1);
    *fake.broken.lock().unwrap() = true;
    assert!(matches!(pool.acquire(&spec("a")).await, Err(Error::TooWeak(_))));
    pool.try_warm(&spec("b"));
    *fake.broken.lock().unwrap() = false;
    drop(pool.acquire(&spec("c")).await.unwrap());
    pool.destroy(&spec("c").session).await.unwrap();
    assert_eq!(pool.counts().live, 0);
    let held = pool.acquire(&spec("d")).await.unwrap();
    pool.stop(&spec("d").session).await.unwrap();
    assert_eq!(pool.counts().live, 1, "the place is held as long as the lease");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn peeking_starts_nothing() {
    let (pool, fake) = pool(2);
    let a = spec("a");
    assert!(pool.peek(&a.session).await.is_none(), "it has no sandbox");
    pool.try_warm(&a);
    sleep(Duration::from_millis(1)).await;
    let peeked = pool.peek(&a.session).await.unwrap();
    assert_eq!(log(&fake), ["start a"], "it waits for a start");
    assert_eq!(
        pool.acquire(&a).await.unwrap().origin(),
        Origin::Started,
        "who acts on it hears it all the same"
    );
    drop(peeked);
    // The sandbox dies: it is not started again, and its place is free.
    fake.live.lock().unwrap().clear();
    assert!(pool.peek(&a.session).await.is_none());
    let held = [
        pool.acquire(&spec("b")).await.unwrap(),
        pool.acquire(&spec("c")).await.unwrap(),
    ];
    assert_eq!(log(&fake), ["start a", "start b", "start c"]);
    // One that somebody holds keeps its place.
    fake.live.lock().unwrap().clear();
    assert!(pool.peek(&spec("b").session).await.is_none());
    assert_eq!(pool.counts().live, 2);
    drop(held);
    *fake.broken.lock().unwrap() = true;
    assert!(pool.peek(&spec("b").session).await.is_none());
    assert_eq!(log(&fake), ["start a", "start b", "start c"]);
}

#[tokio::test(start_paused = true)]
async fn what_outlived_a_server_has_its_place() {
    let (pool, fake) = pool_after_a_restart(2, &["a", "b"]);
    assert_eq!(
        pool.counts(),
        Counts {
            live: 2,
            ..Counts::default()
        }
    );
    pool.try_warm(&spec("c"));
    let there = pool.acquire(&spec("a")).await.unwrap();
    assert_eq!(
        (there.origin(), there.provenance()),
        (Origin::Running, Provenance::Survivor)
    );
    drop(there);
    assert!(pool.peek(&spec("b").session).await.is_some());
    assert_eq!(log(&fake), Vec::<String>::new(), "there was no place for c");
    // The one that somebody has come for gives way before the one that somebody may still come for.
    let held = pool.acquire(&spec("c")).await.unwrap();
    assert_eq!(log(&fake), ["stop a", "start c"]);
    drop(pool.acquire(&spec("d")).await.unwrap());
    assert_eq!(
        log(&fake),
        ["stop a", "start c", "stop b", "start d"],
        "but it does"
    );
    assert_eq!(*fake.most.lock().unwrap(), 2, "never more than allowed");
    drop(held);

    let (pool, fake) = pool_after_a_restart(2, &["a"]);
    sleep(Duration::from_secs(1_100)).await;
    assert_eq!((pool.counts().live, pool.counts().idled), (0, 1), "nobody came");
    assert_eq!(log(&fake), ["stop a"]);
}

#[tokio::test(start_paused = true)]
async fn more_than_allowed_may_have_outlived_a_server() {
    let (pool, fake) = pool_after_a_restart(2, &["a", "b", "c", "d"]);
    assert_eq!(pool.counts().live, 4);
    let held = [
        pool.acquire(&spec("a")).await.unwrap(),
        pool.acquire(&spec("b")).await.unwrap(),
    ];
    assert_eq!(held[0].origin(), Origin::Running);
    *fake.most.lock().unwrap() = 0;
    let e = later(&pool, "e");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(
        fake.inventory().await.unwrap().len(),
        2,
        "as many as allowed, and all held"
    );
    assert_eq!(pool.counts().waiting, 1);
    drop(held);
    drop(e.await.unwrap().unwrap());
    assert_eq!(fake.inventory().await.unwrap().len(), 2);
    assert_eq!(
        *fake.most.lock().unwrap(),
        2,
        "nothing started while there were too many"
    );
    // All places are there again.
    let both = [
        pool.acquire(&spec("f")).await.unwrap(),
        pool.acquire(&spec("g")).await.unwrap(),
    ];
    assert_eq!(pool.counts().live, 2);
    drop(both);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_needed_stays() {
    let (pool, fake) = pool_after_a_restart(8, &["old", "busy-old"]);
    for name in ["a", "b", "kept", "busy"] {
        drop(pool.acquire(&spec(name)).await.unwrap());
    }
    let held = pool.acquire(&spec("held")).await.unwrap();
    pool.retire(&HashSet::from([spec("kept").session])).await;
    let mut left: Vec<String> = fake
        .live
        .lock()
        .unwrap()
        .keys()
        .map(ToString::to_string)
        .collect();
    left.sort();
    assert_eq!(left, ["busy", "busy-old", "kept"]);
    assert_eq!(pool.counts().live, 3);
    drop(held);
    assert_eq!(pool.counts().live, 3);
}
