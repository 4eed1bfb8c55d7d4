-- Media tickets of a person that were made out before this are not good any more: they were signed out everywhere.
ALTER TABLE users ADD COLUMN sessions_valid_from_ms BIGINT NOT NULL DEFAULT 0;
