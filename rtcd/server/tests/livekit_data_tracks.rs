//! Data tracks and blobs through real sockets: a client on `str0m`, a stack that is not ours, over one peer connection and over two, of
//! one room on two shards.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use common::livekit::{Client, KEYS, done, ticket};
use common::program::Program;
use common::soon;
use livekit_protocol as lk;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message as Said;
use prost::Message as _;
use serde_json::json;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;

/// One peer connection.
struct Leg {
    rtc: Rtc,
    socket: UdpSocket,
    next: Instant,
    channels: HashMap<String, ChannelId>,
}

impl Leg {
    async fn open() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().expect("bound"), "udp").expect("a candidate"));
        Self { rtc, socket, next: Instant::now(), channels: HashMap::new() }
    }

    /// Sends what waits; gives what came over data channels.
    async fn drain(&mut self, came: &mut Vec<(String, Vec<u8>)>) {
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
        loop {
            match self.rtc.poll_output().expect("the client goes on") {
                Output::Timeout(at) => return self.next = at,
                Output::Transmit(transmit) => drop(self.socket.send_to(&transmit.contents, transmit.destination).await),
                Output::Event(Event::ChannelOpen(id, label)) => drop(self.channels.insert(label, id)),
                Output::Event(Event::ChannelData(data)) => {
                    let label = self.channels.iter().find(|(_, id)| **id == data.id).map(|(label, _)| label.clone());
                    came.push((label.unwrap_or_default(), data.data));
                }
                Output::Event(_) => {}
            }
        }
    }

    async fn wait(&mut self) {
        let mut buffer = vec![0; 4096];
        tokio::select! {
            read = self.socket.recv_from(&mut buffer) => {
                let (len, from) = read.expect("readable");
                let Ok(contents) = buffer[..len].try_into() else { return };
                let destination = self.socket.local_addr().expect("bound");
                let receive = Receive { proto: Protocol::Udp, source: from, destination, contents };
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).expect("the client goes on");
            }
            () = tokio::time::sleep_until(self.next.into()) => {}
        }
    }
}

/// A participant that only has data.
struct Robot {
    client: Client,
    sid: String,
    publish: Leg,
    /// `None`: one connection for both directions.
    subscribe: Option<Leg>,
    pending: Option<SdpPendingOffer>,
    said: Vec<Said>,
    came: Vec<(String, Vec<u8>)>,
}

