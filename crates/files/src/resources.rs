//! What sessions are given: at their creation, and later.

use oma_domain::resource::{MAX_FILES, Spec};
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};

use crate::error::{Error, Result};
use crate::{Files, NewRepository, mount_path};

/// Something that a session is to be given.
#[derive(Debug, Clone)]
pub enum NewResource {
    /// A file, as the session's own copy.
    File {
        /// Which.
        file: FileId,
        /// Where in the sandbox; named after the file's id without it.
        mount_path: Option<String>,
    },
    /// A git repository. Only for a session that is about to be created.
    Repository(NewRepository),
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
                    prepared.files.extend(copy);
                }
                Err(error) => {
                    self.give_up(&prepared.files).await;
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    /// Looks whether these could be given to one session together; whether the files are there is not looked at.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooManyResources`].
    pub fn check(&self, wanted: &[NewResource]) -> Result<()> {
        if wanted.len() > MAX_FILES as usize {
            return Err(Error::TooManyResources(MAX_FILES));
        }
        let mut paths: Vec<String> = Vec::new();
        for one in wanted {
            let path = match one {
                NewResource::File { file, mount_path } => mount_path::resolve(mount_path.as_deref(), file)?,
                NewResource::Repository(new) => self.check_repository(new)?,
            };
            apart(paths.iter().map(String::as_str), &path)?;
            paths.push(path);
        }
        Ok(())
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
    ) -> Result<(Resource, Option<File>)> {
        let (spec, copy) = match new {
            NewResource::File { file, mount_path } => {
                let original = self.get(workspace, &file, now).await?;
                let path = mount_path::resolve(mount_path.as_deref(), &original.id)?;
                apart(paths(others), &path)?;
                let copy = self.copy(&original, session, now).await?;
                let spec = Spec::File {
                    file: copy.id.clone(),
                    mount_path: path,
                };
                (spec, copy)
            }
            NewResource::Repository(new) => {
                let resource = self.prepare_repository(workspace, session, new, now).await?;
                apart(paths(others), resource.spec.mount_path())?;
                return Ok((resource, None));
            }
        };
        let resource = Resource {
            id: ResourceId::generate(),
            spec,
            created_at: now,
            updated_at: now,
        };
        Ok((resource, Some(copy)))
    }

    /// A session's own copy of a file.
    async fn copy(&self, original: &File, session: &SessionId, now: Timestamp) -> Result<File> {
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
        Ok(copy)
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
        if matches!(new, NewResource::Repository(_)) {
            return Err(Error::invalid(
                "type",
                "a repository can only be given to a session that is created",
            ));
        }
        let (resource, copy) = self.prepare_one(workspace, session, new, &others, now).await?;
        let copy = copy.ok_or_else(|| Error::Internal("a file without a copy".to_owned()))?;
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

fn paths(resources: &[Resource]) -> impl Iterator<Item = &str> {
    resources.iter().map(|resource| resource.spec.mount_path())
}

/// Whether a path is free.
///
/// # Errors
/// [`Error::Invalid`] when it, or a part of it, is another resource's.
fn apart<'a>(mut others: impl Iterator<Item = &'a str>, path: &str) -> Result<()> {
    if others.any(|other| mount_path::collide(other, path)) {
        let message = format!("{path} is another resource's path, or a part of it");
        return Err(Error::invalid("mount_path", message));
    }
    Ok(())
}
