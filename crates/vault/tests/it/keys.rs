//! The master key: where it is, what happens when it is wrong or gone, and how it is changed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_store::Store;
use oma_vault::key_file::{Error, Source, pending, promote, read, stage, unlock};
use oma_vault::{MasterKey, rekey};
use secrecy::SecretString;

use crate::setup::{Setup, bearer, open};

struct Place {
    setup: Setup,
    path: PathBuf,
}

impl Place {
    /// A store with a vault in it, whose key was generated.
    async fn new() -> Self {
        let setup = Setup::new().await;
        let path = setup.folder.as_ref().unwrap().path().join("vault.key");
        let vault = setup.vault().await;
        setup.add(&vault, bearer("https://a.example/", "t")).await;
        Self { setup, path }
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.setup.store
    }

    async fn unlock(&self) -> Result<MasterKey, Error> {
        unlock(&**self.store(), &Source::Generated(self.path.clone()))
            .await
            .map(|unlocked| unlocked.master)
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("vault"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_generated_key_is_its_owners_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let path = folder.path().join("vault.key");
    let first = unlock(&*store, &Source::Generated(path.clone())).await.unwrap();
    assert!(first.is_new);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(files(folder.path()), ["vault.key"]);
    let second = unlock(&*store, &Source::Generated(path.clone())).await.unwrap();
    assert_eq!(
        (second.is_new, second.master.id(), second.exposed),
        (false, first.master.id(), None)
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let third = unlock(&*store, &Source::File(path.clone())).await.unwrap();
    assert_eq!(third.exposed, Some(path));
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_an_error_at_once() {
    let place = Place::new().await;
    let needed = place.unlock().await.unwrap().id().clone();
    let other = MasterKey::generate().unwrap();
    let given = Source::Given(other.to_text());
    let error = unlock(&**place.store(), &given).await.unwrap_err();
    assert!(
        matches!(&error, Error::Wrong { needed: id, .. } if *id == needed),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains(needed.as_str()) && text.contains(other.id().as_str()),
        "{text}"
    );

    let nonsense = Source::Given(SecretString::from("canary-nonsense"));
    let error = unlock(&**place.store(), &nonsense).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && !error.to_string().contains("canary"));

    let aside = place.path.with_extension("aside");
    std::fs::rename(&place.path, &aside).unwrap();
    let error = place.unlock().await.unwrap_err();
    assert!(
        matches!(&error, Error::Missing { needed: id, .. } if *id == needed),
        "{error}"
    );
    let file = Source::File(place.path.clone());
    let error = unlock(&**place.store(), &file).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert!(!place.path.exists(), "no key was generated in its place");
    std::fs::rename(&aside, &place.path).unwrap();
    assert_eq!(place.unlock().await.unwrap().id(), &needed);
}

#[tokio::test]
async fn without_vaults_any_key_will_do() {
    let setup = Setup::new().await;
    let given = Source::Given(MasterKey::generate().unwrap().to_text());
    assert!(unlock(&*setup.store, &given).await.is_ok());
}

#[tokio::test]
async fn a_change_that_stops_anywhere_leaves_one_key_that_opens() {
    // After nothing, the file, the transaction, the rename.
    for stop in 0..4 {
        let place = Place::new().await;
        let from = place.unlock().await.unwrap();
        let to = MasterKey::generate().unwrap();
        if stop > 0 {
            stage(&place.path, &to).unwrap();
        }
        if stop > 1 {
            assert_eq!(rekey(&**place.store(), &from, &to).await.unwrap(), 1);
        }
        if stop > 2 {
            promote(&place.path).unwrap();
        }
        let found = place.unlock().await.unwrap();
        let expected = if stop > 1 { &to } else { &from };
        assert_eq!(found.id(), expected.id(), "stopped after step {stop}");
        assert_eq!(read(&place.path).unwrap().id(), expected.id());
        assert!(!pending(&place.path).exists());
        let again = rekey(&**place.store(), &found, &found).await;
        assert_eq!(again.unwrap(), 1, "every data key opens");
        let late = if stop > 1 { from } else { to };
        let refused = rekey(&**place.store(), &late, &found).await;
        assert!(refused.is_err(), "the other key opens nothing");
    }
}

#[tokio::test]
async fn a_half_written_next_key_is_forgotten() {
    let place = Place::new().await;
    let id = place.unlock().await.unwrap().id().clone();
    std::fs::write(pending(&place.path), "0123").unwrap();
    assert_eq!(place.unlock().await.unwrap().id(), &id);
    assert!(!pending(&place.path).exists());
}

#[tokio::test]
async fn secrets_survive_a_change_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::over(folder.path()).await;
    let vault = setup.vault().await;
    setup.add(&vault, bearer("https://a.example/", "the-token")).await;
    let path = folder.path().join("vault.key");
    let (from, to) = (read(&path).unwrap(), MasterKey::generate().unwrap());
    stage(&path, &to).unwrap();
    rekey(&*setup.store, &from, &to).await.unwrap();
    promote(&path).unwrap();
    drop(setup);
    let setup = Setup::over(folder.path()).await;
    let vaults = [vault];
    let token = setup.token(&vaults, "https://a.example/").await;
    assert_eq!(token.as_deref(), Some("the-token"));
}