impl Robot {
    async fn join(program: &Program, room: &str, identity: &str, single: bool) -> Self {
        let _ = std::panic::catch_unwind(|| str0m::crypto::from_feature_flags().install_process_default());
        let request = lk::JoinRequest {
            connection_settings: Some(lk::ConnectionSettings { auto_subscribe: true, ..lk::ConnectionSettings::default() }),
            ..lk::JoinRequest::default()
        };
        let wrapped = lk::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
        let path = match single {
            true => format!("/rtc/v1?join_request={}", URL_SAFE.encode(wrapped.encode_to_vec())),
            false => "/rtc?sdk=js&version=2.23.0&protocol=16&auto_subscribe=1".to_owned(),
        };
        let mut client = Client::open(&program.url, &path, &ticket(room, identity)).await.expect("joins");
        let Said::Join(join) = client.next().await else { panic!("no join") };
        let mut publish = Leg::open().await;
        let subscribe = if single { None } else { Some(Leg::open().await) };
        let mut api = publish.rtc.sdp_api();
        api.add_channel("_reliable".to_owned());
        for (label, ordered) in [("_lossy", true), ("_data_track", false)] {
            let reliability = Reliability::MaxRetransmits { retransmits: 0 };
            api.add_channel_with_config(ChannelConfig { label: label.to_owned(), ordered, reliability, ..ChannelConfig::default() });
        }
        let (offer, pending) = api.apply().expect("something to offer");
        let offer = lk::SessionDescription { r#type: "offer".into(), sdp: offer.to_sdp_string(), id: 1, ..Default::default() };
        client.ask(Asked::Offer(offer)).await;
        let sid = join.participant.expect("oneself").sid;
        let (said, came) = (vec![Said::Update(lk::ParticipantUpdate { participants: join.other_participants })], Vec::new());
        let mut robot = Self { client, sid, publish, subscribe, pending: Some(pending), said, came };
        robot
            .until("its channel", |robot| {
                let receiving = robot.subscribe.as_ref().unwrap_or(&robot.publish);
                let both = [&robot.publish, receiving];
                both.iter().all(|leg| leg.channels.contains_key("_data_track")).then_some(())
            })
            .await;
        robot
    }

    async fn step(&mut self) {
        self.publish.drain(&mut self.came).await;
        if let Some(leg) = &mut self.subscribe {
            leg.drain(&mut self.came).await;
        }
        let subscribe = async {
            match &mut self.subscribe {
                Some(leg) => leg.wait().await,
                None => std::future::pending().await,
            }
        };
        let said = tokio::select! {
            said = self.client.next() => said,
            () = self.publish.wait() => return,
            () = subscribe => return,
        };
        match said {
            Said::Answer(answer) => {
                let answer = SdpAnswer::from_sdp_string(&answer.sdp).expect("SDP");
                self.publish.rtc.sdp_api().accept_answer(self.pending.take().expect("an offer waits"), answer).expect("fits");
            }
            Said::Offer(offer) => {
                let leg = self.subscribe.as_mut().expect("two connections");
                // As in `common/wire.rs`: browsers answer as the active side.
                let sdp = SdpOffer::from_sdp_string(&offer.sdp.replace("a=setup:actpass", "a=setup:passive")).expect("SDP");
                let answer = leg.rtc.sdp_api().accept_offer(sdp).expect("can be answered").to_sdp_string();
                let answer = lk::SessionDescription { r#type: "answer".into(), sdp: answer, id: offer.id, ..Default::default() };
                self.client.ask(Asked::Answer(answer)).await;
            }
            other => self.said.push(other),
        }
    }

    async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&mut Self) -> Option<T>) -> T {
        soon(what, async {
            loop {
                if let Some(found) = pick(self) {
                    return found;
                }
                self.step().await;
            }
        })
        .await
    }

    async fn goes_on(&mut self) {
        loop {
            self.step().await;
        }
    }

    /// Sends a packet again and again: what may get lost does, now and then.
    async fn repeats(&mut self, packet: &[u8]) {
        loop {
            self.send(packet);
            let _ = tokio::time::timeout(Duration::from_millis(200), self.goes_on()).await;
        }
    }

    /// The first thing said that this makes something of; it is said no longer.
    async fn hears<T>(&mut self, what: &str, mut pick: impl FnMut(&Said) -> Option<T>) -> T {
        self.until(what, |robot| {
            let (at, found) = robot.said.iter().enumerate().find_map(|(at, said)| Some((at, pick(said)?)))?;
            robot.said.remove(at);
            Some(found)
        })
        .await
    }

    /// The newest of somebody's data tracks, once they are so many.
    async fn sees(&mut self, identity: &str, count: usize) -> Option<lk::DataTrackInfo> {
        self.hears("data tracks", |said| {
            let Said::Update(update) = said else { return None };
            let info = update.participants.iter().find(|info| info.identity == identity && info.data_tracks.len() == count)?;
            Some(info.data_tracks.last().cloned())
        })
        .await
    }

    async fn publishes(&mut self, handle: u32, name: &str) -> lk::DataTrackInfo {
        let request = lk::PublishDataTrackRequest { pub_handle: handle, name: name.to_owned(), ..Default::default() };
        self.client.ask(Asked::PublishDataTrackRequest(request)).await;
        self.hears("the track", |said| match said {
            Said::PublishDataTrackResponse(response) => response.info.clone(),
            _ => None,
        })
        .await
    }

    /// Subscribes and gives the handle.
    async fn subscribes(&mut self, sid: &str) -> u16 {
        let update = lk::update_data_subscription::Update { track_sid: sid.to_owned(), subscribe: true, options: None };
        self.client.ask(Asked::UpdateDataSubscription(lk::UpdateDataSubscription { updates: vec![update] })).await;
        self.hears("a handle", |said| {
            let Said::DataTrackSubscriberHandles(handles) = said else { return None };
            let (handle, _) = handles.sub_handles.iter().find(|(_, track)| track.track_sid == sid)?;
            u16::try_from(*handle).ok()
        })
        .await
    }

