//! What a shard tells the desks: in order, bounded, and never waited for.

use std::collections::VecDeque;

use rtcd_core::ids::{CallId, PeerId};
use rtcd_core::output::Signal;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Note, shard_of_call};
use crate::limits::{NOTE_BACKLOG_MAX, NOTES_MAX};

/// Ways to all desks, from one shard.
pub(super) struct Notes {
    ways: Vec<Way>,
    /// Whose desk somebody here is at: signals name nobody's call.
    desks: FxHashMap<PeerId, usize>,
    /// Notes dropped because a desk is far behind.
    lost: u64,
}

struct Way {
    notes: mpsc::Sender<Note>,
    backlog: VecDeque<Note>,
}

impl Notes {
    pub(super) fn new(desks: Vec<mpsc::Sender<Note>>) -> Self {
        let ways = desks.into_iter().map(|notes| Way { notes, backlog: VecDeque::new() }).collect();
        Self { ways, desks: FxHashMap::default(), lost: 0 }
    }

    /// Somebody comes, and this is its desk.
    pub(super) fn expect(&mut self, peer: PeerId, desk: u8) {
        self.desks.insert(peer, usize::from(desk));
    }

    pub(super) fn push(&mut self, note: Note) {
        let desk = self.desk(&note);
        if let Note::Signal { peer, signal: Signal::Ended { .. } } = &note {
            self.desks.remove(peer);
        }
        let Some(way) = desk.and_then(|desk| self.ways.get_mut(desk)) else { return };
        self.lost += u64::from(!way.push(note));
    }

    /// What may get lost, and never takes room from what may not. False: it is lost.
    pub(super) fn offer(&mut self, note: Note) -> bool {
        let desk = self.desk(&note);
        desk.and_then(|desk| self.ways.get_mut(desk)).is_some_and(|way| way.offer(note))
    }

    fn desk(&self, note: &Note) -> Option<usize> {
        match note {
            Note::Signal { peer, .. } => self.desks.get(peer).copied(),
            Note::Event { call, .. } | Note::Data { call, .. } | Note::DataTrack { call, .. } => Some(self.desk_of(call)),
            Note::Origin(origin) => Some(self.desk_of(origin.call())),
        }
    }

    fn desk_of(&self, call: &CallId) -> usize {
        shard_of_call(call, self.ways.len())
    }

    /// What waited goes where there is room again.
    pub(super) fn flush(&mut self) {
        self.ways.iter_mut().for_each(Way::flush);
    }

    /// Notes dropped since the shard's birth.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl Way {
    /// False: it is lost.
    fn push(&mut self, note: Note) -> bool {
        if !self.backlog.is_empty() {
            return self.defer(note);
        }
        match self.notes.try_send(note) {
            Ok(()) => true,
            Err(TrySendError::Full(note)) => self.defer(note),
            // The daemon is ending.
            Err(TrySendError::Closed(_)) => true,
        }
    }

    fn offer(&self, note: Note) -> bool {
        let ample = self.backlog.is_empty() && self.notes.capacity() > NOTES_MAX / 2;
        ample && self.notes.try_send(note).is_ok()
    }

    fn defer(&mut self, note: Note) -> bool {
        let room = self.backlog.len() < NOTE_BACKLOG_MAX;
        if room {
            self.backlog.push_back(note);
        }
        room
    }

    fn flush(&mut self) {
        while let Some(note) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(note)) = self.notes.try_send(note) {
                self.backlog.push_front(note);
                return;
            }
        }
    }
}
