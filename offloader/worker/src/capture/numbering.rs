//! One numbering for each track over all the times a source was opened.
//!
//! rtcd numbers a track's packets from 0 each time a tap is opened, and lifts timestamps by one cycle. The archive keeps a packet
//! by its number, so what comes after a broken tap has to go on where the track stopped: one hole is left for what was missed.

use std::collections::HashMap;

use archive::record::{GapReason, Packet};

use super::source::Event;

/// A timestamp this far from where the arrival time puts it (seconds) is from another count.
const OFF_S: i64 = 2;
/// What an audio packet lasts, µs: to say about how many were missed.
const AUDIO_PACKET_US: i64 = 20_000;

/// Numbering of all tracks.
#[derive(Debug, Default)]
pub struct Numbering {
    tracks: HashMap<String, Track>,
}

#[derive(Debug, Default)]
struct Track {
    rate: i64,
    audio: bool,
    next_seq: u64,
    last_at_us: i64,
    last_timestamp: u64,
    seq_shift: u64,
    timestamp_shift: i64,
    any: bool,
    /// The source was opened again and this track has said nothing yet.
    fresh: bool,
}

impl Numbering {
    /// The source was opened again.
    pub fn handle_reopened(&mut self) {
        for track in self.tracks.values_mut() {
            track.fresh = track.any;
        }
    }

    /// Puts an event into the track's numbering. What was missed before it comes back as a gap, to be told first.
    pub fn renumber(&mut self, event: &mut Event) -> Option<Event> {
        match event {
            Event::Track { info, .. } => {
                let track = self.tracks.entry(info.track_sid.clone()).or_default();
                (track.rate, track.audio) = (i64::from(info.clock_rate.max(1)), info.kind == "audio");
                None
            }
            Event::Packets { track_sid, packets } => {
                let track = self.tracks.get_mut(track_sid)?;
                let first = packets.first()?;
                let gap = track.settle(track_sid, first.seq, first.at_us, Some(first.timestamp));
                for packet in packets {
                    track.pass(packet);
                }
                gap
            }
            Event::Gap { track_sid, at_us, from_seq, packets, .. } => {
                let track = self.tracks.get_mut(track_sid)?;
                let gap = track.settle(track_sid, *from_seq, *at_us, None);
                *from_seq = from_seq.wrapping_add(track.seq_shift);
                track.next_seq = track.next_seq.max(from_seq.saturating_add(*packets));
                gap
            }
            Event::Opened
            | Event::TrackEnded { .. }
            | Event::Participant { .. }
            | Event::Muted { .. }
            | Event::Consent { .. }
            | Event::MediaKey { .. }
            | Event::MediaKeyNote { .. }
            | Event::PartEnded
            | Event::CallEnded => None,
        }
    }
}

impl Track {
    /// On the first word after a reopening: sets the shifts and answers the gap.
    fn settle(&mut self, track_sid: &str, seq: u64, at_us: i64, timestamp: Option<u64>) -> Option<Event> {
        if !std::mem::take(&mut self.fresh) {
            return None;
        }
        let elapsed_us = (at_us - self.last_at_us).max(0);
        let shifted = seq.wrapping_add(self.seq_shift);
        let (from_seq, missed) = if shifted >= self.next_seq && shifted - self.next_seq < 1 << 32 {
            // A source that goes on counting.
            (self.next_seq, shifted - self.next_seq)
        } else {
            let missed = if self.audio { (elapsed_us / AUDIO_PACKET_US).max(1) as u64 } else { 1 };
            self.seq_shift = (self.next_seq + missed).wrapping_sub(seq);
            (self.next_seq, missed)
        };
        if let Some(timestamp) = timestamp {
            let expected = self.last_timestamp as i64 + (i128::from(elapsed_us) * i128::from(self.rate) / 1_000_000) as i64;
            let off = timestamp as i64 + self.timestamp_shift - expected;
            if off.abs() > OFF_S * self.rate {
                self.timestamp_shift -= off;
            }
        }
        (missed > 0).then(|| Event::Gap { track_sid: track_sid.to_string(), at_us, from_seq, packets: missed, reason: GapReason::Reader })
    }

    fn pass(&mut self, packet: &mut Packet) {
        packet.seq = packet.seq.wrapping_add(self.seq_shift);
        packet.timestamp = packet.timestamp.saturating_add_signed(self.timestamp_shift);
        self.any = true;
        self.next_seq = self.next_seq.max(packet.seq.saturating_add(1));
        (self.last_at_us, self.last_timestamp) = (packet.at_us, packet.timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive::manifest::TrackInfo;

    fn track() -> Event {
        let info = TrackInfo { track_sid: "t".into(), kind: "audio".into(), clock_rate: 48_000, ..TrackInfo::default() };
        Event::Track { at_us: 0, info }
    }

    fn packets(at_us: i64, seq: u64, timestamp: u64) -> Event {
        let packet = Packet { at_us, seq, timestamp, marker: false, key_frame: false, audio_level: 0, payload: bytes::Bytes::new() };
        Event::Packets { track_sid: "t".into(), packets: vec![packet] }
    }

    fn numbers(event: &Event) -> (u64, u64) {
        let Event::Packets { packets, .. } = event else { panic!("{event:?}") };
        (packets[0].seq, packets[0].timestamp)
    }

    #[test]
    fn a_source_that_counts_anew_goes_on_after_a_hole() {
        let mut numbering = Numbering::default();
        numbering.renumber(&mut track());
        for n in 0..100 {
            assert!(numbering.renumber(&mut packets(n as i64 * 20_000, n, 5_000_000_000 + n * 960)).is_none());
        }
        numbering.handle_reopened();
        numbering.renumber(&mut track());
        // One second later, from 0 again, in another cycle.
        let mut next = packets(99 * 20_000 + 1_000_000, 0, 700_000_000);
        let Some(Event::Gap { from_seq, packets: missed, reason, .. }) = numbering.renumber(&mut next) else { panic!("no gap") };
        assert_eq!((from_seq, missed, reason), (100, 50, GapReason::Reader));
        assert_eq!(numbers(&next), (150, 5_000_000_000 + 99 * 960 + 48_000));
        let mut after = packets(99 * 20_000 + 1_020_000, 1, 700_000_960);
        assert!(numbering.renumber(&mut after).is_none());
        assert_eq!(numbers(&after), (151, 5_000_000_000 + 100 * 960 + 48_000));
    }

    #[test]
    fn a_source_that_goes_on_counting_is_left_alone() {
        let mut numbering = Numbering::default();
        numbering.renumber(&mut track());
        numbering.renumber(&mut packets(0, 10, 960));
        numbering.handle_reopened();
        let mut next = packets(100_000, 15, 960 * 6);
        let Some(Event::Gap { from_seq, packets: missed, .. }) = numbering.renumber(&mut next) else { panic!("no gap") };
        assert_eq!((from_seq, missed), (11, 4));
        assert_eq!(numbers(&next), (15, 960 * 6));
    }
}
