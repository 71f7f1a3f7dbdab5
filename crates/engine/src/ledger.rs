//! The budgets of a month: what API keys and workspaces may consume, and what they have.
//!
//! A balance is loaded from the usage counters when it is first needed in a month and kept from then on. Before a model
//! request begins, the most that it can consume is reserved in the balance of its workspace and in that of the key that
//! is charged; when it has ended, what it did consume takes the reservation's place. So whatever sessions do side by side,
//! together they stay within the caps, as far as requests keep to what was reckoned for them.
//!
//! Most requests consume much less than was reserved. So one for which reservations of others leave less than it could
//! have without them waits until some of those are given back; only what was consumed ends a turn or shortens an answer.
//!
//! Invariant: a balance is loaded while no commit that adds to the counters is under way, so it has each request once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use oma_domain::quota::{Bound, Exceeded, Monthly, Quota, Unreported};
use oma_domain::usage::{CostTotal, NanoUsd, Usage};
use oma_domain::{EventId, KeyId, Timestamp, WorkspaceId};
use oma_store::{Store, Used};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

/// Days are counted in UTC.
pub(crate) const MILLIS_PER_DAY: i64 = 24 * 3_600_000;
/// Beyond so many balances those of past months that nothing is reserved in are dropped.
const FEW: usize = 1024;

/// A calendar month, as the days that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month {
    first: i64,
    last: i64,
}

impl Month {
    /// The month of a moment, in UTC.
    pub(crate) fn of(at: Timestamp) -> Self {
        let day = at.as_millis().div_euclid(MILLIS_PER_DAY);
        let Ok(moment) = jiff::Timestamp::from_millisecond(at.as_millis()) else {
            // Further away than calendars go: a month of one day.
            return Self {
                first: day,
                last: day,
            };
        };
        let date = moment.to_zoned(TimeZone::UTC).date();
        let first = day - (i64::from(date.day()) - 1);
        Self {
            first,
            last: first + i64::from(date.days_in_month()) - 1,
        }
    }

