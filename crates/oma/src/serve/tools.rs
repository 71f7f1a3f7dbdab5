//! From the configuration to the tools that run in the server.

use crate::config::Config;
use crate::print::Failure;

/// How the tools are set up.
///
/// # Errors
/// What is wrong with the configuration.
pub(crate) fn configure(_config: &Config) -> Result<oma_tools::Config, Failure> {
    Ok(oma_tools::Config::default())
}
