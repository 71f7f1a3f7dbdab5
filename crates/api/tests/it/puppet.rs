//! A runtime that does what the user's message says, and a workspace in memory.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use oma_domain::agent::Agent;
use oma_domain::content::joined_text;
use oma_domain::environment::{self, Environment};
use oma_domain::event::{Body, Failure, FailureKind, Purpose};
use oma_domain::outcome::{Stage, Verdict};
use oma_domain::policy::Permission;
use oma_domain::session::{Gate, Input, OpenTool, Outcome, Reply, ReplyBlock, ReplyStop, Step};
use oma_domain::usage::{Cost, NanoUsd, Spent, Usage};
use oma_domain::{Event, EventId, Seq, SessionId};
use oma_runtime::{Delta, Left, Port, PortError, Runtime, SessionInfo, Unsupported};
use oma_sandbox::files::{Entry, Error, Workspace};
use oma_sandbox::pool::Counts;
use serde_json::json;

/// Messages with these words: `hang` never gets its answer, `fail` fails, `flaky` fails once and is tried again, `tool` uses
/// a tool first, `twice` two tools at once, `ticket` a custom tool, `crowded` has what was said summed up first, `long` is
/// cut off by the output limit, `declined` is refused, `free` costs an unknown amount, `panic` panics in the log request.
/// Anything else is echoed.
#[derive(Default)]
pub(crate) struct Puppet {
    pub(crate) files: Arc<Memory>,
}

impl Puppet {
    async fn go(&self, session: &SessionInfo, port: &dyn Port) -> Result<(), PortError> {
        loop {
            let (state, head) = port.state();
            let Some(turn) = state.turn().filter(|_| state.is_running()) else {
                return Ok(());
            };
            match &turn.step {
                Step::Sampling { .. } => return Ok(()),
                Step::Acting { open } => {
                    for tool in open.iter().filter(|tool| tool.gate == Gate::Open) {
                        let outcome = Outcome::text("42");
                        port.commit(Input::FinishTool {
                            tool_use: tool.id.clone(),
                            outcome,
                            sandbox: None,
                        })
                        .await?;
                    }
                }
                Step::Ready => {
                    self.answer(session, port, head, turn.purpose).await?;
                }
            }
        }
    }

