//! The clients' media: paced senders, receivers drained on a 1 ms timer, kernel time stamps.
//!
//! The sender writes the wall clock into the payload; the receiver's kernel stamps arrival (`SO_TIMESTAMPNS`). So the
//! client's own scheduling is not in the latency, and no receiver sleeps in a poll that every send would have to wake.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use dimpl::Dtls;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rtcd_core::srtp::{Inbound, Outbound};

use crate::data_channel::DataChannel;
use crate::handshake::is_dtls;
use crate::ice::Ice;
use crate::layout::Layout;
use crate::lossy::LossyLink;
use crate::mattermost::PING;
use crate::process::own_thread_ns;
use crate::reports::{self, Asked, ReceiverReports, SenderReports};
use crate::scenario::Scenario;
use crate::sdp;
use crate::strangers::Stranger;
use crate::uplink::{Sent, Uplink};

/// Where the stamp stands in the payload: behind a VP8 descriptor and key frame head.
const STAMP_AT: usize = 16;
/// The layer's number, behind it.
const LAYER_AT: usize = STAMP_AT + 8;
const TICK: Duration = Duration::from_millis(1);
/// Frames from one key frame to the next, unless one is asked for.
const KEY_FRAME_EVERY: u32 = 60;
/// Bursts of one sender in one tick.
const CATCH_UP_MAX: usize = 4;
/// Reports, as browsers send them.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The same for sound alone (libwebrtc's default).
const REPORT_EVERY_IDLE: Duration = Duration::from_secs(5);
/// Pings over data channels, as Mattermost's clients send them.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Connectivity checks, as browsers send them.
const CHECK_EVERY_IDLE: Duration = Duration::from_millis(2500);
/// A stamp older than this is none.
const STAMP_AGE_MAX_NS: u64 = 60_000_000_000;

/// One publisher.
pub(crate) struct Sender {
    socket: UdpSocket,
    outbound: Outbound,
    timestamp: u32,
    /// One, or one for each layer.
    streams: Vec<Stream>,
    /// None: keys and addresses were given, and nobody reports.
    back: Option<(Ice, Inbound)>,
    /// What is sent again has a source of its own.
    pub(crate) rtx: bool,
    /// What its link takes away, and what it sends again.
    pub(crate) uplink: Option<Uplink>,
}

/// What has a source number of its own.
struct Stream {
    ssrc: u32,
    /// Packets of one burst.
    burst: usize,
    index: u64,
    /// Frames until the next key frame.
    key_frame_in: u32,
    reports: SenderReports,
}

impl Sender {
    pub(crate) fn new(socket: UdpSocket, outbound: Outbound, ssrc: u32, scenario: &Scenario, back: Option<(Ice, Inbound)>) -> Self {
        let bursts = scenario.layers.as_ref().map_or(std::slice::from_ref(&scenario.burst), |layers| layers.as_slice());
        let stream =
            |(ssrc, burst): (u32, &usize)| Stream { ssrc, burst: *burst, index: 100, key_frame_in: 0, reports: SenderReports::default() };
        let streams = (ssrc..).zip(bursts).map(stream).collect();
        Self { socket, outbound, timestamp: 0, streams, back, rtx: false, uplink: None }
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
    /// Packets that came.
    pub(crate) received: u64,
    /// What its link takes away, and what it asks for again.
    pub(crate) lossy: Option<LossyLink>,
    /// When packets came, by their senders' clock, where that is to be known of each: both Unix ns.
    pub(crate) arrivals: Option<Vec<(u64, u64)>>,
    /// What it looks at.
    pub(crate) layout: Option<Layout>,
    /// What it pings over, and the DTLS below.
    pub(crate) channel: Option<Box<(Dtls, DataChannel)>>,
}

impl Receiver {
    pub(crate) fn new(socket: UdpSocket, inbound: Inbound, feedback: Option<(Ice, Outbound)>) -> anyhow::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Joining trains at the receiver would make the server's sends cheaper than any real network does.
        setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        Ok(Self {
            socket,
            state,
            inbound,
            feedback,
            reports: ReceiverReports::default(),
            received: 0,
            lossy: None,
            arrivals: None,
            layout: None,
            channel: None,
        })
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
    /// Times that publishers were asked for a key frame.
    pub(crate) asked: u64,
    /// Pings over data channels, and answers to them.
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// Part of a core that the clients needed. Above [`CLIENT_SHARE_MAX`] they, not the server, may be the limit.
    pub(crate) client_share: f64,
}

/// Of a core, for the clients.
pub(crate) const CLIENT_SHARE_MAX: f64 = 0.8;

impl Seen {
    /// The latency that this part of the packets stays below, µs.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.latencies, part).unwrap_or(f64::NAN)
    }
}

