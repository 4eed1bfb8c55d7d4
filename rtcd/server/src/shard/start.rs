//! Binding the sockets and starting the threads.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rtcd_core::CoreConfig;
use rtcd_core::config::Certificate;
use rtcd_core::limits::CANDIDATES_MAX;
use tokio::sync::mpsc;

use super::neighbours::Neighbours;
use super::run::{Shard, ShardParts};
use super::{Command, Note, Pulse, ShardHandle};
use crate::addresses::outside::ANSWER_WITHIN;
use crate::addresses::{self, LocalAddress};
use crate::config::{Config, HostOverride};
use crate::limits::{COMMANDS_MAX, NOTES_MAX};
use crate::net::poller::Waker;
use crate::net::tcp::TcpListener;
use crate::net::udp::{UdpSocket, shortfall_warning};

/// Why media cannot start; each text says which setting helps.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The interfaces cannot be listed.
    #[error("cannot list the network interfaces: {0}")]
    Interfaces(std::io::Error),
    /// Nothing to offer.
    #[error("{0}")]
    NoAddress(String),
    /// Somebody else has the port.
    #[error(
        "cannot listen for media on {protocol} {address}: {error}; set {key} (environment {env}) to another port or end the program that has it"
    )]
    Bind {
        /// udp or tcp.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
        /// TOML key.
        key: &'static str,
        /// Variable.
        env: &'static str,
    },
    /// Descriptors, memory, threads, randomness.
    #[error("cannot start a media thread: {0}")]
    System(#[from] std::io::Error),
}

/// Running media threads.
pub struct Shards {
    handles: Vec<ShardHandle>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Shards {
    /// Handles, by shard number.
    #[must_use]
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// Ends all threads after what is queued, and waits for them.
    pub async fn stop(self) {
        for handle in &self.handles {
            let _ = handle.send(Command::Stop).await;
        }
        let threads = self.threads;
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

/// What is bound and offered.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// UDP candidates.
    pub udp: Vec<SocketAddr>,
    /// TCP candidates.
    pub tcp: Vec<SocketAddr>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Binds everything and starts one thread per shard. Gives each desk's notes, by number.
///
/// # Errors
/// See [`StartError`].
pub fn start(config: &Config, certificate: &Certificate) -> Result<(Shards, Vec<mpsc::Receiver<Note>>, Listening), StartError> {
    let local = addresses::local().map_err(StartError::Interfaces)?;
    let mut warnings = Vec::new();
    let instead = config.ice_host_override.clone().or_else(|| learnt_outside(&local, config, &mut warnings));
    let plan = |listen: &[IpAddr]| addresses::plan(&local, listen, config.enable_ipv6, instead.as_ref()).map_err(StartError::NoAddress);
    let udp_plan = plan(&config.ice_address_udp)?;
    let tcp_plan = plan(&config.ice_address_tcp)?;
    let count = config.shard_count();

    let udp = bind_udp(&udp_plan.listen, config, count, &mut warnings)?;
    let tcp = bind_tcp(&tcp_plan.listen, config, count, &mut warnings)?;
    let udp_port = udp.first().and_then(|sockets| sockets.first()).map_or(config.ice_port_udp, |socket| socket.local().port());
    let tcp_port = tcp
        .first()
        .and_then(|listeners| listeners.first())
        .and_then(|listener| listener.local().ok())
        .map_or(config.ice_port_tcp, |address| address.port());
    if let Some(shortfall) = udp.iter().flatten().find_map(UdpSocket::shortfall) {
        warnings.push(shortfall_warning(shortfall));
    }
    let announced = addresses::announced_port(&local, config.ice_host_port_override.as_ref());
    if config.ice_host_port_override.is_some() && announced.is_none() {
        warnings.push("rtc.ice_host_port_override names none of this machine's addresses: the ports bound are offered".to_owned());
    }
    let mut listening = Listening {
        udp: addresses::candidates(&udp_plan, udp_port, announced),
        tcp: addresses::candidates(&tcp_plan, tcp_port, announced),
        warnings: Vec::new(),
    };
    warnings.extend(addresses::warnings(&listening.udp));
    listening.warnings = warnings;

    let epoch = (Instant::now(), unix_us());
    let wakers = (0..count).map(|_| Waker::new()).collect::<Result<Vec<_>, _>>()?;
    let (neighbours, inboxes) = Neighbours::new(&wakers);
    let mut shards = Shards { handles: Vec::new(), threads: Vec::new() };
    // Any shard may have something to tell any desk.
    let (note_senders, notes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(NOTES_MAX)).unzip();
    for (index, (((sockets, listeners), inbox), waker)) in udp.into_iter().zip(tcp).zip(inboxes).zip(wakers).enumerate() {
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let pulse = Arc::new(Pulse::new());
        let core = CoreConfig {
            shard: number,
            shards: u8::try_from(count).unwrap_or(u8::MAX),
            seed: seed()?,
            epoch,
            udp_candidates: listening.udp.clone(),
            tcp_candidates: listening.tcp.clone(),
            certificate: certificate.clone(),
            prefer_aes256: config.prefer_aes256,
            grace: config.grace,
            audio_top_n: config.audio_top_n,
            trains: config.gso,
        };
        let parts = ShardParts {
            number,
            core,
            sockets,
            listeners,
            commands,
            notes: note_senders.clone(),
            inbox,
            neighbours: neighbours.clone(),
            waker: waker.clone(),
            pulse: Arc::clone(&pulse),
            gather_from: config.gather_from.filter(|_| config.gso),
        };
        let dead = Arc::clone(&pulse);
        // What a shard holds for the kernel cannot change threads: it is made where it runs.
        let (made, made_or_not) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            let shard = match Shard::new(parts) {
                Ok(shard) => shard,
                Err(error) => return drop(made.send(Err(error))),
            };
            let _ = made.send(Ok(()));
            // The core catches around each peer; what still gets out ends the process (see `ShardHandle::is_dead`).
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.run())).is_err() {
                dead.dead.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        })?;
        made_or_not.recv().unwrap_or_else(|_| Err(std::io::Error::other("a media thread ended while it was set up")))?;
        shards.threads.push(thread);
        shards.handles.push(ShardHandle { commands: command_sender, waker, pulse });
    }
    Ok((shards, notes, listening))
}

