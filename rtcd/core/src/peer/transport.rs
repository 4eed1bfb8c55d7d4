//! One ICE + DTLS + SRTP transport of a peer: its parts side by side, each kept in its own file.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Instant;

use rustc_hash::FxHasher;

use super::PeerKey;
use super::connect::State;
use super::dtls::DtlsSession;
use crate::arena::Key;
use crate::ice::IceAgent;
use crate::ids::{Link, Side, TrackId};
use crate::negotiate::{Agreed, Answerer, DataSection, Offerer};
use crate::output::Step;
use crate::receive::Rate;
use crate::rtp::ExtensionMap;
use crate::sctp::Sctp;
use crate::srtp::{Inbound, Outbound, Profile};
use crate::subscription::SubscriptionKey;
use crate::timers::Alarm;
use crate::track::{LayerKey, TrackKey};

pub(crate) type TransportKey = Key<Transport>;
pub(crate) type ByNumber<T> = HashMap<u32, T, BuildHasherDefault<FxHasher>>;

/// One transport. What every packet needs stands in front, for those that leave first (`repr(C)`; see [`crate::arena`]).
#[repr(C)]
pub(crate) struct Transport {
    /// Packets to write at the next poll.
    pub(crate) pending: Vec<Pending>,
    /// Which sounds it gets, on a narrow way.
    pub(crate) earshot: Option<Box<super::earshot::Earshot>>,
    /// Its shared screens, on a way too narrow to follow them.
    pub(crate) slideshow: Option<Box<super::slideshow::Slideshow>>,
    /// Holds its pictures back, on a way that could not take them at once.
    pub(crate) pacer: Option<Box<super::pacing::Pacer>>,
    /// Stands in the core's list of transports with something to write.
    pub(crate) dirty: bool,
    pub(crate) step: Step,
    pub(crate) side: Side,
    pub(crate) peer: PeerKey,
    pub(crate) traffic: Traffic,
    pub(crate) alarms: Alarms,
    /// Header extensions the client sends; one map for all sections, as bundling demands.
    pub(crate) extensions: ExtensionMap,
    pub(crate) rtt: Option<std::time::Duration>,
    pub(crate) ice: IceAgent,
    /// Addresses that passed a check and so lead here.
    pub(crate) links: Vec<Link>,
    pub(crate) keys: Option<Keys>,
    /// What an authenticated SSRC is.
    pub(crate) sources: Sources,
    pub(crate) state: State,
    pub(crate) negotiator: Negotiator,
    pub(crate) dtls: Option<DtlsSession>,
    /// Boxed: its alignment would be the table's.
    pub(crate) sctp: Option<Box<Sctp>>,
    pub(crate) data: Option<DataSection>,
    /// Sections the client sends on, with the track each belongs to.
    pub(crate) incoming: Vec<Incoming>,
    /// Our own SSRCs, media and RTX.
    pub(crate) outgoing: ByNumber<SubscriptionKey>,
    pub(crate) subscriptions: Vec<SubscriptionKey>,
    pub(crate) messages: super::messages::MessageRation,
    pub(crate) congestion: super::congestion::Congestion,
    /// For its verdict.
    pub(crate) evidence: crate::verdict::Evidence,
    /// Packets of its data tracks.
    pub(crate) packets: super::messages::MessageRation,
    /// The shell waits until the client has all reliable messages.
    pub(crate) awaits_delivery: bool,
}

/// Whose turn it is to offer.
pub(crate) enum Negotiator {
    /// The client offers.
    Answers(Box<Answerer>),
    /// We offer, and perhaps the client too.
    Offers(Box<Offerer>),
}

impl Negotiator {
    /// What is agreed now.
    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        match self {
            Self::Answers(answerer) => answerer.agreed(),
            Self::Offers(offerer) => offerer.agreed(),
        }
    }

    /// Does the client take nothing of the track, for want of a codec?
    pub(crate) fn refuses(&self, track: &TrackId) -> bool {
        match self {
            Self::Answers(answerer) => answerer.refuses(track),
            Self::Offers(offerer) => offerer.refuses(track),
        }
    }

    /// Do both ends offer?
    pub(crate) fn is_mutual(&self) -> bool {
        matches!(self, Self::Offers(offerer) if offerer.is_mutual())
    }
}

/// SRTP, after DTLS.
#[repr(C)]
pub(crate) struct Keys {
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(crate) profile: Profile,
    /// When silent sources were last looked for.
    pub(crate) swept_at: Instant,
}

/// A section the client sends on.
pub(crate) struct Incoming {
    pub(crate) mid: String,
    /// Under this name, when it was bound.
    pub(crate) cid: String,
    /// May be over before the client stops to offer its section: until then no other track is taken for the one on it.
    pub(crate) track: TrackKey,
}

/// What an SSRC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceOf {
    pub(crate) layer: LayerKey,
    /// Retransmissions of it.
    pub(crate) rtx: bool,
}

/// What the SSRCs of a transport carry. Most packets come from the one that sent last, which is found without a look into the table.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Sources {
    last: Option<(u32, SourceOf)>,
    all: ByNumber<SourceOf>,
}

