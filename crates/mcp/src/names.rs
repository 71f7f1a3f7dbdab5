//! The names under which a model is told of tools: `mcp__server__tool`.
//!
//! Providers accept `[A-Za-z0-9_-]` and 64 characters. A name that is something else as it stands, or that two
//! tools would share, gets a mark made from the raw names: so it depends on nothing but them, and neither the
//! order of servers nor that of their lists matters.

use std::collections::HashMap;

use oma_domain::policy::MCP_PREFIX;
use sha2::{Digest, Sha256};

/// The longest name of a tool.
const MAX_NAME: usize = 64;

/// The longest part that is a server's name.
const MAX_SERVER: usize = 24;

/// Characters of a mark, its `_` included.
const MARK: usize = 9;

/// The names of these servers within the names of their tools, in the same order.
pub(crate) fn of_servers(servers: &[&str]) -> Vec<String> {
    let plain: Vec<String> = servers.iter().map(|name| server(name)).collect();
    let taken = counts(&plain);
    let marked = |(raw, plain): (&&str, &String)| {
        if taken[plain.as_str()] == 1 && plain.len() <= MAX_SERVER {
            return plain.clone();
        }
        with_mark(plain, &[raw], MAX_SERVER)
    };
    servers.iter().zip(&plain).map(marked).collect()
}

/// The full names of a server's tools, in the same order. `server` is one of [`of_servers`].
pub(crate) fn of_tools(server: &str, tools: &[&str]) -> Vec<String> {
    let plain: Vec<String> = tools
        .iter()
        .map(|name| format!("{MCP_PREFIX}{server}__{}", legal(name)))
        .collect();
    let taken = counts(&plain);
    let marked = |(raw, plain): (&&str, &String)| {
        if taken[plain.as_str()] == 1 && plain.len() <= MAX_NAME {
            return plain.clone();
        }
        with_mark(plain, &[server, raw], MAX_NAME)
    };
    tools.iter().zip(&plain).map(marked).collect()
}

fn counts(names: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

fn legal(name: &str) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(fits).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// A server's name without `__`, which separates it from the tool's.
fn server(name: &str) -> String {
    let mut plain = String::new();
    for c in legal(name).chars() {
        if c != '_' || !plain.ends_with('_') {
            plain.push(c);
        }
    }
    let plain = plain.trim_matches('_');
    if plain.is_empty() {
        "server".to_owned()
    } else {
        plain.to_owned()
    }
}

fn with_mark(plain: &str, raw: &[&str], max: usize) -> String {
    let mut hash = Sha256::new();
    for part in raw {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hex::encode(hash.finalize());
    // All of it is ASCII, so it can be cut anywhere.
    let head = plain[..plain.len().min(max - MARK)].trim_end_matches('_');
    format!("{head}_{}", &digest[..MARK - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay() {
        assert_eq!(of_servers(&["docs", "my-files"]), ["docs", "my-files"]);
        assert_eq!(
            of_tools("docs", &["search", "get_page"]),
            ["mcp__docs__search", "mcp__docs__get_page"]
        );
    }

    #[test]
    fn names_are_legal_distinct_and_independent_of_order() {
        let servers = ["a b", "a_b", "a__b", "", "é", &"s".repeat(200)];
        let names = of_servers(&servers);
        let mut reversed = servers;
        reversed.reverse();
        let mut again = of_servers(&reversed);
        again.reverse();
        assert_eq!(names, again);
        for name in &names {
            assert!(name.len() <= MAX_SERVER && !name.contains("__"), "{name}");
        }
        let tools = [
            "x.y",
            "x_y",
            "x/y",
            "",
            &"t".repeat(200),
            &format!("{}u", "t".repeat(199)),
            "ü",
        ];
        let mut all: Vec<String> = names.iter().flat_map(|server| of_tools(server, &tools)).collect();
        for name in &all {
            assert!(name.len() <= MAX_NAME, "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
                "{name}"
            );
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "{all:?}");
    }
}
