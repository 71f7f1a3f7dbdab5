//! Vaults, credentials and the master key in force.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::vault::{DataKey, Field, Kind, MasterKeyId, Refresh, Sealed, Spec, Vault};
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};

use super::fixtures::{NOW, agent, collect, new_session, once};
use crate::{Error, Store, StoredCredential, VaultKey, assert_refused};

const MOST: u32 = 3;

/// A vault of a user.
#[must_use]
pub fn vault(workspace: &WorkspaceId, user: Option<&str>) -> Vault {
    Vault {
        id: VaultId::generate(),
        workspace: workspace.clone(),
        user: user.map(str::to_owned),
        name: "Ёлка's".into(),
        created_at: NOW,
        updated_at: NOW,
    }
}

/// A credential at revision 1.
#[must_use]
pub fn credential(vault: &Vault) -> StoredCredential {
    StoredCredential {
        credential: Credential {
            id: CredentialId::generate(),
            vault: vault.id.clone(),
            workspace: vault.workspace.clone(),
            spec: Spec {
                name: "github".into(),
                match_url: "https://mcp.example/x".into(),
                kind: Kind::McpOauth {
                    expires_at: Some(NOW),
                    refresh: Some(Refresh {
                        token_endpoint: "https://id.example/token".into(),
                        client_id: "c".into(),
                        client_auth: oma_domain::vault::ClientAuth::ClientSecretPost,
                        scopes: Some(vec!["a".into()]),
                    }),
                },
            },
            created_at: NOW,
            updated_at: Timestamp(NOW.0 + 1),
        },
        secrets: [
            (Field::Token, Sealed::new("1.abc".into())),
            (Field::RefreshToken, Sealed::new("1.d".into())),
        ]
        .into_iter()
        .collect(),
        revision: 1,
    }
}

fn key(master: &MasterKeyId) -> DataKey {
    DataKey {
        version: 1,
        master: master.clone(),
        sealed: Sealed::new("1.sealed".into()),
    }
}

/// The master key in force; whichever case came first has claimed it.
async fn master(store: &Arc<dyn Store>) -> MasterKeyId {
    store
        .claim_master_key(&MasterKeyId::new("master".into()))
        .await
        .unwrap()
}

async fn stored(store: &Arc<dyn Store>, workspace: &WorkspaceId, user: Option<&str>) -> Vault {
    let vault = vault(workspace, user);
    let key = key(&master(store).await);
    store.create_vault(&vault, &key, None).await.unwrap();
    vault
}

/// What was written is read back, changed, and goes with everything in it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let vault = vault(&workspace, Some("user-1"));
    let key = key(&master(&store).await);
    let mark = once("vault.create", "k");
    store.create_vault(&vault, &key, Some(&mark)).await.unwrap();
    assert_refused!(
        store.create_vault(&vault, &key, Some(&mark)).await,
        Error::AlreadyDone(_)
    );
    assert_refused!(store.create_vault(&vault, &key, None).await, Error::Conflict);
    let foreign = DataKey {
        master: MasterKeyId::new("another".into()),
        ..key.clone()
    };
    let other = super::vaults::vault(&workspace, None);
    assert_refused!(store.create_vault(&other, &foreign, None).await, Error::Conflict);
    assert_eq!(
        store.vault(&workspace, &vault.id).await.unwrap(),
        Some(vault.clone())
    );
    assert_eq!(store.vault_key(&workspace, &vault.id).await.unwrap(), Some(key));
    assert_eq!(store.vault(&workspace, &other.id).await.unwrap(), None);

    let later = Timestamp(NOW.0 + 5);
    let renamed = store
        .rename_vault(&workspace, &vault.id, "", later)
        .await
        .unwrap();
    assert_eq!((renamed.name.as_str(), renamed.updated_at), ("", later));
    assert_refused!(
        store.rename_vault(&workspace, &other.id, "x", later).await,
        Error::NotFound
    );

    let credential = credential(&vault);
    let scope = format!("credential.create:{}", vault.id);
    store
        .add_credential(&credential, MOST, Some(&once(&scope, "k")))
        .await
        .unwrap();
    assert!(store.delete_vault(&workspace, &vault.id).await.unwrap());
    assert!(!store.delete_vault(&workspace, &vault.id).await.unwrap());
    assert_eq!(store.vault(&workspace, &vault.id).await.unwrap(), None);
    assert_eq!(store.vault_key(&workspace, &vault.id).await.unwrap(), None);
    let id = &credential.credential.id;
    assert_eq!(store.credential(&workspace, &vault.id, id).await.unwrap(), None);
    assert_eq!(store.done(&workspace, &scope, "k").await.unwrap(), None);
}

