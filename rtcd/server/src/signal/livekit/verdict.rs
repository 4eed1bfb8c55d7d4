//! How good everybody's connection is. The core judges a whole call at once and says what changed; who is told of whom is decided here.
//!
//! As from LiveKit's own server: each is told of itself and of those whom it could hear or see. Told of everybody, a call of a
//! thousand listeners would be a million verdicts in one go.

use std::collections::HashSet;

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::PeerId;
use rtcd_core::output::Quality;

use super::call::{Call, Participant};
use super::translate;
use super::turn::Turn;

impl Call {
    /// The core judged.
    pub(super) fn tell_verdicts(&mut self, turn: &mut Turn<'_>, changes: &[(PeerId, Quality, f32)]) {
        let so_far = self.verdicts_but(changes);
        let mut of_all = Vec::new();
        for (peer, quality, score) in changes {
            let verdict = lk::ConnectionQualityInfo {
                participant_sid: peer.as_str().to_owned(),
                quality: translate::connection_quality(*quality).into(),
                score: *score,
            };
            let Some(participant) = self.participant_mut(peer) else { continue };
            let is_first = participant.verdict.replace(verdict.clone()).is_none();
            let (identity, is_heard) = (participant.identity.clone(), participant.may_be_heard());
            let quality = translate::quality_name(*quality).to_owned();
            turn.event(self, v1::call_event::Event::Quality(v1::QualityChanged { identity, quality, score: *score }));
            // A newcomer was not there when others were judged.
            let mut of_it = if is_first { so_far.clone() } else { Vec::new() };
            if is_heard {
                of_all.push(verdict);
            } else {
                of_it.push(verdict);
            }
            if let Some(participant) = self.participant(peer).filter(|_| !of_it.is_empty()) {
                turn.tell(participant, update(of_it));
            }
        }
        if !of_all.is_empty() {
            turn.broadcast(self, None, update(of_all));
        }
    }

    /// Verdicts that stand, of those whom others could hear or see, but for these.
    fn verdicts_but(&self, changes: &[(PeerId, Quality, f32)]) -> Vec<lk::ConnectionQualityInfo> {
        let changed: HashSet<&PeerId> = changes.iter().map(|(peer, ..)| peer).collect();
        let stand = self.participants.iter().filter(|participant| participant.may_be_heard() && !changed.contains(&participant.peer));
        stand.filter_map(|participant| participant.verdict.clone()).collect()
    }

    /// Somebody's first track: from now on its verdict is of interest to others.
    pub(super) fn tell_verdict_of(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        let Some(participant) = self.participant(peer).filter(|participant| participant.may_be_heard()) else { return };
        if let Some(verdict) = &participant.verdict
            && participant.tracks.iter().filter(|track| track.live).count() == 1
        {
            turn.broadcast(self, Some(participant), update(vec![verdict.clone()]));
        }
    }
}

impl Participant {
    /// Has it something to hear or to see, for people who know of it?
    fn may_be_heard(&self) -> bool {
        !self.grants.hidden && self.tracks.iter().any(|track| track.live)
    }
}

fn update(updates: Vec<lk::ConnectionQualityInfo>) -> Message {
    Message::ConnectionQuality(lk::ConnectionQualityUpdate { updates })
}
