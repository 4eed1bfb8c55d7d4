//! Between the shell and a dialect: what an adapter is told and what it answers.
//!
//! An adapter (LiveKit) is plain synchronous code: one per shard, owned by that shard's desk. Joins reach it admitted.
//! It makes participants of sessions, commands for the core out of frames, frames and events out of what the core says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_proto::v1;
use livekit_protocol as lk;
use rtcd_core::ids::{CallId, PeerId, TrackId};
use tokio::sync::oneshot;

use crate::media_key::{KeySecret, MediaKey};
use crate::shard::Command;
use crate::signal::livekit_server::agents::News;
use crate::signal::livekit_server::egress::standing::Due;
use crate::turn_servers::TurnServers;

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Monotonic: for timers.
    pub instant: Instant,
    /// Unix, ms: for people.
    pub unix_ms: i64,
}

/// What an adapter is born with.
#[derive(Clone, Debug)]
pub struct AdapterSettings {
    /// This node's stable name.
    pub node_id: String,
    /// Of this program.
    pub version: &'static str,
    /// How long a participant without signalling is kept.
    pub grace: Duration,
    /// How long an empty call waits for somebody to come back.
    pub departure: Duration,
    /// Where this node is; shown to clients, may be empty.
    pub region: String,
    /// For rooms that nobody gave settings of their own.
    pub rooms: RoomDefaults,
    /// Somebody wants [`AdapterOutput::Webhook`].
    pub webhooks: bool,
    /// Somebody carries out [`AdapterOutput::Egress`].
    pub records: bool,
    /// For clients whose network does not let them reach this node.
    pub turn_servers: TurnServers,
}

/// LiveKit's `room` settings.
#[derive(Clone, Copy, Debug)]
pub struct RoomDefaults {
    /// How long a room that was made waits for the first one.
    pub empty: Duration,
    /// Participants of one room, at most; 0: as many as the core takes.
    pub participants_max: u32,
    /// Whether who administers a room may switch on somebody's microphone or camera.
    pub remote_unmute: bool,
}

/// The link number of WebSockets that the node itself has; message servers' links have others.
pub const OWN_SOCKETS: u64 = 0;

/// One signalling connection of a participant, as opened by a browser on a message server or on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The logical link it came over: survives broken streams. [`OWN_SOCKETS`]: over none.
    pub link: u64,
    /// `Join.session_id`, unique on its link.
    pub id: Arc<str>,
}

/// What an adapter is told.
#[derive(Debug)]
pub enum AdapterInput {
    /// An admitted join. The core's call id is `tenant/call_id`; `join.call_id` is plain.
    Join {
        /// The connection.
        session: SessionKey,
        /// The call.
        call: CallId,
        /// As the message server sent it, within bounds.
        join: Box<v1::Join>,
    },
    /// A server's API asks something of a room, or of all rooms of a tenant.
    Room(Box<RoomAsk>),
    /// An encoded LiveKit `SignalRequest`.
    Frame {
        /// Of which connection.
        session: SessionKey,
        /// At most [`crate::limits::GRPC_MESSAGE_MAX`] bytes.
        livekit: Bytes,
    },
    /// The connection is gone. `connection_lost`: keep the participant for the grace.
    Leave {
        /// Which.
        session: SessionKey,
        /// Not on purpose.
        connection_lost: bool,
    },
    /// A host does something.
    HostAction {
        /// Where the result goes.
        link: u64,
        /// The call.
        call: CallId,
        /// What.
        action: v1::HostAction,
    },
    /// An answer to the recording notice.
    Consent {
        /// The call.
        call: CallId,
        /// The answer.
        consent: v1::RecordingConsent,
    },
    /// Application data for participants.
    SendData {
        /// The call.
        call: CallId,
        /// What and for whom.
        data: v1::SendData,
    },
    /// Recording badge and room metadata.
    CallState {
        /// The call.
        call: CallId,
        /// New state.
        state: v1::SetCallState,
    },
    /// A caption from a worker.
    Caption {
        /// The call.
        call: CallId,
        /// The line, within bounds.
        caption: v1::Caption,
    },
    /// A tap was opened or closed.
    TapState {
        /// The call.
        call: CallId,
        /// Which and how.
        state: v1::TapState,
    },
    /// From the core.
    Signal {
        /// Whose.
        peer: PeerId,
        /// What.
        signal: rtcd_core::output::Signal,
    },
    /// From the core.
    Event {
        /// Which call.
        call: CallId,
        /// What.
        event: rtcd_core::output::Event,
    },
    /// A data message from a peer, already forwarded by the core.
    Data {
        /// The call.
        call: CallId,
        /// Sender.
        peer: PeerId,
        /// Channel.
        reliable: bool,
        /// Encoded LiveKit `DataPacket`.
        payload: Bytes,
    },
    /// The node ends: every session too. A drain before it is nothing that clients are told: one that left earlier could
    /// only lose its call.
    EndAll {
        /// What clients are told.
        reason: v1::EndReason,
    },
    /// Every second, for timers.
    Tick,
}

