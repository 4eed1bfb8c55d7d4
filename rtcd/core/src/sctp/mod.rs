//! Data channels of one transport: SCTP (`sctp-proto`) and the channel-opening protocol (RFC 8832) over DTLS.
//!
//! Knows LiveKit's three channels by their labels and hands out whole messages. Touches no socket: what is to be sent
//! comes out of [`Sctp::poll`] and goes into DTLS as application data.
//!
//! `sctp-proto` draws its tags and first sequence numbers from the operating system: with the DTLS provider, the second
//! place in the core whose chance is not the seed's. Nothing the core decides depends on it.

pub(crate) mod dcep;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppi, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use self::waiting::{Flow, Waiting};
use crate::ids::Channel;
use crate::limits::{DATA_BUFFERED_MAX, DATA_CHANNELS_MAX, DATA_MESSAGE_LEN_MAX, DATA_STREAMS_MAX};

/// LiveKit's label of the channel that delivers in order and for certain.
pub const RELIABLE: &str = "_reliable";
/// LiveKit's label of the channel that may lose.
pub const LOSSY: &str = "_lossy";
/// LiveKit's label of the channel of data tracks, which may lose and reorder.
pub const DATA_TRACK: &str = "_data_track";

/// SCTP wants an address per peer; over DTLS there is none, so every packet carries this one.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// Of an SCTP packet (RFC 9260 3).
const COMMON_HEADER_LEN: usize = 12;
const DATA: u8 = 0;
const DATA_HEADER_LEN: usize = 16;
/// The last byte of the identifier of channel-opening messages (RFC 8832 8.1).
const DCEP: u8 = 50;

/// What an association answers.
#[derive(Debug, PartialEq, Eq)]
pub enum SctpOutput {
    /// Application data for DTLS.
    Send(Vec<u8>),
    /// A channel is open in both directions.
    Open {
        /// Its label.
        label: String,
        /// Which one that is; `None`: none of ours.
        channel: Option<Channel>,
    },
    /// A whole message came.
    Message {
        /// How it came.
        channel: Channel,
        /// As text (RFC 8831 6.6).
        text: bool,
        /// The message.
        payload: Vec<u8>,
    },
    /// The association is over; the object is of no further use.
    Closed,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No open channel of that kind.
    #[error("the data channel is not open")]
    NotOpen,
    /// Longer than [`DATA_MESSAGE_LEN_MAX`].
    #[error("the message is longer than {DATA_MESSAGE_LEN_MAX} bytes")]
    TooLong,
    /// More than [`DATA_BUFFERED_MAX`] bytes wait for this peer.
    #[error("the peer does not read its data channel")]
    Full,
}

impl Channel {
    /// LiveKit's label of it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reliable => RELIABLE,
            Self::Lossy => LOSSY,
            Self::DataTrack => DATA_TRACK,
        }
    }

    fn by_label(label: &str) -> Option<Self> {
        [Self::Reliable, Self::Lossy, Self::DataTrack].into_iter().find(|channel| channel.label() == label)
    }
}

/// Which of the other side's channels carry messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// [`RELIABLE`], [`LOSSY`] and [`DATA_TRACK`]; what comes on others is none of ours.
    LiveKit,
    /// Any: the first of its kind that is open is answered on.
    Any,
}

