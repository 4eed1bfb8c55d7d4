//! Who is calling: the service token, a worker's token for one attempt; and the tap tokens we hand out.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Serialize;

use crate::limits::TAP_TOKEN_S;

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with the service token.
    Service,
    /// A worker in one attempt of one job.
    Worker {
        /// The job.
        job: String,
        /// The attempt's fence.
        fence: u64,
    },
}

/// Makes and checks tokens. No `Debug`.
pub struct Tokens {
    service: [u8; 32],
    worker: hmac::Key,
    tap: jsonwebtoken::EncodingKey,
}

#[derive(Serialize)]
struct TapClaims<'a> {
    sub: &'static str,
    call: &'a str,
    tenant: &'a str,
    purpose: &'a str,
    exp: u64,
}

impl Tokens {
    /// From the two configured secrets. Worker tokens come from the service token, so they outlive a restart.
    pub fn new(token: &str, tap_secret: &str) -> Self {
        let worker = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()), b"conclave worker tokens v1");
        Self {
            service: sha256(token.as_bytes()),
            worker: hmac::Key::new(hmac::HMAC_SHA256, worker.as_ref()),
            tap: jsonwebtoken::EncodingKey::from_secret(tap_secret.as_bytes()),
        }
    }

    /// Token of one attempt.
    pub fn for_worker(&self, job: &str, fence: u64) -> String {
        let tag = hmac::sign(&self.worker, worker_text(job, fence).as_bytes());
        format!("w1.{job}.{fence}.{}", BASE64.encode(tag.as_ref()))
    }

    /// Who has this bearer token, in a time that does not depend on how much of it is right.
    pub fn caller(&self, bearer: &str) -> Option<Caller> {
        if constant_time::verify_slices_are_equal(&sha256(bearer.as_bytes()), &self.service).is_ok() {
            return Some(Caller::Service);
        }
        let mut parts = bearer.strip_prefix("w1.")?.split('.');
        let (job, fence, tag) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let tag = BASE64.decode(tag).ok()?;
        if parts.next().is_some() {
            return None;
        }
        hmac::verify(&self.worker, worker_text(job, fence).as_bytes(), &tag).ok()?;
        Some(Caller::Worker { job: job.to_owned(), fence })
    }

    /// Token with which a worker opens the tap of one call.
    pub fn for_tap(&self, tenant: &str, call: &str, purpose: &str, now_ms: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let exp = u64::try_from(now_ms / 1000).unwrap_or_default() + TAP_TOKEN_S;
        let claims = TapClaims { sub: "tap", call, tenant, purpose, exp };
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &self.tap)
    }
}

fn worker_text(job: &str, fence: u64) -> String {
    format!("{job}\n{fence}")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_token_is_good_for_one_attempt_of_one_job() {
        let tokens = Tokens::new("service-secret-0123", "tap");
        let token = tokens.for_worker("job-1", 3);
        assert_eq!(tokens.caller(&token), Some(Caller::Worker { job: "job-1".into(), fence: 3 }));
        assert_eq!(tokens.caller(&token.replace(".3.", ".4.")), None);
        assert_eq!(tokens.caller(&token.replace("job-1", "job-2")), None);
        assert_eq!(tokens.caller(&format!("{token}.x")), None);
        assert_eq!(Tokens::new("another-secret-0123", "tap").caller(&token), None);
        // After a restart with the same secret it still holds.
        assert!(Tokens::new("service-secret-0123", "tap").caller(&token).is_some());
    }

    #[test]
    fn only_the_exact_service_token_is_the_service() {
        let tokens = Tokens::new("service-secret-0123", "tap");
        assert_eq!(tokens.caller("service-secret-0123"), Some(Caller::Service));
        for wrong in ["", "service-secret-012", "service-secret-01234", "w1.", "w1.a.b.c"] {
            assert_eq!(tokens.caller(wrong), None);
        }
    }
}
