//! Attending to a thread while it answers: what happens in it is entered in its coordinator's log, and it is told what
//! clients say to it.

use std::pin::pin;

use futures_util::{FutureExt as _, StreamExt as _};
use oma_domain::content::joined_text;
use oma_domain::event::{Body, StopReason};
use oma_domain::policy::Permission;
use oma_domain::session::{Input, News, Order, Outcome, Rejection, Thread};
use oma_domain::{ContentBlock, Event, Seq, SessionId};
use oma_runtime::PortError;

use super::{DELETED, Errand, gone};
use crate::Frame;
use crate::actor::Command;
use crate::delegation::verdict;
use crate::error::Error;

impl Errand<'_> {
    /// Follows the thread until it rests, and tells it what clients say to it.
    pub(crate) async fn attend(&self, thread: &SessionId) -> Result<Input, PortError> {
        let workspace = &self.info.workspace;
        let stale = || PortError::Rejected(Rejection::Stale);
        let seen = self.known(thread).ok_or_else(stale)?.seen;
        let mut frames = match self.engine.follow(workspace, thread, seen, false).await {
            Ok(frames) => frames,
            Err(Error::SessionNotFound) => return self.deleted(thread, Vec::new()).await,
            Err(error) => return Err(gone(&error)),
        };
        // The thread's answer is entered with its rest.
        let mut news = Vec::new();
        loop {
            let known = self.known(thread).ok_or_else(stale)?;
            if !known.orders.is_empty() {
                let (thread, count) = (thread.clone(), known.orders.len());
                self.tell(&thread, known.orders).await?;
                self.commit(Input::Delivered { thread, count }).await?;
                continue;
            }
            let mut frame = tokio::select! {
                frame = frames.next() => frame,
                () = self.port.changed() => continue,
            };
            let mut through = Seq(0);
            loop {
                match frame {
                    Some(Ok(Frame::Event(event))) => {
                        through = event.seq;
                        if let Some(stop) = self.note(&event, &known, &mut news) {
                            let said = said(&news);
                            let outcome = match known.ends_with_answer() {
                                true => verdict(&stop, &said),
                                false => signed(verdict(&stop, &said), thread),
                            };
                            return self.end(thread, outcome, (through, news)).await;
                        }
                    }
                    Some(Ok(Frame::Delta(_))) => {}
                    Some(Ok(Frame::Deleted)) => return self.deleted(thread, news).await,
                    Some(Err(error)) => return Err(gone(&error)),
                    None => return Err(PortError::Gone("the server is stopping".to_owned())),
                }
                // What has come together is entered together.
                match pin!(frames.next()).now_or_never() {
                    Some(next) => frame = next,
                    None => break,
                }
            }
            let answers = matches!(news.last(), Some(News::Says { .. }));
            if !news.is_empty() && !answers {
                let news = std::mem::take(&mut news);
                let thread = thread.clone();
                self.commit(Input::Mirror {
                    thread,
                    through,
                    news,
                })
                .await?;
            }
        }
    }

    fn known(&self, thread: &SessionId) -> Option<Thread> {
        let (state, _) = self.port.state();
        let known = state.threads.get(thread)?;
        (known.errand.as_ref() == Some(self.tool_use)).then(|| known.clone())
    }

    async fn commit(&self, input: Input) -> Result<(), PortError> {
        self.port.commit(input).await.map(|_| ())
    }

    /// Notes what an event of the thread means for the session; gives why the thread rests, once it does.
    fn note(&self, event: &Event, known: &Thread, news: &mut Vec<News>) -> Option<StopReason> {
        match &*event.body {
            Body::StatusRunning => news.push(News::Works),
            Body::AgentToolUse {
                name,
                input,
                permission,
                custom,
                origin,
                ..
            } if *custom || *permission == Permission::Ask => news.push(News::Awaits {
                tool_use: event.id.clone(),
                name: name.clone(),
                input: input.clone(),
                custom: *custom,
                origin: origin.clone(),
            }),
            Body::AgentToolResult { tool_use, .. }
            | Body::UserCustomToolResult { tool_use, .. }
            | Body::UserToolConfirmation { tool_use, .. } => {
                let entered = known.awaited.iter().any(|awaited| awaited.tool_use == *tool_use);
                let noted =
                    |one: &News| matches!(one, News::Awaits { tool_use: noted, .. } if noted == tool_use);
                if entered || news.iter().any(noted) {
                    let tool_use = tool_use.clone();
                    news.push(News::Settled { tool_use });
                }
            }
            Body::ThreadMessageSent { to, content, .. } if *to == self.info.id => {
                let content = content.clone();
                news.push(News::Says { content });
            }
            Body::StatusIdle { stop_reason, .. } => {
                let stop = stop_reason.clone();
                news.push(News::Rests { stop: stop.clone() });
                if !matches!(stop, StopReason::RequiresAction { .. }) {
                    return Some(stop);
                }
            }
            _ => {}
        }
        None
    }

    /// Tells the thread what clients have said to it.
    async fn tell(&self, thread: &SessionId, orders: Vec<Order>) -> Result<(), PortError> {
        let asked = self
            .engine
            .ask(&self.info.workspace, thread, |reply| Command::Order {
                orders,
                reply,
            });
        match asked.await {
            // What becomes of a deleted thread is told by its followers.
            Ok(()) | Err(Error::SessionNotFound) => Ok(()),
            Err(error) => Err(gone(&error)),
        }
    }

    async fn deleted(&self, thread: &SessionId, mut news: Vec<News>) -> Result<Input, PortError> {
        news.push(News::Ends);
        self.end(thread, Outcome::error(DELETED), (Seq(0), news)).await
    }
}

/// What a thread has answered.
fn said(news: &[News]) -> String {
    let said = news.iter().rev().find_map(|one| match one {
        News::Says { content } => Some(joined_text(content)),
        _ => None,
    });
    said.unwrap_or_default()
}

/// An outcome that says which thread it comes from, for whoever wants to go on with it.
fn signed(mut outcome: Outcome, thread: &SessionId) -> Outcome {
    let name = thread.thread_name();
    outcome
        .content
        .push(ContentBlock::text(format!("[This is the thread {name}.]")));
    outcome
}
