//! Kept values and the readiness check.

use std::sync::Arc;

use oma_domain::EventId;

use crate::Store;

/// The first value stays.
pub async fn kept_values(store: Arc<dyn Store>) {
    let name = format!("secret of {}", EventId::generate());
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(store.kept(&name).await.unwrap(), None);
    assert_eq!(store.keep(&name, &binary).await.unwrap(), binary);
    assert_eq!(store.keep(&name, b"other").await.unwrap(), binary);
    assert_eq!(store.kept(&name).await.unwrap(), Some(binary));
    let empty = format!("{name} (empty)");
    assert_eq!(store.keep(&empty, b"").await.unwrap(), b"");
    assert_eq!(store.kept(&empty).await.unwrap(), Some(Vec::new()));
}

/// A working store is ready, again and again.
pub async fn readiness(store: Arc<dyn Store>) {
    for _ in 0..3 {
        store.ready().await.unwrap();
    }
}
