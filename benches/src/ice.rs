//! The client's ICE: one host candidate, checks in the role that the negotiation gave it, and answers to the server's.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use rtcd_core::stun::{BINDING, Class, IntegrityKey, Message, RoleAttribute, StunWriter, TransactionId};

use crate::sdp::Remote;

const TIE_BREAKER: u64 = 0x1234_5678_9abc_def0;
/// A host candidate's (RFC 8445 §5.1.2).
const PRIORITY: u32 = 2_130_706_431;

/// Our side of a transport, before there is another.
pub(crate) struct Local {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
}

impl Local {
    /// With a socket of its own, so that the candidate can be told before anything is sent.
    pub(crate) fn bind(address: IpAddr, ufrag: String) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((address, 0)).with_context(|| format!("cannot bind a client to {address}"))?;
        let address = socket.local_addr()?;
        Ok(Self { ufrag, pwd: "benchbenchbenchbenchbench".to_owned(), socket, address })
    }

    /// The same once more, for descriptions after the connection.
    pub(crate) fn again(&self) -> anyhow::Result<Self> {
        Ok(Self { ufrag: self.ufrag.clone(), pwd: self.pwd.clone(), socket: self.socket.try_clone()?, address: self.address })
    }

    /// As an SDP candidate, without `a=`.
    pub(crate) fn candidate(&self) -> String {
        format!("candidate:1 1 udp {PRIORITY} {} {} typ host", self.address.ip(), self.address.port())
    }
}

/// What both sides agreed on; goes on while media runs.
pub(crate) struct Ice {
    /// Repeated for connectivity and consent.
    check: Vec<u8>,
    key: IntegrityKey,
    to: SocketAddr,
}

/// What a STUN message told us.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// The other side answered our check.
    pub(crate) answered: bool,
    /// The other side chose this path.
    pub(crate) nominated: bool,
}

impl Ice {
    pub(crate) fn new(local: &Local, remote: &Remote, to: SocketAddr, controlling: bool) -> anyhow::Result<Self> {
        let mut slot = vec![0; 256];
        let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId(*b"conclave-ben"));
        writer.username(format!("{}:{}", remote.ufrag, local.ufrag).as_bytes());
        writer.priority(1_845_501_695);
        if controlling {
            writer.role(RoleAttribute::Controlling(TIE_BREAKER));
            writer.use_candidate();
        } else {
            writer.role(RoleAttribute::Controlled(TIE_BREAKER));
        }
        writer.integrity(&IntegrityKey::new(&remote.pwd));
        writer.fingerprint();
        let len = writer.finish().context("a check fits")?;
        slot.truncate(len);
        Ok(Self { check: slot, key: IntegrityKey::new(&local.pwd), to })
    }

    /// One check. What is lost is repeated by the caller.
    pub(crate) fn check(&self, socket: &UdpSocket) {
        let _ = socket.send(&self.check);
    }

    /// Answers a check of the other side. Nothing happens on what is no STUN.
    pub(crate) fn heard(&self, socket: &UdpSocket, packet: &[u8]) -> Heard {
        let Ok(message) = Message::parse(packet) else { return Heard::default() };
        match message.class {
            Class::Success => Heard { answered: true, nominated: false },
            Class::Request if message.is_signed_by(&self.key) => {
                let mut slot = [0; 128];
                let mut writer = StunWriter::new(&mut slot, Class::Success, BINDING, message.transaction);
                writer.mapped_address(self.to);
                writer.integrity(&self.key);
                writer.fingerprint();
                if let Some(answer) = writer.finish().and_then(|len| slot.get(..len)) {
                    let _ = socket.send(answer);
                }
                Heard { answered: false, nominated: message.use_candidate }
            }
            Class::Request | Class::Indication | Class::Error => Heard::default(),
        }
    }
}
