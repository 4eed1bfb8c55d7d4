//! LiveKit's egress: a recording asked for over a media node's LiveKit contract, whose file goes where the request said.

use serde::{Deserialize, Serialize};

use crate::mattermost::PictureProfile;

/// What an egress wants. The media node keeps nothing of it: this is where it reads it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressOrder {
    /// LiveKit's id of it, `EG_…`.
    pub id: String,
    /// The media node that was asked, by its stable name: it tells webhooks.
    pub node: String,
    /// LiveKit's id of the room.
    pub room_id: String,
    /// The room's name.
    pub room_name: String,
    /// The request as it came, without secrets: LiveKit's JSON.
    pub request: serde_json::Value,
    /// How the file is to look.
    pub picture: PictureProfile,
    /// Where the file goes: a path in the offloader's folder for egress.
    pub path: String,
}

/// What came of it: the result of its render job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressResult {
    /// Length of the recording.
    pub duration_ms: i64,
    /// Where the file lies.
    pub delivered: Option<Delivered>,
}

/// A file that was brought to where it was wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivered {
    /// Its path.
    pub location: String,
    /// Its length.
    pub bytes: u64,
}
