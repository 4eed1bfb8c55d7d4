//! Keys: who may open a recording and who signs for it.
//!
//! * The **site key** (AES-256) wraps one **data key** for each recording. Nothing is encrypted with the
//!   data key itself: every file gets its own key by HKDF-SHA256 from it and from the file's place
//!   (recording, track, index, fence). Nonces are counters inside one file, so no pair of key and nonce can
//!   come twice, not even when two attempts write the same index.
//! * The **site signer** (Ed25519) signs seals, derived files and exports. It never leaves the offloader:
//!   a capture process gets an **attempt key** of its own, good for one fence of one recording, with the
//!   site's signature on it, and signs its checkpoints with that.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, RandomizedNonceKey, UnboundKey};
use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::tree::sha256;

/// SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key is missing, malformed or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Wrong length or not hexadecimal.
    #[error("{0} must be {1} bytes in hexadecimal")]
    Hex(&'static str, usize),
    /// The wrapped key was not wrapped by this site key for this recording.
    #[error("the data key does not open: it was wrapped by another site key, or for another recording")]
    Unwrap,
    /// A sealed text is not what this key sealed for this purpose.
    #[error("a sealed secret does not open with the recording's key")]
    Text,
    /// Not an Ed25519 key in PKCS#8.
    #[error("the signing key is not an Ed25519 key in PKCS#8")]
    Pkcs8,
    /// Not a public key in the PEM form that we write.
    #[error("the public key is not an Ed25519 key in PEM form")]
    Pem,
    /// A signature does not fit.
    #[error("the signature on {0} does not fit the key")]
    Signature(&'static str),
    /// A good signature, of somebody else.
    #[error(
        "{0} is signed with the key {1}, which is none of this site's: if the site signed with it before, name the file of its public \
         key in OFFLOADER_OLDER_SIGNING_KEYS; if not, this is not what the site recorded"
    )]
    Foreign(&'static str, String),
    /// The cryptographic library refused.
    #[error("the cryptographic library refused: {0}")]
    Library(&'static str),
}

/// Key of one recording. No `Debug`: it must not get into a log.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random()?))
    }

    /// Reads the form that [`DataKey::to_hex`] writes.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Ok(Self(fixed_hex("the data key", text)?))
    }

    /// For handing it to a worker.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The key of one file, from the file's place.
    pub(crate) fn file_key(&self, recording_id: &str, place: &[&[u8]]) -> Result<LessSafeKey, KeyError> {
        let refused = |_| KeyError::Library("HKDF");
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, recording_id.as_bytes()).extract(&self.0);
        let okm = prk.expand(place, &AES_256_GCM).map_err(refused)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }

    /// Seals a short secret that lies beside the recording's rows, for one purpose (AES-256-GCM, random nonce), as hexadecimal.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn seal_text(&self, purpose: &'static str, text: &str) -> Result<String, KeyError> {
        let nonce: [u8; 12] = random()?;
        let mut sealed = text.as_bytes().to_vec();
        let key = self.file_key(TEXT_PLACE, &[purpose.as_bytes()])?;
        let refused = |_| KeyError::Library("AES-GCM");
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).map_err(refused)?;
        Ok(hex::encode(nonce) + &hex::encode(sealed))
    }

    /// Opens what [`DataKey::seal_text`] made for that purpose.
    ///
    /// # Errors
    /// When it is something else.
    pub fn open_text(&self, purpose: &'static str, sealed: &str) -> Result<String, KeyError> {
        let sealed = hex::decode(sealed).map_err(|_| KeyError::Text)?;
        let (nonce, sealed) = sealed.split_at_checked(12).ok_or(KeyError::Text)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Text)?;
        let mut sealed = sealed.to_vec();
        let key = self.file_key(TEXT_PLACE, &[purpose.as_bytes()])?;
        let plain = key.open_in_place(nonce, Aad::empty(), &mut sealed).map_err(|_| KeyError::Text)?;
        String::from_utf8(plain.to_vec()).map_err(|_| KeyError::Text)
    }
}

/// Where the keys of short secrets stand among those of files: no recording has this id.
const TEXT_PLACE: &str = "text";

