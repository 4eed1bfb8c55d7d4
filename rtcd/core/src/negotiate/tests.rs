//! Rounds of offer and answer with what browsers really write, and with a client made of our own parser.

use std::sync::Arc;

use super::*;
use crate::ids::{Kind, PeerId, Source, TrackId};
use crate::limits;
use crate::sdp::{self, Direction, MediaKind, Setup};

const CHROMIUM_SIMULCAST: &str = include_str!("../sdp/fixtures/chromium-publisher-simulcast.sdp");
const CHROMIUM_SINGLE: &str = include_str!("../sdp/fixtures/chromium-single-first.sdp");
const FIREFOX_SIMULCAST: &str = include_str!("../sdp/fixtures/firefox-publisher-simulcast.sdp");
const FIREFOX_SINGLE: &str = include_str!("../sdp/fixtures/firefox-single-first.sdp");

struct Counter(u32);

impl Fresh for Counter {
    fn ice(&mut self) -> IceCredentials {
        self.0 += 1;
        ice(self.0)
    }
}

fn ice(number: u32) -> IceCredentials {
    IceCredentials { ufrag: format!("ufrag{number}"), pwd: format!("password-of-generation-{number:04}") }
}

fn settings() -> Arc<LocalSettings> {
    let address = |text: &str| text.parse().expect("address");
    Arc::new(LocalSettings {
        fingerprint: [7; 32],
        udp: vec![address("198.51.100.1:8443"), address("[2001:db8::1]:8443")],
        tcp: vec![address("198.51.100.1:8443")],
    })
}

fn track(name: &str) -> TrackId {
    TrackId::new(name).expect("name")
}

fn codecs_of(offer: &str, mid: &str) -> Vec<Codec> {
    let offer = sdp::parse(offer).expect("offer");
    codecs::known(offer.media.iter().find(|media| media.mid == mid).expect("mid"))
}

fn outgoing(name: &str, kind: Kind, codecs: &[Codec]) -> Outgoing {
    let number = u32::from(name.as_bytes()[name.len() - 1]);
    Outgoing {
        track: track(name),
        shown_as: track(name),
        publisher: PeerId::new("PA_pub").expect("name"),
        kind,
        source: if kind == Kind::Audio { Source::Microphone } else { Source::Camera },
        codecs: codecs.to_vec(),
        ssrc: number,
        rtx_ssrc: number + 1_000,
        stereo: false,
    }
}

fn audio(name: &str) -> Outgoing {
    outgoing(name, Kind::Audio, &codecs_of(CHROMIUM_SIMULCAST, "0"))
}

fn video(name: &str) -> Outgoing {
    outgoing(name, Kind::Video, &codecs_of(CHROMIUM_SIMULCAST, "1"))
}

/// What a client would answer: everything, as browsers do.
fn client_answer(offer: &str) -> sdp::Description {
    let mut answer = sdp::parse(offer).expect("our own offer");
    answer.ice_lite = false;
    for media in &mut answer.media {
        media.transport.ice_ufrag = Some("client".to_owned());
        media.transport.ice_pwd = Some("a-password-of-the-client".to_owned());
        media.transport.setup = Some(Setup::Active);
        media.direction = Direction::of(media.direction.receives(), media.direction.sends());
        media.ssrcs.clear();
        media.ssrc_groups.clear();
        media.msids.clear();
        media.candidates.clear();
    }
    answer
}

/// The `a=` lines of one section of a text.
fn section(text: &str, at: usize) -> String {
    text.split("m=").nth(at + 1).unwrap_or_default().to_owned()
}

