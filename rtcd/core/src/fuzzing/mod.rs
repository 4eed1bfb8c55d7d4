//! What the fuzz targets do with arbitrary bytes, here so that `fuzz/` and the replay of its corpora share it.
//!
//! Each function must return for any input. Where a parser has a writer, what was read is written and read again; where a
//! state machine must not move, that is asserted. Asserting is right here: a failure is our bug, never the input's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a fuzz target fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "time starts somewhere and then only goes by the input")]

mod association;
mod machine;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeds;

use std::time::{Duration, Instant};

use crate::codec::dependency::{Descriptor, Structure, write_with_active};
use crate::codec::{Codec, Vp8Descriptor, Vp8Offsets, Vp8Rewriter, Vp9Descriptor, av1, opus::OpusPacket};
use crate::ice::{IceAgent, IceRefusal, LocalCredentials, RANDOM_LEN, ufrag};
use crate::ids::Link;
use crate::limits::{ICE_LINKS_MAX, NACK_GAP_MAX, NACK_MISSING_MAX, RTCP_PACKETS_MAX, SRTP_SOURCES_MAX, TWCC_STATUSES_MAX};
use crate::rtcp::{self, Acked, NackTracker, Packet, RtcpWriter, SendHistory, TwccFeedback, TwccRecorder};
use crate::rtp::{self, Extension, ExtensionMap, Fixed, Header, OwnExtensions, RED_BLOCKS_MAX, RedBlocks, SeqExtender};
use crate::srtp::{Inbound, Outbound, Profile, split_keying_material};
use crate::stun::{BINDING, Class, IntegrityKey, Message, StunWriter, TransactionId};
use crate::wire::Reader;

pub use association::{dcep, sctp};
pub use machine::core;

/// One target: its name (of the file in `fuzz/fuzz_targets` and the folder in `fuzz/corpus`) and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("av1", av1_payload),
    ("core", core),
    ("data_track", data_track),
    ("dcep", dcep),
    ("dependency", dependency),
    ("h264", h264),
    ("ice", ice),
    ("nack", nack),
    ("opus", opus),
    ("red", red),
    ("rtcp", rtcp),
    ("rtp", rtp),
    ("sctp", sctp),
    ("sdp", sdp),
    ("srtp_roundtrip", srtp_roundtrip),
    ("srtp_unprotect", srtp_unprotect),
    ("stun", stun),
    ("twcc", twcc),
    ("twcc_recorder", twcc_recorder),
    ("vp8", vp8),
    ("vp9", vp9),
];

/// STUN: parse, verify, route.
pub fn stun(data: &[u8]) {
    let _ = ufrag::route(data);
    let Ok(message) = Message::parse(data) else { return };
    assert!(!message.is_signed_by(&IntegrityKey::new("a password nobody guesses")), "integrity forged");
    let _ = (message.user_parts(), message.unknown().len());
}

/// Credentials that the ICE target and its seeds share.
#[must_use]
pub fn ice_credentials(generation: u8) -> LocalCredentials {
    LocalCredentials::new(1, 2, [generation; RANDOM_LEN])
}

/// ICE: a sequence of `[what, link, len, bytes…]`; some datagrams get a valid integrity code, so that the machine behind it moves.
pub fn ice(data: &[u8]) {
    let start = Instant::now();
    let (mut agent, mut now) = (IceAgent::new(ice_credentials(0)), start);
    let mut signed_ever = false;
    let mut reader = Reader::new(data);
    let mut step = || {
        Some((reader.u8()?, reader.u8()?, reader.u8()?)).and_then(|(what, link, len)| Some((what, link, reader.take(usize::from(len))?)))
    };
    while let Some((what, port, bytes)) = step() {
        let link = Link::Udp { local: ([192, 0, 2, 1], 8443).into(), remote: ([198, 51, 100, 1], u16::from(port)).into() };
        let mut reply = [0u8; 256];
        match what % 8 {
            0 | 1 => {
                let before = (agent.selected(), agent.role(), agent.poll_timeout(), agent.is_restarting());
                let outcome = agent.handle(now, link, bytes, &mut reply);
                let after = (agent.selected(), agent.role(), agent.poll_timeout(), agent.is_restarting());
                assert!(outcome.refused.is_some() && outcome.reply_len.is_none(), "an unsigned message had an effect");
                assert_eq!(before, after, "an unsigned message moved the state");
            }
            2 | 3 => {
                let mut slot = [0u8; 512];
                let Some(len) = signed_check(&mut slot, &agent, bytes, what & 8 != 0) else { continue };
                let outcome = agent.handle(now, link, &slot[..len], &mut reply);
                assert!(outcome.reply_len.is_none_or(|reply| reply <= len), "an answer longer than its request");
                assert!(outcome.refused != Some(IceRefusal::BadIntegrity));
                signed_ever = true;
            }
            4 => {
                now += Duration::from_millis(u64::from(bytes.first().copied().unwrap_or(1)) * 100);
                agent.handle_timeout(now);
            }
            5 => agent.restart(ice_credentials(bytes.first().copied().unwrap_or(1))),
            6 => agent.set_remote(std::str::from_utf8(bytes).unwrap_or("x")),
            _ => drop(agent.handle_link_closed(link)),
        }
        assert!(signed_ever || agent.selected().is_none(), "sending without a valid check");
        assert!(agent.selected().is_none_or(|selected| agent.is_proved(selected)), "sending to an address that is not proved");
    }
    let link = |port: u16| Link::Udp { local: ([192, 0, 2, 1], 8443).into(), remote: ([198, 51, 100, 1], port).into() };
    assert!((0..=255).filter(|port| agent.is_proved(link(*port))).count() <= ICE_LINKS_MAX);
}

