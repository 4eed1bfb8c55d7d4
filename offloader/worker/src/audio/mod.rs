//! Sound: Opus packets to samples on the call's time line, WAV files for operators and tests.

pub mod clock;
pub mod opus_track;
pub mod wav;
