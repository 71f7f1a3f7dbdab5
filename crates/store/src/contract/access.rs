//! Workspaces and API keys.

use std::sync::Arc;

use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::user::{GithubAccount, Tier, User};
use oma_domain::{ApiKey, EnvironmentId, KeyId, Scope, Timestamp, UserId, Workspace, WorkspaceId};

use super::audit::entry;
use super::fixtures::{NOW, agent, new_session, once};
use crate::{AuditFilter, Error, KeyDigest, Store, StoredKey, assert_refused};

const BUDGET: Monthly = Monthly {
    max_cost: Some(NanoUsd(5)),
    max_tokens: None,
};

async fn workspace(store: &Arc<dyn Store>) -> WorkspaceId {
    let workspace = Workspace {
        id: WorkspaceId::generate(),
        name: "Büro".into(),
        budget: BUDGET,
        max_sessions: None,
        created_at: NOW,
    };
    store.create_workspace(&workspace, None).await.unwrap();
    workspace.id
}

fn key(workspace: &WorkspaceId) -> StoredKey {
    let id = KeyId::generate();
    // Ids are random enough for digests that no two cases share.
    let mut digest = [0; 32];
    let text = id.as_str().as_bytes();
    digest[..text.len().min(32)].copy_from_slice(&text[..text.len().min(32)]);
    StoredKey {
        key: ApiKey {
            id,
            workspace: workspace.clone(),
            name: "ci".into(),
            scope: Scope::Write,
            environment: Some(EnvironmentId::generate()),
            budget: Monthly::default(),
            created_at: NOW,
            rotated_at: None,
            previous_until: None,
            expires_at: Some(Timestamp(NOW.0 + 1000)),
            revoked_at: None,
            last_used_at: None,
        },
        digest: KeyDigest(digest),
        previous: None,
    }
}

fn other(digest: &KeyDigest) -> KeyDigest {
    let mut bytes = digest.0;
    bytes[31] ^= 0xff;
    KeyDigest(bytes)
}

/// The keys of one workspace that a starting server would load.
async fn live(store: &Arc<dyn Store>, workspace: &WorkspaceId) -> Vec<StoredKey> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.live_keys(after.as_ref(), 2).await.unwrap();
        all.extend(
            page.rows
                .into_iter()
                .filter(|row| row.key.workspace == *workspace),
        );
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

/// Budgets are kept, changed one at a time, and cleared.
pub async fn budgets(store: Arc<dyn Store>) {
    let (ours, other) = (workspace(&store).await, workspace(&store).await);
    let (one, two) = (key(&ours), key(&ours));
    store.create_key(&one, 10, None).await.unwrap();
    store.create_key(&two, 10, None).await.unwrap();
    let most = Monthly {
        max_cost: None,
        max_tokens: Some(7),
    };
    let changed = store.set_key_budget(&ours, &one.key.id, &most).await.unwrap();
    assert_eq!(changed.budget, most);
    assert_eq!(store.key(&ours, &one.key.id).await.unwrap(), Some(changed));
    let untouched = store.key(&ours, &two.key.id).await.unwrap().unwrap();
    assert_eq!(untouched.budget, Monthly::default());
    assert_refused!(
        store.set_key_budget(&other, &one.key.id, &most).await,
        Error::NotFound
    );
    let changed = store.set_workspace_budget(&ours, &most).await.unwrap();
    assert_eq!(changed.budget, most);
    let untouched = store.workspace(&other).await.unwrap().unwrap();
    assert_eq!(untouched.budget, BUDGET);
    let unknown = WorkspaceId::generate();
    assert_refused!(store.set_workspace_budget(&unknown, &most).await, Error::NotFound);
    // More than can be stored is no cap.
    let endless = Monthly {
        max_cost: Some(NanoUsd(u64::MAX)),
        max_tokens: Some(u64::MAX),
    };
    let changed = store.set_workspace_budget(&ours, &endless).await.unwrap();
    assert_eq!(changed.budget, Monthly::default());
}

/// Workspaces are read back, one by one and in order; the default one is always there.
pub async fn workspaces(store: Arc<dyn Store>) {
    let default = WorkspaceId::default_workspace();
    assert!(store.workspace(&default).await.unwrap().is_some());
    let (one, two) = (workspace(&store).await, workspace(&store).await);
    let found = store.workspace(&one).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.created_at), ("Büro", NOW));
    assert_refused!(store.create_workspace(&found, None).await, Error::Conflict);
    assert_eq!(store.workspace(&WorkspaceId::generate()).await.unwrap(), None);
    let after_one = store.workspaces(Some(&one), 1000).await.unwrap().rows;
    assert!(after_one.iter().any(|row| row.id == two));
    assert!(after_one.iter().all(|row| row.id != one));
    assert_refused!(
        store.workspaces(Some(&WorkspaceId::generate()), 10).await,
        Error::NotFound
    );
}

