//! From root, the whole suite once more as an ordinary user.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A user without an account of its own, without groups and without rights.
const NOBODY: u32 = 65_534;

#[test]
fn the_suite_passes_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        // Then all the other tests have just shown it.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Where the tests were built, an ordinary user may not be allowed to look.
    let copy = |from: &std::path::Path, name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let suite = copy(&std::env::current_exe().unwrap(), "suite");
    let hand = copy(&crate::support::exe(), "hand");
    // An engine is started by root only.
    let output = Command::new(suite)
        .args([
            "--skip",
            "ordinary_user",
            "--skip",
            "containers::",
            "--skip",
            "relayed",
            "--test-threads",
            "2",
        ])
        .env("OMA_TEST_HAND", hand)
        .env("TMPDIR", folder.path())
        .env("RUST_BACKTRACE", "0")
        .current_dir(folder.path())
        .gid(NOBODY)
        .uid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = text
        .split(" passed")
        .next()
        .and_then(|text| text.rsplit(' ').next());
    assert!(
        passed.and_then(|count| count.parse::<u32>().ok()) > Some(20),
        "{text}"
    );
}
