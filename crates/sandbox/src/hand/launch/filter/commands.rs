//! The system calls that commands may not make, beside those that nothing in a sandbox may: what could be turned against
//! the hand, which has their user and needs these calls for its own guards.
//!
//! Linux keeps signals from the first process of a namespace that does not ask for them, whatever they are sent with. gVisor
//! does not, by the number of any of its threads, so there all ways of sending one are closed for those. One to everybody
//! leaves the first process out there as well, nobody can enter its group, which is of another session, and a child that ends
//! tells a parent that has come to be the first process in the usual way, whatever it was made with.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompCmpOp, SeccompRule};

use super::{F_SETOWN_EX, Rules, SIGNALLING_REQUESTS, apply, compile, condition};

/// All processes of a user, for `setpriority` and for `ioprio_set`: the hand is among them.
const PRIO_USER: libc::c_int = 2;
const IOPRIO_WHO_USER: libc::c_int = 3;

/// The number of the hand, and of its group of processes.
const INIT: i32 = 1;

/// What commands are kept away from.
#[derive(Debug)]
pub(in crate::hand) struct Kept<'a> {
    /// The thread of the hand that its guards rely on, the first one aside.
    pub(in crate::hand) guard: i32,
    pub(in crate::hand) beside: &'a Beside,
}

/// What commands are kept away from where the sandbox may have a kernel of its own; nothing elsewhere.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::hand) struct Beside {
    /// All threads of the hand, of which there are never others.
    pub(in crate::hand) threads: Vec<i32>,
    /// The user that relays have, who is nobody else. Root of a build could become anybody.
    pub(in crate::hand) relay: Option<u32>,
}

/// The programs for a command: compiled before it is forked off, and applied by it to itself.
#[derive(Debug)]
pub(in crate::hand) struct Confinement(Vec<BpfProgram>);

impl Confinement {
    /// # Errors
    /// When they can't be compiled.
    pub(in crate::hand) fn new(kept: &Kept<'_>) -> io::Result<Self> {
        let compiled = || -> Result<_, seccompiler::Error> {
            let mut programs = vec![compile(rules(kept)?, libc::EPERM)?];
            if !kept.beside.threads.is_empty() {
                // Whom it would reach can't be looked at. Programs go without, as on an older kernel.
                let absent = BTreeMap::from([(libc::SYS_pidfd_send_signal, vec![])]);
                programs.push(compile(absent, libc::ENOSYS)?);
            }
            Ok(programs)
        };
        compiled().map(Self).map_err(io::Error::other)
    }

    /// Applies them to this process, for good and for all that comes from it. Makes system calls only, so it may stand
    /// between fork and exec.
    pub(in crate::hand) fn apply(&self) -> io::Result<()> {
        self.0.iter().try_for_each(apply)
    }
}

fn number(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(vec![condition(argument, operator, value)?])?)
}

/// When the argument is one of these.
fn any_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let rule = |value: &i32| when(argument, SeccompCmpOp::Eq, number(*value));
    values.iter().map(rule).collect()
}

/// The limits of any process but the caller's own, whatever slows the hand's guards down, what takes a process out of
/// their sight, and signals.
fn rules(kept: &Kept<'_>) -> Result<Rules, seccompiler::Error> {
    let Beside { threads, relay } = kept.beside;
    let mut guards = threads.clone();
    guards.extend([INIT, kept.guard]);
    guards.sort_unstable();
    guards.dedup();
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
        let mut whom = any_of(1, &guards)?;
        whom.push(when(0, SeccompCmpOp::Eq, number(every))?);
        rules.insert(call, whom);
    }
    for call in [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ] {
        rules.insert(call, any_of(0, &guards)?);
    }
    signals(&mut rules, &guards, threads)?;
    if let Some(relay) = relay {
        becoming(&mut rules, *relay)?;
    }
    Ok(rules)
}

/// Signals to the hand. The numbers of `threads` name threads of a process as the process itself, in `kill` and its like.
fn signals(rules: &mut Rules, guards: &[i32], threads: &[i32]) -> Result<(), seccompiler::Error> {
    let processes = if threads.is_empty() { &[INIT] } else { guards };
    let mut sent = Vec::new();
    for process in processes {
        // Whether it is there may be asked.
        sent.push(SeccompRule::new(vec![
            condition(0, SeccompCmpOp::Eq, number(*process))?,
            condition(1, SeccompCmpOp::Ne, 0)?,
        ])?);
    }
    let of_init = any_of(0, &[INIT])?;
    rules.extend([
        (libc::SYS_kill, sent.clone()),
        (libc::SYS_rt_sigqueueinfo, sent),
        (libc::SYS_tkill, any_of(0, guards)?),
        (libc::SYS_tgkill, of_init.clone()),
        (libc::SYS_rt_tgsigqueueinfo, of_init),
    ]);
    if threads.is_empty() {
        return Ok(());
    }
    // A descriptor's events may be any signal, to whom the descriptor is given: a process, or a group by its number below zero.
    let mut owners = guards.to_vec();
    owners.push(-INIT);
    let mut given = Vec::new();
    for owner in owners {
        given.push(SeccompRule::new(vec![
            condition(1, SeccompCmpOp::Eq, number(libc::F_SETOWN))?,
            condition(2, SeccompCmpOp::Eq, number(owner))?,
        ])?);
    }
    given.push(when(1, SeccompCmpOp::Eq, number(F_SETOWN_EX))?);
    rules.insert(libc::SYS_fcntl, given);
    let requests = SIGNALLING_REQUESTS.map(|request| when(1, SeccompCmpOp::Eq, request));
    rules.insert(libc::SYS_ioctl, requests.into_iter().collect::<Result<_, _>>()?);
    Ok(())
}

/// Becoming this user. Root of a build has the right to be anybody.
fn becoming(rules: &mut Rules, user: u32) -> Result<(), seccompiler::Error> {
    for (call, arguments) in [
        (libc::SYS_setuid, 1),
        (libc::SYS_setreuid, 2),
        (libc::SYS_setresuid, 3),
        (libc::SYS_setfsuid, 1),
    ] {
        let whom = (0..arguments).map(|argument| when(argument, SeccompCmpOp::Eq, u64::from(user)));
        rules.insert(call, whom.collect::<Result<_, _>>()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_compile_and_fit() {
        let many = Beside {
            threads: (1..=16).collect(),
            relay: Some(65_533),
        };
        for (beside, count) in [(Beside::default(), 1), (many, 2)] {
            let kept = Kept {
                guard: 2,
                beside: &beside,
            };
            let Confinement(programs) = Confinement::new(&kept).unwrap();
            assert_eq!(programs.len(), count);
            for program in programs {
                assert!(!program.is_empty() && program.len() <= 4_096, "{}", program.len());
            }
        }
    }
}
