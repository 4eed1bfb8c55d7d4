//! A participant in Rust, on the `webrtc` crate: a WebRTC stack that shares no line with our server.
//!
//! Used by tests, load and as a bot in the calls of a Mattermost site ([`mattermost`]). [`Participant`] speaks LiveKit's signalling
//! over the media node's gRPC stream or LiveKit's own WebSocket, with two peer connections: it offers what it publishes and answers
//! what it is offered.
//! Never linked into `rtcd`.

mod connection;
mod dial;
mod gathering;
mod link;
pub mod mattermost;
mod participant;
mod socket;
mod tcp;

pub use link::Dial;
pub use participant::{Event, OpusTrack, Participant, Vp8Track};
pub use rtc::rtp;

/// Why a participant could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The media node cannot be reached.
    #[error("no media node answers at {0}; is rtcd running there?")]
    Unreachable(String),
    /// The stream to the media node ended.
    #[error("the signalling stream ended: {0}")]
    Signalling(String),
    /// The media node said no.
    #[error("the call refused us: {0}")]
    Refused(String),
    /// The WebRTC stack said no.
    #[error("WebRTC: {0}")]
    WebRtc(#[from] webrtc::error::Error),
    /// The Mattermost site did not do what was asked.
    #[error(transparent)]
    Site(#[from] mattermost::SiteError),
    /// The data channel is being opened; try again.
    #[error("the data channel is not open yet; try again")]
    NotOpen,
    /// Nothing came within the given time.
    #[error("not within {0:?}: {1}")]
    Late(std::time::Duration, &'static str),
}
