//! Manifests of recordings that are being captured, as their nodes tell them: another node goes on from there.

use offloader_jobs::{Job, State};
use sqlx::Row;

use super::{Dialect, Store, StoreError};

impl Store {
    /// Bytes of the manifest that are kept here.
    pub async fn capture_bytes(&self, recording_id: &str) -> Result<u64, StoreError> {
        let sql = "SELECT COALESCE(MAX(at + bytes), 0) AS kept FROM capture_lines WHERE recording_id = $1";
        let kept: i64 = sqlx::query(sql).bind(recording_id).fetch_one(&self.read).await?.try_get("kept")?;
        u64::try_from(kept).map_err(|_| StoreError::Row("capture_lines.at"))
    }

    /// Keeps whole lines that begin at this position. False: another attempt has the job, nothing was written.
    pub async fn add_capture_lines(&self, job: &Job, at: u64, lines: &str) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        // Held until the commit: no other node can lease the job between this look and our writing.
        let lock = if self.dialect == Dialect::Postgres { "FOR SHARE" } else { "" };
        let sql = format!("SELECT fence, settled FROM jobs WHERE id = $1 {lock}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&job.id).fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(false) };
        let (fence, settled): (i64, i64) = (row.try_get("fence")?, row.try_get("settled")?);
        if fence != job.fence as i64 || settled != 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO capture_lines (recording_id, at, bytes, fence, lines) VALUES ($1, $2, $3, $4, $5)")
            .bind(&job.spec.recording_id)
            .bind(at as i64)
            .bind(lines.len() as i64)
            .bind(fence)
            .bind(lines)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The manifest as far as it is kept here.
    pub async fn capture_manifest(&self, recording_id: &str) -> Result<Vec<u8>, StoreError> {
        let rows = sqlx::query("SELECT at, lines FROM capture_lines WHERE recording_id = $1 ORDER BY at")
            .bind(recording_id)
            .fetch_all(&self.read)
            .await?;
        let mut manifest = Vec::new();
        for row in &rows {
            if row.try_get::<i64, _>("at")? != manifest.len() as i64 {
                return Err(StoreError::Row("capture_lines.at"));
            }
            manifest.extend_from_slice(row.try_get::<String, _>("lines")?.as_bytes());
        }
        Ok(manifest)
    }

    /// Recordings that workers of this node write, or wrote and nobody has settled.
    pub async fn captures_of(&self, node: &str) -> Result<Vec<Job>, StoreError> {
        let filter = super::jobs::JobFilter { states: State::ALL.to_vec(), unsettled: true, ..Default::default() };
        let mut jobs = self.jobs(&filter).await?;
        jobs.retain(|job| job.spec.kind == offloader_jobs::Kind::Record && super::nodes::node_of(&job.last_owner) == node);
        Ok(jobs)
    }
}
