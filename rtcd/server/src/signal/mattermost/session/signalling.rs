//! Descriptions, the lock and what else a client and this server say to each other.

use std::borrow::Cow;

use bytes::Bytes;
use rtcd_core::ids::{PeerId, Side, TrackId};
use rtcd_core::output::Signal;

use super::super::channel::{self, DESCRIPTION_MAX, FromClient};
use super::call::{Call, Session};
use super::description::{self, Description, DescriptionKind};
use super::lock::Request;
use super::{ANSWER, FIRST_OFFER, MAP, RtcKind, ServerMessage, Turn};
use crate::metrics::{Measure, SessionError};
use crate::shard::Command;

/// What old mobile apps say instead of a ping, as text.
const TEXT_PING: &[u8] = b"ping";
const TEXT_PONG: &[u8] = b"pong";

/// Which way a description came, in the lowest bit of an offer's number: the answer goes the same way.
const BY_CHANNEL: u32 = 1;

impl Call {
    /// From the plugin.
    pub(super) fn rtc(&mut self, turn: &mut Turn<'_>, peer: &PeerId, kind: RtcKind, data: &[u8]) {
        match kind {
            RtcKind::Sdp => self.description(turn, peer, data, false),
            RtcKind::Ice => {
                if let Some(candidate) = description::candidate(data) {
                    turn.core(Command::Candidate { peer: peer.clone(), side: Side::Publish, candidate });
                }
            }
            RtcKind::Mute => self.mute(turn, peer, true),
            RtcKind::Unmute => self.mute(turn, peer, false),
            RtcKind::ScreenOn => self.screen_on(turn, peer, data),
            RtcKind::ScreenOff => self.screen_off(turn, peer),
            RtcKind::VideoOn => self.video_on(turn, peer, data),
            // The client stops to send by itself; when it sends again it says so.
            RtcKind::VideoOff => {}
            // Only ever said to the plugin.
            RtcKind::VoiceOn | RtcKind::VoiceOff => {}
        }
    }

