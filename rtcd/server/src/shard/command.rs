//! What the async side tells a shard: owned mirrors of [`rtcd_core::Input`], and the shell's own requests.

use std::sync::Arc;

use bytes::Bytes;
use rtcd_core::ids::{CallId, Channel, PeerId, Side, TapId, TrackId};
use rtcd_core::input::{Input, Join, Publish, TapScope, TrackSettings};
use rtcd_core::relay::Origin;
use rtcd_core::spread::Order;
use tokio::sync::oneshot;

use super::ShardReport;
use crate::tap::queue::TapSender;

/// One command. Handled in order.
#[derive(Debug)]
pub enum Command {
    /// See [`Input::Join`].
    Join(Box<Join>),
    /// Before somebody joins: notes about it are for this desk.
    Expect {
        /// Who.
        peer: PeerId,
        /// Which.
        desk: u8,
    },
    /// What a call on several shards makes necessary.
    Order(Order),
    /// See [`Input::Leave`].
    Leave {
        /// Who.
        peer: PeerId,
    },
    /// See [`Input::Offer`].
    Offer {
        /// Who.
        peer: PeerId,
        /// SDP.
        sdp: String,
        /// Its number.
        id: u32,
    },
    /// See [`Input::Answer`].
    Answer {
        /// Who.
        peer: PeerId,
        /// SDP.
        sdp: String,
        /// The offer's number.
        id: u32,
    },
    /// See [`Input::Candidate`].
    Candidate {
        /// Who.
        peer: PeerId,
        /// Which transport.
        side: Side,
        /// The line.
        candidate: String,
    },
    /// See [`Input::RestartIce`].
    RestartIce {
        /// Who.
        peer: PeerId,
    },
    /// See [`Input::HoldOffers`].
    HoldOffers {
        /// Who.
        peer: PeerId,
        /// About to offer.
        held: bool,
    },
    /// See [`Input::AwaitDelivery`].
    AwaitDelivery {
        /// Whom.
        peer: PeerId,
    },
    /// See [`Input::Reoffer`].
    Reoffer {
        /// Whom.
        peer: PeerId,
    },
    /// See [`Input::Publish`].
    Publish(Box<Publish>),
    /// See [`Input::Unpublish`].
    Unpublish {
        /// Who.
        peer: PeerId,
        /// Which.
        track: TrackId,
    },
    /// See [`Input::Mute`].
    Mute {
        /// Whose.
        peer: PeerId,
        /// Which.
        track: TrackId,
        /// New state.
        muted: bool,
    },
    /// See [`Input::Subscribe`].
    Subscribe {
        /// Who.
        peer: PeerId,
        /// What.
        track: TrackId,
        /// Wanted or not.
        wanted: bool,
    },
    /// See [`Input::TrackSettings`].
    TrackSettings {
        /// Who.
        peer: PeerId,
        /// Of which.
        track: TrackId,
        /// What is wanted.
        settings: TrackSettings,
    },
    /// See [`Input::DataRoute`].
    DataRoute {
        /// Publisher.
        peer: PeerId,
        /// Its handle.
        publisher_handle: u16,
        /// The subscribers' handle.
        handle: u16,
        /// Who they are.
        subscribers: Vec<PeerId>,
    },
    /// See [`Input::SendData`].
    SendData {
        /// Call.
        call: CallId,
        /// Receivers; empty: all.
        to: Vec<PeerId>,
        /// Channel.
        channel: Channel,
        /// As text.
        text: bool,
        /// Encoded LiveKit `DataPacket`, or a data track's packet.
        payload: Bytes,
    },
    /// See [`Input::Consent`].
    Consent {
        /// Who.
        peer: PeerId,
        /// May be stored.
        granted: bool,
    },
    /// See [`Input::EndCall`].
    EndCall {
        /// Which.
        call: CallId,
    },
    /// See [`Input::TapOpen`]; items go to `sink`.
    TapOpen {
        /// Call.
        call: CallId,
        /// Tap.
        tap: TapId,
        /// What it may see.
        scope: TapScope,
        /// Its queue.
        sink: TapSender,
    },
    /// See [`Input::TapClose`].
    TapClose {
        /// Which.
        tap: TapId,
    },
    /// See [`Input::TapKeyFrame`].
    TapKeyFrame {
        /// Which tap.
        tap: TapId,
        /// Of which track.
        track: TrackId,
    },
    /// Figures of core and shell.
    Report {
        /// See [`Input::Report`].
        diagnose: bool,
        /// Where to.
        reply: oneshot::Sender<ShardReport>,
    },
    /// Copies the headers of one peer's packets; answers false while another capture runs here.
    Capture {
        /// What and where to.
        order: super::CaptureOrder,
        /// Whether it has begun.
        reply: oneshot::Sender<bool>,
    },
    /// End the thread after what is queued.
    Stop,
}