#[test]
fn chromium_publisher_with_simulcast_is_answered() {
    let mut answerer = Answerer::new(settings(), false, u64::MAX);
    answerer.publish("e113c2cd-3947-4289-a23c-7ba08debe771", true, false, None);
    let answer = answerer.handle_offer(CHROMIUM_SIMULCAST, &mut Counter(0)).expect("answer");
    assert!(!answer.ice_restarted && answer.mids.is_empty());

    let text = sdp::parse(&answer.sdp).expect("our own answer");
    assert!(text.ice_lite && text.extmap_allow_mixed);
    assert_eq!(text.bundle, ["0", "1", "2"]);
    assert!(text.media.iter().all(|media| media.transport.setup == Some(Setup::Passive)));
    assert_eq!(text.media[0].candidates.len(), 3);
    assert!(text.media[0].candidates[2].ends_with("198.51.100.1 8443 typ host tcptype passive"));
    assert!(text.media[0].end_of_candidates && text.media[1].candidates.is_empty());
    assert_eq!(text.media[0].direction, Direction::RecvOnly);
    assert_eq!(text.media[0].codecs[0].fmtp, "minptime=10;useinbandfec=1;usedtx=1");
    assert_eq!(text.media[1].simulcast.recv, ["q", "h", "f"]);
    assert!(!section(&answer.sdp, 0).contains("transport-wide-cc"), "only on video");
    assert!(section(&answer.sdp, 1).contains("transport-wide-cc"));
    // Redundant sound is taken, but not asked for: browsers send what comes first.
    assert!(
        answer.sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n") && answer.sdp.contains("a=fmtp:63 111/111\r\n"),
        "{}",
        answer.sdp
    );
    assert!(!answer.sdp.contains(" red/90000"));
    assert!(!answer.sdp.contains("abs-send-time") && !answer.sdp.contains("ulpfec"));

    let agreed = answerer.agreed().expect("agreed");
    assert_eq!(agreed.local_ice, ice(1));
    assert_eq!(agreed.remote.ice.ufrag, "qp5j");
    assert_eq!(agreed.remote.fingerprint[..2], [0x1a, 0x12]);
    assert_eq!(agreed.remote.role, DtlsRole::Server);
    let [audio, video] = agreed.sections.as_slice() else { panic!("two media sections") };
    assert_eq!((audio.codecs.len(), audio.codecs[0].kind), (1, CodecKind::Opus));
    assert_eq!(audio.extensions.id(ExtensionKind::AudioLevel), Some(1));
    assert_eq!(audio.extensions.kind(4), Some(ExtensionKind::Mid));
    assert_eq!(audio.extensions.id(ExtensionKind::TransportCc), None);
    assert_eq!(
        video.codecs[0],
        Codec {
            kind: CodecKind::Vp8,
            payload_type: 96,
            rtx: Some(97),
            red: None,
            fmtp: String::new(),
            nack: true,
            pli: true,
            transport_cc: true
        }
    );
    let kinds: Vec<_> = video.codecs.iter().map(|codec| (codec.kind, codec.payload_type)).collect();
    use CodecKind::{Av1, H264, Vp8, Vp9};
    assert_eq!(kinds, [(Vp8, 96), (H264, 102), (H264, 108), (H264, 116), (Av1, 45), (Vp9, 98)]);
    let receive = video.receive.as_ref().expect("sends");
    assert_eq!(receive.cid, "ac7ebbe1-6160-4981-8c6d-ab415bb85776");
    assert_eq!(receive.rids, ["q", "h", "f"]);
    assert!(receive.streams.is_empty());
    let data = agreed.remote.data.expect("data section");
    assert_eq!((data.remote_port, data.max_message_size), (5000, 262_144));
}