/// Lists by creation, both ways, of everybody or of one user.
pub async fn lists(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut ids = Vec::new();
    for user in [Some("a"), None, Some("b"), Some("a")] {
        ids.push(stored(&store, &workspace, user).await.id);
    }
    let listed = async |user: Option<&str>, order| {
        let rows = collect(|after: Option<VaultId>| {
            let (store, workspace, user) = (&store, &workspace, user);
            async move { store.vaults(workspace, user, order, after.as_ref(), 1).await }
        });
        rows.await.into_iter().map(|vault| vault.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, Order::Ascending).await, ids);
    let mut back = ids.clone();
    back.reverse();
    assert_eq!(listed(None, Order::Descending).await, back);
    assert_eq!(
        listed(Some("a"), Order::Descending).await,
        [ids[3].clone(), ids[0].clone()]
    );
    assert_eq!(listed(Some("c"), Order::Ascending).await, []);
    assert_refused!(
        store
            .vaults(&workspace, None, Order::Ascending, Some(&VaultId::generate()), 1)
            .await,
        Error::NotFound
    );
}

/// Credentials are added up to the limit, changed by revision, listed and removed; the vault counts as changed.
pub async fn credentials(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let vault = stored(&store, &workspace, None).await;
    let mut all = Vec::new();
    for _ in 0..MOST {
        let credential = credential(&vault);
        store.add_credential(&credential, MOST, None).await.unwrap();
        all.push(credential);
    }
    let changed_at = async || {
        store
            .vault(&workspace, &vault.id)
            .await
            .unwrap()
            .unwrap()
            .updated_at
    };
    assert_eq!(changed_at().await, Timestamp(NOW.0 + 1));
    assert_refused!(
        store.add_credential(&credential(&vault), MOST, None).await,
        Error::TooMany(MOST)
    );
    assert_refused!(
        store.add_credential(&all[0], MOST + 1, None).await,
        Error::Conflict
    );
    let nowhere = credential(&super::vaults::vault(&workspace, None));
    assert_refused!(store.add_credential(&nowhere, MOST, None).await, Error::NotFound);
    let listed = collect(|after: Option<CredentialId>| {
        let (store, workspace, vault) = (&store, &workspace, &vault);
        async move { store.credentials(workspace, &vault.id, after.as_ref(), 2).await }
    });
    assert_eq!(listed.await, all);
    let specs: Vec<_> = all.iter().map(|stored| stored.credential.clone()).collect();
    assert_eq!(
        store.credential_specs(&workspace, &vault.id).await.unwrap(),
        specs
    );
    let elsewhere = WorkspaceId::generate();
    assert_eq!(store.credential_specs(&elsewhere, &vault.id).await.unwrap(), []);

    let mut next = all[1].clone();
    next.revision = 2;
    next.credential.updated_at = Timestamp(NOW.0 + 9);
    next.credential.spec.name = "other".into();
    next.secrets.insert(Field::Token, Sealed::new("1.new".into()));
    store.update_credential(&next).await.unwrap();
    let id = next.credential.id.clone();
    assert_eq!(
        store
            .credential(&workspace, &vault.id, &id)
            .await
            .unwrap()
            .as_ref(),
        Some(&next)
    );
    assert_eq!(changed_at().await, Timestamp(NOW.0 + 9));
    assert_refused!(store.update_credential(&next).await, Error::Conflict);
    next.revision = 4;
    assert_refused!(store.update_credential(&next).await, Error::Conflict);
    let another = stored(&store, &workspace, None).await;
    assert_eq!(
        store.credential(&workspace, &another.id, &id).await.unwrap(),
        None
    );
    assert!(
        !store
            .delete_credential(&workspace, &another.id, &id, NOW)
            .await
            .unwrap()
    );
    let later = Timestamp(NOW.0 + 10);
    assert!(
        store
            .delete_credential(&workspace, &vault.id, &id, later)
            .await
            .unwrap()
    );
    assert!(
        !store
            .delete_credential(&workspace, &vault.id, &id, later)
            .await
            .unwrap()
    );
    assert_eq!(changed_at().await, later);
    next.revision = 3;
    assert_refused!(store.update_credential(&next).await, Error::NotFound);
}

