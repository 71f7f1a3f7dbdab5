-- The audit trail of all workspaces. The key is a row's position in one chain without gaps: its hash covers the
-- row and the hash of the row before.
CREATE TABLE audit (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    at         INTEGER NOT NULL,
    request_id TEXT,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT,
    outcome    TEXT NOT NULL,
    metadata   TEXT,
    hash       BLOB NOT NULL
) STRICT;
CREATE INDEX audit_listed ON audit (workspace, at, key);
CREATE INDEX audit_by_target ON audit (workspace, target, at, key) WHERE target IS NOT NULL;

-- Where the chain begins (the last row that retention removed) and where it ends.
CREATE TABLE audit_ends (
    name     TEXT PRIMARY KEY CHECK (name IN ('anchor', 'head')),
    position INTEGER NOT NULL,
    hash     BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO audit_ends (name, position, hash) VALUES ('anchor', 0, zeroblob(32)), ('head', 0, zeroblob(32));
