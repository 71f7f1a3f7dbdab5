//! The files that a session has made for its client, as far as a grader can read them.

use oma_runtime::SessionInfo;
use oma_sandbox::files::{Entry, Workspace};
use oma_sandbox::mounts::Place;

use crate::Native;

/// The most files that are looked at.
const MAX_FILES: usize = 100;
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Their texts, within so many bytes; nothing where there are none, or where they can't be read.
pub(crate) async fn read(native: &Native, session: &SessionInfo, bytes: usize) -> Vec<String> {
    let place = Place::Outputs;
    let folder = match native.pool.provider().mount(&session.id, &place).await {
        Ok(folder) => folder,
        Err(error) => {
            tracing::debug!(%error, "a session's outputs can't be shown to a grader");
            return Vec::new();
        }
    };
    let root = place.path();
    let mut left = bytes;
    let mut shown = Vec::new();
    for file in files(&*folder).await {
        let name = root.join(&file.path).display().to_string();
        let text = match file.size {
            0..=MAX_FILE => folder.read(&file.path, MAX_FILE).await.ok(),
            _ => None,
        };
        let text = text.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let told = match text {
            Some(text) => format!("The file {name}:\n{text}"),
            None => format!(
                "The file {name} has {} bytes, which are not shown here.",
                file.size
            ),
        };
        match left.checked_sub(told.len()) {
            Some(rest) => {
                left = rest;
                shown.push(told);
            }
            None => shown.push(format!("The file {name} is too long to be shown here.")),
        }
    }
    shown
}

/// The files below a folder, a bounded number of them.
async fn files(folder: &dyn Workspace) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    let mut looked_at = 0;
    while let Some(path) = folders.pop() {
        looked_at += 1;
        if looked_at > MAX_FILES {
            break;
        }
        let entries = match folder.list(&path, MAX_FILES).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "a folder of outputs can't be listed");
                continue;
            }
        };
        for entry in entries {
            if entry.is_dir {
                folders.push(entry.path);
            } else if found.len() < MAX_FILES {
                found.push(entry);
            }
        }
    }
    found
}
