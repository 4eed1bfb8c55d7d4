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

/// Longest loss that Opus is asked to conceal; after 100 ms its guess is a drone, so silence follows.
pub const CONCEAL: Duration = Duration::from_millis(100);

/// The longest Opus packet there is (120 ms, RFC 6716 section 2.1.4), in samples a channel at 48 kHz.
pub const OPUS_PACKET_SAMPLES: usize = 5_760;
