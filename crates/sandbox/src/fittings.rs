//! What a sandbox is made with that differs from session to session.
//!
//! It is asked for only when a sandbox is about to be started, and holds as long as that one lives.

use std::collections::BTreeMap;

use async_trait::async_trait;

use oma_domain::environment::Limits;

use crate::layers::Layer;
use crate::mounts::Place;
use crate::{Error, Spec, gateway, trust};

/// What a sandbox is made with, beside what all of them have. Sandboxes with equal fittings are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fittings {
    /// Variables of everything that runs in it, by legal names ([`is_legal`]). Those that are the sandbox's own
    /// ([`is_taken`]) keep their values.
    pub variables: BTreeMap<String, String>,
    /// The memory stores that it shows. Their folders are made when it is started, empty where nobody has put anything
    /// there yet.
    pub stores: Vec<Place>,
    /// What was built for its environment.
    pub layer: Option<Layer>,
    /// The image that it is made of instead of the configured one, where sandboxes are made of images.
    pub image: Option<String>,
    /// What it may have at the most, where that is less than the configured limits.
    pub limits: Limits,
    /// An authority that its programs trust beside those that the machine trusts: a certificate, as PEM.
    pub trust: Option<String>,
}

impl Fittings {
    /// Whether they are one session's alone, so that no other sandbox is like one with them.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        self.trust.is_some()
    }

    /// All variables, with those that say whom to trust.
    pub(crate) fn all_variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.variables.clone();
        if self.trust.is_some() {
            variables.extend(trust::variables());
        }
        variables
    }
}

/// Variables that say how every sandbox is made.
const TAKEN: [&str; 4] = ["HOME", "USER", "LOGNAME", "TMPDIR"];

/// Whether a variable of this name can be set in a sandbox at all.
#[must_use]
pub fn is_legal(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_word) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Whether a variable is the sandbox's own, so that nobody else sets it.
#[must_use]
pub fn is_taken(name: &str) -> bool {
    let mut doors = gateway::VARIABLES.iter();
    TAKEN.contains(&name) || doors.any(|(taken, _)| *taken == name)
}

/// Whether a variable means something to the sandbox or to what starts its programs, so that no client should choose
/// what is in it.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    const STARTING: [&str; 12] = [
        "PATH",
        "SHELL",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "IFS",
        "ENV",
        "BASH_ENV",
        "TERM",
        "LANG",
        "NODE_OPTIONS",
        "PYTHONPATH",
    ];
    is_taken(name)
        || trust::is_variable(name)
        || STARTING.contains(&name)
        || name.starts_with("LD_")
        || name.starts_with("LC_")
}

/// Who knows what a session's sandbox is made with.
#[async_trait]
pub trait Fit: Send + Sync + 'static {
    /// Called when the session's sandbox is about to be started.
    ///
    /// # Errors
    /// Why it should not be; whoever wanted it is told, and may try again.
    async fn fit(&self, spec: &Spec) -> Result<Fittings, Error>;
}

/// What is known already.
#[async_trait]
impl Fit for Fittings {
    async fn fit(&self, _: &Spec) -> Result<Fittings, Error> {
        Ok(self.clone())
    }
}

/// Nothing special.
pub struct Plain;

#[async_trait]
impl Fit for Plain {
    async fn fit(&self, _: &Spec) -> Result<Fittings, Error> {
        Ok(Fittings::default())
    }
}
