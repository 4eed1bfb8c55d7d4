//! The catalogue: which recordings there are, who was in them, what was made from them.

use archive::derived::Derivative;
use archive::manifest::Manifest;
use archive::seal::Seal;
use offloader_jobs::{Job, Refused, Spec};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::jobs::ChangeError;
use super::search::Query;
use super::{Dialect, Store, StoreError};
use offloader_jobs::order::Transcript;

/// A recording's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordingRow {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// The call.
    pub call_id: String,
    /// Title for people.
    pub title: String,
    /// Its channel.
    pub channel_id: String,
    /// The channel's name at that time.
    pub channel_name: String,
    /// Begin.
    pub started_at_ms: i64,
    /// End; 0 while it is captured.
    pub ended_at_ms: i64,
    /// `capturing`, `sealed`, `failed`.
    pub state: String,
    /// Why it failed.
    pub error: String,
    /// Data key, wrapped by the site key.
    pub wrapped_key: String,
    /// Tree root, once sealed.
    pub root: String,
    /// There are pictures.
    pub has_video: bool,
    /// Gaps of the whole recording and of its tracks.
    pub gaps: i64,
}

/// Somebody who was there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Person {
    /// Who.
    pub identity: String,
    /// Name at that time.
    pub display_name: String,
}

/// A stored derived file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedRow {
    /// Where its encrypted bytes lie.
    pub object: String,
    /// How many they are.
    pub object_bytes: u64,
    /// What the site says about it.
    pub statement: Derivative,
}

/// Which recordings to list.
#[derive(Debug, Clone, Default)]
pub struct RecordingFilter {
    /// Only of this tenant, if not empty.
    pub tenant: String,
    /// Words that were spoken.
    pub query: Option<Query>,
    /// Somebody who was there: identity, or part of a name.
    pub person: String,
    /// Channel: id, or part of its name.
    pub channel: String,
    /// Begun at or after.
    pub from_ms: Option<i64>,
    /// Begun before.
    pub to_ms: Option<i64>,
    /// After this one (time, id) in the list.
    pub after: Option<(i64, String)>,
    /// So many.
    pub limit: i64,
}

