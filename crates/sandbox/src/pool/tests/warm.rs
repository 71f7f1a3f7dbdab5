//! Sandboxes in advance. A session's first letter says what its sandbox is made with.

use super::*;
use crate::mounts::Furnish;

/// What sandboxes of sessions are made with; sessions of the second list have none any more.
#[derive(Default)]
struct Letters {
    renamed: Mutex<BTreeMap<String, String>>,
    /// Whether what sessions with this letter need has been built, where it has to be.
    built: tokio::sync::watch::Sender<bool>,
    failing: Mutex<Vec<SessionId>>,
}

#[async_trait]
impl Furnish for Letters {
    async fn furnish(&self, spec: &Spec) -> Result<(), Error> {
        if self.failing.lock().unwrap().contains(&spec.session) {
            return Err(Error::Lost("unfurnished".to_owned()));
        }
        Ok(())
    }

    async fn fit(&self, spec: &Spec, fittings: &mut Fittings) -> Result<(), Error> {
        let letter = spec.session.as_str()[..1].to_owned();
        if letter == "u" && !*self.built.borrow() {
            return Err(Error::Unbuilt);
        }
        if letter == "x" {
            return Err(Error::Lost("unfit".to_owned()));
        }
        let letter = self
            .renamed
            .lock()
            .unwrap()
            .get(&letter)
            .cloned()
            .unwrap_or(letter);
        if letter == "p" {
            fittings.trust = Some(format!("the authority of {}", spec.session));
        }
        fittings.variables.insert("KIND".to_owned(), letter);
        Ok(())
    }

    async fn fits(&self, spec: &Spec) {
        if spec.session.as_str().starts_with('u') {
            let mut built = self.built.subscribe();
            built.wait_for(|is_built| *is_built).await.unwrap();
        }
    }
}

/// In the words of the log.
pub(super) fn kind(workspace: &WorkspaceId, fittings: &Fittings) -> String {
    let letter = fittings.variables.get("KIND").map_or("plain", String::as_str);
    if *workspace == WorkspaceId::default_workspace() {
        letter.to_owned()
    } else {
        format!("{workspace}'s {letter}")
    }
}

fn pool(max_live: usize, max_warm: usize) -> (Pool, Arc<Fake>, Arc<Letters>) {
    let (fake, letters) = (Arc::new(Fake::default()), Arc::new(Letters::default()));
    let config = PoolConfig {
        max_live,
        max_warm,
        wait: Duration::from_secs(100),
        idle_timeout: Duration::from_secs(10_000),
        warm_timeout: Duration::from_secs(1_000),
    };
    let furnishers: Vec<Arc<dyn Furnish>> = vec![Arc::<Letters>::clone(&letters)];
    let pool = Pool::furnished(Arc::<Fake>::clone(&fake), config, furnishers);
    (pool, fake, letters)
}

/// Until all is done that was begun, and long before anything else is due.
async fn settled() {
    sleep(Duration::from_secs(20)).await;
}

/// What was logged since the last time.
fn since(fake: &Fake) -> Vec<String> {
    std::mem::take(&mut *fake.log.lock().unwrap())
}

fn warm(fake: &Fake) -> String {
    let mut kinds: Vec<String> = fake
        .warm
        .lock()
        .unwrap()
        .iter()
        .map(|(_, kind)| kind.clone())
        .collect();
    kinds.sort();
    kinds.join(" ")
}

