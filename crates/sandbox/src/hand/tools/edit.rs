//! The `edit` tool: exact replacement in a file.
//!
//! Invariant: what is not replaced keeps its bytes, also where they are not UTF-8; the mode and the line ends
//! of the file stay.

use std::borrow::Cow;
use std::io::Read as _;

use memchr::memmem;
use oma_domain::ContentBlock;

use super::FileResult;
use super::paths::Places;
use super::write::replace;
use crate::hand::limits::ToolLimits;
use crate::input;

/// Lines shown before and after the first replacement.
const CONTEXT: usize = 4;

/// Lines of a replacement that are shown.
const MAX_SHOWN: usize = 24;

/// Bytes of a line that are shown.
const MAX_LINE: usize = 500;

/// Line numbers that a message names.
const MAX_NAMED: usize = 8;

pub(super) fn run(places: &Places, limits: &ToolLimits, input: &input::Edit) -> FileResult {
    let path = places.resolve(&input.file_path);
    let shown = places.show(&path);
    let (file, metadata) = places.open(&path)?;
    if metadata.len() > limits.max_file {
        return Err(format!(
            "{shown} has {} bytes; at most {} can be edited. Use a command such as `sed -i`.",
            metadata.len(),
            limits.max_file
        ));
    }
    let mut before = Vec::new();
    file.take(limits.max_file)
        .read_to_end(&mut before)
        .map_err(|error| places.explain(&path, &error))?;
    let edited = edit(&before, &input.old_string, &input.new_string, input.replace_all)
        .map_err(|reason| format!("{shown} was not changed: {reason}"))?;
    replace(&path, &edited.bytes, Some(&metadata)).map_err(|error| places.explain(&path, &error))?;
    let times = match edited.count {
        1 => "1 replacement".to_owned(),
        count => format!("{count} replacements, the first of them shown"),
    };
    Ok(vec![ContentBlock::text(format!(
        "Edited {shown} ({times}):\n{}",
        excerpt(&edited)
    ))])
}

/// What an edit made.
#[derive(Debug, PartialEq, Eq)]
struct Edited {
    bytes: Vec<u8>,
    count: usize,
    /// Where the first replacement stands in `bytes`.
    first: std::ops::Range<usize>,
}

/// Replaces `old` by `new` in `text`: the only occurrence, or all of them.
fn edit(text: &[u8], old: &str, new: &str, all: bool) -> Result<Edited, String> {
    let (old, new) = with_line_ends_of(text, old, new);
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let places = if all {
        memmem::find_iter(text, old).collect()
    } else {
        overlapping(text, old)
    };
    if places.is_empty() {
        return Err(why_missing(text, old));
    }
    if !all && places.len() > 1 {
        let mut lines: Vec<String> = places
            .iter()
            .take(MAX_NAMED)
            .map(|at| line_of(text, *at).to_string())
            .collect();
        if places.len() > MAX_NAMED {
            lines.push("…".to_owned());
        }
        return Err(format!(
            "old_string occurs {} times, at lines {}. Add lines around it to make it unique, or set replace_all.",
            places.len(),
            lines.join(", ")
        ));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut done = 0;
    for at in &places {
        bytes.extend_from_slice(&text[done..*at]);
        bytes.extend_from_slice(new);
        done = at + old.len();
    }
    bytes.extend_from_slice(&text[done..]);
    let first = places[0];
    Ok(Edited {
        bytes,
        count: places.len(),
        first: first..first + new.len(),
    })
}

/// Every place where `old` begins, also where two of them overlap: an edit of one of those would be a guess.
fn overlapping(text: &[u8], old: &[u8]) -> Vec<usize> {
    let finder = memmem::Finder::new(old);
    let mut places = Vec::new();
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| finder.find(rest)) {
        places.push(from + at);
        from += at + 1;
    }
    places
}

