//! What browsers write, what attackers write, and that reading undoes writing.

use proptest::prelude::*;

use super::*;
use crate::limits;

const FIXTURES: [(&str, &str); 8] = [
    ("chromium-data-only", include_str!("fixtures/chromium-data-only.sdp")),
    ("chromium-publisher-simulcast", include_str!("fixtures/chromium-publisher-simulcast.sdp")),
    ("chromium-single-first", include_str!("fixtures/chromium-single-first.sdp")),
    ("chromium-svc-vp9-av1", include_str!("fixtures/chromium-svc-vp9-av1.sdp")),
    ("chromium-video-one-layer", include_str!("fixtures/chromium-video-one-layer.sdp")),
    ("firefox-data-only", include_str!("fixtures/firefox-data-only.sdp")),
    ("firefox-publisher-simulcast", include_str!("fixtures/firefox-publisher-simulcast.sdp")),
    ("firefox-single-first", include_str!("fixtures/firefox-single-first.sdp")),
];

#[test]
fn what_browsers_write_survives_reading_and_writing() {
    for (name, text) in FIXTURES {
        let read = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = parse(&read.to_string()).unwrap_or_else(|error| panic!("{name} written: {error}"));
        // Our writer says the same of directions and feedback, only more plainly.
        assert_eq!(read, again, "{name}");
    }
}

#[test]
fn firefox_session_level_values_reach_the_sections() {
    let (_, text) = FIXTURES[6];
    let read = parse(text).expect("Firefox");
    assert_eq!(read.transport.fingerprints.len(), 1);
    assert!(read.extmap_allow_mixed, "said per section");
    assert_eq!(read.media[1].direction, Direction::SendOnly);
    assert_eq!(read.media[1].codecs[1].name, "rtx");
    assert_eq!(read.media[1].codecs[1].fmtp, "apt=120", "fmtp before rtpmap");
    assert_eq!(read.media[1].ssrc_groups.len(), 3);
}

