//! Vaults, credentials and the master key in force.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::vault::{DataKey, Field, Kind, MasterKeyId, Refresh, Sealed, Spec, Vault};
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};

use super::fixtures::{NOW, agent, collect, new_session, once};
use crate::{Admission, Error, Store, StoredCredential, VaultFilter, VaultKey, assert_refused};

const MOST: u32 = 3;

/// How credentials are added here, where many may be for the same place.
const FEW: Admission = Admission {
    most: MOST,
    unique: false,
};

/// A vault of a user.
#[must_use]
pub fn vault(workspace: &WorkspaceId, user: Option<&str>) -> Vault {
    Vault {
        id: VaultId::generate(),
        workspace: workspace.clone(),
        user: user.map(str::to_owned),
        name: "Ёлка's".into(),
        metadata: [("team".into(), "grün".into())].into_iter().collect(),
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
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
                        resource: Some("https://mcp.example/".into()),
                    }),
                },
            },
            metadata: [("k".into(), "v".into())].into_iter().collect(),
            created_at: NOW,
            updated_at: Timestamp(NOW.0 + 1),
            archived_at: None,
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

fn filter(user: Option<&str>) -> VaultFilter {
    VaultFilter {
        user: user.map(str::to_owned),
        only_active: false,
    }
}

/// A vault that was stored.
pub async fn stored(store: &Arc<dyn Store>, workspace: &WorkspaceId, user: Option<&str>) -> Vault {
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
    let mut renamed = vault.clone();
    renamed.name = String::new();
    renamed.metadata.clear();
    renamed.updated_at = later;
    store.update_vault(&vault, &renamed).await.unwrap();
    assert_eq!(
        store.vault(&workspace, &vault.id).await.unwrap(),
        Some(renamed.clone())
    );
    assert_refused!(store.update_vault(&vault, &renamed).await, Error::Conflict);
    assert_refused!(store.update_vault(&other, &other).await, Error::NotFound);
    // Its time never goes back.
    store.update_vault(&renamed, &vault).await.unwrap();
    let found = store.vault(&workspace, &vault.id).await.unwrap().unwrap();
    assert_eq!((&found.name, found.updated_at), (&vault.name, later));

    let credential = credential(&vault);
    let scope = format!("credential.create:{}", vault.id);
    store
        .add_credential(&credential, "p", FEW, Some(&once(&scope, "k")))
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
    let listed = async |user: Option<&str>, only_active, order| {
        let rows = collect(|after: Option<VaultId>| {
            let (store, workspace) = (&store, &workspace);
            let filter = VaultFilter {
                user: user.map(str::to_owned),
                only_active,
            };
            async move { store.vaults(workspace, &filter, order, after.as_ref(), 1).await }
        });
        rows.await.into_iter().map(|vault| vault.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, false, Order::Ascending).await, ids);
    let mut back = ids.clone();
    back.reverse();
    assert_eq!(listed(None, false, Order::Descending).await, back);
    assert_eq!(
        listed(Some("a"), false, Order::Descending).await,
        [ids[3].clone(), ids[0].clone()]
    );
    assert_eq!(listed(Some("c"), false, Order::Ascending).await, []);
    store.archive_vault(&workspace, &ids[0], NOW).await.unwrap();
    assert_eq!(listed(None, false, Order::Ascending).await, ids);
    assert_eq!(listed(None, true, Order::Ascending).await, ids[1..]);
    assert_eq!(listed(Some("a"), true, Order::Descending).await, ids[3..]);
    assert_refused!(
        store
            .vaults(
                &workspace,
                &VaultFilter::default(),
                Order::Ascending,
                Some(&VaultId::generate()),
                1
            )
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
        store.add_credential(&credential, "p", FEW, None).await.unwrap();
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
        store.add_credential(&credential(&vault), "p", FEW, None).await,
        Error::TooMany(MOST)
    );
    assert_refused!(
        store
            .add_credential(
                &all[0],
                "p",
                Admission {
                    most: MOST + 1,
                    unique: false
                },
                None
            )
            .await,
        Error::Conflict
    );
    let nowhere = credential(&super::vaults::vault(&workspace, None));
    assert_refused!(
        store.add_credential(&nowhere, "p", FEW, None).await,
        Error::NotFound
    );
    let listed = collect(|after: Option<CredentialId>| {
        let (store, workspace, vault) = (&store, &workspace, &vault);
        async move {
            store
                .credentials(workspace, &vault.id, false, Order::Ascending, after.as_ref(), 2)
                .await
        }
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
    store.add_credential(&credential, "p", FEW, None).await.unwrap();
    let id = &credential.credential.id;
    assert_eq!(store.vault(&ours, &vault.id).await.unwrap(), None);
    assert_eq!(store.vault_key(&ours, &vault.id).await.unwrap(), None);
    assert_eq!(store.credential(&ours, &vault.id, id).await.unwrap(), None);
    for user in [None, Some("u")] {
        let page = store
            .vaults(&ours, &filter(user), Order::Ascending, None, 10)
            .await
            .unwrap();
        assert_eq!(page.rows, []);
    }
    let page = store
        .credentials(&ours, &vault.id, false, Order::Ascending, None, 10)
        .await
        .unwrap();
    assert_eq!(page.rows, []);
    assert_refused!(
        store
            .vaults(&ours, &filter(None), Order::Ascending, Some(&vault.id), 10)
            .await,
        Error::NotFound
    );
    assert_refused!(
        store
            .credentials(&ours, &vault.id, false, Order::Descending, Some(id), 10)
            .await,
        Error::NotFound
    );
    let mut stolen = vault.clone();
    stolen.workspace = ours.clone();
    assert_refused!(store.update_vault(&stolen, &stolen).await, Error::NotFound);
    assert_refused!(store.archive_vault(&ours, &vault.id, NOW).await, Error::NotFound);
    let archived = store.archive_credential(&ours, &vault.id, id, NOW).await.unwrap();
    assert_eq!(archived, None);
    assert!(!store.delete_vault(&ours, &vault.id).await.unwrap());
    assert!(!store.delete_credential(&ours, &vault.id, id, NOW).await.unwrap());
    let mut forged = credential.clone();
    forged.credential.workspace = ours.clone();
    forged.revision = 2;
    assert_refused!(store.update_credential(&forged).await, Error::NotFound);
    forged.credential.id = CredentialId::generate();
    assert_refused!(
        store.add_credential(&forged, "p", FEW, None).await,
        Error::NotFound
    );
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

/// What is archived has no secrets, stays to be seen, counts nowhere, and is changed no more.
pub async fn archiving(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let vault = stored(&store, &workspace, None).await;
    let only = Admission {
        most: 2,
        unique: true,
    };
    let first = credential(&vault);
    store.add_credential(&first, "here", only, None).await.unwrap();
    assert_refused!(
        store
            .add_credential(&credential(&vault), "here", only, None)
            .await,
        Error::NameTaken
    );
    let second = credential(&vault);
    store.add_credential(&second, "there", only, None).await.unwrap();
    assert_refused!(
        store
            .add_credential(&credential(&vault), "elsewhere", only, None)
            .await,
        Error::TooMany(2)
    );

    let id = &first.credential.id;
    let (at, later) = (Timestamp(NOW.0 + 7), Timestamp(NOW.0 + 8));
    for when in [at, later] {
        let archived = store.archive_credential(&workspace, &vault.id, id, when).await;
        assert_eq!(archived.unwrap().unwrap().archived_at, Some(at));
    }
    let found = store.credential(&workspace, &vault.id, id).await.unwrap();
    let found = found.unwrap();
    assert!(found.secrets.is_empty(), "its secrets are gone");
    assert_eq!(found.credential.spec, first.credential.spec);
    for revision in [2, 3] {
        let mut next = first.clone();
        next.revision = revision;
        assert_refused!(store.update_credential(&next).await, Error::Conflict);
    }
    let specs = store.credential_specs(&workspace, &vault.id).await.unwrap();
    assert_eq!(specs.as_slice(), std::slice::from_ref(&second.credential));
    let third = credential(&vault);
    store.add_credential(&third, "here", only, None).await.unwrap();
    let listed = async |only_active, order| {
        let rows = collect(|after: Option<CredentialId>| {
            let (store, workspace, vault) = (&store, &workspace, &vault.id);
            async move {
                store
                    .credentials(workspace, vault, only_active, order, after.as_ref(), 1)
                    .await
            }
        });
        let ids = rows.await.into_iter().map(|stored| stored.credential.id);
        ids.collect::<Vec<_>>()
    };
    let ids = [
        id.clone(),
        second.credential.id.clone(),
        third.credential.id.clone(),
    ];
    assert_eq!(listed(false, Order::Ascending).await, ids);
    assert_eq!(listed(true, Order::Ascending).await, ids[1..]);
    let mut back = ids[1..].to_vec();
    back.reverse();
    assert_eq!(listed(true, Order::Descending).await, back);

    let last = Timestamp(NOW.0 + 20);
    let archived = store.archive_vault(&workspace, &vault.id, last).await.unwrap();
    assert_eq!((archived.archived_at, archived.updated_at), (Some(last), last));
    let again = store
        .archive_vault(&workspace, &vault.id, Timestamp(NOW.0 + 30))
        .await;
    assert_eq!(again.unwrap(), archived);
    for (id, when) in ids.iter().zip([at, last, last]) {
        let found = store
            .credential(&workspace, &vault.id, id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.credential.archived_at, Some(when));
        assert!(found.secrets.is_empty());
    }
    assert_eq!(store.credential_specs(&workspace, &vault.id).await.unwrap(), []);
    assert_refused!(
        store.add_credential(&credential(&vault), "new", only, None).await,
        Error::VaultArchived
    );
    assert_refused!(
        store.update_vault(&archived, &archived).await,
        Error::VaultArchived
    );
    let mut session = new_session(&workspace, &Arc::new(agent(&workspace)));
    session.vaults = vec![vault.id.clone()];
    assert_refused!(store.create_session(&session, None).await, Error::VaultArchived);
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
