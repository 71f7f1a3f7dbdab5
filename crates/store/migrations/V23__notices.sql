-- Notices of threads name them.
ALTER TABLE webhook_outbox ADD COLUMN thread TEXT;
-- The revision at which a refresh of its tokens has failed, which is told once.
ALTER TABLE credentials ADD COLUMN refresh_failed INTEGER;
