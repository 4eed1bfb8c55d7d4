//! The token that opens a tap: a JWT made by the offloader for one call, one purpose and a short time.

use conclave_proto::v1::TapPurpose;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rtcd_core::ids::CallId;
use serde::Deserialize;

use crate::config::Secret;
use crate::signal::grpc::service::call_of;

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    call: String,
    #[serde(default)]
    tenant: String,
    purpose: String,
}

/// Checks a token against what the tap asks for, and gives the core's call id.
///
/// # Errors
/// What is wrong with it, for the worker's log.
pub fn check(secret: &Secret, token: &str, call_id: &str, purpose: TapPurpose) -> Result<CallId, String> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["exp", "sub"]);
    // Clocks of one site.
    validation.leeway = 5;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(secret.bytes());
    let claims = decode::<Claims>(token, &key, &validation)
        .map_err(|error| format!("the tap token is not valid ({error}); RTCD_TAP_SECRET must be the same on both sides"))?
        .claims;
    let wanted = match purpose {
        TapPurpose::Record => "record",
        TapPurpose::Caption => "caption",
        TapPurpose::Unspecified => return Err("the tap names no purpose".to_owned()),
    };
    if claims.sub != "tap" || claims.purpose != wanted || claims.call != call_id {
        return Err(format!("the tap token was made for something else (purpose {}, asked for {wanted})", claims.purpose));
    }
    call_of(&claims.tenant, &claims.call).ok_or_else(|| "the tap token names no valid call".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    const SECRET: &[u8] = b"the secret of all the taps";

    fn token(claims: &serde_json::Value, secret: &[u8]) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).expect("encodes")
    }

    fn claims() -> serde_json::Value {
        json!({ "sub": "tap", "call": "c1", "tenant": "acme", "purpose": "record", "exp": 4_000_000_000_u64 })
    }

    #[test]
    fn a_good_token_opens_its_call_of_its_tenant() {
        let secret = Secret::new(SECRET);
        let call = check(&secret, &token(&claims(), SECRET), "c1", TapPurpose::Record).expect("good");
        assert_eq!(call.as_str(), "acme/c1");
    }

    #[test]
    fn everything_else_is_refused() {
        let secret = Secret::new(SECRET);
        let with = |key: &str, value: serde_json::Value| {
            let mut claims = claims();
            claims[key] = value;
            token(&claims, SECRET)
        };
        let good = token(&claims(), SECRET);
        assert!(check(&secret, &good, "c2", TapPurpose::Record).is_err(), "another call");
        assert!(check(&secret, &good, "c1", TapPurpose::Caption).is_err(), "another purpose");
        assert!(check(&secret, &good, "c1", TapPurpose::Unspecified).is_err());
        assert!(check(&secret, &token(&claims(), b"another secret"), "c1", TapPurpose::Record).is_err());
        assert!(check(&secret, &with("exp", json!(1000)), "c1", TapPurpose::Record).is_err(), "expired");
        assert!(check(&secret, &with("sub", json!("user")), "c1", TapPurpose::Record).is_err());
        assert!(check(&secret, &with("tenant", json!("a/b")), "c1", TapPurpose::Record).is_err(), "a tenant that is none");
        let mut eternal = claims();
        eternal.as_object_mut().expect("an object").remove("exp");
        assert!(check(&secret, &token(&eternal, SECRET), "c1", TapPurpose::Record).is_err(), "no expiry");
        // A token that says it needs no signature.
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("three parts"));
        assert!(check(&secret, &unsigned, "c1", TapPurpose::Record).is_err());
    }
}
