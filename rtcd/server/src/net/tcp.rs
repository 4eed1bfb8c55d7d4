//! TCP connections of one shard: RFC 4571 frames, bounded in both directions.
//!
//! A connection starts unproved: it may only present STUN checks, for a short time, and few per source. It is proved
//! once the core has answered one. Its first check also says which shard it belongs to; then it moves there.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use rustc_hash::FxHashMap;
use socket2::{Domain, Protocol, Socket, Type};

use super::framing::{FrameError, FrameReader, head};
use crate::limits::{
    TCP_ACCEPTS_PER_PASS, TCP_CONNECTIONS_MAX, TCP_FAILED_CHECKS_MAX, TCP_IDLE_TIMEOUT, TCP_PROOF_TIMEOUT, TCP_UNPROVED_MAX,
    TCP_UNPROVED_PER_SOURCE_MAX, TCP_WRITE_MAX,
};

/// A listening socket of one shard.
pub struct TcpListener {
    socket: std::net::TcpListener,
}

impl TcpListener {
    /// Binds with port sharing, so that each shard accepts for itself.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restart must not wait for old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(Self { socket: socket.into() })
    }

    /// Address bound.
    ///
    /// # Errors
    /// Never seen.
    pub fn local(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The descriptor, for the poller.
    #[must_use]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One connection.
pub struct Connection {
    stream: TcpStream,
    /// The other side.
    pub remote: SocketAddr,
    reader: FrameReader,
    waiting: VecDeque<u8>,
    watching_writes: bool,
    opened: Instant,
    heard: Instant,
    failed_checks: u32,
    /// The core has answered one of its checks.
    pub proved: bool,
}

/// A connection on its way to the shard it belongs to, with what was read of it.
pub struct Handover {
    /// Its number, kept for life.
    pub id: u64,
    /// The connection.
    pub connection: Connection,
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// Nothing more for now.
    Open,
    /// Closed or broken; forget it.
    Closed,
}

/// Why a connection was not taken or was closed; counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpCounters {
    /// Accepted.
    pub accepted: u64,
    /// Taken over from the shard that accepted them.
    pub moved_in: u64,
    /// Closed at once: too many in all, unproved, or from one source, or too many checks that prove nothing.
    pub rationed: u64,
    /// Closed for saying nothing valid in time.
    pub unproved_expired: u64,
    /// Closed for silence.
    pub idle_expired: u64,
    /// Closed for a broken frame.
    pub bad_frames: u64,
    /// Frames dropped because their reader is slow.
    pub slow_reader_drops: u64,
}

impl TcpCounters {
    /// `(name, value)` of all, for metrics. Names are final.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("accepted", self.accepted),
            ("moved_in", self.moved_in),
            ("rationed", self.rationed),
            ("unproved_expired", self.unproved_expired),
            ("idle_expired", self.idle_expired),
            ("bad_frames", self.bad_frames),
            ("slow_reader_drops", self.slow_reader_drops),
        ]
    }
}

/// All connections of one shard.
pub struct Connections {
    by_id: FxHashMap<u64, Connection>,
    unproved_by_source: FxHashMap<IpAddr, usize>,
    unproved: usize,
    next_id: u64,
    scratch: Box<[u8]>,
    /// Counts.
    pub counters: TcpCounters,
}

impl Connections {
    /// Numbers start at `first_id` and only grow; shards start far apart, so numbers stay unique when connections move.
    #[must_use]
    pub fn new(first_id: u64) -> Self {
        Self {
            by_id: FxHashMap::default(),
            unproved_by_source: FxHashMap::default(),
            unproved: 0,
            next_id: first_id,
            scratch: vec![0; 16 * 1024].into_boxed_slice(),
            counters: TcpCounters::default(),
        }
    }

