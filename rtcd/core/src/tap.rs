//! What a recorder or captioner is given: each track's best layer, in order, with gaps declared.
//!
//! The layer's cache is the reorder buffer: a packet out of turn waits there, and after [`WAIT`] its predecessors are
//! declared lost. A tap that needs consent is given nothing of a peer that did not give it.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::arena::Key;
use crate::call::CallKey;
use crate::core::Core;
use crate::counters::Count;
use crate::ids::{Kind, Source, TapId, TrackId};
use crate::input::TapScope;
use crate::limits::TAPS_PER_CALL_MAX;
use crate::negotiate::Codec;
use crate::outbox::Notice;
use crate::output::TapItem;
use crate::peer::TransportKey;
use crate::rtp::{AudioLevel, Extension, TimestampExtender};
use crate::timers::{Alarm, Timer};
use crate::track::{LayerKey, TrackKey};

pub(crate) type TapKey = Key<Tap>;

/// How long a missing packet is waited for: two requests and a round trip.
const WAIT: Duration = Duration::from_millis(250);

/// One open tap.
pub(crate) struct Tap {
    pub(crate) id: TapId,
    pub(crate) call: CallKey,
    pub(crate) scope: TapScope,
    pub(crate) tracks: Vec<Tapped>,
    pub(crate) alarm: Alarm,
}

/// One track as a tap follows it.
pub(crate) struct Tapped {
    track: TrackKey,
    /// Followed now.
    layer: Option<LayerKey>,
    /// To be followed from its next key frame.
    target: Option<LayerKey>,
    /// Next number wanted of the layer followed.
    next_in: u64,
    /// Next number given out.
    next_out: u64,
    timestamps: TimestampExtender,
    /// Added to the publisher's timestamps, so that a layer switch does not jump.
    timestamp_shift: u32,
    last_timestamp: Option<(u32, Instant)>,
    /// Since when a hole blocks the way.
    blocked_since: Option<Instant>,
}

/// An item waiting to be polled.
pub(crate) enum Delivery {
    Track { track: TrackKey },
    Packet { track: TrackId, layer: LayerKey, seq_in: u64, seq: u64, timestamp: u64 },
    Gap { track: TrackId, from_seq: u64, packets: u64 },
    Muted { track: TrackId, muted: bool },
    TrackEnded { track: TrackId },
}

impl Core {
    /// A worker opens a tap on a call.
    pub(crate) fn open_tap(&mut self, now: Instant, call: &crate::ids::CallId, id: &TapId, scope: TapScope) {
        let call_key = self.call_by_id.get(call).copied();
        let Some((call_key, call)) = call_key.and_then(|key| Some((key, self.calls.get_mut(key)?))) else {
            return self.outbox.notice(Notice::TapClosed { tap: id.clone() });
        };
        if call.taps.len() >= TAPS_PER_CALL_MAX || self.tap_by_id.contains_key(id) {
            return self.outbox.notice(Notice::TapClosed { tap: id.clone() });
        }
        let key = self.taps.insert(Tap { id: id.clone(), call: call_key, scope, tracks: Vec::new(), alarm: Alarm::default() });
        call.taps.push(key);
        self.tap_by_id.insert(id.clone(), key);
        let tracks: Vec<TrackKey> =
            call.peers.iter().filter_map(|peer| self.peers.get(*peer)).flat_map(|peer| peer.tracks.iter().copied()).collect();
        for track in tracks {
            self.tap_meet(now, key, track);
        }
    }

    /// The reader is gone, or the call is over (then it is told).
    pub(crate) fn close_tap(&mut self, key: TapKey) {
        let Some(tap) = self.taps.remove(key) else { return };
        self.tap_by_id.remove(&tap.id);
        if let Some(call) = self.calls.get_mut(tap.call) {
            call.taps.retain(|other| *other != key);
        }
        for tapped in &tap.tracks {
            for layer in [tapped.layer, tapped.target].into_iter().flatten() {
                if let Some(layer) = self.layers.get_mut(layer) {
                    layer.taps.retain(|other| *other != key);
                }
            }
        }
        self.outbox.notice(Notice::TapClosed { tap: tap.id });
    }

