//! FFmpeg: decoders, scaler, encoders, MP4. Everything that speaks its API is in this file.
//!
//! `ffmpeg-next` covers all that is needed, so there is no unsafe code of ours here.

use std::path::Path;

use ffmpeg_next::codec::{self, Id, encoder, threading};
use ffmpeg_next::format::{Pixel, Sample, context, sample};
use ffmpeg_next::software::scaling;
use ffmpeg_next::util::{
    channel_layout::ChannelLayout,
    color,
    error::{EAGAIN, ENOSPC},
    frame,
};
use ffmpeg_next::{Dictionary, Error, Packet, Rational, decoder};
use offloader_jobs::mattermost::PictureProfile;

use super::depacket::{Codec, Frame};
use super::effort::Content;
use super::layout::Rect;
use super::sound::RATE;

/// Seconds between key frames: a jump in the player decodes at most that.
const KEY_FRAME_EVERY: u32 = 4;

/// FFmpeg refused.
#[derive(Debug, thiserror::Error)]
#[error("FFmpeg: {what}: {source}")]
pub struct MediaError {
    what: &'static str,
    source: Error,
}

fn failed(what: &'static str) -> impl FnOnce(Error) -> MediaError {
    move |source| MediaError { what, source }
}

fn missing(what: &'static str) -> MediaError {
    MediaError { what, source: Error::EncoderNotFound }
}

/// FFmpeg's way to say that nothing more could be written.
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Error::Other { errno: ENOSPC }))
}

/// Once a process: FFmpeg's own log goes to standard error and is kept to errors.
pub fn init() -> Result<(), MediaError> {
    ffmpeg_next::init().map_err(failed("cannot start"))?;
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    Ok(())
}

/// Decodes one track's frames.
pub struct Decoder {
    decoder: decoder::Video,
    /// Frames that the decoder refused.
    pub bad_frames: u64,
}

impl Decoder {
    /// For a codec.
    pub fn new(codec: Codec) -> Result<Self, MediaError> {
        let found = match codec {
            Codec::Vp8 => decoder::find(Id::VP8),
            Codec::H264 => decoder::find(Id::H264),
            Codec::Vp9 => decoder::find(Id::VP9),
            // FFmpeg's own AV1 decoder needs hardware.
            Codec::Av1 => decoder::find_by_name("libdav1d").or_else(|| decoder::find_by_name("libaom-av1")),
        };
        let found = found.ok_or_else(|| missing("no decoder for a track's codec in this FFmpeg"))?;
        let mut context = codec::Context::new_with_codec(found);
        // One thread and no delay: what goes in comes out, and memory does not grow with cores.
        context.set_threading(threading::Config { kind: threading::Type::Slice, count: 1, ..threading::Config::default() });
        context.set_flags(codec::Flags::LOW_DELAY);
        let decoder = context.decoder().video().map_err(failed("cannot open a decoder"))?;
        Ok(Self { decoder, bad_frames: 0 })
    }

    /// Decodes a frame; of several layers the last picture counts.
    pub fn decode(&mut self, frame: &Frame) -> Option<frame::Video> {
        let mut picture = None;
        for part in &frame.parts {
            if self.decoder.send_packet(&Packet::copy(part)).is_err() {
                self.bad_frames += 1;
            }
            let mut out = frame::Video::empty();
            while self.decoder.receive_frame(&mut out).is_ok() {
                picture = Some(std::mem::replace(&mut out, frame::Video::empty()));
            }
        }
        picture
    }

    /// Whether it keeps a picture back. Nothing can be decoded after this.
    fn drain(&mut self) -> bool {
        let _ = self.decoder.send_eof();
        self.decoder.receive_frame(&mut frame::Video::empty()).is_ok()
    }
}

/// Scales one track's pictures into a tile.
#[derive(Default)]
pub struct Scaler {
    context: Option<scaling::Context>,
}

impl Scaler {
    /// A copy of the picture in 4:2:0 of the rectangle's size, on `used` where that has this size.
    pub fn scale(&mut self, picture: &frame::Video, to: Rect, used: Option<frame::Video>) -> Option<frame::Video> {
        let fits = self.context.as_ref().is_some_and(|c| {
            let (from, into) = (c.input(), c.output());
            (from.format, from.width, from.height) == (picture.format(), picture.width(), picture.height())
                && (into.width, into.height) == (to.width, to.height)
        });
        if !fits {
            let flags = scaling::Flags::BILINEAR;
            self.context =
                scaling::Context::get(picture.format(), picture.width(), picture.height(), Pixel::YUV420P, to.width, to.height, flags).ok();
        }
        let mut out = used.filter(|used| (used.width(), used.height()) == (to.width, to.height)).unwrap_or_else(frame::Video::empty);
        self.context.as_mut()?.run(picture, &mut out).ok()?;
        Some(out)
    }
}

