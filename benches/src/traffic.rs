//! The clients' media: paced senders, receivers drained on a 1 ms timer, kernel time stamps.
//!
//! The sender writes the wall clock into the payload; the receiver's kernel stamps arrival (`SO_TIMESTAMPNS`). So the
//! client's own scheduling is not in the latency, and no receiver sleeps in a poll that every send would have to wake.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rtcd_core::srtp::{Inbound, Outbound};

use crate::ice::Ice;
use crate::process::own_thread_ns;
use crate::reports::{ReceiverReports, SenderReports};
use crate::scenario::Scenario;
use crate::sdp;

/// Where the stamp stands in the payload: behind a VP8 descriptor and key frame head.
const STAMP_AT: usize = 16;
const TICK: Duration = Duration::from_millis(1);
/// Reports, as browsers send them.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A stamp older than this is none.
const STAMP_AGE_MAX_NS: u64 = 60_000_000_000;

/// One publisher.
pub(crate) struct Sender {
    socket: UdpSocket,
    outbound: Outbound,
    ssrc: u32,
    payload_type: u8,
    /// RFC 6464 extension id, audio.
    level_id: u8,
    index: u64,
    timestamp: u32,
    /// None: keys and addresses were given.
    ice: Option<Ice>,
    reports: SenderReports,
}

impl Sender {
    pub(crate) fn new(socket: UdpSocket, outbound: Outbound, ssrc: u32, video: bool, ice: Option<Ice>) -> Self {
        let reports = SenderReports::default();
        let (payload_type, level_id) = (sdp::payload_type(video), sdp::LEVEL_ID);
        Self { socket, outbound, ssrc, payload_type, level_id, index: 100, timestamp: 0, ice, reports }
    }
}

/// One receiver.
pub(crate) struct Receiver {
    pub(crate) socket: UdpSocket,
    state: UdpSocketState,
    inbound: Inbound,
    /// None: keys and addresses were given, and nobody wants reports.
    feedback: Option<(Ice, Outbound)>,
    reports: ReceiverReports,
}

impl Receiver {
    pub(crate) fn new(socket: UdpSocket, inbound: Inbound, feedback: Option<(Ice, Outbound)>) -> anyhow::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Joining trains at the receiver would make the server's sends cheaper than any real network does.
        setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        Ok(Self { socket, state, inbound, feedback, reports: ReceiverReports::default() })
    }
}

/// What one window gave.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// µs, sorted.
    pub(crate) latencies: Vec<f64>,
    pub(crate) bad: u64,
    /// Part of a core that the clients needed. Above [`CLIENT_SHARE_MAX`] they, not the server, may be the limit.
    pub(crate) client_share: f64,
}

/// Of a core, for the clients.
pub(crate) const CLIENT_SHARE_MAX: f64 = 0.8;

/// All clients of one server.
pub(crate) struct Traffic {
    pub(crate) senders: Vec<Sender>,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) scenario: Scenario,
    buffers: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(senders: Vec<Sender>, receivers: Vec<Receiver>, scenario: Scenario) -> Self {
        Self { senders, receivers, scenario, buffers: vec![0; BATCH_SIZE * 2048] }
    }

    /// Runs for `window`, counting.
    pub(crate) fn run(&mut self, window: Duration) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let start = Instant::now();
        let cpu = own_thread_ns()?;
        let count = u32::try_from(self.senders.len().max(1))?;
        // Speakers are not in step.
        let mut due: Vec<Instant> = (0..count).map(|number| start + self.scenario.every * number / count).collect();
        let mut checks_at = start + Duration::from_secs(2);
        let mut reports_at = start + REPORT_EVERY;
        let mut next = start;
        while start.elapsed() < window {
            let now = Instant::now();
            for (sender, due) in self.senders.iter_mut().zip(&mut due) {
                if *due <= now {
                    *due += self.scenario.every;
                    seen.sent += sender.burst(&self.scenario)?;
                }
            }
            if now >= checks_at {
                checks_at = now + Duration::from_millis(2500);
                self.check();
            }
            if now >= reports_at {
                reports_at += REPORT_EVERY;
                self.report()?;
            }
            for receiver in &mut self.receivers {
                receiver.drain(&mut self.buffers, &mut seen, self.scenario.payload)?;
            }
            next += TICK;
            if let Some(rest) = next.checked_duration_since(Instant::now()) {
                std::thread::sleep(rest);
            }
        }
        // What is still under way.
        std::thread::sleep(Duration::from_millis(20));
        for receiver in &mut self.receivers {
            receiver.drain(&mut self.buffers, &mut seen, self.scenario.payload)?;
        }
        seen.client_share = (own_thread_ns()? - cpu) as f64 / start.elapsed().as_nanos() as f64;
        seen.latencies.sort_by(f64::total_cmp);
        Ok(seen)
    }

    /// Keeps consent alive.
    pub(crate) fn check(&self) {
        for sender in &self.senders {
            if let Some(ice) = &sender.ice {
                ice.check(&sender.socket);
            }
        }
        for receiver in &self.receivers {
            if let Some((ice, _)) = &receiver.feedback {
                ice.check(&receiver.socket);
            }
        }
    }

    fn report(&mut self) -> anyhow::Result<()> {
        for sender in self.senders.iter_mut().filter(|sender| sender.ice.is_some()) {
            sender.reports.send(&sender.socket, &mut sender.outbound, sender.ssrc, sender.timestamp, unix_ns())?;
        }
        for receiver in &mut self.receivers {
            if let Some((_, outbound)) = &mut receiver.feedback {
                receiver.reports.send(&receiver.socket, outbound)?;
            }
        }
        Ok(())
    }
}

