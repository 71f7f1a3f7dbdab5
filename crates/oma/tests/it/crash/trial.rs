//! One data folder, several sessions at work, and a killer.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use oma_domain::page::Order;
use oma_domain::{Event, SessionId, WorkspaceId};
use oma_fake_provider::FakeProvider;
use oma_store::Store as _;
use oma_store::sqlite::{Options as StoreOptions, Sqlite};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::checks::{self, Evidence};
use super::driver::{Driver, Round};
use super::link::Link;
use super::recorder::{Progress, Recorder};
use crate::system::client::Client;
use crate::system::{Data, Options, Server, leftovers, soon};

/// How many sessions are at work at once.
const SESSIONS: usize = 5;

/// The events of a turn at which kills are aimed, counted from its message.
const DEEPEST: usize = 12;

/// The depth that is aimed at before any turn is over: every turn has as many events.
const SHALLOW: usize = 3;

/// Frames of one session after which a moment that has not come in any is given up: no turn is like that now.
const MISSED: usize = 40;

/// What is killed how often.
pub(super) struct Trial<'a> {
    pub(super) name: &'a str,
    pub(super) rounds: Vec<Round>,
    /// How many of the ends are stops in order.
    pub(super) stop_percent: u32,
    /// How many of the kills take the sandboxes along.
    pub(super) sandboxes_percent: u32,
    /// How the sandboxes' limits are enforced, if not as the server chooses.
    pub(super) enforcement: Option<&'a str>,
    pub(super) seed: u64,
    pub(super) kills: u32,
}

/// When the next stop comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The n-th event of a turn after its message has become visible.
    Event(usize),
    /// This many pieces of answers of one session have become visible.
    Piece(usize),
    /// The provider has got this many further requests.
    Request(u64),
}

/// What was done to the server.
#[derive(Debug, Default)]
struct Count {
    kills: u32,
    stops: u32,
    /// Kills right after another one.
    repeated: u32,
    /// Kills that took sandboxes along.
    with_sandboxes: u32,
    /// Moments that were events of a turn.
    aimed: usize,
    /// How many events of a turn were visible then, its message not counted, and how often.
    depths: BTreeMap<usize, u32>,
}

/// What the drivers and the killer share.
struct Shared {
    link: Link,
    /// Enough was killed: rounds at work are the last ones.
    enough: AtomicBool,
    /// Drivers that are still at work.
    drivers: watch::Sender<usize>,
}

impl<'a> Trial<'a> {
    /// One that only kills the server, and now and then stops it. How often is set by the caller.
    pub(super) fn new(name: &'a str, rounds: &[Round]) -> Self {
        Self {
            name,
            rounds: rounds.to_vec(),
            stop_percent: 5,
            sandboxes_percent: 0,
            enforcement: None,
            seed: 0,
            kills: 0,
        }
    }

