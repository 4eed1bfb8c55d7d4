//! People in a call of version 2: participants of a LiveKit room, over LiveKit's own protocol.

use std::time::Duration;

use bytes::Bytes;
use fake_mattermost::Fake;
use livekit_protocol as lk;
use lk::signal_response::Message as Said;
use rtc_client::{Event, OpusTrack, Participant, Vp8Track};
use tokio::sync::mpsc;

use super::common::{call, recording};

/// Somebody with a microphone.
pub(crate) struct Caller {
    pub(crate) participant: Participant,
    pub(crate) session: String,
    number: u32,
    voice: Option<OpusTrack>,
    published: mpsc::UnboundedReceiver<String>,
}

impl Caller {
    /// Comes into the call with the plugin's token, and unmutes.
    pub(crate) async fn join(fake: &Fake, channel: &str, name: &str, number: u32) -> Self {
        let person = fake.person(name);
        let ticket = fake.admit(&person, channel).expect("admitted");
        let joined = tokio::time::timeout(Duration::from_secs(120), Participant::join_room(&ticket.url, &ticket.token, "127.0.0.1"));
        let (participant, mut events) = joined.await.expect("in time").expect("joins");
        let (tell, published) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Signal(said) = event
                    && let Said::TrackPublished(track) = *said
                    && let Some(track) = track.track
                {
                    let _ = tell.send(track.sid);
                }
            }
        });
        let voice = participant.publish_opus(&format!("mic{number}"), 0x1000 + number).await.expect("a microphone");
        Self { participant, session: ticket.session, number, voice: Some(voice), published }
    }

    /// Says it at the pace of speech. Samples at 16 kHz.
    pub(crate) async fn say(&mut self, samples: &[f32]) {
        send(self.voice.as_mut().expect("a microphone"), samples).await;
    }

    /// Takes the microphone down and publishes it anew: another track.
    pub(crate) async fn republish(&mut self) {
        self.number += 0x100;
        self.participant.unpublish(self.voice.take().expect("a microphone")).await.expect("taken down");
        self.voice = Some(self.participant.publish_opus(&format!("mic{}", self.number), 0x1000 + self.number).await.expect("another one"));
    }

    /// The latest track that the server took.
    pub(crate) async fn sid(&mut self) -> String {
        let mut sid = self.published.recv().await.expect("published");
        while let Ok(newer) = self.published.try_recv() {
            sid = newer;
        }
        sid
    }

    /// Sound beside the microphone: that of a shared screen.
    pub(crate) async fn screen_sound(&self) -> OpusTrack {
        self.participant.publish_sound("screen-sound", lk::TrackSource::ScreenShareAudio, 0x7777).await.expect("a sound")
    }

    /// A blue camera or a red screen, until the test ends.
    pub(crate) async fn show(&self, source: lk::TrackSource) -> tokio::task::JoinHandle<()> {
        let (name, colour, size, ssrc) = match source {
            lk::TrackSource::ScreenShare => ("screen", "red", "640x360", 0x9999),
            _ => ("camera", "blue", "320x180", 0x8888),
        };
        let track = self.participant.publish_vp8(name, source, ssrc).await.expect("pictures");
        tokio::spawn(pictures(track, recording::vp8_frames(colour, size, 2)))
    }
}

/// Sends sound at its own pace.
pub(crate) async fn send(track: &mut OpusTrack, samples: &[f32]) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    // A busy machine makes speech slower, never faster.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for packet in call::opus_packets(samples) {
        pace.tick().await;
        track.send(Bytes::from(packet)).await.expect("sent");
    }
}

/// The same ten pictures a second again and again: every round begins with a key frame.
async fn pictures(mut track: Vp8Track, frames: Vec<Vec<u8>>) {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut timestamp = 0_u32;
    loop {
        for frame in &frames {
            pace.tick().await;
            if track.send(frame, timestamp).await.is_err() {
                return;
            }
            timestamp = timestamp.wrapping_add(9_000);
        }
    }
}
