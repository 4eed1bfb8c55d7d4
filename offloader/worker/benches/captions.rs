//! How late captions are through Mattermost's contract: a call of three, from the moment a word's sound leaves its talker to the moment
//! the server is told a caption that shows it. Everything between is the real thing: Opus, rtcd, the bot, the recogniser, the WebSocket.
//!
//! `./x bench-captions [ROUNDS]`: the meeting of the tests, so often.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/mattermost/people.rs"]
mod people;
#[path = "../tests/mattermost/stage.rs"]
mod stage;

use std::time::{Duration, Instant};

use common::wer::normalise;
use fake_mattermost::{Caption, Wants};
use offload_worker::recognise::transcribe;
use offload_worker::speech::model::Purpose;
use people::Talker;
use stage::{Stage, eventually};

/// A caption that shows a word later than this is of another one like it.
const LATE: Duration = Duration::from_secs(20);
/// Alignment tells a word's end within this.
const EARLY: Duration = Duration::from_millis(500);

fn main() {
    let rounds: usize = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(rounds));
}

async fn measure(rounds: usize) {
    let (tracks, _) = common::meeting();
    let spoken: Vec<Vec<Spoken>> = tracks.iter().map(|(_, samples)| words_of(samples)).collect();
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let mut talkers = Vec::new();
    for (n, name) in ["ada-lovelace", "grace-hopper", "alan-turing"].iter().enumerate() {
        talkers.push(Talker::join(&stage.fake, &channel, name, n as u32).await);
    }
    let asked = stage.record(&channel, Wants { transcription: true, captions: true }).await;
    let transcription = asked.transcription.as_ref().unwrap().id.clone();
    eventually("the jobs have started", async || stage.fake.job(&transcription).is_some_and(|job| job.start_at > 0)).await;
    let (mut delays, mut never) = (Vec::new(), 0);
    for _ in 0..rounds {
        let before = stage.fake.captions().len();
        let speaking = talkers.iter_mut().zip(&tracks).map(|(talker, (_, samples))| talker.say(samples));
        let sent: Vec<Vec<Instant>> = futures_util::future::join_all(speaking).await;
        // The last words, and a pause before the next round's.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let captions = stage.fake.captions().split_off(before);
        for ((talker, words), sent) in talkers.iter().zip(&spoken).zip(&sent) {
            let own: Vec<&Caption> = captions.iter().filter(|caption| caption.session_id == talker.session).collect();
            for delay in shown(words, sent, &own) {
                match delay {
                    Some(delay) => delays.push(delay),
                    None => never += 1,
                }
            }
        }
    }
    delays.sort_by(f64::total_cmp);
    let quantile = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    println!(
        "{rounds} rounds of a meeting of three: a word is shown {:.2} s (p50), {:.2} s (p90), {:.2} s (p95), {:.2} s (p99) after its end; {} words, {} never shown as they were heard afterwards",
        quantile(0.5),
        quantile(0.9),
        quantile(0.95),
        quantile(0.99),
        delays.len(),
        never
    );
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
}

/// A word, and when its sound ends, in seconds.
struct Spoken {
    word: String,
    end_s: f64,
}

/// By the transcript's alignment.
fn words_of(samples: &[f32]) -> Vec<Spoken> {
    let transcript = transcribe(&common::model(Purpose::Transcript), samples, Some("en".into())).unwrap();
    let words = transcript.segments.iter().flat_map(|segment| &segment.words);
    words.map(|word| Spoken { word: normalise(&word.text).join(" "), end_s: word.end_ms as f64 / 1e3 }).collect()
}

/// For each word how many seconds after its end a caption first had it after the word before it. `sent`: when each 20 ms left.
fn shown(words: &[Spoken], sent: &[Instant], captions: &[&Caption]) -> Vec<Option<f64>> {
    let texts: Vec<(Instant, Vec<String>)> = captions.iter().map(|caption| (caption.at, normalise(&caption.text))).collect();
    let one = |n: usize| {
        let ended = sent[((words[n].end_s / 0.02) as usize).min(sent.len() - 1)];
        let parts: Vec<&str> = words[n].word.split(' ').collect();
        let wanted: Vec<&str> =
            n.checked_sub(1).map(|before| words[before].word.as_str()).into_iter().chain(parts.iter().copied()).collect();
        let has = |text: &[String]| {
            let begins = text.starts_with(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
            begins || text.windows(wanted.len()).any(|window| window.iter().zip(&wanted).all(|(a, b)| a == b))
        };
        let shown = texts.iter().find(|(at, text)| *at + EARLY >= ended && *at <= ended + LATE && has(text))?;
        // A word may be shown before it is over.
        Some(shown.0.saturating_duration_since(ended).as_secs_f64())
    };
    (0..words.len()).map(one).collect()
}
