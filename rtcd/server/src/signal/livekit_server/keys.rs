//! API keys: whose tokens count, and tokens of our own for webhooks and for clients whose token ends soon.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claims::Claims;
use crate::config::Secret;
use crate::limits::LIVEKIT_TOKEN_LEN_MAX;

/// Clocks may be so far apart, seconds. LiveKit's own number.
const LEEWAY_S: u64 = 60;

/// The keys. Several, so that one can be replaced while tokens of the other still hold.
#[derive(Clone, Debug)]
pub struct ApiKeys(Vec<(String, Secret)>);

/// Why a token opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is no token.
    #[error("invalid authorization token")]
    Malformed,
    /// Its key is none of ours.
    #[error("invalid API key: {0}")]
    UnknownKey(String),
    /// Signature or times.
    #[error("invalid token, error: {0}")]
    Invalid(String),
}

impl ApiKeys {
    /// From the setting.
    #[must_use]
    pub fn new(keys: Vec<(String, Secret)>) -> Self {
        Self(keys)
    }

    /// Without keys nobody is served.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn secret(&self, key: &str) -> Option<&Secret> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, secret)| secret)
    }

    /// Whether this key is ours.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.secret(key).is_some()
    }

    /// The claims of a good token.
    ///
    /// # Errors
    /// What is wrong with it, in LiveKit's words.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenFault> {
        let key = issuer(token).ok_or(TokenFault::Malformed)?;
        let secret = self.secret(&key).ok_or_else(|| TokenFault::UnknownKey(key.chars().take(64).collect()))?;
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_required_spec_claims(&["exp", "iss"]);
        rules.set_issuer(&[&key]);
        rules.validate_nbf = true;
        rules.validate_aud = false;
        rules.leeway = LEEWAY_S;
        let token = jsonwebtoken::decode::<Value>(token, &DecodingKey::from_secret(secret.bytes()), &rules)
            .map_err(|error| TokenFault::Invalid(error.to_string()))?;
        serde_json::from_value(without_nulls(token.claims)).map_err(|error| TokenFault::Invalid(error.to_string()))
    }

    /// A token with these claims by one of our keys. `None`: the key is not ours.
    #[must_use]
    pub fn sign(&self, key: &str, claims: &impl Serialize) -> Option<String> {
        let secret = self.secret(key)?;
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.bytes())).ok()
    }
}

/// As it stands in the claim of that name.
#[must_use]
pub fn sha256(body: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, body))
}

/// What is null was left out: LiveKit's Ruby SDK writes every member of a token, and Go, in which LiveKit's server reads it, takes null for
/// the zero value. Not so in lists: a list of sources without its only one would allow all sources.
fn without_nulls(claims: Value) -> Value {
    match claims {
        Value::Object(members) => {
            members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => claims,
    }
}

/// Who says that it signed the token; nothing is proved yet.
fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    if token.len() > LIVEKIT_TOKEN_LEN_MAX {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Issuer>(&payload).ok()?.iss)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn keys() -> ApiKeys {
        let key = |name: &str, secret: &str| (name.to_owned(), Secret::new(secret.as_bytes()));
        ApiKeys::new(vec![key("one", "secret-of-the-first-key"), key("two", "secret-of-the-second-key")])
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    fn claims(key: &str) -> Claims {
        Claims { iss: key.to_owned(), sub: "ann".to_owned(), exp: now() + 600, nbf: Some(now()), ..Claims::default() }
    }

    #[test]
    fn tokens_of_every_key_hold_while_keys_are_changed() {
        for key in ["one", "two"] {
            let token = keys().sign(key, &claims(key)).expect("ours");
            assert_eq!(keys().verify(&token).expect("good").identity(), "ann");
        }
        assert!(keys().sign("three", &claims("three")).is_none());
    }

    #[test]
    fn what_is_null_in_a_token_was_left_out() {
        let ruby = serde_json::json!({
            "iss": "one", "exp": now() + 600, "sub": null, "jti": null, "name": null, "kind": null, "kindDetails": null,
            "metadata": null, "attributes": null, "sha256": null, "roomConfig": { "metadata": null }, "roomPreset": null,
            "video": { "roomList": true, "room": null, "roomAdmin": null, "canPublish": null, "canPublishSources": null },
        });
        let claims = keys().verify(&keys().sign("one", &ruby).expect("ours")).expect("good");
        let grant = claims.grant();
        assert!(grant.room_list && !grant.room_admin && grant.room.is_empty() && grant.can_publish.is_none());
        assert!(claims.identity().is_empty() && claims.sha256.is_empty() && claims.attributes.is_empty());
        assert!(claims.room_configuration().is_ok());
        let no_source = serde_json::json!({ "iss": "one", "exp": now() + 600, "video": { "canPublishSources": [null] } });
        assert!(keys().verify(&keys().sign("one", &no_source).expect("ours")).is_err(), "no list of all sources");
    }

    #[test]
    fn a_minute_of_clock_skew_is_forgiven_and_no_more() {
        let with = |exp: u64, nbf: u64| {
            let claims = Claims { exp, nbf: Some(nbf), ..claims("one") };
            keys().verify(&keys().sign("one", &claims).expect("ours"))
        };
        assert!(with(now() - 40, now() - 600).is_ok() && with(now() + 600, now() + 40).is_ok());
        assert!(matches!(with(now() - 120, now() - 600), Err(TokenFault::Invalid(_))));
        assert!(matches!(with(now() + 600, now() + 120), Err(TokenFault::Invalid(_))));
    }

    #[test]
    fn forged_and_endless_tokens_open_nothing() {
        let good = keys().sign("one", &claims("one")).expect("ours");
        let parts: Vec<&str> = good.split('.').collect();
        let unsigned = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        let endless = keys().sign("one", &serde_json::json!({ "iss": "one", "sub": "ann" })).expect("ours");
        let other = Secret::new(b"the secret of somebody else");
        let foreign = EncodingKey::from_secret(other.bytes());
        let sign = |algorithm, key: &EncodingKey| jsonwebtoken::encode(&Header::new(algorithm), &claims("one"), key).expect("a token");
        let own = EncodingKey::from_secret(b"secret-of-the-first-key");
        for bad in [
            endless,
            sign(Algorithm::HS256, &foreign),
            sign(Algorithm::HS384, &own),
            format!("{unsigned}.{}.", parts[1]),
            format!("{}.{}.AAAA", parts[0], parts[1]),
        ] {
            assert!(matches!(keys().verify(&bad), Err(TokenFault::Invalid(_))), "{bad:.60}");
        }
        let unknown = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims("three"), &own).expect("a token");
        assert_eq!(keys().verify(&unknown).err(), Some(TokenFault::UnknownKey("three".to_owned())));
        for none in [String::new(), "a.b.c".to_owned(), "x".repeat(1 << 20)] {
            assert_eq!(keys().verify(&none).err(), Some(TokenFault::Malformed));
        }
    }
}
