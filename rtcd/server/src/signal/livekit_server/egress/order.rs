//! What a request may want.

use livekit_protocol as lk;
use offloader_jobs::egress::{EgressKind, FileForm, S3Bucket};
use offloader_jobs::layout::Layout;
use offloader_jobs::mattermost::PictureProfile;
use offloader_jobs::selection::MediaKinds;
use serde_json::Value;

use super::bucket::{OTHER_STORES, bucket};
use super::encoding::Encoding;
use crate::limits::{EGRESS_PATH_LEN_MAX, ROOM_TEXT_LEN_MAX};
use crate::signal::seam::RoomFault;

/// A request that can be carried out.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Which call asked.
    pub kind: EgressKind,
    /// The room.
    pub room: String,
    /// Of whom or what in it.
    pub of: Of,
    /// Sound, pictures or both.
    pub media: MediaKinds,
    /// What the file holds.
    pub form: FileForm,
    /// How it is to look.
    pub picture: PictureProfile,
    /// Where it goes, with its placeholders.
    pub path: String,
    /// The bucket that it goes to; none: the offloader's folder.
    pub s3: Option<S3Bucket>,
    /// The request, to be told again: without secrets.
    pub request: Value,
    /// It came as `StartEgress`, whatever older call would have asked the same.
    pub unified: bool,
    /// A manifest is written beside the file.
    pub manifest: bool,
}

/// Of whom or what in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Everybody.
    Room,
    /// What one person says and shows.
    Person {
        /// Who.
        identity: String,
        /// What of it, in the words of tracks' sources.
        sources: &'static [&'static str],
    },
    /// Tracks of one person.
    Tracks {
        /// A sound.
        audio: Option<String>,
        /// Pictures.
        video: Option<String>,
    },
    /// One track, whatever it is.
    Track(String),
}

/// One of LiveKit's requests for an egress.
pub trait Request: serde::Serialize {
    /// Reads it. What would come to nothing is refused rather than forgotten.
    ///
    /// # Errors
    /// What cannot be done, and what to do instead.
    fn wanted(&self) -> Result<Wanted, RoomFault>;
}

impl Request for lk::RoomCompositeEgressRequest {
    #[expect(deprecated, reason = "older SDKs still write the field that newer ones replaced")]
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        use lk::room_composite_egress_request::{Options, Output};
        refuse(&[
            (!self.custom_base_url.is_empty(), NO_PAGES),
            (self.audio_mixing() != lk::AudioMixing::DefaultMixing, "everybody is mixed into both channels; leave audio_mixing out"),
        ])?;
        let layout = layout(&self.layout)?;
        let media = media(self.audio_only, self.video_only)?;
        let outputs = Outputs {
            old_file: if let Some(Output::File(file)) = &self.output { Some(file) } else { None },
            files: &self.file_outputs,
            streams: !self.stream_outputs.is_empty() || matches!(self.output, Some(Output::Stream(_))),
            segments: !self.segment_outputs.is_empty() || matches!(self.output, Some(Output::Segments(_))),
            images: !self.image_outputs.is_empty(),
            webhooks: !self.webhooks.is_empty(),
        };
        let encoding = match &self.options {
            None => Encoding::Default,
            Some(Options::Preset(preset)) => Encoding::Preset(*preset),
            Some(Options::Advanced(wanted)) => Encoding::Advanced(wanted),
        };
        let wanted = encoded(self, EgressKind::RoomComposite, &self.room_name, Of::Room, media, outputs.file()?, &encoding)?;
        Ok(Wanted { picture: PictureProfile { layout, ..wanted.picture }, ..wanted })
    }
}

