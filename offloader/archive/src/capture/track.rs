//! One track of a recording being written.

use std::fs::File;
use std::path::Path;

use crate::files;
use crate::keys::DataKey;
use crate::manifest::{GapLine, SegmentLine, TrackInfo};
use crate::record::{Gap, GapReason, Packet, Record};
use crate::segment::{SegmentId, SegmentWriter, WriteError};

/// Late packets that still find their place: 128 audio packets are 2.5 s.
const REORDER_PACKETS: u64 = 128;

/// Tells a packet that came before from one that is only late.
#[derive(Debug, Default)]
pub(super) struct SeqWindow {
    top: Option<u64>,
    /// Bit i: `top - i` has come.
    seen: u128,
}

impl SeqWindow {
    pub(super) fn accept(&mut self, seq: u64) -> bool {
        let Some(top) = self.top else {
            *self = Self { top: Some(seq), seen: 1 };
            return true;
        };
        if seq > top {
            let ahead = seq - top;
            self.seen = if ahead < REORDER_PACKETS { self.seen << ahead | 1 } else { 1 };
            self.top = Some(seq);
            return true;
        }
        let behind = top - seq;
        if behind >= REORDER_PACKETS || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

struct PendingGap {
    from_us: i64,
    packets: u64,
    reason: GapReason,
}

struct OpenSegment {
    writer: SegmentWriter<File>,
    line: SegmentLine,
}

pub(super) struct TrackWriter {
    number: u32,
    pub(super) info: TrackInfo,
    pub(super) ended: bool,
    pub(super) next_index: u32,
    pub(super) window: SeqWindow,
    /// Set after a takeover: goes before the first packet, which also may begin a new numbering.
    pub(super) takeover: Option<Gap>,
    last_us: Option<i64>,
    pending: Option<PendingGap>,
    open: Option<OpenSegment>,
}

impl TrackWriter {
    pub(super) fn new(number: u32, info: TrackInfo) -> Self {
        Self {
            number,
            info,
            ended: false,
            next_index: 0,
            window: SeqWindow::default(),
            takeover: None,
            last_us: None,
            pending: None,
            open: None,
        }
    }

    /// The track goes on after a crash: what its last packet was is in the manifest.
    pub(super) fn resumed(number: u32, info: TrackInfo, next_index: u32, last_us: Option<i64>, ended: bool, now_us: i64) -> Self {
        let pending = last_us.map(|from_us| PendingGap { from_us, packets: 0, reason: GapReason::Worker });
        let takeover = last_us.map(|_| Gap { at_us: now_us, from_seq: 0, packets: 0, reason: GapReason::Worker });
        Self { next_index, last_us, ended, pending, takeover, ..Self::new(number, info) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.writer.bytes())
    }

    pub(super) fn begin_gap(&mut self, gap: &Gap) {
        let from_us = self.last_us.unwrap_or(gap.at_us);
        let pending = self.pending.get_or_insert(PendingGap { from_us, packets: 0, reason: gap.reason });
        if gap.reason == GapReason::Encrypted && pending.reason == GapReason::Network {
            // One line for both: this is the one that somebody can do something about.
            pending.reason = gap.reason;
        }
        pending.packets = pending.packets.saturating_add(gap.packets);
    }

    pub(super) fn end_pending_gap(&mut self, at_us: i64) -> Option<GapLine> {
        let PendingGap { from_us, packets, reason } = self.pending.take()?;
        Some(GapLine { track: Some(self.number), from_us, to_us: at_us, packets, reason })
    }

    /// At the track's last word.
    pub(super) fn end_sealed_gap(&mut self, at_us: i64) -> Option<GapLine> {
        self.pending.as_ref().filter(|pending| pending.reason == GapReason::Encrypted)?;
        self.end_pending_gap(at_us)
    }

    pub(super) fn push(&mut self, dir: &Path, recording_id: &str, fence: u64, key: &DataKey, record: Record) -> Result<(), WriteError> {
        if self.open.is_none() {
            self.open = Some(self.start(dir, recording_id, fence, key)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        match &record {
            Record::Packet(packet) => {
                count(&mut open.line, packet);
                self.last_us = Some(packet.at_us);
            }
            Record::Gap(gap) => open.line.lost = open.line.lost.saturating_add(gap.packets),
        }
        open.writer.push(&record)
    }

    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.open.as_mut().map_or(Ok(()), |open| open.writer.flush())
    }

    /// Last block, sync, final name. The folder and the manifest are the caller's.
    pub(super) fn close(&mut self, dir: &Path, fence: u64) -> Result<Option<SegmentLine>, WriteError> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let id = self.id(fence);
        let (file, bytes, hash) = open.writer.finish()?;
        file.sync_all()?;
        std::fs::rename(dir.join(id.open_name()), dir.join(id.file_name()))?;
        self.next_index += 1;
        Ok(Some(SegmentLine { bytes, sha256: hex::encode(hash), ..open.line }))
    }

    fn id(&self, fence: u64) -> SegmentId {
        SegmentId { track: self.number, index: self.next_index, fence }
    }

    fn start(&self, dir: &Path, recording_id: &str, fence: u64, key: &DataKey) -> Result<OpenSegment, WriteError> {
        let id = self.id(fence);
        let file = files::create(&dir.join(id.open_name()))?;
        let writer = SegmentWriter::start(file, id, recording_id, key)?;
        Ok(OpenSegment { writer, line: empty_line(id) })
    }
}

/// A line about nothing yet.
pub(super) fn empty_line(id: SegmentId) -> SegmentLine {
    SegmentLine {
        track: id.track,
        index: id.index,
        fence: id.fence,
        bytes: 0,
        sha256: String::new(),
        packets: 0,
        lost: 0,
        first_seq: 0,
        last_seq: 0,
        from_us: 0,
        to_us: 0,
        key_frames: 0,
        cut: false,
    }
}

/// Counts a packet into its segment's line.
pub(super) fn count(line: &mut SegmentLine, packet: &Packet) {
    if line.packets == 0 {
        (line.first_seq, line.last_seq) = (packet.seq, packet.seq);
        (line.from_us, line.to_us) = (packet.at_us, packet.at_us);
    }
    line.packets += 1;
    line.first_seq = line.first_seq.min(packet.seq);
    line.last_seq = line.last_seq.max(packet.seq);
    line.from_us = line.from_us.min(packet.at_us);
    line.to_us = line.to_us.max(packet.at_us);
    line.key_frames += u32::from(packet.key_frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_packet_is_taken_once_and_an_ancient_one_never() {
        let mut window = SeqWindow::default();
        assert!(window.accept(1000));
        assert!(!window.accept(1000));
        assert!(window.accept(1003));
        assert!(window.accept(1001));
        assert!(!window.accept(1001));
        assert!(!window.accept(1003 - 128));
        assert!(window.accept(1003 - 127));
        assert!(window.accept(5000));
        assert!(!window.accept(1004));
    }
}
