//! Live captions of real speech by the real model.
//!
//! The first test runs the whole path on a virtual clock in which a run of the recogniser lasts the CPU time that it took:
//! the machine's other load changes nothing but the figures that are printed. The second runs the real program over gRPC.
#![cfg(test)]

mod common;

use std::collections::BTreeMap;

use common::servers::{Step, World};
use common::{call, wer};
use offload_worker::audio::opus_track::Piece;
use offload_worker::caption::ears::Ears;
use offload_worker::caption::job::hear;
use offload_worker::caption::live::{Line, Live, Run};
use offload_worker::job::now_us;
use offload_worker::recognise::transcribe;
use offload_worker::speech::{Heard, model::Purpose};
use offloader_jobs::order::{CaptionOrder, CaptionParams, CaptionResult, ModelOrder, TapOrder, WorkOrder};
use offloader_jobs::selection::Selection;

struct Played {
    /// When each line came on the screen, µs.
    lines: Vec<(i64, Line)>,
    cpu_s: f64,
    seconds: f64,
}

/// Plays tracks in 20 ms steps to one recogniser, on a machine that leaves it one part in `slow` of a core.
fn play(live: Live, tracks: &[Vec<f32>], slow: f64) -> Played {
    play_with(live, tracks, slow, "")
}

fn play_with(mut live: Live, tracks: &[Vec<f32>], slow: f64, vocabulary: &str) -> Played {
    let model = common::model(Purpose::Live).expecting(&vocabulary.parse().unwrap());
    let (mut recogniser, mut detector) = (model.recogniser().unwrap(), model.voice_detector().unwrap());
    let mut ears: Vec<(usize, Ears)> = tracks.iter().map(|_| (live.handle_track(Some("en".into())), Ears::new().unwrap())).collect();
    let longest = tracks.iter().map(Vec::len).max().unwrap();
    let mut played = Played { lines: Vec::new(), cpu_s: 0.0, seconds: longest as f64 / 16_000.0 };
    let mut running: Option<(i64, Run, Option<Heard>)> = None;
    let (mut now, mut n) = (0_i64, 0);
    loop {
        now += 20_000;
        for ((index, ears), samples) in ears.iter_mut().zip(tracks) {
            // Packets of the last 20 ms; after the end nothing comes, as from a muted microphone.
            if let Some(samples) = samples.get(n * 320..((n + 1) * 320).min(samples.len())).filter(|s| !s.is_empty()) {
                let piece = Piece { run: 1, start_us: n as i64 * 20_000, samples: samples.to_vec() };
                for block in ears.handle_piece(&mut detector, &piece).unwrap() {
                    live.handle_sound(*index, block.start_us, &block.samples, &block.probabilities);
                }
            } else if let Some(block) = ears.flush(&mut detector).unwrap().pop() {
                live.handle_sound(*index, block.start_us, &block.samples, &block.probabilities);
            }
            live.handle_quiet(*index, now - 200_000);
        }
        n += 1;
        if let Some((at, run, heard)) = running.take_if(|(at, ..)| *at <= now) {
            let line = live.handle_heard(&run, heard.unwrap(), None);
            played.lines.extend(line.map(|line| (at, line)));
        }
        live.handle_now(now);
        played.lines.extend(std::iter::from_fn(|| live.poll_line()).map(|line| (now, line)));
        if running.is_none()
            && let Some(run) = live.poll_run(now)
        {
            let cpu = common::cpu_seconds();
            let (heard, _) = hear(&mut recogniser, &run);
            let cost = common::cpu_seconds() - cpu;
            played.cpu_s += cost;
            running = Some((now + (cost * slow * 1e6) as i64, run, heard));
        }
        if n * 320 > longest + 32_000 && running.is_none() && live.unfinished() == 0 {
            return played;
        }
    }
}

fn assert_stable(lines: &[(i64, Line)]) {
    let mut last: BTreeMap<(usize, u64), String> = BTreeMap::new();
    for (_, line) in lines {
        let before = last.insert((line.track, line.line), line.committed.clone()).unwrap_or_default();
        assert!(line.committed.starts_with(&before), "{before:?} became {:?}", line.committed);
    }
}

