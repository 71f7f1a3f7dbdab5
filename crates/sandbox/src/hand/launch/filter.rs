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

/// All processes of a user, for `setpriority` and for `ioprio_set`: the hand is among them.
const PRIO_USER: libc::c_int = 2;
const IOPRIO_WHO_USER: libc::c_int = 3;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters on this process, for good and for all that comes from it.
pub(super) fn install() -> Result<(), Failure> {
    for (name, program) in programs().step("compiling the system call filter")? {
        seccompiler::apply_filter(&program)
            .map_err(io::Error::other)
            .step(&format!("installing the system call filter ({name})"))?;
    }
    Ok(())
}

/// What commands may not do to the hand, which has their user, and to what it sees of them: compiled before a
/// command is forked off, and applied by the command to itself ([`apply`]). The hand needs these calls for its
/// own guards, which run on the threads `guards`.
pub(in crate::hand) fn for_commands(guards: &[i32]) -> io::Result<BpfProgram> {
    hand_only(guards)
        .and_then(|rules| compile(rules, libc::EPERM))
        .map_err(io::Error::other)
}

/// Applies a program to this process, for good and for all that comes from it. Makes system calls only, so
/// it may stand between fork and exec.
pub(in crate::hand) fn apply(program: &BpfProgram) -> io::Result<()> {
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

fn compile(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    // A call for another architecture kills the process; the compiler puts that first.
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()?)
}

