//! One server with its clients, ready to be measured; and the ideal forwarder, which needs no signalling.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use dimpl::DtlsCertificate;
use rtcd_core::srtp::{Inbound, Outbound};

use crate::counters::Counters;
use crate::handshake::Connected;
use crate::ice::Local;
use crate::ideal::{Keys, Setup};
use crate::mattermost::Tally;
use crate::process::{Place, pinned, resident_kib};
use crate::scenario::Scenario;
use crate::traffic::{Receiver, Sender, Traffic};

/// First SSRC of the publishers.
const SSRC: u32 = 1000;

/// Clients that come in at the same time, where they can.
const AT_ONCE: usize = 10;

/// How one server is started and joined: all that differs between them.
#[async_trait]
pub(crate) trait Adapter: Send {
    /// In tables and files.
    fn name(&self) -> &'static str;

    /// Brings a publisher in, up to the keys of its media.
    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected>;

    /// Brings a receiver of all publishers in.
    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected>;

    /// Another hand at the same server, where clients can come in side by side.
    fn beside(&self) -> Option<Box<dyn Adapter>> {
        None
    }

    /// What was said, where that is counted.
    fn tally(&self) -> Option<Arc<Tally>> {
        None
    }

    /// Where our daemon tells what it counts.
    fn metrics(&self) -> Option<SocketAddr> {
        None
    }
}

/// One synthetic client.
pub(crate) struct Client {
    pub(crate) scenario: Scenario,
    /// Unique among its kind.
    pub(crate) number: usize,
    /// Of its media, if it publishes.
    pub(crate) ssrc: u32,
    /// Where it and the server's media are.
    pub(crate) address: IpAddr,
    pub(crate) certificate: DtlsCertificate,
}

impl Client {
    /// Which of the scenario's calls it is in.
    pub(crate) fn call_number(&self) -> usize {
        self.number % self.scenario.calls
    }

    /// The name of its call.
    pub(crate) fn call(&self) -> String {
        format!("bench-{}", self.call_number())
    }

    pub(crate) fn fingerprint(&self) -> String {
        self.certificate.fingerprint_str()
    }

    /// A socket of its own, with credentials that tell what it is for.
    pub(crate) fn local(&self, kind: &str) -> anyhow::Result<Local> {
        Local::bind(self.address, format!("{kind}{:05}", self.number))
    }
}

/// A running server with its clients' media.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) child: Process,
    pub(crate) traffic: Traffic,
    /// Resident memory before anybody joined, KiB.
    pub(crate) idle_kib: f64,
    pub(crate) srtp_profile: &'static str,
    /// Signalling goes on while media runs. None: nobody has to join the ideal forwarder.
    door: Option<Door>,
}

/// How more clients come in.
struct Door {
    adapter: Box<dyn Adapter>,
    /// What brought others in, and holds their signalling.
    others: Vec<Box<dyn Adapter>>,
    certificate: DtlsCertificate,
    scenario: Scenario,
    address: IpAddr,
}

impl Door {
    fn client(&self, number: usize) -> anyhow::Result<Client> {
        // Layers have the numbers beside it.
        let ssrc = SSRC + u32::try_from(number * self.scenario.layers.map_or(1, |layers| layers.len()))?;
        Ok(Client { scenario: self.scenario, number, ssrc, address: self.address, certificate: self.certificate.clone() })
    }
}

impl Subject {
    /// More receivers, side by side where that can be.
    pub(crate) async fn join(&mut self, count: usize) -> anyhow::Result<()> {
        let first = self.traffic.receivers.len();
        let door = self.door.as_mut().context("nobody joins this")?;
        let clients = (first..first + count).map(|number| door.client(number)).collect::<anyhow::Result<Vec<_>>>()?;
        let hands: Vec<Box<dyn Adapter>> = std::iter::from_fn(|| door.adapter.beside()).take(AT_ONCE).collect();
        let mut connected = Vec::with_capacity(count);
        if hands.is_empty() {
            for client in &clients {
                connected.push(subscribed(door.adapter.as_mut(), client).await?);
            }
        } else {
            let mut tasks = tokio::task::JoinSet::new();
            let mut shares: Vec<Vec<Client>> = hands.iter().map(|_| Vec::new()).collect();
            for (at, client) in clients.into_iter().enumerate() {
                shares[at % AT_ONCE].push(client);
            }
            for (mut hand, share) in hands.into_iter().zip(shares) {
                tasks.spawn(async move {
                    let mut connected = Vec::with_capacity(share.len());
                    for client in &share {
                        connected.push(subscribed(hand.as_mut(), client).await?);
                    }
                    anyhow::Ok((hand, connected))
                });
            }
            while let Some(done) = tasks.join_next().await {
                let (hand, more) = done??;
                door.others.push(hand);
                connected.extend(more);
            }
        }
        for Connected { socket, inbound, outbound, ice, layout, channel, dtls, .. } in connected {
            let mut receiver = Receiver::new(socket, inbound, Some((ice, outbound)))?;
            receiver.layout = layout;
            receiver.channel = channel.map(|channel| Box::new((dtls, channel)));
            self.traffic.receivers.push(receiver);
        }
        self.traffic.check();
        Ok(())
    }

