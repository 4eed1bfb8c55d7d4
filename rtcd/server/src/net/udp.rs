//! UDP sockets of one shard: `recvmmsg` with GRO in, `sendmsg` with GSO out.
//!
//! Each shard has its own socket per address, all on the same port (`SO_REUSEPORT`), so shards never share a socket.
//! Measured (hot-path study): batching system calls of different destinations buys nothing; trains to one destination halve the cost.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::limits::SOCKET_BUFFER_WANTED;

/// Bytes of one receive buffer: the largest train the kernel joins.
const BUFFER_LEN: usize = 65_536;
/// Largest train given to the kernel: 64 KiB minus IPv6 and UDP headers, with some air for options.
const TRAIN_LEN_MAX: usize = 65_000;

/// One socket.
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    gso: bool,
}

/// Buffers the kernel gave, when they are smaller than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Receive buffer, bytes.
    pub receive: usize,
    /// Send buffer, bytes.
    pub send: usize,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Handed to the kernel.
    Done,
    /// The socket's buffer is full; dropped, as any router would.
    Full,
    /// The kernel refused (no route, too long, firewall).
    Refused,
}

impl UdpSocket {
    /// Binds `address` with port sharing and large buffers.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, gso: bool) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has its own socket: mapped addresses would be other addresses to the core.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        // Refused silently above the sysctl; looked at in `shortfall`.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_WANTED);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_WANTED);
        let socket: std::net::UdpSocket = socket.into();
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local, gso })
    }

    /// Address bound, with the real port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The descriptor, for the poller.
    #[must_use]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Buffers smaller than asked for.
    #[must_use]
    pub fn shortfall(&self) -> Option<Shortfall> {
        let socket = SockRef::from(&self.socket);
        // Linux reports twice what can be used.
        let usable = |reported: std::io::Result<usize>| reported.map_or(0, |bytes| bytes / 2);
        let got = Shortfall { receive: usable(socket.recv_buffer_size()), send: usable(socket.send_buffer_size()) };
        (got.receive < SOCKET_BUFFER_WANTED || got.send < SOCKET_BUFFER_WANTED).then_some(got)
    }

    /// Whether a datagram that must leave from `local` leaves here.
    #[must_use]
    pub fn serves(&self, local: SocketAddr) -> bool {
        self.local.is_ipv4() == local.is_ipv4() && (self.local.ip().is_unspecified() || self.local.ip() == local.ip())
    }

    /// Receives what is there, up to the batch. `WouldBlock` is an empty batch.
    ///
    /// # Errors
    /// Of the socket; the caller counts it and goes on.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> std::io::Result<()> {
        batch.filled = 0;
        let mut slices: [IoSliceMut<'_>; quinn_udp::BATCH_SIZE] = {
            let mut chunks = batch.bytes.chunks_exact_mut(BUFFER_LEN);
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
        };
        match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut batch.metas) {
            Ok(filled) => {
                batch.filled = filled;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter) to one destination.
    #[must_use]
    pub fn send(&self, from: IpAddr, to: SocketAddr, bytes: &[u8], segment: usize) -> Sent {
        let segment = segment.max(1);
        let per_train = if self.gso { self.state.max_gso_segments().min((TRAIN_LEN_MAX / segment).max(1)) } else { 1 };
        if bytes.len() <= segment {
            return self.send_train(from, to, bytes, None);
        }
        let mut worst = Sent::Done;
        for train in bytes.chunks(segment.saturating_mul(per_train)) {
            let mut sent = self.send_train(from, to, train, (train.len() > segment).then_some(segment));
            if sent == Sent::Refused && train.len() > segment {
                // The kernel or card does not cut trains (quinn-udp has noted it): one by one then.
                sent = train.chunks(segment).map(|single| self.send_train(from, to, single, None)).fold(Sent::Done, Sent::worse);
            }
            worst = worst.worse(sent);
        }
        worst
    }

    fn send_train(&self, from: IpAddr, destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Sent {
        // A reply leaves from the address it came to, or a client with a firewall drops it.
        let src_ip = self.local.ip().is_unspecified().then_some(from).filter(|ip| !ip.is_unspecified());
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => Sent::Done,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Sent::Full,
            Err(error) => {
                tracing::trace!(%error, "sending a datagram failed");
                Sent::Refused
            }
        }
    }
}

