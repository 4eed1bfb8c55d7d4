//! What a transcript costs and how good it is, beside faster-whisper where that is installed.
//!
//! The path that a transcribe job takes (voice detector, pieces, recogniser, word times) over the committed speech, each model in
//! a process of its own, on one core; faster-whisper with the same voice detector, int8, one thread, in the three ways it offers. CPU
//! seconds are the kernel's account of the process (user and system) without loading the model, which is told apart.
//! Contenders take turns in shuffled order; the table has the median and the range.
//!
//! `./x bench-transcription [--rounds N] [--core N] [--faster-whisper PYTHON --ct2-models DIR] [--write FILE]`: DIR has the folders
//! `tiny.en` and `base`, each a CTranslate2 model. Nothing is downloaded.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;
use common::wer;
use offload_worker::audio::wav;
use offload_worker::recognise::transcribe;
use offload_worker::speech::{Model, ModelFiles, model::Purpose};
use serde::{Deserialize, Serialize};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const RATE: usize = 16_000;
/// The readings are said so often: faster-whisper's batches of eight need more than a minute of sound to be any use.
const TIMES: usize = 3;
/// Silence after each reading.
const PAUSE_S: f64 = 0.8;
const MODELS: [&str; 2] = ["tiny.en", "base"];
const MODES: [(&str, &str); 3] = [("greedy", "greedy"), ("beam", "beam of 5, its default"), ("batched", "batches of 8")];

#[derive(Parser)]
struct Options {
    /// How often each contender runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The core for all of them; without it the last.
    #[arg(long)]
    core: Option<usize>,
    /// A Python that has faster-whisper.
    #[arg(long, requires = "ct2_models")]
    faster_whisper: Option<PathBuf>,
    /// A folder with CTranslate2 models in the folders `tiny.en` and `base`.
    #[arg(long)]
    ct2_models: Option<PathBuf>,
    /// A file in which the table replaces what stands between the marks `<!-- table -->` and `<!-- end of table -->`.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Only this model.
    #[arg(long)]
    model: Option<String>,
    /// Prints what each heard.
    #[arg(long)]
    texts: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// One run, in a process of its own.
    #[arg(long, hide = true, num_args = 2..)]
    one: Vec<PathBuf>,
}

/// What a run tells.
#[derive(Serialize, Deserialize)]
struct Ran {
    version: String,
    load_s: f64,
    cpu_s: f64,
    peak_kb: u64,
    texts: Vec<String>,
}

struct Contender {
    name: String,
    model: &'static str,
    command: Vec<PathBuf>,
    ran: Vec<Ran>,
}

fn main() {
    let options = Options::parse();
    if let [model, files @ ..] = options.one.as_slice() {
        return one(model, files);
    }
    let dir = tempfile::tempdir().unwrap();
    let sound = write_sound(dir.path());
    let seconds: f64 = sound.iter().map(|(path, _)| wav::read(path).unwrap().samples.len() as f64 / RATE as f64).sum();
    pin(options.core);
    let mut contenders = contenders(&options, &sound);
    for round in 0..options.rounds {
        // A new order each time, so that nobody always follows the same one.
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        order.sort_by_key(|_| uuid::Uuid::new_v4());
        for n in order {
            let contender = &mut contenders[n];
            eprintln!("round {} of {}: {} {}", round + 1, options.rounds, contender.name, contender.model);
            let ran = run(&contender.command);
            contender.ran.push(ran);
        }
    }
    let table = table(&contenders, &sound, seconds);
    println!("{table}");
    if options.texts {
        for contender in &contenders {
            println!("\n{} {}: {:#?}", contender.name, contender.model, contender.ran.first().map(|ran| &ran.texts));
        }
    }
    if let Some(file) = &options.write {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (begin, end) = ("<!-- table -->\n", "<!-- end of table -->");
        let from = text.find(begin).expect("the file has the mark <!-- table -->") + begin.len();
        let to = text[from..].find(end).expect("the file has the mark <!-- end of table -->") + from;
        std::fs::write(file, format!("{}{table}\n{}", &text[..from], &text[to..])).unwrap();
    }
}

/// The sound as files and what is said in each: the readings one after the other, as a microphone in a room has them, and the
/// meeting's three tracks. The same for all contenders.
fn write_sound(dir: &Path) -> Vec<(PathBuf, String)> {
    let utterances = common::utterances();
    let mut readings = Vec::new();
    let mut said = String::new();
    for utterance in std::iter::repeat_n(&utterances, TIMES).flatten() {
        readings.extend_from_slice(&utterance.samples);
        readings.extend(std::iter::repeat_n(0.0, (PAUSE_S * RATE as f64) as usize));
        said += &format!("{} ", utterance.text);
    }
    let (tracks, turns) = common::meeting();
    let mut all = vec![("readings".to_owned(), readings, said)];
    for (speaker, samples) in tracks {
        let said = turns.iter().filter(|turn| turn.speaker == speaker).map(|turn| format!("{} ", turn.text)).collect();
        all.push((speaker, samples, said));
    }
    all.into_iter()
        .map(|(name, samples, said)| {
            let path = dir.join(format!("{name}.wav"));
            write_wav(&path, &samples);
            (path, said)
        })
        .collect()
}

