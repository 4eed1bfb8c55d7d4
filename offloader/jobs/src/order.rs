//! What is asked for, what a worker is given, what it gives back: the JSON inside a job.
//!
//! `Submit.params_json` is [`RecordParams`] or [`CaptionParams`]. A worker that asks `Get` with its own token
//! finds a [`WorkOrder`] there instead: keys, folders and tokens are added for it and never stored.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::egress::{EgressOrder, FileForm, Manifest, S3Bucket};
use crate::mattermost::{BotCheckpoint, MattermostCall, PictureProfile, Piece, PublishCheckpoint};
use crate::selection::Selection;
use crate::vocabulary::Vocabulary;

/// Parameters of a recording.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordParams {
    /// The call.
    pub call_id: String,
    /// Whose call.
    pub tenant: String,
    /// Its channel.
    pub channel_id: String,
    /// The channel's name.
    pub channel_name: String,
    /// Title for people.
    pub title: String,
    /// Media node that has the call; empty: the configured one.
    pub rtcd: String,
    /// Who asked for it.
    pub started_by: String,
    /// Version of the notice.
    pub notice_version: String,
    /// Its text.
    pub notice_text: String,
    /// Answers so far.
    pub consents: Vec<ConsentParam>,
    /// Language of the speech, if known.
    pub language: Option<String>,
    /// Words and names that the speech is likely to hold, besides the site's.
    #[serde(skip_serializing_if = "Vocabulary::is_empty")]
    pub vocabulary: Vocabulary,
    /// What of the call is recorded.
    #[serde(skip_serializing_if = "Selection::is_everything")]
    pub selection: Selection,
    /// The call is another server's: a bot joins it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mattermost: Option<Box<MattermostCall>>,
    /// Asked for over LiveKit's contract: the file goes elsewhere too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<EgressOrder>>,
}

/// An answer to the notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsentParam {
    /// Who.
    pub identity: String,
    /// Name for people.
    pub display_name: String,
    /// Yes or no.
    pub granted: bool,
    /// When.
    pub answered_at_ms: i64,
}

/// Parameters of live captions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptionParams {
    /// The call.
    pub call_id: String,
    /// Whose call.
    pub tenant: String,
    /// Media node that has the call; empty: the configured one.
    pub rtcd: String,
    /// Language of the speech, if known.
    pub language: Option<String>,
    /// Words and names that the speech is likely to hold, besides the site's.
    #[serde(skip_serializing_if = "Vocabulary::is_empty")]
    pub vocabulary: Vocabulary,
}

/// What a worker is given.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkOrder {
    /// Capture a call.
    Record(Box<RecordOrder>),
    /// Caption a call.
    Caption(CaptionOrder),
    /// Make one file for people.
    Render(RenderOrder),
    /// Make words.
    Transcribe(TranscribeOrder),
    /// Bring what was made to the server that asked for it.
    Publish(PublishOrder),
    /// Bring what was made to a bucket.
    Upload(UploadOrder),
}

/// Where a recording's media comes from.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceOrder {
    /// Our own media node.
    Tap(TapOrder),
    /// A bot in a call of a Mattermost server.
    Mattermost(Box<BotOrder>),
}

/// Order to join a call of a Mattermost server.
#[derive(Clone, Serialize, Deserialize)]
pub struct BotOrder {
    /// Where, and what is wanted; tokens in clear.
    pub call: Box<MattermostCall>,
    /// How far an earlier attempt came.
    pub checkpoint: BotCheckpoint,
    /// Model for captions.
    pub model: ModelOrder,
}

/// Order to publish.
#[derive(Clone, Serialize, Deserialize)]
pub struct PublishOrder {
    /// The recording.
    pub recording_id: String,
    /// What of it.
    pub piece: Piece,
    /// To whom; tokens in clear.
    pub call: Box<MattermostCall>,
    /// How far an earlier attempt came.
    pub checkpoint: PublishCheckpoint,
}

/// Order to bring the rendered file to a bucket.
#[derive(Clone, Serialize, Deserialize)]
pub struct UploadOrder {
    /// The recording.
    pub recording_id: String,
    /// Where; secrets in clear.
    pub bucket: S3Bucket,
    /// The object's key.
    pub key: String,
    /// What is written beside it, and under which key.
    pub manifest: Option<(String, Manifest)>,
}

/// Where the media comes from.
#[derive(Clone, Serialize, Deserialize)]
pub struct TapOrder {
    /// Media node.
    pub url: String,
    /// The call.
    pub call_id: String,
    /// Whose call.
    pub tenant: String,
    /// Good for ten minutes; ask `Get` again for a fresh one.
    pub token: String,
    /// What of it is wanted. A tap for captions gives microphones, whatever stands here.
    #[serde(default)]
    pub selection: Selection,
}

