//! One daemon for one data folder and one database: recordings being captured lie in the folder, and whoever
//! settles a job must have it. Two daemons would each seal what they see.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{AnyConnection, Connection, Row};

use crate::settings::Settings;

/// How long a daemon that is ending may take to let go: its workers close what they have.
const WAIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(200);

/// Held as long as the daemon lives; a killed one lets go by dying.
pub(crate) struct Alone {
    _folder: File,
    _database: Option<AnyConnection>,
}

impl Alone {
    pub(crate) async fn claim(settings: &Settings) -> anyhow::Result<Self> {
        crate::keys::private_dir(&settings.data).with_context(|| format!("OFFLOADER_DATA: cannot make {}", settings.data.display()))?;
        let deadline = Instant::now() + WAIT;
        let folder = folder(settings.data.join("lock"), deadline).await?;
        let database = if settings.database.starts_with("sqlite:") { None } else { Some(database(&settings.database, deadline).await?) };
        Ok(Self { _folder: folder, _database: database })
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

async fn database(url: &str, deadline: Instant) -> anyhow::Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    // A connection of its own: the lock lasts as long as it does.
    let mut connection = AnyConnection::connect(url).await.context("OFFLOADER_DATABASE does not answer")?;
    loop {
        let row = sqlx::query("SELECT pg_try_advisory_lock(845453) AS alone").fetch_one(&mut connection).await?;
        if row.try_get::<bool, _>("alone")? {
            return Ok(connection);
        }
        if Instant::now() >= deadline {
            anyhow::bail!("another offloader is using this database: end it, or set OFFLOADER_DATABASE to another one");
        }
        tokio::time::sleep(STEP).await;
    }
}
