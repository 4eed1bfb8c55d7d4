//! Calls of Mattermost's clients with media on the wire: a Mattermost server of tests is the plugin, the clients are ones whose WebRTC
//! stack shares no line with ours.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "each waits for one kind of event")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::mattermost::Site;
use common::soon;
use fake_mattermost::{Fake, JobKind, Person, Wants};
use rtc_client::ClientError;
use rtc_client::mattermost::{
    Address, Bot, BotDial, Codec, Event, JobStatus, JobType, MediaState, Publication, Site as Routes, TrackInfo, TrackKind, UserChange,
};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

/// Between packets.
const PACE: Duration = Duration::from_millis(10);
/// The start of a VP8 key frame of 16 by 16, after the payload descriptor.
const KEY_FRAME: [u8; 11] = [0x10, 0x10, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];

/// The address of an rtcd that runs already, to see what the same clients find there: Mattermost's own, say.
const OTHER: &str = "TEST_RTCD_URL";

/// An rtcd, a Mattermost server and a channel.
struct Place {
    fake: Fake,
    channel: String,
    /// None: another one is looked at, see [`OTHER`].
    site: Option<Site>,
}

impl Place {
    async fn open() -> Self {
        Self::open_under("").await
    }

    async fn open_under(path: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (site, url) = match std::env::var(OTHER) {
            Ok(url) => (None, url),
            Err(_) => {
                let site = Site::open().await;
                let url = format!("http://{}", site.program.http());
                (Some(site), url)
            }
        };
        let fake = Fake::start_under(&url, path).await.expect("the site starts");
        let channel = fake.channel("town-square");
        Self { fake, channel, site }
    }

    fn dial(&self, token: &str, dc_signaling: bool) -> BotDial {
        BotDial {
            address: Address { site_url: self.fake.url.clone(), token: token.to_owned(), ca_file: None },
            channel_id: self.channel.clone(),
            job_id: None,
            resume: None,
            local: "127.0.0.1".to_owned(),
            livekit_url: None,
            pictures: true,
            av1: false,
            dc_signaling,
        }
    }

    /// A person's client, with media.
    async fn comes(&self, name: &str, dc_signaling: bool) -> Client {
        let person = self.fake.person(name);
        Client::joined(self.dial(&person.token, dc_signaling), Some(person)).await
    }

    /// How often viewers have asked for a key frame, as far as it is written down.
    async fn key_frames_wanted(&self) -> u64 {
        let Some(site) = &self.site else { return u64::MAX };
        let (_, page) = site.program.get("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix("conclave_rtcd_core_total{name=\"key_frames_wanted\"} "));
        line.map_or(0, |count| count.parse().expect("a number"))
    }

    fn is_kept(&self) {
        assert_eq!(self.fake.violations(), Vec::<String>::new());
    }
}

/// Somebody in a call.
struct Client {
    bot: Bot,
    events: Receiver<Event>,
    person: Option<Person>,
    session: String,
}

impl Client {
    async fn joined(dial: BotDial, person: Option<Person>) -> Self {
        let (bot, events) = soon("a join", Bot::join(dial)).await.expect("joins");
        let session = bot.ids().original_conn_id;
        let mut client = Self { bot, events, person, session };
        client.until("media", |event| matches!(event, Event::Media(MediaState::Connected)).then_some(())).await;
        client
    }