/// A check with the agent's own credentials around arbitrary attributes.
fn signed_check(slot: &mut [u8], agent: &IceAgent, bytes: &[u8], nominate: bool) -> Option<usize> {
    signed(slot, agent.local().ufrag(), agent.remote_ufrag().unwrap_or("x"), agent.local().password(), bytes, nominate)
}

/// A check with a valid integrity code.
fn signed(slot: &mut [u8], ufrag: &str, remote: &str, password: &str, bytes: &[u8], nominate: bool) -> Option<usize> {
    let mut writer = StunWriter::new(slot, Class::Request, BINDING, TransactionId([3; 12]));
    writer.username(format!("{ufrag}:{remote}").as_bytes());
    if nominate {
        writer.use_candidate();
    }
    let mut reader = Reader::new(bytes);
    if let Some(tie_breaker) = reader.u8() {
        let role = if tie_breaker & 1 == 0 { crate::stun::RoleAttribute::Controlling } else { crate::stun::RoleAttribute::Controlled };
        writer.role(role(u64::from(tie_breaker >> 1)));
    }
    if let Some(priority) = reader.u32() {
        writer.priority(priority);
    }
    if !reader.is_empty() {
        writer.unknown_attributes(&[1, 2]);
    }
    writer.integrity(&IntegrityKey::new(password));
    writer.fingerprint();
    writer.finish()
}

/// The extension map that the RTP target and its seeds share.
#[must_use]
pub fn extension_map() -> ExtensionMap {
    let mut map = ExtensionMap::new();
    for (id, extension) in (1u8..=14).zip(Extension::ALL) {
        map.insert(*extension, id);
    }
    map
}

/// RTP: parse, locate, rewrite; what is written must read back the same.
pub fn rtp(data: &[u8]) {
    let _ = (rtp::is_rtp(data), rtp::is_rtcp(data));
    let Ok(header) = Header::parse(data) else { return };
    assert!(header.len <= data.len());
    let _ = header.payload(data);
    let map = extension_map();
    let located = map.locate(&header, data);
    let fixed = Fixed { marker: header.marker, payload_type: header.payload_type, seq: header.seq, timestamp: header.timestamp, ssrc: 7 };
    let own = OwnExtensions { transport_cc: Some(header.seq), abs_send_time: Some(5), mid: Some(b"0"), ..OwnExtensions::default() };
    let mut slot = [0u8; 1500];
    let Some(len) = rtp::write_forwarded(&mut slot, &fixed, &map, &located, data, &own) else { return };
    let again = Header::parse(&slot[..len]).expect("our own header reads");
    assert_eq!((again.len, again.seq, again.timestamp, again.ssrc), (len, header.seq, header.timestamp, 7));
    let located_again = map.locate(&again, &slot);
    assert_eq!(located_again.value(Extension::Mid, &slot), Some(&b"0"[..]));
    for kept in [Extension::AudioLevel, Extension::DependencyDescriptor, Extension::VideoOrientation] {
        if let Some(value) = located
            .value(kept, data)
            .filter(|value| (1..=16).contains(&value.len()) || (value.len() > 16 && kept == Extension::DependencyDescriptor))
        {
            assert_eq!(located_again.value(kept, &slot), Some(value));
        }
    }
}