/// What an adapter answers.
#[derive(Debug)]
pub enum AdapterOutput {
    /// For the core of this shard.
    Core(Command),
    /// The join's answer; before any frame of the session.
    JoinAck {
        /// Of which connection.
        session: SessionKey,
        /// The answer.
        ack: v1::JoinAck,
    },
    /// An encoded LiveKit `SignalResponse`.
    Frame {
        /// For which connection.
        session: SessionKey,
        /// The frame.
        livekit: Bytes,
    },
    /// The last thing said on a session.
    SessionEnded {
        /// Which.
        session: SessionKey,
        /// Why.
        ended: v1::SessionEnded,
    },
    /// A token holds what a participant is and may do, and that has changed: its client is due a fresh one.
    Refresh {
        /// Over which connection.
        session: SessionKey,
    },
    /// Answer to [`AdapterInput::Room`]; after everything that the request made necessary.
    RoomAnswer {
        /// Who waits for it.
        reply: RoomReply,
        /// The answer.
        answer: Result<RoomAnswer, RoomFault>,
    },
    /// A key of what is encrypted end to end was granted to recordings, or taken back.
    MediaKey {
        /// The core's id of the call.
        call: CallId,
        /// The key.
        key: Box<MediaKey>,
    },
    /// Somebody publishes a track that is encrypted end to end; before the core knows of it.
    Encrypted {
        /// The core's id of the call.
        call: CallId,
        /// Whose.
        peer: PeerId,
        /// Which.
        track: TrackId,
        /// How.
        how: v1::TapEncryption,
    },
    /// Somebody may be recorded, or no longer, by the word of an API key: for the record's evidence.
    Consented {
        /// The core's id of the call.
        call: CallId,
        /// As if the person had answered.
        consent: v1::RecordingConsent,
    },
    /// For the webhooks of LiveKit's contract.
    Webhook(Box<lk::WebhookEvent>),
    /// For the dispatcher of LiveKit's agents.
    Agents(Box<News>),
    /// A room's maker ordered an egress that is due now.
    Egress(Box<Due>),
    /// Answer to a host action.
    HostActionResult {
        /// Whose.
        link: u64,
        /// The answer.
        result: v1::HostActionResult,
    },
    /// Something of a client's was refused or could not be understood; counted.
    Fault {
        /// The core's id of the call.
        call: CallId,
        /// What.
        fault: Fault,
    },
    /// For every link of the call's tenant. `event.call_id` is plain.
    Event {
        /// The core's id of the call.
        call: CallId,
        /// What happened.
        event: v1::CallEvent,
    },
}

/// Kinds of faults, in the words of Mattermost's rtcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame that cannot be read, or a description that cannot be used.
    Signaling,
    /// A track that may not be published, or not in this way.
    Track,
}

/// Who is in a call, for queries.
#[derive(Clone, Debug)]
pub struct RosterCall {
    /// The call.
    pub call: CallId,
    /// Unix, ms.
    pub started_at_ms: i64,
    /// Its badge is on.
    pub recording: bool,
    /// Everybody in it.
    pub participants: Vec<RosterParticipant>,
}

/// One participant, for queries.
#[derive(Clone, Debug)]
pub struct RosterParticipant {
    /// The core's id, LiveKit's participant sid.
    pub peer: PeerId,
    /// Unique in the call.
    pub identity: String,
    /// For people.
    pub display_name: String,
    /// Unix, ms.
    pub joined_at_ms: i64,
    /// SDK, browser and versions, in a line.
    pub client: String,
    /// Its signalling connection is there.
    pub attached: bool,
}

/// Where the answer to a [`RoomAsk`] goes.
pub type RoomReply = oneshot::Sender<Result<RoomAnswer, RoomFault>>;

/// A request of a server's API, its right to it checked.
#[derive(Debug)]
pub struct RoomAsk {
    /// The core's id of the room's call.
    pub call: CallId,
    /// The room's name.
    pub name: String,
    /// What.
    pub request: RoomRequest,
    /// For the answer.
    pub reply: RoomReply,
}

