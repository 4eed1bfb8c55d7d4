//! The headers of one peer's packets as a pcapng file, for `conclave pcap`. Never a byte of payload.
//!
//! Packets are taken where they enter and leave the shard, still or already encrypted. What is kept of each is what its protocol
//! sends in clear: the RTP header with its extensions, the first eight bytes of RTCP, the heads of STUN and DTLS. IP and UDP
//! headers are made anew from the addresses, with the length that the packet had; media over TCP looks like UDP without its framing.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use rtcd_core::ids::{Link, PeerId};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::limits::CAPTURE_CHUNK;

/// One running capture.
pub(super) struct Capture {
    peer: PeerId,
    until: Instant,
    /// What may still be written.
    left: usize,
    links: SmallVec<[Link; 4]>,
    /// Of the node, for links over TCP, which do not tell.
    buffer: Vec<u8>,
    sink: mpsc::Sender<Bytes>,
    over: bool,
}

/// Asked of a shard.
#[derive(Debug)]
pub struct CaptureOrder {
    /// Whose packets.
    pub peer: PeerId,
    /// Until when at the latest.
    pub until: Instant,
    /// Bytes of the file at most.
    pub bytes_max: usize,
    /// Takes the file in stretches; ends when it is dropped or stays full.
    pub sink: mpsc::Sender<Bytes>,
}

/// Which way a packet goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In,
    Out,
}

impl Capture {
    pub(super) fn new(order: CaptureOrder) -> Self {
        let mut capture = Self {
            peer: order.peer,
            until: order.until,
            left: order.bytes_max,
            links: SmallVec::new(),
            buffer: Vec::new(),
            sink: order.sink,
            over: false,
        };
        capture.begin();
        capture
    }

    pub(super) fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Where the peer is now.
    pub(super) fn follow(&mut self, links: impl Iterator<Item = Link>) {
        self.links.clear();
        self.links.extend(links);
    }

    /// Packets of equal size (the last may be shorter) that came or leave on a link.
    pub(super) fn packets(&mut self, link: Link, way: Way, bytes: &[u8], segment: usize, at_us: i64) {
        if self.over || !self.links.contains(&link) {
            return;
        }
        for packet in bytes.chunks(segment.max(1)) {
            self.packet(link, way, packet, at_us);
        }
    }

