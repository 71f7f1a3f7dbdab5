//! A terminal with a program in it: what it shows, and what a user types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::Child;
use tokio::sync::mpsc;

use super::soon;

/// What the keys send.
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
const ENTER: &str = "\r";

/// A pseudo-terminal and the program that runs in it. The program is killed when this is dropped.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// Everything that was written to the screen.
    written: Vec<u8>,
    /// Up to where the test has looked at what is shown.
    looked: usize,
}

impl Terminal {
    /// Runs a program in a terminal of its own, as a login would: as the leader of a session that the terminal
    /// controls, so that keys become signals.
    pub(crate) fn run(program: &Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let side = rustix::fs::open(name, flags, Mode::empty()).expect("the program's side");
        let size = Winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&side, size).expect("sized");
        let another = || Stdio::from(side.try_clone().expect("another handle"));
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(program.get_args())
            .env_clear()
            .envs(
                program
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(another())
            .stdout(another())
            .stderr(another());
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("setsid runs");
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().expect("another handle");
        let (pieces, screen) = mpsc::channel(64);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // When nobody has the program's side open any more, Linux calls that an input error.
            while let Ok(count @ 1..) = output.read(&mut piece) {
                if pieces.blocking_send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            written: Vec::new(),
            looked: 0,
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("written");
    }

    /// Types a line and ends it.
    pub(crate) fn enter(&mut self, line: &str) {
        self.press(&format!("{line}{ENTER}"));
    }

    /// What is shown so far: without the sequences that move the cursor, in the order in which it came.
    pub(crate) fn shown(&self) -> String {
        plain(&String::from_utf8_lossy(&self.written))
    }

    /// Waits until a text is shown, behind what was waited for before.
    pub(crate) async fn until(&mut self, text: &str) {
        loop {
            let shown = self.shown();
            if let Some(at) = shown[self.looked..].find(text) {
                self.looked += at + text.len();
                return;
            }
            let wait = format!("{text:?} on a terminal that shows {shown:?}");
            assert!(
                soon(&wait, self.read()).await,
                "the program ended; waited for {wait}"
            );
        }
    }

    /// Waits for the program's end; gives its status and everything that was shown.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        while soon("the end of a program in a terminal", self.read()).await {}
        let status = soon("its status", self.child.wait()).await.expect("waited for");
        (status, self.shown())
    }

    /// Waits for more to be shown; `false` at the end.
    async fn read(&mut self) -> bool {
        let piece = self.screen.recv().await;
        self.written.extend(piece.iter().flatten());
        piece.is_some()
    }
}

/// A text without escape sequences and carriage returns; a sequence that is not complete is left out as well.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\x1b' => {
                // `ESC [ parameters letter`, or `ESC letter`.
                if rest.next() == Some('[') {
                    let _end = rest.find(|char| ('\x40'..='\x7e').contains(char));
                }
            }
            '\r' => {}
            char => plain.push(char),
        }
    }
    plain
}
