//! Model files: checked against their SHA-256 before they are parsed, tried once before a job relies on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use offloader_jobs::vocabulary::Vocabulary;
use whisper_rs::{DtwMode, DtwModelPreset, DtwParameters, WhisperContext, WhisperContextParameters};

use super::{Recogniser, VoiceDetector, recogniser::Request, vocabulary::Likely};

/// Which files to use, as the offloader's settings name them.
#[derive(Debug, Clone, Default)]
pub struct ModelFiles {
    /// A whisper.cpp ggml file.
    pub model: Option<PathBuf>,
    /// Its SHA-256 in hex; empty: not checked.
    pub model_sha256: Option<String>,
    /// Silero's ggml file.
    pub vad: Option<PathBuf>,
    /// Its SHA-256 in hex; empty: not checked.
    pub vad_sha256: Option<String>,
}

/// Why there is no recogniser. The text is for the operator and says what to do; trying again helps in none of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The setting is empty.
    #[error("no {what} is configured: set {setting} to a file (tools/whisper/get_model.sh makes one; any whisper.cpp ggml file will do)")]
    Missing {
        /// Speech model or voice detector.
        what: &'static str,
        /// The setting's name.
        setting: &'static str,
    },
    /// The file is not there or not readable.
    #[error("cannot read {path} ({source}): check the path and that the worker's user may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another file than the one configured.
    #[error("{path} has SHA-256 {found}, the configuration says {wanted}: get the right file or correct the setting")]
    Checksum {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What the setting says.
        wanted: String,
    },
    /// whisper.cpp does not take it.
    #[error("{path} is not a model that whisper.cpp can load ({what})")]
    Load {
        /// Which file.
        path: PathBuf,
        /// What whisper.cpp said.
        what: String,
    },
    /// It loads but does not work on this machine.
    #[error("the speech model failed its self-test ({0}): is it complete, and is this CPU as new as AVX2?")]
    SelfTest(String),
}

/// A loaded speech model, shared by all threads of the process.
#[derive(Clone)]
pub struct Model {
    context: Arc<WhisperContext>,
    vad_path: PathBuf,
    name: String,
    /// Word times can be taken from the model's attention.
    timed: bool,
    likely: Likely,
}

/// What the model is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Live captions: no word times, so no alignment pass.
    Live,
    /// Transcript: word times by alignment (DTW over cross attention).
    Transcript,
}

impl Model {
    /// Checks, loads and tries the files.
    pub fn open(files: &ModelFiles, purpose: Purpose) -> Result<Self, ModelError> {
        let path = files.model.clone().filter(|p| !p.as_os_str().is_empty());
        let path = path.ok_or(ModelError::Missing { what: "speech model", setting: "OFFLOADER_MODEL_PATH" })?;
        let vad_path = files.vad.clone().filter(|p| !p.as_os_str().is_empty());
        let vad_path = vad_path.ok_or(ModelError::Missing { what: "voice detector", setting: "OFFLOADER_VAD_PATH" })?;
        check(&path, files.model_sha256.as_deref())?;
        check(&vad_path, files.vad_sha256.as_deref())?;

        whisper_rs::install_logging_hooks();
        let mut parameters = WhisperContextParameters::new();
        // On a CPU flash attention makes the encoder 28-64 % slower (measured), and it excludes alignment.
        parameters.use_gpu(false).flash_attn(false);
        let preset = alignment_heads(&path);
        let timed = purpose == Purpose::Transcript;
        if timed {
            // A few MB at most are used: 15 s of audio × 120 tokens × 8 heads × 4 bytes is 3 MB.
            parameters.dtw_parameters(DtwParameters { mode: preset, dtw_mem_size: 64 << 20 });
        }
        let text = path.display().to_string();
        let context =
            WhisperContext::new_with_params(&text, parameters).map_err(|e| ModelError::Load { path: path.clone(), what: e.to_string() })?;
        let name = path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().trim_start_matches("ggml-").to_string());
        let model = Self { context: Arc::new(context), vad_path, name, timed, likely: Likely::default() };
        model.self_test()?;
        Ok(model)
    }

    /// Has the recogniser expect these words and names.
    #[must_use]
    pub fn expecting(mut self, vocabulary: &Vocabulary) -> Self {
        self.likely = Likely::new(&self.context, vocabulary);
        self
    }

    /// Working memory for one thread.
    pub fn recogniser(&self) -> Result<Recogniser, ModelError> {
        Recogniser::new(self.context.clone(), self.timed, self.likely.clone()).map_err(|e| ModelError::SelfTest(e.to_string()))
    }

    /// A voice detector of its own (it keeps state while it runs).
    pub fn voice_detector(&self) -> Result<VoiceDetector, ModelError> {
        VoiceDetector::open(&self.vad_path)
    }

    /// The file's name without path and ending, as it is written into transcripts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Knows more than English.
    pub fn multilingual(&self) -> bool {
        self.context.is_multilingual()
    }

    /// One second of a soft tone through detector, encoder and decoder: shows a broken file or CPU before a call depends on it.
    fn self_test(&self) -> Result<(), ModelError> {
        let started = std::time::Instant::now();
        let tone: Vec<f32> = (0..16_000).map(|n| (n as f32 * 220.0 * std::f32::consts::TAU / 16_000.0).sin() * 0.1).collect();
        let mut detector = self.voice_detector()?;
        let probabilities = detector.probabilities(&tone)?;
        if probabilities.is_empty() || probabilities.iter().any(|p| !p.is_finite()) {
            return Err(ModelError::SelfTest("the voice detector gave no numbers".into()));
        }
        let mut recogniser = self.recogniser()?;
        recogniser.hear(&tone, &Request::default()).map_err(|e| ModelError::SelfTest(e.to_string()))?;
        let kernels = speech_kernels::level();
        tracing::info!(model = %self.name, kernels, multilingual = self.multilingual(), took_ms = started.elapsed().as_millis() as u64, "speech model ready");
        Ok(())
    }
}

