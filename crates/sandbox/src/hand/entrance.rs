//! Where connections to the hand come in.
//!
//! Usually it is a socket that nothing in the sandbox can see, so whoever connects is the server. In a container with a
//! kernel of its own the session's processes can connect as well ([`super::relay`]): there the first words of a
//! connection have to be the server's [`Token`].
//!
//! Invariant: who holds connections without a word, however many, keeps nobody else out: the oldest of them go, after they
//! could say theirs.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::timeout;

use super::launch;
use super::token::Token;

/// How long the first words may take: they come along with the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that may be about to say them.
const MAX_ARRIVING: usize = 64;

/// Where connections come in.
pub(super) struct Entrance {
    listener: UnixListener,
    guard: Option<Guard>,
}

/// Lets in who knows the token.
struct Guard {
    token: Token,
    arriving: JoinSet<Option<UnixStream>>,
    /// Those of `arriving`, the oldest first; some may have ended.
    handles: VecDeque<AbortHandle>,
}

impl Entrance {
    /// Must be called in a runtime.
    pub(super) fn new(entrance: launch::Entrance) -> io::Result<Self> {
        let launch::Entrance { listener, token } = entrance;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            guard: token.map(Guard::new),
        })
    }

    /// The next connection of the server's. May be dropped at any time: nobody is lost by that.
    ///
    /// # Errors
    /// When the listening socket breaks.
    pub(super) async fn next(&mut self) -> io::Result<UnixStream> {
        loop {
            let Some(guard) = &mut self.guard else {
                match self.listener.accept().await {
                    Ok((stream, _)) => return Ok(stream),
                    Err(error) if is_passing(&error) => continue,
                    Err(error) => return Err(error),
                }
            };
            tokio::select! {
                // Who has said the right thing goes first.
                biased;
                Some(arrived) = guard.arriving.join_next() => {
                    if let Ok(Some(stream)) = arrived {
                        return Ok(stream);
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => guard.hear(stream),
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                },
            }
            // Each is heard before the next one is let in, or who comes fast would send the others away unheard.
            yield_now().await;
        }
    }
}

impl Guard {
    fn new(token: Token) -> Self {
        Self {
            token,
            arriving: JoinSet::new(),
            handles: VecDeque::new(),
        }
    }

    /// Lets the connection say its first words.
    fn hear(&mut self, mut stream: UnixStream) {
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= MAX_ARRIVING
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        let token = self.token.clone();
        let hearing = async move {
            let mut said = [0; Token::LENGTH];
            let heard = timeout(PATIENCE, stream.read_exact(&mut said)).await;
            (matches!(heard, Ok(Ok(_))) && token.is(&said)).then_some(stream)
        };
        self.handles.push_back(self.arriving.spawn(hearing));
    }
}

/// Whether the next `accept` may well work.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as Listener;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn only_who_knows_the_token_comes_in_however_many_others_stand_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let (listener, token) = (Listener::bind(&path).unwrap(), Token::generate().unwrap());
        let entrance = launch::Entrance {
            listener,
            token: Some(token.clone()),
        };
        let mut entrance = Entrance::new(entrance).unwrap();
        let connect = async |words: &[u8]| {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(words).await.unwrap();
            stream
        };
        let wrong = Token::generate().unwrap();
        let mut outside = Vec::new();
        for _ in 0..2 * MAX_ARRIVING {
            outside.push(connect(b"").await);
            outside.push(connect(&wrong.words()).await);
            // They are looked at as they come.
            let none = timeout(Duration::ZERO, entrance.next()).await;
            assert!(none.is_err());
        }
        // The server's is among more of them that wait already than there may be of those that arrive.
        let words = [token.words().to_vec(), b"more".to_vec()].concat();
        let _server = connect(&words).await;
        for _ in 0..=MAX_ARRIVING {
            outside.push(connect(b"").await);
        }
        let mut inside = timeout(PATIENCE / 2, entrance.next()).await.unwrap().unwrap();
        let mut more = [0; 4];
        inside.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
        let mut first = outside.remove(0);
        assert_eq!(
            first.read(&mut more).await.unwrap_or(0),
            0,
            "it has been sent away"
        );
    }
}