    async fn answer(
        &self,
        session: &SessionInfo,
        port: &dyn Port,
        head: Seq,
        purpose: Purpose,
    ) -> Result<(), PortError> {
        let log = port.history(Seq(head.0.saturating_sub(50)), 100).await?;
        let is_said = |event: &&Event| matches!(&*event.body, Body::UserMessage { .. });
        let said = match log.iter().rev().find(is_said).map(|event| &*event.body) {
            Some(Body::UserMessage { content, .. }) => joined_text(content),
            _ => String::new(),
        };
        // What the turn has come to.
        let since = || log.iter().rev().take_while(|event| !is_said(event));
        let used = since().any(|event| matches!(&*event.body, Body::AgentToolUse { .. }));
        let failed = since().any(|event| matches!(&*event.body, Body::Error { .. }));
        let summed_up = since().any(|event| matches!(&*event.body, Body::Compaction { .. }));
        let purpose = if said.contains("crowded") && !summed_up {
            Purpose::Compaction
        } else {
            purpose
        };
        let (state, _) = port.state();
        let model = state
            .model
            .clone()
            .unwrap_or_else(|| session.agent.spec.model.clone());
        let thinking_level = state.thinking_level.unwrap_or(session.agent.spec.thinking_level);
        let request = EventId::generate();
        let begin = Input::BeginRequest {
            id: request.clone(),
            model: model.clone(),
            thinking_level,
            purpose,
            bound: oma_domain::quota::Bound::default(),
        };
        if let Some(goal) = &state.goal
            && matches!(goal.stage, Stage::Evaluating { .. })
        {
            return grade(port, request, model, goal.iteration).await;
        }
        port.commit(begin).await?;
        let usage = Usage {
            input: 10,
            output: 5,
            cache_read: 2,
            cache_write: 0,
        };
        let cost = (!said.contains("free")).then(|| Cost {
            amount: NanoUsd(1_500_000),
            source: "test".into(),
        });
        if purpose == Purpose::Compaction {
            let summary = "a summary".to_owned();
            port.commit(Input::FinishCompaction {
                request,
                summary,
                kept: None,
                usage,
                cost,
            })
            .await?;
            return Ok(());
        }
        if said.contains("fail") {
            let failure = Failure {
                kind: FailureKind::ModelOverloaded,
                message: "the provider says no".into(),
            };
            port.commit(Input::FailRequest {
                request,
                failure,
                spent: Spent::Nothing,
                retry: false,
            })
            .await?;
            return Ok(());
        }
        if said.contains("flaky") && !failed {
            let failure = Failure {
                kind: FailureKind::ModelOverloaded,
                message: "the provider is busy".into(),
            };
            port.commit(Input::FailRequest {
                request,
                failure,
                spent: Spent::Nothing,
                retry: true,
            })
            .await?;
            return Ok(());
        }
        let message = EventId::generate();
        port.delta(Delta::MessageStart {
            event: message.clone(),
        });
        port.delta(Delta::Text {
            event: message.clone(),
            text: "re: ".into(),
        });
        if said.contains("hang") {
            std::future::pending::<()>().await;
        }
        port.delta(Delta::Text {
            event: message.clone(),
            text: said.clone(),
        });
        let mut blocks = vec![ReplyBlock::Text {
            id: message,
            text: format!("re: {said}"),
            opaque: None,
        }];
        if !used && said.contains("tool") {
            blocks[0] = ReplyBlock::Thinking {
                id: EventId::generate(),
                text: "hm".into(),
                opaque: None,
            };
            let times = if said.contains("twice") { 2 } else { 1 };
            for time in 1..=times {
                blocks.push(ReplyBlock::ToolUse {
                    id: EventId::generate(),
                    name: "bash".into(),
                    origin: oma_mcp::origin(&session.agent.spec, "bash"),
                    input: json!({"command": "true"}),
                    call_id: if time == 1 { "call_1" } else { "call_3" }.into(),
                    permission: session.agent.spec.permission_policy.evaluate("bash"),
                    custom: false,
                    remote: session
                        .environment
                        .as_ref()
                        .is_some_and(|environment| !environment.spec.hosting.is_cloud()),
                    opaque: None,
                });
            }
        }
        if !used && said.contains("docs") {
            let name = "mcp__docs__find";
            blocks.push(ReplyBlock::ToolUse {
                id: EventId::generate(),
                name: name.into(),
                input: json!({}),
                call_id: "call_4".into(),
                permission: session.agent.spec.permission_policy.evaluate(name),
                custom: false,
                remote: false,
                origin: oma_mcp::origin(&session.agent.spec, name),
                opaque: None,
            });
        }
        if !used && said.contains("ticket") {
            blocks.push(ReplyBlock::ToolUse {
                id: EventId::generate(),
                name: "ticket".into(),
                input: json!({"title": "it broke"}),
                call_id: "call_2".into(),
                permission: Permission::Allow,
                custom: session.agent.spec.is_custom_tool("ticket"),
                remote: false,
                origin: oma_mcp::origin(&session.agent.spec, "ticket"),
                opaque: None,
            });
        }
        let stop = if said.contains("long") {
            ReplyStop::MaxTokens
        } else if said.contains("declined") {
            ReplyStop::Refusal { explanation: None }
        } else {
            ReplyStop::Done
        };
        port.commit(Input::FinishRequest {
            request,
            reply: Reply {
                blocks,
                model,
                usage,
                cost,
                stop,
            },
        })
        .await?;
        Ok(())
    }
}

#[async_trait]
impl Runtime for Puppet {
    fn check(&self, agent: &Agent, _: Option<&Environment>) -> Result<(), Unsupported> {
        match agent.spec.tools.iter().find(|tool| tool.starts_with("no-such")) {
            Some(tool) => Err(Unsupported {
                field: "tools",
                message: format!("there is no tool {tool}"),
            }),
            None => Ok(()),
        }
    }

    fn check_environment(&self, environment: &environment::Spec) -> Result<(), Unsupported> {
        match &environment.packages {
            Some(packages) if !packages.is_empty() => Err(Unsupported {
                field: "packages",
                message: "the puppet has none".into(),
            }),
            _ => Ok(()),
        }
    }

