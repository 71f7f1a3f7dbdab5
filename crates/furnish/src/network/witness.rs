//! What is written down of each decision: a line in the log, a count, and of a refusal a word to the session. It gets one of
//! secrets that are left out, too.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oma_domain::event::{Failure, FailureKind};
use oma_domain::{SessionId, WorkspaceId};
use oma_egress::proxy::secrets::{LeftOut, MAX_SECRETS, MAX_TOTAL};
use oma_egress::proxy::{Decision, Denial, Observe, Protocol, Verdict};
use oma_sandbox::Spec;
use tokio::time::Instant;

/// The most hosts that a session is told of.
const MAX_TOLD: usize = 32;
/// The most secrets that it is told of by their names.
const MAX_NAMED: usize = 8;
/// How many decisions are logged at once, and one more in each such time.
const LOG_BURST: u32 = 200;
const LOG_EVERY: Duration = Duration::from_millis(100);
/// The same for those on secrets, which no flood of others is to hide.
const SECRETS_BURST: u32 = 1_000;
const SECRETS_EVERY: Duration = Duration::from_millis(20);

/// Writes down what was decided for one session.
pub(super) struct Witness {
    session: SessionId,
    workspace: WorkspaceId,
    told: Mutex<Told>,
}

struct Told {
    hosts: HashSet<String>,
    /// The secrets that were left out last.
    left_out: Vec<(String, LeftOut)>,
    untold: Vec<Failure>,
    lines: Lines,
    /// Of decisions on secrets.
    secrets: Lines,
}

/// How much may be logged.
struct Lines {
    /// Lines that may be logged now, and when that was reckoned.
    now: u32,
    reckoned: Instant,
    left_out: u64,
    /// The most at once, and how long it takes until there may be one more.
    burst: u32,
    every: Duration,
}

