//! Everything that the core's outputs go to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtcd_core::ids::{Link, TapId};
use rtcd_core::output::Transmits;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::capture::{Capture, Way};
use super::neighbours::{Message, Neighbours};
use super::notes::Notes;
use super::ration::CheckRation;
use super::requests::Requests;
use super::routes::Routes;
use super::{ShardCounters, ShardReport};
use crate::metrics::{BUCKETS_FORWARDING, BUCKETS_PASS, Histogram};
use crate::net::poller::Poller;
use crate::net::send::{Sender, Waiting};
use crate::net::tcp::{Connections, TcpListener};
use crate::net::udp::UdpSocket;
use crate::tap::queue::TapSender;

/// What the poller calls a connection: its number with this bit.
pub(super) const TOKEN_TCP: u64 = 1 << 63;

/// Everything outputs go to; apart from the core, because outputs borrow from it.
pub(super) struct Shell {
    pub(super) number: u8,
    pub(super) poller: Poller,
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) sender: Sender,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) tcp: Connections,
    pub(super) notes: Notes,
    pub(super) requests: Requests,
    pub(super) taps: FxHashMap<TapId, TapSender>,
    pub(super) lost_taps: Vec<TapId>,
    pub(super) report: Option<oneshot::Sender<ShardReport>>,
    /// Senders of checks in this pass and the shard they came to: proved when the core answers.
    pub(super) checking: Vec<(SocketAddr, u8)>,
    pub(super) ration: CheckRation,
    pub(super) epoch: (Instant, u64),
    pub(super) counters: ShardCounters,
    /// None but while an operator looks at somebody's headers.
    pub(super) capture: Option<Box<Capture>>,
    pub(super) passes: Histogram,
    pub(super) forwarding: Histogram,
    /// Datagrams sent when the pass before ended.
    pub(super) sent_before: u64,
}

impl Shell {
    /// Nothing has come in or gone out yet.
    pub(super) fn new(
        number: u8,
        poller: Poller,
        sockets: Vec<UdpSocket>,
        listeners: Vec<TcpListener>,
        notes: Notes,
        epoch: (Instant, u64),
    ) -> Self {
        Self {
            number,
            poller,
            sockets,
            sender: Sender::default(),
            listeners,
            // 2^40 connections per shard before numbers meet: not in this life.
            tcp: Connections::new(u64::from(number) << 40),
            notes,
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
        }
    }

    pub(super) fn transmit(&mut self, transmits: Transmits<'_>, routes: &mut Routes, neighbours: &Neighbours, now: Instant) {
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

    pub(super) fn flush_notes(&mut self) {
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
    pub(super) fn observe_forwarding(&mut self, spent: Duration) {
        let sent = self.counters.datagrams_out - self.sent_before;
        self.sent_before = self.counters.datagrams_out;
        self.forwarding.observe_many(spent.as_secs_f64(), sent);
    }

    pub(super) fn answer_report(&mut self, core: rtcd_core::report::Report) {
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

    pub(super) fn unix_us(&self, now: Instant) -> i64 {
        unix_us(self.epoch, now)
    }

    #[cold]
    pub(super) fn captured(&mut self, link: Link, way: Way, bytes: &[u8], segment: usize, now: Instant) {
        let at_us = self.unix_us(now);
        if let Some(capture) = &mut self.capture {
            capture.packets(link, way, bytes, segment, at_us);
        }
    }
}

pub(super) fn unix_us(epoch: (Instant, u64), now: Instant) -> i64 {
    let since = u64::try_from(now.saturating_duration_since(epoch.0).as_micros()).unwrap_or(u64::MAX);
    i64::try_from(epoch.1.saturating_add(since)).unwrap_or(i64::MAX)
}
