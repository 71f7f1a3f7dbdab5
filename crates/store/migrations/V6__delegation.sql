-- How deep a session may delegate, and what its parent leaves it to consume.
ALTER TABLE sessions ADD COLUMN delegation_depth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN share TEXT;
