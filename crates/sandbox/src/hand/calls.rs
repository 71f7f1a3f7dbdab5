//! The calls that a hand knows: running, or finished with a reply that waits to be collected.
//!
//! Invariant: a key runs at most once, as long as the hand lives: it is forgotten only on the server's word.
//! A reply that had to be discarded for want of room leaves its key behind, and asking for it is an error.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use oma_domain::{ContentBlock, EventId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::protocol::{Call, MAX_FRAME, Reply};

/// Calls that may run at once.
const MAX_RUNNING: usize = 64;

/// Replies that may wait.
const MAX_FINISHED: usize = 512;

/// Bytes that the waiting replies may have together.
const MAX_FINISHED_BYTES: usize = 64 << 20;

/// Keys of discarded replies that are remembered.
const MAX_DISCARDED: usize = 8_192;

/// What a frame needs besides the reply.
const FRAME_RESERVE: usize = 1_024;

/// Runs tools. [`super::tools::Tools`] outside the tests.
#[async_trait]
pub(crate) trait Run: Send + Sync + 'static {
    /// Runs one tool to its end, or until soon after `cancel`.
    async fn run(&self, key: &EventId, call: Call, cancel: CancellationToken) -> Reply;
}

/// What a call gave, and how long it took.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) reply: Reply,
    /// Nothing, when it was not run.
    pub(crate) took: Option<Duration>,
}

/// A reply to come.
pub(crate) type Outcome = watch::Receiver<Option<Arc<Finished>>>;

enum Entry {
    Running {
        cancel: CancellationToken,
        outcome: Outcome,
        notes: Vec<String>,
    },
    Finished {
        outcome: Outcome,
        size: usize,
    },
    Discarded,
}

#[derive(Default)]
struct Book {
    entries: BTreeMap<EventId, Entry>,
    running: usize,
    /// Finished calls, oldest first; may name keys that are forgotten already.
    finished: VecDeque<EventId>,
    finished_bytes: usize,
    discarded: VecDeque<EventId>,
}

/// The calls of a hand.
pub(crate) struct Calls {
    book: Mutex<Book>,
    runner: Arc<dyn Run>,
    running: watch::Sender<usize>,
    services: watch::Sender<u64>,
}

fn failure(text: impl Into<String>) -> Reply {
    Reply {
        content: vec![ContentBlock::text(text)],
        is_error: true,
    }
}

fn settled(reply: Reply) -> Outcome {
    watch::channel(Some(Arc::new(Finished { reply, took: None }))).1
}

impl Calls {
    pub(crate) fn new(runner: Arc<dyn Run>) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::default(),
            runner,
            running: watch::Sender::new(0),
            services: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many services were started; they are watched over like what commands leave running.
    pub(crate) fn services(&self) -> watch::Receiver<u64> {
        self.services.subscribe()
    }

    /// A service was started.
    pub(crate) fn note_service(&self) {
        self.services.send_modify(|count| *count += 1);
    }

    /// How many calls run, and word of each change.
    pub(crate) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// Starts the call, or joins the one that has its key.
    pub(crate) fn start(self: &Arc<Self>, key: EventId, call: Call) -> Outcome {
        let mut book = self.lock();
        match book.entries.get(&key) {
            Some(Entry::Running { outcome, .. } | Entry::Finished { outcome, .. }) => return outcome.clone(),
            Some(Entry::Discarded) => {
                return settled(failure(
                    "the command has run, but its result had to be thrown away",
                ));
            }
            None => {}
        }
        if book.running >= MAX_RUNNING {
            return settled(failure(format!(
                "{MAX_RUNNING} commands are running already; this one was not run"
            )));
        }
        let cancel = CancellationToken::new();
        let (sender, outcome) = watch::channel(None);
        let entry = Entry::Running {
            cancel: cancel.clone(),
            outcome: outcome.clone(),
            notes: Vec::new(),
        };
        book.entries.insert(key.clone(), entry);
        book.running += 1;
        self.running.send_replace(book.running);
        drop(book);

        let calls = Arc::clone(self);
        tokio::spawn(async move {
            let began = Instant::now();
            let runner = Arc::clone(&calls.runner);
            let task_key = key.clone();
            // A task of its own, so that a panic in a tool ends this call and nothing else.
            let task = tokio::spawn(async move { runner.run(&task_key, call, cancel).await });
            let reply = match task.await {
                Ok(reply) => reply,
                Err(error) => failure(format!("the tool broke: {error}")),
            };
            calls.finish(&key, reply, began.elapsed(), &sender);
        });
        outcome
    }

