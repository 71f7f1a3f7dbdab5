//! Serving in a sandbox that a container engine has made: the container is the sandbox, and its first process this.
//!
//! The container shows two folders of the host, both read-only: [`KIT`] with this program and what it needs in any
//! image, and in it [`DOOR`], where the server listens. Over that one connection the hand gets its orders
//! ([`Contained`]) and the socket that it is to serve on, and reports as a launcher does. The server takes the way in
//! away before any command runs, and the socket itself lies where the container has no view of: so what a session
//! runs can talk neither to the server nor, in the server's name, to the hand.
//!
//! Where the container has a kernel of its own, no socket of the host's can be passed to it. Then the hand listens in the
//! container, where a relay ([`crate::hand::relay`]) connects for the server; the first connection is for the orders.
//!
//! Invariant: no word of the engine's is trusted: what the sandbox lacks is looked at from inside, and one that is
//! weaker than ordered does not serve.

use std::fs;
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::OwnedFd;
#[cfg(feature = "docker")]
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
#[cfg(feature = "docker")]
use std::time::Instant;

use rustix::fs::{Access, StatVfsMountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

#[cfg(feature = "docker")]
use crate::hand::token::Token;

use super::{
    Duties, Entrance, Failure, Launched, MAX_PLAN, Progress, Step as _, WORKSPACE, confine, filter, group,
    open_doors, quiet, report,
};
use crate::limits::Enforcement;

/// Where a container shows what the hand brings along.
pub(crate) const KIT: &str = "/.oma";

/// The folder in [`KIT`] with the server's socket.
pub(crate) const DOOR: &str = "/.oma/door";

/// In [`KIT`]: the program that loads programs with the libraries beside it, those libraries, and a `bash` for images
/// that have none.
pub(crate) const LOADER: &str = "ld.so";
pub(crate) const LIBRARIES: &str = "lib";
pub(crate) const BASH: &str = "bash";

/// How long the server may take to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the server may take to hear why there is no sandbox.
#[cfg(feature = "docker")]
const FAREWELL: Duration = Duration::from_secs(5);

/// Network interfaces that lead nowhere: the loopback, and what some kernels make unasked in each new network
/// namespace, for tunnels that nobody has set up.
const HARMLESS: [&str; 10] = [
    "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
];

/// The group that a user namespace shows for all that it does not know.
const NAMELESS: u32 = 65_534;

/// What a hand in a container is told. Holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contained {
    /// The user and the group that it is to be already.
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Nobody else limits the processes, so those of its user are limited, in all their sandboxes together.
    pub(crate) counts_processes: bool,
    /// The engine does not know what it limits, so the container has to show it.
    #[serde(default)]
    pub(crate) shows_limits: bool,
    /// A layer is built in it: its root can be written to, and its user may do what installers need.
    #[serde(default)]
    pub(crate) builds: bool,
    /// The user of the relay to it.
    #[serde(default)]
    pub(crate) relay: Option<u32>,
    pub(crate) duties: Duties,
}

/// The command line of a `bash` that works in any image, for those that have none; `None` where there is no such
/// thing.
pub(in crate::hand) fn bash() -> Option<Vec<PathBuf>> {
    let kit = Path::new(KIT);
    let is_there = |path: &Path| rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let (loader, bash) = (kit.join(LOADER), kit.join(BASH));
    (is_there(&loader) && is_there(&bash)).then(|| {
        let libraries = kit.join(LIBRARIES);
        vec![loader, "--library-path".into(), libraries, bash]
    })
}

/// Gets orders from the server and gives up what is left to give up.
///
/// # Errors
/// [`Failure`], which has been reported to the server already where that was possible.
pub(crate) fn launch() -> Result<Launched, Failure> {
    let path = Path::new(DOOR).join(crate::host::record::DOOR_SOCKET);
    let server = UnixStream::connect(&path).step("connecting to the server")?;
    launch_for(server, |server| {
        Ok(Entrance {
            listener: socket(server)?.into(),
            token: None,
        })
    })
}

/// The same where the server comes through a relay, and no socket can be passed. Nothing of the session runs yet, so
/// whoever is the first to connect is the server, and says what it will say first from then on.
///
/// # Errors
/// As [`launch`].
#[cfg(feature = "docker")]
pub(crate) fn launch_relayed() -> Result<Launched, Failure> {
    let listener = crate::hand::relay::bind().step("listening for the server")?;
    wait_for(&listener).step("waiting for the server")?;
    let (server, _) = listener.accept().step("waiting for the server")?;
    launch_for(server, |server| {
        let mut words = [0; Token::LENGTH];
        server.read_exact(&mut words)?;
        let token = Token::said(&words).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Entrance {
            listener,
            token: Some(token),
        })
    })
    .inspect_err(|_| {
        // The relay ends with this process, and may not have passed the reason on yet. The server ends the container as
        // soon as it has it.
        std::thread::sleep(FAREWELL);
    })
}

/// Returns when somebody connects.
#[cfg(feature = "docker")]
fn wait_for(listener: &UnixListener) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn launch_for(
    mut server: UnixStream,
    enter: impl FnOnce(&mut UnixStream) -> io::Result<Entrance>,
) -> Result<Launched, Failure> {
    server
        .set_read_timeout(Some(PATIENCE))
        .step("waiting for the server")?;
    server
        .set_write_timeout(Some(PATIENCE))
        .step("waiting for the server")?;
    match serve_for(&mut server, enter) {
        Ok(launched) => {
            // A server that is gone knows nothing of this hand, so it must not live on.
            report(&mut server, &Progress::Ready).step("reporting to the server")?;
            Ok(launched)
        }
        Err(failure) => {
            let failed = Progress::Failed {
                reason: failure.to_string(),
                errno: failure.source.raw_os_error(),
            };
            // Without anybody to tell, there is nothing more to do.
            let _ = report(&mut server, &failed);
            Err(failure)
        }
    }
}

