//! What reports are made of: RFC 3550 appendices A.1, A.3 and A.8, and the sender's counts.

use std::time::{Duration, Instant};

use super::packet::ReportBlock;
use super::writer::SenderInfo;

/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

/// NTP time of a Unix time in microseconds.
#[must_use]
pub fn ntp_from_unix_us(unix_us: u64) -> u64 {
    let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
    ((seconds + NTP_UNIX_OFFSET) << 32) | ((micros << 32) / 1_000_000)
}

/// The middle 32 bits, as report blocks carry them.
#[must_use]
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// The round trip that a report block about one of our sources shows (RFC 3550 §6.4.1); `now_ntp` is the block's arrival.
/// `None` without a sender report behind it, and for claims of more than a minute or of the future.
#[must_use]
pub fn round_trip(block: &ReportBlock, now_ntp: u64) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = ntp_middle(now_ntp).wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
    (units < 60 << 16).then(|| Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16))
}

/// Counts what arrives from one source. Packets have to be authentic and not replayed.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ReceiverStats {
    first: Option<u64>,
    highest: u64,
    received: u64,
    bytes: u64,
    clock_rate: u32,
    // Jitter in 1/16 units of the media clock (RFC 3550 A.8).
    jitter_16: u32,
    last_arrival: Option<(Instant, u32)>,
    // Expected and received at the last report.
    prior: (u64, u64),
    last_sr: Option<(u32, Instant)>,
}

impl ReceiverStats {
    /// For a source with this media clock (Hz).
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            first: None,
            highest: 0,
            received: 0,
            bytes: 0,
            prior: (0, 0),
            jitter_16: 0,
            last_arrival: None,
            last_sr: None,
        }
    }

    /// A packet: its extended sequence number ([`crate::srtp::Unprotected::index`]), timestamp and size.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, index: u64, timestamp: u32, len: usize) {
        let is_newest = self.first.is_none() || index > self.highest;
        self.first = Some(self.first.map_or(index, |first| first.min(index)));
        self.highest = self.highest.max(index);
        self.received += 1;
        self.bytes += len as u64;
        if !is_newest {
            // Late ones say nothing about the way's jitter, they were retransmitted or overtaken.
            return;
        }
        if let Some((then, last_timestamp)) = self.last_arrival {
            let elapsed = now.saturating_duration_since(then);
            let elapsed_ticks = (elapsed.as_micros() as u64).saturating_mul(u64::from(self.clock_rate)) / 1_000_000;
            let sent_ticks = i64::from(timestamp.wrapping_sub(last_timestamp).cast_signed());
            let difference = i64::try_from(elapsed_ticks).unwrap_or(i64::MAX).saturating_sub(sent_ticks).unsigned_abs();
            // A source that paused or jumped in time would leave a jitter of hours behind.
            if difference < u64::from(self.clock_rate) * 5 {
                let difference = difference as u32;
                self.jitter_16 = self.jitter_16.saturating_add(difference).saturating_sub((self.jitter_16 + 8) >> 4);
            }
        }
        self.last_arrival = Some((now, timestamp));
    }

    /// The source's sender report came.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64) {
        self.last_sr = Some((ntp_middle(ntp), now));
    }

    /// The block for the next report. Starts a new interval for the fraction lost. `None` before the first packet.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let (prior_expected, prior_received) = std::mem::replace(&mut self.prior, (expected, self.received));
        let expected_interval = expected - prior_expected.min(expected);
        let received_interval = self.received - prior_received.min(self.received);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction_lost = (lost_interval << 8).checked_div(expected_interval).unwrap_or(0).min(255) as u8;
        let (last_sr, delay_since_last_sr) = match self.last_sr {
            Some((ntp, at)) => {
                let delay = now.saturating_duration_since(at).as_micros() as u64;
                (ntp, u32::try_from((delay << 16) / 1_000_000).unwrap_or(u32::MAX))
            }
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            lost: self.lost().clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_seq: self.highest as u32,
            jitter: self.jitter(),
            last_sr,
            delay_since_last_sr,
        })
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    /// Packets received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes received, as told.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Expected minus received; negative with duplicates that the transport let through.
    #[must_use]
    pub fn lost(&self) -> i64 {
        i64::try_from(self.expected()).unwrap_or(i64::MAX).saturating_sub(i64::try_from(self.received).unwrap_or(i64::MAX))
    }

    /// Interarrival jitter, units of the media clock.
    #[must_use]
    pub fn jitter(&self) -> u32 {
        self.jitter_16 >> 4
    }
}

