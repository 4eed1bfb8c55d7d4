//! Which payload types of a section this server takes, and which of them mean the same.

use super::agreed::{Codec, CodecKind};
use crate::sdp;

/// Codecs of an offered or answered section that we know, in its order, with their RTX.
///
/// Format parameters are rebuilt from what we understand of them: they end up in other participants' descriptions.
pub(super) fn known(media: &sdp::Media) -> Vec<Codec> {
    let mut rtx = [None; 128];
    for codec in media.codecs.iter().filter(|codec| codec.name.eq_ignore_ascii_case("rtx")) {
        let apt = parameter(&codec.fmtp, "apt").and_then(|apt| apt.parse::<usize>().ok());
        if let Some(slot) = apt.and_then(|apt| rtx.get_mut(apt)) {
            slot.get_or_insert(codec.payload_type);
        }
    }
    let mut red = [None; 128];
    let redundant = |codec: &&sdp::Codec| media.kind == sdp::MediaKind::Audio && codec.name.eq_ignore_ascii_case("red");
    for codec in media.codecs.iter().filter(redundant).filter(|codec| codec.clock_rate == CodecKind::Opus.clock_rate()) {
        // RFC 2198 5: the payload types of its blocks. We make it of one codec only.
        let mut blocks = codec.fmtp.split('/').map(|number| number.trim().parse::<usize>().ok());
        let first = blocks.next().flatten();
        if let Some(slot) = first.filter(|_| blocks.all(|block| block == first)).and_then(|first| red.get_mut(first)) {
            slot.get_or_insert(codec.payload_type);
        }
    }
    media.codecs.iter().filter_map(|codec| take(media.kind, codec, &rtx, &red)).collect()
}

fn take(media: sdp::MediaKind, codec: &sdp::Codec, rtx: &[Option<u8>; 128], red: &[Option<u8>; 128]) -> Option<Codec> {
    let kind = kind_of(media, codec)?;
    let has = |feedback: &str| codec.feedback.iter().any(|line| line == feedback);
    Some(Codec {
        kind,
        payload_type: codec.payload_type,
        rtx: rtx.get(usize::from(codec.payload_type)).copied().flatten(),
        red: red.get(usize::from(codec.payload_type)).copied().flatten(),
        fmtp: canonical_fmtp(kind, &codec.fmtp)?,
        nack: has("nack"),
        pli: has("nack pli"),
        transport_cc: has("transport-cc"),
    })
}

fn kind_of(media: sdp::MediaKind, codec: &sdp::Codec) -> Option<CodecKind> {
    let candidates: &[CodecKind] = match media {
        sdp::MediaKind::Audio => &[CodecKind::Opus],
        sdp::MediaKind::Video => &[CodecKind::Vp8, CodecKind::H264, CodecKind::Vp9, CodecKind::Av1],
        sdp::MediaKind::Application | sdp::MediaKind::Other => &[],
    };
    candidates.iter().copied().find(|kind| {
        codec.name.eq_ignore_ascii_case(name(*kind)) && codec.clock_rate == kind.clock_rate() && codec.channels == kind.channels().max(1)
    })
}

/// Encoding name in `a=rtpmap`.
pub(super) fn name(kind: CodecKind) -> &'static str {
    match kind {
        CodecKind::Opus => "opus",
        CodecKind::Vp8 => "VP8",
        CodecKind::H264 => "H264",
        CodecKind::Vp9 => "VP9",
        CodecKind::Av1 => "AV1",
    }
}

