-- How it was with the media of people who have left, for the operations page: 7 days, at most 10 000 of them.
CREATE TABLE departures (
    call_id         TEXT NOT NULL,
    participant_sid TEXT NOT NULL,
    left_at_ms      BIGINT NOT NULL,
    reason          TEXT NOT NULL,
    -- JSON of the API's OpsParticipant, without addresses.
    participant     TEXT NOT NULL,
    PRIMARY KEY (call_id, participant_sid)
);
CREATE INDEX departures_order ON departures (left_at_ms);

-- What operators did that concerns people: who, when, whom.
CREATE TABLE operator_deeds (
    id         TEXT PRIMARY KEY,
    at_ms      BIGINT NOT NULL,
    by_id      TEXT NOT NULL,
    by_name    TEXT NOT NULL,
    deed       TEXT NOT NULL,
    call_id    TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX operator_deeds_order ON operator_deeds (at_ms);