fn condition(
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

/// The limits of any process but the caller's own, whatever slows the hand's guards down, and what takes a
/// process out of their sight.
fn hand_only(guards: &[i32]) -> Result<Rules, seccompiler::Error> {
    let when = |argument: u8, operator: SeccompCmpOp, value: u64| -> Result<_, seccompiler::Error> {
        Ok(SeccompRule::new(vec![condition(argument, operator, value)?])?)
    };
    let number = |number: libc::c_int| u64::from(number.cast_unsigned());
    let guard = |argument: u8| -> Result<Vec<SeccompRule>, seccompiler::Error> {
        guards
            .iter()
            .map(|thread| when(argument, SeccompCmpOp::Eq, number(*thread)))
            .collect()
    };
    // Who turns this off can't be looked at any more, by the hand either.
    let undumpable = SeccompRule::new(vec![
        condition(0, SeccompCmpOp::Eq, number(libc::PR_SET_DUMPABLE))?,
        condition(1, SeccompCmpOp::Ne, 1)?,
    ])?;
    let mut rules = Rules::from([
        (libc::SYS_kcmp, vec![]),
        (libc::SYS_prctl, vec![undumpable]),
        (libc::SYS_prlimit64, vec![when(0, SeccompCmpOp::Ne, 0)?]),
    ]);
    for (call, every) in [
        (libc::SYS_setpriority, PRIO_USER),
        (libc::SYS_ioprio_set, IOPRIO_WHO_USER),
    ] {
        let mut whom = guard(1)?;
        whom.push(when(0, SeccompCmpOp::Eq, number(every))?);
        rules.insert(call, whom);
    }
    for call in [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ] {
        rules.insert(call, guard(0)?);
    }
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

/// What a process may not do that works with what it has been given and nothing else: beside what no session may.
const OPENING: &[libc::c_long] = &[
    // Files, by name.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_inotify_init1,
    libc::SYS_memfd_create,
    // Connections.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // Programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_kcmp,
    // Memory, queues and locks of others, which go by numbers that can be guessed.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setsid,
    libc::SYS_setpgid,
];

/// The same for calls that the library has no names for everywhere: `fchmodat2`, `setxattrat`, `removexattrat`,
/// `open_tree_attr` and `file_setattr`. New calls have the same number on all machines.
const OPENING_NEWER: &[libc::c_long] = &[452, 463, 466, 467, 469];

/// The flag of `sendto` and its like with which sending connects: a socket whose connection was reset can be connected
/// to any other address that way, without a call of `connect`.
const FAST_OPEN: u64 = 0x2000_0000;

/// Requests of `fcntl` after which a descriptor's events are signals, of any kind, to any process of the same user.
const SIGNALLING: [libc::c_int; 3] = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX];
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
/// The same of `ioctl`: `FIOSETOWN` and `SIOCSPGRP`.
const SIGNALLING_TOO: [u64; 2] = [0x8901, 0x8902];

/// The same for calls that other machines don't have.
#[cfg(target_arch = "x86_64")]
const OPENING_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_inotify_init,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_fork,
    libc::SYS_vfork,
];
/// `renameat`, which the library has no name for.
#[cfg(target_arch = "aarch64")]
const OPENING_HERE: &[libc::c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OPENING_HERE: &[libc::c_long] = &[];

/// Installs the filters on a process of the server's own that keeps what it has been given.
pub(crate) fn install_for_keepers() -> io::Result<()> {
    let keeping = ("opening", keeping().map_err(io::Error::other)?);
    for (_, program) in programs()?.into_iter().chain([keeping]) {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn keeping() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: Rules = OPENING
        .iter()
        .chain(OPENING_NEWER)
        .chain(OPENING_HERE)
        .map(|call| (*call, vec![]))
        .collect();
    let number = |number: libc::c_int| u64::from(number.cast_unsigned());
    // Threads, and no processes.
    let thread = number(libc::CLONE_THREAD);
    let process = condition(0, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    // That it dies with the server, and that nobody looks into it, stays.
    let kept = [libc::PR_SET_PDEATHSIG, libc::PR_SET_DUMPABLE];
    let when = |condition: SeccompCondition| -> Result<SeccompRule, seccompiler::Error> {
        Ok(SeccompRule::new(vec![condition])?)
    };
    let kept = kept.map(|option| when(condition(0, SeccompCmpOp::Eq, number(option))?));
    rules.insert(libc::SYS_prctl, kept.into_iter().collect::<Result<_, _>>()?);
    let others = condition(0, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![others])?]);
    for (call, flags) in [
        (libc::SYS_sendto, 3),
        (libc::SYS_sendmsg, 2),
        (libc::SYS_sendmmsg, 3),
    ] {
        let connects = condition(flags, SeccompCmpOp::MaskedEq(FAST_OPEN), FAST_OPEN)?;
        rules.insert(call, vec![SeccompRule::new(vec![connects])?]);
    }
    let signalling = SIGNALLING.map(|request| when(condition(1, SeccompCmpOp::Eq, number(request))?));
    rules.insert(libc::SYS_fcntl, signalling.into_iter().collect::<Result<_, _>>()?);
    let signalling = SIGNALLING_TOO.map(|request| when(condition(1, SeccompCmpOp::Eq, request)?));
    rules.insert(libc::SYS_ioctl, signalling.into_iter().collect::<Result<_, _>>()?);
    compile(rules, libc::EPERM)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_programs_compile_and_fit() {
        let commands = ("for commands", super::for_commands(&[1, 2]).unwrap());
        let keepers = ("for keepers", super::keeping().unwrap());
        for (name, program) in super::programs().unwrap().into_iter().chain([commands, keepers]) {
            assert!(
                !program.is_empty() && program.len() <= 4_096,
                "{name}: {}",
                program.len()
            );
        }
    }

    /// What a call gave: nothing, or the error's number.
    fn errno(result: libc::c_long) -> i32 {
        match result {
            -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or_default(),
            _ => 0,
        }
    }

    /// Filters hold for the thread that installs them, and end with it.
    #[test]
    fn keepers_open_reach_and_signal_nothing() {
        use std::io::{Read as _, Write as _};
        use std::os::fd::AsRawFd as _;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let address: libc::sockaddr_in = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: other.local_addr().unwrap().port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        };
        let confined = std::thread::spawn(move || {
            super::install_for_keepers().unwrap();
            let socket = libc::c_long::from(near.as_raw_fd());
            let own = i64::from(std::process::id());
            let length = std::mem::size_of_val(&address);
            let at = std::ptr::from_ref(&address);
            let path = c"/dev/null".as_ptr();
            let byte = b"x".as_ptr();
            // SAFETY: every pointer is to something that is there for the call, and what they ask for is refused.
            let refused = unsafe {
                [
                    (
                        "openat",
                        errno(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, 0)),
                    ),
                    (
                        "socket",
                        errno(libc::syscall(
                            libc::SYS_socket,
                            libc::AF_INET,
                            libc::SOCK_STREAM,
                            0,
                        )),
                    ),
                    (
                        "connect",
                        errno(libc::syscall(libc::SYS_connect, socket, at, length)),
                    ),
                    (
                        "sendto that connects",
                        errno(libc::syscall(
                            libc::SYS_sendto,
                            socket,
                            byte,
                            1,
                            super::FAST_OPEN,
                            at,
                            length,
                        )),
                    ),
                    (
                        "sendmsg that connects",
                        errno(libc::syscall(libc::SYS_sendmsg, socket, 0, super::FAST_OPEN)),
                    ),
                    (
                        "sendmmsg that connects",
                        errno(libc::syscall(libc::SYS_sendmmsg, socket, 0, 0, super::FAST_OPEN)),
                    ),
                    ("kill", errno(libc::syscall(libc::SYS_kill, own, 0))),
                    (
                        "F_SETOWN",
                        errno(libc::syscall(libc::SYS_fcntl, socket, libc::F_SETOWN, own)),
                    ),
                    (
                        "F_SETSIG",
                        errno(libc::syscall(
                            libc::SYS_fcntl,
                            socket,
                            super::F_SETSIG,
                            libc::SIGKILL,
                        )),
                    ),
                    (
                        "FIOSETOWN",
                        errno(libc::syscall(libc::SYS_ioctl, socket, 0x8901, &own)),
                    ),
                    ("shmat", errno(libc::syscall(libc::SYS_shmat, 0, 0, 0))),
                    (
                        "fchmodat2",
                        errno(libc::syscall(452, libc::AT_FDCWD, path, 0o666, 0)),
                    ),
                    (
                        "fork",
                        errno(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)),
                    ),
                    (
                        "PDEATHSIG",
                        errno(libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, 0)),
                    ),
                    ("execve", errno(libc::syscall(libc::SYS_execve, path, 0, 0))),
                ]
            };
            // What it has goes on working, and so do threads.
            near.write_all(b"word").unwrap();
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            refused
        });
        for (name, errno) in confined.join().unwrap() {
            assert_eq!(errno, libc::EPERM, "{name}");
        }
        let mut word = [0; 4];
        far.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
        assert!(other.accept().is_err(), "nobody has come");
    }
}
