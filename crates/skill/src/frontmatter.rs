//! The beginning of `SKILL.md`: YAML between two lines of three hyphens, with a name and a description.

use serde::Deserialize;

use crate::Error;

/// The longest frontmatter, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// The longest name, in characters.
const NAME: usize = 64;
/// The longest description, in characters.
const DESCRIPTION: usize = 1_024;
/// How much of the parser's words a message repeats, in characters.
const SHOWN: usize = 300;

/// What a skill says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontmatter {
    /// Its name: lower case, digits and hyphens.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
}

/// As it is written. Other fields are for other readers.
#[derive(Deserialize)]
struct Raw {
    name: Option<String>,
    description: Option<String>,
}

impl Frontmatter {
    /// Reads the beginning of a `SKILL.md`.
    ///
    /// # Errors
    /// [`Error::Frontmatter`].
    pub fn parse(main: &[u8]) -> Result<Self, Error> {
        let yaml = cut(main)?;
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|error| {
            let problem: String = error.to_string().chars().take(SHOWN).collect();
            refused(format!("the frontmatter is not valid YAML: {problem}"))
        })?;
        let name = raw.name.unwrap_or_default();
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NAME || !name.bytes().all(legal) {
            return Err(refused(format!(
                "name must be 1 to {NAME} lowercase letters, digits and hyphens"
            )));
        }
        let description = raw.description.unwrap_or_default().trim().to_owned();
        if description.is_empty() || description.chars().count() > DESCRIPTION {
            return Err(refused(format!(
                "description must have 1 to {DESCRIPTION} characters"
            )));
        }
        if has_tag(&description) {
            return Err(refused("description must not contain XML tags"));
        }
        if description.contains('\0') {
            return Err(refused("description must not contain NUL characters"));
        }
        Ok(Self { name, description })
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::Frontmatter(problem.into())
}

/// The YAML between the two lines.
fn cut(main: &[u8]) -> Result<&str, Error> {
    let absent = || refused("it must begin with frontmatter between two lines of '---'");
    let main = main.strip_prefix(b"\xef\xbb\xbf").unwrap_or(main);
    let body = main
        .strip_prefix(b"---\n")
        .or_else(|| main.strip_prefix(b"---\r\n"))
        .ok_or_else(absent)?;
    let mut end = 0;
    for line in body.split_inclusive(|b| *b == b'\n') {
        if line.trim_ascii_end() == b"---" {
            let text = body.get(..end).unwrap_or_default();
            return std::str::from_utf8(text).map_err(|_| refused("the frontmatter is not valid UTF-8"));
        }
        end += line.len();
        if end > MAX_BYTES {
            return Err(refused(format!(
                "the frontmatter has more than {MAX_BYTES} bytes, or does not end"
            )));
        }
    }
    Err(absent())
}

/// Whether something in it looks like a tag: prompts are full of those.
fn has_tag(text: &str) -> bool {
    text.match_indices('<').any(|(start, _)| {
        let rest = text.get(start + 1..).unwrap_or_default();
        let begins = rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        begins && rest.contains('>')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_name_and_description() {
        for text in [
            "---\nname: pdf-tools\ndescription: Fills forms\n---\n# Hi",
            "\u{feff}---\r\nname: pdf-tools\r\ndescription: Fills forms\r\nlicense: MIT\r\n---\r\n",
            "---\nmetadata:\n  a: [1, 2]\nname: 'pdf-tools'\ndescription: >\n  Fills\n  forms\n---",
        ] {
            let found = Frontmatter::parse(text.as_bytes()).expect(text);
            assert_eq!(
                (found.name.as_str(), found.description.as_str()),
                ("pdf-tools", "Fills forms")
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        let long = format!("---\nname: {}\ndescription: d\n---\n", "a".repeat(65));
        let wordy = format!("---\nname: a\ndescription: {}\n---\n", "d".repeat(1025));
        let endless = format!("---\nname: a\n{}", "# x\n".repeat(MAX_BYTES));
        for (text, problem) in [
            ("", "must begin"),
            ("# Hi", "must begin"),
            ("---\nname: a\ndescription: b\n", "must begin"),
            ("---\nname: a\n---\n", "description"),
            ("---\ndescription: a\n---\n", "name"),
            ("---\nname: My Skill\ndescription: d\n---\n", "name"),
            (&long, "name"),
            (&wordy, "description"),
            ("---\nname: a\ndescription: use <system>me</system>\n---\n", "XML"),
            ("---\nname: [a\ndescription: d\n---\n", "YAML"),
            ("---\nname: {a: b}\ndescription: d\n---\n", "YAML"),
            (&endless, "does not end"),
        ] {
            match Frontmatter::parse(text.as_bytes()) {
                Err(Error::Frontmatter(said)) => assert!(said.contains(problem), "{said}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(!has_tag("use it when x < 5 or y > 3"));
    }

    #[test]
    fn references_do_not_multiply() {
        let mut text = "---\na: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, before) in ["b", "c", "d", "e", "f", "g", "h", "i"]
            .iter()
            .zip("abcdefgh".chars())
        {
            let list = vec![format!("*{before}"); 9].join(",");
            text.push_str(&format!("{name}: &{name} [{list}]\n"));
        }
        text.push_str("name: a\ndescription: b\n---\n");
        // Refused, or read without making a billion of anything; either way it ends.
        let _either = Frontmatter::parse(text.as_bytes());
    }

    proptest! {
        #[test]
        fn what_is_read_is_short_and_plain(yaml in "(name: [a-z-]{0,80}\n|description: \\PC{0,60}\n|\\PC{0,20}\n){0,4}") {
            if let Ok(found) = Frontmatter::parse(format!("---\n{yaml}---\n").as_bytes()) {
                prop_assert!(!found.name.is_empty() && found.name.len() <= NAME);
                prop_assert!(!found.description.is_empty() && !has_tag(&found.description));
            }
        }

        #[test]
        fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"---\n".to_vec();
            text.extend(&bytes);
            text.extend(b"\n---\n");
            let _either = Frontmatter::parse(&text);
        }
    }
}
