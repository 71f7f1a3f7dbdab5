//! The tool by which an agent writes a program that has others work, and what carries the program out.
//!
//! The program is evaluated anew whenever the calls that it waits for have been answered (see [`oma_workflow`]). What was
//! answered is read from the log once, when the run begins or goes on after a restart, and kept here from then on.
//!
//! Invariant: a run begins its calls in the program's order, each once.

mod tool;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use oma_domain::agent::Agent;
use oma_domain::event::Body;
use oma_domain::session::{Input, OpenTool, Outcome, Rejection, Run};
use oma_domain::workflow::{
    Call, Ending, Error, ErrorKind, LIFETIME_MS, MAX_AT_ONCE, MAX_CALLS, RUN_WORKFLOW,
};
use oma_domain::{Event, Seq, Timestamp, WorkflowRunId};
use oma_runtime::{Port, PortError, SessionInfo};
use oma_workflow::{Answer, Callee, Progress, Rules, Step};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::dossier::bounded;
use crate::inline::Own;
use tool::{Wanted, parse};
pub(crate) use tool::{definition, is_it};

/// The longest reason why a program can't go on that anybody is told, in bytes.
const MAX_REASON: usize = 4_096;
/// The most of all answers of a run, in bytes: they are kept in memory while it goes on.
const MAX_TEXTS: usize = 16 << 20;
/// How long all evaluations of a program may take. One that means no harm takes milliseconds for each.
const MAX_EVALUATED: Duration = Duration::from_secs(120);
/// How many events one look for answers brings.
const PAGE: u32 = 200;

/// What a definition of an agent may say.
const DEFINITION: [&str; 5] = ["name", "description", "system", "tools", "skills"];

/// Programs are evaluated by two processors at the most, whoever wrote them: turns have to go on beside them.
static EVALUATIONS: Semaphore = Semaphore::const_new(2);

/// Runs the program of a tool use to its end; gives the input that ends the tool use.
pub(crate) async fn run(
    session: &SessionInfo,
    port: &dyn Port,
    own: &Own<'_>,
    tool: &OpenTool,
) -> Result<Input, PortError> {
    metrics::counter!("tool_uses_total", "tool" => RUN_WORKFLOW).increment(1);
    let refused = |message: String| {
        Ok(Input::FinishTool {
            tool_use: tool.id.clone(),
            outcome: Outcome::error(message),
            sandbox: None,
        })
    };
    let wanted = match parse(&tool.input) {
        Ok(wanted) => wanted,
        Err(message) => return refused(message),
    };
    let id = WorkflowRunId::of(&tool.id);
    if !port.state().0.runs.contains_key(&id) {
        let program = wanted.program.to_owned();
        if let Err(problem) = blocking(move || oma_workflow::check(&program)).await? {
            return refused(format!(
                "The run was not begun, for its program is none: {problem}"
            ));
        }
        let begin = Input::BeginRun {
            tool_use: tool.id.clone(),
            name: wanted.name.to_owned(),
            description: wanted.description.map(str::to_owned),
            phases: wanted.phases.clone(),
        };
        match port.commit(begin).await {
            Ok(_) => {}
            Err(PortError::Rejected(Rejection::TooManyRuns)) => {
                let tool_use = tool.id.clone();
                return Ok(Input::RefuseRun { tool_use });
            }
            Err(error) => return Err(error),
        }
    }
    let (state, head) = port.state();
    let known = state.runs.get(&id).ok_or(Rejection::Stale)?;
    let mut conductor = Conductor {
        session,
        port,
        own,
        rules: Arc::new(rules(session, &wanted)),
        program: Arc::from(wanted.program),
        answers: Vec::new(),
        evaluated: Duration::ZERO,
        id: id.clone(),
    };
    conductor.recall(known.since, head).await?;
    let left = known.deadline().millis_since(now());
    let ended = match tokio::time::timeout(Duration::from_millis(left), conductor.conduct()).await {
        Ok(ended) => ended?,
        Err(_) => Err(Error {
            kind: ErrorKind::Timeout,
            message: format!("the run took longer than {} hours", LIFETIME_MS / 3_600_000),
        }),
    };
    let (result, outcome) = match ended {
        Ok(text) => {
            let text = Some(text).filter(|text| !text.is_empty());
            let text = text.unwrap_or_else(|| "The run has ended without a result.".to_owned());
            (Ending::Completed, Outcome::text(text))
        }
        Err(error) => {
            let kind = error.kind.as_str();
            let outcome = Outcome::error(format!("The run failed ({kind}): {}", error.message));
            (Ending::Error { error }, outcome)
        }
    };
    Ok(Input::EndRun {
        run: id,
        result,
        outcome,
    })
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

fn rules(session: &SessionInfo, wanted: &Wanted<'_>) -> Rules {
    let names = |agent: &Arc<Agent>| [agent.shown_name().to_owned(), agent.id.to_string()];
    let mut agents: Vec<String> = session.callees().flat_map(names).collect();
    // One without a name goes by its id alone.
    agents.dedup();
    Rules {
        phases: wanted.phases.iter().map(|phase| phase.name.clone()).collect(),
        agents,
        inline: session.workflows().is_some_and(|team| team.inline),
    }
}

/// Does something with a program beside the turns.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PortError> {
    let gone = |error: String| PortError::Gone(error);
    let permit = EVALUATIONS
        .acquire()
        .await
        .map_err(|error| gone(error.to_string()))?;
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| gone(error.to_string()))
}

