//! Media that is encrypted end to end, opened with keys that people in the call granted (docs/decisions/0027).
//!
//! What follows the capture, from the archive to the mixed file, is told of plain media only. Sound is opened packet by packet;
//! a picture's packets are held until it is whole. What no key opens is left out and told as a gap.

mod frame;
mod keys;
mod packets;

use std::collections::HashMap;

use archive::manifest::{Encryption, MediaKey, TrackInfo};
use archive::record::{GapReason, Packet};

pub use self::keys::{Derivation, KeyName, Secret};

use self::frame::{SOUND_HEADER, Sealed};
use self::keys::Keys;
use self::packets::{ends_frame, open_frame};
use super::source::Event;
use crate::limits::{FRAME_BYTES, SEALED_FRAME_PACKETS, SEALED_GAP_US};
use crate::render::depacket::Codec;

/// Between the source and the writer.
#[derive(Debug, Default)]
pub struct Opener {
    keys: Keys,
    /// Encrypted tracks by sid.
    tracks: HashMap<String, Track>,
    /// Tracks whose pictures have to begin anew.
    key_frames: Vec<String>,
}

#[derive(Debug)]
struct Track {
    identity: String,
    media: Media,
    /// Packets of the frame that is coming, and their bytes.
    building: Vec<Packet>,
    bytes: usize,
    next_seq: Option<u64>,
    missing: Option<Missing>,
    /// The last frame could be opened.
    fine: bool,
    opened: u64,
    left_out: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Sound,
    Picture(Codec),
    /// Nothing that we can open.
    Other,
}

/// Packets in a row that came and could not be opened.
#[derive(Debug)]
struct Missing {
    since_us: i64,
    from_seq: u64,
    packets: u64,
}

impl Opener {
    /// Told of everything that the source says, in its order; gives what the writer is told.
    pub fn handle(&mut self, event: Event) -> Vec<Event> {
        match event {
            Event::Opened => {
                self.keys.handle_reopened();
                vec![event]
            }
            Event::MediaKey { at_us, key, secret, by_name, at_ms } => {
                let note = MediaKey {
                    identity: key.by.clone(),
                    display_name: by_name,
                    granted: secret.is_some(),
                    at_ms,
                    of: key.of.clone(),
                    key_index: key.index,
                };
                match secret {
                    Some(secret) => {
                        // Frames that were left out so far can be opened from the next key frame on.
                        let theirs = |track: &&Track| matches!(track.media, Media::Picture(_)) && [&track.identity, ""].contains(&&*key.of);
                        self.key_frames.extend(self.tracks.iter().filter(|(_, track)| theirs(track)).map(|(sid, _)| sid.clone()));
                        self.keys.handle_granted(key, secret);
                    }
                    None => self.keys.handle_taken_back(&key),
                }
                vec![Event::MediaKeyNote { at_us, note }]
            }
            Event::Track { ref info, .. } => {
                let missing = self.end_track(&info.track_sid);
                if !info.encryption.is_none() {
                    self.tracks.insert(info.track_sid.clone(), Track::new(info));
                }
                missing.into_iter().chain([event]).collect()
            }
            Event::Packets { track_sid, packets } => match self.tracks.get_mut(&track_sid) {
                None => vec![Event::Packets { track_sid, packets }],
                Some(track) => {
                    let was_fine = track.fine;
                    let events = track.handle_packets(&mut self.keys, &track_sid, packets);
                    if was_fine && !track.fine && matches!(track.media, Media::Picture(_)) {
                        self.key_frames.push(track_sid);
                    }
                    events
                }
            },
            Event::Gap { ref track_sid, .. } => {
                let missing = self.tracks.get_mut(track_sid).and_then(|track| track.interrupt(track_sid));
                missing.into_iter().chain([event]).collect()
            }
            Event::TrackEnded { ref track_sid, .. } => self.end_track(track_sid).into_iter().chain([event]).collect(),
            Event::Participant { .. }
            | Event::Muted { .. }
            | Event::Consent { .. }
            | Event::MediaKeyNote { .. }
            | Event::PartEnded
            | Event::CallEnded => vec![event],
        }
    }

    /// The source broke or ended: what was held is told as missing.
    pub fn handle_end(&mut self) -> Vec<Event> {
        self.tracks.iter_mut().filter_map(|(sid, track)| track.interrupt(sid)).collect()
    }

    /// Tracks whose sender has to be asked for a key frame.
    pub fn poll_key_frames(&mut self) -> Vec<String> {
        std::mem::take(&mut self.key_frames)
    }

