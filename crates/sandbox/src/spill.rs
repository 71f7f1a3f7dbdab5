//! Results that are too long for the model: they go whole to a file of the workspace, and the model gets the
//! beginning, the end and the file's path. Used by the hand for the tools in the sandbox, and by the runtime
//! for those on the server.

use oma_domain::EventId;

/// The folder that long results go to, from the workspace's root.
pub const FOLDER: &str = ".oma/results";

/// Characters of each end that a preview shows; fewer when less than this may be shown inline.
const PREVIEW_CHARS: usize = 5_000;

/// The file that the result of the call goes to, from the workspace's root. Ids have no `/` or `.` in them, so
/// this is always a file directly in [`FOLDER`].
#[must_use]
pub fn path(key: &EventId) -> String {
    format!("{FOLDER}/{key}.txt")
}

/// Whether a text is too long to be shown whole, where `inline` characters may be.
#[must_use]
pub fn is_too_long(text: &str, inline: usize) -> bool {
    // A text has at most as many characters as bytes, which settles nearly all cases without a count.
    text.len() > inline && text.chars().nth(inline).is_some()
}

/// Where a long result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept<'a> {
    /// Whole in the file of this path.
    At(&'a str),
    /// Nowhere, for this reason.
    Lost(&'a str),
}

/// The beginning and the end of a text, with a remark between them on how much is left out and where it is.
/// The remark aside, this has at most `inline` characters.
#[must_use]
pub fn preview(text: &str, inline: usize, kept: Kept<'_>) -> String {
    let total = text.chars().count();
    let side = PREVIEW_CHARS.min(inline / 2);
    let head = head(text, side);
    let tail = tail(&text[head.len()..], side);
    let left_out = total - head.chars().count() - tail.chars().count();
    let place = match kept {
        Kept::At(path) => format!(
            "The whole result is in {path}: read it with `read` and a view_range, or search it with `grep`."
        ),
        Kept::Lost(reason) => format!("The whole result could not be kept: {reason}."),
    };
    let line_break = if head.ends_with('\n') || head.is_empty() {
        ""
    } else {
        "\n"
    };
    format!("{head}{line_break}\n[{left_out} of {total} characters are left out here. {place}]\n\n{tail}")
}

/// At most `chars` characters from the start, ending with a whole line if one ends in the last quarter.
fn head(text: &str, chars: usize) -> &str {
    let end = text
        .char_indices()
        .nth(chars)
        .map_or(text.len(), |(index, _)| index);
    let cut = &text[..end];
    match cut.rfind('\n') {
        Some(at) if at + 1 >= end - end / 4 => &cut[..=at],
        _ => cut,
    }
}

/// At most `chars` characters from the end, beginning with a whole line if one begins in the first quarter.
fn tail(text: &str, chars: usize) -> &str {
    if chars == 0 {
        return "";
    }
    let start = text
        .char_indices()
        .rev()
        .nth(chars - 1)
        .map_or(0, |(index, _)| index);
    let cut = &text[start..];
    match cut.find('\n') {
        Some(at) if start > 0 && at < cut.len() / 4 => &cut[at + 1..],
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_is_counted_in_characters() {
        for (text, inline, expected) in [
            ("", 0, false),
            ("a", 0, true),
            ("ééé", 3, false),
            ("éééé", 3, true),
            ("abc", 5, false),
        ] {
            assert_eq!(is_too_long(text, inline), expected, "{text} {inline}");
        }
    }

    #[test]
    fn a_preview_has_both_ends_and_the_path() {
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        let key = EventId::generate();
        let preview = preview(&text, 30_000, Kept::At(&path(&key)));
        assert!(preview.starts_with("line 0\n"), "{preview}");
        assert!(preview.ends_with("line 9999\n"), "{preview}");
        assert!(preview.contains(&format!(".oma/results/{key}.txt")), "{preview}");
        let lines = preview.lines().filter(|line| line.starts_with("line ")).count();
        let chars: usize = preview
            .lines()
            .filter(|l| l.starts_with("line "))
            .map(|l| l.len() + 1)
            .sum();
        assert!(
            preview.contains(&format!("[{} of {} characters", text.len() - chars, text.len())),
            "{lines}"
        );
    }

    proptest! {
        #[test]
        fn previews_are_bounded_and_made_of_the_text(text in "[a-zé😀\n]{0,400}", inline in 0_usize..100) {
            let preview = preview(&text, inline, Kept::Lost("?"));
            let (front, back) = preview.split_once("\n[").unwrap();
            let (_, back) = back.rsplit_once("]\n\n").unwrap_or(("", ""));
            prop_assert!(front.chars().count() <= inline / 2 + 1);
            prop_assert!(back.chars().count() <= inline / 2);
            prop_assert!(text.starts_with(front) || text.starts_with(front.trim_end_matches('\n')));
            prop_assert!(text.ends_with(back));
        }
    }
}
