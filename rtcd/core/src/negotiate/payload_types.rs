//! Which payload type means what on a transport.

use super::agreed::{Codec, CodecKind, Outgoing};

/// For ever: a browser must not see one number with two meanings.
#[derive(Debug, Default)]
pub(super) struct PayloadTypes {
    used: Vec<Meaning>,
    /// Numbers to take where they are free: a codec's own and that of its repair.
    preferred: &'static [(CodecKind, u8, u8)],
}

#[derive(Debug)]
struct Meaning {
    kind: CodecKind,
    variant: String,
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
            let variant = variant(codec, false);
            let known = self.used.iter().any(|used| used.payload_type == codec.payload_type || used.is(codec.kind, &variant));
            if !known {
                let repair = if codec.kind == CodecKind::Opus { codec.red } else { codec.rtx };
                self.used.push(Meaning { kind: codec.kind, variant, payload_type: codec.payload_type, repair });
            }
        }
    }

    /// The track's codecs with this transport's numbers.
    pub(super) fn assign(&mut self, outgoing: &Outgoing) -> Vec<Codec> {
        let mut codecs: Vec<Codec> = Vec::with_capacity(outgoing.codecs.len());
        for codec in &outgoing.codecs {
            let Some((payload_type, repair)) = self.number(codec.kind, variant(codec, outgoing.stereo)) else { continue };
            if codecs.iter().any(|other| other.payload_type == payload_type) {
                continue;
            }
            let video = codec.kind != CodecKind::Opus;
            // Pictures are sent again; sound is sent twice where it gets lost.
            let (rtx, red) = if video { (repair, None) } else { (None, repair) };
            codecs.push(Codec { payload_type, rtx, red, nack: video, pli: video, transport_cc: video, ..codec.clone() });
        }
        codecs
    }

    fn number(&mut self, kind: CodecKind, variant: String) -> Option<(u8, Option<u8>)> {
        if let Some(known) = self.used.iter().find(|used| used.is(kind, &variant)) {
            return Some((known.payload_type, known.repair));
        }
        let preferred =
            self.preferred.iter().find(|(preferred, own, repair)| *preferred == kind && self.is_free(*own) && self.is_free(*repair));
        let (payload_type, repair) = match preferred {
            Some((_, own, repair)) => (*own, Some(*repair)),
            None => {
                let payload_type = self.next(None)?;
                (payload_type, self.next(Some(payload_type)))
            }
        };
        self.used.push(Meaning { kind, variant, payload_type, repair });
        Some((payload_type, repair))
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
    fn is(&self, kind: CodecKind, variant: &str) -> bool {
        self.kind == kind && self.variant == variant
    }
}

/// Mono and stereo Opus differ in fmtp, and so must not share a number.
fn variant(codec: &Codec, stereo: bool) -> String {
    if codec.kind == CodecKind::Opus { stereo.to_string() } else { codec.fmtp.clone() }
}
