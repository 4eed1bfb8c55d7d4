//! Frames that come over TCP, of connections that have proved whose they are and of those that have not.

use std::time::Instant;

use rtcd_core::Input;
use rtcd_core::ids::Link;

use super::{Shard, drain};
use crate::net::tcp::ReadResult;
use crate::shard::capture::Way;
use crate::shard::neighbours::Message;
use crate::shard::shell::unix_us;

impl Shard {
    pub(super) fn handle_tcp(&mut self, id: u64, now: Instant) {
        if self.shell.tcp.read(id, now) == ReadResult::Closed {
            self.close_tcp(id, now);
        } else {
            self.pump_tcp(id, now);
        }
    }

    /// Takes all whole frames of a connection.
    pub(super) fn pump_tcp(&mut self, id: u64, now: Instant) {
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

    pub(super) fn close_tcp(&mut self, id: u64, now: Instant) {
        if let Some(remote) = self.shell.tcp.close(id) {
            self.core.handle(now, Input::LinkClosed { link: Link::Tcp { connection: id, remote } });
        }
    }
}
