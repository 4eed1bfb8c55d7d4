//! From a job of the contract to one of ours, and back to what its client sees of it.

use offloader_jobs::order::RecordParams;
use offloader_jobs::{Job, Kind as JobKind, Spec, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::config::CallsConfig;
use super::input::{self, Asked};
use super::runner::{Kind, kind_of};
use crate::app::App;
use crate::store::StoreError;
use crate::store::calls::{Admitted, CallsJob};
use crate::store::jobs::ChangeError;
use crate::submit::{SubmitError, new_recording_id};
use crate::work::seal_tokens;

/// Whose calls these are among our own jobs.
pub(crate) const TENANT: &str = "mattermost";
/// What the original says when as many run as may; the first word is the same for every type.
pub(super) const FULL: &str = "failed to create recording job: max concurrent jobs reached";
/// Longest capture that can be asked for: a week. The plugin asks for six hours at most.
const DURATION_S_MAX: i64 = 7 * 86_400;

/// What `POST /jobs` brings.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    #[serde(rename = "type", alias = "Type")]
    kind: String,
    #[serde(alias = "MaxDurationSec")]
    max_duration_sec: i64,
    #[serde(alias = "Runner")]
    runner: String,
    #[serde(alias = "InputData")]
    input_data: Option<Map<String, Value>>,
}

/// Why a job is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// What was asked for makes no sense.
    Bad(String),
    /// Too many.
    Full,
    /// Of ours.
    Broken(String),
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Broken(format!("failed to save job: {error}"))
    }
}

impl From<SubmitError> for NotTaken {
    fn from(error: SubmitError) -> Self {
        Self::Broken(format!("failed to save job: {error}"))
    }
}

