//! Whether the session may write.
//!
//! Where it may not, every process has a file size limit of zero: with that, deleting works and writing does
//! not. A soft limit is one that its process can raise again, so commands get a hard one, for good; the hand
//! itself keeps the right to raise its own. So a shell that was there, or began, in such a time has to be
//! replaced afterwards.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::hand::process::{Table, is_root, kill_everything};

/// How long an answer may wait for the guard to see what its call has changed.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the session may write: the guard says so, and whoever starts a command or answers a call asks.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    state: Arc<watch::Sender<State>>,
    /// How often somebody has asked for a new look.
    asked: Arc<watch::Sender<u64>>,
}

/// What the guard has last said.
#[derive(Debug, Default)]
struct State {
    /// Why nothing may be written, in words for the model.
    denied: Option<Arc<str>>,
    /// What was asked for up to this number has been seen to.
    answered: u64,
    /// Commands are being killed, so nobody waits for a look now.
    is_killing: bool,
}

impl Writing {
    /// Everything may be written.
    pub(crate) fn allowed() -> Self {
        Self {
            state: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// Whether nothing may be written now.
    pub(crate) fn is_denied(&self) -> bool {
        self.state.borrow().denied.is_some()
    }

    /// For a call that begins: why nothing may be written, if so, after a fresh look if it can be had soon. What
    /// was removed meanwhile has made room.
    pub(crate) async fn before_call(&self) -> Option<Arc<str>> {
        self.look_again(|_| false).await
    }

    /// The same for a call that has ended. While commands are killed it does not wait: who kills them waits for
    /// the call.
    pub(crate) async fn after_call(&self) -> Option<Arc<str>> {
        self.look_again(|state| state.is_killing).await
    }

    async fn look_again(&self, is_enough: impl Fn(&State) -> bool) -> Option<Arc<str>> {
        let mut state = self.state.subscribe();
        if self.is_denied() {
            let mut ticket = 0;
            self.asked.send_modify(|asked| {
                *asked += 1;
                ticket = *asked;
            });
            let seen = state.wait_for(|state| state.answered >= ticket || is_enough(state));
            // When it takes too long, what was last seen holds.
            let _ = timeout(LOOK_TIMEOUT, seen).await;
        }
        self.last_denial()
    }

    /// Why nothing may be written, as far as it is known.
    pub(crate) fn last_denial(&self) -> Option<Arc<str>> {
        self.state.borrow().denied.clone()
    }

    /// Word of each wish for a new look.
    pub(super) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Whether a look is wanted that what was asked for up to `asked` has not had.
    pub(super) fn is_asked(&self, asked: u64) -> bool {
        asked > self.state.borrow().answered
    }

    /// Says what holds now. `answered` is what had been asked for when the look began.
    pub(super) fn decide(&self, denied: Option<String>, answered: u64) {
        self.state.send_modify(|state| {
            state.denied = denied.map(Arc::from);
            state.answered = answered;
            state.is_killing = false;
        });
    }

    /// Says what holds from now on, while commands are killed for it.
    pub(super) fn deny_and_kill(&self, why: String) {
        self.state.send_modify(|state| {
            state.denied = Some(Arc::from(why));
            state.is_killing = true;
        });
    }
}

/// How far the loss of the right to write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// No process of the session ever gets it back.
    Everyone,
    /// Shells never get it back, and what runs may: it has not done anything.
    Shells,
}

/// Takes the right to write from every process of the session, and for now from the hand. When the processes
/// can't be read, those that should lose it are killed, and the hand passes its own limit on to whatever it
/// starts.
pub(super) fn deny(reach: Reach) {
    for_all(true, |pid, limit| {
        let for_good = pid != own() && (reach == Reach::Everyone || is_root(pid));
        Rlimit {
            current: Some(0),
            maximum: if for_good { Some(0) } else { limit.maximum },
        }
    });
}

/// Gives the hand its right back, and whoever has not lost it for good.
pub(super) fn allow() {
    for_all(false, |_, limit| Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    });
}

fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn for_all(is_denial: bool, new: impl Fn(i32, Rlimit) -> Rlimit) {
    let pids: Vec<i32> = match Table::read() {
        Ok(table) => table.rows.into_keys().collect(),
        Err(_) => {
            if is_denial {
                kill_everything();
            }
            vec![own()]
        }
    };
    for pid in pids {
        // A process that has just ended needs no limit.
        if let Ok(old) = limit(pid) {
            let _ = rustix::process::prlimit(Pid::from_raw(pid), Resource::Fsize, new(pid, old));
        }
    }
}

fn limit(pid: i32) -> io::Result<Rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the new limit is absent and the old one is written to a valid `rlimit`.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let of = |value: libc::rlim_t| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Rlimit {
        current: of(limit.rlim_cur),
        maximum: of(limit.rlim_max),
    })
}

/// Whether the process can never write to a file again.
pub(crate) fn has_lost(pid: i32) -> bool {
    limit(pid).is_ok_and(|limit| limit.maximum == Some(0))
}

/// Takes the right to write from this process for good, for use between fork and exec: makes one system call.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn renounce() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(rustix::process::setrlimit(Resource::Fsize, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_looked_at_again_before_it_is_told() {
        let writing = Writing::allowed();
        assert_eq!(writing.after_call().await, None, "nobody has to look");
        writing.decide(Some("full".to_owned()), 0);
        let mut asked = writing.asked();
        let guard = writing.clone();
        let look = async move {
            asked.changed().await.unwrap();
            let ticket = *asked.borrow();
            // A look that had begun before does not count.
            guard.decide(Some("still full".to_owned()), ticket - 1);
            tokio::task::yield_now().await;
            guard.decide(None, ticket);
        };
        let (told, ()) = tokio::join!(writing.after_call(), look);
        assert_eq!(told, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_look_is_bounded() {
        let writing = Writing::allowed();
        writing.decide(Some("full".to_owned()), 0);
        let begun = tokio::time::Instant::now();
        assert_eq!(writing.after_call().await.as_deref(), Some("full"));
        assert_eq!(begun.elapsed(), LOOK_TIMEOUT, "nobody looks");
        writing.deny_and_kill("over".to_owned());
        assert_eq!(writing.after_call().await.as_deref(), Some("over"));
        assert_eq!(begun.elapsed(), LOOK_TIMEOUT, "nobody has the time to look");
        // A call that comes while commands are killed begins after that.
        let guard = writing.clone();
        let (told, ()) = tokio::join!(writing.before_call(), async move { guard.decide(None, u64::MAX) });
        assert_eq!(told, None);
    }
}
