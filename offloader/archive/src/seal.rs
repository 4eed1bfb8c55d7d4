//! The seal: the site's signature over a finished recording.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::keys::{KeyError, PublicKey, SiteSigner};
use crate::limits::{MANIFEST_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::manifest::{Manifest, SegmentLine};
use crate::read::{ReadError, read_bounded};
use crate::tree::sha256;
use crate::{FORMAT, MANIFEST_FILE, SEAL_FILE, SEGMENTS_DIR, files};

/// What is signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Version of the format.
    pub format: u32,
    /// The recording.
    pub recording_id: String,
    /// Lines of the manifest.
    pub size: u64,
    /// Tree root over them.
    pub root: String,
    /// SHA-256 of the last line.
    pub head: String,
    /// Number of segments.
    pub segments: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// When, Unix ms.
    pub sealed_at_ms: i64,
    /// Short name of the key.
    pub key_id: String,
    /// Public key that signs.
    pub public_key: String,
    /// Ed25519 over [`Seal::text`].
    pub signature: String,
}

/// A recording cannot be sealed, or a seal does not fit.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The recording.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No last line.
    #[error("the recording has not ended")]
    NotEnded,
    /// Manifest and seal differ.
    #[error("the seal does not fit the manifest: {0}")]
    Differs(&'static str),
    /// Signature or key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The disk.
    #[error("cannot write the seal: {0}")]
    Io(#[from] std::io::Error),
    /// Not a seal.
    #[error("the seal cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Seal {
    /// The signed text.
    pub fn text(&self) -> Vec<u8> {
        format!(
            "conclave seal v{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.format, self.recording_id, self.size, self.root, self.head, self.segments, self.bytes, self.sealed_at_ms, self.public_key
        )
        .into_bytes()
    }

    /// The bytes of `seal.json`.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SealError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads `seal.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Checks the signature and that this is the seal of this manifest. Gives the key: whose it is, is for the caller to know.
    pub fn verify(&self, manifest: &Manifest) -> Result<PublicKey, SealError> {
        let key = PublicKey::from_hex(&self.public_key)?;
        key.verify_hex("the seal", &self.text(), &self.signature)?;
        let (segments, bytes) = count(manifest);
        let fits = [
            (manifest.end.is_some(), "the manifest has no last line"),
            (self.recording_id == manifest.start.recording_id, "another recording"),
            (self.size == manifest.size(), "the number of lines"),
            (self.root == hex::encode(manifest.root()), "the tree root"),
            (self.head == hex::encode(manifest.head()), "the last line"),
            ((self.segments, self.bytes) == (segments, bytes), "the number or size of segments"),
            (self.key_id == key.id(), "the key's name"),
        ];
        match fits.into_iter().find(|(fits, _)| !fits) {
            Some((_, what)) => Err(SealError::Differs(what)),
            None => Ok(key),
        }
    }

    /// The same, and that the site itself sealed it and certified its attempts. The keys stand in what is checked: a recording
    /// that was written anew with keys of somebody's own fits together as well as the genuine one.
    pub fn verify_of(&self, manifest: &Manifest, site: &SiteSigner) -> Result<PublicKey, SealError> {
        let key = self.verify(manifest)?;
        site.check("the seal", key)?;
        for key in manifest.site_keys() {
            site.check("a capture attempt", *key)?;
        }
        Ok(key)
    }
}

fn count(manifest: &Manifest) -> (u64, u64) {
    manifest.segments().fold((0, 0), |(segments, bytes), line| (segments + 1, bytes + line.bytes))
}

/// Checks one segment's stored bytes against its line.
pub fn check_segment(line: &SegmentLine, bytes: &[u8]) -> Result<(), ReadError> {
    if bytes.len() as u64 == line.bytes && hex::encode(sha256(bytes)) == line.sha256 {
        Ok(())
    } else {
        Err(ReadError::Changed(line.id().file_name()))
    }
}

/// Checks every byte of an ended recording, then signs it. Sealing twice gives the first seal. What another site captured or
/// sealed is not taken.
pub fn seal(dir: &Path, signer: &SiteSigner, now_ms: i64) -> Result<Seal, SealError> {
    let bytes = read_bounded(&dir.join(MANIFEST_FILE), MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::parse(&bytes).map_err(ReadError::from)?;
    if manifest.end.is_none() {
        return Err(SealError::NotEnded);
    }
    for line in manifest.segments() {
        let path = dir.join(SEGMENTS_DIR).join(line.id().file_name());
        check_segment(line, &read_bounded(&path, SEGMENT_BYTES_MAX * 2)?)?;
    }
    let path = dir.join(SEAL_FILE);
    if path.exists() {
        let seal = Seal::from_bytes(&read_bounded(&path, 64 * 1024)?)?;
        seal.verify_of(&manifest, signer)?;
        return Ok(seal);
    }
    let seal = sign(&manifest, signer, now_ms);
    seal.verify_of(&manifest, signer)?;
    files::write_whole(&path, &seal.to_bytes()?)?;
    Ok(seal)
}

fn sign(manifest: &Manifest, signer: &SiteSigner, now_ms: i64) -> Seal {
    let (segments, bytes) = count(manifest);
    let mut seal = Seal {
        format: FORMAT,
        recording_id: manifest.start.recording_id.clone(),
        size: manifest.size(),
        root: hex::encode(manifest.root()),
        head: hex::encode(manifest.head()),
        segments,
        bytes,
        sealed_at_ms: now_ms,
        key_id: signer.public().id(),
        public_key: signer.public().to_hex(),
        signature: String::new(),
    };
    seal.signature = hex::encode(signer.sign(&seal.text()));
    seal
}
