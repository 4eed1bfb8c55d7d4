//! Files made from a recording (media for people, transcripts): kept encrypted, readable at any offset.
//!
//! ```text
//! magic "CNCLDRV1" | salt (16) | plain length u64              (32 bytes, authenticated with every chunk)
//! AES-256-GCM(chunk of 64 KiB) with tag …                      last chunk: nonce with the "last" mark
//! ```

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{Aad, LessSafeKey};
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::keys::{DataKey, KeyError, PublicKey, SiteSigner, block_nonce, random};
use crate::limits::CHUNK_BYTES;
use crate::tree::{Hash, finish};

const MAGIC: &[u8; 8] = b"CNCLDRV1";
/// Bytes before the first chunk.
pub const HEAD_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const SEALED_CHUNK_BYTES: u64 = (CHUNK_BYTES + TAG_BYTES) as u64;

/// A derived file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DerivedError {
    /// Reading or writing.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not such a file.
    #[error("not a derived file of this archive")]
    Head,
    /// Changed, cut or another key.
    #[error("chunk {0} does not open: changed, cut, or written with another key")]
    Chunk(u64),
    /// The source changed its length while it was read.
    #[error("the file changed while it was stored")]
    Length,
}

/// What the site says about a derived file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivative {
    /// The recording.
    pub recording_id: String,
    /// Root of the recording it was made from.
    pub derived_from: String,
    /// File name.
    pub name: String,
    /// Media type.
    pub mime: String,
    /// Plain bytes.
    pub bytes: u64,
    /// SHA-256 of the plain bytes.
    pub sha256: String,
    /// What made it: program, version, model.
    pub tool: String,
    /// When, Unix ms.
    pub made_at_ms: i64,
    /// Public key that signs.
    pub public_key: String,
    /// Ed25519 over the fields above.
    pub signature: String,
}

impl Derivative {
    fn text(&self) -> Vec<u8> {
        // Lengths before texts: no two statements share one spelling.
        let mut text = b"conclave derivative v1\n".to_vec();
        let fields = [
            self.recording_id.clone(),
            self.derived_from.clone(),
            self.name.clone(),
            self.mime.clone(),
            self.bytes.to_string(),
            self.sha256.clone(),
            self.tool.clone(),
            self.made_at_ms.to_string(),
            self.public_key.clone(),
        ];
        for field in fields {
            text.extend_from_slice(format!("{}:{field}\n", field.len()).as_bytes());
        }
        text
    }

    /// Signs it.
    pub fn signed(mut self, signer: &SiteSigner) -> Self {
        self.public_key = signer.public().to_hex();
        self.signature = hex::encode(signer.sign(&self.text()));
        self
    }

    /// Checks the signature; gives the key.
    pub fn verify(&self) -> Result<PublicKey, KeyError> {
        let key = PublicKey::from_hex(&self.public_key)?;
        key.verify_hex("a derived file", &self.text(), &self.signature)?;
        Ok(key)
    }

    /// The same, and that it is the site's own.
    pub fn verify_of(&self, site: &SiteSigner) -> Result<(), KeyError> {
        site.check("a derived file", self.verify()?)
    }
}

/// Hash and length of what was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of the plain bytes.
    pub plain_sha256: Hash,
    /// SHA-256 of the stored bytes: the object's name.
    pub stored_sha256: Hash,
    /// Stored bytes.
    pub stored_bytes: u64,
}

/// Encrypts `plain_bytes` from `source` into `out`.
pub fn encrypt(
    mut source: impl Read,
    plain_bytes: u64,
    mut out: impl Write,
    recording_id: &str,
    name: &str,
    data_key: &DataKey,
) -> Result<Stored, DerivedError> {
    let head = head(random()?, plain_bytes);
    let key = chunk_key(&head, recording_id, name, data_key)?;
    let (mut plain_hash, mut stored_hash) = (Context::new(&SHA256), Context::new(&SHA256));
    out.write_all(&head)?;
    stored_hash.update(&head);
    let mut stored_bytes = head.len() as u64;
    for chunk in 0..chunks(plain_bytes) {
        let length = chunk_len(chunk, plain_bytes);
        let mut block = vec![0; length];
        source.read_exact(&mut block)?;
        plain_hash.update(&block);
        key.seal_in_place_append_tag(nonce(chunk, plain_bytes), Aad::from(head), &mut block).map_err(|_| KeyError::Library("AES-GCM"))?;
        out.write_all(&block)?;
        stored_hash.update(&block);
        stored_bytes += block.len() as u64;
    }
    if source.read(&mut [0])? != 0 {
        return Err(DerivedError::Length);
    }
    out.flush()?;
    Ok(Stored { plain_sha256: finish(plain_hash), stored_sha256: finish(stored_hash), stored_bytes })
}

