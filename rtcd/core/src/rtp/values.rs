//! Values carried in header extensions.

use std::time::Duration;

/// RFC 6464: how loud a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender's encoder believes that it is voice.
    pub voice: bool,
    /// −dBov: 0 loudest … 127 silence.
    pub level: u8,
}

impl AudioLevel {
    /// Reads the extension's value (one byte; the two-byte form may add padding).
    #[inline]
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let byte = *value.first()?;
        Some(Self { voice: byte & 0x80 != 0, level: byte & 0x7F })
    }

    /// The extension's value.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        (u8::from(self.voice) << 7) | (self.level & 0x7F)
    }
}

/// Bounds of the receiver's play-out delay, in steps of 10 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// Lower bound, 10 ms each, 0…4095.
    pub min_10ms: u16,
    /// Upper bound, 10 ms each, 0…4095.
    pub max_10ms: u16,
}

impl PlayoutDelay {
    /// Bounds in milliseconds, to the next lower step and to what the extension can say at most.
    #[must_use]
    pub fn from_millis(min: u32, max: u32) -> Self {
        let steps = |millis: u32| u16::try_from(millis / 10).unwrap_or(u16::MAX).min(4095);
        Self { min_10ms: steps(min), max_10ms: steps(max) }
    }

    /// The extension's value: two times twelve bits.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let both = (u32::from(self.min_10ms.min(4095)) << 12) | u32::from(self.max_10ms.min(4095));
        let [_, a, b, c] = both.to_be_bytes();
        [a, b, c]
    }
}

/// The abs-send-time value of a moment, given as the time since any fixed origin: 6.18 fixed-point seconds in 24 bits.
#[inline]
#[must_use]
pub fn abs_send_time(since_origin: Duration) -> u32 {
    // (seconds mod 64) × 2^18, in integers: nanoseconds × 2^18 / 10^9 fits 64 bits for 64 s.
    let nanos = (since_origin.as_secs() % 64) * 1_000_000_000 + u64::from(since_origin.subsec_nanos());
    (((nanos << 18) / 1_000_000_000) & 0x00FF_FFFF) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_delays() {
        assert_eq!(AudioLevel::parse(&[0x80 | 30]), Some(AudioLevel { voice: true, level: 30 }));
        assert_eq!(AudioLevel { voice: true, level: 30 }.to_byte(), 0x9E);
        assert_eq!(PlayoutDelay { min_10ms: 1, max_10ms: 0xABC }.to_bytes(), [0x00, 0x1A, 0xBC]);
        assert_eq!(PlayoutDelay::from_millis(19, 1_000_000), PlayoutDelay { min_10ms: 1, max_10ms: 4095 });
    }

    #[test]
    fn abs_send_time_wraps_after_64_seconds() {
        assert_eq!(abs_send_time(Duration::from_secs(1)), 1 << 18);
        assert_eq!(abs_send_time(Duration::from_millis(500)), 1 << 17);
        assert_eq!(abs_send_time(Duration::from_secs(64)), 0);
        assert_eq!(abs_send_time(Duration::from_secs(63) + Duration::from_nanos(999_999_999)), 0x00FF_FFFF);
    }
}