/// A job as its client sees it: what it asked for, and how it stands.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    max_duration_sec: i64,
    runner: String,
    input_data: Value,
    start_at: i64,
    #[serde(skip_serializing_if = "is_zero")]
    stop_at: i64,
    /// Ours: `waiting`, `running`, `stopping`, `publishing` or `failed`.
    state: &'static str,
    /// Ours: why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl App {
    /// Takes a job of that client.
    pub(super) async fn take_calls_job(&self, config: &CallsConfig, client: &str, request: Request) -> Result<CallsJob, NotTaken> {
        let kind = checked(config, &request).map_err(NotTaken::Bad)?;
        let given = request.input_data.unwrap_or_default();
        let asked = input::read(kind, &given).map_err(|error| NotTaken::Bad(format!("invalid input data: {error}")))?;
        let call = &asked.call;
        let row = CallsJob {
            id: new_id()?,
            client: client.to_owned(),
            kind: kind.name().to_owned(),
            runner: request.runner,
            max_duration_s: request.max_duration_sec.min(DURATION_S_MAX),
            input: Value::Object(input::redacted(&given)).to_string(),
            site_url: call.site_url.clone(),
            channel_id: call.channel_id.clone(),
            post_id: call.post_id.clone(),
            piece_id: asked.piece_id.clone(),
            job_id: format!("job-{}", Uuid::now_v7()),
            recording_id: new_recording_id(),
            keep: self.settings.mattermost_keep,
            created_at_ms: self.store.now_ms().await?,
            ..CallsJob::default()
        };
        for note in &asked.notes {
            tracing::info!(calls_job = %row.id, "{note}");
        }
        if kind == Kind::Transcribing
            && let Some(shared) = self.share_capture(&row, &asked).await?
        {
            return Ok(shared);
        }
        self.capture_of_its_own(config, row, asked).await
    }

    /// One bot in the call and one reading of its sounds serve both jobs, where the recording's capture is still open.
    async fn share_capture(&self, row: &CallsJob, asked: &Asked) -> Result<Option<CallsJob>, NotTaken> {
        for recording in self.store.calls_recordings_to_share(row).await? {
            let Some(captured) = self.store.recording(&recording.recording_id).await? else { continue };
            let key = self.data_key(&captured).map_err(|error| NotTaken::Broken(error.to_string()))?;
            let mut wanted = asked.call.clone();
            seal_tokens(&mut wanted, &key).map_err(|error| NotTaken::Broken(error.to_string()))?;
            let row = CallsJob { job_id: recording.job_id.clone(), recording_id: recording.recording_id.clone(), ..row.clone() };
            // First the row: what is published belongs to somebody.
            let Some(row) = self.store.add_calls_job(&row).await? else { break };
            let extended = self.store.change_job(&recording.job_id, |job, now_ms| {
                let mut params: RecordParams = serde_json::from_str(&job.spec.params).unwrap_or_default();
                let free = params.mattermost.as_ref().is_some_and(|call| call.transcription.is_none());
                if let Some(call) = params.mattermost.as_mut().filter(|_| free) {
                    call.transcription.clone_from(&wanted.transcription);
                    params.language = params.language.or(asked.language.clone());
                }
                let text = serde_json::to_string(&params).unwrap_or_default();
                if free { job.extend(text, now_ms) } else { Err(offloader_jobs::Refused::Ended) }
            });
            match extended.await {
                Ok((job, ())) => {
                    tracing::info!(calls_job = %row.id, job = %job.id, "a transcription shares its recording's capture");
                    self.told(&job);
                    self.wake.notify_one();
                    return Ok(Some(row));
                }
                // It has just ended: another one may be open, or it gets a capture of its own.
                Err(ChangeError::Refused(_) | ChangeError::Unknown(_)) => self.store.drop_calls_job(&row.id).await?,
                Err(ChangeError::Store(error)) => {
                    self.store.drop_calls_job(&row.id).await?;
                    return Err(error.into());
                }
            }
        }
        Ok(None)
    }

    async fn capture_of_its_own(&self, config: &CallsConfig, row: CallsJob, asked: Asked) -> Result<CallsJob, NotTaken> {
        let max = i64::try_from(config.max_jobs).unwrap_or(i64::MAX);
        let waiting_max = i64::try_from(self.settings.mattermost_queue).unwrap_or(i64::MAX);
        let starts = match self.store.admit_calls_job(&row, max, waiting_max).await? {
            Admitted::Starts => true,
            Admitted::Waits => false,
            Admitted::Full => {
                tracing::warn!(
                    client = row.client,
                    max,
                    waiting_max,
                    "a job was refused: as many run and wait as may (jobs.max_concurrent_jobs, OFFLOADER_MATTERMOST_QUEUE)"
                );
                return Err(NotTaken::Full);
            }
            // An answer was lost, and it is asked for again.
            Admitted::Known(known) => return Ok(*known),
        };
        let mut job = Job::new(row.job_id.clone(), spec(&row, &asked)?, row.created_at_ms);
        if !starts {
            job.hold();
        }
        let job = match self.add_recording(job).await {
            Ok(job) => job,
            Err(error) => {
                // Where the store failed the job may be there all the same, and its bot on the way: only a row leads to its end.
                let found = match &error {
                    SubmitError::Store(_) => self.store.job(&row.job_id).await,
                    SubmitError::Params(_) | SubmitError::Key(_) => Ok(None),
                };
                match found {
                    Ok(Some(job)) => job,
                    Ok(None) => {
                        self.store.drop_calls_job(&row.id).await?;
                        return Err(error.into());
                    }
                    // Once the store answers again, a round takes the row on with its job, or fails it where there is none.
                    Err(_) => return Err(error.into()),
                }
            }
        };
        let (id, kind) = (&row.id, &row.kind);
        tracing::info!(calls_job = %id, kind, job = %job.id, starts, channel = row.channel_id, "a Mattermost server asked for a job");
        self.told(&job);
        self.wake.notify_one();
        let kept = self.store.calls_job(&row.id).await?;
        Ok(kept.unwrap_or(row))
    }

    /// What a client sees of its job.
    pub(super) async fn calls_view(&self, row: CallsJob) -> Result<View, StoreError> {
        let state = match self.store.job(&row.job_id).await? {
            _ if row.stop_at_ms > 0 => "failed",
            _ if row.start_at_ms == 0 => "waiting",
            Some(job) => match job.state {
                State::Queued | State::Running => "running",
                State::Stopping => "stopping",
                State::Done | State::Failed => "publishing",
            },
            None => "running",
        };
        Ok(View {
            id: row.id,
            kind: row.kind,
            max_duration_sec: row.max_duration_s,
            runner: row.runner,
            input_data: serde_json::from_str(&row.input).unwrap_or_default(),
            start_at: row.start_at_ms,
            stop_at: row.stop_at_ms,
            state,
            error: row.error,
        })
    }
}

