//! Just enough SDP for a synthetic client: one publisher section, or an answer that receives what is offered.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::handshake::Local;

/// The server's side of a transport.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) candidate: SocketAddr,
}

/// Payload type of our only codec.
pub(crate) const PAYLOAD_TYPE: u8 = 111;
/// Extension id of the audio level in our offers.
pub(crate) const LEVEL_ID: u8 = 1;

/// Reads the server's credentials and its first UDP candidate.
pub(crate) fn remote(sdp: &str) -> anyhow::Result<Remote> {
    let value = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix)).map(|text| text.trim().to_owned());
    let candidate = sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields.get(2)?.eq_ignore_ascii_case("udp") {
                return None;
            }
            Some(SocketAddr::new(fields.get(4)?.parse().ok()?, fields.get(5)?.parse().ok()?))
        })
        .context("the server offers no UDP candidate")?;
    Ok(Remote { ufrag: value("a=ice-ufrag:").context("no ufrag")?, pwd: value("a=ice-pwd:").context("no pwd")?, candidate })
}

fn transport(local: &Local, fingerprint: &str, setup: &str) -> String {
    format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\na=rtcp-mux\r\n",
        local.ufrag, local.pwd
    )
}

/// An offer that sends one track.
pub(crate) fn publish(local: &Local, fingerprint: &str, video: bool, cid: &str, ssrc: u32) -> String {
    let (kind, codec, extension) = if video {
        (
            "video",
            format!("a=rtpmap:{PAYLOAD_TYPE} VP8/90000\r\na=rtcp-fb:{PAYLOAD_TYPE} nack\r\na=rtcp-fb:{PAYLOAD_TYPE} nack pli\r\n"),
            String::new(),
        )
    } else {
        (
            "audio",
            format!("a=rtpmap:{PAYLOAD_TYPE} opus/48000/2\r\na=fmtp:{PAYLOAD_TYPE} minptime=10;useinbandfec=1\r\n"),
            format!("a=extmap:{LEVEL_ID} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"),
        )
    };
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS bench\r\n\
         m={kind} 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE}\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n{}a=sendonly\r\na=msid:bench {cid}\r\n{extension}{codec}\
         a=ssrc:{ssrc} cname:bench\r\na=ssrc:{ssrc} msid:bench {cid}\r\n",
        transport(local, fingerprint, "actpass"),
    )
}

/// Answers an offer: receives everything it sends, without feedback that costs both sides.
pub(crate) fn answer(offer: &str, local: &Local, fingerprint: &str) -> String {
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
    let mut text = format!("v=0\r\no=- 3 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", group.join(" "));
    for section in &sections {
        let head: Vec<&str> = section.first().copied().unwrap_or_default().split_whitespace().collect();
        let kind = head.first().copied().unwrap_or_default();
        if kind == "m=application" {
            text += &format!(
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n{}a=sctp-port:5000\r\n",
                mid(section),
                transport(local, fingerprint, "active")
            );
            continue;
        }
        let stopped = head.get(1) == Some(&"0");
        let sends = section.iter().any(|line| *line == "a=sendonly" || *line == "a=sendrecv");
        let payload_type = head.get(3).copied().unwrap_or_default();
        let port = if stopped { 0 } else { 9 };
        let direction = if sends { "recvonly" } else { "inactive" };
        text += &format!(
            "{kind} {port} UDP/TLS/RTP/SAVPF {payload_type}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n{}a={direction}\r\n",
            mid(section),
            transport(local, fingerprint, "active")
        );
        for line in section {
            if line.starts_with(&format!("a=rtpmap:{payload_type} ")) || line.starts_with(&format!("a=fmtp:{payload_type} ")) {
                text += line.trim_end();
                text += "\r\n";
            }
        }
    }
    text
}

/// Media sections an offer sends on.
pub(crate) fn sent_sections(offer: &str) -> usize {
    offer.lines().filter(|line| *line == "a=sendonly" || *line == "a=sendrecv").count()
}
