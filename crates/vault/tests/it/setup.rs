//! A store with vaults over it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use oma_domain::{CredentialId, Timestamp, VaultId, WorkspaceId};
use oma_egress::{Guard, Policy};
use oma_store::Store;
use oma_store::sqlite::{Options, Sqlite};
use oma_vault::key_file::{Source, unlock};
use oma_vault::{Admission, ClientSecret, NewCredential, NewRefresh, NewSecret, NewVault, Vaults};
use secrecy::SecretString;
use tempfile::TempDir;
use url::Url;

use crate::issuer::{access, refresh};

/// How credentials are added here, where many may be for the same place.
pub(crate) const MANY: Admission = Admission {
    most: 100,
    unique: false,
};

pub(crate) struct Setup {
    pub(crate) vaults: Vaults,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) workspace: WorkspaceId,
    pub(crate) folder: Option<TempDir>,
}

pub(crate) async fn open(folder: &Path) -> Arc<dyn Store> {
    let folder = folder.to_owned();
    Arc::new(
        tokio::task::spawn_blocking(move || Sqlite::open(&folder, &Options::default()))
            .await
            .unwrap()
            .unwrap(),
    )
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Self::over(folder.path()).await;
        setup.folder = Some(folder);
        setup
    }

    pub(crate) async fn over(folder: &Path) -> Self {
        let store = open(folder).await;
        let source = Source::Generated(folder.join("vault.key"));
        let master = unlock(&*store, &source).await.unwrap().master;
        let allow = vec!["127.0.0.1".parse().unwrap()];
        let guard = Arc::new(Guard::new(Policy { allow }));
        Self {
            vaults: Vaults::new(Arc::clone(&store), master, guard),
            store,
            workspace: WorkspaceId::default_workspace(),
            folder: None,
        }
    }

    pub(crate) async fn vault(&self) -> VaultId {
        let new = NewVault {
            user: Some("user".into()),
            name: String::new(),
            metadata: BTreeMap::new(),
        };
        let id = VaultId::generate();
        self.vaults
            .create(&self.workspace, id.clone(), new, None)
            .await
            .unwrap();
        id
    }

    pub(crate) async fn add(&self, vault: &VaultId, new: NewCredential) -> CredentialId {
        let id = CredentialId::generate();
        self.vaults
            .add_credential(&self.workspace, vault, id.clone(), new, MANY, None)
            .await
            .unwrap();
        id
    }

    /// Makes a credential as old as this, in seconds.
    pub(crate) async fn age(&self, vault: &VaultId, id: &CredentialId, seconds: i64) {
        let found = self.store.credential(&self.workspace, vault, id).await.unwrap();
        let mut stored = found.unwrap();
        stored.credential.created_at.0 -= seconds * 1000;
        stored.credential.updated_at.0 -= seconds * 1000;
        let at = stored.credential.updated_at;
        let removed = self.store.delete_credential(&self.workspace, vault, id, at).await;
        assert!(removed.unwrap());
        self.store.add_credential(&stored, "", MANY, None).await.unwrap();
    }

    /// The token that a URL gets.
    pub(crate) async fn token(&self, vaults: &[VaultId], url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let bearer = self
            .vaults
            .bearer_for(&self.workspace, vaults, &url)
            .await
            .unwrap();
        bearer.map(|bearer| secrecy::ExposeSecret::expose_secret(&bearer.token).to_owned())
    }
}

pub(crate) fn bearer(match_url: &str, token: &str) -> NewCredential {
    NewCredential {
        name: "n".into(),
        match_url: match_url.into(),
        secret: NewSecret::StaticBearer {
            token: SecretString::from(token),
        },
        metadata: BTreeMap::new(),
    }
}

/// The first pair of an issuer, whose access token ends in this many seconds.
pub(crate) fn oauth(endpoint: &str, seconds: i64) -> NewCredential {
    NewCredential {
        name: "n".into(),
        match_url: "https://mcp.example/".into(),
        secret: NewSecret::McpOauth {
            access_token: SecretString::from(access(0)),
            expires_at: Some(soon(seconds)),
            refresh: Some(NewRefresh {
                refresh_token: SecretString::from(refresh(0)),
                token_endpoint: endpoint.into(),
                client_id: "client".into(),
                client_secret: ClientSecret::Post(SecretString::from("canary-client-secret")),
                scopes: Some(vec!["read".into(), "write".into()]),
                resource: None,
            }),
        },
        metadata: BTreeMap::new(),
    }
}

pub(crate) fn soon(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp(i64::try_from(now).unwrap() + seconds * 1000)
}
