//! The thread itself: wait, take a batch, tell the core, do what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_proto::v1;
use conclave_proto::v1::tap_item::Item;
use rtcd_core::ids::{Kind, Link, Source, TapId};
use rtcd_core::output::{TapItem, Transmits};
use rtcd_core::{Core, CoreConfig, Input, Output};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use super::arrivals::Arrivals;
use super::capture::{Capture, Way};
use super::command::as_input;
use super::gather::Gather;
use super::neighbours::{Inbox, Message, Neighbours};
use super::notes::Notes;
use super::ration::CheckRation;
use super::requests::Requests;
use super::routes::Routes;
use super::{Command, Note, Pulse, ShardCounters, ShardReport};
use crate::limits::{DATAGRAMS_PER_PASS_MAX, PARCELS_MAX, SHARD_BEAT};
use crate::metrics::{BUCKETS_FORWARDING, BUCKETS_PASS, Histogram};
use crate::net::poller::{Events, Poller, Ready, Token, Waker};
use crate::net::send::{Sender, Waiting};
use crate::net::tcp::{Connections, ReadResult, TcpListener};
use crate::net::udp::{ReceiveBatch, UdpSocket};
use crate::tap::queue::{Pushed, TapSender};

const TOKEN_WAKE: u64 = 0;
const TOKEN_UDP: u64 = 1 << 32;
const TOKEN_LISTEN: u64 = 2 << 32;
/// Connections use their own number with this bit.
const TOKEN_TCP: u64 = 1 << 63;
/// A request that found another shard's queue full is tried again after this time.
const REQUEST_AGAIN: Duration = Duration::from_millis(5);
/// Housekeeping of the shell: expired connections and routes.
const SWEEP: Duration = Duration::from_secs(2);

/// What a shard is made of.
pub(super) struct ShardParts {
    pub(super) number: u8,
    pub(super) core: CoreConfig,
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) notes: Vec<mpsc::Sender<Note>>,
    pub(super) inbox: Inbox,
    pub(super) neighbours: Neighbours,
    pub(super) waker: Waker,
    pub(super) pulse: Arc<Pulse>,
    /// Datagrams sent per second from which on the thread waits for more before it sends; `None`: never.
    pub(super) gather_from: Option<u64>,
}

/// One media thread's state, made on that thread.
pub(super) struct Shard {
    number: u8,
    core: Core,
    /// When the core wants to be woken.
    wake_at: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    inbox: Inbox,
    neighbours: Neighbours,
    waker: Waker,
    pulse: Arc<Pulse>,
    gather_from: Option<u64>,
    routes: Routes,
    shell: Shell,
    batch: ReceiveBatch,
    arrivals: Arrivals,
    stopping: bool,
}

/// Everything outputs go to; apart from the core, because outputs borrow from it.
struct Shell {
    number: u8,
    poller: Poller,
    sockets: Vec<UdpSocket>,
    sender: Sender,
    listeners: Vec<TcpListener>,
    tcp: Connections,
    notes: Notes,
    requests: Requests,
    taps: FxHashMap<TapId, TapSender>,
    lost_taps: Vec<TapId>,
    report: Option<oneshot::Sender<ShardReport>>,
    /// Senders of checks in this pass and the shard they came to: proved when the core answers.
    checking: Vec<(SocketAddr, u8)>,
    ration: CheckRation,
    epoch: (Instant, u64),
    counters: ShardCounters,
    /// None but while an operator looks at somebody's headers.
    capture: Option<Box<Capture>>,
    passes: Histogram,
    forwarding: Histogram,
    /// Datagrams sent when the pass before ended.
    sent_before: u64,
}

