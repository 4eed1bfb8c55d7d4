//! One segment file: a head in clear text, then encrypted blocks of records.
//!
//! ```text
//! magic "CNCLSEG1" | fence u64 | track u32 | index u32        (24 bytes, authenticated with every block)
//! { length u32 | AES-256-GCM(block) with tag }*               last block: nonce with the "last" mark
//! ```
//!
//! A segment that was cut by a crash has no last block; its manifest line then says `cut`, and reading
//! one that ends early without that word is an error.

use std::io::{self, Write};

use aws_lc_rs::aead::{Aad, LessSafeKey};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, Bytes, BytesMut};

use crate::keys::{DataKey, KeyError, block_nonce};
use crate::limits::{BLOCK_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::record::{Record, RecordError};
use crate::tree::{Hash, finish};

const MAGIC: &[u8; 8] = b"CNCLSEG1";
/// Bytes before the first block.
pub const HEAD_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// A block may run over by the one record that filled it.
const SEALED_BLOCK_MAX: usize = BLOCK_BYTES_MAX + PAYLOAD_BYTES_MAX + 64 + TAG_BYTES;

/// Which segment of which track in which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentId {
    /// Track number in the recording.
    pub track: u32,
    /// Position in the track, from 0.
    pub index: u32,
    /// Fence of the attempt that wrote it.
    pub fence: u64,
}

impl SegmentId {
    /// File name in the folder of segments.
    pub fn file_name(self) -> String {
        format!("{:05}-{:07}-{}.seg", self.track, self.index, self.fence)
    }

    /// Name while it is open.
    pub fn open_name(self) -> String {
        format!("{:05}-{:07}-{}.open", self.track, self.index, self.fence)
    }

    /// Reads a name that [`SegmentId::open_name`] made.
    pub fn from_open_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".open")?.split('-');
        let (track, index, fence) = (parts.next()?, parts.next()?, parts.next()?);
        let id = Self { track: track.parse().ok()?, index: index.parse().ok()?, fence: fence.parse().ok()? };
        (parts.next().is_none() && id.open_name() == name).then_some(id)
    }

    fn head(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&self.fence.to_be_bytes());
        head[16..20].copy_from_slice(&self.track.to_be_bytes());
        head[20..24].copy_from_slice(&self.index.to_be_bytes());
        head
    }

    fn key(self, recording_id: &str, data_key: &DataKey) -> Result<LessSafeKey, KeyError> {
        data_key.file_key(recording_id, &[b"segment", &self.head()])
    }
}

/// A segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The head is not this segment's.
    #[error("the head is not the one of this segment")]
    Head,
    /// A block does not decrypt, or the file ends early.
    #[error("block {0} does not open: changed, cut, or written with another key")]
    Block(u64),
    /// A block's inside is wrong.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Writes one segment.
pub(crate) struct SegmentWriter<W: Write> {
    out: W,
    head: [u8; HEAD_BYTES],
    key: LessSafeKey,
    hash: Context,
    blocks: u64,
    bytes: u64,
    /// Records of the block being filled.
    plain: Vec<u8>,
}

impl<W: Write> SegmentWriter<W> {
    pub(crate) fn start(mut out: W, id: SegmentId, recording_id: &str, data_key: &DataKey) -> Result<Self, WriteError> {
        let key = id.key(recording_id, data_key)?;
        let head = id.head();
        out.write_all(&head)?;
        let mut hash = Context::new(&SHA256);
        hash.update(&head);
        Ok(Self { out, head, key, hash, blocks: 0, bytes: HEAD_BYTES as u64, plain: Vec::new() })
    }

    /// Adds a record; a full block goes to the kernel.
    pub(crate) fn push(&mut self, record: &Record) -> Result<(), WriteError> {
        record.encode(&mut self.plain);
        if self.plain.len() >= BLOCK_BYTES_MAX { self.write_block(false) } else { Ok(()) }
    }

    /// Gives what is collected to the kernel: from here on it survives the process.
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        if self.plain.is_empty() { Ok(()) } else { self.write_block(false) }
    }

    /// Bytes written, without the block being filled.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the last block; gives the file, its length and its hash.
    pub(crate) fn finish(mut self) -> Result<(W, u64, Hash), WriteError> {
        self.write_block(true)?;
        Ok((self.out, self.bytes, finish(self.hash)))
    }

    fn write_block(&mut self, last: bool) -> Result<(), WriteError> {
        let mut block = std::mem::take(&mut self.plain);
        self.key
            .seal_in_place_append_tag(block_nonce(self.blocks, last), Aad::from(self.head), &mut block)
            .map_err(|_| KeyError::Library("AES-GCM"))?;
        let length = (block.len() as u32).to_be_bytes();
        // One write for each block: a crash leaves whole blocks and at most one torn one.
        let mut whole = Vec::with_capacity(block.len() + 4);
        whole.extend_from_slice(&length);
        whole.extend_from_slice(&block);
        self.out.write_all(&whole)?;
        self.hash.update(&whole);
        self.bytes += whole.len() as u64;
        self.blocks += 1;
        block.clear();
        self.plain = block;
        Ok(())
    }
}

