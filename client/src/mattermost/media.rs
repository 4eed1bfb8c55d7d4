//! The peer connection as Mattermost's clients have it: Opus, VP8 and, where it is wanted, AV1.

use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_AV1, MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind};
use tokio::sync::mpsc;

use super::Codec;
use crate::ClientError;
use crate::connection::{Connection, ConnectionEvent};

/// The loudness of a packet: what the media node tells speakers by.
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// A codec of the dialect.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Opus,
    Vp8,
    Av1,
}

impl From<Codec> for Format {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Opus => Self::Opus,
            Codec::Vp8 => Self::Vp8,
        }
    }
}

impl Format {
    /// Chromium's number, and the media node's in its own offers.
    pub(super) fn payload_type(self) -> u8 {
        match self {
            Self::Opus => 111,
            Self::Vp8 => 96,
            Self::Av1 => 45,
        }
    }

    pub(super) fn is_audio(self) -> bool {
        matches!(self, Self::Opus)
    }

    pub(super) fn codec(self) -> RTCRtpCodec {
        let (mime_type, clock_rate, channels, fmtp) = match self {
            Self::Opus => (MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1"),
            Self::Vp8 => (MIME_TYPE_VP8, 90_000, 0, ""),
            Self::Av1 => (MIME_TYPE_AV1, 90_000, 0, ""),
        };
        let feedback = |(typ, parameter): (&str, &str)| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
        // Repeats and transport-wide feedback are added by those who do it.
        let rtcp_feedback = if self.is_audio() { Vec::new() } else { vec![feedback(("ccm", "fir"))] };
        RTCRtpCodec { mime_type: mime_type.to_owned(), clock_rate, channels, sdp_fmtp_line: fmtp.to_owned(), rtcp_feedback }
    }

    fn register(self, engine: &mut MediaEngine) -> Result<(), ClientError> {
        let kind = if self.is_audio() { RtpCodecKind::Audio } else { RtpCodecKind::Video };
        let payload_type = self.payload_type();
        engine.register_codec(RTCRtpCodecParameters { rtp_codec: self.codec(), payload_type }, kind)?;
        if !self.is_audio() {
            let rtx = RTCRtpCodec {
                mime_type: MIME_TYPE_RTX.to_owned(),
                clock_rate: 90_000,
                channels: 0,
                sdp_fmtp_line: format!("apt={payload_type}"),
                rtcp_feedback: Vec::new(),
            };
            engine.register_codec(RTCRtpCodecParameters { rtp_codec: rtx, payload_type: payload_type + 1 }, kind)?;
        }
        Ok(())
    }
}

/// A peer connection bound to `local`; with `0.0.0.0` to every address that is not loopback.
pub(super) async fn open(local: &str, av1: bool) -> Result<(Connection, mpsc::UnboundedReceiver<ConnectionEvent>), ClientError> {
    let mut engine = MediaEngine::default();
    for codec in [Format::Opus, Format::Vp8].into_iter().chain(av1.then_some(Format::Av1)) {
        codec.register(&mut engine)?;
    }
    engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL.to_owned() }, RtpCodecKind::Audio, None)?;
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(RTCDtlsRole::Client)
        // Several bots share a machine, and the media node has no names of that kind.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .build();
    Connection::with(local, engine, settings).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a media node offers of a voice and a screen.
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\na=msid-semantic:WMS *\r\n\
        a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=mid:0\r\na=ice-ufrag:aaaa\r\n\
        a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
        a=sendonly\r\na=msid:s voice_s_abcdefgh\r\na=ssrc:5 cname:s\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 45 46 96 97\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=mid:1\r\na=ice-ufrag:aaaa\r\n\
        a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=rtcp-mux\r\na=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=rtpmap:45 AV1/90000\r\na=rtcp-fb:45 transport-cc\r\na=rtcp-fb:45 nack pli\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=sendonly\r\na=msid:s screen_s_abcdefgh\r\na=ssrc:7 cname:s\r\n";

    async fn answer(av1: bool) -> String {
        let (mut connection, _events) = open("127.0.0.1", av1).await.expect("opens");
        let answer = connection.answer(OFFER.to_owned()).await.expect("an answer");
        connection.inner().close().await.expect("closes");
        answer
    }

    #[tokio::test]
    async fn what_a_node_estimates_the_way_by_is_agreed_to_and_av1_only_where_it_is_wanted() {
        let plain = answer(false).await;
        for line in ["a=rtpmap:111 opus/48000/2", "a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 transport-cc", "a=rtcp-fb:96 nack pli"] {
            assert!(plain.contains(line), "{line} is missing:\n{plain}");
        }
        assert!(plain.contains("a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"), "{plain}");
        assert!(!plain.contains("AV1"), "{plain}");
        let both = answer(true).await;
        assert!(both.contains("a=rtpmap:45 AV1/90000") && both.contains("a=rtcp-fb:45 transport-cc"), "{both}");
    }
}
