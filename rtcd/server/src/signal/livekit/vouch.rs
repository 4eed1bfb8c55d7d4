//! Recording by LiveKit's egress: there is no notice that people answer; who holds an API key with `roomRecord` vouches for them
//! (docs/decisions/0020). What is encrypted end to end is recorded by nobody.

use conclave_proto::v1;
use livekit_protocol as lk;
use rtcd_core::ids::PeerId;

use super::call::{Call, Participant};
use super::turn::Turn;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, RoomAnswer, RoomFault};

/// The notice's version in recordings for which a key vouched.
pub(crate) const NOTICE: &str = "livekit-egress";

impl Call {
    /// An egress begins or ends.
    pub(super) fn vouch(&mut self, turn: &mut Turn<'_>, egress: String, on: bool) -> Result<RoomAnswer, RoomFault> {
        if on && self.participants.is_empty() {
            return Err(RoomFault::Empty);
        }
        if on && self.participants.iter().any(Participant::is_sealed) {
            return Err(RoomFault::Sealed);
        }
        let before = !self.vouched.is_empty();
        match on {
            true => self.vouched.insert(egress),
            false => self.vouched.remove(&egress),
        };
        let vouched = !self.vouched.is_empty();
        if vouched != before {
            self.recording = vouched;
            for participant in &self.participants {
                self.give_consent(turn, participant, self.consent_of(participant).unwrap_or(false));
            }
            self.tell_room(turn);
        }
        Ok(RoomAnswer::Room(Box::new(turn.room(self))))
    }

    /// Whether somebody may be recorded, as far as it was said: by a key that vouches, or by the person's own answer.
    pub(super) fn consent_of(&self, participant: &Participant) -> Option<bool> {
        match self.vouched.is_empty() {
            true => self.consents.get(&participant.identity).copied(),
            false => Some(!participant.is_sealed()),
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

    /// Somebody announced a track: where it is encrypted, what is recorded leaves its publisher out.
    pub(super) fn withhold_sealed(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        if self.vouched.is_empty() {
            return;
        }
        if let Some(participant) = self.participant(peer).filter(|participant| participant.is_sealed()) {
            tracing::warn!(call = ?self.id, ?peer, "a recorded room has encrypted tracks now: their publisher is left out of the recording");
            self.give_consent(turn, participant, false);
        }
    }
}

impl Participant {
    /// It has a track that is encrypted end to end.
    fn is_sealed(&self) -> bool {
        self.tracks.iter().any(|track| track.info.encryption() != lk::encryption::Type::None)
    }
}
