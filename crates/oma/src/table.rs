//! Small text tables and lists of facts for people.

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::print::plain;

/// The widest that a cell gets, in columns; longer text is cut.
const MAX_CELL: usize = 48;

/// The table of a list: a row for each value of one of its fields.
#[must_use]
pub(crate) fn list_table(
    list: &Value,
    field: &str,
    heading: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> String {
    let rows: Vec<Vec<String>> = list[field].as_array().into_iter().flatten().map(row).collect();
    table(heading, &rows)
}

/// A table with a heading, columns aligned to the left, two spaces between them.
#[must_use]
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| clip(cell, MAX_CELL)).collect())
        .collect();
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.width()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let heading: Vec<String> = heading.iter().map(|cell| cell.to_uppercase()).collect();
    std::iter::once(&heading)
        .chain(&rows)
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
            }
            line.trim_end().to_owned() + "\n"
        })
        .collect()
}

/// Facts, one a line, the values aligned.
#[must_use]
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    facts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let value = plain(value);
            let indented = value.trim_end().replace('\n', &format!("\n{:width$}  ", ""));
            format!("{name}{:pad$}  {indented}\n", "", pad = width - name.width())
        })
        .collect()
}

/// Text on one line, cut to a width.
#[must_use]
pub(crate) fn clip(text: &str, max: usize) -> String {
    use unicode_width::UnicodeWidthChar as _;

    let flat = plain(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.width() <= max {
        return flat;
    }
    let mut clipped = String::new();
    let mut width = 0;
    for char in flat.chars() {
        width += char.width().unwrap_or(0);
        if width >= max {
            break;
        }
        clipped.push(char);
    }
    clipped + "…"
}

/// A field of an object as text: `-` when there is none.
#[must_use]
pub(crate) fn cell(value: &Value, field: &str) -> String {
    text(&value[field]).unwrap_or_else(|| "-".to_owned())
}

/// A field of an object as text: empty when there is none.
#[must_use]
pub(crate) fn fact(value: &Value, field: &str) -> String {
    text(&value[field]).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(fields) if fields.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_string) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        ),
        other => Some(other.to_string()),
    }
}

/// A field with milliseconds since the epoch as a date and time in UTC.
#[must_use]
pub(crate) fn time(value: &Value, field: &str) -> String {
    value[field]
        .as_i64()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(
            || "-".to_owned(),
            |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        )
}

/// A field with US dollars; `-` when the cost is unknown.
#[must_use]
pub(crate) fn dollars(value: &Value, field: &str) -> String {
    value[field]
        .as_f64()
        .map_or_else(|| "-".to_owned(), |cost| format!("${cost:.4}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_align_by_what_is_seen() {
        let rows = [
            vec!["agt_1".to_owned(), "größe".to_owned()],
            vec!["日本".to_owned(), "x\x1b[31m\ny".to_owned()],
        ];
        insta::assert_snapshot!(table(&["id", "name"], &rows), @r"
        ID     NAME
        agt_1  größe
        日本   x�[31m y
        ");
    }

    #[test]
    fn long_cells_are_cut() {
        let long = "wide ".repeat(40);
        let clipped = clip(&long, 20);
        assert!(clipped.width() <= 20 && clipped.ends_with('…'), "{clipped}");
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        let value =
            json!({"n": null, "s": "text", "e": [], "l": ["a", "b"], "o": {"a": 1}, "t": 0, "c": 0.5});
        for (field, shown) in [
            ("n", "-"),
            ("s", "text"),
            ("e", "-"),
            ("l", "a, b"),
            ("o", r#"{"a":1}"#),
        ] {
            assert_eq!(cell(&value, field), shown);
        }
        assert_eq!(time(&value, "t"), "1970-01-01 00:00:00Z");
        assert_eq!(dollars(&value, "c"), "$0.5000");
        assert_eq!(dollars(&value, "n"), "-");
    }
}
