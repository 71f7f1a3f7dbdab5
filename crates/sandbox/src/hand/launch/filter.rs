//! The system calls that a session may not make.
//!
//! A list of what is denied rather than of what is allowed: agents run any program there is, and what keeps
//! them in is the namespaces and the lack of privilege. The filter takes away the parts of the kernel that an
//! ordinary program never needs and that most ways out of such a sandbox went through.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::{Failure, Step as _};

pub(in crate::hand) mod commands;
pub(crate) mod keepers;

/// Denied whatever the arguments: mounts, namespaces, other processes' insides, and what only administrators
/// do.
const DENIED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces (`clone` and `unshare` are below, by their flags).
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Other processes' insides.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Files by handle, past the mounts.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Large and often broken parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_vmsplice,
    // Administration.
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// Denied system calls that other machines don't have.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// The flags of `clone` and `unshare` that make a namespace. The one for time shares its bit with the signal
/// number of `clone`, and so counts for `unshare` only.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
const NEW_TIME: libc::c_int = 0x80;

/// The socket families that there are in a sandbox: local and IP. The network namespace has nothing but its
/// own loopback.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Requests that reserve space for a file behind the back of the file size limit, as `fallocate` does:
/// `FS_IOC_RESVSP`, `FS_IOC_RESVSP64` and `FS_IOC_ZERO_RANGE`.
const RESERVATIONS: [u64; 3] = [0x4030_5828, 0x4030_582a, 0x4030_5839];

/// The flag of `fallocate` with which it gives space back.
const PUNCH_HOLE: u64 = 2;

/// Terminal requests that put words into another process's mouth.
const TERMINAL_INJECTION: [libc::c_ulong; 2] =
    [libc::TIOCSTI as libc::c_ulong, libc::TIOCLINUX as libc::c_ulong];

/// Requests after which a descriptor's events are signals to a process that is named in memory, where a filter can't look:
/// of `fcntl`, and of `ioctl` (`FIOSETOWN` and `SIOCSPGRP`).
const F_SETOWN_EX: libc::c_int = 15;
const SIGNALLING_REQUESTS: [u64; 2] = [0x8901, 0x8902];

pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters on this process, for good and for all that comes from it.
pub(super) fn install() -> Result<(), Failure> {
    for (name, program) in programs().step("compiling the system call filter")? {
        seccompiler::apply_filter(&program)
            .map_err(io::Error::other)
            .step(&format!("installing the system call filter ({name})"))?;
    }
    Ok(())
}

/// Applies a program to this process, for good and for all that comes from it. Makes system calls only, so
/// it may stand between fork and exec.
pub(super) fn apply(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    })
}

/// The programs; the kernel takes the strictest answer of all of them.
fn programs() -> io::Result<Vec<(&'static str, BpfProgram)>> {
    let compiled = || -> Result<_, seccompiler::Error> {
        Ok(vec![
            ("denied calls", compile(denied()?, libc::EPERM)?),
            // The C library falls back to `clone`, whose flags can be looked at; those of `clone3` can't.
            (
                "clone3",
                compile(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)?,
            ),
            ("socket families", compile(sockets()?, libc::EAFNOSUPPORT)?),
            // What a file system that can't do it says: programs then write zeroes, or do without.
            ("reservations", compile(reservations()?, libc::EOPNOTSUPP)?),
        ])
    };
    let mut programs = compiled().map_err(io::Error::other)?;
    if cfg!(target_arch = "x86_64") {
        programs.push(("foreign calls", foreign()));
    }
    Ok(programs)
}

pub(super) fn compile(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    // A call for another architecture kills the process; the compiler puts that first.
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()?)
}

pub(super) fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    // The kernel takes all of these arguments as 32 bits, so what stands above must not matter.
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

fn denied() -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules = DENIED
        .iter()
        .chain(DENIED_HERE)
        .map(|call| (*call, vec![]))
        .collect();
    let flag = |flag: libc::c_int| -> Result<SeccompRule, seccompiler::Error> {
        let bit = u64::from(flag.cast_unsigned());
        Ok(SeccompRule::new(vec![condition(
            0,
            SeccompCmpOp::MaskedEq(bit),
            bit,
        )?])?)
    };
    let namespaces = NAMESPACES.into_iter().map(flag).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    let unshare = NAMESPACES
        .into_iter()
        .chain([NEW_TIME])
        .map(flag)
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_unshare, unshare);
    let injections = TERMINAL_INJECTION
        .into_iter()
        .map(|request| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?])?))
        .collect::<Result<Vec<_>, seccompiler::Error>>()?;
    rules.insert(libc::SYS_ioctl, injections);
    Ok(rules)
}

/// Space that is taken without a write, which no file size limit holds back.
fn reservations() -> Result<Rules, seccompiler::Error> {
    let takes = condition(1, SeccompCmpOp::MaskedEq(PUNCH_HOLE), 0)?;
    let requests = RESERVATIONS
        .into_iter()
        .map(|request| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?])?))
        .collect::<Result<Vec<_>, seccompiler::Error>>()?;
    Ok(BTreeMap::from([
        (libc::SYS_fallocate, vec![SeccompRule::new(vec![takes])?]),
        (libc::SYS_ioctl, requests),
    ]))
}

fn sockets() -> Result<Rules, seccompiler::Error> {
    let none_of = FAMILIES
        .into_iter()
        .map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.cast_unsigned())))
        .collect::<Result<Vec<_>, _>>()?;
    let rule = SeccompRule::new(none_of)?;
    Ok(BTreeMap::from([
        (libc::SYS_socket, vec![rule.clone()]),
        (libc::SYS_socketpair, vec![rule]),
    ]))
}

/// Kills a process that makes a call of the x32 kind, whose numbers no other rule here knows.
fn foreign() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    vec![
        // The number of the call is the first word of what the filter is given.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: X32_BIT,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_programs_compile_and_fit() {
        let keepers = ("for keepers", super::keepers::program().unwrap());
        for (name, program) in super::programs().unwrap().into_iter().chain([keepers]) {
            assert!(
                !program.is_empty() && program.len() <= 4_096,
                "{name}: {}",
                program.len()
            );
        }
    }
}