/// A command for the core, borrowed from the owned form. `Err` gives the shell's own commands back.
pub(crate) fn as_input(command: &Command) -> Option<Input<'_>> {
    Some(match command {
        Command::Join(join) => Input::Join(join.clone()),
        Command::Order(order) => order.as_input(),
        Command::Leave { peer } => Input::Leave { peer: peer.clone() },
        Command::Offer { peer, sdp, id } => Input::Offer { peer: peer.clone(), sdp, id: *id },
        Command::Answer { peer, sdp, id } => Input::Answer { peer: peer.clone(), sdp, id: *id },
        Command::Candidate { peer, side, candidate } => Input::Candidate { peer: peer.clone(), side: *side, candidate },
        Command::RestartIce { peer } => Input::RestartIce { peer: peer.clone() },
        Command::HoldOffers { peer, held } => Input::HoldOffers { peer: peer.clone(), held: *held },
        Command::AwaitDelivery { peer } => Input::AwaitDelivery { peer: peer.clone() },
        Command::Reoffer { peer } => Input::Reoffer { peer: peer.clone() },
        Command::Publish(publish) => Input::Publish(publish.clone()),
        Command::Unpublish { peer, track } => Input::Unpublish { peer: peer.clone(), track: track.clone() },
        Command::Mute { peer, track, muted } => Input::Mute { peer: peer.clone(), track: track.clone(), muted: *muted },
        Command::Subscribe { peer, track, wanted } => Input::Subscribe { peer: peer.clone(), track: track.clone(), wanted: *wanted },
        Command::TrackSettings { peer, track, settings } => {
            Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings: *settings }
        }
        Command::DataRoute { peer, publisher_handle, handle, subscribers } => {
            Input::DataRoute { peer: peer.clone(), publisher_handle: *publisher_handle, handle: *handle, subscribers }
        }
        Command::SendData { call, to, channel, text, payload } => {
            Input::SendData { call: call.clone(), to, channel: *channel, text: *text, payload }
        }
        Command::Consent { peer, granted } => Input::Consent { peer: peer.clone(), granted: *granted },
        Command::EndCall { call } => Input::EndCall { call: call.clone() },
        Command::TapKeyFrame { tap, track } => Input::TapKeyFrame { tap: tap.clone(), track: track.clone() },
        Command::TapClose { tap } => Input::TapClose { tap: tap.clone() },
        Command::TapOpen { call, tap, scope, .. } => Input::TapOpen { call: call.clone(), tap: tap.clone(), scope: *scope },
        Command::Expect { .. } | Command::Report { .. } | Command::Capture { .. } | Command::Stop => return None,
    })
}

impl Command {
    /// The same for another shard, where one may concern several.
    pub(crate) fn again(&self) -> Option<Self> {
        #[allow(clippy::wildcard_enum_match_arm, reason = "the others concern one peer or track, which is in one place")]
        Some(match self {
            Self::SendData { call, to, channel, text, payload } => {
                Self::SendData { call: call.clone(), to: to.clone(), channel: *channel, text: *text, payload: payload.clone() }
            }
            Self::EndCall { call } => Self::EndCall { call: call.clone() },
            Self::TapOpen { call, tap, scope, sink } => {
                Self::TapOpen { call: call.clone(), tap: tap.clone(), scope: *scope, sink: sink.clone() }
            }
            Self::TapClose { tap } => Self::TapClose { tap: tap.clone() },
            _ => return None,
        })
    }
}

/// What a shard tells the async side about its calls, in order.
#[derive(Debug)]
pub enum Note {
    /// See [`rtcd_core::Output::Signal`].
    Signal {
        /// Whose.
        peer: PeerId,
        /// What.
        signal: rtcd_core::output::Signal,
    },
    /// See [`rtcd_core::Output::Event`].
    Event {
        /// Which call.
        call: CallId,
        /// What.
        event: rtcd_core::output::Event,
    },
    /// See [`rtcd_core::Output::Origin`].
    Origin(Arc<Origin>),
    /// See [`rtcd_core::Output::Data`].
    Data {
        /// Call.
        call: CallId,
        /// Sender.
        peer: PeerId,
        /// Channel.
        channel: Channel,
        /// As text.
        text: bool,
        /// Encoded LiveKit `DataPacket`.
        payload: Bytes,
    },
    /// See [`rtcd_core::Output::DataTrack`].
    DataTrack {
        /// Call.
        call: CallId,
        /// Subscribers on other shards.
        to: Arc<[PeerId]>,
        /// The packet.
        packet: Bytes,
    },
}