/// What a rendered file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// AAC in MP4.
    Sound,
    /// H.264 in MP4.
    Pictures,
    /// Both.
    Both,
    /// Opus in Ogg.
    OggSound,
}

impl Streams {
    /// Pictures are in it.
    pub fn has_pictures(self) -> bool {
        match self {
            Self::Pictures | Self::Both => true,
            Self::Sound | Self::OggSound => false,
        }
    }
}

/// Writes a file that plays and seeks in browsers: MP4 with AAC and H.264, index at the front, or Ogg with Opus.
pub struct Film {
    output: context::Output,
    audio: Option<encoder::Audio>,
    audio_frame: usize,
    /// Samples that are not a whole AAC frame yet.
    waiting: Vec<f32>,
    samples: i64,
    video: Option<encoder::Video>,
    frame_rate: u32,
    /// Number of the latest key frame.
    key_picture: Option<i64>,
    /// Number of the latest picture.
    last: Option<i64>,
}

impl Film {
    /// Opens the file and writes its header.
    pub fn create(path: &Path, title: &str, profile: &PictureProfile, content: Content, streams: Streams) -> Result<Self, MediaError> {
        let container = if streams == Streams::OggSound { "ogg" } else { "mp4" };
        let mut output = ffmpeg_next::format::output_as(path, container).map_err(failed("cannot create the file"))?;
        let audio = match streams {
            Streams::Sound | Streams::Both if !profile.opus => Some(aac_encoder(profile)?),
            Streams::Sound | Streams::Both | Streams::OggSound => Some(opus_encoder(profile)?),
            Streams::Pictures => None,
        };
        if let Some(audio) = &audio {
            add_stream(&mut output, audio, Rational::new(1, RATE as i32))?;
        }
        let video = if streams.has_pictures() { Some(video_encoder(profile, content)?) } else { None };
        let frame_rate = profile.frame_rate.max(1);
        if let Some(video) = &video {
            add_stream(&mut output, video, Rational::new(1, frame_rate as i32))?;
        }
        let mut metadata = Dictionary::new();
        metadata.set("title", &title.replace('\0', " "));
        output.set_metadata(metadata);
        write_header(&mut output, container)?;
        let audio_frame = audio.as_ref().map_or(1, |audio| (audio.frame_size() as usize).max(1));
        Ok(Self { output, audio, audio_frame, waiting: Vec::new(), samples: 0, video, frame_rate, key_picture: None, last: None })
    }

    /// The next samples. Where there is no sound they are forgotten.
    pub fn add_sound(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        if self.audio.is_none() {
            return Ok(());
        }
        self.waiting.extend_from_slice(samples);
        while self.waiting.len() >= self.audio_frame {
            let rest = self.waiting.split_off(self.audio_frame);
            let block = std::mem::replace(&mut self.waiting, rest);
            self.encode_sound(&block)?;
        }
        Ok(())
    }

    /// A picture that stands from the `number`th of a frame's length on, until the next one. What does not change need not be
    /// encoded again: a call where nobody shows anything costs a picture a second instead of twenty.
    pub fn add_picture(&mut self, number: i64, picture: &mut frame::Video) -> Result<(), MediaError> {
        self.last = Some(number);
        self.encode_picture(number, picture)
    }

    /// The picture can be drawn on again afterwards: x264 has its own copy when this is back.
    fn encode_picture(&mut self, number: i64, picture: &mut frame::Video) -> Result<(), MediaError> {
        let Some(video) = &mut self.video else { return Ok(()) };
        let due = self.key_picture.is_none_or(|key| number - key >= i64::from(KEY_FRAME_EVERY * self.frame_rate));
        if due {
            self.key_picture = Some(number);
        }
        picture.set_pts(Some(number));
        picture.set_kind(if due { ffmpeg_next::picture::Type::I } else { ffmpeg_next::picture::Type::None });
        video.send_frame(picture).map_err(failed("cannot encode a picture"))?;
        self.drain_video()
    }