/// Opens a derived file at any place: ask [`DerivedReader::stored_range`] which bytes to fetch.
pub struct DerivedReader {
    head: [u8; HEAD_BYTES],
    key: LessSafeKey,
    plain_bytes: u64,
}

impl DerivedReader {
    /// From the first [`HEAD_BYTES`] bytes.
    pub fn new(head: &[u8], recording_id: &str, name: &str, data_key: &DataKey) -> Result<Self, DerivedError> {
        let head: [u8; HEAD_BYTES] = head.try_into().map_err(|_| DerivedError::Head)?;
        let (magic, length) = (&head[..8], &head[24..]);
        if magic != MAGIC {
            return Err(DerivedError::Head);
        }
        let plain_bytes = u64::from_be_bytes(length.try_into().map_err(|_| DerivedError::Head)?);
        Ok(Self { head, key: chunk_key(&head, recording_id, name, data_key)?, plain_bytes })
    }

    /// Plain length of the file.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        chunks(self.plain_bytes)
    }

    /// Where a chunk lies in the stored bytes.
    pub fn stored_range(&self, chunk: u64) -> std::ops::Range<u64> {
        let start = HEAD_BYTES as u64 + chunk * SEALED_CHUNK_BYTES;
        start..start + (chunk_len(chunk, self.plain_bytes) + TAG_BYTES) as u64
    }

    /// Opens a chunk's stored bytes.
    pub fn open(&self, chunk: u64, stored: &[u8]) -> Result<Vec<u8>, DerivedError> {
        let mut block = stored.to_vec();
        let length = self
            .key
            .open_in_place(nonce(chunk, self.plain_bytes), Aad::from(self.head), &mut block)
            .map_err(|_| DerivedError::Chunk(chunk))?
            .len();
        block.truncate(length);
        Ok(block)
    }
}

fn head(salt: [u8; 16], plain_bytes: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..24].copy_from_slice(&salt);
    head[24..].copy_from_slice(&plain_bytes.to_be_bytes());
    head
}

fn chunk_key(head: &[u8; HEAD_BYTES], recording_id: &str, name: &str, data_key: &DataKey) -> Result<LessSafeKey, KeyError> {
    data_key.file_key(recording_id, &[b"derived\n", name.as_bytes(), b"\n", head])
}

/// An empty file has one empty chunk: its absence is noticed too.
fn chunks(plain_bytes: u64) -> u64 {
    plain_bytes.div_ceil(CHUNK_BYTES as u64).max(1)
}

fn chunk_len(chunk: u64, plain_bytes: u64) -> usize {
    plain_bytes.saturating_sub(chunk * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64) as usize
}

fn nonce(chunk: u64, plain_bytes: u64) -> aws_lc_rs::aead::Nonce {
    block_nonce(chunk, chunk + 1 == chunks(plain_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(length: usize) {
        let key = DataKey::generate().unwrap();
        let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut stored = Vec::new();
        let told = encrypt(&plain[..], length as u64, &mut stored, "r", "media.mp4", &key).unwrap();
        assert_eq!(told.stored_bytes, stored.len() as u64);
        let reader = DerivedReader::new(&stored[..HEAD_BYTES], "r", "media.mp4", &key).unwrap();
        let mut opened = Vec::new();
        for chunk in 0..reader.chunks() {
            let range = reader.stored_range(chunk);
            opened.extend(reader.open(chunk, &stored[range.start as usize..range.end as usize]).unwrap());
        }
        assert_eq!(opened, plain);
        assert_eq!(crate::tree::sha256(&plain), told.plain_sha256);
        let other = DerivedReader::new(&stored[..HEAD_BYTES], "r", "other.mp4", &key).unwrap();
        let range = other.stored_range(0);
        assert!(other.open(0, &stored[range.start as usize..range.end as usize]).is_err());
    }

    #[test]
    fn any_length_reads_back_chunk_by_chunk() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            round_trip(length);
        }
    }

    #[test]
    fn statement_holds_until_a_field_changes() {
        let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
        let statement = Derivative {
            recording_id: "r".into(),
            derived_from: "00".into(),
            name: "a".into(),
            mime: "b".into(),
            bytes: 1,
            sha256: "cc".into(),
            tool: "t".into(),
            made_at_ms: 5,
            public_key: String::new(),
            signature: String::new(),
        }
        .signed(&signer);
        assert_eq!(statement.verify().unwrap(), signer.public());
        let changed = Derivative { name: "ab".into(), mime: String::new(), ..statement };
        assert!(changed.verify().is_err());
    }
}
