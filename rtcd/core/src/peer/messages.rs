//! Data messages of one peer: rationed on the way in, bounded on the way out.

use std::time::{Duration, Instant};

use super::TransportKey;
use crate::core::Core;
use crate::counters::Count;
use crate::limits::DATA_MESSAGES_PER_S_MAX;
use crate::outbox::Notice;
use crate::output::Event;
use crate::sctp::Channel;

/// Messages counted in the current second.
#[derive(Clone, Copy, Default)]
pub(crate) struct MessageRation {
    began: Option<Instant>,
    count: u32,
}

impl MessageRation {
    fn take(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            *self = Self { began: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= DATA_MESSAGES_PER_S_MAX
    }
}

impl Core {
    /// A data channel of a transport is open.
    pub(crate) fn data_open(&mut self, key: TransportKey, reliable: bool) {
        let Some(peer) = self.transports.get(key).and_then(|transport| self.peers.get(transport.peer)) else { return };
        let Some(call) = self.calls.get(peer.call) else { return };
        self.outbox.event(&call.id, Event::DataOpen { peer: peer.id.clone(), reliable });
    }

    /// A whole message came out of a data channel. The core does not look inside and does not pass it on: the shell
    /// stamps the sender into it and sends it with [`crate::Input::SendData`].
    pub(crate) fn message_in(&mut self, now: Instant, key: TransportKey, channel: Channel, payload: Vec<u8>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(peer) = self.peers.get(transport.peer) else { return };
        let Some(call) = self.calls.get(peer.call) else { return };
        if !peer.rights.data || !transport.messages.take(now) {
            self.counters.one(Count::DataDropped);
            return;
        }
        self.counters.one(Count::DataIn);
        self.outbox.notice(Notice::Data { call: call.id.clone(), peer: peer.id.clone(), channel, payload });
    }

    /// A message for one peer, on the transport that carries what it receives.
    pub(crate) fn message_out(&mut self, now: Instant, peer: super::PeerKey, channel: Channel, payload: &[u8]) {
        let Some(key) = self.peers.get(peer).and_then(super::Peer::viewing) else { return };
        let sent = self.transports.get_mut(key).and_then(|transport| transport.sctp.as_mut()).map(|sctp| sctp.send(channel, payload));
        match sent {
            Some(Ok(())) => {
                self.counters.one(Count::DataOut);
                self.drive_sctp(now, key);
            }
            Some(Err(_)) | None => self.counters.one(Count::DataDropped),
        }
    }
}
