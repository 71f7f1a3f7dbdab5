//! The programs of workflow runs: what an agent writes to have others work in an order of its choice, with loops and
//! branches that depend on what they answer.
//!
//! A program is a Rhai script without a clock, chance, files or modules, so what it does depends on nothing but what its
//! calls of agents have answered. That is why it can be evaluated *by replay*: [`step`] runs it from its start with the
//! answers so far, and the first call that has none ends the evaluation. A run that waits for agents is therefore no thread
//! and no memory, only the log that has the answers, and a server that starts again goes on where the last one stopped.
//!
//! Where it sits: it knows nothing of sessions. The engine asks it what to do next.
//!
//! Invariant: the same program with the same answers asks for the same calls in the same order.
//! Invariant: an evaluation ends within bounds of work, time and memory, and never takes the server with it.

mod engine;
mod value;

#[cfg(test)]
mod tests;

use std::io;
use std::thread;

use serde_json::{Map, Value};

/// The longest program, in bytes.
pub const MAX_PROGRAM: usize = 32 * 1024;
/// The most calls of agents in one run.
pub const MAX_CALLS: usize = 1000;
/// The most phases that are entered in one run.
pub const MAX_MARKS: usize = 1000;
/// The longest text of an answer that a program is given, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The most of the answers of one `parallel` together, in bytes.
pub const MAX_ANSWERS: usize = 768 * 1024;
/// The longest prompt, in bytes.
pub const MAX_PROMPT: usize = 256 * 1024;
/// The longest result, in bytes.
pub const MAX_RESULT: usize = 256 * 1024;

/// The stack of an evaluation, in bytes: what a program nests is freed by recursion. Only what is used is ever there.
const STACK: usize = 64 << 20;

/// What a program may name.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The phases of the run, in order.
    pub phases: Vec<String>,
    /// The agents, by all the names that they go by.
    pub agents: Vec<String>,
    /// Whether agents may be defined in the program.
    pub inline: bool,
}

/// What an agent answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it did what it was asked to; otherwise the text says why not.
    pub ok: bool,
    /// What it said last.
    pub text: String,
}

/// Who is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Callee {
    /// One of [`Rules::agents`].
    Named(String),
    /// An agent that the program defines: all that it said but the prompt.
    Inline(Map<String, Value>),
}

/// A call of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its place among the calls of the run, counted from 0.
    pub index: usize,
    /// Who is called.
    pub callee: Callee,
    /// What it is told.
    pub prompt: String,
}

/// How far a program gets with the answers that there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The phases that it has entered until here, as places in [`Rules::phases`]: with more answers only more of them.
    pub marks: Vec<usize>,
    /// How many calls it has made until here, those that wait included.
    pub asked: usize,
    /// What it does there.
    pub step: Step,
}

/// What a program does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It is done, and this is what it gives.
    Done(String),
    /// It waits for the answers of these calls, all of them; at least one.
    Waiting(Vec<Call>),
    /// It can't go on, for a reason in words for whoever wrote it.
    Failed(String),
    /// It makes more calls than a run may.
    Exhausted,
}

/// Whether a text is a program at all.
///
/// # Errors
/// What is wrong, in words for whoever wrote it.
pub fn check(program: &str) -> Result<(), String> {
    if program.len() > MAX_PROGRAM {
        return Err(format!("a program may have at most {MAX_PROGRAM} bytes"));
    }
    apart(|| engine::compile(program)).unwrap_or_else(|problem| Err(problem.to_owned()))
}

/// Evaluates a program with the answers so far: `None`, or nothing at a call's place, is no answer yet. It can take seconds
/// of a processor and blocks for as long.
#[must_use]
pub fn step(program: &str, rules: &Rules, answers: &[Option<Answer>]) -> Progress {
    let evaluated = if program.len() > MAX_PROGRAM {
        Err("the program is too long")
    } else {
        apart(|| engine::evaluate(program, rules, answers))
    };
    evaluated.unwrap_or_else(|problem| Progress {
        marks: Vec::new(),
        asked: 0,
        step: Step::Failed(problem.to_owned()),
    })
}

/// Does something on a thread of its own: with a stack of its own, and a panic of the interpreter's ends no more than that.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    let spawned: io::Result<Result<T, &'static str>> = thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("workflow".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)?;
        Ok(thread.join().map_err(|_| "the program broke its interpreter"))
    });
    spawned.unwrap_or(Err("the server has no thread for the program now"))
}
