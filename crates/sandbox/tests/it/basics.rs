//! A sandbox starts, runs commands, stops, and leaves nothing.

use crate::support::{Fixture, sh};
use oma_domain::SessionId;
use oma_sandbox::{Origin, Provider as _};

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
