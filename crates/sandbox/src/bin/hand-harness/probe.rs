//! What a hostile program tries from inside a sandbox: raw system calls, each with what came of it, one line
//! each: `name ok` or `name errno NUMBER`, and `name killed SIGNAL` for what the kernel kills for.

use std::ffi::OsStr;
use std::io::{self, Write as _};

use libc::{c_int, c_long};

type Attempt = (&'static str, Box<dyn Fn() -> c_long>);

fn call(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the numbers and arguments below are such that the kernel refuses the call or changes nothing
    // that this short program relies on; pointers are null or to valid memory.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

fn plain(name: &'static str, number: c_long, arguments: [c_long; 6]) -> Attempt {
    (name, Box::new(move || call(number, arguments)))
}

fn socket(name: &'static str, family: c_int, kind: c_int) -> Attempt {
    plain(
        name,
        libc::SYS_socket,
        [c_long::from(family), c_long::from(kind), 0, 0, 0, 0],
    )
}

fn open(name: &'static str, path: &'static str, flags: c_int) -> Attempt {
    let attempt = move || match std::fs::OpenOptions::new()
        .read(flags != libc::O_WRONLY)
        .write(flags == libc::O_WRONLY)
        .open(path)
    {
        Ok(_) => 0,
        Err(_) => -1,
    };
    (name, Box::new(attempt))
}

fn attempts() -> Vec<Attempt> {
    let flag = |flag: c_int| [c_long::from(flag), 0, 0, 0, 0, 0];
    let none = [0; 6];
    let mut all = vec![
        plain("unshare-user", libc::SYS_unshare, flag(libc::CLONE_NEWUSER)),
        plain("unshare-mount", libc::SYS_unshare, flag(libc::CLONE_NEWNS)),
        plain("unshare-net", libc::SYS_unshare, flag(libc::CLONE_NEWNET)),
        plain("unshare-pid", libc::SYS_unshare, flag(libc::CLONE_NEWPID)),
        plain(
            "clone-user",
            libc::SYS_clone,
            flag(libc::CLONE_NEWUSER | libc::SIGCHLD),
        ),
        plain("clone-pid-high-bits", libc::SYS_clone, {
            let mut arguments = flag(libc::CLONE_NEWPID | libc::SIGCHLD);
            arguments[0] |= 1 << 40;
            arguments
        }),
        plain("clone3", libc::SYS_clone3, none),
        plain("setns", libc::SYS_setns, none),
        plain("mount", libc::SYS_mount, none),
        plain("umount", libc::SYS_umount2, none),
        plain("pivot-root", libc::SYS_pivot_root, none),
        plain("chroot", libc::SYS_chroot, none),
        plain("open-tree", libc::SYS_open_tree, none),
        plain("fsopen", libc::SYS_fsopen, none),
        plain("mount-setattr", libc::SYS_mount_setattr, none),
        plain("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0, 0]),
        plain("process-vm-readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        plain("keyctl", libc::SYS_keyctl, none),
        plain("add-key", libc::SYS_add_key, none),
        plain("bpf", libc::SYS_bpf, none),
        plain("perf", libc::SYS_perf_event_open, none),
        plain("userfaultfd", libc::SYS_userfaultfd, none),
        plain("io-uring", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        plain("kexec", libc::SYS_kexec_load, none),
        plain("init-module", libc::SYS_init_module, none),
        plain("open-by-handle", libc::SYS_open_by_handle_at, none),
        plain("preallocate", libc::SYS_fallocate, [-1, 1, 0, 4_096, 0, 0]),
        plain("punch-hole", libc::SYS_fallocate, [-1, 3, 0, 4_096, 0, 0]),
        plain(
            "preallocate-ioctl",
            libc::SYS_ioctl,
            [-1, 0x4030_5828, 0, 0, 0, 0],
        ),
        plain(
            "preallocate-ioctl64",
            libc::SYS_ioctl,
            [-1, 0x4030_582a, 0, 0, 0, 0],
        ),
        plain("zero-range-ioctl", libc::SYS_ioctl, [-1, 0x4030_5839, 0, 0, 0, 0]),
        plain("undumpable", libc::SYS_prctl, {
            let option = c_long::from(libc::PR_SET_DUMPABLE);
            [option, 0, 0, 0, 0, 0]
        }),
        plain("reboot", libc::SYS_reboot, none),
        plain("sethostname", libc::SYS_sethostname, none),
        plain("settimeofday", libc::SYS_settimeofday, none),
        plain(
            "inject-terminal",
            libc::SYS_ioctl,
            [0, libc::TIOCSTI.cast_signed(), 0, 0, 0, 0],
        ),
        plain("setuid-root", libc::SYS_setuid, none),
        plain("setgroups", libc::SYS_setgroups, none),
        plain("dumpable-init", libc::SYS_kcmp, [1, 1, 0, 0, 0, 0]),
        socket("netlink", libc::AF_NETLINK, libc::SOCK_RAW),
        socket("packet", libc::AF_PACKET, libc::SOCK_RAW),
        socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM),
        socket("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW),
        socket("alg", libc::AF_ALG, libc::SOCK_SEQPACKET),
        plain("raw-ip", libc::SYS_socket, {
            let of = c_long::from;
            [
                of(libc::AF_INET),
                of(libc::SOCK_RAW),
                of(libc::IPPROTO_ICMP),
                0,
                0,
                0,
            ]
        }),
        open("init-memory", "/proc/1/mem", libc::O_RDONLY),
        open("init-environment", "/proc/1/environ", libc::O_RDONLY),
        open("init-program", "/proc/1/exe", libc::O_RDONLY),
        open("init-maps", "/proc/1/maps", libc::O_RDONLY),
        open("init-limits-write", "/proc/1/oom_score_adj", libc::O_WRONLY),
        open("kernel-memory", "/dev/mem", libc::O_RDONLY),
        open("disk", "/dev/vda", libc::O_RDONLY),
        open("hostname-write", "/proc/sys/kernel/hostname", libc::O_WRONLY),
        open(
            "core-pattern-write",
            "/proc/sys/kernel/core_pattern",
            libc::O_WRONLY,
        ),
        open("sysrq", "/proc/sysrq-trigger", libc::O_WRONLY),
        open("shadow", "/etc/shadow", libc::O_RDONLY),
        // What must work, so that the refusals above mean something.
        socket("allowed-unix", libc::AF_UNIX, libc::SOCK_STREAM),
        socket("allowed-ip", libc::AF_INET, libc::SOCK_STREAM),
        plain("allowed-dumpable", libc::SYS_prctl, {
            let option = c_long::from(libc::PR_SET_DUMPABLE);
            [option, 1, 0, 0, 0, 0]
        }),
        socket("allowed-ip6", libc::AF_INET6, libc::SOCK_STREAM),
        open("allowed-null", "/dev/null", libc::O_WRONLY),
    ];
    let folders = |path: &'static str| move || if std::fs::read_dir(path).is_ok() { 0 } else { -1 };
    all.push(("init-descriptors", Box::new(folders("/proc/1/fd"))));
    all.push(("init-root", Box::new(folders("/proc/1/root"))));
    all.push((
        "init-namespaces",
        Box::new(|| {
            if std::fs::read_link("/proc/1/ns/mnt").is_ok() {
                0
            } else {
                -1
            }
        }),
    ));
    all
}

pub(super) fn main(socket: Option<&OsStr>) -> io::Result<()> {
    let mut out = io::stdout();
    for (name, attempt) in attempts() {
        // What is not refused outright may still go wrong for want of good arguments: also an error.
        match attempt() {
            0.. => writeln!(out, "{name} ok")?,
            _ => writeln!(
                out,
                "{name} errno {}",
                io::Error::last_os_error().raw_os_error().unwrap_or(0)
            )?,
        }
    }
    out.flush()?;
    #[cfg(target_arch = "x86_64")]
    writeln!(out, "x32 {}", foreign()?)?;
    if let Some(name) = socket {
        writeln!(out, "abstract-socket {}", connect(name)?)?;
    }
    out.flush()
}

/// Connects to a socket of the host in the abstract name space, which belongs to the network namespace.
fn connect(name: &OsStr) -> io::Result<&'static str> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    Ok(
        if std::os::unix::net::UnixStream::connect_addr(&address).is_ok() {
            "ok"
        } else {
            "refused"
        },
    )
}

/// Makes a call of the x32 kind in a child of its own.
#[cfg(target_arch = "x86_64")]
fn foreign() -> io::Result<String> {
    // SAFETY: this program has one thread; the child makes one call and exits.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        call(libc::SYS_getpid | 0x4000_0000, [0; 6]);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, and writes to a valid integer.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(if libc::WIFSIGNALED(status) {
        format!("killed {}", libc::WTERMSIG(status))
    } else {
        "ok".to_owned()
    })
}
