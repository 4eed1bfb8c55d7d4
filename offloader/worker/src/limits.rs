//! Every bound of the worker, with the reason for the number and the memory it commits.

use std::time::Duration;

/// Whisper's and Silero's sample rate.
pub const SPEECH_RATE: usize = 16_000;

/// Longest piece of speech given to the model at once when a recording is transcribed. Of 6, 12, 15 and 28 s, 12 to 15 gave
/// the fewest wrong words: shorter loses context, longer pays attention's square. 15 s are 0.96 MB of samples.
pub const CHUNK_SECONDS: f32 = 15.0;

/// How much of a track is looked at by the voice detector at a time: 30 s, 1.9 MB. Must be at least twice [`CHUNK_SECONDS`],
/// so that a chunk that touches the end of the window can wait for the next one.
pub const VAD_WINDOW_SECONDS: f32 = 30.0;

/// A hole in a track longer than this ends a run of sound; the next packet starts another. Shorter ones are filled (FEC,
/// concealment, then silence), because cutting a word in two costs more than half a second of zeros.
pub const RUN_BREAK: Duration = Duration::from_millis(500);

/// So much of somebody's speech in one piece settles its language, in samples at Whisper's rate: 3 s. One "Okay" says nothing of what
/// comes after it.
pub const LANGUAGE_SETTLES: usize = 3 * SPEECH_RATE;

/// Longest loss that Opus is asked to conceal; after 100 ms its guess is a drone, so silence follows.
pub const CONCEAL: Duration = Duration::from_millis(100);

/// The longest Opus packet there is (120 ms, RFC 6716 section 2.1.4), in samples a channel at 48 kHz.
pub const OPUS_PACKET_SAMPLES: usize = 5_760;

/// Renewals of the lease. Three fit into its 10 s.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);

/// Without a successful renewal for this long the worker stops writing; the lease ends after 10 s by the offloader's clock,
/// so 2 s are left for the last write to end.
pub const LEASE_SILENCE: Duration = Duration::from_secs(8);

/// A call to the offloader that takes longer is tried again; less than a third of the lease.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer to a finished job may take so long: 16 GiB, the longest file that is taken, stored with 40 Mbit/s.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Between two tries of a call that failed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// A work order: some consents and settings. 4 MiB is a call of thousands.
pub const JOB_MESSAGE_BYTES: usize = 4 << 20;

/// Events that may wait for the disk: at 50 packets a second and ten tracks 8 s, with 1.2 kB packets 5 MB. When it is full the
/// tap is read no further, and the media node drops this reader's packets and says so.
pub const CAPTURE_QUEUE: usize = 4_096;

/// The archive's writer flushes by time; it is told this often.
pub const CAPTURE_TICK: Duration = Duration::from_millis(250);

/// Pause before the tap is opened again; doubles up to the second number.
pub const TAP_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A media node that restarted does not know the call until its people are back; one that still does not know it after this
/// long has no such call any more.
pub const CALL_UNKNOWN: Duration = Duration::from_secs(45);

/// Key frames of one track are asked for at most this often; the media node damps as well.
pub const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);

/// One message of the tap: a batch of packets, at most some hundred kB.
pub const TAP_MESSAGE_BYTES: usize = 8 << 20;

/// Packets that may wait for the listener of live captions: 20 s of three talkers. Beyond that captions are too late anyway.
pub const CAPTION_QUEUE: usize = 4_096;

/// Lines that may wait to be sent.
pub const CAPTIONS_WAITING: usize = 256;

/// Tracks with captions in one call; each holds 1 s of sound while quiet, 12 s (0.8 MB) while talking.
pub const CAPTION_TRACKS: usize = 256;

/// Recognisers of one caption job at most; each holds about 130 MB (tiny.en) besides the shared model.
pub const CAPTION_THREADS: usize = 8;

