//! From the log's events to this dialect's: a pure function of the log, used by the list and by the stream alike (I3).
//!
//! An event becomes one frame under its own id, or several, the further ones under derived ids; see
//! [`Cursor`](crate::dialects::openclaw::events::cursor::Cursor). A status becomes one of the session and one of its
//! primary thread, an idle status also says what was consumed. Changes of the model within a session are no frames, and
//! the tools by which a coordinator has others work are shown as the messages that go to and from their threads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oma_domain::event::{Body, BudgetChange, Purpose, ThreadRef, ThreadStatus};
use oma_domain::multiagent::{CONSULT_ADVISOR, CREATE_AGENT, LIST_AGENTS, SEND_TO_AGENT};
use oma_domain::origin::Origin;
use oma_domain::policy::Permission;
use oma_domain::usage::Usage;
use oma_domain::workflow::RUN_WORKFLOW;
use oma_domain::{AgentId, ContentBlock, Event, EventId, Session, SessionId, WorkflowRunId};
use serde_json::{Value, json};

use super::frame::{Fields, Frame, content_of};
use super::tool_uses::{origin, server, servers_of, tool_result, tool_use};
use super::{content, reasons, workflows};
use crate::dialects::claude::sessions;
use crate::dialects::openclaw::events::cursor::Cursor;

/// What concerns a session as a whole, and none of its threads.
const OF_SESSIONS: &[&str] = &[
    "session.status_running",
    "session.status_idle",
    "session.status_terminated",
    "session.usage",
    "session.updated",
];

/// What of a session its events are shown with.
pub(crate) struct View {
    session: Session,
    thread: String,
    agent_name: String,
    /// Whether it is shown as a thread: without what concerns the session as a whole.
    as_thread: bool,
    /// The names of MCP servers, by what the names of their tools begin with.
    servers: BTreeMap<String, String>,
    /// The same of those who may work in threads.
    members: HashMap<AgentId, BTreeMap<String, String>>,
}

impl View {
    pub(crate) fn of(session: Session, as_thread: bool) -> Self {
        let mut servers = session.state.former_servers.clone();
        servers.extend(servers_of(&session.agent));
        let members = session.roster.iter();
        Self {
            members: members
                .map(|agent| (agent.id.clone(), servers_of(agent)))
                .collect(),
            thread: session.id.thread_name(),
            agent_name: session.agent.shown_name().to_owned(),
            servers,
            as_thread,
            session,
        }
    }

    /// Takes notice of what a session has from an event on.
    pub(crate) fn learn(&mut self, event: &Event) {
        let Body::SessionUpdated {
            agent: Some(agent), ..
        } = &*event.body
        else {
            return;
        };
        self.servers.extend(servers_of(agent));
        self.session.agent = Arc::clone(agent);
    }

    /// The frames of an event, in order.
    pub(crate) fn project(&self, event: &Event) -> Vec<Frame> {
        let frames = match content_of(&event.body) {
            Some(_) => vec![(event.body.kind(), Fields::Content(Arc::clone(&event.body)))],
            None => {
                let bodies = self.bodies(event).into_iter();
                bodies
                    .map(|(kind, fields)| (kind, Fields::Worded(fields)))
                    .collect()
            }
        };
        let frames = frames.into_iter().enumerate().map(|(index, (kind, fields))| {
            let id = Cursor {
                event: event.id.clone(),
                index,
            }
            .to_string();
            Frame {
                kind,
                id,
                index,
                fields,
                at: event.at,
            }
        });
        // A session's primary thread is shown without what concerns its other threads.
        let of_others = matches!(
            &*event.body,
            Body::ThreadStatus { .. }
                | Body::ThreadToolUse { .. }
                | Body::SystemMessage { thread: Some(_), .. }
                | Body::UserInterrupt { thread: Some(_), .. }
                | Body::UserToolConfirmation { thread: Some(_), .. }
                | Body::UserCustomToolResult { thread: Some(_), .. }
        );
        let concerns_threads =
            |frame: &Frame| !self.as_thread || !(of_others || OF_SESSIONS.contains(&frame.kind));
        frames.filter(concerns_threads).collect()
    }

