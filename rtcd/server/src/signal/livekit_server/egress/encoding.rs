//! How a file is to be encoded.

use livekit_protocol as lk;
use offloader_jobs::egress::FileForm;
use offloader_jobs::mattermost::PictureProfile;

use crate::signal::seam::RoomFault;

/// What a request says of it.
pub(super) enum Encoding<'r> {
    Default,
    Preset(i32),
    Advanced(&'r lk::EncodingOptions),
}

impl Encoding<'_> {
    pub(super) fn picture(&self, form: FileForm) -> Result<PictureProfile, RoomFault> {
        use lk::EncodingOptionsPreset as Preset;
        let of = |width, height, frame_rate, video_kbps| PictureProfile {
            width,
            height,
            frame_rate,
            video_kbps,
            audio_kbps: 128,
            ..PictureProfile::default()
        };
        let bad = |text: &str| Err(RoomFault::Invalid(text.to_owned()));
        match self {
            Self::Default => Ok(of(1280, 720, 30, 3000)),
            Self::Preset(preset) => match Preset::try_from(*preset) {
                Ok(Preset::H264720p30) => Ok(of(1280, 720, 30, 3000)),
                Ok(Preset::H264720p60) => Ok(of(1280, 720, 60, 4500)),
                Ok(Preset::H2641080p30) => Ok(of(1920, 1080, 30, 4500)),
                Ok(Preset::H2641080p60) => Ok(of(1920, 1080, 60, 6000)),
                Ok(Preset::PortraitH264720p30) => Ok(of(720, 1280, 30, 3000)),
                Ok(Preset::PortraitH264720p60) => Ok(of(720, 1280, 60, 4500)),
                Ok(Preset::PortraitH2641080p30) => Ok(of(1080, 1920, 30, 4500)),
                Ok(Preset::PortraitH2641080p60) => Ok(of(1080, 1920, 60, 6000)),
                Ok(Preset::Passthrough) | Err(_) => {
                    bad("this preset is for single tracks as they are (StartTrackEgress); use H264_720P_30 or another of its kind")
                }
            },
            Self::Advanced(wanted) => {
                let video = matches!(wanted.video_codec(), lk::VideoCodec::DefaultVc | lk::VideoCodec::H264Main);
                let sound = wanted.audio_codec();
                let (codecs, which): (&[lk::AudioCodec], _) = match form {
                    FileForm::Ogg => (&[lk::AudioCodec::Opus], "files of sound alone have Opus in Ogg, or AAC with file_type MP4"),
                    FileForm::Mp4 | FileForm::SilentMp4 | FileForm::Track => {
                        (&[lk::AudioCodec::Aac, lk::AudioCodec::Opus], "files have H.264 (main), and AAC or Opus; leave the codecs out")
                    }
                };
                if !video || (sound != lk::AudioCodec::DefaultAc && !codecs.contains(&sound)) {
                    return Err(RoomFault::Unsupported(which));
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
                let opus = sound == lk::AudioCodec::Opus;
                Ok(PictureProfile { audio_kbps, opus, ..of(width, height, frame_rate, video_kbps) })
            }
        }
    }
}

fn or(wanted: i32, default: u32) -> u32 {
    if wanted == 0 { default } else { u32::try_from(wanted).unwrap_or(0) }
}
