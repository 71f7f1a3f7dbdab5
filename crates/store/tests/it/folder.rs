//! The data folder: private, locked, and clear about what is wrong with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use oma_store::sqlite::{Options, Sqlite};
use oma_store::{Error, Store};
use tokio::runtime::Runtime;

use crate::again;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The names of the files in a folder, all of which must be private.
fn private_files(folder: &Path) -> Vec<String> {
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            path.file_name().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_private_whatever_the_umask_is() {
    if let Some(folder) = again::child_folder() {
        let data = folder.join("data");
        let store = Sqlite::open(&data, &Options::default()).unwrap();
        Runtime::new().unwrap().block_on(store.ready()).unwrap();
        let open = ["store.db", "store.db-shm", "store.db-wal", "store.lock"];
        assert_eq!(private_files(&data), open);
        drop(store);
        assert_eq!(private_files(&data), ["store.db", "store.lock"]);
        // A file that was opened up is closed again.
        set_mode(&data.join("store.db"), 0o644);
        let store = Sqlite::open(&data, &Options::default()).unwrap();
        assert_eq!(private_files(&data), open);
        return drop(store);
    }
    for umask in ["000", "077", "277"] {
        let temp = tempfile::tempdir().unwrap();
        let test = "folder::files_are_private_whatever_the_umask_is";
        again::run(again::command(test, temp.path(), Some(&format!("umask {umask}"))));
    }
}

#[test]
fn a_folder_that_others_may_write_in_is_refused_and_each_is_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    fs::create_dir(&data).unwrap();
    for given in [0o777, 0o1777, 0o775, 0o770, 0o720, 0o702] {
        set_mode(&data, given);
        match Sqlite::open(&data, &Options::default()) {
            Err(Error::Unavailable(reason)) => {
                assert!(
                    reason.contains(&format!("mode is {:04o}", given & 0o777)),
                    "{reason}"
                );
                assert!(
                    reason.contains(&format!("chmod 700 {}", data.display())),
                    "{reason}"
                );
            }
            other => panic!("{given:o}: {other:?}"),
        }
        assert_eq!(mode(&data), given & 0o777);
        assert!(fs::read_dir(&data).unwrap().next().is_none());
    }
    for given in [0o700, 0o755, 0o711] {
        set_mode(&data, given);
        drop(Sqlite::open(&data, &Options::default()).unwrap());
        assert_eq!(mode(&data), given);
        assert_eq!(mode(&data.join("store.db")), 0o600);
    }
    // Also one that a server has worked in.
    set_mode(&data, 0o775);
    assert!(matches!(
        Sqlite::open(&data, &Options::default()),
        Err(Error::Unavailable(_))
    ));
    assert_eq!(mode(&data), 0o775);
}

#[expect(clippy::panic, reason = "a failure is to end the test")]
fn assert_in_use(folder: &Path) {
    match Sqlite::open(folder, &Options::default()) {
        Err(Error::Unavailable(reason)) => {
            assert!(reason.contains("another server has the data folder"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_server_has_the_folder_open() {
    if let Some(folder) = again::child_folder() {
        return assert_in_use(&folder);
    }
    let temp = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let store = Sqlite::open(temp.path(), &Options::default()).unwrap();
    assert_in_use(temp.path());
    again::run(again::command(
        "folder::one_server_has_the_folder_open",
        temp.path(),
        None,
    ));
    // The one that has it is not disturbed, and leaves it to the next one.
    runtime.block_on(async {
        store.ready().await.unwrap();
        store.close().await;
        for result in [
            store.ready().await,
            store.keep("x", b"x").await.map(drop),
            store.kept("x").await.map(drop),
        ] {
            assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
        }
        store.close().await;
    });
    let next = Sqlite::open(temp.path(), &Options::default()).unwrap();
    runtime.block_on(next.ready()).unwrap();
    drop(next);
    drop(Sqlite::open(temp.path(), &Options::default()).unwrap());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let test = "folder::a_folder_that_cannot_be_written_is_named";
    if let Some(folder) = again::child_folder() {
        for name in ["empty", "used", "under a closed one/data"] {
            let path = folder.join(name);
            match Sqlite::open(&path, &Options::default()) {
                Err(Error::ReadOnly(reason)) => {
                    assert!(reason.contains(path.to_str().unwrap()), "{name}: {reason}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    set_mode(temp.path(), 0o755);
    let [empty, used, closed] = ["empty", "used", "under a closed one"].map(|name| temp.path().join(name));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&closed).unwrap();
    drop(Sqlite::open(&used, &Options::default()).unwrap());
    // For root nothing is read-only, so the child is somebody else, who owns the folders.
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let nobody = 65_534;
    for path in [
        &empty,
        &used,
        &closed,
        &used.join("store.db"),
        &used.join("store.lock"),
    ] {
        if root {
            std::os::unix::fs::chown(path, Some(nobody), Some(nobody)).unwrap();
        }
        set_mode(path, if path.is_dir() { 0o500 } else { 0o400 });
    }
    let mut child = again::command(test, temp.path(), None);
    if root {
        // By the link, because somebody else may not be allowed to walk to where the test was built.
        let mut other = Command::new("/proc/self/exe");
        other
            .args(child.get_args())
            .uid(nobody)
            .gid(nobody)
            .current_dir("/");
        for (name, value) in child.get_envs() {
            other.env(name, value.unwrap_or_default());
        }
        child = other;
    }
    again::run(child);
    for path in [&empty, &used, &closed] {
        set_mode(path, 0o700);
    }
}

#[test]
fn a_file_in_the_place_of_the_folder_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    fs::write(&path, "x").unwrap();
    let result = Sqlite::open(&path, &Options::default());
    assert!(
        matches!(&result, Err(Error::ReadOnly(reason)) if reason.contains("is not a folder")),
        "{result:?}"
    );
}
