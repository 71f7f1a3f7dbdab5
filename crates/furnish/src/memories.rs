//! Memory stores in sandboxes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use async_trait::async_trait;
use oma_domain::SessionId;
use oma_domain::memory::{Access, Attachment};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::mounts::{Access as MountAccess, Furnish, Place, Slug};
use oma_sandbox::{Error, Provider, Spec};
use oma_store::Store;
use tokio::sync::Mutex;

use crate::failed;
use crate::replica::Replica;

/// How many sessions' copies are known in memory. The others are looked at as a whole when they are used again.
const KNOWN: usize = 512;

/// Memory stores in sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Memories {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    provider: Arc<dyn Provider>,
    sessions: StdMutex<HashMap<SessionId, Arc<Mutex<Copies>>>>,
}

/// The copies of a session.
#[derive(Default)]
struct Copies {
    /// `None` until the session was looked at.
    copies: Option<Vec<Replica>>,
    /// What the model has not been told yet.
    notes: Vec<String>,
}

impl Memories {
    /// Memory stores of this store, for the sandboxes of this provider.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, provider: Arc<dyn Provider>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                provider,
                sessions: StdMutex::default(),
            }),
        }
    }

    /// The copies of a session, which one at a time may work with.
    fn copies(&self, session: &SessionId) -> Arc<Mutex<Copies>> {
        let mut sessions = self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sessions.get(session) {
            return Arc::clone(known);
        }
        if sessions.len() >= KNOWN {
            // Whoever works with one holds it; the others can be made again.
            sessions.retain(|_, copies| Arc::strong_count(copies) > 1);
        }
        let fresh = Arc::default();
        sessions.insert(session.clone(), Arc::clone(&fresh));
        fresh
    }

    async fn open(&self, spec: &Spec) -> Result<Vec<Replica>, Error> {
        let Inner { store, provider, .. } = &*self.inner;
        let session = store
            .session(&spec.workspace, &spec.session)
            .await
            .map_err(|error| failed("reading a session", error))?;
        let mut copies = Vec::new();
        for attached in session.map(|session| session.memories).unwrap_or_default() {
            let folder = provider.mount(&spec.session, &place(&attached)?).await?;
            copies.push(Replica::open(&**store, spec, attached, folder).await?);
        }
        Ok(copies)
    }

    /// Takes back what a session that has these stores wrote in its sandbox, and says what of it could not be taken, for
    /// the model.
    pub async fn collect(&self, spec: &Spec, attached: &[Attachment]) -> Vec<String> {
        if attached.is_empty() {
            return Vec::new();
        }
        let copies = self.copies(&spec.session);
        let mut held = copies.lock().await;
        let Copies { copies, notes } = &mut *held;
        let mut told = std::mem::take(notes);
        for copy in copies.iter_mut().flatten() {
            match copy.collect(&*self.inner.store, spec).await {
                Ok(more) => told.extend(more),
                Err(error) => {
                    tracing::error!(session_id = %spec.session, %error, "memories could not be written back");
                    told.push(
                        "The server could not keep what was changed below /mnt/memory; it tries again after the next tool use."
                            .to_owned(),
                    );
                }
            }
        }
        told
    }
}

impl Memories {
    /// Does what [`Memories::collect`] does when nobody waits for it: what there is to say is said the next time. Must be
    /// called in a runtime.
    pub fn collect_behind(&self, spec: Spec, attached: Vec<Attachment>) {
        if attached.is_empty() {
            return;
        }
        let memories = self.clone();
        tokio::spawn(async move {
            let told = memories.collect(&spec, &attached).await;
            if !told.is_empty() {
                let copies = memories.copies(&spec.session);
                copies.lock().await.notes.extend(told);
            }
        });
    }
}

/// Where a store is shown.
fn place(attached: &Attachment) -> Result<Place, Error> {
    let slug = Slug::parse(&attached.folder)
        .ok_or_else(|| failed("naming a memory store's folder", &attached.folder))?;
    let access = match attached.access {
        Access::ReadOnly => MountAccess::ReadOnly,
        Access::ReadWrite => MountAccess::ReadWrite,
    };
    Ok(Place::Memory { slug, access })
}

#[async_trait]
impl Furnish for Memories {
    async fn fit(&self, spec: &Spec, fittings: &mut Fittings) -> Result<(), Error> {
        let session = self
            .inner
            .store
            .session(&spec.workspace, &spec.session)
            .await
            .map_err(|error| failed("reading a session", error))?;
        for attached in session.map(|session| session.memories).unwrap_or_default() {
            fittings.stores.push(place(&attached)?);
        }
        Ok(())
    }

    async fn furnish(&self, spec: &Spec) -> Result<(), Error> {
        let copies = self.copies(&spec.session);
        let mut held = copies.lock().await;
        if held.copies.is_none() {
            held.copies = Some(self.open(spec).await?);
        }
        let Copies { copies, notes } = &mut *held;
        for copy in copies.iter_mut().flatten() {
            notes.extend(copy.refresh(&*self.inner.store, spec).await?);
        }
        Ok(())
    }
}
