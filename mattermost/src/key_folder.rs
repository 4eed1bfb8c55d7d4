//! The keys of registered clients, in a folder of the layout that Mattermost's rtcd and calls-offloader have (bitcask v1), so that
//! switching to us needs no export: rtcd goes on in the folder itself, and back again; the offloader reads it once.
//!
//! Files `000000000.data`, `000000001.data` … of records that are only appended: length of the key (u32) and of the value (u64), key,
//! value, CRC-32 of the value (u32), expiry (u64, Unix seconds, 0: none), all big-endian. The last record of a key holds; one without a
//! value deletes it. A handful of installations register once in years: an append and a sync each are all that is needed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

/// Longest key, bytes. Mattermost's.
pub const KEY_LEN_MAX: usize = 64;
/// Clients kept: 150 bytes each.
pub const KEYS_MAX: usize = 100_000;
/// Longest value read. Mattermost's.
const VALUE_LEN_MAX: u64 = 65_536;
/// Records that hold no longer, from which on the folder is written anew at start.
const STALE_MAX: usize = 1000;
/// What bitcask keeps beside to start faster. It would not see what we append, so it goes with our first record.
const CACHES: [&str; 3] = ["index", "ttl_index", "meta.json"];

/// See the module.
#[derive(Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    keys: HashMap<String, String>,
    /// Where we append: a file of our own, begun with the first record.
    file: Option<File>,
    next_number: u64,
    // Held as long as we run: two programs must not append here.
    _lock: File,
}

/// What was found in the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys that hold.
    pub keys: usize,
    /// Records passed over: what and where, for the log.
    pub damaged: Vec<String>,
}

impl KeyFolder {
    /// Reads the folder, or makes it.
    ///
    /// # Errors
    /// It cannot be read, or another program has it.
    pub fn open(folder: &Path) -> io::Result<(Self, Found)> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = private().create(true).truncate(false).open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another program has it open; end it first, or set store.data_source to another folder",
            )
        })?;
        let files = data_files(folder)?;
        let replay = Replay::of(&files)?;
        let next_number = files.last().map_or(0, |(number, _)| number + 1);
        let mut store = Self { folder: folder.to_owned(), keys: replay.keys, file: None, next_number, _lock: lock };
        if replay.records > store.keys.len() + STALE_MAX {
            store.write_anew(&files)?;
        }
        let found = Found { keys: store.keys.len(), damaged: replay.damaged };
        Ok((store, found))
    }

    /// What a folder holds, which stays as it is. `None`: there is no such folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path) -> io::Result<Option<(HashMap<String, String>, Found)>> {
        if !folder.try_exists()? {
            return Ok(None);
        }
        let replay = Replay::of(&data_files(folder)?)?;
        let found = Found { keys: replay.keys.len(), damaged: replay.damaged };
        Ok(Some((replay.keys, found)))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// No room for another key.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.keys.len() >= KEYS_MAX
    }

    /// Keeps a value; on disk when this returns.
    ///
    /// # Errors
    /// The disk's; nothing has changed then.
    pub fn put(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.append(key, value)?;
        self.keys.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Forgets a key; on disk when this returns.
    ///
    /// # Errors
    /// The disk's; nothing has changed then.
    pub fn delete(&mut self, key: &str) -> io::Result<()> {
        self.append(key, "")?;
        self.keys.remove(key);
        Ok(())
    }

    fn append(&mut self, key: &str, value: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                for cache in CACHES {
                    remove_if_there(&self.folder.join(cache))?;
                }
                let begun = private().create_new(true).open(data_file(&self.folder, self.next_number))?;
                sync_folder(&self.folder)?;
                self.next_number += 1;
                self.file.insert(begun)
            }
        };
        let whole = file.metadata()?.len();
        let written = file.write_all(&record(key, value)).and_then(|()| file.sync_data());
        if written.is_err() {
            // A torn record in the middle would hide those that follow: what is left of it goes, or we go on in another file.
            if file.set_len(whole).is_err() {
                self.file = None;
            }
        }
        written
    }

    /// Only what holds, in one new file; then the older ones go.
    fn write_anew(&mut self, old: &[(u64, PathBuf)]) -> io::Result<()> {
        let unfinished = self.folder.join("anew.tmp");
        remove_if_there(&unfinished)?;
        let mut file = private().create_new(true).open(&unfinished)?;
        let records: Vec<u8> = self.keys.iter().flat_map(|(key, value)| record(key, value)).collect();
        file.write_all(&records)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, data_file(&self.folder, self.next_number))?;
        sync_folder(&self.folder)?;
        self.next_number += 1;
        for path in CACHES.iter().map(|cache| self.folder.join(cache)).chain(old.iter().map(|(_, path)| path.clone())) {
            remove_if_there(&path)?;
        }
        Ok(())
    }
}

