//! The limit on open files: every connection, stream and sandbox needs some, and the usual soft limit of 1024
//! is there for programs that use `select`, which this one does not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns it; `None` is no limit.
///
/// Sandboxes don't inherit it: they get a limit of their own.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files could not be raised");
            limit.current
        }
    }
}
