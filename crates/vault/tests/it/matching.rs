//! Which credential a URL gets, and what the disk, errors and `Debug` show of it.

use oma_domain::{CredentialId, VaultId, WorkspaceId};
use oma_vault::{CredentialChange, Error, NewSecret};
use secrecy::SecretString;
use url::Url;

use crate::setup::{MANY, Setup, bearer, oauth};

#[tokio::test]
async fn the_longest_rule_of_the_first_vault_counts() {
    let setup = Setup::new().await;
    let (first, second, empty) = (setup.vault().await, setup.vault().await, setup.vault().await);
    for (url, token) in [
        ("https://a.example", "root"),
        ("https://a.example/mcp/deep", "deep"),
        ("https://a.example/mcp", "old-mcp"),
        ("https://a.example/mcp/", "mcp"),
    ] {
        setup.add(&first, bearer(url, token)).await;
    }
    setup
        .add(&second, bearer("https://a.example/mcp/deep/er", "second"))
        .await;
    setup.add(&second, bearer("https://b.example", "b")).await;
    let vaults = [empty.clone(), VaultId::generate(), first.clone(), second.clone()];
    for (url, expected) in [
        ("https://a.example/", Some("root")),
        ("https://a.example/mcpx", Some("root")),
        ("https://a.example/mcp/x", Some("mcp")),
        ("https://a.example/mcp/deep/er", Some("deep")),
        ("https://b.example/x?y", Some("b")),
        ("https://c.example/", None),
        ("http://a.example/", None),
        ("https://a.example.evil.example/", None),
        ("ftp://a.example/", None),
    ] {
        assert_eq!(setup.token(&vaults, url).await.as_deref(), expected, "{url}");
    }
    assert_eq!(setup.token(&[], "https://a.example/").await, None);
    let url = Url::parse("https://a.example/").unwrap();
    let foreign = setup
        .vaults
        .bearer_for(&WorkspaceId::generate(), &vaults, &url)
        .await;
    assert!(foreign.unwrap().is_none());
    setup.vaults.delete(&setup.workspace, &first).await.unwrap();
    assert_eq!(
        setup
            .token(&vaults, "https://a.example/mcp/deep/er")
            .await
            .as_deref(),
        Some("second")
    );
}

#[tokio::test]
async fn a_rule_that_can_never_match_is_refused() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let refused = async |new| {
        let added = setup
            .vaults
            .add_credential(
                &setup.workspace,
                &vault,
                CredentialId::generate(),
                new,
                MANY,
                None,
            )
            .await;
        match added {
            Err(Error::Invalid { field, message }) => {
                assert!(!message.contains("canary"), "{message}");
                Some(field)
            }
            Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    };
    for url in [
        "a.example",
        "http://a.example/",
        "https://user@a.example/",
        "https://10.0.0.1/",
    ] {
        assert_eq!(refused(bearer(url, "t")).await, Some("matchUrl"), "{url}");
        assert_eq!(refused(oauth(url, 0)).await, Some("tokenEndpoint"), "{url}");
    }
    assert_eq!(
        refused(bearer("https://a.example/?q", "t")).await,
        Some("matchUrl")
    );
    assert_eq!(refused(oauth("https://id.example/token?tenant=1", 0)).await, None);
    assert_eq!(refused(bearer("http://127.0.0.1:81/", "t")).await, None);
    for token in ["canary\r\nX-Evil: 1", "canary é", "with space", ""] {
        assert_eq!(
            refused(bearer("https://a.example/", token)).await,
            Some("token"),
            "{token:?}"
        );
    }
}