    /// More receivers, `together` at a time: those who are there are looked at in between, or they would be given up.
    pub(crate) fn join_in_groups(&mut self, runtime: &tokio::runtime::Runtime, receivers: usize, together: usize) -> anyhow::Result<()> {
        let mut left = receivers;
        while left > 0 {
            let count = left.min(together);
            runtime.block_on(self.join(count))?;
            self.traffic.idle(Duration::from_millis(20))?;
            left -= count;
        }
        Ok(())
    }

    /// What was said, where that is counted.
    pub(crate) fn tally(&self) -> Option<Arc<Tally>> {
        self.door.as_ref()?.adapter.tally()
    }

    /// What our daemon has counted.
    pub(crate) fn counters(&self) -> anyhow::Result<Counters> {
        let http = self.door.as_ref().and_then(|door| door.adapter.metrics()).context("this server tells no counters")?;
        Counters::read(http)
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        let number = self.traffic.senders.len();
        let door = self.door.as_mut().context("nobody joins this")?;
        let client = Client { scenario: door.scenario.of(number), ..door.client(number)? };
        let Connected { socket, inbound, outbound, ice, profile, rtx, .. } =
            door.adapter.publish(&client).await.with_context(|| format!("publisher {number}"))?;
        self.srtp_profile = profile;
        let mut sender = Sender::new(socket, outbound, client.ssrc, &client.scenario, Some((ice, inbound)));
        sender.rtx = rtx;
        self.traffic.senders.push(sender);
        self.traffic.check();
        Ok(())
    }
}

async fn subscribed(adapter: &mut dyn Adapter, client: &Client) -> anyhow::Result<Connected> {
    adapter.subscribe(client).await.with_context(|| format!("receiver {}", client.number))
}

/// A child that ends with us, and its files with it.
pub(crate) struct Process {
    child: Child,
    _files: Option<tempfile::TempDir>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command, files: Option<tempfile::TempDir>) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, _files: files })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, as an operator does.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid())?);
        Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Tries until it works: the server was started a moment ago.
pub(crate) async fn until_up<T, F>(what: &'static str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let limit = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > limit => return Err(error.context(format!("{what} did not come up"))),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A TCP port nobody uses at this moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Brings everybody of a scenario in.
pub(crate) async fn assemble(child: Process, adapter: Box<dyn Adapter>, scenario: Scenario, address: IpAddr) -> anyhow::Result<Subject> {
    let idle_kib = resident_kib(child.pid())?;
    let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut subject = Subject {
        name: adapter.name(),
        child,
        traffic: Traffic::new(Vec::new(), Vec::new(), scenario),
        idle_kib,
        srtp_profile: "",
        door: Some(Door { adapter, others: Vec::new(), certificate, scenario, address }),
    };
    for _ in 0..scenario.publishers {
        subject.publish().await?;
    }
    // Tracks are live once something of them has come.
    subject.traffic.run(Duration::from_millis(500))?;
    subject.join(scenario.receivers).await?;
    Ok(subject)
}

/// Starts the ideal forwarder with preset keys.
pub(crate) fn ideal(scenario: Scenario, place: Place, address: IpAddr) -> anyhow::Result<Subject> {
    let count = u16::try_from(scenario.receivers)?;
    let sockets = (0..scenario.receivers).map(|_| UdpSocket::bind((address, 0))).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup {
        address,
        calls: scenario.calls,
        publishers: (0..u16::try_from(scenario.publishers)?).map(|number| Keys::numbered(1000 + number)).collect(),
        subscribers: sockets
            .iter()
            .zip(0..count)
            .map(|(socket, number)| Ok((socket.local_addr()?, Keys::numbered(number))))
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut child = pinned(&std::env::current_exe()?, place).arg("ideal").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    writeln!(stdin, "{}", serde_json::to_string(&setup)?)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let port: u16 = line.trim().parse().context("the ideal forwarder did not start")?;
    let server = SocketAddr::new(address, port);
    let mut senders = Vec::new();
    for (number, keys) in setup.publishers.iter().enumerate() {
        let socket = UdpSocket::bind((address, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        senders.push(Sender::new(socket, Outbound::new(&keys.master()?)?, SSRC + u32::try_from(number)?, &scenario.of(number), None));
    }
    let mut receivers = Vec::new();
    for (socket, (_, keys)) in sockets.into_iter().zip(&setup.subscribers) {
        receivers.push(Receiver::new(socket, Inbound::new(&keys.master()?)?, None)?);
    }
    let child = Process { child, _files: None };
    let idle_kib = resident_kib(child.pid())?;
    Ok(Subject {
        name: "ideal",
        child,
        traffic: Traffic::new(senders, receivers, scenario),
        idle_kib,
        srtp_profile: "AEAD_AES_128_GCM",
        door: None,
    })
}
