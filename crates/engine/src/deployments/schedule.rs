//! Schedules. The store knows which deployment runs when, so a restart forgets none, and one task sleeps until the
//! earliest of those times.
//!
//! A time of a schedule has one run at the most, whatever clocks and crashes do: the run's id comes from the deployment
//! and the time. Times that passed while nobody looked (the server was down, the clock was set forward) are not made up,
//! except for the newest one when that is less than [`GRACE`] ago: so a restart costs no daily run, and a long pause
//! causes no storm.
//!
//! At the start, and whenever the clock has gone back, all times to come are reckoned again: zones get other rules, and
//! a clock that was wrong may have left times in a far future.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::tz::TimeZone;
use oma_domain::deployment::{Schedule, Tick};
use oma_domain::{Deployment, DeploymentId, RunId, Timestamp};
use oma_store::Due as Waiting;

use super::run::Due;
use crate::Engine;
use crate::error::{Error, Result};

/// How many deployments one look brings.
const PAGE: u32 = 100;
/// How many of them are run at the same time.
const AT_ONCE: usize = 8;
/// How late a run may be made.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// The rest after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// No run is put off by more than so much of the time to the next one, in percent.
const JITTER_PERCENT: u64 = 15;
/// How many times to come are told.
const UPCOMING: usize = 5;

/// What of a schedule's times is to be run.
enum Newest {
    /// The newest one that is due and not too late.
    Due(Due),
    /// None; this is the one that comes.
    Ahead(Option<Tick>),
}

/// The IANA name of a time zone as it is written; `None` when there is no such zone.
#[must_use]
pub fn timezone(name: &str) -> Option<String> {
    let zone = zone(name)?;
    zone.iana_name().map(str::to_owned)
}

fn zone(name: &str) -> Option<TimeZone> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        return None;
    }
    TimeZone::get(name).ok().filter(|zone| !zone.is_unknown())
}

/// How far a deployment's runs are put off: always by the same share of what is possible.
fn jitter(id: &DeploymentId, most: u64) -> u64 {
    // FNV-1a, mixed once more: it only has to spread ids, and has to be the same in every version.
    let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let share = (mixed ^ (mixed >> 33)) >> 32;
    share.saturating_mul(most) >> 32
}

impl Engine {
    /// The first time of a deployment's schedule after `after`; `None` when it does not run by itself.
    pub(super) fn next_tick(&self, deployment: &Deployment, after: Timestamp) -> Option<Tick> {
        let schedule = deployment.live_schedule()?;
        let Some(zone) = zone(&schedule.timezone) else {
            tracing::error!(deployment_id = %deployment.id, timezone = schedule.timezone, "there is no such time zone any more");
            return None;
        };
        let scheduled_at = schedule.cron.after(&zone, after)?;
        Some(self.tick(&deployment.id, schedule, &zone, scheduled_at))
    }

    /// A time of a schedule, with when its run is made.
    fn tick(&self, id: &DeploymentId, schedule: &Schedule, zone: &TimeZone, scheduled_at: Timestamp) -> Tick {
        let most = self.inner.config.schedule_jitter.as_millis();
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let most = match schedule.cron.after(zone, scheduled_at) {
            Some(next) => most.min(next.millis_since(scheduled_at) / 100 * JITTER_PERCENT),
            None => most,
        };
        Tick {
            scheduled_at,
            fires_at: scheduled_at.plus_millis(jitter(id, most)),
        }
    }

    /// The next times of a deployment's schedule.
    #[must_use]
    pub fn upcoming_runs(&self, deployment: &Deployment) -> Vec<Timestamp> {
        let Some(schedule) = deployment.live_schedule() else {
            return Vec::new();
        };
        let Some(zone) = zone(&schedule.timezone) else {
            return Vec::new();
        };
        let first = deployment.next.map(|tick| tick.scheduled_at);
        std::iter::successors(first, |at| schedule.cron.after(&zone, *at))
            .take(UPCOMING)
            .collect()
    }

