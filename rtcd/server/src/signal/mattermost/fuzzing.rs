//! What the fuzz target `mattermost_frame` does with arbitrary bytes; here, so that a test replays its corpus.

use bytes::Bytes;

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

    /// The committed corpus, and some thousands of the same mutations of each of its files in every run.
    #[test]
    fn the_corpus_and_its_mutations_are_survived() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("there");
        assert!(manifest.contains("name = \"mattermost_frame\"") && folder.join("fuzz_targets/mattermost_frame.rs").exists());
        let entries = std::fs::read_dir(folder.join("corpus/mattermost_frame")).expect("a corpus");
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
            super::frame(&seed);
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
                let result = std::panic::catch_unwind(|| super::frame(&bytes));
                assert!(result.is_ok(), "round {round} of {}: {bytes:02x?}", file.display());
            }
        }
    }
}
