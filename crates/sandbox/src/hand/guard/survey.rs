//! The thread that measures. One of its own: the hand's other threads work for the session, which could keep
//! all of them busy, and when a session has used up its processes there would be no new one.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::holdings::{Holdings, Workspace};
use crate::files::usage::{self, Usage};
use crate::hand::process;

/// How long a survey may take before it counts as failed. The longest is bounded by what a workspace may hold.
const PATIENCE: Duration = Duration::from_secs(60);

const STACK: usize = 1 << 20;

/// What is asked of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The files and the processes. Stops counting the files beyond this many.
    Everything(u64),
    /// The files only, when nothing has run yet.
    Files(u64),
    /// The processes only, which is quick.
    Processes,
    /// What the processes have written, which is quicker.
    Writes,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// What has a name; nothing when only the processes were looked at.
    pub(super) files: Usage,
    /// What has none.
    pub(super) held: Holdings,
}

struct Request {
    scope: Scope,
    answer: oneshot::Sender<io::Result<Survey>>,
}

/// The way to the thread. It ends when this is gone.
#[derive(Debug)]
pub(super) struct Surveyor {
    requests: mpsc::SyncSender<Request>,
}

impl Surveyor {
    /// Starts the thread, for the folders at these paths: all that the session may write to on the machine's disk.
    ///
    /// # Errors
    /// When there can be no thread, or one of the folders can't be opened.
    pub(super) fn start(paths: Vec<PathBuf>) -> io::Result<Self> {
        let workspace = Workspace::of(&paths)?;
        let (requests, queue) = mpsc::sync_channel::<Request>(1);
        std::thread::Builder::new()
            .name("survey".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                process::guard_with(rustix::thread::gettid().as_raw_nonzero().get());
                serve(&queue, &paths, &workspace);
            })?;
        Ok(Self { requests })
    }

    /// Looks around.
    ///
    /// # Errors
    /// When something can't be looked at, or it takes too long.
    pub(super) async fn survey(&self, scope: Scope) -> io::Result<Survey> {
        let (answer, answered) = oneshot::channel();
        // One that is still at work on a question that was given up has no time for another.
        self.requests
            .try_send(Request { scope, answer })
            .map_err(|_| io::ErrorKind::ResourceBusy)?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(survey)) => survey,
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn serve(queue: &mpsc::Receiver<Request>, paths: &[PathBuf], workspace: &Workspace) {
    while let Ok(Request { scope, answer }) = queue.recv() {
        // Who has asked may have given up.
        let _ = answer.send(look(scope, paths, workspace));
    }
}

fn look(scope: Scope, paths: &[PathBuf], workspace: &Workspace) -> io::Result<Survey> {
    // The processes come first: a file that is deleted between the two looks is missed once. The other way
    // round it would count twice, and commands would be killed for nothing.
    let held = match scope {
        Scope::Everything(_) | Scope::Processes => workspace.holdings()?,
        Scope::Files(_) => Holdings::default(),
        Scope::Writes => Holdings {
            written: Workspace::written()?,
            ..Holdings::default()
        },
    };
    let files = match scope {
        Scope::Everything(stop_at) | Scope::Files(stop_at) => measure(paths, stop_at)?,
        Scope::Processes | Scope::Writes => Usage::default(),
    };
    Ok(Survey { files, held })
}

/// What all of the folders hold.
fn measure(paths: &[PathBuf], stop_at: u64) -> io::Result<Usage> {
    let mut all = Usage::default();
    for path in paths {
        let found = usage::measure(path, stop_at.saturating_sub(all.inodes))?;
        all.bytes += found.bytes;
        all.inodes += found.inodes;
        all.hidden |= found.hidden;
        if all.inodes > stop_at {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_keeps_all_threads_busy_is_measured_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (end, busy) = mpsc::channel::<()>();
        runtime.block_on(async {
            let surveyor = Surveyor::start(vec![folder.path().to_owned()]).unwrap();
            let work = tokio::task::spawn_blocking(move || busy.recv());
            surveyor.survey(Scope::Writes).await.unwrap();
            surveyor.survey(Scope::Writes).await.unwrap();
            drop(end);
            assert!(work.await.unwrap().is_err(), "it was at work meanwhile");
        });
        assert!(Surveyor::start(vec![folder.path().join("absent")]).is_err());
    }
}
