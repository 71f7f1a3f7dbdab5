//! A sandbox starts, runs commands, stops, and leaves nothing.

use crate::support::{Fixture, sh, spec};
use std::sync::Arc;

use oma_domain::SessionId;
use oma_sandbox::fittings::{Fit, Fittings};
use oma_sandbox::{Error, Origin, Provider as _, Spec};

#[tokio::test]
async fn a_command_runs() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    assert_eq!(attached.origin, Origin::Started);
    let (text, failed) = sh(
        &*attached.hand,
        "echo hello; id -u; pwd; hostname; ls /; echo x > a",
    )
    .await;
    assert!(!failed && text.contains("hello"), "{text}");
    assert_eq!(fixture.attach(&session).await.origin, Origin::Running);
    fixture.local.stop(&session).await.unwrap();
    let again = fixture.attach(&session).await;
    assert_eq!(again.origin, Origin::Started);
    assert!(sh(&*again.hand, "cat a").await.0.contains('x'));
    fixture.local.destroy(&session).await.unwrap();
}

/// Variables that programs get, the hand does not, or nobody.
struct Variables;

#[async_trait::async_trait]
impl Fit for Variables {
    async fn fit(&self, _: &Spec) -> Result<Fittings, Error> {
        let variables = [
            ("GREETING", "good day"),
            ("LD_PRELOAD", "/workspace/none.so"),
            ("HOME", "/elsewhere"),
            ("http_proxy", "http://elsewhere"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Fittings {
            variables: variables.into(),
            ..Fittings::default()
        })
    }
}

#[tokio::test]
async fn programs_have_the_variables_of_the_session() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let spec = spec(&session);
    let attached = fixture
        .local
        .attach_fitted(&spec, Arc::new(Variables))
        .await
        .unwrap();
    let (text, _) = sh(
        &*attached.hand,
        "echo $GREETING; echo $HOME; echo \"proxy: $http_proxy\"; env",
    )
    .await;
    assert!(text.contains("good day\n/workspace\nproxy: \n"), "{text}");
    assert!(text.contains("LD_PRELOAD=/workspace/none.so"), "{text}");
    fixture.local.destroy(&session).await.unwrap();
}
