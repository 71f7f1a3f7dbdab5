//! Bodies that are too long, that nobody wants, or that don't come: the client always gets to read why, and holds
//! nothing for long.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::system::client::Chat;
use crate::system::{System, soon};

const MODEL: &str = "scripted/echo";
const TOKEN: &str = "sesame";

/// More than sockets hold on the way: who writes it without reading has to be read from.
const LONG: usize = 24 << 20;

/// A server with small limits and a session.
async fn start(idle_timeout_ms: u32) -> (System, Chat) {
    let system = System::start_with(|options| {
        options
            .token(TOKEN)
            .set("OPENCLAW_MAX_BODY", "64KiB")
            .set("OPENCLAW_MAX_FILE", "1MiB")
            .set("OPENCLAW_BODY_IDLE_TIMEOUT_MS", &idle_timeout_ms.to_string())
    })
    .await;
    let chat = system.client().session_of(MODEL).await;
    (system, chat)
}

/// How a client names the length of its body.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunks,
}

/// One request by hand over a connection of its own.
struct Upload {
    connection: TcpStream,
}

impl Upload {
    async fn begin(chat: &Chat, method: &str, path: &str, headers: &str) -> Self {
        let authority = chat.client.authority();
        let mut connection = TcpStream::connect(authority).await.expect("connects");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\n{headers}\r\n");
        connection.write_all(head.as_bytes()).await.expect("written");
        Self { connection }
    }

    async fn write(&mut self, bytes: &[u8]) {
        soon("a body being taken", self.connection.write_all(bytes))
            .await
            .expect("the server reads on");
    }

    /// The answer's status and head.
    async fn head(&mut self) -> (u16, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = soon("an answer", self.connection.read_u8()).await;
            head.push(byte.expect("an answer before the connection ends"));
        }
        let head = String::from_utf8(head).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_ascii_lowercase())
    }

    /// The answer's head and body.
    async fn answer(&mut self) -> (u16, String) {
        let (status, head) = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        soon("a body", self.connection.read_exact(&mut body))
            .await
            .expect("whole");
        (status, format!("{head}{}", String::from_utf8_lossy(&body)))
    }

    /// Whether the connection ends in order.
    async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = soon("the end of a connection", self.connection.read(&mut byte)).await;
        matches!(read, Ok(0))
    }
}

fn authorized(framing: Framing, length: usize) -> String {
    format!("authorization: Bearer {TOKEN}\r\n{}", framed(framing, length))
}

fn framed(framing: Framing, length: usize) -> String {
    match framing {
        Framing::Length => format!("content-length: {length}\r\n"),
        Framing::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
    }
}

/// A body on the wire.
fn wire(framing: Framing, length: usize) -> Vec<u8> {
    let body = vec![b'x'; length];
    match framing {
        Framing::Length => body,
        Framing::Chunks => {
            let mut wire = Vec::new();
            for chunk in body.chunks(1 << 16) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire
        }
    }
}

#[tokio::test]
async fn whoever_writes_first_and_reads_afterwards_gets_to_know_why() {
    let (system, chat) = start(30_000).await;
    let events = chat.path("/events");
    let nobody = format!("/v1/agents/{}/files/a?session_id=ses_nobody", chat.agent);
    for framing in [Framing::Length, Framing::Chunks] {
        let (authorized, body) = (authorized(framing, LONG), wire(framing, LONG));
        for (method, path, headers, status) in [
            ("POST", "/v1/agents", &authorized, 413),
            ("POST", &events, &authorized, 413),
            ("PUT", &chat.file_path("a"), &authorized, 413),
            // Who is not asked at all what the body says.
            ("POST", &events, &framed(framing, LONG), 401),
            ("PUT", &nobody, &authorized, 404),
            ("POST", "/v1/no/such/path", &authorized, 404),
            ("DELETE", "/v1/models", &authorized, 405),
            ("POST", "/v1/chat/completions", &authorized, 400),
        ] {
            let mut upload = Upload::begin(&chat, method, path, headers).await;
            upload.write(&body).await;
            let (found, text) = upload.answer().await;
            assert_eq!(found, status, "{framing:?} {method} {path}: {text}");
            // The connection is as good as new: what is sent next over it is the next request.
            let next = format!(
                "GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n",
                chat.client.authority()
            );
            upload.write(next.as_bytes()).await;
            assert_eq!(upload.answer().await.0, 200, "{framing:?} {method} {path}");
        }
    }
    assert_eq!(system.client().get(&chat.file_path("a")).await.status, 404);
    system.stop().await;
}

#[tokio::test]
async fn whoever_never_ends_is_cut_off() {
    let (system, chat) = start(30_000).await;
    let headers = authorized(Framing::Chunks, 0);
    let mut upload = Upload::begin(&chat, "PUT", &chat.file_path("a"), &headers).await;
    let chunk = wire(Framing::Chunks, 1 << 20);
    let chunk = &chunk[..chunk.len() - b"0\r\n\r\n".len()];
    let sending = async {
        let mut sent = 0_u64;
        while upload.connection.write_all(chunk).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let sent = soon("the end of an endless body", sending).await;
    assert!(sent < 1_000, "{sent} MiB were taken");
    system.stop().await;
}

#[tokio::test]
async fn whoever_stops_in_the_middle_is_not_waited_for() {
    let (system, chat) = start(200).await;
    for (method, path) in [
        ("POST", "/v1/agents".to_owned()),
        ("POST", chat.path("/events")),
        ("PUT", chat.file_path("a")),
    ] {
        for framing in [Framing::Length, Framing::Chunks] {
            let mut upload = Upload::begin(&chat, method, &path, &authorized(framing, 1_000)).await;
            let body = wire(framing, 1_000);
            upload.write(&body[..500]).await;
            let begun = Instant::now();
            let (status, text) = upload.answer().await;
            assert_eq!(status, 408, "{method} {path}: {text}");
            assert!(text.contains("connection: close"), "{text}");
            assert!(text.contains("request_timeout"), "{text}");
            assert!(upload.is_closed().await, "{method} {path}");
            assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
        }
    }
    assert_eq!(system.client().get(&chat.file_path("a")).await.status, 404);
    system.stop().await;
}

#[tokio::test]
async fn whoever_asks_before_sending_is_told_at_once() {
    let (system, chat) = start(30_000).await;
    let ask = "expect: 100-continue\r\n";
    for (method, path, length, status) in [
        ("PUT", chat.file_path("a"), LONG, 413),
        ("POST", chat.path("/events"), LONG, 413),
        ("PUT", "/v1/no/such/path".to_owned(), 10, 404),
    ] {
        let headers = authorized(Framing::Length, length) + ask;
        let mut upload = Upload::begin(&chat, method, &path, &headers).await;
        let (found, text) = upload.answer().await;
        assert_eq!(found, status, "{method} {path}: {text}");
        // Nobody can tell whether what comes next would be the body: the connection ends.
        assert!(text.contains("connection: close"), "{text}");
        assert!(upload.is_closed().await, "{method} {path}");
    }
    let headers = authorized(Framing::Length, 5) + ask;
    let mut upload = Upload::begin(&chat, "PUT", &chat.file_path("a"), &headers).await;
    assert_eq!(upload.head().await.0, 100);
    upload.write(b"hello").await;
    assert_eq!(upload.answer().await.0, 200);
    assert_eq!(system.client().get(&chat.file_path("a")).await.text(), "hello");
    system.stop().await;
}
