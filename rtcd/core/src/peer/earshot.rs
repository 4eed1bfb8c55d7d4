//! Which sounds reach a viewer on a narrow way: those of as many talkers as it carries, and nobody's background.
//!
//! Four open microphones in quiet rooms take twice what 64 kbit/s carry, before anybody said a word. Sounds that are not
//! forwarded leave no hole: a new stretch begins with the next one that is.

use std::time::{Duration, Instant};

use crate::limits::AUDIO_TOP_MAX;
use crate::loudest::{Loudest, Meter};
use crate::peer::congestion::Voices;
use crate::rtp::AudioLevel;
use crate::track::LayerKey;

/// What one talker takes on the wire, bit/s: Opus at 24 kbit/s, and as much in headers.
const TALKER_BPS: u64 = 50_000;
/// −dBov from which a packet is background. Quiet rooms lie around 70, soft ends of words above.
const BACKGROUND: u8 = 60;
/// Background is let through for so long after the last word: pauses in a sentence are shorter.
const LINGERS: Duration = Duration::from_millis(800);
/// Who sent nothing for so long is silent.
const SPEAKS: Duration = Duration::from_millis(200);
/// Whoever sent nothing for so long is forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// One source of sound.
#[derive(Debug)]
struct Voice {
    layer: LayerKey,
    meter: Meter,
    heard: Instant,
    sounded: Option<Instant>,
    is_let_in: bool,
}

impl Voice {
    /// Is this a talker, and no background?
    fn talks(&self, now: Instant) -> bool {
        self.sounded.is_some_and(|sounded| now.saturating_duration_since(sounded) < LINGERS)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is forwarded. `anew`: ones before it were not.
    Yes { anew: bool },
    /// It is not.
    No,
}

/// One viewer's ear.
#[derive(Debug)]
pub(crate) struct Earshot {
    loudest: Loudest<LayerKey>,
    voices: Vec<Voice>,
    talkers: usize,
}

impl Earshot {
    /// So many talkers fit at a time, at least one.
    pub(crate) fn talkers(whole_bps: u64) -> usize {
        usize::try_from(whole_bps / TALKER_BPS).unwrap_or(AUDIO_TOP_MAX).clamp(1, AUDIO_TOP_MAX)
    }

    pub(crate) fn new(talkers: usize) -> Self {
        Self { loudest: Loudest::new(talkers), voices: Vec::new(), talkers }
    }

    /// `is_there`: of those that are gone nothing is kept.
    pub(crate) fn set_talkers(&mut self, now: Instant, talkers: usize, is_there: impl Fn(LayerKey) -> bool) {
        // Who was shut out and says nothing would leave a hole with its next word, if nobody knew any more that it was.
        self.voices.retain(|voice| {
            let lately = now.saturating_duration_since(voice.heard) < FORGET;
            lately || (!voice.is_let_in && is_there(voice.layer))
        });
        if self.talkers != talkers {
            self.talkers = talkers;
            self.loudest.set_limit(now, talkers);
        }
    }

    /// A packet of this source came. Who tells no level is taken for a talker.
    pub(crate) fn hear(&mut self, now: Instant, layer: LayerKey, level: Option<AudioLevel>) -> Heard {
        let at = self.voices.iter().position(|voice| voice.layer == layer).unwrap_or_else(|| {
            self.voices.push(Voice { layer, meter: Meter::default(), heard: now, sounded: None, is_let_in: true });
            self.voices.len() - 1
        });
        let Some(voice) = self.voices.get_mut(at) else { return Heard::No };
        voice.heard = now;
        let loud = level.map_or(BACKGROUND - 1, |level| level.level);
        voice.meter.observe(now, loud);
        if loud < BACKGROUND {
            voice.sounded = Some(now);
        }
        let is_let_in = voice.talks(now) && self.loudest.admit(now, layer, &voice.meter, true);
        let was_let_in = std::mem::replace(&mut voice.is_let_in, is_let_in);
        if is_let_in { Heard::Yes { anew: !was_let_in } } else { Heard::No }
    }

    /// Who talks just now. Background that is held back is nobody.
    pub(crate) fn voices(&self, now: Instant) -> Voices {
        let talking = self.voices.iter().filter(|voice| now.saturating_duration_since(voice.heard) < SPEAKS && voice.talks(now));
        talking
            .fold(Voices::default(), |voices, voice| Voices { flow: voices.flow || voice.is_let_in, wait: voices.wait || !voice.is_let_in })
    }

