//! All voices of a recording on one time line, mixed and kept below full scale.

use std::collections::VecDeque;

use archive::read::{ReadError, Recording, Records};
use archive::record::{GapReason, Record};

use crate::audio::opus_track::{OpusError, OpusTrack, Piece};

/// Samples a second of everything rendered.
pub const RATE: usize = 48_000;
/// The loudest sample given out: −1 dB, so that a lossy encoder does not go over full scale.
const CEILING: f32 = 0.89;
/// The limiter takes its gain from pieces of 10 ms.
const PIECE: usize = RATE / 100;
/// The gain comes back within about half a second, slow enough not to be heard.
const RELEASE: f32 = 0.02;

/// Why sound cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The recording cannot be read.
    #[error("cannot read the recording: {0}")]
    Read(#[from] ReadError),
    /// The decoder cannot be made.
    #[error(transparent)]
    Opus(#[from] OpusError),
}

struct Voice<'r> {
    records: Records<'r>,
    decoder: OpusTrack,
    /// Sound to come: position of the first sample, samples.
    queue: VecDeque<(i64, Vec<f32>)>,
    /// Nothing before this position is given out again, whatever a restarted sender's clock says.
    filled_to: i64,
    done: bool,
    identity: String,
    /// The sound of a shared screen, which nobody says.
    of_screen: bool,
}

/// Mixes a recording's audio tracks.
pub struct Mixer<'r> {
    voices: Vec<Voice<'r>>,
    origin_us: i64,
    position: i64,
    gain: f32,
}

/// How loud somebody was in a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Who.
    pub identity: String,
    /// Root mean square.
    pub rms: f32,
}

impl<'r> Mixer<'r> {
    /// Starts at the recording's time zero.
    pub fn new(recording: &'r Recording, origin_us: i64) -> Result<Self, SoundError> {
        let voice = |track: &archive::manifest::Track| {
            Ok(Voice {
                records: recording.records(track.number),
                decoder: OpusTrack::new(RATE as u32, 1)?,
                queue: VecDeque::new(),
                filled_to: 0,
                done: false,
                identity: track.info.identity.clone(),
                of_screen: track.info.source == "screen_share_audio",
            })
        };
        let audio = recording.tracks().iter().filter(|track| track.info.kind == "audio");
        let voices = audio.map(voice).collect::<Result<Vec<_>, OpusError>>()?;
        Ok(Self { voices, origin_us, position: 0, gain: 1.0 })
    }

    /// The next samples of all voices together, and who spoke.
    pub fn block(&mut self, samples: usize) -> Result<(Vec<f32>, Vec<Level>), SoundError> {
        let mut mix = vec![0.0; samples];
        let mut levels = Vec::new();
        let (from, to) = (self.position, self.position + samples as i64);
        for voice in &mut self.voices {
            voice.read_to(to, self.origin_us)?;
            let energy = voice.add(from, &mut mix);
            if energy > 0.0 && !voice.of_screen {
                levels.push(Level { identity: voice.identity.clone(), rms: (energy / samples.max(1) as f32).sqrt() });
            }
        }
        self.position = to;
        self.limit(&mut mix);
        Ok((mix, levels))
    }

    fn limit(&mut self, mix: &mut [f32]) {
        for piece in mix.chunks_mut(PIECE) {
            let peak = piece.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
            let wanted = if peak > CEILING { CEILING / peak } else { 1.0 };
            // Down at once, up slowly.
            let target = if wanted < self.gain { wanted } else { self.gain + (wanted - self.gain) * RELEASE };
            let (before, count) = (self.gain.min(target.max(wanted)), piece.len() as f32);
            for (n, sample) in piece.iter_mut().enumerate() {
                let gain = before + (target - before) * (n as f32 / count);
                *sample = (*sample * gain).clamp(-CEILING, CEILING);
            }
            self.gain = target;
        }
    }
}

impl Voice<'_> {
    /// Decodes until sound reaches `to` or the track ends.
    fn read_to(&mut self, to: i64, origin_us: i64) -> Result<(), SoundError> {
        while !self.done && self.queue.back().is_none_or(|(at, samples)| at + (samples.len() as i64) < to) {
            let pieces = match self.records.next().transpose()? {
                Some(Record::Packet(packet)) => self.decoder.handle_packet(packet.at_us, packet.seq, packet.timestamp, &packet.payload),
                Some(Record::Gap(gap)) if gap.reason == GapReason::Worker => self.decoder.handle_takeover(),
                Some(Record::Gap(_)) => Vec::new(),
                None => {
                    self.done = true;
                    self.decoder.finish()
                }
            };
            self.place(pieces, origin_us);
        }
        Ok(())
    }

    /// Puts sound where it belongs; what overlaps with what is there is left out.
    fn place(&mut self, pieces: Vec<Piece>, origin_us: i64) {
        for piece in pieces {
            let mut at = ((piece.start_us - origin_us) as i128 * RATE as i128 / 1_000_000) as i64;
            // Rounding within a run, not a hole.
            if (at - self.filled_to).abs() <= 2 {
                at = self.filled_to;
            }
            let mut samples = piece.samples;
            if at < self.filled_to {
                let over = usize::try_from(self.filled_to - at).unwrap_or(usize::MAX).min(samples.len());
                samples.drain(..over);
                at = self.filled_to;
            }
            self.filled_to = at + samples.len() as i64;
            if !samples.is_empty() {
                self.queue.push_back((at, samples));
            }
        }
    }

    /// Adds what falls into the block; answers its energy.
    fn add(&mut self, from: i64, mix: &mut [f32]) -> f32 {
        let to = from + mix.len() as i64;
        let mut energy = 0.0;
        while let Some((at, samples)) = self.queue.front() {
            let end = at + samples.len() as i64;
            if *at >= to {
                break;
            }
            for k in (*at).max(from)..end.min(to) {
                let sample = samples[(k - at) as usize];
                mix[(k - from) as usize] += sample;
                energy += sample * sample;
            }
            if end > to {
                break;
            }
            self.queue.pop_front();
        }
        energy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiter_keeps_below_the_ceiling_and_lets_quiet_sound_alone() {
        let mut mixer = Mixer { voices: Vec::new(), origin_us: 0, position: 0, gain: 1.0 };
        let mut quiet: Vec<f32> = (0..4_800).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
        let before = quiet.clone();
        mixer.limit(&mut quiet);
        assert_eq!(quiet, before);
        let mut loud: Vec<f32> = (0..48_000).map(|n| (n as f32 * 0.05).sin() * 2.5).collect();
        mixer.limit(&mut loud);
        assert!(loud.iter().all(|s| s.abs() <= CEILING));
        // Not clipped flat: the wave keeps its shape once the gain has settled.
        let at_ceiling = loud[24_000..].iter().filter(|s| s.abs() > CEILING * 0.999).count();
        assert!(at_ceiling < 24_000 / 10, "{at_ceiling}");
    }
}
