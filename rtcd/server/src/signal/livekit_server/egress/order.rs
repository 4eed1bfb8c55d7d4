//! What a request may want, and what a file is called.

use livekit_protocol as lk;
use lk::room_composite_egress_request::{Options, Output};
use offloader_jobs::mattermost::PictureProfile;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::signal::seam::RoomFault;

/// A request that can be carried out.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// How the file is to look.
    pub picture: PictureProfile,
    /// Where it goes, with its placeholders.
    pub path: String,
}

/// Reads a request. What would come to nothing is refused rather than forgotten.
///
/// # Errors
/// What cannot be done, and what to do instead.
#[expect(deprecated, reason = "older SDKs still write the field that newer ones replaced")]
pub fn read(request: &lk::RoomCompositeEgressRequest) -> Result<Wanted, RoomFault> {
    let old = request.output.as_ref();
    let streams = !request.stream_outputs.is_empty() || matches!(old, Some(Output::Stream(_)));
    let segments = !request.segment_outputs.is_empty() || matches!(old, Some(Output::Segments(_)));
    let unsupported = [
        (streams, "streams are not sent; write a file"),
        (segments, "segments are not written; write a file"),
        (!request.image_outputs.is_empty(), "images are not written; write a file"),
        (!request.custom_base_url.is_empty(), "there is no browser here that could show a page of yours; leave custom_base_url out"),
        (
            !["", "grid", "grid-dark"].contains(&request.layout.as_str()),
            "the layout is a grid, and a shared screen in full; leave layout out",
        ),
        (request.audio_only || request.video_only, "files have sound and pictures; leave audio_only and video_only out"),
        (request.audio_mixing() != lk::AudioMixing::DefaultMixing, "everybody is mixed into both channels; leave audio_mixing out"),
        (!request.webhooks.is_empty(), "webhooks are those of the settings; leave webhooks out"),
    ];
    if let Some((_, why)) = unsupported.into_iter().find(|(asked, _)| *asked) {
        return Err(RoomFault::Unsupported(why));
    }
    let file = match (old, &request.file_outputs[..]) {
        (Some(Output::File(file)), []) | (None, [file]) => file,
        _ => return Err(RoomFault::Invalid("name exactly one file to write".to_owned())),
    };
    if file.output.is_some() {
        return Err(RoomFault::Unsupported(
            "files go to the offloader's folder, not to a cloud's store yet; leave s3, gcp, azure and ali_oss out",
        ));
    }
    if !matches!(file.file_type(), lk::EncodedFileType::DefaultFiletype | lk::EncodedFileType::Mp4) {
        return Err(RoomFault::Unsupported("files are MP4; leave file_type out"));
    }
    if file.filepath.len() > crate::limits::EGRESS_PATH_LEN_MAX {
        return Err(RoomFault::TooMuch("filepath length"));
    }
    Ok(Wanted { picture: picture(request.options.as_ref())?, path: file.filepath.clone() })
}

fn picture(options: Option<&Options>) -> Result<PictureProfile, RoomFault> {
    use lk::EncodingOptionsPreset as Preset;
    let of = |width, height, frame_rate, video_kbps| PictureProfile {
        width,
        height,
        frame_rate,
        video_kbps,
        audio_kbps: 128,
        always: true,
        ..PictureProfile::default()
    };
    let bad = |text: &str| Err(RoomFault::Invalid(text.to_owned()));
    match options {
        None => Ok(of(1280, 720, 30, 3000)),
        Some(Options::Preset(preset)) => match Preset::try_from(*preset) {
            Ok(Preset::H264720p30) => Ok(of(1280, 720, 30, 3000)),
            Ok(Preset::H264720p60) => Ok(of(1280, 720, 60, 4500)),
            Ok(Preset::H2641080p30) => Ok(of(1920, 1080, 30, 4500)),
            Ok(Preset::H2641080p60) => Ok(of(1920, 1080, 60, 6000)),
            Ok(Preset::PortraitH264720p30) => Ok(of(720, 1280, 30, 3000)),
            Ok(Preset::PortraitH264720p60) => Ok(of(720, 1280, 60, 4500)),
            Ok(Preset::PortraitH2641080p30) => Ok(of(1080, 1920, 30, 4500)),
            Ok(Preset::PortraitH2641080p60) => Ok(of(1080, 1920, 60, 6000)),
            Ok(Preset::Passthrough) | Err(_) => bad("this preset is not for rooms; use H264_720P_30 or another of its kind"),
        },
        Some(Options::Advanced(wanted)) => {
            let video = matches!(wanted.video_codec(), lk::VideoCodec::DefaultVc | lk::VideoCodec::H264Main);
            let audio = matches!(wanted.audio_codec(), lk::AudioCodec::DefaultAc | lk::AudioCodec::Aac);
            if !video || !audio {
                return Err(RoomFault::Unsupported("files have H.264 (main) and AAC; leave the codecs out"));
            }
            let (width, height) = (or(wanted.width, 1920), or(wanted.height, 1080));
            let (frame_rate, video_kbps, audio_kbps) =
                (or(wanted.framerate, 30), or(wanted.video_bitrate, 4500), or(wanted.audio_bitrate, 128));
            let even = |size: u32| (160..=3840).contains(&size) && size.is_multiple_of(2);
            if !even(width) || !even(height) || !(1..=60).contains(&frame_rate) {
                return bad("width and height are even numbers from 160 to 3840, framerate is 1 to 60");
            }
            if !(100..=20_000).contains(&video_kbps) || !(16..=512).contains(&audio_kbps) {
                return bad("video_bitrate is 100 to 20000, audio_bitrate 16 to 512 kbit/s");
            }
            Ok(PictureProfile { audio_kbps, ..of(width, height, frame_rate, video_kbps) })
        }
    }
}

