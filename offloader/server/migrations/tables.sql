-- Both databases take this; {row_id} is the type of a key that numbers itself. What only one of them has is in its own file.
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  call_id TEXT NOT NULL,
  recording_id TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  params TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  failures BIGINT NOT NULL,
  -- times in a row that it could not be done, by no fault of its own
  blocked BIGINT NOT NULL DEFAULT 0,
  fence BIGINT NOT NULL,
  lease_owner TEXT NOT NULL,
  lease_since_ms BIGINT NOT NULL,
  lease_until_ms BIGINT NOT NULL,
  run_after_ms BIGINT NOT NULL,
  progress DOUBLE PRECISION NOT NULL,
  error TEXT NOT NULL,
  checkpoint TEXT NOT NULL,
  -- what that was at the latest failure
  failed_checkpoint TEXT NOT NULL DEFAULT '',
  stats TEXT NOT NULL,
  result TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  -- grows with every write: a write made from an older reading changes nothing
  version BIGINT NOT NULL,
  -- what follows from the job's end (seal, storing) has been done
  settled BIGINT NOT NULL,
  UNIQUE (tenant, idempotency_key)
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, settled);
CREATE INDEX IF NOT EXISTS jobs_by_recording ON jobs (recording_id);
CREATE INDEX IF NOT EXISTS jobs_by_change ON jobs (updated_at_ms);

CREATE TABLE IF NOT EXISTS recordings (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  call_id TEXT NOT NULL,
  title TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  channel_name TEXT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  -- 0 while it is captured
  ended_at_ms BIGINT NOT NULL,
  state TEXT NOT NULL,
  error TEXT NOT NULL,
  wrapped_key TEXT NOT NULL,
  root TEXT NOT NULL,
  has_video BIGINT NOT NULL,
  gaps BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS recordings_by_time ON recordings (started_at_ms, id);

-- The manifest of a recording that is being captured, as far as its node has told: where another node goes on.
CREATE TABLE IF NOT EXISTS capture_lines (
  recording_id TEXT NOT NULL,
  -- position in the manifest, and length, in bytes
  at BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  fence BIGINT NOT NULL,
  lines TEXT NOT NULL,
  PRIMARY KEY (recording_id, at)
);

CREATE TABLE IF NOT EXISTS recording_people (
  recording_id TEXT NOT NULL,
  identity TEXT NOT NULL,
  display_name TEXT NOT NULL,
  PRIMARY KEY (recording_id, identity)
);

CREATE TABLE IF NOT EXISTS derivatives (
  recording_id TEXT NOT NULL,
  name TEXT NOT NULL,
  -- where the encrypted bytes lie, and their hash
  object TEXT NOT NULL,
  object_bytes BIGINT NOT NULL,
  -- signed statement (archive::derived::Derivative)
  statement TEXT NOT NULL,
  PRIMARY KEY (recording_id, name)
);

CREATE TABLE IF NOT EXISTS transcript_segments (
  id {row_id} PRIMARY KEY,
  recording_id TEXT NOT NULL,
  identity TEXT NOT NULL,
  display_name TEXT NOT NULL,
  start_ms BIGINT NOT NULL,
  text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS transcript_by_recording ON transcript_segments (recording_id, start_ms);

CREATE TABLE IF NOT EXISTS audit (
  n BIGINT PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  actor TEXT NOT NULL,
  actor_name TEXT NOT NULL,
  action TEXT NOT NULL,
  recording_id TEXT NOT NULL,
  detail TEXT NOT NULL,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_by_recording ON audit (recording_id, n);
CREATE INDEX IF NOT EXISTS audit_by_actor ON audit (actor, n);
CREATE TABLE IF NOT EXISTS audit_heads (
  n BIGINT PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  hash TEXT NOT NULL,
  public_key TEXT NOT NULL,
  signature TEXT NOT NULL
);

-- Offloaders that share this database.
CREATE TABLE IF NOT EXISTS nodes (
  name TEXT PRIMARY KEY,
  -- its keys and its archive: those of all must be the same
  site TEXT NOT NULL,
  seen_ms BIGINT NOT NULL
);

-- Clients of the calls-offloader contract: Mattermost installations. Of their keys there are bcrypt hashes alone.
CREATE TABLE IF NOT EXISTS calls_clients (
  id TEXT PRIMARY KEY,
  key_hash TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL
);

-- Jobs of that contract, as its clients asked for them. What is done about one is the job (and its recording) that it names; a
-- recording and its transcription may name the same. A row goes when its job has succeeded, or failed long enough ago.
CREATE TABLE IF NOT EXISTS calls_jobs (
  id TEXT PRIMARY KEY,
  -- who asked; the admin is empty
  client TEXT NOT NULL,
  kind TEXT NOT NULL,
  runner TEXT NOT NULL,
  max_duration_s BIGINT NOT NULL,
  -- as it came, without its secrets
  input TEXT NOT NULL,
  site_url TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  post_id TEXT NOT NULL,
  -- the plugin's own id of it
  piece_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  recording_id TEXT NOT NULL,
  -- counted among those that may run at a time
  slot BIGINT NOT NULL,
  keep BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  -- 0 while it waits for its turn
  start_at_ms BIGINT NOT NULL,
  -- when it is stopped
  deadline_ms BIGINT NOT NULL,
  -- 0 until it has failed
  stop_at_ms BIGINT NOT NULL,
  error TEXT NOT NULL,
  UNIQUE (client, kind, piece_id)
);
CREATE INDEX IF NOT EXISTS calls_jobs_by_recording ON calls_jobs (recording_id);

-- Recordings that are to be deleted, and for a while those that were: other nodes clear their folders by it.
CREATE TABLE IF NOT EXISTS purges (
  recording_id TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  asked_at_ms BIGINT NOT NULL,
  done_at_ms BIGINT NOT NULL
);
