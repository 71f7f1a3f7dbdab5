//! Zip archives that are uploaded as skills.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_skill::{Bundle, MAX_BYTES, MAX_FILES};

fuzz_target!(|bytes: &[u8]| {
    let Ok(bundle) = Bundle::from_zip(bytes) else { return };
    assert!(bundle.files().len() <= MAX_FILES);
    let size: usize = bundle.files().values().map(|file| file.bytes.len()).sum();
    assert!(size <= MAX_BYTES);
    for name in bundle.files().keys() {
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name}");
    }
    let packed = bundle.to_zip().expect("packs");
    assert_eq!(Bundle::from_zip(&packed), Ok(bundle), "ours reads back");
});
