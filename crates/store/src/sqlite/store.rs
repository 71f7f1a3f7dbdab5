//! [`Store`] for [`Sqlite`]: which table does what. Values are serialised here, off the writer's thread.

use async_trait::async_trait;
use oma_domain::agent::Agent;
use oma_domain::environment::Environment;
use oma_domain::page::{Order, Page};
use oma_domain::session::Spending;
use oma_domain::vault::{DataKey, MasterKeyId, Vault};
use oma_domain::{
    AgentId, Credential, CredentialId, EnvironmentId, Event, EventId, KeyId, Seq, Session, SessionId,
    Timestamp, VaultId, WorkspaceId,
};

use super::{
    Sqlite, agents, commits, credentials, environments, events, kept, once, sessions, usage, vault_keys,
    vaults,
};
use crate::{
    Admission, Commit, ListFilter, NewSession, Once, OnceRecord, Result, SessionFilter, Store,
    StoredCredential, UsageFilter, UsageRow, VaultFilter, VaultKey,
};

impl Sqlite {
    async fn read_session(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        with_queue: bool,
    ) -> Result<Option<Session>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| sessions::find(conn, &workspace, &id, with_queue))
            .await
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn create_agent(&self, agent: &Agent, once: Option<&Once>) -> Result<()> {
        let row = agents::AgentRow::new(agent)?;
        let once = once::Mark::of(&agent.workspace, once)?;
        self.writer
            .run(move |conn| agents::create(conn, &row, once.as_ref()))
            .await
    }

    async fn agent(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<Option<Agent>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| agents::find(conn, &workspace, &id))
            .await
    }

    async fn agents(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Page<Agent, AgentId>> {
        let (workspace, filter, after) = (workspace.clone(), *filter, after.cloned());
        self.readers
            .run(move |conn| agents::list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn agent_versions(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        order: Order,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Page<Agent, u32>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| agents::versions(conn, &workspace, &id, order, after, limit))
            .await
    }

    async fn update_agent(&self, agent: &Agent) -> Result<()> {
        let row = agents::AgentRow::new(agent)?;
        self.writer.run(move |conn| agents::update(conn, &row)).await
    }

    async fn archive_agent(&self, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<Agent> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| agents::archive(conn, &workspace, &id, at))
            .await
    }

    async fn delete_agent(&self, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| agents::delete(conn, &workspace, &id, at))
            .await
    }

    async fn create_environment(
        &self,
        environment: &Environment,
        unique_name: bool,
        once: Option<&Once>,
    ) -> Result<()> {
        let row = environments::EnvironmentRow::new(environment)?;
        let once = once::Mark::of(&environment.workspace, once)?;
        self.writer
            .run(move |conn| environments::create(conn, &row, unique_name, once.as_ref()))
            .await
    }

    async fn environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| environments::find(conn, &workspace, &id))
            .await
    }

    async fn environments(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&EnvironmentId>,
        limit: u32,
    ) -> Result<Page<Environment, EnvironmentId>> {
        let (workspace, filter, after) = (workspace.clone(), *filter, after.cloned());
        self.readers
            .run(move |conn| environments::list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn update_environment(
        &self,
        before: &Environment,
        after: &Environment,
        unique_name: bool,
    ) -> Result<()> {
        let before = environments::EnvironmentRow::new(before)?;
        let after = environments::EnvironmentRow::new(after)?;
        self.writer
            .run(move |conn| environments::update(conn, &before, &after, unique_name))
            .await
    }

    async fn delete_environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| environments::delete(conn, &workspace, &id))
            .await
    }

    async fn create_vault(&self, vault: &Vault, key: &DataKey, once: Option<&Once>) -> Result<()> {
        let once = once::Mark::of(&vault.workspace, once)?;
        let (vault, key) = (vaults::VaultRow::new(vault)?, key.clone());
        self.writer
            .run(move |conn| vaults::create(conn, &vault, &key, once.as_ref()))
            .await
    }

    async fn vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<Vault>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| vaults::find(conn, &workspace, &id))
            .await
    }

    async fn vaults(
        &self,
        workspace: &WorkspaceId,
        filter: &VaultFilter,
        order: Order,
        after: Option<&VaultId>,
        limit: u32,
    ) -> Result<Page<Vault, VaultId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| vaults::list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn update_vault(&self, before: &Vault, after: &Vault) -> Result<()> {
        let (before, after) = (before.clone(), vaults::VaultRow::new(after)?);
        self.writer
            .run(move |conn| vaults::update(conn, &before, &after))
            .await
    }

    async fn archive_vault(&self, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Vault> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| vaults::archive(conn, &workspace, &id, at))
            .await
    }

    async fn delete_vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| vaults::delete(conn, &workspace, &id))
            .await
    }

    async fn vault_key(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<DataKey>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| vaults::data_key(conn, &workspace, &id))
            .await
    }

    async fn add_credential(
        &self,
        stored: &StoredCredential,
        place: &str,
        admission: Admission,
        once: Option<&Once>,
    ) -> Result<()> {
        let row = credentials::CredentialRow::new(stored)?;
        let place = place.to_owned();
        let once = once::Mark::of(&stored.credential.workspace, once)?;
        self.writer
            .run(move |conn| credentials::add(conn, &row, &place, admission, once.as_ref()))
            .await
    }

    async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<StoredCredential>> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.readers
            .run(move |conn| credentials::find(conn, &workspace, &vault, &id))
            .await
    }

    async fn credentials(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        only_active: bool,
        order: Order,
        after: Option<&CredentialId>,
        limit: u32,
    ) -> Result<Page<StoredCredential, CredentialId>> {
        let (workspace, vault, after) = (workspace.clone(), vault.clone(), after.cloned());
        self.readers
            .run(move |conn| {
                credentials::list(
                    conn,
                    &workspace,
                    &vault,
                    only_active,
                    order,
                    after.as_ref(),
                    limit,
                )
            })
            .await
    }

    async fn credential_specs(&self, workspace: &WorkspaceId, vault: &VaultId) -> Result<Vec<Credential>> {
        let (workspace, vault) = (workspace.clone(), vault.clone());
        self.readers
            .run(move |conn| credentials::specs(conn, &workspace, &vault))
            .await
    }

    async fn update_credential(&self, stored: &StoredCredential) -> Result<()> {
        let row = credentials::CredentialRow::new(stored)?;
        self.writer.run(move |conn| credentials::update(conn, &row)).await
    }

    async fn refresh_failed(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        revision: u64,
    ) -> Result<bool> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.writer
            .run(move |conn| credentials::refresh_failed(conn, &workspace, &vault, &id, revision))
            .await
    }

    async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<Option<Credential>> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.writer
            .run(move |conn| credentials::archive(conn, &workspace, &vault, &id, at))
            .await
    }

    async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<bool> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.writer
            .run(move |conn| credentials::delete(conn, &workspace, &vault, &id, at))
            .await
    }

    async fn master_key(&self) -> Result<Option<MasterKeyId>> {
        self.readers.run(vault_keys::master).await
    }

    async fn claim_master_key(&self, id: &MasterKeyId) -> Result<MasterKeyId> {
        let id = id.clone();
        self.writer.run(move |conn| vault_keys::claim(conn, &id)).await
    }

    async fn vault_keys(&self, after: Option<&VaultId>, limit: u32) -> Result<Page<VaultKey, VaultId>> {
        let after = after.cloned();
        self.readers
            .run(move |conn| vault_keys::list(conn, after.as_ref(), limit))
            .await
    }

    async fn change_master_key(
        &self,
        from: &MasterKeyId,
        to: &MasterKeyId,
        keys: Vec<VaultKey>,
    ) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.writer
            .run(move |conn| vault_keys::change(conn, &from, &to, &keys))
            .await
    }

    async fn create_session(&self, session: &NewSession, once: Option<&Once>) -> Result<()> {
        let row = sessions::SessionRow::new(session)?;
        let once = once::Mark::of(&session.workspace, once)?;
        self.writer
            .run(move |conn| sessions::create(conn, &row, once.as_ref()))
            .await
    }

    async fn session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>> {
        self.read_session(workspace, id, false).await
    }

    async fn load(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>> {
        self.read_session(workspace, id, true).await
    }

    async fn sessions(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        order: Order,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Page<Session, SessionId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| sessions::list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn delete_session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| sessions::delete(conn, &workspace, &id))
            .await
    }

    async fn unfinished(
        &self,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Page<(WorkspaceId, SessionId), SessionId>> {
        let after = after.cloned();
        self.readers
            .run(move |conn| sessions::unfinished(conn, after.as_ref(), limit))
            .await
    }

    async fn expired(&self, before: Timestamp, limit: u32) -> Result<Vec<(WorkspaceId, SessionId)>> {
        self.readers
            .run(move |conn| sessions::expired(conn, before, limit))
            .await
    }

    async fn deadlines(&self, limit: u32) -> Result<Vec<(WorkspaceId, SessionId, Timestamp)>> {
        self.readers
            .run(move |conn| sessions::deadlines(conn, limit))
            .await
    }

    async fn has_open_run(&self, workspace: &WorkspaceId, agent: &AgentId) -> Result<bool> {
        let (workspace, agent) = (workspace.clone(), agent.clone());
        self.readers
            .run(move |conn| sessions::has_open_run(conn, &workspace, &agent))
            .await
    }

    async fn existing(&self, ids: &[SessionId]) -> Result<Vec<SessionId>> {
        let ids = ids.to_vec();
        self.readers.run(move |conn| sessions::existing(conn, ids)).await
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        let entry = commits::Entry::new(commit)?;
        self.writer.run(move |conn| commits::commit(conn, &entry)).await
    }

    async fn events(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<Page<Event, Seq>> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| events::list(conn, &workspace, &session, from, order, limit))
            .await
    }

    async fn session_and_events(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<Option<(Session, Page<Event, Seq>)>> {
        let (workspace, id) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| {
                let Some(session) = sessions::find(conn, &workspace, &id, true)? else {
                    return Ok(None);
                };
                let events = events::list(conn, &workspace, &id, from, order, limit)?;
                Ok(Some((session, events)))
            })
            .await
    }

    async fn locate(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        event: &EventId,
    ) -> Result<Option<Seq>> {
        let (workspace, session, event) = (workspace.clone(), session.clone(), event.clone());
        self.readers
            .run(move |conn| events::locate(conn, &workspace, &session, &event))
            .await
    }

    async fn usage(
        &self,
        workspace: &WorkspaceId,
        filter: &UsageFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<UsageRow, i64>> {
        let (workspace, filter) = (workspace.clone(), filter.clone());
        self.readers
            .run(move |conn| usage::list(conn, &workspace, &filter, after, limit))
            .await
    }

    async fn consumed(
        &self,
        workspace: &WorkspaceId,
        key: Option<&KeyId>,
        from: i64,
        to: i64,
    ) -> Result<Spending> {
        let (workspace, key) = (workspace.clone(), key.cloned());
        self.readers
            .run(move |conn| usage::sum(conn, &workspace, key.as_ref(), from, to))
            .await
    }

    async fn done(&self, workspace: &WorkspaceId, scope: &str, key: &str) -> Result<Option<OnceRecord>> {
        let (workspace, scope, key) = (workspace.clone(), scope.to_owned(), key.to_owned());
        self.readers
            .run(move |conn| once::find(conn, &workspace, &scope, &key))
            .await
    }

    async fn forget_done(&self, before: Timestamp) -> Result<u64> {
        // In pieces, so that a large backlog does not hold up everybody else's writes.
        let mut forgotten = 0_u64;
        loop {
            let count = self.writer.run(move |conn| once::forget(conn, before)).await?;
            forgotten = forgotten.saturating_add(count);
            if count == 0 {
                return Ok(forgotten);
            }
        }
    }

    async fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.readers.run(move |conn| kept::find(conn, &name)).await
    }

    async fn keep(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.writer.run(move |conn| kept::keep(conn, &name, &value)).await
    }

    async fn ready(&self) -> Result<()> {
        self.readers.run(|_| Ok(())).await?;
        self.writer.run(kept::probe).await
    }
}
