//! The `glob` tool: files by name, the newest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use oma_domain::ContentBlock;

use super::FileResult;
use super::paths::Places;
use super::walk::{self, Watch};
use crate::hand::limits::ToolLimits;
use crate::input;

pub(super) fn run(places: &Places, limits: &ToolLimits, input: &input::Glob, watch: &Watch) -> FileResult {
    let folder = places.resolve(input.path.as_deref().unwrap_or("."));
    let (base, pattern) = split(&folder, &input.pattern);
    let matcher = compile(&pattern)?;
    if let Err(error) = std::fs::read_dir(&base) {
        // A path that the caller named must be there; a part of the pattern just matches nothing.
        if base == folder || folder.symlink_metadata().is_err() {
            return Err(places.explain(&folder, &error));
        }
        return Ok(vec![ContentBlock::text(none(&input.pattern))]);
    }
    let mut found = find(&base, &matcher, true, limits.max_matches, watch);
    let mut remark = "";
    if found.total == 0 && !found.stopped {
        found = find(&base, &matcher, false, limits.max_matches, watch);
        remark = "[All of these are ignored by .gitignore.]\n";
    }
    if found.total == 0 {
        let stopped = if found.stopped {
            " The search took too long and was stopped; name a smaller folder."
        } else {
            ""
        };
        return Ok(vec![ContentBlock::text(none(&input.pattern) + stopped)]);
    }
    let mut text = String::new();
    for path in &found.newest {
        text.push_str(&places.show(path));
        text.push('\n');
    }
    text.push_str(remark);
    if found.total > found.newest.len() {
        text.push_str(&format!(
            "[The newest {} of {} files; use a narrower pattern.]\n",
            found.newest.len(),
            found.total
        ));
    }
    if found.stopped {
        text.push_str("[The search took too long and was stopped: there may be more.]\n");
    }
    Ok(vec![ContentBlock::text(text)])
}

fn none(pattern: &str) -> String {
    let hint = if pattern.contains('/') {
        ""
    } else {
        " To look into folders as well, begin it with `**/`."
    };
    format!("No file matches `{pattern}`.{hint}")
}

/// A glob in which `*` stays within a folder and `**` crosses them.
pub(super) fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .empty_alternates(true)
        .build()
        .map_err(|error| format!("`{pattern}` is not a valid glob: {}.", error.kind()))?;
    Ok(glob.compile_matcher())
}

/// Takes the leading folders that are no patterns off a glob: the search starts there.
fn split(folder: &Path, pattern: &str) -> (PathBuf, String) {
    let mut base = folder.to_owned();
    let mut rest = pattern;
    if rest.starts_with('/') {
        base = PathBuf::from("/");
        rest = rest.trim_start_matches('/');
    }
    while let Some((first, others)) = rest.split_once('/') {
        if first.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            break;
        }
        if !matches!(first, "" | ".") {
            base.push(first);
        }
        rest = others;
    }
    (base, rest.to_owned())
}

/// Whether the rest of a pattern matches the path below its base. The base itself is never meant.
fn matches(matcher: &GlobMatcher, relative: &Path) -> bool {
    !relative.as_os_str().is_empty() && matcher.is_match(relative)
}

struct Found {
    newest: Vec<PathBuf>,
    total: usize,
    stopped: bool,
}

