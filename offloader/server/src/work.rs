//! Work orders: what a worker is given when it asks for its job.

use offloader_jobs::order::{
    CaptionOrder, CaptionParams, ModelOrder, RecordOrder, RecordParams, RenderOrder, TapOrder, TranscribeOrder, WorkOrder,
};
use offloader_jobs::{Job, Kind};

use crate::app::App;
use crate::store::catalogue::RecordingRow;
use crate::store::unix_ms;

/// An order cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No such recording.
    #[error("the job's recording {0} is not in the catalogue")]
    NoRecording(String),
    /// Parameters.
    #[error("the job's parameters cannot be read: {0}")]
    Params(#[from] serde_json::Error),
    /// Store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] archive::keys::KeyError),
    /// Token.
    #[error("cannot make a tap token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The output folder.
    #[error("cannot make the output folder: {0}")]
    Io(#[from] std::io::Error),
}

impl App {
    /// The order for this attempt of a job. Each call makes a fresh tap token.
    pub async fn work_order(&self, job: &Job) -> Result<WorkOrder, OrderError> {
        match job.spec.kind {
            Kind::Record => {
                let params: RecordParams = serde_json::from_str(&job.spec.params)?;
                let recording = self.recording_of(job).await?;
                let data_key = self.data_key(&recording)?;
                let grant = self.keys.signer.grant(&recording.id, job.fence, &data_key, &recording.wrapped_key, &self.keys.site.id())?;
                Ok(WorkOrder::Record(RecordOrder {
                    recording_id: recording.id.clone(),
                    tap: self.tap(job, &params.rtcd, "record")?,
                    dir: self.recording_dir(&recording.id),
                    grant: serde_json::to_value(grant)?,
                    free_bytes_min: self.settings.disk_free_min(),
                    params,
                }))
            }
            Kind::Caption => {
                let params: CaptionParams = serde_json::from_str(&job.spec.params)?;
                Ok(WorkOrder::Caption(CaptionOrder {
                    tap: self.tap(job, &params.rtcd, "caption")?,
                    model: self.model(Kind::Caption),
                    params,
                }))
            }
            Kind::Render => {
                let recording = self.recording_of(job).await?;
                Ok(WorkOrder::Render(RenderOrder {
                    recording_id: recording.id.clone(),
                    dir: self.recording_dir(&recording.id),
                    data_key: self.data_key(&recording)?.to_hex(),
                    output_dir: self.make_output_dir(job)?,
                    title: recording.title,
                }))
            }
            Kind::Transcribe => {
                let params: RecordParams = serde_json::from_str(&job.spec.params)?;
                let recording = self.recording_of(job).await?;
                Ok(WorkOrder::Transcribe(TranscribeOrder {
                    recording_id: recording.id.clone(),
                    dir: self.recording_dir(&recording.id),
                    data_key: self.data_key(&recording)?.to_hex(),
                    output_dir: self.make_output_dir(job)?,
                    language: params.language,
                    model: self.model(Kind::Transcribe),
                }))
            }
        }
    }

    /// The models for a kind of job.
    pub fn model(&self, kind: Kind) -> ModelOrder {
        let settings = &self.settings;
        let (path, sha256) = match (&settings.caption_model_path, kind) {
            (Some(path), Kind::Caption) => (Some(path.clone()), settings.caption_model_sha256.clone()),
            _ => (settings.model_path.clone(), settings.model_sha256.clone()),
        };
        ModelOrder { path, sha256, vad_path: settings.vad_path.clone(), vad_sha256: settings.vad_sha256.clone() }
    }

    async fn recording_of(&self, job: &Job) -> Result<RecordingRow, OrderError> {
        let recording = self.store.recording(&job.spec.recording_id).await?;
        recording.ok_or_else(|| OrderError::NoRecording(job.spec.recording_id.clone()))
    }

    fn tap(&self, job: &Job, rtcd: &str, purpose: &str) -> Result<TapOrder, OrderError> {
        let url = if rtcd.is_empty() { self.settings.rtcd.clone() } else { rtcd.to_owned() };
        let token = self.tokens.for_tap(&job.spec.tenant, &job.spec.call_id, purpose, unix_ms())?;
        Ok(TapOrder { url, call_id: job.spec.call_id.clone(), tenant: job.spec.tenant.clone(), token })
    }

    fn make_output_dir(&self, job: &Job) -> std::io::Result<std::path::PathBuf> {
        let dir = self.output_dir(&job.id, job.fence);
        crate::keys::private_dir(&dir)?;
        Ok(dir)
    }
}
