//! Pages: `{data, next_page}`, continued by an opaque cursor that knows which way its list runs.

use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oma_domain::page::Order;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::bad;
use super::query::Query;
use crate::fault::Result;
use crate::listing::collect;

/// What the texts of all cursors begin with.
const PREFIX: &str = "page_";
/// The rows of a page when the client does not say.
pub(crate) const DEFAULT: u32 = 20;
/// The most rows of most lists.
pub(crate) const MOST: u32 = 100;

/// A place in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    /// Whether the list runs from the newest to the oldest.
    #[serde(rename = "d")]
    pub(crate) descending: bool,
    /// Whether the page is the one before the row, rather than the one after it.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) before: bool,
    /// The row.
    #[serde(rename = "r")]
    pub(crate) row: String,
}

impl Cursor {
    /// The cursor after a row.
    pub(crate) fn after(row: impl Into<String>, order: Order) -> Self {
        Self {
            descending: order == Order::Descending,
            before: false,
            row: row.into(),
        }
    }

    /// As clients get it.
    pub(crate) fn to_text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads the `page` parameter.
    ///
    /// # Errors
    /// 400 when it is none of ours, or of a list that runs the other way.
    pub(crate) fn read(query: &Query, order: Order) -> Result<Option<Self>> {
        let Some(text) = query.get("page") else {
            return Ok(None);
        };
        let cursor = Self::parse(text).ok_or_else(invalid)?;
        if cursor.descending != (order == Order::Descending) {
            return Err(bad("page: the cursor belongs to a list in another order"));
        }
        Ok(Some(cursor))
    }

    /// Reads the `page` parameter of a list that runs one way: the row after which the page begins.
    ///
    /// # Errors
    /// 400, as for [`Cursor::read`], and when the row is none of this list's.
    pub(crate) fn row<R, E>(
        query: &Query,
        order: Order,
        parse: impl Fn(&str) -> std::result::Result<R, E>,
    ) -> Result<Option<R>> {
        let cursor = Self::read(query, order)?;
        let row = cursor.map(|cursor| parse(&cursor.row).map_err(|_| invalid()));
        row.transpose()
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The cursor is none of this list's.
pub(crate) fn invalid() -> crate::fault::Fault {
    bad("page: the cursor is not valid")
}

/// Reads the `limit` parameter of a list that gives so many rows at the most.
///
/// # Errors
/// 400 when it is not a number of rows that the list gives.
pub(crate) fn limit(query: &Query, most: u32) -> Result<u32> {
    Ok(query.number("limit", 1, most)?.unwrap_or(DEFAULT))
}

/// A page.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Box<RawValue>>,
    pub(crate) next_page: Option<String>,
}

/// A page of at most `limit` rows, as [`collect`] collects them, of a list that runs this way.
///
/// # Errors
/// Those of `fetch`.
pub(crate) async fn list<T, C, V, Fut>(
    order: Order,
    limit: u32,
    after: Option<C>,
    fetch: impl Fn(Option<C>, u32) -> Fut,
    view: impl Fn(&T) -> V,
    cursor: impl Fn(&T) -> C,
) -> Result<Json<Page>>
where
    C: ToString + Clone,
    V: Serialize,
    Fut: Future<Output = Result<oma_domain::page::Page<T, C>>>,
{
    let rows = collect(limit, after, fetch, view, cursor).await?;
    Ok(Json(Page {
        data: rows.rows,
        next_page: rows.next.map(|row| Cursor::after(row, order).to_text()),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_read_back(row in "\\PC{0,40}", descending: bool, before: bool) {
            let cursor = Cursor { descending, before, row };
            prop_assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        }

        #[test]
        fn other_texts_are_refused(text in "(page_)?\\PC{0,40}") {
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert!(!cursor.row.is_empty() || text.len() > PREFIX.len());
            }
        }
    }
}
