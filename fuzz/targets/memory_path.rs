//! Paths and prefixes of memories, which come from clients and from the names of files in sandboxes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_domain::memory::{Path, Prefix, slug};

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::parse(text) {
        assert_eq!(path.as_str(), text);
        assert!(path.segments().all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0')));
        let joined: String = path.segments().map(|name| format!("/{name}")).collect();
        assert_eq!(joined, text, "it leads to one place below its root");
        assert!(path.ancestors().all(|above| Path::parse(above).is_ok()));
    }
    if let Ok(prefix) = Prefix::parse(text) {
        assert!(prefix.as_str().starts_with('/') && prefix.as_str().ends_with('/'));
    }
    let slug = slug(text);
    assert!(!slug.is_empty() && slug.len() <= 200);
    assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
});
