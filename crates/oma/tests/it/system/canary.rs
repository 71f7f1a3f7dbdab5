//! The search for secrets that got out (I9). All secrets that tests plant begin alike: keys of model providers,
//! tokens of the API, credentials in vaults, variables of the server's environment that are nobody's business.
//! Every test of the binary looks for them in each answer, header and frame that it gets, in every file of its
//! data folder and in the log, and in what processes in sandboxes show of themselves.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::leftovers;

/// What every planted secret begins with. No content of messages or files may.
pub(crate) const PREFIX: &str = "canary-";

/// How much of a file is looked at. Some tests have sandboxes write until they must not.
const MOST: u64 = 64 << 20;

/// Panics when a secret is in something that somebody gets to see.
#[track_caller]
pub(crate) fn absent(place: &str, bytes: &[u8]) {
    absent_too(place, bytes, PREFIX.as_bytes());
}

#[track_caller]
fn absent_too(place: &str, bytes: &[u8], secret: &[u8]) {
    if let Some(at) = memchr::memmem::find(bytes, secret) {
        let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + 60)];
        panic!("a secret is in {place}: {}", String::from_utf8_lossy(around));
    }
}

/// Panics when a secret is in a data folder, whose server has ended, or in the log beside it.
pub(crate) fn absent_below(folder: &Path) {
    // The master key of the vaults, where the server has made it, is in its own file only.
    let key_path = folder.join("data/vault.key");
    let key = fs::read_to_string(&key_path).unwrap_or_default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable") {
            let entry = entry.expect("readable");
            let (path, kind) = (entry.path(), entry.file_type().expect("known"));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let mut bytes = Vec::new();
                let file = File::open(&path).expect("readable");
                file.take(MOST).read_to_end(&mut bytes).expect("readable");
                let place = path.display().to_string();
                absent(&place, &bytes);
                if !key.is_empty() && path != key_path {
                    absent_too(&place, &bytes, key.trim().as_bytes());
                }
            }
        }
    }
}

/// Panics when a secret is in what processes in sandboxes show of themselves. The server has it, and shows it to
/// its own user only.
pub(crate) fn absent_in_sandboxes(data: &Path, server: i32) {
    for pid in leftovers::processes(data)
        .into_iter()
        .filter(|pid| *pid != server)
    {
        for file in ["environ", "cmdline", "mountinfo"] {
            let path = format!("/proc/{pid}/{file}");
            // What can't be read has just ended.
            absent(&path, &fs::read(&path).unwrap_or_default());
        }
    }
    absent(
        "the server's arguments",
        &fs::read(format!("/proc/{server}/cmdline")).unwrap_or_default(),
    );
}
