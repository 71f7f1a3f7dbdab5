//! The sandbox suite: real sandboxes, as the user that runs the tests and, from root, as an ordinary user too.

mod basics;
mod reattach;
mod support;
