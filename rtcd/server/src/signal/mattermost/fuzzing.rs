//! What the fuzz targets `mattermost_frame` and `mattermost_channel` do with arbitrary bytes; here, so that tests replay their corpora.

use bytes::Bytes;

use super::channel::{DESCRIPTION_MAX, FromClient, description, unpack};
use super::frames::{ClientMessage, ID_LEN_MAX, RtcKind, ServerMessage};
use super::msgpack::Reader;

/// A frame of the plugin's: whatever comes is a message within its bounds, or an error with a text.
pub(super) fn frame(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    match ClientMessage::decode(&frame) {
        Ok(ClientMessage::Join { call_id, user_id, session_id, channel_id, .. }) => {
            for id in [&call_id, &user_id, &session_id] {
                assert!((1..=ID_LEN_MAX).contains(&id.len()));
            }
            assert!(channel_id.is_none_or(|id| id.len() <= ID_LEN_MAX));
        }
        Ok(ClientMessage::Leave { session_id } | ClientMessage::Reconnect { session_id }) => echo(&session_id),
        Ok(ClientMessage::Rtc { session_id, kind, data }) => {
            assert!(data.len() <= frame.len() && kind != RtcKind::VoiceOn && kind != RtcKind::VoiceOff);
            let (group_id, user_id, call_id) = (String::new(), String::new(), String::new());
            let back = ServerMessage::Rtc { group_id, user_id, session_id: session_id.clone(), call_id, kind, data: data.clone() };
            // Told back, it says the same.
            let again = ClientMessage::decode(&back.encode());
            assert!(again == Ok(ClientMessage::Rtc { session_id, kind, data }));
        }
        Ok(ClientMessage::Unexpected { kind }) => assert!(kind.len() <= ID_LEN_MAX),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // Passing over values always comes to an end.
    let mut reader = Reader::new(data);
    while !reader.is_empty() && reader.skip().is_ok() {}
}

/// A message of a client's data channel, and the same bytes as a packed description.
pub(super) fn channel(data: &[u8]) {
    match FromClient::decode(data) {
        Ok(FromClient::Description(packed)) => {
            if let Ok(json) = unpack(packed) {
                assert!(json.len() <= DESCRIPTION_MAX);
                // Told back, it says the same.
                let again = description(&json);
                let Ok(FromClient::Description(packed)) = FromClient::decode(&again) else { panic!("our own") };
                assert!(unpack(packed) == Ok(json));
            }
        }
        Ok(
            FromClient::Ping | FromClient::LossRate(_) | FromClient::Rtt(_) | FromClient::Jitter(_) | FromClient::Lock | FromClient::Unlock,
        ) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = unpack(data);
}

fn echo(session: &str) {
    assert!((1..=ID_LEN_MAX).contains(&session.len()));
    let frame = ServerMessage::Close { session_id: session.to_owned() }.encode();
    let mut reader = Reader::new(&frame);
    let read = (reader.text(), reader.map(), reader.text(), reader.text());
    assert!(read == (Ok("close"), Ok(1), Ok("sessionID"), Ok(session)) && reader.is_empty());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::frames::ClientMessage;
    use crate::heap::peak_of;

    /// The committed corpus of a target, and some thousands of mutations of each of its files: the same ones in every run.
    fn replay(target: &str, harmless: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("there");
        assert!(manifest.contains(&format!("name = \"{target}\"")) && folder.join(format!("fuzz_targets/{target}.rs")).exists());
        let entries = std::fs::read_dir(folder.join("corpus").join(target)).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{files:?}");
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        for file in files {
            let seed = std::fs::read(&file).expect("readable");
            harmless(&seed);
            for round in 0..5000 {
                let mut bytes = seed.clone();
                for _ in 0..=random(4) {
                    let at = random(bytes.len());
                    match random(4) {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at, random(256) as u8),
                        2 if !bytes.is_empty() => bytes[at] ^= 1 << random(8),
                        _ if !bytes.is_empty() => bytes[at] = [0, 0x7f, 0x80, 0xc0, 0xc1, 0xc6, 0xdb, 0xdd, 0xdf, 0xff][random(10)],
                        _ => {}
                    }
                }
                let result = std::panic::catch_unwind(|| harmless(&bytes));
                assert!(result.is_ok(), "round {round} of {}: {bytes:02x?}", file.display());
            }
        }
    }

    #[test]
    fn the_corpus_and_its_mutations_are_survived() {
        replay("mattermost_frame", super::frame);
    }

    #[test]
    fn messages_of_data_channels_and_their_mutations_are_survived() {
        replay("mattermost_channel", super::channel);
    }

    /// G-04: depth, claims of length and extension types; and all that comes of the corpus.
    #[test]
    fn no_messagepack_takes_more_memory_than_twice_its_bytes() {
        /// The longest text of an error that names what it does not take.
        const SPARE: usize = 512;
        let bounded = |bytes: &[u8]| {
            let frame = Bytes::copy_from_slice(bytes);
            let (_, held) = peak_of(|| ClientMessage::decode(&frame).map_err(|error| error.to_string()));
            assert!(held <= 2 * frame.len() + SPARE, "{held} bytes for {}", frame.len());
        };
        replay("mattermost_frame", bounded);
        let heads: [&[u8]; 4] = [b"\xa4join", b"\xa3rtc", b"\xa5leave", b"\xa9reconnect"];
        // Arrays and maps in each other, and each kind of value that says how long it is, with the longest that can be said.
        let nests: [&[u8]; 4] = [b"\x91", b"\x81\xa1x", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\xa1x"];
        let claims: [u8; 12] = [0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xdf];
        for head in heads {
            for field in [&b""[..], b"\x81\xa4data", b"\x81\xa9sessionID", b"\xdf\xff\xff\xff\xff\xa1x"] {
                for nest in nests {
                    bounded(&[head, field, &nest.repeat(super::super::limits::FRAME_LEN_MAX / 8 / nest.len())].concat());
                }
                for claim in claims {
                    bounded(&[head, field, &[claim], &[0xff; 5000]].concat());
                }
                for extension in 0xd4..=0xd8 {
                    bounded(&[head, field, &[extension, 0xff], &[0xff; 17]].concat());
                }
            }
        }
    }
}
