-- The newest outcomes of a session, written when they change.
ALTER TABLE session_states ADD COLUMN evaluations TEXT;
-- A session's own budget can be changed, so it is in its state now. What a parent leaves to a child stays where it is.
UPDATE session_states SET state = json_set(state, '$.budget', (
    SELECT json_extract(s.share, '$.max_cost') FROM sessions s WHERE s.key = session_states.session))
WHERE session IN (
    SELECT key FROM sessions WHERE parent IS NULL AND json_extract(share, '$.max_cost') IS NOT NULL);
UPDATE sessions SET share = NULL WHERE parent IS NULL;