/// Models write `\n`. In a file whose lines end with `\r\n` they mean that.
fn with_line_ends_of<'a>(text: &[u8], old: &'a str, new: &'a str) -> (Cow<'a, str>, Cow<'a, str>) {
    let windows = memmem::find_iter(text, b"\r\n").count();
    let all = memchr::memchr_iter(b'\n', text).count();
    let mixed = old.contains("\r\n") || new.contains("\r\n");
    if windows * 2 <= all || mixed {
        return (old.into(), new.into());
    }
    let converted = old.replace('\n', "\r\n");
    // In a file with both kinds the text may stand where the lines end the other way.
    if memmem::find(text, converted.as_bytes()).is_none() && memmem::find(text, old.as_bytes()).is_some() {
        return (old.into(), new.into());
    }
    (converted.into(), new.replace('\n', "\r\n").into())
}

/// The number of the line that the offset is in, from 1.
fn line_of(text: &[u8], offset: usize) -> usize {
    memchr::memchr_iter(b'\n', &text[..offset]).count() + 1
}

/// Tells the model what is most likely wrong with a text that does not occur.
fn why_missing(text: &[u8], old: &[u8]) -> String {
    let (text, old) = (String::from_utf8_lossy(text), String::from_utf8_lossy(old));
    let wanted: Vec<&str> = old.lines().collect();
    let numbered = |line: &&str| {
        let digits = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < line.trim_start().len() && digits.starts_with('\t')
    };
    if !wanted.is_empty() && wanted.iter().all(numbered) {
        return "old_string does not occur. It seems to have the line numbers that `read` shows; leave them out."
            .to_owned();
    }
    let lines: Vec<&str> = text.lines().collect();
    let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
    let blank = wanted.iter().all(|line| line.trim().is_empty());
    if !blank && wanted.len() <= lines.len() {
        let alike = lines
            .windows(wanted.len())
            .position(|window| window.iter().zip(&wanted).all(|(line, want)| same(line, want)));
        if let Some(at) = alike {
            return format!(
                "old_string does not occur. Lines {} to {} differ from it only in white space; read them again.",
                at + 1,
                at + wanted.len()
            );
        }
    }
    let first = wanted.iter().find(|line| !line.trim().is_empty());
    if let Some(first) = first
        && wanted.len() > 1
        && let Some(at) = lines.iter().position(|line| same(line, first))
    {
        return format!(
            "old_string does not occur. Its first line is at line {}, but what follows there is different.",
            at + 1
        );
    }
    "old_string does not occur. It has to be exactly as in the file, white space included; read the file again."
        .to_owned()
}