    /// Accepts what waits, within the bounds; `registered` is told each new connection.
    pub fn accept(&mut self, listener: &TcpListener, now: Instant, mut register: impl FnMut(u64, &TcpStream) -> bool) {
        for _ in 0..TCP_ACCEPTS_PER_PASS {
            let (stream, remote) = match listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // Also out of descriptors: the backlog waits, the next pass tries again.
                Err(_) => return,
            };
            let source = source_prefix(remote.ip());
            let from_source = self.unproved_by_source.get(&source).copied().unwrap_or_default();
            let full = self.by_id.len() >= TCP_CONNECTIONS_MAX || self.unproved >= TCP_UNPROVED_MAX;
            if full || from_source >= TCP_UNPROVED_PER_SOURCE_MAX || stream.set_nonblocking(true).is_err() {
                self.counters.rationed += 1;
                continue;
            }
            let _ = stream.set_nodelay(true);
            let id = self.next_id;
            if !register(id, &stream) {
                self.counters.rationed += 1;
                continue;
            }
            self.next_id += 1;
            self.counters.accepted += 1;
            self.count_unproved(source);
            self.by_id.insert(
                id,
                Connection {
                    stream,
                    remote,
                    reader: FrameReader::default(),
                    waiting: VecDeque::new(),
                    watching_writes: false,
                    opened: now,
                    heard: now,
                    failed_checks: 0,
                    proved: false,
                },
            );
        }
    }

    /// Takes a connection another shard accepted.
    pub fn adopt(&mut self, handover: Handover, register: impl FnOnce(u64, &TcpStream) -> bool) -> bool {
        if self.by_id.len() >= TCP_CONNECTIONS_MAX || !register(handover.id, &handover.connection.stream) {
            self.counters.rationed += 1;
            return false;
        }
        if !handover.connection.proved {
            self.count_unproved(source_prefix(handover.connection.remote.ip()));
        }
        self.counters.moved_in += 1;
        self.by_id.insert(handover.id, handover.connection);
        true
    }

    /// Gives a connection away.
    pub fn give(&mut self, id: u64) -> Option<Handover> {
        self.take(id).map(|connection| Handover { id, connection })
    }

    /// The stream of a connection, to stop watching it.
    #[must_use]
    pub fn stream(&self, id: u64) -> Option<&TcpStream> {
        self.by_id.get(&id).map(|connection| &connection.stream)
    }

    /// The other side of a connection.
    #[must_use]
    pub fn remote(&self, id: u64) -> Option<SocketAddr> {
        self.by_id.get(&id).map(|connection| connection.remote)
    }

    /// Whether the core has answered this connection's check.
    #[must_use]
    pub fn is_proved(&self, id: u64) -> bool {
        self.by_id.get(&id).is_some_and(|connection| connection.proved)
    }

    /// An unproved connection's check has proved nothing. `false`: that was one too many, close it.
    pub fn may_fail(&mut self, id: u64) -> bool {
        let Some(connection) = self.by_id.get_mut(&id) else { return false };
        connection.failed_checks += 1;
        let may = connection.failed_checks < TCP_FAILED_CHECKS_MAX;
        self.counters.rationed += u64::from(!may);
        may
    }

    /// Open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// None open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The core answered a check of this connection.
    pub fn prove(&mut self, id: u64) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.proved, true) {
            let source = source_prefix(connection.remote.ip());
            self.uncount_unproved(source);
        }
    }

    /// Reads once and stores the bytes; frames are taken with [`Connections::next_frame`].
    pub fn read(&mut self, id: u64, now: Instant) -> ReadResult {
        let Some(connection) = self.by_id.get_mut(&id) else { return ReadResult::Closed };
        match connection.stream.read(&mut self.scratch) {
            Ok(0) => ReadResult::Closed,
            Ok(len) => {
                connection.heard = now;
                connection.reader.push(self.scratch.get(..len).unwrap_or_default());
                ReadResult::Open
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => ReadResult::Open,
            Err(_) => ReadResult::Closed,
        }
    }

    /// The next whole frame of a connection.
    ///
    /// # Errors
    /// A frame no honest peer sends: close the connection.
    pub fn next_frame(&mut self, id: u64) -> Result<Option<&mut [u8]>, FrameError> {
        match self.by_id.get_mut(&id) {
            Some(connection) => connection.reader.next_frame(),
            None => Ok(None),
        }
    }

    /// Sends one frame, or as much as the kernel takes; the rest waits. A slow reader loses whole frames.
    /// `watch` is told when waiting for room begins or ends.
    pub fn send(&mut self, id: u64, frame: &[u8], watch: impl FnOnce(&TcpStream, bool)) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        if connection.waiting.len() + frame.len() + 2 > TCP_WRITE_MAX {
            self.counters.slow_reader_drops += 1;
            return;
        }
        connection.waiting.extend(head(frame.len()));
        connection.waiting.extend(frame);
        connection.flush(watch);
    }

    /// There is room to write again.
    pub fn writable(&mut self, id: u64, watch: impl FnOnce(&TcpStream, bool)) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.flush(watch);
        }
    }

    /// Forgets a connection; the descriptor closes with it.
    pub fn close(&mut self, id: u64) -> Option<SocketAddr> {
        self.take(id).map(|connection| connection.remote)
    }

    /// Connections whose time is up, for closing.
    pub fn expired(&mut self, now: Instant) -> Vec<u64> {
        let mut over = Vec::new();
        for (id, connection) in &self.by_id {
            if !connection.proved && now.saturating_duration_since(connection.opened) > TCP_PROOF_TIMEOUT {
                self.counters.unproved_expired += 1;
                over.push(*id);
            } else if connection.proved && now.saturating_duration_since(connection.heard) > TCP_IDLE_TIMEOUT {
                self.counters.idle_expired += 1;
                over.push(*id);
            }
        }
        over
    }

    fn take(&mut self, id: u64) -> Option<Connection> {
        let connection = self.by_id.remove(&id)?;
        if !connection.proved {
            self.uncount_unproved(source_prefix(connection.remote.ip()));
        }
        Some(connection)
    }

    fn count_unproved(&mut self, source: IpAddr) {
        self.unproved += 1;
        *self.unproved_by_source.entry(source).or_default() += 1;
    }

    fn uncount_unproved(&mut self, source: IpAddr) {
        self.unproved = self.unproved.saturating_sub(1);
        if let Some(count) = self.unproved_by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.unproved_by_source.remove(&source);
            }
        }
    }
}

