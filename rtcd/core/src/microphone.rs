//! A microphone's packets: which are worth forwarding at all. Decided once for all viewers; taps are not asked.
//!
//! Kept back is what is silent, and what is not among the call's loudest. Who does not send the level extension is never
//! kept back: nothing is known about such a packet.

use std::time::{Duration, Instant};

use crate::loudest::{Loudest, Meter, TALK_LEVEL_MAX};
use crate::rtp::AudioLevel;
use crate::thinning::Thinning;

/// Silence is forwarded for so long after the last sound, so that a voice ends in silence and not in concealment.
const HANG_OVER: Duration = Duration::from_millis(200);
/// One silent packet passes in this time: comfort noise goes on, and who joins late has a stream at all.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// −dBov from which a packet without the voice bit is silence. Quiet rooms lie around 70.
const SILENT_LEVEL: u8 = 90;
/// Digital silence (RFC 6464 §3): a muted source, whatever its voice bit says.
const NOTHING: u8 = 127;
/// Longest frame of discontinuous transmission: it only keeps time (RFC 6716 §2.1.9).
const DTX_LEN_MAX: usize = 3;

/// Why a packet is not forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing is to be heard in it.
    #[default]
    Silent,
    /// Others are louder.
    Softer,
}

/// One microphone.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Microphone {
    meter: Meter,
    kept: Kept,
    sounded_at: Option<Instant>,
    passed_at: Option<Instant>,
    numbers: Thinning,
}

impl Microphone {
    /// A packet came: the number it leaves under, or why it does not.
    #[inline]
    pub(crate) fn judge<K: Copy + Eq>(
        &mut self,
        now: Instant,
        key: K,
        loudest: &mut Loudest<K>,
        seq: u64,
        level: Option<AudioLevel>,
        payload_len: usize,
    ) -> Result<u64, Kept> {
        let forward = match level {
            Some(level) if self.numbers.is_newest(seq) => self.is_worth(now, key, loudest, level, payload_len),
            Some(_) | None => true,
        };
        self.numbers.place(seq, forward).ok_or(self.kept)
    }

    fn is_worth<K: Copy + Eq>(&mut self, now: Instant, key: K, loudest: &mut Loudest<K>, level: AudioLevel, payload_len: usize) -> bool {
        self.meter.observe(now, level.level);
        let sounds = !is_silent(level, payload_len);
        if sounds || self.sounded_at.is_none() {
            self.sounded_at = Some(now);
        }
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let passes = since(self.sounded_at) < HANG_OVER || since(self.passed_at) >= KEEP_ALIVE;
        let among = loudest.admit(now, key, &self.meter, passes);
        self.kept = if passes { Kept::Softer } else { Kept::Silent };
        if passes && among {
            self.passed_at = Some(now);
        }
        passes && among
    }

    /// The publisher's number of what left under this one.
    pub(crate) fn original(&self, number: u64) -> Option<u64> {
        self.numbers.original(number)
    }
}

#[inline]
fn is_silent(level: AudioLevel, payload_len: usize) -> bool {
    level.level >= NOTHING || (!level.voice && level.level >= SILENT_LEVEL) || (payload_len <= DTX_LEN_MAX && level.level > TALK_LEVEL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Option<AudioLevel> {
        Some(AudioLevel { voice: false, level: 110 })
    }

    fn loud() -> Option<AudioLevel> {
        Some(AudioLevel { voice: true, level: 30 })
    }

    #[test]
    fn silence_fades_out_and_the_first_sound_passes() {
        let (mut microphone, mut loudest, mut now) = (Microphone::default(), Loudest::new(5), Instant::now());
        let mut judge = |seq, level, len| {
            now += Duration::from_millis(20);
            microphone.judge(now, 1, &mut loudest, seq, level, len)
        };
        assert!((0..50).all(|seq| judge(seq, loud(), 80) == Ok(seq)));
        let passed = (50..100).filter(|seq| judge(*seq, quiet(), 80).is_ok()).count();
        assert_eq!(passed, 9, "the hang-over");
        let passed = (100..350).filter(|seq| judge(*seq, quiet(), 80).is_ok()).count();
        assert_eq!(passed, 5, "one a second");
        assert_eq!(judge(350, loud(), 80), Ok(50 + 9 + 5));
    }

    #[test]
    fn dtx_frames_are_silence_and_packets_without_a_level_are_not() {
        let (mut microphone, mut loudest, mut now) = (Microphone::default(), Loudest::new(5), Instant::now());
        let mut passed = |from: u64, level: Option<AudioLevel>, len| {
            (from..from + 100)
                .filter(|seq| {
                    now += Duration::from_millis(20);
                    microphone.judge(now, 1, &mut loudest, *seq, level, len).is_ok()
                })
                .count()
        };
        assert_eq!(passed(0, loud(), 80), 100);
        assert_eq!(passed(100, Some(AudioLevel { voice: true, level: 70 }), 1), 9 + 1);
        assert_eq!(passed(200, None, 1), 100);
    }
}
