//! One client of one session: it posts, confirms, cancels and compacts, round after round, whatever happens to
//! the server meanwhile. A lost answer is asked for again, with the same idempotency key.

use reqwest::Method;
use serde_json::{Value, json};

use super::expected::{Ends, Expected, Fate, MARKS, Mark, UNKNOWN, command, printed};
use super::link::Link;
use super::recorder::Recorder;
use crate::system::client::{Answer, Client, is_end};
use crate::system::soon;

/// What one round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Round {
    /// An answer.
    Plain,
    /// A tool, another tool, an answer.
    Sequential,
    /// Three tools at once, an answer.
    Parallel,
    /// A command that waits for a file, which the client writes.
    Long,
    /// An answer in many pieces.
    Slow,
    /// Three messages at once.
    Queued,
    /// A message without a key, whose answer may get lost, and one with a key.
    Unkeyed,
    /// A provider that is overloaded at first.
    Overloaded,
    /// The history is summarised.
    Compact,
    /// A tool use that asks and may run.
    Allowed,
    /// A tool use that asks and may not run.
    Denied,
    /// A cancel while a command runs.
    CancelledTool,
    /// A cancel in the middle of an answer.
    CancelledAnswer,
    /// Two sessions of another agent at once, each with a command.
    Delegated,
    /// A cancel while a session of another agent has a command under way.
    CancelledDelegation,
}

/// A client of a session.
pub(super) struct Driver {
    pub(super) link: Link,
    pub(super) recorder: Recorder,
    /// Its agent runs every tool.
    pub(super) agent: String,
    /// The agent that it may call, and the sessions that it has called it in.
    pub(super) callee: String,
    pub(super) children: Vec<String>,
    pub(super) session: String,
    /// Tells its marks from those of others.
    pub(super) name: String,
    pub(super) round: u32,
    pub(super) messages: u32,
    pub(super) expected: Vec<Expected>,
}

