//! RTCP in: authenticated first, then each packet goes to the stream it speaks of. One who reports lies only about itself.

use std::time::Instant;

use super::transport::{Pending, Transport, TransportKey};
use crate::core::Core;
use crate::counters::Count;
use crate::ids::Kind;
use crate::limits::VIEWER_QUEUE_MAX;
use crate::receive::ClockPoint;
use crate::rtcp::{self, Packet, ReportBlock};
use crate::subscription::{Subscription, SubscriptionKey};

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
                let Some(transport) = self.transports.get_mut(key) else { return };
                let mut narrower = transport.congestion.feedback(now, feedback);
                if transport.congestion.is_congested(now, transport.traffic.bytes_out, transport.traffic.packets_out) {
                    narrower |= self.congested(now, key, 0.0);
                }
                let is_wider = self.transports.get_mut(key).is_some_and(|transport| transport.congestion.take_news());
                if is_wider {
                    self.way_is_wider(now, key);
                } else if narrower {
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
        let Some(source) = self.transports.get(key).and_then(|transport| transport.sources.known(ssrc)) else { return };
        if source.rtx {
            return;
        }
        if let Some(layer) = self.layers.get_mut(source.layer) {
            let point = ClockPoint { ntp, timestamp, at: now };
            layer.clock.note(point);
            self.outbox.parcels.clock(layer.relays, layer.track, (layer.index, layer.epoch), point);
            layer.arrivals.note_sender_report(now, ntp);
        }
    }

    fn report_block(&mut self, now: Instant, key: TransportKey, block: &ReportBlock) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(subscription) = transport.outgoing.get(&block.ssrc).and_then(|key| self.subscriptions.get_mut(*key)) else { return };
        if block.ssrc != subscription.ssrc {
            return;
        }
        let lost = f32::from(block.fraction_lost) / 256.0;
        subscription.feedback.fraction_lost = lost;
        subscription.feedback.jitter = Some(block.jitter);
        if let Some(sending) = &mut subscription.sending {
            sending.mid = None;
        }
        let kind = subscription.kind;
        let talks = subscription.redundancy.is_worth_judging(subscription.sent.packets());
        let sent_at = subscription.reports.sent_at(block.last_sr);
        let delay = std::time::Duration::from_nanos((u64::from(block.delay_since_last_sr) * 1_000_000_000) >> 16);
        let rtt = sent_at.and_then(|at| Some((at, now.saturating_duration_since(at).checked_sub(delay)?)));
        let (congestion, traffic) = (&mut transport.congestion, &transport.traffic);
        let mut congested = false;
        if let Some((sent, rtt)) = rtt {
            transport.rtt = Some(transport.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
            congestion.narrow.note_sent(now, traffic.bytes_out, traffic.packets_out);
            congested = congestion.narrow.handle_round_trip(now, sent, rtt);
        }
        // All that leaves for the viewer, since it is the way that is judged; a lost sound packet alone is no congestion.
        let mut narrower = kind == Kind::Video && congestion.loss_report(now, lost, transport.rtt, traffic.rate_out.bps(now));
        let lost_to_queue = kind == Kind::Audio && talks && congestion.narrow.is_lost_to_queue(lost);
        if congested || lost_to_queue {
            narrower |= self.congested(now, key, if lost_to_queue { lost } else { 0.0 });
        }
        if kind == Kind::Audio && talks {
            self.judge_redundancy(now, key, block.ssrc, lost);
        }
        if narrower {
            self.choose_layers(now, key);
        }
    }

    /// The whole way to a viewer is congested. True: its pictures have to give way now.
    fn congested(&mut self, now: Instant, key: TransportKey, lost: f32) -> bool {
        let Some(transport) = self.transports.get_mut(key) else { return false };
        let (sounds_bps, pictures_bps) = rates(&self.subscriptions, &transport.subscriptions, now);
        let sounds = transport.subscriptions.iter().filter_map(|key| self.subscriptions.get(*key));
        let several = sounds.filter(|sound| sound.kind == Kind::Audio && sound.rate.bps(now) > 0).nth(1).is_some();
        transport.congestion.narrow.handle_congestion(now, lost, sounds_bps, pictures_bps, several)
    }

    /// A talker's report came: where the way itself is too narrow, sending sounds twice would only lose more.
    fn judge_redundancy(&mut self, now: Instant, key: TransportKey, ssrc: u32, lost: f32) {
        let Some(transport) = self.transports.get(key) else { return };
        let Some(&subscription_key) = transport.outgoing.get(&ssrc) else { return };
        let Some(subscription) = self.subscriptions.get_mut(subscription_key) else { return };
        let was_on = subscription.redundancy.is_on();
        subscription.redundancy.handle_loss_report(lost);
        if !subscription.redundancy.is_on() {
            return;
        }
        let more_bps = if was_on { 0 } else { subscription.rate.bps(now) };
        let (sounds_bps, _) = rates(&self.subscriptions, &transport.subscriptions, now);
        let narrow = &transport.congestion.narrow;
        let fits = !narrow.is_full() && narrow.has_room(now, sounds_bps + more_bps);
        if let Some(subscription) = self.subscriptions.get_mut(subscription_key).filter(|_| !fits) {
            subscription.redundancy.give_up();
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
        if let Some(slideshow) = transport.slideshow.as_mut().filter(|slideshow| slideshow.shows(subscription_key)) {
            for (_, number) in nack.iter().filter_map(|seq| subscription.rewrite.original(seq)) {
                slideshow.resend(subscription_key, number);
            }
            return self.show_goes_on(key);
        }
        for seq in nack.iter() {
            let numbered = subscription.rewrite.original(seq);
            let numbered = match &subscription.selection {
                Some(selection) => numbered.and_then(|(key, number)| Some((key, selection.original(number)?))),
                None => numbered,
            };
            let Some((layer, original)) = numbered.and_then(|(key, number)| Some((key, self.layers.get(key)?.original(number)?))) else {
                self.counters.one(Count::ResendMissing);
                continue;
            };
            if transport.pending.len() >= VIEWER_QUEUE_MAX {
                self.counters.one(Count::ViewerOverflow);
                return;
            }
            transport.pending.push(Pending { subscription: subscription_key, layer, seq: original, again: true, anew: false });
            if !transport.dirty {
                transport.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    fn viewer_wants_key_frame(&mut self, now: Instant, key: TransportKey, ssrc: u32) {
        let Some(subscription) = self.subscription_of(key, ssrc) else { return };
        self.counters.one(Count::KeyFramesWanted);
        // A slide takes so long that receivers ask for the next before they have it.
        let slideshow = self.transports.get(key).and_then(|transport| transport.slideshow.as_ref());
        if slideshow.is_some_and(|slideshow| slideshow.shows(subscription)) || self.waits_paced(subscription) {
            return;
        }
        let layer = self.subscriptions.get(subscription).and_then(|subscription| subscription.rewrite.layer().or(subscription.target));
        if let Some(layer) = layer {
            self.want_key_frame(now, layer);
        }
    }

    fn subscription_of(&self, key: TransportKey, ssrc: u32) -> Option<SubscriptionKey> {
        self.transports.get(key).map(|transport: &Transport| &transport.outgoing)?.get(&ssrc).copied()
    }
}

/// What leaves for one viewer, bit/s: sounds, and pictures.
fn rates(subscriptions: &crate::arena::Arena<Subscription>, of: &[SubscriptionKey], now: Instant) -> (u64, u64) {
    of.iter().filter_map(|key| subscriptions.get(*key)).fold((0, 0), |(sounds, pictures), subscription| match subscription.kind {
        Kind::Audio => (sounds + subscription.rate.bps(now), pictures),
        Kind::Video => (sounds, pictures + subscription.rate.bps(now)),
    })
}
