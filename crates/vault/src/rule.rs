//! Which URLs a credential is for.
//!
//! A rule is a URL. It matches a URL of the same scheme, host and port whose path is the rule's path or lies
//! below it, segment by segment: `https://a.example/mcp` is for `/mcp` and `/mcp/x`, not for `/mcpx`, nor for
//! `https://a.example.evil.example/mcp`. Both sides are compared in canonical form, as the dial guard reads them.

use oma_egress::Guard;
use oma_egress::target::Target;
use url::form_urlencoded::byte_serialize;

/// Why a text is no rule. It is for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

/// The URLs that a credential is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    target: Target,
    segments: Vec<Vec<u8>>,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// [`InvalidRule`] when it is no URL, or one that no request can be below.
    pub fn parse(text: &str) -> Result<Self, InvalidRule> {
        let invalid = |reason: &str| InvalidRule(reason.to_owned());
        let target = Target::parse(text).map_err(|error| InvalidRule(error.to_string()))?;
        if text.contains(['?', '#']) {
            return Err(invalid(
                "It can never match: a query or fragment is not compared; leave it out",
            ));
        }
        let segments = segments(target.url.path());
        if segments.iter().any(|segment| is_ambiguous(segment)) {
            return Err(invalid(
                "It can never match: its path has an encoded slash, backslash or NUL",
            ));
        }
        Ok(Self { target, segments })
    }

    /// The place that the rule stands for, spelled in one way only.
    #[must_use]
    pub fn place(&self) -> String {
        let Target { url, host, port, .. } = &self.target;
        let mut place = format!("{}://{host}:{port}", url.scheme());
        for segment in &self.segments {
            place.push('/');
            place.extend(byte_serialize(segment));
        }
        place
    }

    /// Whether a request that matches could be made, by what is known without a lookup.
    ///
    /// # Errors
    /// [`InvalidRule`] when the dial guard would refuse every such request, or when it would go in the clear over
    /// a network.
    pub fn admit(&self, guard: &Guard) -> Result<(), InvalidRule> {
        guard
            .check(self.target.url.as_str())
            .map_err(|error| InvalidRule(format!("It can never match: {error}")))?;
        if self.target.url.scheme() != "https" && !guard.policy().allows_loopback(&self.target) {
            return Err(InvalidRule(
                "A token is sent over https only, except to a loopback address that the operator allows"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether the credential is for this URL.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        if !self.target.same_origin(target) {
            return false;
        }
        if self.segments.is_empty() {
            return true;
        }
        let path = segments(target.url.path());
        // A server may read an encoded slash as a slash, and leave the rule's path that way.
        path.starts_with(&self.segments) && !path.iter().any(|segment| is_ambiguous(segment))
    }

    /// How narrow the rule is: of two that match, the one with more segments counts.
    #[must_use]
    pub fn specificity(&self) -> usize {
        self.segments.len()
    }
}

/// The segments of a path, decoded. A slash at the end makes no difference.
fn segments(path: &str) -> Vec<Vec<u8>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Vec::new();
    }
    path.split('/').map(decode).collect()
}

fn decode(segment: &str) -> Vec<u8> {
    let bytes = segment.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octet = match (digit(at + 1), digit(at + 2)) {
            (Some(high), Some(low)) if *byte == b'%' => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        decoded.push(octet.unwrap_or(*byte));
        at += if octet.is_some() { 3 } else { 1 };
    }
    decoded
}

fn is_ambiguous(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..") || segment.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0))
}

#[cfg(test)]
mod tests {
    use oma_egress::Policy;
    use proptest::prelude::*;

    use super::*;

