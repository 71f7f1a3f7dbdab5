//! The tools `glob` and `grep`: a pattern (the first line) over a small tree whose `.gitignore` is the rest.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oma_domain::content::joined_text;
use oma_sandbox::hand::tools::look;
use oma_sandbox::protocol::Call;
use serde_json::json;
use tempfile::TempDir;

const FILES: [&str; 7] = [
    "a.rs",
    "src/b.rs",
    "src/deep/c[1].rs",
    "src/deep/er/d.txt",
    "build/e.js",
    ".hidden/f",
    "g h\u{e9}.md",
];

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    for file in FILES {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, file).expect("a file");
    }
    folder
});

fuzz_target!(|text: &str| {
    let (pattern, ignored) = text.split_once('\n').unwrap_or((text, ""));
    // Those lead out of the small tree, as they may in a sandbox: a search of the whole machine finds nothing new.
    if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return;
    }
    let root = FOLDER.path();
    std::fs::write(root.join(".gitignore"), ignored).expect("a file");
    let run = |tool: &str, input| {
        let tool = tool.to_owned();
        look(root.to_owned(), &Call { tool, input }).map(|content| joined_text(&content))
    };
    let (Ok(shown) | Err(shown)) = run("grep", json!({ "pattern": pattern, "glob": pattern }));
    assert!(!shown.is_empty(), "the model is always told something");
    match run("glob", json!({ "pattern": pattern })) {
        Err(message) => assert!(!message.is_empty()),
        Ok(shown) if shown.starts_with("No file matches") => {}
        Ok(shown) => {
            for line in shown.lines().filter(|line| !line.starts_with('[')) {
                assert!(exists(root, line), "{line:?} is not there");
            }
        }
    }
});

fn exists(root: &Path, shown: &str) -> bool {
    root.join(shown).symlink_metadata().is_ok()
}
