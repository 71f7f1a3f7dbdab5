//! The guard against real servers on loopback, which the policies here allow one by one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::resolve::Resolve;
use crate::{Error, Excess, Guard, Limits, Policy};

/// An HTTP server that answers each path as `answer` says and notes what it was asked.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut request = String::new();
                    while !request.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    noted.lock().unwrap().push(request);
                    // A client that has enough closes early.
                    let _ = stream.write_all(&answer(&path)).await;
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

fn policy(rules: &[&str]) -> Policy {
    Policy {
        allow: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
    }
}

/// Gives its answers one after the other, the last one for ever.
struct Script {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self {
            answers: answers.iter().map(parse).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Resolve for Script {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.answers[turn.min(self.answers.len() - 1)].clone())
    }
}

#[tokio::test]
async fn nothing_private_is_dialled() {
    let server = Server::start(|_| ok("secret")).await;
    let port = server.address.port();
    let guard = Guard::new(Policy::default());
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "localhost",
    ] {
        for url in [
            format!("http://{host}:{port}/"),
            format!("http://{host}/"),
            format!("https://{host}/"),
        ] {
            let error = guard.get(&url, &Limits::default()).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{url}: {error:?}");
            assert!(
                host != "localhost" || !error.to_string().contains("127."),
                "a name's address is not told"
            );
        }
    }
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
    ] {
        let error = guard.get(url, &Limits::default()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    reason: "it is not public",
                    ..
                }
            ),
            "{url}: {error:?}"
        );
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_operator_allows_is_fetched() {
    let server = Server::start(ok).await;
    let guard = Guard::new(policy(&[&server.address.to_string()]));
    let fetched = guard
        .get(&server.url("/a?b=c#d"), &Limits::default())
        .await
        .unwrap();
    assert_eq!((fetched.status, &fetched.body[..]), (200, &b"/a?b=c"[..]));
    assert_eq!(fetched.content_type.as_deref(), Some("text/plain"));
    assert_eq!(fetched.final_url.as_str(), server.url("/a?b=c"));
    assert!(server.requests()[0].contains("user-agent: openclaw-managed-agents/"));

    let (client, url) = guard.client_for(&server.url("/x#y")).unwrap();
    assert_eq!(client.post(url).send().await.unwrap().status(), 200);
    assert!(matches!(
        guard.client_for("http://127.0.0.1:1/"),
        Err(Error::Refused { .. })
    ));
}

