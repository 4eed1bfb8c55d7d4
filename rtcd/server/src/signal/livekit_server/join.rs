//! `/rtc` and `/rtc/v1`: who may open a socket, and the join behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use conclave_proto::v1;
use livekit_protocol as lk;
use prost::Message as _;
use rtcd_core::ids::CallId;

use super::call_of;
use super::claims::{Claims, VideoGrant};
use super::connection::{Connection, RtcQuery};
use super::refused::Refused;
use super::socket::{self, Socket};
use super::sockets::{Place, ToSocket};
use crate::admit::{Refusal, admit};
use crate::limits::{DISPLAY_NAME_LEN_MAX, GRPC_MESSAGE_MAX, JOIN_ANSWER_MAX, METADATA_LEN_MAX, ROOM_TEXT_LEN_MAX};
use crate::node::Node;
use crate::signal::seam::{AdapterInput, OWN_SOCKETS, RoomAnswer, RoomFault, RoomRequest, SessionKey};

/// `GET /rtc`.
pub async fn rtc(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    Query(query): Query<RtcQuery>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    open(node, &headers, &query, false, upgrade).await
}

/// `GET /rtc/v1`.
pub async fn rtc_v1(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    Query(query): Query<RtcQuery>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    open(node, &headers, &query, true, upgrade).await
}

/// `GET /rtc/validate`: the same checks without a socket. Clients ask here why an upgrade failed, which a browser does not tell them.
pub async fn validate(State(node): State<Arc<Node>>, headers: HeaderMap, Query(query): Query<RtcQuery>) -> Result<&'static str, Refused> {
    answer_validate(&node, &headers, &query, false).await
}

/// `GET /rtc/v1/validate`.
pub async fn validate_v1(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    Query(query): Query<RtcQuery>,
) -> Result<&'static str, Refused> {
    answer_validate(&node, &headers, &query, true).await
}

async fn answer_validate(node: &Arc<Node>, headers: &HeaderMap, query: &RtcQuery, v1: bool) -> Result<&'static str, Refused> {
    let visitor = Visitor::check(node, headers, query, v1)?;
    if !visitor.may_create(node) {
        node.ask_room(&visitor.call, &visitor.room, RoomRequest::Look).await?;
    }
    admit(&node.admission(&visitor.call, visitor.claims.identity()), &visitor.join(""))?;
    Ok("success")
}

/// Somebody whose token and parameters are fine.
struct Visitor {
    claims: Claims,
    grant: VideoGrant,
    room: String,
    call: CallId,
    connection: Connection,
    settings: lk::RoomConfiguration,
}

impl Visitor {
    fn check(node: &Node, headers: &HeaderMap, query: &RtcQuery, v1: bool) -> Result<Self, Refused> {
        let bad = |text: &str| Refused::new(StatusCode::BAD_REQUEST, text);
        let claims = node.livekit.claims(headers, query.access_token.as_deref())?.ok_or_else(Refused::forbidden)?;
        let grant = claims.grant();
        if !grant.room_join {
            return Err(Refused::forbidden());
        }
        let attributes: usize = claims.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        match claims.identity().len() {
            0 => return Err(bad("identity cannot be empty")),
            1..=ROOM_TEXT_LEN_MAX => {}
            _ => return Err(bad("participant identity exceeds limits: 256 bytes")),
        }
        if claims.name.len() > DISPLAY_NAME_LEN_MAX {
            return Err(bad("participant name exceeds limits: 256 bytes"));
        }
        if claims.metadata.len() > METADATA_LEN_MAX || attributes > METADATA_LEN_MAX {
            return Err(bad("metadata or attributes exceed limits: 64 KiB"));
        }
        let room = if grant.room.is_empty() { query.room.clone() } else { grant.room.clone() };
        if room.len() > ROOM_TEXT_LEN_MAX {
            return Err(bad("room name exceeds limits: 256 bytes"));
        }
        let call = call_of(&room).ok_or_else(|| bad("the token names no room; grant it one, or name it in the parameter room"))?;
        if !query.publish.is_empty() {
            return Err(bad("connections that only publish ended with protocol 1; use a current SDK"));
        }
        if !claims.room_preset.is_empty() {
            return Err(bad("room presets exist in LiveKit's cloud only; use roomConfig"));
        }
        let settings = claims.room_configuration().map_err(|error| bad(&format!("roomConfig of the token cannot be read: {error}")))?;
        let connection = query.connection(v1).map_err(bad)?;
        Ok(Self { claims, grant, room, call, connection, settings })
    }

    fn may_create(&self, node: &Node) -> bool {
        node.livekit.auto_create || self.grant.room_create
    }

