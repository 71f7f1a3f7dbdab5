//! The `bash` tool: one shell for all commands of a session, so that the folder, variables, functions and
//! options last from one command to the next.
//!
//! Invariant: commands run one after the other, in the order in which they arrived.
//! Invariant: after every command there is a shell that takes the next one: when a command takes the shell
//! with it, a new one begins in the same folder, and the model is told.

mod capture;
mod shell;
#[cfg(test)]
mod tests;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::shell::{End, Ran, Shell};
use super::{Answer, failure};
use crate::hand::guard::writing::Writing;
use crate::hand::limits::ToolLimits;
use crate::hand::log_ring::LogRing;
use crate::hand::process::kill_strays;
use crate::input;

/// Calls that may wait for the shell; the hand runs fewer at once.
const QUEUE: usize = 128;

/// A call on its way to the shell.
struct Job {
    input: input::Bash,
    cancel: CancellationToken,
    started: oneshot::Sender<()>,
    answer: oneshot::Sender<Answer>,
}

/// The way to the task that has the shell.
pub(super) struct Bash {
    workspace: PathBuf,
    limits: ToolLimits,
    log: Arc<LogRing>,
    writing: Writing,
    stop: CancellationToken,
    /// The task starts with the first call: before that there may be no runtime to start it on.
    task: Mutex<Option<(mpsc::Sender<Job>, JoinHandle<()>)>>,
}

impl Bash {
    pub(super) fn new(workspace: PathBuf, limits: ToolLimits, log: Arc<LogRing>, writing: Writing) -> Self {
        Self {
            workspace,
            limits,
            log,
            writing,
            stop: CancellationToken::new(),
            task: Mutex::new(None),
        }
    }

    /// Runs the call when its turn comes.
    pub(super) async fn run(&self, input: input::Bash, cancel: CancellationToken) -> Answer {
        let ended = || failure("The sandbox is being stopped; the command was not run.");
        let Some(jobs) = self.jobs() else {
            return ended();
        };
        let (started, mut has_started) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let job = Job {
            input,
            cancel: cancel.clone(),
            started,
            answer,
        };
        let queued = async {
            if jobs.send(job).await.is_ok() {
                // An error means that the job was dropped, which the missing answer tells as well.
                let _ = (&mut has_started).await;
            }
        };
        tokio::select! {
            biased;
            () = queued => {}
            () = cancel.cancelled() => {
                has_started.close();
                if has_started.try_recv().is_err() {
                    return failure("The command was cancelled before it started.");
                }
            }
        }
        answered.await.unwrap_or_else(|_| ended())
    }

    /// Ends the shell and everything that commands left running.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((jobs, task)) = task {
            drop(jobs);
            if let Err(error) = task.await {
                tracing::error!(%error, "the shell's task broke");
            }
        }
    }

    fn jobs(&self) -> Option<mpsc::Sender<Job>> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_cancelled() {
            return None;
        }
        // A task that broke is replaced: the next command finds a shell.
        let (jobs, _) = match task.take().filter(|(jobs, _)| !jobs.is_closed()) {
            Some(running) => task.insert(running),
            None => {
                let (jobs, queue) = mpsc::channel(QUEUE);
                let keeper = Keeper {
                    shell: None,
                    cwd: self.workspace.clone(),
                    workspace: self.workspace.clone(),
                    limits: self.limits.clone(),
                    log: Arc::clone(&self.log),
                    writing: self.writing.clone(),
                };
                task.insert((jobs, tokio::spawn(keeper.serve(queue, self.stop.clone()))))
            }
        };
        Some(jobs.clone())
    }
}

/// The task that has the shell.
struct Keeper {
    shell: Option<Shell>,
    /// Where the next shell begins.
    cwd: PathBuf,
    workspace: PathBuf,
    limits: ToolLimits,
    log: Arc<LogRing>,
    writing: Writing,
}

