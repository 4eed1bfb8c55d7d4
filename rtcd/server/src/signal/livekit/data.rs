//! Data packets between participants, from message servers, and captions.

use std::collections::HashSet;

use bytes::Bytes;
use conclave_proto::v1;
use livekit_protocol as lk;
use lk::data_packet::Value;
use prost::Message as _;
use rtcd_core::ids::{CallId, Channel, PeerId};

use super::Adapter;
use super::call::Call;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;

impl Adapter {
    /// A packet of a participant: stamped with who sent it and passed on to whom it is for.
    pub(super) fn handle_data(&mut self, turn: &mut Turn<'_>, call: &CallId, peer: &PeerId, reliable: bool, payload: &[u8]) {
        let Some(call) = self.calls.get_mut(call) else { return };
        let Some(sender) = call.participant_mut(peer).filter(|sender| sender.grants.can_publish_data) else { return };
        let Ok(mut packet) = lk::DataPacket::decode(payload) else {
            tracing::debug!(?peer, len = payload.len(), "a data message is no LiveKit DataPacket");
            return;
        };
        if reliable && packet.sequence > 0 {
            // A resumed client repeats from what we say we have: what came twice was passed on already.
            if packet.sequence <= sender.data_sequence {
                return;
            }
            sender.data_sequence = packet.sequence;
        }
        let identity = sender.identity.clone();
        let (is_agent, hidden) = (sender.is_agent(), sender.grants.hidden);
        if !may_send(&identity, is_agent, packet.value.as_ref()) {
            tracing::debug!(?peer, "a data packet speaks for somebody else");
            return;
        }
        if call.takes_rpc_answer(turn, peer, packet.value.as_ref()) {
            return;
        }
        let speaks_for = if is_agent { speaks_for(&mut packet, &identity) } else { None };
        stamp(&mut packet, &identity, peer, reliable);
        if hidden {
            conceal(&mut packet);
        }
        if let Some(other) = speaks_for {
            packet.participant_identity = other;
        }
        call.tell_message_servers(turn, &identity, &packet, reliable);
        let sids = if let Some(Value::User(user)) = &packet.value { user.destination_sids.as_slice() } else { &[] };
        let named = call.named(&packet.destination_identities, sids);
        let mut to = call.receivers(Some(peer), named.as_deref());
        packet.destination_identities = named.unwrap_or_default();
        if matches!(packet.value, Some(Value::Metrics(_))) {
            to.retain(|peer| call.participant(peer).is_some_and(|receiver| receiver.grants.can_subscribe_metrics));
        }
        call.send(turn, to, reliable, &packet);
    }

    /// Application data of a message server.
    pub(super) fn handle_send_data(&mut self, turn: &mut Turn<'_>, call: &CallId, data: v1::SendData) {
        let Some(call) = self.calls.get(call) else { return };
        let packet = lk::DataPacket {
            destination_identities: data.to_identities,
            value: Some(Value::User(lk::UserPacket {
                payload: data.payload.to_vec(),
                topic: (!data.topic.is_empty()).then_some(data.topic),
                ..lk::UserPacket::default()
            })),
            ..lk::DataPacket::default()
        };
        let to = call.receivers(None, call.named(&packet.destination_identities, &[]).as_deref());
        call.send(turn, to, data.reliable, &packet);
    }

    /// A line of captions, for everybody: as LiveKit transcription and as an event.
    pub(super) fn handle_caption(&mut self, turn: &mut Turn<'_>, call: &CallId, caption: v1::Caption) {
        let Some(call) = self.calls.get(call) else { return };
        let text = [caption.committed.as_str(), caption.pending.as_str()];
        let segment = lk::TranscriptionSegment {
            id: caption.segment_id.clone(),
            text: text.iter().filter(|text| !text.is_empty()).copied().collect::<Vec<_>>().join(" "),
            start_time: u64::try_from(caption.start_ms).unwrap_or(0),
            end_time: u64::try_from(caption.end_ms).unwrap_or(0),
            r#final: caption.r#final,
            language: caption.language.clone(),
        };
        let packet = lk::DataPacket {
            participant_identity: caption.identity.clone(),
            value: Some(Value::Transcription(lk::Transcription {
                transcribed_participant_identity: caption.identity.clone(),
                track_id: caption.track_sid.clone(),
                segments: vec![segment],
            })),
            ..lk::DataPacket::default()
        };
        let to = call.receivers(None, None);
        call.send(turn, to, true, &packet);
        turn.event(call, v1::call_event::Event::Caption(caption));
    }
}

impl Call {
    /// Identities of those a packet is addressed to, be it by the sids of older SDKs. `None`: it is addressed to nobody in particular.
    pub(super) fn named(&self, identities: &[String], sids: &[String]) -> Option<Vec<String>> {
        if identities.is_empty() && sids.is_empty() {
            return None;
        }
        let sids: HashSet<&str> = sids.iter().map(String::as_str).collect();
        let by_sid = self.participants.iter().filter(|participant| sids.contains(participant.peer.as_str()));
        Some(identities.iter().cloned().chain(by_sid.map(|participant| participant.identity.clone())).collect())
    }

