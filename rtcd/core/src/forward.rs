//! Writes what waits for one viewer: headers as the viewer negotiated them, payloads encrypted straight from the shared clear text.
//!
//! All packets of one viewer are written one after another, so that equal ones leave in one send call. Nothing here
//! allocates once buffers have their size.

use std::time::Instant;

use crate::cache::Entry;
use crate::codec::Vp8Descriptor;
use crate::codec::dependency::write_with_active;
use crate::core::{Core, LOT_BYTES};
use crate::counters::Count;
use crate::ids::Kind;
use crate::negotiate::CodecKind;
use crate::output::Step;
use crate::padding::{Padded, common_length};
use crate::peer::TransportKey;
use crate::peer::slideshow::Turn;
use crate::peer::transport::{Keys, Pending};
use crate::redundancy::Earlier;
use crate::rewrite::Place;
use crate::rtp::{Extension, Fixed, OwnExtensions, rtx_wrap_prefix, write_forwarded};
use crate::subscription::{Sending, Subscription};
use crate::svc::Chosen;
use crate::track::{Layer, LayerKey, Viewer};

/// In the first byte of an RTP header.
const PADDING_BIT: u8 = 0x20;
/// A picture that jumps further than this over a switch is taken for a broken clock.
const JUMP_MAX_S: u32 = 10;
/// What a header extension can hold (RFC 8285).
const DESCRIPTOR_LEN_MAX: usize = 255;

