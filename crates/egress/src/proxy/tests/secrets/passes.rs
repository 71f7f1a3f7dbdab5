//! What is to work with secrets, works; and brings none back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use simple_dns::TYPE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::passes::question;
use super::super::until;
use super::{OTHER, SECRET, World, placeholder, secret, trusting};
use crate::proxy::{Allowed, Hosts};

fn is_clean(text: &str) -> bool {
    let encoded = STANDARD.encode(SECRET);
    ![SECRET, OTHER, "s3cret", "canary-s3cret%2F1", &encoded[4..16]]
        .iter()
        .any(|form| text.contains(form))
}

#[tokio::test]
async fn secrets_are_put_in_and_taken_out_again() {
    let world = World::new().await;
    let pair = STANDARD.encode(format!("me:{}", placeholder(1).as_str()));
    let body = format!("{{\"key\": \"{}\"}}", placeholder(1).as_str());
    let answer = world
        .ask(&format!(
            "POST /echo?a=1&key=PH1 HTTP/1.1\r\nHost: good.test:GOOD\r\nAuthorization: Bearer PH1\r\nX-Basic: Basic {pair}\r\n\
             Range: bytes=0-3\r\nAccept-Encoding: gzip, br\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len(),
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let heard = world.good.heard();
    for expected in [
        "POST /echo?a=1&key=canary-s3cret%2F1 HTTP/1.1",
        &world.fill("host: good.test:GOOD\n"),
        "authorization: Bearer canary-s3cret/1\n",
        &format!("x-basic: Basic {}\n", STANDARD.encode(format!("me:{SECRET}"))),
        "accept-encoding: identity\n",
        "content-length: 26\n",
        "{\"key\": \"canary-s3cret/1\"}",
    ] {
        assert!(heard.contains(expected), "{expected}: {heard}");
    }
    assert!(
        !heard.contains("range") && !heard.contains("oma_placeholder"),
        "{heard}"
    );
    assert!(is_clean(&answer), "{answer}");
    assert_eq!(answer.matches(placeholder(1).as_str()).count(), 3, "{answer}");
    assert_eq!(world.decisions(), ["https good.test SECRET_1 allowed"]);
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_learns_of_changes() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[]).await.unwrap();
    let request = world.fill("GET /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nX-Key: PH1\r\n\r\n");
    let mut ask = async |end: &str| {
        stream.write_all(request.as_bytes()).await.unwrap();
        until(&mut stream, end).await
    };
    let answer = ask("\n\n\n").await;
    assert!(answer.contains(placeholder(1).as_str()), "{answer}");
    let mut rotated = secret(1, &["good.test"]);
    rotated.value = secrecy::SecretString::from("canary-rotated");
    world.change(vec![rotated]);
    let answer = ask("\n\n\n").await;
    assert!(
        answer.contains(placeholder(1).as_str()) && !answer.contains("rotated"),
        "{answer}"
    );
    assert!(world.good.heard().contains("x-key: canary-rotated\n"));
    world.change(Vec::new());
    let answer = ask("any more").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    world
        .secrets
        .0
        .lock()
        .unwrap()
        .clone_from(&Err(super::Unavailable));
    let answer = ask("moment").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn bodies_in_pieces_both_ways() {
    let world = World::new().await;
    let whole = placeholder(1);
    let (one, two) = whole.as_str().split_at(20);
    let answer = world
        .ask(&format!(
            "POST /pieces HTTP/1.1\r\nHost: good.test:GOOD\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: close\r\n\r\n\
             {:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len(),
        ))
        .await;
    assert!(
        world.good.heard().ends_with(&format!("\n{SECRET}\n")),
        "{}",
        world.good.heard()
    );
    assert!(is_clean(&answer), "{answer}");
    assert!(answer.contains(placeholder(1).as_str()), "{answer}");

    // What is long goes on as it comes.
    let fill = "z".repeat(300_000);
    let body = format!("{fill}{}{fill}", placeholder(1).as_str());
    let answer = world
        .ask(&format!(
            "POST /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len(),
        ))
        .await;
    assert!(world.good.heard().contains(&format!("z{SECRET}z")));
    assert!(is_clean(&answer) && answer.contains(&format!("z{}z", "*".repeat(SECRET.len()))));
    let answer = world
        .ask("GET /long HTTP/1.1\r\nHost: good.test:GOOD\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains(&format!("content-length: {}\r\n", 800_000 + SECRET.len())));
    assert!(is_clean(&answer) && answer.contains(&format!("x{}y", "*".repeat(SECRET.len()))));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), 800_000 + SECRET.len());
    let answer = world
        .ask("HEAD /long HTTP/1.1\r\nHost: good.test:GOOD\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        answer.contains(&format!("content-length: {}\r\n", 800_000 + SECRET.len())),
        "{answer}"
    );
}

#[tokio::test]
async fn what_flows_flows_at_once() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[]).await.unwrap();
    let request = world.fill("GET /events HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let end = format!("data: {}\n\n", placeholder(1).as_str());
    assert!(is_clean(&until(&mut stream, &end).await));
}