    /// Of an event whose fields are not its content alone.
    fn bodies(&self, event: &Event) -> Vec<(&'static str, Value)> {
        let one = |fields: Value| vec![(event.body.kind(), fields)];
        match &*event.body {
            Body::UserDefineOutcome {
                outcome,
                description,
                rubric,
                max_iterations,
                ..
            } => {
                let mut fields = content::outcome(description, rubric, *max_iterations);
                fields["outcome_id"] = json!(outcome.as_str());
                one(fields)
            }
            Body::OutcomeEvaluationStart { outcome, iteration }
            | Body::OutcomeEvaluationOngoing { outcome, iteration } => {
                one(json!({"outcome_id": outcome.as_str(), "iteration": iteration}))
            }
            Body::OutcomeEvaluationEnd {
                start,
                outcome,
                iteration,
                result,
                explanation,
                usage,
            } => one(json!({
                "outcome_evaluation_start_id": start.as_ref().map(EventId::as_str).unwrap_or_default(),
                "outcome_id": outcome.as_str(),
                "iteration": iteration,
                "result": result.as_str(),
                "explanation": explanation,
                "usage": model_usage(usage),
            })),
            Body::WorkflowRunCreated {
                run,
                name,
                description,
                phases,
            } => one(workflows::created(run, name, description.as_deref(), phases)),
            Body::WorkflowRunStatus { run, status } => vec![workflows::status(run, status)],
            Body::WorkflowRunError { run, error } => one(json!({
                "workflow_run_id": run.as_ref().map(WorkflowRunId::as_str),
                "error": workflows::error(error),
            })),
            Body::WorkflowPhaseStarted { run, phase } => one(json!({
                "workflow_run_id": run.as_str(),
                "workflow_run_phase_id": phase.as_str(),
            })),
            Body::WorkflowPhaseEnded { run, phase, start } => one(json!({
                "workflow_run_id": run.as_str(),
                "workflow_run_phase_id": phase.as_str(),
                "phase_started_id": start.as_str(),
            })),
            // It is for the run's program.
            Body::WorkflowRunAnswer { .. } => Vec::new(),
            // What a grader is asked is no part of the agent's conversation; its spans say enough.
            Body::OutcomeBegun { .. }
            | Body::ModelRequestStart {
                purpose: Purpose::Evaluation,
                ..
            }
            | Body::ModelRequestEnd {
                purpose: Purpose::Evaluation,
                ..
            } => Vec::new(),
            Body::SystemMessage { .. } | Body::UserMessage { from: None, .. } | Body::AgentMessage { .. } => {
                Vec::new()
            }
            Body::UserMessage {
                content,
                from: Some(ThreadRef { thread, agent_name }),
            } => vec![(
                "agent.thread_message_received",
                received(thread, agent_name, content),
            )],
            Body::UserInterrupt { thread, .. } => one(routed(json!({}), thread.as_ref())),
            Body::UserToolConfirmation {
                tool_use,
                allow,
                deny_message,
                thread,
            } => one(routed(
                json!({
                    "tool_use_id": tool_use.as_str(),
                    "result": if *allow { "allow" } else { "deny" },
                    "deny_message": deny_message,
                }),
                thread.as_ref(),
            )),
            Body::UserCustomToolResult {
                tool_use,
                content,
                is_error,
                remote,
                thread,
                ..
            } => {
                let (kind, field) = match remote {
                    true => ("user.tool_result", "tool_use_id"),
                    false => ("user.custom_tool_result", "custom_tool_use_id"),
                };
                let mut fields = json!({});
                fields[field] = json!(tool_use.as_str());
                fields["content"] = content::view(content);
                fields["is_error"] = json!(is_error);
                vec![(kind, routed(fields, thread.as_ref()))]
            }
            Body::ThreadCreated {
                thread,
                agent_name,
                run,
            } => one(json!({
                "session_thread_id": thread.thread_name(),
                "agent_name": agent_name,
                "workflow_run_id": run.as_ref().map(WorkflowRunId::as_str),
            })),
            Body::ThreadStatus {
                thread,
                agent_name,
                status,
            } => {
                let mut fields = json!({
                    "session_thread_id": thread.thread_name(),
                    "agent_name": agent_name,
                });
                let kind = match status {
                    ThreadStatus::Running => "session.thread_status_running",
                    ThreadStatus::Terminated => "session.thread_status_terminated",
                    ThreadStatus::Idle { stop_reason } => {
                        if let (Value::Object(fields), Value::Object(stop)) =
                            (&mut fields, reasons::stop(stop_reason))
                        {
                            fields.extend(stop);
                        }
                        "session.thread_status_idle"
                    }
                };
                vec![(kind, fields)]
            }
            Body::ThreadToolUse {
                thread,
                name,
                input,
                custom,
                ..
            } if *custom => {
                let fields = json!({"name": name, "input": input});
                vec![("agent.custom_tool_use", routed(fields, Some(thread)))]
            }
            Body::ThreadToolUse {
                thread,
                agent,
                name,
                input,
                origin,
                ..
            } => {
                let origin = origin.clone().unwrap_or_else(|| self.thread_origin(agent, name));
                let (kind, fields) = tool_use(&origin, name, input, Permission::Ask);
                vec![(kind, routed(fields, Some(thread)))]
            }
            Body::ThreadMessageSent {
                to,
                agent_name,
                content,
            } => one(json!({
                "to_session_thread_id": to.thread_name(),
                "to_agent_name": agent_name,
                "content": content::view(content),
            })),
            Body::ThreadMessageReceived {
                from,
                agent_name,
                content,
            } => one(received(from, agent_name, content)),
            Body::AgentThinking { .. } => one(json!({})),
            Body::AgentToolUse { name, .. } | Body::AgentToolResult { name, .. } if self.is_hidden(name) => {
                Vec::new()
            }
            Body::AgentToolUse {
                name,
                input,
                custom: true,
                ..
            } => vec![("agent.custom_tool_use", json!({"name": name, "input": input}))],
            Body::AgentToolUse {
                name,
                input,
                permission,
                origin,
                ..
            } => {
                let origin = origin.clone().unwrap_or_else(|| self.origin(name));
                vec![tool_use(&origin, name, input, *permission)]
            }
            Body::AgentToolResult {
                tool_use,
                name,
                content,
                is_error,
                of_server,
            } => {
                let of_server = of_server.unwrap_or_else(|| server(&self.servers, name).is_some());
                vec![tool_result(
                    tool_use,
                    of_server,
                    content::view(content),
                    *is_error,
                )]
            }
            Body::StatusRunning => vec![
                ("session.status_running", json!({})),
                ("session.thread_status_running", self.of_thread()),
            ],
            Body::StatusIdle {
                stop_reason,
                totals,
                budget,
            } => {
                let stop = reasons::stop(stop_reason);
                let mut of_thread = self.of_thread();
                if let (Value::Object(of_thread), Value::Object(stop)) = (&mut of_thread, &stop) {
                    of_thread.extend(stop.clone());
                }
                let mut frames = vec![("session.thread_status_idle", of_thread)];
                if let Some(totals) = totals {
                    let budget = sessions::limit(*budget);
                    let usage = json!({"usage": sessions::usage(totals), "budget": budget});
                    frames.push(("session.usage", usage));
                }
                frames.push(("session.status_idle", stop));
                frames
            }
            Body::StatusTerminated => vec![
                ("session.thread_status_terminated", self.of_thread()),
                ("session.status_terminated", json!({})),
            ],
            Body::SessionUpdated {
                title,
                metadata,
                agent,
                budget,
            } => {
                let mut fields = json!({});
                if let Some(title) = title {
                    fields["title"] = json!((!title.is_empty()).then_some(title));
                }
                if let Some(metadata) = metadata {
                    fields["metadata"] = json!(metadata);
                }
                if let Some(agent) = agent {
                    let session = Session {
                        agent: Arc::clone(agent),
                        ..self.session.clone()
                    };
                    fields["agent"] = sessions::agent(&session);
                }
                if let Some(BudgetChange { max_cost }) = budget {
                    fields["budget"] = sessions::limit(*max_cost);
                }
                one(fields)
            }
            Body::Error { failure, retrying } => {
                one(json!({"error": reasons::error(failure, *retrying, &self.servers)}))
            }
            Body::ModelChange { .. } | Body::ThinkingLevelChange { .. } | Body::EnvironmentBuild { .. } => {
                Vec::new()
            }
            Body::Compaction { .. } => vec![("agent.thread_context_compacted", json!({}))],
            Body::ModelRequestStart { .. } => one(json!({})),
            Body::ModelRequestEnd {
                request,
                is_error,
                usage,
                ..
            } => one(json!({
                "model_request_start_id": request.as_str(),
                "is_error": is_error,
                "model_usage": model_usage(usage),
            })),
        }
    }

