//! Which payload type means what on a transport.

use super::agreed::{Codec, CodecKind, Outgoing};
use super::codecs::{self, Variant};

/// For ever: a browser must not see one number with two meanings. All variants of all codecs together take 26 of the 61 numbers, so that
/// no publisher can use them up for the others.
#[derive(Debug, Default)]
pub(super) struct PayloadTypes {
    used: Vec<Meaning>,
    /// Numbers to take where they are free: a codec's own and that of its repair.
    preferred: &'static [(CodecKind, u8, u8)],
}

#[derive(Debug)]
struct Meaning {
    kind: CodecKind,
    variant: Variant,
    /// Mono and stereo Opus differ in fmtp, and so must not share a number.
    stereo: bool,
    /// As it was first described; later descriptions say the same.
    fmtp: String,
    payload_type: u8,
    /// Of retransmissions, or of redundant sound.
    repair: Option<u8>,
}

impl PayloadTypes {
    /// These numbers first.
    pub(super) fn preferring(preferred: &'static [(CodecKind, u8, u8)]) -> Self {
        Self { used: Vec::new(), preferred }
    }

    /// The client gave these numbers, on sections of its own.
    pub(super) fn learn(&mut self, codecs: &[Codec]) {
        for codec in codecs {
            if self.used.iter().all(|used| used.payload_type != codec.payload_type) {
                let repair = if codec.kind == CodecKind::Opus { codec.red } else { codec.rtx };
                self.used.push(Meaning::of(codec, false, codec.payload_type, repair));
            }
        }
    }

    /// The track's codecs with this transport's numbers. Of variants that share a number the first is kept.
    pub(super) fn assign(&mut self, outgoing: &Outgoing) -> Vec<Codec> {
        let mut codecs: Vec<Codec> = Vec::with_capacity(outgoing.codecs.len().min(VARIANTS_USUAL));
        for codec in &outgoing.codecs {
            let Some(meaning) = self.number(codec, outgoing.stereo) else { continue };
            let (payload_type, repair, fmtp) = (meaning.payload_type, meaning.repair, meaning.fmtp.clone());
            if codecs.iter().any(|other| other.payload_type == payload_type) {
                continue;
            }
            let video = codec.kind != CodecKind::Opus;
            // Pictures are sent again; sound is sent twice where it gets lost.
            let (rtx, red) = if video { (repair, None) } else { (None, repair) };
            codecs.push(Codec { kind: codec.kind, payload_type, rtx, red, fmtp, nack: video, pli: video, transport_cc: video });
        }
        codecs
    }

    fn number(&mut self, codec: &Codec, stereo: bool) -> Option<&Meaning> {
        if let Some(at) = self.used.iter().position(|used| used.is(codec, stereo)) {
            return self.used.get(at);
        }
        let fits = |(kind, own, repair): &&(CodecKind, u8, u8)| *kind == codec.kind && self.is_free(*own) && self.is_free(*repair);
        let (payload_type, repair) = match self.preferred.iter().find(fits) {
            Some((_, own, repair)) => (*own, Some(*repair)),
            None => {
                let payload_type = self.next(None)?;
                (payload_type, self.next(Some(payload_type)))
            }
        };
        self.used.push(Meaning::of(codec, stereo, payload_type, repair));
        self.used.last()
    }

    /// 96 to 127, then 35 to 63: the dynamic ranges that RTCP multiplexing leaves (RFC 5761 4).
    fn next(&self, but: Option<u8>) -> Option<u8> {
        (96..=127).chain(35..=63).find(|number| Some(*number) != but && self.is_free(*number))
    }

    fn is_free(&self, number: u8) -> bool {
        self.used.iter().all(|used| used.payload_type != number && used.repair != Some(number))
    }
}

impl Meaning {
    fn of(codec: &Codec, stereo: bool, payload_type: u8, repair: Option<u8>) -> Self {
        Self {
            kind: codec.kind,
            variant: codecs::variant(codec),
            stereo: stereo && codec.kind == CodecKind::Opus,
            fmtp: codecs::fmtp_of_variant(codec),
            payload_type,
            repair,
        }
    }

    fn is(&self, codec: &Codec, stereo: bool) -> bool {
        let stereo = stereo && codec.kind == CodecKind::Opus;
        self.kind == codec.kind && self.stereo == stereo && self.variant == codecs::variant(codec)
    }
}

/// Of one section: VP8, VP9, AV1 and H.264 in four profiles, as Chromium lists them.
const VARIANTS_USUAL: usize = 8;
