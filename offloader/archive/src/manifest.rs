//! The manifest: one JSON line for everything that happened, each bound to the line before it.
//!
//! `prev` is the SHA-256 of the previous line (without its newline), the first line has zeros. All lines
//! are leaves of the hash tree, so who was there, what they agreed to and what was stored share one root.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::keys::{Certificate, KeyError, PublicKey};
use crate::limits::{LINE_BYTES_MAX, TRACKS_MAX};
use crate::record::GapReason;
use crate::segment::SegmentId;
use crate::tree::{Hash, Tree, sha256};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Position, from 0.
    pub n: u64,
    /// SHA-256 of the previous line.
    pub prev: String,
    /// When, Unix µs.
    pub at_us: i64,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// First line.
    Start(Start),
    /// A capture process begins to write.
    Attempt(Attempt),
    /// A track appears, or its description changed.
    Track(TrackLine),
    /// A closed segment. Its bytes were on the disk before this line.
    Segment(SegmentLine),
    /// Media that is missing.
    Gap(GapLine),
    /// Somebody came or went.
    Participant(Participant),
    /// Somebody answered the recording notice.
    Consent(Consent),
    /// Somebody granted a key of what is encrypted end to end, or took it back.
    MediaKey(MediaKey),
    /// A track was muted or unmuted.
    Muted(Muted),
    /// A track ended.
    TrackEnd(TrackEnd),
    /// Signed statement over all lines before it.
    Checkpoint(Checkpoint),
    /// Last line.
    End(End),
}

/// What is recorded, and under which notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Version of the format.
    pub format: u32,
    /// The recording.
    pub recording_id: String,
    /// The call.
    pub call_id: String,
    /// Whose call.
    pub tenant: String,
    /// Title for people.
    pub title: String,
    /// Channel of the call.
    pub channel_id: String,
    /// Its name at that time.
    pub channel_name: String,
    /// Who asked for the recording.
    pub started_by: String,
    /// Version of the notice that participants saw.
    pub notice_version: String,
    /// Its text.
    pub notice_text: String,
    /// Language hint, if any.
    pub language: Option<String>,
    /// Data key, wrapped by the site key.
    pub wrapped_key: String,
    /// Which site key.
    pub site_key_id: String,
    /// What wrote this.
    pub software: String,
}

/// A capture process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its fence: only grows.
    pub fence: u64,
    /// Its key, certified by the site.
    pub certificate: Certificate,
}

/// What a track is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// Id on the media node.
    pub track_sid: String,
    /// Who speaks or shows.
    pub identity: String,
    /// Their name at that time.
    pub display_name: String,
    /// `audio` or `video`.
    pub kind: String,
    /// `microphone`, `camera`, `screen_share`, `screen_share_audio`.
    pub source: String,
    /// `audio/opus`, `video/VP8` …
    pub mime: String,
    /// RTP clock.
    pub clock_rate: u32,
    /// Audio channels; 0 for video.
    pub channels: u32,
    /// RTP payload type.
    pub payload_type: u32,
    /// Codec parameters.
    pub fmtp: String,
    /// Video width as announced.
    pub width: u32,
    /// Video height as announced.
    pub height: u32,
    /// How it came encrypted end to end. What is stored is what was inside.
    #[serde(default, skip_serializing_if = "Encryption::is_none")]
    pub encryption: Encryption,
}

/// How media is encrypted end to end, in LiveKit's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Not.
    #[default]
    None,
    /// As the frame cryptors of `livekit-client` and libwebrtc do it.
    Gcm,
    /// In the application's own way.
    Custom,
}

impl Encryption {
    /// In clear.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A track gets its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackLine {
    /// Number in this recording.
    pub track: u32,
    /// What it is.
    pub info: TrackInfo,
}

