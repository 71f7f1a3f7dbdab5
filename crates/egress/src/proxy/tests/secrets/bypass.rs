//! Ways round the binding of a secret, by name. By none of them a secret reaches whom it is not for, nor comes back, and
//! what is refused is noted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::{hello, until};
use super::{OTHER, SECRET, World, one_answer, placeholder, secret};
use crate::proxy::secrets::Places;

/// Inside a connection that was opened to `good.test`: what is said, how the answer begins, and what is noted.
const INSIDE: &[(&str, &str, &str, &str)] = &[
    (
        "another Host",
        "GET / HTTP/1.1\r\nHost: evil.test\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "a Host below",
        "GET / HTTP/1.1\r\nHost: a.good.test:GOOD\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "another port",
        "GET / HTTP/1.1\r\nHost: good.test\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "an address as Host",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:GOOD\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "two Hosts",
        "GET / HTTP/1.1\r\nHost: good.test:GOOD\r\nHost: evil.test\r\nX: PH1\r\n\r\n",
        "400",
        "https good.test malformed",
    ),
    (
        "no Host",
        "GET / HTTP/1.0\r\nX: PH1\r\n\r\n",
        "400",
        "https good.test malformed",
    ),
    (
        "a user name in Host",
        "GET / HTTP/1.1\r\nHost: good.test@evil.test\r\nX: PH1\r\n\r\n",
        "400",
        "https good.test malformed",
    ),
    (
        "a whole URL of another host",
        "GET https://evil.test/ HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "a whole URL with another Host",
        "GET https://good.test:GOOD/ HTTP/1.1\r\nHost: evil.test\r\nX: PH1\r\n\r\n",
        "403",
        "https good.test other_host",
    ),
    (
        "a whole URL in the clear",
        "GET http://good.test:GOOD/ HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\n\r\n",
        "400",
        "https good.test malformed",
    ),
    (
        "a tunnel inside",
        "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nX: PH1\r\n\r\n",
        "400",
        "https good.test malformed",
    ),
    (
        "the secret of another host",
        "GET / HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH2\r\n\r\n",
        "403",
        "https good.test SECRET_2 secret_other_host",
    ),
    (
        "the secret of another host in a query, escaped",
        "GET /?a=%6fPH2REST HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n",
        "403",
        "https good.test SECRET_2 secret_other_host",
    ),
    (
        "the secret of another host beside an allowed one",
        "GET /?PH1 HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1PH2\r\n\r\n",
        "403",
        "https good.test SECRET_2 secret_other_host",
    ),
    (
        "a placeholder of another session",
        "GET / HTTP/1.1\r\nHost: good.test:GOOD\r\nCookie: PH9\r\n\r\n",
        "403",
        "https good.test secret_unknown",
    ),
    (
        "a placeholder in the path",
        "GET /PH1 HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n",
        "403",
        "https good.test SECRET_1 secret_in_path",
    ),
    (
        "another protocol",
        "GET /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        "200",
        "https good.test allowed",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: good.test:GOOD\r\nContent-Length: 1\r\nContent-Length: 9\r\nX: PH1\r\n\r\nx",
        "400",
        "connect good.test malformed",
    ),
    (
        "a compressed answer",
        "GET /gzip HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\n\r\n",
        "502",
        "https good.test SECRET_1 failed",
    ),
    (
        "a compressed answer to a request without a secret",
        "GET /gzip HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n",
        "502",
        "https good.test failed",
    ),
];