impl Request for lk::ParticipantEgressRequest {
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        use lk::participant_egress_request::Options;
        let identity = somebody(&self.identity)?;
        let outputs = Outputs {
            old_file: None,
            files: &self.file_outputs,
            streams: !self.stream_outputs.is_empty(),
            segments: !self.segment_outputs.is_empty(),
            images: !self.image_outputs.is_empty(),
            webhooks: !self.webhooks.is_empty(),
        };
        let encoding = match &self.options {
            None => Encoding::Default,
            Some(Options::Preset(preset)) => Encoding::Preset(*preset),
            Some(Options::Advanced(wanted)) => Encoding::Advanced(wanted),
        };
        let sources: &[&str] = if self.screen_share { &["screen_share", "screen_share_audio"] } else { &["camera", "microphone"] };
        let of = Of::Person { identity, sources };
        encoded(self, EgressKind::Participant, &self.room_name, of, MediaKinds::Both, outputs.file()?, &encoding)
    }
}

impl Request for lk::TrackCompositeEgressRequest {
    #[expect(deprecated, reason = "older SDKs still write the field that newer ones replaced")]
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        use lk::track_composite_egress_request::{Options, Output};
        let named = |sid: &String| (!sid.is_empty()).then(|| sid.clone());
        let (audio, video) = (named(&self.audio_track_id), named(&self.video_track_id));
        let media = match (&audio, &video) {
            (Some(_), Some(_)) => MediaKinds::Both,
            (Some(_), None) => MediaKinds::Sound,
            (None, Some(_)) => MediaKinds::Pictures,
            (None, None) => return Err(RoomFault::Invalid("name audio_track_id, video_track_id or both".to_owned())),
        };
        let outputs = Outputs {
            old_file: if let Some(Output::File(file)) = &self.output { Some(file) } else { None },
            files: &self.file_outputs,
            streams: !self.stream_outputs.is_empty() || matches!(self.output, Some(Output::Stream(_))),
            segments: !self.segment_outputs.is_empty() || matches!(self.output, Some(Output::Segments(_))),
            images: !self.image_outputs.is_empty(),
            webhooks: !self.webhooks.is_empty(),
        };
        let encoding = match &self.options {
            None => Encoding::Default,
            Some(Options::Preset(preset)) => Encoding::Preset(*preset),
            Some(Options::Advanced(wanted)) => Encoding::Advanced(wanted),
        };
        encoded(self, EgressKind::TrackComposite, &self.room_name, Of::Tracks { audio, video }, media, outputs.file()?, &encoding)
    }
}

impl Request for lk::TrackEgressRequest {
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        use lk::track_egress_request::Output;
        refuse(&[(!self.webhooks.is_empty(), NO_WEBHOOKS)])?;
        if self.track_id.is_empty() {
            return Err(RoomFault::Invalid("track_id is missing".to_owned()));
        }
        let file = match &self.output {
            Some(Output::File(file)) => file,
            Some(Output::WebsocketUrl(_)) => return Err(RoomFault::Unsupported("tracks are not sent to WebSockets; write a file")),
            None => return Err(RoomFault::Invalid("name a file to write".to_owned())),
        };
        use lk::direct_file_output::Output as Store;
        let s3 = match &file.output {
            None => None,
            Some(Store::S3(s3)) => Some(bucket(s3)?),
            Some(Store::Gcp(_) | Store::Azure(_) | Store::AliOss(_)) => return Err(RoomFault::Unsupported(OTHER_STORES)),
        };
        let file =
            Target { file_type: lk::EncodedFileType::DefaultFiletype, path: &file.filepath, disable_manifest: file.disable_manifest, s3 };
        as_it_is(self, &self.room_name, &self.track_id, file)
    }
}

pub(super) const LAYOUTS: &str = "the layouts are grid, speaker and single-speaker, each also with -light or -dark";
pub(super) const NO_STREAMS: &str = "streams are not sent; write a file";
pub(super) const NO_SEGMENTS: &str = "segments are not written; write a file";
pub(super) const NO_IMAGES: &str = "images are not written; write a file";
pub(super) const NO_PAGES: &str = "there is no browser here that could show a page of yours; leave custom_base_url out";
pub(super) const ONE_FILE: &str = "name exactly one file to write";
pub(super) const NO_WEBHOOKS: &str = "webhooks are those of the settings; leave webhooks out";

