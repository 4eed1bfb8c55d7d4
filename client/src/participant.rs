//! A participant: joins, publishes Opus, hears the others, sends data, leaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message as _;
use rtc::data_channel::RTCDataChannelState;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use tokio::sync::{mpsc, oneshot};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{RTCIceCandidateInit, RTCPeerConnectionState};

use crate::ClientError;
use crate::connection::{Connection, ConnectionEvent};
use crate::link::{self, Dial, LinkReceiver, LinkSender};

/// Samples of a 20 ms Opus frame at 48 kHz.
const FRAME_SAMPLES: u32 = 960;
/// Bytes of a VP8 frame in one packet: with all headers below the 1200 that every way carries.
const VP8_PART: usize = 1_100;

/// How long a leaving participant waits for the server's word: without it the leave may be cut off with the stream.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a participant sees.
#[derive(Debug)]
pub enum Event {
    /// An RTP packet of a track, as `webrtc` gave it: authenticated, decrypted, in arrival order.
    Rtp {
        /// The track's id in the SDP's msid (LiveKit track sid).
        track: String,
        /// Payload type, sequence number, timestamp, SSRC and payload.
        packet: rtp::Packet,
    },
    /// Participants joined, changed or left.
    Participants(Vec<lk::ParticipantInfo>),
    /// A data message.
    Data(lk::DataPacket),
    /// A peer connection changed its state; `true`: the one that publishes.
    Connection(bool, RTCPeerConnectionState),
    /// Any other signalling message, for tests that look closer.
    Signal(Box<Response>),
    /// The session is over.
    Ended,
}

/// A participant in a call.
pub struct Participant {
    link: LinkSender,
    leave: oneshot::Sender<oneshot::Sender<()>>,
    commands: mpsc::Sender<Command>,
    /// Our sid.
    pub sid: String,
}

enum Command {
    Publish { cid: String, track: Arc<TrackLocalStaticRTP>, done: oneshot::Sender<Result<(), ClientError>> },
    Unpublish { track: Arc<TrackLocalStaticRTP>, done: oneshot::Sender<Result<(), ClientError>> },
    Data { reliable: bool, payload: Vec<u8>, done: oneshot::Sender<Result<(), ClientError>> },
}

/// A published VP8 track.
pub struct Vp8Track {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    sequence: u16,
}

/// A published Opus track.
pub struct OpusTrack {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Participant {
    /// Joins the call over `local` (an address of this machine). Events come on the returned queue until it is dropped.
    ///
    /// # Errors
    /// When the node cannot be reached, refuses us, or the WebRTC stack fails.
    pub async fn join(dial: &Dial, local: &str) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ClientError> {
        let (link, signals) = link::open(dial).await?;
        Self::enter(link, signals, local).await
    }

    /// As [`Participant::join`], over LiveKit's own WebSocket: `url` (`ws://host:port`) and `token` as its clients get them.
    ///
    /// # Errors
    /// As there.
    pub async fn join_room(url: &str, token: &str, local: &str) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ClientError> {
        let (link, signals) = link::open_socket(url, token).await?;
        Self::enter(link, signals, local).await
    }

    async fn enter(
        link: LinkSender,
        mut signals: LinkReceiver,
        local: &str,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ClientError> {
        let Some(Response::Join(join)) = signals.next().await? else {
            return Err(ClientError::Signalling("the first message was no JoinResponse".to_owned()));
        };
        let sid = join.participant.as_ref().map(|participant| participant.sid.clone()).unwrap_or_default();
        let (events, queue) = mpsc::unbounded_channel();
        let _ = events.send(Event::Participants(join.other_participants));
        let (publisher, from_publisher) = Connection::open(local).await?;
        let (subscriber, from_subscriber) = Connection::open(local).await?;
        let (commands, inbox) = mpsc::channel(64);
        let session = Session { link: link.clone(), publisher, subscriber, events, channels: Vec::new(), offers: 0, waiting: Vec::new() };
        let (leave, leaving) = oneshot::channel();
        tokio::spawn(session.run(signals, from_publisher, from_subscriber, inbox, leaving));
        Ok((Self { link, leave, commands, sid }, queue))
    }

    /// Publishes an Opus track; returns when the server has answered the offer.
    ///
    /// # Errors
    /// When the session is over, or no answer comes within 10 s.
    pub async fn publish_opus(&self, cid: &str, ssrc: u32) -> Result<OpusTrack, ClientError> {
        self.publish_sound(cid, lk::TrackSource::Microphone, ssrc).await
    }

    /// As [`Participant::publish_opus`], of another source: the sound of a shared screen, say.
    ///
    /// # Errors
    /// As there.
    pub async fn publish_sound(&self, cid: &str, source: lk::TrackSource, ssrc: u32) -> Result<OpusTrack, ClientError> {
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
            rtcp_feedback: Vec::new(),
        };
        let track = self.publish(cid, RtpCodecKind::Audio, codec, source, ssrc).await?;
        Ok(OpusTrack { track, ssrc, sequence: 0, timestamp: 0 })
    }

