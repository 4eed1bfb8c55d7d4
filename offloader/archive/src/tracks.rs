//! A track's packets in files that standard tools open: Ogg for Opus, IVF for VP8, pictures as they are, rtpdump for the rest.

mod image;
mod ivf;
mod ogg;
mod rtpdump;

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::manifest::Track;
use crate::read::{ReadError, Recording};

pub use image::{Images, image_type};

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

/// Writes all of a track into files of `work`; gives them with what their names end on.
pub(crate) fn write_files(recording: &Recording, track: &Track, work: &Path) -> Result<Vec<(String, PathBuf)>, TrackError> {
    let (mut files, whole) = if image::is_image(track) { image::write_all(recording, track, work)? } else { (Vec::new(), false) };
    if !whole {
        let path = work.join(format!("track-{}", track.number));
        write_track(recording, track, &mut BufWriter::new(File::create(&path)?))?;
        files.push((format!(".{}", extension(track)), path));
    }
    Ok(files)
}

/// Extension of the file that [`write_track`] makes.
fn extension(track: &Track) -> &'static str {
    match track.info.mime.to_ascii_lowercase().as_str() {
        "audio/opus" => "ogg",
        "video/vp8" => "ivf",
        _ => "rtpdump",
    }
}

/// Writes one track into one file.
pub fn write_track(recording: &Recording, track: &Track, out: &mut (impl Write + Seek)) -> Result<(), TrackError> {
    match extension(track) {
        "ogg" => ogg::write(recording, track, out),
        "ivf" => ivf::write(recording, track, out),
        _ => rtpdump::write(recording, track, out),
    }
}
