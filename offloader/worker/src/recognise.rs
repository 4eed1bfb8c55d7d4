//! `offload-worker recognise`: a WAV file in, transcript JSON out, by the same path a recording takes after decoding.

use std::path::{Path, PathBuf};

use offloader_jobs::vocabulary::Vocabulary;

use crate::audio::{opus_track::Piece, wav};
use crate::speech::{Model, ModelFiles, model::Purpose};
use crate::transcribe::{
    speaker::{Speaker, Who},
    transcript::{Transcript, merge},
};

/// Opens the model and transcribes the file.
pub fn run(
    file: &Path,
    model: Option<PathBuf>,
    vad: Option<PathBuf>,
    language: Option<String>,
    vocabulary: &Vocabulary,
) -> anyhow::Result<String> {
    // The detector lies beside the model unless told otherwise.
    let beside = model.as_deref().and_then(Path::parent).map(|dir| dir.join("ggml-silero-v6.2.0.bin"));
    let files = ModelFiles { vad: vad.or(beside.filter(|p| p.exists())), model, ..ModelFiles::default() };
    let model = Model::open(&files, Purpose::Transcript)?.expecting(vocabulary);
    let samples = wav::read_for_speech(file)?;
    Ok(serde_json::to_string_pretty(&transcribe(&model, &samples, language)?)?)
}

/// Transcribes one voice's samples (mono, 16 kHz).
pub fn transcribe(model: &Model, samples: &[f32], language: Option<String>) -> anyhow::Result<Transcript> {
    let (mut recogniser, mut detector) = (model.recogniser()?, model.voice_detector()?);
    let who = Who { identity: "file".into(), display_name: "file".into() };
    let mut speaker = Speaker::new(&mut recogniser, &mut detector, who, language, 0);
    for (n, part) in samples.chunks(16_000).enumerate() {
        speaker.handle_piece(&Piece { run: 1, start_us: n as i64 * 1_000_000, samples: part.to_vec() })?;
    }
    let (segments, language) = speaker.finish()?;
    Ok(merge(language.unwrap_or_else(|| "en".into()), model.name().to_string(), segments))
}
