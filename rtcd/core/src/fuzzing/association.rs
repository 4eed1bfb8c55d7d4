//! Data channels against arbitrary chunks: an association that stands, and what a hostile browser sends on it.

use std::time::{Duration, Instant};

use crate::ids::Channel;
use crate::limits::{DATA_CHANNELS_MAX, DATA_MESSAGE_LEN_MAX, DATA_STREAMS_MAX};
use crate::sctp::dcep::{self, Message};
use crate::sctp::{Labels, RELIABLE, Sctp, SctpOutput};
use crate::wire::Reader;

/// The client's, in our hand: initiate tag and first number.
const TAG: u32 = 0x0102_0304;
const FIRST_TSN: u32 = 1000;
/// Chunk types.
const DATA: u8 = 0;
const SACK: u8 = 3;
const COOKIE_ECHO: u8 = 10;

/// Channel-opening messages: what is read is written and read again.
pub fn dcep(data: &[u8]) {
    let Some(message) = dcep::parse(data) else { return };
    if let Message::Open { label, reliable, ordered } = message {
        let (channel, ordered) = match (reliable, ordered) {
            (true, _) => (Channel::Reliable, true),
            (false, true) => (Channel::Lossy, true),
            (false, false) => (Channel::DataTrack, false),
        };
        assert_eq!(dcep::parse(&dcep::open(&label, channel)), Some(Message::Open { label, reliable, ordered }));
    }
}

