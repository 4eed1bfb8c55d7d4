//! What a participant sends, packet by packet. For tests and load: a bot only listens.

use std::sync::Arc;

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp::extension::HeaderExtension;
use rtc::rtp::extension::audio_level_extension::AudioLevelExtension;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use webrtc::media_stream::track_local::TrackLocal as _;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::media::Format;
use crate::ClientError;

/// What a publication's packets hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Sound.
    Opus,
    /// Pictures.
    Vp8,
}

/// A track that we send.
pub struct Publication {
    track: Arc<TrackLocalStaticRTP>,
    codec: Codec,
    ssrc: u32,
    sequence: u16,
}

impl Publication {
    /// Of the media stream `stream`: by that name screens and cameras are announced.
    pub(super) fn new(stream: &str, codec: Codec, ssrc: u32) -> Self {
        let format = Format::from(codec);
        let kind = if format.is_audio() { RtpCodecKind::Audio } else { RtpCodecKind::Video };
        let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() };
        let encoding = RTCRtpEncodingParameters { rtp_coding_parameters: coding, codec: format.codec(), ..Default::default() };
        let name = format!("{stream}-{ssrc}");
        let track = MediaStreamTrack::new(stream.to_owned(), name.clone(), name, kind, vec![encoding]);
        Self { track: Arc::new(TrackLocalStaticRTP::new(track)), codec, ssrc, sequence: 0 }
    }

    /// What its packets hold.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) fn track(&self) -> Arc<TrackLocalStaticRTP> {
        Arc::clone(&self.track)
    }

    /// Sends a packet. The caller paces. `level` is the loudness of sound in −dBov, 127 for silence.
    ///
    /// # Errors
    /// When the peer connection is gone.
    pub async fn send(&mut self, payload: Bytes, timestamp: u32, marker: bool, level: Option<u8>) -> Result<(), ClientError> {
        let header = rtp::Header {
            version: 2,
            payload_type: Format::from(self.codec).payload_type(),
            sequence_number: self.sequence,
            timestamp,
            ssrc: self.ssrc,
            marker,
            ..Default::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        let packet = rtp::Packet { header, payload };
        match level {
            Some(level) => {
                let level = HeaderExtension::AudioLevel(AudioLevelExtension { level, voice: level < 127 });
                Ok(self.track.write_rtp_with_extensions(packet, &[level]).await?)
            }
            None => Ok(self.track.write_rtp(packet).await?),
        }
    }
}
