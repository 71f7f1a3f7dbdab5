//! Who has the files of a session, inside of its container.

use bollard::models::SystemInfo;

use super::has_option;
use crate::Error;
use crate::host::is_root;

/// Which user of a container has the files of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    /// Those of the host.
    Host,
    /// The first one of the container, which to the host is the engine's own, and the server's.
    Rootless,
}

impl Users {
    pub(super) fn of(info: &SystemInfo) -> Result<Self, Error> {
        match (has_option(info, "rootless"), is_root()) {
            (false, _) => Ok(Self::Host),
            (true, false) => Ok(Self::Rootless),
            (true, true) => Err(Error::TooWeak(
                "the container engine belongs to an ordinary user, and the server is root; run the server as that user"
                    .to_owned(),
            )),
        }
    }

    /// The user and the group, in the container, of a session whose files belong to this user of the host; `None` for
    /// the server's own.
    pub(super) fn inside(self, uid: Option<u32>) -> (u32, u32) {
        match (self, uid) {
            (Self::Rootless, _) => (0, 0),
            (Self::Host, Some(uid)) => (uid, uid),
            (Self::Host, None) => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        }
    }
}
