//! `/conclave/recording-key`: who is in a room and has the key of its end-to-end encryption lets recordings have it, or no longer.
//!
//! No call of LiveKit's: its servers record nothing that is encrypted. What opens it is the participant's own token.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::call_of;
use super::refused::Refused;
use crate::limits::{MEDIA_KEY_LEN_MAX, MEDIA_KEY_RATCHET_MAX, MEDIA_KEY_SALT_MAX, ROOM_TEXT_LEN_MAX};
use crate::media_key::{Derivation, KeySecret};
use crate::node::Node;
use crate::signal::seam::{KeyRequest, RoomAnswer, RoomRequest};

/// `livekit-client`'s salt where an application sets none.
const SALT: &str = "LKFrameEncryptionKey";
/// Of `livekit-client`, for keys of single participants; a shared one does not ratchet unless it is said.
const RATCHET_WINDOW: u32 = 8;

/// The words are those of `livekit-client`'s key provider and its options.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grant {
    /// A passphrase.
    key: Option<String>,
    /// Random bytes.
    key_base64: Option<String>,
    #[serde(default)]
    key_index: u8,
    /// Whose media; none: everybody's.
    #[serde(default)]
    participant_identity: String,
    #[serde(default = "default_salt")]
    ratchet_salt: String,
    ratchet_window_size: Option<u32>,
    #[serde(default = "default_size")]
    key_size: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TakeBack {
    key_index: Option<u8>,
    participant_identity: Option<String>,
}

fn default_salt() -> String {
    SALT.to_owned()
}

fn default_size() -> u32 {
    128
}

fn bad(text: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, text)
}

/// `POST`: grant.
///
/// # Errors
/// As LiveKit's server says it: a status and a line of text.
pub async fn grant(State(node): State<Arc<Node>>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Refused> {
    let visitor = Visitor::check(&node, &headers)?;
    let mut wanted: Grant = read(&body)?;
    let secret = wanted.secret()?;
    if wanted.participant_identity.len() > ROOM_TEXT_LEN_MAX {
        return Err(bad("participantIdentity exceeds limits: 256 bytes"));
    }
    let request =
        KeyRequest::Grant { by: visitor.identity.clone(), of: wanted.participant_identity.clone(), index: wanted.key_index, secret };
    visitor.ask(&node, request).await?;
    let mut answer = json!({ "room": visitor.room, "grantedBy": visitor.identity, "keyIndex": wanted.key_index });
    if !wanted.participant_identity.is_empty() {
        answer["participantIdentity"] = json!(wanted.participant_identity);
    }
    Ok(Json(answer))
}

/// `DELETE`: take back what one granted: all, or of one index or participant.
///
/// # Errors
/// As [`grant`].
pub async fn take_back(State(node): State<Arc<Node>>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Refused> {
    let visitor = Visitor::check(&node, &headers)?;
    let TakeBack { key_index, participant_identity } = if body.is_empty() { TakeBack::default() } else { read(&body)? };
    let request = KeyRequest::TakeBack { by: visitor.identity.clone(), of: participant_identity, index: key_index };
    let taken_back = visitor.ask(&node, request).await?;
    Ok(Json(json!({ "room": visitor.room, "takenBack": taken_back })))
}

/// What is wrong with it is said without a word of it: keys end in no log.
fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        bad(format!("the body is not the JSON that is expected here ({place}); see docs/compat/livekit.md, Recording what is encrypted"))
    })
}

/// Whose token it is, and of which room.
struct Visitor {
    identity: String,
    room: String,
}

impl Visitor {
    fn check(node: &Node, headers: &HeaderMap) -> Result<Self, Refused> {
        let claims = node.livekit.claims(headers, None)?.ok_or_else(Refused::forbidden)?;
        let grant = claims.grant();
        if !grant.room_join || grant.room.is_empty() || claims.identity().is_empty() {
            let text = "a recording key is granted with a participant's own token: it needs roomJoin, a room and an identity";
            return Err(Refused::new(StatusCode::UNAUTHORIZED, text));
        }
        Ok(Self { identity: claims.identity().to_owned(), room: grant.room })
    }

    async fn ask(&self, node: &Node, request: KeyRequest) -> Result<usize, Refused> {
        let call = call_of(&self.room).ok_or_else(|| bad("the token names no room"))?;
        let answer = node.ask_room(&call, &self.room, RoomRequest::MediaKey(Box::new(request))).await?;
        let RoomAnswer::Count(count) = answer else {
            return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the room gave no answer"));
        };
        Ok(count)
    }
}

impl Grant {
    fn secret(&mut self) -> Result<KeySecret, Refused> {
        let (derivation, material) = match (self.key.take(), self.key_base64.take()) {
            (Some(text), None) => (Derivation::Pbkdf2, Zeroizing::new(text.into_bytes())),
            (None, Some(mut text)) => {
                let bytes = BASE64_STANDARD.decode(&text);
                text.zeroize();
                (Derivation::Hkdf, Zeroizing::new(bytes.map_err(|_| bad("keyBase64 is not base64 with padding"))?))
            }
            _ => return Err(bad("give the key once: a passphrase as key, or random bytes as keyBase64")),
        };
        if material.is_empty() || material.len() > MEDIA_KEY_LEN_MAX {
            return Err(bad(format!("a key has 1 to {MEDIA_KEY_LEN_MAX} bytes")));
        }
        if self.ratchet_salt.len() > MEDIA_KEY_SALT_MAX {
            return Err(bad(format!("ratchetSalt has at most {MEDIA_KEY_SALT_MAX} bytes")));
        }
        if self.key_size != 128 && self.key_size != 256 {
            return Err(bad("keySize is 128 or 256"));
        }
        let usual = if self.participant_identity.is_empty() { 0 } else { RATCHET_WINDOW };
        let ratchet_window = self.ratchet_window_size.unwrap_or(usual);
        if ratchet_window > MEDIA_KEY_RATCHET_MAX {
            return Err(bad(format!("ratchetWindowSize is at most {MEDIA_KEY_RATCHET_MAX}")));
        }
        Ok(KeySecret { derivation, material, salt: std::mem::take(&mut self.ratchet_salt), bits: self.key_size, ratchet_window })
    }
}
