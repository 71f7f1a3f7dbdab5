//! Who accepts connections at sockets that are shared with a sandbox's hand.
//!
//! Whether `accept` waits is a flag of the shared description: a hand that unsets it, and takes the connection away
//! that was there when it was looked, makes the call wait for ever. So the call is made on a thread of this sandbox's
//! own. What waits there holds up nobody but this sandbox, and is woken by the end of the socket.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{Shutdown, SocketFlags};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The stack of the thread, in bytes: it calls nothing that goes deep.
const STACK: usize = 128 << 10;
/// Requests that may be on their way to the thread.
const REQUESTS: usize = 32;
/// How long a call may take that is to be over at once, before the socket is ended to end it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Accepts the connections of one sandbox. Dropping it ends the thread, which closes the sockets.
pub struct Porter {
    requests: Option<SyncSender<Request>>,
    thread: Arc<Thread>,
    sockets: Weak<Sockets>,
}

type Sockets = BTreeMap<u16, OwnedFd>;

/// What is known of the thread from outside.
struct Thread {
    /// Wakes it.
    bell: OwnedFd,
    /// It is in a call that may be made to wait.
    is_accepting: AtomicBool,
    /// It is to make no more of them. Each side sets its own flag before it looks at the other's, so one of them sees it.
    is_to_end: AtomicBool,
    is_over: AtomicBool,
}

impl Thread {
    fn new() -> io::Result<Self> {
        Ok(Self {
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            is_accepting: AtomicBool::new(false),
            is_to_end: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }
}

struct Request {
    port: u16,
    answer: oneshot::Sender<io::Result<std::net::TcpStream>>,
}

impl Porter {
    /// Begins at once.
    ///
    /// # Errors
    /// When there can be no more threads, or descriptors.
    pub fn new(sockets: BTreeMap<u16, OwnedFd>) -> io::Result<Self> {
        let sockets = Arc::new(sockets);
        let thread = Arc::new(Thread::new()?);
        let (requests, asked) = sync_channel(REQUESTS);
        let (own, known) = (Arc::clone(&thread), Arc::downgrade(&sockets));
        thread::Builder::new()
            .name("doors".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                run(&own, &sockets, &asked);
                // Closing them may take a while, too.
                drop(sockets);
                own.is_over.store(true, Ordering::Release);
            })?;
        Ok(Self {
            requests: Some(requests),
            thread,
            sockets: known,
        })
    }

    /// The next connection to this port, and the address that it was made to. What waits may be dropped.
    ///
    /// # Errors
    /// When there is no such port, or no connection can be accepted; it may be tried again later.
    pub async fn accept(&self, port: u16) -> io::Result<(TcpStream, SocketAddr)> {
        let (answer, accepted) = oneshot::channel();
        let gone = || io::Error::other("the thread is gone");
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        // It takes them off at once, unless it is held up.
        requests
            .try_send(Request { port, answer })
            .map_err(|_| io::Error::other("the thread is held up"))?;
        self.thread.ring()?;
        let stream = accepted.await.map_err(|_| gone())??;
        let to = stream.local_addr()?;
        Ok((TcpStream::from_std(stream)?, to))
    }
}

impl Thread {
    fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.bell, &1_u64.to_ne_bytes()) {
            // It rings already.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        self.requests = None;
        self.thread.is_to_end.store(true, Ordering::SeqCst);
        let _ = self.thread.ring();
        if !self.thread.is_accepting.load(Ordering::SeqCst) {
            return;
        }
        // It has been asked to go at a moment when it can't hear, which is over at once; or it is held up, and then the
        // hand has lost its doors.
        let (thread, sockets) = (Arc::clone(&self.thread), Weak::clone(&self.sockets));
        let waking = thread::Builder::new()
            .name("doors-end".to_owned())
            .stack_size(STACK);
        let woken = waking.spawn(move || {
            loop {
                thread::sleep(PATIENCE);
                if thread.is_over.load(Ordering::Acquire) {
                    return;
                }
                let Some(sockets) = sockets.upgrade() else { return };
                for socket in sockets.values() {
                    let _ = rustix::net::shutdown(socket, Shutdown::Both);
                }
            }
        });
        if let Err(error) = woken {
            tracing::warn!(%error, "a thread at the doors of a sandbox can't be woken");
        }
    }
}

