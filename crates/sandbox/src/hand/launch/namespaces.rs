//! The namespaces: mount, pid, ipc, uts, net, cgroup and user.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::{Failure, INSIDE_ID, Plan, Step as _};

/// Leaves the server's namespaces. The user namespace comes first for an ordinary user, since it is what
/// permits the others; root makes the others with its real privilege, so that what is mounted there belongs
/// to the host's root, and enters a user namespace only at the end ([`super::confine`]).
pub(super) fn unshare(plan: &Plan) -> Result<(), Failure> {
    let base = UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWPID;
    if plan.uid.is_some() {
        // SAFETY: no descriptor table or memory is unshared, only namespaces.
        unsafe { rustix::thread::unshare_unsafe(base) }.step("making namespaces")?;
    } else {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        // SAFETY: as above; this process is single-threaded, as a new user namespace demands.
        unsafe { rustix::thread::unshare_unsafe(base | UnshareFlags::NEWUSER) }
            .step("making namespaces as an ordinary user")?;
        // Without this an ordinary user may not map its group.
        std::fs::write("/proc/self/setgroups", "deny").step("fixing the groups")?;
        // Whoever builds has to be root there, so that it may replace what is the build's own.
        let inside = if plan.site.is_some() { 0 } else { INSIDE_ID };
        write_map("/proc/self/uid_map", inside, uid.as_raw())?;
        write_map("/proc/self/gid_map", inside, gid.as_raw())?;
    }
    rustix::system::sethostname(b"sandbox").step("naming the host")
}

fn write_map(path: &str, inside: u32, outside: u32) -> Result<(), Failure> {
    std::fs::write(path, map(inside, outside)).step(&format!("writing {path}"))
}

pub(super) fn map(inside: u32, outside: u32) -> String {
    format!("{inside} {outside} 1\n")
}

/// The hand's way to have its id maps written by the launcher.
pub(super) struct Maps {
    pub(super) ask: File,
    pub(super) answer: File,
}

impl Maps {
    /// Enters a new user namespace, as root, in which only the session's user exists.
    pub(super) fn enter_user_namespace(mut self) -> Result<(), Failure> {
        // SAFETY: this process is single-threaded, and only a namespace is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.step("making a user namespace")?;
        self.ask.write_all(b"m").step("asking for the id maps")?;
        let mut answer = [0];
        self.answer
            .read_exact(&mut answer)
            .step("waiting for the id maps")
    }
}

/// A user namespace with these users, which nobody is in: for mounts that show files as if they belonged to them.
pub(super) fn made_of(map: &str) -> Result<OwnedFd, Failure> {
    let step = "making users for a build";
    let (asked, ask) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(step)?;
    let (answered, answer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(step)?;
    // SAFETY: this process is single-threaded, so the child has everything the parent had.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((asked, answer));
        // SAFETY: only a namespace is unshared.
        let made = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.is_ok();
        if made && File::from(ask).write_all(b"m").is_ok() {
            // Until the parent has taken the namespace, or has ended.
            let _ = File::from(answered).read(&mut [0]);
        }
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    drop((ask, answered));
    let child = Pid::from_raw(child)
        .ok_or_else(io::Error::last_os_error)
        .step(step)?;
    let taken = || {
        File::from(asked).read_exact(&mut [0]).step(step)?;
        let folder = format!("/proc/{}", child.as_raw_pid());
        for name in ["uid_map", "gid_map"] {
            std::fs::write(format!("{folder}/{name}"), map).step(&format!("writing {name} for a build"))?;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(format!("{folder}/ns/user"), flags, Mode::empty()).step(step)
    };
    let taken = taken();
    drop(answer);
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).step(step)?;
    taken
}

/// The launcher's side: once asked, maps users of the host to those inside. Only root may do this, and only from
/// outside the namespace.
pub(super) fn serve_maps(
    hand: Pid,
    map: &str,
    proc_of_host: &File,
    mut asked: File,
    mut answer: File,
) -> Result<(), Failure> {
    let mut question = [0];
    match asked.read_exact(&mut question) {
        Ok(()) => {}
        // The hand died before it asked, and has reported why.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(error).step("waiting for the hand"),
    }
    for name in ["uid_map", "gid_map"] {
        let path = format!("{}/{name}", hand.as_raw_pid());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(proc_of_host, &path, flags, Mode::empty()).step(&format!("opening {name}"))?;
        File::from(file)
            .write_all(map.as_bytes())
            .step(&format!("writing {name}"))?;
    }
    answer.write_all(b"m").step("answering the hand")
}

/// Brings the loopback interface up: the only one that there is, so that a session can talk to servers of its
/// own.
pub(super) fn finish_network() -> Result<(), Failure> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .step("making a socket")?;
    // SAFETY: `ifreq` is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the request is a valid `ifreq` that outlives the call, and the kernel only reads it.
    let result = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS,
            &request,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).step("bringing the loopback interface up");
    }
    Ok(())
}
