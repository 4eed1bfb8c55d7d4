//! RTP in: authenticated, decrypted in place, parsed once, stored once, and noted for everybody who gets it.

use std::time::Instant;

use super::bind::{bind_source, identify};
use super::earshot::Heard;
use super::transport::{Pending, SourceOf, TransportKey};
use crate::cache::{Arrived, Stored};
use crate::codec::{self, Vp8Descriptor, Vp9Descriptor};
use crate::core::Core;
use crate::counters::Count;
use crate::ids::{Kind, Source};
use crate::limits::{NACK_GAP_MAX, VIEWER_QUEUE_MAX};
use crate::microphone::Kept;
use crate::negotiate::{Codec, CodecKind};
use crate::output::Step;
use crate::relay::Relayed;
use crate::rtcp::{Arrival, FEEDBACK_INTERVAL};
use crate::rtp::{AudioLevel, Extension, RED_BLOCKS_MAX, RedBlocks, red_headers_len, rtx_unwrap};
use crate::srtp::SrtpError;
use crate::svc::{Noted, Scalable};
use crate::timers::Timer;
use crate::track::{Layer, LayerKey};

impl Core {
    /// A protected RTP packet from a proved address.
    pub(crate) fn receive_rtp(&mut self, now: Instant, key: TransportKey, packet: &mut [u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(keys) = &mut transport.keys else {
            self.counters.one(Count::SrtpNoKeys);
            return;
        };
        let clear = match keys.inbound.unprotect(packet) {
            Ok(clear) => clear,
            Err(error) => {
                transport.evidence.srtp_refused += u64::from(matches!(error, SrtpError::Tag | SrtpError::Malformed));
                return self.count_srtp(error);
            }
        };
        let len = packet.len();
        self.counters.one(Count::PacketsIn);
        self.counters.add(Count::BytesIn, len as u64);
        transport.traffic.rate_in.note(now, len);
        transport.traffic.packets_in += 1;
        transport.traffic.last_in = Some(now);
        let mut header = clear.header;
        let Some(packet) = packet.get_mut(..clear.len) else { return };
        let extensions = transport.extensions.locate(&header, packet);
        if let Some(number) = extensions.value(Extension::TransportCc, packet).and_then(|value| value.first_chunk::<2>()) {
            // What else is due, perhaps a request to be repeated, may be due later.
            let is_first = transport.congestion.feedback_due().is_none();
            transport.congestion.arrived(now, u16::from_be_bytes(*number), header.ssrc);
            if is_first || !transport.alarms.feedback.is_set() {
                self.timers.set_earlier(&mut transport.alarms.feedback, Timer::Feedback(key), now + FEEDBACK_INTERVAL);
            }
        }
        let source = match transport.sources.get(header.ssrc) {
            Some(source) => source,
            None => {
                let Some((layer, rtx)) = identify(&transport.incoming, &self.tracks, &self.layers, &header, &extensions, packet) else {
                    self.counters.one(Count::RtpUnbound);
                    return;
                };
                if bind_source(&mut transport.sources, &mut self.layers, layer, header.ssrc, rtx) {
                    self.restart_layer(now, layer);
                }
                SourceOf { layer, rtx }
            }
        };
        let Ok(payload_len) = header.payload(packet).map(<[u8]>::len) else {
            self.counters.one(Count::RtpMalformed);
            return;
        };
        // Padding was for the publisher's leg; it is not passed on.
        header.padding = false;
        let end = header.len + payload_len;
        let Some(packet) = packet.get_mut(..end) else { return };
        if transport_first(&mut self.transports, key) {
            self.reached(key, Step::RtpIn, String::new());
        }
        if source.rtx {
            self.recovered(now, source, header, extensions, packet);
        } else {
            self.arrived(now, key, source, clear.index, header, extensions, packet, len);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
    fn arrived(
        &mut self,
        now: Instant,
        key: TransportKey,
        source: SourceOf,
        seq: u64,
        mut header: crate::rtp::Header,
        extensions: crate::rtp::Extensions,
        packet: &mut [u8],
        len: usize,
    ) {
        let Some(layer) = self.layers.get_mut(source.layer) else { return };
        let Some(track) = self.tracks.get(layer.track) else { return };
        let Some((codec_index, codec)) =
            track.bound.as_ref().and_then(|bound| bound.codecs.iter().enumerate().find(|(_, codec)| takes(codec, header.payload_type)))
        else {
            self.counters.one(Count::RtpBadPayloadType);
            return;
        };
        let is_media = packet.len() > header.len;
        let arrival = layer.arrivals.note(now, seq, header.timestamp, len, is_media);
        let former_codec = std::mem::replace(&mut layer.codec, codec_index);
        let woke = is_media && !std::mem::replace(&mut layer.awake, true);
        if woke {
            layer.first_at.get_or_insert(now);
        }
        let (nack, pli, kind) = (codec.nack, codec.pli, codec.kind);
        let redundant = header.payload_type != codec.payload_type;
        header.payload_type = codec.payload_type;
        let lost = match arrival {
            Arrival::AfterGap(count) => count,
            Arrival::InOrder | Arrival::Late | Arrival::Recovered | Arrival::TooFar => 0,
        };
        match arrival {
            Arrival::AfterGap(_) if nack => {
                if let (Some(at), Some(transport)) = (layer.arrivals.nack_due(), self.transports.get_mut(key)) {
                    self.timers.set_earlier(&mut transport.alarms.feedback, Timer::Feedback(key), at);
                }
            }
            Arrival::AfterGap(_) => layer.arrivals.forgive(),
            Arrival::TooFar if pli => self.want_key_frame(now, source.layer),
            Arrival::InOrder | Arrival::Late | Arrival::Recovered | Arrival::TooFar => {}
        }
        if woke {
            self.layer_woke(now, source.layer);
        }
        if former_codec != codec_index {
            self.codec_changed(now, source.layer, former_codec);
        }
        self.arm_reports(now, key);
        if redundant {
            return self.unfold(now, source, seq, header, extensions, packet, lost);
        }
        self.store(now, source.layer, seq, header, extensions, packet, kind);
    }

    /// Sound with redundancy (RFC 2198): inside it is plain Opus for everybody, and what was lost before it is taken from it.
    #[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
    fn unfold(
        &mut self,
        now: Instant,
        source: SourceOf,
        seq: u64,
        header: crate::rtp::Header,
        extensions: crate::rtp::Extensions,
        packet: &mut [u8],
        lost: u64,
    ) {
        let mut pieces = [Piece::default(); RED_BLOCKS_MAX];
        let pieces = match Piece::all(packet.get(header.len..).unwrap_or_default(), header.payload_type, &mut pieces) {
            Some(pieces) => pieces,
            None => return self.counters.one(Count::RtpMalformed),
        };
        // The header wanders through the packet, so that it stands before each payload in turn.
        let mut at = 0;
        for (back, piece) in (0..pieces.len() as u64).rev().zip(pieces) {
            // A block belongs to the packet that many numbers back; what came by itself is not taken from here.
            let number = seq.checked_sub(back).filter(|_| back <= lost && (back == 0 || piece.len > 0));
            let Some(number) = number else { continue };
            packet.copy_within(at..at + header.len, piece.start);
            at = piece.start;
            let Some(whole) = packet.get(at..at + header.len + piece.len) else { return };
            let mut own = header;
            own.seq = number as u16;
            own.timestamp = header.timestamp.wrapping_sub(piece.offset);
            own.marker = header.marker && back == 0;
            if back > 0 {
                self.counters.one(Count::PacketsRecovered);
            }
            self.store(now, source.layer, number, own, extensions, whole, CodecKind::Opus);
        }
    }

    /// A packet that was sent again: the same packet under another source number.
    fn recovered(
        &mut self,
        now: Instant,
        source: SourceOf,
        mut header: crate::rtp::Header,
        extensions: crate::rtp::Extensions,
        packet: &mut [u8],
    ) {
        let Some(layer) = self.layers.get_mut(source.layer) else { return };
        let Some(payload) = packet.get(header.len..) else { return };
        // Padding only: a probe for bandwidth.
        let Some((original, _)) = rtx_unwrap(payload) else { return };
        let (Some(highest), Some(ssrc)) = (layer.arrivals.highest(), layer.ssrc) else { return };
        let Some(bound) = self.tracks.get(layer.track).and_then(|track| track.bound.as_ref()) else { return };
        let Some(codec) = bound.codecs.iter().find(|codec| codec.rtx == Some(header.payload_type)) else {
            self.counters.one(Count::RtpBadPayloadType);
            return;
        };
        let kind = codec.kind;
        header.payload_type = codec.payload_type;
        header.ssrc = ssrc;
        header.seq = original;
        let seq = crate::rtp::extend(highest, original);
        if seq > highest + NACK_GAP_MAX {
            // Nothing so far ahead was ever asked for; it would make all that comes by itself too old.
            return self.counters.one(Count::RtpMalformed);
        }
        // The header moves up over the two bytes of the original number.
        packet.copy_within(..header.len, crate::rtp::RTX_OSN_LEN);
        let Some(packet) = packet.get(crate::rtp::RTX_OSN_LEN..) else { return };
        layer.arrivals.note_recovered(now, seq);
        self.counters.one(Count::PacketsRecovered);
        self.store(now, source.layer, seq, header, extensions, packet, kind);
    }

    /// Into the cache, and onto the list of everybody who gets it.
    #[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
    pub(crate) fn store(
        &mut self,
        now: Instant,
        key: LayerKey,
        seq: u64,
        header: crate::rtp::Header,
        extensions: crate::rtp::Extensions,
        packet: &[u8],
        kind: CodecKind,
    ) {
        let Some(layer) = self.layers.get_mut(key) else { return };
        let Some(track) = self.tracks.get(layer.track) else { return };
        if track.muted {
            self.counters.one(Count::PacketsMuted);
            return;
        }
        let payload = packet.get(header.len..).unwrap_or_default();
        let noted = match track.kind {
            Kind::Video => note_layers(now, layer, kind, extensions.value(Extension::DependencyDescriptor, packet), payload),
            Kind::Audio => Noted::default(),
        };
        let key_frame = track.kind == Kind::Video && noted.key_frame.unwrap_or_else(|| starts_key_frame(kind, payload));
        match layer.cache.store(&Arrived { seq, header, extensions, key_frame, part: noted.part, at: now }, packet) {
            Stored::Kept if payload.is_empty() => {}
            Stored::Kept => layer.arrivals.note_media(now, packet.len()),
            Stored::Seen => return self.counters.one(Count::RtpDuplicate),
            Stored::TooOld => return self.counters.one(Count::RtpTooOld),
        }
        if key_frame {
            layer.key_frames.handle_arrival();
        }
        let level = match track.kind {
            Kind::Audio => extensions.value(Extension::AudioLevel, packet).and_then(AudioLevel::parse),
            Kind::Video => None,
        };
        let mut forward = true;
        let mut number = seq;
        if track.kind == Kind::Video && (payload.is_empty() || layer.padding.is_some()) {
            match layer.thin_padding(seq, header.timestamp, payload.is_empty()) {
                Some(thinned) => {
                    number = thinned;
                    layer.cache.renumber(seq, number);
                }
                None => {
                    forward = false;
                    self.counters.one(Count::PacketsOnlyPadding);
                }
            }
        }
        // Slides leave under the numbers that are given here.
        let mut slide_came = false;
        if let Some(slides) = &mut layer.slides {
            slide_came = slides.note(&layer.cache, seq);
            if slides.is_over(now) {
                layer.slides = None;
            }
        }
        if track.source == Source::Microphone
            && track.kind == Kind::Audio
            && let Some(call) = self.calls.get_mut(track.call)
        {
            if track.origin.is_some() {
                // Judged by its own shard; here it takes its place among the loudest.
                if let Some(level) = level {
                    let meter = layer.meter.get_or_insert_default();
                    meter.observe(now, level.level);
                    call.loudest.admit(now, key, meter, true);
                }
            } else {
                let microphone = layer.microphone.get_or_insert_default();
                match microphone.judge(now, key, &mut call.loudest, seq, level, payload.len()) {
                    Ok(judged) => {
                        number = judged;
                        layer.cache.renumber(seq, number);
                    }
                    Err(kept) => {
                        forward = false;
                        self.counters.one(match kept {
                            Kept::Silent => Count::PacketsSilent,
                            Kept::Softer => Count::PacketsSofter,
                        });
                    }
                }
            }
        }
        if forward && !layer.relays.is_empty() {
            let relayed = Relayed { epoch: layer.epoch, seq: number, codec: layer.codec, header, extensions, packet };
            self.outbox.parcels.packet(layer.relays, layer.track, layer.index, &relayed);
        }
        let viewers = if forward { layer.viewers.as_slice() } else { &[] };
        for viewer in viewers {
            let Some(transport) = self.transports.get_mut(viewer.transport) else { continue };
            if transport.pending.len() >= VIEWER_QUEUE_MAX {
                self.counters.one(Count::ViewerOverflow);
                continue;
            }
            let mut anew = false;
            if let Some(earshot) = &mut transport.earshot
                && track.kind == Kind::Audio
            {
                match earshot.hear(now, key, level) {
                    Heard::Yes { anew: begins } => anew = begins,
                    Heard::No => {
                        self.counters.one(Count::PacketsOutOfEarshot);
                        continue;
                    }
                }
            }
            transport.pending.push(Pending { subscription: viewer.subscription, layer: key, seq, again: false, anew });
            if !transport.dirty {
                transport.dirty = true;
                self.dirty.push(viewer.transport);
            }
        }
        if let Some(level) = level {
            let (call, voice, teller) = (track.call, track.voice, track.peer.filter(|_| track.tells_levels));
            if let Some(peer) = teller {
                self.tell_level(call, peer, level.level);
            }
            self.heard(now, call, voice, level.level);
        }
        let taps = self.layers.get(key).is_some_and(|layer| !layer.taps.is_empty());
        if taps {
            self.tap_packet(now, key, seq);
        }
        if noted.chain_lost {
            self.picture_broke(now, key);
        }
        if noted.targets_changed {
            self.choose_for_viewers(now, key);
        }
        if slide_came {
            self.slide_came(key);
        }
    }

    fn count_srtp(&mut self, error: SrtpError) {
        self.counters.one(match error {
            SrtpError::Malformed => Count::SrtpMalformed,
            SrtpError::Tag => Count::SrtpBadTag,
            SrtpError::Replayed => Count::SrtpReplayed,
            SrtpError::TooManySources => Count::SrtpTooManySources,
            SrtpError::NotEncrypted => Count::SrtcpNotEncrypted,
            SrtpError::SlotTooSmall | SrtpError::Exhausted | SrtpError::Keys => Count::SrtpOther,
        });
    }

    pub(crate) fn count_srtp_error(&mut self, error: SrtpError) {
        self.count_srtp(error);
    }
}

/// Does the codec come under this payload type, plain or with redundancy?
#[inline]
fn takes(codec: &Codec, payload_type: u8) -> bool {
    codec.payload_type == payload_type || codec.red == Some(payload_type)
}

/// One sound of a packet with redundancy.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// Where the RTP header has to stand for it: the payload begins a header's length later.
    start: usize,
    len: usize,
    /// How far its time lies back.
    offset: u32,
}

impl Piece {
    /// All of them, oldest first; `None` where the payload cannot be read, or holds another codec.
    fn all<'a>(payload: &[u8], payload_type: u8, pieces: &'a mut [Self; RED_BLOCKS_MAX]) -> Option<&'a [Self]> {
        let blocks = RedBlocks::parse(payload).ok()?;
        let mut start = red_headers_len(blocks.iter().count());
        let mut count = 0;
        for (block, piece) in blocks.iter().zip(pieces.iter_mut()) {
            if block.payload_type != payload_type {
                return None;
            }
            *piece = Self { start, len: block.payload.len(), offset: u32::from(block.timestamp_offset) };
            start += block.payload.len();
            count += 1;
        }
        pieces.get(..count)
    }
}

/// Reads what a stream with layers inside says of a packet.
#[inline]
fn note_layers(now: Instant, layer: &mut Layer, codec: CodecKind, descriptor: Option<&[u8]>, payload: &[u8]) -> Noted {
    if descriptor.is_none() && !(codec == CodecKind::Vp9 && Vp9Descriptor::has_layers(payload)) {
        return Noted::default();
    }
    layer.scalable.get_or_insert_with(|| Box::new(Scalable::new())).note(now, codec, descriptor, payload)
}

/// May a viewer's picture begin with this packet?
#[inline]
fn starts_key_frame(codec: CodecKind, payload: &[u8]) -> bool {
    match codec {
        CodecKind::Opus => true,
        CodecKind::Vp8 => Vp8Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame),
        CodecKind::H264 => codec::h264::starts_key_frame(payload),
        CodecKind::Vp9 => Vp9Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame()),
        CodecKind::Av1 => codec::av1::starts_key_frame(payload),
    }
}

/// Is this the first packet of the transport?
#[inline]
fn transport_first(transports: &mut crate::arena::Arena<super::Transport>, key: TransportKey) -> bool {
    transports.get(key).is_some_and(|transport| transport.step < Step::RtpIn)
}
