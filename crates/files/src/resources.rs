//! What sessions are given: at their creation, and later.

use oma_domain::resource::{MAX_FILES, Spec};
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};

use crate::error::{Error, Result};
use crate::{Files, mount_path};

/// Something that a session is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewResource {
    /// A file, as the session's own copy.
    File {
        /// Which.
        file: FileId,
        /// Where in the sandbox; named after the file's id without it.
        mount_path: Option<String>,
    },
}

/// What a session will be given, ready for the transaction that creates it.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The resources.
    pub resources: Vec<Resource>,
    /// The session's copies.
    pub files: Vec<File>,
}

impl Files {
    /// Makes the copies for a session that is about to be created. Whoever does not create it has to
    /// [give them up](Self::give_up).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Expired`], [`Error::Invalid`], [`Error::TooManyResources`],
    /// [`Error::DiskFull`].
    pub async fn prepare(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        new: Vec<NewResource>,
        now: Timestamp,
    ) -> Result<Prepared> {
        if new.len() > MAX_FILES as usize {
            return Err(Error::TooManyResources(MAX_FILES));
        }
        let mut prepared = Prepared::default();
        for resource in new {
            match self
                .prepare_one(workspace, session, resource, &prepared.resources, now)
                .await
            {
                Ok((resource, copy)) => {
                    prepared.resources.push(resource);
                    prepared.files.push(copy);
                }
                Err(error) => {
                    self.give_up(&prepared.files).await;
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    /// Removes the copies that were made for a session that is not there.
    pub async fn give_up(&self, copies: &[File]) {
        self.forget_bytes(copies.iter().map(|file| file.id.clone()).collect())
            .await;
    }

    async fn prepare_one(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        new: NewResource,
        others: &[Resource],
        now: Timestamp,
    ) -> Result<(Resource, File)> {
        let NewResource::File {
            file: original,
            mount_path: wanted,
        } = new;
        let original = self.get(workspace, &original, now).await?;
        let path = mount_path::resolve(wanted.as_deref(), &original.id)?;
        let is_taken = others.iter().any(|other| {
            let Spec::File { mount_path, .. } = &other.spec;
            mount_path::collide(mount_path, &path)
        });
        if is_taken {
            return Err(Error::invalid(
                "mount_path",
                format!("{path} is another file's path, or a part of it"),
            ));
        }
        let copy = File {
            id: FileId::generate(),
            downloadable: false,
            created_at: now,
            expires_at: None,
            session: Some(session.clone()),
            ..original.clone()
        };
        match self.inner.blobs.link(&original.id, &copy.id).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NotFound),
            linked => linked.map_err(Error::io("copying a file"))?,
        }
        let resource = Resource {
            id: ResourceId::generate(),
            spec: Spec::File {
                file: copy.id.clone(),
                mount_path: path,
            },
            created_at: now,
            updated_at: now,
        };
        Ok((resource, copy))
    }

    /// Gives a session something more. A sandbox that runs already shows it when this returns.
    ///
    /// # Errors
    /// As [`Files::prepare`]; [`Error::SessionNotFound`], [`Error::NoRoom`].
    pub async fn add_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        new: NewResource,
        now: Timestamp,
    ) -> Result<Resource> {
        let _turn = self.turn(session).await;
        let others = self.inner.store.resources(workspace, session).await?;
        let (resource, copy) = self.prepare_one(workspace, session, new, &others, now).await?;
        let added = self
            .inner
            .store
            .add_resource(
                workspace,
                session,
                &resource,
                &copy,
                MAX_FILES,
                self.inner.limits.room,
            )
            .await;
        if let Err(error) = added {
            self.forget_bytes(vec![copy.id]).await;
            return Err(match error {
                oma_store::Error::NotFound => Error::SessionNotFound,
                error => error.into(),
            });
        }
        if self.is_furnished(session)
            && let Err(error) = self.put_in_place(session, &resource).await
        {
            // It is the session's all the same, and the next use of its sandbox tries again.
            tracing::warn!(session_id = %session, %error, "a file could not be put into a session's uploads");
            self.unfurnish(session);
        }
        Ok(resource)
    }

    /// Takes something away from a session.
    ///
    /// # Errors
    /// [`Error::ResourceNotFound`].
    pub async fn remove_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
    ) -> Result<()> {
        let _turn = self.turn(session).await;
        let removed = self.inner.store.remove_resource(workspace, session, id).await?;
        let removed = removed.ok_or(Error::ResourceNotFound)?;
        if self.is_furnished(session)
            && let Err(error) = self.take_away(session, &removed).await
        {
            tracing::warn!(session_id = %session, %error, "a file could not be taken from a session's uploads");
            self.unfurnish(session);
        }
        self.release().await
    }
}
