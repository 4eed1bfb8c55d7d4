//! A bundle is made, opened with standard tools, and changed in every single byte.

#![cfg(test)]

use std::path::{Path, PathBuf};

use archive::bundle::{ExportError, Extra, Report, prepare, verify_bundle};
use archive::capture::{CaptureWriter, StartInfo};
use archive::derived::Derivative;
use archive::keys::{DataKey, KeyError, SiteKey, SiteSigner};
use archive::manifest::{Consent, TrackInfo};
use archive::record::Packet;
use archive::seal::{SealError, seal};
use archive::tree::sha256;
use bytes::Bytes;

const T0: i64 = 1_700_000_000_000_000;

struct Made {
    dir: tempfile::TempDir,
    signer: SiteSigner,
    data_key: DataKey,
    seconds: u64,
}

fn signer() -> SiteSigner {
    SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap()
}

/// A sealed recording of one voice and one screen.
fn recorded(seconds: u64) -> Made {
    recorded_with(seconds, &[])
}

/// A picture of one pixel.
const PNG: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\
    \x00\x00\x00\x0dIDATx\xdacd\xf8\xcfP\x0f\x00\x03\x86\x01\x80Z4}k\x00\x00\x00\x00IEND\
    \xaeB`\x82";

/// The same with pieces of portraits: moment, number of the piece, whether it is the last, its bytes.
fn recorded_with(seconds: u64, portraits: &[(u64, u64, bool, &[u8])]) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let (site, signer, data_key) = (SiteKey::generate().unwrap(), signer(), DataKey::generate().unwrap());
    let wrapped = site.wrap("rec-1", &data_key).unwrap();
    let grant = signer.grant("rec-1", 1, &data_key, &wrapped, &site.id()).unwrap();
    let recording = dir.path().join("rec-1");
    let (mut writer, _) = CaptureWriter::open(&recording, &grant, StartInfo::default(), T0).unwrap();
    writer
        .consent(
            T0,
            Consent { identity: "u-1".into(), display_name: "Ann".into(), granted: true, answered_at_ms: 1, notice_version: "1".into() },
        )
        .unwrap();
    let base = TrackInfo { identity: "u-1".into(), display_name: "Ann".into(), ..TrackInfo::default() };
    writer
        .track(
            T0,
            TrackInfo {
                track_sid: "TR_a".into(),
                kind: "audio".into(),
                source: "microphone".into(),
                mime: "audio/opus".into(),
                clock_rate: 48_000,
                channels: 1,
                ..base.clone()
            },
        )
        .unwrap();
    writer
        .track(
            T0,
            TrackInfo {
                track_sid: "TR_v".into(),
                kind: "video".into(),
                source: "screen_share".into(),
                mime: "video/H264".into(),
                clock_rate: 90_000,
                payload_type: 102,
                ..base.clone()
            },
        )
        .unwrap();
    if !portraits.is_empty() {
        let (track_sid, mime) = ("portrait_u-1".into(), "image/png".into());
        let info = TrackInfo { track_sid, kind: "data".into(), source: "portrait".into(), mime, clock_rate: 1_000_000, ..base };
        writer.track(T0, info).unwrap();
    }
    for (moment, piece, marker, bytes) in portraits {
        let packet = Packet {
            at_us: T0 + *moment as i64,
            seq: moment + piece,
            timestamp: *moment,
            marker: *marker,
            key_frame: false,
            audio_level: 255,
            payload: Bytes::copy_from_slice(bytes),
        };
        writer.push("portrait_u-1", packet).unwrap();
    }
    for i in 0..seconds * 50 {
        let at_us = T0 + i as i64 * 20_000;
        // The shortest silent Opus packet: CELT, 20 ms, mono.
        let sound = Packet {
            at_us,
            seq: i,
            timestamp: i * 960,
            marker: false,
            key_frame: false,
            audio_level: 90,
            payload: Bytes::from_static(&[0xf8, 0xff, 0xfe]),
        };
        writer.push("TR_a", sound).unwrap();
        if i % 10 == 0 {
            let picture = Packet {
                at_us,
                seq: i / 10,
                timestamp: i * 1800,
                marker: true,
                key_frame: i == 0,
                audio_level: 255,
                payload: Bytes::from(vec![0x65; 40]),
            };
            writer.push("TR_v", picture).unwrap();
        }
    }
    let end = T0 + seconds as i64 * 1_000_000;
    writer.end(end, "call_ended").unwrap();
    seal(&recording, &signer, end / 1000).unwrap();
    Made { dir, signer, data_key, seconds }
}

fn transcript(made: &Made) -> Extra {
    let recording = made.dir.path().join("rec-1");
    let root = archive::seal::Seal::from_bytes(&std::fs::read(recording.join("seal.json")).unwrap()).unwrap().root;
    let path = made.dir.path().join("transcript.txt");
    let text = b"Ann: good morning\n";
    std::fs::write(&path, text).unwrap();
    let statement = Derivative {
        recording_id: "rec-1".into(),
        derived_from: root,
        name: "transcript.txt".into(),
        mime: "text/plain".into(),
        bytes: text.len() as u64,
        sha256: hex::encode(sha256(text)),
        tool: "test".into(),
        made_at_ms: 7,
        public_key: String::new(),
        signature: String::new(),
    };
    Extra { statement: statement.signed(&made.signer), path }
}

fn bundle(made: &Made) -> Vec<u8> {
    let work = tempfile::tempdir().unwrap();
    let prepared =
        prepare(&made.dir.path().join("rec-1"), &made.data_key, vec![transcript(made)], &made.signer, work.path(), 1_700_000_100_000)
            .unwrap();
    let mut bytes = Vec::new();
    prepared.write(&mut bytes).unwrap();
    assert_eq!(prepared.bytes(), bytes.len() as u64);
    bytes
}

fn check(bytes: &[u8]) -> Report {
    verify_bundle(bytes, &[]).unwrap()
}

fn unpack(made: &Made, bytes: &[u8]) -> PathBuf {
    let to = made.dir.path().join("unpacked");
    std::fs::create_dir(&to).unwrap();
    let file = made.dir.path().join("bundle.tar");
    std::fs::write(&file, bytes).unwrap();
    run(Path::new("."), "tar", &["-xf", file.to_str().unwrap(), "-C", to.to_str().unwrap()]);
    to
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output =
        std::process::Command::new(program).args(arguments).current_dir(dir).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn whole_bundle_verifies_and_says_who_signed() {
    let made = recorded(3);
    let report = check(&bundle(&made));
    assert_eq!(report.first_bad, None);
    assert!(report.ok && report.signature_ok);
    assert_eq!(report.checked_segments, 4);
    assert_eq!(report.key_id, made.signer.public().id());
    assert_eq!(report.seal_key_id, report.key_id);
}

#[test]
fn every_single_flipped_bit_pattern_in_every_byte_is_found() {
    let bytes = bundle(&recorded(1));
    for at in 0..bytes.len() {
        // 0x20 turns letters into their other case, 0x01 digits into their neighbours, 0x80 leaves ASCII.
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let report = check(&changed);
            assert!(!report.ok && report.first_bad.is_some(), "byte {at} ^ {flip:#x} of {} went unnoticed", bytes.len());
        }
    }
}

#[test]
fn changed_segment_is_named() {
    let made = recorded(5);
    let bytes = bundle(&made);
    let segment = std::fs::read(made.dir.path().join("rec-1/segments/00000-0000001-1.seg")).unwrap();
    let at = bytes.windows(segment.len()).position(|window| window == segment).unwrap();
    for within in [0, 30, segment.len() - 1] {
        let mut changed = bytes.clone();
        changed[at + within] ^= 4;
        let bad = check(&changed).first_bad.unwrap();
        assert_eq!(bad.segment, "segments/00000-0000001-1.seg");
    }
}

#[test]
fn cut_swapped_or_lengthened_bundle_is_found() {
    let bytes = bundle(&recorded(3));
    for length in (0..bytes.len()).step_by(97) {
        assert!(!check(&bytes[..length]).ok, "cut at {length}");
    }
    assert!(!check(&[&bytes[..], &[0; 512]].concat()).ok);
    // Two blocks change places.
    let blocks = bytes.len() / 512;
    for (a, b) in [(0, 1), (blocks / 2, blocks / 2 + 1), (4, blocks - 4)] {
        let mut swapped = bytes.clone();
        let (first, second) = (bytes[a * 512..a * 512 + 512].to_vec(), bytes[b * 512..b * 512 + 512].to_vec());
        swapped[a * 512..a * 512 + 512].copy_from_slice(&second);
        swapped[b * 512..b * 512 + 512].copy_from_slice(&first);
        assert!(swapped == bytes || !check(&swapped).ok, "blocks {a} and {b}");
    }
}

#[test]
fn bundle_signed_by_somebody_else_is_not_trusted() {
    let made = recorded(1);
    let bytes = bundle(&made);
    assert!(verify_bundle(&bytes[..], &[made.signer.public()]).unwrap().ok);
    assert!(!verify_bundle(&bytes[..], &[signer().public()]).unwrap().ok);
}

#[test]
fn what_another_site_sealed_or_made_is_not_exported() {
    let made = recorded(1);
    let work = tempfile::tempdir().unwrap();
    let export =
        |signer: &SiteSigner, extra| prepare(&made.dir.path().join("rec-1"), &made.data_key, extra, signer, work.path(), 9).map(|_| ());
    assert!(matches!(export(&signer(), Vec::new()), Err(ExportError::Seal(SealError::Key(KeyError::Foreign(..))))));
    let mut theirs = transcript(&made);
    theirs.statement = theirs.statement.signed(&signer());
    assert!(matches!(export(&made.signer, vec![theirs]), Err(ExportError::Key(KeyError::Foreign(..)))));
    let mut of_another = transcript(&made);
    of_another.statement.derived_from = "00".repeat(32);
    of_another.statement = of_another.statement.signed(&made.signer);
    assert!(matches!(export(&made.signer, vec![of_another]), Err(ExportError::Derived(_))));
    // After a change of the key, under the new one; who knows only that one is told who sealed it.
    let changed = signer().with_older(vec![made.signer.public()]);
    export(&changed, vec![transcript(&made)]).unwrap();
}

#[test]
fn standard_tools_check_and_open_it() {
    let made = recorded(5);
    let to = unpack(&made, &bundle(&made));
    run(&to, "sha256sum", &["-c", "--quiet", "SHA256SUMS"]);
    run(
        &to,
        "openssl",
        &["pkeyutl", "-verify", "-pubin", "-inkey", "public-key.pem", "-rawin", "-in", "index.json", "-sigfile", "index.json.sig"],
    );
    let ogg = to.join("tracks/00000-u-1-microphone.ogg");
    if std::process::Command::new("ffprobe").arg("-version").output().is_err() {
        eprintln!("ffprobe is not here: the track was not opened with it");
        return;
    }
    let probe = run(
        &to,
        "ffprobe",
        &["-v", "error", "-show_entries", "stream=codec_name:format=duration", "-of", "csv=p=0", ogg.to_str().unwrap()],
    );
    assert!(probe.contains("opus"), "{probe}");
    let duration: f64 = probe.lines().last().unwrap().trim().parse().unwrap();
    assert!((duration - made.seconds as f64).abs() < 0.1, "{duration} s");
}

/// Names of the files in a folder that begin so.
fn names(folder: &Path, begin: &str) -> Vec<String> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = all.filter(|name| name.starts_with(begin)).collect();
    names.sort();
    names
}

#[test]
fn portraits_leave_as_the_pictures_that_they_are() {
    let jpeg = [&b"\xff\xd8\xff\xe0"[..], &[7; 100]].concat();
    // Two pieces; the same again from the next attempt; then the person has another one, of another type.
    let pieces = [
        (1_000, 0, false, &PNG[..20]),
        (1_000, 1, true, &PNG[20..]),
        (500_000, 0, true, PNG),
        (900_000, 0, false, &jpeg[..50]),
        (900_000, 1, true, &jpeg[50..]),
    ];
    let made = recorded_with(2, &pieces);
    let bytes = bundle(&made);
    let to = unpack(&made, &bytes);
    let tracks = to.join("tracks");
    assert_eq!(names(&tracks, "00002"), ["00002-u-1-portrait-2.jpg", "00002-u-1-portrait.png"]);
    assert_eq!(std::fs::read(tracks.join("00002-u-1-portrait.png")).unwrap(), PNG);
    assert_eq!(std::fs::read(tracks.join("00002-u-1-portrait-2.jpg")).unwrap(), jpeg);
    let manifest = std::fs::read_to_string(to.join("manifest.jsonl")).unwrap();
    assert!(manifest.lines().any(|line| line.contains("\"image/png\"") && line.contains("portrait_u-1")), "{manifest}");
    run(&to, "sha256sum", &["-c", "--quiet", "SHA256SUMS"]);
    let report = check(&bytes);
    assert!(report.ok, "{report}");
    // A pixel of it is another.
    let at = bytes.windows(PNG.len()).position(|window| window == PNG).unwrap();
    let mut changed = bytes;
    changed[at + 50] ^= 1;
    assert_eq!(check(&changed).first_bad.unwrap().segment, "tracks/00002-u-1-portrait.png");
}

#[test]
fn what_is_no_whole_picture_leaves_piece_by_piece() {
    // One whose second piece never came, one without an end, and what is no picture; beside them a whole one.
    let cut: [(u64, u64, bool, &[u8]); 5] = [
        (1_000, 0, false, &PNG[..20]),
        (1_000, 2, true, &PNG[40..]),
        (400_000, 0, true, b"<svg/>"),
        (600_000, 0, true, PNG),
        (900_000, 0, false, &PNG[..20]),
    ];
    let made = recorded_with(2, &cut);
    let bytes = bundle(&made);
    let tracks = unpack(&made, &bytes).join("tracks");
    assert_eq!(names(&tracks, "00002"), ["00002-u-1-portrait.png", "00002-u-1-portrait.rtpdump"]);
    assert_eq!(std::fs::read(tracks.join("00002-u-1-portrait.png")).unwrap(), PNG);
    let dump = std::fs::read(tracks.join("00002-u-1-portrait.rtpdump")).unwrap();
    assert!(dump.windows(6).any(|window| window == b"<svg/>"), "nothing that was kept is left out");
    assert!(check(&bytes).ok);
}
