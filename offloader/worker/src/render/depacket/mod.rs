//! RTP payloads to whole frames that a decoder takes: VP8, H.264, VP9, AV1.
//!
//! The payloads were made by a participant's browser, so every field may be wrong: a bad one costs the frame, never more.
//! After a loss nothing is given out until the next key frame: a frozen picture is better than a broken one.

mod av1;
mod h264;
mod vp8;
mod vp9;

use archive::record::Packet;

use crate::limits;

/// What a track's packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// RFC 7741.
    Vp8,
    /// RFC 6184.
    H264,
    /// RFC 9628.
    Vp9,
    /// AV1's RTP specification, 1.0.
    Av1,
}

impl Codec {
    /// From `video/VP8` and the like.
    pub fn from_mime(mime: &str) -> Option<Self> {
        match mime.to_ascii_lowercase().rsplit('/').next()? {
            "vp8" => Some(Self::Vp8),
            "h264" => Some(Self::H264),
            "vp9" => Some(Self::Vp9),
            "av1" => Some(Self::Av1),
            _ => None,
        }
    }

    /// FFmpeg's name of the container that is usual for it, which is its files' ending too.
    pub fn container(self) -> &'static str {
        match self {
            Self::H264 => "mp4",
            Self::Vp8 | Self::Vp9 => "webm",
            Self::Av1 => "ivf",
        }
    }

    /// Takes a packet's share of its frame off it.
    pub(crate) fn add(self, payload: &[u8], parts: &mut Vec<Vec<u8>>) -> Option<Piece> {
        match self {
            Self::Vp8 => vp8::add(payload, parts),
            Self::H264 => h264::add(payload, parts),
            Self::Vp9 => vp9::add(payload, parts),
            Self::Av1 => av1::add(payload, parts),
        }
    }
}

/// Whether a packet of a track with this media type begins a picture that needs no earlier one.
pub fn is_key_frame(mime: &str, payload: &[u8]) -> bool {
    Codec::from_mime(mime).and_then(|codec| codec.add(payload, &mut Vec::new())).is_some_and(|piece| piece.key)
}

/// A frame, or all layers of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Arrival of its first packet, Unix µs.
    pub at_us: i64,
    /// Extended RTP timestamp.
    pub timestamp: u64,
    /// Needs no earlier frame.
    pub key: bool,
    /// To be given to the decoder one after another.
    pub parts: Vec<Vec<u8>>,
}

/// Puts one track's frames together.
pub struct Depacketiser {
    codec: Codec,
    building: Option<Building>,
    next_seq: Option<u64>,
    wait_for_key: bool,
    /// Frames thrown away: incomplete, malformed, or before a key frame.
    pub dropped: u64,
}

struct Building {
    at_us: i64,
    timestamp: u64,
    key: bool,
    bytes: usize,
    /// A packet of it is missing or malformed.
    damaged: bool,
    parts: Vec<Vec<u8>>,
}

/// What one packet adds to its frame. `None` from a parser: malformed.
pub(crate) struct Piece {
    pub(crate) starts_frame: bool,
    key: bool,
}

impl Depacketiser {
    /// For a track of this codec.
    pub fn new(codec: Codec) -> Self {
        Self { codec, building: None, next_seq: None, wait_for_key: true, dropped: 0 }
    }

    /// Told that packets are missing, or that the sequence begins anew.
    pub fn handle_gap(&mut self) {
        self.next_seq = None;
        self.wait_for_key = true;
        self.dropped += u64::from(self.building.take().is_some());
    }

