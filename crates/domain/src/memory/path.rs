//! Paths of memories: what may name one, and what clashes with what.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::is_nfc;

/// The longest path, in bytes.
pub const MAX_BYTES: usize = 1024;
/// The most segments of a path.
pub const MAX_SEGMENTS: usize = 20;
/// The longest segment, in bytes: what a file system takes as the name of a file.
pub const MAX_SEGMENT_BYTES: usize = 255;

/// Why a text is no path of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It does not begin with a slash.
    #[error("must start with '/'")]
    Relative,
    /// It is too long.
    #[error("must have at most {MAX_BYTES} bytes")]
    TooLong,
    /// It is too deep.
    #[error("must have at most {MAX_SEGMENTS} segments")]
    TooDeep,
    /// Nothing stands between two slashes, or at the end.
    #[error("must have no empty segment")]
    EmptySegment,
    /// A segment stands for a folder itself, or for the one above it.
    #[error("must have no segment '.' or '..'")]
    Dots,
    /// A segment could not be the name of a file.
    #[error("must have no segment of more than {MAX_SEGMENT_BYTES} bytes")]
    LongSegment,
    /// It has a character that nobody sees.
    #[error("must have no control or format characters, nor line or paragraph separators")]
    Invisible,
    /// It is one of several spellings of the same characters, and not the canonical one.
    #[error("must be in Unicode Normalization Form C")]
    NotNormal,
}

/// The path of a memory in its store, such as `/projects/notes.md`. Upper and lower case count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

impl Path {
    /// Accepts a path that came from outside.
    ///
    /// # Errors
    /// [`Invalid`], with the first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let rest = text.strip_prefix('/').ok_or(Invalid::Relative)?;
        check(text, rest)?;
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the top to the memory; there is at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    /// The paths of the folders that it is in, the deepest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.rmatch_indices('/').map(|(index, _)| index);
        ends.filter(|end| *end > 0).map(|end| &self.0[..end])
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Path {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

/// What the paths of a list begin with: a folder, with the slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Default for Prefix {
    /// The whole store.
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl Prefix {
    /// Accepts a prefix that came from outside.
    ///
    /// # Errors
    /// A text for people with what is wrong about it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "/" {
            return Ok(Self::default());
        }
        let folder = text.strip_suffix('/').ok_or("must end with '/'")?;
        Path::parse(folder).map_err(|invalid| invalid.to_string())?;
        Ok(Self(text.to_owned()))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a path whose part after the first slash is `rest`.
fn check(text: &str, rest: &str) -> Result<(), Invalid> {
    if text.len() > MAX_BYTES {
        return Err(Invalid::TooLong);
    }
    let mut depth = 0;
    for segment in rest.split('/') {
        depth += 1;
        match segment {
            "" => return Err(Invalid::EmptySegment),
            "." | ".." => return Err(Invalid::Dots),
            _ if segment.len() > MAX_SEGMENT_BYTES => return Err(Invalid::LongSegment),
            _ => {}
        }
    }
    if depth > MAX_SEGMENTS {
        return Err(Invalid::TooDeep);
    }
    if text.chars().any(is_invisible) {
        return Err(Invalid::Invisible);
    }
    if !is_nfc(text) {
        return Err(Invalid::NotNormal);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules() {
        let deep = "/a".repeat(MAX_SEGMENTS);
        let long = format!("/{}", "a".repeat(MAX_SEGMENT_BYTES));
        for text in ["/a", "/notes/ä.md", "/…/ .hidden", "/a b", &deep, &long] {
            assert_eq!(Path::parse(text).map(String::from), Ok(text.to_owned()), "{text}");
        }
        let wide = format!("/{}", ["ä".repeat(100).as_str()].repeat(6).join("/"));
        for (text, problem) in [
            ("", Invalid::Relative),
            ("a", Invalid::Relative),
            ("/", Invalid::EmptySegment),
            ("/a/", Invalid::EmptySegment),
            ("//a", Invalid::EmptySegment),
            ("/./a", Invalid::Dots),
            ("/a/..", Invalid::Dots),
            ("/a\0", Invalid::Invisible),
            ("/a\u{200b}", Invalid::Invisible),
            ("/a\u{202e}b", Invalid::Invisible),
            ("/a\u{2028}b", Invalid::Invisible),
            ("/e\u{301}", Invalid::NotNormal),
            (&format!("{deep}/a"), Invalid::TooDeep),
            (&format!("{long}a"), Invalid::LongSegment),
            (&wide, Invalid::TooLong),
        ] {
            assert_eq!(Path::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn parts() {
        let path = Path::parse("/a/b/c").expect("a path");
        assert_eq!(path.segments().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["/a/b", "/a"]);
        assert_eq!(Path::parse("/a").expect("a path").ancestors().count(), 0);
    }

    #[test]
    fn prefixes() {
        for text in ["/", "/a/", "/a/b/"] {
            assert_eq!(Prefix::parse(text).expect("a prefix").as_str(), text);
        }
        for text in ["", "a/", "/a", "//", "/../"] {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_to_one_place_below_its_root(text in "/?([a.äé/\\PC]{0,12}/?){0,24}") {
            if let Ok(path) = Path::parse(&text) {
                let count = path.segments().count();
                prop_assert!((1..=MAX_SEGMENTS).contains(&count));
                prop_assert!(path.segments().all(|name| !matches!(name, "" | "." | "..") && !name.contains('/')));
                let joined: String = path.segments().map(|name| format!("/{name}")).collect();
                prop_assert_eq!(joined.as_str(), path.as_str());
                prop_assert!(path.ancestors().all(|above| Path::parse(above).is_ok()));
                prop_assert_eq!(path.ancestors().count(), count - 1);
            }
        }
    }
}
