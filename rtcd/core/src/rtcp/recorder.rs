//! Records when packets arrive and reports it as transport-wide feedback.

use std::time::{Duration, Instant};

use super::packet::{FMT_TWCC, RTPFB};
use super::twcc::{DELTA_US, LARGE_DELTA, NOT_RECEIVED, REFERENCE_US, SMALL_DELTA};
use super::writer::RtcpWriter;
use crate::rtp::SeqExtender;

/// How often feedback is sent while packets arrive. libwebrtc's middle; each packet of it wakes the sender.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Arrivals remembered: 100 ms at 20 000 packets/s. 8 bytes each, allocated with the first packet.
const RING: usize = 2048;
/// Packets one feedback speaks of: fits a datagram at two bytes of delta each.
const PER_PACKET_MAX: usize = 400;

/// Arrival times of everything that one remote endpoint sends with transport-wide numbers.
#[derive(Clone, Debug, Default)]
pub struct TwccRecorder {
    extender: SeqExtender,
    // Arrival in µs since `origin`, plus one; 0: not arrived. Place `seq % RING`.
    arrivals: Vec<u64>,
    origin: Option<Instant>,
    // First not yet reported.
    base: Option<u64>,
    feedback_count: u8,
    due: Option<Instant>,
}

impl TwccRecorder {
    /// Nothing arrived.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet with this transport-wide number arrived.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, seq: u16) {
        if self.arrivals.is_empty() {
            self.arrivals = vec![0; RING];
        }
        let origin = *self.origin.get_or_insert(now);
        let before = self.extender.highest();
        let seq = self.extender.extend(seq);
        match before {
            Some(highest) if seq > highest => {
                // Places skipped hold arrivals from a ring ago.
                for skipped in highest.max(seq.saturating_sub(RING as u64)) + 1..seq {
                    self.put(skipped, 0);
                }
            }
            Some(highest) if highest - seq >= RING as u64 / 2 => return,
            Some(_) | None => {}
        }
        self.put(seq, now.saturating_duration_since(origin).as_micros() as u64 + 1);
        // A late one reopens what was reported as missing.
        self.base = Some(self.base.map_or(seq, |base| base.min(seq)));
        if self.due.is_none() {
            self.due = Some(now + FEEDBACK_INTERVAL);
        }
    }

    #[inline]
    fn put(&mut self, seq: u64, value: u64) {
        if let Some(place) = self.arrivals.get_mut((seq % RING as u64) as usize) {
            *place = value;
        }
    }

    /// When feedback is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Appends feedback if it is due. False when nothing is due or the slot is full. More than one call may be needed; call
    /// until it answers false.
    pub fn poll(&mut self, now: Instant, writer: &mut RtcpWriter<'_>, sender_ssrc: u32, media_ssrc: u32) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        let (Some(base), Some(highest)) = (self.base, self.extender.highest()) else { return false };
        // What lies further back than the ring was overwritten.
        let base = base.max((highest + 1).saturating_sub(RING as u64));
        let at = |seq: u64| self.arrivals.get((seq % RING as u64) as usize).copied().filter(|at| *at != 0).map(|at| (at - 1) as i64);
        let Some(first) = (base..=highest).find_map(at) else {
            self.done(highest + 1);
            return false;
        };
        let reference = first.div_euclid(REFERENCE_US);
        let mut statuses = [NOT_RECEIVED; PER_PACKET_MAX];
        let mut deltas = [0i16; PER_PACKET_MAX];
        let (mut count, mut clock) = (0usize, reference * REFERENCE_US);
        for ((seq, status), delta) in (base..=highest).zip(statuses.iter_mut()).zip(deltas.iter_mut()) {
            if let Some(arrived) = at(seq) {
                let ticks = (arrived - clock).div_euclid(DELTA_US);
                let Ok(ticks) = i16::try_from(ticks) else { break };
                (*status, *delta) = (if (0..=255).contains(&ticks) { SMALL_DELTA } else { LARGE_DELTA }, ticks);
                clock += i64::from(ticks) * DELTA_US;
            }
            count += 1;
        }
        let (statuses, deltas) = (statuses.get(..count).unwrap_or_default(), deltas.get(..count).unwrap_or_default());
        let written = writer.packet(FMT_TWCC, RTPFB, |writer| {
            writer.u32(sender_ssrc);
            writer.u32(media_ssrc);
            writer.u16(base as u16);
            writer.u16(count as u16);
            writer.u24((reference & 0x00FF_FFFF) as u32);
            writer.u8(self.feedback_count);
            let mut rest = statuses;
            while let Some((chunk, taken)) = chunk(rest) {
                writer.u16(chunk);
                rest = rest.get(taken..).unwrap_or_default();
            }
            for (status, delta) in statuses.iter().zip(deltas) {
                match *status {
                    SMALL_DELTA => writer.u8(*delta as u8),
                    LARGE_DELTA => writer.u16(delta.cast_unsigned()),
                    _ => {}
                }
            }
        });
        if !written || count == 0 {
            return false;
        }
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.done(base + count as u64);
        true
    }

    /// Everything before `next` is reported; the rest, if any, stays due at once.
    fn done(&mut self, next: u64) {
        self.base = Some(next);
        if self.extender.highest().is_none_or(|highest| next > highest) {
            self.due = None;
        }
    }
}