    /// Told of the next packet; gives the frame that it ends.
    pub fn handle_packet(&mut self, packet: &Packet) -> Option<Frame> {
        if self.next_seq.is_some_and(|next| next != packet.seq) {
            self.handle_gap();
        }
        self.next_seq = Some(packet.seq.wrapping_add(1));
        if packet.payload.is_empty() {
            // Padding of a sender that probes its way; it has a number and nothing else.
            return None;
        }
        if self.building.as_ref().is_some_and(|b| b.timestamp != packet.timestamp) {
            // The marker was lost or never set; what is there is not known to be whole.
            self.handle_gap();
            self.next_seq = Some(packet.seq.wrapping_add(1));
        }
        let first = self.building.is_none();
        let building = self.building.get_or_insert_with(|| Building {
            at_us: packet.at_us,
            timestamp: packet.timestamp,
            key: false,
            bytes: 0,
            damaged: false,
            parts: Vec::new(),
        });
        building.bytes += packet.payload.len();
        match self.codec.add(&packet.payload, &mut building.parts) {
            Some(piece) => {
                building.key |= piece.key;
                building.damaged |= first && !piece.starts_frame;
            }
            None => building.damaged = true,
        }
        building.damaged |= building.bytes > limits::FRAME_BYTES;
        if building.damaged {
            building.parts.clear();
        }
        if !packet.marker {
            return None;
        }
        let done = self.building.take()?;
        let parts = match self.codec {
            Codec::Av1 => av1::finish(done.parts),
            Codec::H264 => h264::finish(done.parts),
            Codec::Vp8 | Codec::Vp9 => Some(done.parts),
        };
        let key = done.key;
        match parts.filter(|parts| !done.damaged && parts.iter().any(|p| !p.is_empty())) {
            Some(parts) if key || !self.wait_for_key => {
                self.wait_for_key = false;
                Some(Frame { at_us: done.at_us, timestamp: done.timestamp, key, parts })
            }
            whole => {
                self.wait_for_key |= whole.is_none();
                self.dropped += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn packet(seq: u64, timestamp: u64, marker: bool, payload: &[u8]) -> Packet {
        Packet {
            at_us: seq as i64 * 1_000,
            seq,
            timestamp,
            marker,
            key_frame: false,
            audio_level: 255,
            payload: bytes::Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn padding_does_no_harm() {
        let mut video = Depacketiser::new(Codec::Vp8);
        assert!(is_key_frame("video/VP8", &[0x10, 0x00, 0xaa]) && !is_key_frame("video/VP8", &[0x10, 0x01, 0xaa]));
        assert!(!is_key_frame("audio/opus", &[0x10, 0x00, 0xaa]) && !is_key_frame("video/VP8", &[]));
        assert!(video.handle_packet(&packet(1, 10, false, &[0x10, 0x00, 0xaa])).is_none());
        assert!(video.handle_packet(&packet(2, 10, false, &[])).is_none());
        assert!(video.handle_packet(&packet(3, 10, true, &[0x00, 0xbb])).is_some());
        assert_eq!(video.dropped, 0);
    }

    #[test]
    fn after_a_loss_frames_wait_for_a_key_frame() {
        let mut d = Depacketiser::new(Codec::Vp8);
        // Not a key frame: the track is joined in the middle.
        assert!(d.handle_packet(&packet(1, 10, true, &[0x10, 0x01, 9])).is_none());
        // Two packets of a key frame.
        assert!(d.handle_packet(&packet(2, 20, false, &[0x10, 0x00, 1])).is_none());
        let frame = d.handle_packet(&packet(3, 20, true, &[0x00, 2, 3])).unwrap();
        assert_eq!((frame.key, frame.parts), (true, vec![vec![0x00, 1, 2, 3]]));
        assert!(d.handle_packet(&packet(4, 30, true, &[0x10, 0x01, 9])).is_some());
        // 5 is lost.
        assert!(d.handle_packet(&packet(6, 40, true, &[0x10, 0x01, 9])).is_none());
        assert!(d.handle_packet(&packet(7, 50, true, &[0x10, 0x00, 9])).is_some());
        assert_eq!(d.dropped, 2);
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow() {
        let mut seed = 3_u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as u8
        };
        for codec in [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
            let mut d = Depacketiser::new(codec);
            for seq in 0..20_000 {
                let length = usize::from(random() % 40);
                let payload: Vec<u8> = (0..length).map(|_| random()).collect();
                let _ = d.handle_packet(&packet(seq, seq / 4, random() % 4 == 0, &payload));
            }
            // A frame that never ends.
            for seq in 20_000..40_000 {
                let _ = d.handle_packet(&packet(seq, 7, false, &[0x10; 1_200]));
                let held: usize = d.building.iter().flat_map(|b| &b.parts).map(Vec::len).sum();
                assert!(held <= limits::FRAME_BYTES + 2_000);
            }
        }
    }
}