/// A key is read back, in its workspace only.
pub async fn keys(store: Arc<dyn Store>) {
    let (ours, theirs) = (workspace(&store).await, workspace(&store).await);
    let made = key(&ours);
    let idempotency = once("key.create", "k");
    store.create_key(&made, 10, Some(&idempotency)).await.unwrap();
    let id = &made.key.id;
    assert_eq!(store.key(&ours, id).await.unwrap().as_ref(), Some(&made.key));
    assert_eq!(store.key(&theirs, id).await.unwrap(), None);
    assert_eq!(
        store.keys(&ours, None, 10).await.unwrap().rows,
        std::slice::from_ref(&made.key)
    );
    assert!(store.keys(&theirs, None, 10).await.unwrap().rows.is_empty());
    assert_refused!(store.keys(&theirs, Some(id), 10).await, Error::NotFound);
    assert_eq!(live(&store, &ours).await, std::slice::from_ref(&made));
    assert_refused!(
        store.create_key(&key(&ours), 10, Some(&idempotency)).await,
        Error::AlreadyDone(_)
    );
    let mut double = key(&ours);
    double.digest = made.digest;
    assert_refused!(store.create_key(&double, 10, None).await, Error::Conflict);
    let stray = key(&WorkspaceId::generate());
    assert_refused!(store.create_key(&stray, 10, None).await, Error::NotFound);
    assert_refused!(store.create_key(&key(&ours), 1, None).await, Error::Limit(1));
}

/// A rotation keeps the secret before it when asked to, and never two of them.
pub async fn rotation(store: Arc<dyn Store>) {
    let (ours, theirs) = (workspace(&store).await, workspace(&store).await);
    let made = key(&ours);
    store.create_key(&made, 10, None).await.unwrap();
    let (id, first) = (&made.key.id, made.digest);
    let second = other(&first);
    assert_refused!(
        store.rotate_key(&theirs, id, &second, None, NOW, None).await,
        Error::NotFound
    );
    let until = Some(Timestamp(NOW.0 + 5));
    let rotated = store
        .rotate_key(&ours, id, &second, until, NOW, None)
        .await
        .unwrap();
    assert_eq!((rotated.digest, rotated.previous), (second, Some(first)));
    assert_eq!(
        (rotated.key.rotated_at, rotated.key.previous_until),
        (Some(NOW), until)
    );
    assert_eq!(live(&store, &ours).await, [rotated]);
    let mut third = first;
    third.0[30] ^= 1;
    let again = store
        .rotate_key(&ours, id, &third, until, NOW, None)
        .await
        .unwrap();
    assert_eq!((again.digest, again.previous), (third, Some(second)));
    let bare = store
        .rotate_key(&ours, id, &first, None, NOW, None)
        .await
        .unwrap();
    assert_eq!(
        (bare.digest, bare.previous, bare.key.previous_until),
        (first, None, None)
    );
}

/// A revoked key stays readable, is not loaded any more, makes room, and can't be rotated.
pub async fn revocation(store: Arc<dyn Store>) {
    let (ours, theirs) = (workspace(&store).await, workspace(&store).await);
    let made = key(&ours);
    store.create_key(&made, 1, None).await.unwrap();
    let id = &made.key.id;
    assert_refused!(store.revoke_key(&theirs, id, NOW).await, Error::NotFound);
    assert_eq!(live(&store, &ours).await.len(), 1);
    let revoked = store.revoke_key(&ours, id, NOW).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(NOW));
    let later = Timestamp(NOW.0 + 1);
    assert_eq!(store.revoke_key(&ours, id, later).await.unwrap(), revoked);
    assert_eq!(store.key(&ours, id).await.unwrap(), Some(revoked));
    assert!(live(&store, &ours).await.is_empty());
    assert_refused!(
        store
            .rotate_key(&ours, id, &other(&made.digest), None, later, None)
            .await,
        Error::Conflict
    );
    store.create_key(&key(&ours), 1, None).await.unwrap();
}

/// The last use only ever moves forward; keys that are gone are no reason to fail.
pub async fn last_use(store: Arc<dyn Store>) {
    let ours = workspace(&store).await;
    let made = key(&ours);
    store.create_key(&made, 10, None).await.unwrap();
    let id = &made.key.id;
    for (at, noted) in [(5, 5), (9, 9), (7, 9)] {
        let used = [(id.clone(), Timestamp(at)), (KeyId::generate(), Timestamp(1))];
        store.touch_keys(&used).await.unwrap();
        let found = store.key(&ours, id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(Timestamp(noted)));
    }
}