    /// Carries it out.
    pub(super) async fn run(&self) {
        say(&format!(
            "{}: OMA_CRASH_SEED={} kills={}",
            self.name, self.seed, self.kills
        ));
        let provider = FakeProvider::start().await.expect("a free port");
        let mut options = Options::with(&provider).set("OPENCLAW_DRAIN_TIMEOUT_MS", "200");
        if let Some(enforcement) = self.enforcement {
            options = options.set("OPENCLAW_SANDBOX_ENFORCEMENT", enforcement);
        }
        let data = Data::new();
        let server = Server::start(&data, &options).await;
        let shared = Arc::new(Shared {
            link: Link::new(server.client.clone()),
            enough: AtomicBool::new(false),
            drivers: watch::Sender::new(SESSIONS),
        });
        let drivers = self.drivers(&shared).await;
        let recorders: Vec<Recorder> = drivers.iter().map(|driver| driver.recorder.clone()).collect();
        let mut followers = JoinSet::new();
        for driver in &drivers {
            followers.spawn(
                driver
                    .recorder
                    .clone()
                    .record(shared.link.clone(), driver.session.clone()),
            );
        }
        let mut at_work = JoinSet::new();
        for (index, driver) in drivers.into_iter().enumerate() {
            at_work.spawn(work(driver, self.rounds.clone(), index, Arc::clone(&shared)));
        }
        let killer = Killer {
            trial: self,
            rng: StdRng::seed_from_u64(self.seed),
            data: &data,
            options: &options,
            provider: &provider,
            recorders: &recorders,
            shared: &shared,
            count: Count::default(),
        };
        let finished = async {
            let mut done = Vec::new();
            while let Some(driver) = at_work.join_next().await {
                done.push(driver.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
            }
            done
        };
        let followed = async {
            // A follower only ends when something is wrong with what it gets.
            if let Some(Err(error)) = followers.join_next().await {
                std::panic::resume_unwind(error.into_panic());
            }
            pending::<()>().await;
        };
        let (drivers, (server, count)) = tokio::select! {
            both = async { tokio::join!(finished, killer.run(server)) } => both,
            () = followed => unreachable!("it panics or waits"),
        };
        let rounds: u32 = drivers.iter().map(|driver| driver.round).sum();
        let (server, lost, events) = self.check(&drivers, server, &data, &options).await;
        drop(followers);
        self.delete(&drivers, server, &data, &options).await;
        provider.assert_clean();
        say(&format!(
            "{}: {count:?}, {rounds} rounds, {events} events, {} model requests, {lost} commands of unknown fate",
            self.name,
            provider.served(),
        ));
        assert!(count.kills + count.stops >= self.kills);
        // A sandbox outlives its server, and what ran in it is known: only one that is lost leaves doubts.
        assert!(
            lost == 0 || count.with_sandboxes > 0,
            "{lost} commands of unknown fate"
        );
        // Long enough runs have cut turns off everywhere.
        assert!(self.kills < 40 || count.depths.len() >= 5, "{:?}", count.depths);
    }

    /// A client for each session.
    async fn drivers(&self, shared: &Shared) -> Vec<Driver> {
        let (_, client) = shared.link.current().await;
        let callee = client
            .agent(json!({"model": "anthropic/claude-sonnet-4-5"}))
            .await;
        let agent = client
            .agent(json!({
                "model": "anthropic/claude-sonnet-4-5",
                "callableAgents": [callee],
                "maxSubagentDepth": 1,
                "instructions": "Do what you are told.",
                "permissionPolicy": {"type": "always_ask", "tools": ["write"]},
            }))
            .await;
        let open = (0..SESSIONS).map(|index| {
            let (client, agent, link) = (client.clone(), agent.clone(), shared.link.clone());
            let callee = callee.clone();
            async move {
                Driver {
                    session: client.session(&agent).await,
                    link,
                    recorder: Recorder::new(),
                    agent,
                    callee,
                    children: Vec::new(),
                    name: format!("s{index}"),
                    round: 0,
                    messages: 0,
                    expected: Vec::new(),
                }
            }
        });
        join_all(open).await
    }

    /// Checks everything that is known of the sessions, which have come to rest.
    async fn check(
        &self,
        drivers: &[Driver],
        server: Server,
        data: &Data,
        options: &Options,
    ) -> (Server, usize, usize) {
        let client = server.client.clone();
        let mut known = Vec::new();
        for driver in drivers {
            let session = client
                .get(&format!("/v1/sessions/{}", driver.session))
                .await
                .good();
            assert_eq!(session["status"], "idle", "{session}");
            let listed = client.events(&driver.session).await;
            let of_session = format!("action=session.event&target={}", driver.session);
            let trail = client.get(&format!("/v1/audit?{of_session}&limit=1000")).await;
            checks::check_trail(&listed, &trail.good());
            let wanted = listed.len();
            soon(
                "the whole stream",
                driver.recorder.wait(|progress| progress.frames >= wanted),
            )
            .await;
            known.push((listed, driver.marks().await));
        }
        server.terminate().await;
        let sessions = drivers.iter().map(|driver| driver.session.as_str());
        let logs = stored(data, sessions).await;
        let children = drivers.iter().flat_map(|driver| &driver.children);
        for log in stored(data, children.map(String::as_str)).await {
            checks::check_log(&log);
        }
        let mut lost = 0;
        for ((driver, (listed, marks)), log) in drivers.iter().zip(&known).zip(&logs) {
            let evidence = Evidence {
                expected: &driver.expected,
                log,
                listed,
                streamed: &driver.recorder.frames(),
                pieces: &driver.recorder.pieces(),
                marks,
            };
            lost += evidence.check();
        }
        let events = logs.iter().map(Vec::len).sum();
        (Server::start(data, options).await, lost, events)
    }

    /// Deletes the sessions, with a kill in the middle of it, and looks for what is left.
    async fn delete(&self, drivers: &[Driver], server: Server, data: &Data, options: &Options) {
        let delete = |client: Client, number: usize| async move {
            let session = &drivers[number].session;
            Client::try_send(client.request(Method::DELETE, &format!("/v1/sessions/{session}"))).await
        };
        // The sandboxes that are deleted have commands under way.
        for driver in drivers {
            let script = json!([{"tool": "bash", "input": {"command": "sleep 600"}}]);
            let body = json!({ "content": format!("script:{script}") });
            server
                .client
                .post(&format!("/v1/sessions/{}/events", driver.session), &body)
                .await
                .good();
        }
        let mut frames = server.client.follow(&drivers[0].session).await;
        frames
            .until(|frame| frame["tool_arguments"]["command"] == "sleep 600")
            .await;
        let client = server.client.clone();
        let all = (0..drivers.len()).map(|number| delete(client.clone(), number));
        // Answers that the kill cut off are not waited for: the client can miss that their connection ended.
        let first = async {
            let mut all: futures_util::stream::FuturesUnordered<_> = all.collect();
            while let Some(outcome) = futures_util::StreamExt::next(&mut all).await {
                if let Ok(answer) = outcome {
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            }
            std::future::pending::<()>().await;
        };
        let delay = StdRng::seed_from_u64(self.seed).random_range(0..40);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            server.kill().await;
        };
        tokio::select! {
            () = first => {}
            () = kill => {}
        }
        let server = Server::start(data, options).await;
        for number in 0..drivers.len() {
            let answer = delete(server.client.clone(), number).await.expect("an answer");
            assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        }
        for child in drivers.iter().flat_map(|driver| &driver.children) {
            server
                .client
                .delete(&format!("/v1/sessions/{child}"))
                .await
                .good();
        }
        assert_eq!(server.client.get("/v1/sessions").await.good()["count"], 0);
        server.terminate().await;
        let left = leftovers::find(&data.path());
        assert!(left.is_empty(), "{left:?}");
    }
}

/// One client's work: round after round, until enough was killed.
async fn work(mut driver: Driver, rounds: Vec<Round>, index: usize, shared: Arc<Shared>) -> Driver {
    let order = rounds.iter().cycle().skip(index);
    for round in order {
        driver.play(*round).await;
        if shared.enough.load(Ordering::Relaxed) {
            break;
        }
    }
    shared.drivers.send_modify(|left| *left -= 1);
    driver
}

/// The sessions' logs as they are stored; no server runs.
async fn stored(data: &Data, sessions: impl Iterator<Item = &str>) -> Vec<Vec<Event>> {
    let store = Sqlite::open(&data.path(), &StoreOptions::default()).expect("opens");
    let workspace = WorkspaceId::default_workspace();
    let mut logs = Vec::new();
    for session in sessions {
        let id = SessionId::parse(session).expect("an id");
        let state = store
            .session(&workspace, &id)
            .await
            .expect("read")
            .expect("there")
            .state;
        assert!(state.queue.is_empty() && state.turn().is_none(), "{state:?}");
        let mut log = Vec::new();
        let mut from = None;
        loop {
            let page = store
                .events(&workspace, &id, from, Order::Ascending, 500)
                .await
                .expect("read");
            log.extend(page.rows);
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        logs.push(log);
    }
    store.close().await;
    logs
}

struct Killer<'a> {
    trial: &'a Trial<'a>,
    rng: StdRng,
    data: &'a Data,
    options: &'a Options,
    provider: &'a FakeProvider,
    recorders: &'a [Recorder],
    shared: &'a Shared,
    count: Count,
}

impl Killer<'_> {
    /// Kills until it is enough; gives the last server, which lives.
    async fn run(mut self, mut server: Server) -> (Server, Count) {
        let mut drivers = self.shared.drivers.subscribe();
        for turn in 0.. {
            if self.count.kills + self.count.stops >= self.trial.kills {
                break;
            }
            let moment = self.moment(turn);
            tokio::select! {
                depth = self.wait(moment) => {
                    if let Some(depth) = depth {
                        *self.count.depths.entry(depth).or_default() += 1;
                    }
                }
                left = drivers.wait_for(|left| *left < SESSIONS) => {
                    // Nobody stops before it is enough, unless something is wrong; then the others tell.
                    left.expect("shared");
                    break;
                }
            }
            let delay = self.rng.random_range(0..=3_000);
            tokio::time::sleep(Duration::from_micros(delay)).await;
            server = self.replace(server).await;
        }
        self.shared.enough.store(true, Ordering::Relaxed);
        (server, self.count)
    }

