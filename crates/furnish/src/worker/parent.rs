//! The server's side: starts the proxy of a session, does for it what it can't do itself, and starts another one when it
//! breaks.
//!
//! Nothing that the process says is believed further than the session's own rules go: each host that it wants to have
//! looked up or dialled is held against them here once more.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram as StdDatagram, UnixStream as StdStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_egress::proxy::secrets::{Secret, Unavailable};
use oma_egress::proxy::{Allowed, Decision, Observe, Verdict};
use oma_egress::target::{Host, host};
use oma_egress::{Error, Guard};
use oma_sandbox::gateway::{Passed, Shared};
use oma_sandbox::{Hand, descriptors};
use rustix::process::{Pid, PidfdFlags, Signal};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::{UnixDatagram, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::messages::{
    self, Begin, Dialled, Given, MAX_REPORT, Order, Report, Said, Sealed, Seed, Trouble, plain,
};

/// Questions of one process that are being answered.
const MAX_QUESTIONS: usize = 128;
/// Of these, hosts that are looked up and dialled.
const MAX_DIALS: usize = 8;
/// Reports that may wait.
const QUEUE: usize = 64;
/// Orders that may wait: each can be as long as the longest frame.
const ORDERS: usize = 4;
/// How long it takes until another process is started, which doubles with each that breaks soon, up to this.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(32);
/// How often it is logged that decisions could not be told.
const UNTOLD_EVERY: Duration = Duration::from_secs(60);
/// How long a process may take for what it is sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the proxies of all sessions have in common.
pub(crate) struct Common {
    /// The program, which is started as `<program> egress`.
    pub(crate) program: PathBuf,
    /// Who dials.
    pub(crate) guard: Arc<Guard>,
}

/// Who knows the secrets of a session.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// What the session's authority is made of.
    async fn seed(&self) -> Result<(String, Zeroizing<[u8; 32]>), String>;

    /// Those of now, and what tells them from those of another time; `None` where that is `known`.
    async fn latest(&self, known: Option<u64>) -> Result<Option<(u64, Vec<Secret>)>, Unavailable>;
}

/// The proxy of one session.
pub(crate) struct Apart {
    common: Arc<Common>,
    allowed: watch::Sender<Allowed>,
    observer: Arc<dyn Observe>,
    secrets: Option<Arc<dyn Source>>,
    end: CancellationToken,
}

