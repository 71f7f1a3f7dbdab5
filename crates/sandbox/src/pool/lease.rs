//! Getting the sandbox for a place that is held, with what belongs into it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::SessionId;

use super::places::{Hold, Inner};
use super::{Lease, Provenance};
use crate::fittings::{Fit, Fittings};
use crate::mounts::Furnish;
use crate::{Attached, Error, Origin, Spec};

/// What was done to get a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing: it was there.
    Present,
    /// It was started in advance and has become the session's.
    Reserve,
    /// It was started.
    Start,
}

/// Those who know what belongs into sandboxes; asked in this order before one is used.
pub(super) struct Furnishers(pub(super) Vec<Arc<dyn Furnish>>);

#[async_trait]
impl Fit for Furnishers {
    async fn fit(&self, spec: &Spec) -> Result<Fittings, Error> {
        let mut fittings = Fittings::default();
        for furnisher in &self.0 {
            furnisher.fit(spec, &mut fittings).await?;
        }
        Ok(fittings)
    }
}

impl Furnishers {
    /// Returns when what was missing is there, or will not be.
    pub(super) async fn fits(&self, spec: &Spec) {
        for furnisher in &self.0 {
            furnisher.fits(spec).await;
        }
    }
}

/// Counts as being started for somebody until dropped: meanwhile none are started in advance.
struct Starting<'a>(&'a Inner);

impl<'a> Starting<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.lock().starting += 1;
        Self(inner)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
        self.0.bells.changed();
    }
}

impl Inner {
    /// Gets the sandbox for the place that is held, and tells how. `used` says whether the lease goes to somebody who
    /// acts on how the sandbox came to be.
    pub(super) async fn lease(
        self: &Arc<Self>,
        hold: Hold,
        spec: &Spec,
        used: bool,
    ) -> Result<(Lease, Source), Error> {
        let origin = self.heard(&spec.session);
        let mut unheard = origin.lock().await;
        match self.attach(spec).await {
            Ok((attached, source)) => {
                let provenance = self.provenance(&spec.session, source, attached.boot);
                let origin = match source {
                    Source::Present => unheard.unwrap_or(Origin::Running),
                    Source::Reserve => attached.origin,
                    Source::Start => {
                        self.lock().counts.started += 1;
                        metrics::histogram!("container_boot_duration_seconds").record(attached.boot);
                        attached.origin
                    }
                };
                *unheard = if used || origin == Origin::Running {
                    None
                } else {
                    Some(origin)
                };
                let lease = Lease::new(Attached { origin, ..attached }, provenance, hold);
                Ok((lease, source))
            }
            Err(error) => {
                self.give_up(hold);
                Err(error)
            }
        }
    }

    /// Where the session's sandbox came from, which is known from now on to all who hold it.
    fn provenance(&self, session: &SessionId, source: Source, boot: Duration) -> Provenance {
        match source {
            Source::Start => self.came(session, Some(Provenance::Started(boot))),
            Source::Reserve => self.came(session, Some(Provenance::Reserve)),
            Source::Present => self.came(session, None),
        }
    }

    /// The sandbox, with what belongs into it.
    async fn attach(self: &Arc<Self>, spec: &Spec) -> Result<(Attached, Source), Error> {
        // First, for where anything has been put it can't be any more.
        let given = match self.take_spare(&spec.session) {
            Some(spare) => self.hand_over(spare, spec).await,
            None => None,
        };
        for furnisher in &self.furnishers.0 {
            furnisher.furnish(spec).await?;
        }
        let (attached, source) = match given {
            Some(attached) => (attached, Source::Reserve),
            None => {
                let fit = Arc::clone(&self.furnishers);
                let _starting = Starting::new(self);
                let attached = self.provider.attach_fitted(spec, fit).await?;
                let source = match attached.origin {
                    Origin::Running => Source::Present,
                    Origin::Started | Origin::Replaced => Source::Start,
                };
                (attached, source)
            }
        };
        for furnisher in &self.furnishers.0 {
            let failures = furnisher.settle(spec, &attached).await;
            if !failures.is_empty() {
                let mut state = self.lock();
                state
                    .failures
                    .entry(spec.session.clone())
                    .or_default()
                    .extend(failures);
            }
        }
        Ok((attached, source))
    }
}
