//! Work orders: what a worker is given when it asks for its job.

use archive::keys::DataKey;
use offloader_jobs::egress::{EgressOrder, S3Bucket};
use offloader_jobs::mattermost::{MattermostCall, PictureProfile, Piece};
use offloader_jobs::order::{
    BotOrder, CaptionOrder, CaptionParams, ModelOrder, PublishOrder, RecordOrder, RecordParams, RenderOrder, SourceOrder, TapOrder,
    TranscribeOrder, UploadOrder, WorkOrder,
};
use offloader_jobs::selection::Selection;
use offloader_jobs::vocabulary::Vocabulary;
use offloader_jobs::{Job, Kind};

use crate::app::App;
use crate::egress::object_key;
use crate::models;
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
    /// Nobody asked for it.
    #[error("the job's parameters name no server to publish to")]
    Nowhere,
    /// A setting is against it.
    #[error("{0}")]
    Forbidden(String),
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
                let mut params: RecordParams = serde_json::from_str(&job.spec.params)?;
                let recording = self.recording_of(job).await?;
                let data_key = self.data_key(&recording)?;
                let source = match params.mattermost.take() {
                    None => SourceOrder::Tap(self.tap(job, &params.rtcd, "record", &params.selection)?),
                    Some(mut call) => {
                        let captions = call.transcription.as_ref().and_then(|wanted| wanted.captions.as_ref());
                        let size = captions.map(|captions| (captions.model_size.as_str(), Some(captions.language.as_str())));
                        let model = self.model_of_size(size, Kind::Caption, &params.vocabulary);
                        self.tell_another_size(job, Kind::Caption, size.map_or("", |(size, _)| size), &model);
                        open(tokens(&mut call), TOKEN_PURPOSE, &data_key)?;
                        // A checkpoint that cannot be read costs the bot's place in the call, not the job.
                        let checkpoint = serde_json::from_str(&job.checkpoint).unwrap_or_default();
                        SourceOrder::Mattermost(Box::new(BotOrder { call, checkpoint, model }))
                    }
                };
                let grant = self.keys.signer.grant(&recording.id, job.fence, &data_key, &recording.wrapped_key, &self.keys.site.id())?;
                Ok(WorkOrder::Record(Box::new(RecordOrder {
                    recording_id: recording.id.clone(),
                    source,
                    dir: self.recording_dir(&recording.id),
                    grant: serde_json::to_value(grant)?,
                    free_bytes_min: self.settings.disk_free_min(),
                    params,
                })))
            }
            Kind::Caption => {
                let params: CaptionParams = serde_json::from_str(&job.spec.params)?;
                Ok(WorkOrder::Caption(CaptionOrder {
                    tap: self.tap(job, &params.rtcd, "caption", &Selection::default())?,
                    model: self.model(Kind::Caption, &params.vocabulary),
                    params,
                }))
            }
            Kind::Render => {
                let params: RecordParams = serde_json::from_str(&job.spec.params)?;
                let recording = self.recording_of(job).await?;
                Ok(WorkOrder::Render(RenderOrder {
                    recording_id: recording.id.clone(),
                    dir: self.recording_dir(&recording.id),
                    data_key: self.data_key(&recording)?.to_hex(),
                    output_dir: self.make_output_dir(job)?,
                    title: recording.title,
                    picture: Self::picture(&params),
                    form: params.egress.map(|egress| egress.form).unwrap_or_default(),
                    free_bytes_min: self.free_min(Kind::Render),
                }))
            }
            Kind::Transcribe => {
                let params: RecordParams = serde_json::from_str(&job.spec.params)?;
                let recording = self.recording_of(job).await?;
                let model = self.transcript_model(&params);
                let asked = params.mattermost.and_then(|call| call.transcription).unwrap_or_default();
                self.tell_another_size(job, Kind::Transcribe, &asked.model_size, &model);
                Ok(WorkOrder::Transcribe(TranscribeOrder {
                    recording_id: recording.id.clone(),
                    dir: self.recording_dir(&recording.id),
                    data_key: self.data_key(&recording)?.to_hex(),
                    output_dir: self.make_output_dir(job)?,
                    language: asked.language.or(params.language),
                    model,
                    threads: asked.threads,
                    last_try: job.is_last_try(),
                    free_bytes_min: self.free_min(Kind::Transcribe),
                }))
            }
            Kind::PublishRecording => self.publish_order(job, Piece::Recording).await,
            Kind::PublishTranscript => self.publish_order(job, Piece::Transcript).await,
        }
    }

    /// The models for a kind of job, which expect the job's vocabulary before the site's.
    pub fn model(&self, kind: Kind, vocabulary: &Vocabulary) -> ModelOrder {
        let settings = &self.settings;
        let (path, sha256) = match (&settings.caption_model_path, kind) {
            (Some(path), Kind::Caption) => (Some(path.clone()), settings.caption_model_sha256.clone()),
            _ => (settings.model_path.clone(), settings.model_sha256.clone()),
        };
        let vocabulary = vocabulary.clone().and(&settings.vocabulary);
        ModelOrder { path, sha256, vad_path: settings.vad_path.clone(), vad_sha256: settings.vad_sha256.clone(), vocabulary }
    }

    /// The models of a recording's transcript.
    pub(crate) fn transcript_model(&self, params: &RecordParams) -> ModelOrder {
        let Some(asked) = params.mattermost.as_ref().and_then(|call| call.transcription.as_ref()) else {
            return self.model(Kind::Transcribe, &params.vocabulary);
        };
        let language = asked.language.as_deref().or(params.language.as_deref());
        let vocabulary = asked.vocabulary.clone().and(&params.vocabulary);
        self.model_of_size(Some((&asked.model_size, language)), Kind::Transcribe, &vocabulary)
    }

    /// How the film of a recording is to look.
    pub(crate) fn picture(params: &RecordParams) -> PictureProfile {
        let asked = params.mattermost.as_ref().and_then(|call| call.recording.as_ref()).map(|recording| &recording.picture);
        asked.or(params.egress.as_ref().map(|egress| &egress.picture)).cloned().unwrap_or_default()
    }

    /// As [`App::model`], for a job that names a size and perhaps the language of the speech; an empty size names none.
    fn model_of_size(&self, size: Option<(&str, Option<&str>)>, kind: Kind, vocabulary: &Vocabulary) -> ModelOrder {
        let order = self.model(kind, vocabulary);
        let (Some(folder), Some((size, language))) = (&self.settings.models_dir, size.filter(|(size, _)| !size.is_empty())) else {
            return order;
        };
        let Some(found) = models::find(folder, size, language) else { return order };
        ModelOrder { path: Some(found.path), sha256: found.sha256, ..order }
    }

    /// Says it where a job does not get the size of model that it asked for.
    fn tell_another_size(&self, job: &Job, kind: Kind, size: &str, order: &ModelOrder) {
        if self.settings.models_dir.is_some() && !size.is_empty() && order.path == self.model(kind, &Vocabulary::default()).path {
            tracing::info!(job = %job.id, size, "OFFLOADER_MODELS_DIR has no such model for this language: the site's own is taken");
        }
    }

    async fn publish_order(&self, job: &Job, piece: Piece) -> Result<WorkOrder, OrderError> {
        let params: RecordParams = serde_json::from_str(&job.spec.params)?;
        let recording = self.recording_of(job).await?;
        let data_key = self.data_key(&recording)?;
        if let Some(EgressOrder { s3: Some(mut bucket), path, manifest, .. }) = params.egress.map(|egress| *egress) {
            // Permitted when it was asked for, and perhaps no longer.
            self.check_bucket(&bucket).map_err(OrderError::Forbidden)?;
            open(bucket.secrets(), BUCKET_PURPOSE, &data_key)?;
            let key = object_key(&path).to_owned();
            let manifest = manifest.map(|manifest| (manifest.beside(&key), manifest));
            return Ok(WorkOrder::Upload(UploadOrder { recording_id: recording.id, bucket, key, manifest }));
        }
        let mut call = params.mattermost.ok_or(OrderError::Nowhere)?;
        open(tokens(&mut call), TOKEN_PURPOSE, &data_key)?;
        let checkpoint = serde_json::from_str(&job.checkpoint).unwrap_or_default();
        Ok(WorkOrder::Publish(PublishOrder { recording_id: recording.id, piece, call, checkpoint }))
    }

    async fn recording_of(&self, job: &Job) -> Result<RecordingRow, OrderError> {
        let recording = self.store.recording(&job.spec.recording_id).await?;
        recording.ok_or_else(|| OrderError::NoRecording(job.spec.recording_id.clone()))
    }

    fn tap(&self, job: &Job, rtcd: &str, purpose: &str, selection: &Selection) -> Result<TapOrder, OrderError> {
        let url = if rtcd.is_empty() { self.settings.rtcd.clone() } else { rtcd.to_owned() };
        let token = self.tokens.for_tap(&job.spec.tenant, &job.spec.call_id, purpose, unix_ms())?;
        let (call_id, tenant) = (job.spec.call_id.clone(), job.spec.tenant.clone());
        Ok(TapOrder { url, call_id, tenant, token, selection: selection.clone() })
    }

    fn make_output_dir(&self, job: &Job) -> std::io::Result<std::path::PathBuf> {
        let dir = self.output_dir(&job.id, job.fence);
        crate::keys::private_dir(&dir)?;
        Ok(dir)
    }
}