    /// The first event of interest; those before are passed over.
    async fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let event = self.events.recv().await.unwrap_or_else(|| panic!("the call ended before {what}"));
                if let Event::Lost { reason } = &event {
                    panic!("{reason}, before {what}");
                }
                if let Some(found) = found(&event) {
                    return found;
                }
            }
        })
        .await
    }

    async fn track(&mut self, kind: TrackKind, session: &str) -> TrackInfo {
        self.until(&format!("{kind:?} of {session}"), |event| match event {
            Event::Track(info) if info.kind == kind && info.session_id == session => Some(info.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for a packet of a track, and gives its payload.
    async fn packet(&mut self, track: &Arc<str>) -> Bytes {
        self.until(&format!("a packet of {track}"), |event| match event {
            Event::Rtp { track_id, packet, arrived_us } if track_id == track => {
                assert!(*arrived_us > 1_600_000_000_000_000, "Unix time in microseconds");
                Some(packet.payload.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until each of these tracks was told of and has brought a packet.
    async fn all_flow(&mut self, expected: &[(TrackKind, &str)]) {
        let expected: HashSet<(TrackKind, String)> = expected.iter().map(|(kind, session)| (*kind, (*session).to_owned())).collect();
        let (mut told, mut flowing) = (HashSet::new(), HashSet::new());
        self.until(&format!("packets of {expected:?}"), |event| {
            match event {
                Event::Track(info) => drop(told.insert((info.kind, info.session_id.clone()))),
                Event::Rtp { track_id, .. } => drop(flowing.insert(Arc::clone(track_id))),
                _ => {}
            }
            (flowing.len() == expected.len()).then_some(())
        })
        .await;
        assert_eq!(told, expected);
    }

    async fn user(&mut self, change: UserChange, session: &str) {
        self.until(&format!("{change:?} of {session}"), |event| match event {
            Event::User { change: what, session_id, .. } if *what == change && session_id == session => Some(()),
            _ => None,
        })
        .await;
    }

    /// A microphone, unmuted as the page does it.
    async fn speaks(&self, ssrc: u32) -> Talk {
        let stream = format!("mic-{ssrc}");
        let voice = soon("an agreed microphone", self.bot.publish(&stream, Codec::Opus, ssrc)).await.expect("is agreed");
        self.bot.act("unmute", Value::Null).expect("goes on");
        Talk::new(voice)
    }

    async fn shows(&self, stream: &str, ssrc: u32) -> Talk {
        Talk::new(soon("an agreed picture", self.bot.publish(stream, Codec::Vp8, ssrc)).await.expect("is agreed"))
    }
}

/// Sends numbered packets, in a task of its own, until it is dropped.
struct Talk {
    task: tokio::task::JoinHandle<Publication>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Talk {
    fn new(mut publication: Publication) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut number = 0_u32;
            while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                // The loudness of speech changes; pictures have none.
                let (start, clock, level): (&[u8], _, _) = match publication.codec() {
                    Codec::Opus => (&[0x48], 960, Some(if number % 8 < 4 { 20 } else { 80 })),
                    Codec::Vp8 => (&KEY_FRAME, 900, None),
                };
                let (payload, timestamp) = ([start, &number.to_be_bytes()].concat(), number.wrapping_mul(clock));
                publication.send(payload.into(), timestamp, true, level).await.expect("sends");
                number += 1;
                tokio::time::sleep(PACE).await;
            }
            publication
        });
        Self { task, stop: Some(stop) }
    }

    /// What was being sent.
    async fn ends(mut self) -> Publication {
        drop(self.stop.take());
        (&mut self.task).await.expect("no panic")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn named(track: &(TrackKind, String)) -> (TrackKind, &str) {
    (track.0, &track.1)
}

fn number(payload: &Bytes) -> u32 {
    let tail = payload.last_chunk().expect("a number at its end");
    u32::from_be_bytes(*tail)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voices_travel_both_ways_and_a_mute_is_silence() {
    let place = Place::open().await;
    // One is offered over the data channel, the other through the site.
    let mut ann = place.comes("ann", true).await;
    let mut ben = place.comes("ben", false).await;
    let of_ann = ann.speaks(1001).await;
    let heard = ben.track(TrackKind::Voice, &ann.session).await;
    assert_eq!((heard.mime.as_str(), heard.clock_rate, heard.channels), ("audio/opus", 48_000, 2));
    assert!(heard.fmtp.contains("useinbandfec=1"), "{heard:?}");
    ben.packet(&heard.track_id).await;
    ben.user(UserChange::VoiceOn, &ann.session).await;
    let _of_ben = ben.speaks(1002).await;
    let back = ann.track(TrackKind::Voice, &ben.session).await;
    ann.packet(&back.track_id).await;

    // Muted while it goes on sending: a second's worth of packets has to be missing in what comes after the unmute.
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        let before = number(&ben.packet(&heard.track_id).await);
        ann.bot.act("mute", Value::Null).expect("goes on");
        ben.user(UserChange::Muted, &ann.session).await;
        tokio::time::sleep(PACE * 150).await;
        ann.bot.act("unmute", Value::Null).expect("goes on");
        let mut last = before;
        let silence = ben
            .until("sound after the unmute", |event| match event {
                Event::Rtp { track_id, packet, .. } if *track_id == heard.track_id => {
                    let gap = number(&packet.payload) - std::mem::replace(&mut last, number(&packet.payload));
                    // Either way: all that was sent while muted has come, or a piece of it is missing.
                    (gap > 50 || last > before + 300).then_some(gap > 50)
                }
                _ => None,
            })
            .await;
        if silence {
            break;
        }
        assert!(Instant::now() < deadline, "a muted voice is still heard");
    }
    of_ann.ends().await;
    ann.bot.leave().await.expect("leaves");
    ben.until("the end of ann's voice", |event| match event {
        Event::TrackEnded { track_id } if *track_id == heard.track_id => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(ben.bot.dropped(), 0);
    place.is_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_gets_everything_in_fewer_offers_than_tracks() {
    let place = Place::open_under("/chat").await;
    let mut ann = place.comes("ann", true).await;
    let mut ben = place.comes("ben", true).await;
    let _voices = (ann.speaks(2001).await, ben.speaks(2002).await);
    ann.bot.announce_screen("ann-screen").expect("goes on");
    let _screen = ann.shows("ann-screen", 2003).await;
    let _screen_sound = Talk::new(soon("a sound", ann.bot.publish("ann-screen", Codec::Opus, 2004)).await.expect("is agreed"));
    let _camera = ben.shows("ben-camera", 2005).await;
    ben.bot.announce_video("ben-camera").expect("goes on");
    let of_ann = [TrackKind::Voice, TrackKind::Screen, TrackKind::ScreenAudio].map(|kind| (kind, ann.session.clone()));
    let of_ben = [TrackKind::Voice, TrackKind::Video].map(|kind| (kind, ben.session.clone()));
    let (of_ann, of_ben) = (of_ann.each_ref().map(named), of_ben.each_ref().map(named));
    ann.all_flow(&of_ben).await;
    ben.all_flow(&of_ann).await;

    let mut late = place.comes("cem", true).await;
    late.all_flow(&[&of_ann[..], &of_ben].concat()).await;
    // The first brings what is chosen first, the next all that was chosen meanwhile.
    assert!((1..5).contains(&late.bot.node_offers()), "{} offers", late.bot.node_offers());
    place.is_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_screen_at_a_time_and_another_takes_its_place() {
    let place = Place::open().await;
    let mut ann = place.comes("ann", true).await;
    let mut ben = place.comes("ben", true).await;
    let mut cem = place.comes("cem", false).await;
    ann.bot.announce_screen("ann-screen").expect("goes on");
    let of_ann = ann.shows("ann-screen", 3001).await;
    let screen = cem.track(TrackKind::Screen, &ann.session).await;
    assert_eq!(screen.mime, "video/VP8");
    cem.packet(&screen.track_id).await;
    ben.track(TrackKind::Screen, &ann.session).await;

    // Two viewers have asked by themselves; what is asked for besides reaches the node too.
    for _ in 0..5 {
        cem.bot.request_key_frame(&screen.track_id).expect("goes on");
    }
    soon("the wishes for key frames", async {
        while place.key_frames_wanted().await < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;

    // Ben's pictures are nobody's while ann has the screen.
    ben.bot.announce_screen("ben-screen").expect("goes on");
    let of_ben = ben.shows("ben-screen", 3002).await;
    ann.bot.act("screen_off", Value::Null).expect("goes on");
    cem.until("the end of ann's screen", |event| match event {
        Event::TrackEnded { track_id } => {
            assert_eq!(*track_id, screen.track_id);
            Some(())
        }
        Event::Track(info) => panic!("a second screen: {info:?}"),
        _ => None,
    })
    .await;
    ann.bot.unpublish(of_ann.ends().await).await.expect("is agreed");
    ben.user(UserChange::ScreenOff, &ann.session).await;
    ben.bot.announce_screen("ben-screen").expect("goes on");
    let next = cem.track(TrackKind::Screen, &ben.session).await;
    cem.packet(&next.track_id).await;
    ann.track(TrackKind::Screen, &ben.session).await;
    drop(of_ben);
    place.is_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sites_bot_comes_for_its_job_and_does_it() {
    let place = Place::open().await;
    let ann = place.comes("ann", true).await;
    let _voice = ann.speaks(4001).await;
    let asked = place.fake.begin_recording(&place.channel, Wants { transcription: true, captions: true }).expect("a call");
    let job = &asked.recording;
    assert_eq!(job.kind, JobKind::Recording);

    let mut bot = Client::joined(BotDial { job_id: Some(job.id.clone()), ..place.dial(&job.auth_token, false) }, None).await;
    let voice = bot.track(TrackKind::Voice, &ann.session).await;
    bot.packet(&voice.track_id).await;
    let routes = Routes::new(&place.dial(&job.auth_token, false).address).expect("an address");
    let profile = routes.profile(&place.channel, &ann.session).await.expect("is in the call");
    let person = ann.person.as_ref().expect("a person");
    assert_eq!((profile.user_id.as_str(), profile.display_name()), (person.id.as_str(), person.full_name.as_str()));
    routes.status(&place.channel, &job.id, JobType::Recording, &JobStatus::Started).await.expect("taken");
    let started = bot
        .until("its job's start", |event| match event {
            Event::JobState(state) if state.job_type == Some(JobType::Recording) && state.start_at > 0 => Some(state.clone()),
            _ => None,
        })
        .await;
    assert!(started.init_at > 0 && started.end_at == 0, "{started:?}");
    // Captions stand with the words.
    let words = &asked.transcription.as_ref().expect("wanted").id;
    routes.status(&place.channel, words, JobType::Transcribing, &JobStatus::Started).await.expect("taken");
    bot.until("the captions' start", |event| match event {
        Event::JobState(state) if state.job_type == Some(JobType::Captioning) && state.start_at > 0 => Some(()),
        _ => None,
    })
    .await;

    bot.bot.caption(&ann.session, "good morning", 1_980.0).expect("goes on");
    bot.bot.metric(&ann.session, "live_captions_window_dropped").expect("goes on");
    let said = bot
        .until("the caption, as people see it", |event| match event {
            Event::Caption { session_id, text } => Some((session_id.clone(), text.clone())),
            _ => None,
        })
        .await;
    assert_eq!(said, (ann.session.clone(), "good morning".to_owned()));

    // Nobody comes for a job that is under way.
    let again = Bot::join(BotDial { job_id: Some(job.id.clone()), ..place.dial(&job.auth_token, false) }).await;
    assert!(matches!(again, Err(ClientError::Refused(why)) if why.contains("not in progress")));
    assert_eq!(place.fake.violations().len(), 1, "which is what the plugin guards against");

    place.fake.stop_recording(&place.channel);
    let stopped = bot
        .until("the word to stop", |event| match event {
            Event::JobStop { job_id } => Some(job_id.clone()),
            _ => None,
        })
        .await;
    assert_eq!(stopped, job.id);
    bot.bot.leave().await.expect("leaves");
    assert_eq!(place.fake.metrics(), [(ann.session.clone(), "live_captions_window_dropped".to_owned())]);
    assert_eq!(place.fake.captions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_goes_on_while_the_sites_websocket_is_another() {
    let place = Place::open().await;
    let ann = place.comes("ann", true).await;
    let _voice = ann.speaks(5001).await;
    let asked = place.fake.begin_recording(&place.channel, Wants::default()).expect("a call");
    let job = &asked.recording;
    let mut bot = Client::joined(BotDial { job_id: Some(job.id.clone()), ..place.dial(&job.auth_token, false) }, None).await;
    let voice = bot.track(TrackKind::Voice, &ann.session).await;
    bot.packet(&voice.track_id).await;
    let before = bot.bot.ids();
    place.fake.cut_bots();
    let after = bot
        .until("another WebSocket", |event| match event {
            Event::Ids(ids) => Some(ids.clone()),
            _ => None,
        })
        .await;
    assert_eq!((&after.original_conn_id, &after), (&before.original_conn_id, &bot.bot.ids()));
    assert_ne!(after.conn_id, before.conn_id);
    bot.packet(&voice.track_id).await;
    // Signalling reaches us over it: what comes now is offered through the site.
    let ben = place.comes("ben", true).await;
    let _of_ben = ben.speaks(5002).await;
    let second = bot.track(TrackKind::Voice, &ben.session).await;
    bot.packet(&second.track_id).await;
    assert_eq!(place.fake.sessions(&place.channel).len(), 3);
    place.is_kept();
    place.fake.end_call(&place.channel);
    bot.until("the end", |event| matches!(event, Event::CallEnded).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_of_a_killed_process_is_taken_over_by_another() {
    let place = Place::open().await;
    let mut ann = place.comes("ann", true).await;
    let _voice = ann.speaks(6001).await;
    let asked = place.fake.begin_recording(&place.channel, Wants::default()).expect("a call");
    let job = &asked.recording;
    let dial = BotDial { job_id: Some(job.id.clone()), ..place.dial(&job.auth_token, true) };
    // A process of its own, as far as its sockets go: they close without a word.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let killed = dial.clone();
    let first = process.spawn(async move {
        let bot = Client::joined(killed, None).await;
        (bot.bot.ids(), bot)
    });
    let (ids, bot) = soon("a bot", first).await.expect("no panic");
    process.shutdown_background();
    drop(bot);

    let mut second = Client::joined(BotDial { resume: Some(ids.clone()), ..dial }, None).await;
    assert_eq!(second.session, ids.original_conn_id);
    assert_ne!(second.bot.ids().conn_id, ids.conn_id);
    let voice = second.track(TrackKind::Voice, &ann.session).await;
    second.packet(&voice.track_id).await;
    assert_eq!(place.fake.sessions(&place.channel).len(), 2);
    assert_eq!(place.fake.job(&job.id).map(|job| job.end_at), Some(0), "the job goes on");
    // What comes from now on comes to it too.
    ann.bot.announce_screen("ann-screen").expect("goes on");
    let _screen = ann.shows("ann-screen", 6002).await;
    let screen = second.track(TrackKind::Screen, &ann.session).await;
    second.packet(&screen.track_id).await;
    second.bot.leave().await.expect("leaves");
    place.is_kept();
    ann.events.close();
}
