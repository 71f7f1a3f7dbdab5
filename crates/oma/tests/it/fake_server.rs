//! A stand-in for the server, for what the client side makes of its answers: it answers from a list and
//! remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;

/// A request that the stand-in got.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| {
            let (found, value) = header.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// An answer: status and body. A body that begins with `event:` is a stream of events.
pub(crate) type Answer = (u16, String);

/// A stand-in for the server, which gives each answer once, in order, and then refuses connections.
pub(crate) struct FakeServer {
    address: SocketAddr,
    asked: Receiver<Asked>,
}

impl FakeServer {
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (stream, _) = listener.accept().expect("a connection");
                answer(stream, status, &body, &sender);
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request that was made.
    pub(crate) fn asked(&self) -> Asked {
        self.asked
            .recv_timeout(std::time::Duration::from_secs(20))
            .expect("a request was made")
    }
}

fn answer(mut stream: TcpStream, status: u16, body: &str, sender: &Sender<Asked>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let header = header.trim_end().to_owned();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        headers.push(header);
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).expect("the body");
    let body_sent = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    // The test may have seen enough already.
    let _ = sender.send(Asked {
        line: line.trim_end().to_owned(),
        headers,
        body: body_sent,
    });
    let kind = if body.starts_with("event:") {
        "text/event-stream"
    } else {
        "application/json"
    };
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .expect("answered");
}

/// Frames of a stream of events.
pub(crate) fn frames(frames: &[Value]) -> String {
    frames
        .iter()
        .map(|frame| {
            let kind = frame["type"].as_str().expect("a type");
            let id = match frame["event_id"].as_str() {
                Some(id) if !kind.ends_with("_delta") => format!("id: {id}\n"),
                _ => String::new(),
            };
            format!("event: {kind}\ndata: {frame}\n{id}\n")
        })
        .collect()
}