/// The first replacement with some lines around it, numbered as `read` does.
fn excerpt(edited: &Edited) -> String {
    let text = &edited.bytes;
    let first = line_of(text, edited.first.start);
    let last = line_of(text, edited.first.end).min(first + MAX_SHOWN);
    let start = first.saturating_sub(CONTEXT).max(1);
    let mut out = String::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate().skip(start - 1) {
        let number = index + 1;
        if number > last + CONTEXT {
            break;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let shown = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]);
        let cut = if line.len() > MAX_LINE { "…" } else { "" };
        out.push_str(&format!("{number:>6}\t{shown}{cut}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_domain::content::joined_text;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces() {
        for (text, old, new, all, expected) in [
            (&b"a b c"[..], "b", "x", false, &b"a x c"[..]),
            (b"a b c", "b ", "", false, b"a c"),
            (b"a a a", "a", "bb", true, b"bb bb bb"),
            (b"aaa", "aa", "b", true, b"ba"),
            (b"\xff b \xfe", "b", "\u{e9}", false, b"\xff \xc3\xa9 \xfe"),
            (
                b"a\r\nb\r\nc\r\n",
                "a\nb",
                "x\ny\nz",
                false,
                b"x\r\ny\r\nz\r\nc\r\n",
            ),
            (b"a\r\nb\r\n", "a\r\nb", "x\ny", false, b"x\ny\r\n"),
            (
                b"a\r\nb\r\nc\nd\r\n",
                "c\nd",
                "e\nf",
                false,
                b"a\r\nb\r\ne\nf\r\n",
            ),
            (b"a\nb\r\nc\n", "a\nb", "x\ny", false, b"x\ny\r\nc\n"),
        ] {
            let edited = edit(text, old, new, all).unwrap();
            assert_eq!(edited.bytes, expected, "{text:?} {old:?}");
        }
    }

    #[test]
    fn refusals_help() {
        for (text, old, expected) in [
            ("a b a\na", "a", "occurs 3 times, at lines 1, 1, 2. Add lines"),
            ("aaa", "aa", "occurs 2 times"),
            (
                &"x\n".repeat(20),
                "x",
                "occurs 20 times, at lines 1, 2, 3, 4, 5, 6, 7, 8, …",
            ),
            (
                "fn a() {\n\tb();\n}\n",
                "fn a() {\n    b();\n}",
                "Lines 1 to 3 differ from it only in white space",
            ),
            ("one\ntwo\nthree\n", "two\nfour", "first line is at line 2"),
            (
                "one\ntwo\n",
                "     1\tone\n     2\ttwo",
                "line numbers that `read` shows",
            ),
            ("one\n", "two", "exactly as in the file"),
            ("", "two", "exactly as in the file"),
            ("a\n\nb", " \n \n \n \n", "exactly as in the file"),
        ] {
            let error = edit(text.as_bytes(), old, "new", false).unwrap_err();
            assert!(error.contains(expected), "{old:?}: {error}");
        }
    }

    #[test]
    fn a_file_keeps_its_mode_and_the_model_sees_the_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.sh");
        std::fs::write(&file, (1..=20).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let places = Places::new(folder.path().to_owned());
        let mut input = input::Edit {
            file_path: "f.sh".to_owned(),
            old_string: "line 10\n".to_owned(),
            new_string: "ten\nand a half\n".to_owned(),
            replace_all: false,
        };
        let text = joined_text(&run(&places, &ToolLimits::default(), &input).unwrap());
        assert!(
            text.starts_with("Edited f.sh (1 replacement):\n     6\tline 6\n"),
            "{text}"
        );
        assert!(
            text.contains("    10\tten\n    11\tand a half\n    12\tline 11\n"),
            "{text}"
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o755);

        input.old_string = "missing".to_owned();
        let error = run(&places, &ToolLimits::default(), &input).unwrap_err();
        assert!(
            error.starts_with("f.sh was not changed: old_string does not occur."),
            "{error}"
        );
        let small = ToolLimits {
            max_file: 5,
            ..ToolLimits::default()
        };
        assert!(
            run(&places, &small, &input)
                .unwrap_err()
                .contains("at most 5 can be edited")
        );
    }

    proptest! {
        #[test]
        fn only_the_match_changes(before in "[a-c\r\n]{0,30}", after in "[a-c\r\n]{0,30}", old in "[X-Z]{1,5}", new in "[a-z\n]{0,8}") {
            let text = format!("{before}{old}{after}");
            let edited = edit(text.as_bytes(), &old, &new, false).unwrap();
            prop_assert!(edited.bytes.starts_with(before.as_bytes()));
            prop_assert!(edited.bytes.ends_with(after.as_bytes()));
            let middle = &edited.bytes[edited.first.clone()];
            prop_assert_eq!(std::str::from_utf8(middle).unwrap().replace("\r\n", "\n"), new);
        }

        #[test]
        fn there_and_back(text in "[ab\n]{0,40}", old in "[ab]{1,3}") {
            // A replacement that occurs nowhere else can be taken back.
            if let Ok(edited) = edit(text.as_bytes(), &old, "Q", true) {
                let back = edit(&edited.bytes, "Q", &old, true).unwrap();
                prop_assert_eq!(back.bytes, text.into_bytes());
                prop_assert_eq!(back.count, edited.count);
            }
        }

        #[test]
        fn nothing_breaks_it(text in prop::collection::vec(any::<u8>(), 0..60), old in "\\PC{1,4}", new in "\\PC{0,4}", all: bool) {
            if let Ok(edited) = edit(&text, &old, &new, all) {
                prop_assert!(all || edited.count == 1);
                excerpt(&edited);
            }
        }
    }
}
