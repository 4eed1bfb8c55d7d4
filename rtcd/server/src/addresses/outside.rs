//! What this node's addresses are outside, as a STUN server sees them (RFC 8489): for a node behind a translator of addresses
//! where nobody set `rtc.ice_host_override`. Asked once, at start, and of nobody but the server that `rtc.ice_servers` names.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rtcd_core::stun::{BINDING, Class, Message, StunWriter, TransactionId};

use crate::config::IceServer;

/// All addresses ask at the same time, and wait no longer than this; a name is looked up meanwhile.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A question is repeated after this, then after twice the time, and so on (RFC 8489 §6.2.1).
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// RFC 8489 §2.
const PORT: u16 = 3478;
/// A question is 20 bytes, an answer of a public server about 100.
const MESSAGE_MAX: usize = 548;

/// What was learnt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// `(external, internal)`, of those that differ.
    pub pairs: Vec<(IpAddr, IpAddr)>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Asks the first URL of the first STUN entry for each of `own`, from the port that media will use, as a translator may keep
/// one mapping for each port. Who gets no answer keeps its address, with a warning.
#[must_use]
pub fn ask(servers: &[IceServer], own: &[IpAddr], port: u16, within: Duration) -> Outside {
    let mut outside = Outside::default();
    let Some(url) = servers.iter().filter_map(|server| server.urls.first()).find(|url| url.starts_with("stun")) else { return outside };
    let server = match server(url) {
        Ok(server) => server,
        Err(reason) => {
            outside.warnings.push(format!("rtc.ice_servers: {url} is not asked for addresses outside: {reason}"));
            return outside;
        }
    };
    let deadline = Instant::now() + within;
    let (sender, answers) = mpsc::channel();
    for ip in own.iter().copied() {
        let (sender, server) = (sender.clone(), server.clone());
        // A lookup cannot be called off; a thread that is late finds nobody who waits.
        let thread = std::thread::Builder::new().name("stun".to_owned());
        let asked = thread.spawn(move || drop(sender.send((ip, one(&server, SocketAddr::new(ip, port), deadline)))));
        if let Err(error) = asked {
            outside.warnings.push(format!("rtc.ice_servers: {url} could not be asked for {ip}: {error}"));
        }
    }
    drop(sender);
    let mut missing: Vec<IpAddr> = own.to_vec();
    while let Ok((ip, answer)) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        missing.retain(|other| *other != ip);
        match answer {
            Ok(mapped) => outside.take(ip, mapped, port),
            Err(reason) => outside.miss(url, ip, &reason),
        }
    }
    for ip in missing {
        outside.miss(url, ip, "no answer in time");
    }
    // Answers come in any order; candidates should not.
    outside.pairs.sort_by_key(|(_, internal)| own.iter().position(|ip| ip == internal));
    outside
}

impl Outside {
    fn take(&mut self, internal: IpAddr, mapped: SocketAddr, port: u16) {
        let external = mapped.ip().to_canonical();
        if external == internal {
            return;
        }
        self.pairs.push((external, internal));
        // Port 0: any, and then nobody outside can know it before.
        if port != 0 && mapped.port() != port {
            self.warnings.push(format!(
                "what {internal}:{port} sends comes from {mapped} outside: forward UDP and TCP port {port} of {external} to this machine, \
                 or set rtc.ice_host_port_override (RTCD_RTC_ICEHOSTPORTOVERRIDE) to the port that is forwarded"
            ));
        }
    }

    fn miss(&mut self, url: &str, ip: IpAddr, reason: &str) {
        self.warnings.push(format!(
            "{url} did not tell what {ip} is outside ({reason}): it is offered as it is; if clients cannot reach it, set \
             rtc.ice_host_override (RTCD_RTC_ICEHOSTOVERRIDE)"
        ));
    }
}

