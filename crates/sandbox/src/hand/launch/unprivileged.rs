//! What the filters of a build say where it has one user only, the server's own.
//!
//! Installers give files to users of their own choosing and become such users. There they can be no other; so they are
//! told that they were obeyed, and everything stays the one user's. What they change of the host's files in place waits
//! until that has been copied ([`crate::hand::copy_up`]).
//!
//! Invariant: what no session may call stays denied: the kernel takes the strictest answer of all filters.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::filter::{Rules, apply, compile, condition};
use super::{Failure, Step as _};
use crate::hand::copy_up;

/// Calls that succeed and do nothing: other owners, other users.
const PRETENDED: &[libc::c_long] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];
#[cfg(target_arch = "x86_64")]
const PRETENDED_HERE: &[libc::c_long] = &[libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
const PRETENDED_HERE: &[libc::c_long] = &[];

/// Calls that may change a file in place, give it another name or move it, whatever their arguments.
const CHANGING: &[libc::c_long] = &[
    libc::SYS_truncate,
    libc::SYS_linkat,
    libc::SYS_renameat2,
    libc::SYS_fchmodat,
    copy_up::FCHMODAT2,
];
#[cfg(target_arch = "x86_64")]
const CHANGING_HERE: &[libc::c_long] = &[
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_chmod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(target_arch = "aarch64")]
const CHANGING_HERE: &[libc::c_long] = &[copy_up::RENAMEAT];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CHANGING_HERE: &[libc::c_long] = &[];

/// An error that no call has, in whose place the kernel's word for waiting is put: the compiler has none.
const PLACEHOLDER: libc::c_int = 0x0fff;

/// Installs the filters on this thread, for good and for all that comes from it, after those for what waits have begun,
/// which they don't hold for.
pub(super) fn install() -> Result<(), Failure> {
    let step = "installing the system call filter (of an ordinary user's build)";
    let (pretended, waiting) = programs().step(step)?;
    let give = copy_up::start().step(step)?;
    apply(&pretended).step(step)?;
    let listener = listen(&waiting).step(step)?;
    give.send(listener).map_err(io::Error::other).step(step)
}

/// Installs a program, and gives the descriptor at which what it has wait is heard of.
fn listen(program: &BpfProgram) -> io::Result<OwnedFd> {
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program is valid and outlives the call, which copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match i32::try_from(listener) {
        // SAFETY: the kernel has just made it, and nobody else has it.
        Ok(listener) if listener >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is pretended, and what waits.
fn programs() -> io::Result<(BpfProgram, BpfProgram)> {
    let compiled = || -> Result<_, seccompiler::Error> {
        let pretended = PRETENDED.iter().chain(PRETENDED_HERE);
        let pretended = pretended.map(|call| (*call, vec![])).collect();
        let mut waiting = compile(changing()?, PLACEHOLDER)?;
        for instruction in &mut waiting {
            if u32::from(instruction.code) == libc::BPF_RET | libc::BPF_K
                && instruction.k == libc::SECCOMP_RET_ERRNO | PLACEHOLDER.unsigned_abs()
            {
                instruction.k = libc::SECCOMP_RET_USER_NOTIF;
            }
        }
        Ok((compile(pretended, 0)?, waiting))
    };
    compiled().map_err(io::Error::other)
}

fn changing() -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules = CHANGING
        .iter()
        .chain(CHANGING_HERE)
        .map(|call| (*call, vec![]))
        .collect();
    rules.insert(libc::SYS_openat, opening(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opening(1)?);
    // What was opened to be written to is no file of the host's any more, so these matter for the rights only that they
    // may give out.
    let gives = |bit: libc::mode_t| -> Result<SeccompRule, seccompiler::Error> {
        let bit = u64::from(bit);
        SeccompRule::new(vec![condition(1, SeccompCmpOp::MaskedEq(bit), bit)?]).map_err(Into::into)
    };
    rules.insert(
        libc::SYS_fchmod,
        vec![gives(libc::S_ISUID)?, gives(libc::S_ISGID)?],
    );
    // Without a path it is about a descriptor.
    let has_path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_utimensat, vec![SeccompRule::new(vec![has_path])?]);
    Ok(rules)
}

/// Opening what may be there already, to write to it. `flags` says which argument has the flags.
fn opening(flags: u8) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let number = |flags: libc::c_int| u64::from(flags.cast_unsigned());
    let of_interest = number(libc::O_ACCMODE | libc::O_EXCL);
    [
        (of_interest, number(libc::O_WRONLY)),
        (of_interest, number(libc::O_RDWR)),
        (number(libc::O_TRUNC), number(libc::O_TRUNC)),
    ]
    .into_iter()
    .map(|(mask, value)| {
        Ok(SeccompRule::new(vec![condition(
            flags,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )?])?)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_programs_compile_and_one_of_them_has_calls_wait() {
        let (pretended, waiting) = super::programs().unwrap();
        let answers = |program: &[seccompiler::sock_filter]| {
            let returns = program.iter().filter(|one| {
                u32::from(one.code) == libc::BPF_RET | libc::BPF_K && one.k != libc::SECCOMP_RET_KILL_PROCESS
            });
            returns
                .map(|one| one.k)
                .collect::<std::collections::BTreeSet<u32>>()
        };
        let expected = |answer| std::collections::BTreeSet::from([answer, libc::SECCOMP_RET_ALLOW]);
        assert_eq!(answers(&pretended), expected(libc::SECCOMP_RET_ERRNO));
        assert_eq!(answers(&waiting), expected(libc::SECCOMP_RET_USER_NOTIF));
    }
}