/// Secrets lie in the store sealed with the recording's key: who reads the database can neither act as the bot nor write to a bucket.
fn open<'s>(secrets: impl Iterator<Item = &'s mut String>, purpose: &'static str, key: &DataKey) -> Result<(), archive::keys::KeyError> {
    for secret in secrets {
        *secret = key.open_text(purpose, secret)?;
    }
    Ok(())
}

/// Before they get there.
fn seal<'s>(secrets: impl Iterator<Item = &'s mut String>, purpose: &'static str, key: &DataKey) -> Result<(), archive::keys::KeyError> {
    for secret in secrets {
        *secret = key.seal_text(purpose, secret)?;
    }
    Ok(())
}

/// The bot's.
pub(crate) fn seal_tokens(call: &mut MattermostCall, key: &DataKey) -> Result<(), archive::keys::KeyError> {
    seal(tokens(call), TOKEN_PURPOSE, key)
}

/// The bucket's.
pub(crate) fn seal_bucket(bucket: &mut S3Bucket, key: &DataKey) -> Result<(), archive::keys::KeyError> {
    seal(bucket.secrets(), BUCKET_PURPOSE, key)
}

fn tokens(call: &mut MattermostCall) -> impl Iterator<Item = &mut String> {
    let recording = call.recording.iter_mut().map(|recording| &mut recording.auth_token);
    recording.chain(call.transcription.iter_mut().map(|transcription| &mut transcription.auth_token))
}

/// What keys of buckets are sealed for.
const BUCKET_PURPOSE: &str = "s3 bucket";

/// What tokens are sealed for; see [`DataKey::seal_text`].
pub const TOKEN_PURPOSE: &str = "mattermost bot token";
