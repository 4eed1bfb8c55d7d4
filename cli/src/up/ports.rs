//! Finds a busy port before anything starts, and says which setting moves it.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// A port somebody else holds.
#[derive(Debug)]
pub(crate) struct Busy {
    what: &'static str,
    at: SocketAddr,
    protocol: &'static str,
    setting: &'static str,
    reason: std::io::Error,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "  {} cannot use {} {}: {}\n    move it with {}", self.what, self.protocol, self.at, self.reason, self.setting)
    }
}

/// One port we need.
pub(crate) struct Need {
    /// Which part, for people.
    pub(crate) what: &'static str,
    /// Where.
    pub(crate) at: SocketAddr,
    /// UDP as well as TCP.
    pub(crate) udp: bool,
    /// Flag and variable that move it.
    pub(crate) setting: &'static str,
}

/// Every needed port that cannot be bound now.
pub(crate) fn busy(needs: &[Need]) -> Vec<Busy> {
    let mut found = Vec::new();
    for need in needs {
        let mut tried = vec![("TCP", TcpListener::bind(need.at).err())];
        if need.udp {
            tried.push(("UDP", UdpSocket::bind(need.at).err()));
        }
        for (protocol, error) in tried {
            if let Some(reason) = error {
                found.push(Busy { what: need.what, at: need.at, protocol, setting: need.setting, reason });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_its_setting() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = held.local_addr().unwrap();
        let found = busy(&[Need { what: "the pages", at, udp: false, setting: "--http (CONCLAVE_HTTP)" }]);
        assert_eq!(found.len(), 1);
        let text = found[0].to_string();
        assert!(text.contains(&at.to_string()) && text.contains("--http"), "{text}");
        drop(held);
        assert!(busy(&[Need { what: "the pages", at, udp: false, setting: "--http" }]).is_empty());
    }
}
