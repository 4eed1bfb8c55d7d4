//! LiveKit's server contract on this node itself: unmodified clients and server SDKs are pointed here, without a message server.
//!
//! [`keys`] and [`claims`] say whom a token lets do what, [`connection`] reads how a client wants to join, [`join`] lets it in,
//! [`socket`] carries its frames to and from the same adapter that message servers' frames reach. [`room_service`] is the
//! API of servers, in [`twirp`]'s form; [`webhooks`] tell them what happens, [`egress`] records, what is encrypted end to end with a
//! [`recording_key`]; [`agents`] are sent to rooms. Rooms are calls of one tenant of their own.

pub mod agents;
pub mod claims;
pub mod connection;
pub mod cors;
pub mod egress;
pub mod join;
pub mod keys;
pub mod recording_key;
pub mod refused;
pub mod room_service;
pub mod socket;
pub mod sockets;
pub mod twirp;
pub mod webhooks;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use rtcd_core::ids::{CallId, NAME_LEN_MAX};

use self::claims::Claims;
use self::keys::ApiKeys;
use self::refused::Refused;
use crate::config::Config;
use crate::limits::{MEDIA_KEY_BODY_MAX, TWIRP_BODY_MAX};
use crate::node::Node;

/// The tenant whose calls are the rooms of this API.
pub const TENANT: &str = "livekit";

/// What this API needs of the settings.
#[derive(Clone, Debug)]
pub struct LiveKit {
    /// Whose tokens count.
    pub keys: ApiKeys,
    /// Whether joining makes a room.
    pub auto_create: bool,
}

impl LiveKit {
    /// From the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { keys: ApiKeys::new(config.livekit_keys.clone()), auto_create: config.livekit_auto_create }
    }

    /// Who asks. `None`: nobody who says so.
    ///
    /// # Errors
    /// The token is not good.
    pub fn claims(&self, headers: &HeaderMap, query_token: Option<&str>) -> Result<Option<Claims>, Refused> {
        let bearer = match headers.get(header::AUTHORIZATION) {
            None => None,
            Some(value) => {
                let bearer = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
                let text = "invalid authorization header. Must start with Bearer ";
                Some(bearer.ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, text))?)
            }
        };
        match bearer.or(query_token).filter(|token| !token.is_empty()) {
            Some(token) => Ok(Some(self.keys.verify(token)?)),
            None => Ok(None),
        }
    }
}

/// The routes; none without keys.
pub fn router(node: &Arc<Node>) -> axum::Router {
    if node.livekit.keys.is_empty() {
        return axum::Router::new();
    }
    axum::Router::new()
        .route("/", get(alive))
        .route("/rtc", get(join::rtc))
        .route("/rtc/v1", get(join::rtc_v1))
        .route("/rtc/validate", get(join::validate))
        .route("/rtc/v1/validate", get(join::validate_v1))
        .route("/settings/regions", get(no_regions))
        .route("/agent", get(agents::socket::open))
        .route(
            "/conclave/recording-key",
            post(recording_key::grant).delete(recording_key::take_back).layer(DefaultBodyLimit::max(MEDIA_KEY_BODY_MAX)),
        )
        .route("/twirp/{service}/{method}", post(room_service::serve).layer(DefaultBodyLimit::max(TWIRP_BODY_MAX)))
        .layer(axum::middleware::from_fn(cors::allow))
        .with_state(Arc::clone(node))
}

/// SDKs and load balancers look here whether the server lives.
async fn alive() -> &'static str {
    "OK"
}

/// Only LiveKit's cloud has regions; a server of one's own has no such page.
async fn no_regions() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// The core's id of a room's call. LiveKit's names may be longer than ours and have slashes; those are named by their hash.
#[must_use]
pub fn call_of(room: &str) -> Option<CallId> {
    let plain = format!("{TENANT}/{room}");
    if plain.len() <= NAME_LEN_MAX && !room.is_empty() && !room.contains('/') && !room.starts_with('~') {
        return CallId::new(&plain);
    }
    let hash: String = digest(&SHA256, room.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    CallId::new(&format!("{TENANT}/~{hash}")).filter(|_| !room.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_name_has_a_call_of_its_own() {
        let long = "x".repeat(250);
        let names = ["plain", "a/b", "~a", "!room:server.example", "sl/ash+base64==", long.as_str(), "räume", "a b"];
        let calls: std::collections::HashSet<_> = names.iter().map(|name| call_of(name).expect("a call")).collect();
        assert_eq!(calls.len(), names.len());
        assert!(calls.iter().all(|call| crate::admit::split_call_id(call).0 == TENANT && call.as_str().matches('/').count() == 1));
        assert_eq!(call_of("plain").expect("a call").as_str(), "livekit/plain");
        assert!(call_of("").is_none());
    }
}
