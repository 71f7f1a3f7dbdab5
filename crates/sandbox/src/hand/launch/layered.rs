//! Layers over the host's folders: shown to sessions, and where they are built.
//!
//! A layer holds what was installed, and nothing of what was there before: it is the upper folder of an overlay, and
//! later lies over the same folders in the sandboxes of sessions, which can write to neither.
//!
//! Where the server is root, its files belong to users of the host that nobody else is; while it is built, the host's own
//! files are shown as if they belonged to them, so that root of the build can replace them, in the layer. A server that
//! is an ordinary user can show nothing as somebody else's: files of its builds are its own, and the host's keep owners
//! that the build does not know. An overlay copies no folder of such an owner into the layer, which it has to before
//! anything can be put there; so all folders of the host lie a second time between, empty and the build's own, and
//! overlays take owners and modes from the topmost. For files see [`crate::hand::copy_up`].
//!
//! Invariant: a build sees nothing of the host that sessions don't see: what others may not read is not there (`mask`).
//! Invariant: paths of a layer that were made by a build are never followed from outside.

use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::root::{NO_DEVICES, NO_SUID, READ_ONLY, bind, mount_new, set_all_attributes};
use super::{Failure, Plan, Site, Step as _, Users, WORKSPACE};

/// Folders of a site: the layer, and what is only there while it is built.
pub(crate) const LAYER: &str = "root";
pub(crate) const WORK: &str = "work";
pub(crate) const MASK: &str = "mask";
pub(crate) const TMP: &str = "tmp";
pub(crate) const DPKG: &str = "dpkg";

/// What a layer has beside folders of the system.
pub(crate) const BESIDE: [&str; 2] = ["opt", "var"];

/// Where Debian's installer notes what there is.
pub(crate) const DPKG_HOME: &str = "var/lib/dpkg";

/// In which attributes of files an overlay notes that a folder of a layer hides what lies below: those that take
/// privilege over the machine, or those that the owner of a folder may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    Trusted,
    User,
}

impl Notes {
    /// Those of the layers that this sandbox shows.
    pub(super) fn of(plan: &Plan) -> Self {
        match plan.uid {
            Some(_) => Self::Trusted,
            None => Self::User,
        }
    }
}

/// Where a folder of the host is shown for a moment.
const STAGE: &str = ".stage";

/// Where what lies between the host's folders and a layer is shown for a moment.
const BETWEEN: &str = ".between";

/// The most that lies there.
const BETWEEN_OPTIONS: &str = "size=256m,nr_inodes=2000000,mode=755";

/// The deepest folder of the host that a build sees.
pub(crate) const MAX_DEPTH: usize = 64;

/// The most that is read of the kernel's words.
const MAX_WORDS: u64 = 4 << 10;

/// Shows a folder, and over it a layer's if that has it. Nobody can write there.
pub(super) fn over(layer: &Path, source: &Path, target: &Path, notes: Notes) -> Result<(), Failure> {
    if !layer.is_dir() {
        return bind(source, target, READ_ONLY | NO_SUID | NO_DEVICES);
    }
    fs::create_dir_all(target).step("making a place for a layer")?;
    let lower = [folder(layer)?, folder(source)?];
    let tree = overlay(&lower, None, source, notes)?;
    attach(&tree, target)
}

/// Shows what a layer has where the host has nothing for sessions. What is readable there by configuration keeps the
/// place.
pub(super) fn beside(layer: &Path, readable: &[PathBuf], root: &Path) -> Result<(), Failure> {
    for name in BESIDE {
        let place = Path::new("/").join(name);
        let is_taken = readable.iter().any(|path| path.starts_with(&place));
        let source = layer.join(name);
        if !is_taken && source.is_dir() {
            bind(&source, &root.join(name), READ_ONLY | NO_SUID | NO_DEVICES)?;
        }
    }
    Ok(())
}

/// Shows a folder of the host to a build, which writes to the layer instead.
pub(super) fn writable(site: &Site, name: &str, users: Option<&OwnedFd>, root: &Path) -> Result<(), Failure> {
    let upper = site.folder.join(LAYER).join(name);
    let target = root.join(name);
    fs::create_dir_all(&target).step("making a place for a folder of a build")?;
    write_over(site, &upper, name, users, root, &target)
}

