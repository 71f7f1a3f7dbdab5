-- Every table is keyed by a small integer in insertion order; the ids that clients see are unique columns.
-- Every row carries its workspace. JSON is stored as text.

CREATE TABLE agents (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    version     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;
CREATE INDEX agents_listed ON agents (workspace, key);

CREATE TABLE agent_versions (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    agent      INTEGER NOT NULL REFERENCES agents (key),
    version    INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    spec       TEXT NOT NULL,
    UNIQUE (agent, version)
) STRICT;

CREATE TABLE environments (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    spec       TEXT NOT NULL
) STRICT;
CREATE INDEX environments_listed ON environments (workspace, key);

-- The agent version that a session pinned, shared by all sessions that pinned the same one. It outlives the
-- agent, and goes with its last session.
CREATE TABLE agent_snapshots (
    key       INTEGER PRIMARY KEY,
    workspace TEXT NOT NULL,
    agent_id  TEXT NOT NULL,
    version   INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX agent_snapshots_by_agent ON agent_snapshots (agent_id, version);

-- What a session was created with: never updated. What changes is in session_states, so that a commit does
-- not rewrite a row that grows with what it refers to.
CREATE TABLE sessions (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    agent_id    TEXT NOT NULL,
    snapshot    INTEGER NOT NULL REFERENCES agent_snapshots (key),
    environment INTEGER REFERENCES environments (key),
    parent      TEXT,
    ephemeral   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_listed ON sessions (workspace, key);
CREATE INDEX sessions_by_agent ON sessions (workspace, agent_id, key);
CREATE INDEX sessions_by_ephemeral ON sessions (workspace, ephemeral, key);
CREATE INDEX sessions_by_snapshot ON sessions (snapshot);
CREATE INDEX sessions_by_environment ON sessions (environment) WHERE environment IS NOT NULL;

CREATE TABLE session_states (
    session       INTEGER PRIMARY KEY REFERENCES sessions (key),
    workspace     TEXT NOT NULL,
    head          INTEGER NOT NULL,
    last_event_at INTEGER,
    -- 1 while a restarted server has to take the session up again.
    unfinished    INTEGER NOT NULL,
    -- Since when an ephemeral session has been idle; null for all others.
    idle_since    INTEGER,
    state         TEXT NOT NULL
) STRICT;
CREATE INDEX session_states_unfinished ON session_states (unfinished) WHERE unfinished = 1;
CREATE INDEX session_states_idle ON session_states (idle_since) WHERE idle_since IS NOT NULL;

-- The key is (session << 32) | seq: a session's log lies together and in order, and a page of it is one range
-- of the table itself. A WITHOUT ROWID table would keep event bodies in the inner nodes of its tree, too.
CREATE TABLE events (
    key       INTEGER PRIMARY KEY,
    session   INTEGER GENERATED ALWAYS AS (key >> 32) VIRTUAL,
    seq       INTEGER GENERATED ALWAYS AS (key & 4294967295) VIRTUAL,
    workspace TEXT NOT NULL,
    id        TEXT NOT NULL,
    type      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT;
-- Ids sort by time, so insertions meet at the end of this index whatever their session.
CREATE UNIQUE INDEX events_by_id ON events (id, session);

-- Messages that wait, oldest first by key.
CREATE TABLE queue (
    key       INTEGER PRIMARY KEY,
    session   INTEGER NOT NULL REFERENCES sessions (key),
    workspace TEXT NOT NULL,
    id        TEXT NOT NULL,
    body      TEXT NOT NULL,
    UNIQUE (session, id)
) STRICT;
CREATE INDEX queue_in_order ON queue (session, key);

-- Idempotency keys. The subject is the id at the end of the scope; it lets a session take its keys with it.
CREATE TABLE once (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    scope       TEXT NOT NULL,
    name        TEXT NOT NULL,
    subject     TEXT,
    fingerprint TEXT NOT NULL,
    receipt     TEXT NOT NULL,
    at          INTEGER NOT NULL,
    UNIQUE (workspace, scope, name)
) STRICT;
CREATE INDEX once_by_subject ON once (workspace, subject) WHERE subject IS NOT NULL;
CREATE INDEX once_by_time ON once (at);

-- Values that the server keeps for itself; they belong to no workspace.
CREATE TABLE kept (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row that the readiness check writes.
CREATE TABLE probe (
    key   INTEGER PRIMARY KEY CHECK (key = 1),
    count INTEGER NOT NULL
) STRICT;
INSERT INTO probe (key, count) VALUES (1, 0);