    /// Writes what is left and the index; `pictures`: how many there would be if each had its frame's length; `last`: the latest.
    pub fn finish(mut self, pictures: i64, last: &mut frame::Video) -> Result<(), MediaError> {
        // The last picture stands to the end.
        if self.last.is_some_and(|number| number + 1 < pictures) {
            self.encode_picture(pictures - 1, last)?;
        }
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            self.encode_sound(&rest)?;
        }
        if let Some(audio) = &mut self.audio {
            audio.send_eof().map_err(failed("cannot end the sound"))?;
            self.drain_audio()?;
        }
        if let Some(video) = &mut self.video {
            video.send_eof().map_err(failed("cannot end the pictures"))?;
            self.drain_video()?;
        }
        self.output.write_trailer().map_err(failed("cannot write the index (is the disk full?)"))
    }

    fn encode_sound(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let Some(audio) = &mut self.audio else { return Ok(()) };
        let mut frame = frame::Audio::new(audio.format(), samples.len(), ChannelLayout::MONO);
        frame.set_rate(RATE as u32);
        frame.set_pts(Some(self.samples));
        frame.plane_mut::<f32>(0).copy_from_slice(samples);
        self.samples += samples.len() as i64;
        audio.send_frame(&frame).map_err(failed("cannot encode sound"))?;
        self.drain_audio()
    }

    fn drain_audio(&mut self) -> Result<(), MediaError> {
        let Some(audio) = &mut self.audio else { return Ok(()) };
        let mut packet = Packet::empty();
        while received(audio.receive_packet(&mut packet))? {
            write(&mut self.output, &mut packet, 0, Rational::new(1, RATE as i32))?;
        }
        Ok(())
    }

    fn drain_video(&mut self) -> Result<(), MediaError> {
        let Some(video) = &mut self.video else { return Ok(()) };
        // Behind the sound, where there is any.
        let stream = usize::from(self.audio.is_some());
        let mut packet = Packet::empty();
        while received(video.receive_packet(&mut packet))? {
            if packet.duration() == 0 {
                // Without it the last picture's length would be a guess.
                packet.set_duration(1);
            }
            write(&mut self.output, &mut packet, stream, Rational::new(1, self.frame_rate as i32))?;
        }
        Ok(())
    }
}

/// Writes one video track's frames as they are: H.264 into MP4, VP8 and VP9 into WebM, AV1 into IVF.
pub struct Copied {
    output: context::Output,
    /// A frame whose length the next one's time will tell.
    last: Option<(i64, Frame)>,
    length: i64,
}

/// Ticks a second of what is copied: that of video's RTP.
const COPIED_RATE: i32 = 90_000;

impl Copied {
    /// Opens the file for a track that begins with this frame, which is decoded to know its size.
    pub fn create(path: &Path, codec: Codec, first: &Frame) -> Result<Self, MediaError> {
        let container = codec.container();
        let mut decoder = Decoder::new(codec)?;
        if decoder.decode(first).is_none() && !decoder.drain() {
            return Err(MediaError { what: "the track's first picture cannot be decoded", source: Error::InvalidData });
        }
        let mut output = ffmpeg_next::format::output_as(path, container).map_err(failed("cannot create the file"))?;
        add_stream(&mut output, &decoder.decoder, Rational::new(1, COPIED_RATE))?;
        write_header(&mut output, container)?;
        Ok(Self { output, last: None, length: i64::from(COPIED_RATE / 30) })
    }

    /// The next frame, at a time in ticks from the first one's.
    pub fn add(&mut self, at: i64, frame: Frame) -> Result<(), MediaError> {
        let Some((before, last)) = self.last.take() else {
            self.last = Some((at, frame));
            return Ok(());
        };
        // Containers want times that grow, whatever a sender's clock does.
        let at = at.max(before + 1);
        self.length = at - before;
        self.last = Some((at, frame));
        self.write(before, &last)
    }

    /// Writes what is left and the index; gives the length in ticks.
    pub fn finish(mut self) -> Result<i64, MediaError> {
        let mut end = 0;
        if let Some((at, last)) = self.last.take() {
            end = at + self.length;
            self.write(at, &last)?;
        }
        self.output.write_trailer().map_err(failed("cannot write the index (is the disk full?)"))?;
        Ok(end)
    }

    fn write(&mut self, at: i64, frame: &Frame) -> Result<(), MediaError> {
        let mut packet = Packet::copy(&frame.parts.concat());
        packet.set_pts(Some(at));
        packet.set_dts(Some(at));
        packet.set_duration(self.length);
        if frame.key {
            packet.set_flags(ffmpeg_next::packet::Flags::KEY);
        }
        write(&mut self.output, &mut packet, 0, Rational::new(1, COPIED_RATE))
    }
}

fn received(result: Result<(), Error>) -> Result<bool, MediaError> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Eof | Error::Other { errno: EAGAIN }) => Ok(false),
        Err(source) => Err(MediaError { what: "encoding failed", source }),
    }
}