fn run(thread: &Thread, sockets: &Sockets, asked: &Receiver<Request>) {
    let mut waiting: Vec<Request> = Vec::new();
    loop {
        loop {
            match asked.try_recv() {
                Ok(request) if sockets.contains_key(&request.port) => waiting.push(request),
                Ok(request) => {
                    let _ = request.answer.send(Err(io::ErrorKind::AddrNotAvailable.into()));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        waiting.retain(|request| !request.answer.is_closed());
        let Ok(ready) = ready(thread, sockets, &waiting) else {
            return;
        };
        for port in ready {
            let Some(at) = waiting.iter().position(|request| request.port == port) else {
                continue;
            };
            match accept(thread, &sockets[&port]) {
                Err(error) if is_passing(&error) => {}
                outcome => {
                    // Whoever has gone away meanwhile leaves a process without an answer: it sees the connection close.
                    let _ = waiting.swap_remove(at).answer.send(outcome);
                }
            }
        }
    }
}

/// Returns the ports at which there is something, of those that somebody waits at; also none, when it rings.
fn ready(thread: &Thread, sockets: &Sockets, waiting: &[Request]) -> io::Result<Vec<u16>> {
    let wanted = sockets
        .iter()
        .filter(|(port, _)| waiting.iter().any(|request| request.port == **port));
    let wanted: Vec<(u16, &OwnedFd)> = wanted.map(|(port, socket)| (*port, socket)).collect();
    let mut polled = vec![PollFd::new(&thread.bell, PollFlags::IN)];
    polled.extend(
        wanted
            .iter()
            .map(|(_, socket)| PollFd::new(*socket, PollFlags::IN)),
    );
    match poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if !polled[0].revents().is_empty() {
        let mut count = [0; 8];
        // It was rung, and that is all there is to know.
        let _ = rustix::io::read(&thread.bell, &mut count);
    }
    // What is no listening socket any more is ready as well: the call says what is wrong.
    let ready = polled[1..].iter().zip(&wanted);
    Ok(ready
        .filter(|(polled, _)| !polled.revents().is_empty())
        .map(|(_, (port, _))| *port)
        .collect())
}

fn accept(thread: &Thread, socket: impl AsFd) -> io::Result<std::net::TcpStream> {
    thread.is_accepting.store(true, Ordering::SeqCst);
    let accepted = if thread.is_to_end.load(Ordering::SeqCst) {
        Err(rustix::io::Errno::INTR)
    } else {
        rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    };
    thread.is_accepting.store(false, Ordering::SeqCst);
    let stream = accepted?;
    // It has taken over how long closing it takes.
    rustix::net::sockopt::set_socket_linger(&stream, None)?;
    // What is carried here is somebody else's conversation, and waits for its pieces.
    rustix::net::sockopt::set_tcp_nodelay(&stream, true)?;
    Ok(stream.into())
}

/// Whether there is just nothing now.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream as StdStream};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PORT: u16 = 80;

    /// A porter, the listener as a hand has it, and where to connect.
    fn shared() -> (Porter, TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let passed = OwnedFd::from(listener.try_clone().unwrap());
        let address = listener.local_addr().unwrap();
        (
            Porter::new(BTreeMap::from([(PORT, passed)])).unwrap(),
            listener,
            address,
        )
    }

    #[tokio::test]
    async fn connections_are_accepted_one_after_the_other() {
        let (porter, _listener, address) = shared();
        for _ in 0..3 {
            let mut process = StdStream::connect(address).unwrap();
            let (mut stream, to) = porter.accept(PORT).await.unwrap();
            assert_eq!(to, address);
            process.write_all(b"word").unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(b"answer").await.unwrap();
            drop(stream);
            let mut answer = String::new();
            process.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "answer");
        }
        assert!(porter.accept(PORT + 1).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_first_and_goes_takes_nobody_along() {
        let (porter, _listener, address) = shared();
        for _ in 0..4 {
            tokio::select! {
                biased;
                _ = porter.accept(PORT) => panic!("nobody has connected"),
                () = tokio::task::yield_now() => {}
            }
        }
        let _process = StdStream::connect(address).unwrap();
        let accepted = porter.accept(PORT).await.unwrap();
        assert_eq!(accepted.1, address);
    }

    #[tokio::test]
    async fn what_a_listener_was_set_to_does_not_hold_up_a_close() {
        let (porter, listener, address) = shared();
        rustix::net::sockopt::set_socket_linger(&listener, Some(Duration::from_secs(600))).unwrap();
        let process = StdStream::connect(address).unwrap();
        let (stream, _) = porter.accept(PORT).await.unwrap();
        assert_eq!(rustix::net::sockopt::socket_linger(&stream).unwrap(), None);
        // A process that reads nothing: there would be something to wait for.
        while stream.try_write(&[0; 64 << 10]).is_ok() {}
        let begun = std::time::Instant::now();
        drop(stream);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        drop(process);
    }

    /// As when the hand unsets the flag, and takes the connection away between the look and the call.
    #[tokio::test]
    async fn a_call_that_waits_is_ended_with_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Arc::new(BTreeMap::from([(
            PORT,
            OwnedFd::from(listener.try_clone().unwrap()),
        )]));
        let thread = Arc::new(Thread::new().unwrap());
        let porter = Porter {
            requests: None,
            thread: Arc::clone(&thread),
            sockets: Arc::downgrade(&sockets),
        };
        let own = Arc::clone(&thread);
        let waiting = thread::spawn(move || {
            let accepted = accept(&own, &sockets[&PORT]);
            drop(sockets);
            own.is_over.store(true, Ordering::Release);
            accepted
        });
        while !thread.is_accepting.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        drop(porter);
        let accepted = tokio::task::spawn_blocking(move || waiting.join());
        assert!(accepted.await.unwrap().unwrap().is_err());
    }
}
