//! Padding to a viewer whose better layers are held back: does its way carry more by now?
//!
//! A layer in hand need not fill the way, so media alone never tells. Padding leaves under the number of retransmissions, which receivers drop without
//! a word where nothing is in it: the picture's own numbers, and what is kept of it to be sent again, know nothing of it. Whoever took
//! no retransmissions gets none, and for them the estimate grows by time.

use std::time::{Duration, Instant};

use super::TransportKey;
use super::congestion::Voices;
use crate::core::Core;
use crate::counters::Count;
use crate::rtp::{Extensions, Fixed, OwnExtensions, abs_send_time, write_forwarded};
use crate::subscription::Subscription;
use crate::timers::Timer;

/// In the first byte of an RTP header.
const PADDING_BIT: u8 = 0x20;
/// As much as RTP's last byte can say.
const PADDING_MAX: usize = 255;
/// However late a wake-up came, the next one is not at once.
const APART_MIN: Duration = Duration::from_millis(2);
/// Header, extensions and tag.
const AROUND: usize = 40;

impl Core {
    /// Sends what a probe needs now, if one runs or is to begin.
    pub(crate) fn pad(&mut self, now: Instant, key: TransportKey) {
        let send_time = abs_send_time(now.saturating_duration_since(self.config.epoch.0));
        let Self { transports, subscriptions, outbox, timers, counters, .. } = self;
        let Some(transport) = transports.get_mut(key) else { return };
        let carrier = transport.subscriptions.iter().find(|key| subscriptions.get(**key).is_some_and(takes_padding)).copied();
        let Some(subscription) = carrier.and_then(|carrier| subscriptions.get_mut(carrier)) else { return };
        let (Some(link), Some(keys), Some(sending)) = (transport.ice.selected(), &transport.keys, &subscription.sending) else { return };
        let Some(payload_type) = sending.rtx else { return };
        let due = transport.congestion.padding(now);
        // A probe has just ended, and all of it is known already.
        if transport.congestion.take_news() {
            return self.way_is_wider(now, key);
        }
        let mut left = due.bytes;
        if let Some(at) = transport.congestion.padding_due() {
            timers.set(&mut transport.alarms.padding, Timer::Padding(key), at.max(now + APART_MIN));
        }
        if left == 0 {
            return;
        }
        let padding_len = due.packet_len.saturating_sub(AROUND).clamp(1, PADDING_MAX);
        let mut padding = [0; PADDING_MAX];
        let Some(padding) = padding.get_mut(..padding_len) else { return };
        if let Some(last) = padding.last_mut() {
            *last = padding_len as u8;
        }
        let timestamp = subscription.rewrite.last_sent().map_or(0, |(timestamp, _)| timestamp);
        let (mut packets, mut bytes) = (0, 0);
        while left > 0 {
            subscription.rtx_seq += 1;
            let index = subscription.rtx_seq;
            let fixed = Fixed { marker: false, payload_type, seq: index as u16, timestamp, ssrc: subscription.rtx_ssrc };
            let number = transport.congestion.sent(now, padding_len + AROUND);
            let own = OwnExtensions { transport_cc: Some(number), abs_send_time: Some(send_time), ..OwnExtensions::default() };
            let slot = outbox.slot();
            let Some(header_len) = write_forwarded(slot, &fixed, &sending.extensions, &Extensions::default(), &[], &own) else { break };
            if let Some(first) = slot.first_mut() {
                *first |= PADDING_BIT;
            }
            let Ok(len) = keys.outbound.protect(slot, header_len, &[], padding, index) else { break };
            outbox.commit(link, len);
            packets += 1;
            bytes += len;
            left = left.saturating_sub(padding_len + AROUND);
        }
        // The way is judged by all that left, and slides give way to it as to sounds.
        transport.traffic.rate_out.note(now, bytes);
        transport.traffic.packets_out += packets;
        transport.traffic.bytes_out += bytes as u64;
        if let Some(slideshow) = &mut transport.slideshow {
            slideshow.charge(now, bytes, packets);
        }
        counters.add(Count::PacketsPadding, packets);
    }

    /// A probe showed that there is more: layers may get better, and the next probe tells how much more there is.
    pub(crate) fn way_is_wider(&mut self, now: Instant, key: TransportKey) {
        self.choose_layers(now, key);
        self.pad(now, key);
    }

    /// What all of a viewer's pictures would take. Looked for only while some of it is held back.
    pub(crate) fn want(&mut self, now: Instant, key: TransportKey, wanted_bps: u64, is_held_back: bool) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let takes = transport.subscriptions.iter().any(|key| self.subscriptions.get(*key).is_some_and(takes_padding));
        let voices = transport.earshot.as_deref().map_or_else(Voices::default, |earshot| earshot.voices(now));
        let wanted_bps = if is_held_back { wanted_bps } else { 0 };
        transport.congestion.want(now, takes.then_some(wanted_bps), voices);
    }
}

fn takes_padding(subscription: &Subscription) -> bool {
    // A source that never sent anything is not known to every receiver.
    subscription.first_sent.is_some() && subscription.sending.as_ref().is_some_and(|sending| sending.transport_cc && sending.rtx.is_some())
}
