//! Programs that are told to end while a call goes on, and a site that is not there any more.

use std::collections::HashSet;

use fake_mattermost::{Asked, Wants};
use rustix::process::Signal;

use super::callers::Caller;
use super::people::Talker;
use super::stage::{Stage, decoded, eventually, process};
use super::{common, words_of};

const WORDS: Wants = Wants { transcription: true, captions: false };

/// One of the utterances, by its file's name.
fn utterance(name: &str) -> Vec<f32> {
    common::utterances().into_iter().find(|one| one.name == name).unwrap().samples
}

/// Utterances, and of each a few words that every model knows.
const KENNEDY: (&str, [&str; 3]) = ("jfk.wav", ["fellow", "americans", "country"]);
const DAY: (&str, [&str; 3]) = ("27-124992-0003.wav", ["day", "first", "month"]);
const PRINT: (&str, [&str; 3]) = ("LJ001-0003.wav", ["chinese", "wood", "centuries"]);

/// Both have come out once, whole, and the transcript has these words of Ada's in this order. The film's length in seconds.
fn came_out_once(stage: &Stage, said: &[(&str, [&str; 3])]) -> f64 {
    let posts = stage.fake.posts();
    let kinds: Vec<&str> = posts.iter().map(|post| post.kind).collect();
    assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "each once, in order");
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let heard = words_of(&vtt, "Ada Lovelace").to_lowercase();
    let mut rest = heard.as_str();
    for word in said.iter().flat_map(|(_, words)| words) {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word} is missing, or not in its place\n{vtt}"));
        rest = &rest[at..];
    }
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
    decoded(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes)
}

pub(super) async fn started(stage: &Stage, asked: &Asked) {
    eventually("both jobs have started", async || {
        let started = |id: &str| stage.fake.job(id).is_some_and(|job| job.start_at > 0);
        started(&asked.recording.id) && started(&asked.transcription.as_ref().unwrap().id)
    })
    .await;
}

/// A channel's call that is recorded, with Ada in it.
async fn recorded(stage: &Stage) -> (String, Talker, Asked) {
    let channel = stage.fake.channel("Town Square");
    let ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, WORDS).await;
    started(stage, &asked).await;
    (channel, ada, asked)
}

/// Ada is silent until what she sends lies on the disk.
async fn until_recorded(stage: &Stage, ada: &mut Talker) {
    let segments = || stage.manifests().matches("\"kind\":\"segment\"").count();
    let before = segments();
    for _ in 0..120 {
        ada.say(&[0.0; 16_000]).await;
        if segments() > before + 1 {
            return;
        }
    }
    panic!("nobody records any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_offloader_told_to_end_in_a_call_are_followed_by_others_in_the_same_visit() {
    let mut stage = Stage::open().await;
    let (channel, mut ada, asked) = recorded(&stage).await;
    let begun = std::time::Instant::now();
    ada.say(&utterance(PRINT.0)).await;
    stage.signal("record", Signal::TERM).await;
    eventually("it has put the recording down", async || stage.log_has("put down for the next worker")).await;
    until_recorded(&stage, &mut ada).await;
    ada.say(&utterance(KENNEDY.0)).await;
    stage.restart().await;
    until_recorded(&stage, &mut ada).await;
    ada.say(&utterance(DAY.0)).await;
    assert_eq!(stage.fake.sessions(&channel).len(), 2, "one bot and Ada");
    assert_eq!(stage.fake.job(&asked.recording.id).unwrap().end_at, 0, "for the plugin it is the same job all along");
    let recorded = begun.elapsed().as_secs_f64();
    stage.fake.stop_recording(&channel);
    // And the first of each kind that makes something of it.
    let mut told = HashSet::new();
    eventually("both posts", async || {
        for (pid, kind) in stage.workers() {
            if told.insert(kind) {
                // It may have ended just now.
                let _ = rustix::process::kill_process(process(pid), Signal::TERM);
            }
        }
        stage.fake.posts().len() >= 2
    })
    .await;
    assert!(told.contains("render") && told.contains("transcribe"), "{told:?}");
    stage.idle().await;
    let seconds = came_out_once(&stage, &[PRINT, KENNEDY, DAY]);
    // What was missed meanwhile is a gap, not a cut.
    assert!((recorded - 1.0..recorded + 3.0).contains(&seconds), "{seconds} s of {recorded} s");
    let statuses = stage.fake.statuses();
    assert!(statuses.len() == 2 && statuses.iter().all(|status| status.status == "started" && status.answer == 200), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_whose_socket_does_not_come_back_has_what_was_said_until_its_plugin_ended_the_visit() {
    let stage = Stage::open().await;
    let (channel, mut ada, _) = recorded(&stage).await;
    ada.say(&utterance(KENNEDY.0)).await;
    stage.fake.faults(|faults| faults.no_websockets = true);
    stage.fake.cut_bots();
    // The plugin waits for ten seconds, then it takes the bot out of the call, and rtcd its media.
    ada.say(&utterance(DAY.0)).await;
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    came_out_once(&stage, &[KENNEDY, DAY]);
    assert_eq!(stage.fake.sessions(&channel).len(), 1, "Ada alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_room_goes_on_a_lost_socket_is_tried_for_half_a_minute_and_recorded_that_long() {
    let stage = Stage::open_v2().await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, WORDS).await;
    started(&stage, &asked).await;
    let begun = std::time::Instant::now();
    ada.say(&utterance(KENNEDY.0)).await;
    stage.fake.faults(|faults| faults.no_websockets = true);
    stage.fake.cut_bots();
    let cut = begun.elapsed().as_secs_f64();
    // For the plugin the visit is over; LiveKit knows nothing of that.
    eventually("the plugin gives the bot up", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.end_at > 0)).await;
    ada.say(&utterance(DAY.0)).await;
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let seconds = came_out_once(&stage, &[KENNEDY, DAY]);
    assert!(seconds > cut + 28.0, "{seconds} s, the socket was lost after {cut}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_stopped_while_its_bot_was_away_is_over_when_it_is_back() {
    let stage = Stage::open().await;
    let (channel, mut ada, _) = recorded(&stage).await;
    ada.say(&utterance(KENNEDY.0)).await;
    stage.fake.faults(|faults| faults.no_websockets = true);
    stage.fake.cut_bots();
    // `job_stop` reaches nobody, and what is told of jobs later is of those that still are, or ended just now.
    stage.fake.stop_recording(&channel);
    ada.say(&[0.0; 16_000 * 2]).await;
    stage.fake.faults(|faults| faults.no_websockets = false);
    // The call goes on.
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    came_out_once(&stage, &[KENNEDY]);
    assert_eq!(stage.fake.sessions(&channel).len(), 1, "Ada alone");
}