#[test]
fn the_codec_a_publisher_announced_comes_first_in_the_answer() {
    let mut answerer = Answerer::new(settings(), false, 1);
    answerer.publish("ac7ebbe1-6160-4981-8c6d-ab415bb85776", false, false, Some(CodecKind::Av1));
    let answer = answerer.handle_offer(CHROMIUM_SIMULCAST, &mut Counter(0)).expect("answer");
    assert!(answer.sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 45 46 96 97"), "AV1, its RTX, then the offer's order");
    assert_eq!(answerer.agreed().map(|agreed| agreed.sections[1].codecs[0].kind), Some(CodecKind::Av1));
}

#[test]
fn firefox_publisher_with_simulcast_is_answered() {
    let mut answerer = Answerer::new(settings(), false, 1);
    let answer = answerer.handle_offer(FIREFOX_SIMULCAST, &mut Counter(0)).expect("answer");
    let agreed = answerer.agreed().expect("agreed");
    let video = &agreed.sections[1];
    let receive = video.receive.as_ref().expect("sends");
    assert_eq!(receive.cid, "{b26d7c94-0386-4e77-a500-c84464a79de4}");
    assert_eq!(receive.rids, ["q", "h", "f"]);
    assert_eq!(receive.streams[1], ReceiveStream { ssrc: 2_777_017_885, rtx: Some(437_814_269) });
    assert_eq!(receive.streams.len(), 3);
    assert!(answer.sdp.contains("a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"));
    assert_eq!(agreed.remote.fingerprint[0], 0xb0, "session-level fingerprint");
}

#[test]
fn single_transport_puts_tracks_on_receiving_sections_and_asks_for_more() {
    for first_offer in [CHROMIUM_SINGLE, FIREFOX_SINGLE] {
        let mut answerer = Answerer::new(settings(), true, 1);
        assert_eq!(answerer.poll_need(), None, "the client offers by itself first");
        for name in ["TR_1", "TR_2", "TR_3", "TR_4"] {
            answerer.add(audio(name));
        }
        answerer.add(video("TR_v"));
        let answer = answerer.handle_offer(first_offer, &mut Counter(0)).expect("answer");
        let placed: Vec<_> = answer.mids.iter().map(|(_, track)| track.as_str()).collect();
        assert_eq!(placed, ["TR_1", "TR_2", "TR_3", "TR_v"]);
        assert!(answer.sdp.contains("a=msid:PA_pub|camera TR_2"));
        assert_eq!(answerer.poll_need(), Some((1, 0)));
        assert_eq!(answerer.poll_need(), None, "asked once");

        let agreed = answerer.agreed().expect("agreed");
        let sent = agreed.sections.iter().filter(|section| section.send.is_some()).count();
        assert_eq!(sent, 4);
        let text = sdp::parse(&answer.sdp).expect("answer");
        let directions: Vec<_> = text.media.iter().map(|media| media.direction).collect();
        assert_eq!(directions.iter().filter(|direction| **direction == Direction::SendOnly).count(), 4);
        assert_eq!(directions.iter().filter(|direction| **direction == Direction::Inactive).count(), 2);
        let video = text.media.iter().find(|media| !media.ssrc_groups.is_empty()).expect("video is sent with RTX");
        assert_eq!(video.ssrc_groups[0].ssrcs, [118, 1118]);
    }
}

#[test]
fn single_transport_gives_a_section_back_before_it_uses_it_again() {
    let mut answerer = Answerer::new(settings(), true, 1);
    answerer.add(audio("TR_1"));
    answerer.handle_offer(CHROMIUM_SINGLE, &mut Counter(0)).expect("answer");
    let mid = |answer: &Answer, name: &str| answer.mids.iter().find(|(_, track)| track.as_str() == name).map(|(mid, _)| mid.clone());

    answerer.remove(&track("TR_1"));
    assert!(answerer.agreed().expect("agreed").sections.iter().all(|section| section.send.is_none()), "at once");
    assert_eq!(answerer.poll_need(), Some((0, 0)));
    for name in ["TR_2", "TR_3", "TR_4"] {
        answerer.add(audio(name));
    }
    let answer = answerer.handle_offer(CHROMIUM_SINGLE, &mut Counter(9)).expect("answer");
    let first = sdp::parse(&answer.sdp).expect("answer").media.into_iter().find(|media| media.kind == MediaKind::Audio);
    assert_eq!(first.map(|media| media.direction), Some(Direction::Inactive));
    assert_eq!(answer.mids.len(), 2, "the other two audio sections");
    assert_eq!(mid(&answer, "TR_4"), None);

    assert_eq!(answerer.poll_need(), Some((0, 0)), "one is free now, another offer is enough");
    let answer = answerer.handle_offer(CHROMIUM_SINGLE, &mut Counter(9)).expect("answer");
    assert_eq!(mid(&answer, "TR_4").as_deref(), Some("0"));
    assert_eq!(answerer.poll_need(), None);
}

#[test]
fn a_track_no_section_has_a_codec_for_is_not_asked_for_again() {
    let mut answerer = Answerer::new(settings(), true, 1);
    let mut h264 = codecs_of(CHROMIUM_SIMULCAST, "1");
    h264.retain(|codec| codec.kind == CodecKind::H264);
    answerer.add(outgoing("TR_h", Kind::Video, &h264));
    // This Firefox has no H.264.
    let answer = answerer.handle_offer(FIREFOX_SINGLE, &mut Counter(0)).expect("answer");
    assert!(answer.mids.is_empty());
    assert_eq!(answerer.poll_need(), None);
}

#[test]
fn a_client_that_restarts_ice_gets_new_credentials_and_keeps_its_sections() {
    let mut answerer = Answerer::new(settings(), true, 1);
    answerer.add(audio("TR_1"));
    let mut fresh = Counter(0);
    answerer.handle_offer(CHROMIUM_SINGLE, &mut fresh).expect("answer");
    let again = answerer.handle_offer(CHROMIUM_SINGLE, &mut fresh).expect("answer");
    assert!(!again.ice_restarted);
    assert_eq!(answerer.agreed().map(|agreed| &agreed.local_ice), Some(&ice(1)));

    let ufrag = CHROMIUM_SINGLE.lines().find(|line| line.starts_with("a=ice-ufrag:")).expect("ufrag");
    let restart = CHROMIUM_SINGLE.replace(ufrag, "a=ice-ufrag:NEWu");
    let answer = answerer.handle_offer(&restart, &mut fresh).expect("answer");
    assert!(answer.ice_restarted && answer.sdp.contains("a=ice-ufrag:ufrag2"));
    assert_eq!(answer.mids.len(), 1);

    let mut other = sdp::parse(&restart).expect("offer");
    other.media.iter_mut().for_each(|media| media.transport.fingerprints[0].digest[0] ^= 1);
    let error = answerer.handle_offer(&other.to_string(), &mut fresh).expect_err("another certificate");
    assert!(error.to_string().contains("certificate changed"));
    assert_eq!(answerer.agreed().map(|agreed| &agreed.local_ice), Some(&ice(2)), "nothing changed");
}

#[test]
fn sections_stay_in_place_and_rejected_ones_may_be_recycled() {
    let mut answerer = Answerer::new(settings(), false, 1);
    let mut offer = sdp::parse(CHROMIUM_SIMULCAST).expect("offer");
    offer.media[1].port = 0;
    offer.bundle.remove(1);
    let answer = answerer.handle_offer(&offer.to_string(), &mut Counter(0)).expect("answer");
    let text = sdp::parse(&answer.sdp).expect("answer");
    assert_eq!((text.media[1].port, text.media.len(), text.bundle.len()), (0, 3, 2));

    let mut recycled = sdp::parse(CHROMIUM_SIMULCAST).expect("offer");
    recycled.media[1].mid = "3".to_owned();
    recycled.bundle[1] = "3".to_owned();
    let answer = answerer.handle_offer(&recycled.to_string(), &mut Counter(0)).expect("answer");
    assert_eq!(sdp::parse(&answer.sdp).expect("answer").media[1].mid, "3");

    let mut moved = recycled.clone();
    moved.media.swap(0, 1);
    assert!(matches!(answerer.handle_offer(&moved.to_string(), &mut Counter(0)), Err(NegotiateError::Section { section: 0, .. })));
    moved.media.pop();
    assert!(answerer.handle_offer(&moved.to_string(), &mut Counter(0)).is_err());
    assert_eq!(answerer.agreed().map(|agreed| agreed.sections.len()), Some(2));
}

#[test]
fn offers_that_nothing_can_be_built_on_are_refused_with_a_reason() {
    let cases = [
        ("a=setup:actpass", "a=setup:passive", "a=setup does not fit"),
        ("a=ice-ufrag:qp5j\r\n", "", "a=ice-ufrag"),
        ("a=ice-pwd:Sli6w2ZlpulTpvwxM0islXyK\r\n", "", "a=ice-pwd"),
        ("a=mid:1", "a=mid:0", "used twice"),
        ("a=rtcp-mux\r\n", "", ""),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", ""),
        ("extmap:4 urn", "extmap:9 urn", ""),
    ];
    for (from, to, reason) in cases {
        let offer = CHROMIUM_SIMULCAST.replace(from, to);
        match Answerer::new(settings(), false, 1).handle_offer(&offer, &mut Counter(0)) {
            Err(error) => assert!(error.to_string().contains(reason), "{from}: {error}"),
            // Only the data section is left.
            Ok(answer) => assert!(reason.is_empty() && answer.sdp.contains("m=audio 0 "), "{from}"),
        }
    }
}

#[test]
fn subscriber_offers_are_numbered_coalesced_and_reuse_sections() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    let first = offerer.poll_offer().expect("data section");
    assert_eq!((first.id, first.sdp.matches("m=").count()), (1, 1));
    offerer.add(audio("TR_1"));
    offerer.add(video("TR_2"));
    assert_eq!(offerer.poll_offer(), None, "one offer at a time");
    assert_eq!(offerer.resend().as_ref(), Some(&first));
    let undecided = client_answer(&first.sdp).to_string().replace("a=setup:active", "a=setup:actpass");
    assert!(offerer.handle_answer(&undecided, 1).is_err_and(|error| error.to_string().contains("a=setup does not fit")));
    offerer.handle_answer(&client_answer(&first.sdp).to_string(), 1).expect("answer");
    assert_eq!(offerer.agreed().map(|agreed| (agreed.sections.len(), agreed.remote.role)), Some((0, DtlsRole::Server)));

    let second = offerer.poll_offer().expect("two tracks at once");
    assert_eq!(second.mids, [("1".to_owned(), track("TR_1")), ("2".to_owned(), track("TR_2"))]);
    assert!(matches!(
        offerer.handle_answer(&client_answer(&first.sdp).to_string(), 1),
        Err(NegotiateError::Stale { answered: 1, outstanding: Some(2) })
    ));
    // TR_1 ends while the offer is on its way.
    offerer.remove(&track("TR_1"));
    offerer.handle_answer(&client_answer(&second.sdp).to_string(), 2).expect("answer");
    let agreed = offerer.agreed().expect("agreed");
    assert_eq!(agreed.sections[0].send, None);
    assert_eq!(agreed.sections[1].send, Some(SendStream { track: track("TR_2"), ssrc: 50, rtx_ssrc: 1050 }));
    assert!(agreed.sections[1].codecs.iter().all(|codec| codec.rtx.is_some() && codec.transport_cc));
    assert_eq!(agreed.sections[1].extensions.id(ExtensionKind::TransportCc), Some(3));

    offerer.add(audio("TR_3"));
    let third = offerer.poll_offer().expect("TR_1 leaves, TR_3 comes");
    assert_eq!(third.mids, [("2".to_owned(), track("TR_2")), ("3".to_owned(), track("TR_3"))]);
    assert!(section(&third.sdp, 1).contains("a=inactive"));
    // Who began stays who began.
    let passive = client_answer(&third.sdp).to_string().replace("a=setup:active", "a=setup:passive");
    offerer.handle_answer(&passive, 3).expect("answer");
    assert_eq!(offerer.agreed().map(|agreed| agreed.remote.role), Some(DtlsRole::Server));

    offerer.add(audio("TR_4"));
    let fourth = offerer.poll_offer().expect("TR_4 takes the free section");
    assert_eq!(fourth.mids[0], ("1".to_owned(), track("TR_4")));
    assert_eq!(fourth.sdp.matches("m=").count(), 4);
    assert!(fourth.sdp.contains("a=msid:PA_pub|TR_4 TR_4"), "a browser goes on calling it TR_1");
    offerer.handle_answer(&client_answer(&fourth.sdp).to_string(), 4).expect("answer");
    assert_eq!(offerer.poll_offer(), None);
}

