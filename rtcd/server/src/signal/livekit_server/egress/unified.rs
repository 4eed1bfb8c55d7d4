//! `StartEgress`: the one request that LiveKit means to replace the others with.

use livekit_protocol as lk;
use lk::media_source::Video;
use offloader_jobs::egress::EgressKind;
use offloader_jobs::mattermost::PictureProfile;
use offloader_jobs::selection::MediaKinds;

use super::bucket::{OTHER_STORES, bucket};
use super::encoding::Encoding;
use super::order::{
    NO_IMAGES, NO_PAGES, NO_SEGMENTS, NO_STREAMS, NO_WEBHOOKS, ONE_FILE, Of, Request, Target, Wanted, as_it_is, encoded, layout, media,
    refuse, somebody,
};
use crate::signal::seam::RoomFault;

/// Sounds of several people in one file are those of all.
const ONE_ROUTE: &str =
    "sound is everybody's (capture_all, without pictures of somebody alone), or of one track or participant, in one route to both channels";
/// A file of one person's pictures has their sound.
const ONE_PERSON: &str = "pictures and sound have to be of one participant, or of two tracks of one; record the room otherwise";

/// What of a person's is wanted.
const CAMERA: &[&str] = &["camera"];
const CAMERA_AND_SOUND: &[&str] = &["camera", "microphone", "screen_share_audio"];
const SCREEN_FIRST: &[&str] = &["camera", "screen_share"];
const SCREEN_FIRST_AND_SOUND: &[&str] = &["camera", "screen_share", "microphone", "screen_share_audio"];
const SOUND: &[&str] = &["microphone", "screen_share_audio"];

/// Whose sound.
enum Sound<'r> {
    Nobodys,
    Everybodys,
    Of(&'r str),
    Track(&'r str),
}

impl Request for lk::StartEgressRequest {
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        use lk::start_egress_request::{Encoding as Asked, Source};
        let file = file(self)?;
        let encoding = match &self.encoding {
            None => Encoding::Default,
            Some(Asked::Preset(preset)) => Encoding::Preset(*preset),
            Some(Asked::Advanced(wanted)) => Encoding::Advanced(wanted),
        };
        let wanted = match &self.source {
            None => return Err(RoomFault::Invalid("name a source: template or media".to_owned())),
            Some(Source::Web(_)) => return Err(RoomFault::Unsupported("web pages are not recorded; name template or media as the source")),
            Some(Source::Template(source)) => {
                refuse(&[(!source.custom_base_url.is_empty(), NO_PAGES)])?;
                let (layout, media) = (layout(&source.layout)?, media(source.audio_only, source.video_only)?);
                let wanted = encoded(self, EgressKind::RoomComposite, &self.room_name, Of::Room, media, file, &encoding)?;
                Wanted { picture: PictureProfile { layout, ..wanted.picture }, ..wanted }
            }
            Some(Source::Media(source)) => {
                let (kind, of, media) = part(source)?;
                match (&of, &self.encoding) {
                    (
                        Of::Tracks { audio: Some(track), video: None } | Of::Tracks { audio: None, video: Some(track) },
                        Some(Asked::Preset(preset)),
                    ) if *preset == i32::from(lk::EncodingOptionsPreset::Passthrough) => as_it_is(self, &self.room_name, track, file)?,
                    _ => encoded(self, kind, &self.room_name, of, media, file, &encoding)?,
                }
            }
        };
        Ok(Wanted { unified: true, ..wanted })
    }
}

