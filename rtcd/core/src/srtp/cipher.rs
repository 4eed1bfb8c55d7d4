//! One direction's session keys and the two ways of using them.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroize;

use super::kdf::{Label, derive};
use super::profile::{MasterKeys, Profile, SrtpError};

/// Bytes of an HMAC-SHA1-80 tag.
pub(super) const SHA1_80_LEN: usize = 10;

/// A session key. The crypto library zeroes what it holds when dropped; the salts are ours to zero. No `Debug`.
pub(super) enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    // Boxed: 1.7 KiB that the usual peer does not have.
    CmSha1(Box<CmSha1>),
}

/// Keys of AES-CM with HMAC-SHA1-80.
pub(super) struct CmSha1 {
    pub(super) key: EncryptingKey,
    pub(super) authentication: hmac::Key,
    pub(super) salt: [u8; 14],
}

impl Drop for Cipher {
    fn drop(&mut self) {
        match self {
            Self::Gcm { salt, .. } => salt.zeroize(),
            Self::CmSha1(cm) => cm.salt.zeroize(),
        }
    }
}

/// Labels of one protocol.
pub(super) struct Labels {
    encryption: Label,
    authentication: Label,
    salt: Label,
}

pub(super) const RTP: Labels = Labels { encryption: Label::RtpEncryption, authentication: Label::RtpAuthentication, salt: Label::RtpSalt };
pub(super) const RTCP: Labels =
    Labels { encryption: Label::RtcpEncryption, authentication: Label::RtcpAuthentication, salt: Label::RtcpSalt };

impl Cipher {
    pub(super) fn new(master: &MasterKeys, labels: &Labels) -> Result<Self, SrtpError> {
        let keys = |_| SrtpError::Keys;
        match master.profile() {
            Profile::AeadAes128Gcm => {
                let key = derive::<16>(master, labels.encryption)?;
                let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_slice()).map_err(keys)?);
                Ok(Self::Gcm { key, salt: *derive::<12>(master, labels.salt)? })
            }
            Profile::AeadAes256Gcm => {
                let key = derive::<32>(master, labels.encryption)?;
                let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(keys)?);
                Ok(Self::Gcm { key, salt: *derive::<12>(master, labels.salt)? })
            }
            Profile::AesCm128HmacSha1_80 => {
                let key = derive::<16>(master, labels.encryption)?;
                let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key.as_slice()).map_err(keys)?).map_err(keys)?;
                let authentication = derive::<20>(master, labels.authentication)?;
                let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication.as_slice());
                Ok(Self::CmSha1(Box::new(CmSha1 { key, authentication, salt: *derive::<14>(master, labels.salt)? })))
            }
        }
    }
}

/// AES-GCM's nonce: `00 00 ‖ SSRC ‖ index (48 bits)`, salted. RTCP's index has its upper bits zero (RFC 7714 §8.1, §9.1).
#[inline]
pub(super) fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    // As words, not byte by byte: every packet needs one.
    let [a, b, c, d, tail @ ..] = *salt;
    let head = u32::from_be_bytes([a, b, c, d]) ^ (ssrc >> 16);
    let tail = u64::from_be_bytes(tail) ^ ((u64::from(ssrc) << 48) | (index & 0xFFFF_FFFF_FFFF));
    let [_, _, _, _, bytes @ ..] = ((u128::from(head) << 64) | u128::from(tail)).to_be_bytes();
    Nonce::assume_unique_for_key(bytes)
}

/// AES-CM's first counter block: `salt · 2^16 XOR SSRC · 2^64 XOR index · 2^16` (RFC 3711 §4.1.1).
#[inline]
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> EncryptionContext {
    let whole = ((u128::from(ssrc) << 64) | (u128::from(index & 0xFFFF_FFFF_FFFF) << 16)).to_be_bytes();
    let mut iv = whole;
    for (place, salt) in iv.iter_mut().zip(salt) {
        *place ^= salt;
    }
    EncryptionContext::Iv128(FixedLength::from(iv))
}

/// AES-CM over `bytes`, both ways.
#[inline]
pub(super) fn cm_apply(key: &EncryptingKey, salt: &[u8; 14], ssrc: u32, index: u64, bytes: &mut [u8]) -> Result<(), SrtpError> {
    key.less_safe_encrypt(bytes, cm_iv(salt, ssrc, index)).map(|_| ()).map_err(|_| SrtpError::Keys)
}

/// The first 80 bits of HMAC-SHA1 over `parts`.
#[inline]
pub(super) fn sha1_80(key: &hmac::Key, bytes: &[u8], suffix: &[u8]) -> [u8; SHA1_80_LEN] {
    let mut context = hmac::Context::with_key(key);
    context.update(bytes);
    context.update(suffix);
    context.sign().as_ref().first_chunk::<SHA1_80_LEN>().copied().unwrap_or_default()
}

/// Compares in constant time.
#[inline]
pub(super) fn verify_sha1_80(key: &hmac::Key, bytes: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
    verify_slices_are_equal(&sha1_80(key, bytes, suffix), tag).map_err(|_| SrtpError::Tag)
}

/// Opens `text ‖ tag` in place.
#[inline]
pub(super) fn gcm_open(key: &LessSafeKey, nonce: Nonce, aad: &[u8], text_and_tag: &mut [u8]) -> Result<(), SrtpError> {
    key.open_in_place(nonce, Aad::from(aad), text_and_tag).map(|_| ()).map_err(|_| SrtpError::Tag)
}
