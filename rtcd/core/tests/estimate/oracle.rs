//! str0m's sender and receiver on the same ways. Its estimator cannot be had alone, so a whole pair of its ends is driven: with its
//! own pacer, padding and probes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::source::{FRAME, Frames, Source};
use crate::way::Ends;

/// What it begins with, as its documents advise.
const BEGINS_BPS: u64 = 300_000;
const MS: Duration = Duration::from_millis(1);

struct End {
    rtc: Rtc,
    address: SocketAddr,
    next: Instant,
}

pub struct Oracle {
    begun: Instant,
    sender: End,
    viewer: End,
    mid: Mid,
    source: Source,
    frames: Frames,
    next_frame: Duration,
    seq: u64,
    estimate_bps: u64,
    connected: u32,
    out: Vec<(bool, Vec<u8>)>,
    media_bytes: u64,
}

impl End {
    fn new(now: Instant, port: u16, bwe: bool) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        let mut config = Rtc::builder().set_rtp_mode(true);
        if bwe {
            config = config.enable_bwe(Some(Bitrate::bps(BEGINS_BPS)));
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self { rtc, address, next: now }
    }
}

impl Oracle {
    /// Two ends that are connected.
    pub fn new(source: Source) -> Self {
        str0m::crypto::from_feature_flags().install_process_default();
        #[allow(clippy::disallowed_methods, reason = "a simulation has to start at some moment")]
        let mut now = Instant::now();
        let (mut sender, mut viewer) = (End::new(now, 1, true), End::new(now, 2, false));
        let mut api = sender.rtc.sdp_api();
        let mid = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let offer = SdpOffer::from_sdp_string(&offer.to_sdp_string()).unwrap();
        let answer = viewer.rtc.sdp_api().accept_offer(offer).unwrap();
        sender.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer.to_sdp_string()).unwrap()).unwrap();
        let mut this = Self {
            begun: now,
            sender,
            viewer,
            mid,
            source,
            frames: Frames::default(),
            next_frame: Duration::MAX,
            seq: 0,
            estimate_bps: BEGINS_BPS,
            connected: 0,
            out: Vec::new(),
            media_bytes: 0,
        };
        for _ in 0..1000 {
            now += MS;
            this.begun = now;
            this.wake(Duration::ZERO);
            while let Some((to_viewer, bytes)) = this.take(Duration::ZERO) {
                this.hear(Duration::ZERO, to_viewer, &bytes);
            }
        }
        assert_eq!(this.connected, 2, "str0m does not reach itself");
        this.next_frame = Duration::ZERO;
        this.sender.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(source.wanted_bps()));
        this
    }

    fn drain(&mut self, viewer: bool) {
        loop {
            let end = if viewer { &mut self.viewer } else { &mut self.sender };
            match end.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    end.next = at;
                    return;
                }
                Output::Transmit(transmit) => self.out.push((!viewer, transmit.contents.to_vec())),
                Output::Event(Event::Connected) => self.connected += 1,
                Output::Event(Event::RtpPacket(packet)) => self.media_bytes += packet.payload.len() as u64,
                Output::Event(Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. })) => self.estimate_bps = estimate.as_u64(),
                Output::Event(_) => {}
            }
        }
    }

    fn frame(&mut self, now: Duration) {
        let rate_bps = self.source.rate_bps(now, Some(self.estimate_bps));
        let wanted = self.sender.rtc.codec_config().params().iter().find(|params| params.spec().codec == Codec::Vp8);
        let payload_type = wanted.unwrap().pt();
        let packets = self.frames.next(rate_bps);
        let count = packets.len();
        for (n, len) in packets.into_iter().enumerate() {
            let timestamp = (now.as_micros() as u64 * 9 / 100) as u32;
            // VP8's shortest descriptor.
            let mut payload = vec![0xAB; len];
            payload[0] = if n == 0 { 0x10 } else { 0 };
            let write =
                RtpWrite::new(payload_type, self.seq.into(), timestamp, self.begun + now, payload).marker(n + 1 == count).nackable(true);
            self.sender.rtc.direct_api().stream_tx_by_mid(self.mid, None).unwrap().write_rtp(write);
            self.seq += 1;
        }
        self.next_frame += FRAME;
    }
}

impl Ends for Oracle {
    fn next(&mut self) -> Duration {
        let soonest = self.sender.next.min(self.viewer.next).saturating_duration_since(self.begun);
        soonest.min(self.next_frame)
    }

    fn wake(&mut self, now: Duration) {
        let moment = self.begun + now;
        if self.next_frame <= now {
            self.frame(now);
            self.sender.next = moment;
        }
        for viewer in [false, true] {
            let end = if viewer { &mut self.viewer } else { &mut self.sender };
            if end.next <= moment || now == Duration::ZERO {
                end.rtc.handle_input(Input::Timeout(moment)).unwrap();
                self.drain(viewer);
            }
        }
    }

    fn take(&mut self, _: Duration) -> Option<(bool, Vec<u8>)> {
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    fn hear(&mut self, now: Duration, viewer: bool, bytes: &[u8]) {
        let moment = self.begun + now;
        let (source, destination) =
            if viewer { (self.sender.address, self.viewer.address) } else { (self.viewer.address, self.sender.address) };
        let end = if viewer { &mut self.viewer } else { &mut self.sender };
        let receive = Receive { proto: Protocol::Udp, source, destination, contents: bytes.try_into().unwrap() };
        end.rtc.handle_input(Input::Receive(moment, receive)).unwrap();
        self.drain(viewer);
    }

    fn media_bytes(&self) -> u64 {
        self.media_bytes
    }
}
