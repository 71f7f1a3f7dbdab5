CREATE INDEX audit_by_action ON audit (workspace, action, at, key);
