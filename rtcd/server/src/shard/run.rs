//! The thread itself: wait, take a batch, tell the core, do what it says.

mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtcd_core::ids::Link;
use rtcd_core::{Core, CoreConfig, Input, Output};
use tokio::sync::mpsc;

use super::arrivals::Arrivals;
use super::capture::{Capture, Way};
use super::command::as_input;
use super::crossing::{Crossing, is_stun};
use super::gather::Gather;
use super::load::Load;
use super::neighbours::{Inbox, Message, Neighbours};
use super::notes::Notes;
use super::routes::Routes;
use super::shell::{Shell, TOKEN_TCP};
use super::{Command, Note, Pulse};
use crate::limits::{DATAGRAMS_PER_PASS_MAX, PARCELS_MAX, SHARD_BEAT};
use crate::net::poller::{Events, Poller, Ready, Token, Waker};
use crate::net::tcp::TcpListener;
use crate::net::udp::{ReceiveBatch, UdpSocket};

const TOKEN_WAKE: u64 = 0;
const TOKEN_UDP: u64 = 1 << 32;
const TOKEN_LISTEN: u64 = 2 << 32;
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
            shell: Shell::new(parts.number, poller, parts.sockets, parts.listeners, Notes::new(parts.notes), epoch),
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

/// One of the UDP sockets'.
fn is_udp(token: Token) -> bool {
    (TOKEN_UDP..TOKEN_LISTEN).contains(&token)
}
