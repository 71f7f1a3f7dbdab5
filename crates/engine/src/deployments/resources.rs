//! What a deployment gives the sessions that it opens. Tokens of repositories are sealed for the deployment, and again
//! for each session.

use oma_domain::deployment::Resource;
use oma_domain::{DeploymentId, WorkspaceId};
use secrecy::SecretString;

use crate::error::Result;
use crate::files::{NewRepository, NewResource};
use crate::{AttachMemory, Engine};

/// Something that sessions are to be given.
#[derive(Debug, Clone)]
pub enum Given {
    /// A file or a repository.
    Resource(NewResource),
    /// A memory store.
    Memory(AttachMemory),
}

/// What a token is bound to.
fn place<'a>(workspace: &'a WorkspaceId, deployment: &'a DeploymentId, url: &'a str) -> [&'a str; 4] {
    [
        "deployment repository token",
        workspace.as_str(),
        deployment.as_str(),
        url,
    ]
}

impl Engine {
    /// What a client gives, ready to be stored. A repository without a token keeps the one that the deployment has for
    /// its URL: clients that send back what they have read can't know it.
    pub(super) async fn seal_given(
        &self,
        workspace: &WorkspaceId,
        deployment: &DeploymentId,
        given: Vec<Given>,
        before: &[Resource],
    ) -> Result<Vec<Resource>> {
        let mut sealed = Vec::with_capacity(given.len());
        for one in given {
            sealed.push(match one {
                Given::Resource(NewResource::File { file, mount_path }) => {
                    Resource::File { file, mount_path }
                }
                Given::Resource(NewResource::Repository(new)) => {
                    let place = place(workspace, deployment, &new.url);
                    let token = match &new.token {
                        Some(token) => Some(self.inner.vaults.seal_own(&place, token).await?),
                        None => before.iter().find_map(|resource| match resource {
                            Resource::Repository { url, token, .. } if *url == new.url => token.clone(),
                            _ => None,
                        }),
                    };
                    Resource::Repository {
                        url: new.url,
                        token,
                        checkout: new.checkout,
                        mount_path: new.mount_path,
                    }
                }
                Given::Memory(AttachMemory {
                    store,
                    access,
                    instructions,
                }) => Resource::MemoryStore {
                    store,
                    access,
                    instructions,
                },
            });
        }
        Ok(sealed)
    }

    /// Looks whether these could be given to a session now. Those that the deployment has already may be gone by now:
    /// its runs say so.
    pub(super) async fn check_given(
        &self,
        workspace: &WorkspaceId,
        resources: &[Resource],
        before: &[Resource],
    ) -> Result<()> {
        let (mut mounted, mut memories) = (Vec::new(), Vec::new());
        for resource in resources {
            let is_new = !before.contains(resource);
            match part(resource, None) {
                Given::Resource(new) => {
                    if let (NewResource::File { file, .. }, true) = (&new, is_new) {
                        self.file(workspace, file).await?;
                    }
                    mounted.push(new);
                }
                Given::Memory(memory) if is_new => memories.push(memory),
                Given::Memory(_) => {}
            }
        }
        self.inner.files.check(&mounted)?;
        self.attach_memories(workspace, memories).await?;
        Ok(())
    }

    /// What a run's session is given.
    ///
    /// # Errors
    /// When a token can't be read.
    pub(super) async fn unseal_given(
        &self,
        workspace: &WorkspaceId,
        deployment: &DeploymentId,
        resources: &[Resource],
    ) -> Result<(Vec<NewResource>, Vec<AttachMemory>)> {
        let (mut mounted, mut memories) = (Vec::new(), Vec::new());
        for resource in resources {
            let token = match resource {
                Resource::Repository {
                    url,
                    token: Some(sealed),
                    ..
                } => {
                    let place = place(workspace, deployment, url);
                    Some(self.inner.vaults.open_own(&place, sealed).await?)
                }
                _ => None,
            };
            match part(resource, token) {
                Given::Resource(new) => mounted.push(new),
                Given::Memory(memory) => memories.push(memory),
            }
        }
        Ok((mounted, memories))
    }
}

fn part(resource: &Resource, token: Option<SecretString>) -> Given {
    match resource.clone() {
        Resource::File { file, mount_path } => Given::Resource(NewResource::File { file, mount_path }),
        Resource::Repository {
            url,
            checkout,
            mount_path,
            token: _,
        } => Given::Resource(NewResource::Repository(NewRepository {
            url,
            token,
            checkout,
            mount_path,
        })),
        Resource::MemoryStore {
            store,
            access,
            instructions,
        } => Given::Memory(AttachMemory {
            store,
            access,
            instructions,
        }),
    }
}

/// Whether any of these needs a sandbox of this server.
pub(super) fn needs_sandbox(resources: &[Resource]) -> bool {
    let is_memory = |resource: &Resource| matches!(resource, Resource::MemoryStore { .. });
    !resources.iter().all(is_memory)
}
