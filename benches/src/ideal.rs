//! The ideal forwarder: the least a forwarder can do. Keys and addresses are given, there is no ICE, DTLS or RTCP.
//!
//! `recvmmsg` → decrypt once → per subscriber rewrite and encrypt straight into the send arena → one `sendmmsg`, with
//! GSO trains where several equal packets of one pass go to one subscriber. Runs as a process of its own, so that its
//! CPU is counted as rtcd's is.

use std::io::{BufRead as _, IoSlice, IoSliceMut, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rtcd_core::srtp::{Inbound, MasterKeys, Outbound, Profile};
use serde::{Deserialize, Serialize};

const BATCH: usize = 64;
const SLOT: usize = 1500;
/// Bytes of a train: what an IP packet holds, less the headers.
const TRAIN_LEN_MAX: usize = 65_000;

/// What the process is told on its standard input, one line of JSON.
#[derive(Deserialize, Serialize)]
pub(crate) struct Setup {
    /// Its own.
    pub(crate) address: IpAddr,
    /// Keys of what publishers send; SSRC `1000 + index`.
    pub(crate) publishers: Vec<Keys>,
    /// Everybody's index modulo this is their call.
    pub(crate) calls: usize,
    /// Where and how to send.
    pub(crate) subscribers: Vec<(SocketAddr, Keys)>,
}

/// Master key and salt, AES-128-GCM.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Keys {
    key: [u8; 16],
    salt: [u8; 12],
}

impl Keys {
    /// Different for each seed.
    pub(crate) fn numbered(seed: u16) -> Self {
        let [high, low] = seed.to_be_bytes();
        Self {
            key: std::array::from_fn(|at| high ^ low.wrapping_mul(31).wrapping_add(u8::try_from(at).unwrap_or_default())),
            salt: [low; 12],
        }
    }

    pub(crate) fn master(&self) -> anyhow::Result<MasterKeys> {
        Ok(MasterKeys::new(Profile::AeadAes128Gcm, &self.key, &self.salt)?)
    }
}

struct Subscriber {
    address: SockaddrStorage,
    outbound: Outbound,
}

/// A packet of this pass.
struct Clear {
    /// Its buffer.
    at: usize,
    opened: rtcd_core::srtp::Unprotected,
    call: usize,
}

