//! The list of events, in pages that are bounded in frames and in bytes.

use oma_domain::SessionId;
use oma_domain::page::Order;
use oma_engine::Engine;
use serde_json::value::to_raw_value;

use super::projection::project;
use super::{Start, locate};
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Rows, Slice, unknown_cursor};

/// The most events that are read at a time.
const CHUNK: u32 = 200;

/// Reads a page.
pub(super) async fn read(engine: &Engine, caller: &Caller, id: &SessionId, slice: &Slice) -> Result<Rows> {
    let start = match &slice.after {
        None => Start {
            from: None,
            seen: None,
        },
        Some(cursor) => match locate(engine, caller, id, cursor, slice.order).await? {
            Some(start) => start,
            None => {
                // A missing session is worse than a bad cursor.
                engine.session(caller.workspace(), id).await?;
                return Err(unknown_cursor());
            }
        },
    };
    let mut page = Rows {
        rows: Vec::new(),
        next: None,
    };
    let mut bytes = 0;
    let mut last = None;
    let mut from = start.from;
    // Two further rows usually tell at once whether there are more.
    let chunk = slice.limit.saturating_add(2).min(CHUNK);
    loop {
        let events = engine
            .events(caller.workspace(), id, from, slice.order, chunk)
            .await?;
        for event in &events.rows {
            let mut frames: Vec<_> = project(event).into_iter().enumerate().collect();
            if slice.order == Order::Descending {
                frames.reverse();
            }
            for (index, frame) in frames {
                if start
                    .seen
                    .as_ref()
                    .is_some_and(|seen| seen.covers(&event.id, index, slice.order))
                {
                    continue;
                }
                let text = to_raw_value(&frame)
                    .map_err(|error| Fault::internal(format!("an event can't be worded: {error}")))?;
                bytes += text.get().len();
                let full = page.rows.len() >= slice.limit as usize || bytes > limits::PAGE_BYTES;
                if full && last.is_some() {
                    page.next = last;
                    return Ok(page);
                }
                last = Some(frame.event_id);
                page.rows.push(text);
            }
        }
        match events.next {
            Some(next) => from = Some(next),
            None => return Ok(page),
        }
    }
}