pub(super) fn refuse(unsupported: &[(bool, &'static str)]) -> Result<(), RoomFault> {
    match unsupported.iter().find(|(asked, _)| *asked) {
        Some((_, why)) => Err(RoomFault::Unsupported(why)),
        None => Ok(()),
    }
}

fn room(name: &str) -> Result<String, RoomFault> {
    if name.len() > ROOM_TEXT_LEN_MAX { Err(RoomFault::TooMuch("room name length")) } else { Ok(name.to_owned()) }
}

fn path(path: &str) -> Result<String, RoomFault> {
    if path.len() > EGRESS_PATH_LEN_MAX { Err(RoomFault::TooMuch("filepath length")) } else { Ok(path.to_owned()) }
}

/// What a request for an encoded file wants to be written or sent.
struct Outputs<'r> {
    /// From older SDKs.
    old_file: Option<&'r lk::EncodedFileOutput>,
    files: &'r [lk::EncodedFileOutput],
    streams: bool,
    segments: bool,
    images: bool,
    webhooks: bool,
}

impl<'r> Outputs<'r> {
    fn file(&self) -> Result<Target<'r>, RoomFault> {
        use lk::encoded_file_output::Output as Store;
        refuse(&[(self.streams, NO_STREAMS), (self.segments, NO_SEGMENTS), (self.images, NO_IMAGES), (self.webhooks, NO_WEBHOOKS)])?;
        let ((Some(file), []) | (None, [file])) = (self.old_file, self.files) else {
            return Err(RoomFault::Invalid(ONE_FILE.to_owned()));
        };
        let s3 = match &file.output {
            None => None,
            Some(Store::S3(s3)) => Some(bucket(s3)?),
            Some(Store::Gcp(_) | Store::Azure(_) | Store::AliOss(_)) => return Err(RoomFault::Unsupported(OTHER_STORES)),
        };
        Ok(Target { file_type: file.file_type(), path: &file.filepath, disable_manifest: file.disable_manifest, s3 })
    }
}

/// The file that a request wants to be written.
pub(super) struct Target<'r> {
    pub(super) file_type: lk::EncodedFileType,
    pub(super) path: &'r str,
    pub(super) disable_manifest: bool,
    pub(super) s3: Option<S3Bucket>,
}

/// What all calls that encode have in common.
pub(super) fn encoded(
    request: &impl Request,
    kind: EgressKind,
    room_name: &str,
    of: Of,
    media: MediaKinds,
    file: Target<'_>,
    encoding: &Encoding<'_>,
) -> Result<Wanted, RoomFault> {
    use lk::EncodedFileType as Type;
    let form = match (file.file_type, media) {
        (Type::Mp3, _) => return Err(RoomFault::Unsupported("MP3 is not written; leave file_type out")),
        (Type::DefaultFiletype | Type::Ogg, MediaKinds::Sound) => FileForm::Ogg,
        (Type::Ogg, MediaKinds::Both | MediaKinds::Pictures) => {
            return Err(RoomFault::Invalid("Ogg is for sound alone; leave file_type out".to_owned()));
        }
        (Type::DefaultFiletype | Type::Mp4, MediaKinds::Pictures) => FileForm::SilentMp4,
        (Type::DefaultFiletype, MediaKinds::Both) | (Type::Mp4, MediaKinds::Both | MediaKinds::Sound) => FileForm::Mp4,
    };
    let picture = encoding.picture(form)?;
    Ok(Wanted {
        kind,
        room: room(room_name)?,
        picture: PictureProfile { always: media.has_pictures(), single: of != Of::Room, ..picture },
        of,
        media,
        form,
        path: path(file.path)?,
        s3: file.s3,
        request: without_secrets(request),
        unified: false,
        manifest: !file.disable_manifest,
    })
}

