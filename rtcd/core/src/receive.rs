//! What arrives of one layer, and what does not: counts for reports, missing packets, bitrate, the publisher's clock.

use std::time::{Duration, Instant};

use crate::rtcp::{Arrival, NackTracker, ReceiverStats, ReportBlock};

/// Bitrate is measured over this long.
const RATE_WINDOW: Duration = Duration::from_millis(500);

/// One incoming stream.
#[repr(C)]
pub(crate) struct Arrivals {
    rate: Rate,
    highest: Option<u64>,
    last_at: Option<Instant>,
    nacks: NackTracker,
    stats: ReceiverStats,
    /// Lost share of the last report interval, 0…1.
    pub(crate) fraction_lost: f32,
}

impl Arrivals {
    pub(crate) fn new(clock_rate: u32) -> Self {
        Self {
            stats: ReceiverStats::new(clock_rate),
            nacks: NackTracker::new(),
            rate: Rate::default(),
            highest: None,
            last_at: None,
            fraction_lost: 0.0,
        }
    }

    /// A packet came: new, late or by retransmission. Padding does not make a layer one that sends: `is_media`.
    #[inline]
    pub(crate) fn note(&mut self, now: Instant, seq: u64, timestamp: u32, len: usize, is_media: bool) -> Arrival {
        self.stats.handle_packet(now, seq, timestamp, len);
        if is_media {
            self.last_at = Some(now);
        }
        self.highest = Some(self.highest.map_or(seq, |highest| highest.max(seq)));
        self.nacks.handle_packet(now, seq)
    }

    /// A missing packet came by retransmission. It was lost all the same: reports must say so, or the publisher would take a bad
    /// way for a good one (RFC 4588 §6.3: the original stream's statistics do not count its retransmissions).
    #[inline]
    pub(crate) fn note_recovered(&mut self, now: Instant, seq: u64) {
        self.last_at = Some(now);
        self.highest = Some(self.highest.map_or(seq, |highest| highest.max(seq)));
        self.nacks.handle_packet(now, seq);
    }

    /// So much of what came is new to viewers: what they will cost. Neither padding nor what is sent twice is, and libwebrtc fills its
    /// way with one or the other while a picture stands still.
    #[inline]
    pub(crate) fn note_media(&mut self, now: Instant, len: usize) {
        self.rate.note(now, len);
    }

    /// The publisher's sender report came.
    pub(crate) fn note_sender_report(&mut self, now: Instant, ntp: u64) {
        self.stats.handle_sender_report(now, ntp);
    }

    /// The highest number seen.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    pub(crate) fn last_at(&self) -> Option<Instant> {
        self.last_at
    }

    /// When a request for missing packets is due.
    pub(crate) fn nack_due(&self) -> Option<Instant> {
        self.nacks.poll_timeout()
    }

    /// Appends what to ask for now; true when something was given up.
    pub(crate) fn take_missing(&mut self, now: Instant, rtt: Duration, seqs: &mut Vec<u16>) -> bool {
        self.nacks.poll(now, rtt, seqs) > 0
    }

    /// Nothing older than a key frame is worth asking for.
    pub(crate) fn forgive(&mut self) {
        self.nacks.clear();
    }

    /// Block for a receiver report; begins a new interval.
    pub(crate) fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let block = self.stats.report(now, ssrc)?;
        self.fraction_lost = f32::from(block.fraction_lost) / 256.0;
        Some(block)
    }

    pub(crate) fn packets(&self) -> u64 {
        self.stats.received()
    }

    /// Packets that never came.
    pub(crate) fn lost(&self) -> u64 {
        u64::try_from(self.stats.lost()).unwrap_or(0)
    }

    pub(crate) fn bitrate_bps(&self, now: Instant) -> u64 {
        self.rate.bps(now)
    }
}

/// Bytes per time, by two windows.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rate {
    /// When the window is over: compared with every packet, which is cheaper than a difference.
    window_ends: Option<Instant>,
    bytes: u64,
    bps: u64,
}

impl Rate {
    #[inline]
    pub(crate) fn note(&mut self, now: Instant, len: usize) {
        if self.window_ends.is_none_or(|ends| now >= ends) {
            self.begin_window(now);
        }
        self.bytes += len as u64;
    }

    #[cold]
    fn begin_window(&mut self, now: Instant) {
        if let Some(ends) = self.window_ends {
            let lasted = RATE_WINDOW + now.saturating_duration_since(ends);
            self.bps = self.bytes * 8_000_000 / (lasted.as_micros() as u64);
            self.bytes = 0;
        }
        self.window_ends = Some(now + RATE_WINDOW);
    }

    /// Of the last whole window; 0 when that is long ago.
    pub(crate) fn bps(&self, now: Instant) -> u64 {
        if self.is_running(now) { self.bps } else { 0 }
    }

    /// Something was noted lately. In the first window there is no rate yet.
    pub(crate) fn is_running(&self, now: Instant) -> bool {
        self.window_ends.is_some_and(|ends| now.saturating_duration_since(ends) < RATE_WINDOW * 3)
    }
}

/// A publisher's clock, from its sender reports: which timestamp belongs to which moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockMap {
    last: Option<ClockPoint>,
}

/// One sender report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockPoint {
    /// NTP, 32.32 fixed point, on the publisher's clock.
    pub(crate) ntp: u64,
    /// The timestamp of that moment.
    pub(crate) timestamp: u32,
    /// When it came.
    pub(crate) at: Instant,
}

impl ClockMap {
    pub(crate) fn note(&mut self, point: ClockPoint) {
        self.last = Some(point);
    }

    pub(crate) fn last(&self) -> Option<ClockPoint> {
        self.last
    }

    /// The publisher's NTP time of a timestamp.
    pub(crate) fn ntp_of(&self, timestamp: u32, clock_rate: u32) -> Option<u64> {
        let point = self.last?;
        let ticks = i64::from(timestamp.wrapping_sub(point.timestamp).cast_signed());
        let delta = (i128::from(ticks) << 32) / i128::from(clock_rate.max(1));
        point.ntp.checked_add_signed(i64::try_from(delta).ok()?)
    }

    /// The timestamp of an NTP time on the publisher's clock.
    pub(crate) fn timestamp_of(&self, ntp: u64, clock_rate: u32) -> Option<u32> {
        let point = self.last?;
        let delta = i128::from(ntp) - i128::from(point.ntp);
        let ticks = (delta * i128::from(clock_rate)) >> 32;
        Some(point.timestamp.wrapping_add(ticks as i64 as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_map_both_ways() {
        let mut clock = ClockMap::default();
        clock.note(ClockPoint { ntp: 100 << 32, timestamp: 5_000, at: Instant::now() });
        let ntp = clock.ntp_of(5_000 + 90_000 / 2, 90_000).unwrap();
        assert_eq!(ntp, (100 << 32) + (1 << 31));
        assert_eq!(clock.timestamp_of(ntp, 90_000), Some(5_000 + 45_000));
        assert_eq!(clock.timestamp_of((99 << 32) + (1 << 31), 90_000), Some(5_000u32.wrapping_sub(45_000)));
    }
}
