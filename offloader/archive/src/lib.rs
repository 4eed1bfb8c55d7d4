//! The evidence format of a recording: segments, manifest, hash tree, signatures, export and verify.
//!
//! A recording is a folder that only grows while a call is captured ([`capture`]), is sealed once
//! ([`seal`]), read for what is derived from it ([`read`]) and exported as one file that anybody can check
//! without us ([`bundle`]). The bytes are described in `docs/recording-format.md`.
//!
//! Needs no server and no network. It does not read the clock: whoever calls says what time it is.

pub mod bundle;
pub mod capture;
pub mod derived;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod pause;
pub mod read;
pub mod record;
pub mod seal;
pub mod segment;
pub mod tracks;
pub mod tree;

mod files;

pub use files::free_bytes;

/// Name of the manifest inside a recording's folder.
pub const MANIFEST_FILE: &str = "manifest.jsonl";
/// Name of the seal inside a recording's folder.
pub const SEAL_FILE: &str = "seal.json";
/// Folder of the closed segments inside a recording's folder.
pub const SEGMENTS_DIR: &str = "segments";
/// Version of the format that this code writes.
pub const FORMAT: u32 = 1;