/// A closed segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentLine {
    /// Track number.
    pub track: u32,
    /// Position in the track.
    pub index: u32,
    /// Attempt that wrote it.
    pub fence: u64,
    /// Length of the stored bytes.
    pub bytes: u64,
    /// SHA-256 of the stored (encrypted) bytes.
    pub sha256: String,
    /// Packets inside.
    pub packets: u64,
    /// Packets known to be missing inside.
    pub lost: u64,
    /// First and last extended sequence number.
    pub first_seq: u64,
    /// See `first_seq`.
    pub last_seq: u64,
    /// Arrival of the first and of the last packet, Unix µs.
    pub from_us: i64,
    /// See `from_us`.
    pub to_us: i64,
    /// Key frames that begin inside.
    pub key_frames: u32,
    /// Cut by a crash at its last whole block.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl SegmentLine {
    /// Its place.
    pub fn id(&self) -> SegmentId {
        SegmentId { track: self.track, index: self.index, fence: self.fence }
    }
}

/// Media that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapLine {
    /// The track; none: the whole recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u32>,
    /// Last packet before.
    pub from_us: i64,
    /// First packet after.
    pub to_us: i64,
    /// How many packets, where known.
    pub packets: u64,
    /// Why.
    pub reason: GapReason,
}

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Who.
    pub identity: String,
    /// Name at that time.
    pub display_name: String,
    /// Came, or went.
    pub present: bool,
}

/// An answer to the recording notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Who.
    pub identity: String,
    /// Name at that time.
    pub display_name: String,
    /// Yes or no.
    pub granted: bool,
    /// When, Unix ms.
    pub answered_at_ms: i64,
    /// To which notice.
    pub notice_version: String,
}

/// A grant of a media key, never the key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaKey {
    /// Who granted it.
    pub identity: String,
    /// Name at that time.
    pub display_name: String,
    /// Granted, or taken back.
    pub granted: bool,
    /// When, Unix ms.
    pub at_ms: i64,
    /// Whose media it opens; empty: everybody's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// Its number in the frames.
    pub key_index: u8,
}

impl MediaKey {
    /// Whether another line is about the same key.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.identity, &self.of, self.key_index) == (&other.identity, &other.of, other.key_index)
    }
}

/// A track was muted or unmuted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    /// Track number.
    pub track: u32,
    /// Now muted.
    pub muted: bool,
}

/// A track ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackEnd {
    /// Track number.
    pub track: u32,
}

/// Signed statement over all lines before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Attempt that signs.
    pub fence: u64,
    /// Lines covered.
    pub size: u64,
    /// Tree root over them.
    pub root: String,
    /// Ed25519 by the attempt key.
    pub signature: String,
}

impl Checkpoint {
    pub(crate) fn text(recording_id: &str, fence: u64, size: u64, root: &str, at_us: i64) -> Vec<u8> {
        format!("conclave checkpoint v1\n{recording_id}\n{fence}\n{size}\n{root}\n{at_us}\n").into_bytes()
    }
}

/// Why the recording ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `call_ended`, `stopped`, `lost`.
    pub reason: String,
}

/// A manifest does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than any line we write.
    #[error("line {0} is longer than {LINE_BYTES_MAX} bytes")]
    Long(u64),
    /// Not JSON of a known kind.
    #[error("line {0} cannot be read: {1}")]
    Json(u64, String),
    /// Number or hash of the previous line is wrong.
    #[error("line {0} does not continue the line before it")]
    Chain(u64),
    /// Something that is not allowed there.
    #[error("line {0}: {1}")]
    Order(u64, &'static str),
    /// A signature is wrong.
    #[error("line {0}: {1}")]
    Key(u64, KeyError),
    /// Ends inside a line.
    #[error("ends inside line {0}")]
    Torn(u64),
    /// Has no first line.
    #[error("has no first line")]
    Empty,
}

/// A track with everything the manifest says about it.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Its number.
    pub number: u32,
    /// What it is (as last described).
    pub info: TrackInfo,
    /// First described at, Unix µs.
    pub at_us: i64,
    /// Its segments, in order.
    pub segments: Vec<SegmentLine>,
    /// Its gaps.
    pub gaps: Vec<GapLine>,
    /// Ended at, Unix µs.
    pub ended_at_us: Option<i64>,
}

