//! Sessions of Mattermost's Calls clients: from what they say, over the plugin's WebSocket and their data channel, to the core and back.
//!
//! One [`Adapter`] per desk. Plain synchronous code: it is told what comes and answers what is to be done, in order. It knows who is in
//! which call and what each sends; it never sees media.
//!
//! Order is part of the protocol: the media map goes before the offer that it belongs to, on the same channel, because the page
//! looks a track up in it when the offer is applied; where offers go over the plugin, one waits until the client has its map. What a
//! client sends is nobody's until it is known what it is.

mod call;
mod description;
mod lock;
mod media;
mod signalling;
mod track;
mod voice;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_proto::v1::{self, call_event};
use rtcd_core::ids::{CallId, Channel, PeerId};
use rtcd_core::input::{Join, Transports};
use rtcd_core::negotiate::CodecKind;
use rtcd_core::output::{EndReason, Event, Signal};

use self::call::{Call, Session};
use super::connections::ConnectionId;
use super::frames::{RtcKind, ServerMessage};
use crate::metrics::{Measure, SessionError};
use crate::shard::Command;
use crate::signal::seam::{Moment, RosterCall, RosterParticipant};

/// A session without an offer is ended after this.
const FIRST_OFFER: Duration = Duration::from_secs(10);
/// An offer of ours without an answer is made again after this.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an offer that goes over the plugin waits for the client to have its media map: without one, voices still come through.
const MAP: Duration = Duration::from_secs(3);
/// What clients know. Their pages show nothing else.
const CODECS: &[CodecKind] = &[CodecKind::Opus, CodecKind::Vp8, CodecKind::Av1];

/// What an adapter is told.
#[derive(Debug)]
pub enum Input {
    /// A client's session, admitted.
    Join(Box<NewSession>),
    /// The session is over.
    Leave {
        /// Which.
        peer: PeerId,
    },
    /// Signalling and media state, from the plugin.
    Rtc {
        /// Of which session.
        peer: PeerId,
        /// Which.
        kind: RtcKind,
        /// Its data.
        data: Bytes,
    },
    /// From the core.
    Signal {
        /// Whose.
        peer: PeerId,
        /// What.
        signal: Signal,
    },
    /// From the core.
    Event {
        /// Which call.
        call: CallId,
        /// What.
        event: Event,
    },
    /// A message came over a data channel.
    Data {
        /// Whose.
        peer: PeerId,
        /// It came as text.
        text: bool,
        /// As it came.
        payload: Bytes,
    },
    /// The node ends.
    EndAll,
    /// Every second, for timers.
    Tick,
}

/// A session that joins.
#[derive(Debug)]
pub struct NewSession {
    /// Whose.
    pub client: Arc<str>,
    /// The connection it came over.
    pub connection: ConnectionId,
    /// The core's id of the call.
    pub call: CallId,
    /// The client's.
    pub call_name: String,
    /// The core's id of the session.
    pub peer: PeerId,
    /// The client's.
    pub session: String,
    /// Whose session.
    pub user: String,
    /// Can send and show AV1.
    pub av1: bool,
    /// Our offers go over its data channel.
    pub offers_by_channel: bool,
}

/// What an adapter answers.
#[derive(Debug)]
pub enum Output {
    /// For the core.
    Core(Command),
    /// The session's messages go over this connection.
    Bind {
        /// Whose.
        client: Arc<str>,
        /// The client's name of the session.
        session: String,
        /// Which.
        connection: ConnectionId,
    },
    /// For the plugin.
    Say {
        /// Whose.
        client: Arc<str>,
        /// The client's name of the session.
        session: String,
        /// What.
        message: ServerMessage,
    },
    /// Nothing more is said about a session.
    Over {
        /// Whose.
        client: Arc<str>,
        /// Its peer.
        peer: PeerId,
        /// The client's name of the session.
        session: String,
    },
    /// Who is where.
    Event {
        /// The core's id of the call.
        call: CallId,
        /// What.
        event: v1::CallEvent,
    },
    /// Something was measured.
    Measured(Arc<str>, Measure, f64),
    /// Something went wrong.
    Failed(Arc<str>, SessionError),
}

