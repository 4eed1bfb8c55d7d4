//! All the ways in which a participant's time ends.

use std::time::Instant;

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::RoomEndReason;
use lk::signal_response::Message;
use rtcd_core::ids::PeerId;

use super::Adapter;
use super::call::Call;
use super::translate;
use super::turn::Turn;
use crate::shard::Command;
use crate::signal::seam::SessionKey;

impl Adapter {
    /// The signalling connection is gone: for a while, or for good.
    pub(super) fn handle_session_gone(&mut self, turn: &mut Turn<'_>, session: &SessionKey, connection_lost: bool) {
        let Some(peer) = self.sessions.get(session).cloned() else { return };
        if !connection_lost {
            return self.end_participant(turn, &peer, v1::EndReason::Left, false);
        }
        self.sessions.remove(session);
        let participant = self.peers.get(&peer).and_then(|call| self.calls.get_mut(call)?.participant_mut(&peer));
        if let Some(participant) = participant {
            participant.session = None;
            participant.detached_at = Some(turn.now.instant);
            tracing::info!(?peer, "signalling lost, kept for the grace");
        }
    }

    /// Ends participants whose signalling did not come back, and calls to which nobody did.
    pub(super) fn handle_tick(&mut self, turn: &mut Turn<'_>) {
        let grace = turn.settings.grace;
        let expired = |since: std::time::Instant| turn.now.instant.saturating_duration_since(since) >= grace;
        let gone: Vec<PeerId> = self
            .calls
            .values()
            .flat_map(|call| &call.participants)
            .filter(|participant| participant.detached_at.is_some_and(expired))
            .map(|participant| participant.peer.clone())
            .collect();
        for peer in gone {
            self.end_participant(turn, &peer, v1::EndReason::Left, false);
        }
        self.end_calls(turn, RoomEndReason::RoomEndIdleTimeout, |call, now| {
            call.vacant.is_some_and(|(since, _)| now.saturating_duration_since(since) >= call.timeouts.now())
        });
        self.end_late_rpcs(turn);
    }

    pub(super) fn handle_end_all(&mut self, turn: &mut Turn<'_>, reason: v1::EndReason) {
        let everybody: Vec<PeerId> = self.peers.keys().cloned().collect();
        for peer in everybody {
            self.end_participant(turn, &peer, reason, true);
        }
        self.end_calls(turn, RoomEndReason::RoomEndServerShutdown, |call, _| call.vacant.is_some());
    }

    /// Ends those of the empty calls that are chosen.
    pub(super) fn end_calls(&mut self, turn: &mut Turn<'_>, why: RoomEndReason, chosen: impl Fn(&Call, Instant) -> bool) {
        // Agents and recorders may still be there.
        let over = self.calls.values().filter(|call| call.vacant.is_some() && chosen(call, turn.now.instant));
        let left: Vec<PeerId> = over.flat_map(|call| &call.participants).map(|participant| participant.peer.clone()).collect();
        for peer in left {
            self.end_participant(turn, &peer, v1::EndReason::CallEnded, true);
        }
        self.calls.retain(|_, call| {
            let Some((_, reason)) = call.vacant.filter(|_| chosen(call, turn.now.instant)) else { return true };
            let ended = v1::CallEnded {
                attendance: std::mem::take(&mut call.attendance),
                started_at_ms: call.started_at_ms,
                reason: reason.as_str_name().to_owned(),
            };
            turn.event(call, v1::call_event::Event::Ended(ended));
            turn.hook_finished(call, why);
            turn.agents_ended(call);
            false
        });
    }

    /// Takes a participant out of its call and of the core, and tells everybody. The call waits a while for the last one
    /// to come back: a page that reloads, or that is replaced by another one of the same person. `tell`: the client hears why.
    pub(super) fn end_participant(&mut self, turn: &mut Turn<'_>, peer: &PeerId, reason: v1::EndReason, tell: bool) {
        let Some(call_id) = self.peers.remove(peer) else { return };
        let Some(call) = self.calls.get_mut(&call_id) else { return };
        let Some(at) = call.participants.iter().position(|participant| participant.peer == *peer) else { return };
        let mut participant = call.participants.remove(at);
        let leave = translate::leave_request(reason);
        if tell {
            turn.tell(&participant, Message::Leave(leave.clone()));
        }
        if let Some(session) = participant.session.take() {
            self.sessions.remove(&session);
            turn.session_ended(session, peer.as_str(), reason);
        }
        turn.core(Command::Leave { peer: peer.clone() });

        call.end_rpcs_of(turn, peer);
        call.note_departure(&participant, turn.now.unix_ms, reason);
        turn.event(
            call,
            v1::call_event::Event::Left(v1::ParticipantLeft {
                identity: participant.identity.clone(),
                participant_sid: peer.as_str().to_owned(),
                reason: reason.into(),
            }),
        );
        for other in &mut call.participants {
            other.choices.retain(|track, _| participant.track(track.as_str()).is_none());
            other.paused.retain(|track| participant.track(track.as_str()).is_none());
            other.tracks.iter_mut().filter_map(|track| track.backup.as_mut()).for_each(|backup| backup.forget(peer));
        }
        for track in &participant.tracks {
            turn.hook_track(call, &participant, track.id.as_str(), false);
        }
        call.end_data_of(turn, &mut participant);
        participant.version += 1;
        participant.tracks.clear();
        let mut info = participant.info_with(lk::participant_info::State::Disconnected);
        info.disconnect_reason = leave.reason;
        turn.hook_left(call, participant.active, info.clone());
        turn.agents_left(call, &participant, reason);
        if !participant.grants.hidden {
            call.keep_departure(turn.now.instant, turn.settings.grace, &info);
            turn.broadcast(call, None, Message::Update(lk::ParticipantUpdate { participants: vec![info] }));
        }
        call.note_holders(turn.now.instant, reason);
        // While an agent is there its recording goes on.
        if call.participants.is_empty() {
            call.orders.iter_mut().for_each(super::standing::Orders::note_empty);
        }
    }
}
