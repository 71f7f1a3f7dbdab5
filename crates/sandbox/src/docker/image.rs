//! The image that sandboxes are made of.

use bollard::models::ImageInspect;

use super::connection::{Connection, is_absent};
use crate::Error;

/// The most volumes that an image may declare.
const MAX_VOLUMES: usize = 32;

/// What a container needs to know of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Names it for ever; its tag may be moved.
    pub(super) id: String,
    /// The variables that it sets.
    pub(super) variables: Vec<String>,
    /// Where it wants volumes.
    pub(super) volumes: Vec<String>,
}

impl Image {
    /// Looks at what the engine has under this name now.
    ///
    /// # Errors
    /// [`Error::Engine`] when it has no such image, or does not answer.
    pub(super) async fn find(connection: &Connection, name: &str) -> Result<Self, Error> {
        let what = "looking for the image of sandboxes";
        let found = connection
            .ask(what, || connection.docker().inspect_image(name))
            .await?;
        match found {
            Ok(found) => Self::of(found),
            Err(error) if is_absent(&error) => Err(Error::Engine(format!(
                "has no image {name}: pull or build it, or configure another one"
            ))),
            Err(error) => Err(connection.failed(what, &error)),
        }
    }

    fn of(found: ImageInspect) -> Result<Self, Error> {
        let config = found.config.unwrap_or_default();
        let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
        let volumes = config.volumes.unwrap_or_default();
        if volumes.len() > MAX_VOLUMES {
            return Err(Error::Engine(format!(
                "has an image with {} volumes for sandboxes, and at most {MAX_VOLUMES} are allowed",
                volumes.len()
            )));
        }
        Ok(Self {
            id: found.id.unwrap_or_default(),
            variables: config.env.unwrap_or_default().iter().map(name).collect(),
            volumes,
        })
    }
}