/// One track, as its publisher sends it.
pub(super) fn as_it_is(request: &impl Request, room_name: &str, track: &str, file: Target<'_>) -> Result<Wanted, RoomFault> {
    if file.file_type != lk::EncodedFileType::DefaultFiletype {
        return Err(RoomFault::Invalid("a track as it is comes in the container of its codec; leave file_type out".to_owned()));
    }
    Ok(Wanted {
        kind: EgressKind::Track,
        s3: file.s3,
        room: room(room_name)?,
        of: Of::Track(track.to_owned()),
        media: MediaKinds::Both,
        form: FileForm::Track,
        picture: PictureProfile::default(),
        path: path(file.path)?,
        request: without_secrets(request),
        unified: false,
        manifest: !file.disable_manifest,
    })
}

/// How a room is laid out.
pub(super) fn layout(name: &str) -> Result<Layout, RoomFault> {
    match name {
        "" => Ok(Layout::default()),
        name => name.parse().map_err(|_| RoomFault::Unsupported(LAYOUTS)),
    }
}

/// What is recorded of a room.
pub(super) fn media(audio_only: bool, video_only: bool) -> Result<MediaKinds, RoomFault> {
    match (audio_only, video_only) {
        (false, false) => Ok(MediaKinds::Both),
        (true, false) => Ok(MediaKinds::Sound),
        (false, true) => Ok(MediaKinds::Pictures),
        (true, true) => Err(RoomFault::Invalid("audio_only and video_only at once leave nothing".to_owned())),
    }
}

/// Whose name stands in a request.
pub(super) fn somebody(identity: &str) -> Result<String, RoomFault> {
    if identity.is_empty() || identity.len() > ROOM_TEXT_LEN_MAX {
        return Err(RoomFault::Invalid("identity names somebody in the room".to_owned()));
    }
    Ok(identity.to_owned())
}

