CREATE TABLE memory_stores (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    metadata    TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;
CREATE INDEX memory_stores_listed ON memory_stores (workspace, key);

-- Every change of a memory. They outlive the memory.
CREATE TABLE memory_versions (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    store       INTEGER NOT NULL REFERENCES memory_stores (key),
    id          TEXT NOT NULL UNIQUE,
    memory      TEXT NOT NULL,
    operation   TEXT NOT NULL,
    author      TEXT NOT NULL,
    -- Null once redacted.
    path        TEXT,
    -- Null once redacted, and for deletions.
    sha         BLOB,
    size        INTEGER,
    content     TEXT,
    created_at  INTEGER NOT NULL,
    -- Since when the memory stands at another version, or is gone; null for the one that it stands at.
    superseded_at INTEGER,
    redacted_at INTEGER,
    redacted_by TEXT
) STRICT;
CREATE INDEX memory_versions_listed ON memory_versions (store, key);
CREATE INDEX memory_versions_by_memory ON memory_versions (store, memory, key);
CREATE INDEX memory_versions_by_author ON memory_versions (store, author, key);
CREATE INDEX memory_versions_superseded ON memory_versions (superseded_at) WHERE superseded_at IS NOT NULL;

-- What a session knows of a store: what was at each path of its copy when the two were last the same.
CREATE TABLE memory_copies (
    key       INTEGER PRIMARY KEY,
    workspace TEXT NOT NULL,
    session   INTEGER NOT NULL REFERENCES sessions (key),
    store     INTEGER NOT NULL REFERENCES memory_stores (key),
    path      TEXT NOT NULL,
    sha       BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX memory_copies_by_path ON memory_copies (session, store, path);
CREATE INDEX memory_copies_by_store ON memory_copies (store);

-- The memory stores that a session has, as a JSON list; null for none.
ALTER TABLE sessions ADD COLUMN memories TEXT;
-- The same the other way round; a store's id stays when the store is gone.
CREATE TABLE session_memories (
    key       INTEGER PRIMARY KEY,
    workspace TEXT NOT NULL,
    store     TEXT NOT NULL,
    session   INTEGER NOT NULL REFERENCES sessions (key)
) STRICT;
CREATE INDEX session_memories_by_store ON session_memories (workspace, store, session);
CREATE INDEX session_memories_by_session ON session_memories (session);

CREATE TABLE memories (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    store      INTEGER NOT NULL REFERENCES memory_stores (key),
    id         TEXT NOT NULL UNIQUE,
    path       TEXT NOT NULL,
    version    INTEGER NOT NULL REFERENCES memory_versions (key),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX memories_by_path ON memories (store, path);
-- For the reference, which is looked for whenever a version goes.
CREATE INDEX memories_by_version ON memories (version);
