//! `kill -9` during a change of the master key and during refreshes.

use std::path::Path;

use oma_domain::{CredentialId, VaultId};
use oma_vault::key_file::{Source, promote, stage, unlock};
use oma_vault::{MasterKey, rekey};
use secrecy::ExposeSecret as _;
use tokio::runtime::Runtime;
use url::Url;

use crate::again::{Victim, argument, say};
use crate::issuer::{Issuer, access};
use crate::setup::{Setup, bearer, oauth};

/// Changes the master key over and over until it is killed.
async fn rekey_for_ever(folder: &Path) {
    let setup = Setup::over(folder).await;
    let path = folder.join("vault.key");
    loop {
        let from = unlock(&*setup.store, &Source::Generated(path.clone()))
            .await
            .unwrap()
            .master;
        let to = MasterKey::generate().unwrap();
        stage(&path, &to).unwrap();
        say("staged");
        rekey(&*setup.store, &from, &to).await.unwrap();
        say("changed");
        promote(&path).unwrap();
        say("promoted");
    }
}

#[test]
fn a_killed_change_of_the_key_loses_no_secret() {
    if let Some(folder) = argument() {
        Runtime::new()
            .unwrap()
            .block_on(rekey_for_ever(Path::new(&folder)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut vaults = Vec::new();
    runtime.block_on(async {
        let setup = Setup::over(folder.path()).await;
        for number in 0..20 {
            let vault = setup.vault().await;
            setup
                .add(&vault, bearer("https://a.example/", &format!("token-{number}")))
                .await;
            vaults.push(vault);
        }
    });
    let mut last = String::new();
    let mut keys = std::collections::BTreeSet::new();
    for kill in 0..12 {
        let name = "crash::a_killed_change_of_the_key_loses_no_secret";
        let mut victim = Victim::start(name, folder.path().to_str().unwrap());
        // The kill falls into whatever step follows.
        for _ in 0..=kill {
            last = victim.says();
        }
        victim.kill();
        runtime.block_on(async {
            let setup = Setup::over(folder.path()).await;
            keys.insert(
                setup
                    .store
                    .master_key()
                    .await
                    .unwrap()
                    .unwrap()
                    .as_str()
                    .to_owned(),
            );
            for (number, vault) in vaults.iter().enumerate() {
                let token = setup
                    .token(std::slice::from_ref(vault), "https://a.example/")
                    .await;
                assert_eq!(token, Some(format!("token-{number}")), "killed after {last}");
            }
        });
    }
    assert!(keys.len() > 3, "the key did change: {}", keys.len());
}

/// Has its token refused and refreshed over and over until it is killed.
async fn refresh_for_ever(folder: &Path, vault: &VaultId) {
    let setup = Setup::over(folder).await;
    let url = Url::parse("https://mcp.example/").unwrap();
    let vaults = std::slice::from_ref(vault);
    loop {
        let found = setup.vaults.bearer_for(&setup.workspace, vaults, &url).await;
        let bearer = found.unwrap().unwrap();
        let next = setup
            .vaults
            .refused(&setup.workspace, &bearer)
            .await
            .unwrap()
            .unwrap();
        say(next.token.expose_secret());
    }
}

#[test]
fn a_refreshed_token_is_durable_before_it_is_used() {
    if let Some(argument) = argument() {
        let (vault, folder) = argument.split_once(' ').unwrap();
        let vault = VaultId::parse(vault).unwrap();
        Runtime::new()
            .unwrap()
            .block_on(refresh_for_ever(Path::new(folder), &vault));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut went_on = 0;
    for kill in 0..8 {
        let (issuer, vault, id): (Issuer, VaultId, CredentialId) = runtime.block_on(async {
            let setup = Setup::over(folder.path()).await;
            let issuer = Issuer::start().await;
            let vault = setup.vault().await;
            let id = setup.add(&vault, oauth(&issuer.url(), 3600)).await;
            (issuer, vault, id)
        });
        let name = "crash::a_refreshed_token_is_durable_before_it_is_used";
        let mut victim = Victim::start(name, &format!("{vault} {}", folder.path().display()));
        let mut used = String::new();
        for _ in 0..=kill {
            used = victim.says();
        }
        used = victim.kill().pop().unwrap_or(used);
        runtime.block_on(async {
            let setup = Setup::over(folder.path()).await;
            let vaults = std::slice::from_ref(&vault);
            let stored = setup.token(vaults, "https://mcp.example/").await.unwrap();
            // Every token that anybody was given is stored, or a later one is.
            let number = |token: &str| token.rsplit('-').next().unwrap().parse::<u64>().unwrap();
            assert!(number(&stored) >= number(&used), "{stored} after {used}");
            let issued = issuer.with(|issued| issued.count);
            assert!(issued - number(&stored) <= 1, "{stored}, {issued} issued");
            // What is stored can be refreshed, unless the kill fell between the issuer's answer and the store.
            let url = Url::parse("https://mcp.example/").unwrap();
            let found = setup.vaults.bearer_for(&setup.workspace, vaults, &url).await;
            let bearer = found.unwrap().unwrap();
            assert_eq!(bearer.credential(), &id);
            let next = setup.vaults.refused(&setup.workspace, &bearer).await;
            if issued == number(&stored) {
                assert_eq!(next.unwrap().unwrap().token.expose_secret(), access(issued + 1));
                went_on += 1;
            } else {
                assert!(next.is_err(), "the issuer has replaced that refresh token");
            }
        });
    }
    assert!(went_on > 0, "not every kill can fall into the window");
}
