//! The suite that every [`Store`](crate::Store) must pass. For tests only.
//!
//! Each case is a function of its own and works in fresh workspaces, so that all of them can share one store,
//! even at the same time, except for `vaults::master_key`, which needs one of its own. [`contract_tests!`](crate::contract_tests) makes a test of each:
//!
//! ```text
//! async fn open() -> (Arc<dyn Store>, Guard) { … }
//! oma_store::contract_tests!(open);
//! ```
#![expect(clippy::unwrap_used, reason = "these are tests; a failure is to end them")]

pub mod access;
pub mod agents;
pub mod audit;
pub mod checkpoints;
pub mod commits;
pub mod concurrency;
pub mod deployments;
pub mod environments;
pub mod events;
pub mod files;
pub mod fixtures;
pub mod isolation;
pub mod memories;
pub mod model;
pub mod once;
pub mod paging;
pub mod queue;
pub mod recovery;
pub mod sessions;
pub mod skills;
pub mod small;
pub mod usage;
pub mod vaults;
pub mod webhooks;
pub mod work;

/// Makes a test of each case of the suite. `$open` names an async function without arguments that returns
/// an `Arc<dyn Store>` and a guard that lives as long as the test.
#[macro_export]
macro_rules! contract_tests {
    ($open:ident) => {
        $crate::contract_tests! { @cases $open;
            access: workspaces, budgets, users, forgotten_keys, keys, rotation, revocation, last_use;
            agents: round_trip, creation_conflict, versions, stale_update, archiving, deletion;
            audit: listing, calls_that_do_not_end, filters, with_a_commit;
            checkpoints: life, given_up;
            commits: appends, state_only, stale_head, missing_session, wrong_positions, repeated_event_id, atomicity,
                needed_agent;
            concurrency: one_of_two_commits_wins, one_of_many_keys_wins, first_kept_value_wins, many_sessions;
            deployments: round_trip, bound, goes_with_its_agent, lists, runs_are_whole, lists_of_runs, due;
            environments: round_trip, creation_conflict, in_use, updates;
            events: pages_at_every_cursor, bounds, large_bodies, locate;
            files: round_trip, lists, once, room, outputs, expiry, resources, deletion;
            isolation: nothing_is_visible, nothing_is_touched;
            memories: stores, changes, obstacles, lists, bound, write_back, copies, versions, archived, isolation;
            model: random_commits;
            once: round_trip, separate_scopes, taken_key, forgetting, goes_with_its_session;
            paging: agents_by_creation, environments_by_creation, sessions_while_rows_are_added, unknown_cursors;
            queue: order, clearing, wrong_pop;
            recovery: unfinished, expired, deadlines, open_runs, existing;
            sessions: round_trip, rosters, creation_conflict, missing_environment, filters, finer_filters, deletion, pinned_agent, inline_agents,
                changed_agent, evaluations;
            skills: life, lists, isolation, bounds;
            small: kept_values, readiness;
            vaults: round_trip, lists, credentials, isolation, archiving, pinned, master_key;
            usage: sums, pages;
            webhooks: round_trip, told_in_the_same_transaction, told_with_more_than_an_id, outbox, disabled;
            work: queueing, lost_workers, followers, apart;
        }
    };
    (@cases $open:ident; $($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _guard) = super::$open().await;
                $crate::contract::$module::$case(store).await;
            })+
        })+
    };
}
