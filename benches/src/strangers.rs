//! Datagrams of those whom nobody let in: into the media core itself (`off_path.rs`), or at a server's port (`trials/flood.rs`).

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use rtcd_core::stun::{BINDING, Class, IntegrityKey, RoleAttribute, StunWriter, TransactionId};

/// Different datagrams of a kind.
const VARIANTS: u16 = 256;

/// What is sent without a key.
pub(crate) struct Kind {
    /// For people.
    pub(crate) title: &'static str,
    pub(crate) datagrams: Vec<Vec<u8>>,
}

/// All kinds: the same bytes each time.
pub(crate) fn kinds() -> anyhow::Result<[Kind; 4]> {
    let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance.to_le_bytes()[0]
    };
    let mut filled =
        |len: u16, head: &[u8]| -> Vec<u8> { head.iter().copied().chain((head.len()..usize::from(len)).map(|_| random())).collect() };
    let all = || 0..VARIANTS;
    Ok([
        Kind { title: "random bytes", datagrams: all().map(|n| filled(40 + n * 4, &[])).collect() },
        Kind { title: "forged RTP", datagrams: all().map(|n| filled(120, &[0x80, 111, 0, n.to_le_bytes()[0]])).collect() },
        Kind { title: "DTLS hello", datagrams: all().map(|_| filled(200, &[22, 0xFE, 0xFD, 0, 0])).collect() },
        Kind {
            title: "check under an unknown name",
            datagrams: all().map(|n| check(&format!("{:A<13}{n:03}", "nobody"), "a password nobody has")).collect::<anyhow::Result<_>>()?,
        },
    ])
}

/// A connectivity check as a browser sends it.
pub(crate) fn check(ufrag: &str, password: &str) -> anyhow::Result<Vec<u8>> {
    let mut slot = [0; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([7; 12]));
    writer.username(format!("{ufrag}:abcd").as_bytes());
    writer.priority(1);
    writer.role(RoleAttribute::Controlling(1));
    writer.use_candidate();
    writer.integrity(&IntegrityKey::new(password));
    writer.fingerprint();
    let len = writer.finish().context("a check has room in 256 bytes")?;
    Ok(slot.get(..len).context("what was written")?.to_vec())
}

/// Ports they come from: what a server does for each address, it does for each of these.
const PORTS: usize = 64;
/// In one go, after a pause.
const CATCH_UP_MAX: usize = 1000;

/// Somebody who sends to a server's media port without having been let in.
pub(crate) struct Stranger {
    sockets: Vec<UdpSocket>,
    datagrams: Vec<Vec<u8>>,
    per_second: f64,
    /// Datagrams and bytes.
    pub(crate) sent: usize,
    pub(crate) sent_bytes: usize,
    /// What came back, bytes.
    pub(crate) answered_bytes: usize,
}

impl Stranger {
    pub(crate) fn new(to: SocketAddr, datagrams: Vec<Vec<u8>>, per_second: f64) -> anyhow::Result<Self> {
        let socket = |_| -> anyhow::Result<UdpSocket> {
            let socket = UdpSocket::bind((to.ip(), 0))?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets = (0..PORTS).map(socket).collect::<anyhow::Result<_>>()?;
        Ok(Self { sockets, datagrams, per_second, sent: 0, sent_bytes: 0, answered_bytes: 0 })
    }

    /// Sends what is due so long after the first, and takes what came back.
    pub(crate) fn act(&mut self, elapsed: Duration) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
        let due = (elapsed.as_secs_f64() * self.per_second) as usize;
        for number in self.sent..due.min(self.sent + CATCH_UP_MAX) {
            let (Some(socket), Some(datagram)) = (self.sockets.get(number % PORTS), self.datagrams.get(number % self.datagrams.len()))
            else {
                break;
            };
            // What a full or closed port does not take was sent all the same.
            let _ = socket.send(datagram);
            self.sent += 1;
            self.sent_bytes += datagram.len();
        }
        let mut answer = [0; 2048];
        for socket in &self.sockets {
            while let Ok(len) = socket.recv(&mut answer) {
                self.answered_bytes += len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_sent_and_what_comes_back_is_counted() -> anyhow::Result<()> {
        let [junk, ..] = kinds()?;
        let server = UdpSocket::bind("127.0.0.1:0")?;
        let mut stranger = Stranger::new(server.local_addr()?, junk.datagrams.clone(), 1000.0)?;
        stranger.act(Duration::from_millis(100));
        assert_eq!(stranger.sent, 100);
        let mut first = [0; 2048];
        let (len, from) = server.recv_from(&mut first)?;
        assert_eq!(first.get(..len), junk.datagrams.first().map(Vec::as_slice));
        server.send_to(b"answer", from)?;
        stranger.act(Duration::from_millis(101));
        assert_eq!((stranger.sent, stranger.answered_bytes), (101, 6));
        Ok(())
    }
}