    /// Events of all depths come in turn, with requests and pieces between them.
    fn moment(&mut self, turn: usize) -> Moment {
        match turn % 4 {
            0 => Moment::Request(self.rng.random_range(1..=3)),
            1 if self.trial.rounds.contains(&Round::Slow) => Moment::Piece(self.rng.random_range(1..=30)),
            _ => {
                // Depths that no turn has had yet come by themselves, when turns are queued behind others.
                let seen = self.recorders.iter().map(|recorder| recorder.progress().deepest);
                let deepest = seen.max().unwrap_or_default().clamp(SHALLOW, DEEPEST);
                self.count.aimed += 1;
                Moment::Event(self.count.aimed % (deepest + 1))
            }
        }
    }

    /// Waits for a moment, in whichever session it comes first; gives the depth of an event.
    async fn wait(&self, moment: Moment) -> Option<usize> {
        let any = |wait: &dyn Fn(&Recorder) -> Wanted| {
            let waits = self.recorders.iter().map(|recorder| {
                let wanted = wait(recorder);
                Box::pin(async move {
                    recorder.wait(wanted).await;
                    recorder.progress().in_turn
                })
            });
            select_all(waits.collect::<Vec<_>>())
        };
        let wait = async {
            match moment {
                Moment::Event(number) => {
                    let (depth, ..) = any(&|recorder| reaches(recorder.progress(), number)).await;
                    Some(depth)
                }
                Moment::Piece(number) => {
                    any(&|recorder| says(recorder.progress(), number)).await;
                    None
                }
                Moment::Request(further) => {
                    let begun = self.provider.served();
                    self.provider.wait_for_requests(begun + further).await;
                    None
                }
            }
        };
        soon(&format!("{moment:?}"), wait).await
    }

