//! What policies mean by the names of tools.

use oma_domain::policy::{Permission, PermissionPolicy};
use oma_mcp::Ready;
use serde_json::json;

use crate::server::Server;
use crate::tests::{hub, names, open, ready, session};

/// What a policy says of every tool that is offered, by name.
fn verdicts<'a>(ready: &'a Ready, policy: &PermissionPolicy) -> Vec<(&'a str, Permission)> {
    let verdict = |name| (name, ready.tools.permission(policy, name));
    names(ready).into_iter().map(verdict).collect()
}

#[tokio::test]
async fn policies_hold_for_tools_whose_names_were_changed() {
    let server = Server::start().await;
    let hub = hub();
    let long = "customer-relationship-management";
    let url = server.url("/alike");
    let offered = ready(&hub, json!({long: {"url": url}, "my docs": {"url": url}})).await;
    for (entry, label) in [
        ("mcp__customer-relationship-management", "mcp__customer-relati"),
        ("mcp__customer-relationship-management__*", "mcp__customer-relati"),
        ("mcp__my docs", "mcp__my_docs"),
        ("mcp__my_docs__*", "mcp__my_docs"),
    ] {
        let deny = PermissionPolicy::Deny {
            tools: vec![entry.to_owned()],
        };
        for (name, verdict) in verdicts(&offered, &deny) {
            let expected = if name.starts_with(label) {
                Permission::Deny
            } else {
                Permission::Allow
            };
            assert_eq!(verdict, expected, "{entry}: {name}");
        }
    }

    // A name that another tool takes away from the one that was meant.
    let handle = open(&hub, &session(json!({"s": {"url": url}}))).unwrap().unwrap();
    let ask = |entry: &str| PermissionPolicy::AlwaysAsk {
        tools: Some(vec![entry.to_owned()]),
        timeout_ms: None,
    };
    let before = handle.ready().await;
    assert_eq!(
        before.tools.permission(&ask("mcp__s__do_pay"), "mcp__s__do_pay"),
        Permission::Ask
    );
    assert!(!before.tools.call("mcp__s__change", &json!({})).await.is_error);
    let after = handle.ready().await;
    assert!(!after.tools.has("mcp__s__do_pay"), "{:?}", names(&after));
    for (entry, count) in [("mcp__s__do_pay", 2), ("mcp__s__do.pay", 1)] {
        let asked = verdicts(&after, &ask(entry));
        let asked: Vec<_> = asked
            .into_iter()
            .filter(|(_, verdict)| *verdict == Permission::Ask)
            .collect();
        assert_eq!(asked.len(), count, "{entry}: {asked:?}");
        assert!(asked.iter().all(|(name, _)| name.starts_with("mcp__s__do_pay_")));
    }
}
