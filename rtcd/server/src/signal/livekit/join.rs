//! Joining, resuming, and taking a participant's place.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use prost::Message as _;
use rtcd_core::ids::{CallId, PeerId};
use rtcd_core::input::{self, Transports};

use super::Adapter;
use super::call::{Call, Participant, serves_others};
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, OWN_SOCKETS, SessionKey};

impl Adapter {
    pub(super) fn handle_join(&mut self, turn: &mut Turn<'_>, session: SessionKey, call: CallId, join: v1::Join) {
        let request = match lk::JoinRequest::decode(join.join_request.as_ref()) {
            Ok(request) => request,
            Err(error) => {
                let text = format!("join_request is no LiveKit JoinRequest ({error}); check the client's version");
                return refuse(turn, session, v1::ErrorReason::BadRequest, text);
            }
        };
        if join.identity.is_empty() || join.call_id.is_empty() {
            let text = "identity and call_id must not be empty; the message server fills them from the token";
            return refuse(turn, session, v1::ErrorReason::BadRequest, text.to_owned());
        }
        if join.reconnect || request.reconnect {
            let sid = if join.participant_sid.is_empty() { &request.participant_sid } else { &join.participant_sid };
            return self.resume(turn, session, &call, &join, sid, request.sync_state);
        }
        let full = self.calls.get(&call).is_some_and(|call| call.participants.len() >= rtcd_core::limits::PEERS_PER_CALL_MAX);
        let sid = translate::new_sid("PA_");
        let Some(peer) = PeerId::new(&sid).filter(|_| !full) else {
            let text = format!("the call has its {} participants; wait until somebody leaves", rtcd_core::limits::PEERS_PER_CALL_MAX);
            return refuse(turn, session, v1::ErrorReason::Full, text);
        };
        let grants = join.grants.clone().unwrap_or_default();
        let crowded = self.calls.get(&call).is_some_and(|call| call.is_crowded_for(&join.identity, join.kind, &grants));
        if crowded {
            return refuse(turn, session, v1::ErrorReason::Full, "room has exceeded its max participants".to_owned());
        }
        // The newest signalling connection of a person is the one that counts: the older one may be a dead tab.
        let older = self.calls.get(&call).and_then(|call| call.by_identity(&join.identity)).map(|older| older.peer.clone());
        if let Some(older) = older {
            self.end_participant(turn, &older, v1::EndReason::Replaced, true);
        }

        let call_id = call.clone();
        let new = !self.calls.contains_key(&call);
        let call = self.calls.entry(call.clone()).or_insert_with(|| Call::new(call, join.call_id.clone(), turn.now.unix_ms, turn.settings));
        call.recording |= join.recording;
        call.opened = true;
        if !serves_others(join.kind, &grants) {
            call.vacant = None;
            call.timeouts.entered = true;
        } else if new {
            call.vacant = Some((turn.now.instant, v1::EndReason::Unspecified));
        }
        if new {
            turn.hook_started(call);
            turn.agents_opened(call, Vec::new());
        }
        let settings = request.connection_settings.unwrap_or(lk::ConnectionSettings {
            auto_subscribe: join.auto_subscribe,
            adaptive_stream: join.adaptive_stream,
            ..lk::ConnectionSettings::default()
        });
        let participant = participant(turn, &session, &peer, &join, &request, &settings);
        accept(turn, &session, &peer);
        turn.frame(&session, Message::Join(join_response(turn, call, &participant)));
        // A server may change the rights of those on our own sockets later; until then this adapter holds back what they may not.
        let changeable = session.link == OWN_SOCKETS;
        turn.core(Command::Join(Box::new(input::Join {
            call: call.id.clone(),
            peer: peer.clone(),
            transports: if participant.single { Transports::Single } else { Transports::Two },
            audio_levels: false,
            can_publish: changeable || participant.grants.can_publish,
            can_subscribe: changeable || participant.grants.can_subscribe,
            can_publish_data: changeable || participant.grants.can_publish_data,
            auto_subscribe: participant.core_subscribes,
            adaptive_stream: settings.adaptive_stream,
            playout_delay: call.playout_delay,
        })));
        turn.event(
            call,
            v1::call_event::Event::Joined(v1::ParticipantJoined {
                identity: participant.identity.clone(),
                participant_sid: sid,
                display_name: participant.name.clone(),
            }),
        );
        match call.consent_of(&participant) {
            Some(granted) if call.is_vouched_for(&participant.identity) => call.give_consent(turn, &participant, granted),
            Some(granted) => turn.core(Command::Consent { peer: peer.clone(), granted }),
            None => {}
        }
        call.participants.push(participant);
        self.peers.insert(peer.clone(), call_id.clone());
        self.sessions.insert(session.clone(), peer.clone());
        let Some(call) = self.calls.get_mut(&call_id) else { return };
        call.hold_back_restricted(turn, &peer);
        call.announce(turn, &peer);
        turn.agents_joined(call, &peer);
        for request in request.add_track_requests.into_iter().take(rtcd_core::limits::TRACKS_PER_PEER_MAX) {
            call.handle_add_track(turn, &peer, request);
        }
        if let Some(offer) = request.publisher_offer {
            turn.core(Command::Offer { peer, sdp: offer.sdp, id: offer.id });
        }
    }