#[test]
fn server_restarts_ice_by_replacing_the_outstanding_offer() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    let first = offerer.poll_offer().expect("offer");
    offerer.restart_ice(ice(2));
    let second = offerer.poll_offer().expect("restart");
    assert!(second.sdp.contains("a=ice-ufrag:ufrag2"));
    assert!(offerer.handle_answer(&client_answer(&first.sdp).to_string(), 1).is_err());
    offerer.handle_answer(&client_answer(&second.sdp).to_string(), 2).expect("answer");
    assert_eq!(offerer.agreed().map(|agreed| agreed.local_ice.clone()), Some(ice(2)));
}

#[test]
fn a_track_the_client_rejects_is_not_offered_again_but_its_section_is_reused() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    offerer.add(video("TR_1"));
    let first = offerer.poll_offer().expect("offer");
    let mut answer = client_answer(&first.sdp);
    answer.media[1].port = 0;
    answer.bundle.pop();
    offerer.handle_answer(&answer.to_string(), 1).expect("answer");
    assert_eq!(offerer.agreed().map(|agreed| agreed.sections.len()), Some(0));
    assert_eq!(offerer.poll_offer(), None);

    offerer.remove(&track("TR_1"));
    offerer.add(video("TR_2"));
    let second = offerer.poll_offer().expect("offer");
    assert_eq!(second.mids, [("2".to_owned(), track("TR_2"))]);
    assert_eq!(second.sdp.matches("m=").count(), 2);
    offerer.handle_answer(&client_answer(&second.sdp).to_string(), 2).expect("answer");
    assert!(offerer.agreed().is_some_and(|agreed| agreed.sections[0].send.is_some()));
}

