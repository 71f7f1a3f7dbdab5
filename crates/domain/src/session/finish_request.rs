//! The model has answered in full.

use super::input::{Outcome, Reply, ReplyBlock, ReplyStop};
use super::rejection::Rejection;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::content::ContentBlock;
use crate::event::{Body, Purpose, StopReason};
use crate::id::EventId;
use crate::policy::Permission;

impl Transition {
    /// Appends the whole answer. Denied tool uses get their error result at once; the others are opened, and
    /// without any the turn ends.
    pub(super) fn finish_request(
        &mut self,
        request: &EventId,
        reply: Reply,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.sampling_turn(request)?;
        if !matches!(
            turn.step,
            Step::Sampling {
                purpose: Purpose::Reply,
                ..
            }
        ) {
            return Err(Rejection::Stale);
        }
        turn.failed_attempts = 0;
        let Reply {
            blocks,
            model,
            usage,
            cost,
            stop,
        } = reply;
        self.state.usage.add(&usage);
        self.state.cost.add(cost.as_ref());
        self.state.context_tokens = usage.total();
        let mut open = Vec::new();
        let mut denied = Vec::new();
        let mut text_of_answer = String::new();
        // Usage belongs to the request, so it is shown on one message only: the last.
        let last_text = blocks
            .iter()
            .rposition(|block| matches!(block, ReplyBlock::Text { .. }));
        for (index, block) in blocks.into_iter().enumerate() {
            match block {
                ReplyBlock::Text { id, text, opaque } => {
                    if !text_of_answer.is_empty() {
                        text_of_answer.push('\n');
                    }
                    text_of_answer.push_str(&text);
                    let is_last = last_text == Some(index);
                    self.push_as(
                        id,
                        Body::AgentMessage {
                            request: request.clone(),
                            content: vec![ContentBlock::text(text)],
                            model: model.clone(),
                            usage: is_last.then_some(usage),
                            cost: if is_last { cost.clone() } else { None },
                            interrupted: false,
                            opaque,
                        },
                    );
                }
                ReplyBlock::Thinking { id, text, opaque } => {
                    self.push_as(
                        id,
                        Body::AgentThinking {
                            request: request.clone(),
                            text,
                            opaque,
                        },
                    );
                }
                ReplyBlock::ToolUse {
                    id,
                    name,
                    input,
                    call_id,
                    permission,
                    custom,
                    remote,
                    origin,
                    opaque,
                } => {
                    let (gate, timeout) = match permission {
                        Permission::Allow | Permission::Ask if custom => (Gate::Client, None),
                        Permission::Ask => (Gate::Asking, ctx.confirmation_timeout_ms),
                        Permission::Allow if remote => (Gate::Client, None),
                        Permission::Allow | Permission::Deny => (Gate::Open, None),
                    };
                    let tool = OpenTool {
                        id: id.clone(),
                        name: name.clone(),
                        input: input.clone(),
                        gate,
                        asks_until: timeout.map(|millis| ctx.now.plus_millis(millis)),
                        remote,
                        of_server: Some(origin.server.is_some()),
                    };
                    match permission {
                        Permission::Deny => denied.push(tool),
                        Permission::Allow | Permission::Ask => open.push(tool),
                    }
                    let request = request.clone();
                    self.push_as(
                        id,
                        Body::AgentToolUse {
                            request,
                            name,
                            input,
                            call_id,
                            permission,
                            custom,
                            origin: Some(origin),
                            opaque,
                        },
                    );
                }
            }
        }
        if !text_of_answer.is_empty() {
            self.state.output = Some(text_of_answer.into());
            self.running_turn()?.said = true;
        }
        self.push(
            ctx,
            Body::ModelRequestEnd {
                request: request.clone(),
                is_error: false,
                purpose: Purpose::Reply,
                usage,
                cost,
            },
        );
        let acts = !open.is_empty() || !denied.is_empty();
        for tool in denied {
            let refusal = format!("The agent's permission policy denies the tool {}.", tool.name);
            self.close_tool(&tool, Outcome::error(refusal), ctx);
        }
        if acts {
            self.after_tools(open, ctx);
            return Ok(());
        }
        let stop = match stop {
            ReplyStop::Done => StopReason::EndTurn,
            ReplyStop::MaxTokens => StopReason::MaxTokens,
            ReplyStop::Refusal { explanation } => StopReason::Refusal { explanation },
        };
        self.finish_answer(stop, ctx);
        Ok(())
    }
}
