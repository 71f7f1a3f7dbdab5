//! The arrows between our crates: each depends on lower ones only.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Our crates from the top down. An arrow only ever points to a later one.
const ORDER: [&str; 20] = [
    "oma",
    "oma-api",
    "oma-engine",
    "oma-files",
    "oma-runtime-native",
    "oma-mcp",
    "oma-runtime",
    "oma-furnish",
    "oma-tools",
    "oma-models",
    "oma-sandbox",
    "oma-vault",
    "oma-egress",
    "oma-checkpoint",
    "oma-staging",
    "oma-skill",
    "oma-workflow",
    "oma-store",
    "oma-trace",
    "oma-domain",
];

/// Crates that serve tests and benchmarks: nothing depends on them except for its own tests.
const HARNESS: [&str; 3] = ["oma-fake-provider", "oma-docker-engine", "oma-bench"];

/// A dependency of one of our crates on another.
#[derive(Debug, Clone, PartialEq)]
struct Arrow {
    from: String,
    to: String,
    /// For tests only.
    dev: bool,
}

fn arrows(metadata: &Value) -> (Vec<String>, Vec<Arrow>) {
    let packages = metadata["packages"].as_array().expect("packages");
    let names: Vec<String> = packages
        .iter()
        .map(|package| package["name"].as_str().expect("a name").to_owned())
        .collect();
    let arrows = packages
        .iter()
        .flat_map(|package| {
            let from = package["name"].as_str().expect("a name").to_owned();
            package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .map(move |dependency| Arrow {
                    from: from.clone(),
                    to: dependency["name"].as_str().expect("a name").to_owned(),
                    dev: dependency["kind"] == "dev",
                })
        })
        .filter(|arrow| names.contains(&arrow.to))
        .collect();
    (names, arrows)
}

/// What is wrong with the arrows.
fn violations(names: &[String], arrows: &[Arrow]) -> Vec<String> {
    let place: BTreeMap<&str, usize> = ORDER
        .iter()
        .enumerate()
        .map(|(place, name)| (*name, place))
        .collect();
    let mut wrong: Vec<String> = names
        .iter()
        .filter(|name| !place.contains_key(name.as_str()) && !HARNESS.contains(&name.as_str()))
        .map(|name| format!("{name} has no place in the order"))
        .collect();
    for Arrow { from, to, dev } in arrows {
        let legal = match (place.get(from.as_str()), place.get(to.as_str())) {
            (Some(from), Some(to)) => from < to || (*dev && from == to),
            // A harness may use everything.
            (None, _) => true,
            (Some(_), None) => *dev,
        };
        if !legal {
            let kind = if *dev { "dev-depends" } else { "depends" };
            wrong.push(format!("{from} {kind} on {to}"));
        }
    }
    wrong
}

#[test]
fn every_crate_depends_on_lower_ones_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).expect("JSON");
    let (names, arrows) = arrows(&metadata);
    for name in ORDER {
        assert!(
            names.iter().any(|found| found == name),
            "{name} is a crate of this workspace"
        );
    }
    assert!(arrows.len() >= ORDER.len(), "the arrows were found");
    assert_eq!(violations(&names, &arrows), Vec::<String>::new());
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let names: Vec<String> = ORDER
        .iter()
        .chain(&HARNESS)
        .map(|name| (*name).to_owned())
        .collect();
    let arrow = |from: &str, to: &str, dev| Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        dev,
    };
    for (arrow, found) in [
        (arrow("oma-api", "oma-engine", false), 0),
        (arrow("oma-engine", "oma-api", false), 1),
        (arrow("oma-store", "oma-engine", true), 1),
        (arrow("oma-store", "oma-store", true), 0),
        (arrow("oma-store", "oma-store", false), 1),
        (arrow("oma-models", "oma-fake-provider", true), 0),
        (arrow("oma-models", "oma-fake-provider", false), 1),
    ] {
        assert_eq!(
            violations(&names, std::slice::from_ref(&arrow)).len(),
            found,
            "{arrow:?}"
        );
    }
    assert_eq!(
        violations(&["oma-new".to_owned()], &[]),
        ["oma-new has no place in the order"]
    );
}
