//! The list of a session's events, in pages that are bounded in frames and in bytes.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use oma_domain::page::Order;
use oma_domain::session::Queued;
use oma_domain::{ContentBlock, Event, EventId, Seq, SessionId, Timestamp};
use oma_engine::Span;
use serde::Serialize;
use serde_json::{Value, json};

use super::content;
use super::frame::Frame;
use super::projection::View;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::page::{self, Cursor as PageCursor};
use crate::dialects::claude::query::Query;
use crate::dialects::openclaw::events::cursor::Cursor;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::params::SessionPath;

/// The most events that are read at a time.
const CHUNK: u32 = 200;
/// The most events of a page, and how many there are when the client does not say.
const MOST: u32 = 1_000;
/// What stands before the rows.
const BEFORE: &[u8] = b"{\"data\":[";
/// What is between the position and the id of the frame in a cursor.
const BETWEEN: char = '/';

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    query: Query,
) -> Result<Written> {
    read(&state, &caller, &id, &query, false).await
}

/// What a page continues from. The position spares looking for the event; whether it is there is seen when it is read.
struct Place {
    seq: Seq,
    frame: Cursor,
}

impl Place {
    fn parse(row: &str) -> Option<Self> {
        let (seq, frame) = row.split_once(BETWEEN)?;
        let seq: i64 = seq.parse().ok()?;
        Some(Self {
            seq: Seq(u64::try_from(seq).ok()?),
            frame: Cursor::parse(frame)?,
        })
    }

    /// The position before it. The event itself is read again: some of its frames may not have been seen.
    fn before(&self, order: Order) -> Seq {
        match order {
            Order::Ascending => Seq(self.seq.0.saturating_sub(1)),
            Order::Descending => self.seq.next(),
        }
    }

    /// Whether these are events of the session that has the event at this position.
    fn begins(&self, events: &[Event]) -> bool {
        events
            .first()
            .is_some_and(|event| event.id == self.frame.event && event.seq == self.seq)
    }
}

/// Which events a page is to have.
struct Wanted<'a> {
    types: Vec<&'a str>,
    created: Span,
}

impl Wanted<'_> {
    fn has(&self, kind: &str, at: Timestamp) -> bool {
        let Span { from, until } = self.created;
        (self.types.is_empty() || self.types.contains(&kind))
            && from.is_none_or(|from| at >= from)
            && until.is_none_or(|until| at <= until)
    }
}

/// Reads a page of a session's events, or of its primary thread's.
pub(crate) async fn read(
    state: &AppState,
    caller: &Caller,
    id: &SessionId,
    query: &Query,
    as_thread: bool,
) -> Result<Written> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    let order = query.order(Order::Ascending)?;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(MOST) as usize;
    let wanted = Wanted {
        types: query.list("types"),
        created: query.created()?,
    };
    let cursor = PageCursor::read(query, order)?;
    let place = match &cursor {
        None => None,
        Some(cursor) => Some(Place::parse(&cursor.row).ok_or_else(page::invalid)?),
    };
    let chunk = u32::try_from(limit).unwrap_or(CHUNK).saturating_add(2).min(CHUNK);
    let from = place.as_ref().map(|place| place.before(order));
    let found = engine.session_and_events(workspace, id, from, order, chunk);
    let (session, mut events) = found.await?;
    if place.as_ref().is_some_and(|place| !place.begins(&events.rows)) {
        return Err(page::invalid());
    }
    let seen = place.map(|place| place.frame);
    // What waits has no place in the log yet: it comes after everything.
    let mut waiting: Vec<Value> = if wanted.created == Span::default() {
        let messages = session.state.queue.iter();
        messages.flat_map(|message| queued(message)).collect()
    } else {
        Vec::new()
    };
    let view = View::of(session, as_thread);
    let mut rows = Rows::new(limit);
    waiting.retain(|event| {
        event["type"]
            .as_str()
            .is_some_and(|kind| wanted.has(kind, Timestamp(0)))
    });
    if order == Order::Descending && cursor.is_none() {
        let mut shown = Vec::new();
        for event in waiting.into_iter().rev() {
            if rows.add_last(&event)? {
                shown.push(event);
            }
        }
        waiting = shown;
    }
    loop {
        for event in &events.rows {
            let mut frames = view.project(event);
            if order == Order::Descending {
                frames.reverse();
            }
            for frame in frames {
                let is_seen = seen
                    .as_ref()
                    .is_some_and(|seen| seen.covers(&event.id, frame.index, order));
                if is_seen || !wanted.has(frame.kind, event.at) {
                    continue;
                }
                // What waited a moment ago may be in the log by now. It is on this page once.
                if let Some(at) = waiting.iter().position(|event| event["id"] == *frame.id) {
                    if order == Order::Descending && cursor.is_none() {
                        continue;
                    }
                    waiting.remove(at);
                }
                if !rows.add(frame, event.seq)? {
                    return Ok(rows.page(order));
                }
            }
        }
        match events.next {
            Some(next) => events = engine.events(workspace, id, Some(next), order, chunk).await?,
            None => break,
        }
    }
    if order == Order::Ascending {
        for event in &waiting {
            rows.add_last(event)?;
        }
    }
    Ok(rows.last_page())
}

