//! What adapters tell of rooms.

use livekit_protocol as lk;
use lk::participant_info::Kind;
use rtcd_core::ids::CallId;

/// Something happened in a room.
#[derive(Debug)]
pub enum News {
    /// It was made.
    Opened {
        /// Its call.
        call: CallId,
        /// As it is.
        room: Box<lk::Room>,
        /// Agents that it was made with. None: those that come to every room.
        wanted: Vec<lk::RoomAgentDispatch>,
    },
    /// Somebody joined.
    Joined {
        /// The room's call.
        call: CallId,
        /// As it is.
        room: Box<lk::Room>,
        /// Who.
        participant: Box<lk::ParticipantInfo>,
    },
    /// A track of somebody is there.
    Published {
        /// The room's call.
        call: CallId,
        /// As it is.
        room: Box<lk::Room>,
        /// Whose, with the track.
        participant: Box<lk::ParticipantInfo>,
    },
    /// Somebody left.
    Left {
        /// The room's call.
        call: CallId,
        /// Who …
        identity: String,
        /// … and which stay of theirs.
        sid: String,
        /// The same identity comes at once.
        replaced: bool,
    },
    /// A server wants an agent in it.
    Dispatched {
        /// The room's call.
        call: CallId,
        /// As it is.
        room: Box<lk::Room>,
        /// Who is in it.
        participants: Vec<lk::ParticipantInfo>,
        /// What is wanted.
        dispatch: Box<lk::AgentDispatch>,
    },
    /// It is over.
    Ended {
        /// The room's call.
        call: CallId,
    },
}

/// Agents and recorders get no agents.
pub(super) fn gets_agents(participant: &lk::ParticipantInfo) -> bool {
    let permission = participant.permission.as_ref();
    let serves = permission.is_some_and(|permission| {
        #[expect(deprecated, reason = "older tokens say it here")]
        let (agent, recorder) = (permission.agent, permission.recorder);
        agent || recorder
    });
    !serves && ![Kind::Agent, Kind::Egress].contains(&participant.kind())
}
