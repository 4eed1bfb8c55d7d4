//! A key of media that is encrypted end to end, granted by somebody in the call who has it (docs/decisions/0027).
//!
//! Held in memory while its call lasts, wiped when it is dropped, given to recording taps and to nothing else.

use std::fmt;

use conclave_proto::v1::{self, tap_media_key};
use zeroize::Zeroizing;

/// How key bytes come of what was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// A passphrase: PBKDF2.
    Pbkdf2,
    /// Random bytes: HKDF.
    Hkdf,
}

/// What a key is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySecret {
    /// How.
    pub derivation: Derivation,
    /// Passphrase or bytes.
    pub material: Zeroizing<Vec<u8>>,
    /// For the derivation; public.
    pub salt: String,
    /// 128 or 256.
    pub bits: u32,
    /// Steps of its ratchet that readers try.
    pub ratchet_window: u32,
}

/// Which key, of all of its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    /// Identity of who granted it.
    pub by: String,
    /// Whose media it opens; empty: everybody's.
    pub of: String,
    /// Its number in the frames.
    pub index: u8,
}

/// A key as it stands: granted, or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaKey {
    /// Which.
    pub name: KeyName,
    /// What people call who granted it.
    pub by_name: String,
    /// `None`: taken back.
    pub secret: Option<KeySecret>,
    /// Since when, Unix ms.
    pub at_ms: i64,
}

impl fmt::Debug for KeySecret {
    /// Never what it is made of: it would end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySecret").field("derivation", &self.derivation).field("bits", &self.bits).finish_non_exhaustive()
    }
}

impl KeyName {
    /// Of what a tap is told.
    #[must_use]
    pub fn of_item(item: &v1::TapMediaKey) -> Self {
        Self { by: item.granted_by.clone(), of: item.of.clone(), index: u8::try_from(item.key_index).unwrap_or_default() }
    }
}

impl MediaKey {
    /// As it goes through queues: without the secret, which is looked up when it is given out.
    #[must_use]
    pub fn announcement(&self) -> v1::TapMediaKey {
        v1::TapMediaKey {
            granted_by: self.name.by.clone(),
            granted_by_name: self.by_name.clone(),
            of: self.name.of.clone(),
            key_index: self.name.index.into(),
            granted: self.secret.is_some(),
            at_ms: self.at_ms,
            ..v1::TapMediaKey::default()
        }
    }

    /// As a recording tap gets it.
    #[must_use]
    pub fn item(&self) -> v1::TapMediaKey {
        let mut item = self.announcement();
        if let Some(secret) = &self.secret {
            item.set_derivation(match secret.derivation {
                Derivation::Pbkdf2 => tap_media_key::Derivation::Pbkdf2,
                Derivation::Hkdf => tap_media_key::Derivation::Hkdf,
            });
            item.material = bytes::Bytes::copy_from_slice(&secret.material);
            item.salt = bytes::Bytes::copy_from_slice(secret.salt.as_bytes());
            (item.key_bits, item.ratchet_window) = (secret.bits, secret.ratchet_window);
        }
        item
    }
}