/// RTCP: walk everything of a compound.
pub fn rtcp(data: &[u8]) {
    let mut count = 0;
    for packet in rtcp::parse(data) {
        count += 1;
        let Ok(packet) = packet else { break };
        match packet {
            Packet::Bye(sources) => drop(sources.iter().count()),
            Packet::Fir(fir) => drop(fir.iter().count()),
            Packet::Nack(nack) => assert!(nack.iter().count() <= data.len() / 4 * 17),
            Packet::ReceiverReport(report) => {
                for block in report.blocks.iter() {
                    let _ = rtcp::round_trip(&block, u64::from(block.jitter) << 16);
                }
            }
            Packet::Remb(remb) => drop(remb.sources.iter().count()),
            Packet::Sdes(sdes) => drop(sdes.cnames().count()),
            Packet::SenderReport(report) => drop(report.blocks.iter().count()),
            Packet::Twcc(feedback) => assert_eq!(feedback.iter().count(), usize::from(feedback.count)),
            Packet::Pli { .. } | Packet::Other { .. } => {}
        }
    }
    assert!(count <= RTCP_PACKETS_MAX + 1);
}

/// Transport-wide feedback against a history of packets sent.
pub fn twcc(data: &[u8]) {
    let Ok(feedback) = TwccFeedback::parse(1, 2, data) else { return };
    assert!(usize::from(feedback.count) <= TWCC_STATUSES_MAX);
    assert_eq!(feedback.iter().count(), usize::from(feedback.count));
    let (now, mut history, mut acked) = (Instant::now(), SendHistory::new(), Vec::new());
    for i in 0..300u64 {
        history.send(now + Duration::from_millis(i), 1000);
    }
    history.handle_feedback(&feedback, &mut acked);
    assert!(acked.iter().all(|entry: &Acked| entry.seq < 300), "an arrival of something never sent");
    let arrived = acked.iter().filter(|entry| entry.arrived_us.is_some()).count();
    assert!(arrived <= 300);
    history.handle_feedback(&feedback, &mut acked);
    assert_eq!(acked.iter().filter(|entry| entry.arrived_us.is_some()).count(), arrived, "acknowledged twice");
}

/// Arrivals in any order; the feedback made of them must be readable.
pub fn twcc_recorder(data: &[u8]) {
    let mut now = Instant::now();
    let mut recorder = TwccRecorder::new();
    let mut reader = Reader::new(data);
    while let (Some(seq), Some(pause)) = (reader.u16(), reader.u8()) {
        now += Duration::from_micros(u64::from(pause) * u64::from(pause) * 40);
        recorder.handle_packet(now, seq);
        for _ in 0..8 {
            let mut slot = [0u8; 1200];
            let mut writer = RtcpWriter::new(&mut slot);
            if !recorder.poll(now, &mut writer, 1, 2) {
                break;
            }
            let len = writer.finish().expect("something was written");
            let packet = rtcp::parse(&slot[..len]).next().expect("one packet").expect("our own packet reads");
            let Packet::Twcc(feedback) = packet else { panic!("not feedback") };
            assert_eq!(feedback.iter().count(), usize::from(feedback.count));
        }
    }
}

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let material: Vec<u8> = (0..profile.keying_material_len()).map(|i| i as u8).collect();
    let (client, _) = split_keying_material(profile, &material).expect("lengths fit");
    (Outbound::new(&client).expect("keys"), Inbound::new(&client).expect("keys"))
}

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];

/// Forged SRTP and SRTCP: nothing may open, nothing may be remembered.
pub fn srtp_unprotect(data: &[u8]) {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        // One genuine packet, so that there is state to move.
        let mut slot = [0u8; 64];
        slot[..12].copy_from_slice(&[0x80, 96, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9]);
        let len = out.protect(&mut slot, 12, &[], b"x", 5).expect("fits");
        let opened = slot[..len].to_vec();
        inbound.unprotect(&mut slot[..len]).expect("genuine");
        if data == opened {
            return;
        }
        assert!(inbound.unprotect(&mut data.to_vec()).is_err(), "forged RTP opened");
        assert!(inbound.unprotect_rtcp(&mut data.to_vec()).is_err(), "forged RTCP opened");
        assert_eq!(inbound.sources(), (1, 0));
        // And the genuine stream goes on.
        slot[2..4].copy_from_slice(&[0, 6]);
        let len = out.protect(&mut slot, 12, &[], b"y", 6).expect("fits");
        assert_eq!(inbound.unprotect(&mut slot[..len]).map(|opened| opened.index), Ok(6));
    }
}

