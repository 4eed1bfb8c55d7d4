//! Making a bundle: everything is prepared and hashed first, then written in one go.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::{DERIVED, INDEX, Index, IndexFile, PUBLIC_KEY, README, SIGNATURE, SUMS, derived_name, segment_name, tar};
use crate::derived::Derivative;
use crate::keys::{DataKey, KeyError, SiteSigner};
use crate::manifest::Track;
use crate::read::{ReadError, Recording, read_bounded};
use crate::seal::{Seal, SealError};
use crate::tracks::{TrackError, write_files};
use crate::tree::{finish, sha256};
use crate::{FORMAT, MANIFEST_FILE, SEAL_FILE, SEGMENTS_DIR, limits};

/// A bundle cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A statement about a derived file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A track.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The disk.
    #[error("cannot write the bundle: {0}")]
    Io(#[from] io::Error),
    /// JSON.
    #[error("cannot write the index: {0}")]
    Json(#[from] serde_json::Error),
    /// A derived file is not the one that was signed for.
    #[error("derived file {0} is not the one that was signed for")]
    Derived(String),
}

/// A derived file to go into the bundle.
pub struct Extra {
    /// What the site said about it.
    pub statement: Derivative,
    /// Its plain bytes.
    pub path: PathBuf,
}

enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A bundle ready to be written.
pub struct Prepared {
    mtime_s: u64,
    files: Vec<(IndexFile, Source)>,
}

/// Decrypts the tracks into `work` (an empty folder, the caller's to remove), hashes and signs. The site's signature over a bundle
/// says that this is the site's record: what others sealed or made is refused.
pub fn prepare(
    dir: &Path,
    data_key: &DataKey,
    derived: Vec<Extra>,
    signer: &SiteSigner,
    work: &Path,
    now_ms: i64,
) -> Result<Prepared, ExportError> {
    let recording = Recording::open(dir, data_key)?;
    let seal_bytes = read_bounded(&dir.join(SEAL_FILE), limits::LINE_BYTES_MAX as u64)?;
    let seal = Seal::from_bytes(&seal_bytes)?;
    seal.verify_of(recording.manifest(), signer)?;
    let statements: Vec<&Derivative> = derived.iter().map(|extra| &extra.statement).collect();
    for statement in &statements {
        statement.verify_of(signer)?;
        if (&statement.recording_id, &statement.derived_from) != (&seal.recording_id, &seal.root) {
            return Err(ExportError::Derived(statement.name.clone()));
        }
    }
    let mut files = vec![
        bytes_entry(PUBLIC_KEY, signer.public().to_pem().into_bytes()),
        bytes_entry(README, include_bytes!("README.txt").to_vec()),
        file_entry(MANIFEST_FILE, dir.join(MANIFEST_FILE))?,
        bytes_entry(SEAL_FILE, seal_bytes),
        bytes_entry(DERIVED, serde_json::to_vec_pretty(&statements)?),
    ];
    for line in recording.manifest().segments() {
        let file = line.id().file_name();
        let entry = IndexFile { name: segment_name(&file), bytes: line.bytes, sha256: line.sha256.clone() };
        files.push((entry, Source::File(dir.join(SEGMENTS_DIR).join(&file))));
    }
    for track in recording.tracks().iter().filter(|track| !track.segments.is_empty()) {
        for (end, path) in write_files(&recording, track, work)? {
            files.push(file_entry(&format!("{}{end}", track_name(track)), path)?);
        }
    }
    for extra in derived {
        let entry = file_entry(&derived_name(&extra.statement.name), extra.path)?;
        if (entry.0.bytes, &entry.0.sha256) != (extra.statement.bytes, &extra.statement.sha256) {
            return Err(ExportError::Derived(extra.statement.name));
        }
        files.push(entry);
    }
    let sums: String = files.iter().map(|(file, _)| format!("{}  {}\n", file.sha256, file.name)).collect();
    files.insert(2, bytes_entry(SUMS, sums.into_bytes()));
    let index = Index {
        format: FORMAT,
        recording_id: seal.recording_id,
        exported_at_ms: now_ms,
        root: seal.root,
        public_key: signer.public().to_hex(),
        files: files.iter().map(|(file, _)| file.clone()).collect(),
    };
    let mut index_bytes = serde_json::to_vec_pretty(&index)?;
    index_bytes.push(b'\n');
    let signature = signer.sign(&index_bytes).to_vec();
    files.insert(0, bytes_entry(INDEX, index_bytes));
    files.insert(1, bytes_entry(SIGNATURE, signature));
    Ok(Prepared { mtime_s: u64::try_from(now_ms / 1000).unwrap_or(0), files })
}

impl Prepared {
    /// Length of the archive.
    pub fn bytes(&self) -> u64 {
        let files: u64 = self.files.iter().map(|(file, _)| (tar::BLOCK + tar::padding(file.bytes)) as u64 + file.bytes).sum();
        files + tar::END_BYTES as u64
    }

    /// Writes the archive.
    pub fn write(&self, out: &mut impl Write) -> Result<(), ExportError> {
        for (file, source) in &self.files {
            out.write_all(&tar::header(&file.name, file.bytes, self.mtime_s))?;
            let written = match source {
                Source::Bytes(bytes) => io::copy(&mut &bytes[..], out)?,
                // Never more than the header says, even if somebody appends meanwhile.
                Source::File(path) => io::copy(&mut File::open(path)?.take(file.bytes), out)?,
            };
            if written != file.bytes {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} became shorter", file.name)).into());
            }
            out.write_all(&[0; tar::BLOCK][..tar::padding(file.bytes)])?;
        }
        out.write_all(&[0; tar::END_BYTES])?;
        out.flush()?;
        Ok(())
    }
}

fn bytes_entry(name: &str, bytes: Vec<u8>) -> (IndexFile, Source) {
    let file = IndexFile { name: name.to_owned(), bytes: bytes.len() as u64, sha256: hex::encode(sha256(&bytes)) };
    (file, Source::Bytes(bytes))
}

fn file_entry(name: &str, path: PathBuf) -> io::Result<(IndexFile, Source)> {
    let mut file = File::open(&path)?;
    let (mut hash, mut bytes, mut part) = (Context::new(&SHA256), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        hash.update(&part[..read]);
        bytes += read as u64;
    }
    Ok((IndexFile { name: name.to_owned(), bytes, sha256: hex::encode(finish(hash)) }, Source::File(path)))
}

/// Number, person and kind, in letters that no file system minds.
fn track_name(track: &Track) -> String {
    let plain = |text: &str| -> String { text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(32).collect() };
    format!("tracks/{:05}-{}-{}", track.number, plain(&track.info.identity), plain(&track.info.source))
}
