//! The proxy against real servers on loopback, which the policies here allow by name: one that the session's list has,
//! and one that it does not have.

mod bypass;
mod passes;
mod secrets;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{Allowed, Decision, Hosts, Link, Observe, Verdict};
use crate::resolve::Resolve;
use crate::{Guard, Policy};

/// A server that takes note of what it is sent, and answers requests.
pub(super) struct Server {
    pub(super) port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (note, count) = (Arc::clone(&heard), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let note = Arc::clone(&note);
                tokio::spawn(async move {
                    let mut chunk = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                        note.lock().unwrap().extend_from_slice(&chunk[..read]);
                        let text = String::from_utf8_lossy(&chunk[..read]).to_lowercase();
                        let echoed = text.lines().find_map(|line| line.strip_prefix("x-echo: "));
                        let echoed = echoed.map(|text| {
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
                        });
                        let answer: &[u8] = if let Some(echoed) = &echoed {
                            echoed.as_bytes()
                        } else if text.contains("upgrade: websocket") {
                            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
                        } else if text.contains("\r\n\r\n") {
                            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nKeep-Alive: 5\r\nX-Kept: yes\r\n\r\nfine"
                        } else {
                            b"heard"
                        };
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        Self {
            port,
            heard,
            connections,
        }
    }

    pub(super) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// Every name is this machine, but for those that nobody has.
struct Here;

#[async_trait]
impl Resolve for Here {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name.split('.').next() {
            Some("nowhere") => Err(io::Error::other("no such name")),
            Some("private") => Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]),
            _ => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        }
    }
}

#[derive(Default)]
pub(super) struct Noted(Mutex<Vec<String>>);

impl Observe for Noted {
    fn decided(&self, decision: &Decision<'_>) {
        let verdict = match decision.verdict {
            Verdict::Allowed => "allowed".to_owned(),
            Verdict::Denied(denial) => denial.as_str().to_owned(),
            Verdict::Failed(_) => "failed".to_owned(),
        };
        let of = [
            decision.protocol.as_str(),
            decision.host,
            decision.secrets,
            verdict.as_str(),
        ];
        let line = of
            .iter()
            .filter(|word| !word.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        self.0.lock().unwrap().push(line);
    }
}

pub(super) struct World {
    pub(super) good: Server,
    pub(super) evil: Server,
    pub(super) noted: Arc<Noted>,
    pub(super) link: Arc<Link>,
}

impl World {
    /// A session that may reach `good.test` and what is below `cdn.test`, where the guard would let it reach much more.
    pub(super) async fn limited() -> Self {
        let mut hosts = Hosts::default();
        for host in ["good.test", "*.cdn.test", "private.test", "nowhere.test"] {
            assert!(hosts.add(host));
        }
        Self::new(Allowed::Listed(hosts)).await
    }

    pub(super) async fn new(allowed: Allowed) -> Self {
        let (good, evil) = (Server::start().await, Server::start().await);
        let names = [
            "good.test",
            "*.cdn.test",
            "evil.test",
            "*.evil.test",
            "127.0.0.1",
            "[::1]",
        ];
        let rules = names
            .iter()
            .flat_map(|name| [good.port, evil.port].map(|port| format!("{name}:{port}").parse().unwrap()));
        // The names of DNS are looked up for this port.
        let rules = rules
            .chain(["good.test:443", "*.cdn.test:443", "evil.test:443"].map(|rule| rule.parse().unwrap()));
        let policy = Policy {
            allow: rules.collect(),
        };
        let guard = Arc::new(Guard::with_resolver(policy, Arc::new(Here)));
        let noted = Arc::new(Noted::default());
        let link = Link::new(guard, allowed, noted.clone(), None);
        Self {
            good,
            evil,
            noted,
            link,
        }
    }

    /// A connection to the proxy.
    pub(super) fn dial(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(Arc::clone(&self.link).serve_proxy(far));
        near
    }

    /// The same with the ports of the servers in the place of GOOD and EVIL.
    pub(super) fn fill(&self, text: &str) -> String {
        text.replace("GOOD", &self.good.port.to_string())
            .replace("EVIL", &self.evil.port.to_string())
    }

    pub(super) fn decisions(&self) -> Vec<String> {
        self.noted.0.lock().unwrap().clone()
    }
}

/// What comes until this has come, or the end.
pub(super) async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut said = Vec::new();
    let reading = async {
        let mut chunk = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..read]);
            if String::from_utf8_lossy(&said).contains(end) {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), reading)
        .await
        .expect("an answer or an end");
    String::from_utf8_lossy(&said).into_owned()
}

/// A TLS hello that names this server, as a real client says it.
pub(super) fn hello(name: Option<&str>) -> Vec<u8> {
    // Type and version of the record, and of the message in it; no session, one cipher suite, no compression.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, data: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        extensions.extend(data);
    };
    if let Some(name) = name {
        let length = u16::try_from(name.len()).unwrap();
        let mut list = (length + 3).to_be_bytes().to_vec();
        list.push(0);
        list.extend(length.to_be_bytes());
        list.extend(name.as_bytes());
        extension(0, &list);
    }
    extension(43, &[2, 3, 4]);
    extension(10, &[0, 2, 0, 29]);
    extension(13, &[0, 2, 4, 3]);
    let mut share = vec![0, 36, 0, 29, 0, 32];
    share.extend([9; 32]);
    extension(51, &share);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut message = vec![1, length[1], length[2], length[3]];
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}
