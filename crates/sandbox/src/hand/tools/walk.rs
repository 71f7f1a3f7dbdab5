//! Looking through folders, for `glob` and `grep`: what is skipped, and when to stop.
//!
//! What `.gitignore` and `.ignore` files name is left out, in and out of repositories; so are `.git` and our
//! own `.oma`. Hidden files are looked at: configuration is part of a project. Links are not followed.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use ignore::WalkBuilder;
use tokio_util::sync::CancellationToken;

/// Folders that are never looked into, unless they are what the search starts at.
const SKIPPED: [&str; 2] = [".git", ".oma"];

/// Tells a search when to stop.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    stop: CancellationToken,
    deadline: Instant,
}

impl Watch {
    /// Says stop once `stop` is cancelled or `timeout` has passed.
    pub(super) fn new(stop: CancellationToken, timeout: Duration) -> Self {
        Self {
            stop,
            deadline: Instant::now() + timeout,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// A reader that fails once its watch says stop.
pub(super) struct Watched<'a, R> {
    pub(super) inner: R,
    pub(super) watch: &'a Watch,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.inner.read(buffer)
    }
}

/// A walk from `base`; without `ignores` the ignore files do not count.
pub(super) fn builder(base: &Path, ignores: bool) -> WalkBuilder {
    let mut builder = WalkBuilder::new(base);
    builder
        .standard_filters(false)
        .parents(ignores)
        .ignore(ignores)
        .git_ignore(ignores)
        .git_exclude(ignores)
        .require_git(false)
        .filter_entry(|entry| {
            entry.depth() == 0 || !SKIPPED.iter().any(|name| entry.file_name() == OsStr::new(name))
        });
    builder
}
