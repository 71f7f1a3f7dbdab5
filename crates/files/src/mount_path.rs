//! Where a file lies in the sandbox: below the folder of uploads, whatever a client says.

use std::path::PathBuf;

use oma_domain::FileId;
use oma_sandbox::mounts::Place;

use crate::error::{Error, Result};

/// The longest path below the folder of uploads, in bytes.
const MAX_PATH: usize = 1_024;
/// The longest name in it, in bytes.
const MAX_NAME: usize = 255;

/// Where repositories lie.
pub(crate) const WORKSPACE: &str = "/workspace/";

const FIELD: &str = "mount_path";

fn root() -> PathBuf {
    Place::Uploads.path()
}

/// The whole path that a client means; without one, the file's id is its name.
///
/// # Errors
/// [`Error::Invalid`] when it would lead elsewhere.
pub(crate) fn resolve(given: Option<&str>, file: &FileId) -> Result<String> {
    let root = root().display().to_string();
    let given = given.unwrap_or(file.as_str());
    let inside = given
        .strip_prefix(&root)
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(given)
        .trim_start_matches('/');
    if inside.is_empty() || inside.len() > MAX_PATH {
        return Err(Error::invalid(
            FIELD,
            format!("must have 1 to {MAX_PATH} bytes below {root}"),
        ));
    }
    for name in inside.split('/') {
        if matches!(name, "" | "." | "..") || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::invalid(
                FIELD,
                "must be a plain path, without empty names, '.', '..' and control characters",
            ));
        }
    }
    Ok(format!("{root}/{inside}"))
}

/// The whole path of a repository: below the workspace. Without a path, its own name is that.
///
/// # Errors
/// [`Error::Invalid`] when it would lie elsewhere.
pub(crate) fn of_repository(given: Option<&str>, url: &str) -> Result<String> {
    let own = || {
        let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        format!("{WORKSPACE}{}", name.strip_suffix(".git").unwrap_or(name))
    };
    let path = given.map_or_else(own, str::to_owned);
    let inside = path.strip_prefix(WORKSPACE).unwrap_or_default();
    let is_plain = |name: &str| {
        let is_own = name.starts_with(".oma") || name.len() > MAX_NAME;
        !matches!(name, "" | "." | "..") && !is_own && !name.chars().any(char::is_control)
    };
    if inside.len() > MAX_PATH || !inside.split('/').all(is_plain) {
        return Err(Error::invalid(
            FIELD,
            format!("must be a plain path below {WORKSPACE}"),
        ));
    }
    Ok(path)
}

/// The path from the folder of uploads.
pub(crate) fn inside(mount_path: &str) -> &str {
    let root = root();
    let below = std::path::Path::new(mount_path).strip_prefix(root).ok();
    below.and_then(|path| path.to_str()).unwrap_or(mount_path)
}

/// Whether one of two paths is the other, or lies in it.
pub(crate) fn collide(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_uploads() {
        let file = FileId::parse("file_1").unwrap();
        for (given, expected) in [
            (None, Some("file_1")),
            (Some("/data.csv"), Some("data.csv")),
            (Some("data.csv"), Some("data.csv")),
            (Some("/mnt/session/uploads/a/b.txt"), Some("a/b.txt")),
            (Some("/mnt/session/uploadsx"), Some("mnt/session/uploadsx")),
            (Some("/workspace/data.csv"), Some("workspace/data.csv")),
            (Some(""), None),
            (Some("/"), None),
            (Some("../x"), None),
            (Some("/mnt/session/uploads/../x"), None),
            (Some("a//b"), None),
            (Some("a/./b"), None),
            (Some("a/"), None),
            (Some("a\nb"), None),
            (Some("a\0b"), None),
        ] {
            let path = resolve(given, &file).ok();
            let wanted = expected.map(|inside| format!("/mnt/session/uploads/{inside}"));
            assert_eq!(path, wanted, "{given:?}");
            if let Some(path) = &path {
                assert_eq!(Some(inside(path)), expected);
            }
        }
        let long = "x/".repeat(600);
        assert!(resolve(Some(&long), &file).is_err());
    }

    #[test]
    fn repositories_lie_in_the_workspace() {
        for (given, url, expected) in [
            (None, "https://github.com/a/tool", Some("/workspace/tool")),
            (None, "https://git.example/a/b/tool.git/", Some("/workspace/tool")),
            (
                Some("/workspace/src/x"),
                "https://github.com/a/tool",
                Some("/workspace/src/x"),
            ),
            (Some("/workspace"), "https://github.com/a/tool", None),
            (Some("/workspace/../etc"), "https://github.com/a/tool", None),
            (Some("/mnt/skills/x"), "https://github.com/a/tool", None),
            (Some("x"), "https://github.com/a/tool", None),
            (Some("/workspace/.oma/x"), "https://github.com/a/tool", None),
        ] {
            assert_eq!(
                of_repository(given, url).ok().as_deref(),
                expected,
                "{given:?} {url}"
            );
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        for (one, other, do_they) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a", "/ab", false),
            ("/a/b", "/a/c", false),
        ] {
            assert_eq!(collide(one, other), do_they, "{one} {other}");
        }
    }
}
