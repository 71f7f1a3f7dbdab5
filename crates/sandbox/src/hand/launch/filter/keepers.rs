//! The system calls that a process of the server's own may not make once it has what it works with, beside those that
//! no session may.

use std::io;

use seccompiler::{BpfProgram, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{F_SETOWN_EX, Rules, SIGNALLING_REQUESTS, compile, condition, programs};

/// Whatever opens something new, reaches another process, or changes who this one is.
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
pub(crate) fn install() -> io::Result<()> {
    let keeping = ("opening", program().map_err(io::Error::other)?);
    for (_, program) in programs()?.into_iter().chain([keeping]) {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

pub(super) fn program() -> Result<BpfProgram, seccompiler::Error> {
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
    let signalling = SIGNALLING_REQUESTS.map(|request| when(condition(1, SeccompCmpOp::Eq, request)?));
    rules.insert(libc::SYS_ioctl, signalling.into_iter().collect::<Result<_, _>>()?);
    compile(rules, libc::EPERM)
}

#[cfg(test)]
mod tests {
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
            super::install().unwrap();
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