    fn finish(
        &self,
        key: &EventId,
        mut reply: Reply,
        took: Duration,
        sender: &watch::Sender<Option<Arc<Finished>>>,
    ) {
        let mut book = self.lock();
        let Some(Entry::Running { outcome, notes, .. }) = book.entries.remove(key) else {
            return;
        };
        if !notes.is_empty() {
            reply.is_error = true;
            reply.content.extend(notes.into_iter().map(ContentBlock::text));
        }
        let mut size = encoded_len(&reply);
        if size > MAX_FRAME - FRAME_RESERVE {
            reply = failure(format!("the result is too large to be handed over: {size} bytes"));
            size = encoded_len(&reply);
        }
        let took = Some(took);
        sender.send_replace(Some(Arc::new(Finished { reply, took })));
        book.entries
            .insert(key.clone(), Entry::Finished { outcome, size });
        book.finished.push_back(key.clone());
        book.finished_bytes += size;
        book.make_room();
        book.running -= 1;
        self.running.send_replace(book.running);
    }

    /// Asks the call to end; what it has given then comes as its outcome. `None` for an unknown key.
    pub(crate) fn cancel(&self, key: &EventId) -> Option<Outcome> {
        match self.lock().entries.get(key)? {
            Entry::Running { cancel, outcome, .. } => {
                cancel.cancel();
                Some(outcome.clone())
            }
            Entry::Finished { outcome, .. } => Some(outcome.clone()),
            Entry::Discarded => None,
        }
    }

    /// Asks all calls to end, and returns once they have.
    pub(crate) async fn cancel_all(&self) {
        let mut running = self.running();
        for entry in self.lock().entries.values() {
            if let Entry::Running { cancel, .. } = entry {
                cancel.cancel();
            }
        }
        // The sender lives in `self`, so this can't fail.
        let _ = running.wait_for(|count| *count == 0).await;
    }

    /// Adds a remark to the reply of every call that runs now, and makes it an error. Gives those calls'
    /// outcomes.
    pub(crate) fn note_running(&self, note: &str) -> Vec<Outcome> {
        let mut running = Vec::new();
        for entry in self.lock().entries.values_mut() {
            if let Entry::Running { notes, outcome, .. } = entry {
                if notes.last().map(String::as_str) != Some(note) {
                    notes.push(note.to_owned());
                }
                running.push(outcome.clone());
            }
        }
        running
    }

    /// Forgets every finished call but these.
    pub(crate) fn forget_all_but(&self, keep: &[EventId]) {
        let keep: BTreeSet<&EventId> = keep.iter().collect();
        let mut book = self.lock();
        book.entries
            .retain(|key, entry| matches!(entry, Entry::Running { .. }) || keep.contains(key));
        let Book {
            entries,
            finished,
            finished_bytes,
            discarded,
            ..
        } = &mut *book;
        finished.retain(|key| entries.contains_key(key));
        discarded.retain(|key| entries.contains_key(key));
        *finished_bytes = entries
            .values()
            .map(|entry| {
                if let Entry::Finished { size, .. } = entry {
                    *size
                } else {
                    0
                }
            })
            .sum();
    }

    /// The keys that are known, oldest ids first.
    pub(crate) fn known(&self) -> Vec<EventId> {
        self.lock().entries.keys().cloned().collect()
    }
}

impl Book {
    fn make_room(&mut self) {
        while self.finished.len() > MAX_FINISHED || self.finished_bytes > MAX_FINISHED_BYTES {
            let Some(key) = self.finished.pop_front() else {
                break;
            };
            if let Some(entry @ Entry::Finished { .. }) = self.entries.get_mut(&key) {
                if let Entry::Finished { size, .. } = *entry {
                    self.finished_bytes -= size;
                }
                *entry = Entry::Discarded;
                self.discarded.push_back(key);
            }
        }
        while self.discarded.len() > MAX_DISCARDED {
            if let Some(key) = self.discarded.pop_front() {
                self.entries.remove(&key);
            }
        }
    }
}

