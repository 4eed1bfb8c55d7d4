//! Rows of jobs: read, changed by the rules of `offloader-jobs`, written back if nobody was faster.
//!
//! Several offloaders share these rows. What keeps them apart is the row's version: of two that want the same job, one
//! writes, and the other finds no row of the version that it read.

use offloader_jobs::{Job, Kind, Lease, Refused, Spec, State};
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use super::{Store, StoreError};
use crate::limits::JOBS_LISTED_MAX;

/// Writers that collide more often than this have found something worse than bad luck.
const TRIES: usize = 20;

/// A change was refused, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such job.
    #[error("no job with id {0}")]
    Unknown(String),
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// By the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this tenant, if not empty.
    pub tenant: String,
    /// Only of this call, if not empty.
    pub call_id: String,
    /// Only of this recording, if not empty.
    pub recording_id: String,
    /// Only in these states, if any.
    pub states: Vec<State>,
    /// Only those whose end has not been dealt with.
    pub unsettled: bool,
    /// At most so many; 0: as many as are ever listed.
    pub limit: i64,
}

impl Store {
    /// Adds a job, or gives the one that was asked for with the same key.
    pub(super) async fn insert_job(transaction: &mut Transaction<'static, Any>, job: &Job) -> Result<bool, StoreError> {
        let sql = "INSERT INTO jobs (id, kind, tenant, call_id, recording_id, idempotency_key, params, state, attempt, failures, fence, \
                   lease_owner, lease_since_ms, lease_until_ms, run_after_ms, progress, error, checkpoint, failed_checkpoint, stats, result, \
                   created_at_ms, updated_at_ms, version, settled) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, '', 0, 0, $9, 0, '', '', '', '', '', $10, $11, 0, 0) \
                   ON CONFLICT (tenant, idempotency_key) DO NOTHING";
        let done = sqlx::query(sql)
            .bind(&job.id)
            .bind(job.spec.kind.name())
            .bind(&job.spec.tenant)
            .bind(&job.spec.call_id)
            .bind(&job.spec.recording_id)
            .bind(&job.spec.idempotency_key)
            .bind(&job.spec.params)
            .bind(job.state.name())
            .bind(job.run_after_ms)
            .bind(job.created_at_ms)
            .bind(job.updated_at_ms)
            .execute(&mut **transaction)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Adds a job, or gives the one with its key. True: it is new.
    pub async fn add_job(&self, job: &Job) -> Result<(Job, bool), StoreError> {
        let mut transaction = self.begin().await?;
        let new = Self::insert_job(&mut transaction, job).await?;
        transaction.commit().await?;
        let found = self.job_by_key(&job.spec.tenant, &job.spec.idempotency_key).await?;
        Ok((found.ok_or(StoreError::Busy)?, new))
    }

    /// The job with that key.
    pub async fn job_by_key(&self, tenant: &str, key: &str) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE tenant = $1 AND idempotency_key = $2")
            .bind(tenant)
            .bind(key)
            .fetch_optional(&self.write)
            .await?;
        row.as_ref().map(job_of).transpose()
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map(job_of).transpose()
    }

