//! A session of a call, as its owner holds it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::event::{Calls, Event, Ids, Said};
use super::limits::{ACTIONS_MAX, ANSWER_WITHIN, EVENTS_RESERVED, FAREWELL, JOIN_WITHIN, LOCK_WITHIN};
use super::livekit::{Beginning, LiveKitSession};
use super::outlet::{LastWord, Outlet};
use super::session::Session;
use super::socket::{Action, Socket, SocketEvent};
use super::{Address, Codec, Publication, Site, media};
use crate::ClientError;

/// Where to go and as what.
#[derive(Clone)]
pub struct BotDial {
    /// The site.
    pub address: Address,
    /// The call's channel.
    pub channel_id: String,
    /// The job for which the site's bot joins; the plugin lets it in for no other reason. A person's client has none.
    pub job_id: Option<String>,
    /// Instead of a join: go on with this session of a process that ended without a word, over a media connection of our own.
    pub resume: Option<Ids>,
    /// The address of this machine that media goes over; `0.0.0.0` for all that are not loopback. Of a LiveKit room its own address tells.
    pub local: String,
    /// Where LiveKit is, instead of what the plugin says.
    pub livekit_url: Option<String>,
    /// Pictures are wanted too, where the media server can be told.
    pub pictures: bool,
    /// AV1 is wanted where somebody shares it.
    pub av1: bool,
    /// The media node's offers come over the data channel, not through the site.
    pub dc_signaling: bool,
}

/// A participant in a call. Dropped without [`Bot::leave`] it is gone without a word: the media node notices after half a minute.
pub struct Bot {
    commands: mpsc::Sender<Command>,
    ids: Arc<Mutex<Ids>>,
    dropped: Arc<AtomicU64>,
    node_offers: Arc<AtomicU64>,
}

/// For the session.
pub(super) enum Command {
    Say(Action),
    KeyFrame(Arc<str>),
    Publish(Arc<webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP>, Done),
    Unpublish(Arc<webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP>, Done),
    Leave(oneshot::Sender<()>),
}

/// Told when a change of what we send was agreed on.
pub(super) type Done = oneshot::Sender<Result<(), ClientError>>;

impl Bot {
    /// Joins, or resumes. Returns when the plugin has let us in; media follows ([`Event::Media`]), or the word that there is no way to it
    /// ([`Event::Lost`]).
    ///
    /// # Errors
    /// When the site cannot be reached, or the plugin says no.
    pub async fn join(dial: BotDial) -> Result<(Self, mpsc::Receiver<Event>), ClientError> {
        let (socket, mut said, ids) = Socket::open(&dial.address, &dial.channel_id, dial.resume.clone()).await?;
        let mut early = Vec::new();
        if dial.resume.is_none() {
            let mut data = json!({ "channelID": dial.channel_id, "av1Support": dial.av1, "dcSignaling": dial.dc_signaling });
            if let (Some(job), Some(data)) = (&dial.job_id, data.as_object_mut()) {
                data.insert("jobID".to_owned(), Value::from(job.as_str()));
            }
            if !socket.say(Action::new("join", data)) {
                return Err(over());
            }
            let answered = timeout(JOIN_WITHIN, admitted(&mut said, &dial.channel_id, &ids, &mut early));
            answered.await.map_err(|_| ClientError::Late(JOIN_WITHIN, "the plugin's answer to our join"))??;
        }
        let (outlet, events, last) = Outlet::new();
        let (commands, inbox) = mpsc::channel(ACTIONS_MAX);
        let bot = Self { commands, ids: Arc::new(Mutex::new(ids.clone())), dropped: outlet.dropped(), node_offers: Arc::default() };
        let shown = Shown { ids: Arc::clone(&bot.ids), node_offers: Arc::clone(&bot.node_offers) };
        tokio::spawn(Admitted { dial, ids, shown, socket, early, said, inbox, outlet, last }.go_on());
        Ok((bot, events))
    }