    fn send(&mut self, packet: &[u8]) {
        let id = self.publish.channels["_data_track"];
        assert!(self.publish.rtc.channel(id).expect("open").write(true, packet).expect("open"));
    }

    async fn gets(&mut self, wanted: &[u8]) {
        self.until("a packet", |robot| {
            let at = robot.came.iter().position(|(label, packet)| label == "_data_track" && packet == wanted)?;
            robot.came.remove(at);
            Some(())
        })
        .await;
    }
}

/// A whole frame in one packet.
fn packet(handle: u16, frame: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = handle.to_be_bytes();
    [&[0x18, 0, high, low, 0, frame, 0, frame, 0, 0, 0, 0][..], payload].concat()
}

#[tokio::test]
async fn data_tracks_reach_their_subscribers_over_one_connection_and_two_and_two_shards() {
    let program = Program::start(&[KEYS, ("RTCD_RTC_SHARDS", "2"), ("RTCD_RTC_PARTICIPANTSPERSHARD", "1")]).await;
    let mut ann = Robot::join(&program, "r", "ann", true).await;
    let info = ann.publishes(5, "pose").await;
    // Three people on two shards: whoever publishes, somebody is with it and somebody is not.
    let (mut ben, mut cem) = tokio::select! {
        both = async { (Robot::join(&program, "r", "ben", false).await, Robot::join(&program, "r", "cem", true).await) } => both,
        () = ann.goes_on() => unreachable!(),
    };
    assert_eq!(ben.sees("ann", 1).await.as_ref(), Some(&info), "told with the join's answer");
    let (at_ben, at_cem) = (ben.subscribes(&info.sid).await, cem.subscribes(&info.sid).await);
    for (frame, payload) in [&b"small"[..], &[7; 16_000]].into_iter().enumerate() {
        let sent = packet(5, frame as u8, payload);
        let (for_ben, for_cem) = (packet(at_ben, frame as u8, payload), packet(at_cem, frame as u8, payload));
        tokio::select! {
            _ = async { tokio::join!(ben.gets(&for_ben), cem.gets(&for_cem)) } => {},
            () = ann.repeats(&sent) => unreachable!(),
        }
    }
    // The other way, from two connections to one.
    let back = ben.publishes(5, "grip").await;
    let at_ann = ann.subscribes(&back.sid).await;
    let sent = packet(5, 9, b"firm");
    let for_ann = packet(at_ann, 9, b"firm");
    tokio::select! {
        () = ann.gets(&for_ann) => {},
        () = ben.repeats(&sent) => unreachable!(),
    }

    // A server sees the track, and takes the right to it.
    let listed = done(&program.url, "GetParticipant", json!({ "room": "r", "identity": "ann" })).await;
    assert_eq!(listed["data_tracks"][0]["name"], "pose", "{listed}");
    let permission = json!({ "can_subscribe": true, "can_publish": true });
    done(&program.url, "UpdateParticipant", json!({ "room": "r", "identity": "ann", "permission": permission })).await;
    ann.hears("its end", |said| matches!(said, Said::UnpublishDataTrackResponse(_)).then_some(())).await;
    assert_eq!(cem.sees("ann", 0).await, None);

    // Blobs, beside it all.
    let key = lk::DataBlobKey { key: Some(lk::data_blob_key::Key::Generic("map".to_owned())) };
    let blob = lk::DataBlob { key: Some(key.clone()), contents: vec![3; 50_000] };
    ann.client.ask(Asked::StoreDataBlobRequest(lk::StoreDataBlobRequest { request_id: 1, blob: Some(blob.clone()) })).await;
    ann.hears("stored", |said| matches!(said, Said::StoreDataBlobResponse(_)).then_some(())).await;
    let request = lk::GetDataBlobRequest { request_id: 2, participant_identity: "ann".to_owned(), key: Some(key) };
    cem.client.ask(Asked::GetDataBlobRequest(request)).await;
    let fetched = cem
        .hears("the blob", |said| match said {
            Said::GetDataBlobResponse(response) => response.blob.clone(),
            _ => None,
        })
        .await;
    assert_eq!(fetched, blob);
    assert!(ann.sid.starts_with("PA_"));
}