    /// A tap cannot go on without a key frame.
    pub(crate) fn tap_key_frame(&mut self, now: Instant, key: TapKey, track: TrackKey) {
        let layer = self
            .taps
            .get(key)
            .and_then(|tap| tap.tracks.iter().find(|tapped| tapped.track == track))
            .and_then(|tapped| tapped.layer.or(tapped.target));
        if let Some(layer) = layer {
            self.want_key_frame(now, layer);
        }
    }

    /// A track came, or its publisher consented: taps whose scope it fits see it.
    pub(crate) fn taps_meet(&mut self, now: Instant, track: TrackKey) {
        for tap in self.taps_of(track) {
            self.tap_meet(now, tap, track);
        }
    }

    fn taps_of(&self, track: TrackKey) -> Vec<TapKey> {
        self.tracks.get(track).and_then(|track| self.calls.get(track.call)).map(|call| call.taps.clone()).unwrap_or_default()
    }

    fn tap_meet(&mut self, now: Instant, key: TapKey, track_key: TrackKey) {
        let (Some(tap), Some(track)) = (self.taps.get_mut(key), self.tracks.get(track_key)) else { return };
        // What stands in for a track of another shard is tapped there.
        let Some(publisher) = track.peer else { return };
        let consented = self.peers.get(publisher).is_some_and(|peer| peer.consent);
        let in_scope = match track.kind {
            Kind::Audio => tap.scope.audio,
            Kind::Video => tap.scope.video && (!tap.scope.screen_only || track.source == Source::ScreenShare),
        };
        let known = tap.tracks.iter().any(|tapped| tapped.track == track_key);
        if known || !in_scope || track.backup_of.is_some() || track.bound.is_none() || (tap.scope.consent_needed && !consented) {
            return;
        }
        tap.tracks.push(Tapped {
            track: track_key,
            layer: None,
            target: None,
            next_in: 0,
            next_out: 0,
            timestamps: TimestampExtender::new(),
            timestamp_shift: 0,
            last_timestamp: None,
            blocked_since: None,
        });
        let (tap_id, id, muted) = (tap.id.clone(), track.id.clone(), track.muted);
        self.deliver(&tap_id, Delivery::Track { track: track_key });
        if muted {
            self.deliver(&tap_id, Delivery::Muted { track: id, muted });
        }
        self.taps_choose(now, track_key);
        self.refresh_demand(now, track_key);
    }

    /// The best layer that sends becomes every tap's target.
    pub(crate) fn taps_choose(&mut self, now: Instant, track_key: TrackKey) {
        let Some(track) = self.tracks.get(track_key) else { return };
        let best = track
            .layers
            .iter()
            .rev()
            .find(|layer| self.layers.get(**layer).is_some_and(|layer| layer.is_sending(now)))
            .or(track.layers.last())
            .copied();
        let kind = track.kind;
        for key in self.taps_of(track_key) {
            let Some(tapped) = self.taps.get_mut(key).and_then(|tap| tap.tracks.iter_mut().find(|tapped| tapped.track == track_key)) else {
                continue;
            };
            tapped.target = best;
            let (layer, target) = (tapped.layer, tapped.target);
            if let Some(target) = target.filter(|target| Some(*target) != layer) {
                if let Some(layer) = self.layers.get_mut(target)
                    && !layer.taps.contains(&key)
                {
                    layer.taps.push(key);
                }
                if kind == Kind::Video {
                    self.want_key_frame(now, target);
                }
            }
        }
    }

    /// Is anybody reading the track?
    pub(crate) fn is_tapped(&self, track: TrackKey) -> bool {
        self.tracks.get(track).and_then(|track| self.calls.get(track.call)).is_some_and(|call| {
            call.taps.iter().any(|tap| self.taps.get(*tap).is_some_and(|tap| tap.tracks.iter().any(|tapped| tapped.track == track)))
        })
    }

    /// A packet was stored in a layer that taps read.
    pub(crate) fn tap_packet(&mut self, now: Instant, layer_key: LayerKey, seq: u64) {
        let Some(layer) = self.layers.get(layer_key) else { return };
        let (track, taps) = (layer.track, layer.taps.clone());
        for key in taps {
            self.tap_one(now, key, track, layer_key, seq);
        }
    }

