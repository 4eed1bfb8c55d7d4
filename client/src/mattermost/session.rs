//! A session with a media node, with the plugin's version 1: one task that hears the site, the node and the owner, and answers each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rmpv::Value as Packed;
use rtc::data_channel::RTCDataChannelInit;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{RTCIceCandidateInit, RTCPeerConnectionState};

use super::bot::{BotDial, Command, Done, Shown, until_left};
use super::channel::{self, FromServer, Mapped};
use super::description::{self, Incoming};
use super::ending::End;
use super::event::{Calls, Event, Ids, MediaState, Said, TrackInfo, TrackKind, UserChange};
use super::limits::{ANSWER_WITHIN, CHANNEL_PING_EVERY, EVENTS_RESERVED, FAREWELL, LOCK_RETRY, LOCK_WITHIN, MEDIA_WITHIN};
use super::outlet::{LastWord, Outlet};
use super::reader::Reader;
use super::socket::{Action, Socket, SocketEvent};
use crate::ClientError;
use crate::connection::{Connection, ConnectionEvent};

/// A description on its way.
#[derive(Serialize, Deserialize)]
struct Description {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    sdp: String,
}

/// What the media node's `signal`s say.
#[derive(Deserialize)]
struct Signal {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    sdp: String,
    #[serde(default)]
    candidate: Option<RTCIceCandidateInit>,
}

/// An offer of ours.
enum Offer {
    /// There is none.
    None,
    /// The lock was asked for.
    Asked { since: Instant, again: Instant },
    /// It is sent.
    Sent { at: Instant, locked: bool },
}

/// A track of the media node's.
struct Track {
    info: TrackInfo,
    reader: Option<Reader>,
    key_frame_wanted: bool,
}

/// A change of what we send, waiting for the lock.
enum Change {
    Publish(Arc<TrackLocalStaticRTP>),
    Unpublish(Arc<TrackLocalStaticRTP>),
}

pub(super) struct Session {
    dial: BotDial,
    ids: Ids,
    /// What the owner can look up.
    shown: Shown,
    socket: Socket,
    connection: Connection,
    channel: Arc<dyn DataChannel>,
    channel_open: bool,
    outlet: Outlet,
    tracks: HashMap<Arc<str>, Track>,
    map: HashMap<String, Mapped>,
    /// In the first exchange the node sent the ClientHello.
    dtls_server: bool,
    offer: Offer,
    changes: Vec<(Change, Done)>,
    agreeing: Vec<Done>,
    /// Until when media has to flow.
    media_until: Option<Instant>,
    next_ping: Instant,
}

impl Session {
    /// Makes the data channel and offers it.
    pub(super) async fn begin(
        dial: BotDial,
        ids: Ids,
        shown: Shown,
        socket: Socket,
        connection: Connection,
        outlet: Outlet,
    ) -> Result<Self, ClientError> {
        let init = RTCDataChannelInit { ordered: true, ..Default::default() };
        let channel = connection.inner().create_data_channel(channel::LABEL, Some(init)).await?;
        let now = Instant::now();
        let mut session = Self {
            dial,
            ids,
            shown,
            socket,
            connection,
            channel,
            channel_open: false,
            outlet,
            tracks: HashMap::new(),
            map: HashMap::new(),
            dtls_server: false,
            offer: Offer::None,
            changes: Vec::new(),
            agreeing: Vec::new(),
            media_until: Some(now + MEDIA_WITHIN),
            next_ping: now,
        };
        session.offer(false).await?;
        Ok(session)
    }

    pub(super) async fn run(
        mut self,
        early: Vec<Calls>,
        mut said: mpsc::Receiver<SocketEvent>,
        from_connection: mpsc::UnboundedReceiver<ConnectionEvent>,
        mut inbox: mpsc::Receiver<Command>,
        last: LastWord,
    ) {
        let (messages, from_channel) = mpsc::channel(EVENTS_RESERVED);
        let reading = tokio::spawn(read_channel(Arc::clone(&self.channel), messages));
        let end = match self.serve(early, &mut said, from_connection, from_channel, &mut inbox).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        reading.abort();
        // What is still to be read ends before the last word.
        self.tracks.clear();
        if let Err(error) = self.connection.inner().close().await {
            tracing::debug!(%error, "the peer connection did not close");
        }
        if let End::Lost(reason) = end {
            tracing::warn!(reason, "out of the call");
            last.lost(reason);
            // Later somebody may be going on with the session.
            if self.media_until.is_some() {
                until_left(self.socket, said, inbox).await;
            }
        }
    }

