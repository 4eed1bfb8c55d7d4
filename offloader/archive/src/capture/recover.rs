//! After a crash: cut what is not whole, keep everything that is.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::track::{TrackWriter, count, empty_line};
use super::{CaptureError, CaptureWriter, replaces};
use crate::SEGMENTS_DIR;
use crate::files;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::manifest::{Entry, GapLine, Line, Manifest, SegmentLine};
use crate::record::{GapReason, Record};
use crate::segment::{self, SegmentId};
use crate::tree::sha256;

/// What the next attempt found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was a recording to go on with.
    pub continued: bool,
    /// Bytes of an unfinished manifest line that were cut.
    pub manifest_bytes_cut: u64,
    /// Segments that were closed here because their writer could not.
    pub segments_recovered: u64,
    /// Bytes of torn blocks that were cut from them.
    pub segment_bytes_cut: u64,
    /// The gap that is now marked, Unix µs.
    pub gap: Option<(i64, i64)>,
}

/// Reads the manifest and cuts an unfinished end off the file.
pub(super) fn cut_manifest(path: &Path) -> Result<(Manifest, u64), CaptureError> {
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MANIFEST_BYTES_MAX => {
            return Err(CaptureError::Changed(format!("{} is larger than any manifest", path.display())));
        }
        Ok(_) => std::fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Manifest::default(), 0)),
        Err(error) => return Err(error.into()),
    };
    let (manifest, whole, error) = Manifest::parse_whole_lines(&bytes);
    if let Some(error) = error
        && whole_lines_follow(&bytes[whole..])
    {
        // A crash leaves rubbish at the end. Good lines after a bad one mean that somebody was here.
        return Err(CaptureError::Changed(error.to_string()));
    }
    let cut = (bytes.len() - whole) as u64;
    if cut > 0 {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
    }
    Ok((manifest, cut))
}

fn whole_lines_follow(rest: &[u8]) -> bool {
    rest.split(|byte| *byte == b'\n').skip(1).any(|line| serde_json::from_slice::<Line>(line).is_ok())
}

impl CaptureWriter {
    pub(super) fn take_over(&mut self, manifest: Manifest, manifest_bytes_cut: u64) -> Result<Recovery, CaptureError> {
        if manifest.size() == 0 {
            return Ok(Recovery { manifest_bytes_cut, ..Recovery::default() });
        }
        let mut recovery = Recovery { continued: true, manifest_bytes_cut, ..Recovery::default() };
        let mut found = self.recover_segments(&manifest, &mut recovery)?;
        recovery.segments_recovered = found.len() as u64;
        let last_us = found.iter().map(|line| line.to_us).chain([manifest.ended_at_us()]).max();
        for track in &manifest.tracks {
            let added = found.iter().filter(|line| line.track == track.number);
            let index = track.segments.len() as u32 + added.clone().count() as u32;
            let track_us = added.chain(&track.segments).map(|line| line.to_us).max();
            let ended = track.ended_at_us.is_some();
            self.by_sid.insert(track.info.track_sid.clone(), track.number);
            self.tracks.push(TrackWriter::resumed(track.number, track.info.clone(), index, track_us, ended, self.now_us));
        }
        for consent in &manifest.consents {
            if replaces(self.answers.get(&consent.identity).copied(), consent) {
                self.answers.insert(consent.identity.clone(), (consent.answered_at_ms, consent.granted));
            }
        }
        for key in &manifest.media_keys {
            self.media_keys.retain(|known| !known.is_of(key));
            self.media_keys.push(key.clone());
        }
        for line in found.drain(..) {
            self.append(self.now_us, Entry::Segment(line))?;
        }
        if let Some(from_us) = last_us {
            let to_us = self.now_us.max(from_us);
            self.append(self.now_us, Entry::Gap(GapLine { track: None, from_us, to_us, packets: 0, reason: GapReason::Worker }))?;
            recovery.gap = Some((from_us, to_us));
        }
        Ok(recovery)
    }

    /// Files that no line speaks of: open ones, and closed ones whose line was not written any more.
    fn recover_segments(&self, manifest: &Manifest, recovery: &mut Recovery) -> Result<Vec<SegmentLine>, CaptureError> {
        let dir = self.dir.join(SEGMENTS_DIR);
        let mut left: Vec<(SegmentId, String)> = Vec::new();
        for entry in std::fs::read_dir(&dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let open = name.strip_suffix(".seg").map_or(name.clone(), |stem| format!("{stem}.open"));
            if let Some(id) = SegmentId::from_open_name(&open)
                && !listed(manifest, id)
            {
                left.push((id, name));
            }
        }
        left.sort_by_key(|(id, _)| (id.track, id.index, id.fence));
        let mut lines: Vec<SegmentLine> = Vec::new();
        for (id, name) in left {
            let next = manifest
                .tracks
                .get(id.track as usize)
                .map(|track| track.segments.len() + lines.iter().filter(|line| line.track == id.track).count());
            let path = dir.join(&name);
            match self.recover_segment(&path, id, recovery)? {
                // Anything that is not the track's next piece was left by an attempt before the last.
                Some(line) if next == Some(id.index as usize) => {
                    std::fs::rename(&path, dir.join(id.file_name()))?;
                    lines.push(line);
                }
                _ => std::fs::remove_file(&path)?,
            }
        }
        if !lines.is_empty() {
            files::sync_dir(&dir)?;
        }
        Ok(lines)
    }

    /// Cuts one file to its whole blocks; `None` if it has no packet.
    fn recover_segment(&self, path: &Path, id: SegmentId, recovery: &mut Recovery) -> Result<Option<SegmentLine>, CaptureError> {
        let bytes = Bytes::from(std::fs::read(path)?);
        let Ok(opened) = segment::open(bytes.clone(), id, &self.recording_id, &self.data_key) else { return Ok(None) };
        let whole = bytes.slice(..opened.whole_bytes as usize);
        let mut line = empty_line(id);
        for record in &opened.records {
            match record {
                Record::Packet(packet) => count(&mut line, packet),
                Record::Gap(gap) => line.lost = line.lost.saturating_add(gap.packets),
            }
        }
        if line.packets == 0 {
            return Ok(None);
        }
        if whole.len() < bytes.len() {
            recovery.segment_bytes_cut += (bytes.len() - whole.len()) as u64;
            OpenOptions::new().write(true).open(path)?.set_len(opened.whole_bytes)?;
        }
        File::open(path)?.sync_all()?;
        line.bytes = opened.whole_bytes;
        line.sha256 = hex::encode(sha256(&whole));
        line.cut = !opened.complete;
        Ok(Some(line))
    }
}

fn listed(manifest: &Manifest, id: SegmentId) -> bool {
    let track = manifest.tracks.get(id.track as usize);
    track.and_then(|track| track.segments.get(id.index as usize)).is_some_and(|line| line.id() == id)
}
