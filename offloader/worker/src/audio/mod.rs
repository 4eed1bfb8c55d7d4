//! Sound: Opus packets to samples on the call's time line, WAV files for operators and tests.

pub mod clock;
pub mod opus_track;
pub mod wav;

/// Time zero of everything derived from a recording: its first line, or its first media where the media node's clock is behind
/// the offloader's.
pub fn origin_us(recording: &archive::read::Recording) -> i64 {
    let media = recording.tracks().iter().flat_map(|track| &track.segments).map(|segment| segment.from_us).min();
    media.map_or(recording.started_at_us(), |media| media.min(recording.started_at_us()))
}