/// The file that is wanted. Storage of its own counts before that of the request.
fn file(request: &lk::StartEgressRequest) -> Result<Target<'_>, RoomFault> {
    use lk::output::Config;
    use lk::storage_config::Provider;
    refuse(&[(!request.webhooks.is_empty(), NO_WEBHOOKS)])?;
    let [output] = &request.outputs[..] else { return Err(RoomFault::Invalid(ONE_FILE.to_owned())) };
    let file = match &output.config {
        Some(Config::File(file)) => file,
        Some(Config::Stream(_)) => return Err(RoomFault::Unsupported(NO_STREAMS)),
        Some(Config::Segments(_)) => return Err(RoomFault::Unsupported(NO_SEGMENTS)),
        Some(Config::Images(_)) => return Err(RoomFault::Unsupported(NO_IMAGES)),
        None => return Err(RoomFault::Invalid(ONE_FILE.to_owned())),
    };
    let s3 = match output.storage.as_ref().or(request.storage.as_ref()).and_then(|storage| storage.provider.as_ref()) {
        None => None,
        Some(Provider::S3(s3)) => Some(bucket(s3)?),
        Some(Provider::Gcp(_) | Provider::Azure(_) | Provider::AliOss(_)) => return Err(RoomFault::Unsupported(OTHER_STORES)),
    };
    Ok(Target { file_type: file.file_type(), path: &file.filepath, disable_manifest: file.disable_manifest, s3 })
}

/// What of a room, and which of the older calls would have asked for it.
fn part(source: &lk::MediaSource) -> Result<(EgressKind, Of, MediaKinds), RoomFault> {
    let sound = sound(source.audio.as_ref())?;
    let tracks = |audio: Option<&str>, video: Option<&str>| {
        let of = Of::Tracks { audio: audio.map(str::to_owned), video: video.map(str::to_owned) };
        let media = match (audio, video) {
            (Some(_), None) => MediaKinds::Sound,
            (None, _) => MediaKinds::Pictures,
            (Some(_), Some(_)) => MediaKinds::Both,
        };
        (EgressKind::TrackComposite, of, media)
    };
    let person =
        |identity: &str, sources, media| Ok((EgressKind::Participant, Of::Person { identity: somebody(identity)?, sources }, media));
    match (&source.video, sound) {
        (None, Sound::Nobodys) => Err(RoomFault::Invalid("name audio, video or both".to_owned())),
        (None, Sound::Everybodys) => Ok((EgressKind::RoomComposite, Of::Room, MediaKinds::Sound)),
        (None, Sound::Of(identity)) => person(identity, SOUND, MediaKinds::Sound),
        (None, Sound::Track(audio)) => Ok(tracks(Some(audio), None)),
        (Some(Video::VideoTrackId(video)), Sound::Nobodys) => Ok(tracks(None, Some(video))),
        (Some(Video::VideoTrackId(video)), Sound::Track(audio)) => Ok(tracks(Some(audio), Some(video))),
        (Some(Video::ParticipantVideo(video)), Sound::Nobodys) => {
            let sources = if video.prefer_screen_share { SCREEN_FIRST } else { CAMERA };
            person(&video.identity, sources, MediaKinds::Pictures)
        }
        (Some(Video::ParticipantVideo(video)), Sound::Of(identity)) if *identity == video.identity => {
            let sources = if video.prefer_screen_share { SCREEN_FIRST_AND_SOUND } else { CAMERA_AND_SOUND };
            person(identity, sources, MediaKinds::Both)
        }
        (Some(_), Sound::Everybodys | Sound::Of(_) | Sound::Track(_)) => Err(RoomFault::Unsupported(ONE_PERSON)),
    }
}