/// Seen with webrtc 0.21 and str0m 0.25: a section that had VP8 and is to have AV1 is answered with VP8.
#[test]
fn a_section_keeps_its_codec_while_there_is_room_for_another() {
    let of = |name: &str, kind: CodecKind| {
        let codecs: Vec<Codec> = codecs_of(CHROMIUM_SIMULCAST, "1").into_iter().filter(|codec| codec.kind == kind).collect();
        outgoing(name, Kind::Video, &codecs)
    };
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    let next = |offerer: &mut Offerer, add: Option<Outgoing>, remove: &str| {
        offerer.remove(&track(remove));
        offerer.add(add.unwrap_or_else(|| audio("TR_a")));
        let offer = offerer.poll_offer().expect("a change");
        offerer.handle_answer(&client_answer(&offer.sdp).to_string(), offer.id).expect("answer");
        offer.mids
    };
    let on = |mid: &str, name: &str| (mid.to_owned(), track(name));
    assert_eq!(next(&mut offerer, Some(of("TR_1", CodecKind::Vp8)), "TR_0"), [on("1", "TR_1")]);
    // What leaves is on its section until the answer; another sound makes one more offer.
    next(&mut offerer, None, "TR_1");
    assert_eq!(next(&mut offerer, Some(of("TR_2", CodecKind::Av1)), "TR_a"), [on("3", "TR_2")]);
    assert_eq!(next(&mut offerer, Some(of("TR_3", CodecKind::Vp8)), "TR_0"), [on("1", "TR_3"), on("3", "TR_2")]);

    // Where there is no room, any section is better than none.
    for number in 4..limits::SDP_MEDIA_MAX {
        offerer.add(of(&format!("TR_{number}"), CodecKind::Vp8));
    }
    let full = next(&mut offerer, Some(audio("TR_b")), "TR_0");
    assert_eq!(full.len(), limits::SDP_MEDIA_MAX - 1);
    next(&mut offerer, None, "TR_9");
    let last = next(&mut offerer, Some(of("TR_last", CodecKind::Av1)), "TR_0");
    assert!(last.contains(&(full.iter().find(|(_, name)| *name == track("TR_9")).expect("was there").0.clone(), track("TR_last"))));
}

