//! Webhook endpoints, and the outbox.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use oma_domain::vault::Sealed;
use oma_domain::webhook::{Delivery, Disabled, Endpoint, MAX_BACKLOG, Topic};
use oma_domain::{DeliveryId, SessionId, Timestamp, WebhookId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Notify;

use super::Sqlite;
use super::failure::{Failure, from_json, to_json, unreadable};
use super::once::{self, Mark};
use super::rows::{id, number, optional_id, optional_text, page_limit, text};
use crate::webhooks::{Fate, Recipient, Webhooks};
use crate::{Error, Once, Result as StoreResult};

/// How many notices are forgotten in one transaction.
const PIECE: i64 = 1000;

/// What is told, beside the topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// The id of what it is about.
    pub(super) resource: &'a str,
    /// The vault of a credential.
    pub(super) vault: Option<&'a str>,
    /// The thread of a session.
    pub(super) thread: Option<&'a str>,
}

/// Writes notices for the endpoints of a workspace that want them. Part of the transaction of what they tell about.
pub(super) fn tell(
    conn: &Connection,
    workspace: &WorkspaceId,
    topics: &[Topic],
    resource: &str,
) -> Result<(), Failure> {
    let about = About {
        resource,
        vault: None,
        thread: None,
    };
    tell_about(conn, workspace, topics, about)
}

