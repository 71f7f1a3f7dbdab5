//! Whether this machine can resolve paths as the files of sessions need it.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What would help where it can't.
pub(crate) const REMEDY: &str = "use Linux 5.6 or newer, without a filter that takes the call `openat2` away, as \
                                 `RestrictSUIDSGID=` of systemd's units does";

/// Resolves a path beneath a folder, once.
///
/// # Errors
/// Why that is impossible, in words for an operator.
pub(crate) fn check() -> Result<(), String> {
    let opened = || -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&root, ".", flags, Mode::empty(), resolve) {
                // Somebody is moving folders about: the kernel could not be sure.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    };
    opened().map_err(|error| {
        format!("files of sessions can't be opened beneath their folder alone (openat2: {error})")
    })
}

#[cfg(test)]
mod tests {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    use super::*;

    #[test]
    fn a_filter_that_takes_the_call_away_is_seen() {
        assert_eq!(check(), Ok(()));
        // As a unit of systemd with `RestrictSUIDSGID=` has it; it holds for this thread alone.
        let found = std::thread::spawn(|| {
            let missing = SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap());
            let rules = [(libc::SYS_openat2, Vec::new())].into();
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            check()
        });
        let why = found.join().unwrap().unwrap_err();
        assert!(why.contains("openat2: Function not implemented"), "{why}");
    }
}
