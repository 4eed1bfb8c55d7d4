//! Just enough SDP for a synthetic client: one publisher section, or an answer that receives what is offered.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;

use crate::ice::Local;
use crate::scenario::Scenario;
use crate::subject::Client;

/// The server's side of a transport.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    /// Some servers tell it later, beside the SDP.
    pub(crate) candidate: Option<SocketAddr>,
    pub(crate) lite: bool,
    /// It opens the DTLS handshake.
    pub(crate) setup_active: bool,
    /// It takes what a publisher sends again on [`RTX`].
    pub(crate) rtx: bool,
}

/// Payload type of speech in our offers.
const OPUS: u8 = 111;
/// Payload type of the picture in our offers.
const VP8: u8 = 96;
/// Of the picture's packets that are sent again, in offers of scenarios with `repair`.
pub(crate) const RTX: u8 = 97;
/// Their source's number is so much above that of the picture.
pub(crate) const RTX_SSRC_ABOVE: u32 = 100_000;
/// Extension id of the audio level in our offers.
pub(crate) const LEVEL_ID: u8 = 1;
/// Of a layer's name, and of the section's.
pub(crate) const RID_ID: u8 = 2;
pub(crate) const MID_ID: u8 = 3;
/// Names of the layers, smallest first, as LiveKit's clients call them.
pub(crate) const RIDS: [u8; 3] = [b'q', b'h', b'f'];

/// What a publisher's packets carry.
pub(crate) fn payload_type(video: bool) -> u8 {
    if video { VP8 } else { OPUS }
}

/// Reads the server's credentials and its UDP candidate, the one at `wanted` if there are several.
pub(crate) fn remote(sdp: &str, wanted: IpAddr) -> anyhow::Result<Remote> {
    let value = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix)).map(|text| text.trim().to_owned());
    let candidates: Vec<SocketAddr> = sdp.lines().filter_map(|line| candidate(line.strip_prefix("a=")?)).collect();
    let candidate = candidates.iter().find(|address| address.ip() == wanted).or(candidates.first()).copied();
    Ok(Remote {
        ufrag: value("a=ice-ufrag:").context("no ufrag")?,
        pwd: value("a=ice-pwd:").context("no pwd")?,
        candidate,
        lite: sdp.lines().any(|line| line.trim() == "a=ice-lite"),
        setup_active: value("a=setup:").is_some_and(|setup| setup == "active"),
        rtx: value(&format!("a=fmtp:{RTX} ")).is_some_and(|parameters| parameters == format!("apt={VP8}")),
    })
}

/// The address of `candidate:…`, if it is UDP and ours to use.
pub(crate) fn candidate(text: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = text.strip_prefix("candidate:")?.split_whitespace().collect();
    if !fields.get(2)?.eq_ignore_ascii_case("udp") {
        return None;
    }
    Some(SocketAddr::new(fields.get(4)?.parse().ok()?, fields.get(5)?.parse().ok()?))
}

fn transport(local: &Local, fingerprint: &str, setup: &str) -> String {
    format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\na=rtcp-mux\r\na={}\r\na=end-of-candidates\r\n",
        local.ufrag,
        local.pwd,
        local.candidate()
    )
}

/// An offer of a data channel alone.
pub(crate) fn data_channel(local: &Local, fingerprint: &str) -> String {
    format!("{}{}", head("- 1 2", "0"), application("0", local, fingerprint, "actpass"))
}

fn head(origin: &str, group: &str) -> String {
    format!("v=0\r\no={origin} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {group}\r\na=msid-semantic: WMS *\r\n")
}

fn application(mid: &str, local: &Local, fingerprint: &str, setup: &str) -> String {
    format!(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n{}a=sctp-port:5000\r\na=max-message-size:262144\r\n",
        transport(local, fingerprint, setup)
    )
}

/// The stream a track belongs to.
pub(crate) fn stream(cid: &str) -> String {
    format!("stream-{cid}")
}

/// An offer that sends one track.
pub(crate) fn publish(client: &Client, local: &Local, cid: &str) -> String {
    format!("{}{}", head("- 1 2", "0"), published("0", client, local, cid))
}

/// A client's offer on a connection of its own for what it publishes.
pub(crate) fn published_by(client: &Client, local: &Local, cid: &str) -> String {
    match client.scenario.layers {
        Some(_) => publish_layers(client, local, cid),
        None => publish(client, local, cid),
    }
}