/// A manifest, read and checked.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// First line.
    pub start: Start,
    /// When it was written, Unix µs.
    pub started_at_us: i64,
    /// Capture processes.
    pub attempts: Vec<Attempt>,
    /// Tracks by number.
    pub tracks: Vec<Track>,
    /// Comings and goings with their time.
    pub participants: Vec<(i64, Participant)>,
    /// Answers.
    pub consents: Vec<Consent>,
    /// Grants of media keys.
    pub media_keys: Vec<MediaKey>,
    /// Mutes with their time.
    pub muted: Vec<(i64, Muted)>,
    /// Gaps of the whole recording.
    pub gaps: Vec<GapLine>,
    /// Signed checkpoints.
    pub checkpoints: u64,
    /// Last line, with its time.
    pub end: Option<(i64, End)>,
    chain: Chain,
    attempt_keys: HashMap<u64, PublicKey>,
    site_keys: Vec<PublicKey>,
}

/// Where the chain stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    head: Option<Hash>,
    tree: Tree,
}

impl Chain {
    /// Makes the next line's bytes, with newline, and counts it in.
    pub(crate) fn extend(&mut self, at_us: i64, entry: Entry) -> Result<Vec<u8>, serde_json::Error> {
        let line = Line { n: self.tree.size(), prev: hex::encode(self.head.unwrap_or_default()), at_us, entry };
        let mut bytes = serde_json::to_vec(&line)?;
        self.count(&bytes);
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn count(&mut self, line: &[u8]) {
        self.head = Some(sha256(line));
        self.tree.push(line);
    }
}

impl Manifest {
    /// Reads a whole manifest; every line must hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (manifest, whole, error) = Self::parse_whole_lines(bytes);
        match error {
            Some(error) => Err(error),
            None if whole != bytes.len() => Err(ManifestError::Torn(manifest.size())),
            None if manifest.size() == 0 => Err(ManifestError::Empty),
            None => Ok(manifest),
        }
    }

    /// Reads a manifest that is still being written, as far as it goes.
    pub fn read_so_far(bytes: &[u8]) -> Self {
        Self::parse_whole_lines(bytes).0
    }

    /// Reads up to the first line that does not hold: the manifest so far, the bytes of its lines, and what
    /// was wrong with the next one (nothing if the rest is only an unfinished line).
    pub(crate) fn parse_whole_lines(bytes: &[u8]) -> (Self, usize, Option<ManifestError>) {
        let mut manifest = Self::default();
        let mut whole = 0;
        while let Some(length) = bytes[whole..].iter().position(|byte| *byte == b'\n') {
            if let Err(error) = manifest.add(&bytes[whole..whole + length]) {
                return (manifest, whole, Some(error));
            }
            whole += length + 1;
        }
        (manifest, whole, None)
    }

