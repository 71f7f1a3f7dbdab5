//! What a build in a local sandbox begins with: an empty layer over the host's folders, and an `/etc` and a `/var` of
//! its own that an installer can work with.
//!
//! Invariant: nothing of the host gets here that others may not read.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use sha2::{Digest as _, Sha256};

use crate::hand::launch::Users;
use crate::hand::launch::layered::{BESIDE, DPKG, DPKG_HOME, LAYER, MASK, MAX_DEPTH, TMP, WORK, is_hidden};
use crate::hand::launch::root::{SYSTEM, names, shown_of_etc};
use crate::host::is_root;

/// The most users that a build has; more are known to nobody.
pub(super) const USERS: u32 = 65_536;

/// What installers need of `/etc`, beside what sessions see. Of what services are started with nothing is: that may hold
/// their passwords.
pub(super) const ETC: [&str; 9] = [
    "adduser.conf",
    "apt",
    "debconf.conf",
    "default/locale",
    "default/useradd",
    "deluser.conf",
    "dpkg",
    "login.defs",
    "skel",
];

/// What names of files there begin with that hold the operator's credentials.
const CREDENTIALS: &str = "auth.conf";

/// Folders of a fresh `/var`.
const VAR: [&str; 14] = [
    "backups",
    "cache/apt/archives/partial",
    "cache/debconf",
    "cache/man",
    "lib/apt/lists/partial",
    "lib/apt/mirrors/partial",
    "lib/dpkg",
    "lib/misc",
    "lib/systemd",
    "local",
    "log/apt",
    "mail",
    "opt",
    "spool",
];

/// Debian's own list of users and of groups, which packages rely on.
const MASTERS: [(&str, &str); 2] = [
    ("passwd", "/usr/share/base-passwd/passwd.master"),
    ("group", "/usr/share/base-passwd/group.master"),
];

/// Who may do what by `pam`, in place of the machine's own rules: what makes accounts (`chfn`) asks, and only root asks it
/// in a build.
const PAM: [(&str, &str); 6] = [
    ("common-account", "account required pam_permit.so\n"),
    ("common-auth", "auth required pam_permit.so\n"),
    ("common-password", "password required pam_permit.so\n"),
    ("common-session", "session required pam_permit.so\n"),
    (
        "common-session-noninteractive",
        "session required pam_permit.so\n",
    ),
    (
        "other",
        "@include common-account\n@include common-auth\n@include common-password\n@include common-session\n",
    ),
];

/// The file that tells `apt` that there is no other user to download as.
const APT_USER: (&str, &str) = ("99oma-user", "APT::Sandbox::User \"root\";\n");

/// Files of packages that the administrator has given to others.
const OVERRIDES: &str = "/var/lib/dpkg/statoverride";

/// What tells whether the host's programs are still those that a layer was built over.
const GROUND: [&str; 3] = ["/etc/os-release", "/usr/lib/os-release", "/var/lib/dpkg/status"];