#[tokio::test]
async fn no_request_inside_is_for_anybody_else() {
    for (name, request, expected, noted) in INSIDE {
        let world = World::new().await;
        let to = format!("good.test:{}", world.good.port);
        let mut stream = world.tls(&to, "good.test", &[]).await.unwrap();
        let request = request.replace("%6fPH2REST", &placeholder(2).as_str().replacen('o', "%6f", 1));
        stream.write_all(world.fill(&request).as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        let status = answer.split(' ').nth(1);
        assert_eq!(status, Some(*expected), "{name}: {answer}");
        assert!(!answer.contains("canary"), "{name}: {answer}");
        let refused = *expected != "200" && *expected != "502";
        assert_eq!(world.heard().is_empty(), refused, "{name}: {}", world.heard());
        assert!(
            !world.heard().contains(OTHER) && !world.heard().contains("upgrade"),
            "{name}"
        );
        let decisions = world.decisions();
        assert!(
            decisions.iter().any(|line| line == noted),
            "{name}: {decisions:?}"
        );
    }
}

/// Outside of TLS: what is said to the proxy, and what is noted.
const CLEAR: &[(&str, &str, &str)] = &[
    (
        "a request in the clear",
        "GET http://good.test:CLEAR/ HTTP/1.1\r\nX: PH1\r\n\r\n",
        "http good.test SECRET_1 secret_in_clear",
    ),
    (
        "a query in the clear",
        "GET http://good.test:CLEAR/?PH1 HTTP/1.1\r\n\r\n",
        "http good.test SECRET_1 secret_in_clear",
    ),
    (
        "a request in the clear to another host",
        "GET http://evil.test:CLEAR/ HTTP/1.1\r\nX: PH1\r\n\r\n",
        "http evil.test SECRET_1 secret_in_clear",
    ),
    (
        "basic authentication in the clear",
        "GET http://good.test:CLEAR/ HTTP/1.1\r\nAuthorization: Basic BASIC\r\n\r\n",
        "http good.test SECRET_1 secret_in_clear",
    ),
    (
        "another session's placeholder in the clear",
        "GET http://good.test:CLEAR/ HTTP/1.1\r\nX: PH9\r\n\r\n",
        "http good.test secret_unknown",
    ),
    (
        "a tunnel to the port of requests in the clear",
        "CONNECT good.test:80 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: good.test:80\r\nX: PH1\r\n\r\n",
        "http good.test SECRET_1 secret_in_clear",
    ),
    (
        "a port that may not be dialled",
        "CONNECT good.test:22 HTTP/1.1\r\n\r\n",
        "connect good.test not_public",
    ),
];

#[tokio::test]
async fn nothing_is_put_into_what_is_sent_in_the_clear() {
    for (name, request, noted) in CLEAR {
        let world = World::new().await;
        let mut stream = world.dial();
        let pair = STANDARD.encode(format!("{}:", placeholder(1).as_str()));
        let request = world.fill(request).replace("BASIC", &pair);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = one_answer(&mut stream).await;
        if answer.starts_with("HTTP/1.1 200") {
            answer = one_answer(&mut stream).await;
        }
        assert!(answer.starts_with("HTTP/1.1 403"), "{name}: {answer}");
        assert_eq!(world.heard(), "", "{name}");
        let decisions = world.decisions();
        assert!(
            decisions.iter().any(|line| line == noted),
            "{name}: {decisions:?}"
        );
    }
}

#[tokio::test]
async fn a_host_that_does_not_prove_to_be_it_gets_nothing() {
    for (name, to, of) in [
        ("a certificate that nobody trusts", "good.test:FALSE", "good.test"),
        ("no TLS", "good.test:CLEAR", "good.test"),
        ("a certificate of another name", "other.test:GOOD", "other.test"),
    ] {
        let world = World::new().await;
        let request = format!("GET /echo?PH1 HTTP/1.1\r\nHost: {to}\r\nX: PH1\r\nConnection: close\r\n\r\n");
        let answer = world.ask_at(&world.fill(to), of, &request).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{name}: {answer}");
        assert!(
            !world.heard().contains("canary") && !world.heard().contains("oma_placeholder"),
            "{name}"
        );
        assert_eq!(world.decisions(), [format!("https {of} failed")], "{name}");
    }
}

#[tokio::test]
async fn what_a_tunnel_is_opened_with_is_for_its_host() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    for name in ["evil.test", "a.good.test", "other.test", "plain.test"] {
        assert!(world.tls(&to, name, &[]).await.is_err(), "{name}");
    }
    let request = world.fill("GET / HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\n\r\n");
    for first in [
        hello(None),
        hello(Some("127.0.0.1")),
        request.into_bytes(),
        b"SSH-2.0-x\r\n".to_vec(),
    ] {
        let (mut stream, _) = world.connect(&to).await;
        let _ = stream.write_all(&first).await;
        let answer = until(&mut stream, "never").await;
        assert!(!answer.contains("HTTP"), "{answer}");
    }
    assert_eq!(world.heard(), "");
    assert_eq!(world.decisions(), ["connect good.test other_host"; 8]);
}

#[tokio::test]
async fn other_spellings_of_a_host_are_that_host() {
    for (to, host) in [
        ("GOOD.Test:PORT", "good.test:GOOD"),
        ("good.test.:PORT", "Good.test.:GOOD"),
    ] {
        let world = World::new().await;
        let to = to.replace("PORT", &world.good.port.to_string());
        let request = format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nX: PH1\r\nConnection: close\r\n\r\n");
        let answer = world.ask_at(&to, "good.test", &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && !answer.contains("canary"),
            "{answer}"
        );
        assert!(world.good.heard().contains(SECRET));
    }
}

