//! One video track through time: which picture is on it at a moment.

use archive::manifest::Track;
use archive::read::{ReadError, Recording, Records};
use archive::record::{GapReason, Record};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;

use super::depacket::{Codec, Depacketiser, Frame};
use super::layout::Rect;
use super::media::{Decoder, MediaError, Scaler};
use super::people::Changes;
use crate::audio::clock::RtpClock;

/// A camera that gives no picture for so long is off, whatever else was said. A shared screen may stand still.
const CAMERA_STALE_US: i64 = 8_000_000;

/// A video track of a recording.
pub struct VideoTrack<'r> {
    records: Records<'r>,
    depacketiser: Depacketiser,
    decoder: Decoder,
    scaler: Scaler,
    clock: RtpClock,
    /// A frame whose time has not come.
    next: Option<(i64, Frame)>,
    picture: Option<Video>,
    picture_us: i64,
    /// A picture at the size of its place.
    scaled: Option<Video>,
    /// That is the one that is on now.
    is_scaled: bool,
    ended_us: Option<i64>,
    muted: Changes,
    /// Whose.
    pub identity: String,
    /// A shared screen, not a camera.
    pub screen: bool,
}

impl<'r> VideoTrack<'r> {
    /// Opens a track; `None` for a codec that we do not know.
    pub fn open(recording: &'r Recording, track: &Track) -> Result<Option<Self>, MediaError> {
        let Some(codec) = Codec::from_mime(&track.info.mime) else { return Ok(None) };
        let mut muted = Changes::default();
        recording.manifest().muted.iter().filter(|(_, m)| m.track == track.number).for_each(|(at, m)| muted.note(*at, m.muted));
        Ok(Some(Self {
            records: recording.records(track.number),
            depacketiser: Depacketiser::new(codec),
            decoder: Decoder::new(codec)?,
            scaler: Scaler::default(),
            clock: RtpClock::new(if track.info.clock_rate == 0 { 90_000 } else { track.info.clock_rate }),
            next: None,
            picture: None,
            picture_us: 0,
            scaled: None,
            is_scaled: false,
            ended_us: track.ended_at_us,
            muted,
            identity: track.info.identity.clone(),
            screen: track.info.source.starts_with("screen"),
        }))
    }

    /// Decodes everything up to a moment.
    pub fn advance(&mut self, now_us: i64) -> Result<(), ReadError> {
        loop {
            if let Some((at, _)) = &self.next
                && *at > now_us
            {
                return Ok(());
            }
            if let Some((at, frame)) = self.next.take()
                && let Some(picture) = self.decoder.decode(&frame)
            {
                (self.picture, self.picture_us, self.is_scaled) = (Some(picture), at, false);
            }
            let Some(frame) = self.read()? else { return Ok(()) };
            let at = self.clock.handle_packet(frame.at_us, frame.timestamp);
            // Never backwards: a takeover may begin the timestamps anew.
            self.next = Some((at.max(self.picture_us), frame));
        }
    }

    fn read(&mut self) -> Result<Option<Frame>, ReadError> {
        for record in self.records.by_ref() {
            match record? {
                Record::Packet(packet) => {
                    if let Some(frame) = self.depacketiser.handle_packet(&packet) {
                        return Ok(Some(frame));
                    }
                }
                Record::Gap(gap) => {
                    self.depacketiser.handle_gap();
                    if gap.reason == GapReason::Worker {
                        self.clock = RtpClock::new(90_000);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether it is to be seen now.
    pub fn visible(&self, now_us: i64) -> bool {
        let muted = self.muted.at(now_us).unwrap_or(false);
        let ended = self.ended_us.is_some_and(|at| now_us >= at);
        let stale = !self.screen && now_us - self.picture_us > CAMERA_STALE_US;
        self.picture.is_some() && !muted && !ended && !stale
    }

    /// When the picture that is on it came: another picture, another time.
    pub fn picture_us(&self) -> i64 {
        self.picture_us
    }

    /// The picture's own size.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.picture.as_ref().map(|p| (p.width(), p.height()))
    }

    /// The picture at a tile's size: as it is where it is of that size, else scaled once.
    pub fn scaled(&mut self, to: Rect) -> Option<&Video> {
        let picture = self.picture.as_ref()?;
        let fits = |frame: &Video| (frame.width(), frame.height()) == (to.width, to.height);
        if picture.format() == Pixel::YUV420P && fits(picture) {
            return Some(picture);
        }
        if !self.is_scaled || !self.scaled.as_ref().is_some_and(fits) {
            self.scaled = self.scaler.scale(picture, to, self.scaled.take());
            self.is_scaled = true;
        }
        self.scaled.as_ref()
    }
}
