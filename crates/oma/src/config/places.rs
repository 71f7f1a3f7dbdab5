//! Where the configuration file and the data folder are when nobody says so.

use std::path::{Path, PathBuf};

use crate::config::reader::Sources;

/// The variable that names the configuration file.
pub(crate) const FILE_VARIABLE: &str = "OPENCLAW_CONFIG";
/// The system's configuration file.
const SYSTEM_FILE: &str = "/etc/openclaw/oma.toml";

/// The configuration file: the one that the environment names, or the first that exists of the user's and
/// the system's.
///
/// # Errors
/// That the variable's value can't be a path.
pub(crate) fn config_file(sources: &Sources) -> Result<Option<PathBuf>, String> {
    match sources.env.get(FILE_VARIABLE) {
        Some(value) if !value.is_empty() => return Ok(Some(PathBuf::from(value))),
        _ => {}
    }
    let user = sources
        .variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home(sources)?.join(".config")))
        .map(|folder| folder.join("openclaw/oma.toml"));
    for path in user.into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
        match path.try_exists() {
            Ok(true) => return Ok(Some(path)),
            Ok(false) => {}
            // A folder that isn't this user's, for example the home of whoever started the server under another
            // name, holds no configuration for it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            // A file that is there but can't be looked at is a mistake to report, not a file to pass over.
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(None)
}

/// The data folder: what a service manager provides, else `data` in the current folder; always absolute, so
/// that it stays the same folder whatever the process does.
///
/// # Errors
/// That there is no current folder.
pub(crate) fn data_dir(sources: &Sources, set: Option<&Path>) -> std::io::Result<PathBuf> {
    // A service manager may provide several folders, separated by colons; the first is ours.
    let provided = sources
        .variable("STATE_DIRECTORY")
        .and_then(|folders| folders.split(':').next());
    std::path::absolute(set.or(provided.map(Path::new)).unwrap_or(Path::new("data")))
}

fn home(sources: &Sources) -> Option<PathBuf> {
    sources
        .variable("HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
