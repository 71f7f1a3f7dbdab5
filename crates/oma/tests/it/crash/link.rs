//! The way to a server that comes and goes.

use std::sync::Arc;

use reqwest::RequestBuilder;
use tokio::sync::watch;

use crate::system::client::{Answer, Client};
use crate::system::soon;

/// Which server is up: its number, and its client while it lives.
#[derive(Clone)]
struct Up {
    number: u64,
    client: Option<Client>,
}

/// Shared by everybody who talks to the server.
#[derive(Clone)]
pub(super) struct Link(Arc<watch::Sender<Up>>);

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(watch::Sender::new(Up {
            number: 0,
            client: Some(client),
        })))
    }

    /// The server is gone.
    pub(super) fn down(&self) {
        self.0.send_modify(|up| {
            up.number += 1;
            up.client = None;
        });
    }

    /// Another one has taken its place.
    pub(super) fn up(&self, client: Client) {
        self.0.send_modify(|up| up.client = Some(client));
    }

    /// The server that is up, and its number.
    pub(super) async fn current(&self) -> (u64, Client) {
        let mut watch = self.0.subscribe();
        let up = soon("a server", watch.wait_for(|up| up.client.is_some()))
            .await
            .expect("shared")
            .clone();
        (up.number, up.client.expect("it is up"))
    }

    /// Waits until the server of this number is gone.
    pub(super) async fn gone(&self, number: u64) {
        let mut watch = self.0.subscribe();
        soon(
            "the end of a server that does not answer",
            watch.wait_for(|up| up.number > number),
        )
        .await
        .expect("shared");
    }

    /// Sends a request once; `None` when its answer was lost with the server.
    pub(super) async fn send_once(&self, build: impl Fn(&Client) -> RequestBuilder) -> Option<Answer> {
        let (number, client) = self.current().await;
        match Client::try_send(build(&client)).await {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.gone(number).await;
                None
            }
        }
    }

    /// Sends a request until a server answers it. One that is stopping refuses; then the next one is asked.
    pub(super) async fn send(&self, build: impl Fn(&Client) -> RequestBuilder) -> Answer {
        loop {
            let (number, client) = self.current().await;
            match Client::try_send(build(&client)).await {
                Ok(answer) if answer.status != 503 => return answer,
                Ok(_) | Err(_) => self.gone(number).await,
            }
        }
    }
}