fn or(wanted: i32, default: u32) -> u32 {
    if wanted == 0 { default } else { u32::try_from(wanted).unwrap_or(0) }
}

/// The file's path with its placeholders filled in, and an ending.
#[must_use]
pub fn path(wanted: &str, room: &lk::Room, unix_ms: i64) -> String {
    let now = OffsetDateTime::from_unix_timestamp(unix_ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let time = now.format(format_description!("[year]-[month]-[day]T[hour][minute][second]")).unwrap_or_default();
    let template = if wanted.is_empty() { "{room_name}-{time}" } else { wanted };
    // A room's name is one part of a path, whatever is in it.
    let name: String = room.name.chars().map(|char| if char == '/' || char.is_control() { '_' } else { char }).collect();
    let name = if name.starts_with('.') { format!("_{name}") } else { name };
    let path = template.replace("{room_name}", &name).replace("{room_id}", &room.sid).replace("{time}", &time);
    if path.to_ascii_lowercase().ends_with(".mp4") { path } else { format!("{path}.mp4") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut lk::RoomCompositeEgressRequest)) -> Result<Wanted, RoomFault> {
        let file = lk::EncodedFileOutput { filepath: "a.mp4".to_owned(), ..lk::EncodedFileOutput::default() };
        let mut request = lk::RoomCompositeEgressRequest {
            room_name: "r".to_owned(),
            file_outputs: vec![file],
            ..lk::RoomCompositeEgressRequest::default()
        };
        change(&mut request);
        read(&request)
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
        for (width, framerate) in [(641, 0), (-2, 0), (100_000, 0), (640, 1000), (640, -1)] {
            assert!(matches!(advanced(width, framerate), Err(RoomFault::Invalid(_))), "{width} {framerate}");
        }
    }

    #[test]
    fn what_would_come_to_nothing_is_refused() {
        let unsupported: [fn(&mut lk::RoomCompositeEgressRequest); 7] = [
            |request| request.layout = "speaker".to_owned(),
            |request| request.audio_only = true,
            |request| request.custom_base_url = "https://page.example".to_owned(),
            |request| request.stream_outputs.push(lk::StreamOutput::default()),
            |request| request.segment_outputs.push(lk::SegmentedFileOutput::default()),
            |request| request.file_outputs[0].file_type = lk::EncodedFileType::Ogg.into(),
            |request| request.file_outputs[0].output = Some(lk::encoded_file_output::Output::S3(lk::S3Upload::default())),
        ];
        for (number, change) in unsupported.into_iter().enumerate() {
            assert!(matches!(request(change), Err(RoomFault::Unsupported(_))), "{number}");
        }
        assert!(matches!(request(|request| request.file_outputs.clear()), Err(RoomFault::Invalid(_))));
        assert!(matches!(request(|request| request.file_outputs[0].filepath = "x".repeat(2000)), Err(RoomFault::TooMuch(_))));
    }

    #[test]
    fn paths_have_their_placeholders_and_an_ending() {
        let room = |name: &str| lk::Room { name: name.to_owned(), sid: "RM_1".to_owned(), ..lk::Room::default() };
        assert_eq!(path("", &room("daily"), 1_700_000_000_000), "daily-2023-11-14T221320.mp4");
        assert_eq!(path("out/{room_id}/{room_name}.mp4", &room("a/../b"), 0), "out/RM_1/a_.._b.mp4");
        assert_eq!(path("{room_name}", &room(".."), 0), "_...mp4");
    }
}