/// `None` where the variant is one that we do not take.
fn canonical_fmtp(kind: CodecKind, fmtp: &str) -> Option<String> {
    let number = |name: &str| parameter(fmtp, name).and_then(|value| value.parse::<u32>().ok());
    match kind {
        // Ours is written where the section's wishes are known; nothing of it tells variants apart.
        CodecKind::Opus | CodecKind::Vp8 => Some(String::new()),
        CodecKind::H264 => {
            // Mode 0 has no fragmentation: a key frame would not fit a datagram. Absent means 0 (RFC 6184 8.1).
            let single_nal = number("packetization-mode") != Some(1);
            let profile = h264_profile(fmtp)?;
            (!single_nal).then(|| h264_fmtp(profile))
        }
        // Profile 0 is the one every browser decodes; 2 (10 bit) comes along with it in Chromium's offers.
        CodecKind::Vp9 => (number("profile-id").unwrap_or(0) == 0).then(|| "profile-id=0".to_owned()),
        CodecKind::Av1 => (number("profile").unwrap_or(0) == 0).then(|| {
            let level = number("level-idx").unwrap_or(5).min(31);
            format!("level-idx={level};profile=0;tier={}", number("tier").unwrap_or(0).min(1))
        }),
    }
}

fn h264_fmtp(profile: u32) -> String {
    format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile:06x}")
}

/// 24 bits: profile, constraints, level. Absent means baseline, level 1 (RFC 6184 8.1).
fn h264_profile(fmtp: &str) -> Option<u32> {
    match parameter(fmtp, "profile-level-id") {
        None => Some(0x42_00_0a),
        Some(text) if text.len() == 6 && text.is_ascii() => u32::from_str_radix(text, 16).ok(),
        Some(_) => None,
    }
}

/// A parameter of `a=b;c=d`, names without regard to case.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The codec among `codecs` that carries what `codec` is on another transport: the same variant where there is one,
/// otherwise the same codec at all (browsers decode every H.264 profile that a browser sends, whatever they list).
#[must_use]
pub fn matching<'a>(codecs: &'a [Codec], codec: &Codec) -> Option<&'a Codec> {
    let same = || codecs.iter().filter(|other| other.kind == codec.kind);
    same().find(|other| same_variant(other, codec)).or_else(|| same().next())
}

fn same_variant(a: &Codec, b: &Codec) -> bool {
    match a.kind {
        CodecKind::H264 => variant(a) == variant(b),
        CodecKind::Opus | CodecKind::Vp8 | CodecKind::Vp9 | CodecKind::Av1 => true,
    }
}

/// What tells payload types of one codec apart. Few on purpose: each takes numbers of a transport for ever, and a publisher can
/// name as many as a section has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Av1HighTier,
    H264(H264Profile),
    /// The only one, or the one that everybody has.
    Usual,
}

/// Profiles of H.264 as RFC 6184 table 5 tells them apart. Levels are a receiver's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum H264Profile {
    Baseline,
    ConstrainedBaseline,
    ConstrainedHigh,
    High,
    High444,
    Main,
    /// None that a browser names.
    Other,
}

/// A codec's format parameters where they stand for all of its variant. A level that does not exist makes libwebrtc leave the payload
/// type out: one publisher's would take the profile from all that come after it.
pub(super) fn fmtp_of_variant(codec: &Codec) -> String {
    const LEVELS: [u32; 16] = [10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52];
    const USUAL: u32 = 31;
    match h264_profile(&codec.fmtp).filter(|id| codec.kind == CodecKind::H264 && !LEVELS.contains(&(id & 0xff))) {
        Some(id) => h264_fmtp((id & !0xff) | USUAL),
        None => codec.fmtp.clone(),
    }
}

pub(super) fn variant(codec: &Codec) -> Variant {
    match codec.kind {
        CodecKind::Av1 if parameter(&codec.fmtp, "tier") == Some("1") => Variant::Av1HighTier,
        CodecKind::H264 => Variant::H264(h264_profile(&codec.fmtp).map_or(H264Profile::Other, H264Profile::of)),
        CodecKind::Opus | CodecKind::Vp8 | CodecKind::Vp9 | CodecKind::Av1 => Variant::Usual,
    }
}