    fn has(self, day: i64) -> bool {
        (self.first..=self.last).contains(&day)
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Account {
    Workspace(WorkspaceId),
    Key(WorkspaceId, KeyId),
}

impl Account {
    /// The accounts that are charged.
    pub(crate) fn of(workspace: &WorkspaceId, key: Option<&KeyId>) -> Vec<Self> {
        // What the key may do comes first: it says more to its holder.
        let key = key.map(|key| Self::Key(workspace.clone(), key.clone()));
        let workspace = Self::Workspace(workspace.clone());
        key.into_iter().chain([workspace]).collect()
    }

    fn named(&self, cap: Exceeded) -> Exceeded {
        match (self, cap) {
            (Self::Key(..), Exceeded::Cost) => Exceeded::KeyCost,
            (Self::Key(..), Exceeded::Tokens) => Exceeded::KeyTokens,
            (Self::Workspace(_), Exceeded::Cost) => Exceeded::WorkspaceCost,
            (Self::Workspace(_), Exceeded::Tokens) => Exceeded::WorkspaceTokens,
            (_, other) => other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Amount {
    tokens: u64,
    cost: NanoUsd,
}

impl Amount {
    /// The most that a request can consume that is given so much output.
    fn most(bound: &Bound, output: u64) -> Self {
        let cost = bound.price.map(|price| {
            let output = price.output_token.0.saturating_mul(output);
            price.input.plus(NanoUsd(output))
        });
        Self {
            tokens: bound.input.saturating_add(output),
            cost: cost.unwrap_or_default(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.plus(other.cost),
        }
    }
}

#[derive(Debug)]
struct Balance {
    month: Month,
    caps: Monthly,
    spent: Amount,
    reserved: HashMap<EventId, Amount>,
}

impl Balance {
    fn quota(&self) -> Quota {
        Quota {
            max_cost: self.caps.max_cost,
            max_tokens: self.caps.max_tokens,
            max_wall_ms: None,
        }
    }

    fn exceeded(&self, consumed: Amount) -> Option<Exceeded> {
        let (usage, cost) = reckoned(consumed);
        let never = Timestamp(0);
        self.quota().exceeded(&usage, &cost, never, never)
    }

    fn allowance(&self, taken: Amount, bound: &Bound) -> Result<u64, Exceeded> {
        if let Some(cap) = self.exceeded(taken) {
            return Err(cap);
        }
        let (usage, cost) = reckoned(taken);
        self.quota().allowance(&usage, &cost, bound)
    }

    fn taken(&self) -> Amount {
        let reserved = self.reserved.values();
        reserved.fold(self.spent, |sum, one| sum.plus(*one))
    }
}

fn reckoned(amount: Amount) -> (Usage, CostTotal) {
    let usage = Usage {
        input: amount.tokens,
        ..Usage::default()
    };
    let cost = CostTotal {
        known: amount.cost,
        unknown_requests: 0,
    };
    (usage, cost)
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// So many output tokens. The most that it can consume is reserved.
    Granted(u64),
    /// Nothing as long as others have so much reserved.
    Crowded,
    /// Nothing: this budget leaves too little.
    Exceeded(Exceeded),
}

/// The balances of all who are charged.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    balances: Mutex<HashMap<Account, Balance>>,
    /// Held to read while the counters are added to, and to write while a balance is loaded or its caps change.
    counters: RwLock<()>,
    /// Told when a reservation is given back, or a budget changes.
    freed: Notify,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<Account, Balance>> {
        self.balances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the balances of these accounts are those of the month.
    ///
    /// # Errors
    /// A store failure.
    pub(crate) async fn open(
        &self,
        store: &dyn Store,
        accounts: &[Account],
        at: Timestamp,
    ) -> oma_store::Result<()> {
        let month = Month::of(at);
        let is_open = |account: &Account| {
            let balances = self.lock();
            balances
                .get(account)
                .is_some_and(|balance| balance.month == month)
        };
        for account in accounts {
            if is_open(account) {
                continue;
            }
            let _alone = self.counters.write().await;
            if is_open(account) {
                continue;
            }
            let (workspace, key) = match account {
                Account::Workspace(workspace) => (workspace, None),
                Account::Key(workspace, key) => (workspace, Some(key)),
            };
            let caps = match key {
                None => store.workspace(workspace).await?.map(|found| found.budget),
                Some(key) => store.key(workspace, key).await?.map(|found| found.budget),
            };
            let sum = store.consumed(workspace, key, month.first, month.last).await?;
            let spent = Amount {
                tokens: sum.usage.total(),
                cost: sum.cost.known,
            };
            let mut balances = self.lock();
            if balances.len() >= FEW {
                balances.retain(|_, balance| balance.month == month || !balance.reserved.is_empty());
            }
            let reserved = balances.remove(account).map(|before| before.reserved);
            let balance = Balance {
                month,
                // Whoever is gone has no budget.
                caps: caps.unwrap_or_default(),
                spent,
                reserved: reserved.unwrap_or_default(),
            };
            balances.insert(account.clone(), balance);
        }
        Ok(())
    }

    /// The first budget that is used up, or leaves too little for a request that was held back.
    pub(crate) fn exceeded(&self, accounts: &[Account], held: Option<&Bound>) -> Option<Exceeded> {
        let balances = self.lock();
        accounts.iter().find_map(|account| {
            let balance = balances.get(account)?;
            let room = match held {
                Some(bound) => balance.allowance(balance.spent, bound).err(),
                None => balance.exceeded(balance.spent),
            };
            room.map(|cap| account.named(cap))
        })
    }

    /// Reserves the most that a request can consume, if the budgets leave it that.
    pub(crate) fn reserve(&self, accounts: &[Account], request: &EventId, bound: &Bound) -> Verdict {
        let mut balances = self.lock();
        let mut granted = bound.output;
        let mut crowded = false;
        for account in accounts {
            let Some(balance) = balances.get(account) else {
                continue;
            };
            match balance.allowance(balance.spent, bound) {
                Ok(allowed) => {
                    crowded |= balance.allowance(balance.taken(), bound) != Ok(allowed);
                    granted = granted.min(allowed);
                }
                Err(cap) => return Verdict::Exceeded(account.named(cap)),
            }
        }
        if crowded {
            return Verdict::Crowded;
        }
        reserve(&mut balances, accounts, request, Amount::most(bound, granted));
        Verdict::Granted(granted)
    }

    /// Resolves when anything was given back after this was called.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// The request was given less output than that.
    pub(crate) fn shrink(&self, accounts: &[Account], request: &EventId, bound: &Bound, output: u64) {
        reserve(&mut self.lock(), accounts, request, Amount::most(bound, output));
        self.freed.notify_waiters();
    }

    /// Waits until the counters may be added to. Hold it over the commit and [`Self::settle`].
    pub(crate) async fn counting(&self) -> RwLockReadGuard<'_, ()> {
        self.counters.read().await
    }

    /// Puts what a request consumed in its reservation's place.
    /// `unreported` is what it is reckoned to have consumed besides; no counter has it.
    pub(crate) fn settle(
        &self,
        accounts: &[Account],
        request: &EventId,
        used: Option<&Used>,
        unreported: Unreported,
    ) {
        let mut balances = self.lock();
        for account in accounts {
            let Some(balance) = balances.get_mut(account) else {
                continue;
            };
            balance.reserved.remove(request);
            balance.spent = balance.spent.plus(Amount {
                tokens: unreported.tokens,
                cost: unreported.cost,
            });
            // What belongs to another month is found when that one's balance is loaded.
            if let Some(used) = used
                && balance.month.has(used.day)
            {
                let amount = Amount {
                    tokens: used.usage.total(),
                    cost: used.cost.known,
                };
                balance.spent = balance.spent.plus(amount);
            }
        }
        drop(balances);
        self.freed.notify_waiters();
    }

    /// Changes caps by changing the store's. Nobody loads them in between.
    ///
    /// # Errors
    /// What the change gives.
    pub(crate) async fn change<T, E>(
        &self,
        account: &Account,
        caps: &Monthly,
        change: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let _alone = self.counters.write().await;
        let changed = change.await?;
        if let Some(balance) = self.lock().get_mut(account) {
            balance.caps = *caps;
        }
        self.freed.notify_waiters();
        Ok(changed)
    }
}

fn reserve(
    balances: &mut HashMap<Account, Balance>,
    accounts: &[Account],
    request: &EventId,
    amount: Amount,
) {
    for account in accounts {
        if let Some(balance) = balances.get_mut(account) {
            balance.reserved.insert(request.clone(), amount);
        }
    }
}

#[cfg(test)]
mod tests;