/// Nothing of a vault is visible or changed from another workspace.
pub async fn isolation(store: Arc<dyn Store>) {
    let (theirs, ours) = (WorkspaceId::generate(), WorkspaceId::generate());
    let vault = stored(&store, &theirs, Some("u")).await;
    let credential = credential(&vault);
    store.add_credential(&credential, MOST, None).await.unwrap();
    let id = &credential.credential.id;
    assert_eq!(store.vault(&ours, &vault.id).await.unwrap(), None);
    assert_eq!(store.vault_key(&ours, &vault.id).await.unwrap(), None);
    assert_eq!(store.credential(&ours, &vault.id, id).await.unwrap(), None);
    for user in [None, Some("u")] {
        let page = store
            .vaults(&ours, user, Order::Ascending, None, 10)
            .await
            .unwrap();
        assert_eq!(page.rows, []);
    }
    let page = store.credentials(&ours, &vault.id, None, 10).await.unwrap();
    assert_eq!(page.rows, []);
    assert_refused!(
        store
            .vaults(&ours, None, Order::Ascending, Some(&vault.id), 10)
            .await,
        Error::NotFound
    );
    assert_refused!(
        store.credentials(&ours, &vault.id, Some(id), 10).await,
        Error::NotFound
    );
    assert_refused!(
        store.rename_vault(&ours, &vault.id, "x", NOW).await,
        Error::NotFound
    );
    assert!(!store.delete_vault(&ours, &vault.id).await.unwrap());
    assert!(!store.delete_credential(&ours, &vault.id, id, NOW).await.unwrap());
    let mut forged = credential.clone();
    forged.credential.workspace = ours.clone();
    forged.revision = 2;
    assert_refused!(store.update_credential(&forged).await, Error::NotFound);
    forged.credential.id = CredentialId::generate();
    assert_refused!(store.add_credential(&forged, MOST, None).await, Error::NotFound);
    let mut guest = new_session(&ours, &Arc::new(agent(&ours)));
    guest.vaults = vec![vault.id.clone()];
    assert_refused!(store.create_session(&guest, None).await, Error::VaultGone);
    assert_eq!(
        store.vault(&theirs, &vault.id).await.unwrap().unwrap().name,
        vault.name
    );
    let kept = store.credential(&theirs, &vault.id, id).await.unwrap();
    assert_eq!(kept, Some(credential));
}

/// A session keeps the vaults that it was created with, also when they are gone.
pub async fn pinned(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let (first, second) = (
        stored(&store, &workspace, None).await,
        stored(&store, &workspace, None).await,
    );
    let mut session = new_session(&workspace, &Arc::new(agent(&workspace)));
    session.vaults = vec![second.id.clone(), first.id.clone()];
    store.create_session(&session, None).await.unwrap();
    store.delete_vault(&workspace, &first.id).await.unwrap();
    let found = store.session(&workspace, &session.id).await.unwrap().unwrap();
    assert_eq!(found.vaults, session.vaults);
    let mut late = new_session(&workspace, &Arc::new(agent(&workspace)));
    late.vaults = vec![first.id.clone()];
    assert_refused!(store.create_session(&late, None).await, Error::VaultGone);
}

/// The master key changes with all data keys or not at all. Needs a store of its own.
pub async fn master_key(store: Arc<dyn Store>) {
    let (one, two) = (MasterKeyId::new("one".into()), MasterKeyId::new("two".into()));
    assert_eq!(store.master_key().await.unwrap(), None);
    assert_eq!(store.claim_master_key(&two).await.unwrap(), two);
    // As long as no vault needs it, another one may take its place.
    assert_eq!(store.claim_master_key(&one).await.unwrap(), one);
    let mut vaults = Vec::new();
    for _ in 0..3 {
        let vault = vault(&WorkspaceId::generate(), None);
        store.create_vault(&vault, &key(&one), None).await.unwrap();
        vaults.push(vault);
    }
    assert_eq!(store.claim_master_key(&two).await.unwrap(), one);
    let read = async || {
        collect(|after: Option<VaultId>| {
            let store = &store;
            async move { store.vault_keys(after.as_ref(), 2).await }
        })
        .await
    };
    let before = read().await;
    assert_eq!(before.len(), vaults.len());
    let rewrapped: Vec<VaultKey> = before
        .iter()
        .cloned()
        .map(|mut row| {
            row.key.master = two.clone();
            row.key.sealed = Sealed::new(format!("1.new-{}", row.vault));
            row
        })
        .collect();
    let mut forged = rewrapped.clone();
    forged[0].workspace = WorkspaceId::generate();
    let mut mixed = rewrapped.clone();
    mixed[2].key.master = one.clone();
    for (from, to, keys) in [
        (&two, &one, rewrapped.clone()),
        (&one, &two, rewrapped[..2].to_vec()),
        (&one, &two, forged),
        (&one, &two, mixed),
    ] {
        assert_refused!(store.change_master_key(from, to, keys).await, Error::Conflict);
        assert_eq!(read().await, before);
        assert_eq!(store.master_key().await.unwrap().as_ref(), Some(&one));
    }
    store
        .change_master_key(&one, &two, rewrapped.clone())
        .await
        .unwrap();
    assert_eq!(read().await, rewrapped);
    assert_eq!(store.master_key().await.unwrap().as_ref(), Some(&two));
    assert_refused!(
        store
            .create_vault(&vault(&WorkspaceId::generate(), None), &key(&one), None)
            .await,
        Error::Conflict
    );
}
