//! Rows of the calls-offloader contract: its clients, its jobs, and what is to be forgotten.

use mattermost_accounts::Added;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Dialect, Store, StoreError, unix_ms};

/// Rows looked at in one round, or listed.
const ROWS_MAX: i64 = 500;

/// A job of the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallsJob {
    /// Its id.
    pub id: String,
    /// Who asked; the admin is empty.
    pub client: String,
    /// `recording` or `transcribing`.
    pub kind: String,
    /// As it came.
    pub runner: String,
    /// Longest capture.
    pub max_duration_s: i64,
    /// `input_data` as JSON, without its secrets.
    pub input: String,
    /// The Mattermost server.
    pub site_url: String,
    /// The call.
    pub channel_id: String,
    /// Its post.
    pub post_id: String,
    /// The plugin's own id of it.
    pub piece_id: String,
    /// The capture.
    pub job_id: String,
    /// What it writes.
    pub recording_id: String,
    /// Counted among those that may run at a time.
    pub slot: bool,
    /// Our sealed copy stays.
    pub keep: bool,
    /// When it came.
    pub created_at_ms: i64,
    /// When its turn came; 0 while it waits.
    pub start_at_ms: i64,
    /// When it is stopped; 0 while it waits.
    pub deadline_ms: i64,
    /// When it failed; 0 until then.
    pub stop_at_ms: i64,
    /// Why.
    pub error: String,
}

/// What became of a job that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Its turn is now.
    Starts,
    /// It waits for its turn.
    Waits,
    /// There are as many as may run, and as many as may wait.
    Full,
    /// It was asked for before.
    Known(Box<CallsJob>),
}

/// How many jobs of the contract there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CallsCounts {
    /// Counted among those that may run at a time.
    pub running: i64,
    /// Waiting for their turn.
    pub waiting: i64,
    /// Captured; what was made of it is on its way.
    pub publishing: i64,
    /// Failed and kept.
    pub failed: i64,
}

impl Store {
    /// Hash of a client's key.
    pub async fn calls_client_hash(&self, id: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT key_hash FROM calls_clients WHERE id = $1").bind(id).fetch_optional(&self.write).await?;
        row.map(|row| Ok(row.try_get("key_hash")?)).transpose()
    }

