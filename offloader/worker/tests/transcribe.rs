//! Real speech through the real model: words right, times right, and nothing where nobody spoke.
#![cfg(test)]

mod common;

use common::recording::{Writer, voice};
use common::wer;
use offload_worker::audio::wav;
use offload_worker::recognise::transcribe;
use offload_worker::speech::model::Purpose;
use offload_worker::speech::{Model, Request};
use offload_worker::transcribe::job::transcript;
use offloader_jobs::order::{ModelOrder, TranscribeOrder};

#[test]
fn clean_utterances_have_few_wrong_words() {
    let model = common::model(Purpose::Transcript);
    let (mut wrong, mut all, mut seconds) = (0, 0, 0.0);
    let cpu = common::cpu_seconds();
    for utterance in common::utterances() {
        let transcript = transcribe(&model, &utterance.samples, Some("en".into())).unwrap();
        let heard: String = transcript.segments.iter().map(|s| format!("{} ", s.text)).collect();
        let (errors, words) = wer::errors(&utterance.text, &heard);
        println!("{}: {errors}/{words} {heard}", utterance.name);
        (wrong, all, seconds) = (wrong + errors, all + words, seconds + utterance.samples.len() as f64 / 16_000.0);
    }
    let cpu = common::cpu_seconds() - cpu;
    let rate = wrong as f64 / all as f64;
    println!("{}: WER {:.1} %, {seconds:.0} s in {cpu:.2} CPU s, {:.0} x real time", model.name(), rate * 100.0, seconds / cpu);
    assert!(rate <= 0.08, "word error rate {rate}");
}

/// The linker leads whisper.cpp's calls to our kernels, where this CPU has what they need.
#[cfg(target_arch = "x86_64")]
#[test]
fn whispers_products_and_attention_are_ours_where_the_cpu_has_avx512() {
    let Some(before) = speech_kernels::done() else { return };
    let model = common::model(Purpose::Transcript);
    let opened = speech_kernels::done().unwrap();
    assert!(opened.products > before.products && opened.attentions > before.attentions, "{before:?} {opened:?}");
    let mut recogniser = model.recogniser().unwrap();
    recogniser.hear(&common::utterances()[0].samples, &Request::default()).unwrap();
    let heard = speech_kernels::done().unwrap();
    assert!(heard.products > opened.products && heard.attentions > opened.attentions, "{opened:?} {heard:?}");
}

#[test]
fn voices_that_follow_each_other_in_one_track_are_all_heard() {
    let model = common::model(Purpose::Transcript);
    // As a microphone in a room has them: at most a second between two people.
    let utterances = common::utterances();
    let mut samples = Vec::new();
    for utterance in &utterances {
        samples.extend_from_slice(&utterance.samples);
        samples.extend([0.0; 12_800]);
    }
    let transcript = transcribe(&model, &samples, Some("en".into())).unwrap();
    let said: String = utterances.iter().map(|utterance| format!("{} ", utterance.text)).collect();
    let heard: String = transcript.segments.iter().map(|s| format!("{} ", s.text)).collect();
    let (errors, words) = wer::errors(&said, &heard);
    println!("{}: {errors}/{words} {heard}", model.name());
    assert!(errors * 100 <= words * 8, "{errors} of {words}: {heard}");
    let longest = transcript.segments.iter().flat_map(|s| &s.words).map(|w| w.end_ms - w.start_ms).max().unwrap();
    assert!(longest < 3_000, "a sentence lies in a word of {longest} ms");
}

/// Without an end whisper.cpp's alignment reads beyond its segments, which has killed the process.
#[test]
fn a_decode_that_comes_to_its_bound_ends_all_the_same() {
    let model = common::model(Purpose::Transcript);
    let mut recogniser = model.recogniser().unwrap();
    let mut cut = 0;
    for utterance in common::utterances() {
        // The same half a second again and again: the model goes round as well.
        let round: Vec<f32> = utterance.samples.iter().skip(16_000).take(8_000).cycle().take(16_000 * 6).copied().collect();
        let heard = recogniser.hear(&round, &Request::default()).unwrap();
        println!("{}: looped {}, {} tokens: {}", utterance.name, heard.looped, heard.tokens.len(), heard.text());
        assert!(heard.ended, "{}", utterance.name);
        cut += usize::from(heard.looped);
    }
    assert!(cut > 0, "no decode came to its bound");
}

/// What is said as a whole, without a vocabulary or with one.
fn said(model: &Model, samples: &[f32], vocabulary: &str) -> String {
    let model = model.clone().expecting(&vocabulary.parse().unwrap());
    let transcript = transcribe(&model, samples, Some("en".into())).unwrap();
    transcript.segments.iter().map(|segment| format!("{} ", segment.text)).collect()
}