    fn join(&self, session: &str) -> v1::Join {
        let request = &self.connection.request;
        v1::Join {
            session_id: session.to_owned(),
            call_id: self.room.clone(),
            identity: self.claims.identity().to_owned(),
            display_name: self.claims.name.clone(),
            metadata: self.claims.metadata.clone(),
            attributes: self.claims.attributes.clone(),
            grants: Some(self.grant.rights()),
            reconnect: request.reconnect,
            participant_sid: request.participant_sid.clone(),
            single_peer_connection: self.connection.single,
            join_request: request.encode_to_vec().into(),
            kind: self.claims.participant_kind().into(),
            kind_details: self.claims.participant_kind_details(),
            ..v1::Join::default()
        }
    }

    /// The room as this token would make it.
    fn wanted_room(&self) -> lk::CreateRoomRequest {
        let wanted = self.settings.clone();
        lk::CreateRoomRequest {
            name: self.room.clone(),
            empty_timeout: wanted.empty_timeout,
            departure_timeout: wanted.departure_timeout,
            max_participants: wanted.max_participants,
            metadata: wanted.metadata,
            egress: wanted.egress,
            agents: wanted.agents,
            min_playout_delay: wanted.min_playout_delay,
            max_playout_delay: wanted.max_playout_delay,
            sync_streams: wanted.sync_streams,
            ..lk::CreateRoomRequest::default()
        }
    }
}

async fn open(node: Arc<Node>, headers: &HeaderMap, query: &RtcQuery, v1: bool, upgrade: WebSocketUpgrade) -> Result<Response, Refused> {
    let counters = &node.links.sockets.counters;
    let count_refusal = |refused: Refused| {
        counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::info!(status = refused.status.as_u16(), "a LiveKit client was refused: {}", refused.text);
        refused
    };
    let visitor = Visitor::check(&node, headers, query, v1).map_err(count_refusal)?;
    // Joined before the upgrade is answered: a refusal can still be told as a status that the client understands.
    let joined = enter(&node, &visitor).await.map_err(count_refusal)?;
    counters.opened.fetch_add(1, Ordering::Relaxed);
    let socket = Socket { claims: visitor.claims, room: visitor.room, call: visitor.call, joined };
    Ok(upgrade
        .max_message_size(GRPC_MESSAGE_MAX)
        .max_frame_size(GRPC_MESSAGE_MAX)
        .max_write_buffer_size(GRPC_MESSAGE_MAX * 4)
        .on_upgrade(move |stream| socket::serve(node, stream, socket)))
}

/// A join whose WebSocket may never come: then it is taken back.
pub(super) struct Joined {
    pub(super) node: Arc<Node>,
    pub(super) desk: usize,
    pub(super) place: Place,
    /// The desk has to hear of the end.
    pub(super) armed: bool,
}

impl Joined {
    pub(super) fn key(&self) -> SessionKey {
        SessionKey { link: OWN_SOCKETS, id: Arc::clone(&self.place.id) }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.armed {
            let (node, desk, session) = (Arc::clone(&self.node), self.desk, self.key());
            tokio::spawn(async move { node.tell(desk, AdapterInput::Leave { session, connection_lost: true }).await });
        }
    }
}

async fn enter(node: &Arc<Node>, visitor: &Visitor) -> Result<Joined, Refused> {
    let call = &visitor.call;
    let busy = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "this node is busy; try again in a minute");
    let place = node.links.sockets.place().ok_or_else(busy)?;
    let join = visitor.join(&place.id);
    admit(&node.admission(call, &join.identity), &join).inspect_err(|refusal| node.metrics.join_refused(refusal.reason))?;
    let resumes = join.reconnect;
    if !resumes {
        let request = match visitor.may_create(node) {
            true => RoomRequest::Enter { wanted: Box::new(visitor.wanted_room()), key: visitor.claims.iss.clone() },
            false => RoomRequest::Look,
        };
        node.ask_room(call, &visitor.room, request).await?;
    }
    let desk = node.desk_of(call);
    let mut joined = Joined { node: Arc::clone(node), desk, place, armed: true };
    let session = joined.key();
    node.tell(desk, AdapterInput::Join { session, call: call.clone(), join: Box::new(join) }).await;
    match tokio::time::timeout(JOIN_ANSWER_MAX, joined.place.next()).await {
        Ok(Some(ToSocket::Ack(ack))) if ack.accepted => Ok(joined),
        // Who cannot be taken up again is told so by a leave request, which is on its way.
        Ok(Some(ToSocket::Ack(ack))) if resumes && ack.error() == v1::ErrorReason::NotFound => {
            joined.armed = false;
            Ok(joined)
        }
        Ok(Some(ToSocket::Ack(ack))) => {
            joined.armed = false;
            node.metrics.join_refused(ack.error());
            Err(Refusal { reason: ack.error(), text: ack.error_text }.into())
        }
        Ok(_) | Err(_) => Err(busy()),
    }
}

impl Node {
    /// Asks the adapter of a room.
    ///
    /// # Errors
    /// It was not done.
    pub async fn ask_room(&self, call: &CallId, name: &str, request: RoomRequest) -> Result<RoomAnswer, RoomFault> {
        self.ask_desk(self.desk_of(call), call, name, request).await
    }
}
