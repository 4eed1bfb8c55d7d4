//! Every bound of the format, with its reason.

/// Length of a segment. What a crash may cost at most; small enough to be the unit of hashing and upload.
pub const SEGMENT_US: i64 = 2_000_000;

/// How often the open segment is flushed to the kernel. SIGKILL then costs at most this much.
pub const FLUSH_US: i64 = 500_000;

/// Plain bytes in one encrypted block of a segment. A 2 s segment of 2.5 Mbit/s video is ten of them.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a segment after which it is closed early: a publisher of 50 Mbit/s fills 12.5 MB in 2 s.
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Payload of one packet. UDP carries no more than 65507; anything larger is a mistake.
pub const PAYLOAD_BYTES_MAX: usize = 65_535;

/// One line of the manifest. A notice text is the longest thing in it.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a manifest: eight hours of 50 speakers are 720 000 segment lines of about 450 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Tracks in one recording (20 joins a minute for eight hours, two tracks each).
pub const TRACKS_MAX: usize = 20_000;

/// Any text that came from outside (names, mime types, fmtp) is cut here.
pub const TEXT_BYTES_MAX: usize = 512;

/// Notice text.
pub const NOTICE_BYTES_MAX: usize = 16 * 1024;

/// A signed checkpoint is written after this many segments…
pub const CHECKPOINT_SEGMENTS: u64 = 256;

/// …or after this long, whichever comes first.
pub const CHECKPOINT_US: i64 = 30_000_000;

/// A pause between two packets around lost ones is a gap line in the manifest from here on;
/// shorter ones stay inside the segment and are counted in its line.
pub const GAP_LINE_US: i64 = 200_000;

/// How long the next attempt waits for a dying predecessor to let go of the folder.
pub const LOCK_WAIT_MS: u64 = 5_000;

/// Index of a bundle: 400 bytes for each of up to 800 000 files.
pub const INDEX_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// A picture that is noted of somebody, put together in memory. Longer ones are exported piece by piece.
pub const IMAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Plain bytes of one chunk of a derived file: the unit of random access for players.
pub const CHUNK_BYTES: usize = 64 * 1024;
