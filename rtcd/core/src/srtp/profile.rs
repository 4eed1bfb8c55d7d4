//! Protection profiles and the master keys that DTLS exports for them.

use thiserror::Error;
use zeroize::Zeroize;

/// How packets are protected, as DTLS `use_srtp` negotiates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// RFC 7714, 128-bit keys. Our first choice: five times cheaper than AES-CM with HMAC-SHA1 at video sizes.
    AeadAes128Gcm,
    /// RFC 7714, 256-bit keys, for sites whose policy demands them.
    AeadAes256Gcm,
    /// RFC 3711, the one every WebRTC endpoint must have.
    AesCm128HmacSha1_80,
}

impl Profile {
    /// Name in the RFCs and in `use_srtp` registries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
        }
    }

    /// Bytes of the master key.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AesCm128HmacSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of the master salt.
    #[must_use]
    pub fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::AesCm128HmacSha1_80 => 14,
        }
    }

    /// Bytes of the authentication tag.
    #[must_use]
    pub fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::AesCm128HmacSha1_80 => 10,
        }
    }

    /// Bytes of keying material to export from DTLS (RFC 5764 §4.2).
    #[must_use]
    pub fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Why a packet could not be opened or sealed. Each has its own counter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SrtpError {
    /// Not even a header and a tag. The sender's fault.
    #[error("packet too short or header damaged")]
    Malformed,
    /// The tag is wrong: forged, damaged, or under other keys.
    #[error("authentication tag does not match")]
    Tag,
    /// Seen before, or older than the window.
    #[error("replayed packet")]
    Replayed,
    /// Authentic, but from one more source than a transport may have.
    #[error("more sources than the bound of a transport")]
    TooManySources,
    /// SRTCP without encryption; WebRTC always encrypts (RFC 8827 §6.5).
    #[error("SRTCP packet is not encrypted")]
    NotEncrypted,
    /// Our own mistake: the slot is too small for packet and tag.
    #[error("send slot too small")]
    SlotTooSmall,
    /// Our own limit: all 2^48 packets or 2^31 control packets of these keys are used up; a new handshake is needed.
    #[error("packet index exhausted, new keys are needed")]
    Exhausted,
    /// Keying material of a wrong length, or the crypto library refused it.
    #[error("keying material does not fit the profile")]
    Keys,
}

impl SrtpError {
    /// Name of the counter for it.
    #[must_use]
    pub fn counter(self) -> &'static str {
        match self {
            Self::Malformed => "srtp_malformed",
            Self::Tag => "srtp_bad_tag",
            Self::Replayed => "srtp_replayed",
            Self::TooManySources => "srtp_too_many_sources",
            Self::NotEncrypted => "srtp_not_encrypted",
            Self::SlotTooSmall => "srtp_slot_too_small",
            Self::Exhausted => "srtp_exhausted",
            Self::Keys => "srtp_bad_keys",
        }
    }
}

/// Master key and salt of one direction. Zeroed when dropped; has no `Debug`.
#[derive(Clone)]
pub struct MasterKeys {
    key: [u8; 32],
    salt: [u8; 14],
    profile: Profile,
}

impl MasterKeys {
    /// From separate parts; lengths must be the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(SrtpError::Keys);
        }
        let mut this = Self { key: [0; 32], salt: [0; 14], profile };
        this.key.get_mut(..key.len()).ok_or(SrtpError::Keys)?.copy_from_slice(key);
        this.salt.get_mut(..salt.len()).ok_or(SrtpError::Keys)?.copy_from_slice(salt);
        Ok(this)
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..self.profile.key_len()).unwrap_or_default()
    }

    /// The salt, padded with zeros to 14 bytes (RFC 7714 §11: 96-bit salts are followed by 16 zero bits in the derivation).
    pub(super) fn salt_padded(&self) -> &[u8; 14] {
        &self.salt
    }
}

impl Drop for MasterKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

/// Cuts exported DTLS keying material into `(client's, server's)` master keys (RFC 5764 §4.2). What the client seals
/// is opened with the first.
pub fn split_keying_material(profile: Profile, material: &[u8]) -> Result<(MasterKeys, MasterKeys), SrtpError> {
    let (keys, salts) = material.split_at_checked(2 * profile.key_len()).ok_or(SrtpError::Keys)?;
    let (client_key, server_key) = keys.split_at_checked(profile.key_len()).ok_or(SrtpError::Keys)?;
    let (client_salt, server_salt) = salts.split_at_checked(profile.salt_len()).ok_or(SrtpError::Keys)?;
    Ok((MasterKeys::new(profile, client_key, client_salt)?, MasterKeys::new(profile, server_key, server_salt)?))
}
