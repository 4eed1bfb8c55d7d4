//! `conclave verify` as an officer runs it: the program, an exported bundle, its exit code and what it names.

#![cfg(test)]

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use archive::bundle::prepare;
use archive::capture::{CaptureWriter, StartInfo};
use archive::keys::{DataKey, SiteKey, SiteSigner};
use archive::manifest::{Consent, TrackInfo};
use archive::record::Packet;
use archive::seal::seal;
use bytes::Bytes;

const T0: i64 = 1_700_000_000_000_000;

struct Exported {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    signer: SiteSigner,
}

/// Five seconds of one voice, recorded by the real writer, sealed and exported.
fn exported() -> Exported {
    let dir = tempfile::tempdir().unwrap();
    let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
    let (site, data_key) = (SiteKey::generate().unwrap(), DataKey::generate().unwrap());
    let wrapped = site.wrap("rec-1", &data_key).unwrap();
    let grant = signer.grant("rec-1", 1, &data_key, &wrapped, &site.id()).unwrap();
    let recording = dir.path().join("rec-1");
    let (mut writer, _) = CaptureWriter::open(&recording, &grant, StartInfo::default(), T0).unwrap();
    let (identity, display_name) = ("u-1".to_owned(), "Ann".to_owned());
    let consent = Consent {
        identity: identity.clone(),
        display_name: display_name.clone(),
        granted: true,
        answered_at_ms: 1,
        notice_version: "1".into(),
    };
    writer.consent(T0, consent).unwrap();
    let track = TrackInfo {
        track_sid: "TR_a".into(),
        identity,
        display_name,
        kind: "audio".into(),
        source: "microphone".into(),
        mime: "audio/opus".into(),
        clock_rate: 48_000,
        channels: 1,
        ..TrackInfo::default()
    };
    writer.track(T0, track).unwrap();
    for n in 0..250 {
        let packet = Packet {
            at_us: T0 + n as i64 * 20_000,
            seq: n,
            timestamp: n * 960,
            marker: false,
            key_frame: false,
            audio_level: 40,
            payload: Bytes::from_static(&[0xf8, 0xff, 0xfe]),
        };
        writer.push("TR_a", packet).unwrap();
    }
    let end_us = T0 + 5_000_000;
    writer.end(end_us, "call_ended").unwrap();
    seal(&recording, &signer, end_us / 1000).unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let prepared = prepare(&recording, &data_key, Vec::new(), &signer, &work, end_us / 1000).unwrap();
    let mut bytes = Vec::new();
    prepared.write(&mut bytes).unwrap();
    Exported { dir, bytes, signer }
}

/// Name of each file in the archive and where its content lies.
fn files(tar: &[u8]) -> Vec<(String, Range<usize>)> {
    let (mut at, mut files) = (0, Vec::new());
    while tar[at] != 0 {
        let text = |range: Range<usize>| String::from_utf8_lossy(&tar[at..][range]).trim_end_matches('\0').to_owned();
        let bytes = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        files.push((text(0..100), at + 512..at + 512 + bytes));
        at += 512 + bytes.next_multiple_of(512);
    }
    files
}

/// Exit code, and what the program wrote.
fn verify(bundle: &Path, options: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_conclave")).arg("verify").arg(bundle).args(options).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn whole_bundle_is_fine_with_and_without_the_sites_key() {
    let exported = exported();
    let bundle = exported.dir.path().join("bundle.tar");
    std::fs::write(&bundle, &exported.bytes).unwrap();
    let (code, out, _) = verify(&bundle, &[]);
    assert!(code == 0 && out.starts_with("OK"), "{code}: {out}");
    let key = exported.dir.path().join("key.pem");
    std::fs::write(&key, exported.signer.public().to_pem()).unwrap();
    let (code, out, _) = verify(&bundle, &["--key", key.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (0, &true.into()), "{out}");
    assert!(report["checked_segments"].as_u64().unwrap() >= 2, "{out}");
    // Another site's key: the same bytes are not trusted.
    let other = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
    std::fs::write(&key, other.public().to_pem()).unwrap();
    assert_eq!(verify(&bundle, &["--key", key.to_str().unwrap()]).0, 1);
}

#[test]
fn any_flipped_byte_fails_and_the_file_it_is_in_is_named() {
    let exported = exported();
    let bundle = exported.dir.path().join("bundle.tar");
    let files = files(&exported.bytes);
    assert!(files.iter().filter(|(name, _)| name.starts_with("segments/")).count() >= 2, "{files:?}");
    for (name, content) in &files {
        for at in [content.start, content.start + content.len() / 2, content.end - 1] {
            let mut changed = exported.bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&bundle, &changed).unwrap();
            let (code, out, _) = verify(&bundle, &[]);
            let first = out.lines().next().unwrap_or_default();
            assert!(code == 1 && first.starts_with("CHANGED: "), "{name}, byte {at}: {code}: {out}");
            // Of the three files that sign for each other it may name another one.
            let signing = ["index.json", "index.json.sig", "public-key.pem"];
            let named = if signing.contains(&name.as_str()) {
                signing.iter().any(|one| first.contains(one))
            } else {
                first.starts_with(&format!("CHANGED: {name}: "))
            };
            assert!(named, "{name}, byte {at}: {first}");
        }
    }
    // Between the files: the frame counts too.
    for at in [0, files[0].1.start - 1, exported.bytes.len() - 1] {
        let mut changed = exported.bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&bundle, &changed).unwrap();
        assert_eq!(verify(&bundle, &[]).0, 1, "byte {at}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_neither_fine_nor_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, error) = verify(&dir.path().join("nowhere.tar"), &[]);
    assert!(code == 2 && error.contains("nowhere.tar"), "{code}: {error}");
    let bundle = dir.path().join("bundle.tar");
    std::fs::write(&bundle, exported().bytes).unwrap();
    let (code, _, error) = verify(&bundle, &["--key", "/nowhere/key.pem"]);
    assert!(code == 2 && error.contains("/nowhere/key.pem"), "{code}: {error}");
    // An empty file was looked at, and is no bundle.
    std::fs::write(&bundle, "").unwrap();
    assert_eq!(verify(&bundle, &[]).0, 1);
}