    /// `reconnect=1`: the same participant over a new signalling connection; media goes on untouched.
    fn resume(
        &mut self,
        turn: &mut Turn<'_>,
        session: SessionKey,
        call: &CallId,
        join: &v1::Join,
        sid: &str,
        sync_state: Option<lk::SyncState>,
    ) {
        let known = PeerId::new(sid).filter(|peer| {
            // Sids are no secret in a call, so the identity of the token has to fit as well.
            let participant = self.calls.get(call).and_then(|call| call.participant(peer));
            participant.is_some_and(|participant| participant.identity == join.identity)
        });
        let Some(peer) = known else {
            let text = "this participant is not (or no longer) in the call; join again without reconnect";
            refuse(turn, session.clone(), v1::ErrorReason::NotFound, text.to_owned());
            // A message server that has opened the WebSocket can pass this on: the client then starts over at once.
            let leave = lk::LeaveRequest {
                can_reconnect: true,
                reason: lk::DisconnectReason::StateMismatch.into(),
                action: lk::leave_request::Action::Reconnect.into(),
                regions: None,
            };
            return turn.frame(&session, Message::Leave(leave));
        };
        let Some(call) = self.calls.get_mut(call) else { return };
        let call_id = call.id.clone();
        let Some(participant) = call.participant_mut(&peer) else { return };
        if let Some(older) = participant.session.replace(session.clone()) {
            self.sessions.remove(&older);
            if older != session {
                turn.session_ended(older, peer.as_str(), v1::EndReason::Replaced);
            }
        }
        participant.detached_at = None;
        self.sessions.insert(session.clone(), peer.clone());
        accept(turn, &session, &peer);
        tracing::info!(call = ?call_id, ?peer, "resumed");

        let server_info = Some(turn.server_info());
        let response = lk::ReconnectResponse {
            server_info,
            client_configuration: Some(lk::ClientConfiguration::default()),
            last_message_seq: participant.data_sequence,
            ice_servers: turn.ice_servers(participant),
        };
        turn.frame(&session, Message::Reconnect(response));
        let Some(participant) = call.participant(&peer) else { return };
        let others = call.participants.iter().filter(|other| !other.grants.hidden || other.peer == peer);
        let participants = call.departures_for(participant).chain(others.map(Participant::info)).collect();
        turn.frame(&session, Message::Update(lk::ParticipantUpdate { participants }));
        let room = turn.room(call);
        turn.frame(&session, Message::RoomUpdate(lk::RoomUpdate { room: Some(room) }));
        repeat_state(turn, call, participant, &session);
        call.repeat_handles(turn, participant);
        // The client restarts ICE on its own offers; the subscriber transport's restart is the server's business.
        if !participant.single && participant.grants.can_subscribe {
            turn.core(Command::RestartIce { peer: peer.clone() });
        }
        if let Some(state) = sync_state {
            call.handle_sync_state(turn, &peer, state);
        }
    }
}

