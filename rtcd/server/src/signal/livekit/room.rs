//! What servers ask of rooms through the API: LiveKit's `RoomService`, rights checked, on this adapter's calls.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::RoomEndReason;
use lk::data_packet::Value;
use lk::signal_response::Message;
use rtcd_core::ids::{CallId, PeerId};
use rtcd_core::rtp::PlayoutDelay;

use super::Adapter;
use super::call::{Call, Participant, serves_others};
use super::request::{attributes_len, updated_attributes};
use super::turn::Turn;
use crate::admit::split_call_id;
use crate::limits;
use crate::shard::Command;
use crate::signal::livekit_server::agents;
use crate::signal::livekit_server::egress::standing::Standing;
use crate::signal::seam::{AdapterSettings, RoomAnswer, RoomAsk, RoomFault, RoomRequest};

/// Upper bound of a player that is told a lower one alone; what Chromium has by itself.
const PLAYOUT_DELAY_MAX_MS: u32 = 10_000;

type Answer = Result<RoomAnswer, RoomFault>;

impl Adapter {
    pub(super) fn handle_room(&mut self, turn: &mut Turn<'_>, ask: RoomAsk) {
        let RoomAsk { call: id, name, request, reply } = ask;
        let answer = match request {
            RoomRequest::Create { wanted, key } => self.create_room(turn, &id, &name, &wanted, &key),
            RoomRequest::Enter { wanted, key } => match self.calls.contains_key(&id) {
                true => Ok(RoomAnswer::Done),
                false => self.create_room(turn, &id, &name, &wanted, &key),
            },
            RoomRequest::List(names) => Ok(RoomAnswer::Rooms(self.rooms(turn, &id, &names))),
            RoomRequest::Delete => self.delete_room(turn, &id),
            RoomRequest::Remove(identity) => self.remove(turn, &id, &identity),
            RoomRequest::Rpc(rpc) => match self.calls.get_mut(&id) {
                Some(call) => return call.call_method(turn, rpc, reply),
                None => Err(RoomFault::NoRoom),
            },
            RoomRequest::Look
            | RoomRequest::Participants
            | RoomRequest::Participant(_)
            | RoomRequest::Mute(_)
            | RoomRequest::Update(_)
            | RoomRequest::Subscriptions(_)
            | RoomRequest::SendData(_)
            | RoomRequest::Vouch { .. }
            | RoomRequest::MediaKey(_)
            | RoomRequest::Dispatch(_)
            | RoomRequest::Metadata(_) => match self.calls.get_mut(&id) {
                Some(call) => call.answer(turn, request),
                None => Err(RoomFault::NoRoom),
            },
        };
        turn.answer(reply, answer);
    }

    /// Makes the room, or changes what the request names of one that is there.
    fn create_room(&mut self, turn: &mut Turn<'_>, id: &CallId, name: &str, wanted: &lk::CreateRoomRequest, key: &str) -> Answer {
        check_wanted(wanted, turn.settings)?;
        let playout_delay = playout_delay(wanted)?;
        let standing = wanted.egress.as_ref().map(|orders| Standing::new(orders, name, key)).transpose()?;
        let new = !self.calls.contains_key(id);
        if new && self.calls.values().filter(|call| !call.timeouts.entered).count() >= limits::EMPTY_ROOMS_MAX {
            return Err(RoomFault::TooMuch("the number of rooms that nobody has entered"));
        }
        let (now, settings) = (turn.now, turn.settings);
        let call = self.calls.entry(id.clone()).or_insert_with(|| Call::new(id.clone(), name.to_owned(), now.unix_ms, settings));
        if new {
            call.vacant = Some((now.instant, v1::EndReason::Unspecified));
        }
        let seconds = |count: u32| std::time::Duration::from_secs(count.into());
        if wanted.empty_timeout > 0 {
            call.timeouts.empty = seconds(wanted.empty_timeout);
        }
        if wanted.departure_timeout > 0 {
            call.timeouts.departure = seconds(wanted.departure_timeout);
        }
        if wanted.max_participants > 0 {
            call.participants_max = wanted.max_participants;
        }
        if let Some(bounds) = playout_delay {
            call.playout_delay = Some(bounds);
        }
        if !wanted.metadata.is_empty() && wanted.metadata != call.metadata {
            call.metadata.clone_from(&wanted.metadata);
            call.tell_room(turn);
        }
        if new {
            turn.hook_started(call);
            turn.agents_opened(call, wanted.agents.clone());
        }
        if let Some(standing) = standing {
            call.record_by_itself(turn, standing);
        }
        Ok(RoomAnswer::Room(Box::new(turn.room(call))))
    }

