//! Bounds of the daemon, with their reasons.

use std::time::Duration;

/// Body of an HTTP request: ours carry a few words.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// One gRPC message: parameters of a job are at most 256 KiB, a list of jobs has 500 of them at most.
pub const GRPC_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a worker may wait in `Lease`.
pub const LEASE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Jobs in one list answer.
pub const JOBS_LISTED_MAX: i64 = 500;
/// Recordings in one page.
pub const RECORDINGS_LISTED_MAX: i64 = 200;
/// Hits shown for one recording.
pub const HITS_MAX: i64 = 50;
/// Accesses shown.
pub const ACCESSES_MAX: i64 = 500;
/// Search text.
pub const QUERY_BYTES_MAX: usize = 500;
/// Words of a search text that count.
pub const QUERY_WORDS_MAX: usize = 16;
/// Job updates kept for a slow watcher before it gets the whole list again: 256 × ~2 kB each.
pub const WATCH_QUEUE: usize = 256;
/// How often expired leases are looked for.
pub const SWEEP: Duration = Duration::from_secs(1);
/// How long workers get to close their segments when the daemon ends.
pub const DRAIN: Duration = Duration::from_secs(8);
/// Time before what follows from a job's end is tried again (object store away).
pub const SETTLE_RETRY_MS: i64 = 15_000;
/// Life of a tap token: long enough to open the tap, short enough to be worthless in a log.
pub const TAP_TOKEN_S: u64 = 600;
/// The head of the audit log is signed after this many entries…
pub const AUDIT_HEAD_ENTRIES: i64 = 64;
/// …or at the latest after this long.
pub const AUDIT_HEAD_MS: i64 = 60_000;
/// A player asks for many ranges, a page reads again and again: one line in the audit log for the same
/// person, action and recording within this time.
pub const QUIET_MS: i64 = 300_000;
/// Accesses remembered for that.
pub const LATELY_MAX: usize = 10_000;
/// Derived file that a worker may hand in: eight hours of video at 4 Mbit/s.
pub const DERIVED_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Transcript kept in memory to be indexed: eight hours of ten people talking at once.
pub const TRANSCRIPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Parts of an upload.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
/// Chunks of a derived file fetched in one go while it is played (1 MiB).
pub const PLAY_CHUNKS: u64 = 16;
