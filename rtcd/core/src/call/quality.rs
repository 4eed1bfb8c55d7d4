//! How good a peer's connection is, from what is lost both ways and how long the way is.

use std::time::{Duration, Instant};

use super::CallKey;
use crate::core::Core;
use crate::ids::Kind;
use crate::output::{Event, Quality};
use crate::peer::PeerKey;
use crate::peer::connect::State;
use crate::peer::feedback::layers_of;
use crate::timers::Timer;

/// Judged this often: a verdict that flickers tells nobody anything.
const JUDGE_EVERY: Duration = Duration::from_secs(5);
/// Lost share from which sound is audibly patched, and from which it breaks.
const LOSS_GOOD: f32 = 0.03;
const LOSS_POOR: f32 = 0.12;
/// Round trips from which talk gets halting, and from which it fails.
const RTT_GOOD: Duration = Duration::from_millis(250);
const RTT_POOR: Duration = Duration::from_millis(600);

/// What is known of one peer's ways.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ways {
    pub(crate) loss_in: f32,
    pub(crate) loss_out: f32,
    pub(crate) rtt: Option<Duration>,
    pub(crate) jitter_out: Option<Duration>,
    pub(crate) lost: bool,
}

impl Ways {
    fn judge(self) -> (Quality, f32) {
        let loss = self.loss_in.max(self.loss_out);
        let rtt = self.rtt.unwrap_or_default();
        if self.lost {
            return (Quality::Lost, 1.0);
        }
        // Five points, less two for a tenth lost, less one for half a second.
        let score = (5.0 - loss * 20.0 - rtt.as_secs_f32() * 2.0).clamp(1.0, 5.0);
        let quality = if loss >= LOSS_POOR || rtt >= RTT_POOR {
            Quality::Poor
        } else if loss >= LOSS_GOOD || rtt >= RTT_GOOD {
            Quality::Good
        } else {
            Quality::Excellent
        };
        (quality, score)
    }
}

impl Core {
    pub(crate) fn arm_quality(&mut self, now: Instant, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key)
            && !call.quality_alarm.is_set()
        {
            self.timers.set(&mut call.quality_alarm, Timer::Quality(key), now + JUDGE_EVERY);
        }
    }

    pub(crate) fn quality_timeout(&mut self, now: Instant, key: CallKey) {
        let Some(call) = self.calls.get(key) else { return };
        let id = call.id.clone();
        let mut changes = Vec::new();
        for peer_key in call.peers.clone() {
            let Some((quality, score)) = self.ways(now, peer_key).map(Ways::judge) else { continue };
            let Some(peer) = self.peers.get_mut(peer_key) else { continue };
            if peer.quality != Some(quality) {
                peer.quality = Some(quality);
                changes.push((peer.id.clone(), quality, score));
            }
        }
        if !changes.is_empty() {
            self.outbox.event(&id, Event::Quality(changes));
        }
        self.arm_quality(now, key);
    }

    /// Of a peer whose media got as far as keys; of others there is nothing to judge.
    pub(crate) fn ways(&self, now: Instant, key: PeerKey) -> Option<Ways> {
        let peer = self.peers.get(key)?;
        let mut ways = Ways::default();
        let mut any = false;
        for transport in peer.transport_keys().filter_map(|key| self.transports.get(key)) {
            match transport.state {
                State::Live => any = true,
                State::Quiet => (any, ways.lost) = (true, true),
                State::Invited | State::Checking | State::Securing | State::Gone => continue,
            }
            ways.rtt = ways.rtt.max(transport.rtt);
            for layer in layers_of(transport, &self.tracks).filter_map(|key| self.layers.get(key)) {
                if layer.is_sending_within(now, JUDGE_EVERY) {
                    ways.loss_in = ways.loss_in.max(layer.arrivals.fraction_lost);
                }
            }
            for subscription in transport.subscriptions.iter().filter_map(|key| self.subscriptions.get(*key)) {
                if subscription.rate.bps(now) > 0 {
                    ways.loss_out = ways.loss_out.max(subscription.feedback.fraction_lost);
                    // Of sound: pictures come in bursts, whatever the way is like.
                    if let (Kind::Audio, Some(jitter), Some(sending)) =
                        (subscription.kind, subscription.feedback.jitter, &subscription.sending)
                    {
                        let jitter = Duration::from_secs_f64(f64::from(jitter) / f64::from(sending.clock_rate.max(1)));
                        ways.jitter_out = ways.jitter_out.max(Some(jitter));
                    }
                }
            }
        }
        any.then_some(ways)
    }
}
