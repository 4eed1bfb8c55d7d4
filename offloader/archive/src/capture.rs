//! Writing a recording while the call runs.
//!
//! Packets of a track collect in its open segment; every half second they go to the kernel as an encrypted
//! block, and every two seconds all open segments are closed together: file synced, renamed, folder
//! synced, then their manifest lines, synced. A line therefore never names bytes that are not there, and
//! SIGKILL costs at most what was collected since the last block.
//!
//! A crash leaves open segments and perhaps half a line; the next attempt's [`CaptureWriter::open`] cuts
//! both to what is whole ([`recover`]), marks the gap and goes on with the same recording.
//!
//! All calls block on the disk: give it a thread. It does not read the clock.

mod recover;
mod track;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files;
use crate::keys::{AttemptGrant, AttemptSigner, DataKey, KeyError};
use crate::limits::{
    CHECKPOINT_SEGMENTS, CHECKPOINT_US, FLUSH_US, GAP_LINE_US, LOCK_WAIT_MS, NOTICE_BYTES_MAX, PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX,
    SEGMENT_US, TEXT_BYTES_MAX, TRACKS_MAX,
};
use crate::manifest::{
    Attempt, Chain, Checkpoint, Consent, End, Entry, Manifest, MediaKey, Muted, Participant, Start, TrackEnd, TrackInfo, TrackLine,
};
use crate::record::{Gap, GapReason, Packet, Record};
use crate::segment::{SegmentError, WriteError};
use crate::{FORMAT, MANIFEST_FILE, SEGMENTS_DIR};

pub use recover::Recovery;
use track::TrackWriter;

/// An arrival time further than this from the writer's own clock does not decide when segments close.
const CLOCK_SKEW_US: i64 = 10_000_000;

/// What the first line says; ignored when a recording is continued.
#[derive(Debug, Clone, Default)]
pub struct StartInfo {
    /// The call.
    pub call_id: String,
    /// Whose call.
    pub tenant: String,
    /// Title for people.
    pub title: String,
    /// Channel of the call.
    pub channel_id: String,
    /// Its name.
    pub channel_name: String,
    /// Who asked for the recording.
    pub started_by: String,
    /// Version of the notice that participants saw.
    pub notice_version: String,
    /// Its text.
    pub notice_text: String,
    /// Language hint.
    pub language: Option<String>,
    /// Writing pauses when the disk has less than so many bytes free; counts for every attempt. 0: only when it is full.
    pub free_bytes_min: u64,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the open segment.
    Stored,
    /// Its sender has not agreed to be recorded: nothing was kept.
    NoConsent,
    /// It came before, or far too late.
    Old,
    /// No such track was announced.
    UnknownTrack,
    /// Larger than any RTP payload.
    TooLarge,
}

/// Writing failed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Another attempt owns the recording now.
    #[error("another attempt has taken over this recording (our fence {ours}, its fence {theirs}): stop")]
    Stale {
        /// Our fence.
        ours: u64,
        /// The fence found.
        theirs: u64,
    },
    /// Another process holds the folder.
    #[error("another process is still writing {0}: end it first")]
    Busy(PathBuf),
    /// The recording has its last line.
    #[error("the recording has ended; nothing can be added")]
    Ended,
    /// The folder belongs to another recording.
    #[error("the folder holds recording {0}, not this one")]
    Foreign(String),
    /// The manifest was changed by someone.
    #[error("the manifest was changed: {0}")]
    Changed(String),
    /// An earlier error; nothing more is written, so that nothing is claimed that is not there.
    #[error("writing failed before ({0}); start a new attempt")]
    Broken(String),
    /// Too many tracks.
    #[error("a recording holds at most {TRACKS_MAX} tracks")]
    Tracks,
    /// The disk is full, or nearly so.
    #[error(
        "no room on the recording's disk ({0}): free space there, or give the offloader another OFFLOADER_DATA; \
         what was recorded is kept, and the recording goes on by itself once there is room"
    )]
    NoRoom(io::Error),
    /// The disk.
    #[error("cannot write the recording: {0}")]
    Io(io::Error),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A segment left behind.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
        if full { Self::NoRoom(error) } else { Self::Io(error) }
    }
}

impl From<WriteError> for CaptureError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => error.into(),
            WriteError::Key(error) => Self::Key(error),
        }
    }
}

