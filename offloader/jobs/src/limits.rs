//! Bounds of jobs, with their reasons.

use crate::Kind;

/// Length of a lease, by the store's clock. A dead worker's call is taken over within this and a sweep.
pub const LEASE_MS: i64 = 10_000;

/// How often a worker renews: a third, so that two may be lost.
pub const RENEW_MS: i64 = 3_000;

/// Attempts of one job altogether, those that got on and those that were given back among them. A recording that is handed over every few
/// minutes for hours stays below.
pub const ATTEMPTS_MAX: u32 = 100;

/// A capture or captions that lived this long got on with their call: the failures before are forgotten. How long other work lived says
/// nothing: what fails at the end of an hour fails there each time.
pub const HEALTHY_MS: i64 = 60_000;

/// Longest wait before another try.
pub const BACKOFF_MS_MAX: i64 = 60_000;

/// Longest wait of a job that cannot be done now and loses nothing by waiting.
pub const BLOCKED_MS_MAX: i64 = 900_000;

/// A time that never comes, with room to count on from it.
pub const HELD_MS: i64 = i64::MAX / 4;

/// Recordings at a time on one machine: each writes a few hundred kB/s and needs one small process.
pub const RECORDS_MAX: usize = 64;

/// Publications at a time on one machine: each is a small process that sends a file.
pub const PUBLISHING_MAX: usize = 8;

/// Bytes of memory that derived work leaves free while other work runs: recordings grow while it goes on.
pub const MEMORY_KEPT: u64 = 128 << 20;

/// Text of a job that came from outside: parameters, checkpoint, statistics.
pub const JSON_BYTES_MAX: usize = 256 * 1024;

/// Error text kept in the row.
pub const ERROR_BYTES_MAX: usize = 2_000;

/// Failures in a row, without getting on in between, before a job is given up.
pub fn failures_max(kind: Kind) -> u32 {
    match kind {
        // A call cannot be recorded later: try for as long as the disk or the node may need to come back.
        Kind::Record => 12,
        Kind::Caption => 8,
        // Poison input fails each time; three tries tell it from bad luck.
        Kind::Render | Kind::Transcribe => 3,
        // A server that is away is no failure: the job waits for it. These are failures of our own.
        Kind::PublishRecording | Kind::PublishTranscript => 12,
    }
}

/// First wait before another try.
pub fn backoff_ms_first(kind: Kind) -> i64 {
    match kind {
        // Every second is missing from the recording.
        Kind::Record | Kind::Caption => 200,
        Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => 2_000,
    }
}

/// First wait of a job that cannot be done now.
pub fn blocked_ms_first(kind: Kind) -> i64 {
    match kind {
        // The disk or the server may be there again in the next moment.
        Kind::Record | Kind::Caption | Kind::PublishRecording | Kind::PublishTranscript => 5_000,
        // Each try begins anew, and writes until there is no room again.
        Kind::Render | Kind::Transcribe => 30_000,
    }
}