    fn rooms(&self, turn: &Turn<'_>, of_tenant: &CallId, names: &[String]) -> Vec<lk::Room> {
        let tenant = split_call_id(of_tenant).0;
        let wanted = |call: &&Call| split_call_id(&call.id).0 == tenant && (names.is_empty() || names.contains(&call.name));
        self.calls.values().filter(wanted).map(|call| turn.room(call)).collect()
    }

    fn delete_room(&mut self, turn: &mut Turn<'_>, id: &CallId) -> Answer {
        let call = self.calls.get_mut(id).ok_or(RoomFault::NoRoom)?;
        let opened = call.opened;
        call.vacant = call.vacant.map(|(since, _)| (since, v1::EndReason::CallEnded));
        let everybody: Vec<PeerId> = call.participants.iter().map(|participant| participant.peer.clone()).collect();
        for peer in everybody {
            self.end_participant(turn, &peer, v1::EndReason::CallEnded, true);
        }
        if opened {
            turn.core(Command::EndCall { call: id.clone() });
        }
        self.end_calls(turn, RoomEndReason::RoomEndApiDelete, |empty, _| empty.id == *id);
        Ok(RoomAnswer::Done)
    }

    fn remove(&mut self, turn: &mut Turn<'_>, id: &CallId, identity: &str) -> Answer {
        let call = self.calls.get(id).ok_or(RoomFault::NoRoom)?;
        let peer = call.by_identity(identity).ok_or(RoomFault::NoParticipant)?.peer.clone();
        self.end_participant(turn, &peer, v1::EndReason::Removed, true);
        Ok(RoomAnswer::Done)
    }
}

/// A wish that would come to nothing is refused rather than forgotten.
fn check_wanted(wanted: &lk::CreateRoomRequest, settings: &AdapterSettings) -> Result<(), RoomFault> {
    let unsupported = [
        (wanted.egress.is_some() && !settings.records, "egress needs an offloader that records; set offloader.url and offloader.token"),
        (!wanted.room_preset.is_empty(), "room presets exist in LiveKit's cloud only; set each parameter"),
        (wanted.replay_enabled, "replays exist in LiveKit's cloud only"),
        (!wanted.tags.is_empty(), "rooms have no tags here; use metadata"),
    ];
    if let Some((_, why)) = unsupported.into_iter().find(|(asked, _)| *asked) {
        return Err(RoomFault::Unsupported(why));
    }
    if !wanted.node_id.is_empty() && wanted.node_id != settings.node_id {
        return Err(RoomFault::Invalid("this server is its only node; leave node_id out".to_owned()));
    }
    if wanted.metadata.len() > limits::METADATA_LEN_MAX {
        return Err(RoomFault::TooMuch("metadata size"));
    }
    agents::check_wanted(&wanted.agents)
}

/// Bounds of the play-out delay that a request names, in milliseconds there; with a lower one alone the upper is LiveKit's, 10 s.
///
/// `sync_streams` beside it asks for nothing that is not done anyway: see `negotiate::sections::stream_of_source` of the core.
fn playout_delay(wanted: &lk::CreateRoomRequest) -> Result<Option<PlayoutDelay>, RoomFault> {
    let (min, max) = match (wanted.min_playout_delay, wanted.max_playout_delay) {
        (0, 0) => return Ok(None),
        (min, 0) => (min, PLAYOUT_DELAY_MAX_MS.max(min)),
        bounds => bounds,
    };
    if min > max {
        return Err(RoomFault::Invalid(format!("min_playout_delay ({min} ms) is above max_playout_delay ({max} ms)")));
    }
    Ok(Some(PlayoutDelay::from_millis(min, max)))
}

impl Call {
    /// Whether one more would be over the room's number. Agents and recorders do not count, nor who takes its own place.
    pub(super) fn is_crowded_for(&self, identity: &str, kind: i32, grants: &v1::Grants) -> bool {
        let others = self.participants.iter().filter(|other| !other.is_dependent() && other.identity != identity).count();
        self.participants_max > 0 && !serves_others(kind, grants) && others >= usize::try_from(self.participants_max).unwrap_or(usize::MAX)
    }

    fn known(&self, identity: &str) -> Result<&Participant, RoomFault> {
        self.by_identity(identity).ok_or(RoomFault::NoParticipant)
    }

    pub(super) fn tell_room(&self, turn: &mut Turn<'_>) {
        let room = turn.room(self);
        turn.broadcast(self, None, Message::RoomUpdate(lk::RoomUpdate { room: Some(room) }));
    }

