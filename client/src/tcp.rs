//! Media over TCP (RFC 6544), for networks that let no UDP through.
//!
//! It is dialled to the other end only, as browsers do, and only where UDP had its chance: a nominated pair is kept, and over TCP one
//! lost packet holds up all that come after it.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use webrtc::peer_connection::RTCIceCandidateInit;
use webrtc::runtime::{AsyncTcpListener, AsyncTcpStream, Runtime};

/// How long UDP has for itself: some ten connectivity checks, or a way of 600 ms three times.
pub(crate) const UDP_FIRST: Duration = Duration::from_secs(2);

/// Whether a candidate, with or without `a=` before it, is one that waits for connections.
pub(crate) fn is_passive(candidate: &str) -> bool {
    candidate.split_ascii_whitespace().skip_while(|word| *word != "tcptype").nth(1) == Some("passive")
}

/// A description without its candidates that wait for TCP connections, and these.
pub(crate) fn split(sdp: &str) -> (String, Vec<RTCIceCandidateInit>) {
    let mut rest = String::with_capacity(sdp.len());
    let mut candidates = Vec::new();
    let mut section = None;
    let mut mid = None;
    for line in sdp.split_inclusive('\n') {
        let text = line.trim_end();
        if text.starts_with("m=") {
            section = Some(section.map_or(0, |section: u16| section.saturating_add(1)));
            mid = None;
        } else if let Some(name) = text.strip_prefix("a=mid:") {
            mid = Some(name.to_owned());
        }
        match text.strip_prefix("a=").filter(|text| text.starts_with("candidate:") && is_passive(text)) {
            // In a bundle one transport serves all sections: those of the first are enough.
            Some(candidate) if section.unwrap_or(0) == 0 => candidates.push(RTCIceCandidateInit {
                candidate: candidate.to_owned(),
                sdp_mid: mid.clone(),
                sdp_mline_index: Some(0),
                ..Default::default()
            }),
            Some(_) => {}
            None => rest.push_str(line),
        }
    }
    (rest, candidates)
}

/// Passive candidates of one connection that are dialled at most.
const DIALLED_MAX: usize = 8;

/// Where the other end's passive candidates are.
///
/// rtc-ice 0.21.1 takes an answer for that of the first candidate with its address, whatever the protocol, and media servers have UDP and
/// TCP on one port: a way over TCP is then never found. So the stack is told another port for each, below any that media have, and
/// connections to it go where the candidate really is.
#[derive(Debug, Default)]
pub(crate) struct Dialled(Mutex<Vec<SocketAddr>>);

impl Dialled {
    /// The candidate as the stack is told of it; `None` if it has no address, or there are too many.
    pub(crate) fn alias(&self, candidate: &str) -> Option<String> {
        let mut words: Vec<&str> = candidate.split_ascii_whitespace().collect();
        let real = SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?);
        let mut known = self.known();
        let at = known.iter().position(|known| *known == real).unwrap_or(known.len());
        if at == known.len() {
            if at == DIALLED_MAX {
                return None;
            }
            known.push(real);
        }
        let port = (at + 1).to_string();
        words[5] = &port;
        Some(words.join(" "))
    }

    /// Connects to what has this alias.
    pub(crate) async fn connect(&self, alias: SocketAddr, runtime: &dyn Runtime) -> io::Result<Arc<dyn AsyncTcpStream>> {
        let real = usize::from(alias.port()).checked_sub(1).and_then(|at| self.known().get(at).copied());
        let real = real.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let stream = runtime.connect_tcp(real).await?;
        Ok(Arc::new(Aliased { stream, alias }))
    }

    fn known(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Aliased {
    stream: Arc<dyn AsyncTcpStream>,
    alias: SocketAddr,
}

impl AsyncTcpStream for Aliased {
    fn read<'a, 'b>(&'a self, buf: &'b mut [u8]) -> Pin<Box<dyn Future<Output = io::Result<usize>> + Send + 'b>>
    where
        'a: 'b,
    {
        self.stream.read(buf)
    }

    fn write_all<'a, 'b>(&'a self, buf: &'b [u8]) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'b>>
    where
        'a: 'b,
    {
        self.stream.write_all(buf)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.alias)
    }
}

/// Where connections are dialled from. The stack wants a listener for that, and this one takes none.
#[derive(Debug)]
pub(crate) struct Outward(SocketAddr);

impl Outward {
    /// With the address of a listener, which is closed.
    pub(crate) fn instead_of(listener: &std::net::TcpListener) -> io::Result<Self> {
        listener.local_addr().map(Self)
    }
}

type Accepted = io::Result<(Arc<dyn AsyncTcpStream>, SocketAddr)>;

impl AsyncTcpListener for Outward {
    fn accept<'a>(&'a self) -> Pin<Box<dyn Future<Output = Accepted> + Send + 'a>> {
        Box::pin(pending())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\r\n";
    const PASSIVE: &str = "a=candidate:2 1 tcp 1671430143 192.0.2.1 8443 typ host tcptype passive\r\n";
    const ACTIVE: &str = "a=candidate:3 1 tcp 1671430143 192.0.2.1 9 typ host tcptype active\r\n";

    #[test]
    fn who_waits_for_connections_is_taken_out_once() {
        let sdp = format!(
            "v=0\r\nm=audio 9 x 0\r\na=mid:a\r\n{UDP}{PASSIVE}{ACTIVE}m=video 9 x 0\r\na=mid:b\r\n{UDP}{PASSIVE}a=end-of-candidates\r\n"
        );
        let (rest, candidates) = split(&sdp);
        assert_eq!(rest, sdp.replace(PASSIVE, ""));
        let found: Vec<_> =
            candidates.iter().map(|found| (found.candidate.as_str(), found.sdp_mid.as_deref(), found.sdp_mline_index)).collect();
        assert_eq!(found, [(PASSIVE.trim_end().trim_start_matches("a="), Some("a"), Some(0))]);
    }

    #[test]
    fn each_has_a_port_of_its_own_and_there_are_only_so_many() {
        let dialled = Dialled::default();
        let told = |port: u16| dialled.alias(&PASSIVE.replace("8443", &port.to_string()));
        assert_eq!(told(8443).as_deref(), Some(PASSIVE.trim_end().replace("8443", "1").as_str()));
        assert!(told(443).is_some_and(|candidate| candidate.contains(" 192.0.2.1 2 typ ")));
        assert!(told(8443).is_some_and(|candidate| candidate.contains(" 192.0.2.1 1 typ ")), "known already");
        assert_eq!((1_000..1_020).filter_map(told).count(), DIALLED_MAX - 2);
        assert_eq!(dialled.alias("candidate:1 1 tcp 1 name.example 8443 typ host tcptype passive"), None);
        assert_eq!(dialled.alias("candidate:1"), None);
    }

    #[test]
    fn one_word_tells_who_waits() {
        assert!(is_passive(PASSIVE) && !is_passive(UDP) && !is_passive(ACTIVE) && !is_passive("tcptype"));
    }
}