/// An offer that sends one camera in three layers.
fn publish_layers(client: &Client, local: &Local, cid: &str) -> String {
    let mut section = published("0", client, local, cid);
    // Layers tell who they are in their packets.
    let kept: Vec<&str> = section.lines().filter(|line| !line.starts_with("a=ssrc:")).collect();
    section = kept.iter().map(|line| format!("{line}\r\n")).collect();
    section += &format!(
        "a=extmap:{RID_ID} urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=extmap:{MID_ID} urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    );
    let names = RIDS.map(|rid| char::from(rid).to_string());
    for name in &names {
        section += &format!("a=rid:{name} send\r\n");
    }
    section += &format!("a=simulcast:send {}\r\n", names.join(";"));
    format!("{}{section}", head("- 1 2", "0"))
}

/// The tracks an offer sends, by the first source that carries each.
pub(crate) fn tracks(offer: &str) -> Vec<(u32, String)> {
    let mut tracks = Vec::new();
    for section in offer.split("\r\nm=").skip(1) {
        let value = |prefix: &str| section.lines().find_map(|line| line.strip_prefix(prefix));
        let ssrc = value("a=ssrc:").and_then(|text| text.split(' ').next()?.parse().ok());
        let track = value("a=msid:").and_then(|text| text.split(' ').nth(1));
        if let (Some(ssrc), Some(track)) = (ssrc, track) {
            tracks.push((ssrc, track.trim().to_owned()));
        }
    }
    tracks
}

/// The same beside a data channel.
pub(crate) fn publish_beside_data(client: &Client, local: &Local, cid: &str) -> String {
    format!("{}{}{}", head("- 1 2", "0 1"), application("0", local, &client.fingerprint(), "actpass"), published("1", client, local, cid))
}

fn published(mid: &str, client: &Client, local: &Local, cid: &str) -> String {
    let (ssrc, Scenario { video, repair, .. }) = (client.ssrc, client.scenario);
    let stream = stream(cid);
    let payload_type = payload_type(video);
    let (kind, codec, extension) = if video {
        (
            "video",
            format!("a=rtpmap:{payload_type} VP8/90000\r\na=rtcp-fb:{payload_type} nack\r\na=rtcp-fb:{payload_type} nack pli\r\n"),
            String::new(),
        )
    } else {
        (
            "audio",
            format!("a=rtpmap:{payload_type} opus/48000/2\r\na=fmtp:{payload_type} minptime=10;useinbandfec=1\r\n"),
            format!("a=extmap:{LEVEL_ID} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"),
        )
    };
    let (mut payload_types, mut again) = (payload_type.to_string(), String::new());
    let mut sources = format!("a=ssrc:{ssrc} cname:bench\r\na=ssrc:{ssrc} msid:{stream} {cid}\r\n");
    if repair && video {
        let rtx_ssrc = ssrc + RTX_SSRC_ABOVE;
        payload_types += &format!(" {RTX}");
        again = format!("a=rtpmap:{RTX} rtx/90000\r\na=fmtp:{RTX} apt={payload_type}\r\n");
        sources = format!(
            "a=ssrc-group:FID {ssrc} {rtx_ssrc}\r\n{sources}a=ssrc:{rtx_ssrc} cname:bench\r\na=ssrc:{rtx_ssrc} msid:{stream} {cid}\r\n"
        );
    }
    format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {payload_types}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n{}a=sendonly\r\na=msid:{stream} {cid}\r\n\
         {extension}{codec}{again}{sources}",
        transport(local, &client.fingerprint(), "actpass"),
    )
}

/// Answers an offer, as the one that opens the DTLS handshake.
pub(crate) fn answer(offer: &str, local: &Local, fingerprint: &str) -> String {
    answer_as(offer, local, fingerprint, "active")
}

/// Answers an offer: receives everything it sends, and asks for packets and key frames again, without transport-wide feedback.
pub(crate) fn answer_as(offer: &str, local: &Local, fingerprint: &str, setup: &str) -> String {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in offer.lines() {
        if line.starts_with("m=") {
            sections.push(vec![line]);
        } else if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    let mid = |section: &[&str]| section.iter().find_map(|line| line.strip_prefix("a=mid:")).unwrap_or_default().to_owned();
    let group: Vec<String> = sections.iter().map(|section| mid(section)).collect();
    let mut text = head("- 3 2", &group.join(" "));
    for section in &sections {
        let first: Vec<&str> = section.first().copied().unwrap_or_default().split_whitespace().collect();
        let kind = first.first().copied().unwrap_or_default();
        if kind == "m=application" {
            text += &application(&mid(section), local, fingerprint, setup);
            continue;
        }
        let stopped = first.get(1) == Some(&"0");
        let sends = section.iter().any(|line| *line == "a=sendonly" || *line == "a=sendrecv");
        let payload_type = payload_type_of(section, first.get(3..).unwrap_or_default());
        let again = retransmission_of(section, payload_type);
        let payload_types: Vec<&str> = std::iter::once(payload_type).chain(again).collect();
        let port = if stopped { 0 } else { 9 };
        let direction = if sends { "recvonly" } else { "inactive" };
        text += &format!(
            "{kind} {port} UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n{}a={direction}\r\n",
            payload_types.join(" "),
            mid(section),
            transport(local, fingerprint, setup)
        );
        for line in section {
            let codec = payload_types
                .iter()
                .any(|number| line.starts_with(&format!("a=rtpmap:{number} ")) || line.starts_with(&format!("a=fmtp:{number} ")));
            let feedback = ["nack", "nack pli"].iter().any(|what| line.trim_end() == format!("a=rtcp-fb:{payload_type} {what}"));
            let wanted = codec || feedback;
            if wanted {
                text += line.trim_end();
                text += "\r\n";
            }
        }
    }
    text
}

/// The one of our codecs among what a section offers: which stands first is not said anywhere.
fn payload_type_of<'a>(section: &[&str], offered: &[&'a str]) -> &'a str {
    let is_ours = |payload_type: &&&str| {
        section.iter().filter_map(|line| line.strip_prefix(&format!("a=rtpmap:{payload_type} "))).any(|codec| {
            let codec = codec.to_ascii_lowercase();
            codec.starts_with("opus/") || codec.starts_with("vp8/")
        })
    };
    offered.iter().find(is_ours).or(offered.first()).copied().unwrap_or_default()
}

