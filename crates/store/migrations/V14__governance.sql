-- What a credential is for, spelled in one way only, so that two for the same place can be told. Those that were there
-- before are compared by their URLs as clients wrote them.
ALTER TABLE credentials ADD COLUMN place TEXT;
UPDATE credentials SET place = spec ->> '$.match_url';
-- Those that count when a token is looked for, however many were archived.
CREATE INDEX credentials_active ON credentials (vault, key) WHERE archived_at IS NULL;
-- Calls that are under way: noted before they change anything, moved to the audit trail when they end, or by the next
-- start when a crash ended them.
CREATE TABLE audit_open (
    id         TEXT PRIMARY KEY,
    workspace  TEXT NOT NULL,
    at         INTEGER NOT NULL,
    request_id TEXT,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT
) STRICT, WITHOUT ROWID;
