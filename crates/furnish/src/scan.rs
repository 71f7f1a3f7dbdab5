//! Looking at the files of a copy: which there are, and which may have changed.

use std::collections::BTreeMap;

use oma_domain::memory::path::MAX_SEGMENTS;
use oma_sandbox::files::{Error, Workspace};

/// The most files and folders that are looked at.
pub(crate) const MOST: usize = 5_000;

/// What tells cheaply whether a file is as it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    /// Milliseconds since the epoch.
    pub(crate) changed: f64,
}

/// The files of a copy.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By path, with the slash at its beginning.
    pub(crate) files: BTreeMap<String, Mark>,
    /// Whether there are more than are looked at, or folders that are too deep.
    pub(crate) cut: bool,
}

/// Looks at all files.
pub(crate) async fn scan(folder: &dyn Workspace) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut folders = vec![(String::new(), 1)];
    let mut left = MOST;
    while let Some((path, depth)) = folders.pop() {
        let entries = match folder.list(&path, left.saturating_add(1)).await {
            Ok(entries) => entries,
            // It was there a moment ago.
            Err(Error::NotFound) if !path.is_empty() => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let Some(less) = left.checked_sub(1) else {
                found.cut = true;
                return Ok(found);
            };
            left = less;
            let path = match path.as_str() {
                "" => entry.name,
                path => format!("{path}/{}", entry.name),
            };
            if !entry.is_dir {
                let mark = Mark {
                    size: entry.size,
                    changed: entry.mtime_ms,
                };
                found.files.insert(format!("/{path}"), mark);
            } else if depth < MAX_SEGMENTS {
                folders.push((path, depth + 1));
            } else {
                found.cut = true;
            }
        }
    }
    Ok(found)
}
