//! `AgentDispatchService`: servers want an agent in a room, or no longer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;
use livekit_protocol as lk;
use rtcd_core::ids::CallId;

use super::check::check_dispatch;
use crate::limits::ROOM_TEXT_LEN_MAX;
use crate::node::Node;
use crate::signal::desk::moment;
use crate::signal::livekit_server::call_of;
use crate::signal::livekit_server::claims::Claims;
use crate::signal::livekit_server::room_service::{administers, no_route};
use crate::signal::livekit_server::twirp::{Form, TwirpError};
use crate::signal::seam::{RoomFault, RoomRequest};

/// `POST /twirp/livekit.AgentDispatchService/{method}`.
///
/// # Errors
/// In the protocol's form.
pub async fn serve(node: &Arc<Node>, claims: &Claims, form: Form, method: &str, body: &Bytes) -> Result<Response, TwirpError> {
    match method {
        "CreateDispatch" => {
            let request: lk::CreateAgentDispatchRequest = form.read(body)?;
            let call = admitted(claims, &request.room)?;
            Ok(form.write(&create(node, &claims.iss, &call, request).await?))
        }
        "DeleteDispatch" => {
            let request: lk::DeleteAgentDispatchRequest = form.read(body)?;
            let call = admitted(claims, &request.room)?;
            let deleted = node.agents.turn(|dispatcher| dispatcher.handle_delete(moment(), &call, &request.dispatch_id))?;
            Ok(form.write(&deleted))
        }
        "ListDispatch" => {
            let request: lk::ListAgentDispatchRequest = form.read(body)?;
            let call = admitted(claims, &request.room)?;
            let agent_dispatches = node.agents.list(&call, &request.dispatch_id)?;
            Ok(form.write(&lk::ListAgentDispatchResponse { agent_dispatches }))
        }
        other => Err(no_route("livekit.AgentDispatchService", other)),
    }
}

/// The room's call, for who administers it.
fn admitted(claims: &Claims, room: &str) -> Result<CallId, TwirpError> {
    if !administers(claims, room) {
        return Err(TwirpError::forbidden());
    }
    if room.len() > ROOM_TEXT_LEN_MAX {
        return Err(RoomFault::TooMuch("room name length").into());
    }
    Ok(call_of(room).ok_or_else(|| RoomFault::Invalid("room name cannot be empty".to_owned()))?)
}

/// `key`: the API key that asks.
async fn create(
    node: &Arc<Node>,
    key: &str,
    call: &CallId,
    request: lk::CreateAgentDispatchRequest,
) -> Result<lk::AgentDispatch, TwirpError> {
    check_dispatch(&request.agent_name, &request.metadata, &request.deployment, &request.attributes)?;
    // Where joining makes a room, so does this.
    if node.livekit.auto_create {
        let wanted = lk::CreateRoomRequest { name: request.room.clone(), ..lk::CreateRoomRequest::default() };
        node.ask_room(call, &request.room, RoomRequest::Enter { wanted: Box::new(wanted), key: key.to_owned() }).await?;
    }
    node.agents.lock().dispatcher.check_room_for(call)?;
    let id = node.agents.turn(|dispatcher| dispatcher.new_id("AD_"));
    let dispatch = lk::AgentDispatch {
        id: id.clone(),
        agent_name: request.agent_name,
        room: request.room.clone(),
        metadata: request.metadata,
        state: None,
        restart_policy: request.restart_policy,
        deployment: request.deployment,
        attributes: request.attributes,
    };
    // By way of the room, which knows who is in it.
    node.ask_room(call, &request.room, RoomRequest::Dispatch(Box::new(dispatch))).await?;
    let made = node.agents.list(call, &id)?.pop();
    Ok(made.ok_or(RoomFault::NoDispatch)?)
}