/// Host and port of a URL (RFC 7064).
fn server(url: &str) -> Result<(String, u16), &'static str> {
    let rest = match url.split_once(':') {
        Some(("stun", rest)) => rest.split('?').next().unwrap_or_default(),
        _ => return Err("only stun: is asked, over UDP as media goes; write stun:host:port, or set rtc.ice_host_override"),
    };
    let wrong = "its port is not a number; write stun:host:port";
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("it names no host; write stun:host:port");
    }
    Ok((host.to_owned(), port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong))?))
}

/// One address's question, repeated until the deadline.
fn one((host, port): &(String, u16), from: SocketAddr, deadline: Instant) -> Result<SocketAddr, String> {
    let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| format!("{host} cannot be looked up: {error}"))?;
    let same = |to: &SocketAddr| to.is_ipv4() == from.is_ipv4() && to.ip().is_loopback() == from.ip().is_loopback();
    let server = found.into_iter().find(same).ok_or_else(|| format!("{host} has no address that it could reach"))?;
    let socket = UdpSocket::bind(from).map_err(|error| format!("cannot ask from {from}: {error}"))?;
    // Only its answers are taken then, and "nobody there" is told.
    socket.connect(server).map_err(|error| format!("cannot reach {server}: {error}"))?;

    let mut transaction = [0; 12];
    aws_lc_rs::rand::fill(&mut transaction).map_err(|_| "the operating system gives no randomness".to_owned())?;
    let transaction = TransactionId(transaction);
    let mut slot = [0; MESSAGE_MAX];
    let len = StunWriter::new(&mut slot, Class::Request, BINDING, transaction).finish().unwrap_or_default();
    let question = slot.get(..len).unwrap_or_default().to_vec();

    let mut repeat = REPEAT_AFTER;
    loop {
        socket.send(&question).map_err(|error| format!("cannot reach {server}: {error}"))?;
        let again = (Instant::now() + repeat).min(deadline);
        repeat *= 2;
        loop {
            let wait = again.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(wait)).map_err(|error| error.to_string())?;
            let Ok(len) = socket.recv(&mut slot) else { break };
            if let Some(mapped) = slot.get(..len).and_then(|bytes| answer(bytes, transaction)) {
                return mapped;
            }
        }
        if Instant::now() >= deadline {
            return Err(format!("{server} gave no answer in time"));
        }
        // A refused datagram comes back at once: not sooner than the next turn for all that.
        std::thread::sleep(again.saturating_duration_since(Instant::now()));
    }
}