/// What a STUN server of the site says that this machine's addresses are outside. Before the sockets are bound: it is asked from
/// their port.
fn learnt_outside(local: &[LocalAddress], config: &Config, warnings: &mut Vec<String>) -> Option<HostOverride> {
    let mut own = addresses::reachable(local, &config.ice_address_udp, config.enable_ipv6);
    own.truncate(CANDIDATES_MAX);
    let outside = addresses::outside::ask(&config.ice_servers, &own, config.ice_port_udp, ANSWER_WITHIN);
    warnings.extend(outside.warnings);
    (!outside.pairs.is_empty()).then_some(HostOverride::Map(outside.pairs))
}

/// One socket per shard and address, all on one port.
fn bind_udp(ips: &[IpAddr], config: &Config, count: usize, warnings: &mut Vec<String>) -> Result<Vec<Vec<UdpSocket>>, StartError> {
    let mut port = config.ice_port_udp;
    let mut shards: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
    for (which, ip) in ips.iter().enumerate() {
        let failed =
            |address, error| StartError::Bind { protocol: "udp", address, error, key: "rtc.ice_port_udp", env: "RTCD_RTC_ICEPORTUDP" };
        // With port sharing a second program of the same user would bind too and steal half the packets: ask without it first.
        let address = SocketAddr::new(*ip, port);
        if let Err(error) = std::net::UdpSocket::bind(address).map(drop) {
            if which > 0 && ip.is_ipv6() && ip.is_unspecified() && error.kind() != std::io::ErrorKind::AddrInUse {
                warnings.push(format!("IPv6 is not available ({error}): media is served over IPv4 only"));
                continue;
            }
            // A wildcard IPv6 probe collides with our own IPv4 wildcard; only the real bind can tell then.
            if !(which > 0 && ip.is_ipv6()) {
                return Err(failed(address, error));
            }
        }
        for sockets in &mut shards {
            let address = SocketAddr::new(*ip, port);
            let socket = UdpSocket::bind(address, config.gso).map_err(|error| failed(address, error))?;
            port = socket.local().port();
            sockets.push(socket);
        }
    }
    Ok(shards)
}

/// One listener per shard and address, all on one port.
fn bind_tcp(ips: &[IpAddr], config: &Config, count: usize, warnings: &mut Vec<String>) -> Result<Vec<Vec<TcpListener>>, StartError> {
    let mut port = config.ice_port_tcp;
    let mut shards: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
    for (which, ip) in ips.iter().enumerate() {
        let failed =
            |address, error| StartError::Bind { protocol: "tcp", address, error, key: "rtc.ice_port_tcp", env: "RTCD_RTC_ICEPORTTCP" };
        let address = SocketAddr::new(*ip, port);
        if let Err(error) = std::net::TcpListener::bind(address).map(drop) {
            if which > 0 && ip.is_ipv6() && ip.is_unspecified() && error.kind() != std::io::ErrorKind::AddrInUse {
                warnings.push(format!("IPv6 is not available ({error}): media over TCP is served over IPv4 only"));
                continue;
            }
            if !(which > 0 && ip.is_ipv6()) {
                return Err(failed(address, error));
            }
        }
        for listeners in &mut shards {
            let address = SocketAddr::new(*ip, port);
            let listener = TcpListener::bind(address).map_err(|error| failed(address, error))?;
            port = listener.local()?.port();
            listeners.push(listener);
        }
    }
    Ok(shards)
}

fn seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| StartError::System(std::io::Error::other("the operating system gives no randomness")))?;
    Ok(seed)
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
