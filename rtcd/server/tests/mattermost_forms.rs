//! MessagePack on `/ws`, byte by byte: forms that are taken, and the one that is sent.

#![cfg(test)]

mod common;

use common::mattermost::{Plugin, Site, message, pair, text};
use rmpv::Value;
use serde_json::json;

/// The data channel alone, as every client's first offer.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=setup:actpass\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// How a value is written; each holds the same.
type Write = fn(&[u8]) -> Vec<u8>;

fn head(marker: u8, len: &[u8], bytes: &[u8]) -> Vec<u8> {
    [&[marker], len, bytes].concat()
}

fn short(bytes: &[u8]) -> u8 {
    bytes.len().try_into().expect("short")
}

fn word(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_be_bytes()
}

fn long(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("short").to_be_bytes()
}

/// Names and texts: chapter 3.2 of the contract.
const TEXTS: [Write; 7] = [
    |bytes| head(0xa0 | short(bytes), &[], bytes),
    |bytes| head(0xd9, &[short(bytes)], bytes),
    |bytes| head(0xda, &word(bytes), bytes),
    |bytes| head(0xdb, &long(bytes), bytes),
    |bytes| head(0xc4, &[short(bytes)], bytes),
    |bytes| head(0xc5, &word(bytes), bytes),
    |bytes| head(0xc6, &long(bytes), bytes),
];

/// The number 2, in every width, signed and unsigned.
const TWOS: [&[u8]; 9] = [
    &[2],
    &[0xcc, 2],
    &[0xcd, 0, 2],
    &[0xce, 0, 0, 0, 2],
    &[0xcf, 0, 0, 0, 0, 0, 0, 0, 2],
    &[0xd0, 2],
    &[0xd1, 0, 2],
    &[0xd2, 0, 0, 0, 2],
    &[0xd3, 0, 0, 0, 0, 0, 0, 0, 2],
];

/// Descriptions, longer than a byte says.
const DATA: [Write; 4] = [
    |bytes| head(0xc5, &word(bytes), bytes),
    |bytes| head(0xc6, &long(bytes), bytes),
    |bytes| head(0xda, &word(bytes), bytes),
    |bytes| head(0xdb, &long(bytes), bytes),
];

/// The heads of a map of five.
const MAPS: [&[u8]; 3] = [&[0x85], &[0xde, 0, 5], &[0xdf, 0, 0, 0, 5]];

/// A join and an offer whose values are written in the forms of this number, keys in another order than the plugin's and one that nobody
/// knows among them.
fn frames(session: &str, form: usize) -> [Vec<u8>; 2] {
    let text = |offset: usize, value: &str| TEXTS[(form + offset) % TEXTS.len()](value.as_bytes());
    let map = MAPS[form % MAPS.len()];
    let nobodys = [text(5, "nobodys"), vec![0x82, 0xa1, b'a', 0x93, 1, 0xc0, 0xc3, 0xa1, b'b', 0xcb, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let pairs = [("sessionID", session), ("callID", "call"), ("userID", "user"), ("groupID", "another's")];
    let pairs = pairs.into_iter().enumerate().map(|(at, (key, value))| [text(at, key), text(at + 1, value)].concat());
    let join = [vec![text(0, "join"), map.to_vec()], pairs.collect(), vec![nobodys.clone()]].concat().concat();
    let offer = json!({ "type": "offer", "sdp": OFFER }).to_string();
    let rtc = [
        text(1, "rtc"),
        map.to_vec(),
        [text(2, "data"), DATA[form % DATA.len()](offer.as_bytes())].concat(),
        [text(3, "type"), TWOS[form % TWOS.len()].to_vec()].concat(),
        nobodys,
        [text(4, "group_id"), text(6, "default")].concat(),
        [text(5, "session_id"), text(0, session)].concat(),
        // After the two values comes nothing that counts.
        vec![0xc1, 0xff],
    ];
    [join, rtc.concat()]
}

/// Row 12. What is not understood gets no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_any_form_of_messagepack_is_answered_in_the_one_of_the_original() {
    let site = Site::registered().await;
    let mut plugin: Plugin = site.connect("a").await;
    // Every form of each value is among them, and every pair of a text's form and a number's.
    for form in 0..TEXTS.len() * TWOS.len() {
        let session = format!("session{form}");
        for frame in frames(&session, form) {
            plugin.send_bytes(frame).await;
        }
        let frame = plugin.next_bytes().await.expect("an answer");
        let (kind, data) = message(&frame);
        assert_eq!((kind.as_str(), text(&data, "session_id")), ("rtc", &*session));
        let sdp = data.as_map().and_then(|map| map.last()).and_then(|(_, data)| data.as_slice()).expect("a description, at last").to_vec();
        assert!(sdp.starts_with(br#"{"#) && String::from_utf8_lossy(&sdp).contains(r#""type":"answer""#));
        // The encoder of the tests writes each value as short as it gets; the order is the contract's.
        let mut fields = vec![pair("group_id", "a"), pair("user_id", "user"), pair("session_id", &session), pair("call_id", "call")];
        fields.extend([("type".into(), 2.into()), ("data".into(), Value::Binary(sdp))]);
        let mut expected = Vec::new();
        for value in ["rtc".into(), Value::Map(fields)] {
            rmpv::encode::write_value(&mut expected, &value).expect("memory");
        }
        assert_eq!(frame, expected, "form {form}");
        plugin.send("leave", Value::Map(vec![pair("sessionID", &session)])).await;
        let (kind, data) = plugin.next().await.expect("a close");
        assert_eq!((kind.as_str(), text(&data, "sessionID")), ("close", &*session));
    }
}
