//! What an agent's web tools may read.

use serde::{Deserialize, Serialize};

/// Limits of `web_fetch` or `web_search`. Without any, the tool reads the public web.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Limits {
    /// The only sites that may be read; all if there are none. A host stands for the hosts below it, too, and may be
    /// followed by a path, which stands for what begins with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Sites that may not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// The most tokens of a page that the model is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_content_tokens: Option<u64>,
    /// Where searches are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Where the addresses have to come from that are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
}

/// About where somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Location {
    /// The city.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The country: two letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The time zone, as the IANA calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// Where an address has to have been mentioned before it may be fetched. What is `None` is not restricted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Sources {
    /// In what the user said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_input: Option<ToolFilter>,
    /// In results of tools that the client carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tool_results: Option<ToolFilter>,
    /// In results of all other tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tool_results: Option<ToolFilter>,
}

/// Some tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "tools", rename_all = "snake_case")]
pub enum ToolFilter {
    /// All of them.
    All,
    /// None of them.
    None,
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl ToolFilter {
    /// Whether it has the tool of this name.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        let named = |tools: &[String]| tools.iter().any(|name| name == tool);
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(tools) => named(tools),
            Self::Except(tools) => !named(tools),
        }
    }
}

impl Limits {
    /// Whether a page may be read: its host in lower case, its path with the slash that it begins with.
    #[must_use]
    pub fn admit(&self, host: &str, path: &str) -> bool {
        let any = |sites: &[String]| sites.iter().any(|site| is_within(host, path, site));
        (self.allowed.is_empty() || any(&self.allowed)) && !any(&self.blocked)
    }
}

fn is_within(host: &str, path: &str, site: &str) -> bool {
    let (domain, prefix) = match site.find('/') {
        Some(at) => site.split_at(at),
        None => (site, ""),
    };
    let host = host.trim_end_matches('.');
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let prefix = prefix.trim_end_matches('/');
    let under = path
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (host == domain || below) && (prefix.is_empty() || under)
}

/// Whether a text names this address, and not just one that begins with it.
#[must_use]
pub fn mentions(text: &str, url: &str) -> bool {
    let url = url.split('#').next().unwrap_or(url);
    let bare = url.trim_end_matches('/');
    if bare.is_empty() {
        return false;
    }
    let part_of_url = |c: char| c.is_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    text.match_indices(bare).any(|(at, _)| {
        let rest = &text[at + bare.len()..];
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        // What ends a sentence or a bracket ends an address; so does a fragment.
        let rest = rest.trim_start_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*']);
        rest.chars()
            .next()
            .is_none_or(|next| next == '#' || !part_of_url(next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites() {
        let limits = |allowed: &[&str], blocked: &[&str]| {
            let owned = |sites: &[&str]| sites.iter().map(|site| (*site).to_owned()).collect();
            Limits {
                allowed: owned(allowed),
                blocked: owned(blocked),
                ..Limits::default()
            }
        };
        for (allowed, blocked, host, path, admitted) in [
            (&[][..], &[][..], "a.org", "/", true),
            (&["a.org"], &[], "a.org", "/x", true),
            (&["a.org"], &[], "www.a.org", "/x", true),
            (&["a.org"], &[], "www.a.org.", "/x", true),
            (&["a.org"], &[], "ba.org", "/x", false),
            (&["a.org"], &[], "a.org.evil.com", "/x", false),
            (&["a.org/docs"], &[], "a.org", "/docs", true),
            (&["a.org/docs"], &[], "a.org", "/docs/b", true),
            (&["a.org/docs/"], &[], "a.org", "/docs/b", true),
            (&["a.org/docs"], &[], "a.org", "/docsearch", false),
            (&["a.org/docs"], &[], "a.org", "/", false),
            (&[], &["a.org"], "a.org", "/", false),
            (&[], &["a.org"], "b.a.org", "/", false),
            (&[], &["a.org"], "b.org", "/", true),
        ] {
            assert_eq!(
                limits(allowed, blocked).admit(host, path),
                admitted,
                "{allowed:?} {blocked:?} {host}{path}"
            );
        }
    }

    #[test]
    fn an_address_is_mentioned_whole() {
        let url = "https://a.org/page";
        for text in [
            "https://a.org/page",
            "See https://a.org/page.",
            "(https://a.org/page)",
            "[a](https://a.org/page/) and more",
            "https://a.org/page#top",
            "\"https://a.org/page\"",
            "https://a.org/pages, https://a.org/page, and others",
        ] {
            assert!(mentions(text, url), "{text}");
        }
        assert!(mentions("https://a.org/page", "https://a.org/page#part"));
        assert!(mentions("https://a.org", "https://a.org/"));
        for text in [
            "",
            "https://a.org/pages",
            "https://a.org/page?x=1",
            "https://a.org/page/more",
            "a.org/page",
        ] {
            assert!(!mentions(text, url), "{text}");
        }
        assert!(!mentions("anything", ""));
    }
}
