//! MESSAGE-INTEGRITY with short-term credentials (RFC 8489 §9.1, §14.5): HMAC-SHA1 keyed by the ICE password.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::attribute::INTEGRITY_LEN;

/// A password made ready for signing. No `Debug`; the crypto library zeroes it when dropped.
pub struct IntegrityKey(hmac::Key);

impl IntegrityKey {
    /// From an ICE password.
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }

    /// Signs a message up to its MESSAGE-INTEGRITY attribute: the first four bytes with the length that counts that
    /// attribute, then the rest.
    pub(super) fn sign(&self, head: [u8; 4], rest: &[u8]) -> [u8; INTEGRITY_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&head);
        context.update(rest);
        context.sign().as_ref().first_chunk::<INTEGRITY_LEN>().copied().unwrap_or_default()
    }

    pub(super) fn verify(&self, head: [u8; 4], rest: &[u8], code: &[u8]) -> bool {
        verify_slices_are_equal(&self.sign(head, rest), code).is_ok()
    }
}