    fn answer(&mut self, turn: &mut Turn<'_>, request: RoomRequest) -> Answer {
        match request {
            RoomRequest::Participants => Ok(RoomAnswer::Participants(self.participants.iter().map(Participant::info).collect())),
            RoomRequest::Participant(identity) => Ok(RoomAnswer::Participant(Box::new(self.known(&identity)?.info()))),
            RoomRequest::Mute(mute) => self.mute_by_server(turn, &mute),
            RoomRequest::Update(update) => self.update_by_server(turn, &update),
            RoomRequest::Subscriptions(update) => {
                let peer = self.known(&update.identity)?.peer.clone();
                let wanted = lk::UpdateSubscription {
                    track_sids: update.track_sids,
                    subscribe: update.subscribe,
                    participant_tracks: update.participant_tracks,
                };
                self.handle_subscription(turn, &peer, &wanted).map_err(|why| RoomFault::Invalid(why.to_owned()))?;
                Ok(RoomAnswer::Done)
            }
            RoomRequest::SendData(data) => self.send_by_server(turn, data),
            RoomRequest::Vouch { egress, whose } => self.vouch(turn, egress, whose),
            RoomRequest::MediaKey(request) => self.handle_media_key(turn, *request),
            RoomRequest::Dispatch(dispatch) => {
                turn.agents_dispatched(self, *dispatch);
                Ok(RoomAnswer::Done)
            }
            RoomRequest::Metadata(metadata) => {
                if metadata.len() > limits::METADATA_LEN_MAX {
                    return Err(RoomFault::TooMuch("metadata size"));
                }
                self.metadata = metadata;
                self.tell_room(turn);
                Ok(RoomAnswer::Room(Box::new(turn.room(self))))
            }
            // The rest concerns the adapter as a whole, see above.
            RoomRequest::Look
            | RoomRequest::Create { .. }
            | RoomRequest::Enter { .. }
            | RoomRequest::List(_)
            | RoomRequest::Delete
            | RoomRequest::Remove(_)
            | RoomRequest::Rpc(_) => Ok(RoomAnswer::Done),
        }
    }

    fn mute_by_server(&mut self, turn: &mut Turn<'_>, mute: &lk::MuteRoomTrackRequest) -> Answer {
        let participant = self.known(&mute.identity)?;
        let track = participant.track(&mute.track_sid).ok_or(RoomFault::NoTrack)?;
        if !mute.muted && !turn.settings.rooms.remote_unmute {
            return Err(RoomFault::NoRemoteUnmute);
        }
        let (peer, id) = (participant.peer.clone(), track.id.clone());
        turn.core(Command::Mute { peer: peer.clone(), track: id.clone(), muted: mute.muted });
        let request = lk::MuteTrackRequest { sid: mute.track_sid.clone(), muted: mute.muted };
        turn.tell(participant, Message::Mute(request));
        self.note_muted(turn, &peer, id.as_str(), mute.muted);
        let track = self.known(&mute.identity)?.track(&mute.track_sid).ok_or(RoomFault::NoTrack)?;
        Ok(RoomAnswer::Track(Box::new(track.info.clone())))
    }

    fn update_by_server(&mut self, turn: &mut Turn<'_>, update: &lk::UpdateParticipantRequest) -> Answer {
        let participant = self.known(&update.identity)?;
        let peer = participant.peer.clone();
        let attributes = updated_attributes(&participant.attributes, &update.attributes);
        if update.metadata.len() > limits::METADATA_LEN_MAX || attributes_len(&attributes) > limits::METADATA_LEN_MAX {
            return Err(RoomFault::TooMuch("metadata or attributes size"));
        }
        if update.name.len() > limits::DISPLAY_NAME_LEN_MAX {
            return Err(RoomFault::TooMuch("participant name length"));
        }
        if let Some(participant) = self.participant_mut(&peer) {
            participant.attributes = attributes;
            if !update.metadata.is_empty() {
                participant.metadata.clone_from(&update.metadata);
            }
            if !update.name.is_empty() {
                participant.name.clone_from(&update.name);
            }
        }
        if let Some(permission) = &update.permission {
            self.set_permission(turn, &peer, permission);
        }
        self.announce_change(turn, &peer);
        self.refresh_token(turn, &peer);
        Ok(RoomAnswer::Participant(Box::new(self.known(&update.identity)?.info())))
    }

    fn send_by_server(&mut self, turn: &mut Turn<'_>, data: lk::SendDataRequest) -> Answer {
        if data.data.len() > limits::SERVER_DATA_LEN_MAX {
            return Err(RoomFault::TooMuch("data size"));
        }
        let named = self.named(&data.destination_identities, &data.destination_sids);
        let to = self.receivers(None, named.as_deref());
        let reliable = data.kind() == lk::data_packet::Kind::Reliable;
        let packet = lk::DataPacket {
            kind: data.kind,
            destination_identities: named.unwrap_or_default(),
            value: Some(Value::User(lk::UserPacket {
                payload: data.data,
                topic: data.topic,
                nonce: data.nonce,
                ..lk::UserPacket::default()
            })),
            ..lk::DataPacket::default()
        };
        self.send(turn, to, reliable, &packet);
        Ok(RoomAnswer::Done)
    }
}