#[tokio::test]
async fn every_redirect_is_checked() {
    let inner = Server::start(|_| ok("secret")).await;
    let secret = inner.address.port();
    let server = Server::start(move |path| match path {
        "/relative" => to("/end"),
        "/end" => ok("the end"),
        "/loop" => to("/loop"),
        "/inner" => to(&format!("http://127.0.0.1:{secret}/")),
        "/odd" => to(&format!("http://0x7f000001:{secret}/")),
        "/metadata" => to("http://169.254.169.254/"),
        "/file" => to("file:///etc/passwd"),
        "/user" => to("http://user:pass@example.com/"),
        "/bare" => b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        steps => match steps.trim_start_matches('/').parse::<u32>() {
            Ok(0) => ok("down"),
            Ok(steps) => to(&format!("{}", steps - 1)),
            Err(_) => ok("?"),
        },
    })
    .await;
    let guard = Guard::new(policy(&[&server.address.to_string()]));
    let get = async |path: &str| guard.get(&server.url(path), &Limits::default()).await;
    let fetched = get("/relative").await.unwrap();
    assert_eq!(
        (&fetched.body[..], fetched.final_url.path()),
        (&b"the end"[..], "/end")
    );
    assert_eq!(&get("/5").await.unwrap().body[..], b"down");
    assert_eq!(get("/6").await, Err(Error::TooManyRedirects(5)));
    assert_eq!(get("/loop").await, Err(Error::TooManyRedirects(5)));
    assert_eq!(get("/bare").await.unwrap().status, 302);
    for path in ["/inner", "/odd", "/metadata"] {
        assert!(matches!(get(path).await, Err(Error::Refused { .. })), "{path}");
    }
    for path in ["/file", "/user"] {
        assert!(matches!(get(path).await, Err(Error::BadRedirect(_))), "{path}");
    }
    assert_eq!(inner.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let other = Server::start(|_| ok("other")).await;
    let away = other.url("/away");
    let server = Server::start(move |path| match path {
        "/here" => to("/end"),
        "/there" => to(&away),
        _ => ok("end"),
    })
    .await;
    let guard = Guard::new(policy(&["127.0.0.0/8"]));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    headers.insert("x-api-key", HeaderValue::from_static("secret"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
    for path in ["/here", "/there"] {
        guard
            .get_with(&server.url(path), headers.clone(), &Limits::default())
            .await
            .unwrap();
    }
    let (here, there) = (server.requests(), other.requests());
    assert!(
        here.iter().all(|request| request.contains("Bearer secret")),
        "{here:?}"
    );
    assert_eq!(there.len(), 1);
    assert!(
        !there[0].contains("secret") && there[0].contains("accept: text/html"),
        "{there:?}"
    );
}

#[tokio::test]
async fn an_answer_that_changes_is_checked_each_time() {
    let server = Server::start(|_| ok("mine")).await;
    let port = server.address.port();
    let url = format!("http://rebind.example:{port}/");
    let allowed = || policy(&[&format!("127.0.0.1:{port}")]);

    // The second answer would be allowed, but what counts is the one that is dialled.
    let script = Script::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let guard = Guard::with_resolver(allowed(), Arc::<Script>::clone(&script) as Arc<dyn Resolve>);
    let refused = Error::Refused {
        host: format!("rebind.example:{port}"),
        reason: "it is not public",
    };
    assert_eq!(guard.get(&url, &Limits::default()).await, Err(refused.clone()));
    assert_eq!(
        script.asked.load(Ordering::Relaxed),
        1,
        "one lookup, and no second one to dial from"
    );

    let script = Script::new(&[
        &["127.0.0.1"],
        &["127.0.0.1", "10.0.0.1"],
        &["::ffff:10.0.0.1"],
        &[],
    ]);
    let guard = Guard::with_resolver(allowed(), Arc::<Script>::clone(&script) as Arc<dyn Resolve>);
    assert_eq!(
        &guard.get(&url, &Limits::default()).await.unwrap().body[..],
        b"mine"
    );
    // One private address among several is enough to refuse them all.
    assert_eq!(guard.get(&url, &Limits::default()).await, Err(refused.clone()));
    assert_eq!(guard.get(&url, &Limits::default()).await, Err(refused));
    let unresolved = guard.get(&url, &Limits::default()).await.unwrap_err();
    assert!(matches!(unresolved, Error::Unresolved { .. }), "{unresolved}");
    assert_eq!(script.asked.load(Ordering::Relaxed), 4);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_trusted_name_may_be_private_at_its_port_only() {
    let server = Server::start(|_| ok("intranet")).await;
    let port = server.address.port();
    let guard = Guard::with_resolver(
        policy(&[&format!("intranet.example:{port}")]),
        Script::new(&[&["127.0.0.1"]]),
    );
    let get = async |url: String| guard.get(&url, &Limits::default()).await;
    assert_eq!(
        &get(format!("http://intranet.example:{port}/"))
            .await
            .unwrap()
            .body[..],
        b"intranet"
    );
    for url in [
        "http://intranet.example/".to_owned(),
        format!("http://other.example:{port}/"),
        "http://127.0.0.1/".to_owned(),
    ] {
        assert!(
            matches!(get(url.clone()).await, Err(Error::Refused { .. })),
            "{url}"
        );
    }
}

#[tokio::test]
async fn bodies_and_time_are_bounded() {
    // 1 MiB of zeros, compressed to about a kilobyte.
    let bomb = {
        use std::io::Write;
        let mut child = std::process::Command::new("gzip")
            .args(["-9", "-c"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&vec![0; 1 << 20]).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    assert!(bomb.len() < 4_096);
    let server = Server::start(move |path| match path {
        "/exact" => ok(&"x".repeat(1_000)),
        "/long" => ok(&"x".repeat(1_001)),
        "/endless" => [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 100_000]].concat(),
        "/bomb" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                bomb.len()
            );
            [head.as_bytes(), &bomb].concat()
        }
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(),
    })
    .await;
    let guard = Guard::new(policy(&[&server.address.to_string()]));
    let limits = Limits {
        max_body: 1_000,
        ..Limits::default()
    };
    let cut = Limits {
        excess: Excess::Cut,
        ..limits.clone()
    };
    assert_eq!(
        guard
            .get(&server.url("/exact"), &limits)
            .await
            .unwrap()
            .body
            .len(),
        1_000
    );
    for path in ["/long", "/endless", "/bomb"] {
        assert_eq!(
            guard.get(&server.url(path), &limits).await,
            Err(Error::TooLarge(1_000)),
            "{path}"
        );
        let fetched = guard.get(&server.url(path), &cut).await.unwrap();
        assert_eq!((fetched.body.len(), fetched.truncated), (1_000, true), "{path}");
    }
    assert!(matches!(
        guard.get(&server.url("/half"), &limits).await,
        Err(Error::Failed(_))
    ));

    // A server that takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let guard = Guard::new(policy(&[&address.to_string()]));
    let limits = Limits {
        timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    assert_eq!(
        guard.get(&format!("http://{address}/"), &limits).await,
        Err(Error::Timeout(limits.timeout))
    );
    drop(silent);
    let error = guard
        .get(&format!("http://{address}/"), &Limits::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn localhost_is_this_machine_whatever_a_resolver_says() {
    let server = Server::start(|_| ok("here")).await;
    let port = server.address.port();
    let rule = format!("localhost:{port}");
    for (answer, expected) in [(&["127.0.0.1"][..], true), (&["93.184.215.14"], false)] {
        let guard = Guard::with_resolver(policy(&[&rule]), Script::new(&[answer]));
        let found = guard
            .get(&format!("http://localhost:{port}/"), &Limits::default())
            .await;
        match found {
            Ok(fetched) => assert!(expected, "{fetched:?}"),
            Err(error) => assert!(
                !expected && matches!(error, Error::Refused { .. }),
                "{answer:?}: {error:?}"
            ),
        }
    }
}