impl Connection {
    fn flush(&mut self, watch: impl FnOnce(&TcpStream, bool)) {
        while !self.waiting.is_empty() {
            let (first, second) = self.waiting.as_slices();
            let slices = [std::io::IoSlice::new(first), std::io::IoSlice::new(second)];
            match self.stream.write_vectored(&slices) {
                Ok(0) => break,
                Ok(len) => drop(self.waiting.drain(..len)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A broken connection shows itself at the next read.
                Err(_) => break,
            }
        }
        let want = !self.waiting.is_empty();
        if want != self.watching_writes {
            self.watching_writes = want;
            watch(&self.stream, want);
        }
        if !want && self.waiting.capacity() > 64 * 1024 {
            self.waiting.shrink_to(4096);
        }
    }
}

/// Who pays for an address: its /24 or /48.
#[must_use]
pub fn source_prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(connections: &mut Connections) -> (u64, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let client = TcpStream::connect(listener.local().expect("bound")).expect("connects");
        let poller = crate::net::poller::Poller::new().expect("a poller");
        poller.add(listener.fd(), 1).expect("watched");
        poller.wait(std::time::Duration::from_secs(5), &mut crate::net::poller::Events::default()).expect("waits");
        let mut id = 0;
        connections.accept(&listener, Instant::now(), |new, _| {
            id = new;
            true
        });
        (id, client)
    }

    #[test]
    fn unproved_connections_are_rationed_per_source_and_expire() {
        let mut connections = Connections::new(0);
        let mut clients = Vec::new();
        for _ in 0..TCP_UNPROVED_PER_SOURCE_MAX + 3 {
            clients.push(pair(&mut connections));
        }
        assert_eq!(connections.len(), TCP_UNPROVED_PER_SOURCE_MAX);
        assert_eq!(connections.counters.rationed, 3);
        let later = Instant::now() + TCP_PROOF_TIMEOUT + std::time::Duration::from_secs(1);
        for id in connections.expired(later) {
            connections.close(id);
        }
        assert!(connections.is_empty());
        pair(&mut connections);
        assert_eq!(connections.len(), 1, "the ration is given back");
    }

    #[test]
    fn a_slow_reader_loses_whole_frames_and_no_more_than_its_own() {
        let mut connections = Connections::new(0);
        let (id, mut client) = pair(&mut connections);
        let frame = [7_u8; 1200];
        let mut watched = false;
        for _ in 0..20_000 {
            connections.send(id, &frame, |_, want| watched = want);
        }
        assert!(connections.counters.slow_reader_drops > 0 && watched);
        // What does arrive is whole frames, each as sent.
        client.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a socket");
        let mut reader = FrameReader::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut frames = 0;
        while let Ok(len) = client.read(&mut buffer) {
            reader.push(&buffer[..len]);
            while let Some(seen) = reader.next_frame().expect("valid frames") {
                assert_eq!(seen, frame);
                frames += 1;
            }
            connections.writable(id, |_, _| {});
        }
        assert_eq!(frames + connections.counters.slow_reader_drops, 20_000);
    }
}
