-- The master key in force, by its id. The key itself is nowhere in the database.
CREATE TABLE master_key (
    key INTEGER PRIMARY KEY CHECK (key = 1),
    id  TEXT NOT NULL
) STRICT;

CREATE TABLE vaults (
    key           INTEGER PRIMARY KEY,
    workspace     TEXT NOT NULL,
    id            TEXT NOT NULL UNIQUE,
    user          TEXT,
    name          TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    -- The data key: sealed under the master key, never in the clear.
    data_key_version INTEGER NOT NULL,
    master_key    TEXT NOT NULL,
    data_key      TEXT NOT NULL,
    -- What the claude dialect shows besides.
    metadata      TEXT,
    archived_at   INTEGER
) STRICT;
CREATE INDEX vaults_listed ON vaults (workspace, key);
CREATE INDEX vaults_by_user ON vaults (workspace, user, key);

CREATE TABLE credentials (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    vault       INTEGER NOT NULL REFERENCES vaults (key),
    id          TEXT NOT NULL UNIQUE,
    revision    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    -- What may be shown.
    spec        TEXT NOT NULL,
    -- Ciphertexts by field.
    secrets     TEXT NOT NULL,
    metadata    TEXT,
    archived_at INTEGER
) STRICT;
CREATE INDEX credentials_listed ON credentials (vault, key);

-- The ids of the vaults that a session names, as a JSON list; null for none.
ALTER TABLE sessions ADD COLUMN vaults TEXT;
