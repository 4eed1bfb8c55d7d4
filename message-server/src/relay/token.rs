//! LiveKit access tokens: minted when somebody joins a call, checked when their WebSocket opens. HS256 with a key that
//! only this server (and others on the same database) has; all that is needed lies in the token, so a restart changes nothing.

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    people::setup::write_private,
};

const ISSUER: &str = "conclave";

/// LiveKit's claims, as far as we use them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Who minted it: us.
    pub iss: String,
    /// The participant's identity.
    pub sub: String,
    /// Name that others see.
    pub name: String,
    /// Unix seconds.
    pub iat: i64,
    /// The same in ms: within the second of a sign-out it has to be known which was first. 0 in tickets of an earlier version.
    #[serde(default)]
    pub iat_ms: i64,
    /// Unix seconds.
    pub nbf: i64,
    /// Unix seconds.
    pub exp: i64,
    /// Unique.
    pub jti: String,
    /// What it opens.
    pub video: VideoGrant,
    /// Participant attributes.
    #[serde(default)]
    pub attributes: std::collections::BTreeMap<String, String>,
}

impl Claims {
    /// When it was made out, Unix ms.
    pub fn issued_at_ms(&self) -> i64 {
        if self.iat_ms > 0 { self.iat_ms } else { self.iat.saturating_mul(1000) }
    }
}

/// LiveKit's video grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoGrant {
    /// Opens a room at all.
    pub room_join: bool,
    /// Which one: the call's id.
    pub room: String,
    /// May host.
    #[serde(default)]
    pub room_admin: bool,
    /// May send media.
    pub can_publish: bool,
    /// May receive media.
    pub can_subscribe: bool,
    /// May send data.
    pub can_publish_data: bool,
    /// May change own name and attributes: no, they are the account's.
    #[serde(default)]
    pub can_update_own_metadata: bool,
}

/// What a token is minted for.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Person or guest id.
    pub identity: String,
    /// Name.
    pub display_name: String,
    /// Call id.
    pub call: String,
    /// May use the host actions.
    pub host: bool,
}

/// Mints and checks.
pub struct MediaTokens {
    encode: EncodingKey,
    decode: DecodingKey,
}

impl std::fmt::Debug for MediaTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MediaTokens")
    }
}

impl MediaTokens {
    /// With this key.
    pub fn new(key: &[u8]) -> Self {
        Self { encode: EncodingKey::from_secret(key), decode: DecodingKey::from_secret(key) }
    }

    /// With the data folder's key; made at the first start.
    pub fn load(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("media-token.key");
        let key = match std::fs::read_to_string(&path) {
            Ok(text) => hex::decode(text.trim())
                .ok()
                .filter(|key| key.len() == 32)
                .ok_or_else(|| anyhow::anyhow!("{} is damaged: delete it, participants then join anew", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = ids::random::<32>();
                write_private(&path, hex::encode(key).as_bytes())?;
                key.to_vec()
            }
            Err(error) => return Err(anyhow::anyhow!("cannot read {}: {error}", path.display())),
        };
        Ok(Self::new(&key))
    }

    /// A token for one call.
    pub fn mint(&self, grant: &Grant) -> ApiResult<String> {
        let now_ms = clock::now_ms();
        let now = now_ms / 1000;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: grant.identity.clone(),
            name: grant.display_name.clone(),
            iat: now,
            iat_ms: now_ms,
            // Clocks of browser and server do not matter: only we check it.
            nbf: now,
            exp: now + i64::try_from(limits::MEDIA_TOKEN_LIFE.as_secs()).unwrap_or(i64::MAX),
            jti: ids::id("t"),
            video: VideoGrant {
                room_join: true,
                room: grant.call.clone(),
                room_admin: grant.host,
                can_publish: true,
                can_subscribe: true,
                can_publish_data: true,
                can_update_own_metadata: false,
            },
            attributes: [("role".to_owned(), if grant.host { "host" } else { "participant" }.to_owned())].into(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encode).map_err(ApiError::internal)
    }

    /// The claims of a good token. One answer for all bad ones.
    pub fn check(&self, token: &str) -> ApiResult<Claims> {
        let refused = || ApiError::refused("This call's ticket is not valid (any more). Leave and join the call again.");
        // A real one has about 700 characters.
        if token.len() > 4096 {
            return Err(refused());
        }
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "nbf", "iss", "sub"]);
        rules.validate_nbf = true;
        rules.leeway = 5;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decode, &rules).map_err(|_| refused())?.claims;
        if !claims.video.room_join || claims.video.room.is_empty() || claims.sub.is_empty() {
            return Err(refused());
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn grant() -> Grant {
        Grant { identity: "u-1".to_owned(), display_name: "Ada".to_owned(), call: "call-1".to_owned(), host: true }
    }

    #[test]
    fn a_minted_token_has_livekits_claims() {
        let tokens = MediaTokens::new(b"0123456789abcdef0123456789abcdef");
        let token = tokens.mint(&grant()).unwrap();
        let claims = tokens.check(&token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.video.room.as_str()), ("u-1", "call-1"));
        let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["video"]["roomJoin"], true);
        assert_eq!(json["video"]["canPublishData"], true);
        assert_eq!(json["attributes"]["role"], "host");
    }

    #[test]
    fn forged_expired_and_foreign_tokens_are_refused() {
        let key = b"0123456789abcdef0123456789abcdef";
        let tokens = MediaTokens::new(key);
        let good = tokens.mint(&grant()).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let mut claims = tokens.check(&good).unwrap();
        let sign =
            |claims: &Claims, header: &Header, key: &[u8]| jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key)).unwrap();
        let none_header = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        let mut bad = vec![
            String::new(),
            "a.b.c".to_owned(),
            "x".repeat(100_000),
            format!("{none_header}.{}.", parts[1]),
            format!("{none_header}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], "AAAA"),
            format!("{}.{}", parts[0], parts[1]),
            sign(&claims, &Header::new(Algorithm::HS384), key),
            sign(&claims, &Header::new(Algorithm::HS256), b"another key of thirty-two bytes!"),
        ];
        let now = clock::now_ms() / 1000;
        claims.exp = now - 60;
        bad.push(sign(&claims, &Header::new(Algorithm::HS256), key));
        claims.exp = now + 600;
        claims.nbf = now + 300;
        bad.push(sign(&claims, &Header::new(Algorithm::HS256), key));
        claims.nbf = now;
        claims.iss = "somebody else".to_owned();
        bad.push(sign(&claims, &Header::new(Algorithm::HS256), key));
        claims.iss = ISSUER.to_owned();
        claims.video.room_join = false;
        bad.push(sign(&claims, &Header::new(Algorithm::HS256), key));
        for token in bad {
            let error = tokens.check(&token).unwrap_err();
            assert_eq!(error.status(), axum::http::StatusCode::UNAUTHORIZED, "{token:.80}");
        }
    }
}
