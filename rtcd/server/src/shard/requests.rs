//! What this shard needs of other shards' tracks, until it is said: a full queue delays it, and only the newest counts.

use rtcd_core::relay::RelayRequest;
use rustc_hash::FxHashMap;

use super::neighbours::{Message, Neighbours};

/// Those not said yet, by shard and track. At most one per track that stands in here.
#[derive(Default)]
pub(super) struct Requests {
    waiting: FxHashMap<(u8, u64), RelayRequest>,
}

impl Requests {
    pub(super) fn push(&mut self, to: u8, request: RelayRequest) {
        let waiting = self.waiting.entry((to, request.number())).or_insert(request);
        *waiting = request.after(waiting);
    }

    /// True: all are said.
    pub(super) fn flush(&mut self, from: u8, neighbours: &Neighbours) -> bool {
        self.waiting.retain(|(to, _), request| neighbours.send(*to, Message::Request { from, request: *request }).is_err());
        self.waiting.is_empty()
    }
}