/// Writes one recording in one attempt.
pub struct CaptureWriter {
    dir: PathBuf,
    /// Held until the process ends, whatever way it ends.
    _lock: File,
    manifest: File,
    /// Length after our last write. Anything else means somebody else writes.
    manifest_bytes: u64,
    manifest_dirty: bool,
    chain: Chain,
    recording_id: String,
    fence: u64,
    data_key: DataKey,
    signer: AttemptSigner,
    by_sid: HashMap<String, u32>,
    tracks: Vec<TrackWriter>,
    /// The newest answer of each person: when, and whether it was yes.
    answers: HashMap<String, (i64, bool)>,
    /// What was last said of each media key.
    media_keys: Vec<MediaKey>,
    now_us: i64,
    /// Number of the current 2 s window: all tracks close together.
    window: i64,
    flushed_us: i64,
    checkpoint_us: i64,
    segments_since_checkpoint: u64,
    free_bytes_min: u64,
    broken: Option<String>,
}

impl CaptureWriter {
    /// Begins a recording, or continues it after a crash or a pause.
    pub fn open(dir: &Path, grant: &AttemptGrant, start: StartInfo, now_us: i64) -> Result<(Self, Recovery), CaptureError> {
        files::create_dir(&dir.join(SEGMENTS_DIR))?;
        check_room(dir, start.free_bytes_min)?;
        let lock = lock(dir)?;
        let data_key = grant.data_key()?;
        let path = dir.join(MANIFEST_FILE);
        let (manifest, cut_bytes) = recover::cut_manifest(&path)?;
        if manifest.size() > 0 {
            check_may_continue(&manifest, grant)?;
        }
        let file = files::append(&path)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            _lock: lock,
            manifest_bytes: file.metadata()?.len(),
            manifest: file,
            manifest_dirty: false,
            chain: manifest.chain().clone(),
            recording_id: grant.recording_id.clone(),
            fence: grant.fence,
            data_key,
            signer: grant.signer()?,
            by_sid: HashMap::new(),
            tracks: Vec::new(),
            answers: HashMap::new(),
            media_keys: Vec::new(),
            now_us,
            window: now_us.div_euclid(SEGMENT_US),
            flushed_us: now_us,
            checkpoint_us: now_us,
            segments_since_checkpoint: 0,
            free_bytes_min: start.free_bytes_min,
            broken: None,
        };
        if manifest.size() == 0 {
            writer.append(now_us, Entry::Start(first_line(grant, start)))?;
        }
        writer.append(now_us, Entry::Attempt(Attempt { fence: grant.fence, certificate: grant.certificate.clone() }))?;
        let recovery = writer.take_over(manifest, cut_bytes)?;
        writer.sync()?;
        files::sync_dir(dir)?;
        Ok((writer, recovery))
    }

    /// A track appears. Again for a known one: its description may have changed.
    pub fn track(&mut self, at_us: i64, info: TrackInfo) -> Result<u32, CaptureError> {
        self.check()?;
        let info = bounded(info);
        let number = match self.by_sid.get(&info.track_sid) {
            Some(number) => *number,
            None if self.tracks.len() >= TRACKS_MAX => return Err(CaptureError::Tracks),
            None => self.tracks.len() as u32,
        };
        match self.tracks.get_mut(number as usize) {
            Some(known) if known.info == info && !known.ended => return Ok(number),
            Some(known) => {
                known.info = info.clone();
                known.ended = false;
            }
            None => {
                self.by_sid.insert(info.track_sid.clone(), number);
                self.tracks.push(TrackWriter::new(number, info.clone()));
            }
        }
        self.append(at_us, Entry::Track(TrackLine { track: number, info }))?;
        Ok(number)
    }

    /// An answer to the notice. On the disk when this returns: no media is kept before it. One that is older than what is known,
    /// or says the same, changes nothing: the job tells each attempt what people had answered when it was ordered.
    pub fn consent(&mut self, at_us: i64, consent: Consent) -> Result<(), CaptureError> {
        self.check()?;
        let consent = Consent {
            identity: cut(consent.identity),
            display_name: cut(consent.display_name),
            notice_version: cut(consent.notice_version),
            ..consent
        };
        let known = self.answers.get(&consent.identity).copied();
        if !replaces(known, &consent) {
            return Ok(());
        }
        let (identity, answer) = (consent.identity.clone(), (consent.answered_at_ms, consent.granted));
        if !consent.granted {
            // From here on nothing is kept, whatever becomes of the line.
            self.answers.insert(identity.clone(), answer);
        }
        if known.is_none_or(|(_, granted)| granted != consent.granted) {
            self.append(at_us, Entry::Consent(consent))?;
            self.sync()?;
        }
        self.answers.insert(identity, answer);
        Ok(())
    }

    fn agreed(&self, identity: &str) -> bool {
        self.answers.get(identity).is_some_and(|(_, granted)| *granted)
    }

    /// A media key was granted or taken back. On the disk when this returns: nothing that it opened is kept before it.
    pub fn media_key(&mut self, at_us: i64, key: MediaKey) -> Result<(), CaptureError> {
        self.check()?;
        let key = MediaKey { identity: cut(key.identity), display_name: cut(key.display_name), of: cut(key.of), ..key };
        match self.media_keys.iter_mut().find(|known| known.is_of(&key)) {
            // Told again when the tap is opened again.
            Some(known) if (known.granted, known.at_ms) == (key.granted, key.at_ms) => return Ok(()),
            Some(known) => *known = key.clone(),
            None => self.media_keys.push(key.clone()),
        }
        self.append(at_us, Entry::MediaKey(key))?;
        self.sync()
    }

    /// Somebody came or went.
    pub fn participant(&mut self, at_us: i64, identity: String, display_name: String, present: bool) -> Result<(), CaptureError> {
        self.check()?;
        self.append(at_us, Entry::Participant(Participant { identity: cut(identity), display_name: cut(display_name), present }))
    }

    /// A track was muted or unmuted.
    pub fn muted(&mut self, at_us: i64, track_sid: &str, muted: bool) -> Result<(), CaptureError> {
        self.check()?;
        match self.by_sid.get(track_sid) {
            Some(track) => self.append(at_us, Entry::Muted(Muted { track: *track, muted })),
            None => Ok(()),
        }
    }

    /// A track ended.
    pub fn track_ended(&mut self, at_us: i64, track_sid: &str) -> Result<(), CaptureError> {
        self.check()?;
        let Some(number) = self.by_sid.get(track_sid).copied() else { return Ok(()) };
        if let Some(track) = self.tracks.get_mut(number as usize) {
            track.ended = true;
        }
        self.append(at_us, Entry::TrackEnd(TrackEnd { track: number }))
    }

    /// A packet.
    pub fn push(&mut self, track_sid: &str, packet: Packet) -> Result<Pushed, CaptureError> {
        self.check()?;
        if packet.payload.len() > PAYLOAD_BYTES_MAX {
            return Ok(Pushed::TooLarge);
        }
        let Some(number) = self.by_sid.get(track_sid).copied() else { return Ok(Pushed::UnknownTrack) };
        let result = self.store(number, packet);
        self.remember(result)
    }

    /// Packets that never came.
    pub fn gap(&mut self, track_sid: &str, at_us: i64, from_seq: u64, packets: u64, reason: GapReason) -> Result<(), CaptureError> {
        self.check()?;
        let Some(number) = self.by_sid.get(track_sid).copied() else { return Ok(()) };
        let result = self.store_gap(number, Gap { at_us, from_seq, packets, reason });
        self.remember(result)
    }

    /// Time passes: call it two to four times a second.
    pub fn tick(&mut self, now_us: i64) -> Result<(), CaptureError> {
        self.check()?;
        self.now_us = now_us;
        let result = self.advance(now_us).and_then(|()| self.flush_and_checkpoint());
        self.remember(result)
    }

    /// Closes everything but leaves the recording open for the next attempt.
    pub fn pause(mut self, now_us: i64) -> Result<(), CaptureError> {
        self.check()?;
        self.now_us = now_us;
        self.close_segments()?;
        self.checkpoint()
    }

    /// Closes everything and writes the last line. The seal is put on by whoever holds the site's key.
    pub fn end(mut self, now_us: i64, reason: &str) -> Result<(), CaptureError> {
        self.check()?;
        self.now_us = now_us;
        self.close_segments()?;
        // What nobody could open up to the end is told by no later packet.
        let sealed: Vec<_> = self.tracks.iter_mut().filter_map(|track| track.end_sealed_gap(now_us)).collect();
        for gap in sealed {
            self.append(now_us, Entry::Gap(gap))?;
        }
        self.checkpoint()?;
        self.append(now_us, Entry::End(End { reason: cut(reason.to_owned()) }))?;
        self.sync()
    }

    /// Segments closed in this attempt and before.
    pub fn segments(&self) -> u64 {
        self.tracks.iter().map(|track| u64::from(track.next_index)).sum()
    }

    fn store(&mut self, number: u32, packet: Packet) -> Result<Pushed, CaptureError> {
        let at_us = packet.at_us;
        let Some(track) = self.tracks.get(number as usize) else { return Ok(Pushed::UnknownTrack) };
        if !self.agreed(&track.info.identity) {
            return Ok(Pushed::NoConsent);
        }
        self.advance(at_us)?;
        let Some(track) = self.tracks.get_mut(number as usize) else { return Ok(Pushed::UnknownTrack) };
        if !track.window.accept(packet.seq) {
            return Ok(Pushed::Old);
        }
        let line = track.end_pending_gap(at_us).filter(|gap| gap.to_us - gap.from_us >= GAP_LINE_US);
        let takeover = track.takeover.take();
        let dir = self.dir.join(SEGMENTS_DIR);
        if let Some(gap) = takeover {
            track.push(&dir, &self.recording_id, self.fence, &self.data_key, Record::Gap(Gap { from_seq: packet.seq, ..gap }))?;
        }
        track.push(&dir, &self.recording_id, self.fence, &self.data_key, Record::Packet(packet))?;
        let full = track.open_bytes() >= SEGMENT_BYTES_MAX;
        if let Some(line) = line {
            self.append(at_us, Entry::Gap(line))?;
        }
        if full {
            self.close_segments()?;
        }
        Ok(Pushed::Stored)
    }

    fn store_gap(&mut self, number: u32, gap: Gap) -> Result<(), CaptureError> {
        let Some(track) = self.tracks.get(number as usize) else { return Ok(()) };
        if !self.agreed(&track.info.identity) {
            return Ok(());
        }
        let Some(track) = self.tracks.get_mut(number as usize) else { return Ok(()) };
        track.begin_gap(&gap);
        // Only inside a segment that has media: a gap alone is told by the manifest.
        let dir = self.dir.join(SEGMENTS_DIR);
        if track.is_open() {
            track.push(&dir, &self.recording_id, self.fence, &self.data_key, Record::Gap(gap))?;
        }
        Ok(())
    }

    /// Closes all segments once the 2 s window has passed.
    fn advance(&mut self, at_us: i64) -> Result<(), CaptureError> {
        let at_us = if (at_us - self.now_us).abs() > CLOCK_SKEW_US { self.now_us } else { at_us };
        let window = at_us.div_euclid(SEGMENT_US);
        if window <= self.window {
            return Ok(());
        }
        self.window = window;
        self.close_segments()
    }

    fn flush_and_checkpoint(&mut self) -> Result<(), CaptureError> {
        if self.now_us - self.flushed_us >= FLUSH_US || self.now_us < self.flushed_us {
            self.flushed_us = self.now_us;
            if let Err(full) = check_room(&self.dir, self.free_bytes_min) {
                // While there still is some: everything that came is closed and signed for, as for a pause.
                self.close_segments()?;
                self.checkpoint()?;
                return Err(full);
            }
            for track in &mut self.tracks {
                track.flush()?;
            }
            if self.manifest_dirty {
                self.sync()?;
            }
        }
        let due = self.segments_since_checkpoint >= CHECKPOINT_SEGMENTS
            || (self.segments_since_checkpoint > 0 && self.now_us - self.checkpoint_us >= CHECKPOINT_US);
        if due { self.checkpoint() } else { Ok(()) }
    }

    fn close_segments(&mut self) -> Result<(), CaptureError> {
        let dir = self.dir.join(SEGMENTS_DIR);
        let mut lines = Vec::new();
        for track in &mut self.tracks {
            lines.extend(track.close(&dir, self.fence)?);
        }
        if lines.is_empty() {
            return Ok(());
        }
        // The names must be durable before the manifest may speak of them.
        files::sync_dir(&dir)?;
        self.segments_since_checkpoint += lines.len() as u64;
        for line in lines {
            self.append(self.now_us, Entry::Segment(line))?;
        }
        self.sync()
    }

    fn checkpoint(&mut self) -> Result<(), CaptureError> {
        let (size, root) = (self.chain.size(), hex::encode(self.chain.root()));
        let text = Checkpoint::text(&self.recording_id, self.fence, size, &root, self.now_us);
        let signature = self.signer.sign_hex(&text);
        self.append(self.now_us, Entry::Checkpoint(Checkpoint { fence: self.fence, size, root, signature }))?;
        self.checkpoint_us = self.now_us;
        self.segments_since_checkpoint = 0;
        self.sync()
    }

    fn append(&mut self, at_us: i64, entry: Entry) -> Result<(), CaptureError> {
        let result = self.append_line(at_us, entry);
        self.remember(result)
    }

    fn append_line(&mut self, at_us: i64, entry: Entry) -> Result<(), CaptureError> {
        if self.manifest.metadata()?.len() != self.manifest_bytes {
            return Err(CaptureError::Stale { ours: self.fence, theirs: self.fence + 1 });
        }
        let line = self.chain.extend(at_us, entry).map_err(io::Error::from)?;
        self.manifest.write_all(&line)?;
        self.manifest_bytes += line.len() as u64;
        self.manifest_dirty = true;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CaptureError> {
        let result = self.manifest.sync_data().map_err(CaptureError::from);
        self.manifest_dirty = false;
        self.remember(result)
    }

    fn check(&self) -> Result<(), CaptureError> {
        match &self.broken {
            Some(why) => Err(CaptureError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    /// A write that failed once is never tried again: the kernel may have dropped the pages.
    fn remember<T>(&mut self, result: Result<T, CaptureError>) -> Result<T, CaptureError> {
        if let Err(error) = &result {
            self.broken.get_or_insert_with(|| error.to_string());
        }
        result
    }
}

/// Whether an answer counts after the newest one that is known. Of two in the same millisecond it is the no.
fn replaces(known: Option<(i64, bool)>, consent: &Consent) -> bool {
    known.is_none_or(|(at_ms, granted)| consent.answered_at_ms > at_ms || (consent.answered_at_ms == at_ms && granted && !consent.granted))
}

fn lock(dir: &Path) -> Result<File, CaptureError> {
    let file = files::append(&dir.join("lock"))?;
    let step = Duration::from_millis(50);
    for _ in 0..LOCK_WAIT_MS / 50 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(step),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(CaptureError::Busy(dir.to_owned()))
}

/// Less than `min` bytes free is no room.
fn check_room(dir: &Path, min: u64) -> Result<(), CaptureError> {
    let free = if min == 0 { u64::MAX } else { files::free_bytes(dir)? };
    if free >= min {
        return Ok(());
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let text = format!("{} has {} MiB free, and {} MiB are to stay so", dir.display(), mib(free), mib(min));
    Err(CaptureError::NoRoom(io::Error::new(io::ErrorKind::StorageFull, text)))
}

fn check_may_continue(manifest: &Manifest, grant: &AttemptGrant) -> Result<(), CaptureError> {
    if manifest.start.recording_id != grant.recording_id {
        return Err(CaptureError::Foreign(manifest.start.recording_id.clone()));
    }
    if manifest.end.is_some() {
        return Err(CaptureError::Ended);
    }
    if grant.fence <= manifest.fence() {
        return Err(CaptureError::Stale { ours: grant.fence, theirs: manifest.fence() });
    }
    Ok(())
}

fn first_line(grant: &AttemptGrant, start: StartInfo) -> Start {
    let mut notice_text = start.notice_text;
    cut_to(&mut notice_text, NOTICE_BYTES_MAX);
    Start {
        format: FORMAT,
        recording_id: grant.recording_id.clone(),
        call_id: cut(start.call_id),
        tenant: cut(start.tenant),
        title: cut(start.title),
        channel_id: cut(start.channel_id),
        channel_name: cut(start.channel_name),
        started_by: cut(start.started_by),
        notice_version: cut(start.notice_version),
        notice_text,
        language: start.language.map(cut),
        wrapped_key: grant.wrapped_key.clone(),
        site_key_id: grant.site_key_id.clone(),
        software: concat!("conclave ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn bounded(info: TrackInfo) -> TrackInfo {
    TrackInfo {
        track_sid: cut(info.track_sid),
        identity: cut(info.identity),
        display_name: cut(info.display_name),
        kind: cut(info.kind),
        source: cut(info.source),
        mime: cut(info.mime),
        fmtp: cut(info.fmtp),
        ..info
    }
}

/// Names, ids and titles: one line that every reader can keep. PostgreSQL takes no U+0000. Replaced and not left out, or two identities
/// could become one.
fn cut(text: String) -> String {
    let mut text = if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text };
    cut_to(&mut text, TEXT_BYTES_MAX);
    text
}

fn cut_to(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}