    /// What a successor needs to go on with this session: see [`BotDial::resume`]. Changes are told by [`Event::Ids`].
    #[must_use]
    pub fn ids(&self) -> Ids {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Packets that were dropped because their reader was slower than they came.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Offers of the media node that we answered: each may bring and take away several tracks.
    #[must_use]
    pub fn node_offers(&self) -> u64 {
        self.node_offers.load(Ordering::Relaxed)
    }

    /// Asks for a key frame of a track; as soon as it has come at all, when it has not.
    ///
    /// # Errors
    /// When the session is over.
    pub fn request_key_frame(&self, track_id: &Arc<str>) -> Result<(), ClientError> {
        self.command(Command::KeyFrame(Arc::clone(track_id)))
    }

    /// Shows what somebody says, instead of what was shown of them. `new_audio_len_ms` is how much was heard for it.
    ///
    /// # Errors
    /// When the session is over.
    pub fn caption(&self, session_id: &str, text: &str, new_audio_len_ms: f64) -> Result<(), ClientError> {
        let data = json!({ "session_id": session_id, "text": text, "new_audio_len_ms": new_audio_len_ms });
        self.command(Command::Say(Action::new("caption", data)))
    }

    /// Counts something in the plugin's figures: `live_captions_window_dropped`, `live_captions_transcriber_buf_full`,
    /// `live_captions_pktPayloadCh_buf_full`.
    ///
    /// # Errors
    /// When the session is over.
    pub fn metric(&self, session_id: &str, metric_name: &str) -> Result<(), ClientError> {
        let data = json!({ "session_id": session_id, "metric_name": metric_name });
        self.command(Command::Say(Action::new("metric", data)))
    }

    /// An action of a person's client: `mute`, `unmute`, `raise_hand`, `screen_off`, … with `null` or an object.
    ///
    /// # Errors
    /// When the session is over.
    pub fn act(&self, name: &'static str, data: Value) -> Result<(), ClientError> {
        self.command(Command::Say(Action::new(name, data)))
    }

    /// Says that pictures and sound of this stream are our screen. Before [`Bot::publish`], as the page does it.
    ///
    /// # Errors
    /// When the session is over.
    pub fn announce_screen(&self, stream: &str) -> Result<(), ClientError> {
        self.act("screen_on", announced("screenStreamID", stream))
    }

    /// Says that pictures of this stream are our camera. After [`Bot::publish`], as the page does it.
    ///
    /// # Errors
    /// When the session is over.
    pub fn announce_video(&self, stream: &str) -> Result<(), ClientError> {
        self.act("video_on", announced("videoStreamID", stream))
    }

    /// Sends a track of the media stream `stream`. Returns when the media node has agreed.
    ///
    /// # Errors
    /// When the session is over, the signalling lock is not to be had, or no answer comes.
    pub async fn publish(&self, stream: &str, codec: Codec, ssrc: u32) -> Result<Publication, ClientError> {
        let publication = Publication::new(stream, codec, ssrc);
        self.agree(|done| Command::Publish(publication.track(), done)).await?;
        Ok(publication)
    }

    /// Ends a track. Returns when the media node has agreed.
    ///
    /// # Errors
    /// As with [`Bot::publish`].
    pub async fn unpublish(&self, publication: Publication) -> Result<(), ClientError> {
        self.agree(|done| Command::Unpublish(publication.track(), done)).await
    }

    /// Leaves for good; returns when that is said, or after 2 s. After [`Event::Lost`] too, where the plugin still thinks that we are there.
    ///
    /// # Errors
    /// When the session is over already.
    pub async fn leave(self) -> Result<(), ClientError> {
        let (done, left) = oneshot::channel();
        self.command(Command::Leave(done))?;
        let _ = timeout(FAREWELL, left).await;
        Ok(())
    }

    async fn agree(&self, command: impl FnOnce(Done) -> Command) -> Result<(), ClientError> {
        let (done, agreed) = oneshot::channel();
        self.command(command(done))?;
        let limit: Duration = LOCK_WITHIN + ANSWER_WITHIN;
        timeout(limit, agreed).await.map_err(|_| ClientError::Late(limit, "the answer to our offer"))?.map_err(|_| over())?
    }

    fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.try_send(command).map_err(|_| over())
    }
}