#[test]
fn names_of_a_vocabulary_are_written_as_they_stand_there() {
    let model = common::model(Purpose::Transcript);
    for (samples, name) in common::names() {
        let (without, with) = (said(&model, &samples, ""), said(&model, &samples, common::VOCABULARY));
        println!("{without}→ {with}");
        assert!(with.contains(name), "{name}: {with}");
        // A bigger model may know it.
        assert!(!without.contains(name) || !model.name().starts_with("tiny"), "{name}: {without}");
    }
}

#[test]
fn a_vocabulary_of_another_trade_costs_no_word() {
    let model = common::model(Purpose::Transcript);
    for utterance in common::utterances() {
        let [without, with] =
            ["", common::ANOTHER_VOCABULARY].map(|vocabulary| wer::normalise(&said(&model, &utterance.samples, vocabulary)));
        assert_eq!(with, without, "{}", utterance.name);
    }
}

/// A vocabulary of which the model has no room for the end: what fits holds.
#[test]
fn the_end_of_a_long_vocabulary_is_left_out() {
    let model = common::model(Purpose::Transcript);
    let [_, (samples, name)] = common::names();
    let many: String = (0..90).map(|n| format!("Quartzbrook {n}, ")).collect();
    assert!(said(&model, &samples, &format!("{}, {many}", common::VOCABULARY)).contains(name));
    assert!(!said(&model, &samples, &format!("{many}{}", common::VOCABULARY)).contains(name), "it stands beyond what fits");
}

#[test]
fn silence_and_noise_give_no_text() {
    let model = common::model(Purpose::Transcript);
    let named = model.clone().expecting(&common::VOCABULARY.parse().unwrap());
    let mut seed = 1_u32;
    let mut white = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let n = 16_000 * 20;
    let silence = vec![0.0; n];
    let hiss: Vec<f32> = (0..n).map(|_| white() * 0.05).collect();
    // Pink by Voss: the sum of sources that change half as often each.
    let mut rows = [0.0_f32; 12];
    let pink: Vec<f32> = (0..n)
        .map(|k| {
            rows[(k as u32 + 1).trailing_zeros().min(11) as usize] = white();
            rows.iter().sum::<f32>() / 12.0
        })
        .collect();
    let hum: Vec<f32> = (0..n).map(|k| (k as f32 * 50.0 * std::f32::consts::TAU / 16_000.0).sin() * 0.2 + white() * 0.002).collect();
    // A tune: harmonic notes, half a second each, with decay.
    let tune: Vec<f32> = (0..n)
        .map(|k| {
            let (note, t) = (k / 8_000, (k % 8_000) as f32 / 16_000.0);
            let pitch = [262.0, 330.0, 392.0, 523.0, 392.0, 330.0][note % 6];
            (1..5).map(|h| (t * pitch * h as f32 * std::f32::consts::TAU).sin() / h as f32).sum::<f32>() * 0.2 * (-3.0 * t).exp()
        })
        .collect();
    // Somebody types: sharp clicks over room noise.
    let typing: Vec<f32> = (0..n).map(|k| white() * if k % 3_700 < 90 { 0.6 } else { 0.004 }).collect();
    for (name, samples) in [("silence", silence), ("white", hiss), ("pink", pink), ("hum", hum), ("tune", tune), ("typing", typing)] {
        for model in [&model, &named] {
            let transcript = transcribe(model, &samples, Some("en".into())).unwrap();
            let texts: Vec<&str> = transcript.segments.iter().map(|s| s.text.as_str()).collect();
            assert!(texts.is_empty(), "{name}: {texts:?}");
        }
        // Where the voice detector is mistaken, the model still does not hear its vocabulary.
        let text = named.recogniser().unwrap().hear(&samples[..16_000 * 6], &Request::default()).unwrap().text();
        assert!(!common::VOCABULARY.split(", ").any(|word| text.contains(word)), "{name}: {text}");
    }
}

