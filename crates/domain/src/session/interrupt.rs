//! A client stops the turn.

use super::input::{Outcome, Partial};
use super::queue::QueueChange;
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use super::turn::INTERRUPTED;
use super::turn::Step;
use crate::content::ContentBlock;
use crate::event::{Body, StopReason};
use crate::id::EventId;
use crate::usage::{Spent, Usage};
use crate::workflow::Ending;

impl Transition {
    /// Closes whatever is open, keeping what it had achieved (I7), and goes idle. With `clear_queue` the
    /// waiting messages are dropped and named in the event; otherwise the oldest of them comes next.
    pub(super) fn interrupt(
        &mut self,
        id: EventId,
        clear_queue: bool,
        (partial, arrived): (Vec<Partial>, u64),
        mut outcomes: Vec<(EventId, Outcome)>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let step = match &mut self.state.phase {
            // Only messages that a spent budget holds back can wait for an idle session.
            Phase::Idle { .. } if clear_queue && !self.state.queue.is_empty() => {
                let dropped = self.drop_queue();
                self.push_as(
                    id,
                    Body::UserInterrupt {
                        dropped,
                        thread: None,
                    },
                );
                return Ok(());
            }
            Phase::Idle { .. } => return Err(Rejection::NotRunning),
            Phase::Running { turn } | Phase::Blocked { turn } => {
                std::mem::replace(&mut turn.step, Step::Ready)
            }
        };
        match step {
            Step::Ready => {}
            Step::Sampling {
                request,
                purpose,
                bound,
                ..
            } => {
                for Partial { id, text, model } in partial {
                    if text.is_empty() {
                        continue;
                    }
                    self.state.output = Some(text.as_str().into());
                    self.push_as(
                        id,
                        Body::AgentMessage {
                            request: request.clone(),
                            content: vec![ContentBlock::text(text)],
                            model,
                            usage: None,
                            cost: None,
                            interrupted: true,
                            opaque: None,
                        },
                    );
                }
                // The provider bills what it produced but never says how much of it.
                let spent = Spent::AtLeast {
                    usage: Usage::default(),
                    cost: None,
                    arrived,
                };
                self.close_request(request, purpose, &bound, spent, ctx);
            }
            Step::Acting { open } => {
                for tool in open {
                    let found = outcomes.iter().position(|(id, _)| *id == tool.id);
                    let outcome = match found {
                        Some(index) => outcomes.swap_remove(index).1,
                        None => Outcome::error(INTERRUPTED),
                    };
                    self.close_tool(&tool, outcome, ctx);
                }
            }
        }
        let dropped = if clear_queue {
            self.drop_queue()
        } else {
            Vec::new()
        };
        self.push_as(
            id,
            Body::UserInterrupt {
                dropped,
                thread: None,
            },
        );
        self.release_threads(&Ending::Stopped, ctx);
        self.end_turn(StopReason::Interrupted, ctx);
        Ok(())
    }

    fn drop_queue(&mut self) -> Vec<EventId> {
        if self.state.queue.is_empty() {
            return Vec::new();
        }
        self.queue.push(QueueChange::Clear);
        self.state
            .queue
            .drain(..)
            .map(|message| message.id.clone())
            .collect()
    }
}