fn check(path: &Path, wanted: Option<&str>) -> Result<(), ModelError> {
    use std::io::Read as _;
    let read = |source| ModelError::Read { path: path.to_path_buf(), source };
    let mut file = std::fs::File::open(path).map_err(read)?;
    let Some(wanted) = wanted.map(str::trim).filter(|w| !w.is_empty()) else { return Ok(()) };
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut block = vec![0; 1 << 20];
    loop {
        let got = file.read(&mut block).map_err(read)?;
        if got == 0 {
            break;
        }
        digest.update(&block[..got]);
    }
    let found = hex::encode(digest.finish());
    if found.eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(ModelError::Checksum { path: path.to_path_buf(), found, wanted: wanted.to_string() })
    }
}

/// Which attention heads follow the audio is a property of each published model; for a model of another make the upper half
/// of the decoder is the usual choice.
fn alignment_heads(path: &Path) -> DtwMode<'static> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let presets = [
        ("tiny.en", DtwModelPreset::TinyEn),
        ("tiny", DtwModelPreset::Tiny),
        ("base.en", DtwModelPreset::BaseEn),
        ("base", DtwModelPreset::Base),
        ("small.en", DtwModelPreset::SmallEn),
        ("small", DtwModelPreset::Small),
        ("medium.en", DtwModelPreset::MediumEn),
        ("medium", DtwModelPreset::Medium),
        ("large-v3-turbo", DtwModelPreset::LargeV3Turbo),
        ("large-v3", DtwModelPreset::LargeV3),
        ("large-v2", DtwModelPreset::LargeV2),
        ("large", DtwModelPreset::LargeV1),
    ];
    presets
        .into_iter()
        .find(|(part, _)| name.contains(part))
        .map_or(DtwMode::TopMost { n_top: 2 }, |(_, model_preset)| DtwMode::ModelPreset { model_preset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_setting_and_the_remedy() {
        let none = Model::open(&ModelFiles::default(), Purpose::Live).err().unwrap().to_string();
        assert!(none.contains("OFFLOADER_MODEL_PATH"), "{none}");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.bin");
        std::fs::write(&file, b"not a model").unwrap();
        let files =
            ModelFiles { model: Some(file.clone()), model_sha256: Some("00".repeat(32)), vad: Some(file.clone()), vad_sha256: None };
        let sum = Model::open(&files, Purpose::Live).err().unwrap().to_string();
        assert!(sum.contains("SHA-256") && sum.contains("model.bin"), "{sum}");

        let files = ModelFiles { model_sha256: None, ..files };
        let load = Model::open(&files, Purpose::Live).err().unwrap();
        assert!(matches!(load, ModelError::Load { .. }), "{load}");
    }
}