/// All calls of one desk. See the module's documentation.
#[derive(Debug, Default)]
pub struct Adapter {
    calls: HashMap<CallId, Call>,
    peers: HashMap<PeerId, CallId>,
}

/// One input being handled.
struct Turn<'a> {
    now: Moment,
    out: &'a mut Vec<Output>,
}

impl Adapter {
    /// Told something; what follows from it is appended to `out`, to be done in that order.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        let mut turn = Turn { now, out };
        match input {
            Input::Join(new) => self.join(&mut turn, *new),
            Input::Leave { peer } => {
                self.with(&mut turn, &peer, |call, _| call.leaves(&peer));
                turn.core(Command::Leave { peer });
            }
            Input::Rtc { peer, kind, data } => self.with(&mut turn, &peer, |call, turn| call.rtc(turn, &peer, kind, &data)),
            Input::Signal { peer, signal: Signal::Ended { reason } } => {
                if !self.renewed(&mut turn, &peer) {
                    self.ended(&mut turn, &peer, reason);
                }
            }
            Input::Signal { peer, signal } => self.with(&mut turn, &peer, |call, turn| call.signal(turn, &peer, signal)),
            Input::Event { call, event } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.event(&mut turn, event);
                }
            }
            Input::Data { peer, text, payload } => self.with(&mut turn, &peer, |call, turn| call.message(turn, &peer, text, &payload)),
            Input::EndAll => {
                for peer in self.peers.keys().cloned().collect::<Vec<_>>() {
                    turn.core(Command::Leave { peer: peer.clone() });
                    self.ended(&mut turn, &peer, EndReason::CallEnded);
                }
            }
            Input::Tick => {
                for call in self.calls.values_mut() {
                    call.tick(&mut turn);
                }
            }
        }
    }

    /// Everybody, for queries.
    #[must_use]
    pub fn roster(&self) -> Vec<RosterCall> {
        let participant = |session: &Session| RosterParticipant {
            peer: session.peer.clone(),
            identity: session.user.clone(),
            display_name: session.user.clone(),
            joined_at_ms: session.joined_at_ms,
            client: "Mattermost Calls".to_owned(),
            attached: true,
        };
        let call = |call: &Call| RosterCall {
            call: call.id.clone(),
            started_at_ms: call.started_at_ms,
            recording: false,
            participants: call.sessions.iter().map(participant).collect(),
        };
        self.calls.values().map(call).collect()
    }

    fn with(&mut self, turn: &mut Turn<'_>, peer: &PeerId, work: impl FnOnce(&mut Call, &mut Turn<'_>)) {
        // What the core says of somebody who has left meanwhile concerns nobody.
        if let Some(call) = self.peers.get(peer).and_then(|call| self.calls.get_mut(call)) {
            work(call, turn);
        }
    }

    fn join(&mut self, turn: &mut Turn<'_>, new: NewSession) {
        let NewSession { client, connection, call: call_id, call_name, peer, session, user, av1, offers_by_channel } = new;
        if self.peers.contains_key(&peer) {
            tracing::warn!(?peer, "a second join of a live session is passed over");
            return;
        }
        let now = turn.now;
        let call = self.calls.entry(call_id.clone()).or_insert_with(|| Call {
            id: call_id.clone(),
            name: call_name,
            client: Arc::clone(&client),
            started_at_ms: now.unix_ms,
            sessions: Vec::new(),
            screen: None,
            live: HashMap::new(),
        });
        self.peers.insert(peer.clone(), call_id.clone());
        turn.out.push(Output::Bind { client, session: session.clone(), connection });
        turn.enter(call_id, peer.clone());
        let joined =
            v1::ParticipantJoined { identity: user.clone(), participant_sid: peer.as_str().to_owned(), display_name: user.clone() };
        turn.event(call, call_event::Event::Joined(joined));
        call.sessions.push(Session::new(peer, session, user, av1, offers_by_channel, now.instant, now.unix_ms));
    }

    /// The media connection has ended, and its session goes on with a new one: its offer is here.
    fn renewed(&mut self, turn: &mut Turn<'_>, peer: &PeerId) -> bool {
        let Some(call) = self.peers.get(peer).and_then(|call| self.calls.get_mut(call)) else { return false };
        let id = call.id.clone();
        let Some(session) = call.session_mut(peer) else { return false };
        let Some(offer) = session.renewal.take() else { return false };
        tracing::info!(?peer, "the session goes on with a new media connection");
        session.renew(turn.now.instant);
        call.forget_tracks(peer);
        turn.enter(id, peer.clone());
        call.rtc(turn, peer, RtcKind::Sdp, &offer);
        true
    }

    /// The core has ended a session, by our command or by itself.
    fn ended(&mut self, turn: &mut Turn<'_>, peer: &PeerId, reason: EndReason) {
        let Some(call_id) = self.peers.remove(peer) else { return };
        let Some(call) = self.calls.get_mut(&call_id) else { return };
        let Some(at) = call.sessions.iter().position(|session| session.peer == *peer) else { return };
        let session = call.sessions.remove(at);
        call.forget_tracks(peer);
        turn.say(call, &session, ServerMessage::Close { session_id: session.name.clone() });
        let reason = crate::signal::livekit::end_reason(reason);
        let left = v1::ParticipantLeft { identity: session.user, participant_sid: peer.as_str().to_owned(), reason: reason.into() };
        turn.event(call, call_event::Event::Left(left));
        turn.out.push(Output::Over { client: Arc::clone(&call.client), peer: peer.clone(), session: session.name });
        if call.sessions.is_empty() {
            let ended =
                v1::CallEnded { attendance: Vec::new(), started_at_ms: call.started_at_ms, reason: reason.as_str_name().to_owned() };
            turn.event(call, call_event::Event::Ended(ended));
            self.calls.remove(&call_id);
        }
    }
}