impl Sender {
    fn burst(&mut self, scenario: &Scenario) -> anyhow::Result<u64> {
        let mut payload = vec![0_u8; scenario.payload];
        for number in 0..scenario.burst {
            if scenario.video {
                // VP8: start of a partition in the first packet of a frame, key frame head with its start code and size.
                payload[0] = if number == 0 { 0x10 } else { 0x00 };
                payload[1..11].copy_from_slice(&[0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
            }
            payload[STAMP_AT..STAMP_AT + 8].copy_from_slice(&unix_ns().to_be_bytes());
            let mut slot = [0_u8; 1500];
            let last = number + 1 == scenario.burst;
            let mut header_len = 12;
            slot[0] = 0x80;
            slot[1] = self.payload_type | if last && scenario.video { 0x80 } else { 0 };
            slot[2..4].copy_from_slice(&u16::try_from(self.index & 0xffff)?.to_be_bytes());
            slot[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
            slot[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
            if !scenario.video {
                // One-byte extension with the audio level, as browsers send it.
                slot[0] = 0x90;
                slot[12..20].copy_from_slice(&[0xbe, 0xde, 0, 1, self.level_id << 4, 0x80 | 30, 0, 0]);
                header_len = 20;
            }
            let len = self.outbound.protect(&mut slot, header_len, &[], &payload, self.index)?;
            self.socket.send(slot.get(..len).unwrap_or_default())?;
            self.index += 1;
            self.reports.count(payload.len());
        }
        self.timestamp = self.timestamp.wrapping_add(if scenario.video { 3000 } else { 960 });
        // Of what comes back only checks want an answer: every burst starts with a key frame, and nothing is sent again.
        let mut buffer = [0; 2048];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            if let Some(ice) = &self.ice {
                ice.heard(&self.socket, buffer.get(..len).unwrap_or_default());
            }
        }
        Ok(scenario.burst as u64)
    }
}

impl Receiver {
    fn drain(&mut self, buffers: &mut [u8], seen: &mut Seen, payload: usize) -> anyhow::Result<()> {
        loop {
            let mut chunks = buffers.chunks_exact_mut(2048);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let filled = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
                Ok(filled) => filled,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for (slice, meta) in slices.iter_mut().zip(&metas).take(filled) {
                let Some(packet) = slice.get_mut(..meta.len) else { continue };
                if !rtcd_core::rtp::is_rtp(packet) || rtcd_core::rtp::is_rtcp(packet) {
                    if let Some((ice, _)) = &self.feedback {
                        ice.heard(&self.socket, packet);
                    }
                    continue;
                }
                let Ok(opened) = self.inbound.unprotect(packet) else {
                    seen.bad += 1;
                    continue;
                };
                self.reports.note(opened.header.ssrc, opened.index);
                let stamp = packet
                    .get(opened.header.len..opened.len)
                    .filter(|body| body.len() >= payload)
                    .and_then(|body| body.get(STAMP_AT..))
                    .and_then(|rest| rest.first_chunk::<8>())
                    .map(|bytes| u64::from_be_bytes(*bytes));
                let (Some(stamp), Some(arrived)) = (stamp, meta.timestamp) else { continue };
                // A server's own padding and probes are not forwarded packets.
                let age = u64::try_from(arrived.as_nanos())?.saturating_sub(stamp);
                if age < STAMP_AGE_MAX_NS {
                    seen.received += 1;
                    seen.latencies.push(age as f64 / 1000.0);
                }
            }
            if filled < BATCH_SIZE {
                return Ok(());
            }
        }
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
