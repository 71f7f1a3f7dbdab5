//! Waiting until a session's environment is built. The log says meanwhile what becomes of the build: a few things for
//! each installer. What the installers print is not there, but for the end of it where one fails.

use std::future::pending;
use std::pin::pin;

use oma_domain::SessionId;
use oma_domain::environment::Environment;
use oma_domain::environment::build::Progress;
use oma_domain::session::Input;
use oma_furnish::Environments;
use oma_furnish::environments::Following;
use oma_runtime::Port;
use oma_sandbox::Error;

/// Waits for the build, and has the session's log tell of it.
///
/// # Errors
/// [`Error::Build`] when it can't be built, in the installer's words.
pub(crate) async fn wait(
    environments: &Environments,
    environment: &Environment,
    session: &SessionId,
    port: &dyn Port,
) -> Result<(), Error> {
    let mut following = environments.follow(environment, session).await?;
    let mut ready = pin!(environments.ready(environment));
    let built = loop {
        let news = async {
            match &mut following {
                Some(following) => following.news().await,
                None => pending().await,
            }
        };
        tokio::select! {
            // The news first, for they are older. Whoever tells them is not left in the middle.
            biased;
            progress = news => following = tell(following, progress, port).await,
            built = &mut ready => break built,
        }
    };
    let rest = following.as_mut().map(Following::unsaid).unwrap_or_default();
    if !rest.is_empty() {
        tell(following, rest, port).await;
    }
    built
}

/// Has the log tell this. Nothing more is told where that can't be.
async fn tell(following: Option<Following>, progress: Vec<Progress>, port: &dyn Port) -> Option<Following> {
    let following = following?;
    let count = progress.len();
    let layer = following.layer().to_owned();
    match port.commit(Input::NoteBuild { layer, progress }).await {
        Ok(_) => {
            following.said(count);
            Some(following)
        }
        // The turn is over, or the engine is; whoever drives it finds out by itself.
        Err(error) => {
            tracing::debug!(%error, "a build is not told of");
            None
        }
    }
}
