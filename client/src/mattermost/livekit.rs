//! A session in a LiveKit room, with the plugin's version 2: the site says how the call and its jobs stand, the room who is there and
//! what they send.
//!
//! A room that is lost is entered again, with a new token of the plugin's, for as long as a lost WebSocket is tried; tracks that are
//! still there then go on.

mod people;
mod room;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use livekit_protocol as lk;
use lk::signal_request::Message as Request;
use lk::signal_response::Message as Response;
use rustls::ClientConfig;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, interval, sleep, timeout};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::RTCPeerConnectionState;

use self::people::{Change, People, Publication};
use self::room::{Happened, NoWay, Room};
use super::bot::{BotDial, Command, Shown, until_left};
use super::description::Codec;
use super::ending::End;
use super::event::{Calls, Event, Ids, MediaState, Said, TrackInfo, UserChange};
use super::limits::{FAREWELL, LOCK_RETRY, MEDIA_WITHIN, RECONNECT_STEP, RECONNECT_WITHIN, ROOM_STEADY, STRANGERS_MAX};
use super::outlet::{LastWord, Outlet, Stuck};
use super::reader::Reader;
use super::socket::{Action, Socket, SocketEvent};
use super::ticket::Ticket;
use super::{Site, SiteError};
use crate::ClientError;
use crate::connection::ConnectionEvent;

/// What a session begins with.
pub(super) struct Beginning {
    pub(super) dial: BotDial,
    pub(super) ids: Ids,
    pub(super) shown: Shown,
    pub(super) socket: Socket,
    pub(super) site: Site,
    pub(super) ticket: Ticket,
    pub(super) outlet: Outlet,
}

/// A track that somebody publishes.
struct Track {
    publication: Publication,
    reader: Option<Reader>,
}

type Entering = JoinHandle<Result<(Room, lk::JoinResponse), NoWay>>;

/// See the module.
pub(super) struct LiveKitSession {
    dial: BotDial,
    ids: Ids,
    shown: Shown,
    socket: Socket,
    way: Way,
    outlet: Outlet,
    entering: Option<Entering>,
    room: Option<Room>,
    people: People,
    tracks: HashMap<Arc<str>, Track>,
    /// Their packets came before it was said what they are.
    strangers: HashMap<String, Arc<dyn TrackRemote>>,
    /// Until when media has to flow.
    media_until: Option<Instant>,
    /// Since when media flows.
    steady_since: Option<Instant>,
    /// Since when the room is lost, now and then or altogether.
    lost_since: Option<Instant>,
    next_ping: Instant,
    /// The room has said something.
    heard: Instant,
    /// Somebody goes on with our session, or it is over already: there is nothing to leave.
    succeeded: bool,
    /// Nobody takes our events any more.
    stuck: Arc<Notify>,
}

/// How the room is found.
#[derive(Clone)]
struct Way {
    site: Site,
    tls: Arc<ClientConfig>,
    channel_id: String,
    session_id: String,
    /// Instead of what the plugin says.
    url: Option<String>,
}

impl LiveKitSession {
    pub(super) fn new(beginning: Beginning) -> Result<Self, SiteError> {
        let Beginning { dial, ids, shown, socket, site, ticket, outlet } = beginning;
        let way = Way {
            site,
            tls: dial.address.tls()?,
            channel_id: dial.channel_id.clone(),
            session_id: ids.original_conn_id.clone(),
            url: dial.livekit_url.clone(),
        };
        let now = Instant::now();
        let entering = Some(tokio::spawn(way.clone().enter(Some(ticket), now + MEDIA_WITHIN)));
        Ok(Self {
            dial,
            ids,
            shown,
            socket,
            way,
            outlet,
            entering,
            room: None,
            people: People::default(),
            tracks: HashMap::new(),
            strangers: HashMap::new(),
            media_until: None,
            steady_since: None,
            lost_since: None,
            next_ping: now,
            heard: now,
            succeeded: false,
            stuck: Arc::default(),
        })
    }

