//! LiveKit's egress: a recording asked for over a media node's LiveKit contract, whose file goes where the request said.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mattermost::PictureProfile;

/// Which of LiveKit's calls for a part of a room asks for an egress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    /// A whole room in one file.
    #[default]
    RoomComposite,
    /// What one person says and shows.
    Participant,
    /// An audio and a video track of one person.
    TrackComposite,
    /// One track as it is.
    Track,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileForm {
    /// Sound and pictures in MP4; without pictures M4A.
    #[default]
    Mp4,
    /// Pictures without sound, in MP4.
    SilentMp4,
    /// Sound, Opus in Ogg.
    Ogg,
    /// The one track of the recording as its publisher sent it, in the container that is usual for its codec.
    Track,
}

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
    /// Which call asked.
    pub kind: EgressKind,
    /// The request as it came, without secrets: LiveKit's JSON.
    pub request: serde_json::Value,
    /// It came as LiveKit's `StartEgress`, whatever `kind` says.
    pub unified: bool,
    /// What the file holds.
    pub form: FileForm,
    /// How the file is to look.
    pub picture: PictureProfile,
    /// Where the file goes: a path in the offloader's folder for egress, or a key in the bucket.
    pub path: String,
    /// It goes to this bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Bucket>,
    /// What is written beside the file; none where the request does not want it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

/// What LiveKit's egress writes beside a file: what it is of, by its field names (`livekit/egress`, `pkg/config/manifest.go`). Times are
/// Unix ns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "LiveKit's names, as in its messages")]
pub struct Manifest {
    pub egress_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_name: String,
    pub started_at: i64,
    pub ended_at: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub publisher_identity: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audio_track_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub video_track_id: String,
    pub files: Vec<ManifestFile>,
}

/// The file that a [`Manifest`] lies beside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// As it was asked for.
    pub filename: String,
    /// Where it is.
    pub location: String,
}

impl Manifest {
    /// Its own path, beside that of the file.
    pub fn beside(&self, path: &str) -> String {
        let folder = path.rfind('/').map_or("", |at| path.get(..=at).unwrap_or_default());
        format!("{folder}{}.json", self.egress_id)
    }

    /// As JSON, once the file is there.
    pub fn written(mut self, filename: &str, location: &str, ended_at_ms: i64) -> String {
        self.ended_at = ended_at_ms * 1_000_000;
        self.files = vec![ManifestFile { filename: filename.to_owned(), location: location.to_owned() }];
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// An S3 bucket, and who may write to it. In the store the secrets are sealed with the recording's data key, in a work order they are
/// clear.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct S3Bucket {
    /// `https://HOST[:PORT]`, as the operator permits it; see [`S3Bucket::host`] for who is called.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// Its name.
    pub bucket: String,
    /// The bucket stands in the path, not in the host's name.
    pub path_style: bool,
    /// Who writes.
    pub access_key: String,
    /// Secret.
    pub secret: String,
    /// Secret, with keys that hold for a time; else empty.
    pub session_token: String,
    /// Kept with the object.
    pub metadata: BTreeMap<String, String>,
    /// Kept with the object; else empty.
    pub content_disposition: String,
    /// Tags of the object, as S3 writes them in a header: `name=value&…`, URL-encoded.
    pub tagging: String,
}

impl S3Bucket {
    /// The address before the key of an object, with the bucket in it.
    pub fn host(&self) -> String {
        match self.endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => format!("{scheme}://{}.{host}", self.bucket),
            _ => format!("{}/{}", self.endpoint, self.bucket),
        }
    }

    /// What is sealed in the store.
    pub fn secrets(&mut self) -> impl Iterator<Item = &mut String> {
        [&mut self.access_key, &mut self.secret, &mut self.session_token].into_iter()
    }
}

/// Without secrets.
impl fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Bucket({})", self.host())
    }
}

/// What came of it: the result of its render job, and of the publication where the file goes to a bucket.
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
    /// Its path or address.
    pub location: String,
    /// Its length.
    pub bytes: u64,
    /// Path or address of what lies beside it, if anything does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub manifest: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_lies_beside_its_file_and_has_no_empty_fields() {
        let manifest = Manifest { egress_id: "EG_1".into(), room_name: "r".into(), started_at: 1, ..Manifest::default() };
        assert_eq!(["a.mp4", "days/a.mp4", "/a.mp4"].map(|path| manifest.beside(path)), ["EG_1.json", "days/EG_1.json", "/EG_1.json"]);
        assert_eq!(
            manifest.written("a.mp4", "/srv/a.mp4", 2),
            r#"{"egress_id":"EG_1","room_name":"r","started_at":1,"ended_at":2000000,"files":[{"filename":"a.mp4","location":"/srv/a.mp4"}]}"#
        );
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_in_the_name_and_its_secrets_are_not_shown() {
        let bucket = |path_style| S3Bucket {
            endpoint: "https://s3.example:9000".into(),
            bucket: "days".into(),
            path_style,
            access_key: "canary".into(),
            secret: "canary".into(),
            session_token: "canary".into(),
            ..S3Bucket::default()
        };
        assert_eq!(bucket(true).host(), "https://s3.example:9000/days");
        assert_eq!(bucket(false).host(), "https://days.s3.example:9000");
        let order = EgressOrder { s3: Some(bucket(true)), ..EgressOrder::default() };
        assert!(format!("{order:?}").contains("days") && !format!("{order:?}").contains("canary"));
        assert!(bucket(true).secrets().all(|secret| secret == "canary"));
    }
}
