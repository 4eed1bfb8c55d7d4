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
/// How often an offloader says that it lives.
pub const NODE_BEAT: Duration = Duration::from_secs(2);
/// One that was not heard of for so long is taken for dead where nothing can be lost by it: before its workers' leases end (10 s).
pub const NODE_AWAY_MS: i64 = 8_000;
/// The same for sealing its recordings: a restart should come back to what only its own disk has.
pub const SETTLE_AWAY_MS: i64 = 60_000;
/// How long a waiting recording is left to the node that has its latest bytes.
pub const OWNER_FIRST_MS: i64 = 3_000;
/// How often closed segments are copied: as often as they are closed.
pub const COPY_EVERY: Duration = Duration::from_secs(2);
/// Segments of a recording that are copied at a time: 8 × 64 MiB at worst, some kB as a rule.
pub const COPIES_AT_ONCE: usize = 8;
/// Lines of a manifest that are copied in one step.
pub const COPY_BYTES: u64 = 1024 * 1024;
/// How long an ending worker's answer waits for the last copies; within the time a worker waits for an answer (3 s).
pub const FLUSH_COPIES: Duration = Duration::from_millis(2_500);
/// How far back changes of other offloaders are looked for: longer than a transaction lasts.
pub const NEWS_OVERLAP_MS: i64 = 10_000;
/// Wake-ups that wait to be sent: ids of about 40 bytes.
pub const RINGS: usize = 256;
/// Wake-ups kept in Redis, about 150 bytes each. Who was away longer looks into SQL.
pub const REDIS_STREAM: usize = 1_024;
/// How long a read waits for a wake-up before it asks again.
pub const REDIS_BLOCK: Duration = Duration::from_secs(5);
/// How long Redis may take to answer.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before Redis is tried again; doubles up to the second number.
pub const REDIS_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// A worker whose attempt is over ends within this time by itself.
pub const STUCK_MS: i64 = 10_000;
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
/// Clients of the calls-offloader contract: each is a Mattermost installation, and a row of 150 bytes.
pub const CALLS_CLIENTS_MAX: i64 = 10_000;
/// Body of `/jobs` and `/jobs/init`, as the original has it.
pub const CALLS_BODY_BYTES_MAX: usize = 1 << 20;
/// How long a connection may be silent before its request's head is there, as the original has it.
pub const HEAD_TIME: Duration = Duration::from_secs(30);
/// Open connections: workers have two each.
pub const CONNECTIONS_MAX: usize = 1_024;
/// A log file is set aside at this size, as the original does.
pub const LOG_BYTES_MAX: u64 = 100 << 20;
/// A capture that does not end when it is asked to is killed after this long, as the original does.
pub const CALLS_KILL_MS: i64 = 300_000;
/// A row of that contract without its capture is given up after this long.
pub const CALLS_ORPHAN_MS: i64 = 60_000;
/// How long it is remembered that a recording was deleted: other nodes clear their folders by it.
pub const PURGES_KEPT_MS: i64 = 30 * 86_400_000;
/// What one kind of worker writes for one job of that contract; as much again is kept of what was before.
pub const JOB_LOG_BYTES_MAX: u64 = 1 << 20;
/// Pause before a recording that could not be deleted is tried again.
pub const PURGE_PAUSE: Duration = Duration::from_secs(15);
/// A recording begins, or goes on, where the disk has so many times what pauses it: it is not paused again in the next moment.
pub const ROOM_TO_RECORD: u64 = 2;
/// What can be made again begins, and goes on, only with so much: the disk that it fills stays one that recordings begin on.
pub const ROOM_TO_DERIVE: u64 = 3;