/// The same, with more than an id to tell.
pub(super) fn tell_about(
    conn: &Connection,
    workspace: &WorkspaceId,
    topics: &[Topic],
    about: About<'_>,
) -> Result<(), Failure> {
    if topics.is_empty() {
        return Ok(());
    }
    let mut statement = conn.prepare_cached(
        "SELECT key, topics, waiting FROM webhook_endpoints WHERE workspace = ? AND disabled IS NULL",
    )?;
    let mut rows = statement.query([workspace.as_str()])?;
    let mut wanted: Vec<(i64, u32, Vec<Topic>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let wants: Vec<Topic> = from_json("list of topics", text(row, "topics")?)?;
        let told = topics
            .iter()
            .copied()
            .filter(|topic| wants.contains(topic))
            .collect();
        wanted.push((row.get("key")?, number(row, "waiting")?, told));
    }
    let at = now();
    for (endpoint, mut waiting, topics) in wanted {
        for topic in topics {
            if waiting >= MAX_BACKLOG {
                metrics::counter!("webhook_deliveries_total", "outcome" => "overflow").increment(1);
                continue;
            }
            waiting += 1;
            conn.prepare_cached(
                "INSERT INTO webhook_outbox
                    (workspace, endpoint, id, topic, resource, vault, thread, created_at, try_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            )?
            .execute(params![
                workspace.as_str(),
                endpoint,
                DeliveryId::generate().as_str(),
                topic.as_str(),
                about.resource,
                about.vault,
                about.thread,
                at,
            ])?;
            conn.prepare_cached("UPDATE webhook_endpoints SET waiting = waiting + 1 WHERE key = ?")?
                .execute([endpoint])?;
        }
    }
    Ok(())
}

/// When something is told; the moment is the store's, since not every change brings one.
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// The key of the newest notice, which only ever grows.
pub(super) fn newest(conn: &Connection) -> Result<i64, Failure> {
    Ok(conn
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'webhook_outbox'")?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

/// An endpoint, ready to be stored.
struct EndpointRow {
    endpoint: Endpoint,
    topics: String,
    disabled: Option<String>,
}

impl EndpointRow {
    fn new(endpoint: &Endpoint) -> StoreResult<Self> {
        Ok(Self {
            endpoint: endpoint.clone(),
            topics: to_json("list of topics", &endpoint.topics)?,
            disabled: match &endpoint.disabled {
                Some(reason) => Some(to_json("reason", reason)?),
                None => None,
            },
        })
    }
}

fn create(
    conn: &Connection,
    row: &EndpointRow,
    secret: &Sealed,
    most: u32,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    let endpoint = &row.endpoint;
    once::check(conn, once)?;
    let taken = conn
        .prepare_cached("SELECT 1 FROM webhook_endpoints WHERE id = ?")?
        .exists([endpoint.id.as_str()])?;
    if taken {
        return Err(Error::Conflict.into());
    }
    let count: u32 = conn
        .prepare_cached("SELECT count(*) FROM webhook_endpoints WHERE workspace = ?")?
        .query_row([endpoint.workspace.as_str()], |row| row.get(0))?;
    if count >= most {
        return Err(Error::TooMany(count).into());
    }
    conn.prepare_cached(
        "INSERT INTO webhook_endpoints (workspace, id, revision, name, description, url, topics, disabled, secret,
                                        created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        endpoint.workspace.as_str(),
        endpoint.id.as_str(),
        revision(endpoint)?,
        endpoint.name,
        endpoint.description,
        endpoint.url,
        row.topics,
        row.disabled,
        secret.as_str(),
        endpoint.created_at.as_millis(),
        endpoint.updated_at.as_millis(),
    ])?;
    once::remember(conn, once)
}

fn revision(endpoint: &Endpoint) -> Result<i64, Failure> {
    Ok(i64::try_from(endpoint.revision).map_err(|error| Error::Internal(error.to_string()))?)
}

fn update(conn: &Connection, row: &EndpointRow, secret: Option<&Sealed>) -> Result<(), Failure> {
    let endpoint = &row.endpoint;
    let revision = revision(endpoint)?;
    let (key, stored): (i64, i64) = conn
        .prepare_cached("SELECT key, revision FROM webhook_endpoints WHERE workspace = ? AND id = ?")?
        .query_row(
            params![endpoint.workspace.as_str(), endpoint.id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
        .ok_or(Error::NotFound)?;
    if stored.checked_add(1) != Some(revision) {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "UPDATE webhook_endpoints SET revision = ?, name = ?, description = ?, url = ?, topics = ?, disabled = ?,
                updated_at = ?, secret = coalesce(?, secret)
         WHERE key = ?",
    )?
    .execute(params![
        revision,
        endpoint.name,
        endpoint.description,
        endpoint.url,
        row.topics,
        row.disabled,
        endpoint.updated_at.as_millis(),
        secret.map(Sealed::as_str),
        key,
    ])?;
    if endpoint.disabled.is_some() {
        clear(conn, key)?;
    }
    Ok(())
}

fn clear(conn: &Connection, key: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM webhook_outbox WHERE endpoint = ?")?
        .execute([key])?;
    conn.prepare_cached("UPDATE webhook_endpoints SET waiting = 0 WHERE key = ?")?
        .execute([key])?;
    Ok(())
}

fn key(conn: &Connection, workspace: &WorkspaceId, id: &WebhookId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM webhook_endpoints WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}

fn disable(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &WebhookId,
    url: &str,
    reason: &str,
    at: Timestamp,
) -> Result<(), Failure> {
    let changed = conn
        .prepare_cached(
            "UPDATE webhook_endpoints SET disabled = ?, updated_at = ?, revision = revision + 1
             WHERE workspace = ? AND id = ? AND url = ? AND disabled IS NULL",
        )?
        .execute(params![
            reason,
            at.as_millis(),
            workspace.as_str(),
            id.as_str(),
            url
        ])?;
    match key(conn, workspace, id)? {
        Some(key) if changed > 0 => clear(conn, key),
        _ => Ok(()),
    }
}

fn delete(conn: &Connection, workspace: &WorkspaceId, id: &WebhookId) -> Result<bool, Failure> {
    let Some(key) = key(conn, workspace, id)? else {
        return Ok(false);
    };
    clear(conn, key)?;
    conn.prepare_cached("DELETE FROM webhook_endpoints WHERE key = ?")?
        .execute([key])?;
    Ok(true)
}

const WHOLE: &str =
    "SELECT id, revision, name, description, url, topics, disabled, secret, created_at, updated_at
     FROM webhook_endpoints";

fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Endpoint, Sealed), Failure> {
    let endpoint = Endpoint {
        id: id(row, "id", WebhookId::parse)?,
        workspace: workspace.clone(),
        name: text(row, "name")?.to_owned(),
        description: text(row, "description")?.to_owned(),
        url: text(row, "url")?.to_owned(),
        topics: from_json("list of topics", text(row, "topics")?)?,
        disabled: match optional_text(row, "disabled")? {
            Some(reason) => Some(from_json("reason", reason)?),
            None => None,
        },
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        revision: number(row, "revision")?,
    };
    Ok((endpoint, Sealed::new(text(row, "secret")?.to_owned())))
}

fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &WebhookId,
) -> Result<Option<(Endpoint, Sealed)>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? AND id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?.map(|row| read(row, workspace)).transpose()
}

fn list(conn: &Connection, workspace: &WorkspaceId) -> Result<Vec<Endpoint>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? ORDER BY key"))?;
    let mut rows = statement.query([workspace.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row, workspace)?.0);
    }
    Ok(found)
}