#[test]
fn a_meeting_is_heard_speaker_by_speaker_at_the_right_times() {
    let model = common::model(Purpose::Transcript);
    let (tracks, turns) = common::meeting();
    let (mut wrong, mut all) = (0, 0);
    for (speaker, samples) in &tracks {
        let transcript = transcribe(&model, samples, Some("en".into())).unwrap();
        let words: Vec<_> = transcript.segments.iter().flat_map(|s| &s.words).collect();
        for pair in words.windows(2) {
            assert!(pair[0].start_ms <= pair[0].end_ms && pair[0].end_ms <= pair[1].start_ms + 20, "{pair:?}");
        }
        for turn in turns.iter().filter(|t| &t.speaker == speaker) {
            let within: Vec<_> = words
                .iter()
                .filter(|w| w.start_ms as f32 > turn.start_s * 1e3 - 300.0 && (w.end_ms as f32) < turn.end_s * 1e3 + 300.0)
                .collect();
            let heard: String = within.iter().map(|w| format!("{} ", w.text)).collect();
            let (errors, words) = wer::errors(&turn.text, &heard);
            println!("{speaker} {:.2}-{:.2}: {errors}/{words} {heard}", turn.start_s, turn.end_s);
            (wrong, all) = (wrong + errors, all + words);
            // Readers leave at most half a second of silence at either end of an utterance.
            let (first, last) = (within.first().unwrap(), within.last().unwrap());
            println!(
                "   first word {:+.2} s, last word {:+.2} s",
                first.start_ms as f32 / 1e3 - turn.start_s,
                last.end_ms as f32 / 1e3 - turn.end_s
            );
            assert!((first.start_ms as f32 / 1e3 - turn.start_s).abs() < 0.8, "{first:?}");
            assert!((last.end_ms as f32 / 1e3 - turn.end_s).abs() < 0.8, "{last:?}");
        }
    }
    let rate = wrong as f64 / all as f64;
    println!("meeting: WER {:.1} %", rate * 100.0);
    assert!(rate <= 0.10, "word error rate {rate}");
}

#[test]
fn a_track_that_cannot_be_read_costs_nobody_elses_words_and_is_named() {
    const START_US: i64 = 1_795_000_000_000_000;
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tracks, turns) = common::meeting();
    let mut writer = Writer::new(dir.path(), START_US);
    let mut packets = Vec::new();
    for (identity, samples) in &tracks[..2] {
        writer.person(identity, &identity.to_uppercase());
        writer.track(identity, identity, &identity.to_uppercase(), "microphone", "audio/opus");
        packets.extend(voice(identity, START_US, samples));
    }
    let data_key = writer.finish(packets, START_US + 38_000_000).to_hex();
    // A byte of the first one's third piece is another.
    let spoil = |prefix: &str| {
        let segment = dir.path().join("segments").join(format!("{prefix}-1.seg"));
        let mut bytes = std::fs::read(&segment).unwrap_or_else(|error| panic!("{}: {error}", segment.display()));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    };
    spoil("00000-0000002");
    let model = common::model(Purpose::Transcript);
    let order = |last_try| TranscribeOrder {
        recording_id: "rec-1".into(),
        dir: dir.path().into(),
        data_key: data_key.clone(),
        output_dir: out.path().into(),
        language: Some("en".into()),
        model: ModelOrder::default(),
        threads: 0,
        last_try,
        free_bytes_min: 0,
    };
    let error = format!("{:#}", transcript(&order(false), &model, &mut |_| true).unwrap_err());
    assert!(error.contains("LJ") && error.contains("has been changed"), "tried again as long as there are tries: {error}");
    let made = transcript(&order(true), &model, &mut |_| true).unwrap().unwrap();
    let missing: Vec<(&str, bool)> =
        made.missing.iter().map(|track| (track.display_name.as_str(), track.reason.contains("changed"))).collect();
    assert_eq!(missing, [("LJ", true)]);
    assert!((1_000..=4_500).contains(&made.missing[0].from_ms), "it begins before the piece: {:?}", made.missing);
    let wrong = |speaker: &str| {
        let said = turns.iter().filter(|turn| turn.speaker == speaker).map(|turn| turn.text.clone()).collect::<Vec<_>>().join(" ");
        let heard: String = made.segments.iter().filter(|s| s.identity == speaker).map(|s| format!("{} ", s.text)).collect();
        wer::errors(&said, &heard)
    };
    let ((of_other, words), (of_spoilt, all)) = (wrong("ls27"), wrong("lj"));
    assert!(of_other * 5 < words, "the other's words: {of_other} of {words} wrong");
    assert!(of_spoilt * 2 < all, "two seconds of sound are missing, not all of it: {of_spoilt} of {all}");
    // Where nothing at all can be read, there is nothing to publish.
    let pieces: Vec<String> = std::fs::read_dir(dir.path().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches("-1.seg").to_owned())
        .collect();
    pieces.iter().filter(|piece| *piece != "00000-0000002").for_each(|piece| spoil(piece));
    assert!(transcript(&order(true), &model, &mut |_| true).is_err());
}