/// What can be asked of a room.
#[derive(Debug)]
pub enum RoomRequest {
    /// Make it where it is not there, with these settings where it is new.
    Create {
        /// The settings.
        wanted: Box<lk::CreateRoomRequest>,
        /// API key of who asks.
        key: String,
    },
    /// As [`RoomRequest::Create`] where it is not there; untouched where it is: somebody is about to join.
    Enter {
        /// The settings.
        wanted: Box<lk::CreateRoomRequest>,
        /// API key of the token.
        key: String,
    },
    /// It is there.
    Look,
    /// All rooms of the call's tenant on this desk; of these names, or all.
    List(Vec<String>),
    /// End it.
    Delete,
    /// Everybody in it.
    Participants,
    /// Somebody in it.
    Participant(String),
    /// Put somebody out.
    Remove(String),
    /// Silence a track, or switch it on.
    Mute(lk::MuteRoomTrackRequest),
    /// Change how somebody is described and what they may do.
    Update(Box<lk::UpdateParticipantRequest>),
    /// Subscribe somebody to tracks, or take subscriptions back.
    Subscriptions(lk::UpdateSubscriptionsRequest),
    /// A data packet from a server.
    SendData(lk::SendDataRequest),
    /// Change the room's metadata.
    Metadata(String),
    /// Call a method of a participant.
    Rpc(lk::PerformRpcRequest),
    /// An egress may have media, or no longer: the API key that asked for it vouches for people's consent.
    Vouch {
        /// The egress.
        egress: String,
        /// Whose media, from now on or no longer.
        whose: Vouched,
    },
    /// Somebody grants recordings a key of what is encrypted end to end, or takes it back.
    MediaKey(Box<KeyRequest>),
    /// An agent is wanted here from now on.
    Dispatch(Box<lk::AgentDispatch>),
}

/// What somebody does with their keys.
#[derive(Debug)]
pub enum KeyRequest {
    /// Recordings may have it.
    Grant {
        /// Identity of who says so.
        by: String,
        /// Whose media it opens; empty: everybody's.
        of: String,
        /// Its number in the frames.
        index: u8,
        /// The key.
        secret: KeySecret,
    },
    /// Recordings may no longer have what was granted.
    TakeBack {
        /// Identity of who granted it.
        by: String,
        /// Of whose media; `None`: whoever's.
        of: Option<String>,
        /// Which number; `None`: all.
        index: Option<u8>,
    },
}

/// Whose media an egress may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// Everybody's.
    Everybody,
    /// One person's, by identity.
    Person(String),
    /// Nobody's any more: it is over.
    Nobody,
}

/// What a room's adapter answers.
#[derive(Debug)]
pub enum RoomAnswer {
    /// Done.
    Done,
    /// A room.
    Room(Box<lk::Room>),
    /// Rooms.
    Rooms(Vec<lk::Room>),
    /// A participant.
    Participant(Box<lk::ParticipantInfo>),
    /// Participants.
    Participants(Vec<lk::ParticipantInfo>),
    /// A track.
    Track(Box<lk::TrackInfo>),
    /// How many it were.
    Count(usize),
    /// What a method gave back.
    Payload(String),
}

/// Why a request of a server's API was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomFault {
    /// There is no such room.
    #[error("requested room does not exist")]
    NoRoom,
    /// There is no such participant in the room.
    #[error("participant does not exist")]
    NoParticipant,
    /// The participant has no such track.
    #[error("track is not found")]
    NoTrack,
    /// Nobody asked for such an agent in the room.
    #[error("dispatch ID not found")]
    NoDispatch,
    /// Nobody is there whose media could be recorded.
    #[error("nobody is in the room; start the egress when somebody has joined")]
    Empty,
    /// Only people have the key.
    #[error(
        "tracks of this room are encrypted end to end: it can be recorded only with the grant of who holds the key. \
         Somebody in the room who has it grants it to recordings by POST /conclave/recording-key on this server with their own token; then ask again"
    )]
    Sealed,
    /// No key helps.
    #[error(
        "tracks of this room are encrypted end to end in the application's own way (type CUSTOM), which no key opens here: they cannot be recorded"
    )]
    SealedOtherwise,
    /// Who is not there has no say.
    #[error("only a participant who is in the room can grant its recording key: join it first, with the identity of this token")]
    NotInRoom,
    /// The setting forbids it.
    #[error("remote unmute not enabled")]
    NoRemoteUnmute,
    /// Something is too long or there are too many of them; what.
    #[error("{0} exceeds limits")]
    TooMuch(&'static str),
    /// It makes no sense; why.
    #[error("{0}")]
    Invalid(String),
    /// What this server does not do; what to do instead.
    #[error("{0}")]
    Unsupported(&'static str),
    /// An answer did not come in time.
    #[error("{0}")]
    Late(&'static str),
    /// A method failed at the participant's: its code and text.
    #[error("{message}")]
    Method {
        /// LiveKit's `RpcError.code`.
        code: u32,
        /// As the participant says.
        message: String,
        /// As the participant says.
        data: String,
    },
}