fn recipients(conn: &Connection) -> Result<Vec<Recipient>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT e.workspace, e.id, (SELECT min(try_at) FROM webhook_outbox o WHERE o.endpoint = e.key) AS try_at
         FROM webhook_endpoints e WHERE e.waiting > 0",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(try_at) = row.get::<_, Option<i64>>("try_at")? else {
            continue;
        };
        found.push(Recipient {
            workspace: id(row, "workspace", WorkspaceId::parse)?,
            endpoint: id(row, "id", WebhookId::parse)?,
            try_at: Timestamp(try_at),
        });
    }
    Ok(found)
}

fn due(
    conn: &Connection,
    workspace: &WorkspaceId,
    endpoint: &WebhookId,
    by: Timestamp,
    limit: u32,
) -> Result<Vec<Delivery>, Failure> {
    let Some(key) = key(conn, workspace, endpoint)? else {
        return Ok(Vec::new());
    };
    let mut statement = conn.prepare_cached(
        "SELECT id, topic, resource, vault, thread, created_at, attempts FROM webhook_outbox
         WHERE endpoint = ? AND try_at <= ? ORDER BY try_at, key LIMIT ?",
    )?;
    let mut rows = statement.query(params![key, by.as_millis(), page_limit(limit)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let topic = text(row, "topic")?;
        found.push(Delivery {
            id: id(row, "id", DeliveryId::parse)?,
            topic: Topic::parse(topic).ok_or_else(|| unreadable("topic", topic))?,
            resource: text(row, "resource")?.to_owned(),
            vault: optional_text(row, "vault")?.map(str::to_owned),
            thread: optional_id(row, "thread", SessionId::parse)?,
            created_at: Timestamp(row.get("created_at")?),
            attempts: number(row, "attempts")?,
        });
    }
    Ok(found)
}

fn settle(conn: &Connection, fates: &[(DeliveryId, Fate)]) -> Result<(), Failure> {
    for (id, fate) in fates {
        match fate {
            Fate::Done => remove(conn, id.as_str())?,
            Fate::Again(at) => {
                conn.prepare_cached(
                    "UPDATE webhook_outbox SET attempts = attempts + 1, try_at = ? WHERE id = ?",
                )?
                .execute(params![at.as_millis(), id.as_str()])?;
            }
        }
    }
    Ok(())
}

fn remove(conn: &Connection, id: &str) -> Result<(), Failure> {
    let endpoint: Option<i64> = conn
        .prepare_cached("DELETE FROM webhook_outbox WHERE id = ? RETURNING endpoint")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    if let Some(endpoint) = endpoint {
        conn.prepare_cached("UPDATE webhook_endpoints SET waiting = waiting - 1 WHERE key = ?")?
            .execute([endpoint])?;
    }
    Ok(())
}

fn forget(conn: &Connection, before: Timestamp) -> Result<u64, Failure> {
    let mut statement = conn
        .prepare_cached("SELECT id FROM webhook_outbox WHERE created_at < ? ORDER BY created_at LIMIT ?")?;
    let ids: Vec<String> = statement
        .query_map(params![before.as_millis(), PIECE], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &ids {
        remove(conn, id)?;
    }
    Ok(ids.len() as u64)
}

#[async_trait]
impl Webhooks for Sqlite {
    async fn create_endpoint(
        &self,
        endpoint: &Endpoint,
        secret: &Sealed,
        most: u32,
        once: Option<&Once>,
    ) -> StoreResult<()> {
        let row = EndpointRow::new(endpoint)?;
        let once = Mark::of(&endpoint.workspace, once)?;
        let secret = secret.clone();
        self.writer
            .run(move |conn| create(conn, &row, &secret, most, once.as_ref()))
            .await
    }

    async fn endpoint(
        &self,
        workspace: &WorkspaceId,
        id: &WebhookId,
    ) -> StoreResult<Option<(Endpoint, Sealed)>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.run(move |conn| find(conn, &workspace, &id)).await
    }

    async fn endpoints(&self, workspace: &WorkspaceId) -> StoreResult<Vec<Endpoint>> {
        let workspace = workspace.clone();
        self.readers.run(move |conn| list(conn, &workspace)).await
    }

    async fn update_endpoint(&self, endpoint: &Endpoint, secret: Option<&Sealed>) -> StoreResult<()> {
        let row = EndpointRow::new(endpoint)?;
        let secret = secret.cloned();
        self.writer
            .run(move |conn| update(conn, &row, secret.as_ref()))
            .await
    }

    async fn disable_endpoint(
        &self,
        workspace: &WorkspaceId,
        id: &WebhookId,
        url: &str,
        reason: Disabled,
        at: Timestamp,
    ) -> StoreResult<()> {
        let (workspace, id, url) = (workspace.clone(), id.clone(), url.to_owned());
        let reason = to_json("reason", &reason)?;
        self.writer
            .run(move |conn| disable(conn, &workspace, &id, &url, &reason, at))
            .await
    }

    async fn delete_endpoint(&self, workspace: &WorkspaceId, id: &WebhookId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.run(move |conn| delete(conn, &workspace, &id)).await
    }

    async fn recipients(&self) -> StoreResult<Vec<Recipient>> {
        self.readers.run(recipients).await
    }

    async fn deliveries(
        &self,
        workspace: &WorkspaceId,
        endpoint: &WebhookId,
        by: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Delivery>> {
        let (workspace, endpoint) = (workspace.clone(), endpoint.clone());
        self.readers
            .run(move |conn| due(conn, &workspace, &endpoint, by, limit))
            .await
    }

    async fn settle_deliveries(&self, fates: &[(DeliveryId, Fate)]) -> StoreResult<()> {
        let fates = fates.to_vec();
        self.writer.run(move |conn| settle(conn, &fates)).await
    }

    async fn forget_deliveries(&self, before: Timestamp) -> StoreResult<u64> {
        // Asked often and rarely true: the writer is left alone until there is something to remove.
        let due = move |conn: &Connection| -> Result<bool, Failure> {
            Ok(conn
                .prepare_cached("SELECT 1 FROM webhook_outbox WHERE created_at < ? LIMIT 1")?
                .exists([before.as_millis()])?)
        };
        let mut total = 0_u64;
        while self.readers.run(due).await? {
            total = total.saturating_add(self.writer.run(move |conn| forget(conn, before)).await?);
        }
        Ok(total)
    }

    fn outbox(&self) -> Arc<Notify> {
        Arc::clone(&self.outbox)
    }
}