fn user(workspace: &Workspace, key: &StoredKey, ends: i64, github: Option<u64>) -> User {
    User {
        id: UserId::generate(),
        workspace: workspace.id.clone(),
        key: key.key.id.clone(),
        tier: if github.is_some() {
            Tier::Github
        } else {
            Tier::Anonymous
        },
        created_at: NOW,
        expires_at: Some(Timestamp(ends)),
        github: github.map(|id| GithubAccount {
            id,
            login: "octo".into(),
            avatar_url: None,
        }),
    }
}

/// Users come with a workspace and a key, are found by it, end, and take everything with them.
pub async fn users(store: Arc<dyn Store>) {
    let make = |ends: i64, github: Option<u64>, most: u32| {
        let store = Arc::clone(&store);
        async move {
            let workspace = Workspace {
                id: WorkspaceId::generate(),
                name: "u".into(),
                budget: BUDGET,
                max_sessions: Some(1),
                created_at: NOW,
            };
            let key = key(&workspace.id);
            let user = user(&workspace, &key, ends, github);
            let audit = entry(&workspace.id, 0, "user.create", Some(user.id.as_str()));
            let made = store
                .create_user(&user, &workspace, &key, most, Some(&audit))
                .await;
            // What the trail says of it is there with it, or not at all.
            let trail = store
                .audit(&workspace.id, &AuditFilter::default(), None, 10)
                .await
                .unwrap();
            assert_eq!(trail.rows, made.is_ok().then_some(audit).as_slice());
            made.map(|()| (user, workspace))
        }
    };
    // Another case may use the same store, and none but this one makes users.
    let (one, workspace) = make(NOW.0 + 10, None, 2).await.unwrap();
    let (two, _) = make(NOW.0 + 20, None, 2).await.unwrap();
    assert_refused!(make(NOW.0 + 20, None, 2).await, Error::Limit(2));
    let (three, _) = make(NOW.0 + 30, Some(7), 1).await.unwrap();
    assert_refused!(make(NOW.0 + 30, Some(7), 9).await, Error::Conflict);
    assert_eq!(store.user_of_github(7).await.unwrap().as_ref(), Some(&three));
    assert_eq!(store.user_of_github(8).await.unwrap(), None);
    assert_eq!(store.user_of_key(&one.key).await.unwrap().as_ref(), Some(&one));
    assert_eq!(store.user_of_key(&KeyId::generate()).await.unwrap(), None);
    let ends = store.expired_users(Timestamp(NOW.0 + 20), 10).await.unwrap();
    assert_eq!(ends, [one.clone(), two]);
    assert_eq!(store.expired_users(Timestamp(NOW.0 + 9), 10).await.unwrap(), []);

    let agent = Arc::new(agent(&workspace.id));
    store.create_agent(&agent, None).await.unwrap();
    let session = new_session(&workspace.id, &agent);
    store.create_session(&session, None).await.unwrap();
    assert_refused!(
        store
            .create_session(&new_session(&workspace.id, &agent), None)
            .await,
        Error::TooManySessions(1)
    );
    assert_refused!(store.remove_workspace(&workspace.id).await, Error::InUse(1));
    store.delete_session(&workspace.id, &session.id).await.unwrap();
    store.remove_workspace(&workspace.id).await.unwrap();
    assert_eq!(store.workspace(&workspace.id).await.unwrap(), None);
    assert_eq!(store.user_of_key(&one.key).await.unwrap(), None);
    assert_eq!(store.key(&workspace.id, &one.key).await.unwrap(), None);
    assert_eq!(store.agent(&workspace.id, &agent.id).await.unwrap(), None);
    // Its place is free.
    make(NOW.0 + 20, None, 2).await.unwrap();
}

/// Keys that were revoked long enough ago are forgotten; others are not.
pub async fn forgotten_keys(store: Arc<dyn Store>) {
    let ours = workspace(&store).await;
    let (old, fresh, live) = (key(&ours), key(&ours), key(&ours));
    for stored in [&old, &fresh, &live] {
        store.create_key(stored, 10, None).await.unwrap();
    }
    // No other case revokes anything as early as that.
    store.revoke_key(&ours, &old.key.id, Timestamp(5)).await.unwrap();
    store.revoke_key(&ours, &fresh.key.id, NOW).await.unwrap();
    assert_eq!(store.forget_keys(Timestamp(5)).await.unwrap(), 0);
    assert_eq!(store.forget_keys(Timestamp(6)).await.unwrap(), 1);
    assert_eq!(store.key(&ours, &old.key.id).await.unwrap(), None);
    for stored in [&fresh, &live] {
        assert!(store.key(&ours, &stored.key.id).await.unwrap().is_some());
    }
}