    fn of_thread(&self) -> Value {
        json!({"session_thread_id": self.thread, "agent_name": self.agent_name})
    }

    /// Whether it is one of the tools by which a coordinator has others work, or is advised: they are hidden from clients.
    fn is_hidden(&self, tool: &str) -> bool {
        let agent = &self.session.agent;
        match tool {
            _ if self.session.is_thread => false,
            LIST_AGENTS | SEND_TO_AGENT => agent.has_subagents(),
            CREATE_AGENT => agent.may_define(),
            CONSULT_ADVISOR => agent.advisor().is_some(),
            RUN_WORKFLOW => agent.workflows().is_some(),
            _ => false,
        }
    }

    /// Where a used tool came from, as near as the session's agent says it now: for logs that don't say.
    fn origin(&self, tool: &str) -> Origin {
        origin(&self.session.agent.spec, &self.servers, tool)
    }

    /// The same of a thread's tool.
    fn thread_origin(&self, agent: &AgentId, tool: &str) -> Origin {
        let member = self.session.roster.iter().find(|member| member.id == *agent);
        let spec = &member.unwrap_or(&self.session.agent).spec;
        let servers = self.members.get(agent).unwrap_or(&self.servers);
        origin(spec, servers, tool)
    }
}

/// What went to a thread, or comes from one, says which.
fn routed(mut fields: Value, thread: Option<&SessionId>) -> Value {
    if let Some(thread) = thread {
        fields["session_thread_id"] = json!(thread.thread_name());
    }
    fields
}

/// A message that a thread has got from another one.
fn received(from: &SessionId, agent_name: &str, content: &[ContentBlock]) -> Value {
    json!({
        "from_session_thread_id": from.thread_name(),
        "from_agent_name": agent_name,
        "content": content::view(content),
    })
}

fn model_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
    })
}