/// Nonce of block `counter` of a file; the last block has a mark of its own, so cutting a file is noticed.
pub(crate) fn block_nonce(counter: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&counter.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// The key that wraps data keys. No `Debug`.
#[derive(Clone)]
pub struct SiteKey([u8; 32]);

impl SiteKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random()?))
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Ok(Self(fixed_hex("the site key", text.trim())?))
    }

    /// For the key file.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Names the key without telling it.
    pub fn id(&self) -> String {
        let mut named = b"conclave site key id\n".to_vec();
        named.extend_from_slice(&self.0);
        short_id(&named)
    }

    /// Wraps a data key for one recording (AES-256-GCM, random nonce, bound to the recording).
    pub fn wrap(&self, recording_id: &str, key: &DataKey) -> Result<String, KeyError> {
        let refused = |_| KeyError::Library("AES-GCM");
        let wrapping = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(refused)?;
        let mut sealed = key.0.to_vec();
        let nonce = wrapping.seal_in_place_append_tag(Aad::from(wrap_context(recording_id)), &mut sealed).map_err(refused)?;
        let mut wrapped = nonce.as_ref().to_vec();
        wrapped.extend_from_slice(&sealed);
        Ok(hex::encode(wrapped))
    }

    /// Opens what [`SiteKey::wrap`] made.
    pub fn unwrap(&self, recording_id: &str, wrapped: &str) -> Result<DataKey, KeyError> {
        let wrapped = hex::decode(wrapped).map_err(|_| KeyError::Unwrap)?;
        let (nonce, sealed) = wrapped.split_at_checked(12).ok_or(KeyError::Unwrap)?;
        let mut sealed = sealed.to_vec();
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| KeyError::Library("AES-GCM"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Unwrap)?;
        let plain =
            LessSafeKey::new(key).open_in_place(nonce, Aad::from(wrap_context(recording_id)), &mut sealed).map_err(|_| KeyError::Unwrap)?;
        Ok(DataKey(plain.try_into().map_err(|_| KeyError::Unwrap)?))
    }
}

fn wrap_context(recording_id: &str) -> Vec<u8> {
    format!("conclave data key v1\n{recording_id}").into_bytes()
}

/// Signs for the site, and knows what the site signed with before. No `Debug`.
pub struct SiteSigner {
    pair: Ed25519KeyPair,
    older: Vec<PublicKey>,
}

impl SiteSigner {
    /// A new random key, as the PKCS#8 bytes for the key file.
    pub fn generate_pkcs8() -> Result<Vec<u8>, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Library("Ed25519"))?;
        // Version 1 of PKCS#8: what `openssl pkey` reads.
        Ok(pair.to_pkcs8v1().map_err(|_| KeyError::Library("Ed25519"))?.as_ref().to_vec())
    }

    /// Reads a key file: PKCS#8, as DER or PEM.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = match std::str::from_utf8(bytes) {
            Ok(text) if text.trim_start().starts_with("-----BEGIN") => {
                let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
                BASE64.decode(body.trim()).map_err(|_| KeyError::Pkcs8)?
            }
            _ => bytes.to_vec(),
        };
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| KeyError::Pkcs8)?;
        Ok(Self { pair, older: Vec::new() })
    }

    /// With the keys that the site signed with before this one.
    #[must_use]
    pub fn with_older(self, older: Vec<PublicKey>) -> Self {
        Self { older, ..self }
    }

    /// Whether the site signs with this key, or has done so.
    pub fn knows(&self, key: PublicKey) -> bool {
        key == self.public() || self.older.contains(&key)
    }

    /// Refuses what somebody else signed; `what` names the thing in the error.
    pub fn check(&self, what: &'static str, key: PublicKey) -> Result<(), KeyError> {
        if self.knows(key) { Ok(()) } else { Err(KeyError::Foreign(what, key.id())) }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        public_of(&self.pair)
    }

    /// Signs some bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        signature_of(&self.pair, message)
    }

    /// Everything a capture process needs for one attempt.
    pub fn grant(
        &self,
        recording_id: &str,
        fence: u64,
        data_key: &DataKey,
        wrapped_key: &str,
        site_key_id: &str,
    ) -> Result<AttemptGrant, KeyError> {
        let seed: [u8; 32] = random()?;
        let attempt = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Library("Ed25519"))?;
        let key = public_of(&attempt).to_hex();
        let signature = hex::encode(self.sign(&certificate_text(recording_id, fence, &key)));
        Ok(AttemptGrant {
            recording_id: recording_id.to_owned(),
            fence,
            data_key: data_key.to_hex(),
            wrapped_key: wrapped_key.to_owned(),
            site_key_id: site_key_id.to_owned(),
            attempt_seed: hex::encode(seed),
            certificate: Certificate { key, signer: self.public().to_hex(), signature },
        })
    }
}

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Ok(Self(fixed_hex("a public key", text)?))
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Short name of the key.
    pub fn id(self) -> String {
        short_id(&self.0)
    }

    /// PEM, for OpenSSL and people.
    pub fn to_pem(self) -> String {
        let mut der = SPKI_PREFIX.to_vec();
        der.extend_from_slice(&self.0);
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
    }

    /// Reads exactly what [`PublicKey::to_pem`] writes: nothing in a bundle may have two spellings.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = BASE64.decode(body).map_err(|_| KeyError::Pem)?;
        let key = der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).ok_or(KeyError::Pem)?;
        let key = Self(key);
        if key.to_pem() == text { Ok(key) } else { Err(KeyError::Pem) }
    }

    /// Checks a signature over `message`; `what` names the thing in the error.
    pub fn verify(self, what: &'static str, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).map_err(|_| KeyError::Signature(what))
    }

    /// Same, with the signature in hexadecimal.
    pub fn verify_hex(self, what: &'static str, message: &[u8], signature: &str) -> Result<(), KeyError> {
        let signature: [u8; 64] = fixed_hex("a signature", signature).map_err(|_| KeyError::Signature(what))?;
        self.verify(what, message, &signature)
    }
}

