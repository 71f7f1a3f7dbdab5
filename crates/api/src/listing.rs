//! Lists: bounded in rows and in bytes, continued by a cursor. A client that asks for no page gets everything
//! up to the limit, and `has_more` says whether that was all.

use oma_domain::page::{Order, Page};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::fault::{Fault, Result};
use crate::limits;
use crate::params::Params;

/// How many rows are read at a time.
const CHUNK: u32 = 100;

/// The part of a list that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The most rows.
    pub(crate) limit: u32,
    /// The cursor after which it begins.
    pub(crate) after: Option<String>,
    /// Which way it runs.
    pub(crate) order: Order,
}

impl Slice {
    /// Reads `limit` and `after`, for a list that runs one way only; `unpaged` is the limit of a client that gives
    /// none.
    pub(crate) fn read(params: &Params, unpaged: u32) -> Result<Self> {
        let limit = match params.get("limit") {
            None => unpaged,
            Some(text) => match text.parse::<i64>() {
                Err(_) => return Err(Fault::invalid_field(&["limit"], "Expected an integer")),
                Ok(number) if number < 1 => {
                    return Err(Fault::invalid_field(&["limit"], "Number must be greater than 0"));
                }
                Ok(number) => match u32::try_from(number) {
                    Ok(limit) if limit <= limits::PAGE => limit,
                    _ => {
                        let problem = format!("Number must be less than or equal to {}", limits::PAGE);
                        return Err(Fault::invalid_field(&["limit"], problem));
                    }
                },
            },
        };
        Ok(Self {
            limit,
            after: params.get("after").map(str::to_owned),
            order: Order::Ascending,
        })
    }

    /// Reads `order` as well, for a list that runs both ways; `unordered` is the way for a client that gives none.
    pub(crate) fn ordered(params: &Params, unpaged: u32, unordered: Order) -> Result<Self> {
        let order = match params.get("order") {
            None => unordered,
            Some("asc") => Order::Ascending,
            Some("desc") => Order::Descending,
            Some(_) => {
                return Err(Fault::invalid_field(
                    &["order"],
                    "Invalid enum value. Expected 'asc' | 'desc'",
                ));
            }
        };
        Ok(Self {
            order,
            ..Self::read(params, unpaged)?
        })
    }

    /// The cursor as an id.
    pub(crate) fn after<I>(&self, parse: impl Fn(&str) -> Option<I>) -> Result<Option<I>> {
        match &self.after {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(unknown_cursor),
        }
    }
}

/// The cursor names nothing that this list has.
pub(crate) fn unknown_cursor() -> Fault {
    Fault::invalid_field(&["after"], "Unknown cursor")
}

/// Rows, as JSON texts, with the cursor after the last one when there are more.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Box<RawValue>>,
    pub(crate) next: Option<String>,
}

/// Collects rows until there are `limit`, or [`limits::PAGE_BYTES`], or no more. `fetch` reads the page after
/// a cursor, `view` words a row.
pub(crate) async fn collect<T, C, V, Fut>(
    limit: u32,
    after: Option<C>,
    fetch: impl Fn(Option<C>, u32) -> Fut,
    view: impl Fn(&T) -> V,
    cursor: impl Fn(&T) -> C,
) -> Result<Rows>
where
    C: ToString + Clone,
    V: Serialize,
    Fut: Future<Output = Result<Page<T, C>>>,
{
    let mut collected = Rows {
        rows: Vec::new(),
        next: None,
    };
    let mut bytes = 0;
    let mut position = after;
    loop {
        let missing = limit.saturating_sub(u32::try_from(collected.rows.len()).unwrap_or(u32::MAX));
        let page = fetch(position.clone(), missing.min(CHUNK)).await?;
        let last = page.rows.len();
        for (index, row) in page.rows.iter().enumerate() {
            let text = serde_json::value::to_raw_value(&view(row))
                .map_err(|error| Fault::internal(format!("a row can't be worded: {error}")))?;
            bytes += text.get().len();
            if bytes > limits::PAGE_BYTES && !collected.rows.is_empty() {
                collected.next = position.as_ref().map(C::to_string);
                return Ok(collected);
            }
            collected.rows.push(text);
            position = Some(cursor(row));
            let full = collected.rows.len() >= limit as usize;
            if full && (index + 1 < last || page.next.is_some()) {
                collected.next = position.as_ref().map(C::to_string);
                return Ok(collected);
            }
        }
        if page.next.is_none() || page.rows.is_empty() {
            return Ok(collected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices() {
        for (pairs, outcome) in [
            (&[][..], Ok((1000, Order::Ascending))),
            (&[("limit", "20")], Ok((20, Order::Ascending))),
            (&[("limit", "1000")], Ok((1000, Order::Ascending))),
            (&[("limit", "0")], Err("invalid_request")),
            (&[("limit", "-5")], Err("invalid_request")),
            (&[("limit", "1001")], Err("invalid_request")),
            (&[("limit", "99999999999")], Err("invalid_request")),
            (&[("limit", "99999999999999999999")], Err("invalid_request")),
            (&[("order", "desc")], Ok((1000, Order::Descending))),
            (&[("limit", "many")], Err("invalid_request")),
            (&[("limit", "1.5")], Err("invalid_request")),
            (&[("order", "up")], Err("invalid_request")),
        ] {
            let slice = Slice::ordered(&Params::of(pairs), 1000, Order::Ascending);
            let slice = slice.map(|slice| (slice.limit, slice.order));
            assert_eq!(
                slice.as_ref().map_err(Fault::code),
                outcome.as_ref().map_err(|code| *code),
                "{pairs:?}"
            );
        }
    }

    async fn numbers(total: u32, limit: u32, after: Option<u32>, size: usize) -> Rows {
        let fetch = |after: Option<u32>, limit: u32| async move {
            let rows: Vec<u32> = (after.unwrap_or(0) + 1..=total)
                .take(limit as usize + 1)
                .collect();
            Ok(Page::from_overfetch(rows, limit, |row| *row))
        };
        collect(limit, after, fetch, |_| "x".repeat(size), |row| *row)
            .await
            .expect("collects")
    }

    #[tokio::test]
    async fn pages_join_into_the_whole_list() {
        for (total, limit) in [
            (0, 5),
            (1, 5),
            (5, 5),
            (6, 5),
            (250, 100),
            (250, 1000),
            (200, 100),
            (301, 150),
        ] {
            let mut seen = 0;
            let mut after = None;
            loop {
                let page = numbers(total, limit, after, 1).await;
                assert!(page.rows.len() <= limit as usize);
                seen += page.rows.len();
                match page.next {
                    Some(next) => after = Some(next.parse().expect("a number")),
                    None => break,
                }
            }
            assert_eq!(seen, total as usize, "{total} by {limit}");
        }
    }

    #[tokio::test]
    async fn a_page_is_bounded_in_bytes_and_never_empty() {
        let page = numbers(10, 10, None, limits::PAGE_BYTES / 3).await;
        assert_eq!((page.rows.len(), page.next.as_deref()), (2, Some("2")));
        let page = numbers(10, 10, Some(4), limits::PAGE_BYTES * 2).await;
        assert_eq!((page.rows.len(), page.next.as_deref()), (1, Some("5")));
    }
}
