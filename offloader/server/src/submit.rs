//! A capture is asked for: its recording gets an id and a key, and both rows are written together.

use archive::keys::{DataKey, KeyError};
use offloader_jobs::Job;
use offloader_jobs::order::RecordParams;
use uuid::Uuid;

use crate::app::App;
use crate::store::catalogue::{Person, RecordingRow};
use crate::store::{StoreError, unix_ms};
use crate::work::{seal_bucket, seal_tokens};

/// It cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// Parameters.
    #[error("{0}")]
    Params(#[from] serde_json::Error),
    /// The recording's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Adds a capture and its recording, or gives the one that was asked for with the same key. Tokens and keys in its parameters are sealed.
    pub(crate) async fn add_recording(&self, mut job: Job) -> Result<Job, SubmitError> {
        let mut params: RecordParams = serde_json::from_str(&job.spec.params)?;
        if job.spec.recording_id.is_empty() {
            job.spec.recording_id = new_recording_id();
        }
        let id = job.spec.recording_id.clone();
        let data_key = DataKey::generate()?;
        if let Some(call) = &mut params.mattermost {
            seal_tokens(call, &data_key)?;
            job.spec.params = serde_json::to_string(&params)?;
        }
        if let Some(bucket) = params.egress.as_mut().and_then(|egress| egress.s3.as_mut()) {
            seal_bucket(bucket, &data_key)?;
            job.spec.params = serde_json::to_string(&params)?;
        }
        let recording = RecordingRow {
            wrapped_key: self.keys.site.wrap(&id, &data_key)?,
            id,
            tenant: job.spec.tenant.clone(),
            call_id: job.spec.call_id.clone(),
            title: params.title,
            channel_id: params.channel_id,
            channel_name: params.channel_name,
            started_at_ms: unix_ms(),
            ..RecordingRow::default()
        };
        let people: Vec<Person> =
            params.consents.into_iter().map(|consent| Person { identity: consent.identity, display_name: consent.display_name }).collect();
        self.store.add_recording(&recording, &people, &job).await?;
        // Ours, or that of somebody who asked with the same key in the same moment.
        let found = self.store.job_by_key(&job.spec.tenant, &job.spec.idempotency_key).await?;
        Ok(found.ok_or(StoreError::Busy)?)
    }
}

/// A name that no recording has.
pub(crate) fn new_recording_id() -> String {
    format!("rec-{}", Uuid::now_v7())
}
