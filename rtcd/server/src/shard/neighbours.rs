//! Messages between shards: bounded, and full means dropped and counted, never waited for.

use std::net::SocketAddr;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rtcd_core::ids::Link;
use rtcd_core::relay::{Parcel, RelayRequest};

use crate::limits::{NEIGHBOUR_MESSAGES_MAX, PARCELS_MAX};
use crate::net::poller::Waker;
use crate::net::tcp::Handover;

/// One message.
pub(super) enum Message {
    /// A datagram whose peer lives on the receiving shard.
    Datagram {
        /// As it came.
        link: Link,
        /// Its bytes, in a buffer that goes back to the pool.
        bytes: Vec<u8>,
        /// The shard it came to.
        from: u8,
    },
    /// The sending shard has proved that an address is its own.
    Claim {
        /// As it came.
        link: Link,
        /// The address.
        remote: SocketAddr,
        /// Its owner.
        shard: u8,
    },
    /// A TCP connection that belongs to the receiving shard.
    Tcp(Box<Handover>),
    /// What the sending shard needs of a track that comes in on the receiving one.
    Request {
        /// By whom.
        from: u8,
        /// What.
        request: RelayRequest,
    },
}

/// What a shard reads.
pub(super) struct Inbox {
    /// Everything but packets of calls that live on several shards.
    pub(super) messages: Receiver<Message>,
    /// These, and where they come from.
    pub(super) parcels: Receiver<(u8, Parcel)>,
}

/// Ways to all shards, from one of them.
#[derive(Clone)]
pub(super) struct Neighbours {
    ways: Vec<Way>,
    pool: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    empty: (Sender<Parcel>, Receiver<Parcel>),
}

#[derive(Clone)]
struct Way {
    messages: Sender<Message>,
    parcels: Sender<(u8, Parcel)>,
    waker: Waker,
}

impl Neighbours {
    /// Queues for shards with these wakers, and each shard's receiving end.
    #[must_use]
    pub(super) fn new(wakers: &[Waker]) -> (Self, Vec<Inbox>) {
        let (ways, inboxes) = wakers
            .iter()
            .map(|waker| {
                let (messages, messages_in) = bounded(NEIGHBOUR_MESSAGES_MAX);
                let (parcels, parcels_in) = bounded(PARCELS_MAX);
                (Way { messages, parcels, waker: waker.clone() }, Inbox { messages: messages_in, parcels: parcels_in })
            })
            .unzip();
        (Self { ways, pool: bounded(NEIGHBOUR_MESSAGES_MAX), empty: bounded(PARCELS_MAX) }, inboxes)
    }

    /// Shards there are.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        self.ways.len()
    }

    /// Hands a datagram over. `false`: the other side is full, or does not exist.
    #[must_use]
    pub(super) fn pass(&self, to: u8, from: u8, link: Link, bytes: &[u8]) -> bool {
        let mut buffer = self.pool.1.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.send(to, Message::Datagram { link, bytes: buffer, from }).is_ok()
    }

    /// Sends any message.
    ///
    /// # Errors
    /// The message, when the other side is full or does not exist.
    pub(super) fn send(&self, to: u8, message: Message) -> Result<(), Message> {
        let Some(way) = self.ways.get(usize::from(to)) else { return Err(message) };
        match way.messages.try_send(message) {
            Ok(()) => {
                way.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }

    /// Hands packets over, and leaves an empty parcel in their place. The packets that found no room otherwise.
    pub(super) fn hand_over(&self, to: u8, from: u8, parcel: &mut Parcel) -> usize {
        let Some(way) = self.ways.get(usize::from(to)) else { return parcel.packets() };
        let full = std::mem::replace(parcel, self.empty.1.try_recv().unwrap_or_default());
        match way.parcels.try_send((from, full)) {
            Ok(()) => {
                way.waker.wake();
                0
            }
            Err(TrySendError::Full((_, full)) | TrySendError::Disconnected((_, full))) => full.packets(),
        }
    }

    /// Gives a used parcel back.
    pub(super) fn recycle_parcel(&self, mut parcel: Parcel) {
        parcel.clear();
        let _ = self.empty.0.try_send(parcel);
    }

    /// Gives a used buffer back.
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        let _ = self.pool.0.try_send(buffer);
    }
}
