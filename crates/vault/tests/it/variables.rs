//! Secrets for sandboxes: which a session has, what they are bound to, and what changes.

use std::collections::BTreeMap;

use oma_domain::VaultId;
use oma_domain::vault::{CredentialNetworking, Field, Injection, Kind};
use oma_vault::{Admission, CredentialChange, Error, InjectionChange, NewCredential, NewSecret};
use secrecy::{ExposeSecret as _, SecretString};

use crate::setup::{MANY, Setup, bearer};

fn hosts(hosts: &[&str]) -> CredentialNetworking {
    CredentialNetworking::Limited {
        allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    }
}

fn variable(name: &str, value: &str) -> NewCredential {
    NewCredential {
        name: "n".into(),
        match_url: String::new(),
        secret: NewSecret::EnvironmentVariable {
            name: name.into(),
            value: SecretString::from(value),
            networking: hosts(&["a.example"]),
            injection: Injection::ALL,
        },
        metadata: BTreeMap::new(),
    }
}

async fn read(setup: &Setup, vaults: &[VaultId]) -> Vec<(String, String)> {
    let found = setup.vaults.variables(&setup.workspace, vaults).await.unwrap();
    let found = found.into_iter();
    found
        .map(|variable| (variable.name, variable.value.expose_secret().to_owned()))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn the_newest_of_the_first_vault_counts() {
    let setup = Setup::new().await;
    let (first, second) = (setup.vault().await, setup.vault().await);
    setup
        .add(&first, bearer("https://a.example", "canary-bearer"))
        .await;
    setup.add(&first, variable("A", "canary-old-a")).await;
    let newest = setup.add(&first, variable("A", "canary-new-a")).await;
    setup.add(&second, variable("A", "canary-second-a")).await;
    setup.add(&second, variable("B", "canary-second-b")).await;
    let vaults = [VaultId::generate(), first.clone(), second.clone()];
    let expected = [("A", "canary-new-a"), ("B", "canary-second-b")];
    assert_eq!(read(&setup, &vaults).await, pairs(&expected));
    let expected = [("A", "canary-second-a"), ("B", "canary-second-b")];
    assert_eq!(read(&setup, &[second, first.clone()]).await, pairs(&expected));
    let workspace = &setup.workspace;
    let before = setup.vaults.changes();
    setup
        .vaults
        .archive_credential(workspace, &first, &newest)
        .await
        .unwrap();
    assert_ne!(setup.vaults.changes(), before);
    assert_eq!(read(&setup, &vaults).await[0].1, "canary-old-a");
    let before = setup.vaults.changes();
    setup.vaults.archive(workspace, &first).await.unwrap();
    assert_ne!(setup.vaults.changes(), before);
    assert_eq!(read(&setup, &vaults).await[0].1, "canary-second-a");
    assert_eq!(read(&setup, &[]).await, []);
    let foreign = oma_domain::WorkspaceId::generate();
    assert!(
        setup
            .vaults
            .variables(&foreign, &vaults)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_secret_goes_along_when_its_hosts_change_and_with_nobody_elses_hand() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let id = setup.add(&vault, variable("A", "canary-value")).await;
    let vaults = std::slice::from_ref(&vault);
    let change = CredentialChange {
        networking: Some(hosts(&["b.example"])),
        injection: InjectionChange {
            body: Some(false),
            ..InjectionChange::default()
        },
        ..CredentialChange::default()
    };
    let workspace = &setup.workspace;
    let changed = setup.vaults.update_credential(workspace, &vault, &id, &change);
    changed.await.unwrap();
    assert_eq!(read(&setup, vaults).await, pairs(&[("A", "canary-value")]));

    // Whoever can write to the database, and has no key.
    let mut stored = setup
        .store
        .credential(workspace, &vault, &id)
        .await
        .unwrap()
        .unwrap();
    assert!(stored.secrets.contains_key(&Field::Value));
    let Kind::EnvironmentVariable { networking, .. } = &mut stored.credential.spec.kind else {
        panic!("it is one")
    };
    *networking = CredentialNetworking::Unrestricted;
    stored.revision += 1;
    setup.store.update_credential(&stored).await.unwrap();
    assert_eq!(read(&setup, vaults).await, [], "it does not open there");
}

#[tokio::test]
async fn what_can_be_no_variable_is_refused() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let long = "x".repeat(8_193);
    for (name, value, field) in [
        ("", "canary-value", "secretName"),
        ("1A", "canary-value", "secretName"),
        ("A=B", "canary-value", "secretName"),
        ("A", "canary-", "secretValue"),
        ("A", "canary-\r\nvalue", "secretValue"),
        ("A", "canary-value ", "secretValue"),
        ("A", long.as_str(), "secretValue"),
    ] {
        let id = oma_domain::CredentialId::generate();
        let new = variable(name, value);
        let added = setup
            .vaults
            .add_credential(&setup.workspace, &vault, id, new, MANY, None)
            .await;
        let Err(Error::Invalid {
            field: found,
            message,
        }) = added
        else {
            panic!("{name} {value}: {added:?}")
        };
        assert_eq!(found, field);
        assert!(!message.contains("canary"), "{message}");
    }
    let only = Admission {
        most: 20,
        unique: true,
    };
    setup.add(&vault, variable("A", "canary-value")).await;
    let id = oma_domain::CredentialId::generate();
    let again = setup
        .vaults
        .add_credential(
            &setup.workspace,
            &vault,
            id,
            variable("A", "canary-value"),
            only,
            None,
        )
        .await;
    assert!(matches!(again, Err(Error::CredentialExists)), "{again:?}");
}

#[tokio::test]
async fn what_is_derived_stays_and_is_for_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let one = {
        let setup = Setup::over(folder.path()).await;
        let one = setup.vaults.derive(&["a", "b"]).await.unwrap();
        assert_ne!(*one, *setup.vaults.derive(&["ab"]).await.unwrap());
        assert_ne!(*one, *setup.vaults.derive(&["b", "a"]).await.unwrap());
        one
    };
    let setup = Setup::over(folder.path()).await;
    assert_eq!(*one, *setup.vaults.derive(&["a", "b"]).await.unwrap());
    assert_ne!(
        *one,
        *Setup::new().await.vaults.derive(&["a", "b"]).await.unwrap()
    );
}