/// Anything sealed opens again, once, under any profile; `[profile, prefix length, index (6), payload…]`.
pub fn srtp_roundtrip(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (Some(profile), Some(cut), Some(high), Some(low)) = (reader.u8(), reader.u8(), reader.u16(), reader.u16()) else { return };
    let profile = PROFILES[usize::from(profile) % PROFILES.len()];
    let (mut out, mut inbound) = pair(profile);
    let payload = reader.rest();
    let index = u64::from(low) | (u64::from(high & 1) << 16);
    let mut slot = vec![0u8; payload.len() + 64];
    let fixed = Fixed { marker: false, payload_type: 96, seq: index as u16, timestamp: 1, ssrc: 9 };
    let header_len = rtp::HeaderWriter::new(&mut slot, &fixed, rtp::Form::OneByte).expect("room").finish().expect("room");
    let (prefix, body) = payload.split_at(usize::from(cut).min(payload.len()));
    let len = out.protect(&mut slot, header_len, prefix, body, index).expect("room");
    let first = inbound.unprotect(&mut slot[..len].to_vec());
    if index < 1 << 16 {
        let mut packet = slot[..len].to_vec();
        assert_eq!(inbound.unprotect(&mut packet).unwrap_err(), crate::srtp::SrtpError::Replayed);
        let opened = first.expect("genuine");
        assert_eq!((opened.index, opened.len), (index, header_len + payload.len()));
        assert!(inbound.sources().0 <= SRTP_SOURCES_MAX);
    } else {
        // The receiver cannot know a roll-over that happened before its first packet.
        assert!(first.is_err());
    }
    if payload.len() >= 8 {
        let mut slot = payload.to_vec();
        slot[0] = 0x80;
        slot.resize(payload.len() + 32, 0);
        let len = out.protect_rtcp(&mut slot, payload.len()).expect("room");
        let opened = inbound.unprotect_rtcp(&mut slot[..len]).expect("genuine");
        assert_eq!((opened, &slot[1..opened]), (payload.len(), &payload[1..]));
    }
}

/// Redundant audio.
pub fn red(data: &[u8]) {
    if let Ok(red) = RedBlocks::parse(data) {
        assert!((1..=RED_BLOCKS_MAX).contains(&red.iter().count()));
        assert!(red.iter().map(|block| block.payload.len()).sum::<usize>() <= data.len());
        let primary = red.primary();
        let earlier: Vec<(u32, &[u8])> =
            red.iter().take(red.iter().count() - 1).map(|block| (u32::from(block.timestamp_offset), block.payload)).collect();
        let mut written = vec![0; data.len()];
        let len = rtp::write_red_prefix(&mut written, primary.payload_type, &earlier).unwrap();
        written.truncate(len);
        written.extend(primary.payload);
        let again = RedBlocks::parse(&written).unwrap();
        assert!(again.iter().zip(red.iter()).all(|(a, b)| (a.timestamp_offset, a.payload) == (b.timestamp_offset, b.payload)));
    }
    let _ = rtp::rtx_unwrap(data);
}

/// Opus.
pub fn opus(data: &[u8]) {
    if let Some(packet) = OpusPacket::parse(data) {
        assert!(packet.duration_us() <= 120_000 && packet.duration_us() > 0);
    }
}

/// VP8: packets of up to 32 bytes as `[len | switch bit, bytes…]`, rewritten in order.
pub fn vp8(data: &[u8]) {
    let mut rewriter = Vp8Rewriter::new();
    let mut reader = Reader::new(data);
    while let Some(head) = reader.u8() {
        let Some(payload) = reader.take(usize::from(head & 0x1F)) else { return };
        let _ = Codec::Vp8.starts_key_frame(payload);
        let Some(descriptor) = Vp8Descriptor::parse(payload) else { continue };
        assert!(descriptor.len <= payload.len());
        let _ = descriptor.frame_size(payload);
        let prefix = rewriter.rewrite(&descriptor, head & 0x80 != 0);
        let mut packet = prefix.bytes().to_vec();
        packet.extend(&payload[descriptor.len..]);
        let again = Vp8Descriptor::parse(&packet).expect("our own descriptor reads");
        assert_eq!(
            (again.starts_key_frame, again.temporal, again.key_index),
            (descriptor.starts_key_frame, descriptor.temporal, descriptor.key_index)
        );
        assert_eq!(rewriter.offsets().apply(&descriptor), prefix);
        let _ = Vp8Offsets::default().apply(&descriptor);
    }
}

