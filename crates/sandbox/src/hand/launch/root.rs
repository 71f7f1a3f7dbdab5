//! The file system that a session sees: the host's programs, read-only, and its own workspace.
//!
//! What a session can learn of the host all the same: which programs it has, its kernel, and from
//! `/proc/self/mountinfo` where the workspace lies in its file system, for the kernel shows the source of every
//! mount in the mount namespace that it belongs to, and nothing hides that short of a file system made for each
//! session. It is a path, and leads nowhere from inside.
//!
//! Invariant: what is not named here is absent: no data folder, no home, no `/run`, no `/sys`, no socket.
//! Invariant: only `/workspace`, `/tmp`, `/dev/shm`, `/dev/pts` and the mounts that are meant for it can be written to.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::{Failure, INSIDE_ID, Mount, Plan, Step as _, WORKSPACE, layered, place};
use crate::gateway::RESOLV_CONF;
use crate::mounts::Access;
use crate::trust;

/// Folders of the root that hold the host's programs. A link is copied, a folder mounted.
pub(crate) const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need of `/etc`. Each is world-readable and holds no secret; keys (`/etc/ssl/private`),
/// passwords and the host's own names are not among them.
const ETC: [&str; 28] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/certs",
    "profile",
    "protocols",
    "python3",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// What further names in `/etc` begin and end with, around a version: interpreters have a folder for each.
const ETC_VERSIONED: [(&str, &str); 2] = [("java-", "-openjdk"), ("python3.", "")];

/// What of `/etc` sandboxes see: of what they may, all that is there.
pub(crate) fn shown_of_etc() -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = ETC.iter().map(PathBuf::from).collect();
    for entry in fs::read_dir("/etc")? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(is_versioned) {
            names.push(name.into());
        }
    }
    Ok(names)
}