    /// Makes the runs of schedules, for as long as the engine runs.
    pub async fn keep_schedules(&self) {
        let clock = &self.inner.config.clock;
        loop {
            let next = match self.run_schedules().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "scheduled runs wait");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => continue,
                        () = self.inner.stopping.cancelled() => return,
                    }
                }
            };
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = self.inner.schedule_changed.notified() => {}
                () = self.inner.stopping.cancelled() => return,
            }
        }
    }

    /// Makes the runs whose time has come; returns when the next one is due.
    ///
    /// # Errors
    /// A store failure; calling it again is safe.
    pub async fn run_schedules(&self) -> Result<Option<Timestamp>> {
        let now = self.inner.config.clock.now().0;
        let seen = &self.inner.schedules_seen;
        if now < seen.load(Ordering::Relaxed) {
            self.reckon_again().await?;
        }
        seen.store(now, Ordering::Relaxed);
        self.run_due().await
    }

    /// Reckons all times again that have not come yet.
    async fn reckon_again(&self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self
                .inner
                .store
                .scheduled_deployments(after.as_ref(), PAGE)
                .await?;
            for waiting in &page.rows {
                self.reckon(waiting).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn reckon(&self, waiting: &Waiting) -> Result<()> {
        let found = self
            .inner
            .store
            .deployment(&waiting.workspace, &waiting.deployment);
        let Some(deployment) = found.await? else {
            return Ok(());
        };
        let now = self.inner.config.clock.now();
        // What has come is the business of whoever makes the runs.
        if deployment.next.is_none_or(|tick| tick.scheduled_at <= now) {
            return Ok(());
        }
        let next = self.next_tick(&deployment, now);
        if next != deployment.next {
            // Whoever changed it meanwhile has reckoned, too.
            self.put_deployment(Deployment { next, ..deployment }).await?;
        }
        Ok(())
    }

    async fn run_due(&self) -> Result<Option<Timestamp>> {
        loop {
            let waiting = self.inner.store.due_deployments(PAGE).await?;
            let now = self.inner.config.clock.now();
            let next = waiting.iter().map(|due| due.fires_at).find(|at| *at > now);
            let due = waiting.into_iter().filter(|due| due.fires_at <= now);
            let runs = stream::iter(due).map(|due| async move {
                let outcome = self.run_one(&due, now).await;
                if let Err(error) = &outcome {
                    tracing::error!(deployment_id = %due.deployment, %error, "a scheduled run waits");
                }
                outcome
            });
            let outcomes: Vec<Result<()>> = runs.buffer_unordered(AT_ONCE).collect().await;
            let any = !outcomes.is_empty();
            outcomes.into_iter().collect::<Result<()>>()?;
            if next.is_some() || !any {
                return Ok(next);
            }
        }
    }

    async fn run_one(&self, waiting: &Waiting, now: Timestamp) -> Result<()> {
        let found = self
            .inner
            .store
            .deployment(&waiting.workspace, &waiting.deployment);
        let Some(deployment) = found.await? else {
            return Ok(());
        };
        let (Some(first), Some(schedule)) = (deployment.next, deployment.live_schedule()) else {
            return Ok(());
        };
        // It was changed just now.
        if first.fires_at > now {
            return Ok(());
        }
        let due = match self.newest(&deployment, schedule, first, now) {
            Newest::Due(due) => due,
            Newest::Ahead(next) => return self.skip(deployment, first, next).await,
        };
        let id = RunId::of_tick(&deployment.id, due.tick.scheduled_at);
        let charged = deployment.created_by.clone();
        let made = self.make_run(&id, &deployment, Some(&due), charged, None).await;
        match made {
            Ok(Some(_)) | Err(Error::DeploymentNotFound) => {
                let late = now.millis_since(due.tick.fires_at);
                metrics::histogram!("deployment_run_delay_seconds").record(Duration::from_millis(late));
                Ok(())
            }
            Ok(None) => {
                let stored = self
                    .inner
                    .store
                    .deployment_run(&deployment.workspace, &id)
                    .await?;
                if stored.is_some() {
                    // The clock has gone back; this time had its run.
                    let next = due.next;
                    self.put_deployment(Deployment { next, ..deployment }).await?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves out times that nobody ran while it was time.
    async fn skip(&self, deployment: Deployment, first: Tick, next: Option<Tick>) -> Result<()> {
        let since = first.scheduled_at.as_millis();
        tracing::warn!(deployment_id = %deployment.id, since, "runs were missed");
        metrics::counter!("deployment_runs_missed_total").increment(1);
        self.put_deployment(Deployment { next, ..deployment }).await?;
        Ok(())
    }

    /// What is to be run of the times from `first` on.
    fn newest(&self, deployment: &Deployment, schedule: &Schedule, first: Tick, now: Timestamp) -> Newest {
        let Some(zone) = zone(&schedule.timezone) else {
            tracing::error!(deployment_id = %deployment.id, timezone = schedule.timezone, "there is no such time zone any more");
            return Newest::Ahead(None);
        };
        let grace = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
        let late = |tick: &Tick| tick.fires_at.0 < now.0.saturating_sub(grace);
        let after = |at: Timestamp| {
            let scheduled_at = schedule.cron.after(&zone, at)?;
            Some(self.tick(&deployment.id, schedule, &zone, scheduled_at))
        };
        let mut tick = first;
        while late(&tick) {
            // Run times are put off by less than the time to the next one, so none is passed over by this leap.
            let most = self.inner.config.schedule_jitter.as_millis();
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let leap = now.0.saturating_sub(grace).saturating_sub(most).saturating_sub(1);
            match after(Timestamp(leap.max(tick.scheduled_at.0))) {
                Some(next) => tick = next,
                None => return Newest::Ahead(None),
            }
        }
        if tick.fires_at > now {
            return Newest::Ahead(Some(tick));
        }
        loop {
            let next = after(tick.scheduled_at);
            match next {
                Some(next) if next.fires_at <= now => tick = next,
                _ => return Newest::Due(Due { tick, next }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_go_by_their_names() {
        assert_eq!(timezone("europe/berlin").as_deref(), Some("Europe/Berlin"));
        assert_eq!(timezone("UTC").as_deref(), Some("UTC"));
        for name in [
            "",
            "Mars/Olympus",
            "../etc/passwd",
            "Europe/Berlin\0",
            "Etc/Unknown",
            "CET-1CEST",
        ] {
            assert_eq!(timezone(name), None, "{name:?}");
        }
    }

    #[test]
    fn jitter_stays_within_its_bound_and_is_always_the_same() {
        let ids: Vec<DeploymentId> = (0..200).map(|_| DeploymentId::generate()).collect();
        let put_off: Vec<u64> = ids.iter().map(|id| jitter(id, 5_000)).collect();
        assert!(put_off.iter().all(|millis| *millis < 5_000));
        assert!(put_off.iter().any(|millis| *millis > 4_000) && put_off.iter().any(|millis| *millis < 1_000));
        let again: Vec<u64> = ids.iter().map(|id| jitter(id, 5_000)).collect();
        assert_eq!(again, put_off);
        assert!(ids.iter().all(|id| jitter(id, 0) == 0));
        // What a deployment's id came to once, it comes to for ever.
        let known = DeploymentId::parse("depl_01kb6v5w4y7m2q8r9s0t1v2w3x").unwrap();
        assert_eq!(jitter(&known, 1_000_000), 378_125);
    }
}