/// What this part of a sorted list stays below; `None` of an empty one.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let index = sorted.len().saturating_sub(1) as f64 * part;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
    let index = index as usize;
    sorted.get(index).copied()
}

/// All clients of one server.
pub(crate) struct Traffic {
    pub(crate) senders: Vec<Sender>,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) scenario: Scenario,
    /// Receivers decrypt and time the packets whose number this divides; the others are counted.
    pub(crate) opened_every: u16,
    /// Senders act and receivers are drained so often.
    pub(crate) tick: Duration,
    /// Senders act so many times per tick; in each, that part of the receivers is drained.
    pub(crate) parts: u32,
    /// Every receiver asks for a key frame so often.
    pub(crate) ask_every: Option<Duration>,
    /// Who sends to the server's port meanwhile without having been let in.
    pub(crate) stranger: Option<Stranger>,
    buffers: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(senders: Vec<Sender>, receivers: Vec<Receiver>, scenario: Scenario) -> Self {
        Self {
            senders,
            receivers,
            scenario,
            opened_every: 1,
            tick: TICK,
            parts: 1,
            ask_every: None,
            stranger: None,
            buffers: vec![0; BATCH_SIZE * 2048],
        }
    }

    /// Runs for `window`, counting.
    pub(crate) fn run(&mut self, window: Duration) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let start = Instant::now();
        let cpu = own_thread_ns()?;
        let count = u32::try_from(self.senders.len().max(1))?;
        // Speakers are not in step.
        let mut due: Vec<Instant> = (0..count).map(|number| start + self.scenario.every * number / count).collect();
        let mut pinged = 0;
        let mut checks_at = start + Duration::from_secs(2);
        let mut reports_at = start + REPORT_EVERY;
        let mut ask_at = self.ask_every.map(|every| start + every);
        let mut next = start;
        let mut part = 0;
        while start.elapsed() < window {
            let now = Instant::now();
            for (number, (sender, due)) in self.senders.iter_mut().zip(&mut due).enumerate() {
                let scenario = self.scenario.of(number);
                // Who is late catches up, but not all at once.
                for _ in 0..CATCH_UP_MAX {
                    if *due <= now {
                        *due += scenario.every;
                        seen.sent += sender.burst(&scenario)?;
                    }
                }
                seen.asked += sender.hear()?;
            }
            if now >= checks_at {
                checks_at = now + Duration::from_millis(2500);
                self.check();
            }
            if now >= reports_at {
                reports_at += REPORT_EVERY;
                self.report()?;
            }
            if let (Some(at), Some(every)) = (&mut ask_at, self.ask_every)
                && now >= *at
            {
                *at += every;
                self.ask()?;
            }
            if let Some(stranger) = &mut self.stranger {
                stranger.act(start.elapsed());
            }
            self.ping(start.elapsed(), &mut pinged)?;
            self.drain(part, &mut seen)?;
            part = (part + 1) % self.parts;
            next += self.tick / self.parts;
            if let Some(rest) = next.checked_duration_since(Instant::now()) {
                std::thread::sleep(rest);
            }
        }
        seen.pings = pinged as u64;
        // What is still under way.
        seen.elapsed = start.elapsed();
        std::thread::sleep(Duration::from_millis(20));
        for part in 0..self.parts {
            self.drain(part, &mut seen)?;
        }
        seen.client_share = (own_thread_ns()? - cpu) as f64 / start.elapsed().as_nanos() as f64;
        seen.latencies.sort_by(f64::total_cmp);
        Ok(seen)
    }

    /// Nobody sends media; consent and reports go on, everybody at their own time.
    pub(crate) fn idle(&mut self, window: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut seen = Seen::default();
        let peers = u32::try_from(self.senders.len() + self.receivers.len())?;
        let spread = |every: Duration| (0..peers).map(|number| start + every * number / peers.max(1)).collect::<Vec<_>>();
        let (mut checks, mut reports) = (spread(CHECK_EVERY_IDLE), spread(REPORT_EVERY_IDLE));
        let mut pinged = 0;
        while start.elapsed() < window {
            let now = Instant::now();
            let (sender_checks, receiver_checks) = checks.split_at_mut(self.senders.len());
            for (sender, due) in self.senders.iter_mut().zip(sender_checks) {
                if let Some((ice, _)) = sender.back.as_ref().filter(|_| *due <= now) {
                    *due += CHECK_EVERY_IDLE;
                    ice.check(&sender.socket);
                }
                sender.hear()?;
            }
            for ((receiver, due), report) in self.receivers.iter_mut().zip(receiver_checks).zip(&mut reports) {
                let Some((ice, outbound)) = &mut receiver.feedback else { continue };
                if *due <= now {
                    *due += CHECK_EVERY_IDLE;
                    ice.check(&receiver.socket);
                }
                if *report <= now {
                    *report += REPORT_EVERY_IDLE;
                    receiver.reports.send(&receiver.socket, outbound)?;
                }
            }
            self.ping(start.elapsed(), &mut pinged)?;
            for part in 0..self.parts {
                self.drain(part, &mut seen)?;
            }
            std::thread::sleep(self.tick.max(Duration::from_millis(5)));
        }
        Ok(())
    }

    /// Takes what has come for one part of the receivers.
    fn drain(&mut self, part: u32, seen: &mut Seen) -> anyhow::Result<()> {
        let (part, parts) = (usize::try_from(part)?, usize::try_from(self.parts)?);
        for receiver in self.receivers.iter_mut().skip(part).step_by(parts) {
            receiver.drain(&mut self.buffers, seen, self.scenario.payload, self.opened_every)?;
        }
        Ok(())
    }

    /// Who has a data channel says every second that it is there, each at its own time.
    fn ping(&mut self, elapsed: Duration, pinged: &mut usize) -> anyhow::Result<()> {
        let count = self.receivers.len();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
        let due = (elapsed.as_secs_f64() / PING_EVERY.as_secs_f64() * count as f64) as usize;
        while *pinged < due {
            let receiver = self.receivers.get_mut(*pinged % count).context("one of them")?;
            if let Some(held) = &mut receiver.channel {
                let (dtls, channel) = held.as_mut();
                // An overloaded server may have given it up: then its pings stay away.
                if channel.say(dtls, &receiver.socket, PING).is_err() {
                    receiver.channel = None;
                }
            }
            *pinged += 1;
        }
        Ok(())
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        for receiver in &mut self.receivers {
            if let Some((_, outbound)) = &mut receiver.feedback {
                receiver.reports.ask_key_frames(&receiver.socket, outbound)?;
            }
        }
        Ok(())
    }

    /// What those look at who can say so.
    pub(crate) fn layouts(&self) -> impl Iterator<Item = &Layout> {
        self.receivers.iter().filter_map(|receiver| receiver.layout.as_ref())
    }

    /// The same, to look elsewhere.
    pub(crate) fn layouts_mut(&mut self) -> impl Iterator<Item = &mut Layout> {
        self.receivers.iter_mut().filter_map(|receiver| receiver.layout.as_mut())
    }

    /// Keeps consent alive.
    pub(crate) fn check(&self) {
        for sender in &self.senders {
            if let Some((ice, _)) = &sender.back {
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
        for sender in self.senders.iter_mut().filter(|sender| sender.back.is_some()) {
            for stream in &sender.streams {
                stream.reports.send(&sender.socket, &mut sender.outbound, stream.ssrc, sender.timestamp, unix_ns())?;
            }
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
    /// Where its media goes.
    pub(crate) fn server(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.peer_addr()?)
    }

    fn burst(&mut self, scenario: &Scenario) -> anyhow::Result<u64> {
        let mut sent = 0;
        for (layer, stream) in self.streams.iter_mut().enumerate() {
            let layer = scenario.layers.map(|_| layer);
            sent += stream.burst(&self.socket, &self.outbound, self.uplink.as_mut(), self.timestamp, layer, scenario)?;
        }
        self.timestamp = self.timestamp.wrapping_add(if scenario.video { 3000 } else { 960 });
        Ok(sent)
    }

    /// Answers checks and requests, and tells how many key frames were asked for; the next burst is one then.
    fn hear(&mut self) -> anyhow::Result<u64> {
        let mut asked = 0;
        let mut buffer = [0; 2048];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let packet = buffer.get_mut(..len).unwrap_or_default();
            match &mut self.uplink {
                Some(uplink) => uplink.hold_back(Instant::now(), packet),
                None => asked += self.take(packet)?,
            }
        }
        let now = Instant::now();
        while let Some(mut packet) = self.uplink.as_mut().and_then(|uplink| uplink.next(now)) {
            asked += self.take(&mut packet)?;
        }
        if let Some(uplink) = &mut self.uplink {
            uplink.deliver(now, &self.socket);
        }
        Ok(asked)
    }

    fn take(&mut self, packet: &mut [u8]) -> anyhow::Result<u64> {
        let Some((ice, inbound)) = &mut self.back else { return Ok(0) };
        if !rtcd_core::rtp::is_rtcp(packet) {
            ice.heard(&self.socket, packet);
            return Ok(0);
        }
        let mut key_frames = 0;
        for asked in reports::asked(inbound, packet) {
            match (asked, &mut self.uplink) {
                (Asked::KeyFrame(of), _) => {
                    key_frames += 1;
                    for stream in self.streams.iter_mut().filter(|stream| of == 0 || stream.ssrc == of) {
                        stream.key_frame_in = 0;
                    }
                }
                (Asked::Again(ssrc, numbers), Some(uplink)) => uplink.asked(Instant::now(), ssrc, &numbers, &self.outbound, self.rtx)?,
                (Asked::Again(..), None) => {}
            }
        }
        Ok(key_frames)
    }
}

impl Stream {
    fn burst(
        &mut self,
        socket: &UdpSocket,
        outbound: &Outbound,
        mut uplink: Option<&mut Uplink>,
        timestamp: u32,
        layer: Option<usize>,
        scenario: &Scenario,
    ) -> anyhow::Result<u64> {
        let key = self.key_frame_in == 0;
        self.key_frame_in = if key { KEY_FRAME_EVERY } else { self.key_frame_in - 1 };
        let mut payload = vec![0_u8; scenario.payload];
        if let (Some(layer), Some(place)) = (layer, payload.get_mut(LAYER_AT)) {
            *place = u8::try_from(layer)?;
        }
        for number in 0..self.burst {
            if scenario.video {
                // VP8: start of a partition in the first packet of a frame, frame head with the start code and size of a key frame.
                payload[0] = if number == 0 { 0x10 } else { 0x00 };
                payload[1..11].copy_from_slice(&[0x10 | u8::from(!key), 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
            }
            let stamp = unix_ns();
            payload[STAMP_AT..STAMP_AT + 8].copy_from_slice(&stamp.to_be_bytes());
            let mut slot = [0_u8; 1500];
            let last = number + 1 == self.burst;
            let mut header_len = 12;
            slot[0] = 0x80;
            slot[1] = sdp::payload_type(scenario.video) | if last && scenario.video { 0x80 } else { 0 };
            slot[2..4].copy_from_slice(&u16::try_from(self.index & 0xffff)?.to_be_bytes());
            slot[4..8].copy_from_slice(&timestamp.to_be_bytes());
            slot[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
            // One-byte extensions, as browsers send them: the layer's and the section's names, or the audio level.
            let extensions = match layer.and_then(|layer| sdp::RIDS.get(layer)) {
                Some(rid) => Some([sdp::RID_ID << 4, *rid, sdp::MID_ID << 4, b'0']),
                None => (!scenario.video).then_some([sdp::LEVEL_ID << 4, 0x80 | 30, 0, 0]),
            };
            if let Some(extensions) = extensions {
                slot[0] = 0x90;
                slot[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
                slot[16..20].copy_from_slice(&extensions);
                header_len = 20;
            }
            let len = outbound.protect(&mut slot, header_len, &[], &payload, self.index)?;
            let sealed = slot.get(..len).unwrap_or_default();
            if let Some(uplink) = uplink.as_deref_mut() {
                let header = sealed.get(..header_len).unwrap_or_default().to_vec();
                let sent = Sent { ssrc: self.ssrc, index: self.index, stamp, header, payload: payload.clone() };
                uplink.send(Instant::now(), sent, sealed);
            } else {
                match socket.send(sealed) {
                    // The server has ended: its packets count as lost.
                    Err(error) if error.kind() != std::io::ErrorKind::ConnectionRefused => return Err(error.into()),
                    _ => {}
                }
            }
            self.index += 1;
            self.reports.count(payload.len());
        }
        Ok(self.burst as u64)
    }
}

impl Receiver {
    fn drain(&mut self, buffers: &mut [u8], seen: &mut Seen, payload: usize, opened_every: u16) -> anyhow::Result<()> {
        if let (Some(lossy), Some((_, outbound))) = (&mut self.lossy, &mut self.feedback) {
            lossy.ask(Instant::now(), &self.socket, outbound)?;
        }
        loop {
            let mut chunks = buffers.chunks_exact_mut(2048);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let filled = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
                Ok(filled) => filled,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::ConnectionRefused) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            for (slice, meta) in slices.iter_mut().zip(&metas).take(filled) {
                let Some(packet) = slice.get_mut(..meta.len) else { continue };
                if !rtcd_core::rtp::is_rtp(packet) || rtcd_core::rtp::is_rtcp(packet) {
                    if let Some(held) = self.channel.as_mut().filter(|_| is_dtls(packet)) {
                        let (dtls, channel) = held.as_mut();
                        let taken = channel.take(dtls, &self.socket, packet);
                        while channel.next().is_some() {
                            seen.pongs += 1;
                        }
                        if taken.is_err() {
                            self.channel = None;
                        }
                    } else if let Some((ice, _)) = &self.feedback {
                        ice.heard(&self.socket, packet);
                    }
                } else {
                    self.packet(packet, meta, seen, payload, opened_every)?;
                }
            }
            if filled < BATCH_SIZE {
                return Ok(());
            }
        }
    }

    fn packet(&mut self, packet: &mut [u8], meta: &RecvMeta, seen: &mut Seen, payload: usize, opened_every: u16) -> anyhow::Result<()> {
        let number = packet.get(2..4).and_then(|bytes| bytes.first_chunk::<2>()).map_or(0, |bytes| u16::from_be_bytes(*bytes));
        if !number.is_multiple_of(opened_every) {
            // A server's own padding is shorter than what it forwards.
            let forwarded = u64::from(packet.len() > payload);
            self.received += forwarded;
            seen.received += forwarded;
            return Ok(());
        }
        if self.lossy.as_mut().is_some_and(|lossy| lossy.loses(packet.len())) {
            return Ok(());
        }
        let Ok(opened) = self.inbound.unprotect(packet) else {
            seen.bad += 1;
            return Ok(());
        };
        self.reports.note(opened.header.ssrc, opened.index);
        let body = packet.get(opened.header.len..opened.len).filter(|body| body.len() >= payload);
        if let (Some(lossy), Some(body)) = (&mut self.lossy, body) {
            lossy.came(Instant::now(), opened.header.ssrc, opened.index, body);
        }
        let stamp =
            body.and_then(|body| body.get(STAMP_AT..)).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
        let (Some(stamp), Some(arrived)) = (stamp, meta.timestamp) else { return Ok(()) };
        // A server's own padding and probes are not forwarded packets.
        let arrived = u64::try_from(arrived.as_nanos())?;
        let age = arrived.saturating_sub(stamp);
        if let Some((layout, layer)) = self.layout.as_mut().zip(body.and_then(|body| body.get(LAYER_AT))) {
            layout.note(opened.header.ssrc, *layer, arrived);
        }
        if age < STAMP_AGE_MAX_NS {
            self.received += 1;
            seen.received += 1;
            seen.latencies.push(age as f64 / 1000.0);
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.push((stamp, arrived));
            }
        }
        Ok(())
    }
}

pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