fn checked(config: &CallsConfig, request: &Request) -> Result<Kind, String> {
    let invalid = |why: String| format!("invalid job config: {why}");
    let kind = Kind::from_name(&request.kind).ok_or_else(|| invalid(format!("invalid job type {:?}", request.kind)))?;
    if request.max_duration_sec <= 0 {
        return Err(invalid("max_duration_sec should be positive".into()));
    }
    if request.runner.is_empty() {
        return Err(invalid("runner should not be empty".into()));
    }
    if config.check_runners {
        let of_runner = kind_of(&request.runner, &config.registry).map_err(invalid)?;
        if of_runner != kind {
            return Err(invalid(format!("the runner {:?} is not one for jobs of type {}", request.runner, kind.name())));
        }
    }
    Ok(kind)
}

fn spec(row: &CallsJob, asked: &Asked) -> Result<Spec, NotTaken> {
    let params = RecordParams {
        call_id: row.channel_id.clone(),
        tenant: TENANT.to_owned(),
        channel_id: row.channel_id.clone(),
        title: "Call of a Mattermost channel".to_owned(),
        started_by: row.client.clone(),
        language: asked.language.clone(),
        mattermost: Some(Box::new(asked.call.clone())),
        ..RecordParams::default()
    };
    let params = serde_json::to_string(&params).map_err(|error| NotTaken::Broken(error.to_string()))?;
    Ok(Spec {
        kind: JobKind::Record,
        tenant: TENANT.to_owned(),
        call_id: row.channel_id.clone(),
        recording_id: row.recording_id.clone(),
        // Of this very job: that the same is not asked for twice is the row's business.
        idempotency_key: format!("{}:{}:{}", row.kind, row.piece_id, row.id),
        params,
    })
}

/// 26 letters and digits, as everything of Mattermost's has.
fn new_id() -> Result<String, NotTaken> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz1345678";
    let mut random = [0; 26];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NotTaken::Broken("the operating system gives no randomness".into()))?;
    Ok(random.iter().filter_map(|byte| LETTERS.get(usize::from(byte & 31))).copied().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Result<Kind, String> {
        let config = CallsConfig::read(None, &|_: &str| None).unwrap();
        checked(&config, &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn type_duration_and_runner_are_checked_and_belong_together() {
        let good = r#"{"type":"recording","max_duration_sec":3600,"runner":"mattermost/calls-recorder:v0.8.13"}"#;
        assert_eq!(request(good), Ok(Kind::Recording));
        for (from, to) in [
            ("recording", "captioning"),
            ("3600", "0"),
            ("3600", "-1"),
            ("mattermost/calls-recorder:v0.8.13", ""),
            ("calls-recorder:v0.8.13", "calls-recorder:latest"),
            ("calls-recorder:v0.8.13", "calls-transcriber:v0.7.2"),
        ] {
            let error = request(&good.replace(from, to)).unwrap_err();
            assert!(error.starts_with("invalid job config: "), "{from} {to}: {error}");
        }
    }

    #[test]
    fn ids_fit_their_routes() {
        for _ in 0..100 {
            let id = new_id().unwrap();
            assert!(id.len() == 26 && id.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()), "{id}");
        }
    }
}