fn write(output: &mut context::Output, packet: &mut Packet, stream: usize, time_base: Rational) -> Result<(), MediaError> {
    // The muxer may have chosen another time base than was asked for.
    let wanted = output.stream(stream).map_or(time_base, |s| s.time_base());
    packet.set_stream(stream);
    packet.rescale_ts(time_base, wanted);
    packet.write_interleaved(output).map_err(failed("cannot write (is the disk full?)"))
}

fn add_stream(output: &mut context::Output, encoder: impl AsRef<codec::Context>, time_base: Rational) -> Result<(), MediaError> {
    let mut stream = output.add_stream_with(encoder.as_ref()).map_err(failed("cannot add a stream"))?;
    stream.set_time_base(time_base);
    Ok(())
}

fn write_header(output: &mut context::Output, container: &str) -> Result<(), MediaError> {
    let mut options = Dictionary::new();
    if container == "mp4" {
        // The index first: a player can seek before it has the whole file.
        options.set("movflags", "+faststart");
    }
    // What the container does not take of the options comes back.
    output.write_header_with(options).map(|_| ()).map_err(failed("cannot write the header"))
}

fn aac_encoder(profile: &PictureProfile) -> Result<encoder::Audio, MediaError> {
    let found = encoder::find(Id::AAC).ok_or_else(|| missing("no AAC encoder in this FFmpeg"))?;
    let mut options = Dictionary::new();
    // A third of the default's CPU, and nearer to what went in: 57 dB against 44 for three voices at 64 kbit/s (FFmpeg 5.1).
    options.set("aac_coder", "fast");
    audio_encoder(found, Sample::F32(sample::Type::Planar), profile, options)
}

fn opus_encoder(profile: &PictureProfile) -> Result<encoder::Audio, MediaError> {
    let found = encoder::find_by_name("libopus").ok_or_else(|| missing("no libopus in this FFmpeg"))?;
    audio_encoder(found, Sample::F32(sample::Type::Packed), profile, Dictionary::new())
}

fn audio_encoder(
    found: ffmpeg_next::Codec,
    format: Sample,
    profile: &PictureProfile,
    options: Dictionary<'_>,
) -> Result<encoder::Audio, MediaError> {
    let mut audio = codec::Context::new_with_codec(found).encoder().audio().map_err(failed("cannot make an encoder of sound"))?;
    audio.set_rate(RATE as i32);
    audio.set_format(format);
    audio.set_channel_layout(ChannelLayout::MONO);
    audio.set_bit_rate(profile.audio_kbps as usize * 1_000);
    audio.set_time_base(Rational::new(1, RATE as i32));
    audio.set_flags(codec::Flags::GLOBAL_HEADER);
    audio.open_with(options).map_err(failed("cannot open the encoder of sound"))
}

fn video_encoder(profile: &PictureProfile, content: Content) -> Result<encoder::Video, MediaError> {
    let found = encoder::find_by_name("libx264").ok_or_else(|| missing("no libx264 in this FFmpeg"))?;
    let mut video = codec::Context::new_with_codec(found).encoder().video().map_err(failed("cannot make an H.264 encoder"))?;
    video.set_width(profile.width);
    video.set_height(profile.height);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(Rational::new(1, profile.frame_rate.max(1) as i32));
    video.set_frame_rate(Some(Rational::new(profile.frame_rate.max(1) as i32, 1)));
    video.set_gop(KEY_FRAME_EVERY * profile.frame_rate.max(1));
    // Browsers encode cameras and screens in BT.601; said here, or players guess by the height.
    video.set_colorspace(color::Space::SMPTE170M);
    video.set_color_range(color::Range::MPEG);
    video.set_color_primaries(color::Primaries::SMPTE170M);
    video.set_color_transfer_characteristic(color::TransferCharacteristic::SMPTE170M);
    video.set_flags(codec::Flags::GLOBAL_HEADER | codec::Flags::CLOSED_GOP);
    let mut options = Dictionary::new();
    let effort = content.effort(&profile.preset);
    options.set("preset", effort.preset);
    options.set("crf", effort.crf);
    if !effort.params.is_empty() {
        options.set("x264-params", effort.params);
    }
    if let Some(b_frames) = effort.b_frames {
        video.set_max_b_frames(b_frames);
    }
    if profile.video_kbps > 0 {
        // Quality up to the bound: what is asked for as an average is here the most, over two seconds.
        options.set("maxrate", &format!("{}k", profile.video_kbps));
        options.set("bufsize", &format!("{}k", 2 * profile.video_kbps));
    }
    // Two threads: at the lowest priority, and a machine with two cores still has calls to carry.
    options.set("threads", "2");
    video.open_with(options).map_err(failed("cannot open the H.264 encoder"))
}
