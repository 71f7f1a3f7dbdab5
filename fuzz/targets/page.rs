//! From a page to Markdown. The time and the memory that an input may take are limits of the fuzzer's run.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The longest Markdown.
const MAX_MARKDOWN: usize = 8 << 20;

fuzz_target!(|data: &[u8]| {
    let html = String::from_utf8_lossy(data);
    let url = url::Url::parse("https://example.com/docs/page").expect("a URL");
    let (markdown, _) = oma_tools::page_as_markdown(&html, &url);
    assert!(markdown.len() <= MAX_MARKDOWN);
    assert_eq!(markdown.trim(), markdown);
});
