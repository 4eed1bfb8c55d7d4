//! The SQL store: jobs, catalogue, transcripts, audit log. SQLite by default, PostgreSQL by setting.

pub mod audit;
pub mod catalogue;
pub mod jobs;
pub mod search;

use std::str::FromStr;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyPool, Executor, Row, Transaction};

/// The store answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("the database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A row that no version of us wrote.
    #[error("the database holds something unreadable in {0}")]
    Row(&'static str),
    /// Somebody wrote the same row between our reading and our writing, again and again.
    #[error("the database is too busy; try again")]
    Busy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// The store.
#[derive(Clone)]
pub struct Store {
    dialect: Dialect,
    read: AnyPool,
    /// SQLite has one writer: waiting here is fair, waiting in SQLite is a lottery.
    write: AnyPool,
}

impl Store {
    /// Opens the database and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let dialect = if url.starts_with("sqlite:") { Dialect::Sqlite } else { Dialect::Postgres };
        let store = match dialect {
            Dialect::Sqlite => {
                let url = if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") };
                Self { dialect, write: sqlite(&url, 1).await?, read: sqlite(&url, 4).await? }
            }
            Dialect::Postgres => {
                let pool = AnyPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(10)).connect(url).await?;
                Self { dialect, write: pool.clone(), read: pool }
            }
        };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.write.begin().await?;
        let tables = match self.dialect {
            Dialect::Sqlite => include_str!("../migrations/sqlite.sql"),
            Dialect::Postgres => {
                // Two daemons that start together must not both create the tables.
                transaction.execute("SELECT pg_advisory_xact_lock(845451)").await?;
                include_str!("../migrations/postgres.sql")
            }
        };
        for statement in tables.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            transaction.execute(statement).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The store's time: leases are counted by it, so that workers' and daemons' clocks do not matter.
    pub async fn now_ms(&self) -> Result<i64, StoreError> {
        match self.dialect {
            // The file's machine is ours.
            Dialect::Sqlite => Ok(unix_ms()),
            Dialect::Postgres => {
                let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS now_ms";
                Ok(sqlx::query(sql).fetch_one(&self.read).await?.try_get("now_ms")?)
            }
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.write.begin().await?)
    }
}

async fn sqlite(url: &str, connections: u32) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let pool =
        AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(10)).after_connect(|connection, _| {
            Box::pin(async move {
                // FULL: a job that was promised is there after a power cut.
                for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 10000"] {
                    connection.execute(pragma).await?;
                }
                Ok(())
            })
        });
    Ok(pool.connect_with(options).await?)
}

/// Unix time in ms.
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