    fn tap_one(&mut self, now: Instant, key: TapKey, track_key: TrackKey, layer_key: LayerKey, seq: u64) {
        let Self { taps, layers, tracks, .. } = self;
        let (Some(tap), Some(track)) = (taps.get_mut(key), tracks.get(track_key)) else { return };
        let Some(tapped) = tap.tracks.iter_mut().find(|tapped| tapped.track == track_key) else { return };
        let Some(layer) = layers.get(layer_key) else { return };
        let Some((entry, _)) = layer.cache.get(seq) else { return };
        if tapped.layer != Some(layer_key) {
            let begins = tapped.target == Some(layer_key) && (track.kind == Kind::Audio || entry.key_frame);
            if !begins {
                return;
            }
            let timestamp = entry.header.timestamp;
            tapped.timestamp_shift = match (tapped.layer.and_then(|old| layers.get(old)), tapped.last_timestamp) {
                (_, None) => 0,
                (old, Some((last, at))) => {
                    let by_clock = old
                        .and_then(|old| old.clock.timestamp_of(layer.clock.ntp_of(timestamp, layer.clock_rate)?, layer.clock_rate))
                        .map(|old| old.wrapping_add(tapped.timestamp_shift));
                    let elapsed = now.saturating_duration_since(at).as_micros() as u64 * u64::from(layer.clock_rate) / 1_000_000;
                    let by_arrival = last.wrapping_add(elapsed as u32);
                    let out = by_clock.filter(|out| out.wrapping_sub(last).cast_signed() > 0).unwrap_or(by_arrival);
                    out.wrapping_sub(timestamp)
                }
            };
            let old = tapped.layer.replace(layer_key);
            tapped.next_in = seq;
            tapped.blocked_since = None;
            if let Some(old) = old.and_then(|old| layers.get_mut(old)) {
                old.taps.retain(|other| *other != key);
            }
        }
        self.tap_drain(now, key, track_key);
    }

    /// Gives out everything that is in turn.
    fn tap_drain(&mut self, now: Instant, key: TapKey, track_key: TrackKey) {
        let Self { taps, layers, tracks, outbox, counters, timers, .. } = self;
        let (Some(tap), Some(track)) = (taps.get_mut(key), tracks.get(track_key)) else { return };
        let Some(tapped) = tap.tracks.iter_mut().find(|tapped| tapped.track == track_key) else { return };
        let Some((layer_key, layer)) = tapped.layer.and_then(|key| Some((key, layers.get(key)?))) else { return };
        let hole = tapped.next_in;
        while let Some((entry, packet)) = layer.cache.get(tapped.next_in) {
            // The publisher's padding: nothing is in it, and it is not missing either.
            if track.kind == Kind::Video && packet.len() <= entry.header.len {
                tapped.next_in += 1;
                continue;
            }
            let shifted = entry.header.timestamp.wrapping_add(tapped.timestamp_shift);
            tapped.last_timestamp = Some((shifted, entry.at));
            let timestamp = tapped.timestamps.extend(shifted);
            let delivery =
                Delivery::Packet { track: track.id.clone(), layer: layer_key, seq_in: tapped.next_in, seq: tapped.next_out, timestamp };
            outbox.notice(Notice::Tap { tap: tap.id.clone(), delivery });
            counters.one(Count::TapPackets);
            tapped.next_in += 1;
            tapped.next_out += 1;
        }
        if layer.arrivals.highest().is_none_or(|highest| highest < tapped.next_in) {
            tapped.blocked_since = None;
        } else if tapped.next_in != hole || tapped.blocked_since.is_none() {
            // A hole is as old as the first packet behind it, however long an earlier one was waited for.
            let highest = layer.arrivals.highest().unwrap_or(tapped.next_in);
            let since = (tapped.next_in..=highest).find_map(|seq| layer.cache.get(seq)).map_or(now, |(entry, _)| entry.at);
            tapped.blocked_since = Some(since);
            timers.set_earlier(&mut tap.alarm, Timer::Tap(key), (since + WAIT).max(now));
        }
    }