/// A request with LiveKit's placeholders where secrets were.
fn without_secrets(request: &impl serde::Serialize) -> Value {
    fn redact(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let placeholder = match name.as_str() {
                        "accessKey" | "access_key" => "{access_key}",
                        "secret" => "{secret}",
                        "sessionToken" | "session_token" => "{session_token}",
                        _ => {
                            redact(value);
                            continue;
                        }
                    };
                    if value.as_str().is_some_and(|text| !text.is_empty()) {
                        *value = placeholder.into();
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(redact),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut request = serde_json::to_value(request).unwrap_or_default();
    redact(&mut request);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use lk::room_composite_egress_request::Options;
    use offloader_jobs::layout::Arrangement;

    fn file() -> lk::EncodedFileOutput {
        lk::EncodedFileOutput { filepath: "a.mp4".to_owned(), ..lk::EncodedFileOutput::default() }
    }

    fn request(change: impl FnOnce(&mut lk::RoomCompositeEgressRequest)) -> Result<Wanted, RoomFault> {
        let mut request = lk::RoomCompositeEgressRequest {
            room_name: "r".to_owned(),
            file_outputs: vec![file()],
            ..lk::RoomCompositeEgressRequest::default()
        };
        change(&mut request);
        request.wanted()
    }

    #[test]
    fn sizes_come_from_presets_and_options_within_bounds() {
        let size = |wanted: &Wanted| (wanted.picture.width, wanted.picture.height, wanted.picture.frame_rate);
        assert_eq!(size(&request(|_| {}).expect("fine")), (1280, 720, 30));
        let preset = |preset: lk::EncodingOptionsPreset| request(|request| request.options = Some(Options::Preset(preset.into())));
        assert_eq!(size(&preset(lk::EncodingOptionsPreset::PortraitH2641080p60).expect("fine")), (1080, 1920, 60));
        assert!(matches!(preset(lk::EncodingOptionsPreset::Passthrough), Err(RoomFault::Invalid(_))));
        let advanced = |width, framerate| {
            request(|request| {
                request.options = Some(Options::Advanced(lk::EncodingOptions { width, framerate, ..lk::EncodingOptions::default() }));
            })
        };
        assert_eq!(size(&advanced(640, 0).expect("fine")), (640, 1080, 30));
        let sound = |audio_codec: lk::AudioCodec| {
            request(|request| {
                let options = lk::EncodingOptions { audio_codec: audio_codec.into(), ..lk::EncodingOptions::default() };
                request.options = Some(Options::Advanced(options));
            })
        };
        assert!(sound(lk::AudioCodec::Opus).expect("fine").picture.opus);
        assert!(!sound(lk::AudioCodec::Aac).expect("fine").picture.opus);
        assert!(matches!(sound(lk::AudioCodec::AcMp3), Err(RoomFault::Unsupported(_))));
        for (width, framerate) in [(641, 0), (-2, 0), (100_000, 0), (640, 1000), (640, -1)] {
            assert!(matches!(advanced(width, framerate), Err(RoomFault::Invalid(_))), "{width} {framerate}");
        }
    }

    #[test]
    fn a_room_is_laid_out_as_it_was_asked_for() {
        let layout = |name: &str| request(|request| request.layout = name.to_owned()).expect("fine").picture.layout;
        assert_eq!((layout(""), layout("grid-dark")), (Layout::default(), Layout::default()));
        assert_eq!(layout("single-speaker-light"), Layout { arrangement: Arrangement::SingleSpeaker, light: true });
    }

    #[test]
    fn what_would_come_to_nothing_is_refused() {
        let unsupported: [fn(&mut lk::RoomCompositeEgressRequest); 8] = [
            |request| request.layout = "mosaic".to_owned(),
            |request| request.custom_base_url = "https://page.example".to_owned(),
            |request| request.stream_outputs.push(lk::StreamOutput::default()),
            |request| request.segment_outputs.push(lk::SegmentedFileOutput::default()),
            |request| request.image_outputs.push(lk::ImageOutput::default()),
            |request| request.webhooks.push(lk::WebhookConfig::default()),
            |request| request.file_outputs[0].file_type = lk::EncodedFileType::Mp3.into(),
            |request| request.file_outputs[0].output = Some(lk::encoded_file_output::Output::Gcp(lk::GcpUpload::default())),
        ];
        for (number, change) in unsupported.into_iter().enumerate() {
            assert!(matches!(request(change), Err(RoomFault::Unsupported(_))), "{number}");
        }
        let invalid: [fn(&mut lk::RoomCompositeEgressRequest); 3] = [
            |request| request.file_outputs.clear(),
            |request| request.file_outputs[0].file_type = lk::EncodedFileType::Ogg.into(),
            |request| (request.audio_only, request.video_only) = (true, true),
        ];
        for (number, change) in invalid.into_iter().enumerate() {
            assert!(matches!(request(change), Err(RoomFault::Invalid(_))), "{number}");
        }
        assert!(matches!(request(|request| request.file_outputs[0].filepath = "x".repeat(2000)), Err(RoomFault::TooMuch(_))));
        let websocket = lk::track_egress_request::Output::WebsocketUrl("wss://x".to_owned());
        let track = lk::TrackEgressRequest { track_id: "TR_1".to_owned(), output: Some(websocket), ..lk::TrackEgressRequest::default() };
        assert!(matches!(track.wanted(), Err(RoomFault::Unsupported(_))));
        assert!(matches!(lk::TrackEgressRequest::default().wanted(), Err(RoomFault::Invalid(_))));
        assert!(matches!(lk::TrackCompositeEgressRequest::default().wanted(), Err(RoomFault::Invalid(_))));
        assert!(matches!(lk::ParticipantEgressRequest::default().wanted(), Err(RoomFault::Invalid(_))));
    }

    #[test]
    fn a_bucket_is_named_in_full_and_its_secrets_are_not_told_again() {
        let s3 = |change: fn(&mut lk::S3Upload)| {
            let mut s3 = lk::S3Upload {
                access_key: "canary-1".to_owned(),
                secret: "canary-2".to_owned(),
                session_token: "canary-3".to_owned(),
                region: "eu-west-1".to_owned(),
                bucket: "days".to_owned(),
                ..lk::S3Upload::default()
            };
            change(&mut s3);
            request(|request| request.file_outputs[0].output = Some(lk::encoded_file_output::Output::S3(s3)))
        };
        let wanted = s3(|_| {}).expect("fine");
        let told = wanted.request.to_string();
        assert!(told.contains("{access_key}") && told.contains("{secret}") && told.contains("{session_token}") && !told.contains("canary"));
        assert!(serde_json::from_value::<lk::RoomCompositeEgressRequest>(wanted.request).is_ok());
        let host = |wanted: Result<Wanted, RoomFault>| wanted.expect("fine").s3.expect("a bucket").host();
        assert_eq!(host(s3(|_| {})), "https://days.s3.eu-west-1.amazonaws.com");
        assert_eq!(host(s3(|s3| (s3.endpoint, s3.force_path_style) = ("http://Minio:9000/".to_owned(), true))), "http://minio:9000/days");
        assert_eq!(host(s3(|s3| s3.endpoint = "minio.example".to_owned())), "https://days.minio.example");
        assert_eq!(s3(|s3| s3.tagging = "a=b&c=d".to_owned()).expect("fine").s3.expect("a bucket").tagging, "a=b&c=d");
        let invalid: [fn(&mut lk::S3Upload); 8] = [
            |s3| s3.access_key.clear(),
            |s3| s3.secret.clear(),
            |s3| s3.bucket.clear(),
            |s3| s3.bucket = "evil.example/".to_owned(),
            |s3| s3.region = "x@evil.example#".to_owned(),
            |s3| drop(s3.metadata.insert("a".to_owned(), "b\r\nc: d".to_owned())),
            |s3| s3.tagging = "a=b\r\nc: d".to_owned(),
            |s3| s3.tagging = "a=b&".repeat(11),
        ];
        for (number, change) in invalid.into_iter().enumerate() {
            assert!(matches!(s3(change), Err(RoomFault::Invalid(_))), "{number}");
        }
        let unsupported: [fn(&mut lk::S3Upload); 2] =
            [|s3| s3.assume_role_arn = "arn:x".to_owned(), |s3| s3.proxy = Some(lk::ProxyConfig::default())];
        for (number, change) in unsupported.into_iter().enumerate() {
            assert!(matches!(s3(change), Err(RoomFault::Unsupported(_))), "{number}");
        }
    }

    #[test]
    fn sound_or_pictures_alone_have_their_own_files() {
        let of = |wanted: Wanted| (wanted.media, wanted.form, wanted.picture.always, wanted.picture.single);
        let room = |change: fn(&mut lk::RoomCompositeEgressRequest)| of(request(change).expect("fine"));
        assert_eq!(room(|_| {}), (MediaKinds::Both, FileForm::Mp4, true, false));
        assert_eq!(room(|request| request.audio_only = true), (MediaKinds::Sound, FileForm::Ogg, false, false));
        assert_eq!(room(|request| request.video_only = true), (MediaKinds::Pictures, FileForm::SilentMp4, true, false));
        let mp4 = |request: &mut lk::RoomCompositeEgressRequest| {
            request.audio_only = true;
            request.file_outputs[0].file_type = lk::EncodedFileType::Mp4.into();
        };
        assert_eq!(room(mp4), (MediaKinds::Sound, FileForm::Mp4, false, false));
        let tracks = |audio: &str, video: &str| {
            let request = lk::TrackCompositeEgressRequest {
                audio_track_id: audio.to_owned(),
                video_track_id: video.to_owned(),
                file_outputs: vec![file()],
                ..lk::TrackCompositeEgressRequest::default()
            };
            of(request.wanted().expect("fine"))
        };
        assert_eq!(tracks("TR_a", "TR_v"), (MediaKinds::Both, FileForm::Mp4, true, true));
        assert_eq!(tracks("TR_a", ""), (MediaKinds::Sound, FileForm::Ogg, false, true));
        assert_eq!(tracks("", "TR_v"), (MediaKinds::Pictures, FileForm::SilentMp4, true, true));
    }
}
