//! The engine over the real store, with a runtime whose every step the test decides.

mod follow;
mod puppet;
mod recovery;
mod sessions;