    async fn serve(
        &mut self,
        early: Vec<Calls>,
        said: &mut mpsc::Receiver<SocketEvent>,
        mut from_connection: mpsc::UnboundedReceiver<ConnectionEvent>,
        mut from_channel: mpsc::Receiver<ChannelEvent>,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Result<std::convert::Infallible, End> {
        self.outlet.tell(Event::Joined(self.ids.clone()))?;
        for calls in early {
            self.heard(calls).await?;
        }
        let mut ticks = interval(LOCK_RETRY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = said.recv() => match event {
                    Some(SocketEvent::Calls(calls)) => self.heard(calls).await?,
                    Some(SocketEvent::Another(ids)) => self.renamed(ids)?,
                    Some(SocketEvent::Lost(reason)) => return Err(End::Lost(reason)),
                    None => return Err(End::Lost("the site's WebSocket is gone".to_owned())),
                },
                Some(event) = from_connection.recv() => self.connection_event(event).await?,
                Some(event) = from_channel.recv() => self.channel_event(event).await?,
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await?,
                    // The owner is gone without a word, and so are we.
                    None => return Err(End::Left),
                },
                _ = ticks.tick() => self.tick().await?,
            }
        }
    }

    fn renamed(&mut self, ids: Ids) -> Result<(), End> {
        self.ids = ids;
        self.shown.rename(&self.ids);
        Ok(self.outlet.tell(Event::Ids(self.ids.clone()))?)
    }

    async fn heard(&mut self, calls: Calls) -> Result<(), End> {
        match calls.said(&self.dial.channel_id, &self.ids) {
            None | Some(Said::Joined) => Ok(()),
            Some(Said::Error(text)) => Err(End::Lost(format!("the Calls plugin says: {text}"))),
            Some(Said::Signal(json)) => self.signal(&json).await,
            Some(Said::Event(event)) => {
                let ours = matches!(&event, Event::User { change: UserChange::Left, session_id, .. }
                    if *session_id == self.ids.original_conn_id);
                self.outlet.tell(event)?;
                if ours { Err(End::Lost("the call has ended our session".to_owned())) } else { Ok(()) }
            }
        }
    }

    /// Of the media node, through the site.
    async fn signal(&mut self, json: &str) -> Result<(), End> {
        let signal: Signal = match serde_json::from_str(json) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::debug!(%error, "a signal is passed over");
                return Ok(());
            }
        };
        match signal.kind.as_str() {
            "candidate" => {
                if let Some(candidate) = signal.candidate {
                    self.connection.add_candidate(candidate).await;
                }
                Ok(())
            }
            kind => self.described(kind, &signal.sdp, false).await,
        }
    }

    async fn described(&mut self, kind: &str, sdp: &str, by_channel: bool) -> Result<(), End> {
        match kind {
            "answer" => self.answered(sdp).await,
            "offer" => self.offered(sdp, by_channel).await,
            other => {
                tracing::debug!(kind = other, "a description of another kind is passed over");
                Ok(())
            }
        }
    }

    async fn answered(&mut self, sdp: &str) -> Result<(), End> {
        let Offer::Sent { locked, .. } = std::mem::replace(&mut self.offer, Offer::None) else {
            tracing::debug!("an answer to nothing is passed over");
            return Ok(());
        };
        if !self.connection.is_described() {
            self.dtls_server = description::is_active(sdp);
        }
        self.announce(sdp)?;
        self.connection.take_answer(sdp.to_owned()).await?;
        if locked {
            self.tell_node(&channel::unlock()).await?;
        }
        for done in self.agreeing.drain(..) {
            let _ = done.send(Ok(()));
        }
        self.ask_for_lock().await
    }

    /// The node's offer wins over ours.
    async fn offered(&mut self, sdp: &str, by_channel: bool) -> Result<(), End> {
        if !self.connection.is_described() {
            tracing::debug!("an offer before the answer to our first one is passed over");
            return Ok(());
        }
        let crossed = matches!(self.offer, Offer::Sent { .. });
        if crossed {
            self.connection.roll_back().await?;
        }
        let ended = self.announce(sdp)?;
        let answer = self.connection.answer(description::without_stops(sdp)).await?;
        self.end(&ended)?;
        let sdp = description::keeping_role(&answer, self.dtls_server);
        self.describe("answer", sdp, by_channel).await?;
        self.shown.answered();
        if crossed { self.offer(false).await.map_err(End::from) } else { Ok(()) }
    }

    /// Tells of the tracks that a description brings, before any packet of theirs; gives those that it takes away.
    fn announce(&mut self, sdp: &str) -> Result<Vec<Arc<str>>, End> {
        let incoming = description::incoming(sdp);
        let ended = self.tracks.keys().filter(|id| incoming.iter().all(|section| *section.track != ***id)).cloned().collect();
        for section in incoming {
            if self.tracks.contains_key(section.track.as_str()) {
                continue;
            }
            let Some(info) = self.info(&section) else {
                tracing::debug!(track = section.track, mid = section.mid, "a track of no known kind is passed over");
                continue;
            };
            self.outlet.tell(Event::Track(info.clone()))?;
            let key_frame_wanted = !info.kind.is_audio();
            self.tracks.insert(Arc::clone(&info.track_id), Track { info, reader: None, key_frame_wanted });
        }
        Ok(ended)
    }

    /// By the track's name; where that says nothing, by the media map.
    fn info(&self, section: &Incoming) -> Option<TrackInfo> {
        let mapped = self.map.get(&section.mid);
        let by_name = description::named(&section.track).and_then(|(kind, session)| Some((TrackKind::named(kind)?, session)));
        // The map's sender is the receiver's own session on older servers; the stream is the sender's.
        let by_map = || Some((TrackKind::named(&mapped?.kind)?, section.stream.as_str()));
        let (kind, session) = by_name.or_else(by_map)?;
        let codec = section.codecs.first()?.clone();
        Some(TrackInfo {
            track_id: Arc::from(section.track.as_str()),
            kind,
            session_id: session.to_owned(),
            mime: codec.mime,
            payload_type: codec.payload_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            fmtp: codec.fmtp,
        })
    }

    fn end(&mut self, ended: &[Arc<str>]) -> Result<(), End> {
        for track_id in ended {
            self.tracks.remove(track_id);
            self.outlet.tell(Event::TrackEnded { track_id: Arc::clone(track_id) })?;
        }
        Ok(())
    }

    async fn connection_event(&mut self, event: ConnectionEvent) -> Result<(), End> {
        match event {
            ConnectionEvent::State(state) => self.state(state),
            ConnectionEvent::Candidate(event) => {
                // The first section, the data channel's, is the one that all share.
                let init = event.candidate.to_json().map(|init| RTCIceCandidateInit { sdp_mid: Some("0".to_owned()), ..init });
                match init.map(|init| serde_json::to_string(&init)) {
                    Ok(Ok(json)) => self.say(Action::packed("ice", Packed::from(json))),
                    Ok(Err(_)) | Err(_) => Ok(()),
                }
            }
            ConnectionEvent::Track(remote) => {
                let id = remote.track_id().await;
                // Dropped where it was not announced: nobody would know what it is.
                let Some((id, _)) = self.tracks.get_key_value(id.as_str()) else { return Ok(()) };
                let id = Arc::clone(id);
                let task = tokio::spawn(read_track(Arc::clone(&remote), Arc::clone(&id), self.outlet.clone()));
                let Some(track) = self.tracks.get_mut(&id) else { return Ok(()) };
                track.reader = Some(Reader::new(remote, task));
                if track.key_frame_wanted { self.key_frame(&id).await } else { Ok(()) }
            }
            // All there is we have made.
            ConnectionEvent::Data(_) => Ok(()),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the stack's states before the connection, and what it adds, say nothing")]
    fn state(&mut self, state: RTCPeerConnectionState) -> Result<(), End> {
        match state {
            RTCPeerConnectionState::Connected => {
                self.media_until = None;
                self.outlet.tell(Event::Media(MediaState::Connected))?;
            }
            RTCPeerConnectionState::Disconnected => self.outlet.tell(Event::Media(MediaState::Disconnected))?,
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => {
                self.outlet.tell(Event::Media(MediaState::Failed))?;
                return Err(End::Lost("the media connection failed: the media node is not heard any more".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    async fn channel_event(&mut self, event: ChannelEvent) -> Result<(), End> {
        let message = match event {
            ChannelEvent::Open => {
                self.channel_open = true;
                self.next_ping = Instant::now();
                return self.ask_for_lock().await;
            }
            ChannelEvent::Closed => {
                self.channel_open = false;
                return Ok(());
            }
            ChannelEvent::Message(message) => message,
        };
        match FromServer::decode(&message) {
            Ok(FromServer::Description(json)) => match serde_json::from_slice::<Description>(&json) {
                Ok(description) => self.described(&description.kind, &description.sdp, true).await,
                Err(error) => {
                    tracing::debug!(%error, "a description is passed over");
                    Ok(())
                }
            },
            Ok(FromServer::Lock(ours)) => self.locked(ours).await,
            Ok(FromServer::MediaMap(map)) => {
                self.map = map;
                Ok(())
            }
            Ok(FromServer::Pong | FromServer::Other(_)) => Ok(()),
            Err(error) => {
                tracing::debug!(error, "a message of the data channel is passed over");
                Ok(())
            }
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Say(action) => self.say(action),
            Command::KeyFrame(track) => self.key_frame(&track).await,
            Command::Publish(track, done) => {
                self.changes.push((Change::Publish(track), done));
                self.ask_for_lock().await
            }
            Command::Unpublish(track, done) => {
                self.changes.push((Change::Unpublish(track), done));
                self.ask_for_lock().await
            }
            Command::Leave(done) => {
                self.say(Action::new("leave", serde_json::Value::Null))?;
                let _ = timeout(FAREWELL, self.socket.close()).await;
                let _ = done.send(());
                Err(End::Left)
            }
        }
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.media_until.is_some_and(|until| now >= until) {
            let text = "media did not connect; is the media node's address reachable from here, by UDP?";
            return Err(End::Lost(text.to_owned()));
        }
        if self.channel_open && now >= self.next_ping {
            self.next_ping = now + CHANNEL_PING_EVERY;
            self.tell_node(&channel::ping()).await?;
        }
        match self.offer {
            Offer::Asked { since, .. } if now >= since + LOCK_WITHIN => {
                self.offer = Offer::None;
                for (_, done) in self.changes.drain(..) {
                    let _ = done.send(Err(ClientError::Late(LOCK_WITHIN, "the signalling lock")));
                }
                Ok(())
            }
            Offer::Asked { since, again } if now >= again => {
                self.offer = Offer::Asked { since, again: now + LOCK_WITHIN };
                self.tell_node(&channel::lock()).await
            }
            // An offer that crossed another one gets no answer, and the other one may have been lost.
            Offer::Sent { at, locked } if self.connection.is_described() && now >= at + ANSWER_WITHIN => {
                tracing::debug!("an offer without an answer is made again");
                self.connection.roll_back().await?;
                Ok(self.offer(locked).await?)
            }
            Offer::None | Offer::Asked { .. } | Offer::Sent { .. } => Ok(()),
        }
    }

    /// Where something waits to be offered and nothing is under way.
    async fn ask_for_lock(&mut self) -> Result<(), End> {
        if !self.channel_open || self.changes.is_empty() || !matches!(self.offer, Offer::None) {
            return Ok(());
        }
        let now = Instant::now();
        // Asked again only when it was refused.
        self.offer = Offer::Asked { since: now, again: now + LOCK_WITHIN };
        self.tell_node(&channel::lock()).await
    }

    async fn locked(&mut self, ours: bool) -> Result<(), End> {
        let Offer::Asked { since, .. } = self.offer else {
            // Too late: it is nobody's use.
            return if ours { self.tell_node(&channel::unlock()).await } else { Ok(()) };
        };
        if !ours {
            self.offer = Offer::Asked { since, again: Instant::now() + LOCK_RETRY };
            return Ok(());
        }
        for (change, done) in std::mem::take(&mut self.changes) {
            let changed = match change {
                Change::Publish(track) => self.connection.inner().add_track(track as Arc<dyn TrackLocal>).await.map(|_| ()),
                Change::Unpublish(track) => self.unpublish(track).await,
            };
            match changed {
                Ok(()) => self.agreeing.push(done),
                Err(error) => {
                    let _ = done.send(Err(error.into()));
                }
            }
        }
        Ok(self.offer(true).await?)
    }

    async fn unpublish(&self, track: Arc<TrackLocalStaticRTP>) -> Result<(), webrtc::error::Error> {
        let track = track as Arc<dyn TrackLocal>;
        for sender in self.connection.inner().get_senders().await {
            if Arc::ptr_eq(sender.track(), &track) {
                return self.connection.inner().remove_track(&sender).await;
            }
        }
        Ok(())
    }

    async fn offer(&mut self, locked: bool) -> Result<(), ClientError> {
        let sdp = self.connection.offer().await?;
        self.offer = Offer::Sent { at: Instant::now(), locked };
        let by_channel = self.dial.dc_signaling;
        self.describe("offer", sdp, by_channel).await.map_err(|end| match end {
            End::Left => ClientError::Signalling("the session is over".to_owned()),
            End::Lost(reason) => ClientError::Signalling(reason),
        })
    }

    async fn describe(&mut self, kind: &str, sdp: String, by_channel: bool) -> Result<(), End> {
        let json = serde_json::to_vec(&Description { kind: kind.to_owned(), sdp }).map_err(|error| End::Lost(error.to_string()))?;
        if by_channel && self.channel_open {
            self.tell_node(&channel::description(&json)).await
        } else {
            self.say(Action::packed("sdp", Packed::Binary(channel::pack(&json))))
        }
    }

    fn say(&self, action: Action) -> Result<(), End> {
        if self.socket.say(action) { Ok(()) } else { Err(End::Lost("the site's WebSocket takes nothing any more".to_owned())) }
    }

    /// Over the data channel.
    async fn tell_node(&mut self, message: &[u8]) -> Result<(), End> {
        if let Err(error) = self.channel.send(BytesMut::from(message)).await {
            // The connection's state says whether that is the end.
            tracing::debug!(%error, "the data channel takes nothing");
        }
        Ok(())
    }

    async fn key_frame(&mut self, id: &Arc<str>) -> Result<(), End> {
        let Some(track) = self.tracks.get_mut(id) else { return Ok(()) };
        if track.info.kind.is_audio() {
            return Ok(());
        }
        let Some(reader) = &track.reader else {
            track.key_frame_wanted = true;
            return Ok(());
        };
        track.key_frame_wanted = false;
        reader.request_key_frame().await;
        Ok(())
    }
}

/// What the data channel tells.
enum ChannelEvent {
    Open,
    Closed,
    Message(BytesMut),
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the rest of the stack's events, and what it adds, is about a full buffer")]
async fn read_channel(channel: Arc<dyn DataChannel>, messages: mpsc::Sender<ChannelEvent>) {
    while let Some(event) = channel.poll().await {
        let event = match event {
            DataChannelEvent::OnOpen => ChannelEvent::Open,
            DataChannelEvent::OnClose => ChannelEvent::Closed,
            DataChannelEvent::OnMessage(message) if !message.is_string => ChannelEvent::Message(message.data),
            _ => continue,
        };
        if messages.send(event).await.is_err() {
            return;
        }
    }
}

async fn read_track(track: Arc<dyn TrackRemote>, track_id: Arc<str>, outlet: Outlet) {
    while let Some(event) = track.poll().await {
        if let TrackRemoteEvent::OnRtpPacket(packet) = event {
            let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let arrived_us = u64::try_from(arrived.as_micros()).unwrap_or_default();
            outlet.packet(Event::Rtp { track_id: Arc::clone(&track_id), arrived_us, packet });
        }
    }
}
