//! Lists, of which the server gives a page at a time.

use serde_json::Value;

use super::{Client, Error, Request};

/// The most rows that the server gives at a time.
const PAGE: u64 = 500;

/// The part of a list that is wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Slice {
    /// At most this many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Only what comes after this: the cursor that the list before ended with
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

impl Slice {
    /// Everything.
    #[must_use]
    pub(crate) fn whole() -> Self {
        Self {
            limit: u64::MAX,
            after: None,
        }
    }
}

impl Client {
    /// Reads a part of a list, page by page, and returns it in the shape of one page: `next` is the cursor behind its
    /// last row when there are more.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn list(
        &self,
        path: &[&str],
        field: &str,
        query: &[(&str, String)],
        slice: &Slice,
    ) -> Result<Value, Error> {
        let mut rows: Vec<Value> = Vec::new();
        let mut after = slice.after.clone();
        let mut first: Option<Value> = None;
        let mut missing = slice.limit;
        while missing > 0 {
            let mut request = Request::get(path).query("limit", missing.min(PAGE).to_string());
            for (name, value) in query {
                request = request.query(name, value.clone());
            }
            if let Some(after) = &after {
                request = request.query("after", after.clone());
            }
            let mut page = self.json(request).await?;
            let Some(Value::Array(found)) = page.get_mut(field).map(Value::take) else {
                return Err(Error::Protocol(format!("the answer has no list `{field}`")));
            };
            let none_found = found.is_empty();
            missing = missing.saturating_sub(found.len() as u64);
            rows.extend(found);
            let next = match &page["next"] {
                Value::String(next) => Some(next.clone()),
                Value::Number(next) => Some(next.to_string()),
                _ => None,
            };
            first.get_or_insert(page);
            // A cursor that does not move would never end.
            let is_stuck = none_found || next == after;
            after = next.filter(|_| !is_stuck);
            if after.is_none() {
                break;
            }
        }
        let mut whole = first.unwrap_or_else(|| serde_json::json!({}));
        whole["count"] = rows.len().into();
        whole[field] = Value::Array(rows);
        whole["has_more"] = after.is_some().into();
        whole["next"] = after.into();
        Ok(whole)
    }
}
