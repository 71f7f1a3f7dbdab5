//! HTTP servers that behave and that don't, over real sockets.

mod server;
mod tests;