impl Turn<'_> {
    fn core(&mut self, command: Command) {
        self.out.push(Output::Core(command));
    }

    fn say(&mut self, call: &Call, session: &Session, message: ServerMessage) {
        self.out.push(Output::Say { client: Arc::clone(&call.client), session: session.name.clone(), message });
    }

    /// The core makes a place for a session.
    fn enter(&mut self, call: CallId, peer: PeerId) {
        self.core(Command::Join(Box::new(Join {
            call,
            peer,
            transports: Transports::Mutual { codecs: CODECS },
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            // Nothing is sent to a client before its data channel is open, and of two codecs it gets one.
            auto_subscribe: false,
            audio_levels: true,
            adaptive_stream: false,
            playout_delay: None,
        })));
    }

    /// Over the session's data channel.
    fn tell(&mut self, call: &CallId, session: &Session, text: bool, payload: Bytes) {
        self.core(Command::SendData { call: call.clone(), to: vec![session.peer.clone()], channel: Channel::Reliable, text, payload });
    }

    fn event(&mut self, call: &Call, event: call_event::Event) {
        let event = v1::CallEvent { call_id: call.name.clone(), at_ms: self.now.unix_ms, event: Some(event) };
        self.out.push(Output::Event { call: call.id.clone(), event });
    }

    fn measured(&mut self, client: &Arc<str>, measure: Measure, value: f64) {
        self.out.push(Output::Measured(Arc::clone(client), measure, value));
    }

    fn failed(&mut self, client: &Arc<str>, error: SessionError) {
        self.out.push(Output::Failed(Arc::clone(client), error));
    }
}

#[cfg(test)]
mod tests;
