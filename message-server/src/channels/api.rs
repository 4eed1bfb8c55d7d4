//! `/channels` and their messages.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    calls::{self, Call},
    channels::{self, Channel, Message, messages},
    error::{ApiError, ApiResult, ErrorBody},
    events::{Audience, Event},
    limits,
    people::names,
    rights::{Deed, Viewer},
    web::body::Body,
};

/// All channels.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channels {
    channels: Vec<Channel>,
}

/// The channels with their unread counts and running calls.
#[utoipa::path(get, path = "/channels", tag = "channels", responses((status = 200, body = Channels), (status = 403, body = ErrorBody)))]
pub async fn list_channels(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<Channels>> {
    viewer.check(Deed::Converse)?;
    Ok(Json(Channels { channels: channels::list(&app.store, &viewer.id).await? }))
}

/// A new channel.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewChannel {
    name: String,
    #[serde(default)]
    topic: String,
}

/// Create a channel.
#[utoipa::path(post, path = "/channels", tag = "channels", request_body = NewChannel,
    responses((status = 201, body = Channel), (status = 409, body = ErrorBody)))]
pub async fn create_channel(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Body(body): Body<NewChannel>,
) -> ApiResult<(StatusCode, Json<Channel>)> {
    viewer.check(Deed::Converse)?;
    let name = names::display_name(&body.name, "The channel's name")?;
    let topic = body.topic.split_whitespace().collect::<Vec<_>>().join(" ");
    if topic.chars().count() > limits::TOPIC_CHARS {
        return Err(ApiError::bad_request(format!("The topic is too long. Use at most {} characters.", limits::TOPIC_CHARS)));
    }
    Ok((StatusCode::CREATED, Json(channels::create(&app.store, &name, &topic, &viewer.id).await?)))
}

/// Which messages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub struct MessagesQuery {
    /// Only the chat of this call; guests have to give it.
    call_id: Option<String>,
    /// At most so many, the newest.
    limit: Option<i64>,
    /// Only older ones (Unix ms).
    before_ms: Option<i64>,
}

/// Messages, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Messages {
    messages: Vec<Message>,
}

/// Checks that a viewer may read or write here, and that the call belongs to the channel.
async fn check_place(app: &App, viewer: &Viewer, channel: &str, call: Option<&str>) -> ApiResult<()> {
    match call {
        Some(call) => {
            calls::check_taking_part(&app.store, viewer, call).await?;
            if calls::row(&app.store, call).await?.channel_id != channel {
                return Err(ApiError::not_found("call"));
            }
        }
        None => {
            viewer.check(Deed::Converse)?;
            channels::name(&app.store, channel).await?;
        }
    }
    Ok(())
}

/// Read messages.
#[utoipa::path(get, path = "/channels/{id}/messages", tag = "channels", params(MessagesQuery),
    responses((status = 200, body = Messages), (status = 404, body = ErrorBody)))]
pub async fn list_messages(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> ApiResult<Json<Messages>> {
    check_place(&app, &viewer, &id, query.call_id.as_deref()).await?;
    let messages =
        messages::list(&app.store, &id, query.call_id.as_deref(), query.before_ms.unwrap_or(i64::MAX), query.limit.unwrap_or(100)).await?;
    Ok(Json(Messages { messages }))
}

/// A new message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewMessage {
    text: String,
    /// Set: written from inside that call.
    call_id: Option<String>,
}

/// Write a message.
#[utoipa::path(post, path = "/channels/{id}/messages", tag = "channels", request_body = NewMessage,
    responses((status = 201, body = Message), (status = 404, body = ErrorBody)))]
pub async fn post_message(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<NewMessage>,
) -> ApiResult<(StatusCode, Json<Message>)> {
    check_place(&app, &viewer, &id, body.call_id.as_deref()).await?;
    if let Some(call) = &body.call_id {
        calls::running(&app.store, call).await?;
    }
    let message = messages::post(&app.store, &id, body.call_id.as_deref(), &viewer, &body.text).await?;
    app.hub
        .send(&Audience::Conversing { guests_of: body.call_id, except: None }, Event::Message { channel_id: id, message: message.clone() });
    Ok((StatusCode::CREATED, Json(message)))
}

/// Mark a channel as read.
#[utoipa::path(post, path = "/channels/{id}/read", tag = "channels", responses((status = 204), (status = 404, body = ErrorBody)))]
pub async fn mark_read(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<StatusCode> {
    check_place(&app, &viewer, &id, None).await?;
    messages::mark_read(&app.store, &id, &viewer.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A call.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallOf {
    call: Call,
}

/// Start a call in the channel and ring, or get the one that runs.
#[utoipa::path(post, path = "/channels/{id}/call", tag = "calls", responses((status = 200, body = CallOf), (status = 404, body = ErrorBody)))]
pub async fn start_call(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<Json<CallOf>> {
    viewer.check(Deed::Converse)?;
    let channel_name = channels::name(&app.store, &id).await?;
    let (call_id, new) = calls::start(&app.store, &id, &channel_name, &viewer.id).await?;
    let call = calls::load(&app.store, &call_id).await?;
    if new {
        tracing::info!(call = %calls::short(&call_id), "call started");
        app.hub.send(
            &Audience::Conversing { guests_of: None, except: Some(viewer.id.clone()) },
            Event::Ring {
                call: Box::new(call.clone()),
                from: crate::people::accounts::Person { id: viewer.id.clone(), display_name: viewer.display_name.clone() },
            },
        );
        app.announcer.changed(&call_id);
    }
    Ok(Json(CallOf { call: call.seen_by(&viewer) }))
}
