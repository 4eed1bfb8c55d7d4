//! What one packet costs in the core's innermost functions. Run alone on a quiet machine:
//! `cargo run --release -p rtcd-core --example wire_cost`.
//!
//! Prints nanoseconds of thread CPU time per operation, median of several rounds, with 50 contexts of different keys in turn (a viewer each).

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measuring tool")]

use std::hint::black_box;

use rtcd_core::codec::{Codec, Vp8Descriptor};
use rtcd_core::rtp::{Extension, ExtensionMap, Fixed, Form, Header, HeaderWriter, OwnExtensions, write_forwarded};
use rtcd_core::srtp::{Inbound, MasterKeys, Outbound, Profile};

const CONTEXTS: usize = 50;
const PER_ROUND: u64 = 200_000;
const ROUNDS: usize = 9;

fn cpu_ns() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median_ns(mut round: impl FnMut(u64)) -> f64 {
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = cpu_ns();
            for i in 0..PER_ROUND {
                round(i);
            }
            (cpu_ns() - begin) / PER_ROUND as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}

fn keys(profile: Profile, n: usize) -> MasterKeys {
    MasterKeys::new(profile, &vec![n as u8; profile.key_len()], &vec![7; profile.salt_len()]).unwrap()
}

fn video_map() -> ExtensionMap {
    let mut map = ExtensionMap::new();
    map.insert(Extension::AbsSendTime, 2);
    map.insert(Extension::TransportCc, 3);
    map.insert(Extension::Mid, 4);
    map.insert(Extension::AudioLevel, 1);
    map
}

fn main() {
    let map = video_map();
    let mut incoming = [0u8; 1300];
    let fixed = Fixed { marker: true, payload_type: 96, seq: 7, timestamp: 9, ssrc: 11 };
    let mut writer = HeaderWriter::new(&mut incoming, &fixed, Form::OneByte).unwrap();
    for (id, value) in [(1, &[0x85][..]), (2, &[1, 2, 3]), (3, &[0, 9]), (4, b"0")] {
        writer.extension(id, value);
    }
    let header_len = writer.finish().unwrap();
    let packet = &incoming[..header_len + 1150];

    println!("RTP parse                     {:7.1} ns", median_ns(|_| _ = black_box(Header::parse(black_box(packet)))));
    let header = Header::parse(packet).unwrap();
    println!("find extensions               {:7.1} ns", median_ns(|_| _ = black_box(map.locate(black_box(&header), black_box(packet)))));
    let located = map.locate(&header, packet);
    let mut slot = vec![0u8; 1500];
    println!(
        "write the forwarded header    {:7.1} ns",
        median_ns(|i| {
            let fixed = Fixed { seq: i as u16, ..fixed };
            let own =
                OwnExtensions { transport_cc: Some(i as u16), abs_send_time: Some(i as u32), mid: Some(b"3"), ..OwnExtensions::default() };
            black_box(write_forwarded(&mut slot, &fixed, &map, &located, packet, &own));
        })
    );
    let vp8 = [0x90u8, 0xE0, 0x81, 0x02, 7, 0x20, 0x10, 0, 0, 0x9D, 0x01, 0x2A];
    println!("VP8 descriptor                {:7.1} ns", median_ns(|_| _ = black_box(Vp8Descriptor::parse(black_box(&vp8)))));
    println!("VP8 key frame?                {:7.1} ns", median_ns(|_| _ = black_box(Codec::Vp8.starts_key_frame(black_box(&vp8)))));

    for profile in [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80] {
        for len in [100usize, 1150] {
            let outs: Vec<Outbound> = (0..CONTEXTS).map(|n| Outbound::new(&keys(profile, n)).unwrap()).collect();
            let payload = vec![0x55u8; len];
            let mut slots = vec![0u8; CONTEXTS * 1500];
            let protect = median_ns(|i| {
                let n = (i % CONTEXTS as u64) as usize;
                let slot = &mut slots[n * 1500..][..1500];
                slot[..16].copy_from_slice(&packet[..16]);
                black_box(outs[n].protect(slot, 16, &[], &payload, i).unwrap());
            });
            let prefixed = median_ns(|i| {
                let n = (i % CONTEXTS as u64) as usize;
                let slot = &mut slots[n * 1500..][..1500];
                black_box(outs[n].protect(slot, 16, &payload[..6], &payload[6..], i).unwrap());
            });
            // Sealed once; opening consumes a copy, whose cost is shown apart.
            let mut sealed: Vec<Vec<u8>> = Vec::new();
            for i in 0..PER_ROUND {
                let out = &outs[0];
                let slot = &mut slots[..1500];
                let fixed = Fixed { marker: false, payload_type: 96, seq: i as u16, timestamp: 0, ssrc: 5 };
                let header_len = HeaderWriter::new(slot, &fixed, Form::OneByte).unwrap().finish().unwrap();
                let total = out.protect(slot, header_len, &[], &payload, i).unwrap();
                sealed.push(slot[..total].to_vec());
            }
            let mut buffer = vec![0u8; 1500];
            let copy = median_ns(|i| {
                let from = &sealed[i as usize];
                buffer[..from.len()].copy_from_slice(from);
                black_box(&mut buffer);
            });
            let mut inbound = Inbound::new(&keys(profile, 0)).unwrap();
            let unprotect = median_ns(|i| {
                if i == 0 {
                    inbound = Inbound::new(&keys(profile, 0)).unwrap();
                }
                let from = &sealed[i as usize];
                buffer[..from.len()].copy_from_slice(from);
                black_box(inbound.unprotect(&mut buffer[..from.len()]).unwrap());
            });
            println!(
                "{:<24} {len:5} B  protect {protect:6.1} ns  with prefix {prefixed:6.1} ns  unprotect {:6.1} ns (+ copy {copy:.1})",
                profile.name(),
                unprotect - copy
            );
        }
    }
}
