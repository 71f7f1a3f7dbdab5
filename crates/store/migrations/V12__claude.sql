-- Environments can be changed and archived.
ALTER TABLE environments ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN archived_at INTEGER;
UPDATE environments SET updated_at = created_at;
-- Sessions can be archived; the state says when.
ALTER TABLE session_states ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
-- Those that work for one session, as its threads.
CREATE INDEX sessions_by_parent ON sessions (workspace, parent, key) WHERE parent IS NOT NULL;