fn is_versioned(name: &str) -> bool {
    ETC_VERSIONED.iter().any(|(start, end)| {
        let version = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        version
            .is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Device files, all harmless.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell about the host or steer it.
const HIDDEN_FILES: [&str; 7] = [
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];

/// Folders of `/proc` that must not be written to, whoever the session's user is on the host.
const FROZEN_FOLDERS: [&str; 4] = ["bus", "fs", "irq", "sys"];

pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(super) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(super) const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;

/// Builds the root and moves into it. `shifted` is a user namespace with the users of a build, where it has several.
pub(super) fn build(plan: &Plan, shifted: Option<&OwnedFd>) -> Result<(), Failure> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("detaching the mounts")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let root = plan.root.as_path();
    mount_new(
        "tmpfs",
        root,
        MountFlags::NOSUID | MountFlags::NODEV,
        "size=8m,nr_inodes=4096,mode=755",
    )?;

    for name in SYSTEM {
        let source = Path::new("/").join(name);
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_symlink() => {
                let to = fs::read_link(&source).step("reading a link of the system")?;
                symlink(to, root.join(name)).step("copying a link of the system")?;
            }
            Ok(_) => match (&plan.site, &plan.layer) {
                (Some(site), _) => layered::writable(site, name, shifted, root)?,
                (None, Some(layer)) => {
                    let notes = layered::Notes::of(plan);
                    layered::over(&layer.join(name), &source, &root.join(name), notes)?;
                }
                _ => bind(&source, &root.join(name), READ_ONLY | NO_SUID | NO_DEVICES)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).step(&format!("looking at {}", source.display())),
        }
    }
    let tmp = root.join("tmp");
    if let Some(site) = &plan.site {
        layered::site(site, shifted, root)?;
        bind(&site.folder.join(layered::TMP), &tmp, NO_SUID | NO_DEVICES)?;
    } else {
        if let Some(layer) = &plan.layer {
            layered::beside(layer, &plan.readable, root)?;
        }
        etc(root, plan)?;
        let options = format!(
            "size={},nr_inodes={},mode=1777",
            plan.duties.limits.tmp, plan.duties.limits.inodes
        );
        mount_new("tmpfs", &tmp, MountFlags::NOSUID | MountFlags::NODEV, &options)?;
    }
    let var = root.join("var");
    if !var.exists() {
        fs::create_dir(&var).step("making /var")?;
        symlink("../tmp", var.join("tmp")).step("making /var/tmp")?;
    }
    for source in &plan.readable {
        place::bind(source, root, source, READ_ONLY | NO_SUID | NO_DEVICES)?;
    }
    proc(root)?;
    devices(root, plan)?;
    bind(&plan.workspace, &under(root, WORKSPACE), NO_SUID | NO_DEVICES)?;
    for (source, target) in plan.site.iter().flat_map(|site| &site.files) {
        place::bind(source, root, target, READ_ONLY | NO_SUID | NO_DEVICES)?;
    }
    for mount in &plan.mounts {
        show(mount, root)?;
    }
    enter(root)
}

fn under(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Shows a folder that lies beside the workspace.
fn show(mount: &Mount, root: &Path) -> Result<(), Failure> {
    let step = format!("making a place for {}", mount.source.display());
    let inside = mount
        .target
        .strip_prefix("/")
        .map_err(io::Error::other)
        .step(&step)?;
    let is_plain = inside
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    // Both paths are made by the server, and nothing of a session is asked for them; all the same, no link is
    // followed and nothing else is covered.
    let is_folder = fs::symlink_metadata(&mount.source).step(&step)?.is_dir();
    if !is_plain || !mount.target.starts_with(crate::mounts::ROOT) || !is_folder {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).step(&step);
    }
    let read_only = match mount.access {
        Access::ReadOnly => READ_ONLY,
        Access::ReadWrite => 0,
    };
    bind(
        &mount.source,
        &root.join(inside),
        read_only | NO_SUID | NO_DEVICES,
    )
}

/// Makes the built tree the root, and forgets the old one.
fn enter(root: &Path) -> Result<(), Failure> {
    rustix::process::chdir(root).step("entering the new root")?;
    // With both names the same, the old root lies on top of the new one, and is then taken off.
    rustix::process::pivot_root(".", ".").step("changing the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("leaving the old root")?;
    rustix::process::chdir("/").step("entering the new root")?;
    set_attributes(CWD, Path::new("/"), READ_ONLY, 0)?;
    rustix::process::chdir(WORKSPACE).step("entering the workspace")
}

fn etc(root: &Path, plan: &Plan) -> Result<(), Failure> {
    let etc = root.join("etc");
    fs::create_dir_all(&etc).step("making /etc")?;
    if plan.layer.is_none() {
        show_etc(&etc)?;
    }
    let id = INSIDE_ID;
    let users = format!(
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
         agent:x:{id}:{id}:agent:{WORKSPACE}:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let groups = format!("root:x:0:\ntty:x:5:\nagent:x:{id}:\nnogroup:x:65534:\n");
    let users = [("passwd", users), ("group", groups)];
    let files = users.into_iter().chain(names(plan.duties.gateway));
    for (name, text) in files {
        fs::write(etc.join(name), text).step(&format!("writing /etc/{name}"))?;
    }
    if let Some(authority) = &plan.trust {
        trust(&etc, authority, plan.layer.is_some())?;
    }
    match &plan.layer {
        Some(layer) => {
            // What lies above the layer, so that its links are not in the way, and can be made.
            for source in plan.readable.iter().filter(|path| path.starts_with("/etc")) {
                let is_folder = fs::metadata(source).step("looking at what is readable")?.is_dir();
                place::make(root, source, is_folder).step("making a place in /etc")?;
            }
            layered::over(&etc, &layer.join("etc"), &etc, layered::Notes::of(plan))
        }
        None => Ok(()),
    }
}

/// Shows what programs need of the host's own.
fn show_etc(etc: &Path) -> Result<(), Failure> {
    for name in shown_of_etc().step("listing /etc")? {
        let source = Path::new("/etc").join(&name);
        let target = etc.join(&name);
        let Ok(meta) = fs::symlink_metadata(&source) else {
            continue;
        };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).step("making a folder in /etc")?;
        }
        if meta.is_symlink() {
            // A link into /usr works in the sandbox as it does outside; any other one leads nowhere there.
            let to = fs::read_link(&source).step("reading a link of /etc")?;
            symlink(to, &target).step("copying a link of /etc")?;
        } else {
            bind(&source, &target, READ_ONLY | NO_SUID | NO_DEVICES)?;
        }
    }
    Ok(())
}

/// Has programs trust an authority, besides whom the machine trusts. What a layer has is laid below this.
fn trust(etc: &Path, authority: &str, has_layer: bool) -> Result<(), Failure> {
    let beneath = |path: &str| etc.join(path.trim_start_matches("/etc/"));
    let folder = beneath(trust::FOLDER);
    fs::create_dir(&folder).step("making a folder for certificates")?;
    for (name, text) in trust::files(authority) {
        fs::write(folder.join(name), text).step("writing certificates")?;
    }
    let bundle = folder.join(trust::BUNDLE);
    for path in trust::SYSTEM {
        let place = beneath(path);
        if has_layer {
            // Nothing is there yet, so no path of the layer's is followed.
            if Path::new(path).exists() {
                let parent = place.parent().unwrap_or(etc);
                fs::create_dir_all(parent).step("making a folder for certificates")?;
                fs::copy(&bundle, &place).step("writing certificates")?;
            }
        } else if fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_file()) {
            // A link leads to another of them, or out of the sandbox.
            attach(&bundle, &place, READ_ONLY | NO_SUID | NO_DEVICES)?;
        }
    }
    Ok(())
}