impl Witness {
    pub(super) fn new(spec: &Spec) -> Self {
        Self {
            session: spec.session.clone(),
            workspace: spec.workspace.clone(),
            told: Mutex::new(Told {
                hosts: HashSet::new(),
                left_out: Vec::new(),
                untold: Vec::new(),
                lines: Lines::new(LOG_BURST, LOG_EVERY, Instant::now()),
                secrets: Lines::new(SECRETS_BURST, SECRETS_EVERY, Instant::now()),
            }),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Vec<Failure> {
        std::mem::take(&mut self.told().untold)
    }

    /// These secrets are of no use now. The session is told when they are others than before.
    pub(super) fn left_out(&self, secrets: &[(&str, LeftOut)]) {
        let mut secrets: Vec<(String, LeftOut)> = secrets
            .iter()
            .map(|(name, why)| ((*name).to_owned(), *why))
            .collect();
        secrets.sort();
        let mut told = self.told();
        if told.left_out == secrets {
            return;
        }
        for why in [LeftOut::TooMany, LeftOut::Unsearchable] {
            let names: Vec<&str> = secrets
                .iter()
                .filter(|(_, of)| *of == why)
                .map(|(name, _)| name.as_str())
                .collect();
            if names.is_empty() {
                continue;
            }
            let reason = match why {
                LeftOut::TooMany => format!(
                    "a session uses at most {MAX_SECRETS} secrets, and {} KiB of them. Have its vaults hold fewer",
                    MAX_TOTAL >> 10
                ),
                LeftOut::Unsearchable => {
                    "such a secret can't be looked for in what hosts answer. Have it made anew, by chance"
                        .to_owned()
                }
            };
            let message = format!("The sandbox can't use {}: {reason}.", some_of(&names));
            tracing::warn!(session_id = %self.session, workspace_id = %self.workspace, message, "secrets are left out");
            told.untold.push(Failure {
                kind: FailureKind::SecretsLeftOut,
                message,
            });
        }
        told.left_out = secrets;
    }
}

/// As many names as anybody wants to read.
fn some_of(names: &[&str]) -> String {
    let shown = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len() - names.len().min(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Lines {
    fn new(burst: u32, every: Duration, reckoned: Instant) -> Self {
        Self {
            now: burst,
            reckoned,
            left_out: 0,
            burst,
            every,
        }
    }

    /// Whether another line may be logged, and how many were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let earned = (now - self.reckoned).as_millis() / self.every.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(self.burst);
            self.now = self.now.saturating_add(earned).min(self.burst);
            self.reckoned = now;
        }
        if self.now == 0 {
            self.left_out += 1;
            return None;
        }
        self.now -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Told {
    /// The same for a decision on these secrets.
    fn line(&mut self, secrets: &str, now: Instant) -> Option<u64> {
        if secrets.is_empty() {
            self.lines.next(now)
        } else {
            self.secrets.next(now)
        }
    }

    /// What the session is told, the first time, of a host that it may not reach, or that gets no secret.
    fn first(&mut self, host: &str, port: u16, denial: Denial, secret: &str) {
        // A host that it may reach can be one that gets no secret, so they are counted apart.
        let about = match denial {
            Denial::Secret(_) => format!("{host} {} {secret}", denial.as_str()),
            _ => host.to_owned(),
        };
        if host.is_empty() || self.hosts.len() >= MAX_TOLD || !self.hosts.insert(about) {
            return;
        }
        let place = if port == 0 {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let message = match denial {
            Denial::NotListed => format!(
                "The sandbox may not reach {place}: {denial}. To allow it, add the host to the allowed hosts of the environment."
            ),
            Denial::NotPublic | Denial::NoHost | Denial::OtherHost | Denial::Malformed => {
                format!("The sandbox may not reach {place}: {denial}.")
            }
            Denial::Secret(_) if secret.is_empty() => {
                format!("A request to {place} with a placeholder in it was refused: {denial}.")
            }
            Denial::Secret(_) => {
                format!("A request to {place} with the secret {secret} was refused: {denial}.")
            }
        };
        self.untold.push(Failure {
            kind: FailureKind::HostDenied,
            message,
        });
    }
}

impl Observe for Witness {
    fn decided(&self, decision: &Decision<'_>) {
        let Decision {
            protocol,
            host,
            port,
            verdict,
            secrets,
        } = decision;
        let (word, reason) = match verdict {
            Verdict::Allowed => ("allow", ""),
            Verdict::Denied(denial) => ("deny", denial.as_str()),
            Verdict::Failed(_) => ("error", "failed"),
        };
        metrics::counter!("egress_decisions_total", "decision" => word, "protocol" => protocol.as_str())
            .increment(1);
        let mut told = self.told();
        if let Verdict::Denied(denial) = verdict {
            // What looks for a name tries it with endings too, which nobody has asked for.
            let is_word = *protocol == Protocol::Dns && !host.contains('.');
            // What is no host is the sandbox's own words, and an address of its own is nobody else's.
            let is_host = !matches!(denial, Denial::NoHost | Denial::Malformed);
            if is_host && !is_word {
                told.first(host, *port, *denial, secrets);
            }
        }
        let line = told.line(secrets, Instant::now());
        drop(told);
        if let Some(left_out) = line {
            tracing::info!(
                session_id = %self.session,
                workspace_id = %self.workspace,
                decision = word,
                protocol = protocol.as_str(),
                host,
                port,
                reason,
                secrets,
                left_out,
                "egress"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_once_of_each_host() {
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let witness = Witness::new(&spec);
        let decide = |protocol, host: &str, port, verdict: &Verdict| {
            witness.decided(&Decision {
                protocol,
                host,
                port,
                verdict,
                secrets: "",
            });
        };
        let denied = Verdict::Denied(Denial::NotListed);
        decide(Protocol::Dns, "one.example", 0, &denied);
        decide(Protocol::Connect, "one.example", 443, &denied);
        decide(Protocol::Dns, "word", 0, &denied);
        decide(Protocol::Connect, "good.example", 443, &Verdict::Allowed);
        let failures = witness.take();
        assert_eq!(failures.len(), 1);
        let message = &failures[0].message;
        assert!(
            message.contains("one.example") && message.contains("allowed hosts"),
            "{message}"
        );
        for number in 0..2 * MAX_TOLD {
            let host = format!("{number}.example");
            decide(Protocol::Connect, host.as_str(), 443, &denied);
        }
        assert_eq!(witness.take().len(), MAX_TOLD - 1);
        assert!(witness.take().is_empty());
    }

    #[test]
    fn a_session_is_told_of_secrets_that_are_left_out_when_these_change() {
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let witness = Witness::new(&spec);
        witness.left_out(&[]);
        assert!(witness.take().is_empty());
        let some = [("B", LeftOut::TooMany), ("A", LeftOut::Unsearchable)];
        witness.left_out(&some);
        witness.left_out(&some);
        let told = witness.take();
        let starts = [
            "The sandbox can't use B: a session uses at most 200",
            "The sandbox can't use A: such",
        ];
        assert_eq!(told.len(), starts.len());
        for (failure, start) in told.iter().zip(starts) {
            assert_eq!(failure.kind, FailureKind::SecretsLeftOut);
            assert!(failure.message.starts_with(start), "{}", failure.message);
        }
        let names: Vec<String> = (0..30).map(|number| format!("N{number:02}")).collect();
        let many: Vec<(&str, LeftOut)> = names
            .iter()
            .map(|name| (name.as_str(), LeftOut::TooMany))
            .collect();
        witness.left_out(&many);
        let told = witness.take();
        assert!(
            told[0].message.contains("N07 and 22 more:"),
            "{}",
            told[0].message
        );
        // What is mended needs no word, and is told again when it comes back.
        witness.left_out(&[]);
        assert!(witness.take().is_empty());
        witness.left_out(&some);
        assert_eq!(witness.take().len(), 2);
    }

    #[test]
    fn a_flood_leaves_the_log_legible() {
        let start = Instant::now();
        let mut told = Told {
            hosts: HashSet::new(),
            left_out: Vec::new(),
            untold: Vec::new(),
            lines: Lines::new(LOG_BURST, LOG_EVERY, start),
            secrets: Lines::new(SECRETS_BURST, SECRETS_EVERY, start),
        };
        let logged = (0..1_000).filter(|_| told.line("", start).is_some()).count();
        assert_eq!(logged, LOG_BURST as usize);
        assert_eq!(told.line("SECRET", start), Some(0), "what hides in the flood");
        assert_eq!(
            told.line("", start + LOG_EVERY),
            Some(1_000 - u64::from(LOG_BURST))
        );
        assert_eq!(told.line("", start + LOG_EVERY), None);
        let logged = (0..2_000)
            .filter(|_| told.line("SECRET", start).is_some())
            .count();
        assert_eq!(logged, SECRETS_BURST as usize - 1, "and they are bounded too");
    }
}