impl Keeper {
    async fn serve(mut self, mut queue: mpsc::Receiver<Job>, stop: CancellationToken) {
        loop {
            let job = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                job = queue.recv() => match job {
                    Some(job) => job,
                    None => break,
                },
            };
            let Job {
                input,
                cancel,
                started,
                answer,
            } = job;
            if started.send(()).is_err() {
                continue;
            }
            let result = tokio::select! {
                result = self.perform(input, &cancel) => result,
                // The command in the shell is killed with the shell, below.
                () = stop.cancelled() => failure("The sandbox is being stopped; the command was killed."),
            };
            // Whoever asked may have gone; the command has run all the same.
            let _ = answer.send(result);
        }
        if let Some(shell) = self.shell.take()
            && !shell.kill().await
        {
            tracing::warn!("processes of the shell outlast it");
        }
    }

    async fn perform(&mut self, input: input::Bash, cancel: &CancellationToken) -> Answer {
        let mut notes = Vec::new();
        if input.restart {
            let all_gone = match self.shell.take() {
                Some(shell) => shell.kill().await,
                // One that has ended by itself may have left something that nobody else can end, a fork bomb for example.
                None => kill_strays().await,
            };
            if !all_gone {
                notes.push("Some processes could not be ended.".to_owned());
            }
            self.cwd.clone_from(&self.workspace);
        }
        self.replace_muted_shell(&mut notes).await;
        if let Err(answer) = self.ensure_shell(&mut notes) {
            return answer;
        }
        let Some(command) = input.command else {
            notes.insert(0, format!("The shell was restarted in {}.", self.cwd.display()));
            return Answer::text(notes.join("\n"), false);
        };
        let wall = input
            .timeout_ms
            .map_or(self.limits.default_wall, Duration::from_millis)
            .min(self.limits.max_wall);
        let Some(shell) = &mut self.shell else {
            return failure("The shell could not be started.");
        };
        let ran = shell
            .run(&command, Instant::now() + wall, cancel, self.limits.max_output)
            .await;
        self.cwd = shell.cwd().to_owned();
        if !matches!(ran.end, End::Done(_)) {
            self.shell = None;
        }
        self.report(ran, wall, notes)
    }

    /// A shell that has lost the right to write does not get it back, so when there is room again another one
    /// takes its place. What it has left in the background goes on.
    async fn replace_muted_shell(&mut self, notes: &mut Vec<String>) {
        let is_muted = |shell: &mut Shell| shell.is_muted();
        if self.writing.is_denied() || !self.shell.as_mut().is_some_and(is_muted) {
            return;
        }
        if let Some(mut shell) = self.shell.take() {
            self.cwd = shell.cwd().to_owned();
            if !shell.retire().await {
                notes.push("Some processes of the shell before could not be ended.".to_owned());
            }
            notes.push(
                "The shell before could not write any more, since there had been no room on the disk, so this ran in a \
                 new one; variables and functions are gone."
                    .to_owned(),
            );
        }
    }

    /// Makes sure that there is a shell, and notes what became of the one before.
    fn ensure_shell(&mut self, notes: &mut Vec<String>) -> Result<(), Answer> {
        if let Some(shell) = &mut self.shell {
            match shell.ended() {
                Ok(None) => return Ok(()),
                Ok(Some(status)) => notes.push(format!(
                    "The shell had ended since the last command ({}), so this ran in a new one; variables and functions are gone.",
                    describe(status)
                )),
                Err(error) => notes.push(format!("The shell was lost ({error}), so this ran in a new one.")),
            }
            self.cwd = shell.cwd().to_owned();
            self.shell = None;
        }
        self.cwd = self.next_cwd();
        let may_write = !self.writing.is_denied();
        match Shell::start(&self.cwd, Arc::clone(&self.log), may_write) {
            Ok(shell) => {
                self.shell = Some(shell);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(failure("There is no `bash` in this sandbox."))
            }
            Err(error) => Err(failure(format!("The shell could not be started: {error}."))),
        }
    }

    /// The folder that a new shell begins in: the one before it was in, if that is still there.
    fn next_cwd(&self) -> PathBuf {
        let folders = [self.cwd.as_path(), self.workspace.as_path(), Path::new("/")];
        folders
            .into_iter()
            .find(|folder| folder.is_dir())
            .unwrap_or(Path::new("/"))
            .to_owned()
    }

    fn report(&self, ran: Ran, wall: Duration, mut notes: Vec<String>) -> Answer {
        let cwd = self.next_cwd();
        let fresh = format!(
            "The next command gets a new shell, in {}; variables and functions are gone.",
            cwd.display()
        );
        let is_error = match &ran.end {
            End::Done(0) => false,
            End::Done(code) => {
                notes.push(format!("Exit status {code}{}.", signal_of(*code)));
                false
            }
            End::ShellGone(status) => {
                notes.push(format!(
                    "The command ended the shell ({}). {fresh}",
                    describe(*status)
                ));
                status.signal().is_some()
            }
            End::TimedOut => {
                notes.push(format!(
                    "The command took longer than {} ms and was killed with everything that it had started. {fresh}",
                    wall.as_millis()
                ));
                true
            }
            End::Cancelled => {
                notes.push(
                    "The command was cancelled and killed with everything that it had started.".to_owned(),
                );
                true
            }
            End::Broken(error) => {
                notes.push(format!(
                    "The shell could not be used ({error}) and was killed. {fresh}"
                ));
                true
            }
        };
        if !ran.all_gone {
            notes.push("Some of its processes could not be killed yet.".to_owned());
        }
        let mut text = ran.output;
        if text.is_empty() && notes.is_empty() {
            text.push_str("(no output)");
        }
        for note in notes {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("[{note}]"));
        }
        Answer::text(text, is_error)
    }
}

/// What a status above 128 usually means.
fn signal_of(code: i32) -> &'static str {
    match code - 128 {
        2 => " (interrupted, SIGINT)",
        4 => " (illegal instruction, SIGILL)",
        6 => " (aborted, SIGABRT)",
        8 => " (arithmetic error, SIGFPE)",
        9 => " (killed, SIGKILL; perhaps for want of memory)",
        11 => " (invalid memory access, SIGSEGV)",
        13 => " (broken pipe, SIGPIPE)",
        15 => " (terminated, SIGTERM)",
        24 => " (too much processor time, SIGXCPU)",
        25 => " (file too large, SIGXFSZ)",
        _ => "",
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal 9, perhaps for want of memory".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
