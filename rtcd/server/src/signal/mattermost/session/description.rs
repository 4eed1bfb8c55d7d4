//! The JSON in which descriptions and candidates travel.

use serde::{Deserialize, Serialize};

/// `{"type":"offer","sdp":"v=0…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    /// Whose turn it is next.
    #[serde(rename = "type")]
    pub(super) kind: DescriptionKind,
    /// The text.
    pub(super) sdp: String,
}

/// The two that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DescriptionKind {
    Offer,
    Answer,
}

/// A browser's `RTCIceCandidate`, of which only the line is of use.
#[derive(Debug, Deserialize)]
struct Candidate {
    #[serde(default)]
    candidate: String,
}

/// `{"screenStreamID":"…"}` and `{"videoStreamID":"…"}`.
#[derive(Debug, Deserialize)]
struct Announcement {
    #[serde(alias = "screenStreamID", alias = "videoStreamID")]
    stream: String,
}

impl Description {
    /// Reads one; the error says what is wrong.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The fingerprint of its sender's certificate.
    pub(super) fn certificate(&self) -> Option<String> {
        self.sdp.lines().find_map(|line| line.strip_prefix("a=fingerprint:")).map(|value| value.trim().to_ascii_lowercase())
    }

    /// Writes one.
    pub(super) fn write(kind: DescriptionKind, sdp: String) -> Vec<u8> {
        // Text and an enum: nothing of it can fail.
        serde_json::to_vec(&Self { kind, sdp }).unwrap_or_default()
    }
}

/// The line of a candidate; `None` for the empty one that ends them, and for what is none.
pub(super) fn candidate(json: &[u8]) -> Option<String> {
    serde_json::from_slice::<Candidate>(json).ok().map(|candidate| candidate.candidate).filter(|line| !line.is_empty())
}

/// The stream that a client says it is going to send.
pub(super) fn announced_stream(json: &[u8]) -> Option<String> {
    serde_json::from_slice::<Announcement>(json).ok().map(|announcement| announcement.stream).filter(|stream| !stream.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_protocol() {
        let offer = Description::read(br#"{"type":"offer","sdp":"v=0\r\n"}"#).expect("an offer");
        assert_eq!((offer.kind, offer.sdp.as_str()), (DescriptionKind::Offer, "v=0\r\n"));
        assert_eq!(Description::write(DescriptionKind::Answer, "v=0\r\n".to_owned()), br#"{"type":"answer","sdp":"v=0\r\n"}"#);
        assert!(Description::read(br#"{"type":"pranswer","sdp":""}"#).is_err());
        assert_eq!(offer.certificate(), None);
        let signed = Description { sdp: "v=0\r\na=fingerprint:SHA-256 AB:CD\r\n".to_owned(), ..offer };
        assert_eq!(signed.certificate().as_deref(), Some("sha-256 ab:cd"));
        assert!(Description::read(b"").is_err());
        let browser = br#"{"candidate":"candidate:1 1 udp 1 10.0.0.1 5 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}"#;
        assert_eq!(candidate(browser).as_deref(), Some("candidate:1 1 udp 1 10.0.0.1 5 typ host"));
        assert_eq!(candidate(br#"{"candidate":""}"#), None);
        assert_eq!(announced_stream(br#"{"screenStreamID":"s"}"#).as_deref(), Some("s"));
        assert_eq!(announced_stream(br#"{"videoStreamID":"v"}"#).as_deref(), Some("v"));
        assert_eq!(announced_stream(b"{}"), None);
    }
}
