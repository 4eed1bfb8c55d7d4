//! As much of SDP as tells which tracks come: the WebRTC stack says so only with a track's first packet, and never that one ended.

use super::limits::SECTIONS_MAX;

/// Codecs that carry something: the rest repairs or wraps.
const CODECS: [&str; 5] = ["opus", "VP8", "VP9", "H264", "AV1"];

/// Formats of one section that are looked at: browsers and servers name a dozen of H.264.
const CODECS_MAX: usize = 32;

/// A codec of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Codec {
    pub(super) payload_type: u8,
    /// With its kind, `audio/opus`.
    pub(super) mime: String,
    pub(super) clock_rate: u32,
    pub(super) channels: u16,
    pub(super) fmtp: String,
}

/// A section in which the other end sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) mid: String,
    pub(super) stream: String,
    pub(super) track: String,
    /// At least one; the first is what a server with one format for each track sends.
    pub(super) codecs: Vec<Codec>,
}

/// What the other end sends by its description, in the sections' order.
pub(super) fn incoming(sdp: &str) -> Vec<Incoming> {
    let mut sections = sdp.split("\nm=");
    // The session's own part.
    sections.next();
    sections.take(SECTIONS_MAX).filter_map(section).collect()
}

fn section(text: &str) -> Option<Incoming> {
    let mut lines = text.lines().map(str::trim_end);
    let mut head = lines.next()?.split(' ');
    let kind = head.next().filter(|kind| matches!(*kind, "audio" | "video"))?;
    if head.next()? == "0" {
        return None;
    }
    let payload_types: Vec<u8> = head.skip(1).filter_map(|number| number.parse().ok()).collect();
    let (mut mid, mut msid, mut sends) = ("", "", true);
    let mut codecs: Vec<Codec> = Vec::new();
    for line in lines {
        let Some(attribute) = line.strip_prefix("a=") else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "mid" => mid = value,
            "msid" => msid = value,
            "recvonly" | "inactive" => sends = false,
            "sendonly" | "sendrecv" => sends = true,
            "rtpmap" => codecs.extend(codec(kind, value)),
            "fmtp" => {
                if let Some((number, parameters)) = value.split_once(' ')
                    && let Some(codec) = codecs.iter_mut().find(|codec| number.parse() == Ok(codec.payload_type))
                {
                    parameters.clone_into(&mut codec.fmtp);
                }
            }
            // Older servers name the stream only here.
            "ssrc" if msid.is_empty() => msid = value.split_once(" msid:").map_or("", |(_, msid)| msid),
            _ => {}
        }
    }
    let (stream, track) = msid.split_once(' ')?;
    let offered = payload_types.iter().filter_map(|number| codecs.iter().find(|codec| codec.payload_type == *number));
    let codecs: Vec<Codec> = offered.take(CODECS_MAX).cloned().collect();
    let wanted = sends && !mid.is_empty() && !track.is_empty() && !codecs.is_empty();
    wanted.then(|| Incoming { mid: mid.to_owned(), stream: stream.to_owned(), track: track.trim().to_owned(), codecs })
}

fn codec(kind: &str, rtpmap: &str) -> Option<Codec> {
    let (number, format) = rtpmap.split_once(' ')?;
    let mut parts = format.split('/');
    let name = parts.next()?;
    let name = CODECS.iter().find(|known| known.eq_ignore_ascii_case(name))?;
    let clock_rate = parts.next()?.parse().ok()?;
    let channels = parts.next().map_or(u16::from(kind == "audio"), |count| count.trim().parse().unwrap_or(1));
    Some(Codec { payload_type: number.parse().ok()?, mime: format!("{kind}/{name}"), clock_rate, channels, fmtp: String::new() })
}

/// A section that is not used for now, said so that our WebRTC stack can use it again: it takes `inactive` for stopped, for good.
pub(super) fn without_stops(sdp: &str) -> String {
    sdp.replace("\na=inactive", "\na=recvonly")
}

/// Our answers to later offers keep the DTLS role that the first exchange gave us: the stack always says the same one.
pub(super) fn keeping_role(answer: &str, server: bool) -> String {
    if server { answer.replace("\na=setup:active", "\na=setup:passive") } else { answer.to_owned() }
}

/// After an answer: the other end sends the ClientHello.
pub(super) fn is_active(answer: &str) -> bool {
    answer.lines().any(|line| line.trim_end() == "a=setup:active")
}

/// A track id's kind and session: `<kind>_<session>_<random>`.
pub(super) fn named(track: &str) -> Option<(&str, &str)> {
    let mut fields = track.split('_');
    let (kind, session, random) = (fields.next()?, fields.next()?, fields.next()?);
    (!session.is_empty() && !random.is_empty()).then_some((kind, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2 3 4\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sctp-port:5000\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=mid:1\r\na=sendonly\r\na=msid:sessA voice_sessA_abcdefgh\r\n\
        a=rtpmap:63 red/48000/2\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ssrc:5 cname:sessA\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:2\r\na=rtpmap:96 vp8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=ssrc:7 cname:sessB\r\na=ssrc:7 msid:sessB screen_sessB_abcdefgh\r\na=sendrecv\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:3\r\na=inactive\r\na=msid:sessC video_sessC_abcdefgh\r\na=rtpmap:96 VP8/90000\r\n\
        m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:4\r\na=msid:x voice_x_y\r\na=rtpmap:111 opus/48000/2\r\n";

    #[test]
    fn the_sections_that_send_tell_their_tracks() {
        let incoming = incoming(OFFER);
        let told: Vec<_> = incoming.iter().map(|section| (section.mid.as_str(), section.track.as_str())).collect();
        assert_eq!(told, [("1", "voice_sessA_abcdefgh"), ("2", "screen_sessB_abcdefgh")]);
        let fmtp = "minptime=10;useinbandfec=1".to_owned();
        let opus = Codec { payload_type: 111, mime: "audio/opus".to_owned(), clock_rate: 48_000, channels: 2, fmtp };
        assert_eq!((&incoming[0].codecs[..], incoming[0].stream.as_str()), (&[opus][..], "sessA"));
        assert_eq!((incoming[1].codecs[0].mime.as_str(), incoming[1].codecs[0].channels), ("video/VP8", 0));
    }

    #[test]
    fn nothing_in_it_panics() {
        for at in 0..OFFER.len() {
            let _ = incoming(&OFFER[at..]);
            let _ = incoming(&OFFER[..at]);
        }
        assert_eq!(incoming("m=audio"), []);
    }

    #[test]
    fn a_name_tells_kind_and_session() {
        assert_eq!(named("screen-audio_sess_abc"), Some(("screen-audio", "sess")));
        for other in ["", "voice", "voice_s", "voice__x", "voice_s_", "{9f}"] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn roles_and_rests() {
        let active = "v=0\r\na=setup:active\r\n";
        assert!(is_active(active) && !is_active("v=0\r\na=setup:passive\r\n"));
        assert_eq!(keeping_role(active, true), "v=0\r\na=setup:passive\r\n");
        assert_eq!(keeping_role(active, false), active);
        assert_eq!(without_stops("m=x\r\na=inactive\r\n"), "m=x\r\na=recvonly\r\n");
    }
}