impl Sources {
    /// Whose packet is this?
    #[inline]
    pub(crate) fn get(&mut self, ssrc: u32) -> Option<SourceOf> {
        if let Some((last, source)) = self.last
            && last == ssrc
        {
            return Some(source);
        }
        let source = *self.all.get(&ssrc)?;
        self.last = Some((ssrc, source));
        Some(source)
    }

    /// The same, of one that a report speaks of.
    pub(crate) fn known(&self, ssrc: u32) -> Option<SourceOf> {
        self.all.get(&ssrc).copied()
    }

    /// From now on the SSRC carries this.
    pub(crate) fn insert(&mut self, ssrc: u32, source: SourceOf) {
        self.last = None;
        self.all.insert(ssrc, source);
    }

    /// Its place is for others now.
    pub(crate) fn remove(&mut self, ssrc: u32) {
        self.last = None;
        self.all.remove(&ssrc);
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets what is not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(SourceOf) -> bool) {
        self.last = None;
        self.all.retain(|_, source| keep(*source));
    }
}

/// A packet waiting to be written for a viewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) subscription: SubscriptionKey,
    pub(crate) layer: LayerKey,
    pub(crate) seq: u64,
    /// The viewer asked for it again.
    pub(crate) again: bool,
    /// Ones before it were kept back from this viewer alone: a new stretch begins.
    pub(crate) anew: bool,
}

/// Plain counts.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Traffic {
    pub(crate) rate_in: Rate,
    pub(crate) packets_in: u64,
    pub(crate) last_in: Option<Instant>,
    pub(crate) rate_out: Rate,
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
}

/// One alarm per kind of timer.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Alarms {
    pub(crate) reports: Alarm,
    pub(crate) feedback: Alarm,
    pub(crate) state: Alarm,
    pub(crate) dtls: Alarm,
    pub(crate) sctp: Alarm,
    pub(crate) allocation: Alarm,
    pub(crate) slides: Alarm,
    pub(crate) padding: Alarm,
    pub(crate) pace: Alarm,
}

impl Transport {
    /// May something be sent now, and where to?
    #[inline]
    pub(crate) fn destination(&self) -> Option<Link> {
        self.ice.selected()
    }

    /// `udp`, `tcp` or empty.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.ice.selected() {
            Some(Link::Udp { .. }) => "udp",
            Some(Link::Tcp { .. }) => "tcp",
            None => "",
        }
    }
}

#[cfg(test)]
impl Transport {
    pub(crate) fn for_tests() -> Self {
        use std::sync::Arc;
        let settings = Arc::new(crate::negotiate::LocalSettings { fingerprint: [0; 32], udp: Vec::new(), tcp: Vec::new() });
        let mut calls = crate::arena::Arena::new();
        let call = calls.insert_with(|_| crate::call::Call::new(crate::ids::CallId::new("c").unwrap(), 0));
        let peer = crate::arena::Arena::new().insert_with(|_| super::Peer::for_tests(call));
        Self::new(
            peer,
            Side::Publish,
            Negotiator::Answers(Box::new(Answerer::new(settings, false, 1))),
            crate::ice::LocalCredentials::new(0, 0, [7; crate::ice::RANDOM_LEN]),
        )
    }
}

impl Transport {
    pub(crate) fn new(peer: PeerKey, side: Side, negotiator: Negotiator, credentials: crate::ice::LocalCredentials) -> Self {
        Self {
            peer,
            side,
            state: State::Invited,
            negotiator,
            ice: IceAgent::new(credentials),
            links: Vec::new(),
            dtls: None,
            keys: None,
            sctp: None,
            data: None,
            extensions: ExtensionMap::new(),
            incoming: Vec::new(),
            sources: Sources::default(),
            outgoing: ByNumber::default(),
            subscriptions: Vec::new(),
            pending: Vec::new(),
            earshot: None,
            slideshow: None,
            pacer: None,
            dirty: false,
            traffic: Traffic::default(),
            alarms: Alarms::default(),
            step: Step::Joined,
            messages: super::messages::MessageRation::default(),
            packets: super::messages::MessageRation::default(),
            awaits_delivery: false,
            congestion: super::congestion::Congestion::default(),
            rtt: None,
            evidence: crate::verdict::Evidence::default(),
        }
    }
}
#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of};

    use super::*;

    /// In the table a word stands in front that says whether the place is taken.
    fn line_of(offset: usize) -> usize {
        (align_of::<Transport>() + offset) / 64
    }

    #[test]
    fn what_a_packet_for_a_viewer_needs_stands_on_four_cache_lines() {
        let traffic = offset_of!(Transport, traffic);
        assert_eq!(align_of::<Transport>(), 8);
        assert_eq!(line_of(offset_of!(Transport, side)), 0, "whether it waits, and for what");
        assert_eq!(line_of(traffic + offset_of!(Traffic, rate_out)), 2);
        assert_eq!(line_of(offset_of!(Transport, alarms) + size_of::<Option<Instant>>() - 1), 2, "counts, and whether reports are due");
        let (ice, keys) = (offset_of!(Transport, ice), offset_of!(Transport, keys));
        assert_eq!(line_of(ice), line_of(ice + size_of::<Link>() - 1), "where to");
        assert_eq!(line_of(keys), line_of(keys + size_of::<Outbound>() / 2), "under which key");
    }
}