    fn end_track(&mut self, sid: &str) -> Option<Event> {
        let mut track = self.tracks.remove(sid)?;
        let missing = track.interrupt(sid);
        tracing::info!(
            track = sid,
            frames = track.opened,
            left_out = track.left_out,
            "an encrypted track was opened as far as keys were granted"
        );
        missing
    }
}

impl Track {
    fn new(info: &TrackInfo) -> Self {
        let media = match info.kind.as_str() {
            _ if info.encryption != Encryption::Gcm => Media::Other,
            "audio" if info.mime.eq_ignore_ascii_case("audio/opus") => Media::Sound,
            _ => Codec::from_mime(&info.mime).map_or(Media::Other, Media::Picture),
        };
        Self {
            identity: info.identity.clone(),
            media,
            building: Vec::new(),
            bytes: 0,
            next_seq: None,
            missing: None,
            fine: false,
            opened: 0,
            left_out: 0,
        }
    }

    fn handle_packets(&mut self, keys: &mut Keys, sid: &str, packets: Vec<Packet>) -> Vec<Event> {
        let mut out = Vec::new();
        for packet in packets {
            let at_us = packet.at_us;
            let whole = self.handle_packet(keys, packet);
            if !whole.is_empty() {
                out.extend(self.take_gap(sid, at_us));
                match out.last_mut() {
                    Some(Event::Packets { packets, .. }) => packets.extend(whole),
                    _ => out.push(Event::Packets { track_sid: sid.to_owned(), packets: whole }),
                }
            }
            if self.missing.as_ref().is_some_and(|missing| at_us - missing.since_us >= SEALED_GAP_US) {
                out.extend(self.take_gap(sid, at_us));
            }
        }
        out
    }

    /// Gives the packets of a frame that this one ends.
    fn handle_packet(&mut self, keys: &mut Keys, packet: Packet) -> Vec<Packet> {
        if self.next_seq.is_some_and(|next| next != packet.seq) {
            self.leave_out();
        }
        self.next_seq = Some(packet.seq.wrapping_add(1));
        if packet.payload.is_empty() && self.building.is_empty() {
            // Silence that is not sent, or padding: nothing is hidden in it.
            return vec![packet];
        }
        if self.building.first().is_some_and(|first| first.timestamp != packet.timestamp) {
            // The end was never marked.
            self.leave_out();
        }
        self.bytes += packet.payload.len();
        let at_us = packet.at_us;
        self.building.push(packet);
        let Self { identity, building, .. } = self;
        let open = |frame: &Sealed<'_>| keys.open(identity, at_us, frame);
        let opened = match self.media {
            Media::Sound => building.first_mut().is_some_and(|packet| open_sound(packet, open)),
            Media::Picture(codec) if building.last().is_some_and(|last| ends_frame(codec, last)) => open_frame(codec, building, open),
            Media::Picture(_) if self.bytes <= FRAME_BYTES && building.len() < SEALED_FRAME_PACKETS => return Vec::new(),
            Media::Picture(_) | Media::Other => false,
        };
        if !opened {
            self.leave_out();
            return Vec::new();
        }
        self.fine = true;
        self.opened += 1;
        self.bytes = 0;
        std::mem::take(&mut self.building)
    }

    /// What is held will not be opened.
    fn leave_out(&mut self) {
        self.bytes = 0;
        let packets = std::mem::take(&mut self.building);
        let (Some(first), Some(last)) = (packets.first(), packets.last()) else { return };
        self.fine = false;
        self.left_out += 1;
        let missing = self.missing.get_or_insert(Missing { since_us: first.at_us, from_seq: first.seq, packets: 0 });
        missing.packets = last.seq.saturating_sub(missing.from_seq).saturating_add(1);
    }

    fn take_gap(&mut self, sid: &str, at_us: i64) -> Option<Event> {
        let Missing { from_seq, packets, .. } = self.missing.take()?;
        Some(Event::Gap { track_sid: sid.to_owned(), at_us, from_seq, packets, reason: GapReason::Encrypted })
    }

    /// Nothing follows for now.
    fn interrupt(&mut self, sid: &str) -> Option<Event> {
        self.leave_out();
        self.next_seq = None;
        let at_us = self.missing.as_ref()?.since_us;
        self.take_gap(sid, at_us)
    }
}

fn open_sound(packet: &mut Packet, open: impl FnOnce(&Sealed<'_>) -> Option<Vec<u8>>) -> bool {
    let Some((header, rest)) = packet.payload.split_at_checked(SOUND_HEADER) else { return false };
    let Some(plain) = Sealed::split(header, rest).as_ref().and_then(open) else { return false };
    packet.payload = [header, &plain[..]].concat().into();
    true
}

#[cfg(test)]
mod tests;
