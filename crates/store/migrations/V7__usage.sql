-- The API key that a session was opened with; null when it was none.
ALTER TABLE sessions ADD COLUMN created_by TEXT;

-- What model requests consumed, by day, agent, model and API key. Added to in the transaction that ends the request.
CREATE TABLE usage (
    key              INTEGER PRIMARY KEY,
    workspace        TEXT NOT NULL,
    -- Days since the epoch, UTC.
    day              INTEGER NOT NULL,
    agent_id         TEXT NOT NULL,
    model            TEXT NOT NULL,
    -- The empty text without one: a null would never be the same as another.
    api_key          TEXT NOT NULL,
    requests         INTEGER NOT NULL,
    input            INTEGER NOT NULL,
    output           INTEGER NOT NULL,
    cache_read       INTEGER NOT NULL,
    cache_write      INTEGER NOT NULL,
    -- Billionths of a dollar.
    cost             INTEGER NOT NULL,
    unknown_requests INTEGER NOT NULL,
    UNIQUE (workspace, day, agent_id, model, api_key)
) STRICT;