#[test]
fn answers_that_do_not_fit_leave_the_offer_outstanding() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    offerer.add(audio("TR_1"));
    let offer = offerer.poll_offer().expect("offer");
    let good = client_answer(&offer.sdp);
    let broken = |change: fn(&mut sdp::Description)| {
        let mut answer = good.clone();
        change(&mut answer);
        answer.to_string()
    };
    for answer in [
        broken(|answer| answer.media.truncate(1)),
        broken(|answer| answer.media[0].port = 0),
        broken(|answer| answer.media[1].mid = "7".to_owned()),
        broken(|answer| answer.media[1].kind = MediaKind::Video),
        broken(|answer| answer.media.iter_mut().for_each(|media| media.transport.setup = Some(Setup::ActPass))),
        String::new(),
    ] {
        assert!(offerer.handle_answer(&answer, 1).is_err());
        assert!(offerer.agreed().is_none());
    }
    offerer.handle_answer(&good.to_string(), 0).expect("unnumbered answers fit");
}

#[test]
fn payload_types_keep_their_meaning_for_ever() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    let mut stereo = audio("TR_s");
    stereo.stereo = true;
    offerer.add(audio("TR_m"));
    offerer.add(stereo);
    offerer.add(video("TR_v"));
    let offer = offerer.poll_offer().expect("offer");
    let text = sdp::parse(&offer.sdp).expect("offer");
    let mut meanings = std::collections::HashMap::new();
    for codec in text.media.iter().flat_map(|media| &media.codecs) {
        let meaning = (codec.name.clone(), codec.fmtp.clone());
        assert_eq!(meanings.entry(codec.payload_type).or_insert_with(|| meaning.clone()), &meaning);
        assert!(!(64..96).contains(&codec.payload_type), "RTCP's range");
    }
    assert!(text.media[2].codecs[0].fmtp.contains("stereo=1"));
    assert!(!text.media[1].codecs[0].fmtp.contains("stereo=1"));
}

/// A section of one codec in so many variants.
fn variants(kind: CodecKind, count: usize, fmtp: impl Fn(usize) -> String) -> Vec<Codec> {
    let codec = |n| Codec { kind, payload_type: 35, rtx: None, red: None, fmtp: fmtp(n), nack: true, pli: true, transport_cc: true };
    (0..count).map(codec).collect()
}

#[test]
fn no_publisher_uses_up_the_payload_types_of_others() {
    let mut offerer = Offerer::new(settings(), 5, ice(1));
    let profile = |n: usize| format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={:06x}", 0x10_00_00 + n * 0x01_01_07);
    offerer.add(outgoing("TR_1", Kind::Video, &variants(CodecKind::H264, 64, profile)));
    let tier = |n: usize| format!("level-idx={};profile=0;tier={}", n / 2, n % 2);
    offerer.add(outgoing("TR_2", Kind::Video, &variants(CodecKind::Av1, 64, tier)));
    let rest = [audio("TR_3"), video("TR_4")];
    rest.clone().into_iter().for_each(|track| offerer.add(track));
    let offer = offerer.poll_offer().expect("an offer");
    assert_eq!(offer.mids.len(), 4, "{:?}", offer.mids);
    let text = sdp::parse(&offer.sdp).expect("our own");
    assert_eq!(codecs::known(&text.media[3])[0].kind, CodecKind::Opus);
    let all = codecs::known(&text.media[4]);
    for codec in &rest[1].codecs {
        let taken = matching(&all, codec).expect("its kind");
        assert!(taken.kind != CodecKind::H264 || codecs::variant(taken) == codecs::variant(codec), "{taken:?}");
    }
    // One number, one meaning, whatever a publisher says of it.
    let mut meanings = std::collections::HashMap::new();
    for codec in text.media.iter().flat_map(|media| &media.codecs) {
        let meaning = (codec.name.clone(), codec.fmtp.clone());
        assert_eq!(meanings.entry(codec.payload_type).or_insert_with(|| meaning.clone()), &meaning);
    }
}

