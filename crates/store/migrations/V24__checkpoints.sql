-- Saved states of sessions' workspaces. The archives lie elsewhere, under the checkpoint's id.
CREATE TABLE checkpoints (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    session    INTEGER NOT NULL REFERENCES sessions (key),
    -- Its archive is there. Until then nobody sees it.
    ready      INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    entries    INTEGER NOT NULL,
    skipped    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX checkpoints_by_session ON checkpoints (session, key);
CREATE INDEX checkpoints_under_way ON checkpoints (key) WHERE ready = 0;

-- Those whose rows are gone and whose archives have yet to go.
CREATE TABLE released_checkpoints (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TRIGGER checkpoint_removed AFTER DELETE ON checkpoints BEGIN
    INSERT INTO released_checkpoints (id) VALUES (old.id);
END;