impl Driver {
    /// Does one round, to its end.
    pub(super) async fn play(&mut self, round: Round) {
        self.round += 1;
        let from = self.recorder.progress().frames;
        match round {
            Round::Plain => {
                let script = json!([[{"thinking": "hm"}, {"text": self.answer()}]]);
                let last = self.say(&script, &[]).await;
                self.settled(from, &last).await;
            }
            Round::Sequential => {
                let (a, b) = (self.mark("a"), self.mark("b"));
                let script = json!([
                    [{"thinking": "first this"}, {"text": "One."}, bash("", &a, "")],
                    [{"text": "Two."}, bash("", &b, "sleep 0.01; ")],
                    {"text": self.answer()},
                ]);
                let last = self.say(&script, &[(&a, Fate::Runs), (&b, Fate::Runs)]).await;
                self.settled(from, &last).await;
            }
            Round::Parallel => {
                let marks = ["a", "b", "c"].map(|name| self.mark(name));
                let tools: Vec<Value> = marks
                    .iter()
                    .map(|mark| bash("sleep 0.01; ", mark, "sleep 0.02; "))
                    .collect();
                let script = json!([tools, {"text": self.answer()}]);
                let marks: Vec<(&str, Fate)> = marks.iter().map(|mark| (mark.as_str(), Fate::Runs)).collect();
                let last = self.say(&script, &marks).await;
                self.settled(from, &last).await;
            }
            Round::Long => {
                let mark = self.mark("a");
                let gate = format!("gate-{mark}");
                let wait = format!("while [ ! -e {gate} ]; do sleep 0.01; done; ");
                let script = json!([bash(&wait, &mark, ""), {"text": self.answer()}]);
                let last = self.say(&script, &[(&mark, Fate::Runs)]).await;
                let (_, at) = self
                    .wait(from, "a message", |frame| frame["event_id"] == last.as_str())
                    .await;
                self.wait(at, "a tool use", |frame| frame["type"] == "agent.tool_use")
                    .await;
                let path = self.file(&gate);
                let put = self
                    .link
                    .send(|client| client.request(Method::PUT, &path).body(""))
                    .await;
                put.good();
                self.settled(from, &last).await;
            }
            Round::Slow => {
                let text = format!("{} {}", "word ".repeat(60), self.answer());
                let pieces = text
                    .as_bytes()
                    .chunks(40)
                    .map(|piece| String::from_utf8_lossy(piece).into_owned());
                let steps: Vec<Value> = pieces
                    .flat_map(|piece| [json!({"text": piece}), json!({"delay_ms": 2})])
                    .collect();
                let last = self.say_until(&json!([steps]), Ends::With(text), &[]).await;
                self.settled(from, &last).await;
            }
            Round::Queued => {
                let mut last = String::new();
                for name in ["a", "b", "c"] {
                    let mark = self.mark(name);
                    let script = json!([bash("sleep 0.02; ", &mark, ""), {"text": self.answer()}]);
                    last = self.say(&script, &[(&mark, Fate::Runs)]).await;
                }
                self.settled(from, &last).await;
            }
            Round::Unkeyed => {
                let mark = self.mark("a");
                let script = json!([bash("", &mark, ""), {"text": self.answer()}]);
                self.say_once(&script, &[(&mark, Fate::Runs)]).await;
                let script = json!([{"text": self.answer()}]);
                let last = self.say(&script, &[]).await;
                self.settled(from, &last).await;
            }
            Round::Overloaded => {
                let mark = self.mark("a");
                let overloaded =
                    json!({"status": 529, "type": "overloaded_error", "message": "busy", "times": 1});
                let script = json!([[overloaded, bash("", &mark, "")], {"text": self.answer()}]);
                let last = self.say(&script, &[(&mark, Fate::Runs)]).await;
                self.settled(from, &last).await;
            }
            Round::Compact => self.compact(from).await,
            Round::Allowed | Round::Denied => self.confirm(from, round == Round::Allowed).await,
            Round::CancelledTool => {
                let mark = self.mark("a");
                let script = json!([bash("", &mark, "sleep 600; "), {"text": self.answer()}]);
                let ends = Ends::Cancelled {
                    said: self.answer(),
                    again: false,
                };
                let last = self.say_until(&script, ends, &[(&mark, Fate::CutOff)]).await;
                let (_, at) = self
                    .wait(from, "a message", |frame| frame["event_id"] == last.as_str())
                    .await;
                self.wait(at, "a tool use", |frame| frame["type"] == "agent.tool_use")
                    .await;
                self.cancel().await;
                self.settled(from, &last).await;
            }
            Round::Delegated => self.delegate(from).await,
            Round::CancelledDelegation => self.cancel_delegation(from).await,
            Round::CancelledAnswer => {
                let text = format!("{} {}", "begun ".repeat(20), self.answer());
                let seen = self.recorder.progress().deltas;
                let script = json!([[{"text": &text}, {"fault": "stall"}]]);
                let last = self
                    .say_until(
                        &script,
                        Ends::Cancelled {
                            said: text,
                            again: false,
                        },
                        &[],
                    )
                    .await;
                let (number, _) = self.link.current().await;
                // Pieces that came while nobody followed don't come again.
                tokio::select! {
                    () = self.recorder.wait(|progress| progress.deltas > seen) => {}
                    () = self.link.gone(number) => {}
                    _ = self.wait(from, "a message", |frame| frame["event_id"] == last.as_str()) => {}
                }
                self.cancel().await;
                self.settled(from, &last).await;
            }
        }
    }

    /// The answer that the next message's script ends with.
    fn answer(&self) -> String {
        format!("answer {} of {}", self.messages, self.name)
    }

    fn mark(&self, name: &str) -> String {
        format!("{}-{}-{name}", self.name, self.round)
    }

    fn file(&self, name: &str) -> String {
        self.file_of(&self.agent, &self.session, name)
    }

    fn file_of(&self, agent: &str, session: &str, name: &str) -> String {
        format!("/v1/agents/{agent}/files/{name}?session_id={session}")
    }

    fn events(&self) -> String {
        format!("/v1/sessions/{}/events", self.session)
    }

    /// Posts a message whose turn ends with [`Self::answer`]; gives its event's id.
    async fn say(&mut self, script: &Value, marks: &[(&str, Fate)]) -> String {
        let ends = Ends::With(self.answer());
        self.say_until(script, ends, marks).await
    }

    /// Posts a message, again and again until its acceptance is certain.
    async fn say_until(&mut self, script: &Value, ends: Ends, marks: &[(&str, Fate)]) -> String {
        let key = format!("{}-{}", self.name, self.messages);
        let (path, body) = (self.events(), self.expect(script, ends, marks));
        let request = |client: &Client| {
            client
                .request(Method::POST, &path)
                .header("idempotency-key", &key)
                .json(&body)
        };
        let answer = self.link.send(request).await.good();
        self.expected.last_mut().expect("one").is_accepted = true;
        answer["event_id"].as_str().expect("an id").to_owned()
    }

