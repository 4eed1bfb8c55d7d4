//! Frames that livekit-client's own worker encrypted (`tests/sealed/make.mjs`), cut into packets as browsers do, opened and put together again.

use archive::manifest::{Encryption, TrackInfo};
use proptest::prelude::*;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::*;
use crate::render::depacket::Depacketiser;

const VECTORS: &str = include_str!("../../../tests/sealed/vectors.json");

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    codec: String,
    key_index: u8,
    ratchet: usize,
    key_bits: u32,
    salt: String,
    passphrase: Option<String>,
    raw: Option<String>,
    plain: String,
    sealed: String,
}

impl Vector {
    fn all() -> Vec<Self> {
        serde_json::from_str::<Vectors>(VECTORS).unwrap().vectors
    }

    fn plain(&self) -> Vec<u8> {
        hex::decode(&self.plain).unwrap()
    }

    fn sealed(&self) -> Vec<u8> {
        hex::decode(&self.sealed).unwrap()
    }

    fn codec(&self) -> Option<Codec> {
        Codec::from_mime(&format!("video/{}", self.codec))
    }

    fn granted(&self, of: &str) -> Event {
        let (derivation, material) = match (&self.passphrase, &self.raw) {
            (Some(text), _) => (Derivation::Pbkdf2, text.as_bytes().to_vec()),
            (None, raw) => (Derivation::Hkdf, hex::decode(raw.as_ref().unwrap()).unwrap()),
        };
        let secret = Secret {
            derivation,
            material: Zeroizing::new(material),
            salt: self.salt.clone().into_bytes(),
            bits: self.key_bits,
            ratchet_window: if self.ratchet > 0 { 8 } else { 0 },
        };
        key_event(of, self.key_index, Some(secret))
    }

    /// Its track and its frame's packets of at most so many bytes.
    fn packets(&self, mtu: usize, seq: u64) -> Vec<Packet> {
        let frame = self.sealed();
        let payloads = match self.codec() {
            None => vec![frame],
            Some(Codec::Vp8) => cut(&frame, mtu - 1, |n, _| vec![if n == 0 { 0x10 } else { 0 }]),
            Some(Codec::Vp9) => cut(&frame, mtu - 1, |n, last| vec![if n == 0 { 0x08 } else { 0 } | if last { 0x04 } else { 0 }]),
            Some(_) => units(&frame, mtu),
        };
        let last = payloads.len() - 1;
        let packet = |(n, payload): (usize, Vec<u8>)| Packet {
            at_us: (seq as i64 + n as i64) * 10_000,
            seq: seq + n as u64,
            timestamp: 90_000 + seq,
            marker: n == last,
            key_frame: n == 0,
            audio_level: 255,
            payload: payload.into(),
        };
        payloads.into_iter().enumerate().map(packet).collect()
    }
}

fn key_event(of: &str, index: u8, secret: Option<Secret>) -> Event {
    let key = KeyName { by: "ann".into(), of: of.into(), index };
    Event::MediaKey { at_us: 0, key, secret, by_name: "Ann".into(), at_ms: 1 }
}

fn cut(frame: &[u8], room: usize, head: impl Fn(usize, bool) -> Vec<u8>) -> Vec<Vec<u8>> {
    let count = frame.len().div_ceil(room);
    frame.chunks(room).enumerate().map(|(n, share)| [head(n, n + 1 == count), share.to_vec()].concat()).collect()
}

