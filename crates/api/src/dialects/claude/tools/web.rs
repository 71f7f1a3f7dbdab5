//! What clients say about what web tools may read.

use oma_domain::web::{Limits, Location, Sources, ToolFilter};
use serde_json::{Value, json};

use crate::dialects::claude::body::{nullable, object};
use crate::validate::checks::{discriminator, integer, list, one_of, text};
use crate::validate::{Object, Tree};

/// The most sites of a list.
const SITES: usize = 64;
/// The longest site, in characters.
const SITE: usize = 512;
/// The most tools of a filter.
const TOOLS: usize = 128;
/// The longest name of a tool, in characters.
const TOOL: usize = 128;
/// The longest part of a location, in characters.
const PLACE: usize = 255;
/// The ends of names that are no public sites.
const PRIVATE: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "localdomain",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
    "test",
    "invalid",
    "example",
    "onion",
    "arpa",
];

/// The fields of a tool's settings that are about the web.
pub(super) fn fields(tool: &str) -> &'static [&'static str] {
    match tool {
        "web_fetch" => &[
            "allowed_domains",
            "blocked_domains",
            "max_content_tokens",
            "url_sources",
        ],
        "web_search" => &["allowed_domains", "blocked_domains", "user_location"],
        _ => &[],
    }
}

/// Reads them; `None` in it when there are none.
pub(super) fn limits(tool: &str, setting: &mut Object<'_>) -> Option<Option<Limits>> {
    if fields(tool).is_empty() {
        return Some(None);
    }
    let searches = tool == "web_search";
    let site = |value: &Value, issues: &mut Tree| site(value, issues, searches);
    let allowed = nullable(setting, "allowed_domains", list(1, SITES, site));
    let blocked = nullable(setting, "blocked_domains", list(1, SITES, site));
    let tokens = nullable(setting, "max_content_tokens", integer(1, u64::from(u32::MAX)));
    let location = nullable(setting, "user_location", location);
    let sources = nullable(setting, "url_sources", sources);
    let (allowed, blocked) = (allowed?, blocked?);
    if allowed.is_some() && blocked.is_some() {
        let problem = "May not be there together with allowed_domains";
        setting.issues().at("blocked_domains").push(problem);
        return None;
    }
    for (name, sites) in [("allowed_domains", &allowed), ("blocked_domains", &blocked)] {
        let sites: &[String] = sites.as_deref().unwrap_or_default();
        if let Some(twice) = (1..sites.len()).find(|at| sites[..*at].contains(&sites[*at])) {
            let issues = setting.issues().at(name).at(&twice.to_string());
            issues.push("Is in the list already");
            return None;
        }
    }
    let limits = Limits {
        allowed: allowed.unwrap_or_default(),
        blocked: blocked.unwrap_or_default(),
        max_content_tokens: tokens?,
        location: location?,
        sources: sources?,
    };
    Some((limits != Limits::default()).then_some(limits))
}

/// A public host, with a path behind it if that `may_have_path`.
fn site(value: &Value, issues: &mut Tree, may_have_path: bool) -> Option<String> {
    let site = text(1, SITE)(value, issues)?.to_ascii_lowercase();
    let (host, path) = match site.find('/') {
        Some(at) => site.split_at(at),
        None => (site.as_str(), ""),
    };
    let problem = if !site.is_ascii() {
        "Must be plain ASCII"
    } else if !path.is_empty() && !may_have_path {
        "Must be a host name without a scheme, a port or a path"
    } else if path
        .chars()
        .any(|c| c.is_ascii_whitespace() || c.is_ascii_control() || "?#*".contains(c))
    {
        "Must have a plain path"
    } else {
        match host_problem(host) {
            Some(problem) => problem,
            None => return Some(site),
        }
    };
    issues.push(problem);
    None
}

fn host_problem(host: &str) -> Option<&'static str> {
    let labels: Vec<&str> = host.split('.').collect();
    let legal = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = labels.last().copied().unwrap_or_default();
    if !labels.iter().all(legal) {
        return Some("Must be a host name without a scheme, a port or a wildcard");
    }
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Some("Must not be an address");
    }
    if PRIVATE.contains(&last) {
        return Some("Must be a public name");
    }
    (labels.len() < 2).then_some("Must be more than a top-level domain")
}

fn location(value: &Value, issues: &mut Tree) -> Option<Location> {
    object(&["type", "city", "region", "country", "timezone"], |object| {
        let kind = object.required("type", one_of(&["approximate"]));
        let city = nullable(object, "city", text(1, PLACE));
        let region = nullable(object, "region", text(1, PLACE));
        let country = nullable(object, "country", country);
        let timezone = nullable(object, "timezone", timezone);
        kind?;
        Some(Location {
            city: city?,
            region: region?,
            country: country?,
            timezone: timezone?,
        })
    })(value, issues)
}