    /// At the end of a pass: what was gathered goes out. False: the capture is over.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        self.over |= now >= self.until;
        if !self.buffer.is_empty() && (self.over || self.buffer.len() >= CAPTURE_CHUNK || self.sink.capacity() == self.sink.max_capacity())
        {
            // A reader that does not keep up ends its own capture; media never waits for it.
            self.over |= self.sink.try_send(std::mem::take(&mut self.buffer).into()).is_err();
        }
        !self.over && !self.sink.is_closed()
    }

    /// Section and interface description: raw IP, microseconds.
    fn begin(&mut self) {
        let mut section = Vec::new();
        section.extend(0x1A2B_3C4D_u32.to_le_bytes());
        section.extend([1, 0, 0, 0]);
        section.extend([0xFF; 8]);
        self.block(0x0A0D_0D0A, &section);
        let mut interface = vec![101, 0, 0, 0];
        interface.extend(0_u32.to_le_bytes());
        self.block(1, &interface);
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let padding = body.len().wrapping_neg() % 4;
        let total = u32::try_from(12 + body.len() + padding).unwrap_or(u32::MAX);
        if self.left < total as usize {
            self.over = true;
            return;
        }
        self.left -= total as usize;
        self.buffer.extend(kind.to_le_bytes());
        self.buffer.extend(total.to_le_bytes());
        self.buffer.extend_from_slice(body);
        self.buffer.extend(std::iter::repeat_n(0, padding));
        self.buffer.extend(total.to_le_bytes());
    }

    fn packet(&mut self, link: Link, way: Way, packet: &[u8], at_us: i64) {
        let Some(kept) = packet.get(..clear_len(packet)) else { return };
        let (local, remote) = match link {
            Link::Udp { local, remote } => (local, remote),
            // The connection's own end is not known here; the port says that it is ours.
            Link::Tcp { remote, .. } => (SocketAddr::new(unspecified(remote.ip()), 8443), remote),
        };
        let (from, to) = match way {
            Way::In => (remote, local),
            Way::Out => (local, remote),
        };
        let head = ip_udp(from, to, packet.len());
        let captured = head.len() + kept.len();
        let mut body = Vec::with_capacity(20 + captured);
        let at_us = at_us.cast_unsigned();
        body.extend(0_u32.to_le_bytes());
        body.extend(((at_us >> 32) as u32).to_le_bytes());
        body.extend((at_us as u32).to_le_bytes());
        body.extend((captured as u32).to_le_bytes());
        body.extend(((head.len() + packet.len()) as u32).to_le_bytes());
        body.extend_from_slice(&head);
        body.extend_from_slice(kept);
        self.block(6, &body);
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.to_canonical().is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

/// How much of a packet is header, sent in clear.
fn clear_len(packet: &[u8]) -> usize {
    let at = |index: usize| packet.get(index).copied().map_or(0, usize::from);
    let header = match at(0) {
        0..=3 => 20,
        20..=63 => 13,
        128..=191 if (192..=223).contains(&at(1)) => 8,
        128..=191 => {
            let fixed = 12 + 4 * (at(0) & 0x0F);
            // One with an extension has four bytes more that say how long it is.
            if at(0) & 0x10 != 0 { fixed + 4 + 4 * (at(fixed + 2) << 8 | at(fixed + 3)) } else { fixed }
        }
        _ => 0,
    };
    header.min(packet.len())
}

/// IP and UDP headers for a payload of this length.
fn ip_udp(from: SocketAddr, to: SocketAddr, payload: usize) -> SmallVec<[u8; 48]> {
    let mut head: SmallVec<[u8; 48]> = SmallVec::new();
    let udp_len = (payload + 8) as u16;
    match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            head.extend([0x45, 0]);
            head.extend((udp_len + 20).to_be_bytes());
            head.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            head.extend(source.octets());
            head.extend(target.octets());
            let sum = checksum(&head).to_be_bytes();
            for (place, byte) in head.iter_mut().skip(10).zip(sum) {
                *place = byte;
            }
        }
        (source, target) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            head.extend([0x60, 0, 0, 0]);
            head.extend(udp_len.to_be_bytes());
            head.extend([17, 64]);
            head.extend(octets(source));
            head.extend(octets(target));
        }
    }
    head.extend(from.port().to_be_bytes());
    head.extend(to.port().to_be_bytes());
    head.extend(udp_len.to_be_bytes());
    // Not computed: the payload it would cover is left out.
    head.extend([0, 0]);
    head
}

/// Of an IPv4 header (RFC 1071).
fn checksum(head: &[u8]) -> u16 {
    let sum: u32 = head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sent_in_clear_is_header() {
        let mut rtp = vec![0x80, 111, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4];
        rtp.extend([9; 50]);
        assert_eq!(clear_len(&rtp), 12);
        rtp[0] = 0x92;
        rtp[12 + 8 + 2] = 0;
        rtp[12 + 8 + 3] = 2;
        assert_eq!(clear_len(&rtp), 12 + 8 + 4 + 8, "two sources and an extension of two words");
        rtp[12 + 8 + 2] = 255;
        assert_eq!(clear_len(&rtp), rtp.len(), "never beyond the packet");
        assert_eq!(clear_len(&[0x81, 200, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8]), 8, "RTCP");
        assert_eq!((clear_len(&[22; 100]), clear_len(&[0; 100]), clear_len(&[70; 100]), clear_len(&[])), (13, 20, 0, 0));
    }

    #[test]
    fn a_file_has_its_bound() {
        let (sink, mut file) = mpsc::channel(4);
        let peer = PeerId::new("PA_1").expect("a name");
        let now = Instant::now();
        let far = now + std::time::Duration::from_secs(60);
        let mut capture = Capture::new(CaptureOrder { peer, until: far, bytes_max: 500, sink });
        let link = Link::Udp { local: ([10, 0, 0, 1], 8443).into(), remote: ([10, 0, 0, 2], 4000).into() };
        let other = Link::Udp { local: ([10, 0, 0, 1], 8443).into(), remote: ([10, 0, 0, 3], 4000).into() };
        capture.follow([link].into_iter());
        capture.packets(other, Way::In, &[0x80; 100], 100, 5);
        assert!(capture.turn(now));
        let begun = file.try_recv().expect("its beginning").len();
        assert_eq!(begun, 28 + 20);
        for _ in 0..100 {
            capture.packets(link, Way::Out, &[0x80; 100], 50, 5);
        }
        assert!(!capture.turn(now), "the bound ends it");
        let rest = file.try_recv().expect("the rest").len();
        assert!(rest > 100 && begun + rest <= 500, "{rest}");
    }
}