#[tokio::test]
async fn a_credential_is_changed_in_place() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let id = setup
        .add(&vault, bearer("https://a.example/", "canary-one"))
        .await;
    let update = async |change: CredentialChange| {
        setup
            .vaults
            .update_credential(&setup.workspace, &vault, &id, &change)
            .await
    };
    let changed = update(CredentialChange {
        name: Some("renamed".into()),
        token: Some(SecretString::from("canary-two")),
        ..Default::default()
    })
    .await
    .unwrap();
    assert_eq!(changed.spec.name, "renamed");
    let vaults = [vault.clone()];
    assert_eq!(
        setup.token(&vaults, "https://a.example/").await.as_deref(),
        Some("canary-two")
    );
    for (field, change) in [
        (
            "accessToken",
            CredentialChange {
                access_token: Some(SecretString::from("x")),
                ..Default::default()
            },
        ),
        (
            "refreshToken",
            CredentialChange {
                refresh_token: Some(SecretString::from("x")),
                ..Default::default()
            },
        ),
        (
            "token",
            CredentialChange {
                token: Some(SecretString::from("a\nb")),
                ..Default::default()
            },
        ),
    ] {
        let refused = update(change).await;
        assert!(
            matches!(&refused, Err(Error::Invalid { field: found, .. }) if *found == field),
            "{field}: {refused:?}"
        );
    }
    assert_eq!(
        setup.token(&vaults, "https://a.example/").await.as_deref(),
        Some("canary-two")
    );
}

#[tokio::test]
async fn no_secret_shows_on_the_disk_or_in_debug() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let new = oauth("https://id.example/token", 3600);
    assert!(!format!("{new:?}").contains("canary"), "{new:?}");
    let NewSecret::McpOauth { .. } = &new.secret else {
        panic!("OAuth");
    };
    let id = setup.add(&vault, new).await;
    setup
        .add(&vault, bearer("https://a.example/", "canary-static"))
        .await;
    let stored = setup
        .store
        .credential(&setup.workspace, &vault, &id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.secrets.len(), 3);
    assert!(!format!("{stored:?} {:?}", setup.vaults).contains("canary"));
    let folder = setup.folder.as_ref().unwrap().path();
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        bytes += content.len();
        assert!(!content.windows(6).any(|window| window == b"canary"));
    }
    assert!(bytes > 10_000, "the database was looked at");
}

#[tokio::test]
async fn a_ciphertext_that_was_moved_does_not_open() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let url = Url::parse("https://a.example/").unwrap();
    let id = setup.add(&vault, bearer("https://a.example/", "one")).await;
    let other = setup.add(&vault, bearer("https://b.example/", "two")).await;
    let stored = async |id: &CredentialId| {
        let found = setup.store.credential(&setup.workspace, &vault, id).await;
        found.unwrap().unwrap()
    };
    // Somebody who can write to the database puts the other's token here, then points this one elsewhere.
    let mut forged = stored(&id).await;
    forged.secrets = stored(&other).await.secrets;
    forged.revision += 1;
    setup.store.update_credential(&forged).await.unwrap();
    let vaults = [vault.clone()];
    let found = setup.vaults.bearer_for(&setup.workspace, &vaults, &url).await;
    assert!(matches!(found, Err(Error::Unreadable(_))), "{found:?}");
    let mut forged = stored(&other).await;
    forged.credential.spec.match_url = "https://evil.example/".into();
    forged.revision += 1;
    setup.store.update_credential(&forged).await.unwrap();
    let evil = Url::parse("https://evil.example/").unwrap();
    let found = setup.vaults.bearer_for(&setup.workspace, &vaults, &evil).await;
    assert!(matches!(found, Err(Error::Unreadable(_))), "{found:?}");
}

#[tokio::test]
async fn every_credential_of_a_vault_can_match_however_large_the_others_are() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    // Together more than a page of the store.
    let large = "x".repeat(65_000);
    for number in 0..99 {
        let url = format!("https://other.example/{number}");
        setup.add(&vault, bearer(&url, &large)).await;
    }
    setup.add(&vault, bearer("https://mcp.example/", "last")).await;
    let found = setup
        .token(std::slice::from_ref(&vault), "https://mcp.example/x")
        .await;
    assert_eq!(found.as_deref(), Some("last"));
}
