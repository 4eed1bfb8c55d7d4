//! What a forwarder has to see inside payloads: where a key frame starts, layers, silence. Nothing is decoded.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod av1;
mod bits;
pub mod dependency;
pub mod h264;
pub mod opus;
pub mod vp8;
pub mod vp9;

pub use vp8::{Vp8Descriptor, Vp8Offsets, Vp8Prefix, Vp8Rewriter};
pub use vp9::{Vp9Descriptor, Vp9Structure};

/// A codec that we forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// AV1.
    Av1,
    /// H.264.
    H264,
    /// Opus.
    Opus,
    /// Redundant audio around Opus (RFC 2198).
    Red,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
}

impl Codec {
    /// From a media type, `video/VP8` and the like, in any case.
    #[must_use]
    pub fn from_mime(mime: &str) -> Option<Self> {
        [Self::Av1, Self::H264, Self::Opus, Self::Red, Self::Vp8, Self::Vp9]
            .into_iter()
            .find(|codec| codec.mime().eq_ignore_ascii_case(mime))
    }

    /// The media type as browsers write it.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Av1 => "video/AV1",
            Self::H264 => "video/H264",
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
            Self::Vp8 => "video/VP8",
            Self::Vp9 => "video/VP9",
        }
    }

    /// Is this the first packet of a key frame, where a viewer may start? Always true for sound.
    #[inline]
    #[must_use]
    pub fn starts_key_frame(self, payload: &[u8]) -> bool {
        match self {
            Self::Av1 => av1::starts_key_frame(payload),
            Self::H264 => h264::starts_key_frame(payload),
            Self::Opus | Self::Red => true,
            Self::Vp8 => Vp8Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame),
            Self::Vp9 => Vp9Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_in_any_case() {
        assert_eq!(Codec::from_mime("VIDEO/vp8"), Some(Codec::Vp8));
        assert_eq!(Codec::from_mime(Codec::H264.mime()), Some(Codec::H264));
        assert_eq!(Codec::from_mime("video/H265"), None);
    }
}