    fn matches(rule: &str, url: &str) -> bool {
        let rule = Rule::parse(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
        rule.matches(&Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    #[test]
    fn what_matches() {
        for (rule, url, expected) in [
            ("https://a.example", "https://a.example/", true),
            ("https://a.example/", "https://a.example/any/thing?q=1#f", true),
            ("https://a.example/mcp", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcp/", true),
            ("https://a.example/mcp/", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcp/x/y", true),
            ("https://a.example/mcp", "https://a.example/mcp?x", true),
            ("https://a.example/mcp", "https://a.example/mcpx", false),
            ("https://a.example/mcp", "https://a.example/mcp.evil", false),
            ("https://a.example/mcp", "https://a.example/mc", false),
            ("https://a.example/mcp", "https://a.example/", false),
            ("https://a.example/mcp", "https://a.example/MCP", false),
            ("https://a.example/mcp", "https://a.example/x/mcp", false),
            ("https://a.example/mcp", "https://a.example//mcp", false),
            ("https://a.example/a/b", "https://a.example/a/b/c", true),
            ("https://a.example/a/b", "https://a.example/a/c/b", false),
            ("https://a.example", "https://a.example.evil.example/", false),
            ("https://a.example", "https://b.a.example/", false),
            (
                "https://a.example",
                "https://evil.example/https://a.example",
                false,
            ),
            ("https://a.example", "http://a.example/", false),
            ("https://a.example", "https://a.example:8443/", false),
            ("https://a.example:443", "https://a.example/", true),
            ("https://A.EXAMPLE.", "https://a.example/", true),
            ("https://bücher.example/", "https://xn--bcher-kva.example/x", true),
            ("https://a.example/m%63p", "https://a.example/mcp", true),
            ("https://a.example/a%20b", "https://a.example/a%20b/c", true),
            ("https://a.example/mcp", "https://a.example/mcp/../admin", false),
            (
                "https://a.example/mcp",
                "https://a.example/mcp/%2e%2e/admin",
                false,
            ),
            ("https://a.example/mcp", "https://a.example/mcp/..%2fadmin", false),
            ("https://a.example/mcp", "https://a.example/mcp%2fx", false),
            ("https://a.example/mcp", "https://a.example/mcp/..%5cadmin", false),
            ("https://a.example/", "https://a.example/a%2fb", true),
            ("http://127.0.0.1:9/", "http://127.1:9/x", true),
        ] {
            assert_eq!(matches(rule, url), expected, "{rule} {url}");
        }
    }

    #[test]
    fn equal_places_are_spelled_alike() {
        let place = |text: &str| Rule::parse(text).unwrap().place();
        for (text, expected) in [
            ("https://a.example", "https://a.example:443"),
            ("HTTPS://A.Example.:443/", "https://a.example:443"),
            ("https://a.example/mcp/", "https://a.example:443/mcp"),
            ("https://a.example/m%63p", "https://a.example:443/mcp"),
            ("https://a.example/a%20b", "https://a.example:443/a+b"),
            ("https://a.example/a+b", "https://a.example:443/a%2Bb"),
            ("https://a.example//mcp", "https://a.example:443//mcp"),
            ("http://127.1:9/x", "http://127.0.0.1:9/x"),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule() {
        for text in [
            "",
            "a.example",
            "*",
            "https://",
            "https://*.example/",
            "ftp://a.example/",
            "https://user@a.example/",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://a.example/ x",
            "https://a.example/a%2fb",
            "https://a.example/a%00",
            "javascript:alert(1)",
        ] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_could_never_be_dialled_is_refused() {
        let strict = Guard::new(Policy::default());
        let lenient = Guard::new(Policy {
            allow: [
                "127.0.0.1:9000",
                "10.0.0.0/8",
                "intranet.example:8443",
                "localhost:3000",
                "app.localhost:3000",
            ]
            .iter()
            .map(|rule| rule.parse().unwrap())
            .collect(),
        });
        for (text, by_strict, by_lenient) in [
            ("https://a.example/", true, true),
            ("http://a.example/", false, false),
            ("https://a.example:8443/", false, true),
            ("https://intranet.example:8443/", false, true),
            ("https://127.0.0.1/", false, false),
            ("http://127.0.0.1:9000/", false, true),
            ("http://localhost:9000/", false, true),
            ("http://localhost:3000/", false, true),
            ("http://localhost/", false, false),
            ("http://app.localhost:9000/", false, false),
            ("http://app.localhost:3000/", false, false),
            ("https://app.localhost:3000/", false, true),
            ("http://10.0.0.1/", false, false),
            ("https://10.0.0.1/", false, true),
            ("https://169.254.169.254/", false, false),
        ] {
            let rule = Rule::parse(text).unwrap();
            assert_eq!(rule.admit(&strict).is_ok(), by_strict, "{text} strict");
            assert_eq!(rule.admit(&lenient).is_ok(), by_lenient, "{text} lenient");
        }
    }

    proptest! {
        /// Any text is read or refused; what is read matches itself.
        #[test]
        fn any_text_is_read_or_refused(text in "(https?://)?[a-zA-Z0-9.\\-_@:%\\[\\]/\\\\?#é。\u{0} ]{0,40}") {
            if let Ok(rule) = Rule::parse(&text) {
                let target = Target::parse(&text).expect("a rule is a URL");
                prop_assert!(rule.matches(&target));
            }
        }

        /// Two rules have one place exactly when each is for what the other is for.
        #[test]
        fn one_place_is_one_spelling(
            one in "https://[ab]\\.example(:443)?(/[a-b.%25+ ]{0,3}){0,2}", other in "https://[ab]\\.example(:443)?(/[a-b.%25+ ]{0,3}){0,2}",
        ) {
            let (Ok(rule), Ok(target), Ok(other_rule), Ok(other_target)) =
                (Rule::parse(&one), Target::parse(&one), Rule::parse(&other), Target::parse(&other))
            else {
                return Ok(());
            };
            let both = rule.matches(&other_target) && other_rule.matches(&target);
            prop_assert_eq!(rule.place() == other_rule.place(), both);
        }

        /// A match is of the same origin, and its path continues the rule's at a slash only.
        #[test]
        fn a_match_never_leaves_the_rules_place(
            host in "[a-c]{1,2}\\.example", path in "(/[a-b.%25]{0,3}){0,3}",
            other in "[a-c]{1,2}\\.example(\\.evil)?", tail in "[/a-b.%25]{0,8}", same in any::<bool>(),
        ) {
            let (rule_text, base) = (format!("https://{host}{path}"), if same { &host } else { &other });
            let url = format!("https://{base}{path}{tail}");
            let (Ok(rule), Ok(rule_target), Ok(target)) = (Rule::parse(&rule_text), Target::parse(&rule_text), Target::parse(&url)) else {
                return Ok(());
            };
            if rule.matches(&target) {
                prop_assert_eq!(target.host.to_string(), host);
                let (mut rule_path, path) = (decode(rule_target.url.path()), decode(target.url.path()));
                while rule_path.last() == Some(&b'/') {
                    rule_path.pop();
                }
                let rest = path.strip_prefix(rule_path.as_slice());
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")), "{:?} {:?}", rule_path, path);
            }
        }
    }
}