    /// What was waited for did not come: it is declared missing, and what is behind it goes out.
    pub(crate) fn tap_timeout(&mut self, now: Instant, key: TapKey) {
        let tracks: Vec<TrackKey> =
            self.taps.get(key).map(|tap| tap.tracks.iter().map(|tapped| tapped.track).collect()).unwrap_or_default();
        let mut next: Option<Instant> = None;
        for track_key in tracks {
            loop {
                let Self { taps, layers, tracks, outbox, counters, .. } = self;
                let (Some(tap), Some(track)) = (taps.get_mut(key), tracks.get(track_key)) else { break };
                let Some(tapped) = tap.tracks.iter_mut().find(|tapped| tapped.track == track_key) else { break };
                let Some(since) = tapped.blocked_since else { break };
                if now.saturating_duration_since(since) < WAIT {
                    next = Some(next.map_or(since + WAIT, |next| next.min(since + WAIT)));
                    break;
                }
                let Some(layer) = tapped.layer.and_then(|layer| layers.get(layer)) else { break };
                let Some(highest) = layer.arrivals.highest() else { break };
                let from = tapped.next_in;
                let there = (from..=highest).find(|seq| layer.cache.get(*seq).is_some());
                let until = there.unwrap_or(highest + 1);
                let packets = until - from;
                if packets > 0 {
                    outbox.notice(Notice::Tap {
                        tap: tap.id.clone(),
                        delivery: Delivery::Gap { track: track.id.clone(), from_seq: tapped.next_out, packets },
                    });
                    counters.add(Count::TapGaps, packets);
                }
                tapped.next_in = until;
                tapped.next_out += packets;
                tapped.blocked_since = None;
                self.tap_drain(now, key, track_key);
            }
        }
        if let (Some(at), Some(tap)) = (next, self.taps.get_mut(key)) {
            self.timers.set(&mut tap.alarm, Timer::Tap(key), at);
        }
    }

    /// A layer's numbers start anew.
    pub(crate) fn taps_restart(&mut self, now: Instant, layer_key: LayerKey) {
        let Some(layer) = self.layers.get(layer_key) else { return };
        let track = layer.track;
        let mut is_read = false;
        for key in layer.taps.clone() {
            if let Some(tapped) = self.taps.get_mut(key).and_then(|tap| tap.tracks.iter_mut().find(|tapped| tapped.track == track))
                && tapped.layer == Some(layer_key)
            {
                tapped.layer = None;
                tapped.target = Some(layer_key);
                tapped.blocked_since = None;
                is_read = true;
            }
        }
        if is_read && self.tracks.get(track).is_some_and(|track| track.kind == Kind::Video) {
            self.want_key_frame(now, layer_key);
        }
    }