#[test]
fn errors_name_the_line_and_the_problem() {
    let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n";
    let cases = [
        ("", "the o= line is missing"),
        ("o=- 1 1 IN IP4 0.0.0.0\r\n", "line 1: v=0 has to be the first line"),
        ("v=0\r\nno line\r\n", "line 2: not of the form x=value"),
        ("v=0\r\no=- x 1 IN IP4 0.0.0.0\r\n", "line 2: not a valid session id: x"),
    ];
    for (text, expected) in cases {
        assert!(parse(text).is_err_and(|error| error.to_string().contains(expected)), "{expected}");
    }
    let lines = [
        ("m=audio x UDP/TLS/RTP/SAVPF 0", "port: x"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 128", "payload type: 128"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96 96", "second payload type"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96", "rtpmap"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/x", "clock rate: x"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:a\r\na=mid:b", "a second mid"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:12345678901234567", "mid"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:a\rb", "x=value"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=extmap:0 urn:x", "extension id"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=extmap:1 urn:x\r\na=extmap:1 urn:y", "second extmap"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=ssrc:+5 cname:x", "ssrc"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rid:q~ send", "rid"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=simulcast:send", "simulcast"),
        ("a=fingerprint:sha-256 00:11", "fingerprint"),
        ("a=setup:holdconn", "setup"),
        ("a=ice-ufrag:abc", "ice-ufrag"),
    ];
    for (line, expected) in lines {
        let error = parse(&format!("{head}{line}\r\n")).expect_err(line).to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn passwords_are_not_in_errors_or_debug_output() {
    let text = "v=0\r\no=- 1 1 IN IP4 0\r\na=ice-pwd:a password with spaces\r\n";
    assert!(!parse(text).expect_err("spaces").to_string().contains("password with"));
    let (_, chromium) = FIXTURES[1];
    let read = parse(chromium).expect("Chromium");
    let pwd = read.media[0].transport.ice_pwd.clone().expect("pwd");
    assert!(!format!("{read:?}").contains(&pwd));
}

/// As pion offers a simulcast camera again, once the answer has named the layers as received.
#[test]
fn layers_named_in_both_directions_are_sent_once() {
    let names = "a=rid:q send\r\na=rid:h send\r\na=rid:q recv\r\na=rid:h recv\r\na=simulcast:recv q;h\r\na=simulcast:send q;h\r\n";
    let media = parse(&format!("v=0\r\no=- 1 1 IN IP4 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n{names}")).unwrap().media.remove(0);
    assert_eq!(media.rids, [("q", true), ("h", true)].map(|(id, send)| Rid { id: id.to_owned(), send }));
    assert_eq!((media.simulcast.send, media.simulcast.recv), (vec!["q".to_owned(), "h".to_owned()], vec!["q".to_owned(), "h".to_owned()]));
}

#[test]
fn every_list_has_its_bound() {
    let head = "v=0\r\no=- 1 1 IN IP4 0\r\n";
    let section = "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\n";
    let many = |line: &str, count: usize| {
        let lines: String = (0..count).map(|at| line.replace('#', &(at + 1).to_string())).collect();
        parse(&format!("{head}{section}{lines}"))
    };
    let bounds = [
        ("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\n", limits::SDP_MEDIA_MAX - 1),
        ("a=ssrc:# cname:x\r\n", limits::SDP_SSRCS_MAX),
        ("a=candidate:# 1 udp 1 192.0.2.1 9 typ host\r\n", limits::SDP_CANDIDATES_MAX),
        ("a=extmap:# urn:x\r\n", limits::SDP_EXTENSIONS_MAX),
        ("a=rid:r# send\r\n", limits::SDP_RIDS_MAX),
        ("a=rtcp-fb:96 nack x#\r\n", limits::SDP_FEEDBACK_MAX),
        ("a=ssrc-group:FID # 2\r\n", limits::SDP_SSRC_GROUPS_MAX),
    ];
    for (line, max) in bounds {
        assert!(many(line, max).is_ok(), "{line}");
        assert!(many(line, max + 1).is_err_and(|error| matches!(error.problem, Problem::TooMany { .. })), "{line}");
    }
    let long = "x".repeat(limits::SDP_LEN_MAX + 1);
    assert_eq!(parse(&long).map_err(|error| error.line), Err(0));
}

/// Work has to grow with the text, not with its square: the largest text accepted, made of the lines that look things
/// up, is read with a bounded number of steps. Counted as lines here; the time bound is the fuzz targets' business.
#[test]
fn a_description_of_full_size_is_read() {
    let payload_types: String = (0..64).map(|at| format!(" {at}")).collect();
    let mut text = format!("v=0\r\no=- 1 1 IN IP4 0\r\nm=video 9 UDP/TLS/RTP/SAVPF{payload_types}\r\n");
    let mut at = 0;
    while text.len() + 64 < limits::SDP_LEN_MAX {
        text.push_str(&format!("a=ssrc:{} cname:x\r\na=rtcp-fb:{} nack\r\n", at % 1000, 64 + at % 64));
        at += 1;
    }
    let read = parse(&text).expect("within all bounds");
    assert_eq!(read.media[0].ssrcs.len(), 1000);
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,12}"
}

prop_compose! {
    fn transport()(
        ice in proptest::option::of(("[a-zA-Z0-9+/]{4,16}", "[a-zA-Z0-9+/]{22,32}")),
        options in proptest::collection::vec("[a-z0-9]{1,8}", 0..3),
        digests in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 32), 0..3),
        setup in proptest::option::of(prop_oneof![Just(Setup::Active), Just(Setup::Passive), Just(Setup::ActPass)]),
    ) -> TransportAttributes {
        let (ice_ufrag, ice_pwd) = ice.unzip();
        TransportAttributes {
            ice_ufrag,
            ice_pwd,
            ice_options: options,
            fingerprints: digests.into_iter().map(|digest| Fingerprint { hash: HashFunction::Sha256, digest }).collect(),
            setup,
        }
    }
}

prop_compose! {
    fn codec(payload_type: u8)(
        name in word(), clock_rate in 1_u32.., channels in 1_u8..9,
        fmtp in "[a-z0-9=;]{0,40}", feedback in proptest::collection::vec("[a-z]{1,8}( [a-z]{1,8})?", 0..5),
    ) -> Codec {
        Codec { payload_type, name, clock_rate, channels, fmtp, feedback }
    }
}

