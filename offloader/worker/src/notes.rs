//! What is noted of people beside what they say and show: a portrait, a raised hand, a reaction, who is host.
//!
//! Each is a record of a track of its person, of the kind `data`: encrypted, hashed, sealed, exported and deleted with the recording
//! as sound and pictures are, and kept only of people who agreed. Written while a call is captured, read when it is rendered.

use archive::manifest::TrackInfo;
use archive::read::{ReadError, Recording};
use archive::record::{Packet, Record};
use archive::tracks::{Images, image_type};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{PORTRAIT_BYTES_MAX, SIGNS_MAX};

/// The kind of these tracks.
pub const KIND: &str = "data";
const PORTRAIT: &str = "portrait";
const SIGNS: &str = "signs";
/// Of a portrait so many bytes stand in one record: every tool's length of a packet holds it.
const PIECE_BYTES: usize = 32 * 1024;
/// Times of these tracks count microseconds, as the clock that they were noted by.
const CLOCK_RATE: u32 = 1_000_000;

/// What somebody signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// A hand is up, or down again.
    Hand(bool),
    /// They are host, or no longer.
    Host(bool),
    /// A reaction, by the emoji's name.
    Reaction(String),
}

/// The track of somebody's portrait; `None`: these bytes are no picture of a kind that is drawn.
pub fn portrait_track(identity: &str, name: &str, picture: &[u8]) -> Option<TrackInfo> {
    image_type(picture).map(|mime| track(PORTRAIT, identity, name, mime))
}

/// The track of somebody's signs.
pub fn signs_track(identity: &str, name: &str) -> TrackInfo {
    track(SIGNS, identity, name, "application/json")
}

fn track(source: &str, identity: &str, name: &str, mime: &str) -> TrackInfo {
    TrackInfo {
        track_sid: format!("{source}_{identity}"),
        identity: identity.to_owned(),
        display_name: name.to_owned(),
        kind: KIND.to_owned(),
        source: source.to_owned(),
        mime: mime.to_owned(),
        clock_rate: CLOCK_RATE,
        ..TrackInfo::default()
    }
}

/// Records of a note that was made at a moment. The moment is the sequence number too, so that a successor's never count anew.
pub fn packets(at_us: i64, note: &Bytes) -> Vec<Packet> {
    let pieces = note.len().div_ceil(PIECE_BYTES);
    let packet = |n: usize| Packet {
        at_us,
        seq: at_us.unsigned_abs() + n as u64,
        timestamp: at_us.unsigned_abs(),
        marker: n + 1 == pieces,
        key_frame: false,
        audio_level: 255,
        payload: note.slice(n * PIECE_BYTES..note.len().min((n + 1) * PIECE_BYTES)),
    };
    (0..pieces).map(packet).collect()
}

/// A sign's record.
pub fn sign_packets(at_us: i64, sign: &Sign) -> Vec<Packet> {
    packets(at_us, &serde_json::to_vec(sign).unwrap_or_default().into())
}

/// Whose portraits there are, and in which tracks.
pub fn portraits(recording: &Recording) -> impl Iterator<Item = (&str, u32)> {
    let tracks = recording.tracks().iter().filter(|track| track.info.kind == KIND && track.info.source == PORTRAIT);
    tracks.map(|track| (track.info.identity.as_str(), track.number))
}

/// The first whole picture of a portrait's track.
pub fn portrait(recording: &Recording, track: u32) -> Result<Option<Vec<u8>>, ReadError> {
    let picture = Images::of(recording, track).next().transpose()?;
    Ok(picture.filter(|picture| picture.len() <= PORTRAIT_BYTES_MAX))
}

/// All that people signalled, in the order of time: when, who, what. A track that cannot be read is left out, with a line in the log.
pub fn signs(recording: &Recording) -> Vec<(i64, &str, Sign)> {
    let mut signs = Vec::new();
    for track in recording.tracks().iter().filter(|track| track.info.kind == KIND && track.info.source == SIGNS) {
        for record in recording.records(track.number) {
            match record {
                Ok(Record::Packet(packet)) if signs.len() < SIGNS_MAX => {
                    if let Ok(sign) = serde_json::from_slice(&packet.payload) {
                        signs.push((packet.at_us, track.info.identity.as_str(), sign));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(identity = %track.info.identity, "what somebody signalled is left out of the picture: {error}");
                    break;
                }
            }
        }
    }
    signs.sort_by_key(|(at_us, ..)| *at_us);
    signs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_into_records_that_any_tool_takes() {
        let note = Bytes::from(vec![7; PIECE_BYTES * 2 + 5]);
        let packets = packets(1_000, &note);
        assert_eq!(
            packets.iter().map(|packet| (packet.seq, packet.payload.len(), packet.marker)).collect::<Vec<_>>(),
            [(1_000, PIECE_BYTES, false), (1_001, PIECE_BYTES, false), (1_002, 5, true)]
        );
        assert!(packets.iter().all(|packet| packet.timestamp == 1_000));
    }

    #[test]
    fn signs_are_plain_json() {
        for (sign, json) in [
            (Sign::Hand(true), r#"{"hand":true}"#),
            (Sign::Host(false), r#"{"host":false}"#),
            (Sign::Reaction("+1".into()), r#"{"reaction":"+1"}"#),
        ] {
            assert_eq!(sign_packets(1, &sign)[0].payload, json.as_bytes());
        }
    }
}