/// Packs the front of `statuses` into one chunk; answers it and how many it took.
fn chunk(statuses: &[u8]) -> Option<(u16, usize)> {
    let first = *statuses.first()?;
    let run = statuses.iter().take(0x1FFF).take_while(|status| **status == first).count();
    // A run pays when it holds more than a vector could.
    if run > 14 || run == statuses.len() || (run > 7 && first == LARGE_DELTA) {
        return Some(((u16::from(first) << 13) | run as u16, run));
    }
    // A one-bit vector always describes 14 packets, unless the feedback ends inside it.
    let narrow = statuses.len().min(14);
    if statuses.iter().take(narrow).all(|status| *status != LARGE_DELTA) {
        let bits = statuses.iter().take(narrow).enumerate().fold(0u16, |bits, (i, status)| bits | (u16::from(*status) << (13 - i)));
        return Some((0x8000 | bits, narrow));
    }
    let wide = statuses.len().min(7);
    let bits = statuses.iter().take(wide).enumerate().fold(0u16, |bits, (i, status)| bits | (u16::from(*status) << (12 - 2 * i)));
    Some((0xC000 | bits, wide))
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Packet, parse};
    use super::*;
    use proptest::prelude::*;

    /// Everything due at `now`, as the sender reads it.
    fn report(recorder: &mut TwccRecorder, now: Instant) -> Vec<(u16, Option<i64>)> {
        let mut all = Vec::new();
        loop {
            let mut slot = [0u8; 1200];
            let mut writer = RtcpWriter::new(&mut slot);
            if !recorder.poll(now, &mut writer, 1, 2) {
                return all;
            }
            let len = writer.finish().unwrap();
            for packet in parse(&slot[..len]) {
                let Ok(Packet::Twcc(feedback)) = packet else { panic!("{packet:?}") };
                all.extend(feedback.iter().map(|status| (status.seq, status.arrived_us)));
            }
        }
    }

    #[test]
    fn losses_between_two_reports_are_reported() {
        let now = Instant::now();
        let mut recorder = TwccRecorder::new();
        assert_eq!(recorder.poll_timeout(), None);
        recorder.handle_packet(now, 65_534);
        recorder.handle_packet(now + Duration::from_millis(1), 65_535);
        assert_eq!(report(&mut recorder, now), []);
        let due = recorder.poll_timeout().unwrap();
        assert_eq!(report(&mut recorder, due).len(), 2);
        assert_eq!(recorder.poll_timeout(), None);
        // 0 and 1 are lost at the seam
        recorder.handle_packet(due, 2);
        let due = recorder.poll_timeout().unwrap();
        let all = report(&mut recorder, due);
        assert_eq!(all.iter().map(|(seq, at)| (*seq, at.is_some())).collect::<Vec<_>>(), [(0, false), (1, false), (2, true)]);
        // 1 comes after all
        recorder.handle_packet(due, 1);
        let due = recorder.poll_timeout().unwrap();
        let all = report(&mut recorder, due);
        assert!(all.iter().any(|(seq, at)| *seq == 1 && at.is_some()));
    }

    proptest! {
        /// Whatever arrives when, the sender reads the arrival times back to within the format's 250 µs.
        #[test]
        fn reports_say_when_packets_arrived(
            first: u16,
            steps in proptest::collection::vec((prop_oneof![8 => Just(1u16), 1 => 2u16..30, 1 => 100u16..300], 0u64..60_000), 1..1500)
        ) {
            let now = Instant::now();
            let mut recorder = TwccRecorder::new();
            let (mut seq, mut at_us) = (first, 0);
            let begin = steps.first().map_or(0, |(_, pause)| *pause as i64);
            let mut truth = std::collections::HashMap::new();
            let mut seen: std::collections::HashMap<u16, i64> = std::collections::HashMap::new();
            for (step, pause) in steps {
                seq = seq.wrapping_add(step);
                at_us += pause;
                let at = now + Duration::from_micros(at_us);
                if recorder.poll_timeout().is_some_and(|due| due <= at) {
                    seen.extend(report(&mut recorder, at).into_iter().filter_map(|(seq, at)| Some((seq, at?))));
                }
                // Sequence numbers may repeat after a whole turn; stop before that confuses the model.
                if truth.insert(seq, at_us as i64).is_some() { break; }
                recorder.handle_packet(at, seq);
            }
            seen.extend(report(&mut recorder, now + Duration::from_micros(at_us) + FEEDBACK_INTERVAL).into_iter().filter_map(|(seq, at)| Some((seq, at?))));
            for (seq, at) in &seen {
                // The recorder's clock starts with the first packet.
                let error = (at - (truth[seq] - begin)).abs();
                prop_assert!(error <= 250, "{} {} {}", seq, at, truth[seq]);
            }
            prop_assert!(seen.len() + 1 >= truth.len(), "{} of {}", seen.len(), truth.len());
        }
    }
}
