//! The doctor sees what is there, and what is not.

use oma_sandbox::doctor::{Status, probe};
use oma_sandbox::limits::Enforcement;

use crate::support::config;

#[tokio::test]
async fn a_machine_that_runs_this_suite_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let checks = probe(&config(folder.path())).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.status == Status::Fail)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(
        checks
            .iter()
            .any(|check| check.name == "a sandbox" && check.detail.contains("first command"))
    );
    let packages = checks
        .iter()
        .find(|check| check.name == "packages of environments")
        .unwrap();
    assert_eq!(packages.status, Status::Ok, "{packages:?}");
    assert!(
        checks
            .iter()
            .all(|check| check.status == Status::Ok || check.remedy.is_some())
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the data folder is not touched"
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.exe = "/nonexistent/oma".into();
    config.enforcement = Some(Enforcement::Rlimit);
    let checks = probe(&config).await;
    let trial = checks.iter().find(|check| check.name == "a sandbox").unwrap();
    assert_eq!(trial.status, Status::Fail);
    assert!(
        trial.detail.contains("/nonexistent/oma") && trial.remedy.is_some(),
        "{trial:?}"
    );
}