impl Shard {
    pub(super) fn new(parts: ShardParts) -> std::io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(parts.waker.fd(), TOKEN_WAKE)?;
        for (index, socket) in parts.sockets.iter().enumerate() {
            poller.add(socket.fd(), TOKEN_UDP + index as u64)?;
        }
        for (index, listener) in parts.listeners.iter().enumerate() {
            poller.add(listener.fd(), TOKEN_LISTEN + index as u64)?;
        }
        let epoch = parts.core.epoch;
        Ok(Self {
            number: parts.number,
            core: Core::new(parts.core),
            wake_at: None,
            commands: parts.commands,
            inbox: parts.inbox,
            neighbours: parts.neighbours,
            waker: parts.waker,
            pulse: parts.pulse,
            gather_from: parts.gather_from,
            routes: Routes::default(),
            shell: Shell {
                number: parts.number,
                poller,
                sockets: parts.sockets,
                sender: Sender::default(),
                listeners: parts.listeners,
                // 2^40 connections per shard before numbers meet: not in this life.
                tcp: Connections::new(u64::from(parts.number) << 40),
                notes: Notes::new(parts.notes),
                requests: Requests::default(),
                taps: FxHashMap::default(),
                lost_taps: Vec::new(),
                report: None,
                checking: Vec::new(),
                ration: CheckRation::new(epoch.0),
                epoch,
                counters: ShardCounters::default(),
                capture: None,
                passes: Histogram::new(BUCKETS_PASS),
                forwarding: Histogram::new(BUCKETS_FORWARDING),
                sent_before: 0,
            },
            batch: ReceiveBatch::default(),
            arrivals: Arrivals::new(epoch.0),
            stopping: false,
        })
    }

    /// Turns until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::default();
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let mut gather = Gather::new(now, self.gather_from);
        let mut waited = Duration::ZERO;
        let mut sweep_at = now + SWEEP;
        self.poll(now);
        while !self.stopping {
            let before = Instant::now();
            let spent = before.saturating_duration_since(now);
            load.busy(spent);
            self.shell.passes.observe(spent.as_secs_f64());
            self.shell.observe_forwarding(waited + spent);
            gather.review(before, self.shell.counters.datagrams_out, self.shell.counters.sends);
            let until = self.wake_at.map_or(SHARD_BEAT, |at| at.saturating_duration_since(before).min(SHARD_BEAT));
            if let Err(error) = self.shell.poller.wait(until, &mut events) {
                tracing::error!(%error, shard = self.number, "waiting for sockets failed");
            }
            waited = self.wait_for_more(&gather, &events, before, spent);
            // The clock reading that counts in this pass.
            now = Instant::now();
            self.shell.counters.wakes += 1;
            if let Some(permille) = load.second_over(now) {
                self.pulse.load_permille.store(permille, Ordering::Relaxed);
            }
            self.pulse.beat(now);
            self.arrivals.begin(now);
            for event in &events.ready {
                self.handle_ready(*event, now);
            }
            self.arrivals.told(now);
            if let Some(at) = self.wake_at.filter(|at| *at <= now) {
                let late = u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(u64::MAX);
                self.shell.counters.lateness_us_max = self.shell.counters.lateness_us_max.max(late);
                self.wake_at = None;
            }
            if self.core.is_due(now) {
                self.core.handle(now, Input::Timeout);
            }
            if now >= sweep_at {
                sweep_at = now + SWEEP;
                self.sweep(now);
            }
            self.poll(now);
        }
    }

    /// Packets have come; where the next ones are worth a wait, waits for them. Says for how long.
    fn wait_for_more(&self, gather: &Gather, events: &Events, since: Instant, spent: Duration) -> Duration {
        if !gather.waits() || !events.ready.iter().any(|event| is_udp(event.token)) {
            return Duration::ZERO;
        }
        let woken = Instant::now();
        let due = self.wake_at.map_or(Duration::MAX, |at| at.saturating_duration_since(woken));
        let rest = gather.rest(since, woken, spent).min(due);
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
        rest
    }

    fn handle_ready(&mut self, event: Ready, now: Instant) {
        let token = event.token;
        if !is_udp(token) {
            self.arrivals.told(now);
        }
        if token == TOKEN_WAKE {
            self.waker.reset();
            self.handle_messages(now);
            self.handle_parcels(now);
            self.handle_commands(now);
        } else if token & TOKEN_TCP != 0 {
            let id = token & !TOKEN_TCP;
            if event.writable {
                let Shell { tcp, poller, .. } = &mut self.shell;
                tcp.writable(id, |stream, want| drop(poller.modify(stream, TOKEN_TCP | id, want)));
            }
            if event.readable {
                self.handle_tcp(id, now);
            }
        } else if token >= TOKEN_LISTEN {
            let Shell { tcp, poller, listeners, .. } = &mut self.shell;
            if let Some(listener) = usize::try_from(token - TOKEN_LISTEN).ok().and_then(|index| listeners.get(index)) {
                tcp.accept(listener, now, |id, stream| poller.add(stream, TOKEN_TCP | id).is_ok());
            }
        } else {
            self.handle_udp(usize::try_from(token - TOKEN_UDP).unwrap_or_default(), now);
        }
    }

    fn handle_udp(&mut self, index: usize, now: Instant) {
        let Some(socket) = self.shell.sockets.get(index) else { return };
        if socket.receive(&mut self.batch).is_err() {
            self.shell.counters.receive_errors += 1;
            return;
        }
        let bound = socket.local();
        let mut handled = 0;
        for at in 0..self.batch.len() {
            // Taken out of `self` for the time of the loop, so that the core can be polled in between.
            let Some(received) = self.batch.get(at) else { break };
            let (remote, arrived) = (received.remote, self.arrivals.at(received.arrived));
            let local = SocketAddr::new(received.local_ip.unwrap_or(bound.ip()), bound.port());
            let link = Link::Udp { local, remote };
            if self.shell.capture.is_some() {
                self.shell.captured(link, Way::In, received.bytes, received.stride, now);
            }
            for bytes in received.bytes.chunks_mut(received.stride) {
                self.shell.counters.datagrams_in += 1;
                self.shell.counters.bytes_in += bytes.len() as u64;
                if bytes.len() > rtcd_core::limits::DATAGRAM_LEN_MAX {
                    self.shell.counters.bad_length += 1;
                    continue;
                }
                let unproved = is_stun(bytes) && !self.core.knows(link) && self.routes.owner(remote, now).is_none();
                if unproved && !self.shell.ration.take(remote, now) {
                    self.shell.counters.checks_rationed += 1;
                    continue;
                }
                let mut crossing = Crossing {
                    number: self.number,
                    neighbours: &self.neighbours,
                    routes: &mut self.routes,
                    checking: &mut self.shell.checking,
                    counters: &mut self.shell.counters,
                };
                if crossing.stays(link, remote, bytes, now) {
                    self.core.handle(arrived, Input::Datagram { link, bytes });
                    handled += 1;
                }
            }
            if handled >= DATAGRAMS_PER_PASS_MAX || self.core.wants_poll() {
                handled = 0;
                drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
                self.arrivals.told(now);
            }
        }
    }

    fn handle_tcp(&mut self, id: u64, now: Instant) {
        if self.shell.tcp.read(id, now) == ReadResult::Closed {
            self.close_tcp(id, now);
        } else {
            self.pump_tcp(id, now);
        }
    }

    /// Takes all whole frames of a connection.
    fn pump_tcp(&mut self, id: u64, now: Instant) {
        let Some(remote) = self.shell.tcp.remote(id) else { return };
        let link = Link::Tcp { connection: id, remote };
        loop {
            let proved = self.shell.tcp.is_proved(id);
            let bytes = match self.shell.tcp.next_frame(id) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return,
                Err(_) => {
                    self.shell.tcp.counters.bad_frames += 1;
                    self.close_tcp(id, now);
                    return;
                }
            };
            self.shell.counters.datagrams_in += 1;
            self.shell.counters.bytes_in += bytes.len() as u64;
            if !proved {
                match rtcd_core::ice::ufrag::route(bytes).map(|place| place.shard) {
                    Some(shard) if shard == self.number => {}
                    Some(shard) => {
                        let first = bytes.to_vec();
                        // One that names a new shard each time is no better than one with wrong signatures.
                        if self.shell.tcp.may_fail(id) {
                            self.move_tcp(id, shard, link, first, now);
                        } else {
                            self.close_tcp(id, now);
                        }
                        return;
                    }
                    None => {
                        // Not a check with a name we gave out.
                        self.shell.tcp.counters.bad_frames += 1;
                        self.close_tcp(id, now);
                        return;
                    }
                }
            }
            if let Some(capture) = &mut self.shell.capture {
                let at_us = unix_us(self.shell.epoch, now);
                capture.packets(link, Way::In, bytes, bytes.len(), at_us);
            }
            self.core.handle(now, Input::Datagram { link, bytes });
            if !proved {
                // The answer proves the connection; later frames of this read may be anything.
                drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
                if !self.shell.tcp.is_proved(id) && !self.shell.tcp.may_fail(id) {
                    self.close_tcp(id, now);
                    return;
                }
            }
        }
    }

    fn move_tcp(&mut self, id: u64, to: u8, link: Link, first: Vec<u8>, now: Instant) {
        if usize::from(to) >= self.neighbours.count() {
            self.shell.counters.unknown_shard += 1;
            self.close_tcp(id, now);
            return;
        }
        if let Some(stream) = self.shell.tcp.stream(id) {
            self.shell.poller.remove(stream);
        }
        let Some(handover) = self.shell.tcp.give(id) else { return };
        let moved = self.neighbours.send(to, Message::Tcp(Box::new(handover))).is_ok();
        if !moved || self.neighbours.send(to, Message::Datagram { link, bytes: first, from: self.number }).is_err() {
            self.shell.counters.handover_full += 1;
        }
    }

    fn close_tcp(&mut self, id: u64, now: Instant) {
        if let Some(remote) = self.shell.tcp.close(id) {
            self.core.handle(now, Input::LinkClosed { link: Link::Tcp { connection: id, remote } });
        }
    }

    fn handle_messages(&mut self, now: Instant) {
        let mut adopted = Vec::new();
        // At most what fits the queue, so that a busy neighbour cannot keep us here.
        for _ in 0..crate::limits::NEIGHBOUR_MESSAGES_MAX {
            let Ok(message) = self.inbox.messages.try_recv() else { break };
            match message {
                Message::Datagram { link, mut bytes, from } => {
                    if let Link::Udp { remote, .. } = link
                        && is_stun(&bytes)
                    {
                        self.shell.checking.push((remote, from));
                    }
                    if self.shell.capture.is_some() {
                        self.shell.captured(link, Way::In, &bytes, bytes.len(), now);
                    }
                    self.core.handle(now, Input::Datagram { link, bytes: &mut bytes });
                    self.neighbours.recycle(bytes);
                    if self.shell.checking.len() >= DATAGRAMS_PER_PASS_MAX || self.core.wants_poll() {
                        drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
                    }
                }
                Message::Claim { link, remote, shard } => {
                    // Who was proved here keeps it: with names of one's own one could otherwise take another's media away.
                    if !self.core.knows(link) {
                        self.routes.claim(remote, shard, now);
                    }
                    self.shell.ration.give_back(remote);
                }
                Message::Request { from, request } => self.core.handle(now, Input::RelayRequest { from, request }),
                Message::Tcp(handover) => {
                    let id = handover.id;
                    let Shell { tcp, poller, .. } = &mut self.shell;
                    if tcp.adopt(*handover, |id, stream| poller.add(stream, TOKEN_TCP | id).is_ok()) {
                        adopted.push(id);
                    }
                }
            }
        }
        if !adopted.is_empty() {
            // The first frame of each came as a datagram behind it and proves it; what else was read waits in it.
            drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
            for id in adopted {
                self.pump_tcp(id, now);
            }
        }
    }

    fn handle_parcels(&mut self, now: Instant) {
        for _ in 0..PARCELS_MAX {
            let Ok((from, parcel)) = self.inbox.parcels.try_recv() else { return };
            self.core.handle(now, Input::Parcel { from, parcel: &parcel });
            self.neighbours.recycle_parcel(parcel);
            if self.core.wants_poll() {
                drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
            }
        }
    }

    fn handle_commands(&mut self, now: Instant) {
        let mut taken = 0;
        while let Ok(command) = self.commands.try_recv() {
            if let Some(input) = as_input(&command) {
                self.core.handle(now, input);
            }
            #[allow(clippy::wildcard_enum_match_arm, reason = "all others were for the core alone")]
            match command {
                Command::Expect { peer, desk } => self.shell.notes.expect(peer, desk),
                Command::TapOpen { tap, sink, .. } => drop(self.shell.taps.insert(tap, sink)),
                Command::TapClose { tap } => drop(self.shell.taps.remove(&tap)),
                Command::Report { diagnose, reply } => {
                    self.shell.report = Some(reply);
                    self.core.handle(now, Input::Report { token: 0, diagnose });
                }
                Command::Capture { order, reply } => {
                    let free = self.shell.capture.is_none();
                    if free {
                        self.shell.capture = Some(Box::new(Capture::new(order)));
                    }
                    let _ = reply.send(free);
                }
                Command::Stop => self.stopping = true,
                _ => {}
            }
            // Answers go out in the order of their commands, and the core's arena stays small.
            drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
            taken += 1;
            if taken >= 64 {
                // Media waits; the rest of the storm takes its turn after it.
                self.waker.wake();
                return;
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        for id in self.shell.tcp.expired(now) {
            self.close_tcp(id, now);
        }
        self.routes.sweep(now);
    }

    fn poll(&mut self, now: Instant) {
        drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
        if let Some(mut capture) = self.shell.capture.take() {
            capture.follow(self.core.links_of(&capture.peer().clone()));
            self.shell.capture = capture.turn(now).then_some(capture);
        }
        // A tap whose reader is gone or takes nothing at all.
        while let Some(tap) = self.shell.lost_taps.pop() {
            self.shell.taps.remove(&tap);
            self.core.handle(now, Input::TapClose { tap });
            drain(&mut self.core, &mut self.shell, &mut self.wake_at, &mut self.routes, &self.neighbours, now);
        }
    }
}

/// Polls the core to rest and does what it says.
fn drain(core: &mut Core, shell: &mut Shell, wake_at: &mut Option<Instant>, routes: &mut Routes, neighbours: &Neighbours, now: Instant) {
    loop {
        match core.poll(now) {
            Output::Transmits(transmits) => shell.transmit(transmits, routes, neighbours, now),
            Output::Parcel { shard, parcel } => {
                shell.counters.relay_full += neighbours.hand_over(shard, shell.number, parcel) as u64;
            }
            Output::RelayRequest { shard, request } => shell.requests.push(shard, request),
            Output::Origin(origin) => shell.notes.push(Note::Origin(origin)),
            Output::Signal { peer, signal } => shell.notes.push(Note::Signal { peer, signal }),
            Output::Event { call, event } => shell.notes.push(Note::Event { call, event }),
            Output::Data { call, peer, channel, text, payload } => {
                shell.notes.push(Note::Data { call, peer, channel, text, payload: Bytes::copy_from_slice(payload) });
            }
            Output::DataTrack { call, to, packet } => {
                shell.counters.relay_full += u64::from(!shell.notes.offer(Note::DataTrack { call, to, packet }));
            }
            Output::Tap { tap, item } => shell.tap(&tap, &item, now),
            Output::TapClosed { tap } => {
                // Dropping the sender ends the reader's stream.
                shell.taps.remove(&tap);
            }
            Output::Report { report, .. } => shell.answer_report(*report),
            Output::Timeout(at) => {
                *wake_at = at;
                break;
            }
        }
    }
    shell.checking.clear();
    if !shell.requests.flush(shell.number, neighbours) {
        // Nothing else may wake us, and what is needed must be said.
        *wake_at = Some(wake_at.map_or(now + REQUEST_AGAIN, |at| at.min(now + REQUEST_AGAIN)));
    }
    shell.flush_notes();
}

/// Decides whether a datagram is for this shard, and hands it over if not.
struct Crossing<'a> {
    number: u8,
    neighbours: &'a Neighbours,
    routes: &'a mut Routes,
    checking: &'a mut Vec<(SocketAddr, u8)>,
    counters: &'a mut ShardCounters,
}

