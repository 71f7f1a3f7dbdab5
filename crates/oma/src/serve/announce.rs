//! Telling others that the server is up: whoever started it, and the service manager.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

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
