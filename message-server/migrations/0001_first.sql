-- One set of migrations for SQLite and PostgreSQL: TEXT and BIGINT only, no defaults that differ between the two.
-- Times are Unix milliseconds; truth values are 0 or 1; ids are text with a prefix that says what they name.

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    username      TEXT NOT NULL UNIQUE,
    display_name  TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    roles         TEXT NOT NULL,
    disabled      BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- One-time links that create or reset the first administrator. Only the hash of the token is kept.
CREATE TABLE setup_tokens (
    token_hash    TEXT PRIMARY KEY,
    expires_at_ms BIGINT NOT NULL
);

-- Signed-in browsers: a person's (user_id) or a guest's (guest_id).
CREATE TABLE sessions (
    token_hash    TEXT PRIMARY KEY,
    user_id       TEXT,
    guest_id      TEXT,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE channels (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    topic         TEXT NOT NULL,
    created_by    TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE channel_reads (
    channel_id TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    read_at_ms BIGINT NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);

CREATE TABLE messages (
    id          TEXT PRIMARY KEY,
    channel_id  TEXT NOT NULL,
    call_id     TEXT,
    author_id   TEXT NOT NULL,
    author_name TEXT NOT NULL,
    text        TEXT NOT NULL,
    at_ms       BIGINT NOT NULL
);
CREATE INDEX messages_channel ON messages (channel_id, at_ms);
CREATE INDEX messages_call ON messages (call_id, at_ms);

CREATE TABLE calls (
    id                      TEXT PRIMARY KEY,
    channel_id              TEXT NOT NULL,
    title                   TEXT NOT NULL,
    started_by              TEXT NOT NULL,
    started_at_ms           BIGINT NOT NULL,
    ended_at_ms             BIGINT,
    -- When the call last became empty; it ends after a grace. NULL while somebody is in it.
    empty_since_ms          BIGINT,
    attendance              TEXT NOT NULL,
    recording_state         TEXT NOT NULL,
    recording_number        BIGINT NOT NULL,
    recording_started_at_ms BIGINT,
    recording_started_by    TEXT NOT NULL,
    recording_job           TEXT NOT NULL,
    recording_problem       TEXT NOT NULL,
    captions_enabled        BIGINT NOT NULL,
    captions_number         BIGINT NOT NULL,
    captions_language       TEXT NOT NULL,
    captions_job            TEXT NOT NULL,
    captions_problem        TEXT NOT NULL
);
CREATE INDEX calls_channel ON calls (channel_id, started_at_ms);
-- At most one call at a time in a channel, also when two people press the button together.
CREATE UNIQUE INDEX calls_active ON calls (channel_id) WHERE ended_at_ms IS NULL;

CREATE TABLE participants (
    call_id            TEXT NOT NULL,
    identity           TEXT NOT NULL,
    display_name       TEXT NOT NULL,
    host               BIGINT NOT NULL,
    present            BIGINT NOT NULL,
    participant_sid    TEXT NOT NULL,
    joined_at_ms       BIGINT NOT NULL,
    left_at_ms         BIGINT,
    removed_at_ms      BIGINT,
    hand_raised_at_ms  BIGINT,
    quality            TEXT NOT NULL,
    -- The answer to the notice of recording number consent_number.
    consent            TEXT NOT NULL,
    consent_number     BIGINT NOT NULL,
    consent_at_ms      BIGINT,
    consent_notice     TEXT NOT NULL,
    PRIMARY KEY (call_id, identity)
);

CREATE TABLE guest_links (
    token_hash    TEXT PRIMARY KEY,
    call_id       TEXT NOT NULL,
    created_by    TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX guest_links_call ON guest_links (call_id);

CREATE TABLE guests (
    id            TEXT PRIMARY KEY,
    call_id       TEXT NOT NULL,
    display_name  TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- The last lines of a running call's captions, for late joiners.
CREATE TABLE captions (
    call_id    TEXT NOT NULL,
    segment_id TEXT NOT NULL,
    start_ms   BIGINT NOT NULL,
    line       TEXT NOT NULL,
    PRIMARY KEY (call_id, segment_id)
);
CREATE INDEX captions_order ON captions (call_id, start_ms);