/// A message that waits, as clients read it, and what accompanies it.
fn queued(message: &Queued) -> Vec<Value> {
    let event = |id: &EventId, kind: &str, blocks: &[ContentBlock]| {
        json!({
            "id": id.as_str(),
            "type": kind,
            "content": content::view(blocks),
            "processed_at": null,
        })
    };
    let system = message.system.iter();
    let system = system.map(|note| event(&note.id, "system.message", &note.content));
    std::iter::once(event(&message.id, "user.message", &message.content))
        .chain(system)
        .collect()
}

/// A page as it is written: most of what a list costs is writing it, so it is written once.
struct Rows {
    /// The beginning of the answer, up to the last row.
    text: Vec<u8>,
    count: usize,
    limit: usize,
    /// The last row of the log.
    last: Option<(Seq, String)>,
}

impl Rows {
    fn new(limit: usize) -> Self {
        Self {
            text: BEFORE.to_vec(),
            count: 0,
            limit,
            last: None,
        }
    }

    /// Writes a row; false when there is no room for it, and nothing was written.
    fn write(&mut self, row: &impl Serialize, must: bool) -> Result<bool> {
        let before = self.text.len();
        if self.count > 0 {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, row)
            .map_err(|error| Fault::internal(format!("an event can't be worded: {error}")))?;
        let is_full = self.count >= self.limit || self.text.len() > BEFORE.len() + limits::PAGE_BYTES;
        if is_full && !must {
            self.text.truncate(before);
            return Ok(false);
        }
        self.count += 1;
        Ok(true)
    }

    /// Adds a row of the log; false when the page is full without it.
    fn add(&mut self, frame: Frame, seq: Seq) -> Result<bool> {
        // A page has one at least, however large it is.
        let added = self.write(&frame, self.last.is_none())?;
        if added {
            self.last = Some((seq, frame.id));
        }
        Ok(added)
    }

    /// Adds a row that no page continues from, if there is room; tells whether there was.
    fn add_last(&mut self, body: &Value) -> Result<bool> {
        self.write(body, false)
    }

    /// The page, which more follows.
    fn page(mut self, order: Order) -> Written {
        let next = self.last.take().map(|(seq, frame)| {
            let row = format!("{}{BETWEEN}{frame}", seq.0);
            PageCursor::after(row, order).to_text()
        });
        self.end(next.as_deref())
    }

    /// The page, which nothing follows.
    fn last_page(self) -> Written {
        self.end(None)
    }

    fn end(mut self, next: Option<&str>) -> Written {
        self.text.extend_from_slice(b"],\"next_page\":");
        self.text.extend_from_slice(json!(next).to_string().as_bytes());
        self.text.push(b'}');
        Written(self.text)
    }
}

/// A [`Page`](page::Page) of events, written.
pub(crate) struct Written(Vec<u8>);

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}
