//! Checking a bundle, byte by byte, without a key, an account or a network.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

use super::{DERIVED, INDEX, Index, IndexFile, PUBLIC_KEY, SIGNATURE, derived_name, segment_name, tar};
use crate::derived::Derivative;
use crate::keys::PublicKey;
use crate::limits::{INDEX_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::manifest::Manifest;
use crate::seal::Seal;
use crate::tree::finish;
use crate::{FORMAT, MANIFEST_FILE, SEAL_FILE};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every byte is as it was signed.
    pub ok: bool,
    /// The recording.
    pub recording_id: String,
    /// Tree root of the recording.
    pub root: String,
    /// The index, the seal and all statements carry good signatures.
    pub signature_ok: bool,
    /// Key that signed the export.
    pub key_id: String,
    /// Key that sealed the recording: an older one after the site changed keys.
    pub seal_key_id: String,
    /// When it was sealed, Unix ms.
    pub sealed_at_ms: i64,
    /// When it was exported, Unix ms.
    pub exported_at_ms: i64,
    /// Segments checked.
    pub checked_segments: u64,
    /// Files checked.
    pub checked_files: u64,
    /// Bytes checked.
    pub checked_bytes: u64,
    /// The first thing that does not hold.
    pub first_bad: Option<Bad>,
}

/// The first thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The file inside the bundle: a segment, or another.
    pub segment: String,
    /// What is wrong with it.
    pub reason: String,
    /// Where it begins in the bundle, in bytes.
    pub offset: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_bad {
            None => writeln!(f, "OK: every byte is as it was signed")?,
            Some(bad) => writeln!(f, "CHANGED: {}: {} (at byte {} of the bundle)", bad.segment, bad.reason, bad.offset)?,
        }
        writeln!(f, "recording   {}", self.recording_id)?;
        writeln!(f, "checked     {} files, {} segments, {} bytes", self.checked_files, self.checked_segments, self.checked_bytes)?;
        writeln!(f, "root        {}", self.root)?;
        writeln!(f, "sealed by   {}", self.seal_key_id)?;
        write!(f, "exported by {}", self.key_id)
    }
}

/// Checks a bundle. With `trusted` keys, whoever signed must be one of them; without, compare the key ids
/// of the report with what you know. An error means only that reading failed.
pub fn verify_bundle(reader: impl Read, trusted: &[PublicKey]) -> io::Result<Report> {
    let mut checker = Checker { reader, offset: 0, report: Report::default() };
    match checker.run(trusted) {
        Ok(()) => checker.report.ok = true,
        Err(Failure::Io(error)) => return Err(error),
        Err(Failure::Bad(bad)) => checker.report.first_bad = Some(bad),
    }
    Ok(checker.report)
}

enum Failure {
    Io(io::Error),
    Bad(Bad),
}

struct Checker<R: Read> {
    reader: R,
    offset: u64,
    report: Report,
}

/// What is kept of files that say something about others.
#[derive(Default)]
struct Kept {
    manifest: Vec<u8>,
    seal: Vec<u8>,
    derived: Vec<u8>,
    public_key: Vec<u8>,
}

impl<R: Read> Checker<R> {
    fn run(&mut self, trusted: &[PublicKey]) -> Result<(), Failure> {
        let (index, mtime_s) = self.index(trusted)?;
        let mut kept = Kept::default();
        let mut segments: HashMap<String, (u64, String)> = HashMap::new();
        for file in &index.files {
            if file.name.starts_with("segments/") && segments.is_empty() {
                segments = self.statements(&index, &kept, trusted)?;
            }
            let begin = self.offset;
            self.file(file, mtime_s, &mut kept)?;
            if file.name.starts_with("segments/") {
                let told = segments.remove(&file.name);
                if told != Some((file.bytes, file.sha256.clone())) {
                    return Err(bad(&file.name, begin, "the sealed manifest tells something else about this segment"));
                }
                self.report.checked_segments += 1;
            }
        }
        if self.report.checked_segments == 0 {
            segments = self.statements(&index, &kept, trusted)?;
        }
        if let Some(missing) = segments.keys().min() {
            return Err(bad(missing, self.offset, "the segment is missing"));
        }
        self.expect_zeros("end of the archive", tar::END_BYTES)?;
        if self.reader.read(&mut [0]).map_err(Failure::Io)? != 0 {
            return Err(bad("end of the archive", self.offset, "something follows the end"));
        }
        self.report.signature_ok = true;
        Ok(())
    }

