//! What is to work, works.

use std::net::SocketAddr;
use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use tokio::io::AsyncWriteExt as _;

use super::{World, hello, until};
use crate::proxy::Allowed;

#[tokio::test]
async fn requests_for_hosts_on_the_list() {
    let world = World::limited().await;
    let mut stream = world.dial();
    for number in 0..2 {
        let request = world.fill(&format!(
            "POST http://good.test:GOOD/a/{number}?b HTTP/1.1\r\nHost: other\r\nProxy-Authorization: Basic x\r\nConnection: X-Hop\r\n\
             X-Hop: 1\r\nX-Kept: 2\r\nContent-Length: 3\r\n\r\nabc",
        ));
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = until(&mut stream, "fine").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let lower = answer.to_lowercase();
        assert!(
            lower.contains("x-kept: yes") && !lower.contains("keep-alive"),
            "{answer}"
        );
    }
    let heard = world.good.heard().to_lowercase();
    assert!(heard.starts_with("post /a/0?b http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&world.fill("host: good.test:GOOD\r\n")), "{heard}");
    assert!(
        heard.contains("x-kept: 2") && heard.contains("\r\n\r\nabc"),
        "{heard}"
    );
    for gone in ["x-hop", "proxy-", "host: other"] {
        assert!(!heard.contains(gone), "{gone}: {heard}");
    }
    assert_eq!(world.good.connections(), 1, "a connection is used again");
    assert_eq!(
        world.decisions(),
        ["http good.test allowed", "http good.test allowed"]
    );
}

#[tokio::test]
async fn tunnels_with_the_right_name_in_the_hello() {
    let world = World::limited().await;
    for name in ["good.test", "GOOD.test"] {
        let mut stream = world.dial();
        let connect = world.fill("CONNECT good.test:GOOD HTTP/1.1\r\nHost: good.test:GOOD\r\n\r\n");
        stream.write_all(connect.as_bytes()).await.unwrap();
        let answer = until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let hello = hello(Some(name));
        // In pieces, as a slow network brings them.
        for piece in hello.chunks(40) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(until(&mut stream, "heard").await, "heard");
        let heard = world.good.heard.lock().unwrap().clone();
        assert!(heard.ends_with(&hello), "nothing is lost and nothing is added");
    }
    assert_eq!(world.decisions(), ["connect good.test allowed"; 2]);
}

#[tokio::test]
async fn upgrades() {
    let world = World::limited().await;
    let mut stream = world.dial();
    let request = world
        .fill("GET http://good.test:GOOD/ws HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(until(&mut stream, "heard").await, "heard");
}

#[tokio::test]
async fn names_lead_to_addresses_that_lead_to_the_hosts() {
    let world = World::limited().await;
    let query = question("a.cdn.test", TYPE::A);
    let answer = world.link.answer_dns(&query).await.unwrap();
    let answer = Packet::parse(&answer).unwrap();
    assert_eq!(
        (answer.id(), answer.rcode(), answer.questions.len()),
        (7, RCODE::NoError, 1)
    );
    let RData::A(address) = &answer.answers[0].rdata else {
        panic!("{answer:?}")
    };
    let address = std::net::Ipv4Addr::from(address.address);
    assert!(address.is_loopback());
    let six = world
        .link
        .answer_dns(&question("a.cdn.test", TYPE::AAAA))
        .await
        .unwrap();
    let six = Packet::parse(&six).unwrap();
    assert_eq!((six.rcode(), six.answers.len()), (RCODE::NoError, 0));

    let (mut near, far) = tokio::io::duplex(4096);
    let to = SocketAddr::new(address.into(), world.good.port);
    tokio::spawn(Arc::clone(&world.link).serve_direct(far, to));
    near.write_all(&hello(Some("a.cdn.test"))).await.unwrap();
    assert_eq!(until(&mut near, "heard").await, "heard");
    let decisions = world.decisions();
    assert_eq!(
        decisions,
        [
            "dns a.cdn.test allowed",
            "dns a.cdn.test allowed",
            "direct a.cdn.test allowed"
        ]
    );
}

#[tokio::test]
async fn without_a_list_whatever_is_public() {
    let world = World::new(Allowed::Public).await;
    let mut stream = world.dial();
    let connect = world.fill("CONNECT evil.test:EVIL HTTP/1.1\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"anything").await.unwrap();
    assert_eq!(until(&mut stream, "heard").await, "heard");
    let mut stream = world.dial();
    stream
        .write_all(b"CONNECT private.test:443 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let answer = until(&mut stream, "80 or 443").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(!answer.contains("10.0.0.1"), "{answer}");
}

#[tokio::test]
async fn a_link_that_is_closed_ends_what_goes_through_it() {
    let world = World::limited().await;
    let mut stream = world.dial();
    let connect = world.fill("CONNECT good.test:GOOD HTTP/1.1\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    stream.write_all(&hello(Some("good.test"))).await.unwrap();
    until(&mut stream, "heard").await;
    world.link.close();
    assert_eq!(until(&mut stream, "never").await, "");
}

pub(super) fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(7);
    let name = Name::new_unchecked(name);
    query
        .questions
        .push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    query.build_bytes_vec().unwrap()
}
