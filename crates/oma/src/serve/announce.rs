//! Telling others that the server is up: a file in the data folder, and the service manager's socket.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What others need to know about a running server.
#[must_use]
pub(crate) fn facts(address: SocketAddr, data_dir: &Path) -> Value {
    json!({
        "pid": std::process::id(),
        "address": address.to_string(),
        "url": format!("http://{address}"),
        "data_dir": data_dir,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// `serve.json` in the data folder, which says where the server listens. It goes when the server does.
#[derive(Debug)]
pub(crate) struct Notice {
    path: PathBuf,
}

impl Notice {
    /// Writes it.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn post(data_dir: &Path, facts: &Value) -> std::io::Result<Self> {
        let path = data_dir.join("serve.json");
        let fresh = data_dir.join("serve.json.new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        writeln!(file, "{facts}")?;
        std::fs::rename(&fresh, &path)?;
        Ok(Self { path })
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the notice could not be removed");
        }
    }
}

/// Tells the service manager (systemd's protocol) about a change of state; does nothing without one.
pub(crate) fn tell_service_manager(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else {
        return;
    };
    let told = UnixDatagram::unbound().and_then(|sender| {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt as _;
                std::os::unix::net::SocketAddr::from_abstract_name(name)?
            }
            None => std::os::unix::net::SocketAddr::from_pathname(Path::new(&socket))?,
        };
        sender.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_notice_is_private_and_goes_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let facts = facts("127.0.0.1:8080".parse().expect("legal"), folder.path());
        // What a crashed server left behind is replaced.
        std::fs::write(folder.path().join("serve.json"), "old").expect("written");
        std::fs::write(folder.path().join("serve.json.new"), "older").expect("written");
        let notice = Notice::post(folder.path(), &facts).expect("posted");
        let path = folder.path().join("serve.json");
        let found: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
        assert_eq!(found["url"], "http://127.0.0.1:8080");
        assert_eq!(found["pid"], std::process::id());
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(notice);
        assert!(!path.exists());
    }
}
