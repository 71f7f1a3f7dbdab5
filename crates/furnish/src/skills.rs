//! The skills of a session's agent, below `/mnt/skills`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use oma_domain::skill::{Pin, folders, folders_of_thread};
use oma_domain::{Member, Session, SessionId};
use oma_sandbox::files::{Error as FileError, Workspace};
use oma_sandbox::mounts::{Furnish, Place};
use oma_sandbox::{Error, Provider, Spec};
use oma_skill::{Bundle, MAIN};
use oma_store::Store;

use crate::failed;

/// How many sessions are remembered as furnished; the others are looked at again, which costs little.
const REMEMBERED: usize = 4_096;

/// Puts skills into sandboxes.
pub struct Skills {
    store: Arc<dyn Store>,
    provider: Arc<dyn Provider>,
    furnished: Mutex<HashSet<SessionId>>,
}

impl Skills {
    /// Skills of this store, for the sandboxes of this provider.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, provider: Arc<dyn Provider>) -> Self {
        Self {
            store,
            provider,
            furnished: Mutex::default(),
        }
    }

    fn is_furnished(&self, session: &SessionId) -> bool {
        let furnished = self.furnished.lock().unwrap_or_else(PoisonError::into_inner);
        furnished.contains(session)
    }

    fn remember(&self, session: &SessionId) {
        let mut furnished = self.furnished.lock().unwrap_or_else(PoisonError::into_inner);
        if furnished.len() >= REMEMBERED {
            furnished.clear();
        }
        furnished.insert(session.clone());
    }

    async fn put(&self, spec: &Spec, files: &dyn Workspace, pin: &Pin, folder: &str) -> Result<(), Error> {
        let main = format!("{folder}/{MAIN}");
        // It is written last, so where it is the rest is, too.
        match files.open(&main).await {
            Ok(_) => return Ok(()),
            Err(FileError::NotFound) => {}
            Err(error) => return Err(failed("looking for a skill", error)),
        }
        let content = self
            .store
            .skill_content(&spec.workspace, &pin.skill, &pin.version)
            .await
            .map_err(|error| failed("reading a skill", error))?;
        let Some(content) = content else {
            tracing::warn!(session_id = %spec.session, version = %pin.version, "a skill was deleted before it was used");
            return Ok(());
        };
        let unpacked = tokio::task::spawn_blocking(move || Bundle::from_zip(&content)).await;
        let bundle = unpacked
            .map_err(|error| failed("unpacking a skill", error))?
            .map_err(|error| failed("unpacking a skill", error))?;
        let (last, rest): (Vec<_>, Vec<_>) = bundle.files().iter().partition(|(name, _)| *name == MAIN);
        for (name, file) in rest.into_iter().chain(last) {
            let (path, bytes) = (format!("{folder}/{name}"), file.bytes.clone());
            let put = match file.executable {
                true => files.write_program(&path, bytes).await,
                false => files.write(&path, bytes).await,
            };
            put.map_err(|error| failed("putting a skill into place", error))?;
        }
        Ok(())
    }
}

/// The skills of the session's agent, and of those that may work in its threads, by their folders.
fn wanted(session: &Session) -> BTreeMap<String, Pin> {
    let own = &session.agent.spec.skills;
    let mut wanted: BTreeMap<String, Pin> = folders(own).into_iter().zip(own.iter().cloned()).collect();
    let works_for_itself = session.agent.named().contains(&&Member::This);
    let itself = works_for_itself.then_some(&session.agent);
    for agent in itself.into_iter().chain(&session.roster) {
        let pins = &agent.spec.skills;
        wanted.extend(
            folders_of_thread(&agent.id, pins)
                .into_iter()
                .zip(pins.iter().cloned()),
        );
    }
    wanted
}

#[async_trait]
impl Furnish for Skills {
    async fn furnish(&self, spec: &Spec) -> Result<(), Error> {
        if self.is_furnished(&spec.session) {
            return Ok(());
        }
        let session = self
            .store
            .session(&spec.workspace, &spec.session)
            .await
            .map_err(|error| failed("reading a session", error))?;
        let wanted = session.as_ref().map(wanted).unwrap_or_default();
        if !wanted.is_empty() {
            let files = self.provider.mount(&spec.session, &Place::Skills).await?;
            for (folder, pin) in &wanted {
                self.put(spec, &*files, pin, folder).await?;
            }
        }
        self.remember(&spec.session);
        Ok(())
    }
}
