//! Names of files within a skill.

use unicode_general_category::{GeneralCategory, get_general_category};

use crate::Error;

/// The longest name, in bytes.
const MAX_BYTES: usize = 1_024;
/// The longest segment of a name, in bytes: what a file system takes.
const MAX_SEGMENT_BYTES: usize = 255;
/// The most segments of a name, with the folder.
const MAX_SEGMENTS: usize = 20;
/// How much of a name messages repeat, in characters.
const SHOWN: usize = 200;

/// Splits a name into the top folder and the rest.
pub(crate) fn split(name: &str) -> Result<(&str, &str), Error> {
    check(name)?;
    name.split_once('/').ok_or_else(|| Error::Folder(shown(name)))
}

/// Checks a name such as `my-skill/scripts/run.sh`.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let refuse = |problem| {
        Err(Error::Name {
            name: shown(name),
            problem,
        })
    };
    if name.len() > MAX_BYTES {
        return refuse("the name is too long");
    }
    if name.contains('\\') {
        return refuse("the name must not contain backslashes");
    }
    if name.chars().any(is_invisible) {
        return refuse("the name must not contain control or format characters");
    }
    let mut depth = 0;
    for segment in name.split('/') {
        depth += 1;
        match segment {
            "" => return refuse("the name must not begin or end with '/', nor have two of them in a row"),
            "." | ".." => return refuse("the name must not contain '.' or '..' as a folder"),
            _ if segment.len() > MAX_SEGMENT_BYTES => return refuse("a part of the name is too long"),
            _ => {}
        }
    }
    if depth > MAX_SEGMENTS {
        return refuse("the name has too many folders");
    }
    Ok(())
}

/// The name as a message repeats it.
pub(crate) fn shown(name: &str) -> String {
    let visible = name.chars().map(|c| if is_invisible(c) { '\u{fffd}' } else { c });
    visible.take(SHOWN).collect()
}

fn is_invisible(character: char) -> bool {
    matches!(
        get_general_category(character),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}
