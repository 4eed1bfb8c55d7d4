//! One track's packets to blocks of sound with the probability of speech in each frame.

use crate::audio::opus_track::{OpusError, OpusTrack, Piece};
use crate::limits::SPEECH_RATE;
use crate::speech::vad::FRAME;
use crate::speech::{ModelError, VoiceDetector};

/// Frames given to the detector at a time: 192 ms. Shorter shows words sooner by less than a run takes.
const BLOCK: usize = FRAME * 6;
/// Sound before a block that the detector hears again, because each call starts it from nothing: 1 s.
const CONTEXT: usize = FRAME * 32;
/// −55 dB of full scale: quieter is a microphone's own noise, and not worth the detector.
const GATE: f32 = 0.001_8;

/// A block of sound. Lengths are whole detector frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Unix µs of the first sample.
    pub start_us: i64,
    /// Mono, 16 kHz.
    pub samples: Vec<f32>,
    /// One a frame.
    pub probabilities: Vec<f32>,
}

/// The ears for one track.
pub struct Ears {
    decoder: OpusTrack,
    run: u32,
    start_us: i64,
    /// Sound that is not a whole block yet.
    open: Vec<f32>,
    context: Vec<f32>,
}

impl Ears {
    /// For a new track.
    pub fn new() -> Result<Self, OpusError> {
        Ok(Self { decoder: OpusTrack::new(SPEECH_RATE as u32, 1)?, run: 0, start_us: 0, open: Vec::new(), context: Vec::new() })
    }

    /// Told of a packet. Gives the blocks that are whole now.
    pub fn handle_packet(
        &mut self,
        detector: &mut VoiceDetector,
        at_us: i64,
        seq: u64,
        timestamp: u64,
        payload: &[u8],
    ) -> Result<Vec<Block>, ModelError> {
        let pieces = self.decoder.handle_packet(at_us, seq, timestamp, payload);
        self.handle_pieces(detector, &pieces)
    }

    fn handle_pieces(&mut self, detector: &mut VoiceDetector, pieces: &[Piece]) -> Result<Vec<Block>, ModelError> {
        let mut blocks = Vec::new();
        for piece in pieces {
            blocks.extend(self.handle_piece(detector, piece)?);
        }
        Ok(blocks)
    }

    /// Told of decoded sound.
    pub fn handle_piece(&mut self, detector: &mut VoiceDetector, piece: &Piece) -> Result<Vec<Block>, ModelError> {
        let mut blocks = Vec::new();
        if piece.run != self.run {
            blocks.extend(self.fill(detector)?);
            self.context.clear();
            self.run = piece.run;
        }
        if self.open.is_empty() {
            // Not counted on from the block before: a flush may have filled that up beyond its time.
            self.start_us = piece.start_us;
        }
        self.open.extend_from_slice(&piece.samples);
        while self.open.len() >= BLOCK {
            let rest = self.open.split_off(BLOCK);
            let samples = std::mem::replace(&mut self.open, rest);
            blocks.push(self.block(detector, samples)?);
        }
        Ok(blocks)
    }

    /// No more packets came for a while: gives what is left, filled up with silence.
    pub fn flush(&mut self, detector: &mut VoiceDetector) -> Result<Vec<Block>, ModelError> {
        let pieces = self.decoder.finish();
        let mut blocks = self.handle_pieces(detector, &pieces)?;
        blocks.extend(self.fill(detector)?);
        Ok(blocks)
    }

    fn fill(&mut self, detector: &mut VoiceDetector) -> Result<Option<Block>, ModelError> {
        if self.open.is_empty() {
            return Ok(None);
        }
        let mut samples = std::mem::take(&mut self.open);
        samples.resize(samples.len().next_multiple_of(FRAME), 0.0);
        self.block(detector, samples).map(Some)
    }

    fn block(&mut self, detector: &mut VoiceDetector, samples: Vec<f32>) -> Result<Block, ModelError> {
        let frames = samples.len() / FRAME;
        let level = (samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32).sqrt();
        let before = self.context.len();
        self.context.extend_from_slice(&samples);
        let probabilities = if level < GATE {
            vec![0.0; frames]
        } else {
            let all = detector.probabilities(&self.context)?;
            let mut tail = all.get(before / FRAME..).unwrap_or_default().to_vec();
            tail.resize(frames, 0.0);
            tail
        };
        let surplus = self.context.len().saturating_sub(CONTEXT);
        self.context.drain(..surplus);
        let start_us = self.start_us;
        self.start_us += (samples.len() * 1_000_000 / SPEECH_RATE) as i64;
        Ok(Block { start_us, samples, probabilities })
    }
}
