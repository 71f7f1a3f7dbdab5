//! A way in for the fuzz targets and the property tests.

use oma_domain::page::Order;

use super::page::Cursor;
use super::query::Query;

/// Reads a query in all the ways in which routes of this dialect do; the cursor in it, if there is one.
///
/// # Panics
/// When what comes out of it is nothing that may come out of it.
pub fn read_query(query: &str) -> Option<String> {
    let query = Query::of(query);
    for name in ["types", "statuses", "created_at", ""] {
        assert!(
            query
                .list(name)
                .iter()
                .all(|item| !item.is_empty() && !item.contains(','))
        );
    }
    if let Ok(Some(number)) = query.number("limit", 1, 100) {
        assert!((1..=100).contains(&number));
    }
    if let Ok(created) = query.created() {
        let widest = jiff::Timestamp::MAX.as_millisecond() + 1;
        let times = [created.from, created.until];
        assert!(
            times
                .into_iter()
                .flatten()
                .all(|at| at.as_millis().abs() <= widest)
        );
    }
    // Flags and orders are one of their words or refused.
    assert!(query.flag("include_archived").is_ok() || query.get("include_archived").is_some());
    let order = query.order(Order::Descending).unwrap_or(Order::Ascending);
    let cursor = Cursor::read(&query, order).ok().flatten()?;
    assert_eq!(
        cursor.descending,
        order == Order::Descending,
        "a cursor of the other order"
    );
    let text = cursor.to_text();
    let again = Query::of(&format!(
        "order={}&page={text}",
        if cursor.descending { "desc" } else { "asc" }
    ));
    let read = Cursor::read(&again, order).ok().flatten();
    assert_eq!(read.as_ref(), Some(&cursor), "what was written is read");
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in "((limit|order|page|types(\\[\\])?|created_at\\[(gte?|lt)\\])=(asc|desc|page_)?\\PC{0,30}&){0,5}") {
            read_query(&query);
        }
    }

    #[test]
    fn a_cursor_is_found() {
        let cursor = Cursor::after("ses_1", Order::Ascending).to_text();
        assert_eq!(
            read_query(&format!("order=asc&limit=3&page={cursor}")),
            Some(cursor.clone())
        );
        assert_eq!(
            read_query(&format!("page={cursor}")),
            None,
            "of a list in another order"
        );
    }
}
