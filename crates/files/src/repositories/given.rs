//! What clients say of repositories: at a session's creation, and when a token changes.

use oma_domain::resource::{Checkout, Spec};
use oma_domain::{Resource, ResourceId, SessionId, Timestamp, WorkspaceId};
use secrecy::SecretString;
use tokio::time::Instant;

use super::Access;
use crate::error::{Error, Result};
use crate::{Files, mount_path};

const URL: &str = "url";
const TOKEN: &str = "authorization_token";

/// A repository that a session is to be given.
#[derive(Debug, Clone)]
pub struct NewRepository {
    /// Where it is from.
    pub url: String,
    /// What its host asks for; none for a public repository.
    pub token: Option<SecretString>,
    /// What of it; its default branch without this.
    pub checkout: Option<Checkout>,
    /// Where in the sandbox; named after the repository without it.
    pub mount_path: Option<String>,
}

/// What a token is bound to.
pub(super) fn place<'a>(
    workspace: &'a WorkspaceId,
    session: &'a SessionId,
    resource: &'a ResourceId,
    url: &'a str,
) -> [&'a str; 5] {
    [
        "repository token",
        workspace.as_str(),
        session.as_str(),
        resource.as_str(),
        url,
    ]
}

impl Access {
    /// Whether a repository could be reached, by what is known without a lookup, and may be sent a token.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub(crate) fn admit(&self, url: &str, has_token: bool) -> Result<()> {
        let target = self.guard.check(url);
        let target = target.map_err(|error| Error::invalid(URL, error.to_string()))?;
        if target.url.scheme() != "https" && !self.guard.policy().allows_loopback(&target) {
            let what = if has_token {
                "a token is sent"
            } else {
                "repositories are cloned"
            };
            return Err(Error::invalid(
                URL,
                format!("{what} over https only, except with a loopback address that the operator allows"),
            ));
        }
        Ok(())
    }
}

impl Files {
    /// Looks whether a repository could be given to a session.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check_repository(&self, new: &NewRepository) -> Result<String> {
        self.access()?.admit(&new.url, new.token.is_some())?;
        mount_path::of_repository(new.mount_path.as_deref(), &new.url)
    }

    pub(crate) async fn prepare_repository(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        new: NewRepository,
        now: Timestamp,
    ) -> Result<Resource> {
        let path = self.check_repository(&new)?;
        let id = ResourceId::generate();
        let token = match &new.token {
            Some(token) => {
                let place = place(workspace, session, &id, &new.url);
                Some(self.access()?.vaults.seal_own(&place, token).await?)
            }
            None => None,
        };
        Ok(Resource {
            id,
            spec: Spec::Repository {
                url: new.url,
                token,
                checkout: new.checkout,
                mount_path: path,
            },
            created_at: now,
            updated_at: now,
        })
    }

    /// Gives a session's repository another token. Whatever git says to its host from now on goes with that one.
    ///
    /// # Errors
    /// [`Error::ResourceNotFound`]; [`Error::Invalid`] when it is no repository.
    pub async fn rotate_token(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
        token: &SecretString,
        now: Timestamp,
    ) -> Result<Resource> {
        let _turn = self.turn(session).await;
        let resources = self.inner.store.resources(workspace, session).await?;
        let found = resources.into_iter().find(|resource| resource.id == *id);
        let mut resource = found.ok_or(Error::ResourceNotFound)?;
        let Spec::Repository {
            url, token: sealed, ..
        } = &mut resource.spec
        else {
            return Err(Error::invalid(TOKEN, "only a repository has one"));
        };
        let access = self.access()?;
        access.admit(url, true)?;
        let place = place(workspace, session, id, url);
        *sealed = Some(access.vaults.seal_own(&place, token).await?);
        resource.updated_at = now;
        if !self
            .inner
            .store
            .update_resource(workspace, session, &resource)
            .await?
        {
            return Err(Error::ResourceNotFound);
        }
        if let Some(seen) = self.seen().get_mut(session) {
            seen.hurry(Instant::now());
        }
        Ok(resource)
    }

    pub(crate) fn access(&self) -> Result<&Access> {
        let hosts = self.inner.hosts.as_ref();
        let hosts = hosts.ok_or_else(|| Error::invalid("type", "this server clones no repositories"))?;
        Ok(&hosts.access)
    }
}
