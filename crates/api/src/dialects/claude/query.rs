//! Reading a request's query, in the ways in which the SDKs have written lists and ranges over time.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use oma_domain::Timestamp;
use oma_domain::page::Order;
use oma_engine::Span;

use super::body::bad;
use crate::fault::{Fault, Result};

/// A query's parameters. Those that nobody reads are ignored, such as `beta`.
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(Self::of(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    pub(super) fn of(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter that is there and not empty; the last one counts.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// A list: `x[]=a&x[]=b`, `x=a&x=b` or `x=a,b`.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let named = |key: &str| {
            key.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest == "[]")
        };
        let values = self.0.iter().filter(|(key, _)| named(key));
        let items = values.flat_map(|(_, value)| value.split(','));
        items.filter(|item| !item.is_empty()).collect()
    }

    /// A truth value, false when it is absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("{name}: must be true or false"))),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str, min: u32, max: u32) -> Result<Option<u32>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse::<u32>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(bad(format!("{name}: must be a whole number from {min} to {max}"))),
        }
    }

    /// Which way a list runs.
    pub(crate) fn order(&self, unless_given: Order) -> Result<Order> {
        match self.get("order") {
            None => Ok(unless_given),
            Some("asc") => Ok(Order::Ascending),
            Some("desc") => Ok(Order::Descending),
            Some(_) => Err(bad("order: must be asc or desc")),
        }
    }

    /// The span of time that `created_at[gt]` and its like describe, in whole milliseconds: the precision that times
    /// are stored in.
    ///
    /// # Errors
    /// 400 for what is no time, and for an operator that there is not: a filter that is ignored gives a wrong list.
    pub(crate) fn created(&self) -> Result<Span> {
        let operators = self
            .0
            .iter()
            .filter_map(|(key, _)| key.strip_prefix("created_at["));
        for operator in operators {
            if !matches!(operator, "gt]" | "gte]" | "lt]" | "lte]") {
                return Err(bad("created_at: the operator must be gt, gte, lt or lte"));
            }
        }
        let time = |operator: &str| -> Result<Option<(i64, bool)>> {
            let name = format!("created_at[{operator}]");
            let Some(text) = self.get(&name) else {
                return Ok(None);
            };
            let instant: jiff::Timestamp = text
                .parse()
                .map_err(|_| bad(format!("{name}: must be a time as in RFC 3339")))?;
            let nanos = instant.as_nanosecond();
            let millis = i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX);
            // Whether it is a whole millisecond.
            Ok(Some((millis, nanos.rem_euclid(1_000_000) == 0)))
        };
        let after = |(millis, _)| millis + 1;
        let not_before = |(millis, whole)| if whole { millis } else { millis + 1 };
        let before = |(millis, whole)| if whole { millis - 1 } else { millis };
        let not_after = |(millis, _)| millis;
        let from = [time("gt")?.map(after), time("gte")?.map(not_before)];
        let until = [time("lt")?.map(before), time("lte")?.map(not_after)];
        Ok(Span {
            from: from.into_iter().flatten().max().map(Timestamp),
            until: until.into_iter().flatten().min().map(Timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_three_ways() {
        for query in [
            "s%5B%5D=a&s%5B%5D=b",
            "s[]=a&s[]=b",
            "s=a&s=b",
            "s=a,b",
            "beta=true&s=a,,b&sx=c",
        ] {
            assert_eq!(Query::of(query).list("s"), ["a", "b"], "{query}");
        }
    }

    #[test]
    fn spans_are_exact() {
        let at = "2026-11-24T06:30:23.354";
        let base = 1_795_501_823_354;
        for (operator, digits, from, until) in [
            ("gte", "", Some(base), None),
            ("gte", "184", Some(base + 1), None),
            ("gt", "", Some(base + 1), None),
            ("gt", "184", Some(base + 1), None),
            ("lte", "184", None, Some(base)),
            ("lt", "", None, Some(base - 1)),
            ("lt", "184", None, Some(base)),
        ] {
            let query = format!("created_at%5B{operator}%5D={at}{digits}%2B00:00");
            let span = Query::of(&query).created().expect("a time");
            let ends = (
                span.from.map(Timestamp::as_millis),
                span.until.map(Timestamp::as_millis),
            );
            assert_eq!(ends, (from, until), "{query}");
        }
        for wrong in [
            "created_at[gt]=yesterday",
            "created_at[near]=2026-11-24",
            "created_at[]=2026-11-24",
        ] {
            assert!(Query::of(wrong).created().is_err(), "{wrong}");
        }
        assert_eq!(Query::of("").created().expect("nothing"), Span::default());
    }

    #[test]
    fn numbers_and_flags() {
        let query = Query::of("limit=5&much=101&none=0&odd=x&on=true&off=false");
        assert_eq!(query.number("limit", 1, 100), Ok(Some(5)));
        assert_eq!(query.number("absent", 1, 100), Ok(None));
        for name in ["much", "none", "odd"] {
            assert!(query.number(name, 1, 100).is_err(), "{name}");
        }
        assert_eq!(
            (query.flag("on"), query.flag("off"), query.flag("gone")),
            (Ok(true), Ok(false), Ok(false))
        );
        assert!(query.flag("odd").is_err());
    }
}
