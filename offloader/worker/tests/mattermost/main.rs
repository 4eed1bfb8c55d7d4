//! Calls of a Mattermost server, recorded, captioned, transcribed and published by the real programs: rtcd, the offloader and its
//! workers. Only the server itself is played by a stand-in, which enforces what the plugin enforces.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

mod callers;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod people;
mod stage;
mod time;
mod uploads;
mod v2;

use std::time::Duration;

use common::film::{self, Still, still};
use common::wer;
use fake_mattermost::{JobKind, Wants};
use people::{Camera, Screen, Talker};
use stage::{Stage, decoded, eventually, pixel, probe};

/// What a transcript's file says somebody said.
fn words_of(vtt: &str, name: &str) -> String {
    let mark = format!("<v {name}>({name}) ");
    vtt.lines().filter_map(|line| line.strip_prefix(&mark)).collect::<Vec<_>>().join(" ")
}

/// Words wrong, and words said.
fn wrong_words(vtt: &str, name: &str, said: &str) -> (usize, usize) {
    let (wrong, words) = wer::errors(said, &words_of(vtt, name));
    println!("{name}: {wrong} of {words} words wrong");
    (wrong, words)
}

fn said_by(turns: &[common::Turn], speaker: &str) -> String {
    turns.iter().filter(|turn| turn.speaker == speaker).map(|turn| turn.text.clone()).collect::<Vec<_>>().join(" ")
}

/// What is said first in the meeting, and its words.
fn first_turn() -> (Vec<f32>, String) {
    let (mut tracks, turns) = common::meeting();
    let turn = turns.into_iter().find(|turn| turn.speaker == tracks[0].0).unwrap();
    let mut voice = tracks.swap_remove(0).1;
    // And the quiet after it.
    voice.truncate(((turn.end_s + 1.0) * 16_000.0) as usize);
    (voice, turn.text)
}

