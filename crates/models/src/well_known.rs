//! What the reference of the configuration says about the built-in providers.

use crate::provider::KNOWN;

/// A built-in provider: it needs nothing but a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WellKnown {
    /// Its name, as in `name/model`.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Variables that hold its key; the first one that is set counts.
    pub key_variables: &'static [&'static str],
    /// Variables that hold its address; the first one that is set counts.
    pub url_variables: &'static [&'static str],
}

/// All built-in providers.
pub fn well_known() -> impl Iterator<Item = WellKnown> {
    KNOWN.iter().map(|known| WellKnown {
        name: known.name,
        aliases: known.aliases,
        key_variables: known.key_variables,
        url_variables: known.url_variables,
    })
}
