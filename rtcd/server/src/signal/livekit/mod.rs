//! LiveKit's signalling, as `livekit-client` 2.x and its sister SDKs speak it, between sessions and the core.
//!
//! One [`Adapter`] per shard. It is told joins, frames and what the core says, and answers with frames, commands and
//! events for message servers. It knows who is in which call and what was announced; it never sees media. Text and
//! numbers from clients are bounded here or by the core; a frame that cannot be read ends its session, nothing else.
//!
//! Order is part of the protocol: a `JoinResponse` comes before anything else of its session, and a track is announced
//! to a participant before an offer that carries it, because clients drop media of tracks that they do not know.

#![expect(deprecated, reason = "older SDKs still write and read the fields that newer ones replaced")]

mod agents;
mod backup;
mod blob;
mod call;
mod data;
mod data_track;
mod hooks;
mod host;
mod join;
mod leave;
mod media_key;
mod permission;
mod publish;
mod request;
mod room;
mod rpc;
mod signal;
mod standing;
mod subscribe;
mod translate;
mod turn;
mod verdict;
mod vouch;

use std::collections::HashMap;

use bytes::Bytes;
use livekit_protocol as lk;
use prost::Message as _;
use rtcd_core::ids::{CallId, PeerId};

use self::call::Call;
pub(crate) use self::request::attributes_len;
pub(crate) use self::translate::{end_reason, media_step, new_sid, server_info, sid_of};
use self::turn::Turn;
pub(crate) use self::vouch::NOTICE;
use super::seam::{AdapterInput, AdapterOutput, AdapterSettings, Moment, RosterCall, RosterParticipant, SessionKey};

/// All LiveKit calls of one shard. See the module's documentation.
#[derive(Debug)]
pub struct Adapter {
    settings: AdapterSettings,
    calls: HashMap<CallId, Call>,
    /// Which call a participant is in.
    peers: HashMap<PeerId, CallId>,
    /// Which participant a signalling connection belongs to.
    sessions: HashMap<SessionKey, PeerId>,
}

impl Adapter {
    /// An adapter without calls.
    #[must_use]
    pub fn new(settings: AdapterSettings) -> Self {
        Self { settings, calls: HashMap::new(), peers: HashMap::new(), sessions: HashMap::new() }
    }

    /// Told something; what follows from it is appended to `out`, to be done in that order.
    pub fn handle(&mut self, now: Moment, input: AdapterInput, out: &mut Vec<AdapterOutput>) {
        let settings = self.settings.clone();
        let mut turn = Turn { now, settings: &settings, out };
        match input {
            AdapterInput::Join { session, call, join } => self.handle_join(&mut turn, session, call, *join),
            AdapterInput::Room(ask) => self.handle_room(&mut turn, *ask),
            AdapterInput::Frame { session, livekit } => self.handle_frame(&mut turn, &session, &livekit),
            AdapterInput::Leave { session, connection_lost } => {
                self.handle_session_gone(&mut turn, &session, connection_lost);
            }
            AdapterInput::HostAction { link, call, action } => self.handle_host_action(&mut turn, link, &call, action),
            AdapterInput::Consent { call, consent } => self.handle_consent(&mut turn, &call, &consent),
            AdapterInput::SendData { call, data } => self.handle_send_data(&mut turn, &call, data),
            AdapterInput::CallState { call, state } => self.handle_call_state(&mut turn, &call, state),
            AdapterInput::Caption { call, caption } => self.handle_caption(&mut turn, &call, caption),
            AdapterInput::TapState { call, state } => self.handle_tap_state(&mut turn, &call, state),
            AdapterInput::Signal { peer, signal } => self.handle_signal(&mut turn, &peer, signal),
            AdapterInput::Event { call, event } => self.handle_event(&mut turn, &call, event),
            AdapterInput::Data { call, peer, reliable, payload } => {
                self.handle_data(&mut turn, &call, &peer, reliable, &payload);
            }
            AdapterInput::EndAll { reason } => self.handle_end_all(&mut turn, reason),
            AdapterInput::Tick => self.handle_tick(&mut turn),
        }
    }

    /// Everybody, for queries.
    #[must_use]
    pub fn roster(&self) -> Vec<RosterCall> {
        let participant = |participant: &call::Participant| RosterParticipant {
            peer: participant.peer.clone(),
            identity: participant.identity.clone(),
            display_name: participant.name.clone(),
            joined_at_ms: participant.joined_at_ms,
            client: participant.client.clone(),
            attached: participant.session.is_some(),
        };
        let call = |call: &Call| RosterCall {
            call: call.id.clone(),
            started_at_ms: call.started_at_ms,
            recording: call.recording,
            participants: call.participants.iter().map(participant).collect(),
        };
        self.calls.values().map(call).collect()
    }

    /// Identity and display name of a participant.
    #[must_use]
    pub fn participant(&self, peer: &PeerId) -> Option<(String, String)> {
        let participant = self.calls.get(self.peers.get(peer)?)?.participant(peer)?;
        Some((participant.identity.clone(), participant.name.clone()))
    }

    /// The call of a session and the participant's id in it.
    fn session_call(&mut self, session: &SessionKey) -> Option<(&mut Call, PeerId)> {
        let peer = self.sessions.get(session)?.clone();
        let call = self.calls.get_mut(self.peers.get(&peer)?)?;
        Some((call, peer))
    }
}

/// Decodes one frame of a client, the way [`AdapterInput::Frame`] does.
///
/// # Errors
/// The bytes are no `SignalRequest`.
pub fn decode_frame(livekit: &[u8]) -> Result<lk::SignalRequest, prost::DecodeError> {
    lk::SignalRequest::decode(livekit)
}

fn encode(message: lk::signal_response::Message) -> Bytes {
    lk::SignalResponse { message: Some(message) }.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