fn encoded_len(reply: &Reply) -> usize {
    // What can't be encoded can't be handed over either.
    serde_json::to_vec(reply).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A tool that counts its runs and does as its input says.
    struct Script(AtomicUsize);

    #[async_trait]
    impl Run for Script {
        async fn run(&self, _: &EventId, call: Call, cancel: CancellationToken) -> Reply {
            let run = self.0.fetch_add(1, Ordering::Relaxed);
            match call.tool.as_str() {
                "wait" => cancel.cancelled().await,
                "panic" => panic!("as told"),
                _ => {}
            }
            let text = match call.input.as_u64() {
                Some(size) => "x".repeat(usize::try_from(size).unwrap()),
                None => format!("run {run}"),
            };
            Reply {
                content: vec![ContentBlock::text(text)],
                is_error: false,
            }
        }
    }

    fn call(tool: &str) -> Call {
        Call {
            tool: tool.to_owned(),
            input: serde_json::Value::Null,
        }
    }

    async fn reply(mut outcome: Outcome) -> (String, bool) {
        let finished = outcome.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let Reply { content, is_error } = &finished.reply;
        (oma_domain::content::joined_text(content), *is_error)
    }

    fn calls() -> Arc<Calls> {
        Calls::new(Arc::new(Script(AtomicUsize::new(0))))
    }

    #[tokio::test]
    async fn a_key_runs_once_until_it_is_forgotten() {
        let calls = calls();
        let key = EventId::generate();
        let (first, second) = (
            calls.start(key.clone(), call("x")),
            calls.start(key.clone(), call("x")),
        );
        assert_eq!(reply(first).await, ("run 0".to_owned(), false));
        assert_eq!(reply(second).await, ("run 0".to_owned(), false));
        calls.forget_all_but(std::slice::from_ref(&key));
        assert_eq!(reply(calls.start(key.clone(), call("x"))).await.0, "run 0");
        calls.forget_all_but(&[]);
        assert_eq!(calls.known(), []);
        assert_eq!(reply(calls.start(key, call("x"))).await.0, "run 1");
    }

    #[tokio::test]
    async fn cancel_gives_what_there_is() {
        let calls = calls();
        let (key, other) = (EventId::generate(), EventId::generate());
        let outcome = calls.start(key.clone(), call("wait"));
        assert!(calls.cancel(&other).is_none());
        calls.note_running("too much");
        calls.note_running("too much");
        // A running call is not forgotten.
        calls.forget_all_but(&[]);
        assert_eq!(
            reply(calls.cancel(&key).unwrap()).await,
            ("run 0\ntoo much".to_owned(), true)
        );
        assert_eq!(reply(outcome).await.0, "run 0\ntoo much");
        assert_eq!(
            reply(calls.cancel(&key).unwrap()).await.0,
            "run 0\ntoo much",
            "again, from memory"
        );
    }

    #[tokio::test]
    async fn a_broken_tool_is_an_error_of_its_call() {
        let calls = calls();
        let (text, is_error) = reply(calls.start(EventId::generate(), call("panic"))).await;
        assert!(is_error && text.starts_with("the tool broke"), "{text}");
        assert_eq!(*calls.running().borrow(), 0);
    }

    #[tokio::test]
    async fn the_memory_is_bounded_and_nothing_runs_twice() {
        let calls = calls();
        let keys: Vec<EventId> = (0..MAX_FINISHED + 3).map(|_| EventId::generate()).collect();
        for key in &keys {
            reply(calls.start(key.clone(), call("x"))).await;
        }
        let (text, is_error) = reply(calls.start(keys[0].clone(), call("x"))).await;
        assert!(is_error && text.contains("thrown away"), "{text}");
        assert_eq!(reply(calls.start(keys[3].clone(), call("x"))).await.0, "run 3");

        let huge = Call {
            tool: "x".to_owned(),
            input: MAX_FRAME.into(),
        };
        let (text, is_error) = reply(calls.start(EventId::generate(), huge)).await;
        assert!(is_error && text.contains("too large"), "{text}");
    }

    #[tokio::test]
    async fn only_so_many_run_at_once() {
        let calls = calls();
        for _ in 0..MAX_RUNNING {
            calls.start(EventId::generate(), call("wait"));
        }
        let late = EventId::generate();
        assert!(reply(calls.start(late.clone(), call("x"))).await.1);
        calls.cancel_all().await;
        assert!(
            !reply(calls.start(late, call("x"))).await.1,
            "it may be tried again"
        );
    }
}