    /// From the client itself.
    pub(super) fn message(&mut self, turn: &mut Turn<'_>, peer: &PeerId, text: bool, payload: &[u8]) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.peer == *peer) else { return };
        if text {
            if payload == TEXT_PING {
                turn.tell(&self.id, session, true, Bytes::from_static(TEXT_PONG));
            }
            return;
        }
        let message = match FromClient::decode(payload) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(?peer, %error, "a message of a client's data channel is passed over");
                return turn.failed(&self.client, SessionError::Signaling);
            }
        };
        let now = turn.now.instant;
        match message {
            FromClient::Ping => turn.tell(&self.id, session, false, channel::pong()),
            FromClient::Description(packed) => self.description(turn, peer, packed, true),
            FromClient::LossRate(loss) => turn.measured(&self.client, Measure::ClientLossRate, loss),
            FromClient::Rtt(rtt) => turn.measured(&self.client, Measure::ClientRtt, rtt),
            FromClient::Jitter(jitter) => turn.measured(&self.client, Measure::ClientJitter, jitter),
            FromClient::Lock => match session.lock.request(now) {
                Request::Ask => turn.core(Command::HoldOffers { peer: peer.clone(), held: true }),
                Request::Refuse => turn.tell(&self.id, session, false, channel::lock(false)),
            },
            FromClient::Unlock => {
                if let Some(held) = session.lock.release(now) {
                    turn.measured(&self.client, Measure::LockLockedTime, held.as_secs_f64());
                    turn.core(Command::HoldOffers { peer: peer.clone(), held: false });
                }
            }
        }
    }

    /// Packed where it came by the client's own channel.
    fn description(&mut self, turn: &mut Turn<'_>, peer: &PeerId, data: &[u8], by_channel: bool) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.peer == *peer && !session.leaves) else { return };
        if !session.descriptions.has_some(turn.now.instant) {
            return turn.failed(&self.client, SessionError::Signaling);
        }
        let json = if by_channel { channel::unpack(data).map(Cow::Owned) } else { Ok(Cow::Borrowed(data)) };
        let json = match json {
            Ok(json) => json,
            Err(error) => {
                session.descriptions.spend(DESCRIPTION_MAX as f64);
                tracing::debug!(?peer, %error, "a description is passed over");
                return turn.failed(&self.client, SessionError::Signaling);
            }
        };
        session.descriptions.spend(json.len() as f64);
        let description = match Description::read(&json) {
            Ok(description) => description,
            Err(error) => {
                tracing::warn!(?peer, error, "a description cannot be read and is passed over");
                return turn.failed(&self.client, SessionError::Signaling);
            }
        };
        match description.kind {
            DescriptionKind::Offer => {
                let certificate = description.certificate();
                if !by_channel && session.certificate.is_some() && certificate != session.certificate {
                    // Another process, or another page, goes on with this session: what was is over, and only this one knows it.
                    session.renewal = Some(Bytes::copy_from_slice(&json));
                    return turn.core(Command::Leave { peer: peer.clone() });
                }
                if session.renewal.is_some() {
                    // Of the one before, on its way out.
                    return;
                }
                if !session.offered {
                    session.certificate = certificate;
                }
                session.offered = true;
                session.offers = session.offers.wrapping_add(1);
                let id = session.offers << 1 | if by_channel { BY_CHANNEL } else { 0 };
                turn.core(Command::Offer { peer: peer.clone(), sdp: description.sdp, id });
            }
            DescriptionKind::Answer => {
                session.awaits_answer = None;
                // Not numbered: it is for the offer that is under way.
                turn.core(Command::Answer { peer: peer.clone(), sdp: description.sdp, id: 0 });
            }
        }
    }

    /// From the core.
    pub(super) fn signal(&mut self, turn: &mut Turn<'_>, peer: &PeerId, signal: Signal) {
        let now = turn.now.instant;
        match signal {
            Signal::Answer { sdp, id, mids: _ } => {
                let Some(session) = self.session(peer) else { return };
                let json = Description::write(DescriptionKind::Answer, sdp);
                self.describe(turn, session, json, id & BY_CHANNEL != 0);
            }
            Signal::Offer { sdp, id: _, mids } => {
                let Some(session) = self.session_mut(peer) else { return };
                session.awaits_answer = Some(now);
                let Some(session) = self.session(peer) else { return };
                // Before the offer: the page looks a track up when the offer is applied.
                turn.tell(&self.id, session, false, self.media_map(&mids));
                let json = Description::write(DescriptionKind::Offer, sdp);
                if session.offers_by_channel {
                    return self.describe(turn, session, json, true);
                }
                // The plugin may be faster than the channel, above all where that has to repeat a packet.
                turn.core(Command::AwaitDelivery { peer: peer.clone() });
                let Some(session) = self.session_mut(peer) else { return };
                session.after_map = Some((now, json));
            }
            Signal::Delivered => self.offer_after_map(turn, peer),
            Signal::Refused { side, reason } => {
                tracing::warn!(?peer, ?side, reason, "a client's description is refused");
                let Some(session) = self.session_mut(peer) else { return };
                // An answer that cannot be used leaves our offer under way.
                let error = if session.ready { SessionError::Track } else { SessionError::Signaling };
                session.awaits_answer = session.ready.then_some(now);
                turn.failed(&self.client, error);
            }
            Signal::OffersHeld { held } => {
                let Some(session) = self.session_mut(peer) else { return };
                let waited = session.lock.decided(now, held);
                let Some(session) = self.session(peer) else { return };
                turn.tell(&self.id, session, false, channel::lock(waited.is_some()));
                if let Some(waited) = waited {
                    turn.measured(&self.client, Measure::LockGrabTime, waited.as_secs_f64());
                }
            }
            Signal::Sending(sections) => self.sending(turn, peer, sections),
            // Clients of this dialect choose no layers, and are told nothing of streams.
            Signal::NeedSections { .. }
            | Signal::WantedLayers { .. }
            | Signal::StreamState { .. }
            | Signal::Subscribed { .. }
            | Signal::Undecodable { .. }
            | Signal::Ended { .. } => {}
        }
    }

    /// What has not come for too long.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let waited = |session: &Session| session.after_map.as_ref().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= MAP);
        for peer in self.sessions.iter().filter(|session| waited(session)).map(|session| session.peer.clone()).collect::<Vec<_>>() {
            self.offer_after_map(turn, &peer);
        }
        for session in &mut self.sessions {
            if !session.offered && now.saturating_duration_since(session.joined) >= FIRST_OFFER {
                tracing::warn!(peer = ?session.peer, "no offer came: the session is ended");
                // Once.
                session.offered = true;
                turn.failed(&self.client, SessionError::Signaling);
                turn.core(Command::Leave { peer: session.peer.clone() });
            }
            if session.awaits_answer.is_some_and(|since| now.saturating_duration_since(since) >= ANSWER) {
                session.awaits_answer = None;
                turn.failed(&self.client, SessionError::Track);
                turn.core(Command::Reoffer { peer: session.peer.clone() });
            }
            if session.lock.expire(now) {
                turn.failed(&self.client, SessionError::SignalingLockTimeout);
                turn.core(Command::HoldOffers { peer: session.peer.clone(), held: false });
            }
        }
    }

    /// An offer that goes over the plugin has waited long enough for its map.
    fn offer_after_map(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        let Some((_, json)) = self.session_mut(peer).and_then(|session| session.after_map.take()) else { return };
        if let Some(session) = self.session(peer) {
            self.describe(turn, session, json, false);
        }
    }

    fn describe(&self, turn: &mut Turn<'_>, session: &Session, json: Vec<u8>, by_channel: bool) {
        if by_channel {
            return turn.tell(&self.id, session, false, channel::description(&json));
        }
        let message = ServerMessage::Rtc {
            group_id: self.client.to_string(),
            user_id: session.user.clone(),
            session_id: session.name.clone(),
            call_id: self.name.clone(),
            kind: RtcKind::Sdp,
            data: json.into(),
        };
        turn.say(self, session, message);
    }

    fn media_map(&self, mids: &[(String, TrackId)]) -> Bytes {
        let sections: Vec<(&str, &str, &str)> = mids
            .iter()
            .filter_map(|(mid, track)| {
                let live = self.live.get(track)?;
                let sender = self.session(&live.publisher)?;
                Some((mid.as_str(), live.class.name(), sender.name.as_str()))
            })
            .collect();
        channel::media_map(sections.into_iter())
    }
}