#[test]
fn a_track_without_a_number_is_refused_and_not_forgotten() {
    let mut offerer = mutual();
    // The client takes all numbers for itself.
    let mut offer = sdp::parse(&whole_offer(&data_offer())).expect("an offer");
    let vp8 =
        sdp::Codec { payload_type: 0, name: "VP8".to_owned(), clock_rate: 90_000, channels: 1, fmtp: String::new(), feedback: Vec::new() };
    offer.media.remove(1);
    offer.media[1].codecs = (96..=127).chain(35..=63).map(|payload_type| sdp::Codec { payload_type, ..vp8.clone() }).collect();
    offer.bundle.remove(1);
    offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("answer");
    let offer = offerer.poll_offer().expect("an offer");
    assert!(offer.mids.is_empty(), "{}", offer.sdp);
    assert!(offerer.refuses(&track("TR_a")));
    offerer.remove(&track("TR_a"));
    assert!(!offerer.refuses(&track("TR_a")));
}

const CODECS: &[CodecKind] = &[CodecKind::Opus, CodecKind::Vp8, CodecKind::Av1];

/// The data section of a browser's first offer, alone.
fn data_offer() -> String {
    let mut offer = sdp::parse(CHROMIUM_SIMULCAST).expect("a fixture");
    offer.media.rotate_right(1);
    offer.media.truncate(1);
    offer.bundle = vec![offer.media[0].mid.clone()];
    assert_eq!(offer.media[0].kind, MediaKind::Application);
    offer.to_string()
}

/// The same browser's offer of everything: the data section first, then what stands, then its own microphone and camera.
fn whole_offer(standing: &str) -> String {
    let (mut offer, ours) = (sdp::parse(CHROMIUM_SIMULCAST).expect("a fixture"), client_answer(standing));
    offer.media.rotate_right(1);
    let own = offer.media.split_off(1);
    offer.media.extend(ours.media.into_iter().skip(1));
    offer.media.extend(own);
    for (at, media) in offer.media.iter_mut().enumerate() {
        media.transport = sdp::parse(CHROMIUM_SIMULCAST).expect("a fixture").media[0].transport.clone();
        media.transport.setup = Some(Setup::ActPass);
        if at == 0 {
            media.mid = "2".to_owned();
        }
    }
    offer.bundle = offer.media.iter().filter(|media| !media.rejected()).map(|media| media.mid.clone()).collect();
    offer.to_string()
}

fn mutual() -> Offerer {
    let mut offerer = Offerer::mutual(settings(), 7, ice(1), CODECS);
    offerer.add(audio("TR_a"));
    assert_eq!(offerer.poll_offer(), None, "the client begins");
    let answer = offerer.handle_offer(&data_offer(), &mut Counter(1)).expect("answer");
    assert_eq!(sdp::parse(&answer.sdp).expect("our own").media.len(), 1);
    offerer
}

