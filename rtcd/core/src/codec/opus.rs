//! Opus (RFC 6716 §3, RFC 7587): the table-of-contents byte tells length and silence.

/// The first byte of an Opus packet, with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusPacket {
    /// Two channels.
    pub stereo: bool,
    /// Frames in the packet.
    pub frames: u8,
    /// One frame, µs.
    pub frame_us: u32,
    /// Nothing is said: the packet only keeps time (discontinuous transmission, at most two bytes).
    pub dtx: bool,
}

impl OpusPacket {
    /// Reads the front of a payload. `None` for what is no Opus packet (RFC 6716 R1 to R5 as far as the front shows).
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let toc = *payload.first()?;
        let frame_us = frame_us(toc >> 3);
        let frames = match toc & 0x03 {
            0 => 1,
            1 | 2 => 2,
            _ => payload.get(1)? & 0x3F,
        };
        // R5: at most 120 ms.
        if frames == 0 || u32::from(frames) * frame_us > 120_000 {
            return None;
        }
        Some(Self { stereo: toc & 0x04 != 0, frames, frame_us, dtx: payload.len() <= 2 })
    }

    /// Length of the packet, µs.
    #[must_use]
    pub fn duration_us(&self) -> u32 {
        u32::from(self.frames) * self.frame_us
    }
}

fn frame_us(config: u8) -> u32 {
    match config {
        // SILK: 10, 20, 40, 60 ms
        0..=11 => match config & 3 {
            0 => 10_000,
            1 => 20_000,
            2 => 40_000,
            _ => 60_000,
        },
        // hybrid: 10, 20 ms
        12..=15 => 10_000 << (config & 1),
        // CELT: 2.5, 5, 10, 20 ms
        _ => 2_500 << (config & 3),
    }
}

/// Is this a packet that only keeps time?
#[must_use]
pub fn is_dtx(payload: &[u8]) -> bool {
    payload.len() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_silence() {
        // config 31 (CELT fullband 20 ms), mono, one frame
        let packet = OpusPacket::parse(&[31 << 3, 1, 2, 3]).unwrap();
        assert_eq!((packet.duration_us(), packet.stereo, packet.dtx), (20_000, false, false));
        // config 1 (SILK 20 ms), stereo, three frames
        let packet = OpusPacket::parse(&[(1 << 3) | 4 | 3, 3, 0, 0]).unwrap();
        assert_eq!((packet.duration_us(), packet.stereo, packet.frames), (60_000, true, 3));
        // config 13 (hybrid 20 ms)
        assert_eq!(OpusPacket::parse(&[13 << 3, 0, 0]).unwrap().frame_us, 20_000);
        assert!(OpusPacket::parse(&[31 << 3]).unwrap().dtx);
        assert!(is_dtx(&[0x78]) && !is_dtx(&[0x78, 1, 2]));
    }

    #[test]
    fn refuses_impossible_packets() {
        assert_eq!(OpusPacket::parse(&[]), None);
        // code 3 without a count, with none, with more than 120 ms
        assert_eq!(OpusPacket::parse(&[(31 << 3) | 3]), None);
        assert_eq!(OpusPacket::parse(&[(31 << 3) | 3, 0]), None);
        assert_eq!(OpusPacket::parse(&[(31 << 3) | 3, 7, 0]), None);
    }
}