/// Reading records in their order.
#[derive(Default)]
struct Replay {
    keys: HashMap<String, String>,
    records: usize,
    damaged: Vec<String>,
    now: u64,
}

impl Replay {
    fn of(files: &[(u64, PathBuf)]) -> io::Result<Self> {
        let mut replay = Self { now: unix_now(), ..Self::default() };
        for (_, path) in files {
            replay.file(path)?;
        }
        Ok(replay)
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let bytes = std::fs::read(path)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let Some(record) = Record::take(&mut rest) else {
                self.damaged.push(format!("{} from byte {at}: a record that is cut off or no record", path.display()));
                return Ok(());
            };
            self.records += 1;
            self.apply(&record, path, at);
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>, path: &Path, at: usize) {
        let mut crc = flate2::Crc::new();
        crc.update(record.value);
        let (Ok(key), Ok(value)) = (std::str::from_utf8(record.key), std::str::from_utf8(record.value)) else {
            self.damaged.push(format!("{} at byte {at}: a record that is no text", path.display()));
            return;
        };
        if crc.sum() != record.crc {
            self.damaged.push(format!("{} at byte {at}: the record of client {key:?} has a wrong checksum", path.display()));
            return;
        }
        let expired = record.expiry != 0 && record.expiry <= self.now;
        if value.is_empty() || expired {
            self.keys.remove(key);
        } else if self.keys.len() < KEYS_MAX || self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), value.to_owned());
        } else {
            self.damaged.push(format!("{} at byte {at}: client {key:?} is beyond the {KEYS_MAX} that are kept", path.display()));
        }
    }
}

struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    crc: u32,
    expiry: u64,
}

impl<'a> Record<'a> {
    /// `None`: what is there cannot be a record.
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let key_len = u32::from_be_bytes(*take_array(rest)?);
        let value_len = u64::from_be_bytes(*take_array(rest)?);
        if key_len == 0 || key_len as usize > KEY_LEN_MAX || value_len > VALUE_LEN_MAX {
            return None;
        }
        let key = take(rest, key_len as usize)?;
        let value = take(rest, usize::try_from(value_len).ok()?)?;
        Some(Self { key, value, crc: u32::from_be_bytes(*take_array(rest)?), expiry: u64::from_be_bytes(*take_array(rest)?) })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(value.as_bytes());
    let mut bytes = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(value.as_bytes());
    bytes.extend(crc.sum().to_be_bytes());
    bytes.extend(0_u64.to_be_bytes());
    bytes
}

fn data_file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:09}.data"))
}

