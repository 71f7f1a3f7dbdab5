//! Following a session: the log from a cursor on, then whatever happens, without loss or repetition (I3).

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use oma_domain::page::Order;
use oma_domain::{Seq, SessionId, WorkspaceId};
use oma_store::Store;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::hub::{Note, Subscription};
use crate::{Engine, Frame};

/// How many events one read of the store brings.
const PAGE: u32 = 200;

/// A stream of frames; see [`Engine::follow`].
pub type Follow = std::pin::Pin<Box<dyn Stream<Item = Result<Frame>> + Send>>;

struct Follower {
    store: Arc<dyn Store>,
    workspace: WorkspaceId,
    session: SessionId,
    subscription: Subscription,
    closed: CancellationToken,
    /// The last event that was delivered.
    last: Seq,
    /// Events read from the store and not delivered yet.
    pending: VecDeque<Frame>,
    /// Whether the store may hold events that neither `pending` nor the subscription will bring.
    behind: bool,
    deltas: bool,
    /// The newest event that the subscription has brought since it last missed something. An answer's deltas
    /// are delivered only when nothing was missed since the event before them: what is delivered of an answer,
    /// all its messages together, is always a prefix of it.
    heard: Option<Seq>,
    finished: bool,
}

impl Engine {
    /// Follows a session: its events after `after`, first from the store and then as they happen, and with
    /// `deltas` the pieces of answers on their way. Subscribed when this returns. A slow reader loses
    /// deltas, never events. Ends after [`Frame::Deleted`] and when the engine stops.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`](crate::Error::SessionNotFound).
    pub async fn follow(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        after: Seq,
        deltas: bool,
    ) -> Result<Follow> {
        let subscription = self.inner.hub.subscribe(session);
        let head = self.session(workspace, session).await?.head;
        let follower = Follower {
            store: Arc::clone(&self.inner.store),
            workspace: workspace.clone(),
            session: session.clone(),
            subscription,
            closed: self.inner.closed.clone(),
            last: after,
            pending: VecDeque::new(),
            // Subscribed before the head was read: without events up to there that are to be delivered, the store has
            // nothing that the subscription does not bring.
            behind: head > after,
            deltas,
            heard: None,
            finished: false,
        };
        Ok(Box::pin(stream::unfold(follower, |mut follower| async move {
            let frame = follower.next().await?;
            Some((frame, follower))
        })))
    }
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Frame>> {
        if self.finished {
            return None;
        }
        loop {
            if let Some(frame) = self.pending.pop_front() {
                if let Frame::Event(event) = &frame {
                    self.last = event.seq;
                }
                return Some(Ok(frame));
            }
            if self.behind {
                if let Err(error) = self.catch_up().await {
                    self.finished = true;
                    return Some(Err(error));
                }
                continue;
            }
            let note = tokio::select! {
                note = self.subscription.notes.recv() => note,
                () = self.closed.cancelled() => return None,
            };
            match note {
                Ok(Note::Event(event)) => {
                    self.heard = Some(event.seq);
                    if event.seq == self.last.next() {
                        self.last = event.seq;
                        return Some(Ok(Frame::Event(event)));
                    }
                    // Something between was missed: the store has it.
                    self.behind = event.seq > self.last;
                }
                Ok(Note::Delta { head, delta }) => {
                    if self.deltas && head == self.last && self.heard == Some(head) {
                        return Some(Ok(Frame::Delta(delta)));
                    }
                }
                Ok(Note::Deleted) => {
                    self.finished = true;
                    return Some(Ok(Frame::Deleted));
                }
                Err(RecvError::Lagged(_)) => {
                    self.behind = true;
                    self.heard = None;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn catch_up(&mut self) -> Result<()> {
        let page = self
            .store
            .events(
                &self.workspace,
                &self.session,
                Some(self.last),
                Order::Ascending,
                PAGE,
            )
            .await?;
        self.behind = page.next.is_some();
        self.pending.extend(page.rows.into_iter().map(Frame::Event));
        Ok(())
    }
}
