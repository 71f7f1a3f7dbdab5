//! Keeping a session's sandbox away from everybody while its workspace is saved or replaced.

use std::io::{Read, Write};

use oma_domain::SessionId;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::Pool;
use super::places::{Claim, Hold};
use crate::files::archive::{Bounds, Contents};
use crate::{Error, Origin};

/// As long as this is held, nobody gets the session's sandbox: whoever asks for it waits.
struct Still {
    hold: Hold,
    _turn: OwnedMutexGuard<Option<Origin>>,
}

impl Pool {
    /// Packs the session's workspace. Its sandbox ends for that, like an idle one; the next one waits until it is done.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody uses the sandbox, or something runs in it; [`Error::Exhausted`] as for
    /// [`Pool::acquire`]; [`Error::Archive`].
    pub async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn Write + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let still = self.still(session).await?;
        let saved = self.inner.provider.save(session, to, bounds).await;
        self.release(still, !matches!(saved, Err(Error::Busy)));
        saved
    }

    /// Puts what is in the archive in the place of the session's workspace. Its sandbox ends for that, with whatever runs
    /// in it. The workspace is as it was when this fails.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody uses the sandbox; [`Error::Exhausted`] as for [`Pool::acquire`];
    /// [`Error::Archive`].
    pub async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn Read + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let still = self.still(session).await?;
        let restored = self.inner.provider.restore(session, from, bounds).await;
        self.release(still, true);
        restored
    }

    async fn still(&self, session: &SessionId) -> Result<Still, Error> {
        let inner = &self.inner;
        let hold = match inner.hold(session, Claim::Used) {
            Ok(hold) => hold,
            Err(blocked) => timeout(inner.config.wait, inner.wait(session, blocked))
                .await
                .map_err(|_| Error::Exhausted(inner.config.max_live))?,
        };
        // Whoever has the sandbox holds it too; whoever comes from here on waits for this turn.
        let turn = inner.heard(session).try_lock_owned().map_err(|_| Error::Busy)?;
        if inner.users(session) > 1 {
            return Err(Error::Busy);
        }
        if let Some(spare) = inner.take_spare(session) {
            inner.end(&spare).await;
        }
        Ok(Still { hold, _turn: turn })
    }

    /// `is_gone` says that there is no sandbox any more.
    fn release(&self, still: Still, is_gone: bool) {
        let Still { hold, _turn } = still;
        if is_gone {
            self.inner.give_up(hold);
        }
    }
}
