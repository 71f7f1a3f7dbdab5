//! The beginning of a skill's SKILL.md.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_skill::Frontmatter;

fuzz_target!(|bytes: &[u8]| {
    for main in [bytes.to_vec(), [b"---\n", bytes, b"\n---\n"].concat()] {
        if let Ok(found) = Frontmatter::parse(&main) {
            assert!((1..=64).contains(&found.name.len()));
            assert!((1..=1024).contains(&found.description.chars().count()));
            assert!(!found.description.contains('\0'));
        }
    }
});
