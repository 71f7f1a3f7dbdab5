//! The sandbox suite: real sandboxes, as the user that runs the tests and, from root, as an ordinary user too.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

mod basics;
mod bombs;
#[cfg(feature = "docker")]
mod containers;
mod disk_bombs;
mod doctor;
mod host_files;
mod isolation;
mod layers;
mod lifecycle;
mod mounts;
mod ordinary_user;
mod reattach;
#[cfg(feature = "docker")]
mod relayed;
#[cfg(feature = "docker")]
mod relayed_bounds;
mod saving;
mod shell;
mod support;
mod warm;
