//! After warm-up the innermost functions of the packet path allocate nothing.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod counting;

use counting::allocations;
use rtcd_core::codec::{Vp8Descriptor, Vp8Rewriter};
use rtcd_core::rtcp::{NackTracker, ReceiverStats, RtcpWriter, SendHistory, TwccRecorder};
use rtcd_core::rtp::{Extension, ExtensionMap, Fixed, Form, Header, HeaderWriter, OwnExtensions, write_forwarded};
use rtcd_core::srtp::{Inbound, Outbound, Profile, split_keying_material};

/// One packet in, opened, and out to 10 viewers.
struct Path {
    sender: Outbound,
    inbound: Inbound,
    viewers: Vec<Outbound>,
    map: ExtensionMap,
    recorder: TwccRecorder,
    history: SendHistory,
    stats: ReceiverStats,
    nack: NackTracker,
    vp8: Vp8Rewriter,
    slot: Vec<u8>,
    packet: Vec<u8>,
    ask: Vec<u16>,
    seq: u64,
}

impl Path {
    fn new(profile: Profile) -> Self {
        let material = vec![9; profile.keying_material_len()];
        let (client, server) = split_keying_material(profile, &material).unwrap();
        let mut map = ExtensionMap::new();
        map.insert(Extension::TransportCc, 3);
        map.insert(Extension::Mid, 4);
        Self {
            sender: Outbound::new(&client).unwrap(),
            inbound: Inbound::new(&client).unwrap(),
            viewers: (0..10).map(|_| Outbound::new(&server).unwrap()).collect(),
            map,
            recorder: TwccRecorder::new(),
            history: SendHistory::new(),
            stats: ReceiverStats::new(90_000),
            nack: NackTracker::new(),
            vp8: Vp8Rewriter::new(),
            slot: vec![0; 1500],
            packet: vec![0; 1500],
            ask: Vec::with_capacity(64),
            seq: 0,
        }
    }

    fn one(&mut self, now: std::time::Instant) {
        // Every fiftieth is lost, so that gaps are tracked too.
        self.seq += if self.seq % 50 == 49 { 2 } else { 1 };
        let payload = [0x90, 0xE0, 0x81, 0x02, 7, 0x20, 0x10, 0, 0, 0x9D, 0x01, 0x2A, 0, 0, 0, 0];
        let fixed = Fixed { marker: false, payload_type: 96, seq: self.seq as u16, timestamp: 1, ssrc: 5 };
        let mut writer = HeaderWriter::new(&mut self.packet, &fixed, Form::OneByte).unwrap();
        writer.extension(3, &(self.seq as u16).to_be_bytes());
        let header_len = writer.finish().unwrap();
        let len = self.sender.protect(&mut self.packet, header_len, &[], &payload, self.seq).unwrap();

        let opened = self.inbound.unprotect(&mut self.packet[..len]).unwrap();
        let packet = &self.packet[..opened.len];
        let header = Header::parse(packet).unwrap();
        let located = self.map.locate(&header, packet);
        self.recorder.handle_packet(now, self.seq as u16);
        self.stats.handle_packet(now, opened.index, header.timestamp, packet.len());
        self.nack.handle_packet(now, opened.index);
        self.ask.clear();
        self.nack.poll(now, std::time::Duration::from_millis(30), &mut self.ask);
        let clear = header.payload(packet).unwrap();
        let descriptor = Vp8Descriptor::parse(clear).unwrap();
        let prefix = self.vp8.rewrite(&descriptor, false);
        for viewer in &self.viewers {
            let own = OwnExtensions { transport_cc: Some(self.history.send(now, len)), mid: Some(b"0"), ..OwnExtensions::default() };
            let header_len = write_forwarded(&mut self.slot, &fixed, &self.map, &located, packet, &own).unwrap();
            viewer.protect(&mut self.slot, header_len, prefix.bytes(), &clear[descriptor.len..], self.seq).unwrap();
        }
        let mut writer = RtcpWriter::new(&mut self.slot);
        self.recorder.poll(now, &mut writer, 1, 2);
    }
}

#[test]
fn the_packet_path_allocates_nothing_after_warm_up() {
    for profile in [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80] {
        let start = std::time::Instant::now();
        let mut path = Path::new(profile);
        for i in 0..2000u32 {
            path.one(start + std::time::Duration::from_millis(u64::from(i)));
        }
        let before = allocations();
        for i in 2000..12_000u32 {
            path.one(start + std::time::Duration::from_millis(u64::from(i)));
        }
        let after = allocations();
        assert_eq!(after - before, 0, "{profile:?}");
    }
}

/// The counter counts: otherwise the test above could not fail.
#[test]
fn the_counter_sees_an_allocation() {
    let before = allocations();
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(allocations() - before, 1);
}