    /// Who gets a packet: everybody, or those named who are here, be it nobody. Never its sender.
    pub(super) fn receivers(&self, sender: Option<&PeerId>, named: Option<&[String]>) -> Vec<PeerId> {
        let named: Option<HashSet<&str>> = named.map(|identities| identities.iter().map(String::as_str).collect());
        self.participants
            .iter()
            .filter(|other| Some(&other.peer) != sender)
            .filter(|other| named.as_ref().is_none_or(|named| named.contains(other.identity.as_str())))
            .map(|other| other.peer.clone())
            .collect()
    }

    pub(super) fn send(&self, turn: &mut Turn<'_>, to: Vec<PeerId>, reliable: bool, packet: &lk::DataPacket) {
        // For the core an empty list means everybody.
        if to.is_empty() {
            return;
        }
        let payload = Bytes::from(packet.encode_to_vec());
        let channel = if reliable { Channel::Reliable } else { Channel::Lossy };
        turn.core(Command::SendData { call: self.id.clone(), to, channel, text: false, payload });
    }

    /// Message servers hear of reliable user packets with a topic: those are made for applications.
    fn tell_message_servers(&self, turn: &mut Turn<'_>, identity: &str, packet: &lk::DataPacket, reliable: bool) {
        let Some(Value::User(user)) = &packet.value else { return };
        let topic = user.topic.clone().unwrap_or_default();
        if reliable && !topic.is_empty() && user.payload.len() <= limits::DATA_EVENT_LEN_MAX {
            let data = v1::DataReceived { identity: identity.to_owned(), topic, payload: user.payload.clone().into(), reliable };
            turn.event(self, v1::call_event::Event::Data(data));
        }
    }
}

/// Participants speak for themselves: who is loud is the server's to say, and words only one's own. An agent hears for others.
fn may_send(identity: &str, is_agent: bool, value: Option<&Value>) -> bool {
    match value {
        Some(Value::Speaker(_)) | None => false,
        Some(Value::Transcription(transcription)) => is_agent || transcription.transcribed_participant_identity == identity,
        Some(
            Value::User(_)
            | Value::SipDtmf(_)
            | Value::Metrics(_)
            | Value::ChatMessage(_)
            | Value::RpcRequest(_)
            | Value::RpcAck(_)
            | Value::RpcResponse(_)
            | Value::StreamHeader(_)
            | Value::StreamChunk(_)
            | Value::StreamTrailer(_)
            | Value::EncryptedPacket(_),
        ) => true,
    }
}

/// Whose words an agent sends, where they are not its own: what it wrote down of somebody. Receivers see that it was made by a program.
fn speaks_for(packet: &mut lk::DataPacket, identity: &str) -> Option<String> {
    use lk::data_stream::header::ContentHeader;
    let other = Some(packet.participant_identity.clone()).filter(|other| !other.is_empty() && other != identity)?;
    match packet.value.as_mut()? {
        Value::ChatMessage(message) => message.generated = true,
        Value::StreamHeader(header) => match header.content_header.as_mut()? {
            ContentHeader::TextHeader(text) => text.generated = true,
            ContentHeader::ByteHeader(_) => return None,
        },
        Value::User(_)
        | Value::Speaker(_)
        | Value::SipDtmf(_)
        | Value::Transcription(_)
        | Value::Metrics(_)
        | Value::RpcRequest(_)
        | Value::RpcAck(_)
        | Value::RpcResponse(_)
        | Value::StreamChunk(_)
        | Value::StreamTrailer(_)
        | Value::EncryptedPacket(_) => return None,
    }
    Some(other)
}

/// Who is hidden sends as nobody.
fn conceal(packet: &mut lk::DataPacket) {
    packet.participant_identity.clear();
    if let Some(Value::User(user)) = &mut packet.value {
        user.participant_identity.clear();
        user.participant_sid.clear();
    }
}

/// Writes the true sender into every place where a receiver looks for it.
fn stamp(packet: &mut lk::DataPacket, identity: &str, peer: &PeerId, reliable: bool) {
    packet.participant_identity = identity.to_owned();
    packet.participant_sid = peer.as_str().to_owned();
    let kind = if reliable { lk::data_packet::Kind::Reliable } else { lk::data_packet::Kind::Lossy };
    packet.kind = kind.into();
    if let Some(Value::User(user)) = &mut packet.value {
        user.participant_identity = identity.to_owned();
        user.participant_sid = peer.as_str().to_owned();
        if packet.destination_identities.is_empty() {
            packet.destination_identities.clone_from(&user.destination_identities);
        }
    }
}
