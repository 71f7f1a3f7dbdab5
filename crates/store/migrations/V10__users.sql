-- Those who signed up by themselves. Each has a workspace and a key of their own.
CREATE TABLE users (
    key        INTEGER PRIMARY KEY,
    workspace  TEXT NOT NULL UNIQUE REFERENCES workspaces (id),
    id         TEXT NOT NULL UNIQUE,
    api_key    TEXT NOT NULL UNIQUE REFERENCES api_keys (id),
    tier       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    github_id  INTEGER UNIQUE,
    login      TEXT,
    avatar_url TEXT
) STRICT;
CREATE INDEX users_by_end ON users (expires_at) WHERE expires_at IS NOT NULL;

-- The most sessions of a workspace; null for any number.
ALTER TABLE workspaces ADD COLUMN max_sessions INTEGER;
