//! What the packets of one publisher may take in memory, shared by the rings of all its layers. Where it is used up a ring stays as large as
//! it is, and drops what is oldest earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Memory of one publisher for one purpose. Clones speak of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    // Touched when a ring grows, never for a packet.
    taken: Arc<AtomicUsize>,
}

impl Room {
    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// What somebody has of a room; goes back with it.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// `None`: of no room, and without a bound of its own.
    room: Option<Room>,
    bytes: usize,
}

impl Share {
    pub(crate) fn of(room: &Room) -> Self {
        Self { room: Some(room.clone()), bytes: 0 }
    }

    /// So many bytes more, if at most `max` are in use of the room then.
    pub(crate) fn take(&mut self, bytes: usize, max: usize) -> bool {
        if let Some(room) = &self.room {
            let taken = room.taken.load(Relaxed).saturating_add(bytes);
            if taken > max {
                return false;
            }
            room.taken.store(taken, Relaxed);
        }
        self.bytes += bytes;
        true
    }

    /// All of it.
    pub(crate) fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(room) = &self.room {
            room.taken.store(room.taken.load(Relaxed).saturating_sub(bytes), Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}
