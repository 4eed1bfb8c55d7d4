//! What a file is called: LiveKit's placeholders filled in, and the ending that its content has.

use livekit_protocol as lk;
use offloader_jobs::egress::{EgressKind, FileForm};
use time::OffsetDateTime;
use time::macros::format_description;

/// Endings that say what a file holds; a wrong one is replaced.
const ENDINGS: [&str; 9] = ["aac", "ivf", "m3u8", "mp3", "mp4", "ogg", "raw", "ts", "webm"];

/// What a name may tell of.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Which call asked.
    pub kind: EgressKind,
    /// The room.
    pub room: &'a lk::Room,
    /// Whose part of it; none: everybody's.
    pub identity: Option<&'a str>,
    /// The one track.
    pub track: Option<&'a lk::TrackInfo>,
    /// What the file holds.
    pub form: FileForm,
    /// Now.
    pub unix_ms: i64,
}

/// The ending of a file; `None`: no file is made of a track of this codec.
#[must_use]
pub fn ending(form: FileForm, mime: &str) -> Option<&'static str> {
    match form {
        FileForm::Mp4 | FileForm::SilentMp4 => Some("mp4"),
        FileForm::Ogg => Some("ogg"),
        FileForm::Track => match mime.to_ascii_lowercase().as_str() {
            "audio/opus" => Some("ogg"),
            "video/h264" => Some("mp4"),
            "video/vp8" | "video/vp9" => Some("webm"),
            "video/av1" => Some("ivf"),
            _ => None,
        },
    }
}

impl Named<'_> {
    /// The path that is wanted, as it will be. `None`: no file is made of the track.
    #[must_use]
    pub fn path(&self, wanted: &str) -> Option<String> {
        let ending = ending(self.form, self.track.map_or("", |track| &track.mime_type))?;
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.unix_ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let time = now.format(format_description!("[year]-[month]-[day]T[hour][minute][second]")).unwrap_or_default();
        let utc = now.format(format_description!("[year][month][day][hour][minute][second][subsecond digits:3]")).unwrap_or_default();
        let default = if self.kind == EgressKind::Track { "{track_id}-{time}" } else { "{room_name}-{time}" };
        let template = if wanted.is_empty() || wanted.ends_with('/') { format!("{wanted}{default}") } else { wanted.to_owned() };
        let mut values =
            vec![("{room_name}", part(&self.room.name)), ("{room_id}", part(&self.room.sid)), ("{time}", time), ("{utc}", utc)];
        values.extend(self.identity.map(|identity| ("{publisher_identity}", part(identity))));
        if let Some(track) = self.track {
            values.push(("{track_id}", part(&track.sid)));
            values.push(("{track_type}", type_of(track)));
            values.push(("{track_source}", source_of(track)));
        }
        Some(with_ending(&fill(&template, &values), ending))
    }
}

/// `audio` or `video`, as LiveKit's placeholders and manifests have it.
#[must_use]
pub fn type_of(track: &lk::TrackInfo) -> String {
    track.r#type().as_str_name().to_ascii_lowercase()
}

/// `microphone`, `camera`, …
#[must_use]
pub fn source_of(track: &lk::TrackInfo) -> String {
    track.source().as_str_name().to_ascii_lowercase()
}

/// Placeholders replaced in one go: what is filled in is not looked through again.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        match values.iter().find(|(name, _)| from.starts_with(name)) {
            Some((name, value)) => {
                filled.push_str(value);
                rest = from.get(name.len()..).unwrap_or_default();
            }
            None => {
                filled.push('{');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    filled + rest
}

/// Somebody's words are one part of a path, whatever is in them.
fn part(text: &str) -> String {
    let text: String = text.chars().map(|char| if char == '/' || char.is_control() { '_' } else { char }).collect();
    if text.starts_with('.') { format!("_{text}") } else { text }
}

fn with_ending(path: &str, ending: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = match file.rsplit_once('.') {
        Some((_, old)) if old.eq_ignore_ascii_case(ending) => return path.to_owned(),
        Some((_, old)) if ENDINGS.iter().any(|known| old.eq_ignore_ascii_case(known)) => {
            path.get(..path.len() - old.len() - 1).unwrap_or(path)
        }
        _ => path,
    };
    format!("{stem}.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> lk::Room {
        lk::Room { name: name.to_owned(), sid: "RM_1".to_owned(), ..lk::Room::default() }
    }

    fn named(room: &lk::Room) -> Named<'_> {
        Named { kind: EgressKind::RoomComposite, room, identity: None, track: None, form: FileForm::Mp4, unix_ms: 1_700_000_000_042 }
    }

    #[test]
    fn paths_have_their_placeholders_and_an_ending() {
        let path = |wanted: &str, name: &str| named(&room(name)).path(wanted).expect("a name");
        assert_eq!(path("", "daily"), "daily-2023-11-14T221320.mp4");
        assert_eq!(path("days/", "daily"), "days/daily-2023-11-14T221320.mp4");
        assert_eq!(path("{utc}", "daily"), "20231114221320042.mp4");
        assert_eq!(path("out/{room_id}/{room_name}.mp4", "a/../b"), "out/RM_1/a_.._b.mp4");
        assert_eq!(path("{room_name}", ".."), "_...mp4");
        assert_eq!(path("a.MP4", "r"), "a.MP4");
        assert_eq!(path("v1.2/a", "r"), "v1.2/a.mp4");
        // A wrong ending is replaced; what is no ending of media, or no placeholder, stays.
        assert_eq!(path("a.ogg", "r"), "a.mp4");
        assert_eq!(path("a.{room}{", "{time}"), "a.{room}{.mp4");
        assert_eq!(path("{room_name}", "{time}"), "{time}.mp4", "a room's name is not looked through");
        assert_eq!(path("{publisher_identity}", "r"), "{publisher_identity}.mp4", "everybody has no name");
    }

    #[test]
    fn a_tracks_file_tells_whose_it_is_and_ends_as_its_codec_does() {
        let room = room("r");
        let path = |wanted: &str, mime: &str| {
            let track = lk::TrackInfo {
                sid: "TR_1".to_owned(),
                r#type: lk::TrackType::Video.into(),
                source: lk::TrackSource::ScreenShare.into(),
                mime_type: mime.to_owned(),
                ..lk::TrackInfo::default()
            };
            let (kind, form) = (EgressKind::Track, FileForm::Track);
            Named { kind, form, identity: Some("../ann"), track: Some(&track), ..named(&room) }.path(wanted)
        };
        assert_eq!(path("", "audio/opus").as_deref(), Some("TR_1-2023-11-14T221320.ogg"));
        assert_eq!(
            path("{publisher_identity}/{track_type}-{track_source}-{track_id}", "video/VP8").as_deref(),
            Some("_.._ann/video-screen_share-TR_1.webm")
        );
        assert_eq!(path("a.ogg", "video/H264").as_deref(), Some("a.mp4"));
        assert_eq!(path("a.webm", "video/VP9").as_deref(), Some("a.webm"));
        assert_eq!(path("a", "video/AV1").as_deref(), Some("a.ivf"));
        assert_eq!(path("a", ""), None, "no media has come of it");
    }
}
