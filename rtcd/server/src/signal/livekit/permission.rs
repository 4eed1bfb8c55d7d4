//! What a participant may do, changed while it is here.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::{PeerId, TrackId};

use super::call::Call;
use super::translate;
use super::turn::Turn;
use crate::shard::Command;

impl Call {
    /// Takes effect at once: tracks that may not be published any more end, and what may not be received stops.
    pub(super) fn set_permission(&mut self, turn: &mut Turn<'_>, peer: &PeerId, permission: &lk::ParticipantPermission) {
        let Some(participant) = self.participant_mut(peer) else { return };
        let before = participant.grants.clone();
        translate::set_permission(&mut participant.grants, permission);
        let after = participant.grants.clone();
        let info = participant.info_with(lk::participant_info::State::Disconnected);
        let forbidden: Vec<TrackId> = participant
            .tracks
            .iter()
            .filter(|track| !translate::may_publish(&after, track.info.source()))
            .map(|track| track.id.clone())
            .collect();
        for track in forbidden {
            self.unpublish(turn, peer, &track);
        }
        if before.can_subscribe != after.can_subscribe {
            self.subscribe_to_others(turn, peer, after.can_subscribe);
            self.route_data_tracks(turn, None);
        }
        if !after.can_publish_data {
            self.end_all_data_tracks(turn, peer);
        }
        if after.hidden && !before.hidden {
            let gone = lk::ParticipantUpdate { participants: vec![info] };
            turn.broadcast(self, self.participant(peer), Message::Update(gone));
        }
        // Who was an agent or a recorder may be a person from now on, and the other way round.
        self.note_holders(turn.now.instant, v1::EndReason::Unspecified);
    }

    /// The server ends a track; its publisher is told.
    fn unpublish(&mut self, turn: &mut Turn<'_>, peer: &PeerId, track: &TrackId) {
        if let Some(participant) = self.participant(peer) {
            let response = lk::TrackUnpublishedResponse { track_sid: track.as_str().to_owned() };
            turn.tell(participant, Message::TrackUnpublished(response));
        }
        turn.core(Command::Unpublish { peer: peer.clone(), track: track.clone() });
        self.handle_track_ended(turn, peer, track.as_str());
    }

    fn subscribe_to_others(&self, turn: &mut Turn<'_>, peer: &PeerId, may: bool) {
        let Some(subscriber) = self.participant(peer) else { return };
        for publisher in self.participants.iter().filter(|publisher| publisher.peer != *peer) {
            for track in &publisher.tracks {
                let chosen = subscriber.choices.get(&track.id).copied().unwrap_or(subscriber.auto_subscribe);
                let wanted = may && chosen && publisher.allows(subscriber, track.id.as_str());
                turn.core(Command::Subscribe { peer: peer.clone(), track: track.id.clone(), wanted });
            }
        }
    }

    /// A track went live: those whom the core does not give everything by itself, but who may have it by now.
    pub(super) fn give_to_those_allowed_since(&self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str) {
        let Some((publisher, track)) = self.track(sid) else { return };
        for other in self.participants.iter().filter(|other| other.peer != *peer && other.grants.can_subscribe) {
            let chosen = other.choices.get(&track.id).copied().unwrap_or(other.auto_subscribe);
            if !other.core_subscribes && chosen && publisher.allows(other, sid) {
                turn.core(Command::Subscribe { peer: other.peer.clone(), track: track.id.clone(), wanted: true });
            }
        }
    }
}