    pub(super) async fn run(
        mut self,
        early: Vec<Calls>,
        mut said: mpsc::Receiver<SocketEvent>,
        mut inbox: mpsc::Receiver<Command>,
        last: LastWord,
    ) {
        let end = match self.serve(early, &mut said, &mut inbox).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let Some(entering) = self.entering.take() {
            entering.abort();
        }
        // What is still to be read ends before the last word.
        self.tracks.clear();
        if let Some(room) = self.room.take() {
            room.close().await;
        }
        if let End::Lost(reason) = end {
            tracing::warn!(reason, "out of the call");
            last.lost(reason);
            if !self.succeeded {
                until_left(self.socket, said, inbox).await;
            }
        }
    }

    async fn serve(
        &mut self,
        early: Vec<Calls>,
        said: &mut mpsc::Receiver<SocketEvent>,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Result<std::convert::Infallible, End> {
        self.outlet.tell(Event::Joined(self.ids.clone()))?;
        for calls in early {
            self.heard_site(calls)?;
        }
        let stuck = Arc::clone(&self.stuck);
        let mut ticks = interval(LOCK_RETRY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = said.recv() => match event {
                    Some(SocketEvent::Calls(calls)) => self.heard_site(calls)?,
                    Some(SocketEvent::Another(ids)) => self.renamed(ids)?,
                    Some(SocketEvent::Lost(reason)) => return Err(End::Lost(reason)),
                    None => return Err(End::Lost("the site's WebSocket is gone".to_owned())),
                },
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await?,
                    // The owner is gone without a word, and so are we.
                    None => return Err(End::Left),
                },
                entered = entered(&mut self.entering) => self.entered(entered).await?,
                happened = next(&mut self.room) => self.happened(happened).await?,
                () = stuck.notified() => return Err(Stuck.into()),
                _ = ticks.tick() => self.tick()?,
            }
        }
    }

    fn renamed(&mut self, ids: Ids) -> Result<(), End> {
        self.ids = ids;
        self.shown.rename(&self.ids);
        Ok(self.outlet.tell(Event::Ids(self.ids.clone()))?)
    }

    /// What the plugin says. Of people and tracks the room knows more, and in order.
    fn heard_site(&mut self, calls: Calls) -> Result<(), End> {
        match calls.said(&self.dial.channel_id, &self.ids) {
            None | Some(Said::Joined | Said::Signal(_)) => Ok(()),
            Some(Said::Error(text)) => Err(End::Lost(format!("the Calls plugin says: {text}"))),
            Some(Said::Event(Event::User { change, session_id, user_id })) => match change {
                UserChange::Left if session_id == self.ids.original_conn_id => {
                    self.succeeded = true;
                    Err(End::Lost("the call has ended our session".to_owned()))
                }
                UserChange::Joined
                | UserChange::Left
                | UserChange::Muted
                | UserChange::Unmuted
                | UserChange::ScreenOn
                | UserChange::ScreenOff
                | UserChange::VideoOn
                | UserChange::VideoOff => Ok(()),
                UserChange::VoiceOn | UserChange::VoiceOff | UserChange::HandRaised | UserChange::HandLowered => {
                    Ok(self.outlet.tell(Event::User { change, session_id, user_id })?)
                }
            },
            Some(Said::Event(Event::CallState(mut state))) => {
                let known = self.people.signs();
                for session in &mut state.sessions {
                    if let Some(signs) = known.get(session.session_id.as_str()) {
                        session.unmuted = signs.unmuted;
                        session.raised_hand = session.raised_hand.max(i64::from(signs.hand));
                    }
                }
                Ok(self.outlet.tell(Event::CallState(state))?)
            }
            Some(Said::Event(event)) => Ok(self.outlet.tell(event)?),
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Say(action) => self.say(action),
            Command::KeyFrame(track) => {
                self.key_frame(&track).await;
                Ok(())
            }
            Command::Publish(_, done) | Command::Unpublish(_, done) => {
                let _ = done.send(Err(ClientError::Refused("in a LiveKit room a bot only listens".to_owned())));
                Ok(())
            }
            Command::Leave(done) => {
                self.say(Action::new("leave", serde_json::Value::Null))?;
                if let Some(room) = &self.room {
                    let reason = lk::DisconnectReason::ClientInitiated.into();
                    let _ = room.ask(Request::Leave(lk::LeaveRequest { reason, ..Default::default() }));
                }
                let _ = timeout(FAREWELL, self.socket.close()).await;
                let _ = done.send(());
                Err(End::Left)
            }
        }
    }

    fn say(&self, action: Action) -> Result<(), End> {
        if self.socket.say(action) { Ok(()) } else { Err(End::Lost("the site's WebSocket takes nothing any more".to_owned())) }
    }

    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.media_until.is_some_and(|until| now >= until) {
            let text = "media did not connect; is LiveKit's address (rtc.node_ip, rtc.use_external_ip) reachable from here, by UDP?";
            return Err(End::Lost(text.to_owned()));
        }
        if self.steady_since.is_some_and(|since| now >= since + ROOM_STEADY) {
            self.lost_since = None;
        }
        let Some(room) = &self.room else { return Ok(()) };
        let (every, silence) = room.pings;
        if now >= self.heard + silence {
            return self.lost_room("LiveKit has been silent for too long".to_owned());
        }
        if now >= self.next_ping {
            self.next_ping = now + every;
            let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
            // Older servers understand the first of them alone.
            let asked = room.ask(Request::Ping(timestamp)) && room.ask(Request::PingReq(lk::Ping { timestamp, rtt: 0 }));
            if !asked {
                return self.lost_room("LiveKit takes nothing any more".to_owned());
            }
        }
        Ok(())
    }

    /// Tries again, with a new token, unless that has gone on for too long.
    fn lost_room(&mut self, reason: String) -> Result<(), End> {
        if let Some(room) = self.room.take() {
            tokio::spawn(room.close());
        }
        self.tracks.values_mut().for_each(|track| track.reader = None);
        self.strangers.clear();
        (self.media_until, self.steady_since) = (None, None);
        let since = *self.lost_since.get_or_insert_with(Instant::now);
        if since.elapsed() > RECONNECT_WITHIN {
            return Err(End::Lost(format!("the LiveKit room is lost again and again: {reason}")));
        }
        tracing::warn!(reason, "the LiveKit room is lost, entering it again");
        self.outlet.tell(Event::Media(MediaState::Disconnected))?;
        self.entering = Some(tokio::spawn(self.way.clone().enter(None, since + RECONNECT_WITHIN)));
        Ok(())
    }

    async fn entered(&mut self, entered: Result<(Room, lk::JoinResponse), NoWay>) -> Result<(), End> {
        self.entering = None;
        let (room, join) = match entered {
            Ok(entered) => entered,
            Err(NoWay::Refused(reason) | NoWay::NotNow(reason)) => return Err(End::Lost(reason)),
        };
        let now = Instant::now();
        (self.heard, self.next_ping) = (now, now + room.pings.0);
        let offers_at_once = room.offers_at_once;
        self.room = Some(room);
        if offers_at_once {
            self.media_until = Some(now + MEDIA_WITHIN);
        } else {
            // Media connects when there is some.
            self.connected()?;
        }
        let changes = self.people.enter(&join.participant.unwrap_or_default(), join.other_participants);
        self.changed(changes).await
    }

    fn connected(&mut self) -> Result<(), End> {
        self.media_until = None;
        self.steady_since.get_or_insert_with(Instant::now);
        Ok(self.outlet.tell(Event::Media(MediaState::Connected))?)
    }

    async fn happened(&mut self, happened: Happened) -> Result<(), End> {
        match happened {
            Happened::Signal(Ok(Some(message))) => {
                self.heard = Instant::now();
                self.signalled(*message).await
            }
            Happened::Signal(Ok(None)) => self.lost_room("LiveKit closed the connection".to_owned()),
            Happened::Signal(Err(error)) => self.lost_room(error.to_string()),
            Happened::Connection(event) => self.connection_event(event).await,
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "LiveKit has dozens of messages and gets more; a bot that only listens needs these")]
    async fn signalled(&mut self, message: Response) -> Result<(), End> {
        match message {
            Response::Offer(offer) => {
                let Some(room) = &mut self.room else { return Ok(()) };
                match room.offered(offer).await {
                    Ok(true) => {
                        self.shown.answered();
                        Ok(())
                    }
                    Ok(false) => self.lost_room("LiveKit takes nothing any more".to_owned()),
                    Err(error) => self.lost_room(format!("LiveKit's offer cannot be answered: {error}")),
                }
            }
            Response::Trickle(trickle) => {
                if let Some(room) = &mut self.room {
                    room.trickled(trickle).await;
                }
                Ok(())
            }
            Response::Update(update) => {
                let changes = self.people.update(update.participants);
                self.changed(changes).await
            }
            Response::SubscriptionResponse(response) => {
                tracing::warn!(track = response.track_sid, why = response.err().as_str_name(), "LiveKit does not give us a track");
                Ok(())
            }
            Response::Leave(leave) => self.sent_away(&leave),
            _ => Ok(()),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "whatever else is the matter, coming again may help")]
    fn sent_away(&mut self, leave: &lk::LeaveRequest) -> Result<(), End> {
        use lk::DisconnectReason as Why;
        match leave.reason() {
            Why::RoomDeleted | Why::RoomClosed => {
                self.outlet.tell(Event::CallEnded)?;
                self.succeeded = true;
                Err(End::Lost("the call's LiveKit room is closed".to_owned()))
            }
            Why::ParticipantRemoved => Err(End::Lost("the call has removed the bot".to_owned())),
            Why::DuplicateIdentity => {
                self.succeeded = true;
                Err(End::Lost("another connection has taken our place in the LiveKit room".to_owned()))
            }
            why => self.lost_room(format!("LiveKit sent us away: {}", why.as_str_name())),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the stack's states before the connection, and what it adds, say nothing")]
    async fn connection_event(&mut self, event: ConnectionEvent) -> Result<(), End> {
        match event {
            ConnectionEvent::State(RTCPeerConnectionState::Connected) => self.connected(),
            ConnectionEvent::State(RTCPeerConnectionState::Disconnected) => Ok(self.outlet.tell(Event::Media(MediaState::Disconnected))?),
            ConnectionEvent::State(RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed) => {
                self.lost_room("the media connection failed: LiveKit is not heard any more".to_owned())
            }
            ConnectionEvent::State(_) => Ok(()),
            ConnectionEvent::Candidate(event) => {
                if let (Some(room), Ok(init)) = (&self.room, event.candidate.to_json())
                    && let Ok(candidate_init) = serde_json::to_string(&init)
                {
                    let target = lk::SignalTarget::Subscriber.into();
                    let _ = room.ask(Request::Trickle(lk::TrickleRequest { candidate_init, target, ..Default::default() }));
                }
                Ok(())
            }
            ConnectionEvent::Track(remote) => {
                let id = sid_of(remote.track_id().await.as_str(), remote.stream_id().await.as_str());
                if self.tracks.contains_key(id.as_str()) {
                    self.read(&id, remote).await
                } else if self.strangers.len() < STRANGERS_MAX {
                    self.strangers.insert(id, remote);
                }
                Ok(())
            }
            // What people say to each other beside their voices.
            ConnectionEvent::Data(_) => Ok(()),
        }
    }

    async fn changed(&mut self, changes: Vec<Change>) -> Result<(), End> {
        for change in changes {
            match change {
                Change::Came { session_id, user_id, name } => self.outlet.tell(Event::Present { session_id, user_id, name })?,
                Change::Left { session_id, user_id } => {
                    self.outlet.tell(Event::User { change: UserChange::Left, session_id, user_id })?;
                }
                Change::Hand { session_id, user_id, raised } => {
                    let change = if raised { UserChange::HandRaised } else { UserChange::HandLowered };
                    self.outlet.tell(Event::User { change, session_id, user_id })?;
                }
                Change::Published(track_id, publication) => {
                    let Publication { kind, session_id, muted } = publication.clone();
                    self.published(Arc::clone(&track_id), publication).await;
                    self.outlet.tell(Event::TrackMuted { track_id, kind, session_id, muted })?;
                }
                Change::Muted(track_id, muted) => {
                    if let Some(track) = self.tracks.get_mut(&track_id) {
                        let (kind, session_id) = (track.publication.kind, track.publication.session_id.clone());
                        self.outlet.tell(Event::TrackMuted { track_id, kind, session_id, muted })?;
                    }
                }
                Change::Unpublished(track_id) => {
                    self.strangers.remove(&*track_id);
                    if self.tracks.remove(&track_id).is_some() {
                        self.outlet.tell(Event::TrackEnded { track_id })?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn published(&mut self, sid: Arc<str>, publication: Publication) {
        if !publication.kind.is_audio() {
            self.want(&sid);
        }
        self.tracks.insert(Arc::clone(&sid), Track { publication, reader: None });
        if let Some(remote) = self.strangers.remove(&*sid) {
            self.read(&sid, remote).await;
        }
    }

    /// Asks for the best layer of a picture that there is, or for nothing where pictures are of no use.
    fn want(&self, sid: &str) {
        let settings = lk::UpdateTrackSettings {
            track_sids: vec![sid.to_owned()],
            disabled: !self.dial.pictures,
            quality: lk::VideoQuality::High.into(),
            ..Default::default()
        };
        if let Some(room) = &self.room {
            let _ = room.ask(Request::TrackSetting(settings));
        }
    }

    /// Hands on what a track brings, from its first packet: that one says in which of the offered formats.
    async fn read(&mut self, sid: &str, remote: Arc<dyn TrackRemote>) {
        let (Some(room), Some((id, track))) = (&self.room, self.tracks.get_key_value(sid)) else { return };
        let formats = room.sections.iter().find(|section| sid_of(&section.track, &section.stream) == sid);
        let Some(formats) = formats.map(|section| section.codecs.clone()) else {
            tracing::warn!(track = sid, "a track of no known format is passed over");
            return;
        };
        let (id, publication) = (Arc::clone(id), track.publication.clone());
        let pictures = !publication.kind.is_audio();
        let reading = Reading { id: Arc::clone(&id), publication, formats, outlet: self.outlet.clone(), stuck: Arc::clone(&self.stuck) };
        let task = tokio::spawn(reading.run(Arc::clone(&remote)));
        if let Some(track) = self.tracks.get_mut(&id) {
            track.reader = Some(Reader::new(remote, task));
        }
        if pictures {
            // The layer that was asked for before the server knew of us may have been forgotten, and its pictures begin with a whole one.
            self.want(&id);
            self.key_frame(&id).await;
        }
    }

    async fn key_frame(&mut self, id: &Arc<str>) {
        let Some(track) = self.tracks.get_mut(id).filter(|track| !track.publication.kind.is_audio()) else { return };
        // Without a packet there is nobody to ask; the first one is followed by this.
        if let Some(reader) = &mut track.reader {
            reader.request_key_frame().await;
        }
    }
}

impl Way {
    /// Into the room, at first with the token that is there, later with new ones.
    async fn enter(self, mut ticket: Option<Ticket>, until: Instant) -> Result<(Room, lk::JoinResponse), NoWay> {
        let mut wait = if ticket.is_some() { Duration::ZERO } else { RECONNECT_STEP };
        loop {
            sleep(wait.min(until.saturating_duration_since(Instant::now()))).await;
            wait += RECONNECT_STEP;
            let no_way = match self.once(ticket.take()).await {
                Ok(entered) => return Ok(entered),
                Err(no_way) => no_way,
            };
            match no_way {
                NoWay::NotNow(reason) if Instant::now() < until => tracing::debug!(reason, "no way into the LiveKit room yet"),
                NoWay::NotNow(_) | NoWay::Refused(_) => return Err(no_way),
            }
        }
    }

    async fn once(&self, ticket: Option<Ticket>) -> Result<(Room, lk::JoinResponse), NoWay> {
        let ticket = match ticket {
            Some(ticket) => ticket,
            None => match self.site.ticket(&self.channel_id, &self.session_id).await {
                Ok(Some(ticket)) => ticket,
                Ok(None) => return Err(NoWay::Refused("the Calls plugin has no LiveKit rooms any more".to_owned())),
                Err(error @ ClientError::Refused(_)) => return Err(NoWay::Refused(error.to_string())),
                Err(error) => return Err(NoWay::NotNow(error.to_string())),
            },
        };
        let ticket = Ticket { url: self.url.clone().unwrap_or(ticket.url), ..ticket };
        Room::enter(&ticket, &self.tls).await
    }
}

/// Who reads a track.
struct Reading {
    id: Arc<str>,
    publication: Publication,
    formats: Vec<Codec>,
    outlet: Outlet,
    stuck: Arc<Notify>,
}

impl Reading {
    async fn run(self, remote: Arc<dyn TrackRemote>) {
        let mut told: Option<u8> = None;
        while let Some(event) = remote.poll().await {
            let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
            let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let arrived_us = u64::try_from(arrived.as_micros()).unwrap_or_default();
            if told != Some(packet.header.payload_type) {
                let Some(codec) = self.formats.iter().find(|codec| codec.payload_type == packet.header.payload_type) else { continue };
                told = Some(codec.payload_type);
                if self.outlet.tell(Event::Track(self.info(codec))).is_err() {
                    return self.stuck.notify_one();
                }
            }
            self.outlet.packet(Event::Rtp { track_id: Arc::clone(&self.id), arrived_us, packet });
        }
    }

    fn info(&self, codec: &Codec) -> TrackInfo {
        TrackInfo {
            track_id: Arc::clone(&self.id),
            kind: self.publication.kind,
            session_id: self.publication.session_id.clone(),
            mime: codec.mime.clone(),
            payload_type: codec.payload_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            fmtp: codec.fmtp.clone(),
        }
    }
}

/// LiveKit's name of a track: where a browser's own stands there instead, it is in the stream's.
fn sid_of(track: &str, stream: &str) -> String {
    let in_stream = stream.split_once('|').map(|(_, sid)| sid).filter(|sid| sid.starts_with("TR"));
    in_stream.unwrap_or(track).to_owned()
}

async fn entered(entering: &mut Option<Entering>) -> Result<(Room, lk::JoinResponse), NoWay> {
    match entering {
        Some(entering) => {
            entering.await.unwrap_or_else(|error| Err(NoWay::Refused(format!("the way into the LiveKit room broke off: {error}"))))
        }
        None => std::future::pending().await,
    }
}

async fn next(room: &mut Option<Room>) -> Happened {
    match room {
        Some(room) => room.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracks_name_stands_in_either_place() {
        assert_eq!(sid_of("TR_a", "PA_1"), "TR_a");
        assert_eq!(sid_of("{9f-1c}", "PA_1|TR_b"), "TR_b");
        assert_eq!(sid_of("TR_a", "PA_1|camera"), "TR_a");
    }
}