fn find(base: &Path, matcher: &GlobMatcher, ignores: bool, max: usize, watch: &Watch) -> Found {
    // The oldest of those kept is on top, ready to make room for a newer one.
    let mut kept: BinaryHeap<(Reverse<SystemTime>, PathBuf)> = BinaryHeap::new();
    let mut total = 0;
    let mut stopped = false;
    for entry in walk::builder(base, ignores).build() {
        if watch.is_over() {
            stopped = true;
            break;
        }
        // What may not be looked at is left out, as it is for `ls`.
        let Ok(entry) = entry else { continue };
        let is_file = entry.file_type().is_some_and(|kind| !kind.is_dir());
        let Ok(relative) = entry.path().strip_prefix(base) else {
            continue;
        };
        if !is_file || !matches(matcher, relative) {
            continue;
        }
        total += 1;
        let modified = entry
            .metadata()
            .ok()
            .and_then(|metadata| metadata.modified().ok());
        kept.push((
            Reverse(modified.unwrap_or(SystemTime::UNIX_EPOCH)),
            entry.into_path(),
        ));
        if kept.len() > max {
            kept.pop();
        }
    }
    let newest = kept.into_sorted_vec().into_iter().map(|(_, path)| path).collect();
    Found {
        newest,
        total,
        stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_domain::content::joined_text;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    fn watch() -> Watch {
        Watch::new(CancellationToken::new(), Duration::from_secs(60))
    }

    /// A folder with these files, each a second older than the one before.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in files.iter().enumerate() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(path).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age as u64);
            file.set_modified(time).unwrap();
        }
        folder
    }

    fn glob(folder: &Path, pattern: &str, path: Option<&str>, max: usize) -> Result<String, String> {
        let input = input::Glob {
            pattern: pattern.to_owned(),
            path: path.map(str::to_owned),
        };
        let limits = ToolLimits {
            max_matches: max,
            ..ToolLimits::default()
        };
        run(&Places::new(folder.to_owned()), &limits, &input, &watch()).map(|content| joined_text(&content))
    }

    #[test]
    fn patterns() {
        let folder = folder(&[
            "src/b.rs",
            "a.rs",
            "src/deep/c.rs",
            ".github/ci.yml",
            "src/d.txt",
            ".git/x.rs",
            ".oma/y.rs",
        ]);
        for (pattern, path, expected) in [
            ("*.rs", None, "a.rs\n"),
            ("**/*.rs", None, "src/b.rs\na.rs\nsrc/deep/c.rs\n"),
            ("src/*.rs", None, "src/b.rs\n"),
            ("./src/**", None, "src/b.rs\nsrc/deep/c.rs\nsrc/d.txt\n"),
            ("**/*.{yml,txt}", None, ".github/ci.yml\nsrc/d.txt\n"),
            ("*.rs", Some("src"), "src/b.rs\n"),
            ("../*.rs", Some("src/deep"), "src/deep/../b.rs\n"),
            ("[ab].rs", None, "a.rs\n"),
            ("src/b.rs", None, "src/b.rs\n"),
            ("none/*.rs", None, "No file matches `none/*.rs`."),
            (
                "*.py",
                None,
                "No file matches `*.py`. To look into folders as well, begin it with `**/`.",
            ),
        ] {
            assert_eq!(
                glob(folder.path(), pattern, path, 10).as_deref(),
                Ok(expected),
                "{pattern}"
            );
        }
        let absolute = format!("{}/src/*.txt", folder.path().display());
        assert_eq!(glob(folder.path(), &absolute, None, 10).unwrap(), "src/d.txt\n");
        for (pattern, path, expected) in [
            ("a[", None, "not a valid glob"),
            ("*", Some("none"), "none does not exist"),
            ("*", Some("a.rs"), "a.rs"),
        ] {
            let error = glob(folder.path(), pattern, path, 10).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }

    #[test]
    fn ignored_files_come_only_when_nothing_else_does() {
        let folder = folder(&["a.js", "node_modules/m/b.js", "build/out.css"]);
        std::fs::write(folder.path().join(".gitignore"), "node_modules/\nbuild\n").unwrap();
        assert_eq!(glob(folder.path(), "**/*.js", None, 10).unwrap(), "a.js\n");
        assert_eq!(
            glob(folder.path(), "node_modules/**/*.js", None, 10).unwrap(),
            "node_modules/m/b.js\n"
        );
        let text = glob(folder.path(), "**/*.css", None, 10).unwrap();
        assert_eq!(text, "build/out.css\n[All of these are ignored by .gitignore.]\n");
    }

    #[test]
    fn the_newest_are_kept() {
        let folder = folder(&["3", "2", "1", "0"]);
        let text = glob(folder.path(), "*", None, 2).unwrap();
        assert_eq!(text, "3\n2\n[The newest 2 of 4 files; use a narrower pattern.]\n");
    }

    #[test]
    fn a_search_stops_when_told() {
        let folder = folder(&["a"]);
        let token = CancellationToken::new();
        token.cancel();
        let watch = Watch::new(token, Duration::from_secs(60));
        let input = input::Glob {
            pattern: "*".to_owned(),
            path: None,
        };
        let places = Places::new(folder.path().to_owned());
        let text = joined_text(&run(&places, &ToolLimits::default(), &input, &watch).unwrap());
        assert!(text.contains("was stopped"), "{text}");
    }

    proptest! {
        #[test]
        fn a_split_pattern_matches_the_same(names in prop::collection::vec("[ab][ab.]{0,2}", 1..4), pattern in "[ab*?./]{1,8}") {
            let path = names.join("/");
            let whole = compile(pattern.trim_start_matches('/'));
            let (base, rest) = split(Path::new("/w"), pattern.trim_start_matches('/'));
            let parts = compile(&rest);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            // Only where no part was dropped: `.` and empty parts of a pattern match no name.
            let plain = pattern.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if let (Ok(whole), Ok(parts), true) = (whole, parts, plain) {
                let full = Path::new("/w").join(&path);
                let split = full.strip_prefix(&base).is_ok_and(|rest| matches(&parts, rest));
                prop_assert_eq!(whole.is_match(&path), split, "{} {}", pattern, path);
            }
        }
    }
}
