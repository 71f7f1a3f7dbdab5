//! Which URLs get a vault's token. Two lines: the rule of a credential, and a URL that an agent's author has chosen.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_egress::target::Target;
use oma_vault::rule::Rule;
use percent_encoding::percent_decode_str;

fuzz_target!(|text: &str| {
    let (rule_text, url) = text.split_once('\n').unwrap_or((text, text));
    let (Ok(rule), Ok(own)) = (Rule::parse(rule_text), Target::parse(rule_text)) else {
        return;
    };
    assert!(rule.matches(&own), "a rule is for its own URL");
    let Ok(target) = Target::parse(url) else {
        return;
    };
    if !rule.matches(&target) {
        return;
    }
    assert_eq!(own.url.origin(), target.url.origin());
    let [mut place, path] = [&own, &target].map(|target| percent_decode_str(target.url.path()).collect::<Vec<u8>>());
    while place.last() == Some(&b'/') {
        place.pop();
    }
    let rest = path.strip_prefix(place.as_slice()).expect("below the rule's place");
    assert!(rest.is_empty() || rest.starts_with(b"/"), "not at a slash");
    if !place.is_empty() {
        let leaves = path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..");
        assert!(!leaves && !path.contains(&b'\\') && !path.contains(&0), "a server may read it as another place");
    }
});