/// A frame put together from packets: a key frame of a 4K screen is 1 to 2 MB.
pub const FRAME_BYTES: usize = 8 << 20;

/// Bytes of a file that go to a Mattermost server in one request: its own bound is 100 MiB by default, and proxies before it often
/// have less. A server or proxy that takes less says so, and gets less.
pub const UPLOAD_CHUNK: u64 = 16 << 20;

/// Of an upload in several requests the first must carry this much (Mattermost's own rule).
pub const UPLOAD_FIRST: u64 = 5 << 20;

/// A file longer than this goes to a bucket in parts of it, one at a time in memory. S3 takes 10 000 of them, which is the 160 GB that no
/// rendered file has.
pub const BUCKET_PART: u64 = 16 << 20;

/// A bucket's server that says and takes nothing for so long is taken for away.
pub const BUCKET_SILENCE: Duration = Duration::from_secs(30);

/// Pause before a server that is away is asked again; doubles up to the second number.
pub const SITE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A server that takes nothing for so long is not waited for: the publication is put down, its row says for what it waits, and its place
/// on the machine goes to another.
pub const SITE_PATIENCE: Duration = Duration::from_secs(60);

/// A bucket that takes nothing for so long gets no file.
pub const BUCKET_PATIENCE: Duration = Duration::from_secs(600);

/// After a publication whose answer was lost, the server is asked for so long whether it did it.
pub const ANSWER_LOST: Duration = Duration::from_secs(20);

/// A transcript that is read into memory: ten hours of ten talkers are 20 MB.
pub const TRANSCRIPT_BYTES: u64 = 256 << 20;

/// What the media node may send before this side has read it.
pub const TAP_WINDOW: u32 = 4 << 20;

/// Bytes of a portrait that is kept. Mattermost's own are 128 by 128 pixels, some 30 kB.
pub const PORTRAIT_BYTES_MAX: usize = 512 << 10;

/// Pixels of a portrait that is decoded: 16 MiB for a moment.
pub const PORTRAIT_PIXELS_MAX: u64 = 4 << 20;

/// Portraits kept with one recording, 128 MiB at most; who comes later has initials.
pub const PORTRAITS_MAX: usize = 256;

/// Portraits asked for at a time: the site has a call to serve.
pub const PORTRAITS_ASKED: usize = 4;

/// Decoded portraits at hand while a recording is rendered: three screens full of people, half a MiB each.
pub const PORTRAITS_READY_MAX: usize = 48;

/// Signs of one recording that are shown: hands, hosts, reactions. Five minutes of a call in which everything is reacted to at once
/// have 6 000.
pub const SIGNS_MAX: usize = 200_000;

/// Reactions noted with each tick of the capture, of the whole call: twenty a second.
pub const REACTIONS_A_TICK: usize = 5;

/// Sessions of a call whose hand or microphone is kept in mind: as many as the plugin's state of a call may have.
pub const SESSIONS_NOTED_MAX: usize = 10_000;

/// Media keys of one call that are held: a kilobyte each. The media node gives no more.
pub const MEDIA_KEYS: usize = 1_024;

/// Keys derived from what was granted, at once and then one in this time: each is 100 000 rounds, some 30 ms, which hostile grants
/// must not make of the whole recording.
pub const MEDIA_KEY_DERIVATIONS: u32 = 64;
/// See [`MEDIA_KEY_DERIVATIONS`], µs of the packets' time.
pub const MEDIA_KEY_DERIVATION_US: i64 = 200_000;

/// Steps of a ratchet that are tried ahead, at most; `livekit-client` tries 8 unless told otherwise.
pub const MEDIA_KEY_RATCHET: usize = 16;

/// Packets of one encrypted picture that are waited for: a key frame of a 4K screen has two thousand.
pub const SEALED_FRAME_PACKETS: usize = 8_192;

/// Encrypted media that cannot be opened is told at least this often, µs.
pub const SEALED_GAP_US: i64 = 1_000_000;