    /// Publishes a VP8 track of a camera or a shared screen; returns when the server has answered the offer.
    ///
    /// # Errors
    /// As [`Participant::publish_opus`].
    pub async fn publish_vp8(&self, cid: &str, source: lk::TrackSource, ssrc: u32) -> Result<Vp8Track, ClientError> {
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_VP8.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: Vec::new(),
        };
        let track = self.publish(cid, RtpCodecKind::Video, codec, source, ssrc).await?;
        Ok(Vp8Track { track, ssrc, sequence: 0 })
    }

    /// Ends a track; returns when the server has answered.
    ///
    /// # Errors
    /// When the session is over, or no answer comes within 10 s.
    pub async fn unpublish(&self, track: OpusTrack) -> Result<(), ClientError> {
        let (done, answered) = oneshot::channel();
        self.agree(Command::Unpublish { track: track.track, done }, answered).await
    }

    async fn agree(&self, command: Command, answered: oneshot::Receiver<Result<(), ClientError>>) -> Result<(), ClientError> {
        let over = || ClientError::Signalling("the session is over".to_owned());
        self.commands.send(command).await.map_err(|_| over())?;
        let limit = Duration::from_secs(10);
        let answered = tokio::time::timeout(limit, answered).await;
        answered.map_err(|_| ClientError::Late(limit, "the answer to our offer"))?.map_err(|_| over())?
    }

    async fn publish(
        &self,
        cid: &str,
        kind: RtpCodecKind,
        codec: RTCRtpCodec,
        source: lk::TrackSource,
        ssrc: u32,
    ) -> Result<Arc<TrackLocalStaticRTP>, ClientError> {
        let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() };
        let encoding = RTCRtpEncodingParameters { rtp_coding_parameters: coding, codec, ..Default::default() };
        let track = MediaStreamTrack::new(cid.to_owned(), cid.to_owned(), cid.to_owned(), kind, vec![encoding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let r#type = if kind == RtpCodecKind::Audio { lk::TrackType::Audio } else { lk::TrackType::Video };
        let add = lk::AddTrackRequest {
            cid: cid.to_owned(),
            name: cid.to_owned(),
            r#type: r#type.into(),
            source: source.into(),
            ..Default::default()
        };
        self.link.request(Request::AddTrack(add)).await?;
        let (done, answered) = oneshot::channel();
        self.agree(Command::Publish { cid: cid.to_owned(), track: track.clone(), done }, answered).await?;
        Ok(track)
    }

    /// Sends a LiveKit user packet to everybody.
    ///
    /// # Errors
    /// [`ClientError::NotOpen`] while the data channel is being opened (the first call begins that), or when the session is over.
    pub async fn send_data(&self, reliable: bool, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        let user = lk::UserPacket { topic: Some(topic.to_owned()), payload: payload.to_vec(), ..Default::default() };
        let packet = lk::DataPacket { value: Some(lk::data_packet::Value::User(user)), ..Default::default() };
        let (done, sent) = oneshot::channel();
        let command = Command::Data { reliable, payload: packet.encode_to_vec(), done };
        self.commands.send(command).await.map_err(|_| ClientError::Signalling("the session is over".to_owned()))?;
        sent.await.map_err(|_| ClientError::Signalling("the session is over".to_owned()))?
    }

    /// Mutes or unmutes one of our tracks.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn mute(&self, track_sid: &str, muted: bool) -> Result<(), ClientError> {
        self.link.request(Request::Mute(lk::MuteTrackRequest { sid: track_sid.to_owned(), muted })).await
    }

