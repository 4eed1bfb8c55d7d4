//! Writes the hand-named seeds of `fuzz/corpus` with our own writers. Run it after adding a target or a seed:
//! `cargo test -p rtcd-core write_seeds -- --ignored`.

use std::path::PathBuf;

use super::extension_map;
use crate::ids::Channel;
use crate::rtcp::{ReportBlock, RtcpWriter, SenderInfo, TwccRecorder};
use crate::rtp::{Extension, Fixed, Form, HeaderWriter};
use crate::sctp::dcep;
use crate::stun::{BINDING, Class, IntegrityKey, RoleAttribute, StunWriter, TransactionId};

type Seed = (&'static str, &'static str, Vec<u8>);

fn stun(class: Class, body: impl FnOnce(&mut StunWriter<'_>)) -> Vec<u8> {
    let mut slot = [0u8; 512];
    let mut writer = StunWriter::new(&mut slot, class, BINDING, TransactionId([3; 12]));
    body(&mut writer);
    writer.integrity(&IntegrityKey::new("password"));
    writer.fingerprint();
    let len = writer.finish().unwrap();
    slot[..len].to_vec()
}

fn rtp(form: Form, extensions: &[(Extension, &[u8])], payload: &[u8]) -> Vec<u8> {
    let map = extension_map();
    let mut slot = [0u8; 256];
    let fixed = Fixed { marker: true, payload_type: 96, seq: 65_535, timestamp: 90_000, ssrc: 0x1234_5678 };
    let mut writer = HeaderWriter::new(&mut slot, &fixed, form).unwrap();
    for (extension, value) in extensions {
        writer.extension(map.id(*extension).unwrap(), value);
    }
    let len = writer.finish().unwrap();
    [&slot[..len], payload].concat()
}

fn rtcp(body: impl FnOnce(&mut RtcpWriter<'_>)) -> Vec<u8> {
    let mut slot = [0u8; 1200];
    let mut writer = RtcpWriter::new(&mut slot);
    body(&mut writer);
    let len = writer.finish().unwrap();
    slot[..len].to_vec()
}

/// Feedback of a lossy second, without the packet header and SSRCs.
fn feedback() -> Vec<u8> {
    let now = std::time::Instant::now();
    let mut recorder = TwccRecorder::new();
    for i in (0..200u16).filter(|i| i % 7 != 0 && !(40..70).contains(i)) {
        recorder.handle_packet(now + std::time::Duration::from_millis(u64::from(i) / 3 + u64::from(i % 5) * 70), i);
    }
    rtcp(|writer| assert!(recorder.poll(now + std::time::Duration::from_secs(1), writer, 1, 2)))
}

/// `[what, link, len, bytes…]` of the ICE target.
fn ice(steps: &[(u8, u8, &[u8])]) -> Vec<u8> {
    steps.iter().flat_map(|(what, link, bytes)| [&[*what, *link, bytes.len() as u8][..], bytes].concat()).collect()
}

/// `[what, who, length, bytes…]` of the core target.
fn core(steps: &[(u8, u8, &[u8])]) -> Vec<u8> {
    steps.iter().flat_map(|(what, who, bytes)| [&[*what, *who][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()).collect()
}

/// `[what, length, bytes…]` of the SCTP target.
fn association(steps: &[(u8, &[u8])]) -> Vec<u8> {
    steps.iter().flat_map(|(what, bytes)| [&[*what][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()).collect()
}

fn seeds() -> Vec<Seed> {
    // The first message of a stream: flags, stream, sequence, protocol.
    let open = [&[3, 0, 0, 0, 0, 50][..], &dcep::open("_reliable", Channel::Reliable)].concat();
    let chromium = include_bytes!("../sdp/fixtures/chromium-publisher-simulcast.sdp");
    let firefox = include_bytes!("../sdp/fixtures/firefox-publisher-simulcast.sdp");
    let single = include_bytes!("../sdp/fixtures/chromium-single-first.sdp");
    // The client hello of a DTLS handshake, cut: enough to get the record layer going.
    let hello =
        [&[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 1, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 12][..], &[0xFE, 0xFD], &[7; 22]].concat();
    let block = ReportBlock { ssrc: 5, fraction_lost: 10, lost: -1, highest_seq: 70_000, jitter: 3, last_sr: 4, delay_since_last_sr: 5 };
    let check = stun(Class::Request, |writer| {
        writer.username(b"AQEBAQEBAQABAQED:theirs");
        writer.priority(0x6e00_01ff);
        writer.role(RoleAttribute::Controlling(7));
        writer.use_candidate();
    });
    let mut two_vp8: Vec<u8> = vec![0x80 | 16, 0x90, 0xE0, 0x81, 0x02, 7, 0x20, 0x10, 0, 0, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01];
    two_vp8.extend([9, 0x90, 0xF0, 0x05, 7, 0x21, 0x11, 0, 0, 0]);
    let mut many_blocks = vec![0x80 | 111, 0x0F, 0x00, 3, 0x80 | 111, 0x07, 0x80, 2, 111];
    many_blocks.extend([1, 2, 3, 4, 5, 6, 7]);
    vec![
        ("av1", "sequence_header_in_new_sequence", vec![0x28, 2, 0x0A, 1, 0x32, 9, 9]),
        ("av1", "elements_without_count", vec![0x00, 1, 0x12, 2, 0x32, 9, 3, 0x0A, 1, 2]),
        (
            "dependency",
            "two_spatial_layers_by_key_frames",
            [vec![15, 0xC0, 0x00, 0x07, 0x80, 0x01, 0x23, 0xB8, 0x22, 0x45, 0x04, 0x5A, 0x00, 0x42, 0x22, 0x24], vec![3, 0x83, 0x00, 0x09]]
                .concat(),
        ),
        // L1T2 with one chain and a size, then a frame of T0, and one that says all by itself (see `codec::dependency`).
        (
            "dependency",
            "two_temporal_layers",
            [
                vec![15, 0xC5, 0x00, 0x07, 0x80, 0xA1, 0x1E, 0xA8, 0x51, 0x41, 0x01, 0x0C, 0x09, 0xFC, 0x05, 0x9C],
                vec![3, 0xC6, 0x00, 0x09],
                vec![9, 0xC6, 0x00, 0x09, 0x7B, 0x8A, 0x62, 0x56, 0x64, 0x00],
            ]
            .concat(),
        ),
        (
            "core",
            "publish_offer_check_handshake_leave",
            core(&[
                (7, 1, &[0]),
                (7, 1, &[3]),
                (0, 1, chromium),
                (5, 1, &[0, 2, 0, 0, 0, 1]),
                (21, 1, &[0, 2, 0, 0, 0, 1]),
                (3, 1, &hello),
                (6, 0, &[0]),
                (3, 1, &rtp(Form::OneByte, &[(Extension::Mid, b"0")], &[1, 2, 3])),
                (6, 0, &[255]),
                (13, 1, &[0]),
            ]),
        ),
        (
            "core",
            "firefox_offers_twice_and_restarts",
            core(&[
                (7, 1, &[0]),
                (0, 1, firefox),
                (21, 1, &[0, 2]),
                (13, 1, &[1]),
                (0, 1, firefox),
                (21, 2, &[0, 2]),
                (12, 1, &[]),
                (6, 0, &[2]),
                (6, 0, &[2]),
            ]),
        ),
        (
            "core",
            "single_transport_and_tap",
            core(&[
                (0x80, 1, &[]),
                (0, 1, single),
                (14, 0, &[8]),
                (13, 1, &[10]),
                (10, 0, &[8]),
                (11, 0, &[0]),
                (15, 1, b"data"),
                (14, 0, &[1]),
                (8, 1, &[8]),
                (9, 1, &[0]),
            ]),
        ),
        (
            "core",
            "garbage_from_nowhere",
            core(&[(3, 3, b"\x00garbage"), (3, 3, &[0x80; 40]), (3, 3, &[0x81, 200, 0, 1, 0, 0, 0, 1]), (3, 3, &hello), (3, 9, &check)]),
        ),
        ("data_track", "whole_frame", [&[0x18, 0, 13, 5, 26, 10, 39, 15, 0xDE, 0xAD, 0xBE, 0xEF][..], b"frame"].concat()),
        (
            "data_track",
            "extensions",
            [&[0x14, 0, 13, 5, 26, 10, 39, 15, 0xDE, 0xAD, 0xBE, 0xEF, 0, 3, 1, 11][..], b"participant", &[0], b"part"].concat(),
        ),
        ("data_track", "two_extensions", [&[4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 7, 0, 8, 1, 0xFF, 0, 0, 0, 0, 0][..], b"x"].concat()),
        ("dcep", "open_data_track", dcep::open("_data_track", Channel::DataTrack)),
        ("dcep", "open_reliable", dcep::open("_reliable", Channel::Reliable)),
        ("dcep", "open_lossy", dcep::open("_lossy", Channel::Lossy)),
        ("dcep", "acknowledged", dcep::ACK.to_vec()),
        ("dcep", "open_with_protocol", [&[3, 0x80, 1, 0, 0, 0, 0, 9, 0, 3, 0, 5][..], b"abcproto"].concat()),
        ("h264", "parameters_alone", vec![0x67, 0x42, 0xE0, 0x1F]),
        ("h264", "aggregate", vec![0x78, 0, 2, 0x06, 1, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 1]),
        ("h264", "fragment_start", vec![0x7C, 0x85, 0, 1, 2]),
        (
            "ice",
            "check_then_nominate_then_restart",
            ice(&[(2, 1, &[2, 1, 0, 0, 0]), (10, 1, &[2, 0, 0, 0, 9]), (5, 0, &[4]), (10, 2, &[2, 0, 0, 0, 1])]),
        ),
        ("ice", "role_conflicts", ice(&[(2, 1, &[3, 1, 0, 0, 0]), (2, 1, &[1, 0, 0, 0, 1]), (2, 1, &[0, 0, 0, 0, 1]), (2, 1, &[2])])),
        (
            "ice",
            "forged_between_valid_and_consent_lost",
            ice(&[(2, 1, &[2]), (0, 2, &check), (4, 0, &[200]), (2, 1, &[2]), (4, 0, &[255]), (4, 0, &[255])]),
        ),
        ("ice", "link_closed", ice(&[(2, 1, &[2]), (2, 2, &[2]), (7, 1, &[]), (7, 2, &[])])),
        ("nack", "gaps_and_late_ones", [[4, 5], [20, 5], [0xF8, 5], [4, 30], [40, 60], [4, 100], [0x80, 5], [4, 5]].concat()),
        ("opus", "twenty_ms", vec![31 << 3, 1, 2, 3]),
        ("opus", "code_three", vec![(1 << 3) | 3, 0x83, 9, 9]),
        ("red", "three_blocks", many_blocks),
        ("red", "primary_only", vec![111, 1, 2]),
        (
            "rtcp",
            "reports_and_description",
            rtcp(|writer| {
                writer.sender_report(&SenderInfo { ssrc: 1, ntp: 2, rtp_timestamp: 3, packets: 4, octets: 5 }, &[block]);
                writer.receiver_report(1, &[block, block]);
                writer.sdes_cname(1, b"conclave");
                writer.bye(&[1, 2]);
            }),
        ),
        (
            "rtcp",
            "feedback_of_all_kinds",
            rtcp(|writer| {
                writer.pli(1, 2);
                writer.fir(1, 2, 3);
                writer.nack(1, 2, &[65_535, 0, 5, 90]);
                writer.remb(1, 3_000_000, &[2, 3]);
            }),
        ),
        ("rtcp", "transport_wide", feedback()),
        ("rtcp", "extended_report_and_padding", vec![0x80, 207, 0, 1, 0, 0, 0, 1, 0xA0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4]),
        ("rtp", "audio_with_level", rtp(Form::OneByte, &[(Extension::AudioLevel, &[0x85]), (Extension::Mid, b"0")], &[1, 2, 3])),
        (
            "rtp",
            "video_two_byte_form",
            rtp(Form::TwoByte, &[(Extension::DependencyDescriptor, &[7; 30]), (Extension::Rid, b"h")], &[1, 2, 3]),
        ),
        ("rtp", "csrcs_and_padding", vec![0xA2, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 9, 9, 0, 2]),
        (
            "sctp",
            "channel_message_and_acknowledgement",
            association(&[
                (3, &open),
                (3, &[&[3, 0, 0, 0, 1, 53][..], b"hello"].concat()),
                (6, &[7; 200]),
                (4, &[2, 0, 2, 0, 0, 0, 0, 0, 0]),
                (5, &[40]),
                (15, &[]),
            ]),
        ),
        (
            "sctp",
            "pieces_out_of_order_and_never_whole",
            association(&[(3, &open), (3, &[2, 0, 0, 0, 1, 53, 1]), (3, &[0, 0, 0, 0, 1, 53, 2]), (3, &[0, 0, 0, 0, 2, 53]), (5, &[255])]),
        ),
        (
            "sctp",
            "shut_window_reset_heartbeat_abort",
            association(&[
                (3, &open),
                (6, &[1; 900]),
                (4, &[0, 0, 0, 0, 0, 0, 0, 0, 0]),
                (2, &[0, 1]),
                // HEARTBEAT, RE-CONFIG (outgoing reset of stream 0), FORWARD TSN, SHUTDOWN, ABORT.
                (0x22, &[0, 0, 1, 0, 8, 1, 2, 3, 4]),
                (1, &[130, 0, 0, 22, 0, 13, 0, 18, 0, 0, 3, 233, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 0]),
                (1, &[192, 0, 0, 12, 0, 0, 3, 240, 0, 0, 0, 1]),
                (1, &[7, 0, 0, 8, 0, 0, 3, 232]),
                (0x32, &[0]),
            ]),
        ),
        (
            "sctp",
            "lengths_that_lie",
            association(&[(1, &[0, 3, 0, 0]), (1, &[0, 3, 0xFF, 0xFF, 1]), (1, &[3, 0, 0, 16, 0, 0, 0, 0]), (0, &[0; 40])]),
        ),
        ("sdp", "smallest", b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_vec()),
        ("srtp_roundtrip", "gcm_with_prefix", [&[0u8, 2, 0, 0, 0, 5][..], &[7; 40]].concat()),
        ("srtp_roundtrip", "cm_after_rollover", [&[2u8, 0, 0, 1, 0, 5][..], &[7; 40]].concat()),
        ("srtp_unprotect", "rtp", rtp(Form::OneByte, &[(Extension::AudioLevel, &[0x85])], &[0x55; 40])),
        ("srtp_unprotect", "rtcp", [rtcp(|writer| assert!(writer.pli(9, 2))), vec![0x80, 0, 0, 1], vec![0xAA; 26]].concat()),
        ("stun", "check", check.clone()),
        ("stun", "success_v6", stun(Class::Success, |writer| writer.mapped_address("[2001:db8::1]:5".parse().unwrap()))),
        ("stun", "role_conflict", stun(Class::Error, |writer| writer.error(487, "Role Conflict"))),
        (
            "stun",
            "unknown_attributes",
            stun(Class::Error, |writer| {
                writer.error(420, "");
                writer.unknown_attributes(&[0x7F00, 0x7F01]);
            }),
        ),
        ("twcc", "lossy_second", feedback()[12..].to_vec()),
        ("twcc", "large_deltas", vec![0, 10, 0, 2, 0, 0, 1, 7, 0xE4, 0, 0xFF, 0xFC, 4]),
        ("twcc", "runs", vec![0, 0, 0, 20, 0, 0, 1, 0, 0x20, 12, 0x00, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (
            "twcc_recorder",
            "losses_wrap_and_pauses",
            [[0xFFu8, 0xFE, 3], [0xFF, 0xFF, 9], [0, 3, 200], [0, 2, 1], [1, 200, 255], [0, 4, 255]].concat(),
        ),
        ("vp8", "key_frame_then_short_id", two_vp8),
        ("vp8", "without_extension", vec![3, 0x10, 1, 2, 0x83, 0x00, 1, 2]),
        ("vp9", "non_flexible_key", vec![0xAA, 0x81, 0x02, 0x30, 9, 0xFF]),
        ("vp9", "flexible_with_references", vec![0xF8, 0x85, 1, 0x02, 0x03, 0x05, 0x04, 0xFF]),
    ]
}

#[test]
#[ignore = "writes fuzz/corpus; run by hand after a change of the seeds"]
fn write_seeds() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, name, bytes) in seeds() {
        let folder = root.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    // Browser descriptions as the SDP tests have them.
    for entry in std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/sdp/fixtures")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, root.join("sdp").join(path.file_stem().unwrap())).unwrap();
    }
}