impl H264Profile {
    /// Of a `profile-level-id`.
    fn of(id: u32) -> Self {
        let (profile, constraints) = (id >> 16, (id >> 8) & 0xff);
        let has = |mask: u32, bits: u32| constraints & mask == bits;
        match profile {
            0x42 if has(0x4f, 0x40) => Self::ConstrainedBaseline,
            0x4d if has(0x8f, 0x80) => Self::ConstrainedBaseline,
            0x58 if has(0xcf, 0xc0) => Self::ConstrainedBaseline,
            0x42 if has(0x4f, 0) => Self::Baseline,
            0x58 if has(0xcf, 0x80) => Self::Baseline,
            0x4d if has(0xaf, 0) => Self::Main,
            0x64 if constraints == 0 => Self::High,
            0x64 if constraints == 0x0c => Self::ConstrainedHigh,
            0xf4 if constraints == 0 => Self::High444,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(fmtp: &str, payload_type: u8) -> Codec {
        let fmtp = canonical_fmtp(CodecKind::H264, fmtp).expect("mode 1");
        Codec { kind: CodecKind::H264, payload_type, rtx: None, red: None, fmtp, nack: true, pli: true, transport_cc: true }
    }

    #[test]
    fn h264_matches_by_profile_then_by_name() {
        let base = h264("packetization-mode=1;profile-level-id=42001f", 96);
        let constrained = h264("packetization-mode=1;profile-level-id=42e01f", 97);
        let other_level = h264("profile-level-id=42E034; packetization-mode=1", 98);
        let both = [base.clone(), constrained];
        assert_eq!(matching(&both, &other_level).map(|codec| codec.payload_type), Some(97));
        assert_eq!(matching(&both[..1], &other_level).map(|codec| codec.payload_type), Some(96));
        assert_eq!(matching(&[], &base), None);
    }

    #[test]
    fn h264_profiles_are_few_and_levels_are_none_of_them() {
        let of = |id: &str| variant(&h264(&format!("packetization-mode=1;profile-level-id={id}"), 96));
        for (id, profile) in [
            ("42001f", H264Profile::Baseline),
            ("42e01f", H264Profile::ConstrainedBaseline),
            ("42c033", H264Profile::ConstrainedBaseline),
            ("4d001f", H264Profile::Main),
            ("4d0032", H264Profile::Main),
            ("64001f", H264Profile::High),
            ("640c34", H264Profile::ConstrainedHigh),
            ("f4001f", H264Profile::High444),
            ("7a001f", H264Profile::Other),
            ("2c001f", H264Profile::Other),
        ] {
            assert_eq!(of(id), Variant::H264(profile), "{id}");
        }
    }

    #[test]
    fn a_level_that_does_not_exist_is_not_passed_on() {
        let of = |id: &str| fmtp_of_variant(&h264(&format!("packetization-mode=1;profile-level-id={id}"), 96));
        assert!(of("42e034").ends_with("=42e034"));
        assert!(of("42e000").ends_with("=42e01f") && of("6400ff").ends_with("=64001f"));
    }

    #[test]
    fn variants_that_no_receiver_could_use_are_left_out() {
        assert_eq!(canonical_fmtp(CodecKind::H264, "profile-level-id=42e01f"), None);
        assert_eq!(canonical_fmtp(CodecKind::H264, "packetization-mode=1;profile-level-id=zz"), None);
        assert_eq!(canonical_fmtp(CodecKind::Vp9, "profile-id=2"), None);
        assert_eq!(canonical_fmtp(CodecKind::Vp9, "").as_deref(), Some("profile-id=0"));
    }

    #[test]
    fn nothing_a_publisher_writes_into_fmtp_reaches_others() {
        let fmtp = canonical_fmtp(CodecKind::H264, "packetization-mode=1;sprop-parameter-sets=Z0LAH5;x=y");
        assert_eq!(fmtp.as_deref(), Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42000a"));
    }
}
