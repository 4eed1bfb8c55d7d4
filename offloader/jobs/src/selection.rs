//! What of a call a recording takes: everything, or one person's part of it.

use serde::{Deserialize, Serialize};

/// What is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Sound, pictures or both.
    pub media: MediaKinds,
    /// One person's part alone; none: everybody's.
    pub only: Option<PartOfCall>,
}

impl Selection {
    /// All that people say and show.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// Sound, pictures or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKinds {
    /// Both.
    #[default]
    Both,
    /// What is heard.
    Sound,
    /// What is seen.
    Pictures,
}

impl MediaKinds {
    /// Sound is in it.
    pub fn has_sound(self) -> bool {
        match self {
            Self::Both | Self::Sound => true,
            Self::Pictures => false,
        }
    }

    /// Pictures are in it.
    pub fn has_pictures(self) -> bool {
        match self {
            Self::Both | Self::Pictures => true,
            Self::Sound => false,
        }
    }
}

/// One person's part. The recording ends with it: when the person leaves, or when the tracks named have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartOfCall {
    /// Whose.
    pub identity: String,
    /// These tracks; none named: all of theirs.
    pub track_sids: Vec<String>,
    /// Tracks of these sources, in the words of `archive::manifest::TrackInfo::source`; none named: of all.
    pub sources: Vec<String>,
}
