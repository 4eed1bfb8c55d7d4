//! What a Mattermost client's stack and the node agree on below media: DTLS, formats, feedback, repeats.

#![cfg(test)]

mod common;

use common::mattermost::Site;
use common::page::{Able, Page, SCREEN_ON, Seen, sections, sending};
use serde_json::json;
use str0m::format::Codec;
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;

const VOICE: std::ops::Range<u32> = 1_000_000..2_000_000;
const SCREEN: std::ops::Range<u32> = 2_000_000..3_000_000;

/// A page that shares its screen.
async fn sharing(site: &Site) -> Page {
    let mut page = Page::comes(site, "call", "ann", Able::default()).await;
    page.says(SCREEN_ON, &json!({ "screenStreamID": "screen" }));
    page.publishes("screen", Codec::Vp8, SCREEN.start).await;
    page
}

/// Roles that a description names.
fn roles(sdp: &str) -> Vec<&str> {
    let mut roles: Vec<&str> = sdp.lines().filter_map(|line| line.strip_prefix("a=setup:")).collect();
    roles.dedup();
    roles
}

/// The cipher suite and the SRTP profile that a ServerHello of DTLS 1.2 chooses.
fn chosen(hello: &[u8]) -> (u16, u16) {
    let word = |at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
    // Record, handshake header, version, random; a session id.
    let at = 13 + 12 + 2 + 32;
    let suite = at + 1 + usize::from(hello[at]);
    let mut extension = suite + 2 + 1 + 2;
    while word(extension) != 14 {
        extension += 4 + usize::from(word(extension + 2));
    }
    (word(suite), word(extension + 6))
}

/// Row 23.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_says_hello_and_is_given_aes_128_gcm() {
    let site = Site::registered().await;
    let mut ann = Page::offers(&site, "call", "ann", Able::default()).await;
    assert_eq!(roles(&ann.answer), ["passive"]);
    let mut first = None;
    let mut choice = None;
    ann.until("a connection", |seen| {
        if let Seen::Handshake { sent, record } = seen {
            first.get_or_insert((*sent, record[13]));
            if record[13] == 2 {
                choice = Some((*sent, chosen(record)));
            }
        }
        matches!(seen, Seen::Open).then_some(())
    })
    .await;
    assert_eq!(first, Some((true, 1)), "the ClientHello is hers");
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 (RFC 5289), SRTP_AEAD_AES_128_GCM (RFC 7714).
    assert_eq!(choice, Some((false, (0xc02b, 7))));

    // Who offers later leaves the role open, and it stays as it was.
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    ben.publishes("mic", Codec::Opus, VOICE.start).await;
    let offer = ann.offer("a voice", |sdp| sending(sdp, "voice").is_some()).await;
    assert_eq!(roles(&offer), ["actpass"]);
    ann.hears("ben", VOICE, 10).await;
}

/// The values of one attribute of a section.
fn values(section: &str, name: &str) -> Vec<String> {
    section.lines().filter_map(|line| line.strip_prefix(&format!("a={name}:"))).map(str::to_owned).collect()
}