/// The process. Tells its port on standard output and runs until it is killed.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let setup: Setup = serde_json::from_str(&line)?;
    let socket = UdpSocket::bind((setup.address, 0))?;
    {
        let socket = socket2::SockRef::from(&socket);
        let _ = socket.set_recv_buffer_size(8 << 20);
        let _ = socket.set_send_buffer_size(8 << 20);
    }
    let mut inbound = setup.publishers.iter().map(|keys| Ok(Inbound::new(&keys.master()?)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let subscribers = setup
        .subscribers
        .iter()
        .map(|(address, keys)| Ok(Subscriber { address: (*address).into(), outbound: Outbound::new(&keys.master()?)? }))
        .collect::<anyhow::Result<Vec<_>>>()?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", socket.local_addr()?.port())?;
        out.flush()?;
    }
    let mut arena = vec![0_u8; BATCH * subscribers.len() * SLOT];
    let mut packets = vec![[0_u8; 2048]; BATCH];
    // Two sets: a prepared control buffer has to be used.
    let mut plain_headers = MultiHeaders::<SockaddrStorage>::preallocate(subscribers.len() * BATCH, None);
    let mut train_headers = MultiHeaders::<SockaddrStorage>::preallocate(subscribers.len() * BATCH, Some(nix::cmsg_space!(u16)));
    let mut receive_headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut clear: Vec<Clear> = Vec::with_capacity(BATCH);
    loop {
        let lengths: Vec<usize> = {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = packets.iter_mut().map(|packet| [IoSliceMut::new(packet)]).collect();
            let received = recvmmsg(socket.as_raw_fd(), &mut receive_headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
            received.map(|message| message.bytes).collect()
        };
        clear.clear();
        for (at, len) in lengths.iter().enumerate() {
            let Some(packet) = packets.get_mut(at).and_then(|packet| packet.get_mut(..*len)) else { continue };
            let publisher = packet
                .get(8..12)
                .map(|ssrc| u32::from_be_bytes([ssrc[0], ssrc[1], ssrc[2], ssrc[3]]))
                .and_then(|ssrc| usize::try_from(ssrc.checked_sub(1000)?).ok());
            let Some(publisher) = publisher else { continue };
            let Some(keys) = inbound.get_mut(publisher) else { continue };
            if let Ok(opened) = keys.unprotect(packet) {
                clear.push(Clear { at, opened, call: publisher % setup.calls });
            }
        }
        // A train has one length: speech and pictures leave one after the other.
        clear.sort_by_key(|packet| packet.opened.len);
        for equal in clear.chunk_by(|one, other| one.opened.len == other.opened.len) {
            let headers = if equal.len() > 1 { &mut train_headers } else { &mut plain_headers };
            forward(&socket, &subscribers, setup.calls, &packets, equal, &mut arena, headers)?;
        }
    }
}

/// Sends everything of one pass, subscriber by subscriber.
fn forward(
    socket: &UdpSocket,
    subscribers: &[Subscriber],
    calls: usize,
    packets: &[[u8; 2048]],
    clear: &[Clear],
    arena: &mut [u8],
    headers: &mut MultiHeaders<SockaddrStorage>,
) -> anyhow::Result<()> {
    let mut used = 0;
    // (start, end) in the arena per message, with its subscriber; equal lengths of one subscriber become one train.
    let mut trains: Vec<(usize, usize, usize)> = Vec::with_capacity(subscribers.len() * clear.len());
    let mut segment = None;
    for (number, subscriber) in subscribers.iter().enumerate() {
        let mut start = used;
        let mut last_len = None;
        for Clear { at, opened, .. } in clear.iter().filter(|packet| packet.call == number % calls) {
            let packet = packets.get(*at).context("a packet")?;
            let header = opened.header.len;
            let slot = arena.get_mut(used..used + SLOT).context("a slot")?;
            slot.get_mut(..header).context("room")?.copy_from_slice(packet.get(..header).context("a header")?);
            // New SSRC, sequence number and timestamp, as a forwarder has to.
            let seq = u16::try_from((opened.index + 7) & 0xffff).unwrap_or_default();
            let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]).wrapping_add(99);
            slot.get_mut(2..4).context("room")?.copy_from_slice(&seq.to_be_bytes());
            slot.get_mut(4..8).context("room")?.copy_from_slice(&timestamp.to_be_bytes());
            let payload = packet.get(header..opened.len).context("a payload")?;
            let len = subscriber.outbound.protect(slot, header, &[], payload, opened.index + 7)?;
            if last_len.is_some_and(|last| last != len) {
                anyhow::bail!("this traffic has equal lengths");
            }
            last_len = Some(len);
            if used + len - start > TRAIN_LEN_MAX {
                trains.push((start, used, number));
                start = used;
            }
            used += len;
        }
        if let Some(len) = last_len {
            segment = Some(len);
            trains.push((start, used, number));
        }
    }
    let Some(segment) = segment else { return Ok(()) };
    let arena = &*arena;
    // At most 64 segments per train: a pass has no more packets than that.
    let slices: Vec<[IoSlice<'_>; 1]> =
        trains.iter().map(|(start, end, _)| [IoSlice::new(arena.get(*start..*end).unwrap_or_default())]).collect();
    let addresses: Vec<Option<SockaddrStorage>> =
        trains.iter().map(|(.., number)| subscribers.get(*number).map(|subscriber| subscriber.address)).collect();
    let size = u16::try_from(segment)?;
    let gso = [ControlMessage::UdpGsoSegments(&size)];
    let cmsgs: &[ControlMessage<'_>] = if clear.len() > 1 { &gso } else { &[] };
    sendmmsg(socket.as_raw_fd(), headers, &slices, &addresses, cmsgs, MsgFlags::empty())?.for_each(drop);
    Ok(())
}