impl Store {
    /// A recording that is about to be captured, together with its job. False: the job is known.
    pub async fn add_recording(&self, recording: &RecordingRow, people: &[Person], job: &Job) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if !Self::insert_job(&mut transaction, job).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        let sql = "INSERT INTO recordings (id, tenant, call_id, title, channel_id, channel_name, started_at_ms, ended_at_ms, state, error, \
                   wrapped_key, root, has_video, gaps) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 'capturing', '', $8, '', 0, 0)";
        sqlx::query(sql)
            .bind(&recording.id)
            .bind(&recording.tenant)
            .bind(&recording.call_id)
            .bind(&recording.title)
            .bind(&recording.channel_id)
            .bind(&recording.channel_name)
            .bind(recording.started_at_ms)
            .bind(&recording.wrapped_key)
            .execute(&mut *transaction)
            .await?;
        add_people(&mut transaction, &recording.id, people).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The seal is on and everything is in the object store: say so, and ask for what follows.
    pub async fn publish_recording(&self, manifest: &Manifest, seal: &Seal, job_id: &str, follow_ups: &[Job]) -> Result<(), StoreError> {
        let id = &seal.recording_id;
        let has_video = manifest.tracks.iter().any(|track| track.info.kind == "video" && !track.segments.is_empty());
        let gaps = manifest.gaps.len() + manifest.tracks.iter().map(|track| track.gaps.len()).sum::<usize>();
        let mut transaction = self.begin().await?;
        let sql = "UPDATE recordings SET state = 'sealed', error = '', root = $1, started_at_ms = $2, ended_at_ms = $3, has_video = $4, gaps = $5 \
                   WHERE id = $6 AND state <> 'sealed'";
        sqlx::query(sql)
            .bind(&seal.root)
            .bind(manifest.started_at_us / 1000)
            .bind(manifest.shown_until_us() / 1000)
            .bind(i64::from(has_video))
            .bind(gaps as i64)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        let people: Vec<Person> = manifest
            .participants
            .iter()
            .map(|(_, person)| Person { identity: person.identity.clone(), display_name: person.display_name.clone() })
            .collect();
        let speakers: Vec<Person> = manifest
            .tracks
            .iter()
            .map(|track| Person { identity: track.info.identity.clone(), display_name: track.info.display_name.clone() })
            .collect();
        add_people(&mut transaction, id, &people).await?;
        add_people(&mut transaction, id, &speakers).await?;
        for job in follow_ups {
            Self::insert_job(&mut transaction, job).await?;
        }
        sqlx::query("UPDATE jobs SET settled = 1 WHERE id = $1").bind(job_id).execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM capture_lines WHERE recording_id = $1").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// There is nothing to seal.
    pub async fn fail_recording(&self, id: &str, error: &str, ended_at_ms: i64, job_id: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE recordings SET state = 'failed', error = $1, ended_at_ms = $2 WHERE id = $3 AND state = 'capturing'")
            .bind(error)
            .bind(ended_at_ms)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE jobs SET settled = 1 WHERE id = $1").bind(job_id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// One conditional step: the derived files become visible and the job ends, or neither.
    pub async fn publish_derived(
        &self,
        job_id: &str,
        files: &[DerivedRow],
        transcript: Option<&Transcript>,
        mut change: impl FnMut(&mut Job, i64) -> Result<(), Refused>,
    ) -> Result<Job, ChangeError> {
        for _ in 0..20 {
            let mut transaction = self.begin().await?;
            let Some((job, ())) = self.change_within(&mut transaction, job_id, &mut change).await? else {
                transaction.rollback().await.map_err(StoreError::from)?;
                continue;
            };
            self.write_derived(&mut transaction, &job.spec, files, transcript).await?;
            transaction.commit().await.map_err(StoreError::from)?;
            return Ok(job);
        }
        Err(StoreError::Busy.into())
    }

    async fn write_derived(
        &self,
        transaction: &mut sqlx::Transaction<'static, sqlx::Any>,
        spec: &Spec,
        files: &[DerivedRow],
        transcript: Option<&Transcript>,
    ) -> Result<(), StoreError> {
        for file in files {
            let statement = serde_json::to_string(&file.statement).map_err(|_| StoreError::Row("derivatives.statement"))?;
            let sql = "INSERT INTO derivatives (recording_id, name, object, object_bytes, statement) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (recording_id, name) DO UPDATE SET object = excluded.object, object_bytes = excluded.object_bytes, \
                       statement = excluded.statement";
            sqlx::query(sql)
                .bind(&spec.recording_id)
                .bind(&file.statement.name)
                .bind(&file.object)
                .bind(file.object_bytes as i64)
                .bind(statement)
                .execute(&mut **transaction)
                .await?;
        }
        let Some(transcript) = transcript else { return Ok(()) };
        if self.dialect == Dialect::Sqlite {
            let sql = "DELETE FROM transcript_words WHERE rowid IN (SELECT id FROM transcript_segments WHERE recording_id = $1)";
            sqlx::query(sql).bind(&spec.recording_id).execute(&mut **transaction).await?;
        }
        sqlx::query("DELETE FROM transcript_segments WHERE recording_id = $1").bind(&spec.recording_id).execute(&mut **transaction).await?;
        for segment in &transcript.segments {
            let sql = "INSERT INTO transcript_segments (recording_id, identity, display_name, start_ms, text) VALUES ($1, $2, $3, $4, $5) RETURNING id";
            let row = sqlx::query(sql)
                .bind(&spec.recording_id)
                .bind(kept(&segment.identity))
                .bind(kept(&segment.display_name))
                .bind(segment.start_ms)
                .bind(kept(&segment.text))
                .fetch_one(&mut **transaction)
                .await?;
            if self.dialect == Dialect::Sqlite {
                let id: i64 = row.try_get("id")?;
                sqlx::query("INSERT INTO transcript_words (rowid, text) VALUES ($1, $2)")
                    .bind(id)
                    .bind(kept(&segment.text))
                    .execute(&mut **transaction)
                    .await?;
            }
        }
        Ok(())
    }

    /// One recording.
    pub async fn recording(&self, id: &str) -> Result<Option<RecordingRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM recordings WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map(recording_of).transpose()
    }

    /// Recordings, the newest first.
    pub async fn recordings(&self, filter: &RecordingFilter) -> Result<Vec<RecordingRow>, StoreError> {
        let spoken = filter.query.as_ref().map_or(String::new(), |_| format!("AND id IN ({})", self.matching_recordings("$1")));
        let sql = format!(
            "SELECT * FROM recordings WHERE ($1 = '' OR $1 <> '') {spoken} \
             AND ($2 = '' OR EXISTS (SELECT 1 FROM recording_people p WHERE p.recording_id = recordings.id \
                  AND (p.identity = $2 OR LOWER(p.display_name) LIKE $3 ESCAPE '!'))) \
             AND ($4 = '' OR channel_id = $4 OR LOWER(channel_name) LIKE $5 ESCAPE '!') \
             AND started_at_ms >= $6 AND started_at_ms < $7 \
             AND (started_at_ms < $8 OR (started_at_ms = $8 AND id < $9)) AND ($10 = '' OR tenant = $10) \
             ORDER BY started_at_ms DESC, id DESC LIMIT $11"
        );
        let words = filter.query.as_ref().map_or(String::new(), |query| self.words(query));
        let (after_ms, after_id) = filter.after.clone().unwrap_or((i64::MAX, String::new()));
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(words)
            .bind(&filter.person)
            .bind(like(&filter.person))
            .bind(&filter.channel)
            .bind(like(&filter.channel))
            .bind(filter.from_ms.unwrap_or(i64::MIN))
            .bind(filter.to_ms.unwrap_or(i64::MAX))
            .bind(after_ms)
            .bind(after_id)
            .bind(&filter.tenant)
            .bind(filter.limit);
        query.fetch_all(&self.read).await?.iter().map(recording_of).collect()
    }

    /// Who was there.
    pub async fn people(&self, recording_id: &str) -> Result<Vec<Person>, StoreError> {
        let sql = "SELECT identity, display_name FROM recording_people WHERE recording_id = $1 ORDER BY display_name, identity";
        let rows = sqlx::query(sql).bind(recording_id).fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(Person { identity: row.try_get("identity")?, display_name: row.try_get("display_name")? })).collect()
    }

