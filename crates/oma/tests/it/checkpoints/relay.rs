//! A way to the store that can be closed, and that can let only so much through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

struct Inner {
    open: AtomicBool,
    /// How many bytes may still go to the store.
    left: AtomicU64,
    used_up: Notify,
}

/// The way. Those who use it while it is closed are turned away.
pub(super) struct Relay {
    inner: Arc<Inner>,
    pub(super) url: String,
}

impl Relay {
    /// A way to `endpoint`, `http://host:port`.
    pub(super) async fn start(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("http://").expect("http").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let inner = Arc::new(Inner {
            open: AtomicBool::new(true),
            left: AtomicU64::new(u64::MAX),
            used_up: Notify::new(),
        });
        let shared = Arc::clone(&inner);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accepted");
                if shared.open.load(Ordering::SeqCst) {
                    let store = TcpStream::connect(&target).await.expect("the store listens");
                    tokio::spawn(carry(client, store, Arc::clone(&shared)));
                }
            }
        });
        Self { inner, url }
    }

    /// Opens or closes it, also for those who are on it.
    pub(super) fn open(&self, open: bool) {
        self.inner.open.store(open, Ordering::SeqCst);
    }

    /// Lets so many more bytes through to the store, and then none.
    pub(super) fn let_through(&self, bytes: u64) {
        self.inner.left.store(bytes, Ordering::SeqCst);
    }

    /// Waits until nothing goes through any more.
    pub(super) async fn used_up(&self) {
        self.inner.used_up.notified().await;
    }
}

async fn carry(client: TcpStream, store: TcpStream, inner: Arc<Inner>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_store, mut to_store) = store.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_store, &mut to_client).await });
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = match from_client.read(&mut buffer).await {
            Ok(got) if got > 0 && inner.open.load(Ordering::SeqCst) => got,
            // Either of them has gone, or this is closed.
            _ => break,
        };
        let before = inner
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(got as u64))
            })
            .expect("always some");
        if before < got as u64 {
            inner.used_up.notify_one();
            // The one who sends waits, as for a store that has stopped reading.
            std::future::pending::<()>().await;
        }
        if to_store.write_all(&buffer[..got]).await.is_err() {
            break;
        }
    }
    back.abort();
}