/// A film of the medium profile. The shared screen is red, the third tile beside it Grace's camera, blue: people stand by their names.
fn shows_screen_and_camera(film: &[u8]) {
    let streams = probe(film);
    assert!(streams.contains("h264") && streams.contains("aac") && streams.contains("\"width\": 1280"), "{streams}");
    let [red, _, _] = pixel(film, 20, 500, 300);
    let [_, _, blue] = pixel(film, 20, 1_140, 390);
    assert!(red > 180 && blue > 180, "{red} {blue}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_becomes_one_file_one_transcript_and_captions_of_one_visit() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let (tracks, turns) = common::meeting();
    let names = ["ada-lovelace", "grace-hopper", "alan-turing"];
    let mut talkers = Vec::new();
    for (n, name) in names.iter().enumerate() {
        talkers.push(Talker::join(&stage.fake, &channel, name, n as u32).await);
    }
    let asked = stage.record(&channel, Wants { transcription: true, captions: true }).await;
    eventually("both jobs have started", async || {
        let started = |id: &str| stage.fake.job(id).is_some_and(|job| job.start_at > 0);
        started(&asked.recording.id) && started(&asked.transcription.as_ref().unwrap().id)
    })
    .await;
    // One visit for all of it.
    let bots = stage.fake.sessions(&channel).len() - talkers.len();
    assert_eq!(bots, 1, "bots in the call");
    let camera = Camera::show(&mut talkers[1]).await;
    let screen = Screen::share(&mut talkers[0]).await;
    let speaking = talkers.iter_mut().zip(&tracks).map(|(talker, (_, samples))| talker.say(samples));
    futures_util::future::join_all(speaking).await;
    screen.stop(&talkers[0]).await;
    drop(camera);
    eventually("captions of everybody", async || {
        let captions = stage.fake.captions();
        talkers.iter().all(|talker| captions.iter().any(|caption| caption.session_id == talker.session))
    })
    .await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    // Whatever else would come, comes now.
    stage.idle().await;

    let posts = stage.fake.posts();
    assert_eq!(posts.len(), 2, "{posts:?}");
    assert_eq!((posts[0].kind, posts[1].kind), ("custom_calls_recording", "custom_calls_transcription"));
    assert_eq!((&posts[0].job_id, &posts[1].job_id), (&asked.recording.id, &asked.transcription.as_ref().unwrap().id));
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    assert_eq!(media.name, "Call_Town_Square_2026-11-22_04-05-06.mp4");
    stage.keep("whole.mp4", &media.bytes);
    shows_screen_and_camera(&media.bytes);

    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let text = stage.fake.file(&posts[1].file_ids[1]).unwrap();
    assert!(vtt.starts_with("WEBVTT\n\n00:00:"), "{vtt}");
    assert_eq!(text.name, "Call_Town_Square_2026-11-22_04-05-06.txt");
    assert_eq!((posts[1].title.as_str(), posts[1].language.as_str()), ("English", "en"));
    for (speaker, name) in [("lj", "Ada Lovelace"), ("ls27", "Grace Hopper"), ("ls19", "Alan Turing")] {
        let said = said_by(&turns, speaker);
        let (wrong, words) = wrong_words(&vtt, name, &said);
        assert!(wrong * 4 < words, "{name}: {wrong} of {words}\n{said}\n{}", words_of(&vtt, name));
    }
    let captions = stage.fake.captions();
    assert!(captions.iter().all(|caption| caption.new_audio_len_ms >= 0.0));
    let statuses = stage.fake.statuses();
    assert!(statuses.len() == 2 && statuses.iter().all(|status| status.status == "started" && status.answer == 200), "{statuses:?}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_udp_gets_through_a_call_is_recorded_over_tcp() {
    let stage = Stage::open_by_tcp(false).await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (voice, said) = first_turn();
    let screen = Screen::share(&mut ada).await;
    ada.say(&voice).await;
    screen.stop(&ada).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    let posts = stage.fake.posts();
    let [red, _, _] = pixel(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes, 2, 500, 300);
    assert!(red > 180, "{red}");
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let (wrong, words) = wrong_words(&vtt, "Ada Lovelace", &said);
    assert!(wrong * 4 < words, "{wrong} of {words}\n{said}\n{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portraits_hosts_hands_and_reactions_of_a_call_are_on_its_picture() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let (ada, grace) = (stage.fake.person("ada-lovelace"), stage.fake.person("grace-hopper"));
    stage.fake.portray(&ada, film::portrait("red"));
    // No picture at all: initials, and the job goes on.
    stage.fake.portray(&grace, b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec());
    let mut ada = Talker::join_as(&stage.fake, &channel, ada, 0).await;
    let grace = Talker::join_as(&stage.fake, &channel, grace, 1).await;
    let asked = stage.record(&channel, Wants::default()).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (tracks, _) = common::meeting();
    ada.say(&tracks[0].1[..16_000 * 2]).await;
    grace.bot.act("raise_hand", serde_json::Value::Null).unwrap();
    let heart = serde_json::json!({ "name": "heart", "unified": "2764-fe0f", "literal": "❤️" }).to_string();
    grace.bot.act("react", serde_json::json!({ "data": heart })).unwrap();
    stage.fake.hand_over(&channel, &grace.person);
    // As long as a reaction stands; then Ada is silent, and mutes.
    ada.say(&tracks[0].1[16_000 * 2..16_000 * 8]).await;
    ada.bot.act("mute", serde_json::Value::Null).unwrap();
    grace.bot.act("unraise_hand", serde_json::Value::Null).unwrap();
    // What comes after it in order has come too, so that is noted.
    let (mut cem, speech) = (Talker::join(&stage.fake, &channel, "cem", 2).await, &tracks[1].1[..16_000 * 4]);
    cem.say(speech).await;
    stage.fake.stop_recording(&channel);
    eventually("the post", async || !stage.fake.posts().is_empty()).await;
    stage.idle().await;

    let media = stage.fake.file(&stage.fake.posts()[0].file_ids[0]).unwrap();
    stage.keep("signals.mp4", &media.bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &media.bytes).unwrap();
    let length: f64 = probe(&media.bytes).split("\"duration\": \"").last().unwrap().split('"').next().unwrap().parse().unwrap();
    let stills: Vec<Still> = (0..length as u32).map(|second| still(file.path(), second as f32 + 0.5)).collect();
    let red = |still: &Still| still.at(322, 280);
    let portrait = stills.iter().filter(|still| red(still)[0] > 200 && red(still)[1] < 60).count();
    assert!(portrait > 5, "Ada's portrait in {portrait} of {length} seconds");
    let seen = |what: &dyn Fn(&Still) -> bool| stills.iter().map(what).collect::<Vec<bool>>();
    let yellow = [0xff, 0xbc, 0x1f];
    let hand = seen(&|still| still.count(1_020..1_092, 188..260, yellow) > 800);
    let (up, down) = (hand.iter().position(|is| *is), hand.iter().rposition(|is| *is));
    assert!(up.is_some_and(|up| up > 0) && down.is_some_and(|down| down + 1 < hand.len()), "Grace's hand is up for a while: {hand:?}");
    let heart = seen(&|still| still.count(640..1_280, 690..720, [0xf0, 0x43, 0x5a]) > 80);
    assert!((2..=5).contains(&heart.iter().filter(|is| **is).count()), "a reaction for some seconds: {heart:?}");
    // Two people in a row: whose name is marked is host.
    let crown = |x: std::ops::Range<usize>| seen(&|still| still.count(x.clone(), 455..485, yellow) > 60);
    let (of_ada, of_grace) = (crown(180..400), crown(820..1_060));
    assert!(of_ada.contains(&true), "who began the call is its host: {of_ada:?}");
    let first = of_grace.iter().position(|is| *is);
    assert!(first.is_some_and(|first| first > 0 && !of_ada[first]), "then Grace is: {of_ada:?} {of_grace:?}");
    let initials = stills[1].count(920..1_000, 290..360, [0xf4, 0xf6, 0xf8]);
    assert!(initials > 100, "Grace's initials, {initials}");
    // At the end there are three of them, Ada in the first tile, and muted.
    let (muted, last) = ([0xe8, 0x5b, 0x6b], stills.last().unwrap());
    assert!(stills[3].count(8..636, 455..485, muted) == 0 && last.count(8..636, 255..300, muted) > 30, "Ada mutes");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sound_of_a_shared_screen_is_heard_and_its_words_are_its_sharers() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let (tracks, turns) = common::meeting();
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let mut grace = Talker::join(&stage.fake, &channel, "grace-hopper", 1).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("both jobs have started", async || {
        let started = |id: &str| stage.fake.job(id).is_some_and(|job| job.start_at > 0);
        started(&asked.recording.id) && started(&asked.transcription.as_ref().unwrap().id)
    })
    .await;
    let screen = Screen::share(&mut ada).await;
    // Grace's microphone is open and silent, Ada says nothing: what is heard is the film that she shows.
    let silence = vec![0.0; tracks[0].1.len()];
    tokio::join!(screen.play(&ada, &tracks[0].1), grace.say(&silence));
    screen.stop(&ada).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;

    let posts = stage.fake.posts();
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let said = turns.iter().filter(|turn| turn.speaker == "lj").map(|turn| turn.text.clone()).collect::<Vec<_>>().join(" ");
    let heard = words_of(&vtt, "Ada Lovelace");
    let (wrong, words) = wer::errors(&said, &heard);
    println!("the screen's sound: {wrong} of {words} words wrong");
    assert!(wrong * 4 < words, "{wrong} of {words}\n{said}\n{heard}");
    assert_eq!(words_of(&vtt, "Grace Hopper"), "", "{vtt}");
    // And it is in the mix, as loud as it was played.
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    stage.keep("screen_sound.mp4", &media.bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &media.bytes).unwrap();
    let loud = film::sound(file.path()).iter().filter(|sample| sample.abs() > 0.05).count();
    let of_speech = tracks[0].1.iter().filter(|sample| sample.abs() > 0.05).count();
    assert!(loud * 10 > of_speech * 8 && loud * 8 < of_speech * 10, "{loud} loud samples in the mix, {of_speech} in what was played");
    // Nobody speaks: a film is no speaker, so nobody has the green frame.
    let length: f64 = probe(&media.bytes).split("\"duration\": \"").last().unwrap().split('"').next().unwrap().parse().unwrap();
    for second in (0..length as u32).step_by(5) {
        assert_eq!(still(file.path(), second as f32).count(1_008..1_272, 0..688, [0x3d, 0xd6, 0x8c]), 0, "at {second} s");
    }
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_on_the_way_costs_no_file_and_makes_no_second_post() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("On Call");
    // Nobody can say who is who for a while.
    stage.fake.faults(|faults| (faults.profile_failures, faults.status_failures, faults.double_stop) = (2, 1, true));
    let mut talker = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (tracks, _) = common::meeting();
    talker.say(&tracks[0].1[..16_000 * 6]).await;
    // Its socket breaks in the middle, and comes back.
    stage.fake.cut_bots();
    talker.say(&tracks[0].1[16_000 * 6..16_000 * 12]).await;
    // Afterwards the session is refused, a proxy is away, bodies break off, little is taken at a time, and no answer comes back.
    stage.fake.faults(|faults| {
        faults.unauthorised = true;
        faults.chunk_cap = Some(60_000);
    });
    stage.fake.stop_recording(&channel);
    eventually("a publication waits for the session", async || stage.log_has("the bot's session is not taken")).await;
    assert!(stage.fake.posts().is_empty());
    stage.fake.faults(|faults| (faults.unauthorised, faults.no_plugin) = (false, true));
    eventually("a publication waits for the plugin", async || stage.log_has("nobody answers for the Calls plugin")).await;
    stage.fake.faults(|faults| {
        (faults.no_plugin, faults.bad_gateway, faults.broken_uploads, faults.lost_answers) = (false, 3, 2, 2);
        faults.unfinished_uploads = 1;
    });
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    let kinds: Vec<&str> = posts.iter().map(|post| post.kind).collect();
    assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "each once, in order");
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    assert!(probe(&media.bytes).contains("h264"));
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    assert!(!words_of(&vtt, "Ada Lovelace").is_empty(), "{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
    // Resumed, not begun anew: each file was announced once.
    assert_eq!(stage.fake.uploads_made(), 3, "{} bytes were sent", stage.fake.upload_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_call_has_its_file_and_no_words() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Quiet Room");
    // Joined, and never said a word: not even a packet of silence.
    let talker = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("both jobs have started", async || {
        let started = |id: &str| stage.fake.job(id).is_some_and(|job| job.start_at > 0);
        started(&asked.recording.id) && started(&asked.transcription.as_ref().unwrap().id)
    })
    .await;
    // All of the file is taken, and no file made of it, however often that is asked for: then it is sent anew.
    stage.fake.faults(|faults| faults.unfinished_uploads = 2);
    stage.fake.stop_recording(&channel);
    eventually("the post", async || !stage.fake.posts().is_empty()).await;
    assert_eq!(stage.fake.uploads_made(), 2);
    eventually("nothing is left of either job", async || stage.log_has("nobody said anything")).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    assert_eq!(posts.len(), 1, "{posts:?}");
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    assert!(probe(&media.bytes).contains("h264"), "who was there is to be seen");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
    drop(talker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_their_name_is_known_is_heard_all_the_same() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (tracks, _) = common::meeting();
    let (ada_says, said) = (&tracks[1].1, &tracks[0].1[..16_000 * 5]);
    let first = ada_says.iter().position(|sample| sample.abs() > 0.05).unwrap();
    ada.say(&ada_says[first..first + 16_000 * 4]).await;
    // Nobody can say who is who for longer than Grace is there.
    stage.fake.faults(|faults| faults.profile_failures = u32::MAX);
    let mut grace = Talker::join(&stage.fake, &channel, "grace-hopper", 1).await;
    grace.say(said).await;
    grace.bot.leave().await.unwrap();
    eventually("nobody knows who that was", async || stage.log_has("the site cannot say who this is")).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes).unwrap();
    let loud = |samples: &[f32]| samples.iter().filter(|sample| sample.abs() > 0.05).count();
    let (heard, said) = (loud(&film::sound(file.path())), loud(&ada_says[first..first + 16_000 * 4]) + loud(said));
    assert!(heard * 10 > said * 7, "{heard} loud samples in the film, {said} were said");
    // Whose name was known has it.
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    for name in ["Ada Lovelace", "Unknown participant"] {
        assert!(!words_of(&vtt, name).is_empty(), "{name}: {vtt}");
    }
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[test]
fn a_disk_that_is_full_for_a_moment_costs_a_call_that_moment() {
    stage::in_own_mounts("full_for_a_moment", 128, 8);
}

/// Run by the test above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_for_a_moment() {
    if std::env::var("TEST_SMALL_DISK_MIB").is_err() {
        return;
    }
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let mut talker = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants::default()).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (tracks, _) = common::meeting();
    talker.say(&tracks[0].1[..16_000 * 5]).await;
    let (data, ballast) = (stage.dir.path().join("data"), stage.dir.path().join("data/ballast"));
    let room = archive::free_bytes(&data).unwrap() - (4 << 20);
    std::fs::write(&ballast, vec![7; room as usize]).unwrap();
    eventually("the recording waits for room", async || stage.log_has("no room")).await;
    std::fs::remove_file(&ballast).unwrap();
    // It goes on in the same session, with what is said from now on.
    let segments = || stage.manifests().matches("\"kind\":\"segment\"").count();
    let before = segments();
    let mut said = 16_000 * 5;
    while segments() < before + 3 {
        assert!(said < 16_000 * 60, "nobody records any more");
        talker.say(&tracks[0].1[..16_000 * 2]).await;
        said += 16_000 * 2;
    }
    assert_eq!(stage.fake.sessions(&channel).len(), 2, "one bot and Ada");
    stage.fake.stop_recording(&channel);
    eventually("the post", async || !stage.fake.posts().is_empty()).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    assert_eq!(posts.len(), 1, "{posts:?}");
    let seconds = decoded(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes);
    assert!(seconds * 16_000.0 > said as f64, "{seconds} s of {} s and a moment", said / 16_000);
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

/// How often a worker of each kind is killed in one call: one time less than its job is given up after.
const DEATHS: [(&str, usize); 5] = [("record", 3), ("transcribe", 2), ("render", 2), ("publish_recording", 4), ("publish_transcript", 4)];

/// Kills workers at moments that a seed decides until the call's posts are there, or as often as may be.
async fn kill_at_random(stage: &Stage, seed: u64, until: impl Fn() -> bool) -> usize {
    let (mut state, mut deaths) = (seed, std::collections::HashMap::<String, usize>::new());
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut killed = 0;
    while !until() {
        tokio::time::sleep(Duration::from_millis(random(900))).await;
        let running = stage.workers();
        let Some((pid, kind)) = running.get(random(running.len().max(1) as u64) as usize) else { continue };
        let most = DEATHS.iter().find(|(name, _)| name == kind).map_or(0, |(_, most)| *most);
        let count = deaths.entry(kind.clone()).or_default();
        if *count < most {
            *count += 1;
            killed += 1;
            rustix::process::kill_process(rustix::process::Pid::from_raw(*pid as i32).unwrap(), rustix::process::Signal::KILL).unwrap();
        }
    }
    killed
}

/// One call in the tests of every day; `KILLS=200` goes on until so many workers have died, `SEED=…` repeats one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_everything_comes_out_once() {
    let wanted: usize = std::env::var("KILLS").map_or(1, |count| count.parse().unwrap());
    let mut seed: u64 = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    let (tracks, _) = common::meeting();
    let mut killed = 0;
    let mut calls = 0;
    while killed < wanted {
        println!("SEED={seed}");
        let stage = Stage::open().await;
        let channel = stage.fake.channel("Town Square");
        let mut talker = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
        let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
        eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
        let published = || stage.fake.posts().len() >= 2;
        let begun = std::time::Instant::now();
        let (count, recorded) = tokio::join!(kill_at_random(&stage, seed, published), async {
            // Each death costs the open segment and the way back; what is said after the last one is there in any case.
            talker.say(&tracks[0].1[..16_000 * 14]).await;
            stage.fake.stop_recording(&channel);
            let recorded = begun.elapsed().as_secs_f64();
            eventually("both posts", async || published()).await;
            recorded
        });
        stage.idle().await;
        let kinds: Vec<&str> = stage.fake.posts().iter().map(|post| post.kind).collect();
        assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "each once, in order; SEED={seed}");
        let posts = stage.fake.posts();
        let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
        assert!(probe(&media.bytes).contains("h264"), "SEED={seed}");
        // All of it plays, and it is as long as the recording was, whoever died meanwhile.
        let seconds = decoded(&media.bytes);
        assert!((13.5..recorded + 3.0).contains(&seconds), "SEED={seed}: {seconds} s of {recorded} s");
        let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
        assert!(!words_of(&vtt, "Ada Lovelace").is_empty(), "SEED={seed}: {vtt}");
        assert_eq!(stage.fake.violations(), Vec::<String>::new(), "SEED={seed}");
        (killed, seed, calls) = (killed + count, seed.wrapping_add(1), calls + 1);
    }
    println!("{killed} workers killed in {calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_cannot_begin_says_so_at_once() {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Nobody");
    let talker = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.ask(&channel, Wants::default());
    // Stopped before the bot comes: the guard of consent lets it in no more.
    stage.fake.stop_recording(&channel);
    stage.submit(&channel, &asked).await;
    eventually("the job has ended", async || stage.log_has("job finished")).await;
    stage.idle().await;
    assert!(stage.fake.posts().is_empty());
    assert_eq!(stage.fake.sessions(&channel).len(), 1, "no bot is left in the call");
    let job = stage.fake.job(&asked.recording.id).unwrap();
    assert_eq!((job.kind, job.start_at), (JobKind::Recording, 0));
    drop(talker);
}
