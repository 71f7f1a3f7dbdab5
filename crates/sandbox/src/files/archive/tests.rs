use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use super::*;

fn bounds() -> Bounds {
    Bounds {
        bytes: 1 << 20,
        entries: 100,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn packed(folder: &Path) -> (Contents, Vec<u8>) {
    pack(folder, Vec::new(), bounds()).unwrap()
}

/// An archive that nobody here would make.
fn forged(fill: impl FnOnce(&mut tar::Builder<zstd::Encoder<'static, Vec<u8>>>)) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).unwrap());
    fill(&mut archive);
    archive.into_inner().unwrap().finish().unwrap()
}

/// A header with a name that the library would refuse.
fn named(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let field = &mut header.as_gnu_mut().unwrap().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

#[test]
fn a_workspace_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = from.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), b"one").unwrap();
    fs::write(root.join("run"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("a/b/file"), root.join("same")).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    symlink("a/b", root.join("in")).unwrap();
    let long = "n".repeat(200);
    fs::create_dir(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("größe"), vec![7; 300_000]).unwrap();
    fs::create_dir(root.join("shut")).unwrap();
    fs::write(root.join("shut/in"), b"x").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::set_permissions(root.join("shut"), fs::Permissions::from_mode(0o500)).unwrap();

    let (contents, bytes) = packed(root);
    assert_eq!(contents.bytes, 3 + 10 + 300_000 + 1);
    assert_eq!((contents.entries, contents.skipped), (11, 1));
    assert_eq!(packed(root).1, bytes, "the same again");
    let unpacked = unpack(&*bytes, to.path(), None, bounds()).unwrap();
    assert_eq!(
        (unpacked.bytes, unpacked.entries),
        (contents.bytes, contents.entries)
    );
    let root = to.path();
    assert_eq!(fs::read(root.join("a/b/file")).unwrap(), b"one");
    let ino = |path| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(ino("a/b/file"), ino("same"), "one file with two names");
    let run = fs::metadata(root.join("run")).unwrap();
    assert_eq!(run.mode() & 0o7777, 0o755, "no rights of its owner's");
    let time = |root: &Path| fs::metadata(root.join("run")).unwrap().mtime();
    assert_eq!(time(root), time(from.path()));
    assert_eq!(fs::read_link(root.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read(root.join("in/file")).unwrap(), b"one");
    assert_eq!(fs::read(root.join(&long).join("größe")).unwrap().len(), 300_000);
    assert_eq!(fs::metadata(root.join("shut")).unwrap().mode() & 0o777, 0o500);
    assert!(!root.join("pipe").exists());
    assert_eq!(packed(root).1, bytes, "and there is no difference");
    // So that both can be removed.
    for folder in [from.path(), to.path()] {
        fs::set_permissions(folder.join("shut"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn there_are_bounds() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..5 {
        fs::write(from.path().join(number.to_string()), vec![0; 1_000]).unwrap();
    }
    let (_, bytes) = packed(from.path());
    let tight = [
        Bounds {
            bytes: 4_999,
            ..bounds()
        },
        Bounds {
            entries: 4,
            ..bounds()
        },
    ];
    for bounds in tight {
        assert!(matches!(
            pack(from.path(), Vec::new(), bounds),
            Err(Error::TooMuch(_))
        ));
        let to = tempfile::tempdir().unwrap();
        let unpacked = unpack(&*bytes, to.path(), None, bounds);
        assert!(matches!(unpacked, Err(Error::TooMuch(_))));
    }
    let late = Bounds {
        deadline: Instant::now() - Duration::from_millis(1),
        ..bounds()
    };
    assert!(matches!(pack(from.path(), Vec::new(), late), Err(Error::Late)));
    assert!(matches!(unpack(&*bytes, to.path(), None, late), Err(Error::Late)));
    // Much in little: a hole is as large as it says.
    let huge = File::create(from.path().join("hole")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(matches!(
        pack(from.path(), Vec::new(), bounds()),
        Err(Error::TooMuch(_))
    ));
    // Deeper than anything should be.
    let deep = tempfile::tempdir().unwrap();
    let mut path = deep.path().to_owned();
    for _ in 0..MAX_DEPTH + 2 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let wide = Bounds {
        entries: 1_000,
        ..bounds()
    };
    assert!(matches!(
        pack(deep.path(), Vec::new(), wide),
        Err(Error::TooMuch(_))
    ));
}

#[test]
fn nothing_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| outside.path().join(name).to_str().unwrap().to_owned();
    fs::write(outside.path().join("victim"), b"whole").unwrap();
    let file = |name: &str| {
        let name = name.to_owned();
        forged(move |archive| {
            archive
                .append(&named(&name, EntryType::Regular, 1), &b"x"[..])
                .unwrap()
        })
    };
    let through_a_link = |kind, target: String| {
        forged(move |archive| {
            let mut header = named("link", kind, 0);
            archive.append_link(&mut header, "link", &target).unwrap();
            archive
                .append(&named("link/planted", EntryType::Regular, 1), &b"x"[..])
                .unwrap();
        })
    };
    let cases = [
        file("../planted"),
        file("a/../../planted"),
        file(&path("planted")),
        file("."),
        through_a_link(EntryType::Symlink, path("")),
        through_a_link(EntryType::Symlink, "..".to_owned()),
        forged(|archive| {
            let mut header = named("link", EntryType::Link, 0);
            archive.append_link(&mut header, "link", path("victim")).unwrap();
        }),
        forged(|archive| {
            let mut header = named("link", EntryType::Link, 0);
            archive.append_link(&mut header, "link", "../victim").unwrap();
        }),
        forged(|archive| {
            let mut header = named("link", EntryType::Symlink, 0);
            archive.append_link(&mut header, "link", path("victim")).unwrap();
            archive
                .append(&named("link", EntryType::Regular, 1), &b"x"[..])
                .unwrap();
        }),
        forged(|archive| {
            archive
                .append(&named("null", EntryType::Char, 0), io::empty())
                .unwrap()
        }),
        forged(|archive| {
            archive
                .append(&named("a\0b", EntryType::Fifo, 0), io::empty())
                .unwrap()
        }),
        b"no archive at all".to_vec(),
        Vec::new(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let to = tempfile::tempdir_in(outside.path()).unwrap();
        let unpacked = unpack(&**bytes, to.path(), None, bounds());
        // An archive of nothing is one; no other of these is.
        assert!(unpacked.is_err(), "{number}: {unpacked:?}");
        assert!(!outside.path().join("planted").exists(), "{number}");
        assert_eq!(
            fs::read(outside.path().join("victim")).unwrap(),
            b"whole",
            "{number}"
        );
    }
    // One that ends too soon.
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("f"), vec![7; 100_000]).unwrap();
    let (_, bytes) = packed(from.path());
    let to = tempfile::tempdir().unwrap();
    assert!(unpack(&bytes[..bytes.len() / 2], to.path(), None, bounds()).is_err());
}
