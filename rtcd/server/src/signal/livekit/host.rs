//! What hosts and message servers do to a call.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::{CallId, PeerId};
use v1::host_action::Action;

use super::Adapter;
use super::call::{Call, Participant, Track};
use super::turn::Turn;
use crate::shard::Command;
use crate::signal::seam::AdapterOutput;

/// Why an action was not done: reason and text.
type Refusal = (v1::ErrorReason, &'static str);

impl Adapter {
    pub(super) fn handle_host_action(&mut self, turn: &mut Turn<'_>, link: u64, call: &CallId, action: v1::HostAction) {
        let done = self.host_action(turn, call, action.action);
        let (error, error_text) = match done {
            Ok(()) => (v1::ErrorReason::Unspecified, ""),
            Err(refusal) => refusal,
        };
        let result = v1::HostActionResult {
            request_id: action.request_id,
            done: done.is_ok(),
            error: error.into(),
            error_text: error_text.to_owned(),
        };
        turn.out.push(AdapterOutput::HostActionResult { link, result });
    }

    fn host_action(&mut self, turn: &mut Turn<'_>, call: &CallId, action: Option<Action>) -> Result<(), Refusal> {
        let found = self.calls.get_mut(call).ok_or((v1::ErrorReason::NotFound, "the call is not on this node; it may be over"))?;
        match action {
            Some(Action::Mute(mute)) => found.mute_by_host(turn, &mute),
            Some(Action::Remove(remove)) => {
                let peer = found.expect(&remove.identity)?.peer.clone();
                self.end_participant(turn, &peer, v1::EndReason::Removed, true);
                Ok(())
            }
            Some(Action::StopShare(stop)) => found.stop_share(turn, &stop.identity),
            Some(Action::End(v1::EndCall {})) => {
                let everybody: Vec<PeerId> = found.participants.iter().map(|participant| participant.peer.clone()).collect();
                for peer in everybody {
                    self.end_participant(turn, &peer, v1::EndReason::CallEnded, true);
                }
                turn.core(Command::EndCall { call: call.clone() });
                self.end_calls(turn, lk::RoomEndReason::RoomEndApiDelete, |empty, _| empty.id == *call);
                Ok(())
            }
            None => Err((v1::ErrorReason::BadRequest, "the host action has no action; set mute, remove, stop_share or end")),
        }
    }

    pub(super) fn handle_consent(&mut self, turn: &mut Turn<'_>, call: &CallId, consent: &v1::RecordingConsent) {
        let Some(call) = self.calls.get_mut(call) else { return };
        // Only of people that are or were here: the list stays as short as the attendance.
        let known = call.by_identity(&consent.identity).map(|participant| participant.peer.clone());
        if known.is_some() || call.consents.contains_key(&consent.identity) {
            call.consents.insert(consent.identity.clone(), consent.granted);
        }
        if let Some(peer) = known {
            turn.core(Command::Consent { peer, granted: consent.granted });
        }
    }

    pub(super) fn handle_call_state(&mut self, turn: &mut Turn<'_>, call: &CallId, state: v1::SetCallState) {
        let Some(call) = self.calls.get_mut(call) else { return };
        call.recording = state.recording;
        if state.metadata.len() <= crate::limits::METADATA_LEN_MAX {
            call.metadata = state.metadata;
        }
        let room = turn.room(call);
        turn.broadcast(call, None, Message::RoomUpdate(lk::RoomUpdate { room: Some(room) }));
    }

    pub(super) fn handle_tap_state(&mut self, turn: &mut Turn<'_>, call: &CallId, state: v1::TapState) {
        let Some(call) = self.calls.get(call) else { return };
        turn.event(call, v1::call_event::Event::Tap(state));
    }
}

impl Call {
    fn expect(&self, identity: &str) -> Result<&Participant, Refusal> {
        self.by_identity(identity).ok_or((v1::ErrorReason::NotFound, "nobody with this identity is in the call"))
    }

    /// A host may silence others, and never switch on somebody's microphone.
    fn mute_by_host(&mut self, turn: &mut Turn<'_>, mute: &v1::MuteTrack) -> Result<(), Refusal> {
        if !mute.muted {
            return Err((v1::ErrorReason::Forbidden, "only the participant can unmute; ask for it"));
        }
        let participant = self.expect(&mute.identity)?;
        let chosen = |track: &&Track| match mute.track_sid.as_str() {
            "" => track.info.source() == lk::TrackSource::Microphone,
            sid => track.id.as_str() == sid,
        };
        let tracks: Vec<_> = participant.tracks.iter().filter(chosen).map(|track| track.id.clone()).collect();
        if tracks.is_empty() {
            return Err((v1::ErrorReason::NotFound, "the participant has no such track"));
        }
        let peer = participant.peer.clone();
        for track in tracks {
            turn.core(Command::Mute { peer: peer.clone(), track: track.clone(), muted: true });
            if let Some(participant) = self.participant(&peer) {
                let request = lk::MuteTrackRequest { sid: track.as_str().to_owned(), muted: true };
                turn.tell(participant, Message::Mute(request));
            }
            self.note_muted(turn, &peer, track.as_str(), true);
        }
        Ok(())
    }

    fn stop_share(&mut self, turn: &mut Turn<'_>, identity: &str) -> Result<(), Refusal> {
        let participant = self.expect(identity)?;
        let screen = |track: &&Track| matches!(track.info.source(), lk::TrackSource::ScreenShare | lk::TrackSource::ScreenShareAudio);
        let tracks: Vec<_> = participant.tracks.iter().filter(screen).map(|track| track.id.clone()).collect();
        if tracks.is_empty() {
            return Err((v1::ErrorReason::NotFound, "the participant shares no screen"));
        }
        let peer = participant.peer.clone();
        for track in tracks {
            let response = lk::TrackUnpublishedResponse { track_sid: track.as_str().to_owned() };
            turn.tell(participant_of(self, &peer)?, Message::TrackUnpublished(response));
            turn.core(Command::Unpublish { peer: peer.clone(), track: track.clone() });
            self.handle_track_ended(turn, &peer, track.as_str());
        }
        Ok(())
    }
}

fn participant_of<'a>(call: &'a Call, peer: &PeerId) -> Result<&'a Participant, Refusal> {
    call.participant(peer).ok_or((v1::ErrorReason::NotFound, "the participant has left"))
}