    /// Posts a message once, without a key.
    async fn say_once(&mut self, script: &Value, marks: &[(&str, Fate)]) {
        let (path, body) = (
            self.events(),
            self.expect(script, Ends::With(self.answer()), marks),
        );
        let answer = self
            .link
            .send_once(|client| client.request(Method::POST, &path).json(&body))
            .await;
        // A server that is stopping refuses it.
        if let Some(answer) = answer.filter(|answer| answer.status != 503) {
            answer.good();
            self.expected.last_mut().expect("one").is_accepted = true;
        }
    }

    /// Notes what must come of a message and gives the body to post.
    fn expect(&mut self, script: &Value, ends: Ends, marks: &[(&str, Fate)]) -> Value {
        let content = format!("script:{script}");
        let marks = marks
            .iter()
            .map(|(line, fate)| Mark {
                line: (*line).to_owned(),
                fate: *fate,
            })
            .collect();
        self.expected.push(Expected {
            content: content.clone(),
            is_accepted: false,
            ends,
            marks,
        });
        self.messages += 1;
        json!({ "content": content })
    }

    async fn wait(&self, from: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> (Value, usize) {
        self.recorder
            .wait_for(
                &format!("{what} of round {} of {}", self.round, self.name),
                from,
                wanted,
            )
            .await
    }

    /// Waits until the turn of this message, the last one, is over.
    async fn settled(&self, from: usize, last: &str) {
        let (_, at) = self
            .wait(from, "a message", |frame| frame["event_id"] == last)
            .await;
        self.wait(at, "the end", is_end).await;
    }

    async fn cancel(&mut self) {
        let path = format!("/v1/sessions/{}/cancel", self.session);
        let request = |client: &Client| client.request(Method::POST, &path);
        let first = self.link.send_once(request).await;
        if first.is_some_and(|answer| answer.status == 200) {
            return;
        }
        if let Some(Expected {
            ends: Ends::Cancelled { again, .. },
            ..
        }) = self.expected.last_mut()
        {
            *again = true;
        }
        let answer = self.link.send(request).await;
        // There is nothing left to cancel when the first attempt had been carried out.
        assert!(
            answer.status == 200 || (answer.status, answer.code().as_str()) == (409, "session_not_running"),
            "{answer:?}"
        );
    }

    async fn compact(&mut self, from: usize) {
        if self.expected.is_empty() {
            let script = json!([{"text": self.answer()}]);
            let last = self.say(&script, &[]).await;
            self.settled(from, &last).await;
        }
        let from = self.recorder.progress().frames;
        let path = format!("/v1/sessions/{}/compact", self.session);
        let answer: Answer = self.link.send(|client| client.request(Method::POST, &path)).await;
        // When the answer of an earlier attempt was lost, that compaction may still go on.
        assert!(
            answer.status == 200 || (answer.status, answer.code().as_str()) == (409, "session_busy"),
            "{answer:?}"
        );
        let (_, at) = self
            .wait(from, "a compaction", |frame| {
                frame["type"] == "session.compaction"
            })
            .await;
        self.wait(at, "the end", is_end).await;
    }

    async fn confirm(&mut self, from: usize, allow: bool) {
        let mark = self.mark("a");
        let script = json!([[{"tool": "write", "input": {"file_path": mark, "content": "written"}}], {"text": self.answer()}]);
        let last = self.say(&script, &[]).await;
        let (_, at) = self
            .wait(from, "a message", |frame| frame["event_id"] == last.as_str())
            .await;
        let asks = |frame: &Value| frame["type"] == "agent.tool_confirmation_request";
        let (asked, _) = self.wait(at, "a question", asks).await;
        let body = json!({
            "type": "user.tool_confirmation",
            "toolUseId": asked["approval_id"],
            "result": if allow { "allow" } else { "deny" },
        });
        let (path, key) = (self.events(), format!("confirm-{mark}"));
        let request = |client: &Client| {
            client
                .request(Method::POST, &path)
                .header("idempotency-key", &key)
                .json(&body)
        };
        self.link.send(request).await.good();
        let is_result = |frame: &Value| frame["type"] == "agent.tool_result";
        let (result, _) = self.wait(at, "a result", is_result).await;
        self.settled(from, &last).await;
        let path = self.file(&mark);
        let written = self.link.send(|client| client.request(Method::GET, &path)).await;
        if !allow {
            assert!(
                result["is_error"] == true && written.status == 404,
                "{result} {written:?}"
            );
        } else if !result["content"].as_str().expect("text").contains(UNKNOWN) {
            assert!(
                result["is_error"] == false && written.status == 200,
                "{result} {written:?}"
            );
        }
    }

    async fn delegate(&mut self, from: usize) {
        let marks = ["a", "b"].map(|name| self.mark(name));
        let calls: Vec<Value> = marks
            .iter()
            .map(|mark| self.call(&json!([bash("sleep 0.01; ", mark, ""), {"text": format!("did {mark}")}])))
            .collect();
        let last = self.say(&json!([calls, {"text": self.answer()}]), &[]).await;
        self.settled(from, &last).await;
        let frames = self.recorder.frames().split_off(from);
        for mark in &marks {
            let is_call = |frame: &&Value| {
                frame["type"] == "agent.tool_use"
                    && frame["tool_arguments"].to_string().contains(&printed(mark))
            };
            // A request that was cut off has shown nothing, so there is one.
            let calls: Vec<&Value> = frames.iter().filter(is_call).collect();
            let [call] = calls.as_slice() else {
                panic!("{mark} was called {calls:?}");
            };
            let child = child_of(call);
            let session = self.get(&format!("/v1/sessions/{child}")).await.good();
            assert_eq!(
                (&session["status"], &session["turns"]),
                (&json!("idle"), &json!(1)),
                "{session}"
            );
            assert_eq!(session["output"], format!("did {mark}"));
            let result = frames.iter().find(|frame| {
                frame["type"] == "agent.tool_result" && frame["tool_call_id"] == call["event_id"]
            });
            assert_eq!(result.expect("a result")["content"], format!("did {mark}"));
            let left = self.get(&self.file_of(&self.callee, &child, MARKS)).await.text();
            assert_eq!(left, format!("{mark}\n"));
            self.children.push(child);
        }
    }

    async fn cancel_delegation(&mut self, from: usize) {
        let mark = self.mark("a");
        let call = self.call(&json!([bash("", &mark, "sleep 600; ")]));
        let ends = Ends::Cancelled {
            said: self.answer(),
            again: false,
        };
        let last = self
            .say_until(&json!([[call], {"text": self.answer()}]), ends, &[])
            .await;
        let (_, at) = self
            .wait(from, "a message", |frame| frame["event_id"] == last.as_str())
            .await;
        let (call, _) = self
            .wait(at, "a tool use", |frame| frame["type"] == "agent.tool_use")
            .await;
        self.cancel().await;
        self.settled(from, &last).await;
        let child = child_of(&call);
        let path = format!("/v1/sessions/{child}");
        let rests = async {
            loop {
                let found = self.get(&path).await;
                // The cancel may have come before it was opened.
                if found.status == 404 || found.good()["status"] == "idle" {
                    return found.status == 200;
                }
            }
        };
        if soon("a cancelled child at rest", rests).await {
            let left = self.get(&self.file_of(&self.callee, &child, MARKS)).await;
            assert!(left.status == 404 || left.text().lines().count() <= 1, "{left:?}");
            self.children.push(child);
        }
    }

    /// A tool use that has the other agent follow a script.
    fn call(&self, script: &Value) -> Value {
        json!({"tool": "call_agent", "input": {"agent": self.callee, "task": format!("script:{script}")}})
    }

    async fn get(&self, path: &str) -> Answer {
        self.link.send(|client| client.request(Method::GET, path)).await
    }

    /// The lines that commands have left.
    pub(super) async fn marks(&self) -> String {
        let path = self.file(MARKS);
        let answer = self.link.send(|client| client.request(Method::GET, &path)).await;
        if answer.status == 404 {
            String::new()
        } else {
            answer.text()
        }
    }
}

/// The session that a tool use opens.
fn child_of(call: &Value) -> String {
    call["event_id"].as_str().expect("an id").replace("evt_", "ses_")
}

fn bash(before: &str, mark: &str, after: &str) -> Value {
    json!({"tool": "bash", "input": {"command": command(before, mark, after)}})
}
