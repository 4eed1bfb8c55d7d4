//! A client's way in: ICE checks, then DTLS in either role. Blocking and without frills; one per transport.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use rtcd_core::srtp::{Inbound, Outbound, Profile, split_keying_material};

use crate::data_channel::DataChannel;
use crate::ice::{Ice, Local};
use crate::layout::Layout;
use crate::sdp::Remote;

const LIMIT: Duration = Duration::from_secs(10);
const FLIGHT_RTO: Duration = Duration::from_millis(50);

/// A connected transport.
pub(crate) struct Connected {
    pub(crate) socket: std::net::UdpSocket,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(crate) ice: Ice,
    pub(crate) profile: &'static str,
    /// For data channels, where a server wants one.
    pub(crate) dtls: Dtls,
    /// False: the server opened the DTLS handshake.
    pub(crate) dtls_client: bool,
    /// The server takes packets that are sent again under a source of their own.
    pub(crate) rtx: bool,
    /// Of a receiver that can say what it wants to see.
    pub(crate) layout: Option<Layout>,
    /// Of a receiver whose data channel goes on to be used.
    pub(crate) channel: Option<DataChannel>,
}

/// The same beside the runtime: a server may want its signalling answered in between.
pub(crate) async fn connect_beside(
    local: Local,
    remote: Remote,
    we_offered: bool,
    certificate: DtlsCertificate,
) -> anyhow::Result<Connected> {
    tokio::task::spawn_blocking(move || connect(local, &remote, we_offered, &certificate)).await?
}

/// Proves the address and agrees on keys. Who offers is controlling, unless the server is a lite agent.
fn connect(local: Local, remote: &Remote, we_offered: bool, certificate: &DtlsCertificate) -> anyhow::Result<Connected> {
    let to = remote.candidate.context("the server names no UDP candidate")?;
    let rtx = remote.rtx;
    let controlling = we_offered || remote.lite;
    local.socket.connect(to)?;
    let ice = Ice::new(&local, remote, to, controlling)?;
    let socket = local.socket;
    let limit = Instant::now() + LIMIT;
    let mut buffer = [0; 2048];
    // A server may drop the first flight while its own checks still run; the second has to come before a second is over.
    let config = Arc::new(dimpl::Config::builder().flight_start_rto(FLIGHT_RTO).build()?);
    let mut dtls = Dtls::new_auto(config, certificate.clone(), Instant::now());
    // An offer of ours leaves the choice to the server; in answers we are the client.
    let dtls_client = !(we_offered && remote.setup_active);
    dtls.set_active(dtls_client);
    let (mut answered, mut nominated) = (false, controlling);
    let mut early = Vec::new();
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    while !(answered && nominated) {
        if Instant::now() > limit {
            bail!("ICE did not get through to {to} in time (check answered: {answered}, path chosen: {nominated})");
        }
        ice.check(&socket);
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let packet = buffer.get(..len).unwrap_or_default();
        if is_dtls(packet) {
            early.push(packet.to_vec());
        }
        let heard = ice.heard(&socket, packet);
        answered |= heard.answered;
        nominated |= heard.nominated;
    }
    let mut keys = None;
    let mut connected = false;
    let mut out = vec![0; 4096];
    dtls.handle_timeout(Instant::now())?;
    for packet in early {
        dtls.handle_packet(&packet)?;
    }
    loop {
        let wait;
        dtls.handle_timeout(Instant::now())?;
        loop {
            #[allow(clippy::wildcard_enum_match_arm, reason = "a client of a test needs no more of a handshake")]
            match dtls.poll_output(&mut out) {
                Output::Packet(packet) => drop(socket.send(packet)?),
                Output::BufferTooSmall { needed } => out.resize(needed, 0),
                Output::KeyingMaterial(material, profile) => keys = Some((material.to_vec(), profile)),
                Output::Connected => connected = true,
                Output::Timeout(at) => {
                    wait = at.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), Duration::from_millis(50));
                    break;
                }
                _ => {}
            }
        }
        if (connected || dtls.protocol_version().is_some()) && keys.is_some() {
            break;
        }
        if Instant::now() > limit {
            bail!("DTLS with {to} did not finish in time (as its {})", if dtls_client { "client" } else { "server" });
        }
        socket.set_read_timeout(Some(wait))?;
        if let Ok(len) = socket.recv(&mut buffer) {
            let packet = buffer.get(..len).unwrap_or_default();
            if is_dtls(packet) {
                dtls.handle_packet(packet)?;
            } else {
                ice.heard(&socket, packet);
            }
        }
    }
    let (material, profile) = keys.context("no keys")?;
    let profile = match profile {
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
        other => bail!("an SRTP profile nobody offered: {other:?}"),
    };
    let (client, server) = split_keying_material(profile, &material)?;
    let (ours, theirs) = if dtls_client { (client, server) } else { (server, client) };
    socket.set_read_timeout(None)?;
    socket.set_nonblocking(true)?;
    Ok(Connected {
        socket,
        outbound: Outbound::new(&ours)?,
        inbound: Inbound::new(&theirs)?,
        ice,
        profile: profile.name(),
        dtls,
        dtls_client,
        rtx,
        layout: None,
        channel: None,
    })
}

/// RFC 7983.
pub(crate) fn is_dtls(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| (20..64).contains(first))
}
