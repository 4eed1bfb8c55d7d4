//! `RoomService`: what servers ask of rooms, each call with the grant it needs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use livekit_protocol as lk;

use super::call_of;
use super::claims::Claims;
use super::keys::sha256;
use super::twirp::{Code, Form, TwirpError};
use super::{agents, egress};
use crate::limits::ROOM_TEXT_LEN_MAX;
use crate::node::Node;
use crate::signal::seam::{RoomAnswer, RoomFault, RoomRequest};

/// Services of LiveKit that this server does not have, and what to do instead.
const ABSENT: &[(&str, &str)] = &[
    ("livekit.Ingress", "ingress is not supported; publish with an SDK"),
    ("livekit.SIP", "SIP is not supported"),
    ("livekit.Connector", "connectors are not supported"),
];

/// `POST /twirp/{service}/{method}`.
pub async fn serve(
    State(node): State<Arc<Node>>,
    Path((service, method)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, TwirpError> {
    let claims = match node.livekit.claims(&headers, None) {
        Ok(Some(claims)) => claims,
        Ok(None) => return Err(TwirpError::forbidden()),
        Err(refused) => return Err(TwirpError::new(Code::Unauthenticated, refused.text)),
    };
    if !claims.sha256.is_empty() && claims.sha256 != sha256(&body) {
        return Err(TwirpError::new(Code::Unauthenticated, "the token's sha256 is not that of the body"));
    }
    if let Some((_, why)) = ABSENT.iter().find(|(absent, _)| *absent == service) {
        return Err(TwirpError::new(Code::Unimplemented, *why));
    }
    if service == "livekit.Egress" {
        return egress::serve(&node, &claims, Form::of(&headers)?, &method, &body).await;
    }
    if service == "livekit.AgentDispatchService" {
        return agents::service::serve(&node, &claims, Form::of(&headers)?, &method, &body).await;
    }
    if service != "livekit.RoomService" {
        return Err(no_route(&service, &method));
    }
    let form = Form::of(&headers)?;
    Caller { node, claims, form }.serve(&method, &body).await
}

pub(super) fn no_route(service: &str, method: &str) -> TwirpError {
    let named: String = format!("{service}/{method}").chars().take(128).collect();
    TwirpError::new(Code::BadRoute, format!("no handler for path \"/twirp/{named}\""))
}

/// Who administers a room does so in the one that the token names; one that names none administers none, as with LiveKit's server.
pub(super) fn administers(claims: &Claims, room: &str) -> bool {
    let grant = claims.grant();
    grant.room_admin && grant.room == room
}

struct Caller {
    node: Arc<Node>,
    claims: Claims,
    form: Form,
}

impl Caller {
    async fn serve(&self, method: &str, body: &Bytes) -> Result<Response, TwirpError> {
        let form = self.form;
        match method {
            "CreateRoom" => {
                let request: lk::CreateRoomRequest = form.read(body)?;
                self.expect(self.claims.grant().room_create)?;
                let name = request.name.clone();
                self.one_room(&name, RoomRequest::Create { wanted: Box::new(request), key: self.claims.iss.clone() }).await
            }
            "ListRooms" => {
                let request: lk::ListRoomsRequest = form.read(body)?;
                self.expect(self.claims.grant().room_list)?;
                self.list_rooms(request.names).await
            }
            "DeleteRoom" => {
                let request: lk::DeleteRoomRequest = form.read(body)?;
                self.expect(self.claims.grant().room_create)?;
                self.ask(&request.room, RoomRequest::Delete).await?;
                Ok(form.write(&lk::DeleteRoomResponse {}))
            }
            "ListParticipants" => {
                let request: lk::ListParticipantsRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                let RoomAnswer::Participants(participants) = self.ask(&request.room, RoomRequest::Participants).await? else {
                    return Err(unexpected());
                };
                Ok(form.write(&lk::ListParticipantsResponse { participants }))
            }
            "GetParticipant" => {
                let request: lk::RoomParticipantIdentity = form.read(body)?;
                self.expect_admin(&request.room)?;
                self.one_participant(&request.room, RoomRequest::Participant(request.identity)).await
            }
            "RemoveParticipant" => {
                let request: lk::RoomParticipantIdentity = form.read(body)?;
                self.expect_admin(&request.room)?;
                if request.revoke_token_ts != 0 {
                    let why = "single tokens cannot be revoked; give tokens a short life, or replace the API key";
                    return Err(RoomFault::Unsupported(why).into());
                }
                self.ask(&request.room, RoomRequest::Remove(request.identity)).await?;
                Ok(form.write(&lk::RemoveParticipantResponse {}))
            }
            "MutePublishedTrack" => {
                let request: lk::MuteRoomTrackRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                let RoomAnswer::Track(track) = self.ask(&request.room.clone(), RoomRequest::Mute(request)).await? else {
                    return Err(unexpected());
                };
                Ok(form.write(&lk::MuteRoomTrackResponse { track: Some(*track) }))
            }
            "UpdateParticipant" => {
                let request: lk::UpdateParticipantRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                self.one_participant(&request.room.clone(), RoomRequest::Update(Box::new(request))).await
            }
            "UpdateSubscriptions" => {
                let request: lk::UpdateSubscriptionsRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                self.ask(&request.room.clone(), RoomRequest::Subscriptions(request)).await?;
                Ok(form.write(&lk::UpdateSubscriptionsResponse {}))
            }
            "SendData" => {
                let request: lk::SendDataRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                self.ask(&request.room.clone(), RoomRequest::SendData(request)).await?;
                Ok(form.write(&lk::SendDataResponse {}))
            }
            "UpdateRoomMetadata" => {
                let request: lk::UpdateRoomMetadataRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                self.one_room(&request.room, RoomRequest::Metadata(request.metadata)).await
            }
            "PerformRpc" => {
                let request: lk::PerformRpcRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                let RoomAnswer::Payload(payload) = self.ask(&request.room.clone(), RoomRequest::Rpc(request)).await? else {
                    return Err(unexpected());
                };
                Ok(form.write(&lk::PerformRpcResponse { payload }))
            }
            "ForwardParticipant" => {
                let request: lk::ForwardParticipantRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                Err(RoomFault::Unsupported("forwarding exists in LiveKit's cloud only; let the participant join both rooms").into())
            }
            "MoveParticipant" => {
                let request: lk::MoveParticipantRequest = form.read(body)?;
                self.expect_admin(&request.room)?;
                Err(RoomFault::Unsupported("moving exists in LiveKit's cloud only; give the participant a token of the other room").into())
            }
            other => Err(no_route("livekit.RoomService", other)),
        }
    }

    fn expect(&self, granted: bool) -> Result<(), TwirpError> {
        if granted { Ok(()) } else { Err(TwirpError::forbidden()) }
    }

    fn expect_admin(&self, room: &str) -> Result<(), TwirpError> {
        self.expect(administers(&self.claims, room))
    }

    async fn ask(&self, room: &str, request: RoomRequest) -> Result<RoomAnswer, TwirpError> {
        if room.len() > ROOM_TEXT_LEN_MAX {
            return Err(RoomFault::TooMuch("room name length").into());
        }
        let call = call_of(room).ok_or_else(|| RoomFault::Invalid("room name cannot be empty".to_owned()))?;
        Ok(self.node.ask_room(&call, room, request).await?)
    }

    async fn one_room(&self, room: &str, request: RoomRequest) -> Result<Response, TwirpError> {
        let RoomAnswer::Room(room) = self.ask(room, request).await? else { return Err(unexpected()) };
        Ok(self.form.write(&*room))
    }

    async fn one_participant(&self, room: &str, request: RoomRequest) -> Result<Response, TwirpError> {
        let RoomAnswer::Participant(participant) = self.ask(room, request).await? else { return Err(unexpected()) };
        Ok(self.form.write(&*participant))
    }

    /// Rooms are spread over the desks.
    async fn list_rooms(&self, names: Vec<String>) -> Result<Response, TwirpError> {
        let mut rooms = Vec::new();
        // Any call of the tenant says which tenant is meant.
        let Some(of_tenant) = call_of("any") else { return Err(RoomFault::NoRoom.into()) };
        for desk in 0..self.node.desks.len() {
            let RoomAnswer::Rooms(some) = self.node.ask_desk(desk, &of_tenant, "", RoomRequest::List(names.clone())).await? else {
                return Err(unexpected());
            };
            rooms.extend(some);
        }
        rooms.sort_by(|one, other| one.creation_time_ms.cmp(&other.creation_time_ms).then_with(|| one.name.cmp(&other.name)));
        Ok(self.form.write(&lk::ListRoomsResponse { rooms }))
    }
}

fn unexpected() -> TwirpError {
    tracing::error!("a room answered something else than was asked");
    TwirpError::new(Code::Unknown, "an error in this server; its log says more")
}
