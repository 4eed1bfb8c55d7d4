//! What the dispatcher of LiveKit's agents is told: rooms of LiveKit's own contract, who comes, who publishes, who leaves.

use conclave_proto::v1;
use livekit_protocol as lk;
use rtcd_core::ids::PeerId;

use super::call::{Call, Participant};
use super::turn::Turn;
use crate::admit::split_call_id;
use crate::signal::livekit_server::TENANT;
use crate::signal::livekit_server::agents::News;
use crate::signal::seam::AdapterOutput;

impl Turn<'_> {
    fn agents(&mut self, call: &Call, news: impl FnOnce(&Self) -> News) {
        if split_call_id(&call.id).0 == TENANT {
            let news = Box::new(news(self));
            self.out.push(AdapterOutput::Agents(news));
        }
    }

    /// A room is made. `wanted`: the agents that it is made with; none: those that come to every room.
    pub(super) fn agents_opened(&mut self, call: &Call, wanted: Vec<lk::RoomAgentDispatch>) {
        self.agents(call, |turn| News::Opened { call: call.id.clone(), room: Box::new(turn.room(call)), wanted });
    }

    /// Somebody has joined, connected or not.
    pub(super) fn agents_joined(&mut self, call: &Call, peer: &PeerId) {
        let Some(participant) = call.participant(peer) else { return };
        self.agents(call, |turn| News::Joined {
            call: call.id.clone(),
            room: Box::new(turn.room(call)),
            participant: Box::new(participant.info()),
        });
    }

    /// A track of somebody is there.
    pub(super) fn agents_published(&mut self, call: &Call, participant: &Participant) {
        self.agents(call, |turn| News::Published {
            call: call.id.clone(),
            room: Box::new(turn.room(call)),
            participant: Box::new(participant.info()),
        });
    }

    /// Somebody has left, or its own next connection took its place.
    pub(super) fn agents_left(&mut self, call: &Call, participant: &Participant, reason: v1::EndReason) {
        self.agents(call, |_| News::Left {
            call: call.id.clone(),
            identity: participant.identity.clone(),
            sid: participant.peer.as_str().to_owned(),
            replaced: reason == v1::EndReason::Replaced,
        });
    }

    /// An agent is wanted in a room that is there.
    pub(super) fn agents_dispatched(&mut self, call: &Call, dispatch: lk::AgentDispatch) {
        self.agents(call, |turn| News::Dispatched {
            call: call.id.clone(),
            room: Box::new(turn.room(call)),
            participants: call.participants.iter().map(Participant::info).collect(),
            dispatch: Box::new(dispatch),
        });
    }

    /// The room is over.
    pub(super) fn agents_ended(&mut self, call: &Call) {
        self.agents(call, |_| News::Ended { call: call.id.clone() });
    }
}