impl Crossing<'_> {
    fn stays(&mut self, link: Link, remote: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        if self.neighbours.count() == 1 {
            if is_stun(bytes) {
                self.checking.push((remote, self.number));
            }
            return true;
        }
        let owner = if is_stun(bytes)
            && let Some(shard) = rtcd_core::ice::ufrag::route(bytes).map(|place| place.shard)
        {
            if usize::from(shard) >= self.neighbours.count() {
                self.counters.unknown_shard += 1;
                return false;
            }
            if shard == self.number {
                self.checking.push((remote, shard));
            }
            shard
        } else {
            self.routes.owner(remote, now).unwrap_or(self.number)
        };
        if owner == self.number {
            return true;
        }
        if self.neighbours.pass(owner, self.number, link, bytes) {
            self.counters.handed_over += 1;
        } else {
            self.counters.handover_full += 1;
        }
        false
    }
}

/// One of the UDP sockets'.
fn is_udp(token: Token) -> bool {
    (TOKEN_UDP..TOKEN_LISTEN).contains(&token)
}

/// First byte 0 to 3 (RFC 7983).
fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first < 4)
}

impl Shell {
    fn transmit(&mut self, transmits: Transmits<'_>, routes: &mut Routes, neighbours: &Neighbours, now: Instant) {
        let mut waiting = Waiting::default();
        // Which socket they wait for.
        let mut bound = 0;
        for transmit in transmits {
            if self.capture.is_some() {
                self.captured(transmit.link, Way::Out, transmit.bytes, transmit.segment, now);
            }
            match transmit.link {
                Link::Udp { local, remote } => {
                    if !self.checking.is_empty() {
                        self.proved(transmit.link, remote, routes, neighbours, now);
                    }
                    let Some(index) = self.sockets.iter().position(|socket| socket.serves(local)) else { continue };
                    if let Some(before) = self.sockets.get(bound).filter(|_| bound != index) {
                        waiting.send(&mut self.sender, before);
                    }
                    bound = index;
                    let Some(socket) = self.sockets.get(index) else { continue };
                    waiting.push(&mut self.sender, socket, local.ip(), remote, transmit.bytes, transmit.segment);
                }
                Link::Tcp { connection, .. } => {
                    self.tcp.prove(connection);
                    for frame in transmit.bytes.chunks(transmit.segment.max(1)) {
                        self.counters.datagrams_out += 1;
                        self.counters.bytes_out += frame.len() as u64;
                        let poller = &self.poller;
                        self.tcp.send(connection, frame, |stream, want| drop(poller.modify(stream, TOKEN_TCP | connection, want)));
                    }
                }
            }
        }
        if let Some(socket) = self.sockets.get(bound) {
            waiting.send(&mut self.sender, socket);
        }
        let tally = waiting.tally();
        self.counters.sends += tally.messages;
        self.counters.datagrams_out += tally.datagrams;
        self.counters.bytes_out += tally.bytes;
        self.counters.send_buffer_full += tally.full;
        self.counters.send_refused += tally.refused;
    }