    /// Keeps a new client, if there is room.
    pub async fn add_calls_client(&self, id: &str, key_hash: &str, max: i64) -> Result<Added, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_calls(&mut transaction).await?;
        let count: i64 = sqlx::query("SELECT COUNT(*) AS n FROM calls_clients").fetch_one(&mut *transaction).await?.try_get("n")?;
        if sqlx::query("SELECT id FROM calls_clients WHERE id = $1").bind(id).fetch_optional(&mut *transaction).await?.is_some() {
            return Ok(Added::Taken);
        }
        if count >= max {
            return Ok(Added::Full);
        }
        let sql = "INSERT INTO calls_clients (id, key_hash, created_at_ms) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(id).bind(key_hash).bind(unix_ms()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Added::New)
    }

    /// Forgets a client. False: there is none of that name.
    pub async fn remove_calls_client(&self, id: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query("DELETE FROM calls_clients WHERE id = $1").bind(id).execute(&self.write).await?.rows_affected() > 0)
    }

    /// How many clients there are.
    pub async fn calls_clients(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query("SELECT COUNT(*) AS n FROM calls_clients").fetch_one(&self.read).await?.try_get("n")?)
    }

    /// Held until the transaction's end: what is counted in it stays as it was counted. SQLite has one writer anyway.
    async fn lock_calls(&self, transaction: &mut Transaction<'static, Any>) -> Result<(), StoreError> {
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock(845452)").execute(&mut **transaction).await?;
        }
        Ok(())
    }

    /// Counts a job in, or lets it wait. In one step: two that come together do not both get the last place.
    pub async fn admit_calls_job(&self, row: &CallsJob, max: i64, waiting_max: i64) -> Result<Admitted, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_calls(&mut transaction).await?;
        if let Some(known) = known_within(&mut transaction, row).await? {
            return Ok(Admitted::Known(Box::new(known)));
        }
        let (running, waiting) = counts_within(&mut transaction).await?;
        // Who waits already comes first.
        let starts = running < max && waiting == 0;
        if !starts && waiting >= waiting_max {
            return Ok(Admitted::Full);
        }
        let row = if starts { started(row.clone(), self.now_within(&mut transaction).await?) } else { row.clone() };
        insert(&mut transaction, &row).await?;
        transaction.commit().await?;
        Ok(if starts { Admitted::Starts } else { Admitted::Waits })
    }

    /// Adds a job that shares another's capture. `None`: it was asked for before.
    pub async fn add_calls_job(&self, row: &CallsJob) -> Result<Option<CallsJob>, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_calls(&mut transaction).await?;
        if known_within(&mut transaction, row).await?.is_some() {
            return Ok(None);
        }
        let sql = "SELECT start_at_ms, slot FROM calls_jobs WHERE job_id = $1 ORDER BY created_at_ms LIMIT 1";
        let other = sqlx::query(sql).bind(&row.job_id).fetch_optional(&mut *transaction).await?;
        let running = match &other {
            Some(other) => other.try_get::<i64, _>("slot")? != 0,
            None => false,
        };
        let row = if running { started(row.clone(), self.now_within(&mut transaction).await?) } else { row.clone() };
        insert(&mut transaction, &row).await?;
        transaction.commit().await?;
        Ok(Some(row))
    }

    /// Takes a row back whose capture could not be asked for.
    pub async fn drop_calls_job(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM calls_jobs WHERE id = $1").bind(id).execute(&self.write).await?;
        Ok(())
    }

    /// One job.
    pub async fn calls_job(&self, id: &str) -> Result<Option<CallsJob>, StoreError> {
        let row = sqlx::query("SELECT * FROM calls_jobs WHERE id = $1").bind(id).fetch_optional(&self.write).await?;
        row.as_ref().map(calls_job_of).transpose()
    }

    /// Jobs of a client, or of all, the newest first.
    pub async fn calls_jobs(&self, client: Option<&str>) -> Result<Vec<CallsJob>, StoreError> {
        let sql = "SELECT * FROM calls_jobs WHERE ($1 = 1 OR client = $2) ORDER BY created_at_ms DESC, id DESC LIMIT $3";
        let query = sqlx::query(sql).bind(i64::from(client.is_none())).bind(client.unwrap_or_default()).bind(ROWS_MAX);
        query.fetch_all(&self.read).await?.iter().map(calls_job_of).collect()
    }

    /// Jobs that have neither succeeded nor failed, the oldest first.
    pub async fn open_calls_jobs(&self) -> Result<Vec<CallsJob>, StoreError> {
        let sql = "SELECT * FROM calls_jobs WHERE stop_at_ms = 0 ORDER BY created_at_ms, id LIMIT $1";
        sqlx::query(sql).bind(ROWS_MAX).fetch_all(&self.write).await?.iter().map(calls_job_of).collect()
    }

    /// The recording of the same call that a transcription can share, the newest first.
    pub async fn calls_recordings_to_share(&self, row: &CallsJob) -> Result<Vec<CallsJob>, StoreError> {
        let sql = "SELECT * FROM calls_jobs r WHERE kind = 'recording' AND stop_at_ms = 0 AND client = $1 AND site_url = $2 \
                   AND channel_id = $3 AND post_id = $4 \
                   AND NOT EXISTS (SELECT 1 FROM calls_jobs t WHERE t.job_id = r.job_id AND t.kind = 'transcribing') \
                   ORDER BY created_at_ms DESC LIMIT 4";
        let query = sqlx::query(sql).bind(&row.client).bind(&row.site_url).bind(&row.channel_id).bind(&row.post_id);
        query.fetch_all(&self.write).await?.iter().map(calls_job_of).collect()
    }

    /// The next waiting capture gets its turn, with all that share it; `None`: nobody waits, or there is no place.
    pub async fn start_waiting_calls_job(&self, max: i64) -> Result<Option<String>, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_calls(&mut transaction).await?;
        let (running, _) = counts_within(&mut transaction).await?;
        if running >= max {
            return Ok(None);
        }
        let sql = "SELECT job_id FROM calls_jobs WHERE slot = 0 AND start_at_ms = 0 AND stop_at_ms = 0 ORDER BY created_at_ms, id LIMIT 1";
        let Some(row) = sqlx::query(sql).fetch_optional(&mut *transaction).await? else { return Ok(None) };
        let job_id: String = row.try_get("job_id")?;
        let now_ms = self.now_within(&mut transaction).await?;
        let sql = "UPDATE calls_jobs SET slot = 1, start_at_ms = $1, deadline_ms = $1 + max_duration_s * 1000 \
                   WHERE job_id = $2 AND stop_at_ms = 0";
        sqlx::query(sql).bind(now_ms).bind(&job_id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Some(job_id))
    }

    /// Its capture has ended: others may run.
    pub async fn free_calls_slot(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE calls_jobs SET slot = 0 WHERE id = $1").bind(id).execute(&self.write).await?;
        Ok(())
    }

    /// It has failed. False: somebody said so before, or it is gone.
    pub async fn fail_calls_job(&self, id: &str, error: &str, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE calls_jobs SET slot = 0, stop_at_ms = $1, error = $2 WHERE id = $3 AND stop_at_ms = 0";
        Ok(sqlx::query(sql).bind(now_ms).bind(error).bind(id).execute(&self.write).await?.rows_affected() > 0)
    }

    /// Its row goes; where no copy is to be kept, what was captured follows once nobody else needs it.
    pub async fn remove_calls_job(&self, row: &CallsJob, reason: &str, now_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM calls_jobs WHERE id = $1").bind(&row.id).execute(&mut *transaction).await?;
        if !row.keep && !row.recording_id.is_empty() {
            let sql = "INSERT INTO purges (recording_id, reason, asked_at_ms, done_at_ms) VALUES ($1, $2, $3, 0) \
                       ON CONFLICT (recording_id) DO NOTHING";
            sqlx::query(sql).bind(&row.recording_id).bind(reason).bind(now_ms).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Jobs that failed at or before this time.
    pub async fn calls_jobs_failed_before(&self, before_ms: i64) -> Result<Vec<CallsJob>, StoreError> {
        let sql = "SELECT * FROM calls_jobs WHERE stop_at_ms > 0 AND stop_at_ms <= $1 ORDER BY stop_at_ms LIMIT $2";
        sqlx::query(sql).bind(before_ms).bind(ROWS_MAX).fetch_all(&self.read).await?.iter().map(calls_job_of).collect()
    }

    /// Whether a recording belongs to a job of the contract.
    pub async fn is_of_calls_job(&self, recording_id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM calls_jobs WHERE recording_id = $1 LIMIT 1";
        Ok(sqlx::query(sql).bind(recording_id).fetch_optional(&self.write).await?.is_some())
    }

    /// How many there are.
    pub async fn calls_counts(&self) -> Result<CallsCounts, StoreError> {
        let sql = "SELECT slot, start_at_ms, stop_at_ms FROM calls_jobs";
        let mut counts = CallsCounts::default();
        for row in sqlx::query(sql).fetch_all(&self.read).await? {
            let number = |column: &str| row.try_get::<i64, _>(column);
            match (number("slot")? != 0, number("start_at_ms")? > 0, number("stop_at_ms")? > 0) {
                (_, _, true) => counts.failed += 1,
                (true, _, false) => counts.running += 1,
                (false, false, false) => counts.waiting += 1,
                (false, true, false) => counts.publishing += 1,
            }
        }
        Ok(counts)
    }

    /// Recordings that are to be deleted and can be: nobody works on them, and no job of the contract needs them.
    pub async fn purges_due(&self) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT recording_id, reason FROM purges p WHERE done_at_ms = 0 \
                   AND NOT EXISTS (SELECT 1 FROM calls_jobs c WHERE c.recording_id = p.recording_id) \
                   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.recording_id = p.recording_id AND \
                       (j.settled = 0 OR j.state IN ('queued', 'running', 'stopping'))) ORDER BY asked_at_ms LIMIT 16";
        let rows = sqlx::query(sql).fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((row.try_get("recording_id")?, row.try_get("reason")?))).collect()
    }

    /// Whether a recording was deleted here or on another node.
    pub async fn is_purged(&self, recording_id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM purges WHERE recording_id = $1 AND done_at_ms > 0";
        Ok(sqlx::query(sql).bind(recording_id).fetch_optional(&self.read).await?.is_some())
    }

    /// Deletes every row of a recording, its key with them, and forgets older deletions. The log of accesses stays.
    pub async fn purge_rows(&self, recording_id: &str, now_ms: i64, forget_before_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect == Dialect::Sqlite {
            let sql = "DELETE FROM transcript_words WHERE rowid IN (SELECT id FROM transcript_segments WHERE recording_id = $1)";
            sqlx::query(sql).bind(recording_id).execute(&mut *transaction).await?;
        }
        for sql in [
            "DELETE FROM transcript_segments WHERE recording_id = $1",
            "DELETE FROM derivatives WHERE recording_id = $1",
            "DELETE FROM recording_people WHERE recording_id = $1",
            "DELETE FROM capture_lines WHERE recording_id = $1",
            "DELETE FROM jobs WHERE recording_id = $1",
            "DELETE FROM recordings WHERE id = $1",
        ] {
            sqlx::query(sql).bind(recording_id).execute(&mut *transaction).await?;
        }
        let sql = "UPDATE purges SET done_at_ms = $1 WHERE recording_id = $2";
        sqlx::query(sql).bind(now_ms).bind(recording_id).execute(&mut *transaction).await?;
        let sql = "DELETE FROM purges WHERE done_at_ms > 0 AND done_at_ms < $1";
        sqlx::query(sql).bind(forget_before_ms).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn started(row: CallsJob, now_ms: i64) -> CallsJob {
    CallsJob { slot: true, start_at_ms: now_ms, deadline_ms: now_ms.saturating_add(row.max_duration_s.saturating_mul(1_000)), ..row }
}

async fn known_within(transaction: &mut Transaction<'static, Any>, row: &CallsJob) -> Result<Option<CallsJob>, StoreError> {
    let sql = "SELECT * FROM calls_jobs WHERE client = $1 AND kind = $2 AND piece_id = $3";
    let found = sqlx::query(sql).bind(&row.client).bind(&row.kind).bind(&row.piece_id).fetch_optional(&mut **transaction).await?;
    found.as_ref().map(calls_job_of).transpose()
}

/// Running, and waiting.
async fn counts_within(transaction: &mut Transaction<'static, Any>) -> Result<(i64, i64), StoreError> {
    let running = "SELECT COUNT(*) AS n FROM calls_jobs WHERE slot = 1";
    let waiting = "SELECT COUNT(*) AS n FROM calls_jobs WHERE slot = 0 AND start_at_ms = 0 AND stop_at_ms = 0";
    let running = sqlx::query(running).fetch_one(&mut **transaction).await?.try_get("n")?;
    Ok((running, sqlx::query(waiting).fetch_one(&mut **transaction).await?.try_get("n")?))
}

async fn insert(transaction: &mut Transaction<'static, Any>, row: &CallsJob) -> Result<(), StoreError> {
    let sql = "INSERT INTO calls_jobs (id, client, kind, runner, max_duration_s, input, site_url, channel_id, post_id, piece_id, job_id, \
               recording_id, slot, keep, created_at_ms, start_at_ms, deadline_ms, stop_at_ms, error) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0, '')";
    sqlx::query(sql)
        .bind(&row.id)
        .bind(&row.client)
        .bind(&row.kind)
        .bind(&row.runner)
        .bind(row.max_duration_s)
        .bind(&row.input)
        .bind(&row.site_url)
        .bind(&row.channel_id)
        .bind(&row.post_id)
        .bind(&row.piece_id)
        .bind(&row.job_id)
        .bind(&row.recording_id)
        .bind(i64::from(row.slot))
        .bind(i64::from(row.keep))
        .bind(row.created_at_ms)
        .bind(row.start_at_ms)
        .bind(row.deadline_ms)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn calls_job_of(row: &AnyRow) -> Result<CallsJob, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column);
    Ok(CallsJob {
        id: text("id")?,
        client: text("client")?,
        kind: text("kind")?,
        runner: text("runner")?,
        max_duration_s: number("max_duration_s")?,
        input: text("input")?,
        site_url: text("site_url")?,
        channel_id: text("channel_id")?,
        post_id: text("post_id")?,
        piece_id: text("piece_id")?,
        job_id: text("job_id")?,
        recording_id: text("recording_id")?,
        slot: number("slot")? != 0,
        keep: number("keep")? != 0,
        created_at_ms: number("created_at_ms")?,
        start_at_ms: number("start_at_ms")?,
        deadline_ms: number("deadline_ms")?,
        stop_at_ms: number("stop_at_ms")?,
        error: text("error")?,
    })
}
