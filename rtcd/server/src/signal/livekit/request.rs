//! What clients ask: one frame, one verb.

use std::collections::HashMap;

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::request_response::{Reason, Request};
use lk::signal_request::Message as Asked;
use lk::signal_response::Message;
use rtcd_core::ids::PeerId;

use super::Adapter;
use super::call::Call;
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, Fault, SessionKey};

impl Adapter {
    pub(super) fn handle_frame(&mut self, turn: &mut Turn<'_>, session: &SessionKey, livekit: &[u8]) {
        let Some((call, peer)) = self.session_call(session) else { return };
        let asked = match super::decode_frame(livekit) {
            Ok(request) => request.message,
            Err(error) => {
                turn.fault(&call.id, Fault::Signaling);
                tracing::warn!(call = ?call.id, ?peer, %error, "session ended: a frame is no LiveKit SignalRequest");
                return self.end_participant(turn, &peer, v1::EndReason::Protocol, true);
            }
        };
        // A message of a newer protocol: not for us, and no reason to end anybody.
        let Some(asked) = asked else { return };
        let understood = match asked {
            Asked::Offer(offer) => {
                turn.core(Command::Offer { peer: peer.clone(), sdp: offer.sdp, id: offer.id });
                Ok(())
            }
            Asked::Answer(answer) => {
                turn.core(Command::Answer { peer: peer.clone(), sdp: answer.sdp, id: answer.id });
                Ok(())
            }
            Asked::Trickle(trickle) => handle_trickle(turn, &peer, &trickle),
            Asked::AddTrack(request) => {
                call.handle_add_track(turn, &peer, request);
                Ok(())
            }
            Asked::Mute(mute) => {
                call.handle_mute(turn, &peer, &mute.sid, mute.muted);
                Ok(())
            }
            Asked::Subscription(update) => call.handle_subscription(turn, &peer, &update),
            Asked::TrackSetting(settings) => call.handle_track_settings(turn, &peer, &settings),
            Asked::SubscriptionPermission(permission) => call.handle_permission(turn, &peer, permission),
            Asked::SyncState(state) => {
                call.handle_sync_state(turn, &peer, state);
                Ok(())
            }
            Asked::UpdateMetadata(update) => {
                call.handle_update_metadata(turn, &peer, update);
                Ok(())
            }
            Asked::UpdateAudioTrack(update) => {
                call.handle_update_audio_track(turn, &peer, update);
                Ok(())
            }
            Asked::UpdateVideoTrack(update) => {
                call.handle_update_video_track(turn, &peer, update);
                Ok(())
            }
            Asked::Ping(_) => {
                turn.frame(session, Message::Pong(turn.now.unix_ms));
                Ok(())
            }
            Asked::PingReq(ping) => {
                let pong = lk::Pong { last_ping_timestamp: ping.timestamp, timestamp: turn.now.unix_ms };
                turn.frame(session, Message::PongResp(pong));
                Ok(())
            }
            Asked::Simulate(scenario) => {
                handle_simulate(turn, session, &scenario);
                Ok(())
            }
            Asked::Leave(_) => return self.end_participant(turn, &peer, v1::EndReason::Left, false),
            // What a publisher really sends is told by its packets.
            Asked::UpdateLayers(_) => Ok(()),
            Asked::PublishDataTrackRequest(request) => {
                call.handle_publish_data_track(turn, session, &peer, request);
                Ok(())
            }
            Asked::UnpublishDataTrackRequest(request) => {
                call.handle_unpublish_data_track(turn, session, &peer, request);
                Ok(())
            }
            Asked::UpdateDataSubscription(update) => call.handle_data_subscription(turn, &peer, update),
            Asked::StoreDataBlobRequest(request) => {
                call.handle_store_blob(turn, session, &peer, request);
                Ok(())
            }
            Asked::GetDataBlobRequest(request) => {
                call.handle_get_blob(turn, session, &request);
                Ok(())
            }
        };
        if let Err(why) = understood {
            turn.fault(&call.id, Fault::Signaling);
            tracing::warn!(?peer, why, "session ended: a request breaks the protocol");
            self.end_participant(turn, &peer, v1::EndReason::Protocol, true);
        }
    }
}

/// Tells a client that a request was not done.
pub(super) fn refuse(turn: &mut Turn<'_>, session: &SessionKey, request_id: u32, reason: Reason, message: &str, request: Option<Request>) {
    let message = message.to_owned();
    turn.frame(session, Message::RequestResponse(lk::RequestResponse { request_id, reason: reason.into(), message, request }));
}