    /// Jobs, the newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let states = filter.states.iter().map(|state| format!("'{}'", state.name())).collect::<Vec<_>>().join(",");
        let by_state = if states.is_empty() { "1 = 1".to_owned() } else { format!("state IN ({states})") };
        let unsettled = if filter.unsettled { "AND settled = 0" } else { "" };
        let sql = format!(
            "SELECT * FROM jobs WHERE ($1 = '' OR tenant = $1) AND ($2 = '' OR call_id = $2) AND ($3 = '' OR recording_id = $3) \
             AND {by_state} {unsettled} ORDER BY created_at_ms DESC, id DESC LIMIT $4"
        );
        let limit = if filter.limit <= 0 { JOBS_LISTED_MAX } else { filter.limit.min(JOBS_LISTED_MAX) };
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&filter.tenant).bind(&filter.call_id).bind(&filter.recording_id).bind(limit);
        query.fetch_all(&self.read).await?.iter().map(job_of).collect()
    }

    /// Changes a job by the rules; the row is written only if it is still as it was read.
    pub async fn change_job<T>(
        &self,
        id: &str,
        mut change: impl FnMut(&mut Job, i64) -> Result<T, Refused>,
    ) -> Result<(Job, T), ChangeError> {
        for _ in 0..TRIES {
            let mut transaction = self.begin().await?;
            match self.change_within(&mut transaction, id, &mut change).await? {
                Some(changed) => {
                    transaction.commit().await.map_err(StoreError::from)?;
                    return Ok(changed);
                }
                None => transaction.rollback().await.map_err(StoreError::from)?,
            }
        }
        Err(StoreError::Busy.into())
    }

    /// The same inside a transaction, with other writes; `None`: somebody was faster, begin again.
    pub(super) async fn change_within<T>(
        &self,
        transaction: &mut Transaction<'static, Any>,
        id: &str,
        change: &mut impl FnMut(&mut Job, i64) -> Result<T, Refused>,
    ) -> Result<Option<(Job, T)>, ChangeError> {
        let now_ms = self.now_within(transaction).await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id).fetch_optional(&mut **transaction).await;
        let Some(row) = row.map_err(StoreError::from)? else { return Err(ChangeError::Unknown(id.to_owned())) };
        let mut job = job_of(&row)?;
        let version: i64 = row.try_get("version").map_err(StoreError::from)?;
        let told = change(&mut job, now_ms)?;
        let (since_ms, until_ms) = job.lease.as_ref().map_or((0, 0), |lease| (lease.since_ms, lease.until_ms));
        let sql = "UPDATE jobs SET state = $1, attempt = $2, failures = $3, fence = $4, lease_owner = $5, lease_since_ms = $6, \
                   lease_until_ms = $7, run_after_ms = $8, progress = $9, error = $10, checkpoint = $11, stats = $12, result = $13, \
                   updated_at_ms = $14, params = $15, failed_checkpoint = $16, blocked = $17, version = version + 1 \
                   WHERE id = $18 AND version = $19";
        let done = sqlx::query(sql)
            .bind(job.state.name())
            .bind(i64::from(job.attempt))
            .bind(i64::from(job.failures))
            .bind(job.fence as i64)
            .bind(&job.last_owner)
            .bind(since_ms)
            .bind(until_ms)
            .bind(job.run_after_ms)
            .bind(f64::from(job.progress))
            .bind(&job.error)
            .bind(&job.checkpoint)
            .bind(&job.stats)
            .bind(&job.result)
            .bind(job.updated_at_ms)
            .bind(&job.spec.params)
            .bind(&job.failed_checkpoint)
            .bind(i64::from(job.blocked))
            .bind(id)
            .bind(version)
            .execute(&mut **transaction)
            .await
            .map_err(StoreError::from)?;
        Ok((done.rows_affected() == 1).then_some((job, told)))
    }

    /// Jobs that changed at or after this time.
    pub async fn jobs_changed(&self, since_ms: i64) -> Result<Vec<Job>, StoreError> {
        let sql = "SELECT * FROM jobs WHERE updated_at_ms >= $1 ORDER BY updated_at_ms DESC LIMIT $2";
        let rows = sqlx::query(sql).bind(since_ms).bind(JOBS_LISTED_MAX).fetch_all(&self.read).await?;
        rows.iter().map(job_of).collect()
    }

    /// What follows from the job's end has been done.
    pub async fn settle_job(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE jobs SET settled = 1 WHERE id = $1").bind(id).execute(&self.write).await?;
        Ok(())
    }
}

fn job_of(row: &AnyRow) -> Result<Job, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column);
    let state = State::from_name(&text("state")?).ok_or(StoreError::Row("jobs.state"))?;
    let lease = Lease { owner: text("lease_owner")?, since_ms: number("lease_since_ms")?, until_ms: number("lease_until_ms")? };
    Ok(Job {
        id: text("id")?,
        spec: Spec {
            kind: Kind::from_name(&text("kind")?).ok_or(StoreError::Row("jobs.kind"))?,
            tenant: text("tenant")?,
            call_id: text("call_id")?,
            recording_id: text("recording_id")?,
            idempotency_key: text("idempotency_key")?,
            params: text("params")?,
        },
        state,
        attempt: u32::try_from(number("attempt")?).map_err(|_| StoreError::Row("jobs.attempt"))?,
        failures: u32::try_from(number("failures")?).map_err(|_| StoreError::Row("jobs.failures"))?,
        blocked: u32::try_from(number("blocked")?).map_err(|_| StoreError::Row("jobs.blocked"))?,
        fence: u64::try_from(number("fence")?).map_err(|_| StoreError::Row("jobs.fence"))?,
        last_owner: lease.owner.clone(),
        lease: state.is_leased().then_some(lease),
        run_after_ms: number("run_after_ms")?,
        progress: row.try_get::<f64, _>("progress")? as f32,
        error: text("error")?,
        checkpoint: text("checkpoint")?,
        failed_checkpoint: text("failed_checkpoint")?,
        stats: text("stats")?,
        result: text("result")?,
        created_at_ms: number("created_at_ms")?,
        updated_at_ms: number("updated_at_ms")?,
    })
}