    /// What was made from a recording.
    pub async fn derived(&self, recording_id: &str) -> Result<Vec<DerivedRow>, StoreError> {
        let sql = "SELECT object, object_bytes, statement FROM derivatives WHERE recording_id = $1 ORDER BY name";
        let rows = sqlx::query(sql).bind(recording_id).fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let statement: String = row.try_get("statement")?;
                Ok(DerivedRow {
                    object: row.try_get("object")?,
                    object_bytes: row.try_get::<i64, _>("object_bytes")? as u64,
                    statement: serde_json::from_str(&statement).map_err(|_| StoreError::Row("derivatives.statement"))?,
                })
            })
            .collect()
    }

    /// It is sealed and nothing is left to do with it: a folder on a node's disk is not needed any more.
    pub async fn is_finished(&self, recording_id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS finished FROM recordings WHERE id = $1 AND state = 'sealed' AND NOT EXISTS \
                   (SELECT 1 FROM jobs WHERE jobs.recording_id = recordings.id AND (jobs.settled = 0 OR jobs.state IN ('queued', 'running', 'stopping')))";
        Ok(sqlx::query(sql).bind(recording_id).fetch_optional(&self.read).await?.is_some())
    }

    /// It cannot be sealed yet, and this is why: shown until it can.
    pub async fn note_trouble(&self, recording_id: &str, error: &str) -> Result<(), StoreError> {
        let sql = "UPDATE recordings SET error = $1 WHERE id = $2 AND state = 'capturing'";
        sqlx::query(sql).bind(error).bind(recording_id).execute(&self.write).await?;
        Ok(())
    }

    /// How many recordings are in each state.
    pub async fn recording_counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query("SELECT state, COUNT(*) AS n FROM recordings GROUP BY state").fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((row.try_get("state")?, row.try_get("n")?))).collect()
    }

    /// How many jobs are in each state, by kind.
    pub async fn job_counts(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        let rows = sqlx::query("SELECT kind, state, COUNT(*) AS n FROM jobs GROUP BY kind, state").fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((row.try_get("kind")?, row.try_get("state")?, row.try_get("n")?))).collect()
    }
}

async fn add_people(
    transaction: &mut sqlx::Transaction<'static, sqlx::Any>,
    recording_id: &str,
    people: &[Person],
) -> Result<(), StoreError> {
    for person in people {
        let sql = "INSERT INTO recording_people (recording_id, identity, display_name) VALUES ($1, $2, $3) \
                   ON CONFLICT (recording_id, identity) DO UPDATE SET display_name = excluded.display_name";
        sqlx::query(sql)
            .bind(recording_id)
            .bind(kept(&person.identity))
            .bind(kept(&person.display_name))
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// As the database can keep it: PostgreSQL takes no U+0000, which manifests may hold that were written before it was kept out of them.
fn kept(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Pattern for "contains", with the pattern's own signs taken literally.
fn like(text: &str) -> String {
    let escaped = text.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{escaped}%")
}

fn recording_of(row: &AnyRow) -> Result<RecordingRow, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column);
    Ok(RecordingRow {
        id: text("id")?,
        tenant: text("tenant")?,
        call_id: text("call_id")?,
        title: text("title")?,
        channel_id: text("channel_id")?,
        channel_name: text("channel_name")?,
        started_at_ms: number("started_at_ms")?,
        ended_at_ms: number("ended_at_ms")?,
        state: text("state")?,
        error: text("error")?,
        wrapped_key: text("wrapped_key")?,
        root: text("root")?,
        has_video: number("has_video")? != 0,
        gaps: number("gaps")?,
    })
}
