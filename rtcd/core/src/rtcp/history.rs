//! What was sent with transport-wide numbers, to make sense of the feedback.

use std::time::{Duration, Instant};

use super::twcc::TwccFeedback;
use crate::limits::SEND_HISTORY_MAX;
use crate::rtp::extend;

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    // µs since `origin`, plus one; 0: empty, or acknowledged already.
    at_us: u64,
    len: u16,
}

/// One packet that feedback spoke of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Extended transport-wide number.
    pub seq: u64,
    /// When it was sent, since the history's origin (the first packet).
    pub sent: Duration,
    /// Bytes on the wire, as told.
    pub len: u16,
    /// When it arrived, µs of the receiver's clock (only differences mean anything); `None`: reported missing.
    pub arrived_us: Option<i64>,
}

/// Numbers our packets towards one receiver and remembers the last [`SEND_HISTORY_MAX`] of them. The ring is allocated with
/// the first packet, so legs without transport-wide feedback (audio only) cost nothing.
#[derive(Clone, Debug, Default)]
pub struct SendHistory {
    ring: Vec<Sent>,
    origin: Option<Instant>,
    next: u64,
    bytes: u64,
    // Arrival clocks wrap after 12 days: extended from feedback to feedback.
    reference_us: Option<i64>,
    feedback_count: Option<u8>,
    feedback_lost: u64,
}

impl SendHistory {
    /// Nothing sent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number for the packet that leaves now; `len` is its size on the wire. The low 16 bits go into the extension.
    #[inline]
    pub fn send(&mut self, now: Instant, len: usize) -> u16 {
        if self.ring.is_empty() {
            self.ring = vec![Sent::default(); SEND_HISTORY_MAX];
        }
        let origin = *self.origin.get_or_insert(now);
        let seq = self.next;
        self.next += 1;
        self.bytes += len as u64;
        if let Some(place) = self.ring.get_mut((seq % SEND_HISTORY_MAX as u64) as usize) {
            let at_us = now.saturating_duration_since(origin).as_micros() as u64 + 1;
            *place = Sent { at_us, len: u16::try_from(len).unwrap_or(u16::MAX) };
        }
        seq as u16
    }

    /// Reads feedback: appends what it newly says of packets we know, in order of sequence number. A packet is
    /// acknowledged once; numbers never sent, or forgotten, are ignored, so a lying receiver cannot invent arrivals.
    pub fn handle_feedback(&mut self, feedback: &TwccFeedback<'_>, acked: &mut Vec<Acked>) {
        if self.next == 0 {
            return;
        }
        let expected = self.feedback_count.map(|count| count.wrapping_add(1));
        let ahead = expected.map_or(0, |expected| feedback.feedback_count.wrapping_sub(expected));
        // Half a turn back is a late one, not 200 lost ones.
        self.feedback_lost += if ahead < 128 { u64::from(ahead) } else { 0 };
        self.feedback_count = Some(feedback.feedback_count);
        let shift = self.unwrap_reference(feedback.reference_us);
        for status in feedback.iter() {
            let seq = extend(self.next - 1, status.seq);
            if seq >= self.next || self.next - seq > SEND_HISTORY_MAX as u64 {
                continue;
            }
            let Some(sent) = self.ring.get_mut((seq % SEND_HISTORY_MAX as u64) as usize).filter(|sent| sent.at_us != 0) else { continue };
            let entry = Acked {
                seq,
                sent: Duration::from_micros(sent.at_us - 1),
                len: sent.len,
                arrived_us: status.arrived_us.map(|at| at.saturating_add(shift)),
            };
            if entry.arrived_us.is_some() {
                // A missing one may still be reported as arrived later; an arrived one is done.
                sent.at_us = 0;
            }
            acked.push(entry);
        }
    }

    /// What to add to this feedback's times so that they go on from the last one's.
    fn unwrap_reference(&mut self, reference_us: i64) -> i64 {
        const TURN_US: i64 = (1 << 24) * 64_000;
        let mut unwrapped = reference_us;
        if let Some(last) = self.reference_us {
            let turns = (last - reference_us + TURN_US / 2).div_euclid(TURN_US);
            unwrapped = reference_us.saturating_add(turns.saturating_mul(TURN_US));
        }
        self.reference_us = Some(unwrapped);
        unwrapped - reference_us
    }

    /// Moment `now` on the clock of [`Acked::sent`].
    #[must_use]
    pub fn since_origin(&self, now: Instant) -> Duration {
        self.origin.map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin))
    }

    /// Packets numbered so far: the next one's extended number.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Feedback packets that never came.
    #[must_use]
    pub fn feedback_lost(&self) -> u64 {
        self.feedback_lost
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Packet, parse};
    use super::super::recorder::TwccRecorder;
    use super::super::writer::RtcpWriter;
    use super::*;

    /// Sender and receiver over a way of 30 ms that loses every tenth packet.
    #[test]
    fn what_the_receiver_records_comes_back_as_acknowledgement() {
        let now = Instant::now();
        let (mut history, mut recorder) = (SendHistory::new(), TwccRecorder::new());
        let mut acked = Vec::new();
        for i in 0..70_000u64 {
            let sent = now + Duration::from_millis(i);
            let seq = history.send(sent, 1000);
            assert_eq!(seq, i as u16);
            if i % 10 != 9 {
                recorder.handle_packet(sent + Duration::from_millis(30), seq);
            }
            let mut slot = [0u8; 1400];
            let mut writer = RtcpWriter::new(&mut slot);
            recorder.poll(sent + Duration::from_millis(30), &mut writer, 1, 2);
            if let Some(len) = writer.finish() {
                for packet in parse(&slot[..len]) {
                    let Ok(Packet::Twcc(feedback)) = packet else { panic!() };
                    history.handle_feedback(&feedback, &mut acked);
                }
            }
        }
        let arrived: Vec<_> = acked.iter().filter(|a| a.arrived_us.is_some()).collect();
        assert!(arrived.len() > 62_000, "{}", arrived.len());
        assert!(acked.iter().filter(|a| a.arrived_us.is_none()).all(|a| a.seq % 10 == 9));
        for pair in arrived.windows(2) {
            let sent = (pair[1].sent - pair[0].sent).as_micros() as i64;
            assert!((pair[1].arrived_us.unwrap() - pair[0].arrived_us.unwrap() - sent).abs() <= 250);
        }
        assert_eq!(history.feedback_lost(), 0);
    }

    /// Attack class R-11: numbers never sent and repeated acknowledgements count for nothing.
    #[test]
    fn lies_are_ignored() {
        let now = Instant::now();
        let mut history = SendHistory::new();
        // base 0, 20 packets, all received with small deltas
        let mut fci = vec![0, 0, 0, 20, 0, 0, 1, 0, 0x20, 20];
        fci.extend([1; 20]);
        let feedback = TwccFeedback::parse(1, 2, &fci).unwrap();
        let mut acked = Vec::new();
        history.handle_feedback(&feedback, &mut acked);
        assert!(acked.is_empty());
        for _ in 0..5 {
            history.send(now, 100);
        }
        history.handle_feedback(&feedback, &mut acked);
        assert_eq!(acked.len(), 5);
        history.handle_feedback(&feedback, &mut acked);
        assert_eq!(acked.len(), 5);
    }
}