    /// Any other request, for tests that look closer.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn request(&self, request: Request) -> Result<(), ClientError> {
        self.link.request(request).await
    }

    /// Leaves for good; returns when the server has said so, or after 2 s.
    ///
    /// # Errors
    /// When the session is over already.
    pub async fn leave(self) -> Result<(), ClientError> {
        let over = || ClientError::Signalling("the session is over".to_owned());
        let (done, left) = oneshot::channel();
        self.leave.send(done).map_err(|_| over())?;
        left.await.map_err(|_| over())
    }
}

impl Vp8Track {
    /// Sends a frame in as many packets as it needs; `timestamp` counts 90 000 a second. The caller paces.
    ///
    /// # Errors
    /// When the peer connection is gone.
    pub async fn send(&mut self, frame: &[u8], timestamp: u32) -> Result<(), ClientError> {
        let mut parts = frame.chunks(VP8_PART).enumerate().peekable();
        while let Some((n, part)) = parts.next() {
            let header = rtp::Header {
                version: 2,
                payload_type: 96,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.ssrc,
                marker: parts.peek().is_none(),
                ..Default::default()
            };
            self.sequence = self.sequence.wrapping_add(1);
            // RFC 7741's descriptor: the frame begins here, or goes on.
            let payload = [&[if n == 0 { 0x10 } else { 0x00 }][..], part].concat();
            self.track.write_rtp(rtp::Packet { header, payload: payload.into() }).await?;
        }
        Ok(())
    }
}

impl OpusTrack {
    /// Sends one 20 ms Opus frame. The caller paces.
    ///
    /// # Errors
    /// When the peer connection is gone.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), ClientError> {
        let header = rtp::Header {
            version: 2,
            payload_type: 111,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            marker: self.sequence == 0,
            ..Default::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES);
        Ok(self.track.write_rtp(rtp::Packet { header, payload: frame }).await?)
    }
}

struct Session {
    link: LinkSender,
    publisher: Connection,
    subscriber: Connection,
    events: mpsc::UnboundedSender<Event>,
    channels: Vec<(String, Arc<dyn DataChannel>)>,
    offers: u32,
    waiting: Vec<oneshot::Sender<Result<(), ClientError>>>,
}

