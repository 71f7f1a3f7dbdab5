use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use oma_egress::Policy;
use oma_egress::proxy::Hosts;
use oma_egress::resolve::Resolve;
use tokio::net::TcpListener;

use super::*;

/// Has every name lead to this machine, and remembers which it was asked for.
#[derive(Default)]
struct Names(Mutex<Vec<String>>);

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.0.lock().unwrap().push(name.to_owned());
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

/// Tells the version that it is asked for the first time, and nothing after that.
struct Vault;

#[async_trait]
impl Source for Vault {
    async fn seed(&self) -> Result<(String, Zeroizing<[u8; 32]>), String> {
        Err("nobody asks".to_owned())
    }

    async fn latest(&self, known: Option<u64>) -> Result<Option<(u64, Vec<Secret>)>, Unavailable> {
        match known {
            None => Ok(Some((1, Vec::new()))),
            Some(1) => Ok(None),
            Some(_) => Err(Unavailable),
        }
    }
}

struct Fixture {
    answerer: Arc<Answerer>,
    rules: watch::Sender<Allowed>,
    names: Arc<Names>,
    /// The process's end of the socket that connections come over.
    theirs: StdDatagram,
    web: TcpListener,
    port: u16,
}

fn listed(hosts: &[&str]) -> Allowed {
    let mut listed = Hosts::default();
    for host in hosts {
        assert!(listed.add(host), "{host}");
    }
    Allowed::Listed(listed)
}

impl Fixture {
    async fn new(secrets: Option<Arc<dyn Source>>) -> Self {
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = web.local_addr().unwrap().port();
        let rule = |name: &str| format!("{name}:{port}").parse().unwrap();
        let policy = Policy {
            allow: vec![rule("good.test"), rule("other.test"), rule("127.0.0.1")],
        };
        let names = Arc::new(Names::default());
        let guard = Guard::with_resolver(policy, Arc::clone(&names) as _);
        let rules = watch::Sender::new(listed(&["good.test"]));
        let (ours, theirs) = StdDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let answerer = Answerer {
            guard: Arc::new(guard),
            allowed: rules.subscribe(),
            secrets,
            dials: Semaphore::new(MAX_DIALS),
            reading: Arc::new(Semaphore::new(1)),
            dialled: UnixDatagram::from_std(ours).unwrap(),
        };
        Self {
            answerer: Arc::new(answerer),
            rules,
            names,
            theirs,
            web,
            port,
        }
    }

    async fn ask(&self, question: Report) -> Option<Order> {
        let answer = Arc::clone(&self.answerer).answer(question).await;
        answer.unwrap().map(|(order, _)| order)
    }

    /// What comes of having a host dialled: what stands against it, and how many descriptors came.
    async fn dial(&self, host: &str, port: u16) -> (Option<Trouble>, usize) {
        let host = host.to_owned();
        assert!(self.ask(Report::Dial { id: 7, host, port }).await.is_none());
        let (mut bytes, mut sockets) = ([0; messages::MAX_DATAGRAM], Vec::new());
        let length = descriptors::receive(&self.theirs, &mut bytes, &mut sockets).unwrap();
        let Dialled { id, trouble } = serde_json::from_slice(&bytes[..length]).unwrap();
        assert_eq!(id, 7);
        (trouble, sockets.len())
    }

    async fn check(&self, question: Report) -> Option<Trouble> {
        match self.ask(question).await {
            Some(Order::Checked { id: 7, trouble }) => trouble,
            _ => panic!("something else"),
        }
    }
}

#[tokio::test]
async fn a_host_off_the_list_is_neither_looked_up_nor_dialled() {
    let fixture = Fixture::new(None).await;
    let port = fixture.port;
    let (dialled, accepted) = tokio::join!(fixture.dial("good.test", port), fixture.web.accept());
    assert!(matches!(dialled, (None, 1)));
    drop(accepted.unwrap());
    fixture.names.0.lock().unwrap().clear();
    // The guard would let all but the last ones through.
    for name in [
        "other.test",
        "127.0.0.1",
        "sub.good.test",
        "good.test.other.test",
        "",
        "good.test/",
        "good.test\0",
        "a\nb",
    ] {
        let (id, host) = (7, name.to_owned());
        let admitted = fixture.check(Report::Admit { id, host, port }).await;
        assert!(matches!(admitted, Some(Trouble::Refused)), "{name}");
        let host = name.to_owned();
        let looked_up = fixture.check(Report::LookUp { id, host, port }).await;
        assert!(matches!(looked_up, Some(Trouble::Refused)), "{name}");
        assert!(
            matches!(fixture.dial(name, port).await, (Some(Trouble::Refused), 0)),
            "{name}"
        );
    }
    // So it is with a port of the machine's that the guard does not let anybody to.
    assert!(matches!(fixture.dial("good.test", 22).await, (Some(_), 0)));
    assert!(
        fixture
            .names
            .0
            .lock()
            .unwrap()
            .iter()
            .all(|name| name == "good.test")
    );
}

#[tokio::test]
async fn rules_that_change_hold_whatever_the_process_makes_of_them() {
    let fixture = Fixture::new(None).await;
    let port = fixture.port;
    fixture.rules.send_replace(listed(&["other.test"]));
    assert!(matches!(
        fixture.dial("good.test", port).await,
        (Some(Trouble::Refused), 0)
    ));
    let (dialled, accepted) = tokio::join!(fixture.dial("other.test", port), fixture.web.accept());
    assert!(matches!(dialled, (None, 1)));
    drop(accepted.unwrap());
}

#[tokio::test]
async fn secrets_are_told_one_answer_after_the_other() {
    let fixture = Fixture::new(Some(Arc::new(Vault))).await;
    let ask = |known| Arc::clone(&fixture.answerer).answer(Report::Secrets { id: 1, known });
    let first = ask(None).await.unwrap();
    let Some((Order::Secrets { answer, .. }, Some(_))) = &first else {
        panic!("something else");
    };
    assert!(matches!(answer, Given::These { version: 1, .. }));
    // As long as that is not on its way, nothing else is read.
    let mut second = std::pin::pin!(ask(Some(1)));
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    let second = second.await.unwrap();
    let Some((Order::Secrets { answer, .. }, _)) = &second else {
        panic!("something else");
    };
    assert!(matches!(answer, Given::Unchanged));
    drop(second);
    let none = Fixture::new(None).await;
    let answer = none.ask(Report::Secrets { id: 1, known: None }).await;
    assert!(matches!(
        answer,
        Some(Order::Secrets {
            answer: Given::Unavailable,
            ..
        })
    ));
}

#[tokio::test]
async fn a_flood_of_untold_decisions_is_a_line_now_and_then() {
    let (mut untold, now) = (Untold::default(), Instant::now());
    assert!(!untold.add(0, now));
    assert!(untold.add(1, now));
    assert!((0..1_000).all(|_| !untold.add(u64::MAX, now)));
    assert!(untold.add(0, now + UNTOLD_EVERY));
    assert!(!untold.add(0, now + 3 * UNTOLD_EVERY));
}
