//! The same with version 2 of the Calls plugin, whose media is in LiveKit rooms: here those of our own rtcd, spoken to by LiveKit's
//! protocol on both sides.

use fake_mattermost::{Fake, Service, Wants};
use livekit_protocol::TrackSource;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::callers::{Caller, send};
use super::common;
use super::people::Talker;
use super::stage::{Stage, eventually, probe};
use super::{first_turn, kill_at_random, said_by, shows_screen_and_camera, words_of, wrong_words};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_a_livekit_room_becomes_one_file_one_transcript_and_captions() {
    let stage = Stage::open_v2().await;
    let channel = stage.fake.channel("Town Square");
    // A proxy is away when the bot asks for its token.
    stage.fake.faults(|faults| faults.token_failures = 2);
    let (tracks, turns) = common::meeting();
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let mut grace = Caller::join(&stage.fake, &channel, "grace-hopper", 1).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: true }).await;
    let started = |id: &str| stage.fake.job(id).is_some_and(|job| job.start_at > 0);
    eventually("both jobs have started", async || started(&asked.recording.id) && started(&asked.transcription.as_ref().unwrap().id)).await;
    assert_eq!(stage.fake.tokens_asked(), 3, "tried again twice, and one visit serves both jobs");
    assert_eq!(stage.fake.sessions(&channel).len(), 3, "one bot beside two people");
    let camera = grace.show(TrackSource::Camera).await;
    let screen = ada.show(TrackSource::ScreenShare).await;
    // Somebody who comes when it has long begun.
    let mut alan = Caller::join(&stage.fake, &channel, "alan-turing", 2).await;
    let mut film = ada.screen_sound().await;
    let half = tracks[0].1.len() / 2;
    let ada_speaks = async {
        ada.say(&tracks[0].1[..half]).await;
        // A browser that changes its microphone publishes another track.
        ada.republish().await;
        ada.say(&tracks[0].1[half..]).await;
    };
    let utterance = common::utterances().swap_remove(0);
    tokio::join!(ada_speaks, grace.say(&tracks[1].1), alan.say(&tracks[2].1), send(&mut film, &utterance.samples));
    eventually("captions of everybody", async || {
        let captions = stage.fake.captions();
        [&ada, &grace, &alan].iter().all(|caller| captions.iter().any(|caption| caption.session_id == caller.session))
    })
    .await;
    // The host ends the call for everybody: `call_ended` here.
    stage.fake.end_call(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    camera.abort();
    screen.abort();

    let posts = stage.fake.posts();
    let kinds: Vec<&str> = posts.iter().map(|post| post.kind).collect();
    assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "each once, in order");
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    assert_eq!(media.name, "Call_Town_Square_2026-11-22_04-05-06.mp4");
    stage.keep("livekit.mp4", &media.bytes);
    // People stand by the site's names for them.
    shows_screen_and_camera(&media.bytes);
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    for (speaker, name) in [("ls27", "Grace Hopper"), ("ls19", "Alan Turing")] {
        let (wrong, words) = wrong_words(&vtt, name, &said_by(&turns, speaker));
        assert!(wrong * 4 < words, "{name}: {wrong} of {words}\n{vtt}");
    }
    // Ada's are her own words, from two tracks, and those of the film that she showed, in whatever order they fell.
    let heard = words_of(&vtt, "Ada Lovelace").to_lowercase();
    for meant in [said_by(&turns, "lj"), utterance.text.clone()] {
        let meant = meant.to_lowercase();
        let words: Vec<&str> = meant.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.len() > 3).collect();
        let there = words.iter().filter(|word| heard.contains(**word)).count();
        println!("{there} of {} long words are there", words.len());
        assert!(there * 4 > words.len() * 3, "{there} of {}\n{meant}\n{heard}", words.len());
    }
    assert!(!vtt.contains("ada-lovelace") && !vtt.contains("Unknown"), "{vtt}");
    let statuses = stage.fake.statuses();
    assert!(statuses.len() == 2 && statuses.iter().all(|status| status.status == "started" && status.answer == 200), "{statuses:?}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_livekit_room_everything_comes_out_once() {
    let (tracks, _) = common::meeting();
    let stage = Stage::open_v2().await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let published = || stage.fake.posts().len() >= 2;
    let (killed, ()) = tokio::join!(kill_at_random(&stage, 11, published), async {
        ada.say(&tracks[0].1[..16_000 * 14]).await;
        // The host stops it: `job_stop`.
        stage.fake.stop_recording(&channel);
        eventually("both posts", async || published()).await;
    });
    stage.idle().await;
    assert!(killed > 0);
    let posts = stage.fake.posts();
    let kinds: Vec<&str> = posts.iter().map(|post| post.kind).collect();
    assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "each once, in order; {killed} killed");
    assert!(probe(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes).contains("h264"));
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    assert!(!words_of(&vtt, "Ada Lovelace").is_empty(), "{vtt}");
    assert!(stage.fake.job(&asked.recording.id).is_some_and(|job| job.err.is_empty()));
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_udp_gets_through_a_livekit_room_is_recorded_over_tcp() {
    let stage = Stage::open_by_tcp(true).await;
    let channel = stage.fake.channel("Town Square");
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (voice, said) = first_turn();
    ada.say(&voice).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    let vtt = String::from_utf8(stage.fake.file(&stage.fake.posts()[1].file_ids[0]).unwrap().bytes).unwrap();
    let (wrong, words) = wrong_words(&vtt, "Ada Lovelace", &said);
    assert!(wrong * 4 < words, "{wrong} of {words}\n{said}\n{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

/// A way to LiveKit that can be cut, for its WebSockets: media goes beside it.
struct Way {
    url: String,
    cut: watch::Sender<u32>,
}

impl Way {
    async fn to(url: &str) -> Self {
        let to = url.trim_start_matches("ws://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let (to, mut cuts) = (to.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { url, cut }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_room_is_entered_again_and_may_be_elsewhere_for_the_bot() {
    let mut stage = Stage::open_v2().await;
    let way = Way::to(&stage.livekit.url).await;
    // `MM_CALLS_RECORDER_LIVEKIT_URL` of the Mattermost server.
    stage.service.extra.push(("livekit_url".to_owned(), way.url.clone()));
    let channel = stage.fake.channel("On Call");
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let mut grace = Caller::join(&stage.fake, &channel, "grace-hopper", 1).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    assert_eq!(stage.fake.tokens_asked(), 1);
    let (tracks, turns) = common::meeting();
    let told = turns.iter().find(|turn| turn.speaker == "lj").unwrap();
    let (from, to) = ((told.start_s * 16_000.0) as usize, (told.end_s * 16_000.0) as usize);
    ada.say(&tracks[0].1[from..to]).await;
    way.cut.send_modify(|cuts| *cuts += 1);
    // Whoever leaves meanwhile is gone afterwards.
    stage.fake.dismiss(&grace.session);
    let sid = grace.sid().await;
    assert!(sid.starts_with("TR_"), "{sid}");
    grace.participant.leave().await.unwrap();
    eventually("another token", async || stage.fake.tokens_asked() >= 2).await;
    eventually("it is back", async || stage.log_has("entering it again")).await;
    // A muted microphone, and what is said when it is back, on the track that was there before.
    let sid = ada.sid().await;
    ada.participant.mute(&sid, true).await.unwrap();
    ada.participant.mute(&sid, false).await.unwrap();
    ada.say(&tracks[0].1[from..to]).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    assert_eq!(posts.len(), 2, "{posts:?}");
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let (wrong, words) = wrong_words(&vtt, "Ada Lovelace", &format!("{} {}", told.text, told.text));
    assert!(wrong * 3 < words, "before and after: {wrong} of {words}\n{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_does_not_take_the_plugins_token_is_told_at_once_with_what_to_look_at() {
    let mut stage = Stage::open_v2().await;
    let channel = stage.fake.channel("Nobody");
    let ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    stage.fake.faults(|faults| faults.wrong_secret = true);
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has failed", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.end_at > 0)).await;
    let status = stage.fake.statuses().remove(0);
    assert_eq!((status.status.as_str(), status.answer), ("failed", 200), "{status:?}");
    assert!(status.error.contains("LiveKitAPISecret") && status.error.contains("401"), "{}", status.error);
    stage.idle().await;
    assert_eq!(stage.fake.sessions(&channel).len(), 1, "no bot is left in the call: {:?}", stage.fake.violations());

    // Nobody listens where the plugin says that LiveKit is.
    stage.fake.faults(|faults| faults.wrong_secret = false);
    stage.service.extra.push(("livekit_url".to_owned(), "ws://127.0.0.1:1".to_owned()));
    let asked = stage.record(&channel, Wants::default()).await;
    eventually("it has failed too", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.end_at > 0)).await;
    let error = stage.fake.job(&asked.recording.id).unwrap().err;
    assert!(error.contains("ws://127.0.0.1:1 cannot be reached") && error.contains("LiveKitURL"), "{error}");
    stage.idle().await;
    assert!(stage.fake.posts().is_empty());
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
    drop(ada);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_offloader_serves_both_versions_of_the_plugin_at_once() {
    let stage = Stage::open().await;
    let second = Fake::start_v2(stage.livekit.clone()).await.unwrap();
    let service = Service::new(&stage.service.url);
    let (first_channel, second_channel) = (stage.fake.channel("Town Square"), second.channel("Town Square"));
    let mut talker = Talker::join(&stage.fake, &first_channel, "ada-lovelace", 0).await;
    let mut caller = Caller::join(&second, &second_channel, "grace-hopper", 1).await;
    let wants = Wants { transcription: true, captions: false };
    let first_asked = stage.record(&first_channel, wants).await;
    let second_asked = second.begin_recording(&second_channel, wants).unwrap();
    second.submit(&service, &second_channel, &second_asked).await.unwrap();
    eventually("both have started", async || {
        let started = |fake: &Fake, id: &str| fake.job(id).is_some_and(|job| job.start_at > 0);
        started(&stage.fake, &first_asked.recording.id) && started(&second, &second_asked.recording.id)
    })
    .await;
    let (tracks, _) = common::meeting();
    tokio::join!(talker.say(&tracks[0].1[..16_000 * 12]), caller.say(&tracks[1].1[..16_000 * 12]));
    stage.fake.stop_recording(&first_channel);
    second.stop_recording(&second_channel);
    eventually("all four posts", async || stage.fake.posts().len() >= 2 && second.posts().len() >= 2).await;
    stage.idle().await;
    for (fake, name) in [(&stage.fake, "Ada Lovelace"), (&second, "Grace Hopper")] {
        let posts = fake.posts();
        let kinds: Vec<&str> = posts.iter().map(|post| post.kind).collect();
        assert_eq!(kinds, ["custom_calls_recording", "custom_calls_transcription"], "{name}");
        assert!(probe(&fake.file(&posts[0].file_ids[0]).unwrap().bytes).contains("h264"), "{name}");
        let vtt = String::from_utf8(fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
        assert!(!words_of(&vtt, name).is_empty(), "{name}: {vtt}");
        assert_eq!(fake.violations(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_site_can_name_nobody_words_have_the_rooms_names() {
    let stage = Stage::open_v2().await;
    let channel = stage.fake.channel("Town Square");
    stage.fake.faults(|faults| faults.profile_failures = u32::MAX);
    let mut ada = Caller::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants { transcription: true, captions: false }).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let (voice, said) = first_turn();
    // What is said while the site is still asked again and again is kept, too.
    ada.say(&voice).await;
    eventually("it is not asked any more", async || stage.log_has("the site cannot say who this is")).await;
    stage.fake.stop_recording(&channel);
    eventually("both posts", async || stage.fake.posts().len() >= 2).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    assert!(probe(&stage.fake.file(&posts[0].file_ids[0]).unwrap().bytes).contains("h264"));
    let vtt = String::from_utf8(stage.fake.file(&posts[1].file_ids[0]).unwrap().bytes).unwrap();
    let (wrong, words) = wrong_words(&vtt, "ada-lovelace", &said);
    assert!(wrong * 4 < words, "{wrong} of {words}\n{said}\n{vtt}");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}
