//! What the tables share: ids, positions and pages.

use oma_domain::id::Invalid;
use oma_domain::page::{MAX_LIMIT, Order, Page};
use oma_domain::{Timestamp, WorkspaceId};
use rusqlite::{Connection, Row, Rows, params};

use super::failure::{Failure, unreadable};
use crate::{Error, ListFilter, Span};

/// A page ends early, after at least one row, once its rows are this large together (in bytes of stored text).
const MAX_PAGE_BYTES: usize = 8 << 20;

/// How many rows a page holds at most; a page of none could not be continued.
pub(super) fn page_limit(limit: u32) -> u32 {
    limit.clamp(1, MAX_LIMIT)
}

/// A list of a workspace's rows in the order in which they were made.
pub(super) struct List<'a> {
    /// Selects the rows; says what `table` is, which has the columns `workspace`, `key`, `created_at` and `archived_at`.
    pub(super) select: &'a str,
    pub(super) table: &'a str,
    pub(super) workspace: &'a WorkspaceId,
    pub(super) filter: &'a ListFilter,
    pub(super) order: Order,
    /// The key that it continues from.
    pub(super) after: Option<i64>,
    pub(super) limit: u32,
}

impl List<'_> {
    /// Reads a page. `read` also tells a row's size.
    pub(super) fn page<T, C>(
        &self,
        conn: &Connection,
        read: impl Fn(&Row<'_>, &WorkspaceId) -> Result<(T, usize), Failure>,
        cursor: impl Fn(&T) -> C,
    ) -> Result<Page<T, C>, Failure> {
        let Self {
            select,
            table,
            workspace,
            filter,
            order,
            ..
        } = self;
        let limit = page_limit(self.limit);
        let active = if filter.only_active {
            format!(" AND {table}.archived_at IS NULL")
        } else {
            String::new()
        };
        let (beyond, direction) = match order {
            Order::Ascending => (">", ""),
            Order::Descending => ("<", " DESC"),
        };
        let (from, until) = ends(filter.created);
        let mut statement = conn.prepare_cached(&format!(
            "{select} WHERE {table}.workspace = ? AND {table}.key {beyond} ? \
             AND {table}.created_at BETWEEN ? AND ?{active} ORDER BY {table}.key{direction} LIMIT ?"
        ))?;
        let rows = statement.query(params![
            workspace.as_str(),
            start(self.after, *order),
            from,
            until,
            limit + 1
        ])?;
        page(rows, limit, |row| read(row, workspace), cursor)
    }
}

/// The key that a list continues from, also when it has only begun.
pub(super) fn start(after: Option<i64>, order: Order) -> i64 {
    after.unwrap_or(match order {
        Order::Ascending => 0,
        Order::Descending => i64::MAX,
    })
}

/// The ends of a span, in milliseconds; one that does not bind is beyond all times.
pub(super) fn ends(Span { from, until }: Span) -> (i64, i64) {
    (
        from.map_or(i64::MIN, Timestamp::as_millis),
        until.map_or(i64::MAX, Timestamp::as_millis),
    )
}

/// Reads a page from a query that was limited to one row more than `limit`. `read` also tells a row's size.
pub(super) fn page<T, C>(
    mut rows: Rows<'_>,
    limit: u32,
    mut read: impl FnMut(&Row<'_>) -> Result<(T, usize), Failure>,
    cursor: impl Fn(&T) -> C,
) -> Result<Page<T, C>, Failure> {
    let limit = limit as usize;
    let mut page = Page {
        rows: Vec::new(),
        next: None,
    };
    let mut bytes = 0_usize;
    while let Some(row) = rows.next()? {
        if page.rows.len() >= limit || bytes >= MAX_PAGE_BYTES {
            page.next = page.rows.last().map(cursor);
            break;
        }
        let (value, size) = read(row)?;
        page.rows.push(value);
        bytes = bytes.saturating_add(size);
    }
    Ok(page)
}

/// Reads an id from a column.
pub(super) fn id<T>(
    row: &Row<'_>,
    column: &str,
    parse: fn(&str) -> Result<T, Invalid>,
) -> Result<T, Failure> {
    let value = row.get_ref(column)?;
    let text = value.as_str().map_err(|error| unreadable("id", error))?;
    parse(text).map_err(|error| unreadable("id", error))
}

/// Reads an id from a column that may be null.
pub(super) fn optional_id<T>(
    row: &Row<'_>,
    column: &str,
    parse: fn(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Failure> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => id(row, column, parse).map(Some),
    }
}

/// Reads a text without copying it.
pub(super) fn text<'r>(row: &'r Row<'_>, column: &str) -> Result<&'r str, Failure> {
    row.get_ref(column)?
        .as_str()
        .map_err(|error| unreadable(column, error))
}

/// Reads a text that may be missing, without copying it.
pub(super) fn optional_text<'r>(row: &'r Row<'_>, column: &str) -> Result<Option<&'r str>, Failure> {
    row.get_ref(column)?
        .as_str_or_null()
        .map_err(|error| unreadable(column, error))
}

/// Reads a number that is never negative.
pub(super) fn number<T: TryFrom<i64>>(row: &Row<'_>, column: &str) -> Result<T, Failure>
where
    T::Error: std::fmt::Display,
{
    let value: i64 = row.get(column)?;
    T::try_from(value).map_err(|error| unreadable(column, error))
}

/// The verdict on a cursor that names no row.
pub(super) fn unknown_cursor() -> Failure {
    Failure::Refused(Error::NotFound)
}