impl Sent {
    fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, other) => other,
            (bad, Self::Done) => bad,
            (Self::Full, _) | (_, Self::Full) => Self::Full,
            (Self::Refused, Self::Refused) => Self::Refused,
        }
    }
}

/// Receive buffers of one shard, allocated once: 2 MiB, of which only what comes is touched.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    metas: [RecvMeta; quinn_udp::BATCH_SIZE],
    filled: usize,
}

/// One received buffer: one datagram, or a train of equal ones.
pub struct Received<'a> {
    /// Sender.
    pub remote: SocketAddr,
    /// Address it was sent to, when the kernel says so.
    pub local_ip: Option<IpAddr>,
    /// The bytes.
    pub bytes: &'a mut [u8],
    /// Length of each datagram but the last.
    pub stride: usize,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFER_LEN * quinn_udp::BATCH_SIZE], metas: [RecvMeta::default(); quinn_udp::BATCH_SIZE], filled: 0 }
    }
}

impl ReceiveBatch {
    /// Buffers filled by the last receive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// One of them.
    pub fn get(&mut self, index: usize) -> Option<Received<'_>> {
        if index >= self.filled {
            return None;
        }
        let meta = self.metas.get(index)?;
        let bytes = self.bytes.get_mut(index * BUFFER_LEN..)?.get_mut(..meta.len)?;
        // An IPv4 sender on an IPv6 socket cannot occur (only_v6).
        Some(Received { remote: meta.addr, local_ip: meta.dst_ip, bytes, stride: meta.stride.max(1) })
    }
}

/// What to tell an operator whose kernel gave smaller buffers.
#[must_use]
pub fn shortfall_warning(shortfall: Shortfall) -> String {
    format!(
        "socket buffers are {} KiB (receive) and {} KiB (send) instead of {} KiB: bursts will lose packets; \
         set `sysctl -w net.core.rmem_max={SOCKET_BUFFER_WANTED} net.core.wmem_max={SOCKET_BUFFER_WANTED}`",
        shortfall.receive / 1024,
        shortfall.send / 1024,
        SOCKET_BUFFER_WANTED / 1024,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_arrives_as_the_datagrams_it_was_made_of() {
        for gso in [true, false] {
            let sender = UdpSocket::bind("127.0.0.1:0".parse().expect("an address"), gso).expect("binds");
            let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
            receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a socket");
            let bytes: Vec<u8> = (0..250_u32).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
            let to = receiver.local_addr().expect("bound");
            assert_eq!(sender.send(sender.local().ip(), to, &bytes, 100), Sent::Done);
            let mut buffer = [0; 2000];
            let mut seen = Vec::new();
            while seen.len() < bytes.len() {
                let (len, from) = receiver.recv_from(&mut buffer).expect("a datagram");
                assert_eq!(from, sender.local());
                assert!(len == 100 || len == 50, "{len}");
                seen.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(seen, bytes);
        }
    }

    #[test]
    fn a_batch_tells_sender_and_destination() {
        let socket = UdpSocket::bind("0.0.0.0:0".parse().expect("an address"), true).expect("binds");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        sender.send_to(b"hello", ("127.0.0.1", socket.local().port())).expect("sends");
        let mut batch = ReceiveBatch::default();
        let poller = crate::net::poller::Poller::new().expect("a poller");
        poller.add(socket.fd(), 7).expect("watched");
        poller.wait(std::time::Duration::from_secs(5), &mut crate::net::poller::Events::default()).expect("waits");
        socket.receive(&mut batch).expect("receives");
        let received = batch.get(0).expect("one datagram");
        assert_eq!((&*received.bytes, received.remote), (&b"hello"[..], sender.local_addr().expect("bound")));
        assert_eq!(received.local_ip, Some("127.0.0.1".parse::<IpAddr>().expect("an address")));
    }

    #[test]
    fn a_shortfall_names_the_sysctl() {
        let text = shortfall_warning(Shortfall { receive: 212_992, send: 212_992 });
        assert!(text.contains("net.core.rmem_max=8388608") && text.contains("208 KiB"), "{text}");
    }
}
