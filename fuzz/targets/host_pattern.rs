//! The hosts that an environment allows: what is accepted can match, and matches what it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_api::dialects::openclaw::environments::body::CreateEnvironment;
use oma_api::validate::{Body as _, Object, parse};
use oma_domain::environment::Networking;
use oma_egress::target::{Host, host};
use serde_json::json;

fuzz_target!(|text: &str| {
    let body = json!({"name": "n", "networking": {"type": "limited", "allowedHosts": [text]}});
    let read = parse(&body, |value, issues| {
        let mut object = Object::of(value, issues)?;
        CreateEnvironment::read(&mut object)
    });
    let Ok(read) = read else {
        return;
    };
    let Networking::Limited { allowed_hosts, .. } = read.into_spec().networking else {
        panic!("it was limited");
    };
    assert_eq!(allowed_hosts, [text]);
    let name = text.strip_prefix("*.").unwrap_or(text);
    let found = host(name);
    assert!(
        matches!(&found, Ok(Host::Name(canonical)) if canonical.eq_ignore_ascii_case(name.trim_end_matches('.'))),
        "{found:?}"
    );
});
