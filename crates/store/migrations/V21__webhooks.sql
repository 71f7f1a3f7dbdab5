-- Endpoints that are told what happens in a workspace.
CREATE TABLE webhook_endpoints (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    revision    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    url         TEXT NOT NULL,
    topics      TEXT NOT NULL,
    -- Why it is told nothing; null while it is told.
    disabled    TEXT,
    -- The signing secret, sealed.
    secret      TEXT NOT NULL,
    -- How many notices wait for it.
    waiting     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_endpoints_listed ON webhook_endpoints (workspace, key);
CREATE INDEX webhook_endpoints_told ON webhook_endpoints (workspace) WHERE disabled IS NULL;
CREATE INDEX webhook_endpoints_waiting ON webhook_endpoints (waiting) WHERE waiting > 0;

-- Notices that wait: written in the transaction of what they tell about, removed when they were delivered. Keys are
-- never used again, so that a new one always shows.
CREATE TABLE webhook_outbox (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  TEXT NOT NULL,
    endpoint   INTEGER NOT NULL REFERENCES webhook_endpoints (key),
    id         TEXT NOT NULL UNIQUE,
    topic      TEXT NOT NULL,
    resource   TEXT NOT NULL,
    vault      TEXT,
    created_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    try_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_outbox_due ON webhook_outbox (endpoint, try_at);
CREATE INDEX webhook_outbox_by_age ON webhook_outbox (created_at);