prop_compose! {
    fn media()(
        kind in prop_oneof![Just(MediaKind::Audio), Just(MediaKind::Video), Just(MediaKind::Application)],
        port in any::<u16>(), mid in "[a-z0-9]{1,16}",
        flags in any::<[bool; 4]>(), direction in any::<[bool; 2]>(), transport in transport(),
        codecs in proptest::collection::btree_set(0_u8..128, 1..8)
            .prop_flat_map(|types| types.into_iter().map(codec).collect::<Vec<_>>()),
        extensions in proptest::collection::btree_map(1_u8.., (proptest::option::of(any::<[bool; 2]>()), word()), 0..5),
        msids in proptest::collection::vec((word(), "[a-zA-Z0-9_-]{0,12}"), 0..3),
        rids in proptest::collection::btree_map("[a-z0-9]{1,4}", any::<bool>(), 0..4),
        simulcast in (proptest::collection::vec("[a-z0-9]{1,4}", 0..4), proptest::collection::vec("[a-z0-9]{1,4}", 0..4)),
        ssrcs in proptest::collection::btree_map(any::<u32>(), (word(), proptest::option::of(word())), 0..5),
        group in proptest::collection::vec(any::<u32>(), 0..4),
        sctp in proptest::option::of((any::<u16>(), any::<u64>())),
        candidates in proptest::collection::vec("[a-z0-9.: ]{1,30}", 0..3),
    ) -> Media {
        let application = kind == MediaKind::Application;
        let [bundle_only, rtcp_mux, rtcp_rsize, end_of_candidates] = flags;
        Media {
            kind, port, mid, bundle_only, rtcp_mux, rtcp_rsize, end_of_candidates, transport,
            protocol: if application { "UDP/DTLS/SCTP" } else { "UDP/TLS/RTP/SAVPF" }.to_owned(),
            // A data section has no direction of its own.
            direction: if application { Direction::SendRecv } else { Direction::of(direction[0], direction[1]) },
            codecs: if application { Vec::new() } else { codecs },
            extensions: extensions
                .into_iter()
                .map(|(id, (direction, uri))| Extension { id, direction: direction.map(|d| Direction::of(d[0], d[1])), uri })
                .collect(),
            msids: msids.into_iter().map(|(stream, track)| Msid { stream, track }).collect(),
            rids: rids.into_iter().map(|(id, send)| Rid { id, send }).collect(),
            simulcast: Simulcast { send: simulcast.0, recv: simulcast.1 },
            ssrcs: ssrcs
                .into_iter()
                .map(|(ssrc, (cname, msid))| Ssrc { ssrc, cname, msid: msid.map(|stream| Msid { stream, track: String::new() }) })
                .collect(),
            ssrc_groups: if group.is_empty() { Vec::new() } else { vec![SsrcGroup { semantics: "FID".to_owned(), ssrcs: group }] },
            sctp_port: sctp.map(|(port, _)| port),
            max_message_size: sctp.map(|(_, size)| size),
            candidates: candidates.into_iter().map(|text| text.trim().to_owned()).collect(),
        }
    }
}

#[test]
fn a_section_without_a_format_is_refused() {
    let with = |formats: &str| parse(&format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=audio 0 UDP/TLS/RTP/SAVPF{formats}\r\n"));
    assert!(with(" 0").is_ok() && with(" 111 63").is_ok());
    assert!(with("").is_err());
}

#[test]
fn a_data_section_has_no_direction() {
    let text = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sendonly\r\n";
    let read = parse(text).unwrap();
    assert_eq!(parse(&read.to_string()), Ok(read));
}

proptest! {
    #[test]
    fn reading_undoes_writing(
        ids in any::<[u64; 2]>(), flags in any::<[bool; 2]>(), transport in transport(),
        bundle in proptest::collection::vec("[a-z0-9]{1,16}", 0..4), media in proptest::collection::vec(media(), 0..4),
    ) {
        let description = Description {
            session_id: ids[0], session_version: ids[1], ice_lite: flags[0], extmap_allow_mixed: flags[1],
            bundle, transport, media,
        };
        prop_assert_eq!(parse(&description.to_string()), Ok(description));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(v=0\r?\n)?(o=- [0-9]{0,25} 1 IN IP4 x\n)?((a|m|o|z)=[ -~]{0,60}\r?\n){0,20}") {
        let _ = parse(&text);
    }

    #[test]
    fn mangled_browser_text_makes_no_panic(which in 0..FIXTURES.len(), at in 0_usize..20_000, length in 0_usize..40, with in "[ -~\r\n]{0,12}") {
        let text = FIXTURES[which].1;
        let at = at % text.len();
        let end = (at + length).min(text.len());
        let mangled = format!("{}{with}{}", text.get(..at).unwrap_or_default(), text.get(end..).unwrap_or_default());
        if let Ok(read) = parse(&mangled) {
            prop_assert_eq!(parse(&read.to_string()), Ok(read));
        }
    }
}