/// CRC32c, bit by bit.
fn checksum(packet: &[u8]) -> u32 {
    !packet.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// A packet as a browser would send it around these chunks.
fn packet(tag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut packet = [&5000_u16.to_be_bytes()[..], &5000_u16.to_be_bytes(), &tag.to_be_bytes(), &[0; 4], chunks].concat();
    let checksum = checksum(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = [&[kind, flags][..], &(value.len() as u16 + 4).to_be_bytes(), value].concat();
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// The association, and what its other side knows of it.
struct Peer {
    sctp: Sctp,
    now: Instant,
    tag: u32,
    /// Our first number, and the next one of the client's.
    their_tsn: u32,
    next_tsn: u32,
}

impl Peer {
    /// Four packets of a handshake made by hand, so that nothing of it is chance but our tag.
    fn new() -> Self {
        let mut peer = Self { sctp: Sctp::new(false, Labels::LiveKit), now: Instant::now(), tag: 0, their_tsn: 0, next_tsn: FIRST_TSN };
        let init = [&TAG.to_be_bytes()[..], &131_072_u32.to_be_bytes(), &[0, 10, 0, 10], &FIRST_TSN.to_be_bytes()].concat();
        peer.sctp.handle(peer.now, &packet(0, &chunk(1, 0, &init)));
        let answer = peer.rest().pop().expect("INIT ACK");
        let word = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().expect("four bytes"));
        (peer.tag, peer.their_tsn) = (word(16), word(28));
        let mut parameters = Reader::new(&answer[32..]);
        while let (Some(kind), Some(len)) = (parameters.u16(), parameters.u16()) {
            let value = parameters.take(usize::from(len) - 4).expect("whole");
            if kind == 7 {
                peer.tell(&chunk(COOKIE_ECHO, 0, value));
            }
            let padding = usize::from(len).next_multiple_of(4) - usize::from(len);
            parameters.take(padding.min(parameters.len()));
        }
        peer
    }

    /// Packets that leave, after what must hold was looked at.
    fn rest(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            match self.sctp.poll(self.now) {
                Some(SctpOutput::Send(packet)) => sent.push(packet),
                Some(SctpOutput::Message { payload, .. }) => assert!(payload.len() <= DATA_MESSAGE_LEN_MAX),
                Some(SctpOutput::Open { .. } | SctpOutput::Closed) => {}
                None => {
                    assert!(self.sctp.channels() <= DATA_CHANNELS_MAX + 2, "two of our own besides");
                    assert!(self.sctp.streams() <= DATA_STREAMS_MAX + 3, "three of our own besides");
                    return sent;
                }
            }
        }
        panic!("polling does not come to rest");
    }

    fn tell(&mut self, chunks: &[u8]) {
        let packet = packet(self.tag, chunks);
        self.sctp.handle(self.now, &packet);
        self.rest();
    }
}

/// `[what, length (16 bits), bytes…]` per step.
pub fn sctp(data: &[u8]) {
    let mut peer = Peer::new();
    let mut reader = Reader::new(data);
    for _ in 0..64 {
        let (Some(what), Some(len)) = (reader.u8(), reader.u16()) else { break };
        let bytes = reader.take(usize::from(len).min(reader.len())).unwrap_or_default();
        match what % 8 {
            // As they are: of the wrong tag, mostly.
            0 => {
                peer.sctp.handle(peer.now, bytes);
                peer.rest();
            }
            // In a packet that is right.
            1 => peer.tell(bytes),
            2 => peer.tell(&chunk(what >> 3, bytes.first().copied().unwrap_or(3), bytes.get(1..).unwrap_or_default())),
            // The next number in turn; `[flags, stream (16), sequence (16), protocol, message…]`.
            3 => {
                let (Some((head, body)), tsn) = (bytes.split_first_chunk::<6>(), peer.next_tsn) else { continue };
                let [flags, stream @ .., protocol] = *head;
                peer.next_tsn = tsn.wrapping_add(1);
                peer.tell(&chunk(DATA, flags & 7, &[&tsn.to_be_bytes()[..], &stream, &[0, 0, 0, protocol], body].concat()));
            }
            // Up to one of our numbers; `[how many, window (32), gaps and doubles…]`.
            4 => {
                let Some((head, rest)) = bytes.split_first_chunk::<5>() else { continue };
                let [count, window @ ..] = *head;
                let sack = [&peer.their_tsn.wrapping_add(u32::from(count)).wrapping_sub(1).to_be_bytes()[..], &window, rest].concat();
                peer.tell(&chunk(SACK, 0, &sack));
            }
            5 => {
                peer.now += Duration::from_millis(u64::from(bytes.first().copied().unwrap_or(1)) * 50);
                peer.sctp.handle_timeout(peer.now);
                peer.rest();
            }
            6 => {
                let channel = [Channel::Reliable, Channel::Lossy, Channel::DataTrack, Channel::DataTrack][usize::from(what >> 3 & 3)];
                match channel {
                    Channel::DataTrack => drop(peer.sctp.send_packet(peer.now, bytes.to_vec().into())),
                    Channel::Reliable | Channel::Lossy => drop(peer.sctp.send(channel, what & 64 != 0, bytes)),
                }
                peer.rest();
            }
            _ => {
                if peer.sctp.channels() < DATA_CHANNELS_MAX {
                    peer.sctp
                        .open_channel([Channel::Reliable, Channel::Lossy, Channel::DataTrack, Channel::Lossy][usize::from(what >> 3 & 3)]);
                    peer.rest();
                }
            }
        }
    }
}

/// Were the handshake refused, the target would only look at the door.
#[cfg(test)]
#[test]
fn the_association_stands_and_carries_messages() {
    let mut peer = Peer::new();
    let data = |n: u8, protocol: u8, body: &[u8]| {
        let tsn = FIRST_TSN + u32::from(n);
        chunk(DATA, 3, &[&tsn.to_be_bytes()[..], &[0, 0, 0, n, 0, 0, 0, protocol], body].concat())
    };
    peer.tell(&data(0, 50, &dcep::open(RELIABLE, Channel::Reliable)));
    assert!(peer.sctp.is_open(Channel::Reliable), "the channel");
    let message = packet(peer.tag, &data(1, 53, b"hello"));
    peer.sctp.handle(peer.now, &message);
    let told: Vec<SctpOutput> = std::iter::from_fn(|| peer.sctp.poll(peer.now)).collect();
    assert!(told.contains(&SctpOutput::Message { channel: Channel::Reliable, text: false, payload: b"hello".to_vec() }), "{told:?}");
}
