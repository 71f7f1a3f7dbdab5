-- When the first of a session's tool uses has waited long enough for a confirmation.
ALTER TABLE session_states ADD COLUMN deadline INTEGER;
CREATE INDEX session_states_deadline ON session_states (deadline) WHERE deadline IS NOT NULL;
