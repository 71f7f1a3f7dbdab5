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

/// Every name that a policy may know a tool by: what it is told as (`shown`), and what it would be if nothing of
/// the server's name, or of its own, had to be changed. Tools that share a name share what is said of it.
pub(crate) fn aliases(server: &str, tool: &str, shown: &str) -> Vec<String> {
    let mut aliases = vec![shown.to_owned()];
    for server in [server, &self::server(server)] {
        for tool in [tool, &legal(tool)] {
            let alias = format!("{MCP_PREFIX}{server}__{tool}");
            if !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
    }
    aliases
}

/// Whether an entry of a policy's list names MCP tools, and none that one of these servers could have.
#[must_use]
pub fn names_no_server<'a>(entry: &str, servers: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(rest) = entry.strip_prefix(MCP_PREFIX) else {
        return false;
    };
    let servers: Vec<&str> = servers.into_iter().collect();
    let labels = of_servers(&servers);
    let plain = servers.iter().map(|name| server(name));
    let names = servers.iter().map(ToString::to_string).chain(plain).chain(labels);
    let (rest, is_open) = match rest.strip_suffix('*') {
        // All tools of all servers: that holds without one, too.
        Some("") => return false,
        Some(beginning) => (beginning, true),
        None => (rest, false),
    };
    let could_mean = |name: String| {
        let tools = format!("{name}__");
        rest == name || rest.starts_with(&tools) || (is_open && tools.starts_with(rest))
    };
    !names.into_iter().any(could_mean)
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
    fn entries_of_policies_that_can_mean_nothing() {
        let long = "customer-relationship-management";
        let servers = ["docs", "my files", "a__b", long];
        let marked = of_servers(&[long]).remove(0);
        for (entry, expected) in [
            ("bash", false),
            ("*", false),
            ("mcp*", false),
            ("mcp__*", false),
            ("mcp__docs", false),
            ("mcp__docs__search", false),
            ("mcp__docs__*", false),
            ("mcp__do*", false),
            ("mcp__my files", false),
            ("mcp__my_files__x", false),
            ("mcp__a__b__c", false),
            ("mcp__a_b", false),
            (&format!("mcp__{long}__x"), false),
            (&format!("mcp__{marked}__x"), false),
            ("mcp__doc", true),
            ("mcp__doc__*", true),
            ("mcp__docs_", true),
            ("mcp__docs2__search", true),
            ("mcp__customer__*", true),
            ("mcp__", true),
        ] {
            assert_eq!(names_no_server(entry, servers), expected, "{entry}");
        }
        assert!(names_no_server("mcp__docs", []) && !names_no_server("mcp__*", []));
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
