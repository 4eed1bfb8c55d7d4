//! Version 2 of the plugin: media is in LiveKit rooms, of which it gives out tokens.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rest::failure;
use crate::world::{Person, World, now_ms};

/// A LiveKit server, as the plugin's settings name it.
#[derive(Debug, Clone)]
pub struct LiveKit {
    /// `ws://127.0.0.1:7880`.
    pub url: String,
    /// A key of that server.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

/// What the plugin gives a page, or a bot.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The session in the call.
    pub session: String,
    /// Where LiveKit is.
    pub url: String,
    /// For one place in the room.
    pub token: String,
}

impl LiveKit {
    /// One place in the room of a channel, by the identity that the plugin gives a session.
    pub(crate) fn token(&self, person: &Person, session: &str, channel: &str, secret: &str) -> String {
        let now_s = now_ms() / 1_000;
        let claims = json!({
            "iss": self.key, "nbf": now_s - 5, "exp": now_s + 600, "sub": format!("{}___{session}", person.id), "name": person.username,
            "attributes": { "isBot": person.bot.to_string() },
            "video": { "roomJoin": true, "room": channel, "canPublish": !person.bot, "canSubscribe": true, "canUpdateOwnMetadata": true },
        });
        // Claims of our own and a secret of any length can be signed.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    channel_id: String,
    #[serde(default)]
    session_id: String,
}

/// Routes that are not for bots alone.
pub(crate) fn routes(world: Arc<World>) -> Router {
    let router = Router::new().route("/plugins/com.mattermost.calls/version", get(version));
    let router = if world.livekit.is_some() {
        router.route("/plugins/com.mattermost.calls/livekit-token", get(livekit_token))
    } else {
        // As Go's router says it where no route is.
        router.route("/plugins/com.mattermost.calls/livekit-token", get(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") }))
    };
    router.with_state(world)
}

async fn version(State(world): State<Arc<World>>) -> Json<Value> {
    let version = if world.livekit.is_some() { "2.0.0" } else { "1.12.2" };
    Json(json!({ "version": version, "build": "fake" }))
}

async fn livekit_token(State(world): State<Arc<World>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    let mut state = world.lock();
    state.tokens_asked += 1;
    if state.faults.token_failures > 0 {
        state.faults.token_failures -= 1;
        return (StatusCode::BAD_GATEWAY, "<html>502 Bad Gateway</html>").into_response();
    }
    let Some(person) = token.and_then(|token| state.by_token(&token)).filter(|person| !(person.bot && state.faults.unauthorised)) else {
        return failure(401, "Invalid or expired session, please login again.");
    };
    let there = state.members.iter().any(|one| one.session == asked.session_id && one.channel == asked.channel_id && one.user == person.id);
    if !there {
        state.breach(format!("a LiveKit token for a session that is not in the call: {}", asked.session_id));
        return failure(403, "Forbidden");
    }
    let Some(livekit) = &world.livekit else { return failure(500, "no LiveKit") };
    let secret = if state.faults.wrong_secret { "another secret, of another server" } else { &livekit.secret };
    Json(json!({ "token": livekit.token(&person, &asked.session_id, &asked.channel_id, secret), "url": livekit.url })).into_response()
}