fn handle_trickle(turn: &mut Turn<'_>, peer: &PeerId, trickle: &lk::TrickleRequest) -> Result<(), &'static str> {
    /// The browser's `RTCIceCandidateInit`, as far as it is of interest.
    #[derive(serde::Deserialize)]
    struct CandidateInit {
        #[serde(default)]
        candidate: String,
    }
    let side = translate::side(trickle.target());
    if trickle.candidate_init.is_empty() {
        return Ok(());
    }
    let init: CandidateInit = serde_json::from_str(&trickle.candidate_init).map_err(|_| "trickle without a JSON candidate")?;
    // An empty candidate ends the list.
    if !init.candidate.is_empty() {
        turn.core(Command::Candidate { peer: peer.clone(), side, candidate: init.candidate });
    }
    Ok(())
}

/// Scenarios by which client developers try out reconnecting. Each concerns only who asks.
fn handle_simulate(turn: &mut Turn<'_>, session: &SessionKey, scenario: &lk::SimulateScenario) {
    use lk::simulate_scenario::Scenario;
    let action = match scenario.scenario {
        Some(Scenario::LeaveRequestFullReconnect(_) | Scenario::NodeFailure(_) | Scenario::ServerLeave(_)) => {
            lk::leave_request::Action::Reconnect
        }
        Some(Scenario::DisconnectSignalOnResume(_) | Scenario::DisconnectSignalOnResumeNoMessages(_)) => lk::leave_request::Action::Resume,
        Some(
            Scenario::SpeakerUpdate(_) | Scenario::Migration(_) | Scenario::SwitchCandidateProtocol(_) | Scenario::SubscriberBandwidth(_),
        )
        | None => {
            return refuse(turn, session, 0, Reason::UnsupportedType, "this scenario is not simulated here", None);
        }
    };
    let reason = lk::DisconnectReason::ServerShutdown.into();
    turn.frame(session, Message::Leave(lk::LeaveRequest { can_reconnect: true, reason, action: action.into(), regions: None }));
}

/// Attributes after an update: an empty value takes a name away.
pub(super) fn updated_attributes(before: &HashMap<String, String>, update: &HashMap<String, String>) -> HashMap<String, String> {
    let mut attributes = before.clone();
    for (name, value) in update.iter().filter(|(name, _)| !name.is_empty()) {
        if value.is_empty() {
            attributes.remove(name)
        } else {
            attributes.insert(name.clone(), value.clone())
        };
    }
    attributes
}

/// Bytes of all names and values.
pub(crate) fn attributes_len(attributes: &HashMap<String, String>) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl Call {
    fn handle_update_metadata(&mut self, turn: &mut Turn<'_>, peer: &PeerId, update: lk::UpdateParticipantMetadata) {
        let Some(participant) = self.participant_mut(peer) else { return };
        let attributes = updated_attributes(&participant.attributes, &update.attributes);
        let name = update.name.trim();
        let refused = if !participant.grants.can_update_own_metadata {
            Some((Reason::NotAllowed, "the token does not allow to change one's own metadata"))
        } else if update.metadata.len() > limits::METADATA_LEN_MAX
            || attributes_len(&attributes) > limits::METADATA_LEN_MAX
            || name.len() > limits::DISPLAY_NAME_LEN_MAX
        {
            Some((Reason::LimitExceeded, "metadata, attributes or name are too long"))
        } else {
            None
        };
        let session = participant.session.clone();
        if refused.is_none() {
            participant.attributes = attributes;
            if !update.metadata.is_empty() {
                participant.metadata = update.metadata;
            }
            if !name.is_empty() {
                participant.name = name.to_owned();
            }
        }
        if let Some(session) = session {
            let (reason, message) = refused.unwrap_or((Reason::Ok, ""));
            refuse(turn, &session, update.request_id, reason, message, None);
        }
        if refused.is_none() {
            self.announce_change(turn, peer);
            self.refresh_token(turn, peer);
        }
    }

    /// Without a token that says what has changed, a client that starts over would undo it.
    pub(super) fn refresh_token(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        if let Some(session) = self.participant(peer).and_then(|participant| participant.session.clone()) {
            turn.out.push(AdapterOutput::Refresh { session });
        }
    }

    /// Tells all others who `peer` is. `peer` itself knows already.
    pub(super) fn announce(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        let Some(participant) = self.participant(peer).filter(|participant| !participant.grants.hidden) else { return };
        let update = lk::ParticipantUpdate { participants: vec![participant.info()] };
        turn.broadcast(self, Some(participant), Message::Update(update));
    }

    /// Tells everybody that something about `peer` changed.
    pub(super) fn announce_change(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        let Some(participant) = self.participant_mut(peer) else { return };
        participant.version += 1;
        let message = Message::Update(lk::ParticipantUpdate { participants: vec![participant.info()] });
        let hidden = participant.grants.hidden;
        match self.participant(peer) {
            Some(participant) if hidden => turn.tell(participant, message),
            _ => turn.broadcast(self, None, message),
        }
    }
}