fn write_wav(path: &Path, samples: &[f32]) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let bytes = samples.len() as u32 * 2;
    let mut put = |bytes: &[u8]| file.write_all(bytes).unwrap();
    put(b"RIFF");
    put(&(36 + bytes).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16_u32.to_le_bytes());
    // PCM, one channel; samples and bytes a second, bytes and bits a sample.
    put(&[1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    put(&[(RATE as u32).to_le_bytes(), (RATE as u32 * 2).to_le_bytes()].concat());
    put(&[2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
    put(b"data");
    put(&bytes.to_le_bytes());
    for sample in samples {
        put(&((sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).to_le_bytes());
    }
}

/// This process, and with it all that it starts, on one core.
fn pin(core: Option<usize>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = rustix::thread::CpuSet::new();
    set.set(core.unwrap_or(cores - 1));
    rustix::thread::sched_setaffinity(None, &set).expect("a core of this machine");
}

fn contenders(options: &Options, sound: &[(PathBuf, String)]) -> Vec<Contender> {
    let files = || sound.iter().map(|(path, _)| path.clone());
    let mut contenders = Vec::new();
    for model in MODELS {
        if options.model.as_ref().is_some_and(|only| only != model) {
            continue;
        }
        let ours = common::repository().join(format!("models/ggml-{model}-q8_0.bin"));
        assert!(ours.exists(), "{} is not there: run `./x models` first", ours.display());
        let command = [std::env::current_exe().unwrap(), "--one".into(), ours].into_iter().chain(files()).collect();
        contenders.push(Contender { name: "Conclave, with word times".into(), model, command, ran: Vec::new() });
        let Some(python) = &options.faster_whisper else { continue };
        let theirs = options.ct2_models.as_deref().unwrap_or(Path::new(".")).join(model);
        assert!(theirs.join("model.bin").exists(), "{} has no CTranslate2 model", theirs.display());
        for (mode, name) in MODES {
            let script = Path::new(HERE).join("benches/transcription_rival.py");
            let command = [python.clone(), script, theirs.clone(), mode.into()].into_iter().chain(files()).collect();
            contenders.push(Contender { name: format!("faster-whisper, {name}"), model, command, ran: Vec::new() });
        }
    }
    if options.faster_whisper.is_none() {
        println!("faster-whisper is not named: Conclave alone (--faster-whisper PYTHON --ct2-models DIR)");
    }
    contenders
}

fn run(command: &[PathBuf]) -> Ran {
    let done = Command::new(&command[0])
        .args(&command[1..])
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0].display()));
    assert!(done.status.success(), "{command:?} ended with {}", done.status);
    let said = String::from_utf8(done.stdout).unwrap();
    serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error} in {said}"))
}

/// Ours, measured from within: what came before the sound is the model's loading and its trial.
fn one(model: &Path, files: &[PathBuf]) {
    let vad = model.parent().map(|dir| dir.join("ggml-silero-v6.2.0.bin"));
    let model = Model::open(&ModelFiles { model: Some(model.into()), vad, ..ModelFiles::default() }, Purpose::Transcript).unwrap();
    let sound: Vec<Vec<f32>> = files.iter().map(|file| wav::read_for_speech(file).unwrap()).collect();
    let load_s = cpu_seconds();
    let texts = sound
        .iter()
        .map(|samples| transcribe(&model, samples, Some("en".into())).unwrap())
        .map(|transcript| transcript.segments.iter().map(|segment| format!("{} ", segment.text)).collect())
        .collect();
    let ran = Ran { version: speech_kernels::level().into(), load_s, cpu_s: cpu_seconds() - load_s, peak_kb: peak_kb(), texts };
    println!("{}", serde_json::to_string(&ran).unwrap());
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap()
}

fn table(contenders: &[Contender], sound: &[(PathBuf, String)], seconds: f64) -> String {
    let mut lines = vec![
        "| model | who | × real time a core | CPU s, median (range) | wrong words | peak memory | loading, CPU s |".to_owned(),
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |".to_owned(),
    ];
    for contender in contenders {
        let sorted = |of: fn(&Ran) -> f64| {
            let mut all: Vec<f64> = contender.ran.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (cpu, load) = (sorted(|ran| ran.cpu_s), sorted(|ran| ran.load_s));
        let memory = sorted(|ran| ran.peak_kb as f64 / 1024.0);
        let (median, last) = (cpu[cpu.len() / 2], cpu[cpu.len() - 1]);
        let (mut wrong, mut all) = (0, 0);
        for (text, (_, said)) in contender.ran[0].texts.iter().zip(sound) {
            let (errors, words) = wer::errors(said, text);
            (wrong, all) = (wrong + errors, all + words);
        }
        lines.push(format!(
            "| {} | {} | {:.0} | {median:.2} ({:.2}–{last:.2}) | {:.1} % | {:.0} MB | {:.1} |",
            contender.model,
            contender.name,
            seconds / median,
            cpu[0],
            wrong as f64 / all as f64 * 100.0,
            memory[memory.len() - 1],
            load[load.len() / 2],
        ));
    }
    let words: usize = sound.iter().map(|(_, said)| wer::normalise(said).len()).sum();
    let versions: BTreeMap<&str, &str> =
        contenders.iter().filter_map(|c| Some((c.name.split(',').next()?, c.ran.first()?.version.as_str()))).collect();
    let versions: Vec<String> = versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    let rounds = contenders.first().map_or(0, |contender| contender.ran.len());
    lines.push(format!("\n{seconds:.0} s of sound, {words} words, {rounds} runs each in shuffled order. {}.", versions.join("; ")));
    lines.join("\n")
}