/// What the owner of a session can look up.
pub(super) struct Shown {
    ids: Arc<Mutex<Ids>>,
    node_offers: Arc<AtomicU64>,
}

impl Shown {
    pub(super) fn rename(&self, ids: &Ids) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone_from(ids);
    }

    pub(super) fn answered(&self) {
        self.node_offers.fetch_add(1, Ordering::Relaxed);
    }
}

/// The plugin has let us in. What goes wrong from here on is told by the last event.
struct Admitted {
    dial: BotDial,
    ids: Ids,
    shown: Shown,
    socket: Socket,
    early: Vec<Calls>,
    said: mpsc::Receiver<SocketEvent>,
    inbox: mpsc::Receiver<Command>,
    outlet: Outlet,
    last: LastWord,
}

impl Admitted {
    /// To the media server that the plugin in use has: it alone knows, and says it by whether it gives out tokens of rooms.
    async fn go_on(self) {
        let asked = match Site::new(&self.dial.address) {
            Ok(site) => {
                site.ticket(&self.dial.channel_id, &self.ids.original_conn_id).await.map(|ticket| ticket.map(|ticket| (site, ticket)))
            }
            Err(error) => Err(error.into()),
        };
        let Self { dial, ids, shown, socket, early, said, inbox, outlet, last } = self;
        match asked {
            Ok(None) => {
                let begun = async {
                    let (connection, from_connection) = media::open(&dial.local, dial.av1).await?;
                    Ok::<_, ClientError>((Session::begin(dial, ids, shown, socket, connection, outlet).await?, from_connection))
                };
                match begun.await {
                    Ok((session, from_connection)) => session.run(early, said, from_connection, inbox, last).await,
                    Err(error) => last.lost(error.to_string()),
                }
            }
            Ok(Some((site, ticket))) => match LiveKitSession::new(Beginning { dial, ids, shown, socket, site, ticket, outlet }) {
                Ok(session) => session.run(early, said, inbox, last).await,
                Err(error) => last.lost(error.to_string()),
            },
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(reason, "out of the call");
                last.lost(reason);
                until_left(socket, said, inbox).await;
            }
        }
    }
}

/// The call is lost, and its owner is told; it may still have something to tell the plugin before everybody sees it leave.
pub(super) async fn until_left(socket: Socket, mut said: mpsc::Receiver<SocketEvent>, mut inbox: mpsc::Receiver<Command>) {
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Leave(done)) => {
                    if socket.say(Action::new("leave", Value::Null)) {
                        let _ = timeout(FAREWELL, socket.close()).await;
                    }
                    let _ = done.send(());
                    return;
                }
                Some(_) => {}
            },
            // The WebSocket lives for as long as somebody reads it.
            event = said.recv() => {
                if event.is_none() {
                    return;
                }
            }
        }
    }
}

fn over() -> ClientError {
    ClientError::Signalling("the session is over".to_owned())
}

/// In either of the forms that clients of the plugin have sent.
fn announced(key: &str, stream: &str) -> Value {
    let inner = json!({ key: stream }).to_string();
    json!({ key: stream, "data": inner })
}

/// Waits for the plugin's word; what else it says meanwhile is kept.
async fn admitted(said: &mut mpsc::Receiver<SocketEvent>, channel: &str, ids: &Ids, early: &mut Vec<Calls>) -> Result<(), ClientError> {
    while let Some(event) = said.recv().await {
        let calls = match event {
            SocketEvent::Calls(calls) => calls,
            SocketEvent::Another(_) => return Err(ClientError::Signalling("the site's WebSocket was lost during the join".to_owned())),
            SocketEvent::Lost(reason) => return Err(ClientError::Signalling(reason)),
        };
        if !matches!(calls.name.as_str(), "join" | "error") {
            if early.len() < EVENTS_RESERVED {
                early.push(calls);
            }
            continue;
        }
        match calls.said(channel, ids) {
            Some(Said::Joined) => return Ok(()),
            Some(Said::Error(text)) => return Err(ClientError::Refused(text)),
            Some(Said::Signal(_) | Said::Event(_)) | None => {}
        }
    }
    Err(over())
}
