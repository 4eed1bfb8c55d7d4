//! People in a call, as their pages would be there.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fake_mattermost::{Fake, Person};
use rtc_client::mattermost::{Address, Bot, BotDial, Codec, Event, MediaState, Publication};

use super::common::{call, recording};

/// Somebody with a microphone.
pub(crate) struct Talker {
    pub(crate) bot: Bot,
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) person: Person,
    pub(crate) session: String,
    voice: Publication,
    timestamp: u32,
}

impl Talker {
    /// Joins and unmutes.
    pub(crate) async fn join(fake: &Fake, channel: &str, name: &str, number: u32) -> Self {
        Self::join_as(fake, channel, fake.person(name), number).await
    }

    /// The same for somebody who is known already.
    pub(crate) async fn join_as(fake: &Fake, channel: &str, person: Person, number: u32) -> Self {
        let name = &person.username;
        let dial = BotDial {
            address: Address { site_url: fake.url.clone(), token: person.token.clone(), ca_file: None },
            channel_id: channel.to_owned(),
            job_id: None,
            resume: None,
            local: "127.0.0.1".to_owned(),
            livekit_url: None,
            pictures: true,
            av1: false,
            dc_signaling: true,
        };
        let (bot, mut events) = Bot::join(dial).await.expect("joins");
        let connected = async {
            while let Some(event) = events.recv().await {
                if matches!(event, Event::Media(MediaState::Connected)) {
                    return;
                }
            }
            panic!("{name} lost the call");
        };
        tokio::time::timeout(Duration::from_secs(120), connected).await.expect("media");
        // Nobody listens here.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let session = bot.ids().original_conn_id;
        let voice = bot.publish(&format!("mic{number}"), Codec::Opus, 0x1000 + number).await.expect("a microphone");
        bot.act("unmute", serde_json::Value::Null).expect("unmuted");
        Self { bot, person, session, voice, timestamp: 0 }
    }

    /// Says it at the pace of speech. Samples at 16 kHz. Tells when each 20 ms of it left.
    pub(crate) async fn say(&mut self, samples: &[f32]) -> Vec<Instant> {
        play(&mut self.voice, &mut self.timestamp, samples).await
    }
}

async fn play(track: &mut Publication, timestamp: &mut u32, samples: &[f32]) -> Vec<Instant> {
    let packets = call::opus_packets(samples);
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    // A busy machine makes speech slower, never faster.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent = Vec::with_capacity(packets.len());
    for packet in packets {
        pace.tick().await;
        track.send(Bytes::from(packet), *timestamp, false, Some(30)).await.expect("sent");
        sent.push(Instant::now());
        *timestamp = timestamp.wrapping_add(960);
    }
    sent
}

/// A track of pictures.
pub(crate) struct Pictures {
    sending: tokio::task::JoinHandle<Publication>,
    stop: tokio_util::sync::CancellationToken,
}

impl Pictures {
    fn send(mut track: Publication, pictures: Vec<recording::Timed>) -> Self {
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let sending = tokio::spawn(async move {
            // The same two seconds again and again: every round begins with a key frame.
            let (mut base, mut number) = (0_u32, 0_u16);
            loop {
                let (started, first) = (tokio::time::Instant::now(), pictures[0].packet.at_us);
                for timed in &pictures {
                    let packet = &timed.packet;
                    let at = started + Duration::from_micros((packet.at_us - first).unsigned_abs());
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = stopped.cancelled() => return track,
                    }
                    let timestamp = base.wrapping_add(packet.timestamp as u32);
                    if track.send(numbered(&packet.payload, number), timestamp, packet.marker, None).await.is_err() {
                        return track;
                    }
                    number = number.wrapping_add(u16::from(packet.marker));
                }
                base = base.wrapping_add(2 * 90_000);
            }
        });
        Self { sending, stop }
    }

    async fn stop(self) -> Publication {
        self.stop.cancel();
        self.sending.await.expect("sent")
    }
}

/// A VP8 payload whose descriptor has that picture ID (15 bits, RFC 7741 §4.2): browsers take one number twice for one picture.
fn numbered(payload: &Bytes, number: u16) -> Bytes {
    let mut bytes = payload.to_vec();
    assert!(bytes[0] & 0x80 != 0 && bytes[1] & 0x80 != 0 && bytes[2] & 0x80 != 0, "a descriptor with a long picture ID");
    bytes[2..4].copy_from_slice(&(number | 0x8000).to_be_bytes());
    bytes.into()
}

/// A camera: blue.
#[allow(dead_code, reason = "not for the bench")]
pub(crate) struct Camera(Pictures);

#[allow(dead_code, reason = "not for the bench")]
impl Camera {
    pub(crate) async fn show(talker: &mut Talker) -> Self {
        let track = talker.bot.publish("camera", Codec::Vp8, 0x8888).await.expect("a camera");
        talker.bot.announce_video("camera").expect("announced");
        Self(Pictures::send(track, recording::pictures("camera", "VP8", "blue", "320x180", 2, 0)))
    }
}

/// A shared screen.
pub(crate) struct Screen(Pictures);

impl Screen {
    /// Red.
    pub(crate) async fn share(talker: &mut Talker) -> Self {
        Self::share_that(talker, recording::pictures("screen", "VP8", "red", "640x360", 2, 0)).await
    }

    #[allow(dead_code, reason = "for the bench")]
    /// Ten different pictures a second, as much as a screen share of the plugin may take.
    pub(crate) async fn share_moving(talker: &mut Talker) -> Self {
        Self::share_that(talker, recording::moving("screen", "VP8", "1280x720", 2, 0)).await
    }

    /// Noise: some 600 kB of film a second, where the profile's rate lets it.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn share_noise(talker: &mut Talker) -> Self {
        Self::share_that(talker, recording::noise("screen", "640x360", 2, 0)).await
    }

    async fn share_that(talker: &mut Talker, pictures: Vec<recording::Timed>) -> Self {
        talker.bot.announce_screen("screen").expect("announced");
        let track = talker.bot.publish("screen", Codec::Vp8, 0x9999).await.expect("a screen");
        Self(Pictures::send(track, pictures))
    }

    /// Plays something that has sound, at its pace. Samples at 16 kHz.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn play(&self, talker: &Talker, samples: &[f32]) {
        let mut sound = talker.bot.publish("screen", Codec::Opus, 0x9998).await.expect("a screen's sound");
        let _ = play(&mut sound, &mut 0, samples).await;
        talker.bot.unpublish(sound).await.expect("taken down");
    }

    pub(crate) async fn stop(self, talker: &Talker) {
        let track = self.0.stop().await;
        talker.bot.act("screen_off", serde_json::Value::Null).expect("told");
        talker.bot.unpublish(track).await.expect("taken down");
    }
}
