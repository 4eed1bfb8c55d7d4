//! The SQL store: jobs, catalogue, transcripts, audit log. SQLite by default, PostgreSQL by setting.

pub mod audit;
pub mod calls;
pub mod captures;
pub mod catalogue;
pub mod jobs;
pub mod nodes;
pub mod search;

use std::str::FromStr;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyPool, AssertSqlSafe, Executor, Row, Transaction};

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
        match dialect {
            Dialect::Sqlite => {
                let url = if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") };
                let write = sqlite(&url, 1).await?;
                let store = Self { dialect, read: write.clone(), write };
                store.migrate().await?;
                // Only now: a connection that knows the tables as they were trips over those that changed.
                Ok(Self { read: sqlite(&url, 4).await?, ..store })
            }
            Dialect::Postgres => {
                let pool = AnyPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(10)).connect(url).await?;
                let store = Self { dialect, write: pool.clone(), read: pool };
                store.migrate().await?;
                Ok(store)
            }
        }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        for _ in 1..MIGRATION_TRIES {
            match self.bring_up_to_date().await {
                // Offloaders of the version before work on, and hold what this one waits for.
                Err(StoreError::Sql(error)) if is_deadlock(&error) => tokio::time::sleep(Duration::from_millis(200)).await,
                done => return done,
            }
        }
        self.bring_up_to_date().await
    }

    async fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let mut transaction = self.write.begin().await?;
        let (row_id, own) = match self.dialect {
            Dialect::Sqlite => ("INTEGER", include_str!("../migrations/sqlite.sql")),
            Dialect::Postgres => ("BIGSERIAL", include_str!("../migrations/postgres.sql")),
        };
        let tables = include_str!("../migrations/tables.sql").replace("{row_id}", row_id) + own;
        if self.dialect == Dialect::Postgres {
            // Two daemons that start together must not both create the tables.
            transaction.execute("SELECT pg_advisory_xact_lock(845451)").await?;
            transaction.execute("CREATE TABLE IF NOT EXISTS tables_made (statements TEXT NOT NULL)").await?;
            // Whatever IF NOT EXISTS says, each statement locks its table: others would wait for this one, and it for them.
            let made = sqlx::query("SELECT 1 FROM tables_made WHERE statements = $1").bind(&tables);
            if made.fetch_optional(&mut *transaction).await?.is_some() {
                return Ok(transaction.commit().await?);
            }
            transaction.execute("DELETE FROM tables_made").await?;
            sqlx::query("INSERT INTO tables_made (statements) VALUES ($1)").bind(&tables).execute(&mut *transaction).await?;
        }
        for statement in tables.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            transaction.execute(AssertSqlSafe(statement.to_owned())).await?;
        }
        if self.dialect == Dialect::Sqlite {
            // Its ALTER TABLE knows no IF EXISTS. The column told of one machine's folder; each looks into its own now.
            if has_column(&mut transaction, "recordings", "local").await? {
                transaction.execute("ALTER TABLE recordings DROP COLUMN local").await?;
            }
            if !has_column(&mut transaction, "jobs", "failed_checkpoint").await? {
                transaction.execute("ALTER TABLE jobs ADD COLUMN failed_checkpoint TEXT NOT NULL DEFAULT ''").await?;
            }
            if !has_column(&mut transaction, "jobs", "blocked").await? {
                transaction.execute("ALTER TABLE jobs ADD COLUMN blocked BIGINT NOT NULL DEFAULT 0").await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Other offloaders may work on the same rows.
    pub fn is_shared(&self) -> bool {
        match self.dialect {
            Dialect::Sqlite => false,
            Dialect::Postgres => true,
        }
    }

    /// The store's time: leases are counted by it, so that workers' and daemons' clocks do not matter.
    pub async fn now_ms(&self) -> Result<i64, StoreError> {
        match self.dialect {
            // The file's machine is ours.
            Dialect::Sqlite => Ok(unix_ms()),
            Dialect::Postgres => Ok(sqlx::query(POSTGRES_NOW).fetch_one(&self.read).await?.try_get("now_ms")?),
        }
    }

    /// The same on the transaction's own connection: waiting for a second one while holding the first is a deadlock in a full pool.
    async fn now_within(&self, transaction: &mut Transaction<'static, Any>) -> Result<i64, StoreError> {
        match self.dialect {
            Dialect::Sqlite => Ok(unix_ms()),
            Dialect::Postgres => Ok(sqlx::query(POSTGRES_NOW).fetch_one(&mut **transaction).await?.try_get("now_ms")?),
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.write.begin().await?)
    }
}

/// How often tables are brought up to date that others use.
const MIGRATION_TRIES: u32 = 10;

/// PostgreSQL has ended one of two transactions that waited for each other (SQLSTATE 40P01).
fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "40P01")
}