/// On which payload type packets of another one come again (RFC 4588).
fn retransmission_of<'a>(section: &[&'a str], payload_type: &str) -> Option<&'a str> {
    let number = |line: &&'a str| {
        let (number, parameters) = line.strip_prefix("a=fmtp:")?.split_once(' ')?;
        (parameters.trim() == format!("apt={payload_type}")).then_some(number)
    };
    section.iter().find_map(number)
}

/// Media sections an offer sends on; some give a direction to the data channel's, too.
pub(crate) fn sent_sections(offer: &str) -> usize {
    let mut media = false;
    let mut count = 0;
    for line in offer.lines() {
        if line.starts_with("m=") {
            media = !line.starts_with("m=application");
        }
        count += usize::from(media && (line == "a=sendonly" || line == "a=sendrecv"));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_codec_is_answered_wherever_it_stands() -> anyhow::Result<()> {
        let local = Local::bind("127.0.0.1".parse()?, "u".to_owned())?;
        let offer = "m=video 9 UDP/TLS/RTP/SAVPF 45 96\r\na=mid:1\r\na=rtpmap:45 AV1/90000\r\na=rtpmap:96 VP8/90000\r\n\
                     a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
                     a=rtcp-fb:96 nack\r\na=rtcp-fb:45 nack pli\r\na=rtcp-fb:96 transport-cc\r\na=sendrecv\r\n";
        let answer = answer_as(offer, &local, "AA", "passive");
        assert!(
            answer.contains("SAVPF 96 97\r\n")
                && answer.contains("a=fmtp:97 apt=96\r\n")
                && answer.contains("a=rtpmap:96 VP8")
                && !answer.contains("AV1"),
            "{answer}"
        );
        assert!(answer.contains("a=rtcp-fb:96 nack\r\n") && answer.matches("rtcp-fb").count() == 1, "{answer}");
        assert!(answer.contains("a=setup:passive") && answer.contains("a=recvonly"), "{answer}");
        Ok(())
    }

    #[test]
    fn who_can_repair_offers_a_source_for_it() -> anyhow::Result<()> {
        let address = "127.0.0.1".parse()?;
        let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let share = crate::scenario::ALL[2];
        let client = |scenario| Client { scenario, number: 0, ssrc: 1000, address, certificate: certificate.clone() };
        let local = Local::bind(address, "u".to_owned())?;
        let plain = publish(&client(share), &local, "cid");
        assert!(!plain.contains("rtx") && !remote(&plain, address)?.rtx, "{plain}");
        let offer = publish(&client(share.with_repair()), &local, "cid");
        assert!(offer.contains("SAVPF 96 97\r\n") && offer.contains("a=ssrc-group:FID 1000 101000\r\n"), "{offer}");
        assert!(remote(&offer, address)?.rtx, "{offer}");
        assert_eq!(tracks(&offer), [(1000, "cid".to_owned())], "the source of what is sent again is no track");
        Ok(())
    }

    #[test]
    fn a_data_channel_sends_no_media() {
        assert_eq!(sent_sections("m=application 9 X\r\na=sendrecv\r\nm=audio 9 X\r\na=sendrecv\r\nm=video 9 X\r\na=recvonly\r\n"), 1);
    }

    #[test]
    fn the_candidate_at_the_wanted_address_is_taken() -> anyhow::Result<()> {
        let sdp = "v=0\r\na=ice-lite\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:active\r\n\
                   a=candidate:1 1 tcp 1 192.0.2.2 9 typ host\r\na=candidate:2 1 udp 1 10.0.0.1 4000 typ host\r\n\
                   a=candidate:3 1 UDP 1 192.0.2.2 5000 typ host\r\n";
        let found = remote(sdp, "192.0.2.2".parse()?)?;
        assert_eq!(found.candidate, Some("192.0.2.2:5000".parse()?));
        assert!(found.lite && found.setup_active);
        assert_eq!(remote(sdp, "127.0.0.1".parse()?)?.candidate, Some("10.0.0.1:4000".parse()?), "any, if that is not there");
        Ok(())
    }
}
