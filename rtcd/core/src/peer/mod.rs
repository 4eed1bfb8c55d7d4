//! A participant in the core: its rights, its transports, what it publishes and watches.

pub(crate) mod bind;
pub(crate) mod congestion;
pub(crate) mod connect;
pub(crate) mod dtls;
pub(crate) mod earshot;
pub(crate) mod feedback;
pub(crate) mod ice;
pub(crate) mod media_in;
pub(crate) mod messages;
pub(crate) mod narrow;
pub(crate) mod negotiation;
pub(crate) mod pacing;
mod padding;
pub(crate) mod reports;
pub(crate) mod rtcp_in;
pub(crate) mod securing;
pub(crate) mod slideshow;
pub(crate) mod transport;

use crate::arena::Key;
use crate::call::CallKey;
use crate::ids::PeerId;
use crate::input::Transports;
use crate::output::{Quality, Step};
use crate::subscription::SubscriptionKey;
use crate::track::{Rooms, TrackKey};

pub(crate) use transport::{Transport, TransportKey};

pub(crate) type PeerKey = Key<Peer>;

/// One participant.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) call: CallKey,
    pub(crate) rights: Rights,
    pub(crate) transports: Transports,
    pub(crate) auto_subscribe: bool,
    pub(crate) adaptive_stream: bool,
    /// What its call says of holding pictures back.
    pub(crate) playout_delay: Option<crate::rtp::PlayoutDelay>,
    /// Loudness to tell.
    pub(crate) levels: Option<Box<crate::call::speaking::Levels>>,
    /// What it answered to the recording notice.
    pub(crate) consent: bool,
    pub(crate) publish: Option<TransportKey>,
    pub(crate) subscribe: Option<TransportKey>,
    pub(crate) tracks: Vec<TrackKey>,
    pub(crate) rooms: Rooms,
    pub(crate) subscriptions: Vec<SubscriptionKey>,
    /// Its data tracks that somebody has.
    pub(crate) data_routes: Vec<messages::DataRoute>,
    pub(crate) quality: Option<Quality>,
    /// Furthest step of any transport, and what to say of it.
    pub(crate) step: Step,
    pub(crate) detail: String,
}

/// What a participant may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights {
    pub(crate) publish: bool,
    pub(crate) subscribe: bool,
    pub(crate) data: bool,
}

impl Peer {
    /// The transport that carries what it watches.
    pub(crate) fn viewing(&self) -> Option<TransportKey> {
        if self.transports == Transports::Two { self.subscribe } else { self.publish }
    }

    /// The transport on which we offer.
    pub(crate) fn offering(&self) -> Option<TransportKey> {
        match self.transports {
            Transports::Two => self.subscribe,
            Transports::Single => None,
            Transports::Mutual { .. } => self.publish,
        }
    }

    pub(crate) fn transport_keys(&self) -> impl Iterator<Item = TransportKey> {
        [self.publish, self.subscribe].into_iter().flatten()
    }
}

#[cfg(test)]
impl Peer {
    pub(crate) fn for_tests(call: CallKey) -> Self {
        Self {
            id: PeerId::new("PA_x").unwrap(),
            call,
            rights: Rights { publish: true, subscribe: true, data: true },
            transports: Transports::Two,
            auto_subscribe: true,
            adaptive_stream: false,
            playout_delay: None,
            levels: None,
            consent: false,
            publish: None,
            subscribe: None,
            tracks: Vec::new(),
            rooms: Rooms::default(),
            subscriptions: Vec::new(),
            data_routes: Vec::new(),
            quality: None,
            step: Step::Joined,
            detail: String::new(),
        }
    }
}
