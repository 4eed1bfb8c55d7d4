//! A server calls a method of a participant: the call goes as a data packet, the answer comes as one and is for the server alone.

use std::time::{Duration, Instant};

use livekit_protocol as lk;
use lk::data_packet::Value;
use lk::rpc_response::Value as Outcome;
use rtcd_core::ids::PeerId;

use super::Adapter;
use super::call::Call;
use super::turn::Turn;
use crate::limits;
use crate::signal::seam::{RoomAnswer, RoomFault, RoomReply};

/// LiveKit's code for a participant that left before it answered.
const DISCONNECTED: u32 = 1503;

/// A call that waits for its answer.
#[derive(Debug)]
pub(super) struct Rpc {
    id: String,
    peer: PeerId,
    until: Instant,
    reply: RoomReply,
}

impl Call {
    pub(super) fn call_method(&mut self, turn: &mut Turn<'_>, asked: lk::PerformRpcRequest, reply: RoomReply) {
        let fault = if asked.payload.len() > limits::RPC_PAYLOAD_MAX || asked.method.len() > limits::ROOM_TEXT_LEN_MAX {
            Some(RoomFault::TooMuch("RPC payload or method"))
        } else if asked.method.is_empty() {
            Some(RoomFault::Invalid("name the method".to_owned()))
        } else if self.rpcs.len() >= limits::RPCS_MAX {
            Some(RoomFault::TooMuch("the number of unanswered RPCs"))
        } else {
            None
        };
        let peer = self.by_identity(&asked.destination_identity).map(|participant| participant.peer.clone());
        let (None, Some(peer)) = (&fault, peer) else { return turn.answer(reply, Err(fault.unwrap_or(RoomFault::NoParticipant))) };
        let wait = match asked.response_timeout_ms {
            0 => limits::RPC_WAIT,
            ms => Duration::from_millis(ms.into()).min(limits::RPC_WAIT_MAX),
        };
        let id = uuid::Uuid::new_v4().to_string();
        let packet = lk::DataPacket {
            // Participants answer to an identity; this one is nobody's.
            participant_identity: format!("server-{id}"),
            destination_identities: vec![asked.destination_identity],
            value: Some(Value::RpcRequest(lk::RpcRequest {
                id: id.clone(),
                method: asked.method,
                payload: asked.payload,
                response_timeout_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
                version: 1,
                ..lk::RpcRequest::default()
            })),
            ..lk::DataPacket::default()
        };
        self.send(turn, vec![peer.clone()], true, &packet);
        self.rpcs.push(Rpc { id, peer, until: turn.now.instant + wait, reply });
    }

    /// Whether a packet is the answer to a server's call, or the word that it came; those go no further.
    pub(super) fn takes_rpc_answer(&mut self, turn: &mut Turn<'_>, peer: &PeerId, value: Option<&Value>) -> bool {
        let known = |id: &str| self.rpcs.iter().position(|rpc| rpc.id == id && rpc.peer == *peer);
        match value {
            Some(Value::RpcAck(ack)) => known(&ack.request_id).is_some(),
            Some(Value::RpcResponse(response)) => {
                let Some(at) = known(&response.request_id) else { return false };
                let rpc = self.rpcs.swap_remove(at);
                turn.answer(rpc.reply, outcome(response.value.clone()));
                true
            }
            _ => false,
        }
    }

    /// A participant left: nothing more comes from it.
    pub(super) fn end_rpcs_of(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        let message = "the participant left before it answered".to_owned();
        let fault = RoomFault::Method { code: DISCONNECTED, message, data: String::new() };
        self.end_rpcs(turn, |rpc| rpc.peer == *peer, &fault);
    }

    fn end_rpcs(&mut self, turn: &mut Turn<'_>, which: impl Fn(&Rpc) -> bool, fault: &RoomFault) {
        let (over, rest) = std::mem::take(&mut self.rpcs).into_iter().partition(which);
        self.rpcs = rest;
        let over: Vec<Rpc> = over;
        for rpc in over {
            turn.answer(rpc.reply, Err(fault.clone()));
        }
    }
}

impl Adapter {
    pub(super) fn end_late_rpcs(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        for call in self.calls.values_mut() {
            call.end_rpcs(turn, |rpc| rpc.until <= now, &RoomFault::Late("the participant did not answer in time"));
        }
    }
}

fn outcome(value: Option<Outcome>) -> Result<RoomAnswer, RoomFault> {
    match value {
        Some(Outcome::Payload(payload)) => Ok(RoomAnswer::Payload(payload)),
        None => Ok(RoomAnswer::Payload(String::new())),
        Some(Outcome::Error(error)) => Err(RoomFault::Method { code: error.code, message: error.message, data: error.data }),
        // Only for callers that say they can read it.
        Some(Outcome::CompressedPayload(_)) => Err(RoomFault::Unsupported("the participant answered in a form that was not asked for")),
    }
}
