//! A data message for some or all of a call.

use std::time::Instant;

use bytes::Bytes;

use super::CallKey;
use crate::core::Core;
use crate::counters::Count;
use crate::ids::{Channel, PeerId};
use crate::limits::DATA_MESSAGE_LEN_MAX;
use crate::peer::PeerKey;

impl Core {
    pub(crate) fn send_data(&mut self, now: Instant, key: CallKey, to: &[PeerId], channel: Channel, text: bool, payload: &[u8]) {
        if payload.len() > DATA_MESSAGE_LEN_MAX {
            self.counters.one(Count::DataDropped);
            return;
        }
        let Some(call) = self.calls.get(key) else { return };
        let receivers: Vec<PeerKey> = if to.is_empty() {
            call.peers.clone()
        } else {
            to.iter().filter_map(|id| self.peer_by_id.get(id)).copied().filter(|peer| call.peers.contains(peer)).collect()
        };
        if channel == Channel::DataTrack {
            let packet = Bytes::copy_from_slice(payload);
            for peer in receivers {
                self.packet_out(now, peer, packet.clone());
            }
            return;
        }
        for peer in receivers {
            self.message_out(now, peer, channel, text, payload);
        }
    }
}
