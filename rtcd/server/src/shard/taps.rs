//! What the core tells taps, in the protocol's words.

use std::time::Instant;

use bytes::Bytes;
use conclave_proto::v1;
use conclave_proto::v1::tap_item::Item;
use rtcd_core::ids::{Kind, Source, TapId};
use rtcd_core::output::TapItem;

use super::shell::Shell;
use crate::tap::queue::Pushed;

impl Shell {
    pub(super) fn tap(&mut self, tap: &TapId, item: &TapItem<'_>, now: Instant) {
        let at_us = self.unix_us(now);
        let Some(sink) = self.taps.get_mut(tap) else { return };
        let item = match item {
            TapItem::Packet { track, at_us, seq, timestamp, marker, key_frame, audio_level, payload } => {
                let packet = v1::TapPacket {
                    at_us: i64::try_from(*at_us).unwrap_or(i64::MAX),
                    seq: *seq,
                    timestamp: *timestamp,
                    marker: *marker,
                    payload: Bytes::copy_from_slice(payload),
                    key_frame: *key_frame,
                    audio_level: u32::from(*audio_level),
                };
                let pushed = sink.push_packet(track.as_str(), packet);
                self.pushed(tap, pushed);
                return;
            }
            // `identity` carries the peer's id here; the tap service, which knows people, replaces it.
            TapItem::Track { peer, track, kind, source, mime, clock_rate, channels, payload_type, fmtp, width, height } => {
                Item::Track(v1::TapTrack {
                    track_sid: track.as_str().to_owned(),
                    identity: peer.as_str().to_owned(),
                    display_name: String::new(),
                    kind: track_kind(*kind).into(),
                    source: track_source(*source).into(),
                    mime: (*mime).to_owned(),
                    clock_rate: *clock_rate,
                    channels: u32::from(*channels),
                    payload_type: u32::from(*payload_type),
                    fmtp: (*fmtp).to_owned(),
                    width: *width,
                    height: *height,
                    encryption: v1::TapEncryption::None.into(),
                })
            }
            TapItem::Gap { track, from_seq, packets } => Item::Gap(v1::TapGap {
                track_sid: track.as_str().to_owned(),
                from_seq: *from_seq,
                packets: *packets,
                reason: v1::tap_gap::Reason::Network.into(),
            }),
            TapItem::Muted { track, muted } => Item::Muted(v1::TapMuted { track_sid: track.as_str().to_owned(), muted: *muted }),
            TapItem::TrackEnded { track } => Item::TrackEnded(v1::TapTrackEnded { track_sid: track.as_str().to_owned() }),
        };
        let pushed = sink.push(at_us, item);
        self.pushed(tap, pushed);
    }

    fn pushed(&mut self, tap: &TapId, pushed: Pushed) {
        match pushed {
            Pushed::Queued => {}
            Pushed::Dropped => self.counters.tap_packets_dropped += 1,
            Pushed::Lost => self.lost_taps.push(tap.clone()),
        }
    }
}

/// The core's kind in the protocol's words.
#[must_use]
pub(crate) fn track_kind(kind: Kind) -> v1::TrackKind {
    match kind {
        Kind::Audio => v1::TrackKind::Audio,
        Kind::Video => v1::TrackKind::Video,
    }
}

/// The core's source in the protocol's words.
#[must_use]
pub(crate) fn track_source(source: Source) -> v1::TrackSource {
    match source {
        Source::Camera => v1::TrackSource::Camera,
        Source::Microphone => v1::TrackSource::Microphone,
        Source::ScreenShare => v1::TrackSource::ScreenShare,
        Source::ScreenShareAudio => v1::TrackSource::ScreenShareAudio,
        Source::Unknown => v1::TrackSource::Unspecified,
    }
}
