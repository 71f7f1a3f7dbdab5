//! Runs a test once more in a process of its own, where it plays the part that must be killed, limited or
//! stripped of its rights.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FOLDER: &str = "OMA_STORE_TEST_FOLDER";

/// The folder that a child is to work in; `None` in the parent.
pub(crate) fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// A command that runs `test` in a child. With a `setup`, a shell carries it out first.
pub(crate) fn command(test: &str, folder: &Path, setup: Option<&str>) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match setup {
        Some(setup) => {
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg(format!("{setup} && exec \"$0\" \"$@\""))
                .arg(exe);
            command
        }
        None => Command::new(exe),
    };
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder);
    command
}

/// Runs a child to its end and passes its failure on.
pub(crate) fn run(mut command: Command) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success(),
        "the child failed ({status}):\n{stdout}\n{stderr}"
    );
    // A name that matches no test would succeed, too.
    assert!(
        stdout.contains("1 passed"),
        "the child ran no test:\n{stdout}\n{stderr}"
    );
}