impl Session {
    async fn run(
        mut self,
        mut signals: LinkReceiver,
        mut from_publisher: mpsc::UnboundedReceiver<ConnectionEvent>,
        mut from_subscriber: mpsc::UnboundedReceiver<ConnectionEvent>,
        mut commands: mpsc::Receiver<Command>,
        mut leave: oneshot::Receiver<oneshot::Sender<()>>,
    ) {
        loop {
            let done = tokio::select! {
                signal = signals.next() => match signal {
                    Ok(Some(message)) => self.signalled(message).await,
                    Ok(None) => break,
                    Err(error) => Err(error),
                },
                Some(event) = from_publisher.recv() => { self.connection(true, event); Ok(()) }
                Some(event) = from_subscriber.recv() => { self.connection(false, event); Ok(()) }
                Some(command) = commands.recv() => self.command(command).await,
                leaving = &mut leave => {
                    // Otherwise the participant was dropped: gone without a word.
                    if let Ok(done) = leaving {
                        self.say_goodbye(&mut signals).await;
                        let _ = done.send(());
                    }
                    break;
                }
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the participant's session ends");
                // Who waits for an answer reads why there is none.
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(Err(ClientError::Signalling(format!("the session is over: {error}"))));
                }
                break;
            }
        }
        let _ = self.publisher.inner().close().await;
        let _ = self.subscriber.inner().close().await;
        let _ = self.events.send(Event::Ended);
    }

    async fn say_goodbye(&self, signals: &mut LinkReceiver) {
        let goodbye = async {
            self.link.leave().await?;
            while signals.next().await?.is_some() {}
            Ok::<(), ClientError>(())
        };
        match tokio::time::timeout(FAREWELL, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "left without the server's word"),
            Err(_) => tracing::debug!("left without the server's word"),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "LiveKit has dozens of messages and gets more; those not handled here are passed on")]
    async fn signalled(&mut self, message: Response) -> Result<(), ClientError> {
        match message {
            Response::Answer(answer) => {
                let taken = self.publisher.take_answer(answer.sdp).await;
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(Ok(()));
                }
                taken
            }
            Response::Offer(offer) => {
                let sdp = self.subscriber.answer(offer.sdp).await?;
                let answer = lk::SessionDescription { r#type: "answer".to_owned(), sdp, id: offer.id, ..Default::default() };
                self.link.request(Request::Answer(answer)).await
            }
            Response::Trickle(trickle) => {
                // Our own server never says this: its candidates are in its descriptions. LiveKit's says it as early as it likes.
                if let Ok(candidate) = serde_json::from_str::<RTCIceCandidateInit>(&trickle.candidate_init) {
                    let of = if trickle.target() == lk::SignalTarget::Publisher { &mut self.publisher } else { &mut self.subscriber };
                    of.add_candidate(candidate).await;
                }
                Ok(())
            }
            Response::Update(update) => {
                let _ = self.events.send(Event::Participants(update.participants));
                Ok(())
            }
            other => {
                let _ = self.events.send(Event::Signal(Box::new(other)));
                Ok(())
            }
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), ClientError> {
        match command {
            Command::Publish { cid, track, done } => {
                tracing::debug!(cid, "publishing");
                self.waiting.push(done);
                if self.channels.is_empty() {
                    self.open_channels().await?;
                }
                self.publisher.inner().add_track(track as Arc<dyn TrackLocal>).await?;
                self.offer().await
            }
            Command::Unpublish { track, done } => {
                self.waiting.push(done);
                let track = track as Arc<dyn TrackLocal>;
                for sender in self.publisher.inner().get_senders().await {
                    if Arc::ptr_eq(sender.track(), &track) {
                        self.publisher.inner().remove_track(&sender).await?;
                    }
                }
                self.offer().await
            }
            Command::Data { reliable, payload, done } => {
                if self.channels.is_empty() {
                    self.open_channels().await?;
                    self.offer().await?;
                }
                let _ = done.send(self.send_data(reliable, &payload).await);
                Ok(())
            }
        }
    }

    async fn send_data(&self, reliable: bool, payload: &[u8]) -> Result<(), ClientError> {
        let label = if reliable { "_reliable" } else { "_lossy" };
        match self.channels.iter().find(|(name, _)| name == label) {
            Some((_, channel)) if channel.ready_state().await? == RTCDataChannelState::Open => {
                Ok(channel.send(BytesMut::from(payload)).await?)
            }
            Some(_) | None => Err(ClientError::NotOpen),
        }
    }

    async fn open_channels(&mut self) -> Result<(), ClientError> {
        for (label, retransmits) in [("_reliable", None), ("_lossy", Some(0))] {
            let init = rtc::data_channel::RTCDataChannelInit { ordered: true, max_retransmits: retransmits, ..Default::default() };
            let channel = self.publisher.inner().create_data_channel(label, Some(init)).await?;
            self.channels.push((label.to_owned(), channel));
        }
        Ok(())
    }

    async fn offer(&mut self) -> Result<(), ClientError> {
        self.offers += 1;
        let sdp = self.publisher.offer().await?;
        let offer = lk::SessionDescription { r#type: "offer".to_owned(), sdp, id: self.offers, ..Default::default() };
        self.link.request(Request::Offer(offer)).await
    }

    fn connection(&self, publishes: bool, event: ConnectionEvent) {
        match event {
            ConnectionEvent::State(state) => {
                let _ = self.events.send(Event::Connection(publishes, state));
            }
            // Our server is ICE-lite: it learns our addresses from our checks.
            ConnectionEvent::Candidate(_) => {}
            ConnectionEvent::Track(track) => {
                tokio::spawn(read_track(track, self.events.clone()));
            }
            ConnectionEvent::Data(channel) => {
                tokio::spawn(read_channel(channel, self.events.clone()));
            }
        }
    }
}

async fn read_track(track: Arc<dyn TrackRemote>, events: mpsc::UnboundedSender<Event>) {
    let name = track.track_id().await;
    while let Some(event) = track.poll().await {
        if let TrackRemoteEvent::OnRtpPacket(packet) = event
            && events.send(Event::Rtp { track: name.to_string(), packet }).is_err()
        {
            return;
        }
    }
}

async fn read_channel(channel: Arc<dyn DataChannel>, events: mpsc::UnboundedSender<Event>) {
    while let Some(event) = channel.poll().await {
        if let DataChannelEvent::OnMessage(message) = event
            && let Ok(packet) = lk::DataPacket::decode(&message.data[..])
            && events.send(Event::Data(packet)).is_err()
        {
            return;
        }
    }
}