fn finals(lines: &[(i64, Line)], track: usize) -> String {
    lines.iter().filter(|(_, l)| l.last && l.track == track).map(|(_, l)| format!("{} ", l.committed)).collect()
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// From the end of each word's sound, by the transcript's alignment, until the screen shows it and everything before it in its
/// line for good.
fn shown_delays(played: &Played, track: usize, samples: &[f32]) -> Vec<f64> {
    let model = common::model(Purpose::Transcript);
    let transcript = transcribe(&model, samples, Some("en".into())).unwrap();
    let spoken: Vec<(String, f64)> =
        transcript.segments.iter().flat_map(|s| &s.words).map(|w| (wer::normalise(&w.text).join(" "), w.end_ms as f64 / 1e3)).collect();
    let mut delays = Vec::new();
    let mut from = 0;
    let lasts = played.lines.iter().filter(|(_, l)| l.last && l.track == track);
    for (_, last) in lasts {
        let words: Vec<&str> = last.committed.split_whitespace().collect();
        for count in 1..=words.len() {
            let wanted = wer::normalise(&words[..count].join(" "));
            // The first time from which on every update shows at least these words.
            let mut since = None;
            for (at, line) in played.lines.iter().filter(|(_, l)| l.track == track && l.line == last.line) {
                let shows = wer::normalise(&format!("{} {}", line.committed, line.pending)).starts_with(&wanted);
                since = if shows { since.or(Some(*at)) } else { None };
            }
            let word = wer::normalise(words[count - 1]).join(" ");
            let found = spoken[from..].iter().take(8).position(|(w, _)| *w == word);
            if let (Some(at), Some(skip)) = (since, found) {
                from += skip;
                delays.push(at as f64 / 1e6 - spoken[from].1);
                from += 1;
            }
        }
    }
    delays
}

/// From the end of the sound that a caption covers until it is sent, for those with new text: the figure of the ops page.
fn told_delays(played: &Played) -> Vec<f64> {
    let mut shown: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    let mut delays = Vec::new();
    for (at, line) in &played.lines {
        let length = line.committed.len() + line.pending.len();
        let before = shown.insert((line.track, line.line), length).unwrap_or(0);
        if length > before {
            delays.push((at - line.end_us) as f64 / 1e6);
        }
    }
    delays
}

#[test]
fn captions_of_a_meeting_have_the_right_words_and_never_take_one_back() {
    let (tracks, turns) = common::meeting();
    let samples: Vec<Vec<f32>> = tracks.iter().map(|(_, s)| s.clone()).collect();
    for (name, live, slow) in
        [("1 s step", Live::with_step(1), 1.0), ("adaptive", Live::new(), 1.0), ("adaptive, a quarter of a core", Live::new(), 4.0)]
    {
        let played = play(live, &samples, slow);
        assert_stable(&played.lines);
        let (mut wrong, mut all, mut delays) = (0, 0, Vec::new());
        for (n, (speaker, track)) in tracks.iter().enumerate() {
            let text: String = turns.iter().filter(|t| &t.speaker == speaker).map(|t| format!("{} ", t.text)).collect();
            let heard = finals(&played.lines, n);
            let (errors, words) = wer::errors(&text, &heard);
            println!("{speaker}: {errors}/{words} {heard}");
            (wrong, all) = (wrong + errors, all + words);
            delays.extend(shown_delays(&played, n, track));
        }
        let mut told = told_delays(&played);
        println!("{name}: told p50 {:.2} s, p90 {:.2} s ({} captions)", percentile(&mut told, 0.5), percentile(&mut told, 0.9), told.len());
        let rate = wrong as f64 / all as f64;
        println!(
            "{name}: WER {:.1} %, shown p50 {:.2} s, p90 {:.2} s ({} words), {:.2} CPU s for {:.0} s",
            rate * 100.0,
            percentile(&mut delays, 0.5),
            percentile(&mut delays, 0.9),
            delays.len(),
            played.cpu_s,
            played.seconds
        );
        assert!(rate <= 0.10, "{name}: word error rate {rate}");
    }
}

#[test]
fn captions_have_the_names_of_a_vocabulary_and_one_of_another_trade_costs_few_words() {
    for (samples, name) in common::names() {
        let [without, with] = ["", common::VOCABULARY].map(|vocabulary| {
            let played = play_with(Live::new(), std::slice::from_ref(&samples), 1.0, vocabulary);
            assert_stable(&played.lines);
            finals(&played.lines, 0)
        });
        println!("{without}→ {with}");
        assert!(with.contains(name) && !without.contains(name), "{name}: {without}→ {with}");
    }
    let (tracks, turns) = common::meeting();
    let samples: Vec<Vec<f32>> = tracks.iter().map(|(_, s)| s.clone()).collect();
    let played = play_with(Live::new(), &samples, 1.0, common::ANOTHER_VOCABULARY);
    assert_stable(&played.lines);
    let (mut wrong, mut all) = (0, 0);
    for (n, (speaker, _)) in tracks.iter().enumerate() {
        let text: String = turns.iter().filter(|t| &t.speaker == speaker).map(|t| format!("{} ", t.text)).collect();
        let (errors, words) = wer::errors(&text, &finals(&played.lines, n));
        (wrong, all) = (wrong + errors, all + words);
    }
    println!("a vocabulary of another trade: {wrong} of {all} words wrong, {:.2} CPU s for {:.0} s", played.cpu_s, played.seconds);
    assert!(wrong * 10 <= all, "{wrong} of {all}");
}

#[test]
fn noise_has_no_captions() {
    let mut seed = 7_u32;
    let mut white = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let hiss: Vec<f32> = (0..16_000 * 15).map(|_| white() * 0.05).collect();
    let typing: Vec<f32> = (0..16_000 * 15).map(|k| white() * if k % 3_700 < 90 { 0.6 } else { 0.004 }).collect();
    let played = play(Live::new(), &[hiss, typing], 1.0);
    assert!(played.lines.is_empty(), "{:?}", played.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_captions_a_call_over_the_tap() {
    let speech = common::utterances().into_iter().find(|u| u.name == "1089-134686-0000.wav").unwrap();
    let start_us = now_us();
    let mut steps: Vec<Step> = vec![call::opened(start_us), call::participant(start_us, "reader"), call::audio_track(start_us, "reader")]
        .into_iter()
        .map(Step::Item)
        .collect();
    let packets = call::opus_packets(&speech.samples);
    steps.extend(packets.iter().enumerate().map(|(n, p)| Step::Paced(call::audio_packet(start_us, "reader", n, p))));
    steps.push(Step::Hold);
    let mut world = World::start(vec![steps]).await;
    let files = common::model_files();
    let order = CaptionOrder {
        params: CaptionParams { call_id: "call-1".into(), tenant: "t".into(), language: Some("en-US".into()), ..CaptionParams::default() },
        tap: TapOrder {
            url: world.url(),
            call_id: "call-1".into(),
            tenant: "t".into(),
            token: "tap-token".into(),
            selection: Selection::default(),
        },
        model: ModelOrder { path: files.model, sha256: None, vad_path: files.vad, ..ModelOrder::default() },
    };
    world.state.send_modify(|s| s.order_json = serde_json::to_string(&WorkOrder::Caption(order)).unwrap());
    let mut child = world.worker(1).spawn().unwrap();
    // Nobody says how many lines there are; the last one ends where the speech does, after 10 s.
    world.until(|seen| seen.captions.iter().any(|(_, c)| c.r#final && c.end_ms > start_us / 1_000 + 9_000)).await;
    world.until(|seen| seen.stats_json.contains("delay_p50_ms")).await;
    world.state.send_modify(|s| s.stop = true);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let seen = world.seen.lock().unwrap().clone();
    let mut segments: BTreeMap<i64, String> = BTreeMap::new();
    let mut committed: BTreeMap<String, String> = BTreeMap::new();
    for (_, caption) in &seen.captions {
        assert_eq!((caption.identity.as_str(), caption.call_id.as_str(), caption.language.as_str()), ("reader", "call-1", "en"));
        assert!(caption.start_ms >= start_us / 1_000 - 1 && caption.end_ms <= start_us / 1_000 + 12_500, "{caption:?}");
        let before = committed.insert(caption.segment_id.clone(), caption.committed.clone()).unwrap_or_default();
        assert!(caption.committed.starts_with(&before), "{before:?} → {caption:?}");
        if caption.r#final {
            assert!(caption.pending.is_empty());
            segments.insert(caption.start_ms, caption.committed.clone());
        }
    }
    for (_, c) in &seen.captions {
        println!("{:6} {:5} ms late: {} | {}", c.start_ms - start_us / 1_000, c.delay_ms, c.committed, c.pending);
    }
    let heard: String = segments.values().map(|s| format!("{s} ")).collect();
    let (errors, words) = wer::errors(&speech.text, &heard);
    assert!(errors * 100 <= words * 25, "{errors}/{words}: {heard}");
    let finished = seen.finished.unwrap();
    let result: CaptionResult = serde_json::from_str(&finished.result_json).unwrap();
    assert_eq!(result.segments as usize, segments.len());
}
