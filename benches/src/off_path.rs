//! What a stranger's datagram costs the media core: everything that comes from an address that has proved nothing, and is dropped.
//! CPU time of this thread, without the socket; nothing may be answered.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rtcd_core::config::Certificate;
use rtcd_core::ids::Link;
use rtcd_core::input::Join;
use rtcd_core::output::Signal;
use rtcd_core::{CallId, Core, CoreConfig, Input, Output, PeerId};

use crate::strangers::{Kind, check, kinds};

/// People in the core meanwhile: their addresses and names are what strangers' are compared with.
const PEERS: usize = 200;
const PER_ROUND: usize = 1_000_000;
const ROUNDS: usize = 9;
/// The bar, datagrams per second and core.
const BAR: f64 = 3e6;

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
    a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
    a=setup:actpass\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n";

fn link(remote: SocketAddr) -> Link {
    Link::Udp { local: ([192, 0, 2, 1], 8443).into(), remote }
}

fn stranger(n: usize) -> SocketAddr {
    (([203, 0, 113, (n % 251) as u8]), 1024 + (n % 60_013) as u16).into()
}

struct Node {
    core: Core,
    now: Instant,
    /// Names that the core gave out, with their passwords.
    names: Vec<(String, String)>,
    answers: usize,
}

impl Node {
    fn new() -> anyhow::Result<Self> {
        let now = Instant::now();
        let made = dimpl::certificate::generate_self_signed_certificate()?;
        let core = Core::try_new(CoreConfig {
            shard: 0,
            shards: 1,
            seed: [7; 32],
            epoch: (now, 0),
            udp_candidates: vec![([192, 0, 2, 1], 8443).into()],
            tcp_candidates: Vec::new(),
            certificate: Certificate { certificate_der: made.certificate, private_key_der: made.private_key },
            prefer_aes256: false,
            grace: Duration::from_secs(30),
            audio_top_n: 5,
            trains: true,
        })?;
        let mut node = Self { core, now, names: Vec::new(), answers: 0 };
        for n in 0..PEERS {
            let name = |text: String| anyhow::Context::context(PeerId::new(&text), "a name");
            let peer = name(format!("PA_{n}"))?;
            let call = anyhow::Context::context(CallId::new(&format!("t/{}", n / 10)), "a name")?;
            node.core.handle(
                now,
                Input::Join(Box::new(Join {
                    call,
                    peer: peer.clone(),
                    transports: rtcd_core::input::Transports::Single,
                    audio_levels: false,
                    can_publish: true,
                    can_subscribe: true,
                    can_publish_data: true,
                    auto_subscribe: true,
                    adaptive_stream: false,
                    playout_delay: None,
                })),
            );
            node.core.handle(now, Input::Offer { peer, sdp: OFFER, id: 1 });
            node.rest();
        }
        anyhow::ensure!(node.names.len() == PEERS, "{} of {PEERS} were answered", node.names.len());
        // Each has proved an address.
        for n in 0..PEERS {
            let mut bytes = check(&node.names[n].0, &node.names[n].1)?;
            node.core
                .handle(now, Input::Datagram { link: link(([198, 51, 100, (n % 250) as u8], 5000 + n as u16).into()), bytes: &mut bytes });
        }
        node.rest();
        anyhow::ensure!(node.answers >= PEERS, "checks of peers are answered");
        Ok(node)
    }

    fn rest(&mut self) {
        loop {
            match self.core.poll(self.now) {
                Output::Transmits(transmits) => self.answers += transmits.count(),
                Output::Signal { signal: Signal::Answer { sdp, .. }, .. } => {
                    let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
                    self.names.push((value("a=ice-ufrag:"), value("a=ice-pwd:")));
                }
                Output::Timeout(_) => return,
                Output::Signal { .. }
                | Output::Event { .. }
                | Output::Data { .. }
                | Output::DataTrack { .. }
                | Output::Tap { .. }
                | Output::TapClosed { .. }
                | Output::Parcel { .. }
                | Output::RelayRequest { .. }
                | Output::Origin(_)
                | Output::Report { .. } => {}
            }
        }
    }

    /// Nanoseconds of CPU per datagram, the middle of some rounds.
    fn cost(&mut self, datagrams: &[Vec<u8>]) -> anyhow::Result<f64> {
        self.rest();
        self.answers = 0;
        let mut slot = [0; 2048];
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let before = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
            for n in 0..PER_ROUND {
                let datagram = &datagrams[n % datagrams.len()];
                // As it stands in the receive buffer: the core works in place.
                slot[..datagram.len()].copy_from_slice(datagram);
                self.core.handle(self.now, Input::Datagram { link: link(stranger(n)), bytes: black_box(&mut slot[..datagram.len()]) });
                if n % 64 == 0 {
                    self.rest();
                }
            }
            let spent = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?) - before;
            rounds.push(spent.as_nanos() as f64 / PER_ROUND as f64);
        }
        self.rest();
        anyhow::ensure!(self.answers == 0, "{} answers to strangers", self.answers);
        rounds.sort_by(f64::total_cmp);
        Ok(rounds[ROUNDS / 2])
    }
}

/// Measures each kind and prints a table.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut node = Node::new()?;
    let guessed: Vec<Vec<u8>> = node.names.iter().map(|(ufrag, _)| check(ufrag, "a password nobody has")).collect::<anyhow::Result<_>>()?;
    // The integrity code has to be computed; the shard lets few of these through (`shard/ration.rs`).
    let guessed = Kind { title: "check under a known name, wrong code", datagrams: guessed };
    println!("strangers' datagrams to a core with {PEERS} peers: CPU of the core, nothing is answered");
    let mut missed = Vec::new();
    let kinds = kinds()?.into_iter().map(|kind| (kind, true)).chain([(guessed, false)]);
    for (Kind { title, datagrams }, has_bar) in kinds {
        let ns = node.cost(&datagrams)?;
        println!("{title:<40} {ns:>7.1} ns {:>7.2} M/s", 1e3 / ns);
        if has_bar && 1e9 / ns < BAR {
            missed.push(title);
        }
    }
    if !missed.is_empty() {
        println!("below {} M/s: {}", BAR / 1e6, missed.join(", "));
    }
    Ok(())
}