    /// Adds one line (without newline). On an error nothing has changed but what the line's kind keeps.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ManifestError> {
        let n = self.size();
        if bytes.len() > LINE_BYTES_MAX {
            return Err(ManifestError::Long(n));
        }
        let line: Line = serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(n, error.to_string()))?;
        if line.n != n || line.prev != hex::encode(self.chain.head.unwrap_or_default()) {
            return Err(ManifestError::Chain(n));
        }
        self.apply(line)?;
        self.chain.count(bytes);
        Ok(())
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Number of lines.
    pub fn size(&self) -> u64 {
        self.chain.tree.size()
    }

    /// Tree root over all lines.
    pub fn root(&self) -> Hash {
        self.chain.tree.root()
    }

    /// SHA-256 of the last line.
    pub fn head(&self) -> Hash {
        self.chain.head.unwrap_or_default()
    }

    /// Fence of the latest attempt.
    pub fn fence(&self) -> u64 {
        self.attempts.last().map_or(0, |attempt| attempt.fence)
    }

    /// Site keys that certified the attempts.
    pub fn site_keys(&self) -> &[PublicKey] {
        &self.site_keys
    }

    /// All segments, track by track.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentLine> {
        self.tracks.iter().flat_map(|track| &track.segments)
    }

    /// Whether sound or pictures were stored: notes about people alone are nothing that could be heard or shown.
    pub fn has_media(&self) -> bool {
        self.tracks.iter().any(|track| matches!(track.info.kind.as_str(), "audio" | "video") && !track.segments.is_empty())
    }

    /// The latest arrival that any line tells of, Unix µs.
    pub fn ended_at_us(&self) -> i64 {
        let media = self.segments().map(|segment| segment.to_us).max();
        media.into_iter().chain(self.end.as_ref().map(|end| end.0)).max().unwrap_or(self.started_at_us)
    }

    /// Where the recording ends for people, Unix µs. An attempt that took it up after an outage only to end it adds hours in which
    /// nothing was recorded: then that is where the gap begins. A silent call that was taken up in time lasts as long as it did.
    pub fn shown_until_us(&self) -> i64 {
        let end_us = self.ended_at_us();
        match self.gaps.iter().rfind(|gap| gap.reason == GapReason::Worker) {
            Some(gap) if end_us - gap.to_us < gap.to_us - gap.from_us && self.segments().all(|segment| segment.to_us <= gap.from_us) => {
                gap.from_us.max(self.started_at_us)
            }
            _ => end_us,
        }
    }

    /// The latest answer of a person.
    pub fn consent_of(&self, identity: &str) -> Option<bool> {
        self.consents.iter().rev().find(|consent| consent.identity == identity).map(|consent| consent.granted)
    }

    fn apply(&mut self, line: Line) -> Result<(), ManifestError> {
        let (n, at_us) = (line.n, line.at_us);
        let order = |what| Err(ManifestError::Order(n, what));
        if self.end.is_some() {
            return order("something follows the last line");
        }
        if (n == 0) != matches!(line.entry, Entry::Start(_)) {
            return order("the first line, and only that, says what is recorded");
        }
        match line.entry {
            Entry::Start(start) => {
                self.started_at_us = at_us;
                self.start = start;
            }
            Entry::Attempt(attempt) => {
                if attempt.fence <= self.fence() {
                    return order("an attempt's fence did not grow");
                }
                let (site, key) =
                    attempt.certificate.verify(&self.start.recording_id, attempt.fence).map_err(|error| ManifestError::Key(n, error))?;
                if !self.site_keys.contains(&site) {
                    self.site_keys.push(site);
                }
                self.attempt_keys.insert(attempt.fence, key);
                self.attempts.push(attempt);
            }
            Entry::Track(TrackLine { track, info }) => match (self.tracks.len(), self.tracks.get_mut(track as usize)) {
                (_, Some(known)) => {
                    known.info = info;
                    known.ended_at_us = None;
                }
                (next, None) if track as usize == next && next < TRACKS_MAX => {
                    self.tracks.push(Track { number: track, info, at_us, ..Track::default() });
                }
                _ => return order("track numbers are not in order"),
            },
            Entry::Segment(segment) => {
                if segment.fence > self.fence() {
                    return order("a segment of an attempt that never began");
                }
                let Some(track) = self.tracks.get_mut(segment.track as usize) else {
                    return order("a segment of an unknown track");
                };
                if segment.index as usize != track.segments.len() {
                    return order("a segment is missing before this one");
                }
                track.segments.push(segment);
            }
            Entry::Gap(gap) => match gap.track {
                None => self.gaps.push(gap),
                Some(track) => match self.tracks.get_mut(track as usize) {
                    Some(track) => track.gaps.push(gap),
                    None => return order("a gap of an unknown track"),
                },
            },
            Entry::Participant(participant) => self.participants.push((at_us, participant)),
            Entry::Consent(consent) => self.consents.push(consent),
            Entry::MediaKey(key) => self.media_keys.push(key),
            Entry::Muted(muted) => self.muted.push((at_us, muted)),
            Entry::TrackEnd(TrackEnd { track }) => match self.tracks.get_mut(track as usize) {
                Some(track) => track.ended_at_us = Some(at_us),
                None => return order("the end of an unknown track"),
            },
            Entry::Checkpoint(checkpoint) => {
                let Some(key) = self.attempt_keys.get(&checkpoint.fence) else {
                    return order("a checkpoint of an unknown attempt");
                };
                let root = hex::encode(self.root());
                if checkpoint.size != n || checkpoint.root != root {
                    return order("a checkpoint does not fit the lines before it");
                }
                let text = Checkpoint::text(&self.start.recording_id, checkpoint.fence, n, &root, at_us);
                key.verify_hex("a checkpoint", &text, &checkpoint.signature).map_err(|error| ManifestError::Key(n, error))?;
                self.checkpoints += 1;
            }
            Entry::End(end) => self.end = Some((at_us, end)),
        }
        Ok(())
    }
}

impl Chain {
    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(crate) fn root(&self) -> Hash {
        self.tree.root()
    }
}
