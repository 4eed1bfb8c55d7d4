ALTER TABLE recordings DROP COLUMN IF EXISTS local;
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS failed_checkpoint TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS blocked BIGINT NOT NULL DEFAULT 0;

ALTER TABLE transcript_segments ADD COLUMN IF NOT EXISTS words tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED;
CREATE INDEX IF NOT EXISTS transcript_by_word ON transcript_segments USING GIN (words);
