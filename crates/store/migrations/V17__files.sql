-- Files that clients upload and sessions make. The bytes lie in the data folder, under the file's id.
CREATE TABLE files (
    key          INTEGER PRIMARY KEY,
    workspace    TEXT NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    filename     TEXT NOT NULL,
    mime_type    TEXT NOT NULL,
    size         INTEGER NOT NULL,
    downloadable INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    -- The session that it belongs to and goes with.
    session      INTEGER REFERENCES sessions (key),
    -- Of one that the session has made: its path among the outputs, and what tells whether that has changed since.
    output       TEXT,
    stamp        TEXT
) STRICT;
CREATE INDEX files_listed ON files (workspace, key);
CREATE INDEX files_by_session ON files (session, key) WHERE session IS NOT NULL;
CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;

-- What the files of a workspace have in all, kept by the triggers below.
CREATE TABLE file_totals (
    workspace TEXT PRIMARY KEY,
    bytes     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Files whose rows are gone and whose bytes have yet to go.
CREATE TABLE released_files (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Files that have expired, for as long as clients are told so.
CREATE TABLE expired_files (
    id        TEXT PRIMARY KEY,
    workspace TEXT NOT NULL,
    at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX expired_files_by_time ON expired_files (at);

CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
    INSERT INTO file_totals (workspace, bytes) VALUES (new.workspace, new.size)
    ON CONFLICT (workspace) DO UPDATE SET bytes = bytes + new.size;
END;

CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
    UPDATE file_totals SET bytes = bytes - old.size WHERE workspace = old.workspace;
    INSERT INTO released_files (id) VALUES (old.id);
END;

-- What is mounted into a session's sandbox.
CREATE TABLE session_resources (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    session    INTEGER NOT NULL REFERENCES sessions (key),
    id         TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    spec       TEXT NOT NULL,
    -- A sealed token.
    secret     TEXT
) STRICT;
CREATE INDEX session_resources_listed ON session_resources (session, key);