/// Read by a machine, which Whisper understands better than one would think: of speech by people there is only English here.
fn read_aloud(language: &str, text: &str) -> Vec<f32> {
    let file = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
    let read = std::process::Command::new("espeak-ng").args(["-v", language, "-s", "140", "-w"]).arg(file.path()).arg(text).status();
    assert!(read.unwrap().success(), "espeak-ng reads {language}");
    wav::read_for_speech(file.path()).unwrap()
}

#[test]
fn everybody_is_heard_in_the_language_that_is_spoken() {
    const START_US: i64 = 1_795_000_000_000_000;
    let german = "Ja, guten Morgen. Wir sprechen heute über den neuen Haushalt der Stadt. Die Ausgaben für Schulen und Straßen sind im letzten \
                  Jahr gestiegen, und wir müssen entscheiden, was im Winter geschehen soll.";
    let english = common::utterances().into_iter().find(|utterance| utterance.name == "1089-134686-0000.wav").unwrap();
    // A word that is said in many languages first.
    let anna = [read_aloud("en", "Okay."), vec![0.0; 32_000], read_aloud("de", german)].concat();
    let spoken = [("anna", anna, german), ("carol", english.samples, english.text.as_str())];
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::new(dir.path(), START_US);
    let mut packets = Vec::new();
    for (identity, samples, _) in &spoken {
        writer.person(identity, identity);
        writer.track(identity, identity, identity, "microphone", "audio/opus");
        packets.extend(voice(identity, START_US, samples));
    }
    let data_key = writer.finish(packets, START_US + 20_000_000).to_hex();
    let order = TranscribeOrder {
        recording_id: "rec-1".into(),
        dir: dir.path().into(),
        data_key,
        output_dir: out.path().into(),
        language: None,
        model: ModelOrder::default(),
        threads: 0,
        last_try: false,
        free_bytes_min: 0,
    };
    let model = common::multilingual_model();
    let made = transcript(&order, &model, &mut |_| true).unwrap().unwrap();
    for (identity, _, text) in &spoken {
        let heard: String = made.segments.iter().filter(|s| s.identity == *identity).map(|s| format!("{} ", s.text)).collect();
        let (wrong, words) = wer::errors(text, &heard);
        println!("{identity}: {wrong} of {words} wrong: {heard}");
        assert!(wrong * 2 < words, "{identity}: {heard}");
    }
    assert_eq!(made.language, "de", "the one with the most words");
}

/// Mattermost's client mutes by taking the track from its sender: Chromium then goes on with the next timestamp.
#[test]
fn words_after_a_mute_are_where_they_were_said_though_the_timestamps_do_not_tell_of_it() {
    const START_US: i64 = 1_795_000_000_000_000;
    const MUTED_US: i64 = 20_000_000;
    let spoken = common::utterances().into_iter().find(|utterance| utterance.name == "1089-134686-0000.wav").unwrap();
    let length_us = (spoken.samples.len() / 320) as i64 * 20_000;
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::new(dir.path(), START_US);
    writer.person("anna", "Anna");
    writer.track("anna", "anna", "Anna", "microphone", "audio/opus");
    // The same words twice.
    let mut packets = voice("anna", START_US, &[&spoken.samples[..spoken.samples.len() / 320 * 320], &spoken.samples].concat());
    for timed in packets.iter_mut().filter(|timed| timed.packet.at_us >= START_US + length_us) {
        timed.packet.at_us += MUTED_US;
    }
    let data_key = writer.finish(packets, START_US + 60_000_000).to_hex();
    let order = TranscribeOrder {
        recording_id: "rec-1".into(),
        dir: dir.path().into(),
        data_key,
        output_dir: out.path().into(),
        language: Some("en".into()),
        model: ModelOrder::default(),
        threads: 0,
        last_try: false,
        free_bytes_min: 0,
    };
    let made = transcript(&order, &common::model(Purpose::Transcript), &mut |_| true).unwrap().unwrap();
    let words: Vec<_> = made.segments.iter().flat_map(|segment| &segment.words).collect();
    let again_ms = (length_us + MUTED_US) / 1_000;
    let (first, second): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.start_ms < again_ms - 500);
    assert!(first.iter().all(|word| word.end_ms <= length_us / 1_000 + 200), "{first:?}");
    let said = |words: &[&offloader_jobs::order::TranscriptWord]| words.iter().map(|word| format!("{} ", word.text)).collect::<String>();
    for (heard, from_ms) in [(said(&first), 0), (said(&second), again_ms)] {
        let (wrong, all) = wer::errors(&spoken.text, &heard);
        assert!(wrong * 4 < all, "from {from_ms} ms: {heard}");
    }
}