/// VP9.
pub fn vp9(data: &[u8]) {
    if let Some(descriptor) = Vp9Descriptor::parse(data) {
        assert!(descriptor.len < data.len());
        assert_eq!(descriptor.starts_key_frame(), Codec::Vp9.starts_key_frame(data));
    }
}

/// H.264.
pub fn h264(data: &[u8]) {
    let _ = Codec::H264.starts_key_frame(data);
}

/// AV1.
pub fn av1_payload(data: &[u8]) {
    let _ = Codec::Av1.starts_key_frame(data);
    assert!(av1::elements(data).map(<[u8]>::len).sum::<usize>() <= data.len());
}

/// `[length, value …]` of dependency descriptors, all of one stream; what is read is the same after others' targets were left out.
pub fn dependency(data: &[u8]) {
    let (mut reader, mut structure, mut slot) = (Reader::new(data), Structure::default(), [0u8; 255]);
    while let Some(value) = reader.u8().and_then(|len| reader.take(usize::from(len).min(reader.len()))) {
        let Ok(read) = Descriptor::read(value, &mut structure) else { continue };
        assert!(structure.targets() > 0 && read.dependencies.present & !structure.all_targets() == 0);
        assert_eq!(read.dependencies.switch & !read.dependencies.present, 0);
        assert!((0..structure.targets()).all(|target| structure.within(target) >> target & 1 == 1));
        let Some(len) = write_with_active(value, read.active_at, structure.targets(), 1, &mut slot) else { continue };
        let mut again = structure.clone();
        assert_eq!(Descriptor::read(&slot[..len], &mut again), Ok(Descriptor { active: Some(1), ..read }));
        assert_eq!(again, structure);
    }
}

/// NACK tracking: `[step (i8), pause]` per packet.
pub fn nack(data: &[u8]) {
    let mut now = Instant::now();
    let (mut tracker, mut extender, mut ask) = (NackTracker::new(), SeqExtender::new(), Vec::new());
    let mut seq = 0u16;
    let mut reader = Reader::new(data);
    while let (Some(step), Some(pause)) = (reader.u8(), reader.u8()) {
        // Small steps both ways, and now and then a leap.
        let step = step.cast_signed();
        seq = if step == i8::MIN { seq.wrapping_add(NACK_GAP_MAX as u16 + 9) } else { seq.wrapping_add_signed(i16::from(step) / 4) };
        now += Duration::from_millis(u64::from(pause));
        tracker.handle_packet(now, extender.extend(seq));
        ask.clear();
        tracker.poll(now, Duration::from_millis(40), &mut ask);
        assert!(tracker.missing() <= NACK_MISSING_MAX && ask.len() <= NACK_MISSING_MAX);
        assert!(tracker.poll_timeout().is_none_or(|due| due > now), "due and yet not asked for");
        let mut slot = [0u8; 1200];
        let mut writer = RtcpWriter::new(&mut slot);
        if writer.nack(1, 2, &ask) {
            let len = writer.finish().expect("written");
            let Some(Ok(Packet::Nack(nack))) = rtcp::parse(&slot[..len]).next() else { panic!("our own NACK does not read") };
            assert!(nack.iter().eq(ask.iter().copied()));
        }
    }
}

/// Packets of data tracks: what is one stays one under another handle, and is longer than its header.
pub fn data_track(data: &[u8]) {
    let mut packet = data.to_vec();
    let read = crate::data_track::handle(&packet);
    crate::data_track::set_handle(&mut packet, 0xABCD);
    match read {
        Ok(handle) => {
            assert!(packet.len() >= crate::data_track::HEADER_LEN);
            assert_eq!(crate::data_track::handle(&packet), Ok(0xABCD));
            crate::data_track::set_handle(&mut packet, handle);
            assert_eq!(packet, data);
        }
        Err(_) => assert!(crate::data_track::handle(&packet).is_err()),
    }
}

/// SDP: what parses is written so that it parses again, and what that reads is written the same: writing is a fixed point
/// (a section without codecs gets a placeholder number, so the first reading may differ from the second).
pub fn sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(description) = crate::sdp::parse(text) {
        let written = description.to_string();
        let again = crate::sdp::parse(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(again.to_string(), written);
    }
}
