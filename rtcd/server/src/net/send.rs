//! Sending to many destinations with one system call.
//!
//! Measured on 25 000 small datagrams a second: against one `sendmsg` each, one `sendmmsg` for all that wait saves a
//! tenth of the sender's CPU (docs/decisions/0006). Trains (GSO) go the same way.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use smallvec::SmallVec;

use super::udp::UdpSocket;

/// Messages of one system call. More save nothing.
const MESSAGES_MAX: usize = 64;

/// What becomes of datagrams given to [`Sender::push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages handed to the kernel: datagrams, or trains of them.
    pub messages: u64,
    /// Datagrams handed to the kernel.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams dropped because the socket's buffer was full, as any router would.
    pub full: u64,
    /// Datagrams the kernel refused (no route, too long, firewall).
    pub refused: u64,
}

/// What all messages of one call have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Common {
    /// Address to leave from, where the socket is bound to all. A reply from another one than was asked is dropped by firewalls.
    source: Option<IpAddr>,
    /// Length of a train's datagrams.
    segment: Option<u16>,
}

/// Headers for the kernel, prepared once per shape of control messages. Stays on the thread that made it.
#[derive(Default)]
pub struct Sender {
    headers: SmallVec<[(Shape, MultiHeaders<SockaddrStorage>); 6]>,
}

/// Which control messages there are: a prepared buffer has to be used as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Source address; `true`: IPv6.
    source: Option<bool>,
    train: bool,
}

/// Messages on their way into one call.
pub struct Waiting<'a> {
    common: Common,
    slices: SmallVec<[[IoSlice<'a>; 1]; MESSAGES_MAX]>,
    addresses: SmallVec<[Option<SockaddrStorage>; MESSAGES_MAX]>,
    tally: Tally,
}

impl Default for Waiting<'_> {
    fn default() -> Self {
        Self {
            common: Common { source: None, segment: None },
            slices: SmallVec::new(),
            addresses: SmallVec::new(),
            tally: Tally::default(),
        }
    }
}

impl<'a> Waiting<'a> {
    /// Adds datagrams of `segment` bytes each (the last may be shorter) for one destination. What does not fit into
    /// one call with those that wait makes them leave first.
    pub fn push(&mut self, sender: &mut Sender, socket: &UdpSocket, from: IpAddr, to: SocketAddr, bytes: &'a [u8], segment: usize) {
        let source = (socket.local().ip().is_unspecified() && !from.is_unspecified()).then_some(from);
        let segment = segment.max(1);
        let train_len = segment.saturating_mul(socket.train_datagrams(segment));
        let address = SockaddrStorage::from(to);
        for train in bytes.chunks(train_len) {
            let length = (train.len() > segment).then(|| u16::try_from(segment).unwrap_or(u16::MAX));
            let common = Common { source, segment: length };
            if self.common != common || self.slices.len() == MESSAGES_MAX {
                self.send(sender, socket);
                self.common = common;
            }
            self.slices.push([IoSlice::new(train)]);
            self.addresses.push(Some(address));
        }
    }

    /// Sends what waits.
    pub fn send(&mut self, sender: &mut Sender, socket: &UdpSocket) {
        let mut rest = (self.slices.as_slice(), self.addresses.as_slice());
        while !rest.0.is_empty() {
            let sent = match sender.call(socket, self.common, rest.0, rest.1) {
                Ok(sent) => {
                    for [train] in rest.0.iter().take(sent) {
                        self.tally.messages += 1;
                        self.tally.datagrams += datagrams(train, self.common.segment);
                        self.tally.bytes += train.len() as u64;
                    }
                    sent
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.tally.full += rest.0.iter().map(|[train]| datagrams(train, self.common.segment)).sum::<u64>();
                    break;
                }
                Err(error) => {
                    // It was the first one: the kernel tells of a later one when that has become the first.
                    let (Some([train]), Some(address)) = (rest.0.first(), rest.1.first()) else { break };
                    match self.common.segment {
                        // EIO: the card does not cut trains, for nobody. The others: not for this destination (its
                        // path is narrower), which must not cost everybody else theirs.
                        Some(segment) if matches!(error, Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE) => {
                            let before = self.tally.datagrams;
                            sender.one_by_one(socket, self.common.source, train.chunks(usize::from(segment)), address, &mut self.tally);
                            if error == Errno::EIO && self.tally.datagrams > before {
                                socket.no_trains();
                            }
                        }
                        segment => {
                            tracing::trace!(%error, "sending a datagram failed");
                            self.tally.refused += datagrams(train, segment);
                        }
                    }
                    1
                }
            };
            rest = (rest.0.get(sent..).unwrap_or_default(), rest.1.get(sent..).unwrap_or_default());
        }
        self.slices.clear();
        self.addresses.clear();
    }

