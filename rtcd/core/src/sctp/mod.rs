//! Data channels of one transport: SCTP (`sctp-proto`) and the channel-opening protocol (RFC 8832) over DTLS.
//!
//! Knows LiveKit's two channels by their labels and hands out whole messages. Touches no socket: what is to be sent
//! comes out of [`Sctp::poll`] and goes into DTLS as application data.
//!
//! `sctp-proto` draws its tags and first sequence numbers from the operating system: with the DTLS provider, the second
//! place in the core whose chance is not the seed's. Nothing the core decides depends on it.

pub(crate) mod dcep;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppi, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use crate::limits::{DATA_BUFFERED_MAX, DATA_CHANNELS_MAX, DATA_MESSAGE_LEN_MAX};

/// LiveKit's label of the channel that delivers in order and for certain.
pub const RELIABLE: &str = "_reliable";
/// LiveKit's label of the channel that may lose.
pub const LOSSY: &str = "_lossy";

/// SCTP wants an address per peer; over DTLS there is none, so every packet carries this one.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// What an association answers.
#[derive(Debug, PartialEq, Eq)]
pub enum SctpOutput {
    /// Application data for DTLS.
    Send(Vec<u8>),
    /// A channel is open in both directions.
    Open {
        /// Its label.
        label: String,
        /// False: may lose or reorder.
        reliable: bool,
    },
    /// A whole message came.
    Message {
        /// How it came.
        channel: Channel,
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

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// In order and for certain.
    pub reliable: bool,
    /// As text (RFC 8831 6.6).
    pub text: bool,
}

impl Channel {
    /// Bytes, in order and for certain.
    pub const RELIABLE: Self = Self { reliable: true, text: false };
    /// Bytes that may get lost.
    pub const LOSSY: Self = Self { reliable: false, text: false };
}

/// Which of the other side's channels carry messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// [`RELIABLE`] and [`LOSSY`]; what comes on others is none of ours.
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
    /// Labels asked for before the association stood.
    wanted: Vec<(&'static str, bool)>,
    channels: Vec<Opened>,
    next_own_id: u16,
    outputs: VecDeque<SctpOutput>,
}

struct Opened {
    id: u16,
    reliable: bool,
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
            next_own_id: u16::from(!local_is_dtls_client),
            outputs: VecDeque::new(),
        }
    }

    /// Begins the association instead of waiting for the other side's INIT, as a browser does: for clients.
    pub fn begin(&mut self) {
        let mut client = ClientConfig::default();
        client.transport = Arc::new(bounds());
        // Only an address that cannot be is refused.
        self.association = self.endpoint.connect(client, NOWHERE).ok();
    }

    /// Opens one of LiveKit's channels from our side, once the association stands.
    pub fn open_channel(&mut self, label: &'static str, reliable: bool) {
        if self.connected {
            self.open_now(label, reliable)
        } else {
            self.wanted.push((label, reliable))
        }
        self.flush();
    }

    /// True when a message of that kind can be sent.
    #[must_use]
    pub fn is_open(&self, reliable: bool) -> bool {
        self.channel(reliable).is_some()
    }

    /// Told: DTLS gave application data.
    pub fn handle(&mut self, now: Instant, bytes: &[u8]) {
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
    pub fn send(&mut self, channel: Channel, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > DATA_MESSAGE_LEN_MAX {
            return Err(SendError::TooLong);
        }
        let id = self.channel(channel.reliable).ok_or(SendError::NotOpen)?;
        let (_, association) = self.association.as_mut().ok_or(SendError::NotOpen)?;
        let mut stream = association.stream(id).map_err(|_| SendError::NotOpen)?;
        if stream.buffered_amount().unwrap_or_default() + payload.len() > DATA_BUFFERED_MAX {
            return Err(SendError::Full);
        }
        // RFC 8831 §6.6: an empty message is one zero byte under its own identifier.
        let (bytes, ppi): (&[u8], Ppi) = match (payload.is_empty(), channel.text) {
            (true, false) => (&[0], Ppi::BinaryEmpty),
            (true, true) => (&[0], Ppi::StringEmpty),
            (false, false) => (payload, Ppi::Binary),
            (false, true) => (payload, Ppi::String),
        };
        stream.write_with_ppi(bytes, ppi).map_err(|_| SendError::Full)?;
        Ok(())
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

    fn channel(&self, reliable: bool) -> Option<u16> {
        let label = if reliable { RELIABLE } else { LOSSY };
        let fits = |channel: &&Opened| match self.labels {
            Labels::LiveKit => channel.label == label,
            Labels::Any => channel.reliable == reliable,
        };
        self.channels.iter().find(|channel| channel.open && fits(channel)).map(|channel| channel.id)
    }

    fn open_now(&mut self, label: &'static str, reliable: bool) {
        let id = self.next_own_id;
        let Some((_, association)) = &mut self.association else { return };
        let Ok(mut stream) = association.open_stream(id, Ppi::Binary) else { return };
        if stream.write_with_ppi(&dcep::open(label, reliable), Ppi::Dcep).is_err() {
            return;
        }
        // The OPEN itself is always reliable (RFC 8832 §6); what follows is as asked.
        if !reliable {
            let _ = stream.set_reliability_params(false, ReliabilityType::Rexmit, 0);
        }
        self.next_own_id = self.next_own_id.saturating_add(2);
        self.channels.push(Opened { id, reliable, open: false, label: label.to_owned() });
    }

    fn flush(&mut self) {
        if self.connected {
            for (label, reliable) in std::mem::take(&mut self.wanted) {
                self.open_now(label, reliable);
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
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    self.association = None;
                    self.connected = false;
                    self.outputs.push_back(SctpOutput::Closed);
                    return;
                }
                Event::Stream(StreamEvent::Readable { id } | StreamEvent::Opened { id }) => self.read_stream(id),
                Event::Stream(StreamEvent::Finished { id }) => self.channels.retain(|channel| channel.id != id),
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
                self.channels.push(Opened { id, reliable, open: true, label: label.clone() });
                self.outputs.push_back(SctpOutput::Open { label, reliable });
            }
            Some(dcep::Message::Ack) => {
                if let Some(channel) = self.channels.iter_mut().find(|channel| channel.id == id && !channel.open) {
                    channel.open = true;
                    self.outputs.push_back(SctpOutput::Open { label: channel.label.clone(), reliable: channel.reliable });
                }
            }
            None => {}
        }
    }

    fn message(&mut self, id: u16, text: bool, payload: Vec<u8>) {
        // LiveKit clients open a third channel, `_data_track`; what comes there is no `DataPacket`.
        let known =
            |channel: &&Opened| channel.id == id && (self.labels == Labels::Any || channel.label == RELIABLE || channel.label == LOSSY);
        if let Some(open) = self.channels.iter().find(known) {
            let reliable = if self.labels == Labels::Any { open.reliable } else { open.label != LOSSY };
            self.outputs.push_back(SctpOutput::Message { channel: Channel { reliable, text }, payload });
        }
    }

    fn collect(&mut self, now: Instant) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            Self::raw(transmit.payload, &mut self.outputs);
        }
        if let Some((handle, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                Self::raw(transmit.payload, &mut self.outputs);
            }
            while let Some(event) = association.poll_endpoint_event() {
                let _ = self.endpoint.handle_event(*handle, event);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A browser's side: it sends the INIT.
    struct Browser {
        endpoint: Endpoint,
        handle: AssociationHandle,
        association: Association,
    }

    impl Browser {
        fn new() -> Self {
            let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None);
            let config = sctp_proto::ClientConfig::default();
            let (handle, association) = endpoint.connect(config, NOWHERE).unwrap();
            Self { endpoint, handle, association }
        }

        fn packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
            let mut out = VecDeque::new();
            while let Some(transmit) = self.association.poll_transmit(now) {
                Sctp::raw(transmit.payload, &mut out);
            }
            out.into_iter().map(|output| if let SctpOutput::Send(bytes) = output { bytes } else { unreachable!() }).collect()
        }

        fn handle(&mut self, now: Instant, bytes: &[u8]) {
            if let Some((handle, DatagramEvent::AssociationEvent(event))) =
                self.endpoint.handle(now, NOWHERE, None, None, Bytes::copy_from_slice(bytes))
            {
                assert_eq!(handle, self.handle);
                self.association.handle_event(event);
            }
        }
    }

    /// Carries packets both ways until both are quiet; returns what the server side told.
    fn settle(now: &mut Instant, server: &mut Sctp, browser: &mut Browser) -> Vec<SctpOutput> {
        let mut told = Vec::new();
        for _ in 0..200 {
            *now += Duration::from_millis(10);
            browser.association.handle_timeout(*now);
            server.handle_timeout(*now);
            for packet in browser.packets(*now) {
                server.handle(*now, &packet);
            }
            while let Some(output) = server.poll(*now) {
                match output {
                    SctpOutput::Send(packet) => browser.handle(*now, &packet),
                    other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => told.push(other),
                }
            }
        }
        told
    }

    impl Sctp {
        /// Bytes kept for the other side.
        fn waiting(&mut self) -> usize {
            let Some((_, association)) = &mut self.association else { return 0 };
            self.channels.iter().map(|channel| association.stream(channel.id).unwrap().buffered_amount().unwrap_or_default()).sum()
        }
    }

    #[test]
    fn the_browser_opens_both_channels_and_messages_go_both_ways() {
        let mut now = Instant::now();
        let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
        settle(&mut now, &mut server, &mut browser);
        for (id, label, reliable) in [(0, RELIABLE, true), (2, LOSSY, false)] {
            let mut stream = browser.association.open_stream(id, Ppi::Binary).unwrap();
            stream.write_with_ppi(&dcep::open(label, reliable), Ppi::Dcep).unwrap();
        }
        let told = settle(&mut now, &mut server, &mut browser);
        assert!(told.contains(&SctpOutput::Open { label: RELIABLE.to_owned(), reliable: true }));
        assert!(told.contains(&SctpOutput::Open { label: LOSSY.to_owned(), reliable: false }));

        browser.association.stream(2).unwrap().write_with_ppi(b"hello", Ppi::Binary).unwrap();
        let told = settle(&mut now, &mut server, &mut browser);
        assert_eq!(told, [SctpOutput::Message { channel: Channel::LOSSY, payload: b"hello".to_vec() }]);

        server.send(Channel::RELIABLE, &vec![7; 40_000]).unwrap();
        settle(&mut now, &mut server, &mut browser);
        let chunks = loop {
            let chunks = browser.association.stream(0).unwrap().read_sctp().unwrap().unwrap();
            if chunks.ppi == Ppi::Binary {
                break chunks;
            }
        };
        assert_eq!(chunks.len(), 40_000);
    }

    #[test]
    fn the_server_opens_channels_of_its_own_with_odd_ids() {
        let mut now = Instant::now();
        let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
        server.open_channel(RELIABLE, true);
        server.open_channel(LOSSY, false);
        assert_eq!(server.send(Channel::RELIABLE, b"early"), Err(SendError::NotOpen));
        settle(&mut now, &mut server, &mut browser);
        for id in [1, 3] {
            let mut stream = browser.association.stream(id).unwrap();
            let chunks = stream.read_sctp().unwrap().unwrap();
            assert_eq!(chunks.ppi, Ppi::Dcep);
            stream.write_with_ppi(&dcep::ACK, Ppi::Dcep).unwrap();
        }
        let told = settle(&mut now, &mut server, &mut browser);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(server.is_open(true) && server.is_open(false));
        server.send(Channel::LOSSY, b"now").unwrap();
    }

    /// One way; what is told on it beside packets comes at the end of `told`.
    fn carry(now: Instant, from: &mut Sctp, to: &mut Sctp, told: &mut Vec<SctpOutput>) {
        while let Some(output) = from.poll(now) {
            match output {
                SctpOutput::Send(packet) => to.handle(now, &packet),
                other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => told.push(other),
            }
        }
    }

    #[test]
    fn a_client_begins_and_opens_its_channel() {
        let mut now = Instant::now();
        let (mut client, mut server) = (Sctp::new(true, Labels::Any), Sctp::new(false, Labels::Any));
        client.open_channel("calls-dc", true);
        client.begin();
        let mut told = Vec::new();
        for round in 0..40 {
            now += Duration::from_millis(10);
            client.handle_timeout(now);
            server.handle_timeout(now);
            if round == 20 {
                client.send(Channel::RELIABLE, b"ping").unwrap();
            }
            carry(now, &mut client, &mut server, &mut told);
            carry(now, &mut server, &mut client, &mut told);
        }
        let open = || SctpOutput::Open { label: "calls-dc".to_owned(), reliable: true };
        assert_eq!(told, [open(), open(), SctpOutput::Message { channel: Channel::RELIABLE, payload: b"ping".to_vec() }]);
    }

    #[test]
    fn a_peer_that_does_not_read_fills_its_own_buffer_only() {
        let mut now = Instant::now();
        let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
        settle(&mut now, &mut server, &mut browser);
        browser.association.open_stream(0, Ppi::Binary).unwrap().write_with_ppi(&dcep::open(RELIABLE, true), Ppi::Dcep).unwrap();
        settle(&mut now, &mut server, &mut browser);
        let mut taken = 0;
        while server.send(Channel::RELIABLE, &[1; 10_000]).is_ok() {
            taken += 10_000;
            assert!(taken <= DATA_BUFFERED_MAX, "the bound does not hold");
        }
        assert_eq!(server.send(Channel::RELIABLE, &[1; 10_000]), Err(SendError::Full));
        assert_eq!(server.send(Channel::RELIABLE, &vec![1; DATA_MESSAGE_LEN_MAX + 1]), Err(SendError::TooLong));
    }

    /// Attack class S-02: an hour of messages, one a second and bursts, for a peer that reads nothing of them: one that goes on to
    /// acknowledge until its window is shut, and one that acknowledges nothing (who is really gone is ended by ICE).
    #[test]
    fn an_hour_without_reading_holds_one_buffer() {
        for silent in [false, true] {
            let mut now = Instant::now();
            let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
            settle(&mut now, &mut server, &mut browser);
            browser.association.open_stream(0, Ppi::Binary).unwrap().write_with_ppi(&dcep::open(RELIABLE, true), Ppi::Dcep).unwrap();
            settle(&mut now, &mut server, &mut browser);
            let mut refused = 0;
            for second in 0..3600 {
                now += Duration::from_secs(1);
                for _ in 0..if second % 60 == 0 { 100 } else { 1 } {
                    refused += usize::from(server.send(Channel::RELIABLE, &[1; 10_000]).is_err());
                }
                server.handle_timeout(now);
                browser.association.handle_timeout(now);
                if !silent {
                    for packet in browser.packets(now) {
                        server.handle(now, &packet);
                    }
                }
                let mut left = Vec::new();
                while let Some(output) = server.poll(now) {
                    match output {
                        SctpOutput::Send(packet) => left.push(packet),
                        other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => panic!("{other:?}"),
                    }
                }
                assert!(left.iter().map(Vec::len).sum::<usize>() <= 2 * DATA_BUFFERED_MAX, "second {second}");
                if !silent {
                    left.iter().for_each(|packet| browser.handle(now, packet));
                }
                assert!(server.waiting() <= DATA_BUFFERED_MAX, "second {second}: {}", server.waiting());
            }
            assert!(refused > 3000, "{refused} messages found no room");
            assert!(server.waiting() > DATA_BUFFERED_MAX / 2, "what was taken is kept for it: {}", server.waiting());
        }
    }

    /// Attack class S-03: hundreds of streams, more channels than one may have, messages that are too long.
    #[test]
    fn channels_streams_and_messages_are_bounded() {
        let mut now = Instant::now();
        let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
        settle(&mut now, &mut server, &mut browser);
        let mut told = Vec::new();
        for id in (0..600).step_by(2) {
            let Ok(mut stream) = browser.association.open_stream(id, Ppi::Binary) else { continue };
            let label = if id % 4 == 0 { RELIABLE.to_owned() } else { format!("channel {id}") };
            stream.write_with_ppi(&dcep::open(&label, true), Ppi::Dcep).unwrap();
            if id % 100 == 0 {
                told.extend(settle(&mut now, &mut server, &mut browser));
            }
        }
        told.extend(settle(&mut now, &mut server, &mut browser));
        let opened = told.iter().filter(|output| matches!(output, SctpOutput::Open { .. })).count();
        assert_eq!(opened, DATA_CHANNELS_MAX);
        assert_eq!(server.channels.len(), DATA_CHANNELS_MAX);
        // A stream that is no channel carries nothing, a message that is too long does not arrive, and the rest goes on.
        for (id, len) in [(500, 100), (0, DATA_MESSAGE_LEN_MAX + 1), (0, 100)] {
            let _ = browser.association.stream(id).unwrap().write_with_ppi(&vec![3; len], Ppi::Binary);
            told = settle(&mut now, &mut server, &mut browser);
            let messages = told.iter().filter(|output| matches!(output, SctpOutput::Message { .. })).count();
            assert_eq!(messages, usize::from(len == 100 && id == 0), "{id} {len}");
        }
    }

    #[test]
    fn garbage_changes_nothing() {
        let now = Instant::now();
        let mut server = Sctp::new(false, Labels::LiveKit);
        for length in 0..200 {
            server.handle(now, &vec![0xa5; length]);
        }
        assert_eq!(server.poll(now), None);
    }
}
