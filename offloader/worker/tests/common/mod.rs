//! What the worker's tests share: real speech with its text, the real model, and how wrong words are counted.
#![allow(dead_code, unreachable_pub, reason = "test support; not every test uses all of it")]

pub mod call;
pub mod film;
pub mod recording;
pub mod servers;
pub mod wer;

use std::path::PathBuf;

use offload_worker::audio::wav;
use offload_worker::speech::{Model, ModelFiles, model::Purpose};

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The model the tests run with: OFFLOADER_MODEL_PATH, else ./models/ggml-tiny.en-q8_0.bin.
pub fn model_files() -> ModelFiles {
    let models = repository().join("models");
    let model = std::env::var_os("OFFLOADER_MODEL_PATH").map_or_else(|| models.join("ggml-tiny.en-q8_0.bin"), PathBuf::from);
    let vad = std::env::var_os("OFFLOADER_VAD_PATH").map_or_else(|| models.join("ggml-silero-v6.2.0.bin"), PathBuf::from);
    assert!(model.exists(), "{} is not there: run `./x models` first", model.display());
    ModelFiles { model: Some(model), vad: Some(vad), ..ModelFiles::default() }
}

pub fn model(purpose: Purpose) -> Model {
    Model::open(&model_files(), purpose).unwrap()
}

/// One for transcripts that knows more than English.
pub fn multilingual_model() -> Model {
    let base = repository().join("models/ggml-base-q8_0.bin");
    assert!(base.exists(), "{} is not there: run `./x models` first", base.display());
    Model::open(&ModelFiles { model: Some(base), ..model_files() }, Purpose::Transcript).unwrap()
}

pub fn speech_dir() -> PathBuf {
    repository().join("integration-tests/speech")
}

pub struct Utterance {
    pub name: String,
    pub samples: Vec<f32>,
    pub text: String,
}

/// Single utterances, 16 kHz.
pub fn utterances() -> Vec<Utterance> {
    rows(&speech_dir().join("manifest.tsv"))
        .into_iter()
        .map(|row| Utterance {
            samples: wav::read_for_speech(&speech_dir().join(&row[0])).unwrap(),
            name: row[0].clone(),
            text: row[4].clone(),
        })
        .collect()
}

/// Sentences with a name that small models do not know: the sound, and the name.
pub fn names() -> [(Vec<f32>, &'static str); 2] {
    let sound = |name: &str| wav::read_for_speech(&speech_dir().join("names").join(name)).unwrap();
    [(sound("27-124992-0005.wav"), "Nabuchodonosor"), (sound("27-124992-0012.wav"), "Tharsis")]
}

/// A vocabulary that holds them among others.
pub const VOCABULARY: &str = "Holofernes, Nabuchodonosor, Eliachim, Joachim, Manasses, Tharsis, Northanger Abbey, Tilney, Clerkenwell";
/// One of another trade.
pub const ANOTHER_VOCABULARY: &str =
    "Kubernetes, Grafana, Siobhan Kowalczyk, Mattermost, Xiaoling Zhang, Prometheus, Ngozi Okafor, Terraform, PostgreSQL";

pub struct Turn {
    pub start_s: f32,
    pub end_s: f32,
    pub speaker: String,
    pub text: String,
}

/// The meeting: three tracks of the same length, and who says what when.
pub fn meeting() -> (Vec<(String, Vec<f32>)>, Vec<Turn>) {
    let dir = speech_dir().join("meeting");
    let tracks = ["lj", "ls27", "ls19"].map(|name| (name.to_string(), wav::read_for_speech(&dir.join(format!("{name}.wav"))).unwrap()));
    let turns = rows(&dir.join("turns.tsv"))
        .into_iter()
        .map(|row| Turn { start_s: row[0].parse().unwrap(), end_s: row[1].parse().unwrap(), speaker: row[2].clone(), text: row[3].clone() })
        .collect();
    (tracks.into(), turns)
}

fn rows(path: &std::path::Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_string).collect()).collect()
}

/// CPU seconds this thread has used.
pub fn cpu_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
