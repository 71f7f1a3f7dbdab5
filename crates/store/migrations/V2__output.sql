-- The newest message has a column of its own: most commits leave it as it is, and it can be long.
ALTER TABLE session_states ADD COLUMN output TEXT;
UPDATE session_states SET output = state ->> '$.output';