    /// The core answers a check from `remote`: the address is ours from now on, wherever its packets come in.
    fn proved(&mut self, link: Link, remote: SocketAddr, routes: &mut Routes, neighbours: &Neighbours, now: Instant) {
        let Some(at) = self.checking.iter().position(|(checking, _)| *checking == remote) else { return };
        let (_, from) = self.checking.swap_remove(at);
        if from == self.number {
            routes.forget(remote, now);
            self.ration.give_back(remote);
        } else {
            // A lost claim is repeated with the next check.
            let _ = neighbours.send(from, Message::Claim { link, remote, shard: self.number });
        }
    }

    fn flush_notes(&mut self) {
        self.notes.flush();
        if self.counters.notes_lost == 0 && self.notes.lost() > 0 {
            tracing::error!(
                shard = self.number,
                "signalling is too far behind: notes of the media core are lost; add cores or lower the load"
            );
        }
        self.counters.notes_lost = self.notes.lost();
    }

    /// Every datagram of a pass was underway for at most as long as the pass took.
    fn observe_forwarding(&mut self, spent: Duration) {
        let sent = self.counters.datagrams_out - self.sent_before;
        self.sent_before = self.counters.datagrams_out;
        self.forwarding.observe_many(spent.as_secs_f64(), sent);
    }

