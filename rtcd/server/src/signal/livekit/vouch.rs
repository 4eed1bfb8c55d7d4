//! Recording by LiveKit's egress: there is no notice that people answer; who holds an API key with `roomRecord` vouches for them
//! (docs/decisions/0020). What is encrypted end to end is recorded only with a key that somebody in the room granted (0027).

use conclave_proto::v1;
use rtcd_core::ids::PeerId;

use super::call::{Call, Participant};
use super::turn::Turn;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, RoomAnswer, RoomFault, Vouched};

/// The notice's version in recordings for which a key vouched.
pub(crate) const NOTICE: &str = "livekit-egress";

impl Call {
    /// An egress begins or ends.
    pub(super) fn vouch(&mut self, turn: &mut Turn<'_>, egress: String, whose: Vouched) -> Result<RoomAnswer, RoomFault> {
        let recorded = !self.vouched.is_empty();
        let before: Vec<bool> = self.participants.iter().map(|participant| self.is_vouched_for(&participant.identity)).collect();
        match whose {
            Vouched::Everybody => {
                if self.participants.is_empty() {
                    return Err(RoomFault::Empty);
                }
                if let Some(sealed) = self.participants.iter().find(|participant| self.is_sealed(participant)) {
                    return Err(self.seal(sealed));
                }
                self.vouched.insert(egress, None);
            }
            Vouched::Person(identity) => {
                let participant = self.by_identity(&identity).ok_or(RoomFault::NoParticipant)?;
                if self.is_sealed(participant) {
                    return Err(self.seal(participant));
                }
                self.vouched.insert(egress, Some(identity));
            }
            Vouched::Nobody => {
                self.vouched.remove(&egress);
            }
        }
        for (participant, before) in self.participants.iter().zip(before) {
            if self.is_vouched_for(&participant.identity) != before {
                self.give_consent(turn, participant, self.consent_of(participant).unwrap_or(false));
            }
        }
        if self.vouched.is_empty() == recorded {
            self.recording = !recorded;
            self.tell_room(turn);
        }
        Ok(RoomAnswer::Room(Box::new(turn.room(self))))
    }

    /// A key vouches for somebody now.
    pub(super) fn is_vouched_for(&self, identity: &str) -> bool {
        self.vouched.values().any(|whose| whose.as_deref().is_none_or(|whose| whose == identity))
    }

    /// Whether somebody may be recorded, as far as it was said: by a key that vouches, or by the person's own answer.
    pub(super) fn consent_of(&self, participant: &Participant) -> Option<bool> {
        match self.is_vouched_for(&participant.identity) {
            true => Some(!self.is_sealed(participant)),
            false => self.consents.get(&participant.identity).copied(),
        }
    }

    /// To the core, and into the record's evidence.
    pub(super) fn give_consent(&self, turn: &mut Turn<'_>, participant: &Participant, granted: bool) {
        turn.core(Command::Consent { peer: participant.peer.clone(), granted });
        let consent = v1::RecordingConsent {
            call_id: self.name.clone(),
            identity: participant.identity.clone(),
            granted,
            notice_version: NOTICE.to_owned(),
            answered_at_ms: turn.now.unix_ms,
        };
        turn.out.push(AdapterOutput::Consented { call: self.id.clone(), consent });
    }

    /// Somebody announced a track: where it is encrypted and no key of it is granted, what is recorded leaves its publisher out.
    pub(super) fn withhold_sealed(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        let vouched = |participant: &&Participant| self.is_vouched_for(&participant.identity) && self.is_sealed(participant);
        if let Some(participant) = self.participant(peer).filter(vouched) {
            tracing::warn!(call = ?self.id, ?peer, "a recorded room has encrypted tracks now: their publisher is left out of the recording");
            self.give_consent(turn, participant, false);
        }
    }
}