fn country(value: &Value, issues: &mut Tree) -> Option<String> {
    let country = text(2, 2)(value, issues)?;
    if !country.bytes().all(|b| b.is_ascii_alphabetic()) {
        issues.push("Must be two letters, as in ISO 3166");
        return None;
    }
    Some(country.to_ascii_uppercase())
}

fn timezone(value: &Value, issues: &mut Tree) -> Option<String> {
    let timezone = text(1, PLACE)(value, issues)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
    if !timezone.bytes().all(legal) {
        issues.push("Must be the name of a time zone, as in Europe/Berlin");
        return None;
    }
    Some(timezone)
}

fn sources(value: &Value, issues: &mut Tree) -> Option<Sources> {
    let fields = &["user_input", "client_tool_results", "server_tool_results"];
    let sources = object(fields, |object| {
        let user_input = nullable(object, "user_input", |value, issues| {
            filter(value, issues, &["all", "none"])
        });
        let all = &["all", "none", "only", "except"];
        let client = nullable(object, "client_tool_results", |value, issues| {
            filter(value, issues, all)
        });
        let server = nullable(object, "server_tool_results", |value, issues| {
            filter(value, issues, all)
        });
        Some(Sources {
            user_input: user_input?,
            client_tool_results: client?,
            server_tool_results: server?,
        })
    })(value, issues)?;
    let Sources {
        user_input,
        client_tool_results,
        server_tool_results,
    } = &sources;
    let filters = [user_input, client_tool_results, server_tool_results];
    if filters.iter().all(|filter| **filter == Some(ToolFilter::None)) {
        issues.push("At least one of the sources must not be none");
        return None;
    }
    Some(sources)
}

fn filter(value: &Value, issues: &mut Tree, kinds: &'static [&'static str]) -> Option<ToolFilter> {
    if value.is_string() {
        return Some(match one_of(&["all", "none"])(value, issues)? {
            "all" => ToolFilter::All,
            _ => ToolFilter::None,
        });
    }
    let mut object = Object::of(value, issues)?;
    let kind = discriminator(&mut object, kinds)?;
    match kind {
        "all" | "none" => {
            crate::dialects::claude::body::only(&mut object, &["type"]);
            Some(if kind == "all" {
                ToolFilter::All
            } else {
                ToolFilter::None
            })
        }
        _ => {
            crate::dialects::claude::body::only(&mut object, &["type", "tools"]);
            let tools = object.required("tools", list(1, TOOLS, reference))?;
            Some(if kind == "only" {
                ToolFilter::Only(tools)
            } else {
                ToolFilter::Except(tools)
            })
        }
    }
}

fn reference(value: &Value, issues: &mut Tree) -> Option<String> {
    object(&["type", "name"], |object| {
        let kind = object.required("type", one_of(&["tool_reference"]));
        let name = object.required("name", text(1, TOOL));
        kind?;
        name
    })(value, issues)
}

/// The limits as clients read them.
pub(super) fn view(limits: &Limits) -> Value {
    let Limits {
        allowed,
        blocked,
        max_content_tokens,
        location,
        sources,
    } = limits;
    let mut view = json!({});
    if !allowed.is_empty() {
        view["allowed_domains"] = json!(allowed);
    }
    if !blocked.is_empty() {
        view["blocked_domains"] = json!(blocked);
    }
    if let Some(tokens) = max_content_tokens {
        view["max_content_tokens"] = json!(tokens);
    }
    if let Some(Location {
        city,
        region,
        country,
        timezone,
    }) = location
    {
        view["user_location"] = json!({
            "type": "approximate", "city": city, "region": region, "country": country, "timezone": timezone,
        });
    }
    if let Some(Sources {
        user_input,
        client_tool_results,
        server_tool_results,
    }) = sources
    {
        let filter = |filter: &Option<ToolFilter>| filter.as_ref().map_or(Value::Null, filter_view);
        view["url_sources"] = json!({
            "user_input": filter(user_input),
            "client_tool_results": filter(client_tool_results),
            "server_tool_results": filter(server_tool_results),
        });
    }
    view
}

fn filter_view(filter: &ToolFilter) -> Value {
    let references = |tools: &[String]| -> Value {
        tools
            .iter()
            .map(|name| json!({"type": "tool_reference", "name": name}))
            .collect()
    };
    match filter {
        ToolFilter::All => json!({"type": "all"}),
        ToolFilter::None => json!({"type": "none"}),
        ToolFilter::Only(tools) => json!({"type": "only", "tools": references(tools)}),
        ToolFilter::Except(tools) => json!({"type": "except", "tools": references(tools)}),
    }
}
