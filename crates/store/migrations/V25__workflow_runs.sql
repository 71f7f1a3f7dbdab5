-- How many workflow runs of a session have not ended: while one has not, its agent is not changed.
ALTER TABLE session_states ADD COLUMN open_runs INTEGER NOT NULL DEFAULT 0;
CREATE INDEX session_states_with_runs ON session_states (session) WHERE open_runs > 0;
