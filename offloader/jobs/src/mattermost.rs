//! A call of a Mattermost server with the Calls plugin, as calls-offloader's contract describes it: a bot joins the call, and
//! what was made of it goes back to the server as posts.
//!
//! The plugin asks for two jobs, a recording and a transcription. Where both come to the same offloader they are one capture
//! here, and one bot in the call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layout::{LaterLayout, Layout};
use crate::vocabulary::Vocabulary;

/// Where a bot goes and what is wanted of the call.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MattermostCall {
    /// The Mattermost server, `https://chat.example.org`, perhaps with a path, without a slash at the end.
    pub site_url: String,
    /// The channel, which is what the plugin calls the call.
    pub channel_id: String,
    /// The call's post.
    pub post_id: String,
    /// A file of the call is wanted.
    pub recording: Option<MattermostRecording>,
    /// Words are wanted.
    pub transcription: Option<MattermostTranscription>,
    /// Certificates (PEM) that the server's may be signed by, besides the machine's own.
    pub ca_file: Option<PathBuf>,
    /// Where LiveKit is for this bot, instead of what the plugin (version 2) says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub livekit_url: Option<String>,
}

/// The plugin's recording job. No `Debug`: it holds a token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MattermostRecording {
    /// The plugin's id of it (`RECORDING_ID`).
    pub id: String,
    /// The bot's session. In the store it is sealed with the recording's data key, in a work order it is clear.
    pub auth_token: String,
    /// How the picture is to be.
    pub picture: PictureProfile,
}

/// The plugin's transcription job. No `Debug`: it holds a token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MattermostTranscription {
    /// The plugin's id of it (`TRANSCRIPTION_ID`).
    pub id: String,
    /// As [`MattermostRecording::auth_token`].
    pub auth_token: String,
    /// `tiny`, `base`, `small`, `medium` or `large`. Chooses among the site's models where it has a folder of them
    /// (`OFFLOADER_MODELS_DIR`).
    pub model_size: String,
    /// Threads; 0: as the offloader sees fit.
    pub threads: u32,
    /// Language of the speech, if known.
    pub language: Option<String>,
    /// Words and names that the speech is likely to hold, besides the site's; for the captions too.
    #[serde(skip_serializing_if = "Vocabulary::is_empty")]
    pub vocabulary: Vocabulary,
    /// No names in the WebVTT.
    pub omit_speaker: bool,
    /// In the text file a speaker's next words join the block before when the silence is shorter.
    pub compact_silence_ms: u32,
    /// … and the block began less than this before.
    pub compact_segment_ms: u32,
    /// Live captions are wanted too.
    pub captions: Option<MattermostCaptions>,
}

/// Live captions of a transcription job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MattermostCaptions {
    /// As [`MattermostTranscription::model_size`].
    pub model_size: String,
    /// Recognisers at a time; 0: one.
    pub transcribers: u32,
    /// Threads of each; 0: as the offloader sees fit.
    pub threads: u32,
    /// Language of the speech.
    pub language: String,
}

/// How a rendered file is to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PictureProfile {
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Pictures a second.
    pub frame_rate: u32,
    /// Most that pictures may take, kbit/s; 0: no bound.
    pub video_kbps: u32,
    /// Sound, kbit/s.
    pub audio_kbps: u32,
    /// Sound of an MP4 as Opus instead of AAC.
    pub opus: bool,
    /// x264's preset.
    pub preset: String,
    /// Pictures even where nobody showed any: who is there, and who speaks.
    pub always: bool,
    /// Cameras are shown where people publish them.
    pub cameras: bool,
    /// One picture in full instead of everybody: the newest that is there, black while none is.
    pub single: bool,
    /// Where everybody stands.
    pub layout: Layout,
    /// And later on, in the order of their times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<LaterLayout>,
}

impl Default for PictureProfile {
    /// What officers of our own message server get.
    fn default() -> Self {
        Self {
            width: 1_280,
            height: 720,
            frame_rate: 15,
            video_kbps: 0,
            audio_kbps: 96,
            opus: false,
            preset: "veryfast".into(),
            always: false,
            cameras: true,
            single: false,
            layout: Layout::default(),
            later: Vec::new(),
        }
    }
}

/// How far a capture's bot came: the checkpoint of a record job, so that the next attempt goes on as the same member of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BotCheckpoint {
    /// The bot's session in the call: the connection id it first had.
    pub session_id: String,
    /// The connection id it had last.
    pub connection_id: String,
    /// Jobs of the plugin that were told to have started.
    pub started: Vec<String>,
}

/// What the plugin is told to publish, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The file.
    Recording,
    /// The words.
    Transcript,
}

/// How far a publication came: the checkpoint of a publish job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishCheckpoint {
    /// The name that the files have, without an ending; asked for once.
    pub name: String,
    /// Files on their way, in order.
    pub uploads: Vec<UploadCheckpoint>,
    /// The post was asked for; whether the server heard it is not known.
    pub posting: bool,
    /// The post is there.
    pub posted: bool,
}

/// One upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadCheckpoint {
    /// The upload session.
    pub id: String,
    /// The file, once it is whole.
    pub file_id: String,
}