/// A segment cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a segment file holds.
#[derive(Debug, Default)]
pub struct Opened {
    /// Its records, in order.
    pub records: Vec<Record>,
    /// Bytes of whole blocks: where to cut a torn file.
    pub whole_bytes: u64,
    /// The last block was there.
    pub complete: bool,
}

/// Opens a segment's bytes. Stops at the first block that is not whole; `complete` tells whether that was
/// the proper end. Whoever reads a segment that is not marked as cut must insist on `complete`.
pub fn open(bytes: Bytes, id: SegmentId, recording_id: &str, data_key: &DataKey) -> Result<Opened, SegmentError> {
    let mut rest = bytes;
    if rest.len() < HEAD_BYTES || rest[..HEAD_BYTES] != id.head() {
        return Err(SegmentError::Head);
    }
    let head = rest.split_to(HEAD_BYTES);
    let key = id.key(recording_id, data_key)?;
    let mut opened = Opened { whole_bytes: HEAD_BYTES as u64, ..Opened::default() };
    let mut counter = 0;
    while let Some(sealed) = next_block(&mut rest) {
        let stored = 4 + sealed.len() as u64;
        let Some((mut plain, last)) = open_block(&key, counter, &head, &sealed) else { break };
        while let Some(record) = Record::decode(&mut plain)? {
            opened.records.push(record);
        }
        opened.whole_bytes += stored;
        counter += 1;
        if last {
            opened.complete = rest.is_empty();
            break;
        }
    }
    Ok(opened)
}

fn next_block(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.get(..4)?.try_into().map(u32::from_be_bytes).ok()?).ok()?;
    if !(TAG_BYTES..=SEALED_BLOCK_MAX).contains(&length) || rest.len() - 4 < length {
        return None;
    }
    rest.advance(4);
    Some(rest.split_to(length))
}

fn open_block(key: &LessSafeKey, counter: u64, head: &[u8], sealed: &[u8]) -> Option<(Bytes, bool)> {
    [false, true].into_iter().find_map(|last| {
        let mut block = BytesMut::from(sealed);
        let length = key.open_in_place(block_nonce(counter, last), Aad::from(head), &mut block).ok()?.len();
        block.truncate(length);
        Some((block.freeze(), last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Packet;

    const ID: SegmentId = SegmentId { track: 3, index: 9, fence: 2 };

    fn packet(seq: u64) -> Record {
        Record::Packet(Packet {
            at_us: seq as i64,
            seq,
            timestamp: seq * 960,
            marker: false,
            key_frame: false,
            audio_level: 20,
            payload: Bytes::from(vec![seq as u8; 100]),
        })
    }

    fn written(key: &DataKey) -> Vec<u8> {
        let mut writer = SegmentWriter::start(Vec::new(), ID, "r", key).unwrap();
        for seq in 0..30 {
            writer.push(&packet(seq)).unwrap();
            if seq % 10 == 9 {
                writer.flush().unwrap();
            }
        }
        writer.finish().unwrap().0
    }

    #[test]
    fn records_come_back_in_order() {
        let key = DataKey::generate().unwrap();
        let opened = open(written(&key).into(), ID, "r", &key).unwrap();
        assert!(opened.complete);
        assert_eq!(opened.records, (0..30).map(packet).collect::<Vec<_>>());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let key = DataKey::generate().unwrap();
        let bytes = written(&key);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let complete = open(changed.into(), ID, "r", &key).is_ok_and(|opened| opened.complete);
            assert!(!complete, "byte {at}");
        }
    }

    #[test]
    fn torn_file_gives_its_whole_blocks() {
        let key = DataKey::generate().unwrap();
        let bytes = written(&key);
        let mut seen = std::collections::BTreeSet::new();
        for length in HEAD_BYTES..bytes.len() {
            let opened = open(Bytes::copy_from_slice(&bytes[..length]), ID, "r", &key).unwrap();
            assert!(!opened.complete && opened.whole_bytes <= length as u64);
            assert_eq!(opened.records.len() % 10, 0);
            seen.insert(opened.records.len());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 10, 20, 30]);
    }

    #[test]
    fn segment_of_another_place_does_not_open() {
        let key = DataKey::generate().unwrap();
        let bytes = Bytes::from(written(&key));
        assert!(open(bytes.clone(), SegmentId { track: 4, ..ID }, "r", &key).is_err());
        assert!(!open(bytes, ID, "other", &key).unwrap().complete);
    }
}
