-- What may be consumed in a month with a key and in a workspace: billionths of a dollar, and tokens. Null for any amount.
ALTER TABLE api_keys ADD COLUMN max_cost INTEGER;
ALTER TABLE api_keys ADD COLUMN max_tokens INTEGER;
ALTER TABLE workspaces ADD COLUMN max_cost INTEGER;
ALTER TABLE workspaces ADD COLUMN max_tokens INTEGER;
