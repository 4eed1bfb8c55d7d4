//! A recording as one `.tar` that anybody can check without us.
//!
//! ```text
//! index.json        every other file with its length and SHA-256
//! index.json.sig    Ed25519 over index.json (64 bytes: what openssl takes)
//! public-key.pem    the key
//! README.txt        how to check and open
//! SHA256SUMS        for sha256sum -c
//! manifest.jsonl    what happened, line by line
//! seal.json         the site's signature on it
//! derived.json      what the site says about the files made from it
//! segments/…        the stored bytes, encrypted
//! tracks/…          each track decrypted, for standard tools
//! derived/…         media for people, transcripts
//! ```
//!
//! Every byte of it counts: file contents by the index, the index by its signature, and the frame around
//! them because there is only one way to write it ([`tar`]).

mod export;
pub mod tar;
mod verify;

use serde::{Deserialize, Serialize};

pub use export::{ExportError, Extra, Prepared, prepare};
pub use verify::{Bad, Report, verify_bundle};

/// First file.
pub(crate) const INDEX: &str = "index.json";
/// Second file.
pub(crate) const SIGNATURE: &str = "index.json.sig";
/// Third file.
pub(crate) const PUBLIC_KEY: &str = "public-key.pem";
const SUMS: &str = "SHA256SUMS";
const README: &str = "README.txt";
pub(crate) const DERIVED: &str = "derived.json";

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    format: u32,
    recording_id: String,
    exported_at_ms: i64,
    /// Root of the seal inside.
    root: String,
    /// Key that signs this index.
    public_key: String,
    files: Vec<IndexFile>,
}

/// A file in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Name of a segment in the bundle.
pub(crate) fn segment_name(file: &str) -> String {
    format!("segments/{file}")
}

/// Name of a derived file in the bundle.
pub(crate) fn derived_name(name: &str) -> String {
    format!("derived/{name}")
}
