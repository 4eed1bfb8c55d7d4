//! The media ports, checked as a browser checks them: signed STUN requests over UDP and TCP, and long ones for the MTU.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rtcd_core::stun::{BINDING, Class, IntegrityKey, Message, RoleAttribute, StunWriter, TransactionId};

use super::finding::Finding;

/// A check that is not answered is sent again after this.
const WAIT: Duration = Duration::from_millis(700);
/// So often in all: a bad line loses some.
const TRIES: usize = 4;
const CONNECT: Duration = Duration::from_secs(4);
/// UDP payloads that are tried, longest first: Ethernet, a tunnel, and what DTLS and video need.
const SIZES: [usize; 3] = [1472, 1372, SIZE_NEEDED];
const SIZE_NEEDED: usize = 1200;

struct Credentials<'a> {
    ufrag: &'a str,
    key: IntegrityKey,
}

/// Why there was no answer.
enum Silence {
    /// An error came back, or the local system refused.
    Refused(std::io::Error),
    /// Nothing.
    Nothing,
    /// Something answered that does not know the credentials.
    Stranger,
}

/// All addresses, one after the other.
pub(super) fn check(ufrag: &str, pwd: &str, udp: &[String], tcp: &[String]) -> Vec<Finding> {
    let credentials = Credentials { ufrag, key: IntegrityKey::new(pwd) };
    let mut found = Vec::new();
    let mut works = None;
    for text in udp {
        let Ok(address) = text.parse() else { continue };
        match by_udp(&credentials, address, 0) {
            Ok((mapped, rtt)) => {
                works.get_or_insert(address);
                found.push(Finding::ok("udp", text, answered(mapped, rtt)));
            }
            Err(silence) => found.push(silent("udp", text, &silence)),
        }
    }
    if udp.is_empty() {
        found.push(Finding::fail("udp", "media node", "offers no address over UDP", "set RTCD_RTC_ICEADDRESSUDP or remove it"));
    }
    for text in tcp {
        let Ok(address) = text.parse() else { continue };
        match by_tcp(&credentials, address) {
            Ok((mapped, rtt)) => found.push(Finding::ok("tcp", text, answered(mapped, rtt))),
            Err(silence) => found.push(silent("tcp", text, &silence)),
        }
    }
    if let Some(address) = works {
        found.push(longest(&credentials, address));
    }
    found
}

fn answered(mapped: Option<SocketAddr>, rtt: Duration) -> String {
    let seen = mapped.map_or_else(String::new, |mapped| format!("; seen there as {mapped}"));
    format!("answered in {:.1} ms{seen}", rtt.as_secs_f64() * 1000.0)
}

fn silent(protocol: &'static str, address: &str, silence: &Silence) -> Finding {
    let name = protocol.to_uppercase();
    match silence {
        Silence::Refused(error) if error.kind() == ErrorKind::ConnectionRefused => Finding::fail(
            protocol,
            address,
            "refused: no media node listens there",
            format!(
                "the advertised address or port is wrong: set CONCLAVE_ADVERTISE (RTCD_RTC_ICEHOSTOVERRIDE) to the address at which this network reaches the node, and see that {name} of that port is forwarded to it"
            ),
        ),
        Silence::Refused(error) => Finding::fail(
            protocol,
            address,
            error.to_string(),
            "this machine has no way to that address: correct the advertised address (CONCLAVE_ADVERTISE) or the routing",
        ),
        Silence::Nothing => Finding::fail(
            protocol,
            address,
            "no answer",
            format!(
                "a firewall between here and the node drops {name} to that port: open it, or correct the advertised address (CONCLAVE_ADVERTISE)"
            ),
        ),
        Silence::Stranger => Finding::fail(
            protocol,
            address,
            "something else answers there",
            "that port belongs to another program or another media node: correct the advertised address (CONCLAVE_ADVERTISE) or the forwarding",
        ),
    }
}

fn longest(credentials: &Credentials<'_>, address: SocketAddr) -> Finding {
    let overhead = if address.is_ipv4() { 28 } else { 48 };
    match SIZES.into_iter().find(|size| by_udp(credentials, address, *size).is_ok()) {
        Some(size) => Finding::ok("mtu", address, format!("{size} bytes pass unbroken on the way there (packets of {})", size + overhead)),
        None => Finding::fail(
            "mtu",
            address,
            format!("{SIZE_NEEDED} bytes do not pass, short packets do"),
            "a tunnel or VPN on the way is too narrow and fragments are dropped: raise its MTU to 1280 or more, or allow ICMP \"fragmentation needed\"",
        ),
    }
}

