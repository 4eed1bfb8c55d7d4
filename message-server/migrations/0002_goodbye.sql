-- Who has pressed "leave" is not awaited back as somebody is whose page reloads, and who has taken a ticket is on the way.
ALTER TABLE participants ADD COLUMN said_goodbye BIGINT NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN expected_at_ms BIGINT NOT NULL DEFAULT 0;
