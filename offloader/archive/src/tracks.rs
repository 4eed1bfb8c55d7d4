//! A track's packets in a file that standard tools open: Ogg for Opus, IVF for VP8, rtpdump for the rest.

mod ivf;
mod ogg;
mod rtpdump;

use std::io::{self, Seek, Write};

use crate::manifest::Track;
use crate::read::{ReadError, Recording};

/// A track cannot be written out.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// The recording.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file.
    #[error("cannot write the track: {0}")]
    Io(#[from] io::Error),
}

/// Extension of the file that [`write_track`] makes.
pub fn extension(track: &Track) -> &'static str {
    match track.info.mime.to_ascii_lowercase().as_str() {
        "audio/opus" => "ogg",
        "video/vp8" => "ivf",
        _ => "rtpdump",
    }
}

/// Writes one track.
pub fn write_track(recording: &Recording, track: &Track, out: &mut (impl Write + Seek)) -> Result<(), TrackError> {
    match extension(track) {
        "ogg" => ogg::write(recording, track, out),
        "ivf" => ivf::write(recording, track, out),
        _ => rtpdump::write(recording, track, out),
    }
}
