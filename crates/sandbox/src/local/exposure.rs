//! What of the host every sandbox, or every build of one, can read, and what must therefore not lie there.
//!
//! On a host where the server is no superuser, sandboxes have its own user id: file modes keep nothing of it from
//! them, only absence does.

use std::path::{Path, PathBuf};

use super::site;
use crate::hand::launch::root;

/// The folder or file through which sandboxes could read what is at `path`, or a part of it; `None` when it is
/// out of their sight. What does not exist yet is judged by where it would be.
#[must_use]
pub fn exposed(path: &Path, readable: &[PathBuf]) -> Option<PathBuf> {
    let system = root::SYSTEM.iter().map(|name| Path::new("/").join(name));
    // Without a look at it, all of it counts as seen.
    let etc = root::shown_of_etc().unwrap_or_else(|_| vec![PathBuf::new()]);
    let builds = site::ETC.iter().map(PathBuf::from);
    let etc = etc.into_iter().chain(builds);
    let etc = etc.map(|name| Path::new("/etc").join(name));
    let shown: Vec<PathBuf> = system.chain(etc).chain(readable.iter().cloned()).collect();
    shows(&shown, path)
}

/// The first of these through which what is at `path`, or a part of it, could be read.
pub(crate) fn shows(shown: &[PathBuf], path: &Path) -> Option<PathBuf> {
    let path = resolved(path);
    let leads_there = |shown: &&PathBuf| {
        let shown = resolved(shown);
        path.starts_with(&shown) || shown.starts_with(&path)
    };
    shown
        .iter()
        .filter(|shown| shown.exists())
        .find(leads_there)
        .cloned()
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return absolute;
        };
        missing.push(name.to_owned());
        existing = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sandboxes_see_is_told_from_what_they_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for name in ["shown/inner", "data"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(base.join("shown"), base.join("link")).unwrap();
        let readable = [base.join("shown")];
        for (path, seen) in [
            (base.join("data"), false),
            (base.join("data/not/there"), false),
            (base.join("shown-not"), false),
            (base.join("shown"), true),
            (base.join("shown/inner"), true),
            (base.join("shown/not/there"), true),
            (base.join("link/inner"), true),
            // A part of it would be seen.
            (base.clone(), true),
            (PathBuf::from("/usr/local/oma/data"), true),
            (PathBuf::from("/etc/ssl/certs/token"), true),
            (PathBuf::from("/etc/skel/token"), true),
            (PathBuf::from("/etc/default/oma"), false),
            (PathBuf::from("/etc/oma/token"), false),
        ] {
            assert_eq!(exposed(&path, &readable).is_some(), seen, "{}", path.display());
        }
    }
}
