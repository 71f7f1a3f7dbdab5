//! The built-in tools as a model sees them: names, descriptions, schemas, checks, and where each one runs.
//!
//! [`Toolbox`] holds the tools that one agent has. Those that touch the workspace run in the session's sandbox,
//! by the hand; the runtime sends them there. Those that only need the web run here, through the dial guard.
//!
//! Invariant: a tool that an agent's policy denies is neither offered nor run.
//! Invariant: an input is checked before a sandbox is started for it.
//! Invariant: what a user names is fetched through the dial guard only (I11), and no page, however it is made,
//! takes more than bounded time, memory and stack to convert.
//!
//! Where it sits: above the sandbox and egress, below the native runtime.

mod fetch;
mod page;
mod sandboxed;
pub mod search;
mod toolbox;

pub use fetch::FetchLimits;
pub use oma_egress::{Policy, Rule};
pub use search::Search;
pub use toolbox::{Config, Definition, Place, Toolbox, url_not_allowed};

/// The names of all tools that an agent may choose.
#[must_use]
pub fn known_names() -> &'static [&'static str] {
    &[
        "bash",
        "read",
        "write",
        "edit",
        "glob",
        "grep",
        "web_fetch",
        "web_search",
    ]
}

/// The definitions of all tools that an agent may choose, whether or not this server has what they need.
#[must_use]
pub fn definitions() -> Vec<Definition> {
    let mut all = sandboxed::definitions();
    all.extend([fetch::definition(), search::definition()]);
    all
}

/// Whether the tool runs in the session's sandbox.
#[must_use]
pub fn is_sandboxed(name: &str) -> bool {
    oma_sandbox::input::TOOLS.contains(&name)
}

/// The Markdown of a page that came from `url`, and whether it is all of it: a way in for the fuzz targets.
#[cfg(any(test, fuzzing))]
#[must_use]
pub fn page_as_markdown(html: &str, url: &url::Url) -> (String, bool) {
    let page = page::convert(html, url);
    (page.markdown, page.complete)
}
