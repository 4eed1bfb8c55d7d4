//! Silero's voice detector on one thread: how likely is speech, every 32 ms.

use std::path::Path;

use whisper_rs::{WhisperVadContext, WhisperVadContextParams};

use super::ModelError;

/// Samples a probability stands for.
pub const FRAME: usize = 512;

/// A voice detector. Not shared: each call starts from a cleared state.
pub struct VoiceDetector {
    context: WhisperVadContext,
}

impl VoiceDetector {
    /// Loads Silero's ggml file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut parameters = WhisperVadContextParams::new();
        // Its default of four makes it spin: 184 s of audio cost 0.26 s with one thread, more than 60 s with four (measured).
        parameters.set_n_threads(1);
        parameters.set_use_gpu(false);
        let context = WhisperVadContext::new(&path.display().to_string(), parameters)
            .map_err(|e| ModelError::Load { path: path.to_path_buf(), what: e.to_string() })?;
        Ok(Self { context })
    }

    /// One probability for each [`FRAME`] samples (the last may be short).
    pub fn probabilities(&mut self, samples: &[f32]) -> Result<&[f32], ModelError> {
        if samples.is_empty() {
            return Ok(&[]);
        }
        self.context.detect_speech(samples).map_err(|e| ModelError::SelfTest(format!("voice detector: {e}")))?;
        Ok(self.context.probabilities())
    }
}
