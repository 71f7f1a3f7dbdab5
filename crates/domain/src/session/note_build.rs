//! A tool use waits until the session's environment is built.

use super::rejection::Rejection;
use super::transition::{Context, Transition};
use crate::environment::build::Progress;
use crate::event::Body;

impl Transition {
    /// Records how far the build is.
    pub(super) fn note_build(
        &mut self,
        layer: &str,
        progress: Vec<Progress>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        for progress in progress {
            let layer = layer.to_owned();
            self.push(ctx, Body::EnvironmentBuild { layer, progress });
        }
        Ok(())
    }
}