/// What the extensions of a section are, without their numbers.
fn extensions(section: &str) -> Vec<String> {
    values(section, "extmap").iter().filter_map(|value| value.split_once(' ').map(|(_, uri)| uri.to_owned())).collect()
}

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Row 24: chapter 4.7 of the contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_codecs_mattermosts_are_taken_and_offered_with_their_numbers_extensions_and_feedback() {
    let site = Site::registered().await;
    let mut ann = sharing(&site).await;
    let answer = ann.publishes("mic", Codec::Opus, VOICE.start).await;
    // She offers PCMU, VP9 and H.264 besides.
    let taken: Vec<Vec<String>> = sections(&answer).iter().map(|section| values(section, "rtpmap")).collect();
    assert_eq!(taken, [vec![], vec!["96 VP8/90000".to_owned(), "97 rtx/90000".to_owned()], vec!["111 opus/48000/2".to_owned()]]);

    let mut av1 = Page::comes(&site, "other", "cem", Able::with_av1()).await;
    av1.says(SCREEN_ON, &json!({ "screenStreamID": "screen" }));
    av1.publishes("screen", Codec::Av1, SCREEN.start).await;
    let mut dan = Page::comes(&site, "other", "dan", Able::with_av1()).await;
    let newer = dan.offer("a screen", |sdp| sending(sdp, "screen").is_some()).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    let offer = ben.offer("both", |sdp| sending(sdp, "voice").is_some() && sending(sdp, "screen").is_some()).await;
    assert!(sections(&offer).iter().chain(&sections(&newer)).all(|section| values(section, "setup") == ["actpass"]));

    let voice = sending(&offer, "voice").expect("there");
    assert!(values(&voice, "rtpmap").contains(&"111 opus/48000/2".to_owned()), "{voice}");
    assert!(values(&voice, "fmtp").contains(&"111 minptime=10;useinbandfec=1".to_owned()), "{voice}");
    assert!(extensions(&voice).contains(&"urn:ietf:params:rtp-hdrext:ssrc-audio-level".to_owned()), "{voice}");
    for (offer, number, codec, publisher) in [(&offer, 96, "VP8", "ann"), (&newer, 45, "AV1", "cem")] {
        let screen = sending(offer, "screen").expect("there");
        let repeats = number + 1;
        assert_eq!(values(&screen, "rtpmap"), [format!("{number} {codec}/90000"), format!("{repeats} rtx/90000")]);
        assert!(values(&screen, "fmtp").contains(&format!("{repeats} apt={number}")), "{screen}");
        for feedback in ["ccm fir", "nack", "nack pli", "transport-cc"] {
            assert!(values(&screen, "rtcp-fb").contains(&format!("{number} {feedback}")), "{feedback}: {screen}");
        }
        for extension in [TRANSPORT_CC, "urn:ietf:params:rtp-hdrext:sdes:mid"] {
            assert!(extensions(&screen).contains(&extension.to_owned()), "{extension}: {screen}");
        }
        assert!(values(&screen, "msid")[0].starts_with(&format!("{publisher} screen_{publisher}_")), "{screen}");
        assert!(values(&screen, "ssrc").iter().all(|line| line.ends_with(&format!(" cname:{publisher}"))), "{screen}");
        assert!(screen.contains("a=rtcp-mux\r\n") && screen.contains("a=rtcp-rsize\r\n"), "{screen}");
    }
}

/// Row 33: counted for each transport, both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_counted_for_the_transport_and_reported_both_ways() {
    let site = Site::registered().await;
    let mut ann = sharing(&site).await;
    ann.until("the node's report of ann's packets", |seen| match seen {
        Seen::Packet(packet) => matches!(**packet, RawPacket::RtcpRx(Rtcp::Twcc(_))).then_some(()),
        _ => None,
    })
    .await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    let mut last = None;
    let mut counted = 0;
    ben.until("counted packets, and a report of them", |seen| {
        let Seen::Packet(packet) = seen else { return None };
        match &**packet {
            RawPacket::RtpRx(header, _) => {
                let number = header.ext_vals.transport_cc.expect("each has a number");
                if let Some(last) = last.replace(number) {
                    assert_eq!(number, u16::wrapping_add(last, 1), "each its own");
                }
                counted += 1;
                None
            }
            RawPacket::RtcpTx(Rtcp::Twcc(_)) => (counted > 20).then_some(()),
            _ => None,
        }
    })
    .await;
}

/// Row 34: what is lost on the way to a viewer comes again, without asking the publisher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_viewer_misses_comes_again() {
    let site = Site::registered().await;
    let mut ann = sharing(&site).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    ben.hears("the screen", SCREEN, 10).await;
    ben.loses_heard();
    let missing = ben.until("a loss", |seen| if let Seen::Lost { ssrc, seq } = seen { Some((*ssrc, *seq)) } else { None }).await;
    ben.until("the missing one", |seen| matches!(seen, Seen::Frame { ssrc, seq, .. } if (*ssrc, *seq) == missing).then_some(())).await;
    drop(ben);
    while let Ok(seen) = ann.seen.try_recv() {
        let asked = matches!(&seen, Seen::Packet(packet) if matches!(**packet, RawPacket::RtcpRx(Rtcp::Nack(_))));
        assert!(!asked, "the node has what ben misses");
    }
}

/// Row 34: what is lost on the way from a publisher is asked for, and everybody gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_misses_is_asked_for() {
    let site = Site::registered().await;
    let mut ann = sharing(&site).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    ben.hears("the screen", SCREEN, 10).await;
    ann.loses_sent();
    let seq = ann.until("a loss", |seen| if let Seen::Lost { seq, .. } = seen { Some(*seq) } else { None }).await;
    ann.until("the question", |seen| match seen {
        Seen::Packet(packet) => matches!(**packet, RawPacket::RtcpRx(Rtcp::Nack(_))).then_some(()),
        _ => None,
    })
    .await;
    let number = SCREEN.start + u32::from(seq);
    ben.hears("the missing one", number..number + 1, 1).await;
}