/// Carries a run out.
struct Conductor<'a> {
    session: &'a SessionInfo,
    port: &'a dyn Port,
    /// What agents may be given that the program defines.
    own: &'a Own<'a>,
    id: WorkflowRunId,
    program: Arc<str>,
    rules: Arc<Rules>,
    /// The answers so far, each at its call's place.
    answers: Vec<Option<Answer>>,
    /// How long it has been evaluated since the server began with it.
    evaluated: Duration,
}

/// A call that its program has checked.
struct Ready {
    call: Call,
    agent: Arc<Agent>,
    prompt: String,
}

impl Conductor<'_> {
    /// Reads what has been answered from the log.
    async fn recall(&mut self, since: Seq, head: Seq) -> Result<(), PortError> {
        let mut after = since;
        while after < head {
            let page = self.port.history(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Err(PortError::Gone("the log is shorter than its head".into()));
            };
            after = last.seq;
            for event in &page {
                if let Some((index, answer)) = answered(event, &self.id) {
                    self.keep(index, answer);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, index: u32, answer: Answer) {
        let index = index as usize;
        if self.answers.len() <= index {
            self.answers.resize(index + 1, None);
        }
        if let Some(place) = self.answers.get_mut(index) {
            *place = Some(answer);
        }
    }

    fn run(&self) -> Result<Run, PortError> {
        let (state, _) = self.port.state();
        let run = state.runs.get(&self.id).cloned();
        Ok(run.ok_or(Rejection::Stale)?)
    }

    /// Goes on until the program has come to its end; the inner error says why it can't.
    async fn conduct(&mut self) -> Result<Result<String, Error>, PortError> {
        loop {
            let texts = self.answers.iter().flatten().map(|answer| answer.text.len());
            if texts.sum::<usize>() > MAX_TEXTS {
                let message = format!("the answers have more than {} MiB in all", MAX_TEXTS >> 20);
                let kind = ErrorKind::Program;
                return Ok(Err(Error { kind, message }));
            }
            if self.evaluated > MAX_EVALUATED {
                let message = format!(
                    "the program has taken more than {} seconds of a processor",
                    MAX_EVALUATED.as_secs()
                );
                let kind = ErrorKind::Program;
                return Ok(Err(Error { kind, message }));
            }
            let progress = self.evaluate().await?;
            self.advance(&progress).await?;
            let error = match progress.step {
                Step::Done(text) => return Ok(Ok(text)),
                Step::Waiting(calls) => match self.ready(calls) {
                    Ok(calls) => {
                        self.make(calls).await?;
                        continue;
                    }
                    Err(message) => Error {
                        kind: ErrorKind::Program,
                        message,
                    },
                },
                Step::Failed(problem) => Error {
                    kind: ErrorKind::Program,
                    message: bounded(&problem, MAX_REASON),
                },
                Step::Exhausted => Error {
                    kind: ErrorKind::ThreadLimit,
                    message: format!("the program makes more than {MAX_CALLS} calls"),
                },
            };
            return Ok(Err(error));
        }
    }

    async fn evaluate(&mut self) -> Result<Progress, PortError> {
        let (program, rules) = (Arc::clone(&self.program), Arc::clone(&self.rules));
        let answers = std::mem::take(&mut self.answers);
        let (progress, answers, took) = blocking(move || {
            let began = Instant::now();
            let progress = oma_workflow::step(&program, &rules, &answers);
            (progress, answers, began.elapsed())
        })
        .await?;
        self.answers = answers;
        self.evaluated += took;
        Ok(progress)
    }

    /// Records how far the program has got, if that is news.
    async fn advance(&self, progress: &Progress) -> Result<(), PortError> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (marks, asked) = (&progress.marks, number(progress.asked));
        let run = self.run()?;
        if asked > run.asked || number(marks.len()) > run.marks {
            let advance = Input::AdvanceRun {
                run: self.id.clone(),
                marks: marks.iter().map(|mark| number(*mark)).collect(),
                asked,
            };
            self.port.commit(advance).await?;
        }
        Ok(())
    }

    /// Who is meant by each call, in order.
    ///
    /// # Errors
    /// What is wrong, in words for the model.
    fn ready(&self, calls: Vec<oma_workflow::Call>) -> Result<VecDeque<Ready>, String> {
        let ready = calls.into_iter().map(|call| {
            Ok(Ready {
                agent: self.callee(&call.callee)?,
                call: Call {
                    run: self.id.clone(),
                    index: u32::try_from(call.index).unwrap_or(u32::MAX),
                },
                prompt: call.prompt,
            })
        });
        ready.collect()
    }

    fn callee(&self, callee: &Callee) -> Result<Arc<Agent>, String> {
        match callee {
            Callee::Named(name) => {
                let is_meant = |agent: &&Arc<Agent>| agent.id.as_str() == name || agent.shown_name() == name;
                let found = self.session.callees().find(is_meant).cloned();
                found.ok_or_else(|| format!("there is no agent {name:?}"))
            }
            Callee::Inline(fields) => {
                if let Some(unknown) = fields.keys().find(|field| !DEFINITION.contains(&field.as_str())) {
                    let known = DEFINITION.join(", ");
                    return Err(format!(
                        "an agent has no field {unknown:?}, only: prompt, {known}"
                    ));
                }
                self.own.define(&Value::Object(fields.clone())).map(Arc::new)
            }
        }
    }

    /// Has calls answered, so many at once as may be.
    async fn make(&mut self, mut waiting: VecDeque<Ready>) -> Result<(), PortError> {
        let mut under_way = FuturesUnordered::new();
        loop {
            // The next one begins when the one before has.
            let begun = self.run()?.begun;
            let may_begin = |ready: &Ready| ready.call.index <= begun;
            if under_way.len() < MAX_AT_ONCE
                && waiting.front().is_some_and(may_begin)
                && let Some(ready) = waiting.pop_front()
            {
                under_way.push(one(self.port, ready));
                if waiting.front().is_some_and(may_begin) {
                    continue;
                }
            }
            tokio::select! {
                Some(done) = under_way.next() => {
                    let (index, answer) = done?;
                    self.keep(index, answer);
                }
                () = self.port.changed(), if !waiting.is_empty() => {}
                else => return Ok(()),
            }
        }
    }
}

/// Has one call answered, and its answer recorded: here rather than beside, so that it does not keep others waiting.
async fn one(port: &dyn Port, Ready { call, agent, prompt }: Ready) -> Result<(u32, Answer), PortError> {
    let done = async {
        let input = port.call(&call, &agent, &prompt).await?;
        port.commit(input).await
    };
    let recorded = match done.await {
        Ok(committed) => find(&committed.events, &call),
        // A client has archived its thread, which was its answer.
        Err(PortError::Rejected(Rejection::Stale)) => {
            let (state, head) = port.state();
            let mut after = state.runs.get(&call.run).ok_or(Rejection::Stale)?.since;
            let mut found = None;
            while after < head && found.is_none() {
                let page = port.history(after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.seq;
                found = find(&page, &call);
            }
            found
        }
        Err(error) => return Err(error),
    };
    Ok((call.index, recorded.ok_or(Rejection::Stale)?))
}

fn find(events: &[Event], call: &Call) -> Option<Answer> {
    let mut answers = events.iter().filter_map(|event| answered(event, &call.run));
    answers.find_map(|(index, answer)| (index == call.index).then_some(answer))
}

/// What an event says that a call of this run has answered.
fn answered(event: &Event, run: &WorkflowRunId) -> Option<(u32, Answer)> {
    match &*event.body {
        Body::WorkflowRunAnswer { call, ok, text } if call.run == *run => {
            let text = text.clone();
            Some((call.index, Answer { ok: *ok, text }))
        }
        _ => None,
    }
}
