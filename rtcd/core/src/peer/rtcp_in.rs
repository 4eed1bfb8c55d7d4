//! RTCP in: authenticated first, then each packet goes to the stream it speaks of. One who reports lies only about itself.

use std::time::Instant;

use super::transport::{Pending, Transport, TransportKey};
use crate::core::Core;
use crate::counters::Count;
use crate::ids::Kind;
use crate::limits::VIEWER_QUEUE_MAX;
use crate::receive::ClockPoint;
use crate::rtcp::{self, Packet, ReportBlock};
use crate::subscription::SubscriptionKey;

impl Core {
    /// A protected RTCP packet from a proved address.
    pub(crate) fn receive_rtcp(&mut self, now: Instant, key: TransportKey, packet: &mut [u8]) {
        let Some(keys) = self.transports.get_mut(key).and_then(|transport| transport.keys.as_mut()) else {
            self.counters.one(Count::SrtpNoKeys);
            return;
        };
        let len = match keys.inbound.unprotect_rtcp(packet) {
            Ok(len) => len,
            Err(error) => return self.count_srtp_error(error),
        };
        self.counters.one(Count::RtcpIn);
        for packet in rtcp::parse(packet.get(..len).unwrap_or_default()) {
            match packet {
                Ok(packet) => self.rtcp_packet(now, key, &packet),
                Err(_) => self.counters.one(Count::RtcpMalformed),
            }
        }
    }

    fn rtcp_packet(&mut self, now: Instant, key: TransportKey, packet: &Packet<'_>) {
        match packet {
            Packet::SenderReport(report) => {
                self.sender_report(now, key, report.ssrc, report.ntp, report.rtp_timestamp);
                for block in report.blocks.iter() {
                    self.report_block(now, key, &block);
                }
            }
            Packet::ReceiverReport(report) => {
                for block in report.blocks.iter() {
                    self.report_block(now, key, &block);
                }
            }
            Packet::Nack(nack) => self.resend(key, nack),
            Packet::Pli { media_ssrc, .. } => self.viewer_wants_key_frame(now, key, *media_ssrc),
            Packet::Fir(fir) => {
                for entry in fir.iter() {
                    self.viewer_wants_key_frame(now, key, entry.ssrc);
                }
            }
            Packet::Twcc(feedback) => {
                if self.transports.get_mut(key).is_some_and(|transport| transport.congestion.feedback(now, feedback)) {
                    self.choose_layers(now, key);
                }
            }
            Packet::Remb(remb) => {
                if self.transports.get_mut(key).is_some_and(|transport| transport.congestion.remb(now, remb.bitrate_bps)) {
                    self.choose_layers(now, key);
                }
            }
            // A source's end is told by signalling; names mean nothing to us.
            Packet::Bye(_) | Packet::Sdes(_) | Packet::Other { .. } => {}
        }
    }

    fn sender_report(&mut self, now: Instant, key: TransportKey, ssrc: u32, ntp: u64, timestamp: u32) {
        let Some(source) = self.transports.get(key).and_then(|transport| transport.sources.get(&ssrc)) else { return };
        if source.rtx {
            return;
        }
        if let Some(layer) = self.layers.get_mut(source.layer) {
            layer.clock.note(ClockPoint { ntp, timestamp, at: now });
            layer.arrivals.note_sender_report(now, ntp);
        }
    }

    fn report_block(&mut self, now: Instant, key: TransportKey, block: &ReportBlock) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(subscription) = transport.outgoing.get(&block.ssrc).and_then(|key| self.subscriptions.get_mut(*key)) else { return };
        if block.ssrc != subscription.ssrc {
            return;
        }
        subscription.feedback.fraction_lost = f32::from(block.fraction_lost) / 256.0;
        subscription.feedback.jitter = Some(block.jitter);
        subscription.redundancy.handle_loss_report(subscription.feedback.fraction_lost);
        if let Some((middle, at)) = subscription.last_report
            && block.last_sr == middle
        {
            let delay = std::time::Duration::from_nanos((u64::from(block.delay_since_last_sr) * 1_000_000_000) >> 16);
            if let Some(rtt) = now.saturating_duration_since(at).checked_sub(delay) {
                transport.rtt = Some(transport.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
            }
        }
        // All that leaves for the viewer, since it is the way that is judged; a lost sound packet alone is no congestion.
        let sent_bps = transport.traffic.rate_out.bps(now);
        let video = subscription.kind == Kind::Video;
        if video && transport.congestion.loss_report(now, subscription.feedback.fraction_lost, transport.rtt, sent_bps) {
            self.choose_layers(now, key);
        }
    }

    /// A viewer asks for packets again: they are taken from the layer's cache and leave on the RTX stream.
    fn resend(&mut self, key: TransportKey, nack: &rtcp::Nack<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(&subscription_key) = transport.outgoing.get(&nack.media_ssrc) else { return };
        let Some(subscription) = self.subscriptions.get(subscription_key).filter(|subscription| subscription.ssrc == nack.media_ssrc)
        else {
            return;
        };
        for seq in nack.iter() {
            let numbered = subscription.rewrite.original(seq);
            let Some((layer, original)) = numbered.and_then(|(key, number)| Some((key, self.layers.get(key)?.original(number)?))) else {
                self.counters.one(Count::ResendMissing);
                continue;
            };
            if transport.pending.len() >= VIEWER_QUEUE_MAX {
                self.counters.one(Count::ViewerOverflow);
                return;
            }
            transport.pending.push(Pending { subscription: subscription_key, layer, seq: original, again: true });
            if !transport.dirty {
                transport.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    fn viewer_wants_key_frame(&mut self, now: Instant, key: TransportKey, ssrc: u32) {
        let Some(subscription) = self.subscription_of(key, ssrc) else { return };
        self.counters.one(Count::KeyFramesWanted);
        let layer = self.subscriptions.get(subscription).and_then(|subscription| subscription.rewrite.layer().or(subscription.target));
        if let Some(layer) = layer {
            self.want_key_frame(now, layer);
        }
    }

    fn subscription_of(&self, key: TransportKey, ssrc: u32) -> Option<SubscriptionKey> {
        self.transports.get(key).map(|transport: &Transport| &transport.outgoing)?.get(&ssrc).copied()
    }
}