/// Which models to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOrder {
    /// Whisper model; none: not configured.
    pub path: Option<PathBuf>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// Voice activity model.
    pub vad_path: Option<PathBuf>,
    /// Its SHA-256.
    pub vad_sha256: Option<String>,
    /// Words and names that the speech is likely to hold.
    #[serde(default, skip_serializing_if = "Vocabulary::is_empty")]
    pub vocabulary: Vocabulary,
}

/// Order to capture.
#[derive(Clone, Serialize, Deserialize)]
pub struct RecordOrder {
    /// As asked for.
    pub params: RecordParams,
    /// The recording.
    pub recording_id: String,
    /// Where the media comes from.
    pub source: SourceOrder,
    /// The recording's folder.
    pub dir: PathBuf,
    /// `archive::keys::AttemptGrant`.
    pub grant: serde_json::Value,
    /// Pause when the disk has less free than this.
    #[serde(default)]
    pub free_bytes_min: u64,
}

/// Order to caption.
#[derive(Clone, Serialize, Deserialize)]
pub struct CaptionOrder {
    /// As asked for.
    pub params: CaptionParams,
    /// Where the media comes from.
    pub tap: TapOrder,
    /// Models.
    pub model: ModelOrder,
}

/// Order to render.
#[derive(Clone, Serialize, Deserialize)]
pub struct RenderOrder {
    /// The recording.
    pub recording_id: String,
    /// Its folder, for reading.
    pub dir: PathBuf,
    /// Its data key, hexadecimal.
    pub data_key: String,
    /// Empty folder for what is made.
    pub output_dir: PathBuf,
    /// Title for people.
    pub title: String,
    /// How it is to look.
    #[serde(default)]
    pub picture: PictureProfile,
    /// What it is to hold.
    #[serde(default)]
    pub form: FileForm,
    /// Stop when the disk would have less free than this with what is made: recordings need it.
    #[serde(default)]
    pub free_bytes_min: u64,
}

/// Order to transcribe.
#[derive(Clone, Serialize, Deserialize)]
pub struct TranscribeOrder {
    /// The recording.
    pub recording_id: String,
    /// Its folder, for reading.
    pub dir: PathBuf,
    /// Its data key, hexadecimal.
    pub data_key: String,
    /// Empty folder for what is made.
    pub output_dir: PathBuf,
    /// Language of the speech, if known.
    pub language: Option<String>,
    /// Models.
    pub model: ModelOrder,
    /// Threads; 0: as many as help.
    #[serde(default)]
    pub threads: u32,
    /// After a failure of this attempt the job is given up: what cannot be read is left out, and whose it is said.
    #[serde(default)]
    pub last_try: bool,
    /// As in [`RenderOrder`].
    #[serde(default)]
    pub free_bytes_min: u64,
}

/// What came of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordResult {
    /// `call_ended`, `part_ended` (see [`crate::selection::PartOfCall`]) or `stopped`.
    pub reason: String,
    /// Packets stored.
    pub packets: u64,
    /// Segments closed.
    pub segments: u64,
}

/// What came of rendering.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenderResult {
    /// Plain file name in the output folder: `media.` and `mp4`, `m4a`, `ogg`, `webm` or `ivf`.
    pub file: String,
    /// Its media type.
    pub mime: String,
    /// Its length.
    pub duration_ms: i64,
    /// It has pictures.
    pub has_video: bool,
}

/// What came of transcribing. The files are `transcript.json`, `transcript.vtt`, `transcript.txt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TranscribeResult {
    /// Language that was spoken.
    pub language: String,
    /// Model that was used.
    pub model: String,
    /// Words found.
    pub words: u64,
}

/// What came of captions; also what their worker tells while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptionResult {
    /// Caption segments sent.
    pub segments: u64,
    /// Delay from speech to text, half of them below.
    pub delay_p50_ms: u64,
    /// Nine of ten below.
    pub delay_p90_ms: u64,
}

/// `transcript.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// Language that was spoken.
    pub language: String,
    /// Model that was used.
    pub model: String,
    /// Sentences in order of time.
    pub segments: Vec<TranscriptSegment>,
    /// Whose words are not here, or not all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingTrack>,
}

/// A track that could not be read, or not all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissingTrack {
    /// Whose.
    pub identity: String,
    /// Name for people.
    pub display_name: String,
    /// Where the first of it is missing, counted from the recording's start.
    pub from_ms: i64,
    /// Why, for the operator.
    pub reason: String,
}

/// What one person said in one go. Times count from the recording's start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TranscriptSegment {
    /// Its id in this transcript.
    pub id: String,
    /// Who.
    pub identity: String,
    /// Name for people.
    pub display_name: String,
    /// From.
    pub start_ms: i64,
    /// To.
    pub end_ms: i64,
    /// What was said.
    pub text: String,
    /// 0…1.
    pub confidence: f32,
    /// Word by word.
    pub words: Vec<TranscriptWord>,
}

/// One word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TranscriptWord {
    /// The word.
    pub text: String,
    /// From.
    pub start_ms: i64,
    /// To.
    pub end_ms: i64,
    /// 0…1.
    pub confidence: f32,
}
