//! WAV files in: for operators who try a model, and for the tests. PCM of 16 bit or 32-bit float, any rate, any channel count.

use std::path::Path;

/// Why a WAV file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not a WAV file of a kind we take.
    #[error("{path} is not a usable WAV file ({what}); convert it first: ffmpeg -i IN -ac 1 -ar 16000 -c:a pcm_s16le OUT.wav")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Samples of one channel (the mean of those in the file) and their rate.
#[derive(Debug, Clone)]
pub struct Wav {
    /// Samples a second.
    pub rate: u32,
    /// Between −1 and 1.
    pub samples: Vec<f32>,
}

/// Reads a file whole.
pub fn read(path: &Path) -> Result<Wav, WavError> {
    let bytes = std::fs::read(path).map_err(|source| WavError::Read { path: path.display().to_string(), source })?;
    parse(&bytes).map_err(|what| WavError::Format { path: path.display().to_string(), what })
}

/// Reads a file and brings it to Whisper's rate.
pub fn read_for_speech(path: &Path) -> Result<Vec<f32>, WavError> {
    let wav = read(path)?;
    Ok(resample(&wav.samples, wav.rate, crate::limits::SPEECH_RATE as u32))
}

fn parse(bytes: &[u8]) -> Result<Wav, &'static str> {
    let id = |at: usize| bytes.get(at..at + 4);
    let u16_at = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let u32_at = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if id(0) != Some(b"RIFF") || id(8) != Some(b"WAVE") {
        return Err("no RIFF/WAVE header");
    }
    let (mut at, mut format) = (12, None);
    while let (Some(tag), Some(size)) = (id(at), u32_at(at + 4)) {
        let body = at + 8;
        if tag == b"fmt " {
            let code = u16_at(body).ok_or("short fmt chunk")?;
            let channels = usize::from(u16_at(body + 2).ok_or("short fmt chunk")?);
            let rate = u32_at(body + 4).ok_or("short fmt chunk")?;
            let bits = u16_at(body + 14).ok_or("short fmt chunk")?;
            // 0xFFFE: extensible, the real code is the first half of the sub-format.
            let code = if code == 0xFFFE { u16_at(body + 24).ok_or("short fmt chunk")? } else { code };
            format = Some((code, channels, rate, bits));
        } else if tag == b"data" {
            let (code, channels, rate, bits) = format.ok_or("data before fmt")?;
            // Streams written to a pipe carry a length that was never filled in: take what is there.
            let end = (body + size as usize).min(bytes.len());
            let data = &bytes[body..end];
            let flat: Vec<f32> = match (code, bits) {
                (1, 16) => data.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect(),
                (3, 32) => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                _ => return Err("only 16-bit PCM and 32-bit float are read"),
            };
            if channels == 0 || rate == 0 {
                return Err("no channels or no rate");
            }
            let samples = flat.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
            return Ok(Wav { rate, samples });
        }
        at = body + size as usize + (size as usize & 1);
    }
    Err("no data chunk")
}

/// Windowed-sinc resampling, 32 taps a side: good enough for speech and for tests; the call path never needs it, because Opus
/// decodes at the rate that is wanted.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to || samples.is_empty() {
        return samples.to_vec();
    }
    let ratio = f64::from(to) / f64::from(from);
    let cutoff = ratio.min(1.0);
    let half = (32.0 / cutoff).ceil() as i64;
    let wanted = (samples.len() as f64 * ratio).round() as usize;
    (0..wanted)
        .map(|n| {
            let centre = n as f64 / ratio;
            let first = centre.floor() as i64 - half + 1;
            let sum: f64 = (first..first + 2 * half)
                .filter_map(|k| Some((k, *samples.get(usize::try_from(k).ok()?)?)))
                .map(|(k, sample)| {
                    let x = (k as f64 - centre) * cutoff;
                    let sinc = if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
                    let window = 0.5 + 0.5 * (std::f64::consts::PI * (k as f64 - centre) / half as f64).cos();
                    f64::from(sample) * sinc * window * cutoff
                })
                .sum();
            sum as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_and_level_through_resampling() {
        let tone: Vec<f32> = (0..16_000).map(|n| (n as f32 * 440.0 * std::f32::consts::TAU / 16_000.0).sin() * 0.5).collect();
        let up = resample(&tone, 16_000, 48_000);
        assert_eq!(up.len(), 48_000);
        let worst = (3_000..45_000)
            .map(|n| (up[n] - (n as f32 * 440.0 * std::f32::consts::TAU / 48_000.0).sin() * 0.5).abs())
            .fold(0.0_f32, f32::max);
        assert!(worst < 0.01, "{worst}");
    }

    #[test]
    fn a_file_that_is_not_a_wav_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.wav");
        std::fs::write(&path, b"RIFF....WAVEfmt ").unwrap();
        let text = read(&path).unwrap_err().to_string();
        assert!(text.contains("ffmpeg -i"), "{text}");
    }
}