#[tokio::test]
async fn an_address_is_no_host_of_a_secret() {
    let world = World::new().await;
    let mut any = secret(1, &["good.test"]);
    any.hosts = crate::proxy::Allowed::Public;
    world.change(vec![any]);
    let (mut stream, answer) = world.connect(&format!("127.0.0.1:{}", world.clear.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b"anything").await.unwrap();
    assert_eq!(
        until(&mut stream, "heard").await,
        "heard",
        "it is carried as it is"
    );
    // And every name is one.
    let answer = world
        .ask_at(
            &format!("plain.test:{}", world.good.port),
            "plain.test",
            "GET /echo HTTP/1.1\r\nHost: plain.test:GOOD\r\nX: PH1\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(world.good.heard().contains(SECRET));
}

#[tokio::test]
async fn places_that_are_off_stay_as_they_are() {
    for (header, query, body) in [(false, true, true), (true, false, true), (true, true, false)] {
        let world = World::new().await;
        let mut one = secret(1, &["good.test"]);
        one.places = Places { header, query, body };
        world.change(vec![one]);
        let answer = world
            .ask(
                "POST /echo?q=PH1 HTTP/1.1\r\nHost: good.test:GOOD\r\nX-Key: PH1\r\nContent-Length: 58\r\nConnection: close\r\n\r\n\
                 b=PH1",
            )
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && !answer.contains("canary"),
            "{answer}"
        );
        let heard = world.good.heard();
        for (is_on, place) in [(header, "x-key: "), (query, "q="), (body, "\nb=")] {
            let with = format!("{place}{SECRET}").replace("q=canary-s3cret/1", "q=canary-s3cret%2F1");
            let without = format!("{place}{}", placeholder(1).as_str());
            assert!(
                heard.contains(if is_on { &with } else { &without }),
                "{place}: {heard}"
            );
        }
    }
}

#[tokio::test]
async fn half_a_secret_is_not_given_out_for_waiting() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[]).await.unwrap();
    let request = world.fill("GET /half HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, "done.\n\r\n").await;
    // Longer than anything was ever held back for.
    let more = timeout(Duration::from_millis(1_500), stream.read_u8()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn whoever_hangs_up_has_used_the_secret() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let mut stream = world.tls(&to, "good.test", &[b"http/1.1"]).await.unwrap();
    let request = world.fill("GET /silent HTTP/1.1\r\nHost: good.test:GOOD\r\nX: PH1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let heard = async {
        while !world.good.heard().contains(SECRET) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), heard)
        .await
        .expect("the request");
    drop(stream);
    assert_eq!(world.decisions(), ["https good.test SECRET_1 allowed"]);
}

#[tokio::test]
async fn a_host_of_a_secret_does_not_tell_it_in_the_clear() {
    let world = World::new().await;
    for host in ["good.test", "evil.test"] {
        let mut stream = world.dial();
        let request = world.fill(&format!(
            "GET http://{host}:CLEAR/ HTTP/1.1\r\nX-Echo: {SECRET}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
        ));
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // Who was never sent it can't have it from here.
        assert_eq!(answer.contains(SECRET), host == "evil.test", "{answer}");
    }
    assert!(world.heard().contains("accept-encoding: identity"));
}

#[tokio::test]
async fn a_host_that_a_secret_was_for_does_not_tell_it_later() {
    for later in [vec![], vec![secret(1, &["a.cdn.test"])]] {
        let world = World::new().await;
        world.change(later);
        let request = format!(
            "POST /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SECRET}",
            SECRET.len()
        );
        let answer = world.ask(&request).await;
        assert!(answer.contains(placeholder(1).as_str()), "{answer}");
        assert!(world.good.heard().ends_with(&format!("\n{SECRET}\n")) && !answer.contains("canary"));
    }
}

#[tokio::test]
async fn compressed_bodies_are_left_alone() {
    let world = World::new().await;
    let answer = world
        .ask(
            "POST /echo HTTP/1.1\r\nHost: good.test:GOOD\r\nContent-Encoding: gzip\r\nContent-Length: 56\r\nConnection: close\r\n\r\nPH1",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!world.good.heard().contains("canary"), "{}", world.good.heard());
}

#[tokio::test]
async fn http_2_names_no_other_host_either() {
    let world = World::new().await;
    let to = format!("good.test:{}", world.good.port);
    let stream = world.tls(&to, "good.test", &[b"h2"]).await.unwrap();
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (name, url, host, expected) in [
        ("another authority", "https://evil.test/", None, 403),
        ("another port", "https://good.test/", None, 403),
        ("another Host", "https://good.test:GOOD/", Some("evil.test"), 403),
        ("another scheme", "http://good.test:GOOD/", None, 400),
        ("another secret", "https://good.test:GOOD/?PH2", None, 403),
        (
            "a placeholder in the path",
            "https://good.test:GOOD/PH1",
            None,
            403,
        ),
    ] {
        let mut request = Request::get(world.fill(url)).header("x-key", placeholder(1).as_str());
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Full::default()).unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{name}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("canary"), "{name}");
    }
    assert_eq!(world.heard(), "");
    assert_eq!(world.decisions().len(), 6);
}
