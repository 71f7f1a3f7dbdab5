//! Ways round the proxy's list, by name. None of them reaches the host that is not on the list, and each is noted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use tokio::io::AsyncWriteExt as _;

use super::passes::question;
use super::{World, hello, until};

/// What is said to the proxy, and how the answer begins.
const REQUESTS: &[(&str, &str, &str)] = &[
    (
        "plain request",
        "GET http://evil.test:EVIL/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "403",
    ),
    ("tunnel", "CONNECT evil.test:EVIL HTTP/1.1\r\n\r\n", "403"),
    (
        "tunnel with an allowed Host",
        "CONNECT evil.test:EVIL HTTP/1.1\r\nHost: good.test:443\r\n\r\n",
        "403",
    ),
    (
        "request with an allowed Host",
        "GET http://evil.test:EVIL/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "403",
    ),
    (
        "Host alone",
        "GET / HTTP/1.1\r\nHost: evil.test:EVIL\r\n\r\n",
        "403",
    ),
    (
        "allowed name as a label",
        "CONNECT good.test.evil.test:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "allowed name as an ending",
        "CONNECT evilgood.test:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "parent of a pattern",
        "CONNECT cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "ending of a pattern",
        "CONNECT evilcdn.test:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "below an exact name",
        "CONNECT a.good.test:GOOD HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "NUL, escaped",
        "CONNECT evil.test%00.cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("NUL", "CONNECT evil.test\0.cdn.test:EVIL HTTP/1.1\r\n\r\n", "400"),
    (
        "line feed, escaped",
        "CONNECT evil.test%0a.cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("tab", "CONNECT evil.test\t.cdn.test:EVIL HTTP/1.1\r\n\r\n", "400"),
    (
        "space, escaped",
        "CONNECT evil.test%20.cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "slash, escaped",
        "CONNECT evil.test%2f.cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "number sign, escaped",
        "CONNECT evil.test%23.cdn.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "question mark",
        "GET http://evil.test:EVIL?.cdn.test/ HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "user name",
        "GET http://good.test@evil.test:EVIL/ HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "user name in a tunnel",
        "CONNECT good.test@evil.test:EVIL HTTP/1.1\r\n\r\n",
        "4",
    ),
    (
        "password",
        "GET http://good.test:80@evil.test:EVIL/ HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "backslash",
        "GET http://evil.test:EVIL\\@good.test/ HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "two hosts",
        "CONNECT good.test,evil.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "two Host headers",
        "GET / HTTP/1.1\r\nHost: good.test:GOOD\r\nHost: evil.test:EVIL\r\n\r\n",
        "400",
    ),
    (
        "two dots at the end",
        "CONNECT evil.test..:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "dot at the end",
        "CONNECT evil.test.:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    ("upper case", "CONNECT EVIL.TEST:EVIL HTTP/1.1\r\n\r\n", "4"),
    (
        "another script that looks the same",
        "CONNECT g%D0%BE%D0%BEd.test:GOOD HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "full width letters",
        "CONNECT %EF%BD%85vil.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "soft hyphen",
        "CONNECT evil%C2%AD.test:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("loopback", "CONNECT 127.0.0.1:EVIL HTTP/1.1\r\n\r\n", "403"),
    (
        "loopback as a number",
        "CONNECT 2130706433:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "loopback in octal",
        "CONNECT 0177.0.0.1:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "loopback in hexadecimal",
        "CONNECT 0x7f.1:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "loopback, shortened",
        "CONNECT 127.1:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "loopback of version 6",
        "CONNECT [::1]:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "loopback in version 6",
        "CONNECT [::ffff:127.0.0.1]:EVIL HTTP/1.1\r\n\r\n",
        "403",
    ),
    ("any address", "CONNECT 0.0.0.0:EVIL HTTP/1.1\r\n\r\n", "403"),
    (
        "metadata service",
        "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "metadata service of version 6",
        "CONNECT [fd00:ec2::254]:80 HTTP/1.1\r\n\r\n",
        "403",
    ),
    ("public address", "CONNECT 1.1.1.1:443 HTTP/1.1\r\n\r\n", "403"),
    (
        "address with a zone",
        "CONNECT [fe80::1%25eth0]:EVIL HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("localhost", "CONNECT localhost:EVIL HTTP/1.1\r\n\r\n", "403"),
    (
        "allowed name that leads to a private address",
        "CONNECT private.test:443 HTTP/1.1\r\n\r\n",
        "403",
    ),
    (
        "allowed host at a forbidden port",
        "CONNECT good.test:22 HTTP/1.1\r\n\r\n",
        "403",
    ),
    ("port 0", "CONNECT good.test:0 HTTP/1.1\r\n\r\n", "400"),
    (
        "port beyond the last",
        "CONNECT good.test:65616 HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("no port", "CONNECT good.test HTTP/1.1\r\n\r\n", "400"),
    ("signed port", "CONNECT good.test:+80 HTTP/1.1\r\n\r\n", "400"),
    ("no host", "GET / HTTP/1.1\r\n\r\n", "400"),
    (
        "TLS in the clear",
        "GET https://good.test:GOOD/ HTTP/1.1\r\n\r\n",
        "400",
    ),
    (
        "another scheme",
        "GET ftp://good.test:GOOD/ HTTP/1.1\r\n\r\n",
        "400",
    ),
    ("a file", "GET file:///etc/passwd HTTP/1.1\r\n\r\n", "400"),
    (
        "two lengths",
        "POST http://good.test:GOOD/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nx",
        "400",
    ),
    (
        "a head without end",
        "GET http://good.test:GOOD/ HTTP/1.1\r\nX: LONG\r\n\r\n",
        "431",
    ),
    ("HTTP/2 to the proxy", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
];

#[tokio::test]
async fn no_request_reaches_a_host_that_is_not_on_the_list() {
    let long = "x".repeat(128 << 10);
    for (name, request, expected) in REQUESTS {
        let world = World::limited().await;
        let mut stream = world.dial();
        let request = world.fill(request).replace("LONG", &long);
        // One that is refused early may not be read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = until(&mut stream, "\r\n\r\n").await;
        let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or_default();
        assert!(
            status.starts_with(expected) && !status.starts_with('2'),
            "{name}: {answer:?}"
        );
        assert_eq!(world.evil.connections(), 0, "{name}");
        assert_eq!(world.good.connections(), 0, "{name}");
        let decisions = world.decisions();
        let is_refusal = |line: &String| !line.ends_with("allowed") && !line.ends_with("failed");
        assert!(decisions.iter().any(is_refusal), "{name}: {decisions:?}");
    }
}

#[tokio::test]
async fn nothing_rides_along_with_a_request_that_is_allowed() {
    for (name, more) in [
        ("a second request", "GET http://evil.test:EVIL/ HTTP/1.1\r\n\r\n"),
        ("a second tunnel", "CONNECT evil.test:EVIL HTTP/1.1\r\n\r\n"),
        (
            "a request in a body",
            "POST http://good.test:GOOD/ HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET http://evil.test:EVIL/ HTTP/1.1\r\n\r\n",
        ),
        (
            "a Host that is to be left out",
            "GET http://good.test:GOOD/ HTTP/1.1\r\nConnection: Host\r\nHost: evil.test\r\n\r\n",
        ),
        (
            "a Host elsewhere",
            "GET http://good.test:GOOD/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ),
    ] {
        let world = World::limited().await;
        let mut stream = world.dial();
        let first = "GET http://good.test:GOOD/ HTTP/1.1\r\n\r\n";
        let both = world.fill(&format!("{first}{more}"));
        stream.write_all(both.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answers = until(&mut stream, "never").await;
        assert!(
            answers.contains("fine"),
            "{name}: the first is answered: {answers}"
        );
        assert_eq!(world.evil.connections(), 0, "{name}");
        assert!(
            !world.good.heard().contains("evil"),
            "{name}: {}",
            world.good.heard()
        );
    }
}

#[tokio::test]
async fn a_tunnel_is_for_the_host_that_it_was_asked_for() {
    let request = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_vec();
    for (name, first) in [
        ("another name in the hello", hello(Some("evil.test"))),
        ("a name below in the hello", hello(Some("a.good.test"))),
        ("an address in the hello", hello(Some("127.0.0.1"))),
        ("no name in the hello", hello(None)),
        ("an empty name in the hello", hello(Some(""))),
        ("two names in one", hello(Some("good.test\0evil.test"))),
        ("a request in the clear", request),
        ("a shell", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("mail", b"EHLO good.test\r\n".to_vec()),
        ("noise", vec![0xff; 4_000]),
        ("an old hello", vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]),
        (
            "a record without end",
            [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
        ),
    ] {
        let world = World::limited().await;
        let mut stream = world.dial();
        let connect = world.fill("CONNECT good.test:GOOD HTTP/1.1\r\n\r\n");
        stream.write_all(connect.as_bytes()).await.unwrap();
        until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(&first).await;
        assert_eq!(until(&mut stream, "heard").await, "", "{name}");
        assert_eq!(world.good.heard(), "", "{name}");
        assert_eq!(world.decisions(), ["connect good.test other_host"], "{name}");
    }
}

#[tokio::test]
async fn no_other_protocol_is_spoken_where_hosts_are_looked_at() {
    let world = World::limited().await;
    let mut stream = world.dial();
    let request = world.fill(
        "GET http://good.test:GOOD/ HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(until(&mut stream, "fine").await.starts_with("HTTP/1.1 200"));
    let heard = world.good.heard().to_lowercase();
    assert!(
        !heard.contains("upgrade") && !heard.contains("http2-settings"),
        "{heard}"
    );
}

#[tokio::test]
async fn addresses_that_stand_for_names_are_for_those_names() {
    let world = World::limited().await;
    let direct = async |address: Ipv4Addr, port: u16, first: &[u8]| {
        let (mut near, far) = tokio::io::duplex(4096);
        tokio::spawn(Arc::clone(&world.link).serve_direct(far, SocketAddr::new(address.into(), port)));
        let _ = near.write_all(first).await;
        until(&mut near, "\r\n\r\n").await
    };
    world
        .link
        .answer_dns(&question("a.cdn.test", TYPE::A))
        .await
        .unwrap();
    let address = world.link.names.address("a.cdn.test");
    let other = hello(Some("b.cdn.test"));
    assert_eq!(direct(address, world.good.port, &other).await, "");
    assert_eq!(
        direct(Ipv4Addr::new(127, 64, 0, 9), world.good.port, &other).await,
        ""
    );
    assert_eq!(direct(Ipv4Addr::LOCALHOST, world.evil.port, &other).await, "");
    let request = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let answer = direct(address, 80, request).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = direct(address, 80, b"CONNECT a.cdn.test:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!((world.good.connections(), world.evil.connections()), (0, 0));
    let decisions = world.decisions();
    assert_eq!(
        decisions
            .iter()
            .filter(|line| line.ends_with("other_host"))
            .count(),
        2,
        "{decisions:?}"
    );
    assert_eq!(
        decisions.iter().filter(|line| line.ends_with("no_host")).count(),
        2,
        "{decisions:?}"
    );
}

#[tokio::test]
async fn questions_for_names_carry_nothing_out() {
    let world = World::limited().await;
    let data = format!("{}.{}.evil.test", "a".repeat(60), "b".repeat(60));
    for (name, query, expected) in [
        (
            "a name that is not on the list",
            question("evil.test", TYPE::A),
            RCODE::NameError,
        ),
        (
            "its address of version 6",
            question("evil.test", TYPE::AAAA),
            RCODE::NameError,
        ),
        ("its texts", question("evil.test", TYPE::TXT), RCODE::NameError),
        (
            "its mail servers",
            question("evil.test", TYPE::MX),
            RCODE::NameError,
        ),
        (
            "its other name",
            question("evil.test", TYPE::CNAME),
            RCODE::NameError,
        ),
        (
            "its name servers",
            question("evil.test", TYPE::NS),
            RCODE::NameError,
        ),
        (
            "its keys for hidden hellos",
            question("evil.test", TYPE::HTTPS),
            RCODE::NameError,
        ),
        (
            "nothing in particular",
            question("evil.test", TYPE::NULL),
            RCODE::NameError,
        ),
        ("data in labels", question(&data, TYPE::TXT), RCODE::NameError),
        (
            "data below an exact name",
            question("secret.good.test", TYPE::A),
            RCODE::NameError,
        ),
        (
            "a name backwards",
            question("1.0.0.127.in-addr.arpa", TYPE::PTR),
            RCODE::NameError,
        ),
        (
            "an address for a name",
            question("127.0.0.1", TYPE::A),
            RCODE::NameError,
        ),
        (
            "a name with an underscore",
            question("_x.cdn.test", TYPE::TXT),
            RCODE::NameError,
        ),
        (
            "an allowed name that leads to a private address",
            question("private.test", TYPE::A),
            RCODE::NameError,
        ),
        (
            "an allowed name that nobody has",
            question("nowhere.test", TYPE::A),
            RCODE::ServerFailure,
        ),
        (
            "texts of an allowed name",
            question("good.test", TYPE::TXT),
            RCODE::NoError,
        ),
    ] {
        let answer = world.link.answer_dns(&query).await.expect(name);
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!((answer.rcode(), answer.answers.len()), (expected, 0), "{name}");
    }
    let decisions = world.decisions();
    assert_eq!(decisions.len(), 16, "{decisions:?}");

    let with = |change: &dyn Fn(&mut Packet<'static>)| {
        let mut query = Packet::new_query(7);
        change(&mut query);
        query.build_bytes_vec().unwrap()
    };
    let ask = |name: &'static str, class: CLASS| {
        Question::new(Name::new_unchecked(name), TYPE::A.into(), class.into(), false)
    };
    let two = with(&|query| {
        query.questions.push(ask("good.test", CLASS::IN));
        query.questions.push(ask("evil.test", CLASS::IN));
    });
    let chaos = with(&|query| query.questions.push(ask("version.bind", CLASS::CH)));
    let none = with(&|_| {});
    for (name, query, expected) in [
        ("two questions", two, RCODE::FormatError),
        ("another class", chaos, RCODE::Refused),
        ("no question", none, RCODE::FormatError),
    ] {
        let answer = world.link.answer_dns(&query).await.expect(name);
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!((answer.rcode(), answer.answers.len()), (expected, 0), "{name}");
    }
    let mut update = question("good.test", TYPE::A);
    update[2] |= 5 << 3;
    let answer = world.link.answer_dns(&update).await.expect("an answer");
    assert_eq!(answer[3] & 15, 4, "not implemented");

    let mut reply = question("good.test", TYPE::A);
    reply[2] |= 0x80;
    let mut crowded = question("good.test", TYPE::A);
    crowded[7] = 9;
    // A name that points to itself.
    let mut circle = question("good.test", TYPE::A)[..12].to_vec();
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    for (name, message) in [
        ("an answer", reply),
        ("nothing", Vec::new()),
        ("half a question", question("good.test", TYPE::A)[..20].to_vec()),
        ("a circle", circle),
        ("a question with much else in it", crowded),
        (
            "a question that is too long",
            [&question("good.test", TYPE::A)[..], &[0; 1_300]].concat(),
        ),
        ("noise", vec![0xff; 600]),
    ] {
        assert_eq!(world.link.answer_dns(&message).await, None, "{name}");
    }
}