/// The files of `/etc` that tell who else there is on the network.
pub(crate) fn names(has_doors: bool) -> [(&'static str, String); 5] {
    let hosts = "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n";
    let resolver = if has_doors { RESOLV_CONF } else { "" };
    let switch = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n";
    [
        ("hosts", hosts),
        ("hostname", "sandbox\n"),
        ("nsswitch.conf", switch),
        ("resolv.conf", resolver),
        ("shells", "/bin/sh\n/bin/bash\n"),
    ]
    .map(|(name, text)| (name, text.to_owned()))
}

fn proc(root: &Path) -> Result<(), Failure> {
    let proc = root.join("proc");
    mount_new(
        "proc",
        &proc,
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        "",
    )?;
    for name in HIDDEN_FILES {
        let target = proc.join(name);
        if target.exists() {
            attach(Path::new("/dev/null"), &target, READ_ONLY)?;
        }
    }
    for name in FROZEN_FOLDERS {
        let target = proc.join(name);
        if target.exists() {
            attach(&target, &target, READ_ONLY)?;
        }
    }
    Ok(())
}

fn devices(root: &Path, plan: &Plan) -> Result<(), Failure> {
    let dev = root.join("dev");
    fs::create_dir(&dev).step("making /dev")?;
    for name in DEVICES {
        bind(&Path::new("/dev").join(name), &dev.join(name), NO_SUID)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(to, dev.join(name)).step("making a link in /dev")?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_new(
        "devpts",
        &dev.join("pts"),
        flags,
        "newinstance,ptmxmode=0666,mode=0620,max=256",
    )?;
    let size = format!("size={},nr_inodes=65536,mode=1777", plan.duties.limits.tmp / 4);
    mount_new("tmpfs", &dev.join("shm"), flags | MountFlags::NODEV, &size)
}

/// Mounts a new file system on a folder, which is made when it does not exist.
pub(super) fn mount_new(kind: &str, target: &Path, flags: MountFlags, options: &str) -> Result<(), Failure> {
    let step = format!("mounting {kind} for {}", target.display());
    fs::create_dir_all(target).step(&step)?;
    let options = std::ffi::CString::new(options)
        .map_err(io::Error::from)
        .step(&step)?;
    rustix::mount::mount(kind, target, kind, flags, Some(options.as_c_str())).step(&step)
}

/// Shows a file or folder of the host at `target`, which is made, with the given attributes on all of it.
pub(super) fn bind(source: &Path, target: &Path, attributes: u64) -> Result<(), Failure> {
    let step = format!("making a place for {}", source.display());
    if fs::metadata(source).step(&step)?.is_dir() {
        fs::create_dir_all(target).step(&step)?;
    } else {
        fs::File::create(target).step(&step)?;
    }
    attach(source, target, attributes)
}

/// Shows a file or folder of the host at a place that exists. The attributes are set before anything can be
/// reached by the new path.
fn attach(source: &Path, target: &Path, attributes: u64) -> Result<(), Failure> {
    let step = format!("showing {}", source.display());
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags).step(&step)?;
    set_attributes(&tree, Path::new(""), attributes, libc::AT_RECURSIVE)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", CWD, target, flags).step(&step)
}

pub(super) fn set_attributes(
    at: impl std::os::fd::AsFd,
    path: &Path,
    set: u64,
    flags: libc::c_int,
) -> Result<(), Failure> {
    set_all_attributes(at, path, set, flags, None)
}

/// Also shows files as if they belonged to the users of a namespace.
pub(super) fn set_all_attributes(
    at: impl std::os::fd::AsFd,
    path: &Path,
    set: u64,
    flags: libc::c_int,
    users: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let step = format!("setting the attributes of a mount {}", path.display());
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(io::Error::from)
        .step(&step)?;
    let attributes = libc::mount_attr {
        attr_set: set | users.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.map_or(0, |users| u64::from(users.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: the path is a C string and `attributes` a valid `mount_attr` of the given size; both outlive the
    // call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).step(&step);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_interpreters_are_known_in_every_version() {
        for (name, is_shown) in [
            ("python3.11", true),
            ("python3.15", true),
            ("java-21-openjdk", true),
            ("python3.", false),
            ("python3.11-secrets", false),
            ("java--openjdk", false),
            ("java-21-oracle", false),
            ("passwd", false),
        ] {
            assert_eq!(is_versioned(name), is_shown, "{name}");
        }
        let shown = shown_of_etc().unwrap();
        assert!(shown.contains(&PathBuf::from("ssl/certs")) && !shown.contains(&PathBuf::from("shadow")));
    }
}
