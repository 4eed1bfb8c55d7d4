//! Sender and receiver reports: once a second while anything flows, never for those who are silent.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::TransportKey;
use super::feedback::{COMPOUND_LEN_MAX, FEEDBACK_SSRC, layers_of, send_compound};
use crate::core::Core;
use crate::receive::ClockPoint;
use crate::rtcp::{ReportBlock, RtcpWriter, ntp_from_unix_us, ntp_middle};
use crate::timers::Timer;

/// Browsers report once a second too (sound: every 5 s); more often helps nobody's lip-sync.
pub(crate) const REPORTS_EVERY: Duration = Duration::from_secs(1);
/// A source that is silent for so long gives its place to new ones where these get few.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Blocks that fit into one receiver report.
const BLOCKS_MAX: usize = 31;
/// One name for everything we send to a viewer would tie all speakers' sound and pictures together; each stream has its own msid instead.
const CNAME: &[u8] = b"conclave";

impl Core {
    /// Something flows: reports follow.
    #[inline]
    pub(crate) fn arm_reports(&mut self, now: Instant, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key)
            && !transport.alarms.reports.is_set()
        {
            self.timers.set(&mut transport.alarms.reports, Timer::Reports(key), now + REPORTS_EVERY);
        }
    }

    /// Reports are due. Whoever still receives or sends sets the next ones with its next packet.
    pub(crate) fn reports_timeout(&mut self, now: Instant, key: TransportKey) {
        let unix_us = self.unix_us(now);
        let Self { transports, tracks, layers, subscriptions, outbox, .. } = self;
        let Some(transport) = transports.get_mut(key) else { return };
        if let Some(keys) = &mut transport.keys
            && now.saturating_duration_since(keys.swept_at) >= SWEEP_EVERY
        {
            keys.swept_at = now;
            keys.inbound.retire_silent();
        }
        let mut blocks: SmallVec<[ReportBlock; 8]> = SmallVec::new();
        for layer_key in layers_of(transport, tracks) {
            let Some(layer) = layers.get_mut(layer_key) else { continue };
            if let Some(ssrc) = layer.ssrc
                && layer.is_sending_within(now, REPORTS_EVERY * 2)
                && let Some(block) = layer.arrivals.report(now, ssrc)
                && blocks.len() < BLOCKS_MAX
            {
                blocks.push(block);
            }
        }
        let mut slot = [0; COMPOUND_LEN_MAX + 64];
        let mut len = begin(&mut slot, &blocks);
        let empty = len;
        let watched = std::mem::take(&mut transport.subscriptions);
        for subscription_key in &watched {
            let Some(subscription) = subscriptions.get_mut(*subscription_key) else { continue };
            let Some(sending) = &subscription.sending else { continue };
            // A picture that stands still or a silenced microphone needs no report.
            if subscription.rate.bps(now) == 0 && !subscription.is_flowing() {
                continue;
            }
            let now_ntp = ntp_from_unix_us(unix_us);
            let Some(mut info) = subscription.sent.info(now, now_ntp, subscription.ssrc, sending.clock_rate) else { continue };
            // The publisher's own clock, where it told it: sound and picture of one person then share one time.
            if let Some(layer_key) = subscription.rewrite.layer()
                && let Some(layer) = layers.get(layer_key)
                && let (Some(point), Some(shift)) = (layer.clock.last(), subscription.rewrite.timestamp_shift_of(layer_key))
            {
                let (ntp, timestamp) = goes_on(point, now, sending.clock_rate);
                (info.ntp, info.rtp_timestamp) = (ntp, timestamp.wrapping_add(shift));
            }
            subscription.reports.note(now, ntp_middle(info.ntp));
            if COMPOUND_LEN_MAX - len < 28 + 24 {
                send_compound(transport, outbox, &mut slot, len);
                len = begin(&mut slot, &[]);
            }
            let mut writer = RtcpWriter::new(slot.get_mut(len..COMPOUND_LEN_MAX).unwrap_or_default());
            writer.sender_report(&info, &[]);
            writer.sdes_cname(info.ssrc, CNAME);
            len += writer.len();
        }
        transport.subscriptions = watched;
        if len > empty || !blocks.is_empty() {
            send_compound(transport, outbox, &mut slot, len);
        }
        self.taps_leave_silent(now, key);
    }
}

/// What a publisher's clock shows by now, and its timestamps. It may have told it long ago: one that is muted says nothing.
fn goes_on(point: ClockPoint, now: Instant, clock_rate: u32) -> (u64, u32) {
    // In 64 bits the shift would lose its high ones after 71 minutes.
    let since_us = now.saturating_duration_since(point.at).as_micros();
    let ticks = since_us * u128::from(clock_rate) / 1_000_000;
    (point.ntp.wrapping_add(((since_us << 32) / 1_000_000) as u64), point.timestamp.wrapping_add(ticks as u32))
}

fn begin(slot: &mut [u8], blocks: &[ReportBlock]) -> usize {
    let mut writer = RtcpWriter::new(slot.get_mut(..COMPOUND_LEN_MAX).unwrap_or_default());
    writer.receiver_report(FEEDBACK_SSRC, blocks);
    writer.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_told_long_ago_goes_on() {
        let at = Instant::now();
        let point = ClockPoint { ntp: 1_000 << 32, timestamp: 7, at };
        let minutes = 72;
        let (ntp, timestamp) = goes_on(point, at + Duration::from_secs(60 * minutes), 90_000);
        assert_eq!((ntp >> 32, timestamp), (1_000 + 60 * minutes, 7 + 72 * 60 * 90_000));
    }
}