    /// A layer that taps read may have fallen silent: they go on with the best that sends, and come back when it wakes. Asked once a second
    /// for what comes in on a transport; where somebody watches, viewers' allocations notice it earlier.
    pub(crate) fn taps_leave_silent(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key) else { return };
        let incoming: SmallVec<[TrackKey; 4]> = transport.incoming.iter().map(|section| section.track).collect();
        for track_key in incoming {
            let Some(track) = self.tracks.get(track_key).filter(|track| track.kind == Kind::Video && track.layers.len() > 1) else {
                continue;
            };
            let mut is_silent = false;
            for layer in track.layers.clone() {
                let Some(layer) = self.layers.get_mut(layer).filter(|layer| !layer.taps.is_empty()) else { continue };
                layer.awake = layer.is_sending(now);
                is_silent |= !layer.awake;
            }
            if is_silent {
                self.taps_choose(now, track_key);
            }
        }
    }

    pub(crate) fn taps_muted(&mut self, now: Instant, track_key: TrackKey, muted: bool) {
        for key in self.taps_of(track_key) {
            let Some(track) = self.tracks.get(track_key) else { return };
            let Some(tap) = self.taps.get_mut(key) else { continue };
            let Some(tapped) = tap.tracks.iter_mut().find(|tapped| tapped.track == track_key) else { continue };
            // What was not given yet is not given any more; what comes after begins anew.
            if let Some(layer) = tapped.layer.take() {
                tapped.target = Some(layer);
            }
            tapped.blocked_since = None;
            let (tap_id, id) = (tap.id.clone(), track.id.clone());
            self.deliver(&tap_id, Delivery::Muted { track: id, muted });
        }
        if !muted {
            // Perhaps nobody but they needs its next key frame.
            self.taps_choose(now, track_key);
        }
    }

    /// The track ended.
    pub(crate) fn taps_lose(&mut self, track: TrackKey) {
        for key in self.taps_of(track) {
            self.tap_lose(key, track);
        }
    }

    /// Its publisher took consent back.
    pub(crate) fn taps_without_consent(&mut self, track: TrackKey) {
        for key in self.taps_of(track) {
            if self.taps.get(key).is_some_and(|tap| tap.scope.consent_needed) {
                self.tap_lose(key, track);
                // What was queued but not polled must not leave either.
                if let Some(tap) = self.taps.get(key) {
                    let id = tap.id.clone();
                    self.outbox.forget_packets(&id, self.tracks.get(track).map(|track| &track.id));
                }
            }
        }
    }

    fn tap_lose(&mut self, key: TapKey, track_key: TrackKey) {
        let (Some(tap), Some(track)) = (self.taps.get_mut(key), self.tracks.get(track_key)) else { return };
        let before = tap.tracks.len();
        tap.tracks.retain(|tapped| tapped.track != track_key);
        if tap.tracks.len() == before {
            return;
        }
        for layer in &track.layers {
            if let Some(layer) = self.layers.get_mut(*layer) {
                layer.taps.retain(|other| *other != key);
            }
        }
        let (tap_id, id) = (tap.id.clone(), track.id.clone());
        self.deliver(&tap_id, Delivery::TrackEnded { track: id });
    }

    fn deliver(&mut self, tap: &TapId, delivery: Delivery) {
        self.outbox.notice(Notice::Tap { tap: tap.clone(), delivery });
    }

    /// Turns a queued delivery into an output. `None`: there is nothing left of it.
    pub(crate) fn tap_item<'a>(&'a self, delivery: &'a Delivery) -> Option<TapItem<'a>> {
        Some(match delivery {
            Delivery::Track { track } => {
                let track = self.tracks.get(*track)?;
                let peer = self.peers.get(track.peer?)?;
                let codec: &Codec = track.codec()?;
                let top = track.announced.last();
                TapItem::Track {
                    peer: peer.id.clone(),
                    track: track.id.clone(),
                    kind: track.kind,
                    source: track.source,
                    mime: codec.kind.mime(),
                    clock_rate: codec.kind.clock_rate(),
                    channels: codec.kind.channels(),
                    payload_type: codec.payload_type,
                    fmtp: &codec.fmtp,
                    width: top.map_or(0, |layer| layer.width),
                    height: top.map_or(0, |layer| layer.height),
                }
            }
            Delivery::Packet { track, layer, seq_in, seq, timestamp } => {
                let there = self.layers.get(*layer).and_then(|layer| layer.cache.get(*seq_in));
                // The cache was overrun between the packet's arrival and this poll.
                let Some((entry, packet)) = there else { return Some(TapItem::Gap { track: track.clone(), from_seq: *seq, packets: 1 }) };
                let level = entry.extensions.value(Extension::AudioLevel, packet).and_then(AudioLevel::parse);
                TapItem::Packet {
                    track: track.clone(),
                    at_us: self.unix_us(entry.at),
                    seq: *seq,
                    timestamp: *timestamp,
                    marker: entry.header.marker,
                    key_frame: entry.key_frame,
                    audio_level: level.map_or(255, |level| level.level),
                    payload: packet.get(entry.header.len..).unwrap_or_default(),
                }
            }
            Delivery::Gap { track, from_seq, packets } => TapItem::Gap { track: track.clone(), from_seq: *from_seq, packets: *packets },
            Delivery::Muted { track, muted } => TapItem::Muted { track: track.clone(), muted: *muted },
            Delivery::TrackEnded { track } => TapItem::TrackEnded { track: track.clone() },
        })
    }
}
