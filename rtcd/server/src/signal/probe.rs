//! Probes: participants without signalling or media, so that an operator's checks meet the media ports as a browser's would.
//!
//! Each is a peer in a call of its own, outside every tenant. The core offers to it, which gives its ICE credentials away; nobody
//! answers, and the core ends it by itself within a minute.

use conclave_proto::v1;
use rtcd_core::ids::{CallId, PeerId};
use rtcd_core::input::Join;
use rtcd_core::output::Signal;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::desk::moment;
use crate::limits::PROBES_MAX;

/// No tenant may have this name: it has a character that theirs may not.
const TENANT: &str = "~probe";

/// Is this the call of a probe?
#[must_use]
pub fn is_probe(call: &CallId) -> bool {
    crate::admit::split_call_id(call).0 == TENANT
}

/// Those of one desk.
#[derive(Default)]
pub(super) struct Probes {
    waiting: FxHashMap<PeerId, Option<oneshot::Sender<v1::ProbeResponse>>>,
}

impl Probes {
    /// The join of a new one. `None`: there are too many already; the reply is dropped.
    pub(super) fn open(&mut self, reply: oneshot::Sender<v1::ProbeResponse>) -> Option<Join> {
        if self.waiting.len() >= PROBES_MAX {
            return None;
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        let peer = PeerId::new(&format!("PB_{name}"))?;
        let call = CallId::new(&format!("{TENANT}/{name}"))?;
        self.waiting.insert(peer.clone(), Some(reply));
        Some(Join {
            call,
            peer,
            transports: rtcd_core::input::Transports::Two,
            audio_levels: false,
            can_publish: false,
            can_subscribe: true,
            can_publish_data: false,
            auto_subscribe: false,
            adaptive_stream: false,
            playout_delay: None,
        })
    }

    /// What the core says of somebody. True: it was for a probe.
    pub(super) fn handle(&mut self, peer: &PeerId, signal: &Signal) -> bool {
        let Some(waiting) = self.waiting.get_mut(peer) else { return false };
        if let Signal::Offer { sdp, .. } = signal
            && let Some(reply) = waiting.take()
        {
            // Whoever asked may be gone.
            let _ = reply.send(response(sdp));
        }
        if matches!(signal, Signal::Ended { .. }) {
            self.waiting.remove(peer);
        }
        true
    }
}

/// Credentials and addresses of our own offer.
fn response(sdp: &str) -> v1::ProbeResponse {
    let value = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default().trim().to_owned();
    let mut response = v1::ProbeResponse {
        ufrag: value("a=ice-ufrag:"),
        pwd: value("a=ice-pwd:"),
        now_ms: moment().unix_ms,
        ..v1::ProbeResponse::default()
    };
    for line in sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, protocol, _, ip, port, ..] = fields.as_slice() else { continue };
        let Ok(ip) = ip.parse::<std::net::IpAddr>() else { continue };
        let Ok(port) = port.parse() else { continue };
        let address = std::net::SocketAddr::new(ip, port).to_string();
        let list = if protocol.eq_ignore_ascii_case("udp") { &mut response.udp } else { &mut response.tcp };
        if !list.contains(&address) {
            list.push(address);
        }
    }
    response
}
