//! Reading a recording: for rendering, transcription and export.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::keys::DataKey;
use crate::limits::{MANIFEST_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::manifest::{Manifest, ManifestError, SegmentLine, Track};
use crate::record::Record;
use crate::segment::{self, SegmentError};
use crate::tree::sha256;
use crate::{MANIFEST_FILE, SEGMENTS_DIR};

/// Records held back so that late packets come out in order: as many as the writer accepts late.
const REORDER_RECORDS: usize = 128;

/// A recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk.
    #[error("cannot read {0}: {1}")]
    Io(PathBuf, io::Error),
    /// The manifest.
    #[error("the manifest does not hold: {0}")]
    Manifest(#[from] ManifestError),
    /// A segment's bytes are not those that were stored.
    #[error("segment {0} has been changed: its SHA-256 is not the one in the manifest")]
    Changed(String),
    /// A segment does not open.
    #[error("segment {0}: {1}")]
    Segment(String, SegmentError),
    /// A segment ends early and the manifest does not say so.
    #[error("segment {0} ends early")]
    Short(String),
    /// Larger than anything we write.
    #[error("{0} is larger than anything a recording holds")]
    Large(PathBuf),
}

/// A recording in a local folder.
pub struct Recording {
    dir: PathBuf,
    data_key: DataKey,
    manifest: Manifest,
}

impl Recording {
    /// Opens a folder and checks its manifest.
    pub fn open(dir: &Path, data_key: &DataKey) -> Result<Self, ReadError> {
        let manifest = Manifest::parse(&read_bounded(&dir.join(MANIFEST_FILE), MANIFEST_BYTES_MAX)?)?;
        Ok(Self { dir: dir.to_owned(), data_key: data_key.clone(), manifest })
    }

    /// Everything the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tracks by number.
    pub fn tracks(&self) -> &[Track] {
        &self.manifest.tracks
    }

    /// The recording's time zero, Unix µs.
    pub fn started_at_us(&self) -> i64 {
        self.manifest.started_at_us
    }

    /// Its end for people, Unix µs.
    pub fn shown_until_us(&self) -> i64 {
        self.manifest.shown_until_us()
    }

    /// A track's records in the order of their sequence numbers, each once. One segment is in memory at a
    /// time. After a takeover (gap with reason `Worker`) the numbering may begin anew.
    pub fn records(&self, track: u32) -> Records<'_> {
        let segments = self.manifest.tracks.get(track as usize).map_or(&[][..], |track| &track.segments);
        Records { recording: self, segments: segments.iter(), fence: 0, held: BTreeMap::new(), ready: VecDeque::new() }
    }

    /// Opens one segment.
    pub fn segment(&self, line: &SegmentLine) -> Result<Vec<Record>, ReadError> {
        let name = line.id().file_name();
        let bytes = read_bounded(&self.dir.join(SEGMENTS_DIR).join(&name), SEGMENT_BYTES_MAX * 2)?;
        if hex::encode(sha256(&bytes)) != line.sha256 {
            return Err(ReadError::Changed(name));
        }
        let opened = segment::open(Bytes::from(bytes), line.id(), &self.manifest.start.recording_id, &self.data_key)
            .map_err(|error| ReadError::Segment(name.clone(), error))?;
        if opened.complete || (line.cut && opened.whole_bytes == line.bytes) { Ok(opened.records) } else { Err(ReadError::Short(name)) }
    }
}

pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    let io = |error| ReadError::Io(path.to_owned(), error);
    if std::fs::metadata(path).map_err(io)?.len() > max {
        return Err(ReadError::Large(path.to_owned()));
    }
    std::fs::read(path).map_err(io)
}

/// See [`Recording::records`].
pub struct Records<'a> {
    recording: &'a Recording,
    segments: std::slice::Iter<'a, SegmentLine>,
    fence: u64,
    held: BTreeMap<(u64, u8), Record>,
    ready: VecDeque<Record>,
}

impl Records<'_> {
    fn release(&mut self, keep: usize) {
        while self.held.len() > keep {
            self.ready.extend(self.held.pop_first().map(|(_, record)| record));
        }
    }

    fn take_segment(&mut self, line: &SegmentLine) -> Result<(), ReadError> {
        if line.fence != self.fence {
            // Another attempt may count anew: nothing of it belongs before what is held.
            self.release(0);
            self.fence = line.fence;
        }
        for record in self.recording.segment(line)? {
            let place = match &record {
                // A gap stands before the packet that came in its place, if one came late.
                Record::Gap(gap) => (gap.from_seq, 0),
                Record::Packet(packet) => (packet.seq, 1),
            };
            self.held.entry(place).or_insert(record);
            self.release(REORDER_RECORDS);
        }
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.segments.next() {
                Some(line) => {
                    if let Err(error) = self.take_segment(line) {
                        return Some(Err(error));
                    }
                }
                None if self.held.is_empty() => return None,
                None => self.release(0),
            }
        }
    }
}