    fn answer_report(&mut self, core: rtcd_core::report::Report) {
        // Asked and answered in one pass, so at most one is open.
        let Some(reply) = self.report.take() else { return };
        let report = ShardReport {
            core,
            shell: self.counters,
            tcp: self.tcp.counters,
            tcp_connections: self.tcp.len(),
            passes: self.passes.clone(),
            forwarding: self.forwarding.clone(),
        };
        self.counters.lateness_us_max = 0;
        let _ = reply.send(report);
    }

    fn unix_us(&self, now: Instant) -> i64 {
        unix_us(self.epoch, now)
    }

    #[cold]
    fn captured(&mut self, link: Link, way: Way, bytes: &[u8], segment: usize, now: Instant) {
        let at_us = self.unix_us(now);
        if let Some(capture) = &mut self.capture {
            capture.packets(link, way, bytes, segment, at_us);
        }
    }

    fn tap(&mut self, tap: &TapId, item: &TapItem<'_>, now: Instant) {
        let at_us = self.unix_us(now);
        let Some(sink) = self.taps.get_mut(tap) else { return };
        let item = match item {
            TapItem::Packet { track, at_us, seq, timestamp, marker, key_frame, audio_level, payload } => {
                let packet = v1::TapPacket {
                    at_us: i64::try_from(*at_us).unwrap_or(i64::MAX),
                    seq: *seq,
                    timestamp: *timestamp,
                    marker: *marker,
                    payload: Bytes::copy_from_slice(payload),
                    key_frame: *key_frame,
                    audio_level: u32::from(*audio_level),
                };
                let pushed = sink.push_packet(track.as_str(), packet);
                self.pushed(tap, pushed);
                return;
            }
            // `identity` carries the peer's id here; the tap service, which knows people, replaces it.
            TapItem::Track { peer, track, kind, source, mime, clock_rate, channels, payload_type, fmtp, width, height } => {
                Item::Track(v1::TapTrack {
                    track_sid: track.as_str().to_owned(),
                    identity: peer.as_str().to_owned(),
                    display_name: String::new(),
                    kind: track_kind(*kind).into(),
                    source: track_source(*source).into(),
                    mime: (*mime).to_owned(),
                    clock_rate: *clock_rate,
                    channels: u32::from(*channels),
                    payload_type: u32::from(*payload_type),
                    fmtp: (*fmtp).to_owned(),
                    width: *width,
                    height: *height,
                    encryption: v1::TapEncryption::None.into(),
                })
            }
            TapItem::Gap { track, from_seq, packets } => Item::Gap(v1::TapGap {
                track_sid: track.as_str().to_owned(),
                from_seq: *from_seq,
                packets: *packets,
                reason: v1::tap_gap::Reason::Network.into(),
            }),
            TapItem::Muted { track, muted } => Item::Muted(v1::TapMuted { track_sid: track.as_str().to_owned(), muted: *muted }),
            TapItem::TrackEnded { track } => Item::TrackEnded(v1::TapTrackEnded { track_sid: track.as_str().to_owned() }),
        };
        let pushed = sink.push(at_us, item);
        self.pushed(tap, pushed);
    }