#[test]
fn both_offer_and_numbers_keep_their_meaning() {
    let mut offerer = mutual();
    offerer.add(video("TR_v"));
    let offer = offerer.poll_offer().expect("an offer");
    assert!(offer.sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"), "{}", offer.sdp);
    assert!(offer.sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 96 97"), "{}", offer.sdp);
    assert!(offer.sdp.contains("a=msid:PA_pub TR_a\r\n") && offer.sdp.contains("cname:PA_pub\r\n"), "{}", offer.sdp);
    let mut answer = client_answer(&offer.sdp);
    for media in &mut answer.media {
        media.transport.ice_ufrag = Some("qp5j".to_owned());
        media.transport.fingerprints = sdp::parse(CHROMIUM_SIMULCAST).expect("a fixture").media[0].transport.fingerprints.clone();
        media.transport.ice_pwd = sdp::parse(CHROMIUM_SIMULCAST).expect("a fixture").media[0].transport.ice_pwd.clone();
    }
    offerer.handle_answer(&answer.to_string(), 0).expect("agreed");
    assert_eq!(offerer.agreed().expect("agreed").sections.iter().filter(|section| section.send.is_some()).count(), 2);

    let answer = offerer.handle_offer(&whole_offer(&offer.sdp), &mut Counter(1)).expect("answer");
    assert!(!answer.ice_restarted);
    assert_eq!(answer.mids, offer.mids, "what we send stays where it is");
    let text = sdp::parse(&answer.sdp).expect("our own");
    assert_eq!(text.media.len(), 5);
    assert_eq!((text.media[1].direction, text.media[3].direction), (Direction::SendOnly, Direction::RecvOnly));
    assert_eq!(text.media[4].simulcast.recv, ["q", "h", "f"]);
    assert!(!answer.sdp.contains("H264") && !answer.sdp.contains("VP9"), "only what was asked for: {}", answer.sdp);
    let sections = &offerer.agreed().expect("agreed").sections;
    let received: Vec<&str> = sections.iter().filter_map(|section| Some(section.receive.as_ref()?.cid.as_str())).collect();
    assert_eq!(received, ["0", "1"], "known by their mids");

    // One number, one meaning, in every section of our next offer; what the client sends is offered to be taken on.
    offerer.add(audio("TR_b"));
    let offer = offerer.poll_offer().expect("an offer");
    let text = sdp::parse(&offer.sdp).expect("our own");
    let mut meanings = std::collections::HashMap::new();
    let mut ids = std::collections::HashMap::new();
    for media in &text.media {
        for codec in &media.codecs {
            let meaning = (codec.name.clone(), codec.clock_rate, codec.fmtp.clone());
            assert_eq!(meanings.entry(codec.payload_type).or_insert_with(|| meaning.clone()), &meaning, "{}", codec.payload_type);
        }
        for extension in &media.extensions {
            assert_eq!(ids.entry(extension.id).or_insert_with(|| extension.uri.clone()), &extension.uri);
        }
    }
    assert_eq!((text.media[3].direction, text.media[4].simulcast.recv.len()), (Direction::RecvOnly, 3));
    assert_eq!(text.media[5].direction, Direction::SendOnly);
}

#[test]
fn an_offer_of_the_client_that_cannot_be_taken_changes_nothing() {
    let mut offerer = mutual();
    let offer = offerer.poll_offer().expect("an offer");
    let before = offerer.agreed().cloned();
    assert_eq!(offerer.handle_offer(&data_offer(), &mut Counter(9)), Err(NegotiateError::Glare));
    assert_eq!((offerer.agreed().cloned(), offerer.resend()), (before, Some(offer)));
    assert!(!offerer.hold(true), "ours is under way");

    let mut fresh = Offerer::mutual(settings(), 7, ice(1), CODECS);
    let error = fresh.handle_offer(CHROMIUM_SIMULCAST, &mut Counter(9)).expect_err("media first");
    assert!(error.to_string().contains("data channel before the first offer"), "{error}");
    assert!(fresh.agreed().is_none() && fresh.hold(true));
}

#[test]
fn a_section_without_anything_known_is_refused_and_stays_a_section() {
    let mut offerer = Offerer::mutual(settings(), 7, ice(1), &[CodecKind::Opus]);
    offerer.handle_offer(&data_offer(), &mut Counter(1)).expect("answer");
    let answer = offerer.handle_offer(&whole_offer(&data_offer()), &mut Counter(1)).expect("answer");
    let text = sdp::parse(&answer.sdp).expect("our own");
    assert_eq!(text.media.iter().map(|media| media.rejected()).collect::<Vec<_>>(), [false, false, true]);
    offerer.add(audio("TR_a"));
    let offer = sdp::parse(&offerer.poll_offer().expect("an offer").sdp).expect("our own");
    assert_eq!(offer.media.iter().map(|media| media.rejected()).collect::<Vec<_>>(), [false, false, true, false]);
    assert!(offer.media.iter().skip(1).all(|media| !media.codecs.is_empty()), "a list without any format is no SDP");
}

#[test]
fn a_recycled_section_that_is_refused_does_not_spoil_later_offers() {
    let mut offerer = mutual();
    let mut offer = sdp::parse(&whole_offer(&data_offer())).expect("an offer");
    offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("answer");
    // The camera is stopped, and its section taken up again: for sound in a codec that we do not know, then for something unheard of.
    for (mid, line) in [("7", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"), ("8", "m=text 9 UDP/TLS/RTP/SAVPF 0\r\n")] {
        let stopped = offer.media.len() - 1;
        offer.media[stopped].port = 0;
        offer.bundle.retain(|bundled| *bundled != offer.media[stopped].mid);
        offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("stopped");
        offer.media[stopped] = sdp::Media {
            kind: if line.starts_with("m=audio") { MediaKind::Audio } else { MediaKind::Other },
            port: 9,
            mid: mid.to_owned(),
            codecs: Vec::new(),
            ..offer.media[stopped].clone()
        };
        offer.bundle.push(mid.to_owned());
        assert!(offer.to_string().contains(line), "{offer}");
        let answer = offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("answer");
        assert!(sdp::parse(&answer.sdp).expect("our own").media[stopped].rejected());
        offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("the same once more");
        offer.media[stopped].port = 0;
        offer.bundle.pop();
        offerer.handle_offer(&offer.to_string(), &mut Counter(1)).expect("as the answer left it");
    }
    let ours = offerer.poll_offer().expect("an offer");
    assert_eq!(sdp::parse(&ours.sdp).expect("our own").media[offer.media.len() - 1].kind, MediaKind::Other);
}