    /// What became of all of them.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

fn datagrams(train: &[u8], segment: Option<u16>) -> u64 {
    segment.map_or(1, |segment| train.len().div_ceil(usize::from(segment)) as u64)
}

impl Sender {
    fn one_by_one<'a>(
        &mut self,
        socket: &UdpSocket,
        source: Option<IpAddr>,
        datagrams: impl Iterator<Item = &'a [u8]>,
        address: &Option<SockaddrStorage>,
        tally: &mut Tally,
    ) {
        for datagram in datagrams {
            match self.call(socket, Common { source, segment: None }, &[[IoSlice::new(datagram)]], std::slice::from_ref(address)) {
                Ok(_) => {
                    tally.messages += 1;
                    tally.datagrams += 1;
                    tally.bytes += datagram.len() as u64;
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => tally.full += 1,
                Err(_) => tally.refused += 1,
            }
        }
    }

    /// One system call; says how many messages were taken, at least one.
    fn call(
        &mut self,
        socket: &UdpSocket,
        common: Common,
        slices: &[[IoSlice<'_>; 1]],
        addresses: &[Option<SockaddrStorage>],
    ) -> Result<usize, Errno> {
        let shape = Shape { source: common.source.map(|ip| ip.is_ipv6()), train: common.segment.is_some() };
        let at = self.headers.iter().position(|(prepared, _)| *prepared == shape).unwrap_or_else(|| {
            self.headers.push((shape, MultiHeaders::preallocate(MESSAGES_MAX, shape.space())));
            self.headers.len() - 1
        });
        let Some((_, headers)) = self.headers.get_mut(at) else { return Err(Errno::EINVAL) };
        let (mut v4, mut v6);
        let mut control: SmallVec<[ControlMessage<'_>; 2]> = SmallVec::new();
        match common.source {
            Some(IpAddr::V4(ip)) => {
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: libc::in_addr { s_addr: 0 }, ipi_addr: libc::in_addr { s_addr: 0 } };
                v4.ipi_spec_dst.s_addr = u32::from_ne_bytes(ip.octets());
                control.push(ControlMessage::Ipv4PacketInfo(&v4));
            }
            Some(IpAddr::V6(ip)) => {
                v6 = libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: libc::in6_addr { s6_addr: [0; 16] } };
                v6.ipi6_addr.s6_addr = ip.octets();
                control.push(ControlMessage::Ipv6PacketInfo(&v6));
            }
            None => {}
        }
        if let Some(segment) = &common.segment {
            control.push(ControlMessage::UdpGsoSegments(segment));
        }
        let sent = sendmmsg(socket.fd().as_raw_fd(), headers, slices, addresses, &*control, MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
    }
}

impl Shape {
    fn space(self) -> Option<Vec<u8>> {
        match (self.source, self.train) {
            (None, false) => None,
            (None, true) => Some(cmsg_space!(u16)),
            (Some(false), false) => Some(cmsg_space!(libc::in_pktinfo)),
            (Some(false), true) => Some(cmsg_space!(libc::in_pktinfo, u16)),
            (Some(true), false) => Some(cmsg_space!(libc::in6_pktinfo)),
            (Some(true), true) => Some(cmsg_space!(libc::in6_pktinfo, u16)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(ip: &str) -> std::net::UdpSocket {
        let socket = std::net::UdpSocket::bind((ip, 0)).expect("binds");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a socket");
        socket
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect()
    }

    fn take(receiver: &std::net::UdpSocket, len: usize) -> (Vec<usize>, Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let (mut lengths, mut seen) = (Vec::new(), Vec::new());
        loop {
            let (got, from) = receiver.recv_from(&mut buffer).expect("a datagram");
            lengths.push(got);
            seen.extend_from_slice(&buffer[..got]);
            if seen.len() >= len {
                return (lengths, seen, from);
            }
        }
    }

    #[test]
    fn trains_and_single_datagrams_arrive_as_they_were_made() {
        for gso in [true, false] {
            for (bound, reached) in [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::1")] {
                let Ok(socket) = UdpSocket::bind(bound.parse().expect("an address"), gso) else {
                    assert!(bound.starts_with('['), "a machine without IPv6");
                    continue;
                };
                let receivers: Vec<_> = (0..70).map(|_| receiver(reached)).collect();
                let contents = [bytes(250), bytes(90)];
                let mut sender = Sender::default();
                let mut waiting = Waiting::default();
                let from = reached.parse().expect("an address");
                for (at, receiver) in receivers.iter().enumerate() {
                    waiting.push(&mut sender, &socket, from, receiver.local_addr().expect("bound"), &contents[at % 2], 100);
                }
                waiting.send(&mut sender, &socket);
                for (at, receiver) in receivers.iter().enumerate() {
                    let content = &contents[at % 2];
                    let (lengths, seen, sent_from) = take(receiver, content.len());
                    assert_eq!((&seen, sent_from), (content, SocketAddr::new(from, socket.local().port())));
                    assert_eq!(lengths, if at % 2 == 0 { vec![100, 100, 50] } else { vec![90] });
                }
                let messages = if gso && socket.train_datagrams(100) > 1 { 70 } else { 35 * 4 };
                let expected = Tally { messages, datagrams: 35 * 4, bytes: 35 * 340, full: 0, refused: 0 };
                assert_eq!(waiting.tally(), expected, "{bound}");
            }
        }
    }

    #[test]
    fn one_refused_destination_costs_only_its_own_datagrams() {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("an address"), true).expect("binds");
        let (first, last) = (receiver("127.0.0.1"), receiver("127.0.0.1"));
        let content = bytes(60);
        let mut sender = Sender::default();
        let mut waiting = Waiting::default();
        let from = socket.local().ip();
        // Port 0 is none.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        for to in [first.local_addr().expect("bound"), nowhere, nowhere, last.local_addr().expect("bound")] {
            waiting.push(&mut sender, &socket, from, to, &content, 60);
        }
        waiting.send(&mut sender, &socket);
        assert_eq!(waiting.tally(), Tally { messages: 2, datagrams: 2, bytes: 120, full: 0, refused: 2 });
        for receiver in [&first, &last] {
            assert_eq!(take(receiver, 60).1, content);
        }
        // A train for it neither, and trains for others go on.
        let trains = socket.train_datagrams(20);
        let mut waiting = Waiting::default();
        waiting.push(&mut sender, &socket, from, nowhere, &content, 20);
        waiting.push(&mut sender, &socket, from, last.local_addr().expect("bound"), &content, 20);
        waiting.send(&mut sender, &socket);
        assert_eq!((waiting.tally().refused, waiting.tally().datagrams), (3, 3));
        assert_eq!((take(&last, 60).0, socket.train_datagrams(20)), (vec![20; 3], trains));
    }
}
