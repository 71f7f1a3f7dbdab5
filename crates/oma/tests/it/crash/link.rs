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

    /// Waits until the server of this number is gone, which it is about to be.
    pub(super) async fn gone(&self, number: u64) {
        soon("the end of a server that does not answer", self.ended(number)).await;
    }

    /// Waits until the server of this number is gone, however long that takes.
    async fn ended(&self, number: u64) {
        let mut watch = self.0.subscribe();
        watch.wait_for(|up| up.number > number).await.expect("shared");
    }

    /// What a server answers; `None` when it is gone. The HTTP client can lose a request whose connection ends while it
    /// is being made, and would wait for its answer for ever (hyperium/hyper#2312).
    pub(super) async fn unless_gone<T, E>(
        &self,
        number: u64,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => Some(answer),
                Err(_) => {
                    self.gone(number).await;
                    None
                }
            },
            () = self.ended(number) => None,
        }
    }

    /// Sends a request once; `None` when its answer was lost with the server.
    pub(super) async fn send_once(&self, build: impl Fn(&Client) -> RequestBuilder) -> Option<Answer> {
        let (number, client) = self.current().await;
        self.unless_gone(number, Client::try_send(build(&client))).await
    }

    /// Sends a request until a server answers it. One that is stopping refuses; then the next one is asked.
    pub(super) async fn send(&self, build: impl Fn(&Client) -> RequestBuilder) -> Answer {
        loop {
            let (number, client) = self.current().await;
            let sent = Client::try_send(build(&client));
            match self.unless_gone(number, sent).await {
                Some(answer) if answer.status != 503 => return answer,
                Some(_) => self.gone(number).await,
                None => {}
            }
        }
    }
}