/// A signed check, made at least so long.
fn request(credentials: &Credentials<'_>, len: usize) -> Option<(TransactionId, Vec<u8>)> {
    let mut transaction = [0; 12];
    SystemRandom::new().fill(&mut transaction).ok()?;
    let transaction = TransactionId(transaction);
    // Integrity and fingerprint come last.
    let tail = 24 + 8;
    let mut slot = vec![0; 2048];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, transaction);
    let username = format!("{}:doctor", credentials.ufrag);
    writer.username(username.as_bytes());
    writer.priority(1);
    writer.role(RoleAttribute::Controlling(u64::MAX));
    let mut left = len.saturating_sub(20 + 4 + username.len().next_multiple_of(4) + 8 + 12 + tail);
    while left >= 4 {
        let text = (left - 4).min(700) / 4 * 4;
        writer.software(&vec![b' '; text]);
        left -= text + 4;
    }
    writer.integrity(&credentials.key);
    writer.fingerprint();
    let len = writer.finish()?;
    slot.truncate(len);
    Some((transaction, slot))
}

/// Some: ours, with the address we are seen at. None: not an answer to this request.
fn read(credentials: &Credentials<'_>, transaction: TransactionId, bytes: &[u8]) -> Option<Result<Option<SocketAddr>, Silence>> {
    let message = Message::parse(bytes).ok()?;
    if message.transaction != transaction {
        return None;
    }
    if !message.is_signed_by(&credentials.key) {
        return Some(Err(Silence::Stranger));
    }
    Some(Ok(message.mapped_address))
}

fn by_udp(credentials: &Credentials<'_>, address: SocketAddr, len: usize) -> Result<(Option<SocketAddr>, Duration), Silence> {
    let any: SocketAddr = if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket)).map_err(Silence::Refused)?;
    let mut last = Silence::Nothing;
    let mut buffer = [0; 2048];
    for _ in 0..TRIES {
        let Some((transaction, bytes)) = request(credentials, len) else { return Err(Silence::Nothing) };
        let sent = Instant::now();
        if let Err(error) = socket.send(&bytes) {
            last = Silence::Refused(error);
            continue;
        }
        while let Some(left) = WAIT.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).map_err(Silence::Refused)?;
            match socket.recv(&mut buffer) {
                Ok(came) => match read(credentials, transaction, buffer.get(..came).unwrap_or_default()) {
                    Some(Ok(mapped)) => return Ok((mapped, sent.elapsed())),
                    Some(Err(silence)) => last = silence,
                    None => {}
                },
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => {
                    last = Silence::Refused(error);
                    break;
                }
            }
        }
    }
    Err(last)
}

/// One frame each way (RFC 4571).
fn by_tcp(credentials: &Credentials<'_>, address: SocketAddr) -> Result<(Option<SocketAddr>, Duration), Silence> {
    let timed_out = |error: std::io::Error| {
        let is = |kinds: [ErrorKind; 2]| kinds.contains(&error.kind());
        if is([ErrorKind::TimedOut, ErrorKind::WouldBlock]) {
            Silence::Nothing
        } else if is([ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset]) {
            // Closed without a word: whoever took the connection does not speak this.
            Silence::Stranger
        } else {
            Silence::Refused(error)
        }
    };
    let mut stream = TcpStream::connect_timeout(&address, CONNECT).map_err(timed_out)?;
    let Some((transaction, bytes)) = request(credentials, 0) else { return Err(Silence::Nothing) };
    stream.set_read_timeout(Some(CONNECT)).map_err(Silence::Refused)?;
    let sent = Instant::now();
    let len = u16::try_from(bytes.len()).unwrap_or_default();
    stream.write_all(&[&len.to_be_bytes(), bytes.as_slice()].concat()).map_err(timed_out)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).map_err(timed_out)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).map_err(timed_out)?;
    match read(credentials, transaction, &answer) {
        Some(Ok(mapped)) => Ok((mapped, sent.elapsed())),
        Some(Err(silence)) => Err(silence),
        None => Err(Silence::Stranger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_requests_have_exactly_the_length_asked_for_and_stay_valid() {
        let credentials = Credentials { ufrag: "abcdefgh", key: IntegrityKey::new("a password of an ICE agent") };
        for len in SIZES {
            let (transaction, bytes) = request(&credentials, len).unwrap();
            assert_eq!(bytes.len(), len);
            let message = Message::parse(&bytes).unwrap();
            assert!(message.is_signed_by(&credentials.key) && message.transaction == transaction && message.unknown().is_empty());
        }
        assert!(request(&credentials, 0).unwrap().1.len() < 128);
    }
}
