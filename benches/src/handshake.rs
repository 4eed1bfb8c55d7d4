//! A client's way in: ICE check, then DTLS as the client. Blocking and without frills; one per transport.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use rtcd_core::srtp::{Inbound, Outbound, Profile, split_keying_material};
use rtcd_core::stun::{BINDING, Class, IntegrityKey, Message, RoleAttribute, StunWriter, TransactionId};

use crate::sdp::Remote;

const LIMIT: Duration = Duration::from_secs(10);

/// A connected transport.
pub(crate) struct Connected {
    pub(crate) socket: UdpSocket,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    /// A check to repeat for consent.
    pub(crate) check: Vec<u8>,
    pub(crate) profile: &'static str,
}

/// Our side of a transport.
pub(crate) struct Local {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

/// Proves the address and agrees on keys.
pub(crate) fn connect(local: &Local, remote: &Remote, certificate: &DtlsCertificate) -> anyhow::Result<Connected> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let to: SocketAddr = remote.candidate;
    socket.connect(to)?;
    let check = check(local, remote)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let limit = Instant::now() + LIMIT;
    let mut buffer = [0; 2048];
    loop {
        if Instant::now() > limit {
            bail!("no answer to ICE checks from {to}");
        }
        socket.send(&check)?;
        if let Ok(len) = socket.recv(&mut buffer)
            && Message::parse(&buffer[..len]).is_ok_and(|message| message.class == Class::Success)
        {
            break;
        }
    }
    let config = Arc::new(dimpl::Config::builder().build()?);
    let mut dtls = Dtls::new_auto(config, certificate.clone(), Instant::now());
    dtls.set_active(true);
    let mut keys = None;
    let mut out = vec![0; 4096];
    loop {
        let wait;
        dtls.handle_timeout(Instant::now())?;
        let mut connected = false;
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
            bail!("DTLS did not finish in time");
        }
        socket.set_read_timeout(Some(wait))?;
        if let Ok(len) = socket.recv(&mut buffer)
            && buffer.first().is_some_and(|first| (20..64).contains(first))
        {
            dtls.handle_packet(&buffer[..len])?;
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
    socket.set_read_timeout(None)?;
    socket.set_nonblocking(true)?;
    Ok(Connected { socket, outbound: Outbound::new(&client)?, inbound: Inbound::new(&server)?, check, profile: profile.name() })
}

fn check(local: &Local, remote: &Remote) -> anyhow::Result<Vec<u8>> {
    let mut slot = vec![0; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId(*b"conclave-ben"));
    writer.username(format!("{}:{}", remote.ufrag, local.ufrag).as_bytes());
    writer.priority(1_845_501_695);
    writer.role(RoleAttribute::Controlling(0x1234_5678_9abc_def0));
    writer.use_candidate();
    writer.integrity(&IntegrityKey::new(&remote.pwd));
    writer.fingerprint();
    let len = writer.finish().context("a check fits")?;
    slot.truncate(len);
    Ok(slot)
}
