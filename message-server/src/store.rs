//! The database: SQLite embedded (one writer, many readers) or PostgreSQL, with the same migrations and the same SQL.
//!
//! All statements use `$n` placeholders, TEXT and BIGINT: what both databases understand alike. What needs more than
//! one statement runs in [`Store::write`]'s transaction.

use std::{path::Path, time::Duration};

use sqlx::{
    Any, AnyPool, Executor as _, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};

/// Which database is behind the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Embedded, one file.
    Sqlite,
    /// Shared.
    Postgres,
}

/// Connection pools. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    read: AnyPool,
    write: AnyPool,
    kind: Kind,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Unknown scheme.
    #[error("MESSAGE_SERVER_DATABASE must start with sqlite:// or postgres://")]
    Scheme,
    /// Cannot connect.
    #[error("cannot open the database: {0}. Check MESSAGE_SERVER_DATABASE and that the database runs and lets this user in")]
    Open(sqlx::Error),
    /// Migrations failed.
    #[error("cannot bring the database to this version: {0}. Restore the backup made before the upgrade, or ask for help with this text")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

impl Store {
    /// Opens (and for SQLite creates) the database and runs the migrations.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await?
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = AnyPoolOptions::new()
                .max_connections(16)
                .acquire_timeout(Duration::from_secs(10))
                .connect(url)
                .await
                .map_err(StoreError::Open)?;
            Self { read: pool.clone(), write: pool, kind: Kind::Postgres }
        } else {
            return Err(StoreError::Scheme);
        };
        sqlx::migrate!().run(&store.write).await?;
        Ok(store)
    }

    async fn open_sqlite(url: &str) -> Result<Self, StoreError> {
        let url = if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") };
        let options: AnyConnectOptions = url.parse().map_err(StoreError::Open)?;
        let pool = |connections| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(10)).after_connect(|connection, _| {
                Box::pin(async move {
                    // WAL: readers never wait for the writer. NORMAL: a power cut may lose the last commits, never corrupts.
                    connection.execute("PRAGMA journal_mode = WAL").await?;
                    connection.execute("PRAGMA synchronous = NORMAL").await?;
                    connection.execute("PRAGMA busy_timeout = 5000").await?;
                    connection.execute("PRAGMA foreign_keys = ON").await?;
                    Ok(())
                })
            })
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(StoreError::Open)?;
        let read = pool(4).connect_with(options).await.map_err(StoreError::Open)?;
        Ok(Self { read, write, kind: Kind::Sqlite })
    }

    /// The embedded database's address for a data folder.
    pub fn sqlite_url(data: &Path) -> String {
        format!("sqlite://{}", data.join("message-server.db").display())
    }

    /// For single reads.
    pub fn read(&self) -> &AnyPool {
        &self.read
    }

    /// For single writes. SQLite has one writer: statements queue here instead of failing as busy.
    pub fn writer(&self) -> &AnyPool {
        &self.write
    }

    /// A transaction for writes that belong together.
    pub async fn write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.write.begin().await
    }

    /// A transaction that has locked `call`'s row, so that read-decide-write on one call is never interleaved.
    pub async fn write_call(&self, call: &str) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let mut tx = self.write.begin().await?;
        if self.kind == Kind::Postgres {
            sqlx::query("SELECT id FROM calls WHERE id = $1 FOR UPDATE").bind(call).fetch_optional(&mut *tx).await?;
        }
        Ok(tx)
    }

    /// Closes the pools; SQLite folds its log into the file.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Whether a write was refused because the value is there already.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
