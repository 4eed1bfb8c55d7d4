//! Data messages of one peer: rationed on the way in, bounded on the way out; and packets of data tracks, passed on here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{PeerKey, TransportKey};
use crate::core::Core;
use crate::counters::Count;
use crate::data_track;
use crate::ids::{Channel, PeerId};
use crate::limits::{DATA_MESSAGES_PER_S_MAX, DATA_TRACK_PACKETS_PER_S_MAX, DATA_TRACKS_PER_PEER_MAX};
use crate::outbox::Notice;
use crate::output::{Event, Signal};

/// Messages counted in the current second.
#[derive(Clone, Copy, Default)]
pub(crate) struct MessageRation {
    began: Option<Instant>,
    count: u32,
}

impl MessageRation {
    fn take(&mut self, now: Instant, most: u32) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            *self = Self { began: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}

/// Whom the packets of one data track go to.
#[derive(Clone)]
pub(crate) struct DataRoute {
    /// Its name in the publisher's packets.
    publisher_handle: u16,
    /// Its name in what subscribers get: the same for all, so that they share the bytes.
    handle: u16,
    /// Subscribers on this shard …
    here: Arc<[PeerKey]>,
    /// … and on others.
    elsewhere: Arc<[PeerId]>,
}

impl Core {
    /// A data channel of a transport is open.
    pub(crate) fn data_open(&mut self, key: TransportKey, channel: Channel) {
        let Some(peer) = self.transports.get(key).and_then(|transport| self.peers.get(transport.peer)) else { return };
        let Some(call) = self.calls.get(peer.call) else { return };
        self.outbox.event(&call.id, Event::DataOpen { peer: peer.id.clone(), channel });
    }

    /// A whole message came out of a data channel. The core does not look inside and does not pass it on: the shell
    /// stamps the sender into it and sends it with [`crate::Input::SendData`]. Packets of data tracks are another matter.
    pub(crate) fn message_in(&mut self, now: Instant, key: TransportKey, channel: Channel, text: bool, payload: Vec<u8>) {
        if channel == Channel::DataTrack {
            return self.packet_in(now, key, payload);
        }
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(peer) = self.peers.get(transport.peer) else { return };
        let Some(call) = self.calls.get(peer.call) else { return };
        if !peer.rights.data || !transport.messages.take(now, DATA_MESSAGES_PER_S_MAX) {
            self.counters.one(Count::DataDropped);
            return;
        }
        self.counters.one(Count::DataIn);
        self.outbox.notice(Notice::Data { call: call.id.clone(), peer: peer.id.clone(), channel, text, payload });
    }

    /// A packet of a data track goes to whoever has the track, with nothing changed but its handle.
    fn packet_in(&mut self, now: Instant, key: TransportKey, mut packet: Vec<u8>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(peer) = self.peers.get(transport.peer) else { return };
        let Some(call) = self.calls.get(peer.call) else { return };
        if !peer.rights.data || !transport.packets.take(now, DATA_TRACK_PACKETS_PER_S_MAX) {
            self.counters.one(Count::DataTrackRationed);
            return;
        }
        let Ok(handle) = data_track::handle(&packet) else {
            self.counters.one(Count::DataTrackMalformed);
            return;
        };
        self.counters.one(Count::DataTrackIn);
        // Nobody has the track, or there is none.
        let Some(route) = peer.data_routes.iter().find(|route| route.publisher_handle == handle).cloned() else { return };
        data_track::set_handle(&mut packet, route.handle);
        let packet = Bytes::from(packet);
        if !route.elsewhere.is_empty() {
            let to = Arc::clone(&route.elsewhere);
            self.outbox.notice(Notice::DataTrack { call: call.id.clone(), to, packet: packet.clone() });
        }
        for subscriber in route.here.iter() {
            self.packet_out(now, *subscriber, packet.clone());
        }
    }

    /// Told: who has a data track now.
    pub(crate) fn route_data(&mut self, key: PeerKey, publisher_handle: u16, handle: u16, subscribers: &[PeerId]) {
        let Some(call) = self.peers.get(key).map(|peer| peer.call) else { return };
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for id in subscribers {
            match self.peer_by_id.get(id) {
                Some(subscriber) if self.peers.get(*subscriber).is_some_and(|peer| peer.call == call) => here.push(*subscriber),
                Some(_) => self.counters.one(Count::UnknownName),
                None => elsewhere.push(id.clone()),
            }
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.data_routes.retain(|route| route.publisher_handle != publisher_handle);
        if (here.is_empty() && elsewhere.is_empty()) || peer.data_routes.len() >= DATA_TRACKS_PER_PEER_MAX {
            return;
        }
        peer.data_routes.push(DataRoute { publisher_handle, handle, here: here.into(), elsewhere: elsewhere.into() });
    }

    /// A message for one peer, on the transport that carries what it receives.
    pub(crate) fn message_out(&mut self, now: Instant, peer: PeerKey, channel: Channel, text: bool, payload: &[u8]) {
        let Some(key) = self.peers.get(peer).and_then(super::Peer::viewing) else { return };
        let sent = self.transports.get_mut(key).and_then(|transport| transport.sctp.as_mut()).map(|sctp| sctp.send(channel, text, payload));
        match sent {
            Some(Ok(())) => {
                self.counters.one(Count::DataOut);
                self.drive_sctp(now, key);
            }
            Some(Err(_)) | None => self.counters.one(Count::DataDropped),
        }
    }

    /// The shell asks to be told when the client has all reliable messages.
    pub(crate) fn await_delivery(&mut self, peer: PeerKey) {
        let Some(peer) = self.peers.get(peer) else { return };
        let Some(transport) = peer.viewing().and_then(|key| self.transports.get_mut(key)) else { return };
        transport.awaits_delivery = transport.sctp.as_mut().is_some_and(|sctp| !sctp.is_delivered(Channel::Reliable));
        if !transport.awaits_delivery {
            self.outbox.signal(&peer.id, Signal::Delivered);
        }
    }

    /// A packet of a data track for one peer.
    pub(crate) fn packet_out(&mut self, now: Instant, peer: PeerKey, packet: Bytes) {
        let Some(key) = self.peers.get(peer).and_then(super::Peer::viewing) else { return };
        let sent = self.transports.get_mut(key).and_then(|transport| transport.sctp.as_mut()).map(|sctp| sctp.send_packet(now, packet));
        match sent {
            Some(Ok(())) => {
                self.counters.one(Count::DataTrackOut);
                self.drive_sctp(now, key);
            }
            Some(Err(_)) | None => self.counters.one(Count::DataTrackDropped),
        }
    }
}
