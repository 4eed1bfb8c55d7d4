//! What a publisher must hear soon: which packets came when, which are missing, which pictures must start anew.

use std::time::{Duration, Instant};

use super::TransportKey;
use crate::arena::Arena;
use crate::core::Core;
use crate::counters::Count;
use crate::limits::LAYERS_MAX;
use crate::outbox::Outbox;
use crate::rtcp::RtcpWriter;
use crate::timers::Timer;
use crate::track::LayerKey;

/// Our own source number in feedback; we send nothing under it.
pub(crate) const FEEDBACK_SSRC: u32 = 1;
/// Compound RTCP stays below every path's MTU.
pub(crate) const COMPOUND_LEN_MAX: usize = 1200;
/// Packets asked for in one request.
const ASK_MAX: usize = 128;

impl Core {
    /// Feedback is due.
    pub(crate) fn feedback_timeout(&mut self, now: Instant, key: TransportKey) {
        let mut lost_for_good: smallvec::SmallVec<[LayerKey; 4]> = smallvec::SmallVec::new();
        let mut asked = 0;
        {
            let Self { transports, tracks, layers, outbox, timers, scratch, .. } = self;
            let Some(transport) = transports.get_mut(key) else { return };
            let rtt = transport.rtt.unwrap_or(Duration::from_millis(50));
            let mut next = None;
            let mut slot = [0; COMPOUND_LEN_MAX + 64];
            let mut writer = RtcpWriter::new(slot.get_mut(..COMPOUND_LEN_MAX).unwrap_or_default());
            writer.receiver_report(FEEDBACK_SSRC, &[]);
            let empty = writer.len();
            while transport.congestion.write_feedback(now, &mut writer, FEEDBACK_SSRC) {}
            for incoming in &transport.incoming {
                for layer_key in tracks.get(incoming.track).map(|track| track.layers.as_slice()).unwrap_or_default() {
                    let Some(layer) = layers.get_mut(*layer_key) else { continue };
                    let Some(ssrc) = layer.ssrc else { continue };
                    if layer.arrivals.nack_due().is_some_and(|due| due <= now) {
                        scratch.clear();
                        if layer.arrivals.take_missing(now, rtt, scratch) {
                            lost_for_good.push(*layer_key);
                        }
                        scratch.truncate(ASK_MAX);
                        if writer.nack(FEEDBACK_SSRC, ssrc, scratch) {
                            asked += scratch.len() as u64;
                        }
                    }
                    next = earliest(next, layer.arrivals.nack_due());
                }
            }
            next = earliest(next, transport.congestion.feedback_due());
            let len = writer.len();
            if len > empty {
                send_compound(transport, outbox, &mut slot, len);
            }
            if let Some(at) = next {
                // A request that found no room in the compound is due at once; give the way a moment.
                timers.set(&mut transport.alarms.feedback, Timer::Feedback(key), at.max(now + Duration::from_millis(2)));
            }
        }
        self.counters.add(Count::NacksOut, asked);
        for layer in lost_for_good {
            self.picture_broke(now, layer);
        }
    }

    /// Asks the publisher for key frames that are due, and sets the alarm for the rest.
    pub(crate) fn key_frame_timeout(&mut self, now: Instant, track_key: crate::track::TrackKey) {
        let Self { transports, tracks, layers, outbox, timers, counters, .. } = self;
        let Some(track) = tracks.get_mut(track_key) else { return };
        let mut next = None;
        if track.origin.is_some() {
            let mut asked = [false; LAYERS_MAX];
            for (asked, layer) in asked.iter_mut().zip(&track.layers) {
                let Some(layer) = layers.get_mut(*layer) else { continue };
                *asked = layer.key_frames.poll(now);
                next = earliest(next, layer.key_frames.poll_timeout(now));
            }
            if let Some(at) = next {
                timers.set(&mut track.key_frame_alarm, Timer::KeyFrame(track_key), at);
            }
            if asked.contains(&true) {
                self.request_relay(track_key, asked);
            }
            return;
        }
        for layer_key in &track.layers {
            let Some(layer) = layers.get_mut(*layer_key) else { continue };
            // A layer that does not send cannot answer; it is asked when it wakes.
            if let Some(ssrc) = layer.ssrc
                && layer.key_frames.poll(now)
            {
                let mut slot = [0; 128];
                let mut writer = RtcpWriter::new(slot.get_mut(..64).unwrap_or_default());
                writer.receiver_report(FEEDBACK_SSRC, &[]);
                writer.pli(FEEDBACK_SSRC, ssrc);
                let len = writer.len();
                if let Some(transport) = layer.transport.and_then(|key| transports.get_mut(key)) {
                    send_compound(transport, outbox, &mut slot, len);
                    counters.one(Count::KeyFramesAsked);
                }
            }
            if layer.ssrc.is_some() {
                next = earliest(next, layer.key_frames.poll_timeout(now));
            }
        }
        if let Some(at) = next {
            timers.set(&mut track.key_frame_alarm, Timer::KeyFrame(track_key), at);
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Protects and sends a compound packet that stands at the front of `slot`, with room behind it for the trailer.
pub(crate) fn send_compound(transport: &mut super::Transport, outbox: &mut Outbox, slot: &mut [u8], len: usize) {
    let (Some(link), Some(keys)) = (transport.ice.selected(), &mut transport.keys) else { return };
    if let Ok(len) = keys.outbound.protect_rtcp(slot, len) {
        outbox.datagram(link, slot.get(..len).unwrap_or_default());
    }
}

/// All layers of the tracks that come in on a transport.
pub(crate) fn layers_of<'a>(
    transport: &'a super::Transport,
    tracks: &'a Arena<crate::track::Track>,
) -> impl Iterator<Item = LayerKey> + 'a {
    transport.incoming.iter().filter_map(|incoming| tracks.get(incoming.track)).flat_map(|track| track.layers.iter().copied())
}
