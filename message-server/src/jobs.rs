//! Client of the offloader's job API.

use std::{sync::Arc, time::Duration};

use conclave_proto::v1::{self, JobKind, JobState, jobs_client::JobsClient};
use serde::Serialize;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use utoipa::ToSchema;

use crate::{
    app::App,
    events::{Audience, Event},
    rights::Role,
    settings::Settings,
};

/// The offloader answers within this, or is counted as away.
const DEADLINE: Duration = Duration::from_secs(5);

/// The connection.
#[derive(Debug, Clone)]
pub struct Jobs {
    client: JobsClient<Channel>,
    bearer: Option<MetadataValue<Ascii>>,
    tenant: String,
}

/// Why a job call failed.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// Try again later.
    #[error("the recording service is not reachable ({0})")]
    Unavailable(String),
    /// Trying again will not help; the text says what would.
    #[error("{0}")]
    Refused(String),
}

impl From<Status> for JobsError {
    fn from(status: Status) -> Self {
        use tonic::Code;
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::AlreadyExists => Self::Refused(status.message().to_owned()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Unavailable(status.message().to_owned()),
        }
    }
}

/// Metadata value of a bearer token; `None` without one.
pub(crate) fn bearer(token: &str) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl Jobs {
    /// From the settings; `None` without an offloader. Connects when first used.
    pub fn from_settings(settings: &Settings) -> anyhow::Result<Option<Self>> {
        if settings.offloader.is_empty() {
            return Ok(None);
        }
        let channel = Endpoint::from_shared(settings.offloader.clone())?
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Some(Self {
            client: JobsClient::new(channel).max_decoding_message_size(crate::limits::LINK_MESSAGE_BYTES),
            bearer: bearer(settings.offloader_token.expose())?,
            tenant: settings.tenant.clone(),
        }))
    }

    fn request<T>(&self, body: T, deadline: Option<Duration>) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// Asks for a job; the same key gives the same job.
    pub async fn submit(&self, kind: JobKind, call: &str, key: &str, params_json: String) -> Result<v1::Job, JobsError> {
        let request = v1::SubmitRequest {
            kind: kind as i32,
            tenant: self.tenant.clone(),
            call_id: call.to_owned(),
            idempotency_key: key.to_owned(),
            params_json,
            recording_id: String::new(),
        };
        Ok(self.client.clone().submit(self.request(request, Some(DEADLINE))).await?.into_inner())
    }

    /// Asks a job to end properly.
    pub async fn stop(&self, id: &str, reason: &str) -> Result<v1::Job, JobsError> {
        let request = v1::StopRequest { id: id.to_owned(), reason: reason.to_owned() };
        Ok(self.client.clone().stop(self.request(request, Some(DEADLINE))).await?.into_inner())
    }

    /// A job's state.
    pub async fn get(&self, id: &str) -> Result<v1::Job, JobsError> {
        let request = v1::GetJobRequest { id: id.to_owned() };
        Ok(self.client.clone().get(self.request(request, Some(DEADLINE))).await?.into_inner())
    }

    /// The newest jobs.
    pub async fn list(&self, limit: u32) -> Result<Vec<v1::Job>, JobsError> {
        let request = v1::ListJobsRequest { tenant: self.tenant.clone(), call_id: String::new(), states: Vec::new(), limit };
        Ok(self.client.clone().list(self.request(request, Some(DEADLINE))).await?.into_inner().jobs)
    }

    /// Tells the pages of officers and operators about jobs, and wakes the reconciler. Runs for the life of the server.
    pub async fn watch(self, app: Arc<App>) {
        let mut pause = crate::link::backoff::Backoff::default();
        loop {
            let request = v1::WatchJobsRequest { tenant: self.tenant.clone() };
            match self.client.clone().watch(self.request(request, None)).await {
                Ok(response) => {
                    pause.reset();
                    let mut stream = response.into_inner();
                    while let Ok(Some(job)) = stream.message().await {
                        app.reconciler.wake();
                        app.hub.send(&Audience::Roles(&[Role::Ops, Role::Officer]), Event::Job { job: JobView::from(job) });
                    }
                }
                Err(status) => tracing::debug!(error = status.message(), "the job watch is not open"),
            }
            tokio::time::sleep(pause.next()).await;
        }
    }
}

/// A job, as pages see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobView {
    /// Id.
    pub id: String,
    /// record, caption, render, transcribe.
    pub kind: &'static str,
    /// queued, running, stopping, done, failed.
    pub state: &'static str,
    /// The call.
    pub call_id: String,
    /// The recording, if it is about one.
    pub recording_id: String,
    /// 1, 2, …
    pub attempt: u32,
    /// Grows with each attempt.
    pub fence: u64,
    /// Which worker has it.
    pub lease_owner: String,
    /// Unix ms.
    pub lease_until_ms: i64,
    /// 0…1, derived jobs.
    pub progress: f32,
    /// What failed and what to do.
    pub error: String,
    /// Unix ms.
    pub created_at_ms: i64,
    /// Unix ms.
    pub updated_at_ms: i64,
}

impl From<v1::Job> for JobView {
    fn from(job: v1::Job) -> Self {
        let kind = match job.kind() {
            JobKind::Record => "record",
            JobKind::Caption => "caption",
            JobKind::Render => "render",
            JobKind::Transcribe => "transcribe",
            JobKind::PublishRecording => "publish_recording",
            JobKind::PublishTranscript => "publish_transcript",
            JobKind::Unspecified => "",
        };
        let state = match job.state() {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Stopping => "stopping",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Unspecified => "",
        };
        Self {
            kind,
            state,
            id: job.id,
            call_id: job.call_id,
            recording_id: job.recording_id,
            attempt: job.attempt,
            fence: job.fence,
            lease_owner: job.lease_owner,
            lease_until_ms: job.lease_until_ms,
            progress: job.progress,
            error: job.error,
            created_at_ms: job.created_at_ms,
            updated_at_ms: job.updated_at_ms,
        }
    }
}
