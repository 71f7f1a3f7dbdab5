//! Layers: what the packages and the setup script of an environment leave, built once and shown to the sandboxes of
//! all its sessions.
//!
//! A backend builds one in a sandbox of its own ([`Layers::begin`]), in which whoever builds has root's rights over the
//! layer and over nothing else, and the doors that every sandbox has; it keeps what came of it ([`Layers::keep`]) or
//! gives it up. Local sandboxes show a layer over the host's folders; containers are made of an image that has it.
//!
//! Invariant: a layer is whole or not there, and nobody changes one: what a crash leaves of a build goes at the next
//! start.
//! Invariant: a layer that a sandbox has stays as long as the sandbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use oma_domain::{SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::{Error, Hand};

/// How many characters the name of a layer has.
const LENGTH: usize = 64;

/// A layer, by what went into it: the hexadecimal SHA-256 of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Layer(String);

impl Layer {
    /// The layer of this name; `None` when it is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (name.len() == LENGTH && name.bytes().all(is_hex)).then(|| Self(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl TryFrom<String> for Layer {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name).ok_or(name)
    }
}

impl From<Layer> for String {
    fn from(layer: Layer) -> Self {
        layer.0
    }
}

/// A sandbox for a build.
#[derive(Debug, Clone)]
pub struct Build {
    /// Whose build it is.
    pub workspace: WorkspaceId,
    /// The image that it begins with, where sandboxes are made of images; the configured one otherwise.
    pub image: Option<String>,
    /// What it may have.
    pub limits: Limits,
    /// Files of the host, and where the build sees them and the layer does not have them: below `/etc` or in the
    /// build's home, `/workspace`.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// A sandbox in which a build is under way.
#[derive(Clone)]
pub struct Site {
    /// Names it.
    pub id: SessionId,
    /// Whose build it is.
    pub workspace: WorkspaceId,
    /// The way to its hand.
    pub hand: Arc<dyn Hand>,
}

/// A layer that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which one.
    pub layer: Layer,
    /// Whose it is; those of earlier versions don't say.
    pub workspace: Option<WorkspaceId>,
    /// What it takes of the disk, in bytes.
    pub bytes: u64,
    /// When a sandbox last began with it, or it was built.
    pub used: SystemTime,
}

/// What a build has put on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes; all that there can be where folders are too deep to be looked into.
    pub bytes: u64,
    /// Files, folders and links, as far as they can be counted.
    pub inodes: u64,
}

/// Builds layers and keeps them.
#[async_trait]
pub trait Layers: Send + Sync + 'static {
    /// The backend's name, for what depends on it.
    fn backend(&self) -> &'static str;

    /// Why there can be no layers here.
    fn lacks(&self) -> Option<String>;

    /// Whether sandboxes are made of images, so that an environment can name one.
    fn has_images(&self) -> bool;

    /// Names what a layer lies over, now: it changes whenever a layer that was built before may not fit any more.
    ///
    /// # Errors
    /// [`Error`] when that can't be told, for example because there is no such image.
    async fn ground(&self, image: Option<&str>) -> Result<String, Error>;

    /// Makes a sandbox for a build.
    ///
    /// # Errors
    /// [`Error`] when it can't be made; nothing of it is left then.
    async fn begin(&self, build: Build) -> Result<Site, Error>;

    /// What a build has put on the disk by now, with its home, whatever becomes of that. Once there are more inodes than
    /// this, it is not looked further.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn size(&self, site: &Site, most_inodes: u64) -> Result<Size, Error>;

    /// Ends the sandbox and keeps what was built in it as this layer, for good. One of that name that is there already
    /// stays.
    ///
    /// # Errors
    /// [`Error`] when it can't be kept; it is given up then.
    async fn keep(&self, site: &Site, layer: &Layer) -> Result<(), Error>;

    /// Ends the sandbox and removes what was built in it.
    ///
    /// # Errors
    /// [`Error`] when something stays.
    async fn give_up(&self, site: &Site) -> Result<(), Error>;

    /// Whether there is such a layer; it counts as used now.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn touch(&self, layer: &Layer) -> Result<bool, Error>;

    /// All layers that are there.
    ///
    /// # Errors
    /// [`Error`] when they can't be listed.
    async fn kept(&self) -> Result<Vec<Kept>, Error>;

    /// Removes a layer, unless a sandbox has it; tells whether it is gone.
    ///
    /// # Errors
    /// [`Error`] when something stays.
    async fn discard(&self, layer: &Layer) -> Result<bool, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_by_a_hash() {
        let name = "0123456789abcdef".repeat(4);
        assert_eq!(Layer::parse(&name).unwrap().as_str(), name);
        for wrong in [
            String::new(),
            name[1..].to_owned(),
            name.to_uppercase(),
            format!("../{}", &name[3..]),
        ] {
            assert_eq!(Layer::parse(&wrong), None, "{wrong}");
        }
    }
}
