//! Portraits as the picture needs them: read from the recording when somebody is first drawn, kept in the size they were drawn in last.

use std::collections::HashMap;

use archive::read::Recording;
use ffmpeg_next::frame::Video;

use super::still;
use crate::limits::PORTRAITS_READY_MAX;
use crate::notes;

/// A portrait is kept with this side, which all that is drawn is made from.
const SIDE: u32 = 256;

/// Everybody's.
pub struct Portraits<'r> {
    recording: &'r Recording,
    tracks: HashMap<&'r str, u32>,
    /// Those that were drawn. Nobody tries twice what cannot be read.
    ready: HashMap<&'r str, Option<Ready>>,
}

struct Ready {
    picture: Video,
    drawn: Option<Video>,
}

impl<'r> Portraits<'r> {
    /// Of a recording. Nothing is read yet.
    pub fn of(recording: &'r Recording) -> Self {
        Self { recording, tracks: notes::portraits(recording).collect(), ready: HashMap::new() }
    }

    /// Somebody's portrait as a square of that side; `None`: there is none that can be drawn.
    pub fn get(&mut self, identity: &str, side: u32) -> Option<&Video> {
        let (&identity, &track) = self.tracks.get_key_value(identity)?;
        if !self.ready.contains_key(identity) && self.ready.len() >= PORTRAITS_READY_MAX {
            // Whoever is still shown is read again.
            self.ready.clear();
        }
        let recording = self.recording;
        let ready = self.ready.entry(identity).or_insert_with(|| match notes::portrait(recording, track) {
            Ok(bytes) => bytes.and_then(|bytes| still::square(&bytes, SIDE)).map(|picture| Ready { picture, drawn: None }),
            Err(error) => {
                tracing::warn!(identity, "a portrait is left out of the picture: {error}");
                None
            }
        });
        let Ready { picture, drawn } = ready.as_mut()?;
        if drawn.as_ref().is_none_or(|drawn| drawn.width() != side) {
            *drawn = still::resized(picture, side);
        }
        drawn.as_ref()
    }
}
