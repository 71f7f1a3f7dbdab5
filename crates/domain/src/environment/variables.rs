//! Variables that environments set for every command.

/// The most variables of an environment.
pub const MOST: usize = 128;

/// The longest name and the longest value, in bytes, and the most of all of them together.
pub const MAX_NAME: usize = 256;
/// See [`MAX_NAME`].
pub const MAX_VALUE: usize = 32 << 10;
/// See [`MAX_NAME`].
pub const MAX_ALL: usize = 128 << 10;

/// What the platform sets itself, because sandboxes work by it: who the session's user is, where its files lie, and
/// the way out.
const OURS: [&str; 13] = [
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "PWD",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "NODE_USE_ENV_PROXY",
];

/// What is wrong with this as the name of a variable that an environment sets; `None` when nothing is.
#[must_use]
pub fn refuses(name: &str) -> Option<&'static str> {
    let is_start = |first: char| first.is_ascii_alphabetic() || first == '_';
    let is_legal = name.len() <= MAX_NAME
        && name.starts_with(is_start)
        && name
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || each == '_');
    if !is_legal {
        return Some("Must be a name of letters, digits and underscores that begins with no digit");
    }
    OURS.contains(&name).then_some("Is set by the platform")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_not_ours() {
        for name in ["A", "_x", "PATH", "RUST_LOG", "a1"] {
            assert_eq!(refuses(name), None, "{name}");
        }
        for name in [
            "",
            "1a",
            "a-b",
            "a=b",
            "a b",
            "HOME",
            "https_proxy",
            "é",
            &*"x".repeat(257),
        ] {
            assert!(refuses(name).is_some(), "{name}");
        }
    }
}
