//! When the plugin hears of a recording, and from when on its files count.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fake_mattermost::Wants;

use super::common::film;
use super::endings::started;
use super::people::Talker;
use super::stage::{Stage, eventually};
use super::{first_turn, words_of};

/// Within what the plugin is to hear that a recording has started (row 28 of the table in docs/compat/calls-offloader.md).
const STARTED_WITHIN_MS: i64 = 3_000;

/// Tones with a second of silence before each.
const TONES: usize = 7;

fn tones() -> Vec<f32> {
    let tone = (0..4_800).map(|n| 0.5 * (n as f32 * 1_000.0 * std::f32::consts::TAU / 16_000.0).sin());
    let one: Vec<f32> = std::iter::repeat_n(0.0, 16_000).chain(tone).collect();
    one.repeat(TONES)
}

/// Where tones begin, in seconds.
fn onsets(samples: &[f32]) -> Vec<f64> {
    let mut found = Vec::new();
    let mut quiet = usize::MAX;
    for (n, sample) in samples.iter().enumerate() {
        if sample.abs() > 0.15 {
            if quiet > 8_000 {
                found.push(n as f64 / 16_000.0);
            }
            quiet = 0;
        } else {
            quiet = quiet.saturating_add(1);
        }
    }
    found
}

/// Seconds since that moment of Unix time.
fn since(start_ms: i64) -> impl Fn(&Instant) -> f64 {
    // A clock that both sides have.
    let (clock, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    move |at| (unix + at.saturating_duration_since(clock)).as_secs_f64() - start_ms as f64 / 1_000.0
}

/// So much longer than its own clock says was it under way to be sent, in seconds: a busy machine makes speech slower, and a film
/// goes by the clock of what was said.
fn lag(sent: &[Instant]) -> f64 {
    (sent[sent.len() - 1] - sent[0]).as_secs_f64() - 0.02 * (sent.len() - 1) as f64
}

/// The film has the tones where they were played, to a frame of twenty a second.
fn tones_are_in_place(media: &[u8], sent: &[Instant], since_start: &impl Fn(&Instant) -> f64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), media).unwrap();
    let heard = onsets(&film::sound(file.path()));
    assert!(heard.len() >= TONES, "{heard:?}");
    // Fifty packets of silence, fifteen of tone, by their own clock.
    let played = (0..TONES).map(|n| since_start(&sent[0]) + 0.02 * (n * 65 + 50) as f64);
    let mut late: Vec<f64> = heard.iter().zip(played).map(|(heard, played)| heard - played).collect();
    late.sort_by(f64::total_cmp);
    let lag = lag(sent);
    println!("late by {late:?} s, sent in {lag} s more than they last");
    // The least late one tells where zero is; how far off it may be on a busy machine, that machine's own lag tells.
    assert!(late[0].abs() < 0.05 + lag && late[TONES / 2] < 0.5 + lag, "{late:?}, {lag}");
}

/// Of `HH:MM:SS.mmm`.
fn seconds(stamp: &str) -> f64 {
    stamp.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugin_hears_soon_that_it_has_started_and_film_and_words_count_from_then() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let coming = Instant::now();
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let came_ms = coming.elapsed().as_millis() as i64;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    started(&stage, &asked).await;
    let job = stage.fake.job(&asked.recording.id).unwrap();
    // On a machine that is busy with a hundred other things everybody's way into the call takes longer: Ada's tells how much.
    let within = STARTED_WITHIN_MS.max(3 * came_ms);
    println!("asked, {} ms, joined, {} ms, started; Ada came in {came_ms} ms", job.joined_at - job.init_at, job.start_at - job.joined_at);
    assert!(job.start_at - job.init_at < within, "{job:?}, {within} ms");

    let since_start = since(job.start_at);
    let sent = ada.say(&tones()).await;
    let spoken = ada.say(&first_turn().0).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    tones_are_in_place(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes, &sent, &since_start);
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    assert!(!words_of(&vtt, "Ada Lovelace").is_empty(), "{vtt}");
    // Her first words begin a quarter of a second into what she says; a cue may begin a little before its words.
    let cue = vtt.lines().find_map(|line| line.split_once(" --> ")).map(|(from, _)| seconds(from)).unwrap();
    let (said, lag) = (since_start(&spoken[0]), lag(&sent));
    println!("spoken from {said} s on, the first cue at {cue} s");
    assert!((said - lag - 0.5..said + 1.0).contains(&cue), "spoken from {said} s on\n{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_the_start_that_gets_lost_moves_no_time_zero() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    stage.fake.faults(|faults| faults.lost_statuses = 1);
    let asked = stage.record(&channel, Wants::default()).await;
    eventually("the start is told again", async || stage.fake.statuses().len() == 2).await;
    let answers: Vec<u16> = stage.fake.statuses().iter().map(|status| status.answer).collect();
    assert_eq!(answers, [200, 400], "job has already started");
    let since_start = since(stage.fake.job(&asked.recording.id).unwrap().start_at);
    let sent = ada.say(&tones()).await;
    stage.fake.stop_recording(&channel);
    eventually("the post", async || !stage.fake.posts().is_empty()).await;
    stage.idle().await;
    tones_are_in_place(&stage.fake.file(&stage.fake.posts()[0].file_ids[0]).unwrap().bytes, &sent, &since_start);
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}
