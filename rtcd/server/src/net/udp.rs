//! UDP sockets of one shard: `recvmmsg` with GRO. What is sent stands in `send`.
//!
//! Each shard has its own socket per address, all on the same port (`SO_REUSEPORT`), so shards never share a socket.

use std::cell::Cell;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
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
    gso: Cell<bool>,
}

/// Buffers the kernel gave, when they are smaller than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Receive buffer, bytes.
    pub receive: usize,
    /// Send buffer, bytes.
    pub send: usize,
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
        Ok(Self { socket, state, local, gso: Cell::new(gso) })
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

    /// Datagrams of this length that leave as one train; 1 where trains are off or do not work.
    pub(super) fn train_datagrams(&self, segment: usize) -> usize {
        if self.gso.get() { self.state.max_gso_segments().min((TRAIN_LEN_MAX / segment).max(1)) } else { 1 }
    }

    /// The kernel refused a train.
    pub(super) fn no_trains(&self) {
        if self.gso.replace(false) {
            tracing::info!(local = %self.local, "the kernel does not cut trains here (GSO): datagrams are sent one by one");
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
    /// When it came, Unix time by the kernel's clock, where the kernel says so.
    pub arrived: Option<Duration>,
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
        Some(Received { remote: meta.addr, local_ip: meta.dst_ip, bytes, stride: meta.stride.max(1), arrived: meta.timestamp })
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