    /// Those whose last packet was not let in.
    pub(crate) fn shut_out(&self) -> impl Iterator<Item = LayerKey> {
        self.voices.iter().filter(|voice| !voice.is_let_in).map(|voice| voice.layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key;

    const ROOM: u8 = 71;
    const TALK: u8 = 25;

    struct Stage {
        earshot: Earshot,
        now: Instant,
    }

    impl Stage {
        fn new(talkers: usize) -> Self {
            Self { earshot: Earshot::new(talkers), now: Instant::now() }
        }

        /// Everybody's packets for so many rounds of 20 ms; how many of each were let in, and how often anew.
        fn rounds(&mut self, levels: &[u8], count: usize) -> Vec<(usize, usize)> {
            let mut let_in = vec![(0, 0); levels.len()];
            for _ in 0..count {
                self.now += Duration::from_millis(20);
                for (who, level) in levels.iter().enumerate() {
                    let level = Some(AudioLevel { voice: true, level: *level });
                    if let Heard::Yes { anew } = self.earshot.hear(self.now, Key::from_bits(who as u64), level) {
                        let_in[who].0 += 1;
                        let_in[who].1 += usize::from(anew);
                    }
                }
            }
            let_in
        }
    }

    #[test]
    fn rooms_are_not_heard_and_who_talks_is_from_the_first_word() {
        let mut stage = Stage::new(1);
        assert_eq!(stage.rounds(&[ROOM, ROOM, ROOM], 100), [(0, 0); 3]);
        assert_eq!(stage.rounds(&[ROOM, TALK, ROOM], 100), [(0, 0), (100, 1), (0, 0)]);
        // A breath belongs to the talk, a pause does not.
        assert_eq!(stage.rounds(&[ROOM, ROOM, ROOM], 100)[1].0, 39);
        assert_eq!(stage.rounds(&[TALK, ROOM, ROOM], 100), [(100, 1), (0, 0), (0, 0)]);
    }

    #[test]
    fn of_two_who_talk_at_once_one_is_heard_where_one_fits() {
        let mut stage = Stage::new(1);
        stage.rounds(&[TALK, ROOM], 50);
        assert_eq!(stage.rounds(&[TALK, TALK], 100), [(100, 0), (0, 0)]);
        stage.earshot.set_talkers(stage.now, 2, |_| true);
        assert_eq!(stage.rounds(&[TALK, TALK], 100), [(100, 0), (100, 1)]);
        stage.earshot.set_talkers(stage.now, 1, |_| true);
        let let_in = stage.rounds(&[TALK, TALK], 100);
        assert_eq!(let_in.iter().map(|(count, _)| count).sum::<usize>(), 100, "{let_in:?}");
    }

    #[test]
    fn as_many_talkers_as_fit() {
        assert_eq!([20_000, 57_600, 120_000, 400_000, u64::MAX].map(Earshot::talkers), [1, 1, 2, 8, AUDIO_TOP_MAX]);
    }

    #[test]
    fn who_waits_talks_and_background_is_nobody() {
        let mut stage = Stage::new(1);
        let voices = |stage: &Stage| stage.earshot.voices(stage.now);
        stage.rounds(&[ROOM, ROOM], 100);
        assert_eq!(voices(&stage), Voices::default());
        stage.rounds(&[TALK, ROOM], 100);
        assert_eq!(voices(&stage), Voices { flow: true, wait: false });
        stage.rounds(&[TALK, TALK], 100);
        assert_eq!(voices(&stage), Voices { flow: true, wait: true });
        // In a breath nobody is heard, and whoever is muted does not wait.
        stage.rounds(&[ROOM, ROOM], 60);
        assert_eq!(voices(&stage), Voices::default());
        stage.rounds(&[TALK, TALK], 10);
        stage.now += Duration::from_millis(300);
        assert_eq!(voices(&stage), Voices::default());
    }

    #[test]
    fn who_was_shut_out_and_silent_leaves_no_hole() {
        let mut stage = Stage::new(1);
        assert_eq!(stage.rounds(&[TALK, ROOM], 3000), [(3000, 0), (0, 0)]);
        for _ in 0..11 {
            stage.rounds(&[TALK], 50);
            stage.earshot.set_talkers(stage.now, 1, |_| true);
        }
        assert_eq!(stage.earshot.shut_out().count(), 1, "its hole is closed too when the way becomes wide");
        stage.earshot.set_talkers(stage.now, 2, |_| true);
        assert_eq!(stage.rounds(&[TALK, TALK], 10), [(10, 0), (10, 1)]);
        // Of tracks that ended nothing is kept.
        stage.rounds(&[TALK, ROOM, ROOM], 50);
        stage.now += FORGET;
        stage.earshot.set_talkers(stage.now, 2, |layer| layer == Key::from_bits(2));
        assert_eq!(stage.earshot.voices.len(), 1);
    }

    #[test]
    fn a_source_without_levels_is_a_talker() {
        let mut stage = Stage::new(1);
        assert_eq!(stage.earshot.hear(stage.now, Key::from_bits(7), None), Heard::Yes { anew: false });
        assert_eq!(stage.earshot.shut_out().count(), 0);
    }
}
