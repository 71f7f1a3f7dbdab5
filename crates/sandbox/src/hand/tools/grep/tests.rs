//! Searches over a temporary folder.

use super::*;
use oma_domain::content::joined_text;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn grep(folder: &Path, input: Value, max: usize) -> Result<String, String> {
    let limits = ToolLimits {
        max_matches: max,
        ..ToolLimits::default()
    };
    let watch = Watch::new(CancellationToken::new(), Duration::from_secs(60));
    let input = input::from_object(&input).unwrap();
    run(&Places::new(folder.to_owned()), &limits, &input, &watch).map(|content| joined_text(&content))
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

#[test]
fn table() {
    let folder = folder(&[
        ("a.rs", b"fn one() {}\nlet x = 1;\nfn two() {}\r\n\nlast fn"),
        ("src/b.rs", b"// FN\nfn b() {}\n"),
        ("src/c.txt", b"fn in text\n"),
        ("bin", b"fn \0 binary fn\n"),
        ("ignored/d.rs", b"fn ignored\n"),
        (".gitignore", b"ignored/\n"),
        (".git/e.rs", b"fn git\n"),
        ("latin", b"caf\xe9 fn\n"),
    ]);
    for (input, expected) in [
        (json!({"pattern": "two"}), "a.rs:3:fn two() {}\n"),
        (
            json!({"pattern": "\\{\\}$", "path": "a.rs"}),
            "a.rs:1:fn one() {}\na.rs:3:fn two() {}\n",
        ),
        (
            json!({"pattern": "^fn", "path": "src"}),
            "src/b.rs:2:fn b() {}\nsrc/c.txt:1:fn in text\n",
        ),
        (
            json!({"pattern": "fn b", "glob": "*.rs"}),
            "src/b.rs:2:fn b() {}\n",
        ),
        (
            json!({"pattern": "^fn", "glob": "src/*.txt"}),
            "src/c.txt:1:fn in text\n",
        ),
        (
            json!({"pattern": "// fn", "ignore_case": true}),
            "src/b.rs:1:// FN\n",
        ),
        (
            json!({"pattern": "let", "context": 1, "path": "a.rs"}),
            "a.rs-1-fn one() {}\na.rs:2:let x = 1;\na.rs-3-fn two() {}\n",
        ),
        (
            json!({"pattern": "one|last", "context": 1, "path": "a.rs"}),
            "a.rs:1:fn one() {}\na.rs-2-let x = 1;\n--\na.rs-4-\na.rs:5:last fn\n",
        ),
        (
            json!({"pattern": "fn", "output_mode": "files_with_matches"}),
            "a.rs\nlatin\nsrc/b.rs\nsrc/c.txt\n",
        ),
        (
            json!({"pattern": "fn", "output_mode": "count"}),
            "a.rs:3\nlatin:1\nsrc/b.rs:1\nsrc/c.txt:1\n",
        ),
        (
            json!({"pattern": "café?|caf", "path": "latin"}),
            "latin:1:caf\u{fffd} fn\n",
        ),
        (json!({"pattern": "nothing"}), "No match in 6 files.\n"),
        (
            json!({"pattern": "ignored", "path": "ignored/d.rs"}),
            "ignored/d.rs:1:fn ignored\n",
        ),
        (
            json!({"pattern": "x", "glob": "*.py"}),
            "No match: there is no file to search.\n",
        ),
    ] {
        assert_eq!(
            grep(folder.path(), input.clone(), 100).as_deref(),
            Ok(expected),
            "{input}"
        );
    }
    for (input, expected) in [
        (json!({"pattern": "("}), "not a valid regular expression"),
        (json!({"pattern": "a\nb"}), "not a valid regular expression"),
        (json!({"pattern": "a", "glob": "["}), "not a valid glob"),
        (json!({"pattern": "a", "path": "none"}), "none does not exist"),
        (json!({"pattern": "a", "path": "/dev/zero"}), "is a device"),
    ] {
        let error = grep(folder.path(), input.clone(), 100).unwrap_err();
        assert!(error.contains(expected), "{input}: {error}");
    }
}

#[test]
fn answers_are_bounded() {
    let many: String = (0..50).map(|n| format!("hit {n}\n")).collect();
    let long = format!("{}needle{}\n", "é".repeat(400), "x".repeat(2_000));
    let folder = folder(&[
        ("a", many.as_bytes()),
        ("b", many.as_bytes()),
        ("c", long.as_bytes()),
    ]);
    let text = grep(folder.path(), json!({"pattern": "hit"}), 60).unwrap();
    assert_eq!(text.lines().count(), 61);
    assert!(
        text.ends_with("b:10:hit 9\n[There may be more; narrow the search.]\n"),
        "{text}"
    );
    let text = grep(
        folder.path(),
        json!({"pattern": "hit", "output_mode": "count"}),
        1,
    )
    .unwrap();
    assert_eq!(text, "a:50\n[There may be more; narrow the search.]\n");

    let text = grep(folder.path(), json!({"pattern": "needle"}), 60).unwrap();
    assert!(
        text.starts_with("c:1:…éé") && text.contains("éneedlexx") && text.ends_with("x…\n"),
        "{text}"
    );
    assert!(text.len() < MAX_LINE + 20);
}

#[test]
fn only_ignored_files_are_searched_when_there_are_no_others() {
    let folder = folder(&[(".oma/.gitignore", b"*\n"), (".oma/results/x.txt", b"a result\n")]);
    let text = grep(
        folder.path(),
        json!({"pattern": "result", "path": ".oma/results"}),
        10,
    )
    .unwrap();
    assert!(text.starts_with(".oma/results/x.txt:1:a result\n"), "{text}");
}

#[test]
fn a_search_stops_when_told() {
    let folder = folder(&[("a", b"x")]);
    let token = CancellationToken::new();
    token.cancel();
    let watch = Watch::new(token, Duration::from_secs(60));
    let input = input::from_object(&json!({"pattern": "x"})).unwrap();
    let places = Places::new(folder.path().to_owned());
    let text = joined_text(&run(&places, &ToolLimits::default(), &input, &watch).unwrap());
    assert!(text.contains("took too long"), "{text}");
}

proptest! {
    #[test]
    fn shortened_lines_are_bounded(line in prop::collection::vec(any::<u8>(), 0..1_500), from in 0_usize..1_500) {
        let shown = shorten(&line, from.min(line.len()));
        // A byte that is not UTF-8 becomes a character of three.
        prop_assert!(shown.len() <= MAX_LINE * 3 + 6);
    }

    #[test]
    fn the_match_stays_in_sight(before in "[aé]{0,900}", after in "[aé]{0,900}") {
        let line = format!("{before}needle{after}");
        prop_assert!(shorten(line.as_bytes(), before.len()).contains("needle"));
    }
}
