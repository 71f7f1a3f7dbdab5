//! The way to the engine: every question has a time limit, and an engine that is away is waited for, for a while.

use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::time::{Instant, sleep, timeout};

use crate::Error;

/// How long the engine may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after the first vain try the next one comes, and the longest time between two: nobody gives word of an
/// engine that is back.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The engine's answers to what is not there, and to what is in the way.
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// The way to one engine.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    docker: Docker,
    address: String,
    patience: Duration,
}

impl Connection {
    /// Finds the engine, and the newest version of its interface that both sides know.
    ///
    /// # Errors
    /// [`Error::Engine`] when nobody answers there.
    pub(super) async fn open(address: &str, patience: Duration) -> Result<Self, Error> {
        let docker = until(patience, address, "connecting", || async {
            connect(address)?.negotiate_version().await
        })
        .await?;
        docker
            .map(|docker| Self {
                docker,
                address: address.to_owned(),
                patience,
            })
            .map_err(|error| failed(address, "connecting", &error))
    }

    /// How long it is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Asks the engine; again, while it is away. A question that it may have heard before it went away is asked again
    /// too, so it has to be one that may be asked twice. The engine's own refusals are given back.
    ///
    /// # Errors
    /// [`Error::Engine`] when it stays away.
    pub(super) async fn ask<T, F: Future<Output = Result<T, EngineError>>>(
        &self,
        what: &str,
        question: impl Fn() -> F,
    ) -> Result<Result<T, EngineError>, Error> {
        until(self.patience, &self.address, what, question).await
    }

    /// Asks the engine, and takes no refusal.
    ///
    /// # Errors
    /// [`Error::Engine`] when it stays away or refuses.
    pub(super) async fn get<T, F: Future<Output = Result<T, EngineError>>>(
        &self,
        what: &str,
        question: impl Fn() -> F,
    ) -> Result<T, Error> {
        let answer = self.ask(what, question).await?;
        answer.map_err(|error| self.failed(what, &error))
    }

    /// In words for an operator.
    pub(super) fn failed(&self, what: &str, error: &EngineError) -> Error {
        failed(&self.address, what, error)
    }
}

/// Whether the engine says that there is no such thing.
pub(super) fn is_absent(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::DockerResponseServerError {
            status_code: NOT_FOUND,
            ..
        }
    )
}

/// Whether the engine says that something is in the way.
pub(super) fn is_conflict(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::DockerResponseServerError {
            status_code: CONFLICT,
            ..
        }
    )
}

fn connect(address: &str) -> Result<Docker, EngineError> {
    let patience = ANSWER_TIMEOUT.as_secs();
    if address.starts_with("tcp://") || address.starts_with("http://") {
        Docker::connect_with_http(address, patience, API_DEFAULT_VERSION)
    } else {
        Docker::connect_with_unix(address, patience, API_DEFAULT_VERSION)
    }
}

fn failed(address: &str, what: &str, error: &EngineError) -> Error {
    if is_away(error) {
        return Error::Engine(format!("at {address} can't be reached ({what}): {error}"));
    }
    let said = match error {
        EngineError::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    Error::Engine(format!("at {address} failed ({what}): {said}"))
}

/// Whether nobody answers, or somebody has stopped in the middle.
fn is_away(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::SocketNotFoundError(_)
            | EngineError::HyperResponseError { .. }
            | EngineError::HyperLegacyError { .. }
            | EngineError::IOError { .. }
            | EngineError::RequestTimeoutError
    )
}

async fn until<T, F: Future<Output = Result<T, EngineError>>>(
    patience: Duration,
    address: &str,
    what: &str,
    question: impl Fn() -> F,
) -> Result<Result<T, EngineError>, Error> {
    let deadline = Instant::now() + patience;
    let mut pause = PAUSE;
    let mut is_told = false;
    loop {
        let answer = timeout(ANSWER_TIMEOUT, question())
            .await
            .unwrap_or(Err(EngineError::RequestTimeoutError));
        match answer {
            Err(error) if is_away(&error) => {
                if Instant::now() + pause > deadline {
                    return Err(failed(address, what, &error));
                }
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(engine = address, %error, what, "the container engine does not answer: waiting for it");
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn away() -> EngineError {
        EngineError::SocketNotFoundError("/nowhere".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_comes_back_is_waited_for_and_one_that_does_not_for_a_while() {
        let tries = AtomicU32::new(0);
        let question = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..4 => Err(away()),
                _ => Ok(7),
            }
        };
        let answer = until(Duration::from_secs(30), "/x", "asking", question).await;
        assert_eq!(answer.unwrap().unwrap(), 7);

        let begun = Instant::now();
        let never = until(Duration::from_secs(30), "/x", "asking", || async {
            Err::<(), _>(away())
        });
        let error = never.await.unwrap_err().to_string();
        assert!(
            error.contains("/x") && error.contains("asking") && error.contains("can't be reached"),
            "{error}"
        );
        assert!(
            begun.elapsed() <= Duration::from_secs(31),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("docker.sock");
        let opened = Connection::open(absent.to_str().unwrap(), Duration::from_millis(100)).await;
        assert!(matches!(opened, Err(Error::Engine(_))), "{opened:?}");
    }
}