/// Counts what we send from one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderStats {
    packets: u64,
    octets: u64,
    // Last packet's timestamp and when it left: where the media clock stands at a report.
    last: Option<(u32, Instant)>,
}

impl SenderStats {
    /// A packet left with so much payload.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, timestamp: u32, payload_len: usize) {
        self.packets += 1;
        self.octets += payload_len as u64;
        self.last = Some((timestamp, now));
    }

    /// Our half of a sender report. `None` before the first packet.
    #[must_use]
    pub fn info(&self, now: Instant, now_ntp: u64, ssrc: u32, clock_rate: u32) -> Option<SenderInfo> {
        let (timestamp, at) = self.last?;
        let since_us = now.saturating_duration_since(at).as_micros() as u64;
        let ticks = since_us.saturating_mul(u64::from(clock_rate)) / 1_000_000;
        Some(SenderInfo {
            ssrc,
            ntp: now_ntp,
            rtp_timestamp: timestamp.wrapping_add(ticks as u32),
            packets: self.packets as u32,
            octets: self.octets as u32,
        })
    }

    /// Packets sent.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes sent.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_per_interval_and_in_all() {
        let now = Instant::now();
        let mut stats = ReceiverStats::new(48_000);
        assert_eq!(stats.report(now, 1), None);
        // 100 expected from 65 500 on, every fourth missing
        for i in (0..100u64).filter(|i| i % 4 != 3) {
            stats.handle_packet(now, 65_500 + i, 960 * i as u32, 100);
        }
        // the last one (i = 99) is missing, so 99 are expected
        let block = stats.report(now, 1).unwrap();
        assert_eq!((block.lost, block.highest_seq), (24, 65_598));
        assert_eq!(u32::from(block.fraction_lost), (24 << 8) / 99);
        for i in 100..110u64 {
            stats.handle_packet(now, 65_500 + i, 0, 100);
        }
        let block = stats.report(now, 1).unwrap();
        assert_eq!((block.lost, u32::from(block.fraction_lost)), (25, (1 << 8) / 11));
        // one that comes late after all
        stats.handle_packet(now, 65_503, 0, 100);
        assert_eq!(stats.report(now, 1).unwrap().lost, 24);
    }

    #[test]
    fn jitter_is_zero_on_an_even_stream_and_grows_on_an_uneven_one() {
        let now = Instant::now();
        let (mut even, mut uneven) = (ReceiverStats::new(48_000), ReceiverStats::new(48_000));
        for i in 0..200u64 {
            let at = now + Duration::from_millis(20 * i);
            even.handle_packet(at, i, 960 * i as u32, 100);
            uneven.handle_packet(at + Duration::from_millis(if i % 2 == 0 { 0 } else { 10 }), i, 960 * i as u32, 100);
        }
        assert_eq!(even.jitter(), 0);
        // every gap is off by 10 ms = 480 ticks, and the filter settles there
        assert!((450..=480).contains(&uneven.jitter()), "{}", uneven.jitter());
    }

    #[test]
    fn sender_reports_come_back_as_round_trip() {
        let now = Instant::now();
        let mut stats = ReceiverStats::new(90_000);
        stats.handle_packet(now, 1, 0, 1);
        let ntp = ntp_from_unix_us(1_700_000_000_250_000);
        stats.handle_sender_report(now, ntp);
        let block = stats.report(now + Duration::from_millis(500), 1).unwrap();
        let back = ntp_from_unix_us(1_700_000_000_250_000 + 500_000 + 80_000);
        let round = round_trip(&block, back).unwrap();
        assert!((79..=81).contains(&round.as_millis()), "{round:?}");
        assert_eq!(round_trip(&ReportBlock { last_sr: ntp_middle(back).wrapping_add(9), ..block }, back), None);
        assert_eq!(round_trip(&ReportBlock::default(), back), None);
    }

    #[test]
    fn sender_info_extrapolates_the_media_clock() {
        let now = Instant::now();
        let mut stats = SenderStats::default();
        assert!(stats.info(now, 0, 1, 90_000).is_none());
        stats.handle_packet(now, 1000, 500);
        let info = stats.info(now + Duration::from_millis(100), 5, 1, 90_000).unwrap();
        assert_eq!((info.packets, info.octets, info.rtp_timestamp), (1, 500, 10_000));
    }
}