impl Apart {
    pub(crate) fn new(
        common: Arc<Common>,
        allowed: Allowed,
        observer: Arc<dyn Observe>,
        secrets: Option<Arc<dyn Source>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            common,
            allowed: watch::Sender::new(allowed),
            observer,
            secrets,
            end: CancellationToken::new(),
        })
    }

    /// Puts other rules in the place of the session's, for what comes from now on.
    pub(crate) fn allow(&self, allowed: Allowed) {
        self.allowed.send_replace(allowed);
    }

    /// Ends everything that goes on through it.
    pub(crate) fn close(&self) {
        self.end.cancel();
    }

    /// Stands at the doors until the sandbox ends. A process is started when somebody knocks for the first time.
    pub(crate) async fn run(&self, mut passed: Passed, hand: Arc<dyn Hand>) {
        let mut pause = PAUSE;
        loop {
            let ended = {
                let (life, knocked) = (passed.life.ended(), passed.knocked());
                tokio::select! {
                    biased;
                    () = self.end.cancelled() => return,
                    () = life => return,
                    knocked = knocked => knocked,
                }
            };
            let Passed { ports, sockets, life } = passed;
            let begun = Instant::now();
            let serving = async {
                ended?;
                self.serve(ports, sockets).await
            };
            let ended = tokio::select! {
                biased;
                () = self.end.cancelled() => return,
                () = life.ended() => return,
                ended = serving => ended,
            };
            let error = ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            tracing::warn!(%error, "the proxy of a sandbox has ended; there will be another one");
            tokio::select! {
                biased;
                () = self.end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = if begun.elapsed() > 2 * MAX_PAUSE {
                PAUSE
            } else {
                (2 * pause).min(MAX_PAUSE)
            };
            passed = match hand.doors().await {
                Ok(passed) => passed,
                Err(error) => {
                    // Whoever uses the sandbox next has them passed again, if there is one.
                    tracing::info!(%error, "the doors of a sandbox are gone");
                    return;
                }
            };
        }
    }

    /// Starts a process and answers it until it ends.
    async fn serve(&self, ports: Vec<u16>, sockets: Shared) -> io::Result<()> {
        let mut rules = self.allowed.subscribe();
        let allowed = rules.borrow_and_update().clone();
        let authority = match &self.secrets {
            Some(secrets) => {
                let (name, seed) = secrets.seed().await.map_err(io::Error::other)?;
                Some(Seed {
                    name,
                    seed: hex::encode(&seed[..]).into(),
                })
            }
            None => None,
        };
        let mut process = Process::start(&self.common.program).await?;
        let dialled = process.dialled;
        {
            let borrowed: Vec<_> = sockets.borrow().collect();
            let send = || descriptors::send(dialled.as_fd(), b"doors", &borrowed);
            dialled.async_io(Interest::WRITABLE, send).await?;
        }
        drop(sockets);
        let begin = Begin {
            allowed,
            ports,
            authority,
        };
        let (read, write) = process.control.into_split();
        let (orders, queue) = mpsc::channel(ORDERS);
        let (heard, mut reports) = mpsc::channel(QUEUE);
        let _writing = AbortOnDropHandle::new(tokio::spawn(messages::write_all(write, queue)));
        let reading = AbortOnDropHandle::new(tokio::spawn(hear(read, heard)));
        say(&orders, &begin).await?;
        let mut answers = JoinSet::new();
        let answerer = Arc::new(Answerer {
            guard: Arc::clone(&self.common.guard),
            allowed: self.allowed.subscribe(),
            secrets: self.secrets.clone(),
            dials: Semaphore::new(MAX_DIALS),
            reading: Arc::new(Semaphore::new(1)),
            dialled,
        });
        let mut untold = Untold::default();
        loop {
            tokio::select! {
                ended = &mut process.ended => {
                    let status = ended.map_err(io::Error::other)??;
                    return Err(io::Error::other(format!("it has ended: {status}")));
                }
                report = reports.recv(), if answers.len() < MAX_QUESTIONS => match report {
                    Some(Report::Decided { protocol, host, port, verdict, secrets, untold: before }) => {
                        untold.add(before, Instant::now());
                        let verdict = match verdict {
                            Said::Allowed => Verdict::Allowed,
                            Said::Denied(denial) => Verdict::Denied(denial),
                            Said::Failed => Verdict::Failed(Error::Failed(String::new())),
                        };
                        self.observer.decided(&Decision {
                            protocol,
                            host: &plain(&host),
                            port,
                            verdict: &verdict,
                            secrets: &plain(&secrets),
                        });
                    }
                    Some(question) => {
                        answers.spawn(Arc::clone(&answerer).answer(question));
                    }
                    None => {
                        reading.await.map_err(io::Error::other)??;
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                },
                Some(answer) = answers.join_next() => {
                    // What holds up the next answer of its kind is dropped when this one is on its way.
                    if let Some((order, _turn)) = answer.map_err(io::Error::other)?? {
                        say(&orders, &order).await?;
                    }
                }
                Ok(()) = rules.changed() => {
                    let allowed = rules.borrow_and_update().clone();
                    say(&orders, &Order::Allow { allowed }).await?;
                }
            }
        }
    }
}

/// Decisions that were not told, of which the log has a line now and then, however often a process says so.
#[derive(Default)]
struct Untold {
    count: u64,
    logged: Option<Instant>,
}

impl Untold {
    /// Returns whether it was logged.
    fn add(&mut self, more: u64, now: Instant) -> bool {
        self.count = self.count.saturating_add(more);
        let is_due = self.logged.is_none_or(|logged| now - logged >= UNTOLD_EVERY);
        if self.count == 0 || !is_due {
            return false;
        }
        tracing::warn!(
            untold = self.count,
            "decisions of a sandbox's proxy could not be told"
        );
        (self.count, self.logged) = (0, Some(now));
        true
    }
}

async fn say(orders: &mpsc::Sender<Zeroizing<Vec<u8>>>, order: &impl Serialize) -> io::Result<()> {
    let sent = timeout(PATIENCE, orders.send(messages::frame(order)?)).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn hear(mut from: impl tokio::io::AsyncRead + Unpin, to: mpsc::Sender<Report>) -> io::Result<()> {
    while let Some(report) = messages::read(&mut from, MAX_REPORT).await? {
        if to.send(report).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// What it takes to answer the questions of one process.
struct Answerer {
    guard: Arc<Guard>,
    allowed: watch::Receiver<Allowed>,
    secrets: Option<Arc<dyn Source>>,
    dials: Semaphore,
    /// Secrets are read and told one time after the other.
    reading: Arc<Semaphore>,
    dialled: UnixDatagram,
}

impl Answerer {
    /// The order that is the answer, where it goes that way, and what is to be held until it has gone.
    async fn answer(
        self: Arc<Self>,
        question: Report,
    ) -> io::Result<Option<(Order, Option<OwnedSemaphorePermit>)>> {
        Ok(match question {
            Report::Decided { .. } => None,
            Report::Admit { id, host, port } => {
                let checked = self.host(&host).and_then(|host| self.guard.admit(&host, port));
                let trouble = checked.err().map(Trouble::of);
                Some((Order::Checked { id, trouble }, None))
            }
            Report::LookUp { id, host, port } => {
                let trouble = self.look_up(&host, port).await.err().map(Trouble::of);
                Some((Order::Checked { id, trouble }, None))
            }
            Report::Dial { id, host, port } => {
                let dialled = self.dial(&host, port).await;
                let (trouble, socket) = match dialled {
                    Ok(socket) => (None, Some(socket)),
                    Err(error) => (Some(Trouble::of(error)), None),
                };
                let answer = serde_json::to_vec(&Dialled { id, trouble })?;
                let sockets: Vec<_> = socket.iter().map(OwnedFd::as_fd).collect();
                let send = || descriptors::send(self.dialled.as_fd(), &answer, &sockets);
                let sent = timeout(PATIENCE, self.dialled.async_io(Interest::WRITABLE, send)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                None
            }
            Report::Secrets { id, known } => {
                let turn = Arc::clone(&self.reading).acquire_owned().await;
                let turn = turn.map_err(io::Error::other)?;
                let answer = match &self.secrets {
                    Some(secrets) => match secrets.latest(known).await {
                        Ok(Some((version, secrets))) => {
                            let secrets = secrets.into_iter().map(Sealed::from).collect();
                            Given::These { version, secrets }
                        }
                        Ok(None) => Given::Unchanged,
                        Err(Unavailable) => Given::Unavailable,
                    },
                    None => Given::Unavailable,
                };
                Some((Order::Secrets { id, answer }, Some(turn)))
            }
        })
    }

    /// The host, where the session's rules admit it.
    fn host(&self, text: &str) -> Result<Host, Error> {
        let refused = || Error::Refused {
            host: text.to_owned(),
            reason: "the session's rules do not admit it",
        };
        let host = host(text).map_err(|_| refused())?;
        if self.allowed.borrow().admits(&host) {
            Ok(host)
        } else {
            Err(refused())
        }
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<(), Error> {
        let host = self.host(name)?;
        let _place = self.dials.acquire().await;
        match &host {
            Host::Name(name) => self.guard.look_up(name, port).await,
            Host::Address(_) => self.guard.admit(&host, port),
        }
    }

    async fn dial(&self, name: &str, port: u16) -> Result<OwnedFd, Error> {
        let host = self.host(name)?;
        let _place = self.dials.acquire().await;
        let stream = self.guard.connect(&host, port).await?;
        let stream = stream.into_std();
        stream
            .map(OwnedFd::from)
            .map_err(|error| Error::Failed(error.kind().to_string()))
    }
}

/// A running process, which is killed when this is dropped.
struct Process {
    control: UnixStream,
    dialled: UnixDatagram,
    ended: oneshot::Receiver<io::Result<std::process::ExitStatus>>,
    _running: Running,
}

/// Kills the process that it is of.
struct Running(OwnedFd);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}

impl Process {
    async fn start(program: &std::path::Path) -> io::Result<Self> {
        let (control, their_control) = StdStream::pair()?;
        let (dialled, their_dialled) = StdDatagram::pair()?;
        control.set_nonblocking(true)?;
        dialled.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command
            .arg("egress")
            .env_clear()
            // Where the machine's authorities are, if somewhere else.
            .envs(["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(|name| {
                let value = std::env::var_os(name)?;
                Some((*name, value))
            }))
            .stdin(Stdio::from(OwnedFd::from(their_control)))
            .stdout(Stdio::from(OwnedFd::from(their_dialled)))
            .stderr(Stdio::null());
        let (started, start) = oneshot::channel();
        let (told, ended) = oneshot::channel();
        // It dies with the thread that has started it, so that one waits for it.
        std::thread::Builder::new()
            .name("egress".to_owned())
            .stack_size(512 << 10)
            .spawn(move || {
                let spawned = command.spawn();
                // Our copies of its sockets.
                drop(command);
                match spawned {
                    Ok(mut child) => {
                        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                        let pidfd = pid
                            .ok_or_else(|| io::Error::other("it has no pid"))
                            .and_then(|pid| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
                        if pidfd.is_err() {
                            let _ = child.kill();
                        }
                        // Dropped unseen, it kills the process all the same.
                        let _ = started.send(pidfd.map(Running));
                        let _ = told.send(child.wait());
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })?;
        let running = start.await.map_err(io::Error::other)??;
        Ok(Self {
            control: UnixStream::from_std(control)?,
            dialled: UnixDatagram::from_std(dialled)?,
            ended,
            _running: running,
        })
    }
}