/// Names what a layer lies over.
pub(super) fn ground() -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(std::env::consts::ARCH);
    if !is_root() {
        // Its layers belong to others than those of a server that is root, and say otherwise what they hide.
        hash.update("unprivileged");
    }
    for path in GROUND {
        hash.update([0]);
        match File::open(path) {
            Ok(mut file) => {
                let mut chunk = vec![0; 1 << 16];
                loop {
                    match file.read(&mut chunk)? {
                        0 => break,
                        read => hash.update(&chunk[..read]),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(format!("local-{}", hex::encode(hash.finalize())))
}

/// Fills the folder of a build.
pub(super) fn prepare(folder: &Path, users: Users, has_doors: bool) -> io::Result<()> {
    let site = Owned::by(users);
    let layer = folder.join(LAYER);
    fs::create_dir(&layer)?;
    for name in SYSTEM {
        if fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|meta| meta.is_dir()) {
            site.make(&layer.join(name))?;
            lay(folder, name, &site)?;
        }
    }
    for name in BESIDE {
        site.make(&layer.join(name))?;
    }
    for name in VAR {
        site.make(&layer.join("var").join(name))?;
    }
    for (name, to) in [("tmp", "../tmp"), ("run", "/run"), ("lock", "/run/lock")] {
        site.link(to, &layer.join("var").join(name))?;
    }
    if Path::new("/").join(DPKG_HOME).is_dir() {
        site.make(&folder.join(DPKG))?;
        lay(folder, DPKG_HOME, &site)?;
    }
    let tmp = folder.join(TMP);
    site.make(&tmp)?;
    fs::set_permissions(&tmp, Permissions::from_mode(0o1777))?;
    etc(&layer.join("etc"), &site, has_doors)
}

/// Makes what an overlay over a folder of the host needs.
fn lay(folder: &Path, name: &str, site: &Owned) -> io::Result<()> {
    let flat = name.replace('/', "-");
    fs::create_dir_all(folder.join(WORK).join(&flat))?;
    if site.users == Users::Server {
        // What hides is made in the sandbox, with all the folders that it has to lie over.
        return Ok(());
    }
    let mask = folder.join(MASK).join(&flat);
    site.make(&mask)?;
    hide(&Path::new("/").join(name), &mask, site, 0)
}

/// Puts into `mask` what hides, below an overlay, whatever others may not read.
fn hide(source: &Path, mask: &Path, site: &Owned, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let target = mask.join(entry.file_name());
        if is_hidden(&meta, depth) {
            site.make(mask)?;
            rustix::fs::mknodat(CWD, &target, FileType::CharacterDevice, Mode::empty(), 0)?;
        } else if meta.is_dir() {
            hide(&entry.path(), &target, site, depth + 1)?;
        }
    }
    Ok(())
}

fn etc(etc: &Path, site: &Owned, has_doors: bool) -> io::Result<()> {
    site.make(etc)?;
    let shown = shown_of_etc()?;
    let further = ETC.iter().map(Path::new);
    for name in shown.iter().map(std::path::PathBuf::as_path).chain(further) {
        let target = etc.join(name);
        if let Some(parent) = target.parent() {
            site.make(parent)?;
        }
        site.copy(&Path::new("/etc").join(name), &target, 0)?;
    }
    let overrides = fs::read_to_string(OVERRIDES).unwrap_or_default();
    for (index, (name, master)) in MASTERS.into_iter().enumerate() {
        let mut known = fs::read_to_string(master).unwrap_or_default();
        let hosts = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        known.push_str(&overridden(&overrides, index, &known, &hosts));
        site.write(&etc.join(name), &accounts(name, &known), 0o644)?;
    }
    site.write(&etc.join("shadow"), "root:*:0:0:99999:7:::\n", 0o640)?;
    site.write(&etc.join("gshadow"), "root:*::\n", 0o640)?;
    for (name, text) in names(has_doors) {
        site.write(&etc.join(name), &text, 0o644)?;
    }
    if Path::new("/etc/pam.d").is_dir() {
        let folder = etc.join("pam.d");
        site.make(&folder)?;
        for (name, rules) in PAM {
            site.write(&folder.join(name), rules, 0o644)?;
        }
    }
    let apt = etc.join("apt/apt.conf.d");
    if site.users == Users::Server && apt.is_dir() {
        // What scripts have it install, too. The folder is not kept in the layer.
        site.write(&apt.join(APT_USER.0), APT_USER.1, 0o644)?;
    }
    Ok(())
}

/// The host's lines of the users or groups that its packages have files for, by the local administrator's word: the
/// installer knows of them and stops without them. `column` says where an override has them.
fn overridden(overrides: &str, column: usize, known: &str, hosts: &str) -> String {
    let name = |line: &str| line.split(':').next().map(str::to_owned);
    let known: BTreeSet<String> = known.lines().filter_map(name).collect();
    let wanted: BTreeSet<&str> = overrides
        .lines()
        .filter_map(|line| line.split(' ').nth(column))
        .filter(|name| !known.contains(*name))
        .collect();
    let lines = hosts.lines();
    lines
        .filter(|line| line.split(':').next().is_some_and(|name| wanted.contains(name)))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Debian's list with root at home where builds are, or what there is everywhere.
fn accounts(name: &str, known: &str) -> String {
    let (root, nobody) = match name {
        "passwd" => (
            "root:x:0:0:root:/workspace:/bin/bash",
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
        ),
        _ => ("root:x:0:", "nogroup:x:65534:"),
    };
    let others: Vec<&str> = known.lines().filter(|line| !line.starts_with("root:")).collect();
    let end = if others.is_empty() { vec![nobody] } else { others };
    let lines: Vec<&str> = std::iter::once(root).chain(end).collect();
    lines.join("\n") + "\n"
}

/// Makes things that belong to the build's root.
struct Owned {
    users: Users,
}

impl Owned {
    fn by(users: Users) -> Self {
        Self { users }
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.users {
            Users::Range { first, .. } => lchown(path, Some(first), Some(first)),
            // Whose it is already.
            Users::Server => Ok(()),
        }
    }

    /// A folder, and those above it that are missing.
    fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make(parent)?;
        }
        fs::create_dir(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        self.give(folder)
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        // A link that was copied there is none of ours to follow.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(path, text)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        self.give(path)
    }

    fn link(&self, to: impl AsRef<Path>, path: &Path) -> io::Result<()> {
        symlink(to, path)?;
        self.give(path)
    }

    /// Copies what others may read, as it is; the rest is left out.
    fn copy(&self, source: &Path, target: &Path, depth: usize) -> io::Result<()> {
        let meta = match fs::symlink_metadata(source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            meta => meta?,
        };
        let is_secret = source
            .file_name()
            .and_then(|name| name.to_str())
            .is_none_or(|name| name.starts_with(CREDENTIALS));
        if is_secret || fs::symlink_metadata(target).is_ok_and(|there| !there.is_dir()) {
            return Ok(());
        }
        if meta.is_symlink() {
            return self.link(fs::read_link(source)?, target);
        }
        let mode = meta.mode();
        if meta.is_dir() && mode & 0o005 == 0o005 && depth < MAX_DEPTH {
            self.make(target)?;
            for entry in fs::read_dir(source)? {
                let entry = entry?;
                self.copy(&entry.path(), &target.join(entry.file_name()), depth + 1)?;
            }
        } else if meta.is_file() && mode & 0o004 != 0 {
            fs::copy(source, target)?;
            fs::set_permissions(target, Permissions::from_mode(mode & 0o755))?;
            self.give(target)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_debians_with_another_home_for_root() {
        let known = "root:*:0:0:root:/root:/bin/bash\n_apt:*:42:65534::/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(
            accounts("passwd", known),
            "root:x:0:0:root:/workspace:/bin/bash\n_apt:*:42:65534::/nonexistent:/usr/sbin/nologin\n"
        );
        assert!(accounts("group", "").contains("nogroup"));
    }

    #[test]
    fn accounts_that_overrides_name_are_known() {
        let overrides =
            "root ssl-cert 0710 /etc/ssl/private\nroot root 4755 /usr/bin/x\nsvc mail 2755 /usr/bin/y\n";
        let groups = "root:x:0:\nssl-cert:x:112:someone\nmail:x:8:\nother:x:1000:\n";
        assert_eq!(
            overridden(overrides, 1, "root:*:0:\nmail:*:8:\n", groups),
            "ssl-cert:x:112:someone\n"
        );
        assert_eq!(
            overridden(overrides, 0, "root:*:0:0\n", "svc:x:990:990::/:/bin/false\n")
                .lines()
                .count(),
            1
        );
    }

    #[test]
    fn the_ground_is_the_same_until_something_is_installed() {
        let ground = ground().unwrap();
        assert!(ground.starts_with("local-") && ground.len() == "local-".len() + 64);
        assert_eq!(super::ground().unwrap(), ground);
    }
}