/// What a capture process gets for one attempt. Secret: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct AttemptGrant {
    /// The recording.
    pub recording_id: String,
    /// The attempt's fence.
    pub fence: u64,
    /// Data key, hexadecimal.
    pub data_key: String,
    /// The same key as it lies in the manifest.
    pub wrapped_key: String,
    /// Which site key wrapped it.
    pub site_key_id: String,
    /// Ed25519 seed of the attempt key, hexadecimal.
    pub attempt_seed: String,
    /// The site's word for the attempt key.
    pub certificate: Certificate,
}

impl AttemptGrant {
    /// The data key.
    pub fn data_key(&self) -> Result<DataKey, KeyError> {
        DataKey::from_hex(&self.data_key)
    }

    pub(crate) fn signer(&self) -> Result<AttemptSigner, KeyError> {
        let seed: [u8; 32] = fixed_hex("the attempt key", &self.attempt_seed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Library("Ed25519"))?;
        Ok(AttemptSigner { pair })
    }
}

/// The site's signature on an attempt key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Public attempt key.
    pub key: String,
    /// Public site key that signed.
    pub signer: String,
    /// Signature over recording, fence and attempt key.
    pub signature: String,
}

impl Certificate {
    /// Checks the certificate; gives the site key and the attempt key.
    pub fn verify(&self, recording_id: &str, fence: u64) -> Result<(PublicKey, PublicKey), KeyError> {
        let signer = PublicKey::from_hex(&self.signer)?;
        signer.verify_hex("an attempt key", &certificate_text(recording_id, fence, &self.key), &self.signature)?;
        Ok((signer, PublicKey::from_hex(&self.key)?))
    }
}

/// Signs the checkpoints of one attempt.
pub(crate) struct AttemptSigner {
    pair: Ed25519KeyPair,
}

impl AttemptSigner {
    pub(crate) fn sign_hex(&self, message: &[u8]) -> String {
        hex::encode(signature_of(&self.pair, message))
    }
}

fn certificate_text(recording_id: &str, fence: u64, key: &str) -> Vec<u8> {
    format!("conclave attempt key v1\n{recording_id}\n{fence}\n{key}\n").into_bytes()
}

fn public_of(pair: &Ed25519KeyPair) -> PublicKey {
    let mut key = [0; 32];
    key.copy_from_slice(pair.public_key().as_ref());
    PublicKey(key)
}

fn signature_of(pair: &Ed25519KeyPair, message: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature.copy_from_slice(pair.sign(message).as_ref());
    signature
}

fn short_id(bytes: &[u8]) -> String {
    hex::encode(&sha256(bytes)[..8])
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Library("random numbers"))?;
    Ok(bytes)
}

/// Lower case only: a value has one spelling.
fn fixed_hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) if hex::encode(bytes) == text => Ok(bytes),
        _ => Err(KeyError::Hex(what, N)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_key_opens_for_its_recording_only() {
        let (site, key) = (SiteKey::generate().unwrap(), DataKey::generate().unwrap());
        let wrapped = site.wrap("a", &key).unwrap();
        assert_eq!(site.unwrap("a", &wrapped).unwrap().to_hex(), key.to_hex());
        assert!(site.unwrap("b", &wrapped).is_err());
        assert!(SiteKey::generate().unwrap().unwrap("a", &wrapped).is_err());
    }

    #[test]
    fn sealed_text_opens_with_its_key_for_its_purpose_only() {
        let key = DataKey::generate().unwrap();
        let sealed = key.seal_text("a", "secret").unwrap();
        assert_eq!(key.open_text("a", &sealed).unwrap(), "secret");
        assert!(!sealed.contains(&hex::encode("secret")) && sealed != key.seal_text("a", "secret").unwrap());
        assert!(key.open_text("b", &sealed).is_err());
        assert!(DataKey::generate().unwrap().open_text("a", &sealed).is_err());
        for broken in ["", "zz", "00", &sealed[2..]] {
            assert!(key.open_text("a", broken).is_err());
        }
    }

    #[test]
    fn certificate_is_good_for_one_fence_of_one_recording() {
        let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
        let grant = signer.grant("a", 3, &DataKey::generate().unwrap(), "", "").unwrap();
        let (site, attempt) = grant.certificate.verify("a", 3).unwrap();
        assert_eq!(site, signer.public());
        assert!(grant.certificate.verify("a", 4).is_err());
        assert!(grant.certificate.verify("b", 3).is_err());
        let signature = grant.signer().unwrap().sign_hex(b"x");
        attempt.verify_hex("x", b"x", &signature).unwrap();
        assert!(attempt.verify_hex("x", b"x", &signature.to_uppercase()).is_err());
    }

    #[test]
    fn public_key_has_one_spelling() {
        let key = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap().public();
        let pem = key.to_pem();
        assert_eq!(PublicKey::from_pem(&pem).unwrap(), key);
        assert!(PublicKey::from_pem(&pem.replace('\n', "\r\n")).is_err());
        assert!(PublicKey::from_pem(&format!("{pem}\n")).is_err());
    }
}