/// One association.
pub struct Sctp {
    labels: Labels,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    connected: bool,
    /// Channels asked for before the association stood, and their labels.
    wanted: Vec<(&'static str, Channel)>,
    channels: Vec<Opened>,
    /// Streams that the other side began and that are not over, channels or not.
    streams: usize,
    next_own_id: u16,
    /// Packets of data tracks that SCTP has not been given.
    waiting: Waiting,
    /// How many were dropped because the other side takes fewer.
    tracks_dropped: u64,
    /// What left of these, and of reliable messages.
    tracks: Flow,
    reliable: Flow,
    /// The newest number (TSN) that left: what comes under it again is a repetition.
    newest: Option<u32>,
    /// Something came in, or its time did, since the association was asked last.
    heard: bool,
    /// It was given something to send since then.
    given: bool,
    outputs: VecDeque<SctpOutput>,
}

struct Opened {
    id: u16,
    /// `None`: none of ours.
    channel: Option<Channel>,
    /// The other side knows of it (it opened it, or acknowledged ours).
    open: bool,
    label: String,
}

impl Sctp {
    /// An association that waits for the browser's INIT: browsers always send one. `local_is_dtls_client` decides
    /// whether our own channels have even or odd ids (RFC 8832 §6).
    #[must_use]
    pub fn new(local_is_dtls_client: bool, labels: Labels) -> Self {
        let mut server = ServerConfig::default();
        server.transport = Arc::new(bounds());
        Self {
            labels,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), Some(Arc::new(server))),
            association: None,
            connected: false,
            wanted: Vec::new(),
            channels: Vec::new(),
            streams: 0,
            next_own_id: u16::from(!local_is_dtls_client),
            waiting: Waiting::default(),
            tracks_dropped: 0,
            tracks: Flow::default(),
            reliable: Flow::default(),
            newest: None,
            heard: false,
            given: false,
            outputs: VecDeque::new(),
        }
    }

    /// Begins the association instead of waiting for the other side's INIT, as a browser does: for clients.
    pub fn begin(&mut self) {
        let mut client = ClientConfig::default();
        client.transport = Arc::new(bounds());
        // Only an address that cannot be is refused.
        self.association = self.endpoint.connect(client, NOWHERE).ok();
        self.given = true;
    }

    /// Opens one of LiveKit's channels from our side, once the association stands.
    pub fn open_channel(&mut self, channel: Channel) {
        self.open_labelled(channel.label(), channel);
    }

    /// Opens a channel under a label of another dialect.
    pub fn open_labelled(&mut self, label: &'static str, channel: Channel) {
        if self.connected {
            self.open_now(label, channel)
        } else {
            self.wanted.push((label, channel))
        }
        self.flush();
    }

    /// True when a message of that kind can be sent.
    #[must_use]
    pub fn is_open(&self, channel: Channel) -> bool {
        self.id_of(channel).is_some()
    }

    /// True when the other side has everything that was sent to it, or there is no such channel.
    pub fn is_delivered(&mut self, channel: Channel) -> bool {
        let (Some(id), Some((_, association))) = (self.id_of(channel), &mut self.association) else { return true };
        association.stream(id).and_then(|stream| stream.buffered_amount()).unwrap_or_default() == 0
    }

    /// Told: DTLS gave application data.
    pub fn handle(&mut self, now: Instant, bytes: &[u8]) {
        self.heard = true;
        match self.endpoint.handle(now, NOWHERE, None, None, Bytes::copy_from_slice(bytes)) {
            Some((handle, DatagramEvent::NewAssociation(association))) if self.association.is_none() => {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = &mut self.association
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            // A second association on the same transport is nothing a browser does.
            Some((_, DatagramEvent::NewAssociation(_))) | None => {}
        }
        self.read(now);
    }

    /// Told: the time asked for by [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.heard = true;
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
        self.read(now);
    }

    /// Asked: when to be woken.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref().and_then(|(_, association)| association.poll_timeout())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued then.
    pub fn send(&mut self, channel: Channel, text: bool, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > DATA_MESSAGE_LEN_MAX {
            return Err(SendError::TooLong);
        }
        let id = self.id_of(channel).ok_or(SendError::NotOpen)?;
        let (_, association) = self.association.as_mut().ok_or(SendError::NotOpen)?;
        let mut stream = association.stream(id).map_err(|_| SendError::NotOpen)?;
        if stream.buffered_amount().unwrap_or_default() + payload.len() > DATA_BUFFERED_MAX {
            return Err(SendError::Full);
        }
        // RFC 8831 §6.6: an empty message is one zero byte under its own identifier.
        let (bytes, ppi): (&[u8], Ppi) = match (payload.is_empty(), text) {
            (true, false) => (&[0], Ppi::BinaryEmpty),
            (true, true) => (&[0], Ppi::StringEmpty),
            (false, false) => (payload, Ppi::Binary),
            (false, true) => (payload, Ppi::String),
        };
        stream.write_with_ppi(bytes, ppi).map_err(|_| SendError::Full)?;
        self.given = true;
        if channel == Channel::Reliable {
            self.reliable.given += bytes.len() as u64;
        }
        Ok(())
    }

    /// Sends a packet of a data track as soon as there is room for it, or never: see [`DATA_TRACK_AGE_MAX`](crate::limits::DATA_TRACK_AGE_MAX).
    /// The bytes are shared, not copied.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued then.
    pub fn send_packet(&mut self, now: Instant, packet: Bytes) -> Result<(), SendError> {
        if packet.len() > DATA_MESSAGE_LEN_MAX {
            return Err(SendError::TooLong);
        }
        self.id_of(Channel::DataTrack).ok_or(SendError::NotOpen)?;
        self.tracks_dropped += self.waiting.push(now, packet);
        self.given = true;
        Ok(())
    }

    /// How many packets of data tracks were dropped since the last time this was asked, because the other side takes fewer.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.tracks_dropped)
    }

    /// Gives SCTP the next packet of a data track, if it can send it now or soon. False: there was none to give.
    fn feed(&mut self, now: Instant) -> bool {
        self.tracks_dropped += self.waiting.expire(now);
        let Some(id) = self.id_of(Channel::DataTrack) else { return false };
        let reliable = self.id_of(Channel::Reliable);
        let Some((_, association)) = &mut self.association else { return false };
        // What was given up before it left is not kept any longer: a message of which a part got lost.
        for (flow, id) in [(&mut self.tracks, Some(id)), (&mut self.reliable, reliable)] {
            let kept = id.and_then(|id| association.stream(id).ok()?.buffered_amount().ok()).unwrap_or_default();
            flow.left = flow.left.max(flow.given.saturating_sub(kept as u64));
        }
        let Some(packet) = self.waiting.take(self.tracks, self.reliable) else { return false };
        let Ok(mut stream) = association.stream(id) else { return false };
        // The one way to hand bytes over without a copy goes by the stream's own identifier.
        let _ = stream.set_default_payload_type(Ppi::Binary);
        let len = packet.len() as u64;
        match stream.write_chunks(&mut [packet]) {
            Ok(_) => self.tracks.given += len,
            Err(_) => self.tracks_dropped += 1,
        }
        true
    }

    /// Counts what leaves of messages, by a packet of our own.
    fn note_leaving(&mut self, packet: &[u8]) {
        let (tracks, reliable) = (self.id_of(Channel::DataTrack), self.id_of(Channel::Reliable));
        let mut rest = packet.get(COMMON_HEADER_LEN..).unwrap_or_default();
        while let Some(&[kind, _, high, low]) = rest.first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if let Some(&[a, b, c, d, sid_high, sid_low, _, _, _, _, _, ppi]) = rest.get(4..).and_then(|value| value.first_chunk())
                && kind == DATA
                && ppi != DCEP
            {
                let number = u32::from_be_bytes([a, b, c, d]);
                let is_new = self.newest.is_none_or(|newest| number.wrapping_sub(newest).cast_signed() > 0);
                let id = Some(u16::from_be_bytes([sid_high, sid_low]));
                let bytes = len.saturating_sub(DATA_HEADER_LEN) as u64;
                if is_new {
                    self.newest = Some(number);
                }
                if is_new && id == tracks {
                    self.tracks.left += bytes;
                } else if is_new && id == reliable {
                    self.reliable.left += bytes;
                }
            }
            rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Asked: the next output. `None` once there is nothing left.
    pub fn poll(&mut self, now: Instant) -> Option<SctpOutput> {
        self.collect(now);
        self.outputs.pop_front()
    }

    /// Channels there are, asked for and open.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Streams that SCTP keeps.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn streams(&self) -> usize {
        self.association.as_ref().map_or(0, |(_, association)| association.stream_ids().len())
    }

    fn id_of(&self, channel: Channel) -> Option<u16> {
        self.channels.iter().find(|opened| opened.open && opened.channel == Some(channel)).map(|opened| opened.id)
    }

    /// What somebody else's channel is to us.
    fn known(&self, label: &str, reliable: bool) -> Option<Channel> {
        match self.labels {
            Labels::LiveKit => Channel::by_label(label),
            Labels::Any => Some(if reliable { Channel::Reliable } else { Channel::Lossy }),
        }
    }

    fn open_now(&mut self, label: &'static str, channel: Channel) {
        let id = self.next_own_id;
        let Some((_, association)) = &mut self.association else { return };
        let Ok(mut stream) = association.open_stream(id, Ppi::Binary) else { return };
        if stream.write_with_ppi(&dcep::open(label, channel), Ppi::Dcep).is_err() {
            return;
        }
        // The OPEN itself is always reliable (RFC 8832 §6); what follows is as asked.
        if channel != Channel::Reliable {
            let _ = stream.set_reliability_params(channel == Channel::DataTrack, ReliabilityType::Rexmit, 0);
        }
        self.given = true;
        self.next_own_id = self.next_own_id.saturating_add(2);
        self.channels.push(Opened { id, channel: Some(channel), open: false, label: label.to_owned() });
    }

    fn flush(&mut self) {
        if self.connected {
            for (label, channel) in std::mem::take(&mut self.wanted) {
                self.open_now(label, channel);
            }
        }
    }

    fn read(&mut self, _now: Instant) {
        loop {
            let Some((_, association)) = &mut self.association else { return };
            let Some(event) = association.poll() else { break };
            #[allow(clippy::wildcard_enum_match_arm, reason = "foreign and open")]
            match event {
                Event::Connected => {
                    self.connected = true;
                    self.flush();
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => return self.end(),
                Event::Stream(StreamEvent::Opened { id }) => {
                    self.streams += 1;
                    // SCTP walks all of them for each chunk that comes in.
                    if self.streams > DATA_STREAMS_MAX {
                        return self.end();
                    }
                    self.read_stream(id);
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read_stream(id),
                Event::Stream(StreamEvent::Finished { id }) => {
                    self.streams = self.streams.saturating_sub(1);
                    // What it was given and did not send, it will not send.
                    if Some(id) == self.id_of(Channel::DataTrack) {
                        self.tracks = Flow::default();
                    } else if Some(id) == self.id_of(Channel::Reliable) {
                        self.reliable = Flow::default();
                    }
                    self.channels.retain(|channel| channel.id != id);
                }
                // The library's enum may grow; what we do not know we do not need.
                _ => {}
            }
        }
        // Streams the other side opened wait in a queue of their own.
        while let Some(id) =
            self.association.as_mut().and_then(|(_, association)| association.accept_stream().map(|stream| stream.stream_identifier()))
        {
            self.read_stream(id);
        }
    }

    fn end(&mut self) {
        self.association = None;
        self.connected = false;
        self.waiting.clear();
        self.outputs.push_back(SctpOutput::Closed);
    }

    fn read_stream(&mut self, id: u16) {
        while let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
            && let Ok(Some(chunks)) = stream.read_sctp()
        {
            if chunks.len() > DATA_MESSAGE_LEN_MAX {
                continue;
            }
            let mut message = vec![0; chunks.len()];
            if chunks.read(&mut message).is_err() {
                continue;
            }
            match chunks.ppi {
                Ppi::Dcep => self.control(id, &message),
                Ppi::BinaryEmpty => self.message(id, false, Vec::new()),
                Ppi::StringEmpty => self.message(id, true, Vec::new()),
                Ppi::String => self.message(id, true, message),
                Ppi::Binary | Ppi::Unknown => self.message(id, false, message),
            }
        }
    }

    fn control(&mut self, id: u16, message: &[u8]) {
        match dcep::parse(message) {
            Some(dcep::Message::Open { label, reliable, ordered }) => {
                if self.channels.len() >= DATA_CHANNELS_MAX || self.channels.iter().any(|channel| channel.id == id) {
                    return;
                }
                let Some((_, association)) = &mut self.association else { return };
                let Ok(mut stream) = association.stream(id) else { return };
                let _ = stream.write_with_ppi(&dcep::ACK, Ppi::Dcep);
                if !reliable {
                    let _ = stream.set_reliability_params(!ordered, ReliabilityType::Rexmit, 0);
                }
                let channel = self.known(&label, reliable);
                self.channels.push(Opened { id, channel, open: true, label: label.clone() });
                self.outputs.push_back(SctpOutput::Open { label, channel });
            }
            Some(dcep::Message::Ack) => {
                if let Some(channel) = self.channels.iter_mut().find(|channel| channel.id == id && !channel.open) {
                    channel.open = true;
                    self.outputs.push_back(SctpOutput::Open { label: channel.label.clone(), channel: channel.channel });
                }
            }
            None => {}
        }
    }

    fn message(&mut self, id: u16, text: bool, payload: Vec<u8>) {
        if let Some(channel) = self.channels.iter().find(|channel| channel.id == id).and_then(|opened| opened.channel) {
            self.outputs.push_back(SctpOutput::Message { channel, text, payload });
        }
    }

    /// Takes what is ready to leave. SCTP walks everything that is on its way for each question, a hash look-up for each chunk, several times:
    /// it is asked only when it may have an answer, and after what came in or ran out until it has none. What it was only given leaves with the
    /// next answer as far as it may leave now (`sctp-proto` 0.10.8; the tests ask once more).
    fn collect(&mut self, now: Instant) {
        let (heard, given) = (std::mem::take(&mut self.heard), std::mem::take(&mut self.given));
        if !heard && !given {
            return;
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            Self::raw(transmit.payload, &mut self.outputs);
        }
        self.feed(now);
        loop {
            let answered = self.ask(now);
            let fed = self.feed(now);
            let done = !answered || !heard;
            if done && !fed {
                break;
            }
        }
        #[cfg(any(test, fuzzing))]
        assert!(!self.ask(now), "SCTP had more to send than it was asked for");
        if let Some((handle, association)) = &mut self.association {
            while let Some(event) = association.poll_endpoint_event() {
                let _ = self.endpoint.handle_event(*handle, event);
            }
        }
    }

    /// Asks SCTP for packets, once. False: it has none.
    fn ask(&mut self, now: Instant) -> bool {
        let transmit = self.association.as_mut().and_then(|(_, association)| association.poll_transmit(now));
        let Some(Payload::RawEncode(packets)) = transmit.map(|transmit| transmit.payload) else { return false };
        for packet in packets {
            self.note_leaving(&packet);
            self.outputs.push_back(SctpOutput::Send(packet.to_vec()));
        }
        true
    }

    fn raw(payload: Payload, outputs: &mut VecDeque<SctpOutput>) {
        if let Payload::RawEncode(packets) = payload {
            outputs.extend(packets.into_iter().map(|packet| SctpOutput::Send(packet.to_vec())));
        }
    }
}

/// What an association may hold.
fn bounds() -> TransportConfig {
    let limit = u32::try_from(DATA_MESSAGE_LEN_MAX).unwrap_or(u32::MAX);
    TransportConfig::default()
        .with_max_send_message_size(limit)
        .with_max_receive_message_size(limit)
        .with_max_receive_buffer_size(u32::try_from(DATA_BUFFERED_MAX).unwrap_or(u32::MAX))
        .with_max_num_inbound_streams(u16::MAX)
        .with_max_num_outbound_streams(u16::MAX)
}
