//! A log file that is set aside at a size, compressed and kept, under the names that Mattermost's rtcd gives: `rtcd.log` becomes
//! `rtcd-2026-01-31T12-00-00.000.log.gz`.
//!
//! By hand: the libraries for it bring a calendar of their own or cannot go by size.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const STAMP: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");

/// The file, shared by its writers.
#[derive(Clone)]
pub(super) struct LogFile(Arc<Mutex<Open>>);

struct Open {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl LogFile {
    /// Goes on in the file, or begins it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Open { path: path.to_owned(), file, written, limit }))))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.written > 0 && open.written + bytes.len() as u64 > open.limit {
            open.set_aside()?;
        }
        let written = open.file.write(bytes)?;
        open.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file.flush()
    }
}

impl Open {
    fn set_aside(&mut self) -> io::Result<()> {
        let now = OffsetDateTime::now_utc().format(STAMP).map_err(io::Error::other)?;
        let (stem, extension) = parts(&self.path);
        std::fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{now}{extension}")))?;
        self.file = append_to(&self.path)?;
        self.written = 0;
        let path = self.path.clone();
        // Compressing 100 MB takes seconds; whoever logs does not wait for it. What fails is tried again with the next one.
        std::thread::Builder::new().name("log-files".to_owned()).spawn(move || drop(compress_all(&path)))?;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// `rtcd` and `.log`.
fn parts(path: &Path) -> (String, String) {
    let part = |part: Option<&OsStr>| part.map_or_else(String::new, |part| part.to_string_lossy().into_owned());
    let extension = part(path.extension());
    (part(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

/// Compresses what was set aside and is not compressed yet.
fn compress_all(path: &Path) -> io::Result<()> {
    // One at a time, however fast files fill.
    static BUSY: Mutex<()> = Mutex::new(());
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let (stem, extension) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stamp = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(&extension));
        if stamp.is_some_and(|stamp| time::PrimitiveDateTime::parse(stamp, STAMP).is_ok()) {
            compress(&folder.join(name))?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let name = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    let (unfinished, finished) = (name(".gz.tmp"), name(".gz"));
    let mut from = File::open(path)?;
    let mut to = flate2::write::GzEncoder::new(File::create(&unfinished)?, flate2::Compression::default());
    io::copy(&mut from, &mut to)?;
    to.finish()?.sync_all()?;
    std::fs::rename(unfinished, finished)?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_file_is_set_aside_compressed_and_nothing_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rtcd.log");
        std::fs::write(&path, "of an earlier run\n").expect("writable");
        std::fs::write(folder.path().join("rtcd-notes.log"), "somebody's own").expect("writable");
        let mut expected = "of an earlier run\n".to_owned();
        let mut log = LogFile::open(&path, 1000).expect("opens");
        for n in 0..100 {
            let line = format!("line {n} {}\n", "x".repeat(40));
            log.write_all(line.as_bytes()).expect("writes");
            expected += &line;
            // The names are of milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        drop(compress_all(&path));
        let mut aside: Vec<PathBuf> =
            std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
        aside.sort();
        let mut text = String::new();
        let mut compressed = 0;
        for file in &aside {
            if file.extension() == Some(OsStr::new("gz")) {
                flate2::read::GzDecoder::new(File::open(file).expect("readable")).read_to_string(&mut text).expect("gzip");
                compressed += 1;
            }
        }
        assert!(compressed > 3, "{aside:?}");
        assert_eq!(aside.len(), compressed + 2, "beside them the file itself and what is not ours: {aside:?}");
        let now = std::fs::read_to_string(&path).expect("readable");
        assert!(now.len() <= 1000);
        assert_eq!(text + &now, expected);
    }
}