/// H.264 as libwebrtc sends it: what fits together in a STAP-A, what does not fit at all in FU-A.
fn units(stream: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let starts: Vec<usize> = (0..stream.len() - 3).filter(|at| stream[*at..*at + 4] == [0, 0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let units: Vec<&[u8]> = starts.iter().zip(ends).map(|(start, end)| &stream[start + 4..end]).collect();
    let (slice, sets) = units.split_last().unwrap();
    let aggregate = |units: &[&[u8]]| {
        units.iter().fold(vec![0x78], |mut all, unit| {
            all.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            all.extend_from_slice(unit);
            all
        })
    };
    if stream.len() < mtu {
        return vec![if sets.is_empty() { slice.to_vec() } else { aggregate(&units) }];
    }
    let head = |n, last| {
        let flags = if n == 0 { 0x80 } else { 0 } | if last { 0x40 } else { 0 };
        vec![slice[0] & 0xe0 | 28, slice[0] & 0x1f | flags]
    };
    let fragments = cut(&slice[1..], mtu - 2, head);
    (!sets.is_empty()).then(|| aggregate(sets)).into_iter().chain(fragments).collect()
}

fn track(codec: Option<Codec>, encryption: Encryption) -> Event {
    let (kind, mime) = match codec {
        None => ("audio", "audio/opus".to_owned()),
        Some(codec) => ("video", format!("video/{codec:?}")),
    };
    let info = TrackInfo { track_sid: "TR".into(), identity: "bob".into(), kind: kind.into(), mime, encryption, ..TrackInfo::default() };
    Event::Track { at_us: 0, info }
}

fn given(events: &[Event]) -> Vec<Packet> {
    let packets = |event: &Event| if let Event::Packets { packets, .. } = event { packets.clone() } else { Vec::new() };
    events.iter().flat_map(packets).collect()
}

fn tell(opener: &mut Opener, packets: Vec<Packet>) -> Vec<Event> {
    opener.handle(Event::Packets { track_sid: "TR".into(), packets })
}

/// A stream of H.264 with long start codes everywhere.
fn normal(stream: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (n, byte) in stream.iter().enumerate() {
        if *byte == 1 && n >= 2 && stream[n - 2..n] == [0, 0] && (n < 3 || stream[n - 3] != 0) {
            out.push(0);
        }
        out.push(*byte);
    }
    out
}

#[test]
fn what_livekits_client_encrypted_comes_out_as_it_went_in() {
    for vector in Vector::all() {
        for mtu in [60, 120, 333, 1_180, 4_000] {
            let mut opener = Opener::default();
            opener.handle(track(vector.codec(), Encryption::Gcm));
            let note = opener.handle(vector.granted(""));
            assert!(
                matches!(&note[..], [Event::MediaKeyNote { note, .. }] if note.granted && note.identity == "ann" && note.of.is_empty())
            );
            let sent = vector.packets(mtu, 7);
            let packets = given(&tell(&mut opener, sent.clone()));
            let numbers = |packets: &[Packet]| packets.iter().map(|packet| packet.seq).collect::<Vec<_>>();
            assert_eq!(numbers(&packets), numbers(&sent), "{} at {mtu}", vector.name);
            assert_eq!(packets.iter().filter(|packet| packet.marker).count(), 1);
            let Some(codec) = vector.codec() else {
                assert_eq!(packets[0].payload, vector.plain(), "{}", vector.name);
                continue;
            };
            let mut whole = Depacketiser::new(codec);
            // The pictures of these vectors are none: where one has to begin is decided by what is in clear.
            let frames: Vec<_> = packets.iter().filter_map(|packet| whole.handle_packet(packet)).collect();
            if frames.is_empty() {
                assert!(vector.name.contains("delta"), "{} at {mtu}", vector.name);
                let mut parts = Vec::new();
                for packet in packets.iter().filter(|packet| !packet.payload.is_empty()) {
                    codec.add(&packet.payload, &mut parts).unwrap();
                }
                let start: &[u8] = if codec == Codec::H264 { &[0, 0, 0, 1] } else { &[] };
                assert_eq!([start, &parts.concat()].concat(), vector.plain(), "{} at {mtu}", vector.name);
                continue;
            }
            assert_eq!(whole.dropped, 0);
            let plain = if codec == Codec::H264 { normal(&vector.plain()) } else { vector.plain() };
            let stream = frames[0].parts.concat();
            let stream = if codec == Codec::H264 { normal(&stream) } else { stream };
            assert_eq!(stream, plain, "{} at {mtu}", vector.name);
        }
    }
}

#[test]
fn without_the_right_key_media_is_left_out_and_told_as_missing() {
    let vectors = Vector::all();
    let (sound, other) = (&vectors[0], &vectors[7]);
    let mut opener = Opener::default();
    opener.handle(track(None, Encryption::Gcm));
    // A key of another index, and one of somebody else.
    opener.handle(other.granted(""));
    opener.handle(sound.granted("carol"));
    let mut wrong = sound.granted("");
    if let Event::MediaKey { secret: Some(secret), .. } = &mut wrong {
        secret.material = Zeroizing::new(b"not this one".to_vec());
    }
    opener.handle(wrong);
    for seq in 0..40 {
        assert!(tell(&mut opener, sound.packets(1_200, seq)).is_empty(), "told together");
    }
    let ended = opener.handle(Event::TrackEnded { track_sid: "TR".into(), at_us: 400_000 });
    assert!(
        matches!(&ended[..], [Event::Gap { from_seq: 0, packets: 40, reason: GapReason::Encrypted, .. }, Event::TrackEnded { .. }]),
        "{ended:?}"
    );
}

#[test]
fn a_grant_holds_from_its_moment_until_it_is_taken_back() {
    let vector = &Vector::all()[1];
    let mut opener = Opener::default();
    opener.handle(track(vector.codec(), Encryption::Gcm));
    assert!(tell(&mut opener, vector.packets(1_180, 0)).is_empty());
    assert!(opener.poll_key_frames().is_empty(), "none helps without a key");
    opener.handle(vector.granted("bob"));
    assert_eq!(opener.poll_key_frames(), ["TR"], "the picture begins anew");
    let events = tell(&mut opener, vector.packets(1_180, 10));
    assert!(matches!(events[0], Event::Gap { from_seq: 0, packets: 3, reason: GapReason::Encrypted, .. }), "{events:?}");
    assert_eq!(given(&events).len(), 3);
    // Told again after the tap broke; before that nothing is opened.
    opener.handle(Event::Opened);
    assert!(given(&tell(&mut opener, vector.packets(1_180, 20))).is_empty());
    assert_eq!(opener.poll_key_frames(), ["TR"]);
    opener.handle(vector.granted("bob"));
    assert_eq!(given(&tell(&mut opener, vector.packets(1_180, 30))).len(), 3);
    opener.handle(key_event("bob", 0, None));
    assert!(given(&tell(&mut opener, vector.packets(1_180, 40))).is_empty());
    assert!(matches!(&opener.handle_end()[..], [Event::Gap { from_seq: 40, packets: 3, .. }]));
}

#[test]
fn what_nobody_can_open_stays_outside_and_what_is_in_clear_passes() {
    let vectors = Vector::all();
    for (codec, encryption) in [(None, Encryption::Custom), (Some(Codec::Av1), Encryption::Gcm)] {
        let mut opener = Opener::default();
        opener.handle(track(codec, encryption));
        opener.handle(vectors[0].granted(""));
        assert!(tell(&mut opener, vectors[0].packets(1_200, 0)).is_empty());
        assert_eq!(opener.handle_end().len(), 1);
    }
    let mut opener = Opener::default();
    opener.handle(track(None, Encryption::None));
    opener.handle(vectors[0].granted(""));
    let clear = vectors[0].packets(1_200, 0);
    assert_eq!(given(&tell(&mut opener, clear.clone())), clear);
}

#[test]
fn a_packet_that_is_lost_costs_its_frame_only() {
    let vector = &Vector::all()[4];
    let mut opener = Opener::default();
    opener.handle(track(vector.codec(), Encryption::Gcm));
    opener.handle(vector.granted(""));
    let mut torn = vector.packets(500, 0);
    let count = torn.len() as u64;
    torn.remove(2);
    assert!(given(&tell(&mut opener, torn)).is_empty());
    let events = tell(&mut opener, vector.packets(500, count));
    assert!(matches!(events[0], Event::Gap { from_seq: 0, reason: GapReason::Encrypted, .. }), "{events:?}");
    assert_eq!(given(&events).len() as u64, count);
    // Nor is one opened of which a bit in clear was changed.
    let mut changed = vector.packets(500, count * 2);
    let mut payload = changed[0].payload.to_vec();
    payload[4] ^= 1;
    changed[0].payload = payload.into();
    assert!(given(&tell(&mut opener, changed)).is_empty());
}

#[test]
fn grants_cannot_make_the_recording_derive_keys_without_end() {
    let vector = &Vector::all()[0];
    let mut keys = Keys::default();
    let sealed = vector.sealed();
    let frame = Sealed::split(&sealed[..1], &sealed[1..]).unwrap();
    for n in 0..200_u32 {
        let secret = Secret {
            derivation: Derivation::Hkdf,
            material: Zeroizing::new(n.to_be_bytes().to_vec()),
            salt: Vec::new(),
            bits: 128,
            ratchet_window: 16,
        };
        keys.handle_granted(KeyName { by: n.to_string(), of: String::new(), index: 0 }, secret);
    }
    for at_us in [0, 1, 2] {
        assert!(keys.open("bob", at_us, &frame).is_none());
    }
    assert_eq!(keys.derived(), crate::limits::MEDIA_KEY_DERIVATIONS as usize);
    assert!(keys.open("bob", 10 * crate::limits::MEDIA_KEY_DERIVATION_US, &frame).is_none());
    assert_eq!(keys.derived(), crate::limits::MEDIA_KEY_DERIVATIONS as usize + 10);
}

proptest! {
    #[test]
    fn no_packets_make_it_panic_or_give_out_what_no_key_opened(
        codec in prop::sample::select(vec![None, Some(Codec::Vp8), Some(Codec::Vp9), Some(Codec::H264), Some(Codec::Av1)]),
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), 0_u64..3, 0_u64..2, any::<bool>()), 0..60),
        which in 0..7_usize,
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let vector = &Vector::all()[which];
        let mut opener = Opener::default();
        opener.handle(track(codec, Encryption::Gcm));
        opener.handle(vector.granted(""));
        let (mut seq, mut timestamp) = (0, 0);
        for (payload, jump, later, marker) in packets {
            seq += 1 + jump / 2;
            timestamp += later;
            let packet = Packet { at_us: seq as i64, seq, timestamp, marker, key_frame: false, audio_level: 0, payload: payload.into() };
            prop_assert!(given(&tell(&mut opener, vec![packet])).iter().all(|packet| packet.payload.is_empty()));
        }
        // A true frame with one byte changed somewhere.
        opener.handle(track(vector.codec(), Encryption::Gcm));
        let mut bent = vector.packets(200, 1_000);
        let n = at.index(bent.len());
        let mut payload = bent[n].payload.to_vec();
        let byte = at.index(payload.len());
        payload[byte] ^= flip;
        bent[n].payload = payload.into();
        for packet in given(&tell(&mut opener, bent)) {
            // Descriptors are nobody's secret: only what they say of their frame may differ.
            prop_assert!(packet.payload.len() <= 200);
        }
        opener.handle_end();
    }
}