#[tokio::test]
async fn digests_of_what_was_replaced_are_left_out() {
    let world = World::new().await;
    for (key, is_there) in [("PH1", false), ("none", true)] {
        let answer = world
            .ask(&format!(
                "GET /digest HTTP/1.1\r\nHost: good.test:GOOD\r\nX-Key: {key}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.contains("content-digest"), is_there, "{answer}");
    }
}

#[tokio::test]
async fn redirects_lead_on_with_placeholders() {
    let world = World::new().await;
    let answer = world
        .ask("GET /redirect?k=PH1 HTTP/1.1\r\nHost: good.test:GOOD\r\nConnection: close\r\n\r\n")
        .await;
    let expected = world.fill("location: https://evil.test/?k=PH1\r\n");
    assert!(answer.contains(&expected) && is_clean(&answer), "{answer}");
}

#[tokio::test]
async fn websockets() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[b"http/1.1"]).await.unwrap();
    let request = world.fill(
        "GET /ws HTTP/1.1\r\nHost: good.test:GOOD\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer PH1\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = until(&mut stream, ">").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let masked = format!("<{}>", "*".repeat(SECRET.len()));
    assert!(answer.ends_with(&masked) && is_clean(&answer), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    assert!(until(&mut stream, "ping").await.ends_with("ping"));
    let heard = world.good.heard();
    assert!(
        heard.contains(&format!("authorization: Bearer {SECRET}")),
        "{heard}"
    );
    assert!(!heard.contains("deflate"), "{heard}");
}

#[tokio::test]
async fn http_2_on_both_sides() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let stream = world.tls(&to, "good.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let ask = async |path: &str, body: &str| {
        let request = Request::post(world.fill(&format!("https://good.test:GOOD{path}")))
            .header("x-key", placeholder(1).as_str())
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        (
            status,
            String::from_utf8(body.to_bytes().to_vec()).unwrap(),
            trailers,
        )
    };
    let body = format!("a {}", placeholder(1).as_str());
    // At once.
    let (first, second) = tokio::join!(ask("/echo?k=PH1", &body), ask("/pieces", &body));
    assert_eq!((first.0, second.0), (200, 200));
    assert!(is_clean(&first.1) && first.1.contains("HTTP/2.0"), "{}", first.1);
    assert!(first.1.contains("te: trailers"), "{}", first.1);
    assert_eq!(second.1, placeholder(1).as_str());
    assert_eq!(second.2.unwrap()["x-last"], placeholder(1).as_str());
    let heard = world.good.heard();
    assert!(
        heard.contains(&format!("x-key: {SECRET}\n")) && heard.contains(&format!("\na {SECRET}\n")),
        "{heard}"
    );
    let (status, text, _) = ask("/PH1", "").await;
    assert_eq!(status, 403);
    assert!(text.contains("SECRET_1") && text.contains("paths"), "{text}");
}

#[tokio::test]
async fn each_side_speaks_what_the_host_speaks() {
    let world = World::speaking(&[b"http/1.1"], Allowed::Public).await;
    let to = format!("good.test:{}", world.good.port);
    let stream = world.tls(&to, "good.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let world = World::speaking(&[], Allowed::Public).await;
    let answer = world
        .ask("GET /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && world.good.heard().contains(SECRET),
        "{answer}"
    );
}

#[tokio::test]
async fn hosts_without_secrets_are_tunnelled_untouched() {
    let world = World::new().await;
    let to = format!("plain.test:{}", world.good.port);
    let (stream, answer) = world.connect(&to).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The host's own certificate is seen.
    let connector = TlsConnector::from(Arc::new(trusting(world.root.clone(), &[])));
    let name = rustls::pki_types::ServerName::try_from("plain.test").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = world.fill("GET /echo HTTP/1.1\r\nHost: plain.test\r\nX: PH1\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = until(&mut stream, "never").await;
    assert!(
        answer.contains(placeholder(1).as_str()) && answer.contains("accept-encoding: br"),
        "{answer}"
    );
    assert!(is_clean(&world.good.heard()));
    assert_eq!(world.decisions(), ["connect plain.test allowed"]);
}

#[tokio::test]
async fn programs_that_know_of_no_proxy() {
    let mut hosts = Hosts::default();
    assert!(hosts.add("*.cdn.test"));
    let world = World::speaking(&[b"http/1.1"], Allowed::Listed(hosts)).await;
    world
        .link
        .answer_dns(&question("a.cdn.test", TYPE::A))
        .await
        .unwrap();
    let address = world.link.names.address("a.cdn.test");
    let (near, far) = tokio::io::duplex(4096);
    let to = SocketAddr::new(address.into(), world.good.port);
    tokio::spawn(Arc::clone(&world.link).serve_direct(far, to));
    let connector = TlsConnector::from(Arc::new(trusting(world.trusted.clone(), &[])));
    let name = rustls::pki_types::ServerName::try_from("a.cdn.test").unwrap();
    let mut stream = connector.connect(name, near).await.unwrap();
    let request =
        world.fill("GET /echo HTTP/1.1\r\nHost: a.cdn.test:GOOD\r\nX: PH1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = until(&mut stream, "never").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && is_clean(&answer),
        "{answer}"
    );
    assert!(world.good.heard().contains(SECRET));
}

#[tokio::test]
async fn a_link_that_is_closed_ends_what_was_opened() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[]).await.unwrap();
    world.link.close();
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    // It may be cut off in the middle.
    let _ = read.await.expect("an end");
    assert!(rest.is_empty());
}