    fn check_model(&self, model: &str) -> Result<(), String> {
        match model.split_once('/') {
            Some(("nobody", _)) => Err("there is no provider `nobody`; there are test".into()),
            _ => Ok(()),
        }
    }

    async fn drive(&self, session: &SessionInfo, port: Arc<dyn Port>, _: bool) -> Left {
        match self.go(session, &*port).await {
            Ok(()) => Left::Tidy,
            Err(_) => Left::Unsettled,
        }
    }

    async fn abort(&self, _: &SessionInfo, open: &[OpenTool]) -> Vec<(EventId, Outcome)> {
        open.iter()
            .map(|tool| (tool.id.clone(), Outcome::error("cut off")))
            .collect()
    }

    async fn logs(&self, session: &SessionId, tail: usize) -> Option<String> {
        assert_ne!(session.as_str(), "panics", "told to");
        (session.as_str() != "bare").then(|| format!("{tail} lines"))
    }

    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, String> {
        Ok(self.files.clone())
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, String> {
        Ok(Vec::new())
    }

    fn sandboxes(&self) -> Counts {
        Counts {
            live: 3,
            ..Counts::default()
        }
    }

    async fn retire(&self, _: &HashSet<SessionId>) {}

    async fn discard(&self, _: &SessionId) -> Result<(), String> {
        Ok(())
    }
}

/// Files of a workspace, by path.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl Workspace for Memory {
    async fn list(&self, path: &str, limit: usize) -> Result<Vec<Entry>, Error> {
        let files = self.0.lock().unwrap();
        if path == "missing" {
            return Err(Error::NotFound);
        }
        let entry = |(name, bytes): (&String, &Bytes)| Entry {
            name: name.clone(),
            path: name.clone(),
            is_dir: false,
            size: bytes.len() as u64,
            mtime_ms: 12.5,
        };
        Ok(files.iter().map(entry).take(limit).collect())
    }

    async fn read(&self, path: &str, max: u64) -> Result<Bytes, Error> {
        let files = self.0.lock().unwrap();
        match files.get(path) {
            None if path == "folder" => Err(Error::InvalidPath("a folder".into())),
            None => Err(Error::NotFound),
            Some(bytes) if bytes.len() as u64 > max => Err(Error::TooLarge(max)),
            Some(bytes) => Ok(bytes.clone()),
        }
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        if path == "full" {
            return Err(Error::Full);
        }
        self.0.lock().unwrap().insert(path.to_owned(), bytes);
        Ok(())
    }

    async fn write_program(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(path, bytes).await
    }

    async fn open(&self, path: &str) -> Result<std::fs::File, Error> {
        let bytes = self.read(path, u64::MAX).await?;
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, &bytes)?;
        std::io::Seek::rewind(&mut file)?;
        Ok(file)
    }

    async fn place(&self, path: &str, mut source: std::fs::File) -> Result<(), Error> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut source, &mut bytes)?;
        self.write(path, bytes.into()).await
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        if path == "folder" {
            return Err(Error::InvalidPath("a folder".into()));
        }
        self.0
            .lock()
            .unwrap()
            .remove(path)
            .map(drop)
            .ok_or(Error::NotFound)
    }
}

/// A grader that wants one revision.
async fn grade(port: &dyn Port, request: EventId, model: String, iteration: u32) -> Result<(), PortError> {
    let (verdict, explanation) = match iteration {
        0 => (Verdict::NeedsRevision, "not yet"),
        _ => (Verdict::Satisfied, "good"),
    };
    let begin = Input::BeginRequest {
        id: request.clone(),
        model,
        thinking_level: oma_domain::thinking::ThinkingLevel::Off,
        purpose: Purpose::Evaluation,
        bound: oma_domain::quota::Bound::default(),
    };
    port.commit(begin).await?;
    port.commit(Input::FinishEvaluation {
        request,
        verdict,
        explanation: explanation.to_owned(),
        usage: Usage {
            input: 7,
            ..Usage::default()
        },
        cost: None,
    })
    .await?;
    Ok(())
}