/// The rest of what a build has.
pub(super) fn site(site: &Site, users: Option<&OwnedFd>, root: &Path) -> Result<(), Failure> {
    for name in ["etc"].into_iter().chain(BESIDE) {
        bind(
            &site.folder.join(LAYER).join(name),
            &root.join(name),
            NO_SUID | NO_DEVICES,
        )?;
    }
    if Path::new("/").join(DPKG_HOME).is_dir() {
        let upper = site.folder.join(DPKG);
        // Its place was made before anything of the build's could be there.
        write_over(site, &upper, DPKG_HOME, users, root, &root.join(DPKG_HOME))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // As the user namespace has them in which this is mounted.
    let id = match site.users {
        Users::Range { first, .. } => first,
        Users::Server => 0,
    };
    let options = format!("size=8m,nr_inodes=4096,mode=755,uid={id},gid={id}");
    mount_new("tmpfs", &root.join("run"), flags, &options)?;
    symlink(WORKSPACE, root.join("root")).step("making /root")
}

/// Lays `upper` over the folder of this name of the host, without what others may not read.
fn write_over(
    site: &Site,
    upper: &Path,
    name: &str,
    users: Option<&OwnedFd>,
    root: &Path,
    target: &Path,
) -> Result<(), Failure> {
    let source = Path::new("/").join(name);
    let step = format!("showing {} to a build", source.display());
    let flat = name.replace('/', "-");
    let above = (folder(upper)?, folder(&site.folder.join(WORK).join(&flat))?);
    // What is mounted nowhere can't lie below an overlay.
    let (stage, lower, notes) = match users {
        Some(users) => {
            let stage = root.join(STAGE);
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = rustix::mount::open_tree(CWD, &source, flags).step(&step)?;
            set_all_attributes(&tree, Path::new(""), READ_ONLY, 0, Some(users))?;
            fs::create_dir_all(&stage).step(&step)?;
            attach(&tree, &stage)?;
            let lower = [folder(&site.folder.join(MASK).join(&flat))?, folder(&stage)?];
            (stage, lower, Notes::Trusted)
        }
        None => {
            let stage = root.join(BETWEEN);
            mount_new(
                "tmpfs",
                &stage,
                MountFlags::NOSUID | MountFlags::NODEV,
                BETWEEN_OPTIONS,
            )?;
            between(&source, &stage, 0).step(&step)?;
            let lower = [folder(&stage)?, folder(&source)?];
            (stage, lower, Notes::User)
        }
    };
    let tree = overlay(&lower, Some(&above), &source, notes)?;
    // The overlay has mounts of its own of them.
    drop(lower);
    rustix::mount::unmount(&stage, UnmountFlags::DETACH).step(&step)?;
    fs::remove_dir(&stage).step(&step)?;
    attach(&tree, target)
}

/// Whether what is so deep in a folder of the host is hidden from builds: others may not read it.
pub(crate) fn is_hidden(meta: &Metadata, depth: usize) -> bool {
    let needed = if meta.is_dir() { 0o005 } else { 0o004 };
    !meta.is_symlink() && (meta.mode() & needed != needed || (meta.is_dir() && depth >= MAX_DEPTH))
}

/// Makes what lies between a folder of the host and a layer: all its folders, and in place of what is hidden what an
/// overlay takes for a word that nothing is there.
fn between(source: &Path, target: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        // What goes just now is not there.
        let meta = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        let target = target.join(entry.file_name());
        if is_hidden(&meta, depth) {
            rustix::fs::mknodat(CWD, &target, FileType::CharacterDevice, Mode::empty(), 0)?;
        } else if meta.is_dir() {
            fs::create_dir(&target)?;
            between(&entry.path(), &target, depth + 1)?;
        }
    }
    Ok(())
}

fn folder(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(&format!("opening {}", path.display()))
}

fn attach(tree: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, target, flags).step(&format!("showing {}", target.display()))
}

/// An overlay of these folders, the first on top, which is mounted nowhere yet. Paths go by descriptors, so that no
/// character of theirs means anything.
fn overlay(
    lower: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    of: &Path,
    notes: Notes,
) -> Result<OwnedFd, Failure> {
    let step = format!("laying a layer over {}", of.display());
    let path = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let lower: Vec<String> = lower.iter().map(path).collect();
    let mut options = vec![
        ("source", "layer".to_owned()),
        ("lowerdir", lower.join(":")),
        // Each file of a layer is whole, and lies where it is.
        ("redirect_dir", "nofollow".to_owned()),
        ("metacopy", "off".to_owned()),
        ("index", "off".to_owned()),
    ];
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    match upper {
        Some((upper, work)) => options.extend([("upperdir", path(upper)), ("workdir", path(work))]),
        None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    let made = || {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = || {
            for (name, value) in &options {
                rustix::mount::fsconfig_set_string(&context, *name, value.as_str())?;
            }
            if notes == Notes::User {
                rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
            }
            rustix::mount::fsconfig_create(&context)?;
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        set().map_err(|error| explained(error.into(), context.into()))
    };
    made().step(&step)
}

/// An error with what the kernel says of it.
fn explained(error: io::Error, context: fs::File) -> io::Error {
    let mut words = String::new();
    // There may be none.
    let _ = context.take(MAX_WORDS).read_to_string(&mut words);
    let words = words.trim();
    if words.is_empty() {
        error
    } else {
        io::Error::new(error.kind(), format!("{error} ({words})"))
    }
}
