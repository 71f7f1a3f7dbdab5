-- What workers of self-hosted environments carry out: one item for a session that needs hands.
CREATE TABLE work (
    key          INTEGER PRIMARY KEY,
    workspace    TEXT NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    environment  TEXT NOT NULL,
    session      TEXT NOT NULL,
    state        TEXT NOT NULL,
    acknowledged INTEGER NOT NULL,
    polled_at    INTEGER,
    due          INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    work         TEXT NOT NULL
) STRICT;
CREATE INDEX work_listed ON work (workspace, environment, key);
-- What may be handed out is looked for among what is not over.
CREATE INDEX work_open ON work (workspace, environment, key) WHERE state != 'stopped';
CREATE UNIQUE INDEX work_of_session ON work (session) WHERE state != 'stopped';
CREATE INDEX work_by_session ON work (session, key);
-- A key that only workers of one environment hold.
ALTER TABLE api_keys ADD COLUMN environment TEXT;
