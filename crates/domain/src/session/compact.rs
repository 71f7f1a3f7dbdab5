//! Summarising the history: asked for by a client, or made by the runtime within a turn.

use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::event::{Body, Kept, Purpose, Seq, StopReason};
use crate::id::{EventId, KeyId};
use crate::usage::{Cost, Usage};

impl Transition {
    /// Starts a turn that does nothing else.
    pub(super) fn compact(&mut self, charged: Option<KeyId>, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        if !matches!(self.state.phase, Phase::Idle { .. }) {
            return Err(Rejection::Busy);
        }
        if ctx.head == Seq(0) || ctx.head <= self.state.compacted_through {
            return Err(Rejection::NothingToCompact);
        }
        self.state.held_by = None;
        self.state.held_for = None;
        self.begin_work(ctx);
        let id = (ctx.new_id)();
        self.run(id, Purpose::Compaction, None, charged, ctx);
        Ok(())
    }

    /// Records the summary. It covers everything before its own events.
    pub(super) fn finish_compaction(
        &mut self,
        request: &EventId,
        summary: String,
        kept: Option<Kept>,
        (usage, cost): (Usage, Option<Cost>),
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.sampling_turn(request)?;
        turn.step = Step::Ready;
        turn.failed_attempts = 0;
        let ends = turn.purpose == Purpose::Compaction;
        let through = ctx.head;
        self.state.usage.add(&usage);
        self.state.cost.add(cost.as_ref());
        self.state.context_tokens = usage.output;
        self.state.compacted_through = through;
        self.push(
            ctx,
            Body::Compaction {
                request: request.clone(),
                summary,
                through,
                kept,
            },
        );
        self.push(
            ctx,
            Body::ModelRequestEnd {
                request: request.clone(),
                is_error: false,
                purpose: Purpose::Compaction,
                usage,
                cost,
            },
        );
        if ends {
            self.end_turn(StopReason::EndTurn, ctx);
        }
        Ok(())
    }
}
