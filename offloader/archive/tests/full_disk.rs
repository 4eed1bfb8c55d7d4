//! A disk that fills up in the middle of a write: what was closed stays, the next attempt goes on once there is room.

#![cfg(test)]

use std::path::Path;
use std::process::{Command, Stdio};

use archive::capture::{CaptureError, CaptureWriter, StartInfo};
use archive::keys::{DataKey, SiteKey, SiteSigner};
use archive::manifest::{Consent, TrackInfo};
use archive::read::Recording;
use archive::record::{Packet, Record};
use archive::seal::{check_segment, seal};
use bytes::Bytes;

const T0: i64 = 1_700_000_000_000_000;

#[test]
fn writing_until_the_disk_is_full_loses_nothing_that_was_closed() {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg(if root { "-m" } else { "-rm" }).args(arguments);
        command
    };
    if !unshare(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("no mount namespaces for us on this machine: a full disk is not tested");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output =
        unshare(&[this.to_str().unwrap(), "full_disk_process", "--exact", "--nocapture"]).env("TEST_OWN_MOUNTS", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("recovered from a full disk"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

struct Site {
    signer: SiteSigner,
    site: SiteKey,
    data_key: DataKey,
    wrapped: String,
}

impl Site {
    fn open(&self, dir: &Path, fence: u64, at_us: i64) -> Result<CaptureWriter, CaptureError> {
        let grant = self.signer.grant("rec-1", fence, &self.data_key, &self.wrapped, &self.site.id()).unwrap();
        CaptureWriter::open(dir, &grant, StartInfo::default(), at_us).map(|(writer, _)| writer)
    }
}

/// Two video tracks of 50 packets of 1 kB a second, from `at_us` on, until it fails or `seconds` are over.
fn speak(writer: &mut CaptureWriter, mut at_us: i64, seconds: i64) -> Result<i64, (i64, CaptureError)> {
    let end_us = at_us + seconds * 1_000_000;
    while at_us < end_us {
        for sid in ["TR_a", "TR_b"] {
            let seq = (at_us / 20_000) as u64;
            let packet = Packet {
                at_us,
                seq,
                timestamp: seq * 1800,
                marker: true,
                key_frame: false,
                audio_level: 255,
                payload: Bytes::from(vec![seq as u8; 1_000]),
            };
            writer.push(sid, packet).map_err(|error| (at_us, error))?;
        }
        writer.tick(at_us).map_err(|error| (at_us, error))?;
        at_us += 20_000;
    }
    Ok(at_us)
}

/// Run by the test above, where it may mount.
#[test]
fn full_disk_process() {
    if std::env::var("TEST_OWN_MOUNTS").is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(disk).status().unwrap();
    assert!(mounted.success());
    let (site, data_key) = (SiteKey::generate().unwrap(), DataKey::generate().unwrap());
    let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
    let wrapped = site.wrap("rec-1", &data_key).unwrap();
    let site = Site { signer, site, data_key, wrapped };
    let dir = disk.join("rec-1");
    // Something of somebody else that can be cleared away later.
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![7; 2 << 20]).unwrap();

    let mut writer = site.open(&dir, 1, T0).unwrap();
    let consent =
        Consent { identity: "u-1".into(), display_name: "Ann".into(), granted: true, answered_at_ms: 1, notice_version: "1".into() };
    writer.consent(T0, consent).unwrap();
    for sid in ["TR_a", "TR_b"] {
        let info = TrackInfo {
            track_sid: sid.into(),
            identity: "u-1".into(),
            kind: "video".into(),
            mime: "video/VP8".into(),
            clock_rate: 90_000,
            ..TrackInfo::default()
        };
        writer.track(T0, info).unwrap();
    }
    let (full_us, error) = speak(&mut writer, T0, 600).unwrap_err();
    assert!(matches!(error, CaptureError::NoRoom(_)), "{error}");
    assert!(error.to_string().contains("OFFLOADER_DATA"), "{error}");
    // It does not try again behind our back.
    assert!(matches!(writer.tick(full_us + 1_000_000), Err(CaptureError::Broken(_))));
    drop(writer);
    let listed = |dir: &Path| -> Vec<String> {
        let manifest = std::fs::read_to_string(dir.join("manifest.jsonl")).unwrap();
        manifest.lines().filter(|line| line.contains("\"kind\":\"segment\"") && line.ends_with('}')).map(str::to_owned).collect()
    };
    let before = listed(&dir);
    assert!(before.len() >= 4, "{}", before.len());

    // Attempts while it is full: each says so, and none harms what is there.
    for fence in 2..6 {
        match site.open(&dir, fence, full_us + 5_000_000) {
            Ok(mut writer) => {
                let (_, error) = speak(&mut writer, full_us + 5_000_000, 600).unwrap_err();
                assert!(matches!(error, CaptureError::NoRoom(_)), "{error}");
            }
            Err(CaptureError::NoRoom(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(listed(&dir).starts_with(&before), "attempt {fence} lost a line");
    }

    std::fs::remove_file(&ballast).unwrap();
    let again_us = full_us + 20_000_000;
    let mut writer = site.open(&dir, 6, again_us).unwrap();
    let end_us = speak(&mut writer, again_us, 5).unwrap();
    writer.end(end_us, "call_ended").unwrap();
    seal(&dir, &site.signer, end_us / 1000).unwrap();
    assert!(listed(&dir).starts_with(&before), "what was closed before stays as it was");
    let recording = Recording::open(&dir, &site.data_key).unwrap();
    for track in recording.tracks() {
        for line in &track.segments {
            check_segment(line, &std::fs::read(dir.join("segments").join(line.id().file_name())).unwrap()).unwrap();
        }
        let times: Vec<i64> = recording
            .records(track.number)
            .filter_map(|record| match record.unwrap() {
                Record::Packet(packet) => Some(packet.at_us),
                Record::Gap(_) => None,
            })
            .collect();
        // At most the open segment's last block is missing before the disk was full, and nothing after there was room.
        let last_before = times.iter().filter(|at| **at <= full_us).max().unwrap();
        assert!(full_us - last_before <= 2_500_000, "{} µs are missing", full_us - last_before);
        assert_eq!(times.iter().filter(|at| **at >= again_us).count(), 250);
    }
    println!("recovered from a full disk: {} segments before, {} at the end", before.len(), listed(&dir).len());
}
