//! Giving up every privilege, and what bounds a single process.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::namespaces::Maps;
use super::{Duties, Failure, INSIDE_ID, Plan, Step as _};
use crate::limits::Enforcement;

/// The highest capability number that any kernel may have.
const LAST_CAPABILITY: u32 = 63;

/// The limit that forbids core dumps: zero would still allow them where the host has a program take them, which
/// then would run outside the sandbox; one is too little for a file, and the kernel's word for "not to a program
/// either".
const NO_CORE: u64 = 1;

/// Memory that a process may lock, in bytes: the usual default.
const LOCKED_MEMORY: u64 = 8 << 20;

/// Sets the resource limits, which everything in the sandbox inherits and can't raise.
pub(super) fn limit_resources(duties: &Duties) -> Result<(), Failure> {
    let limits = &duties.limits;
    let mut wanted = vec![
        (Resource::Core, NO_CORE),
        (Resource::Nofile, limits.open_files),
        (Resource::Fsize, limits.disk.max(limits.tmp)),
        (Resource::Memlock, LOCKED_MEMORY),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    if duties.enforcement == Enforcement::Rlimit {
        // Private writable memory of one process. The address space is no measure: runtimes reserve far more
        // of it than they use.
        wanted.push((Resource::Data, limits.memory));
    }
    wanted
        .into_iter()
        .try_for_each(|(resource, value)| limit(resource, value))
}

/// Limits the processes of the session's user. They are counted for each user namespace by itself; where a sandbox
/// has none of its own, they would be counted together with those of other sandboxes of that user.
pub(super) fn limit_processes(duties: &Duties) -> Result<(), Failure> {
    limit(Resource::Nproc, u64::from(duties.limits.processes))
}

fn limit(resource: Resource, value: u64) -> Result<(), Failure> {
    // A hard limit below what is wanted can't be raised without privilege, and is stricter anyway.
    let now = rustix::process::getrlimit(resource);
    let hard = now.maximum.map_or(value, |now| now.min(value));
    if (now.current, now.maximum) == (Some(hard), Some(hard)) {
        // Some kernels have this and no other, and take none.
        return Ok(());
    }
    let new = Rlimit {
        current: Some(hard),
        maximum: Some(hard),
    };
    rustix::process::setrlimit(resource, new).step(&format!("limiting {resource:?}"))
}

/// What root of a build may do, over its own users and files only: what installers need.
pub(super) const OF_BUILDS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Becomes the session's user, with no capability and no way to gain one; or root of a build, with few.
pub(super) fn drop_privileges(plan: &Plan, maps: Maps) -> Result<(), Failure> {
    let (id, kept) = match plan.site {
        Some(_) => (0, OF_BUILDS),
        None => (INSIDE_ID, CapabilitySet::empty()),
    };
    if plan.uid.is_some() {
        // The groups go before the user namespace: afterwards nobody may change them.
        rustix::thread::set_thread_groups(&[]).step("leaving the groups")?;
        maps.enter_user_namespace()?;
    }
    for capability in 0..=LAST_CAPABILITY {
        if kept.bits() & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: `prctl` with integers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The kernel knows no capability of that number or beyond it.
            if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 {
                break;
            }
            return Err(error).step("emptying the bounding set");
        }
    }
    rustix::thread::clear_ambient_capability_set().step("emptying the ambient set")?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    // The process has one thread, so the thread's ids are the process's.
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("becoming the session's group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("becoming the session's user")?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
    .step("dropping the capabilities")?;
    close()?;
    check(id, id, kept)
}

/// Forbids new privileges, and closes the process to others.
pub(super) fn close() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).step("forbidding new privileges")?;
    // Processes of the session have the same user as the hand: this keeps them out of its memory and its
    // descriptors, through ptrace or /proc.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("closing the process")
}

/// That no privilege but these could be gained even from a program that has some: the set that bounds them has no other.
pub(super) fn check_bounds(kept: CapabilitySet) -> Result<(), Failure> {
    let step = "giving up the privileges";
    for capability in 0..=LAST_CAPABILITY {
        if kept.bits() & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: `prctl` with integers only.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } {
            0 => {}
            1 => return Err(io::Error::other(format!("capability {capability} is left"))).step(step),
            // The kernel knows no capability of that number or beyond it.
            _ => break,
        }
    }
    Ok(())
}

/// Trusts no system call's word for it: reads back what is left.
pub(super) fn check(user: u32, group: u32, kept: CapabilitySet) -> Result<(), Failure> {
    let left = rustix::thread::capabilities(None).step("reading the capabilities")?;
    let gone = kept.contains(left.effective | left.permitted) && left.inheritable.is_empty();
    let is_user = rustix::process::getuid().as_raw() == user
        && rustix::process::geteuid().as_raw() == user
        && rustix::process::getgid().as_raw() == group
        && rustix::process::getegid().as_raw() == group;
    if gone && is_user && rustix::process::getpid().is_init() {
        return Ok(());
    }
    Err(io::Error::other("some are left")).step("giving up the privileges")
}
