//! Confining a process of the server's own that reads what sandboxes and strangers send: it keeps what it has been
//! given, and gets nothing else.
//!
//! First ([`reduce`]) it gives up every privilege and whatever it has inherited; then it is given what it works with;
//! then ([`close`]) it can open, start, signal and trace nothing any more.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::hand::launch::filter::keepers;

/// Nobody's user and group, whom nothing belongs to.
const NOBODY: u32 = 65_534;
/// Descriptors: a socket at each end of each connection, the pipes of tunnels, and some to spare.
const OPEN_FILES: u64 = 1_024;
/// Memory of its own, in bytes.
const MEMORY: u64 = 1 << 30;

/// Gives up every privilege, and dies with the thread of the server that has started this process. Must be called
/// before anything else in the process.
///
/// # Errors
/// When something would be left, with what that is.
pub fn reduce() -> io::Result<()> {
    leave().map_err(|error| step("leaving what it has inherited", &error))?;
    if rustix::process::geteuid().is_root() {
        become_nobody().map_err(|error| step("becoming another user than root", &error))?;
    }
    give_up().map_err(|error| step("giving up its privileges", &error))
}

fn step(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn leave() -> io::Result<()> {
    // Whatever the server has not meant to hand down. The first three it has.
    // SAFETY: nothing in this process owns a descriptor yet but for those three.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::process::chdir("/")?;
    for (resource, value) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Data, MEMORY),
    ] {
        // A hard limit below what is wanted can't be raised without privilege, and is stricter anyway.
        let now = rustix::process::getrlimit(resource).maximum;
        let limit = Some(now.map_or(value, |now| now.min(value)));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: limit,
                maximum: limit,
            },
        )?;
    }
    Ok(())
}

fn become_nobody() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    // The process has one thread, so the thread's ids are the process's.
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn give_up() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    // These two are unset by a change of user, so they come last.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Takes away every system call that opens something new, starts a program, or reaches another process; threads of this
/// one are left. Must be called while the process has one thread.
///
/// # Errors
/// When the kernel can't do that.
pub fn close() -> io::Result<()> {
    keepers::install().map_err(|error| step("giving up system calls", &error))
}
