-- The tenants of this installation. The rows of other tables name theirs by its id.
CREATE TABLE workspaces (
    key        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO workspaces (id, name, created_at) VALUES ('wrk_default', 'default', 0);

-- A key's secret is 256 random bits: a plain SHA-256 of it can't be reversed or guessed, and can be looked up. A
-- key has at most two secrets, the second one for the time of a rotation.
CREATE TABLE api_keys (
    key            INTEGER PRIMARY KEY,
    workspace      TEXT NOT NULL REFERENCES workspaces (id),
    id             TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    scope          TEXT NOT NULL,
    digest         BLOB NOT NULL UNIQUE,
    previous       BLOB,
    previous_until INTEGER,
    created_at     INTEGER NOT NULL,
    rotated_at     INTEGER,
    expires_at     INTEGER,
    revoked_at     INTEGER,
    last_used_at   INTEGER,
    CHECK ((previous IS NULL) = (previous_until IS NULL))
) STRICT;
CREATE INDEX api_keys_listed ON api_keys (workspace, key);
CREATE INDEX api_keys_live ON api_keys (workspace) WHERE revoked_at IS NULL;