/// Whether a table of SQLite's has that column.
async fn has_column(transaction: &mut Transaction<'static, Any>, table: &str, column: &str) -> Result<bool, StoreError> {
    let told = sqlx::query("SELECT 1 FROM pragma_table_info($1) WHERE name = $2").bind(table).bind(column);
    Ok(told.fetch_optional(&mut **transaction).await?.is_some())
}

const POSTGRES_NOW: &str = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS now_ms";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn database_of_the_first_version_is_taken_on_with_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", dir.path().join("old.db").display());
        sqlx::any::install_default_drivers();
        let old = sqlite(&url, 1).await.unwrap();
        old.execute(
            "CREATE TABLE recordings (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, call_id TEXT NOT NULL, title TEXT NOT NULL, \
             channel_id TEXT NOT NULL, channel_name TEXT NOT NULL, started_at_ms BIGINT NOT NULL, ended_at_ms BIGINT NOT NULL, \
             state TEXT NOT NULL, error TEXT NOT NULL, wrapped_key TEXT NOT NULL, root TEXT NOT NULL, has_video BIGINT NOT NULL, \
             gaps BIGINT NOT NULL, local BIGINT NOT NULL)",
        )
        .await
        .unwrap();
        old.execute(
            "CREATE TABLE jobs (id TEXT PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, call_id TEXT NOT NULL, recording_id TEXT NOT NULL, \
             idempotency_key TEXT NOT NULL, params TEXT NOT NULL, state TEXT NOT NULL, attempt BIGINT NOT NULL, failures BIGINT NOT NULL, \
             fence BIGINT NOT NULL, lease_owner TEXT NOT NULL, lease_since_ms BIGINT NOT NULL, lease_until_ms BIGINT NOT NULL, \
             run_after_ms BIGINT NOT NULL, progress DOUBLE PRECISION NOT NULL, error TEXT NOT NULL, checkpoint TEXT NOT NULL, \
             stats TEXT NOT NULL, result TEXT NOT NULL, created_at_ms BIGINT NOT NULL, updated_at_ms BIGINT NOT NULL, \
             version BIGINT NOT NULL, settled BIGINT NOT NULL, UNIQUE (tenant, idempotency_key))",
        )
        .await
        .unwrap();
        old.execute(
            "INSERT INTO jobs VALUES ('job-1', 'publish_recording', 't', 'c', 'rec-2', 'k', '{}', 'queued', 3, 2, 3, 'w', 0, 0, 0, 0, \
             'why', 'here', '', '', 1, 2, 3, 0)",
        )
        .await
        .unwrap();
        old.execute("INSERT INTO recordings VALUES ('rec-1', 't', 'c', 'Old', '', '', 1, 2, 'sealed', '', '', '', 0, 0, 1)").await.unwrap();
        old.close().await;
        for _ in 0..2 {
            let store = Store::open(&url).await.unwrap();
            assert_eq!(store.recording("rec-1").await.unwrap().unwrap().title, "Old");
            assert!(store.is_finished("rec-1").await.unwrap());
            let job = store.job("job-1").await.unwrap().unwrap();
            assert_eq!((job.failures, job.blocked, job.checkpoint.as_str(), job.failed_checkpoint.as_str()), (2, 0, "here", ""));
        }
    }
}