/// In the order they were written.
fn data_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".data")?.parse::<u64>().ok());
        if let Some(number) = number {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const HASH: &str = "$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z6";

    /// A record by the layout's description, not by our writer.
    fn written(key: &str, value: &str, expiry: u64) -> Vec<u8> {
        let mut crc = !0_u32;
        for byte in value.bytes() {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        let mut out = Vec::new();
        out.extend((key.len() as u32).to_be_bytes());
        out.extend((value.len() as u64).to_be_bytes());
        out.extend(key.as_bytes());
        out.extend(value.as_bytes());
        out.extend((!crc).to_be_bytes());
        out.extend(expiry.to_be_bytes());
        out
    }

    fn keys(store: &KeyFolder) -> Vec<&str> {
        let mut keys: Vec<&str> = store.keys.keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    /// What the real program wrote: one registered client, and one that was registered and removed.
    #[test]
    fn a_record_of_the_original_is_read_and_written_byte_for_byte() {
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x3c, b'a'];
        bytes.extend(HASH.as_bytes());
        bytes.extend([0xa7, 0x85, 0xbc, 0xab, 0, 0, 0, 0, 0, 0, 0, 0]);
        let gone = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(record("c", ""), gone);
        assert_eq!(record("a", HASH), bytes);
    }

    #[test]
    fn a_store_of_several_files_is_imported_with_deletions_and_expiry() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, records: &[Vec<u8>]| std::fs::write(folder.path().join(name), records.concat()).expect("writable");
        write(
            "000000000.data",
            &[written("kept", "one", 0), written("gone", "x", 0), written("changed", "old", 0), written("expired", "x", 1_000_000_000)],
        );
        write("000000002.data", &[written("changed", "new", 0), written("back", "y", 0), written("later", "z", 99_999_999_999)]);
        write("000000010.data", &[written("gone", "", 0)]);
        for name in ["index", "ttl_index", "meta.json", "config.json", "lock"] {
            std::fs::write(folder.path().join(name), "whatever a cache holds").expect("writable");
        }
        let (mut store, found) = KeyFolder::open(folder.path()).expect("opens");
        assert_eq!(found, Found { keys: 4, damaged: Vec::new() });
        assert_eq!(keys(&store), ["back", "changed", "kept", "later"]);
        assert_eq!(store.get("changed"), Some("new"));
        store.put("more", "w").expect("writable");
        assert_eq!(std::fs::read(folder.path().join("000000011.data")).expect("ours"), written("more", "w", 0));
        assert!(!folder.path().join("index").exists(), "it would hide what we appended from the original");
        assert!(folder.path().join("000000000.data").exists(), "what is not ours stays as it is");
    }

    #[test]
    fn a_torn_record_and_a_wrong_checksum_cost_themselves_and_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bad = written("bad", HASH, 0);
        let last = bad.len() - 20;
        bad[last] ^= 1;
        let torn = written("torn", HASH, 0);
        let first = [written("one", HASH, 0), bad, written("two", HASH, 0), torn[..torn.len() - 1].to_vec()].concat();
        std::fs::write(folder.path().join("000000000.data"), first).expect("writable");
        std::fs::write(folder.path().join("000000001.data"), written("three", HASH, 0)).expect("writable");
        std::fs::write(folder.path().join("000000002.data"), [0xff; 40]).expect("writable");
        let (store, found) = KeyFolder::open(folder.path()).expect("opens");
        assert_eq!(keys(&store), ["one", "three", "two"]);
        assert_eq!(found.damaged.len(), 3, "{found:?}");
        assert!(found.damaged[0].contains("\"bad\" has a wrong checksum"), "{found:?}");
        assert!(found.damaged[1].contains("000000000.data from byte 261"), "{found:?}");
        assert!(found.damaged[2].contains("000000002.data from byte 0"), "{found:?}");
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/store");
        let (mut store, found) = KeyFolder::open(&path).expect("opens");
        assert_eq!(found, Found::default());
        store.put("a", "1").expect("writable");
        store.put("b", "2").expect("writable");
        store.delete("a").expect("writable");
        let refused = KeyFolder::open(&path).expect_err("two programs").to_string();
        assert!(refused.contains("another program has it open"), "{refused}");
        drop(store);
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("000000000.data"))), (0o700, 0o600));
        let (mut store, _) = KeyFolder::open(&path).expect("opens");
        assert_eq!(keys(&store), ["b"]);
        store.put("c", "3").expect("writable");
        assert!(path.join("000000001.data").exists(), "another run, another file");
    }

    #[test]
    fn stale_records_are_cleared_away_at_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let many: Vec<u8> = (0..STALE_MAX + 10).flat_map(|n| written("a", &format!("value {n}"), 0)).collect();
        std::fs::write(folder.path().join("000000003.data"), many).expect("writable");
        std::fs::write(folder.path().join("index"), "a cache").expect("writable");
        drop(KeyFolder::open(folder.path()).expect("opens"));
        let files = data_files(folder.path()).expect("a folder");
        assert_eq!(files, [(4, folder.path().join("000000004.data"))]);
        assert!(!folder.path().join("index").exists());
        let (store, _) = KeyFolder::open(folder.path()).expect("opens");
        assert_eq!(store.get("a"), Some(format!("value {}", STALE_MAX + 9).as_str()));
    }
}