    /// Ends the server and starts another one, which may not live long either.
    async fn replace(&mut self, server: Server) -> Server {
        if self.rng.random_range(0..100) < self.trial.stop_percent {
            self.count.stops += 1;
            server.ask_to_stop();
            let status = server.ended().await;
            assert_eq!(status.code(), Some(0), "a stop in order ends with 0");
        } else {
            self.count.kills += 1;
            server.kill().await;
            if self.rng.random_range(0..100) < self.trial.sandboxes_percent {
                self.count.with_sandboxes += 1;
                leftovers::kill(&self.data.path());
            }
        }
        self.shared.link.down();
        let mut server = Server::start(self.data, self.options).await;
        while self.rng.random_range(0..100) < 20 {
            // In the middle of recovery, which began before the server said that it listens.
            let delay = self.rng.random_range(0..=20_000);
            tokio::time::sleep(Duration::from_micros(delay)).await;
            server.kill().await;
            self.count.kills += 1;
            self.count.repeated += 1;
            server = Server::start(self.data, self.options).await;
        }
        self.shared.link.up(server.client.clone());
        server
    }
}

/// What somebody waits for.
type Wanted = Box<dyn FnMut(Progress) -> bool + Send>;

/// The n-th event of a turn has just come, or it was waited for too long.
fn reaches(begun: Progress, number: usize) -> Wanted {
    let mut last = begun.in_turn;
    Box::new(move |now| {
        // A turn that was there already, or a later one.
        let is_new = last < number || now.in_turn < last;
        last = now.in_turn;
        (is_new && now.in_turn >= number) || now.frames > begun.frames + MISSED
    })
}

/// So many further pieces have come, or it was waited for too long.
fn says(begun: Progress, number: usize) -> Wanted {
    Box::new(move |now| now.deltas >= begun.deltas + number || now.frames > begun.frames + MISSED)
}

#[expect(clippy::print_stderr, reason = "the seed of a run that failed must be known")]
fn say(text: &str) {
    eprintln!("{text}");
}
