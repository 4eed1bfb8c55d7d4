//! Media keys that were granted, and frames opened with them: AES-GCM as `livekit-client`'s and libwebrtc's frame cryptors use it.
//!
//! A key that ratchets is followed: who encrypts moves on without a word, and what the frames no longer fit is tried with the
//! next steps. Each step costs a key derivation of 100 000 rounds, so steps are rationed by the time that the packets came at.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, pbkdf2};
use zeroize::Zeroizing;

use super::frame::Sealed;
use crate::limits::{MEDIA_KEY_DERIVATION_US, MEDIA_KEY_DERIVATIONS, MEDIA_KEYS};

/// `livekit-client`'s own number.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// What `livekit-client` gives HKDF as its `info`.
const HKDF_INFO: [u8; 128] = [0; 128];
/// Of a ratchet's next material, whatever the key's length.
const STEP_BYTES: usize = 32;

/// How key bytes come of what was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// A passphrase: PBKDF2 with HMAC-SHA256.
    Pbkdf2,
    /// Random bytes: HKDF with SHA-256.
    Hkdf,
}

/// Whose key it is and who granted it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyName {
    /// Who granted it.
    pub by: String,
    /// Whose media it opens; empty: everybody's.
    pub of: String,
    /// Its number in the frames.
    pub index: u8,
}

/// A granted key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// How the key comes of it.
    pub derivation: Derivation,
    /// Passphrase or random bytes.
    pub material: Zeroizing<Vec<u8>>,
    /// For the derivation.
    pub salt: Vec<u8>,
    /// 128 or 256.
    pub bits: u32,
    /// Steps of its ratchet that are tried ahead.
    pub ratchet_window: usize,
}

impl fmt::Debug for Secret {
    /// Never what it is made of: it would end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("derivation", &self.derivation).field("bits", &self.bits).finish_non_exhaustive()
    }
}

/// All keys of a call.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Of before the source was opened again; used only once they are granted again.
    doubtful: Vec<Key>,
    ration: Ration,
}

#[derive(Debug)]
struct Key {
    name: KeyName,
    secret: Secret,
    /// Of [`Self::chain`]'s last; `secret.material` is the one it began with.
    material: Zeroizing<Vec<u8>>,
    /// The step before the current one, the current one, and those tried ahead.
    chain: Vec<LessSafeKey>,
    /// In the chain.
    current: usize,
}

/// Derivations that may still be made.
#[derive(Debug)]
struct Ration {
    left: u32,
    since_us: i64,
}

impl Default for Ration {
    fn default() -> Self {
        Self { left: MEDIA_KEY_DERIVATIONS, since_us: i64::MIN }
    }
}

impl Ration {
    fn take(&mut self, now_us: i64) -> bool {
        let more = now_us.saturating_sub(self.since_us) / MEDIA_KEY_DERIVATION_US;
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(MEDIA_KEY_DERIVATIONS);
            self.since_us = now_us;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

impl Keys {
    /// A key is granted. Again: instead of the one before.
    pub(super) fn handle_granted(&mut self, name: KeyName, secret: Secret) {
        if self.keys.iter().any(|key| key.name == name && key.secret == secret) {
            return;
        }
        self.keys.retain(|key| key.name != name);
        if let Some(at) = self.doubtful.iter().position(|key| key.name == name && key.secret == secret) {
            // It need not be derived again.
            self.keys.push(self.doubtful.swap_remove(at));
            return;
        }
        if self.keys.len() >= MEDIA_KEYS {
            tracing::warn!("more than {MEDIA_KEYS} media keys are granted: the oldest is forgotten");
            self.keys.remove(0);
        }
        self.keys.push(Key { name, material: secret.material.clone(), secret, chain: Vec::new(), current: 0 });
    }

    /// It is taken back.
    pub(super) fn handle_taken_back(&mut self, name: &KeyName) {
        self.keys.retain(|key| key.name != *name);
        self.doubtful.retain(|key| key.name != *name);
    }

    /// The source tells all that are granted now.
    pub(super) fn handle_reopened(&mut self) {
        self.doubtful = std::mem::take(&mut self.keys);
    }

    /// Opens a frame of somebody; the plain bytes, without its header. `None`: no key fits.
    pub(super) fn open(&mut self, identity: &str, at_us: i64, frame: &Sealed<'_>) -> Option<Vec<u8>> {
        let Self { keys, ration, .. } = self;
        let fits = |key: &&mut Key| key.name.index == frame.key_index && (key.name.of.is_empty() || key.name.of == identity);
        keys.iter_mut().rev().filter(fits).find_map(|key| key.open(ration, at_us, frame))
    }
}

#[cfg(test)]
impl Keys {
    pub(super) fn derived(&self) -> usize {
        self.keys.iter().map(|key| key.chain.len()).sum()
    }
}

impl Key {
    fn open(&mut self, ration: &mut Ration, at_us: i64, frame: &Sealed<'_>) -> Option<Vec<u8>> {
        // The newest that was right first.
        let tried = (self.current..=self.current + self.secret.ratchet_window).chain(0..self.current);
        for n in tried {
            if n >= self.chain.len() {
                if !ration.take(at_us) {
                    return None;
                }
                self.step()?;
            }
            let Some(plain) = self.chain.get(n).and_then(|key| open(key, frame)) else { continue };
            if n > self.current {
                // Frames of another track may still be a step behind.
                self.chain.drain(..n - 1);
                self.current = 1;
            }
            return Some(plain);
        }
        None
    }

    /// The next key of the chain.
    fn step(&mut self) -> Option<()> {
        if !self.chain.is_empty() {
            let mut next = Zeroizing::new(vec![0; STEP_BYTES]);
            derive(&self.secret, &self.material, &mut next)?;
            self.material = next;
        }
        let algorithm = if self.secret.bits == 256 { &AES_256_GCM } else { &AES_128_GCM };
        let mut bytes = Zeroizing::new(vec![0; algorithm.key_len()]);
        derive(&self.secret, &self.material, &mut bytes)?;
        self.chain.push(LessSafeKey::new(UnboundKey::new(algorithm, &bytes).ok()?));
        Some(())
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(secret: &Secret, material: &[u8], out: &mut [u8]) -> Option<()> {
    match secret.derivation {
        Derivation::Pbkdf2 => {
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &secret.salt, material, out);
            Some(())
        }
        Derivation::Hkdf => {
            let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &secret.salt).extract(material);
            key.expand(&[&HKDF_INFO], Length(out.len())).and_then(|bytes| bytes.fill(out)).ok()
        }
    }
}

fn open(key: &LessSafeKey, frame: &Sealed<'_>) -> Option<Vec<u8>> {
    let mut plain = vec![0; frame.cipher.len()];
    let nonce = Nonce::from(&frame.iv);
    key.open_separate_gather(nonce, Aad::from(frame.header), frame.cipher, frame.tag, &mut plain).ok()?;
    Some(plain)
}