    fn pushed(&mut self, tap: &TapId, pushed: Pushed) {
        match pushed {
            Pushed::Queued => {}
            Pushed::Dropped => self.counters.tap_packets_dropped += 1,
            Pushed::Lost => self.lost_taps.push(tap.clone()),
        }
    }
}

fn unix_us(epoch: (Instant, u64), now: Instant) -> i64 {
    let since = u64::try_from(now.saturating_duration_since(epoch.0).as_micros()).unwrap_or(u64::MAX);
    i64::try_from(epoch.1.saturating_add(since)).unwrap_or(i64::MAX)
}

/// The core's kind in the protocol's words.
#[must_use]
pub(crate) fn track_kind(kind: Kind) -> v1::TrackKind {
    match kind {
        Kind::Audio => v1::TrackKind::Audio,
        Kind::Video => v1::TrackKind::Video,
    }
}

/// The core's source in the protocol's words.
#[must_use]
pub(crate) fn track_source(source: Source) -> v1::TrackSource {
    match source {
        Source::Camera => v1::TrackSource::Camera,
        Source::Microphone => v1::TrackSource::Microphone,
        Source::ScreenShare => v1::TrackSource::ScreenShare,
        Source::ScreenShareAudio => v1::TrackSource::ScreenShareAudio,
        Source::Unknown => v1::TrackSource::Unspecified,
    }
}

/// Busy share of whole seconds.
struct Load {
    since: Instant,
    busy: Duration,
}

impl Load {
    fn new(now: Instant) -> Self {
        Self { since: now, busy: Duration::ZERO }
    }

    fn busy(&mut self, spent: Duration) {
        self.busy += spent;
    }

    fn second_over(&mut self, now: Instant) -> Option<u32> {
        let over = now.saturating_duration_since(self.since);
        if over < Duration::from_secs(1) {
            return None;
        }
        let permille = self.busy.as_micros() * 1000 / over.as_micros().max(1);
        self.since = now;
        self.busy = Duration::ZERO;
        Some(u32::try_from(permille).unwrap_or(1000).min(1000))
    }
}