fn serve_for(
    server: &mut UnixStream,
    enter: impl FnOnce(&mut UnixStream) -> io::Result<Entrance>,
) -> Result<Launched, Failure> {
    let entrance = enter(server).step("taking the entrance over")?;
    let mut json = Vec::new();
    server
        .take(MAX_PLAN)
        .read_to_end(&mut json)
        .step("reading the orders")?;
    let orders: Contained = serde_json::from_slice(&json).step("understanding the orders")?;
    let Contained {
        user,
        group,
        counts_processes,
        shows_limits,
        builds,
        relay,
        duties,
    } = orders;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    quiet()?;
    rustix::process::chdir(WORKSPACE).step("entering the workspace")?;
    let kept = if builds {
        confine::OF_BUILDS
    } else {
        CapabilitySet::empty()
    };
    look_around(builds)?;
    if duties.enforcement == Enforcement::Cgroup {
        let room = duties.has_own_kernel.then(|| duties.limits.beside_a_kernel());
        group::check(room.as_ref().unwrap_or(&duties.limits), shows_limits)?;
    }
    let doors = open_doors(&duties)?;
    confine::limit_resources(&duties)?;
    if counts_processes {
        confine::limit_processes(&duties)?;
    }
    confine::close()?;
    confine::check(user, group, kept)?;
    check_groups(group)?;
    confine::check_bounds(kept)?;
    filter::install()?;
    Ok(Launched {
        duties,
        entrance,
        doors,
        relay,
    })
}

/// The socket that the server passes along with the first byte.
fn socket(server: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(server, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        })
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the container is as closed as it was ordered to be.
fn look_around(builds: bool) -> Result<(), Failure> {
    let weak = |why: &str| Err(io::Error::other(why.to_owned())).step("looking at the container");
    let root = rustix::fs::statvfs("/").step("looking at the root")?;
    if !builds && !root.f_flag.contains(StatVfsMountFlags::RDONLY) {
        // Some kernels say it here only.
        let mounts = fs::read_to_string("/proc/self/mountinfo").step("looking at the root")?;
        if !is_root_closed(&mounts) {
            return weak("its root can be written to");
        }
    }
    let interfaces = fs::read_to_string("/proc/net/dev").step("looking at the network")?;
    if let Some(name) = leading_out(&interfaces) {
        return weak(&format!("it has a network interface {name}"));
    }
    Ok(())
}

/// Whether what is mounted as the root, by `/proc/self/mountinfo`, is mounted read-only.
fn is_root_closed(mounts: &str) -> bool {
    // The last one hides those below it.
    let last = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(4);
        (fields.next()? == "/").then_some(fields.next()?)
    });
    last.is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

/// That the session belongs to no other group, for example by what the image says of its user.
fn check_groups(group: u32) -> Result<(), Failure> {
    let step = "looking at the groups";
    let groups = rustix::process::getgroups().step(step)?;
    match groups
        .iter()
        .map(|group| group.as_raw())
        .find(|found| !is_allowed(*found, group))
    {
        Some(other) => Err(io::Error::other(format!("group {other} is left"))).step(step),
        None => Ok(()),
    }
}

/// The group that has no name in a user namespace stands for those of the server's own user, which the engine of an
/// ordinary user can't leave.
fn is_allowed(found: u32, group: u32) -> bool {
    found == group || found == NAMELESS
}

/// An interface in `/proc/net/dev` that may lead somewhere.
fn leading_out(interfaces: &str) -> Option<&str> {
    interfaces
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .find(|name| !HARMLESS.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_others_are_not_left() {
        assert!(is_allowed(200_001, 200_001) && is_allowed(NAMELESS, 0));
        assert!(!is_allowed(0, 200_001) && !is_allowed(999, 0));
    }

    #[test]
    fn a_root_is_closed_where_the_uppermost_mount_is() {
        let line = |place: &str, options: &str| format!("8 7 0:8 / {place} {options}  - 9p none rw,x=ro\n");
        let (open, closed) = (line("/", "rw"), line("/", "ro,relatime"));
        let other = line("/gv", "ro");
        assert!(is_root_closed(&format!("{open}{closed}{other}")));
        assert!(!is_root_closed(&format!("{closed}{open}{other}")));
        assert!(!is_root_closed(&other) && !is_root_closed(""));
    }

    #[test]
    fn a_network_is_told_from_none() {
        let head = "Inter-|   Receive                |  Transmit\n face |bytes    packets |bytes\n";
        let line = |name: &str| format!("{name:>6}: 0 0 0 0\n");
        for (names, found) in [
            (vec!["lo"], None),
            (vec!["lo", "sit0"], None),
            (vec!["lo", "eth0"], Some("eth0")),
            (vec!["wlan0"], Some("wlan0")),
        ] {
            let text: String = std::iter::once(head.to_owned())
                .chain(names.iter().map(|name| line(name)))
                .collect();
            assert_eq!(leading_out(&text), found, "{text}");
        }
    }
}
