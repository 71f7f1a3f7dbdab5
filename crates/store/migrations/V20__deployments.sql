-- Sessions that are opened by a schedule or by hand.
CREATE TABLE deployments (
    key          INTEGER PRIMARY KEY,
    workspace    TEXT NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    agent_id     TEXT NOT NULL,
    revision     INTEGER NOT NULL,
    created_by   TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    archived_at  INTEGER,
    -- Why it does not run by itself; null while it does.
    paused       TEXT,
    -- The next time of its schedule, and when the run is made; null while it does not run by itself.
    scheduled_at INTEGER,
    fires_at     INTEGER,
    last_run_at  INTEGER,
    spec         TEXT NOT NULL,
    CHECK ((scheduled_at IS NULL) = (fires_at IS NULL))
) STRICT;
CREATE INDEX deployments_listed ON deployments (workspace, key);
CREATE INDEX deployments_by_agent ON deployments (workspace, agent_id, key);
CREATE INDEX deployments_live ON deployments (workspace) WHERE archived_at IS NULL;
CREATE INDEX deployments_due ON deployments (fires_at) WHERE fires_at IS NOT NULL;

-- What came of each run; never updated.
CREATE TABLE deployment_runs (
    key           INTEGER PRIMARY KEY,
    workspace     TEXT NOT NULL,
    id            TEXT NOT NULL UNIQUE,
    deployment    TEXT NOT NULL,
    agent_id      TEXT NOT NULL,
    agent_version INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    -- The time of the schedule; null for runs that a client made.
    scheduled_at  INTEGER,
    session       TEXT,
    error         TEXT,
    message       TEXT,
    CHECK ((session IS NULL) != (error IS NULL))
) STRICT;
CREATE INDEX deployment_runs_listed ON deployment_runs (workspace, key);
CREATE INDEX deployment_runs_by_deployment ON deployment_runs (workspace, deployment, key);

-- The deployment that opened a session.
ALTER TABLE sessions ADD COLUMN deployment TEXT;
CREATE INDEX sessions_by_deployment ON sessions (workspace, deployment, key) WHERE deployment IS NOT NULL;