/// What an answer says; nothing where it is none to this question.
fn answer(bytes: &[u8], transaction: TransactionId) -> Option<Result<SocketAddr, String>> {
    let message = Message::parse(bytes).ok().filter(|message| message.transaction == transaction)?;
    match message.class {
        Class::Success => Some(message.mapped_address.ok_or_else(|| "its answer has no address".to_owned())),
        Class::Error => {
            let (code, phrase) = message.error.unwrap_or_default();
            Some(Err(format!("it answered {code} {}", String::from_utf8_lossy(phrase).escape_debug())))
        }
        Class::Request | Class::Indication => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn servers(url: &str) -> Vec<IceServer> {
        // TURN entries are passed over, whatever stands first.
        ["turn:127.0.0.1:9", url].map(|url| IceServer { urls: vec![url.to_owned()], username: String::new(), credential: None }).into()
    }

    /// A server that answers each of `answers` times with what the closure writes, after having said nothing once.
    fn served(write: impl Fn(&mut StunWriter<'_>) + Send + 'static, class: Class) -> (String, std::thread::JoinHandle<usize>) {
        let socket = UdpSocket::bind((LOCAL, 0)).expect("a socket");
        let url = format!("stun:{}", socket.local_addr().expect("an address"));
        let thread = std::thread::spawn(move || {
            let (mut bytes, mut slot) = ([0; 1500], [0; 1500]);
            let mut asked = 0;
            loop {
                let (len, from) = socket.recv_from(&mut bytes).expect("a question");
                let question = Message::parse(&bytes[..len]).expect("STUN");
                assert_eq!((question.class, question.method), (Class::Request, BINDING));
                asked += 1;
                if asked == 1 {
                    continue;
                }
                // Somebody else's answer is none.
                for transaction in [TransactionId([9; 12]), question.transaction] {
                    let mut writer = StunWriter::new(&mut slot, class, BINDING, transaction);
                    if transaction == question.transaction {
                        write(&mut writer);
                    }
                    let len = writer.finish().expect("room");
                    socket.send_to(&slot[..len], from).expect("sent");
                }
                return asked;
            }
        });
        (url, thread)
    }

    #[test]
    fn a_lost_question_is_repeated_and_the_answer_is_the_address_outside() {
        let outside = "203.0.113.5:40000".parse::<SocketAddr>().expect("an address");
        let (url, server) = served(move |writer| writer.mapped_address(outside), Class::Success);
        let free = UdpSocket::bind((LOCAL, 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
        let found = ask(&servers(&url), &[LOCAL], free, ANSWER_WITHIN);
        assert_eq!(server.join().expect("no panic"), 2);
        assert_eq!(found.pairs, [(outside.ip(), LOCAL)]);
        assert!(found.warnings[0].contains(&format!("forward UDP and TCP port {free}")), "{:?}", found.warnings);
        assert!(found.warnings[0].contains("203.0.113.5:40000"), "{:?}", found.warnings);
    }

    #[test]
    fn who_stands_outside_already_keeps_its_address() {
        let (url, server) = served(move |writer| writer.mapped_address(SocketAddr::new(LOCAL, 1)), Class::Success);
        assert_eq!(ask(&servers(&url), &[LOCAL], 0, ANSWER_WITHIN), Outside::default());
        assert_eq!(server.join().expect("no panic"), 2);
    }

    #[test]
    fn a_refusal_is_told_with_what_to_do() {
        let (url, server) = served(move |writer| writer.error(401, "Unauthorized\n"), Class::Error);
        let found = ask(&servers(&url), &[LOCAL], 0, ANSWER_WITHIN);
        server.join().expect("no panic");
        assert_eq!(found.pairs, []);
        assert!(found.warnings[0].contains("401 Unauthorized\\n") && found.warnings[0].contains("rtc.ice_host_override"), "{found:?}");
    }

    #[test]
    fn nobody_who_answers_and_nobody_to_ask_cost_a_warning_and_no_start() {
        let silent = UdpSocket::bind((LOCAL, 0)).expect("a socket");
        let url = format!("stun:{}", silent.local_addr().expect("an address"));
        let quiet = ask(&servers(&url), &[LOCAL], 0, Duration::from_millis(700));
        assert!(quiet.pairs.is_empty() && quiet.warnings.len() == 1, "{quiet:?}");
        for (url, reason) in [
            ("stuns:127.0.0.1", "only stun:"),
            ("stun:127.0.0.1:many", "port is not a number"),
            ("stun:", "names no host"),
            ("stun:192.0.2.1", "no address that it could reach"),
        ] {
            let found = ask(&servers(url), &[LOCAL], 0, ANSWER_WITHIN);
            assert!(found.pairs.is_empty() && found.warnings.len() == 1 && found.warnings[0].contains(reason), "{url}: {found:?}");
        }
        assert_eq!(ask(&[], &[LOCAL], 0, ANSWER_WITHIN), Outside::default());
    }

    #[test]
    fn urls_have_their_forms() {
        let ok = |host: &str, port| Ok((host.to_owned(), port));
        assert_eq!(server("stun:stun.example"), ok("stun.example", 3478));
        assert_eq!(server("stun:192.0.2.1:19302?transport=udp"), ok("192.0.2.1", 19302));
        assert_eq!(server("stun:[2001:db8::1]"), ok("2001:db8::1", 3478));
        assert_eq!(server("stun:[2001:db8::1]:5"), ok("2001:db8::1", 5));
    }
}