    fn index(&mut self, trusted: &[PublicKey]) -> Result<(Index, u64), Failure> {
        let header = self.block(INDEX)?;
        let told = tar::bytes(&header).zip(tar::mtime(&header)).filter(|(bytes, _)| *bytes <= INDEX_BYTES_MAX);
        let Some((bytes, mtime_s)) = told else { return Err(bad(INDEX, 0, "not a bundle, or its first header was changed")) };
        if header != tar::header(INDEX, bytes, mtime_s) {
            return Err(bad(INDEX, 0, "not a bundle, or its first header was changed"));
        }
        let index_bytes = self.bytes(INDEX, bytes)?;
        let begin = self.offset;
        if self.block(SIGNATURE)? != tar::header(SIGNATURE, 64, mtime_s) {
            return Err(bad(SIGNATURE, begin, "its header was changed"));
        }
        let signature = self.bytes(SIGNATURE, 64)?;
        let index: Index = serde_json::from_slice(&index_bytes).map_err(|error| bad(INDEX, 0, &format!("cannot be read: {error}")))?;
        let key = PublicKey::from_hex(&index.public_key).map_err(|error| bad(INDEX, 0, &error.to_string()))?;
        self.report.key_id = key.id();
        key.verify("the index", &index_bytes, &signature).map_err(|_| bad(INDEX, 0, "the signature over the index does not fit"))?;
        if !trusted.is_empty() && !trusted.contains(&key) {
            return Err(bad(PUBLIC_KEY, 0, "signed by a key that is not among the trusted ones"));
        }
        if index.format != FORMAT {
            return Err(bad(INDEX, 0, "written in a format that this program does not know: take a newer one"));
        }
        if u64::try_from(index.exported_at_ms / 1000) != Ok(mtime_s) {
            return Err(bad(INDEX, 0, "the time in its header was changed"));
        }
        self.report.recording_id.clone_from(&index.recording_id);
        self.report.exported_at_ms = index.exported_at_ms;
        self.report.checked_files += 2;
        Ok((index, mtime_s))
    }

    fn file(&mut self, file: &IndexFile, mtime_s: u64, kept: &mut Kept) -> Result<(), Failure> {
        let begin = self.offset;
        if self.block(&file.name)? != tar::header(&file.name, file.bytes, mtime_s) {
            return Err(bad(&file.name, begin, "its header in the archive was changed, or the file is missing"));
        }
        let keep = match file.name.as_str() {
            MANIFEST_FILE => Some(&mut kept.manifest),
            SEAL_FILE => Some(&mut kept.seal),
            DERIVED => Some(&mut kept.derived),
            PUBLIC_KEY => Some(&mut kept.public_key),
            _ => None,
        };
        if keep.is_some() && file.bytes > MANIFEST_BYTES_MAX {
            return Err(bad(&file.name, begin, "larger than any such file"));
        }
        let hash = self.content(file, keep)?;
        if hash != file.sha256 {
            return Err(bad(&file.name, begin, "its bytes were changed: the SHA-256 is not the one in the signed index"));
        }
        self.expect_zeros(&file.name, tar::padding(file.bytes))?;
        self.report.checked_files += 1;
        Ok(())
    }

