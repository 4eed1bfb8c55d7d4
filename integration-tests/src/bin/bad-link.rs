//! A link between a client and a media node that is as bad as its profile says: a UDP proxy in user space, for hosts whose
//! kernel has no `netem`, and for tests that want their losses back by a seed.
//!
//! `bad-link <node's UDP address> [seed]` prints the port that clients use, then reads profile names (or paths of profile files)
//! from standard input, one a line; each takes force at once, and its cuts count from then. After each line, and at the end
//! of its input, it prints what the profile before did to the datagrams, as JSON.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use link_model::{Fate, Link, Profile};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Clients that talk at a time. Each has a socket of its own towards the node, as behind a NAT.
const CLIENTS_MAX: usize = 64;
/// Datagrams under way: at 10 s of delay, 1000 a second.
const UNDER_WAY_MAX: usize = 10_000;
const DATAGRAM_LEN_MAX: usize = 2048;

/// What the profile did in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: u64,
    bytes: u64,
    lost: u64,
    dropped: u64,
    cut: u64,
}

impl Tally {
    fn json(self) -> String {
        let Self { passed, bytes, lost, dropped, cut } = self;
        format!("{{\"passed\":{passed},\"bytes\":{bytes},\"lost\":{lost},\"dropped\":{dropped},\"cut\":{cut}}}")
    }
}

/// A datagram under way, soonest first in a heap of [`Reverse`].
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Instant,
    order: u64,
    to: Toward,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Toward {
    Node { client: SocketAddr },
    Client(SocketAddr),
}

struct Proxy {
    /// Clients talk to this one.
    front: Arc<UdpSocket>,
    node: SocketAddr,
    backs: HashMap<SocketAddr, Arc<UdpSocket>>,
    from_node: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    seed: u64,
    profile: Profile,
    since: Instant,
    up: Link,
    down: Link,
    tallies: [Tally; 2],
    under_way: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: bad-link <node's UDP address> [seed]";
    let node: SocketAddr = arguments.next().context(usage)?.parse().context(usage)?;
    let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse()).context(usage)?;
    let front = Arc::new(UdpSocket::bind((node.ip(), 0)).await?);
    print_line(&format!("{{\"port\":{}}}", front.local_addr()?.port()));
    let (from_node, mut to_clients) = mpsc::channel(1024);
    let profile = Profile::default();
    let (up, down) = profile.links(seed, seed ^ u64::MAX);
    let mut proxy = Proxy {
        up,
        down,
        front: front.clone(),
        node,
        backs: HashMap::new(),
        from_node,
        seed,
        profile,
        since: Instant::now(),
        tallies: [Tally::default(); 2],
        under_way: BinaryHeap::new(),
        order: 0,
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut buffer = [0; DATAGRAM_LEN_MAX];
    loop {
        let next = proxy.under_way.peek().map(|Reverse(first)| first.at);
        tokio::select! {
            line = lines.next_line() => {
                print_line(&proxy.report());
                let Some(line) = line? else { return Ok(()) };
                proxy.take(read(line.trim())?);
            }
            received = front.recv_from(&mut buffer) => {
                // The answer to a datagram that met a closed port.
                let Ok((len, client)) = received else { continue };
                proxy.put(Toward::Node { client }, buffer.get(..len).unwrap_or_default().to_vec());
            }
            Some((client, bytes)) = to_clients.recv() => proxy.put(Toward::Client(client), bytes),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => proxy.deliver().await,
        }
    }
}

/// A profile by name, or by path.
fn read(wanted: &str) -> anyhow::Result<Profile> {
    if wanted.is_empty() {
        return Ok(Profile::default());
    }
    if !wanted.contains('/') {
        return Ok(link_model::named(wanted)?);
    }
    let text = std::fs::read_to_string(wanted).with_context(|| format!("cannot read the link profile {wanted}"))?;
    Ok(Profile::parse(&text)?)
}

#[allow(clippy::print_stdout, reason = "it is how the test reads the proxy")]
fn print_line(line: &str) {
    println!("{line}");
}

impl Proxy {
    fn take(&mut self, profile: Profile) {
        (self.up, self.down) = profile.links(self.seed, self.seed ^ u64::MAX);
        (self.profile, self.since, self.tallies) = (profile, Instant::now(), [Tally::default(); 2]);
    }

    fn report(&self) -> String {
        let [up, down] = self.tallies.map(Tally::json);
        format!("{{\"up\":{up},\"down\":{down},\"seconds\":{:.1}}}", self.since.elapsed().as_secs_f64())
    }

    fn put(&mut self, to: Toward, bytes: Vec<u8>) {
        let elapsed = self.since.elapsed();
        let (link, [up, down]) = match to {
            Toward::Node { .. } => (&mut self.up, &mut self.tallies),
            Toward::Client(_) => (&mut self.down, &mut self.tallies),
        };
        let tally = if matches!(to, Toward::Node { .. }) { up } else { down };
        if self.profile.is_cut(elapsed) {
            tally.cut += 1;
            return;
        }
        match link.pass(elapsed, bytes.len()) {
            Fate::Lost => tally.lost += 1,
            Fate::Arrives(at) if self.under_way.len() < UNDER_WAY_MAX => {
                tally.passed += 1;
                tally.bytes += bytes.len() as u64;
                self.order += 1;
                self.under_way.push(Reverse(UnderWay { at: self.since + at, order: self.order, to, bytes }));
            }
            Fate::Arrives(_) | Fate::Dropped => tally.dropped += 1,
        }
    }

    async fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(datagram)) = self.under_way.pop() else { return };
            // A datagram that cannot be sent is a lost one.
            let _ = match datagram.to {
                Toward::Client(client) => self.front.send_to(&datagram.bytes, client).await,
                Toward::Node { client } => match self.back(client).await {
                    Some(back) => back.send(&datagram.bytes).await,
                    None => continue,
                },
            };
        }
    }

    /// The socket through which the node sees this client.
    async fn back(&mut self, client: SocketAddr) -> Option<Arc<UdpSocket>> {
        if let Some(back) = self.backs.get(&client) {
            return Some(back.clone());
        }
        if self.backs.len() >= CLIENTS_MAX {
            return None;
        }
        let back = Arc::new(UdpSocket::bind((self.node.ip(), 0)).await.ok()?);
        back.connect(self.node).await.ok()?;
        self.backs.insert(client, back.clone());
        let (reader, sender) = (back.clone(), self.from_node.clone());
        tokio::spawn(async move {
            let mut buffer = [0; DATAGRAM_LEN_MAX];
            loop {
                match reader.recv(&mut buffer).await {
                    Ok(len) => {
                        if sender.send((client, buffer.get(..len).unwrap_or_default().to_vec())).await.is_err() {
                            return;
                        }
                    }
                    // The node was away for a moment.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Some(back)
    }
}