#[tokio::test(start_paused = true)]
async fn a_session_takes_one_that_is_like_its_own_and_another_follows() {
    let (pool, fake, _) = pool(8, 2);
    pool.warm(&spec("a1"));
    settled().await;
    assert_eq!(since(&fake), ["warm a", "warm a"]);
    assert_eq!((pool.counts().live, pool.counts().warm), (2, 2));
    let begun = Instant::now();
    let lease = pool.acquire(&spec("a2")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was waited for");
    assert_eq!(lease.origin(), Origin::Started);
    assert_eq!(lease.provenance(), Provenance::Reserve);
    let again = pool.acquire(&spec("a2")).await.unwrap();
    assert_eq!(
        (again.origin(), again.provenance()),
        (Origin::Running, Provenance::Reserve)
    );
    drop(again);
    settled().await;
    assert_eq!(since(&fake), ["a2 takes a", "warm a"]);
    // One that is made with something else, or for somebody else, is none that it may have.
    drop(pool.acquire(&spec("b1")).await.unwrap());
    let other = Spec {
        workspace: WorkspaceId::generate(),
        ..spec("a3")
    };
    drop(pool.acquire(&other).await.unwrap());
    // So is any for one that has something of its own.
    fake.touched.lock().unwrap().push(spec("a4").session);
    drop(pool.acquire(&spec("a4")).await.unwrap());
    settled().await;
    assert_eq!(since(&fake), ["start b1", "start a3", "start a4"]);
    assert_eq!(pool.counts().started, 3);
    assert_eq!(warm(&fake), "a a");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_during_a_build_is_started_when_that_has_ended() {
    let (pool, fake, letters) = pool(8, 1);
    for _ in 0..3 {
        pool.warm(&spec("u1"));
        settled().await;
    }
    assert_eq!(since(&fake), Vec::<String>::new());
    // Others do not wait for it.
    pool.warm(&spec("a1"));
    settled().await;
    assert_eq!(since(&fake), ["warm a"]);
    letters.built.send_replace(true);
    settled().await;
    assert_eq!(since(&fake), ["cool a", "warm u"]);
    // Those who wait keep no pool alive.
    letters.built.send_replace(false);
    pool.warm(&spec("u2"));
    settled().await;
    let inner = Arc::downgrade(&pool.inner);
    drop(pool);
    settled().await;
    assert!(inner.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_reserve_nothing_is_started() {
    let (pool, fake, _) = pool(8, 0);
    pool.warm(&spec("a1"));
    pool.warm_plain(&WorkspaceId::default_workspace());
    pool.refit();
    settled().await;
    assert_eq!(since(&fake), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_shares_the_reserve() {
    let (pool, fake, _) = pool(16, 3);
    pool.warm(&spec("a1"));
    settled().await;
    assert_eq!(warm(&fake), "a a a");
    pool.warm(&spec("b1"));
    settled().await;
    assert_eq!(warm(&fake), "a a b");
    // Who asks last changes nothing as long as both have their share.
    since(&fake);
    for name in ["a2", "b2", "a3"] {
        pool.warm(&spec(name));
        settled().await;
    }
    assert_eq!(since(&fake), Vec::<String>::new());
    pool.warm_plain(&WorkspaceId::default_workspace());
    settled().await;
    assert_eq!(warm(&fake), "a b plain");
    // There is no room for a fourth, so the one that was asked for longest ago goes.
    pool.warm(&spec("c1"));
    settled().await;
    assert_eq!(warm(&fake), "a c plain");
    // And when nobody has asked for long, all do.
    since(&fake);
    sleep(Duration::from_secs(900)).await;
    pool.warm(&spec("c2"));
    sleep(Duration::from_secs(200)).await;
    assert_eq!(warm(&fake), "c c c");
    sleep(Duration::from_secs(900)).await;
    assert_eq!((warm(&fake), pool.counts().live), (String::new(), 0));
    assert!(*fake.most.lock().unwrap() <= 4, "one that goes and three");
}

#[tokio::test(start_paused = true)]
async fn they_give_way_first_and_the_oldest_before_others() {
    let (pool, fake, _) = pool(4, 2);
    pool.warm(&spec("a1"));
    settled().await;
    pool.warm(&spec("b1"));
    settled().await;
    since(&fake);
    // An idle one is used before, and stays longer.
    drop(pool.acquire(&spec("c1")).await.unwrap());
    let held = pool.acquire(&spec("d1")).await.unwrap();
    let first = pool.acquire(&spec("e1")).await.unwrap();
    assert_eq!(since(&fake), ["start c1", "start d1", "cool a", "start e1"]);
    let second = pool.acquire(&spec("f1")).await.unwrap();
    assert_eq!(since(&fake), ["cool b", "start f1"]);
    let third = pool.acquire(&spec("g1")).await.unwrap();
    assert_eq!(since(&fake), ["stop c1", "start g1"]);
    assert_eq!(pool.counts().evicted, 3);
    // While all places are taken, none is started in advance, and as soon as one is free it is.
    settled().await;
    assert_eq!(since(&fake), Vec::<String>::new());
    pool.destroy(&spec("d1").session).await.unwrap();
    drop(held);
    pool.destroy(&spec("d1").session).await.unwrap();
    settled().await;
    assert_eq!(since(&fake), ["stop d1", "warm b"]);
    assert_eq!(*fake.most.lock().unwrap(), 4, "never more than allowed");
    drop((first, second, third));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_comes_before_those_in_advance() {
    let (pool, fake, _) = pool(2, 2);
    let held = [
        pool.acquire(&spec("a1")).await.unwrap(),
        pool.acquire(&spec("b1")).await.unwrap(),
    ];
    let waiting = [later(&pool, "c1"), later(&pool, "d1")];
    sleep(Duration::from_millis(1)).await;
    pool.warm(&spec("e1"));
    drop(held);
    for task in waiting {
        drop(task.await.unwrap().unwrap());
    }
    assert!(
        !log(&fake).contains(&"warm e".to_owned()),
        "they were kept waiting for it: {:?}",
        log(&fake)
    );
    // One that is being started when somebody comes is not waited for longer than that takes.
    pool.destroy(&spec("c1").session).await.unwrap();
    pool.destroy(&spec("d1").session).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    drop(pool.acquire(&spec("f1")).await.unwrap());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(*fake.most.lock().unwrap(), 2, "never more than allowed");
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_one_needs_no_place_of_its_own() {
    let (pool, fake, _) = pool(2, 2);
    pool.warm(&spec("a1"));
    settled().await;
    let both = [
        pool.acquire(&spec("a1")).await.unwrap(),
        pool.acquire(&spec("a2")).await.unwrap(),
    ];
    assert_eq!(since(&fake), ["warm a", "warm a", "a1 takes a", "a2 takes a"]);
    assert_eq!(pool.counts().live, 2);
    assert_eq!(pool.acquire(&spec("a1")).await.unwrap().origin(), Origin::Running);
    drop(both);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_of_no_use_costs_no_place() {
    let (pool, fake, letters) = pool(2, 1);
    pool.warm(&spec("a1"));
    settled().await;
    // It has died by itself.
    fake.warm.lock().unwrap().clear();
    let lease = pool.acquire(&spec("a1")).await.unwrap();
    assert_eq!(lease.origin(), Origin::Started);
    pool.warm(&spec("a1"));
    settled().await;
    assert_eq!(since(&fake), ["warm a", "start a1", "warm a"]);
    drop(lease);
    pool.stop(&spec("a1").session).await.unwrap();
    // What belongs into it can't be put there, or nobody waits for it any more: the session's own is stopped.
    letters.failing.lock().unwrap().push(spec("a2").session);
    assert!(pool.acquire(&spec("a2")).await.is_err());
    settled().await;
    assert_eq!(since(&fake), ["stop a1", "a2 takes a", "stop a2", "warm a"]);
    *fake.broken.lock().unwrap() = true;
    assert!(pool.acquire(&spec("a3")).await.is_err());
    settled().await;
    assert_eq!(since(&fake), ["cool a"]);
    assert_eq!(pool.counts().live, 0);
    // One that can't be started is not tried for ever.
    pool.warm(&spec("b1"));
    settled().await;
    *fake.broken.lock().unwrap() = false;
    settled().await;
    assert_eq!(since(&fake), Vec::<String>::new());
    pool.warm(&spec("x1"));
    pool.warm(&spec("b1"));
    settled().await;
    assert_eq!(warm(&fake), "b");
}

#[tokio::test(start_paused = true)]
async fn what_only_one_session_could_have_is_not_made_in_advance() {
    let (pool, fake, _) = pool(2, 1);
    pool.warm(&spec("p1"));
    settled().await;
    assert_eq!(warm(&fake), "");
    pool.warm(&spec("a1"));
    settled().await;
    let lease = pool.acquire(&spec("p1")).await.unwrap();
    assert_eq!(lease.origin(), Origin::Started);
    settled().await;
    assert_eq!(warm(&fake), "a", "it is left to others");
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_and_never_fetched_goes() {
    let (pool, fake, _) = pool(2, 1);
    pool.warm(&spec("a1"));
    settled().await;
    let hold = pool.inner.spare(&spec("a1"), Claim::Used).await.unwrap();
    assert!(
        pool.peek(&spec("a1").session).await.is_none(),
        "it is not its yet"
    );
    drop(hold);
    pool.stop(&spec("a1").session).await.unwrap();
    assert_eq!(since(&fake), ["warm a", "cool a"]);
    settled().await;
    since(&fake);
    let hold = pool.inner.spare(&spec("a1"), Claim::Used).await.unwrap();
    pool.retire(&HashSet::new()).await;
    drop(hold);
    assert_eq!(since(&fake), ["cool a"]);
}

#[tokio::test(start_paused = true)]
async fn the_model_s_first_word_takes_one_too() {
    let (pool, fake, _) = pool(4, 1);
    pool.warm(&spec("a1"));
    settled().await;
    pool.try_warm(&spec("a1"));
    sleep(Duration::from_millis(10)).await;
    pool.try_warm(&spec("b1"));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(pool.acquire(&spec("a1")).await.unwrap().origin(), Origin::Started);
    settled().await;
    assert_eq!(since(&fake), ["warm a", "a1 takes a", "start b1", "warm a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_otherwise_now_is_replaced() {
    let (pool, fake, letters) = pool(8, 2);
    pool.warm(&spec("a1"));
    pool.warm(&spec("b1"));
    settled().await;
    since(&fake);
    pool.refit();
    settled().await;
    assert_eq!(since(&fake), Vec::<String>::new(), "nothing has changed");
    letters
        .renamed
        .lock()
        .unwrap()
        .insert("a".to_owned(), "c".to_owned());
    // Even before anybody says so, nobody gets what is out of date.
    drop(pool.acquire(&spec("a2")).await.unwrap());
    assert_eq!(since(&fake), ["start a2"]);
    pool.refit();
    settled().await;
    assert_eq!(warm(&fake), "b c");
    drop(pool.acquire(&spec("a3")).await.unwrap());
    assert_eq!(since(&fake)[2..], ["a3 takes c"]);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_none_stays() {
    let (pool, fake, _) = pool(8, 3);
    pool.warm(&spec("a1"));
    // Two of them are there, and one is being started.
    sleep(Duration::from_millis(1_500)).await;
    pool.retire(&HashSet::new()).await;
    settled().await;
    assert_eq!((warm(&fake), pool.counts().live), (String::new(), 0));
    pool.warm(&spec("b1"));
    settled().await;
    assert_eq!((warm(&fake), pool.counts().live), (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_requests_is_bounded() {
    let (pool, fake, _) = pool(300, 100);
    let names: Vec<String> = (0..300).map(|number| format!("a{number}")).collect();
    for name in &names {
        pool.warm(&spec(name));
    }
    assert_eq!(pool.inner.lock().asks.len(), 64);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(fake.warm.lock().unwrap().len(), 2, "a few at a time");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(pool.counts().warm, 100);
}