    fn content(&mut self, file: &IndexFile, mut keep: Option<&mut Vec<u8>>) -> Result<String, Failure> {
        let (mut hash, mut left, mut part) = (Context::new(&SHA256), file.bytes, vec![0; 1 << 16]);
        while left > 0 {
            let length = left.min(part.len() as u64) as usize;
            self.exact(&file.name, &mut part[..length])?;
            hash.update(&part[..length]);
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(&part[..length]);
            }
            left -= length as u64;
        }
        Ok(hex::encode(finish(hash)))
    }

    /// Manifest, seal, derived files and key: do they say the same thing? Gives the segments to expect.
    fn statements(&mut self, index: &Index, kept: &Kept, trusted: &[PublicKey]) -> Result<HashMap<String, (u64, String)>, Failure> {
        let fail = |name: &str, reason: String| bad(name, self.offset, &reason);
        let pem = std::str::from_utf8(&kept.public_key).unwrap_or_default();
        let key = PublicKey::from_pem(pem).map_err(|error| fail(PUBLIC_KEY, error.to_string()))?;
        if key.to_hex() != index.public_key {
            return Err(fail(PUBLIC_KEY, "not the key that signed the index".into()));
        }
        let manifest = Manifest::parse(&kept.manifest).map_err(|error| fail(MANIFEST_FILE, error.to_string()))?;
        let seal = Seal::from_bytes(&kept.seal).map_err(|error| fail(SEAL_FILE, error.to_string()))?;
        let seal_key = seal.verify(&manifest).map_err(|error| fail(SEAL_FILE, error.to_string()))?;
        let known = |key: &PublicKey| trusted.is_empty() || trusted.contains(key);
        if !known(&seal_key) || !manifest.site_keys().iter().all(known) {
            return Err(fail(SEAL_FILE, "sealed or captured under a key that is not among the trusted ones".into()));
        }
        if (&seal.recording_id, &seal.root) != (&index.recording_id, &index.root) {
            return Err(fail(SEAL_FILE, "the index is about another recording".into()));
        }
        let derived: Vec<Derivative> = serde_json::from_slice(&kept.derived).map_err(|error| fail(DERIVED, error.to_string()))?;
        let listed: HashSet<(String, u64, &str)> =
            index.files.iter().map(|file| (file.name.clone(), file.bytes, file.sha256.as_str())).collect();
        for statement in &derived {
            let key = statement.verify().map_err(|error| fail(DERIVED, error.to_string()))?;
            if !known(&key) {
                return Err(fail(DERIVED, format!("{} is signed by a key that is not among the trusted ones", statement.name)));
            }
            if (&statement.recording_id, &statement.derived_from) != (&seal.recording_id, &seal.root) {
                return Err(fail(DERIVED, format!("{} was made from another recording", statement.name)));
            }
            if !listed.contains(&(derived_name(&statement.name), statement.bytes, statement.sha256.as_str())) {
                return Err(fail(DERIVED, format!("{} is not the file that was signed for", statement.name)));
            }
        }
        self.report.root = seal.root;
        self.report.seal_key_id = seal_key.id();
        self.report.sealed_at_ms = seal.sealed_at_ms;
        Ok(manifest.segments().map(|line| (segment_name(&line.id().file_name()), (line.bytes, line.sha256.clone()))).collect())
    }

    fn block(&mut self, name: &str) -> Result<[u8; tar::BLOCK], Failure> {
        let mut block = [0; tar::BLOCK];
        self.exact(name, &mut block)?;
        Ok(block)
    }

    fn bytes(&mut self, name: &str, length: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(length).read_to_end(&mut bytes).map_err(Failure::Io)?;
        if read as u64 != length {
            return Err(bad(name, self.offset, "the bundle ends inside this file"));
        }
        self.offset += length;
        self.report.checked_bytes += length;
        self.expect_zeros(name, tar::padding(length))?;
        Ok(bytes)
    }

    fn expect_zeros(&mut self, name: &str, length: usize) -> Result<(), Failure> {
        let mut bytes = vec![0; length];
        let begin = self.offset;
        self.exact(name, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(bad(name, begin, "the filling after it was changed"));
        }
        Ok(())
    }

    fn exact(&mut self, name: &str, bytes: &mut [u8]) -> Result<(), Failure> {
        match self.reader.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                self.report.checked_bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(bad(name, self.offset, "the bundle ends inside this file")),
            Err(error) => Err(Failure::Io(error)),
        }
    }
}

fn bad(segment: &str, offset: u64, reason: &str) -> Failure {
    Failure::Bad(Bad { segment: segment.to_owned(), reason: reason.to_owned(), offset })
}
