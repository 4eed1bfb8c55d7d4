//! One daemon for one data folder: recordings being captured lie there, and so does the daemon's name. Several daemons with a
//! folder each may share a PostgreSQL database; a SQLite file lies in one folder.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::settings::Settings;
use anyhow::Context;

/// How long a daemon that is ending may take to let go: its workers close what they have.
const WAIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(200);

/// Held as long as the daemon lives; a killed one lets go by dying.
pub(crate) struct Alone {
    _folder: File,
}

impl Alone {
    pub(crate) async fn claim(settings: &Settings) -> anyhow::Result<Self> {
        crate::keys::private_dir(&settings.data).with_context(|| format!("OFFLOADER_DATA: cannot make {}", settings.data.display()))?;
        let deadline = Instant::now() + WAIT;
        Ok(Self { _folder: folder(settings.data.join("lock"), deadline).await? })
    }
}

async fn folder(path: PathBuf, deadline: Instant) -> anyhow::Result<File> {
    let file = File::create(&path).with_context(|| format!("OFFLOADER_DATA: cannot write {}", path.display()))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(STEP).await,
            Err(std::fs::TryLockError::WouldBlock) => {
                anyhow::bail!("another offloader is running in this folder: end it, or set OFFLOADER_DATA to another one")
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}
