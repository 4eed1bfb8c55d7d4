//! A real process writes a recording and is killed with SIGKILL, many times, at any moment.
//!
//! The child is this test binary again. It tells over a pipe which packets it has handed to the writer;
//! afterwards everything but what was in the open blocks must be there, and the whole must verify.

#![cfg(unix)]
#![cfg(test)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use archive::capture::{CaptureWriter, StartInfo};
use archive::keys::{AttemptGrant, DataKey, SiteKey, SiteSigner};
use archive::limits::SEGMENT_US;
use archive::manifest::{Consent, TrackInfo};
use archive::read::Recording;
use archive::record::{Packet, Record};
use archive::seal::seal;
use bytes::Bytes;

const KILLS: u64 = 60;
const TRACKS: u64 = 3;
const STEP_US: i64 = 20_000;

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Not a test of its own: the body of the child, which runs until it is killed.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var("CRASH_DIR") else { return };
    let grant: AttemptGrant = serde_json::from_str(&std::env::var("CRASH_GRANT").unwrap()).unwrap();
    let mut at_us: i64 = std::env::var("CRASH_FROM_US").unwrap().parse().unwrap();
    let (mut writer, _) = CaptureWriter::open(Path::new(&dir), &grant, StartInfo::default(), at_us).unwrap();
    for track in 0..TRACKS {
        let identity = format!("u-{track}");
        let consent = Consent {
            identity: identity.clone(),
            display_name: identity.clone(),
            granted: true,
            answered_at_ms: 0,
            notice_version: "1".into(),
        };
        writer.consent(at_us, consent).unwrap();
        let info =
            TrackInfo { track_sid: format!("TR_{track}"), identity, mime: "video/VP8".into(), clock_rate: 90_000, ..TrackInfo::default() };
        writer.track(at_us, info).unwrap();
    }
    let mut out = std::io::stdout().lock();
    // Simulated time runs faster than the real one, so that many segments close before the kill.
    loop {
        for track in 0..TRACKS {
            let seq = (at_us / STEP_US) as u64;
            let packet = Packet {
                at_us,
                seq,
                timestamp: seq * 1800,
                marker: true,
                key_frame: seq.is_multiple_of(50),
                audio_level: 255,
                payload: Bytes::from(vec![seq as u8; 1000]),
            };
            writer.push(&format!("TR_{track}"), packet).unwrap();
        }
        writeln!(out, "#{at_us}").unwrap();
        out.flush().unwrap();
        at_us += STEP_US;
        writer.tick(at_us).unwrap();
    }
}

#[test]
fn sixty_kills_at_random_moments_lose_at_most_the_open_segment_each() {
    if std::env::var("CRASH_DIR").is_ok() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let site_key = SiteKey::generate().unwrap();
    let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
    let data_key = DataKey::generate().unwrap();
    let wrapped = site_key.wrap("rec", &data_key).unwrap();
    let grant = |fence| signer.grant("rec", fence, &data_key, &wrapped, &site_key.id()).unwrap();
    let mut from_us = now_us() / STEP_US * STEP_US;
    let mut handed: Vec<(i64, i64)> = Vec::new();
    for fence in 1..=KILLS {
        // The moment of the kill: after so many steps, plus a little time that falls anywhere in a write.
        let random: [u8; 2] = {
            let mut bytes = [0; 2];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            bytes
        };
        let steps = usize::from(random[0]);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env("CRASH_DIR", dir.path())
            .env("CRASH_GRANT", serde_json::to_string(&grant(fence)).unwrap())
            .env("CRASH_FROM_US", from_us.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = None;
        let mut seen = 0;
        while seen <= steps {
            let line = lines.next().expect("the child writes until it is killed").unwrap();
            if let Some(at) = line.strip_prefix('#') {
                last = Some(at.parse::<i64>().unwrap());
                seen += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(u64::from(random[1]) * 20));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still had said before it died counts as handed over.
        for line in lines.map_while(Result::ok) {
            if let Some(at) = line.strip_prefix('#').and_then(|at| at.parse().ok()) {
                last = Some(at);
            }
        }
        handed.push((from_us, last.unwrap()));
        from_us = (last.unwrap() + 1_000_000) / STEP_US * STEP_US;
    }
    let (writer, _) = CaptureWriter::open(dir.path(), &grant(KILLS + 1), StartInfo::default(), from_us).unwrap();
    writer.end(from_us, "stopped").unwrap();
    let seal = seal(dir.path(), &signer, 1).unwrap();
    let recording = Recording::open(dir.path(), &data_key).unwrap();
    seal.verify(recording.manifest()).unwrap();
    assert_eq!(recording.manifest().gaps.len() as u64, KILLS);
    let mut worst_us = 0;
    for track in 0..TRACKS as u32 {
        let mut stored: BTreeMap<i64, Bytes> = BTreeMap::new();
        for record in recording.records(track) {
            if let Record::Packet(packet) = record.unwrap() {
                assert_eq!(packet.payload, vec![packet.seq as u8; 1000]);
                assert!(stored.insert(packet.at_us, packet.payload).is_none(), "a packet twice");
            }
        }
        for (from, to) in &handed {
            let kept = stored.range(from..=to).count() as i64;
            let last = stored.range(from..=to).next_back().map_or(from - STEP_US, |(at, _)| *at);
            // No hole inside: what is kept is everything up to its end.
            assert_eq!(kept, (last - from) / STEP_US + 1);
            worst_us = worst_us.max(to - last);
        }
    }
    assert!(worst_us <= SEGMENT_US, "a kill cost {worst_us} µs");
    println!("{KILLS} kills, {} segments, worst loss {} ms per track", seal.segments, worst_us / 1000);
}