impl Core {
    /// Writes everything that waits for one viewer into the outbox; `send_time` is [`abs_send_time`](crate::rtp::abs_send_time).
    pub(crate) fn flush(&mut self, now: Instant, send_time: u32, key: TransportKey) {
        let mut switched: smallvec::SmallVec<[crate::subscription::SubscriptionKey; 4]> = smallvec::SmallVec::new();
        let mut sent_any = false;
        let is_narrow = self.transports.get(key).is_some_and(|transport| transport.slideshow.is_some() || transport.pacer.is_some());
        if is_narrow {
            self.prepare_slides(now, key);
            self.begin_turn(now, key);
        }
        {
            let Self { config, transports, subscriptions, layers, outbox, counters, .. } = self;
            let Some(transport) = transports.get_mut(key) else { return };
            transport.dirty = false;
            let mut pending = std::mem::take(&mut transport.pending);
            let sound_len =
                if config.trains && pending.len() > 1 { common_length(now, transport, &pending, subscriptions, layers) } else { 0 };
            let (destination, keys) = (transport.ice.selected(), transport.keys.as_ref());
            let (mut packets, mut bytes, mut resent) = (0_u64, 0_usize, 0);
            if let (Some(link), Some(keys)) = (destination, keys) {
                for wanted in pending.iter().copied() {
                    let Some(subscription) = subscriptions.get_mut(wanted.subscription) else { continue };
                    let Some(layer) = layers.get(wanted.layer) else { continue };
                    let Some((entry, packet)) = layer.cache.get(wanted.seq) else {
                        if wanted.again {
                            counters.one(Count::ResendMissing);
                        }
                        continue;
                    };
                    if wanted.anew {
                        subscription.rewrite.close();
                    }
                    let follows =
                        wanted.again || subscription.target != Some(wanted.layer) || subscription.rewrite.layer() == Some(wanted.layer);
                    if !follows && !begins(subscription, entry) {
                        continue;
                    }
                    let chosen = match choose(subscription, layer, entry, wanted.again) {
                        Choice::Whole => None,
                        Choice::Part(chosen) => Some(chosen),
                        Choice::Withheld => continue,
                    };
                    let number = chosen.map_or(entry.number, |chosen| chosen.number);
                    if !follows {
                        let payload = packet.get(entry.header.len..).unwrap_or_default();
                        let old = subscription.rewrite.last_layer().and_then(|old| layers.get(old));
                        begin(now, subscription, old, layer, wanted.layer, number, entry, payload);
                        switched.push(wanted.subscription);
                    }
                    let Some(place) = subscription.rewrite.place(wanted.layer, number, entry.header.timestamp) else { continue };
                    let slot = outbox.slot();
                    let mut own = OwnExtensions { abs_send_time: Some(send_time), ..OwnExtensions::default() };
                    let mut descriptor;
                    if let Some(chosen) = &chosen {
                        counters.add(Count::LayerSwitches, u64::from(chosen.switched));
                        descriptor = [0; DESCRIPTOR_LEN_MAX];
                        own.dependency_descriptor = rewrite_descriptor(chosen, entry, packet, &mut descriptor);
                    }
                    let payload_len = packet.len().saturating_sub(entry.header.len);
                    let earlier = match subscription.redundancy.is_on() && !wanted.again {
                        true => Earlier::gather(subscription, layer, wanted.layer, number, entry.header.timestamp, payload_len),
                        false => None,
                    };
                    if earlier.is_some() {
                        counters.one(Count::PacketsRedundant);
                    }
                    match write(
                        now,
                        subscription,
                        &mut transport.congestion,
                        keys,
                        wanted,
                        &place,
                        entry.header.marker || chosen.is_some_and(|chosen| chosen.marker),
                        entry,
                        packet,
                        own,
                        earlier.as_ref(),
                        sound_len,
                        slot,
                    ) {
                        Written::Sent(len) => {
                            outbox.commit(link, len);
                            packets += 1;
                            bytes += len;
                            resent += u64::from(wanted.again);
                        }
                        Written::Refused => counters.one(Count::ResendRefused),
                        Written::Failed => counters.one(Count::SrtpOther),
                    }
                }
            }
            pending.clear();
            transport.pending = pending;
            if let (Some(slideshow), Some(link), Some(keys)) = (&mut transport.slideshow, destination, keys) {
                slideshow.charge(now, bytes, packets);
                while outbox.used() < LOT_BYTES
                    && let Some(turn) = slideshow.turn(now)
                {
                    let Some(subscription) = subscriptions.get_mut(turn.subscription) else { continue };
                    let slot = outbox.slot();
                    match write_slide(now, send_time, subscription, &mut transport.congestion, keys, layers, &turn, slot) {
                        Written::Sent(len) => {
                            outbox.commit(link, len);
                            slideshow.charge(now, len, 1);
                            packets += 1;
                            bytes += len;
                            resent += u64::from(turn.again);
                        }
                        Written::Refused => counters.one(Count::ResendRefused),
                        Written::Failed => counters.one(Count::SrtpOther),
                    }
                }
            }
            if packets > 0 {
                sent_any = true;
                transport.traffic.rate_out.note(now, bytes);
                transport.traffic.packets_out += packets;
                transport.traffic.bytes_out += bytes as u64;
                counters.add(Count::PacketsResent, resent);
                counters.add(Count::PacketsForwarded, packets - resent);
                counters.add(Count::BytesForwarded, bytes as u64);
            }
        }
        if is_narrow {
            self.arm_slides(now, key);
            self.end_turn(now, key);
        }
        if sent_any {
            if self.transports.get(key).is_some_and(|transport| transport.step < Step::RtpOut) {
                self.reached(key, Step::RtpOut, String::new());
            }
            self.arm_reports(now, key);
        }
        for subscription in switched {
            self.counters.one(Count::LayerSwitches);
            if let Some(subscription) = self.subscriptions.get_mut(subscription) {
                subscription.first_sent.get_or_insert(now);
                subscription.waits_since = None;
            }
            self.refresh_viewer(subscription);
        }
    }