/// What may have been said while nobody listened: answers to announcements, dynacast, paused streams, refusals.
fn repeat_state(turn: &mut Turn<'_>, call: &Call, participant: &Participant, session: &SessionKey) {
    for track in &participant.tracks {
        if !track.live {
            let response = lk::TrackPublishedResponse { cid: track.cid.clone(), track: Some(track.info.clone()) };
            turn.frame(session, Message::TrackPublished(response));
        }
        if let Some(cid) = track.backup.as_ref().and_then(super::backup::Backup::awaited) {
            let response = lk::TrackPublishedResponse { cid: cid.to_owned(), track: Some(track.info.clone()) };
            turn.frame(session, Message::TrackPublished(response));
        }
        if !track.wanted_layers.is_empty() || track.backup.as_ref().is_some_and(super::backup::Backup::is_asked_for) {
            turn.frame(session, Message::SubscribedQualityUpdate(super::signal::subscribed_quality(track)));
        }
    }
    // Those that go on, too: the client may have heard that they paused, and not that they went on.
    let others = call.participants.iter().filter(|other| other.peer != participant.peer);
    let videos = others.flat_map(|publisher| publisher.tracks.iter().map(move |track| (publisher, track)));
    let videos = videos.filter(|(_, track)| track.live && track.info.r#type() == lk::TrackType::Video);
    let stream_states: Vec<_> =
        videos.map(|(publisher, track)| super::signal::stream_state(publisher, track, participant.paused.contains(&track.id))).collect();
    if !stream_states.is_empty() {
        turn.frame(session, Message::StreamStateUpdate(lk::StreamStateUpdate { stream_states }));
    }
    call.repeat_permissions(turn, participant);
}

fn accept(turn: &mut Turn<'_>, session: &SessionKey, peer: &PeerId) {
    let ack = v1::JoinAck {
        session_id: session.id.to_string(),
        accepted: true,
        participant_sid: peer.as_str().to_owned(),
        ..v1::JoinAck::default()
    };
    turn.out.push(AdapterOutput::JoinAck { session: session.clone(), ack });
}

fn refuse(turn: &mut Turn<'_>, session: SessionKey, error: v1::ErrorReason, error_text: String) {
    let ack = v1::JoinAck {
        session_id: session.id.to_string(),
        accepted: false,
        participant_sid: String::new(),
        error: error.into(),
        error_text,
    };
    turn.out.push(AdapterOutput::JoinAck { session, ack });
}

fn participant(
    turn: &Turn<'_>,
    session: &SessionKey,
    peer: &PeerId,
    join: &v1::Join,
    request: &lk::JoinRequest,
    settings: &lk::ConnectionSettings,
) -> Participant {
    let grants = join.grants.clone().unwrap_or_default();
    let mut attributes = join.attributes.clone();
    let mut metadata = join.metadata.clone();
    if grants.can_update_own_metadata {
        let own = request.participant_attributes.iter().filter(|(_, value)| !value.is_empty());
        attributes.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        if !request.metadata.is_empty() {
            metadata.clone_from(&request.metadata);
        }
    }
    // What others would have to carry is bounded whatever the token says.
    if metadata.len() > limits::METADATA_LEN_MAX {
        metadata.clear();
    }
    if super::request::attributes_len(&attributes) > limits::METADATA_LEN_MAX {
        attributes = join.attributes.clone();
    }
    let info = request.client_info.clone().unwrap_or_default();
    let can_subscribe = grants.can_subscribe;
    Participant {
        peer: peer.clone(),
        identity: join.identity.clone(),
        name: join.display_name.clone(),
        metadata,
        attributes,
        grants,
        kind: join.kind,
        kind_details: join.kind_details.clone(),
        client: client_line(join.client.as_ref(), &info),
        client_protocol: info.client_protocol,
        capabilities: info.capabilities.clone(),
        single: join.single_peer_connection,
        auto_subscribe: settings.auto_subscribe,
        core_subscribes: settings.auto_subscribe && can_subscribe,
        joined_at: turn.now.instant,
        joined_at_ms: turn.now.unix_ms,
        version: 1,
        active: false,
        session: Some(session.clone()),
        detached_at: None,
        tracks: Vec::new(),
        data_tracks: Vec::new(),
        // LiveKit's default: who wants one says so.
        auto_subscribe_data: settings.auto_subscribe_data_track.unwrap_or(false),
        data_choices: std::collections::HashMap::new(),
        choices: std::collections::HashMap::new(),
        paused: std::collections::HashSet::new(),
        permission: None,
        data_sequence: 0,
        recorded_by_order: false,
        blobs: super::blob::Blobs::default(),
        verdict: None,
    }
}

/// SDK and browser in a line for operators, at most 120 characters and without control characters.
fn client_line(client: Option<&v1::ClientInfo>, info: &lk::ClientInfo) -> String {
    let line = match client {
        Some(client) => format!("{} {} {} {} {}", client.sdk, client.version, client.browser, client.browser_version, client.os),
        None => format!("{} {} {} {} {}", info.sdk().as_str_name(), info.version, info.browser, info.browser_version, info.os),
    };
    line.chars().filter(|char| !char.is_control()).take(120).collect::<String>().trim().to_owned()
}

fn join_response(turn: &Turn<'_>, call: &Call, participant: &Participant) -> lk::JoinResponse {
    let visible = |other: &&Participant| !other.grants.hidden && other.peer != participant.peer;
    let server_info = turn.server_info();
    lk::JoinResponse {
        room: Some(turn.room(call)),
        participant: Some(participant.info_with(lk::participant_info::State::Joined)),
        other_participants: call.participants.iter().filter(visible).map(Participant::info).collect(),
        server_version: server_info.version.clone(),
        server_region: server_info.region.clone(),
        server_info: Some(server_info),
        // Our own addresses are in the SDP; the site's TURN servers are the only others.
        ice_servers: turn.ice_servers(participant),
        // With one transport there is no subscriber; a client without rights to receive connects its publisher.
        subscriber_primary: !participant.single && participant.grants.can_subscribe,
        client_configuration: Some(lk::ClientConfiguration::default()),
        ping_timeout: limits::PING_TIMEOUT_S,
        ping_interval: limits::PING_INTERVAL_S,
        enabled_publish_codecs: translate::enabled_codecs(),
        // The publisher transport comes up while the person still looks for the microphone button.
        fast_publish: participant.grants.can_publish,
        ..lk::JoinResponse::default()
    }
}