fn sound(wanted: Option<&lk::AudioConfig>) -> Result<Sound<'_>, RoomFault> {
    use lk::audio_route::Match;
    let Some(wanted) = wanted else { return Ok(Sound::Nobodys) };
    match (wanted.capture_all, &wanted.routes[..]) {
        (false, []) => Ok(Sound::Nobodys),
        (true, []) => Ok(Sound::Everybodys),
        (false, [route]) if route.channel() == lk::AudioChannel::Both => match &route.r#match {
            Some(Match::TrackId(track)) if !track.is_empty() => Ok(Sound::Track(track)),
            Some(Match::ParticipantIdentity(identity)) => Ok(Sound::Of(identity)),
            Some(Match::TrackId(_)) | None => Err(RoomFault::Invalid("a route names a track or a participant".to_owned())),
            Some(Match::ParticipantKind(_)) => Err(RoomFault::Unsupported(ONE_ROUTE)),
        },
        _ => Err(RoomFault::Unsupported(ONE_ROUTE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lk::audio_route::Match;
    use lk::start_egress_request::{Encoding as Asked, Source};
    use offloader_jobs::egress::FileForm;
    use offloader_jobs::layout::{Arrangement, Layout};

    fn request(source: Source, change: impl FnOnce(&mut lk::StartEgressRequest)) -> Result<Wanted, RoomFault> {
        let file = lk::FileOutput { filepath: "a".to_owned(), ..lk::FileOutput::default() };
        let output = lk::Output { config: Some(lk::output::Config::File(file)), storage: None };
        let mut request = lk::StartEgressRequest {
            room_name: "r".to_owned(),
            outputs: vec![output],
            source: Some(source),
            ..lk::StartEgressRequest::default()
        };
        change(&mut request);
        request.wanted()
    }

    fn template() -> Source {
        Source::Template(lk::TemplateSource { layout: "speaker".to_owned(), ..lk::TemplateSource::default() })
    }

    fn of(video: Option<Video>, audio: Option<lk::AudioConfig>) -> Result<Wanted, RoomFault> {
        request(Source::Media(lk::MediaSource { video, audio }), |_| {})
    }

    fn route(whose: Match) -> Option<lk::AudioConfig> {
        let route = lk::AudioRoute { r#match: Some(whose), ..lk::AudioRoute::default() };
        Some(lk::AudioConfig { capture_all: false, routes: vec![route] })
    }

    fn ann(prefer_screen_share: bool) -> Option<Video> {
        Some(Video::ParticipantVideo(lk::ParticipantVideo { identity: "ann".to_owned(), prefer_screen_share }))
    }

    #[test]
    fn a_room_is_recorded_as_by_its_own_call() {
        let wanted = request(template(), |_| {}).expect("fine");
        assert_eq!((wanted.kind, &wanted.of, wanted.media, wanted.unified), (EgressKind::RoomComposite, &Of::Room, MediaKinds::Both, true));
        assert_eq!(wanted.picture.layout, Layout { arrangement: Arrangement::Speaker, light: false });
        assert!(serde_json::from_value::<lk::StartEgressRequest>(wanted.request).is_ok_and(|again| again.room_name == "r"));
        let sound = of(None, Some(lk::AudioConfig { capture_all: true, routes: Vec::new() })).expect("fine");
        assert_eq!((sound.of, sound.form), (Of::Room, FileForm::Ogg));
    }

    #[test]
    fn one_persons_part_or_tracks_are_what_the_routes_name() {
        let person = |sources| Of::Person { identity: "ann".to_owned(), sources };
        let tracks =
            |audio: Option<&str>, video: Option<&str>| Of::Tracks { audio: audio.map(str::to_owned), video: video.map(str::to_owned) };
        let of_ann = || route(Match::ParticipantIdentity("ann".to_owned()));
        let of_track = || route(Match::TrackId("TR_a".to_owned()));
        let video = || Some(Video::VideoTrackId("TR_v".to_owned()));
        for (video, audio, part, media) in [
            (ann(false), of_ann(), person(CAMERA_AND_SOUND), MediaKinds::Both),
            (ann(true), of_ann(), person(SCREEN_FIRST_AND_SOUND), MediaKinds::Both),
            (ann(false), None, person(CAMERA), MediaKinds::Pictures),
            (ann(true), Some(lk::AudioConfig::default()), person(SCREEN_FIRST), MediaKinds::Pictures),
            (None, of_ann(), person(SOUND), MediaKinds::Sound),
            (None, of_track(), tracks(Some("TR_a"), None), MediaKinds::Sound),
            (video(), None, tracks(None, Some("TR_v")), MediaKinds::Pictures),
            (video(), of_track(), tracks(Some("TR_a"), Some("TR_v")), MediaKinds::Both),
        ] {
            let wanted = of(video, audio).expect("fine");
            assert_eq!((wanted.of, wanted.media), (part, media));
        }
        let passthrough = |request: &mut lk::StartEgressRequest| {
            request.encoding = Some(Asked::Preset(lk::EncodingOptionsPreset::Passthrough.into()));
        };
        let alone = Source::Media(lk::MediaSource { video: video(), audio: None });
        let wanted = request(alone, passthrough).expect("as it is");
        assert_eq!((wanted.of, wanted.form), (Of::Track("TR_v".to_owned()), FileForm::Track));
        assert!(matches!(request(template(), passthrough), Err(RoomFault::Invalid(_))));
    }

    #[test]
    fn storage_of_the_output_counts_before_that_of_the_request() {
        let storage = |bucket: &str| {
            let (access_key, secret) = ("canary".to_owned(), "canary".to_owned());
            let s3 = lk::S3Upload { access_key, secret, bucket: bucket.to_owned(), ..lk::S3Upload::default() };
            Some(lk::StorageConfig { provider: Some(lk::storage_config::Provider::S3(s3)) })
        };
        let bucket = |wanted: Wanted| {
            assert!(!wanted.request.to_string().contains("canary"));
            wanted.s3.expect("a bucket").bucket
        };
        let of_request = request(template(), |request| request.storage = storage("all")).expect("fine");
        assert_eq!(bucket(of_request), "all");
        let both = request(template(), |request| {
            request.storage = storage("all");
            request.outputs.iter_mut().for_each(|output| output.storage = storage("this"));
        });
        assert_eq!(bucket(both.expect("fine")), "this");
    }

    #[test]
    fn what_would_come_to_nothing_is_refused() {
        let everybody = || Some(lk::AudioConfig { capture_all: true, routes: Vec::new() });
        let left = || {
            let mut audio = route(Match::ParticipantIdentity("ann".to_owned()));
            audio.iter_mut().flat_map(|audio| &mut audio.routes).for_each(|route| route.channel = lk::AudioChannel::Left.into());
            audio
        };
        for (video, audio) in [
            (ann(false), everybody()),
            (ann(false), route(Match::ParticipantIdentity("ben".to_owned()))),
            (Some(Video::VideoTrackId("TR_v".to_owned())), route(Match::ParticipantIdentity("ann".to_owned()))),
            (None, left()),
            (None, route(Match::ParticipantKind(0))),
        ] {
            assert!(matches!(of(video, audio), Err(RoomFault::Unsupported(_))));
        }
        for (video, audio) in
            [(None, None), (None, route(Match::TrackId(String::new()))), (None, route(Match::ParticipantIdentity(String::new())))]
        {
            assert!(matches!(of(video, audio), Err(RoomFault::Invalid(_))));
        }
        let output = |config| move |request: &mut lk::StartEgressRequest| request.outputs[0].config = Some(config);
        assert!(matches!(
            request(template(), output(lk::output::Config::Stream(lk::StreamOutput::default()))),
            Err(RoomFault::Unsupported(_))
        ));
        assert!(matches!(
            request(template(), output(lk::output::Config::Images(lk::ImageOutput::default()))),
            Err(RoomFault::Unsupported(_))
        ));
        assert!(matches!(request(template(), |request| request.outputs.clear()), Err(RoomFault::Invalid(_))));
        assert!(matches!(request(Source::Web(lk::WebSource::default()), |_| {}), Err(RoomFault::Unsupported(_))));
        assert!(matches!(request(template(), |request| request.source = None), Err(RoomFault::Invalid(_))));
    }
}