    /// Puts a subscription on the lists of exactly the layers it needs: the one it follows and the one it waits for.
    pub(crate) fn refresh_viewer(&mut self, key: crate::subscription::SubscriptionKey) {
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let Some(track) = self.tracks.get(subscription.track) else { return };
        let viewer = Viewer { subscription: key, transport: subscription.transport };
        let open = subscription.sending.is_some();
        for layer_key in &track.layers {
            let Some(layer) = self.layers.get_mut(*layer_key) else { continue };
            let needed = open
                && subscription.target.is_some()
                && (subscription.target == Some(*layer_key) || subscription.rewrite.layer() == Some(*layer_key));
            let there = layer.viewers.iter().position(|known| *known == viewer);
            match (needed, there) {
                (true, None) => layer.viewers.push(viewer),
                (false, Some(at)) => drop(layer.viewers.swap_remove(at)),
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}

/// May the stream begin with this packet?
#[inline]
fn begins(subscription: &Subscription, entry: &Entry) -> bool {
    match subscription.kind {
        Kind::Audio => true,
        Kind::Video => entry.key_frame,
    }
}

/// What leaves of a stream with layers inside.
enum Choice {
    /// Nothing is inside, or everything is wanted.
    Whole,
    Part(Chosen),
    Withheld,
}

#[inline]
fn choose(subscription: &mut Subscription, layer: &Layer, entry: &Entry, again: bool) -> Choice {
    // In this order: the layer's half lies far back.
    let Some(selection) = &mut subscription.selection else { return Choice::Whole };
    let Some(stream) = &layer.scalable else { return Choice::Whole };
    selection.choose(stream, entry, again).map_or(Choice::Withheld, Choice::Part)
}

/// The descriptor that tells the viewer which decode targets it does not get.
fn rewrite_descriptor<'a>(chosen: &Chosen, entry: &Entry, packet: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let (targets, active, at) = chosen.active?;
    let value = entry.extensions.value(Extension::DependencyDescriptor, packet)?;
    let len = write_with_active(value, at, targets, active, into)?;
    into.get(..len)
}

/// A new stretch begins with this packet: its timestamp goes on where the old stretch was.
#[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
fn begin(
    now: Instant,
    subscription: &mut Subscription,
    old: Option<&Layer>,
    new: &Layer,
    new_key: LayerKey,
    number: u64,
    entry: &Entry,
    payload: &[u8],
) {
    let timestamp = entry.header.timestamp;
    let clock_rate = new.clock_rate;
    let aligned = match (subscription.rewrite.timestamp_shift_of(new_key), subscription.rewrite.last_sent()) {
        // Back on a timeline that this viewer knows.
        (Some(shift), _) => timestamp.wrapping_add(shift),
        (None, None) => timestamp,
        (None, Some((last, at))) => {
            let by_clock = old.and_then(|old| {
                let shift = subscription.rewrite.timestamp_shift_of(subscription.rewrite.last_layer()?)?;
                Some(old.clock.timestamp_of(new.clock.ntp_of(timestamp, clock_rate)?, clock_rate)?.wrapping_add(shift))
            });
            let elapsed = now.saturating_duration_since(at).as_micros() as u64 * u64::from(clock_rate) / 1_000_000;
            let by_arrival = last.wrapping_add(elapsed as u32);
            by_clock
                .filter(|by_clock| by_clock.wrapping_sub(last).cast_signed().unsigned_abs() < clock_rate * JUMP_MAX_S)
                .unwrap_or(by_arrival)
        }
    };
    let aligned = match subscription.rewrite.last_sent() {
        // Never backwards, never twice: a picture with an old time is dropped by the receiver.
        Some((last, _)) if aligned.wrapping_sub(last).cast_signed() <= 0 => last.wrapping_add(1),
        Some(_) | None => aligned,
    };
    if subscription.codec_kind() == CodecKind::Vp8
        && let Some(descriptor) = Vp8Descriptor::parse(payload)
    {
        subscription.vp8.rewrite(&descriptor, true);
    }
    subscription.rewrite.begin(new_key, number, timestamp, aligned, subscription.vp8.offsets());
}

enum Written {
    Sent(usize),
    Refused,
    Failed,
}

/// A slide's packet: by itself, so that it does not stand in the way of everybody else's.
#[cold]
#[inline(never)]
#[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
fn write_slide(
    now: Instant,
    send_time: u32,
    subscription: &mut Subscription,
    congestion: &mut crate::peer::congestion::Congestion,
    keys: &Keys,
    layers: &crate::arena::Arena<Layer>,
    turn: &Turn,
    slot: &mut [u8],
) -> Written {
    let (Some(layer), Some((entry, packet))) = (layers.get(turn.layer), turn.slide.packet(turn.index)) else { return Written::Refused };
    if turn.index == 0 && !turn.again {
        let payload = packet.get(entry.header.len..).unwrap_or_default();
        let old = subscription.rewrite.last_layer().and_then(|old| layers.get(old));
        begin(now, subscription, old, layer, turn.layer, entry.number, entry, payload);
        subscription.first_sent.get_or_insert(now);
    }
    let Some(place) = subscription.rewrite.place(turn.layer, entry.number, entry.header.timestamp) else { return Written::Refused };
    let own = OwnExtensions { abs_send_time: Some(send_time), ..OwnExtensions::default() };
    let wanted = Pending { subscription: turn.subscription, layer: turn.layer, seq: entry.seq, again: turn.again, anew: false };
    write(now, subscription, congestion, keys, wanted, &place, entry.header.marker, entry, packet, own, None, 0, slot)
}

#[allow(clippy::too_many_arguments, reason = "facts of one packet for one viewer, each used once; a struct would only name them again")]
#[inline(always)]
fn write(
    now: Instant,
    subscription: &mut Subscription,
    congestion: &mut crate::peer::congestion::Congestion,
    keys: &Keys,
    wanted: Pending,
    place: &Place,
    marker: bool,
    entry: &Entry,
    packet: &[u8],
    own: OwnExtensions<'_>,
    earlier: Option<&Earlier>,
    sound_len: usize,
    slot: &mut [u8],
) -> Written {
    let Some(sending) = &subscription.sending else { return Written::Refused };
    let payload = packet.get(entry.header.len..).unwrap_or_default();
    let (rtx, index) = match (wanted.again, sending.rtx) {
        (false, _) => (None, place.seq),
        (true, Some(rtx)) => {
            if !subscription.resend.spend(packet.len()) {
                return Written::Refused;
            }
            subscription.rtx_seq += 1;
            (Some(rtx), subscription.rtx_seq)
        }
        // Sending the same packet again under the same number would use key stream twice with other headers.
        (true, None) => return Written::Refused,
    };
    let fixed = Fixed {
        marker,
        payload_type: rtx.or(earlier.map(|earlier| earlier.payload_type)).unwrap_or(sending.payload_type),
        seq: index as u16,
        timestamp: place.timestamp,
        ssrc: if rtx.is_some() { subscription.rtx_ssrc } else { subscription.ssrc },
    };
    let mut own = OwnExtensions { mid: sending.mid.as_deref(), playout_delay: sending.playout_delay, ..own };
    if sending.transport_cc {
        // Extensions and tag are about 40 bytes; the estimate does not need it exactly.
        own.transport_cc = Some(congestion.sent(now, packet.len() + 40));
    }
    let Some(header_len) = write_forwarded(slot, &fixed, &sending.extensions, &entry.extensions, packet, &own) else {
        return Written::Failed;
    };
    let descriptor = if sending.kind == CodecKind::Vp8 { Vp8Descriptor::parse(payload) } else { None };
    let mut prefix = Prefix::default();
    if rtx.is_some() {
        prefix.push(&rtx_wrap_prefix(place.seq as u16));
    }
    let mut skipped = 0;
    if let Some(descriptor) = &descriptor {
        let rewritten = place.pictures.apply(descriptor);
        // Unchanged, as for most viewers: encrypted from where it lies, without a copy.
        if rtx.is_some() || payload.get(..descriptor.len) != Some(rewritten.bytes()) {
            prefix.push(rewritten.bytes());
            skipped = descriptor.len;
        }
    }
    let rest = payload.get(skipped..).unwrap_or_default();
    let prefix = earlier.map_or_else(|| prefix.bytes(), Earlier::bytes);
    let pads = sound_len > 0 && subscription.kind == Kind::Audio && rtx.is_none() && prefix.is_empty();
    let sealed = match pads {
        true => seal_padded(keys, slot, header_len, rest, sound_len, index),
        false => keys.outbound.protect(slot, header_len, prefix, rest, index),
    };
    let Ok(len) = sealed else { return Written::Failed };
    if rtx.is_none() {
        subscription.rewrite.note_sent(now, place);
        if let Some(descriptor) = &descriptor
            && place.pictures == subscription.vp8.offsets()
        {
            subscription.vp8.rewrite(descriptor, false);
        }
        subscription.sent.handle_packet(now, place.timestamp, payload.len());
        subscription.resend.earn(len);
    }
    subscription.rate.note(now, len);
    Written::Sent(len)
}

/// A sound as long as those that leave with it, where it is not too far from that.
#[inline(never)]
fn seal_padded(
    keys: &Keys,
    slot: &mut [u8],
    header_len: usize,
    payload: &[u8],
    sound_len: usize,
    index: u64,
) -> Result<usize, crate::srtp::SrtpError> {
    let padded = Padded::to(sound_len, payload);
    if padded.is_some()
        && let Some(first) = slot.first_mut()
    {
        *first |= PADDING_BIT;
    }
    keys.outbound.protect(slot, header_len, &[], padded.as_ref().map_or(payload, Padded::bytes), index)
}

/// What stands before the shared payload: the number of a packet sent again, VP8's descriptor.
#[derive(Default)]
struct Prefix {
    bytes: [u8; 2 + 6],
    len: usize,
}

impl Prefix {
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Subscription {
    fn codec_kind(&self) -> CodecKind {
        self.sending.as_ref().map_or(CodecKind::Opus, |sending: &Sending| sending.kind)
    }
}
