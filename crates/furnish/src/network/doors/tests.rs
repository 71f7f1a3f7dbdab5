//! The doors of a sandbox whose hand can't pass them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use async_trait::async_trait;
use oma_domain::EventId;
use oma_egress::proxy::{Allowed, Decision, Observe};
use oma_egress::resolve::Resolve;
use oma_egress::{Guard, Policy};
use oma_sandbox::Incoming;
use oma_sandbox::protocol::{Call, Reply};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;

/// A hand that carries.
#[derive(Default)]
struct Carrier {
    coming: Arc<Coming>,
    datagrams: Mutex<Option<DuplexStream>>,
}

/// The connections that processes make.
#[derive(Default)]
struct Coming {
    by_port: Mutex<HashMap<u16, VecDeque<Arrived>>>,
    more: Notify,
}

impl Coming {
    /// A process connects.
    fn connect(&self, port: u16, to: &str) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        let arrived = Arrived {
            pipe: Box::new(far),
            to: to.parse().ok(),
        };
        let mut by_port = self.by_port.lock().unwrap();
        by_port.entry(port).or_default().push_back(arrived);
        self.more.notify_waiters();
        near
    }

    fn take(&self, port: u16) -> Option<Arrived> {
        self.by_port.lock().unwrap().get_mut(&port)?.pop_front()
    }
}

#[async_trait]
impl Hand for Carrier {
    async fn run(&self, _: &EventId, _: Call) -> Result<Reply, Error> {
        Err(Error::Refused("it carries".to_owned()))
    }

    async fn cancel(&self, _: &EventId) -> Result<Option<Reply>, Error> {
        Ok(None)
    }

    async fn forget_all_but(&self, _: &[EventId]) -> Result<(), Error> {
        Ok(())
    }

    async fn logs(&self, _: usize) -> Result<String, Error> {
        Ok(String::new())
    }

    async fn listen(&self, port: u16) -> Result<Incoming, Error> {
        let coming = Arc::clone(&self.coming);
        Ok(Box::pin(async move {
            loop {
                let more = coming.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if let Some(arrived) = coming.take(port) {
                    return Ok(arrived);
                }
                more.await;
            }
        }))
    }

    async fn datagrams(&self) -> Result<Datagrams, Error> {
        let pipe = self.datagrams.lock().unwrap().take();
        let pipe = pipe.ok_or_else(|| Error::Refused("there are none".to_owned()))?;
        Ok(Datagrams::over(Box::new(pipe)))
    }
}

/// Every name is this machine.
struct Here;

#[async_trait]
impl Resolve for Here {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

struct Nobody;

impl Observe for Nobody {
    fn decided(&self, _: &Decision<'_>) {}
}

fn link(allow: &[String]) -> Arc<Link> {
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    let guard = Guard::with_resolver(Policy { allow }, Arc::new(Here));
    Link::new(Arc::new(guard), Allowed::Public, Arc::new(Nobody), None)
}

/// A question for the address of `good.test`, and the address in its answer.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04good\x04test\0\0\x01\0\x01";

fn address(answer: &[u8]) -> IpAddr {
    assert_eq!((answer[3] & 15, answer[7]), (0, 1), "{answer:?}");
    let last: [u8; 4] = answer[answer.len() - 4..].try_into().unwrap();
    IpAddr::from(last)
}

#[tokio::test]
async fn what_a_hand_carries_is_served() {
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = web.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let mut heard = [0; 4];
            if stream.read_exact(&mut heard).await.is_ok() {
                let _ = stream.write_all(&heard).await;
            }
        }
    });
    let link = link(&[format!("good.test:{port}"), "good.test:443".to_owned()]);
    let (near, far) = tokio::io::duplex(64 << 10);
    let hand = Arc::new(Carrier {
        datagrams: Mutex::new(Some(far)),
        ..Carrier::default()
    });
    let coming = Arc::clone(&hand.coming);
    assert!(hand.doors().await.is_err());
    let datagrams = hand.datagrams().await.unwrap();
    let standing = tokio::spawn(Doors::new(link).have_carried(hand, datagrams));

    let mut process = coming.connect(PROXY, "127.0.0.1:61419");
    let ask = format!("CONNECT good.test:{port} HTTP/1.1\r\n\r\n");
    process.write_all(ask.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    process.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // The head goes on until an empty line.
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n\r\n") {
        end.push(process.read_u8().await.unwrap());
    }
    process.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    process.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word");

    let Datagrams { mut from, mut to } = Datagrams::over(Box::new(near));
    let peer = "127.0.0.1:5353".parse().unwrap();
    let bytes = QUESTION.into();
    to.send(&Datagram { peer, bytes }).await.unwrap();
    let answer = from.next().await.unwrap();
    assert_eq!(answer.peer, peer);
    let stands_for = address(&answer.bytes);
    let mut asker = coming.connect(DNS, "127.0.0.1:53");
    asker
        .write_u16(u16::try_from(QUESTION.len()).unwrap())
        .await
        .unwrap();
    asker.write_all(QUESTION).await.unwrap();
    let mut answer = vec![0; usize::from(asker.read_u16().await.unwrap())];
    asker.read_exact(&mut answer).await.unwrap();
    assert_eq!(address(&answer), stands_for);

    // The end of the sandbox is the end of all.
    drop((from, to));
    standing.await.unwrap();
}

/// A hand that is asked for its doors, and fails like this.
struct Failing(fn() -> Error);

#[async_trait]
impl Hand for Failing {
    async fn run(&self, _: &EventId, _: Call) -> Result<Reply, Error> {
        Err((self.0)())
    }

    async fn cancel(&self, _: &EventId) -> Result<Option<Reply>, Error> {
        Err((self.0)())
    }

    async fn forget_all_but(&self, _: &[EventId]) -> Result<(), Error> {
        Err((self.0)())
    }

    async fn logs(&self, _: usize) -> Result<String, Error> {
        Err((self.0)())
    }

    async fn doors(&self) -> Result<Passed, Error> {
        Err((self.0)())
    }
}

#[tokio::test]
async fn doors_are_carried_only_where_they_can_t_be_passed() {
    assert!(
        passed(&Failing(|| Error::Refused("no kernel for it".to_owned())))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        passed(&Failing(|| Error::Lost("it hung up".to_owned())))
            .await
            .unwrap()
            .is_none()
    );
    for error in [
        (|| Error::Io {
            what: "taking them".to_owned(),
            source: std::io::ErrorKind::InvalidData.into(),
        }) as fn() -> Error,
        || Error::Timeout(std::time::Duration::ZERO),
        || Error::Protocol("something else".to_owned()),
    ] {
        assert!(passed(&Failing(error)).await.is_err());
    }
}
