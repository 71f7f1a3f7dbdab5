//! Which software the engine is.

use super::connection::Connection;
use crate::Error;

/// Whose engine it is, as far as that matters: they speak the same language, and do not do quite the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Docker,
    /// Its containers do not depend on it, and it takes no number of files for folders in memory.
    Podman,
}

impl Make {
    pub(super) async fn ask(connection: &Connection) -> Result<Self, Error> {
        let version = connection
            .get("asking what it is", || connection.docker().version())
            .await?;
        let mut parts = version.components.into_iter().flatten();
        Ok(match parts.any(|part| part.name == "Podman Engine") {
            true => Self::Podman,
            false => Self::Docker,
        })
    }
}
