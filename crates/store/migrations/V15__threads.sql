-- A session can be a thread of its parent, whose sandbox it shares.
ALTER TABLE sessions ADD COLUMN thread INTEGER NOT NULL DEFAULT 0;
-- The other agents that may work in a session's threads, as they were when it was created.
CREATE TABLE session_rosters (
    session   INTEGER NOT NULL REFERENCES sessions (key),
    position  INTEGER NOT NULL,
    workspace TEXT NOT NULL,
    snapshot  INTEGER NOT NULL REFERENCES agent_snapshots (key),
    PRIMARY KEY (session, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_rosters_by_snapshot ON session_rosters (snapshot);
