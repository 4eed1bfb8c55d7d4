//! Stories of a recording: begun, broken, continued, sealed, changed by somebody.

#![cfg(test)]

use std::path::Path;

use archive::capture::{CaptureError, CaptureWriter, Pushed, StartInfo};
use archive::keys::{AttemptGrant, DataKey, KeyError, SiteKey, SiteSigner};
use archive::manifest::{Consent, Encryption, MediaKey, TrackInfo};
use archive::read::Recording;
use archive::record::{GapReason, Packet, Record};
use archive::seal::{Seal, SealError, seal};
use archive::{MANIFEST_FILE, SEGMENTS_DIR};
use bytes::Bytes;

const T0: i64 = 1_700_000_000_000_000;

struct Site {
    key: SiteKey,
    signer: SiteSigner,
    data_key: DataKey,
}

impl Site {
    fn new() -> Self {
        Self {
            key: SiteKey::generate().unwrap(),
            signer: SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap(),
            data_key: DataKey::generate().unwrap(),
        }
    }

    fn grant(&self, fence: u64) -> AttemptGrant {
        let wrapped = self.key.wrap("rec-1", &self.data_key).unwrap();
        self.signer.grant("rec-1", fence, &self.data_key, &wrapped, &self.key.id()).unwrap()
    }
}

fn track(sid: &str, identity: &str) -> TrackInfo {
    TrackInfo {
        track_sid: sid.into(),
        identity: identity.into(),
        display_name: identity.to_uppercase(),
        kind: "audio".into(),
        source: "microphone".into(),
        mime: "audio/opus".into(),
        clock_rate: 48_000,
        channels: 2,
        payload_type: 111,
        ..TrackInfo::default()
    }
}

fn yes(identity: &str, granted: bool) -> Consent {
    answer(identity, granted, 1)
}

fn answer(identity: &str, granted: bool, answered_at_ms: i64) -> Consent {
    Consent { identity: identity.into(), display_name: identity.into(), granted, answered_at_ms, notice_version: "1".into() }
}

fn packet(seq: u64, at_us: i64) -> Packet {
    Packet { at_us, seq, timestamp: seq * 960, marker: false, key_frame: false, audio_level: 30, payload: Bytes::from(vec![seq as u8; 60]) }
}

/// Speaks for `packets` × 20 ms from `seq` on.
fn speak(writer: &mut CaptureWriter, sid: &str, seq: u64, packets: u64, from_us: i64) -> i64 {
    for i in 0..packets {
        let at = from_us + i as i64 * 20_000;
        assert_eq!(writer.push(sid, packet(seq + i, at)).unwrap(), Pushed::Stored);
        if i % 25 == 0 {
            writer.tick(at).unwrap();
        }
    }
    from_us + packets as i64 * 20_000
}

fn begin(dir: &Path, site: &Site) -> CaptureWriter {
    let (mut writer, recovery) = CaptureWriter::open(dir, &site.grant(1), StartInfo::default(), T0).unwrap();
    assert!(!recovery.continued);
    writer.consent(T0, yes("ann", true)).unwrap();
    writer.track(T0, track("TR_a", "ann")).unwrap();
    writer
}

fn seqs(recording: &Recording, track: u32) -> Vec<u64> {
    recording
        .records(track)
        .filter_map(|record| match record.unwrap() {
            Record::Packet(packet) => Some(packet.seq),
            Record::Gap(_) => None,
        })
        .collect()
}

#[test]
fn ten_seconds_of_speech_come_back_whole_and_sealed() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let end = speak(&mut writer, "TR_a", 0, 500, T0);
    writer.end(end, "call_ended").unwrap();
    let first = seal(dir.path(), &site.signer, 5).unwrap();
    let again = seal(dir.path(), &site.signer, 6).unwrap();
    assert_eq!(first, again);
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    assert_eq!(seqs(&recording, 0), (0..500).collect::<Vec<_>>());
    assert_eq!(recording.tracks()[0].segments.len(), 5);
    assert_eq!(first.segments, 5);
    first.verify(recording.manifest()).unwrap();
    assert!(recording.manifest().checkpoints >= 1);
}

#[test]
fn recording_written_anew_with_keys_of_somebody_else_is_not_the_sites() {
    let site = Site::new();
    let forger = Site { key: site.key.clone(), data_key: site.data_key.clone(), ..Site::new() };
    let dir = tempfile::tempdir().unwrap();
    let mut writer = begin(dir.path(), &forger);
    let end = speak(&mut writer, "TR_a", 0, 50, T0);
    writer.end(end, "call_ended").unwrap();
    // Captured under another key: the site does not vouch for it.
    assert!(matches!(seal(dir.path(), &site.signer, 5), Err(SealError::Key(KeyError::Foreign(..)))));
    // Sealed too, and whole in itself.
    let forged = seal(dir.path(), &forger.signer, 5).unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    forged.verify(recording.manifest()).unwrap();
    let error = forged.verify_of(recording.manifest(), &site.signer).unwrap_err().to_string();
    assert!(error.contains(&forger.signer.public().id()) && error.contains("OFFLOADER_OLDER_SIGNING_KEYS"), "{error}");
    assert!(matches!(seal(dir.path(), &site.signer, 6), Err(SealError::Key(KeyError::Foreign(..)))));
    // The site's own from before it changed its key.
    let changed = Site::new().signer.with_older(vec![forger.signer.public()]);
    assert_eq!(seal(dir.path(), &changed, 6).unwrap(), forged);
    assert_eq!(forged.verify_of(recording.manifest(), &changed).unwrap(), forger.signer.public());
}

#[test]
fn nobody_is_stored_before_they_agree_nor_after_they_decline() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    writer.track(T0, track("TR_b", "ben")).unwrap();
    assert_eq!(writer.push("TR_b", packet(1, T0)).unwrap(), Pushed::NoConsent);
    writer.consent(T0 + 1, yes("ben", false)).unwrap();
    assert_eq!(writer.push("TR_b", packet(2, T0 + 2)).unwrap(), Pushed::NoConsent);
    writer.gap("TR_b", T0 + 3, 3, 5, GapReason::Network).unwrap();
    writer.consent(T0 + 4, answer("ben", true, 2)).unwrap();
    assert_eq!(writer.push("TR_b", packet(9, T0 + 5)).unwrap(), Pushed::Stored);
    writer.consent(T0 + 6, answer("ben", false, 3)).unwrap();
    assert_eq!(writer.push("TR_b", packet(10, T0 + 7)).unwrap(), Pushed::NoConsent);
    assert_eq!(writer.push("TR_x", packet(1, T0 + 7)).unwrap(), Pushed::UnknownTrack);
    writer.end(T0 + 100, "stopped").unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    assert_eq!(seqs(&recording, 1), [9]);
    assert_eq!(seqs(&recording, 0), [0; 0]);
    assert_eq!(recording.manifest().consent_of("ben"), Some(false));
}

#[test]
fn next_attempt_is_told_old_answers_and_the_newest_stay() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    // What the job's order says, at each attempt.
    let ordered = [answer("ann", true, 1), answer("ben", false, 1)];
    let (mut writer, _) = CaptureWriter::open(dir.path(), &site.grant(1), StartInfo::default(), T0).unwrap();
    for consent in ordered.clone() {
        writer.consent(T0, consent).unwrap();
    }
    writer.track(T0, track("TR_a", "ann")).unwrap();
    writer.track(T0, track("TR_b", "ben")).unwrap();
    // One takes it back, the other agrees after all, and says so twice.
    for consent in [answer("ann", false, 2), answer("ben", true, 2), answer("ben", true, 3)] {
        writer.consent(T0 + 1, consent).unwrap();
    }
    drop(writer);
    let (mut writer, _) = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), T0 + 10).unwrap();
    for consent in ordered.clone() {
        writer.consent(T0 + 10, consent).unwrap();
    }
    assert_eq!(writer.push("TR_a", packet(1, T0 + 11)).unwrap(), Pushed::NoConsent);
    assert_eq!(writer.push("TR_b", packet(1, T0 + 11)).unwrap(), Pushed::Stored);
    // In the same millisecond the no counts, in either order.
    for granted in [false, true] {
        writer.consent(T0 + 12, answer("ben", granted, 4)).unwrap();
        assert_eq!(writer.push("TR_b", packet(2, T0 + 13)).unwrap(), Pushed::NoConsent);
    }
    writer.end(T0 + 100, "stopped").unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    let manifest = recording.manifest();
    assert_eq!(manifest.consents[..2], ordered);
    assert_eq!(manifest.consents[2..], [answer("ann", false, 2), answer("ben", true, 2), answer("ben", false, 4)]);
    assert_eq!((manifest.consent_of("ann"), manifest.consent_of("ben")), (Some(false), Some(false)));
}

#[test]
fn late_packets_come_out_in_order_and_gaps_are_told() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    for (seq, at) in [(1, 0), (2, 20), (5, 80), (3, 90), (4, 95), (5, 99)] {
        writer.push("TR_a", packet(seq, T0 + at * 1000)).unwrap();
    }
    writer.gap("TR_a", T0 + 200_000, 6, 40, GapReason::Network).unwrap();
    writer.push("TR_a", packet(46, T0 + 900_000)).unwrap();
    writer.end(T0 + 1_000_000, "stopped").unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    assert_eq!(seqs(&recording, 0), [1, 2, 3, 4, 5, 46]);
    let track = &recording.tracks()[0];
    assert_eq!(track.segments[0].lost, 40);
    let [gap] = &track.gaps[..] else { panic!("one gap: {:?}", track.gaps) };
    assert_eq!((gap.packets, gap.to_us - gap.from_us), (40, 900_000 - 99_000 + 4_000));
}

#[test]
fn who_granted_a_media_key_is_said_once_and_what_none_opened_too() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let sealed = TrackInfo { encryption: Encryption::Gcm, ..track("TR_s", "ann") };
    writer.track(T0, sealed.clone()).unwrap();
    let key =
        |granted, at_ms| MediaKey { identity: "ann".into(), display_name: "ANN".into(), granted, at_ms, of: String::new(), key_index: 3 };
    writer.media_key(T0, key(true, 5)).unwrap();
    // Told again when the tap is opened again.
    writer.media_key(T0 + 1, key(true, 5)).unwrap();
    let end = speak(&mut writer, "TR_s", 0, 50, T0);
    drop(writer);
    let (mut writer, _) = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), end).unwrap();
    writer.track(end, sealed).unwrap();
    writer.media_key(end, key(true, 5)).unwrap();
    let end = speak(&mut writer, "TR_s", 50, 50, end);
    writer.media_key(end, key(false, 9)).unwrap();
    // To the end nothing follows that could be opened.
    writer.gap("TR_s", end + 1, 100, 20, GapReason::Encrypted).unwrap();
    writer.gap("TR_s", end + 2, 120, 30, GapReason::Encrypted).unwrap();
    writer.end(end + 1_000_000, "stopped").unwrap();
    seal(dir.path(), &site.signer, 5).unwrap().verify(Recording::open(dir.path(), &site.data_key).unwrap().manifest()).unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    assert_eq!(recording.manifest().media_keys, [key(true, 5), key(false, 9)]);
    let track = &recording.tracks()[1];
    assert_eq!(track.info.encryption, Encryption::Gcm);
    let gap = track.gaps.iter().find(|gap| gap.reason == GapReason::Encrypted).expect("a line");
    assert_eq!((gap.packets, gap.to_us), (50, end + 1_000_000));
    assert!(!recording.records(0).any(|_| true) && seqs(&recording, 1).len() > 50);
}

#[test]
fn next_attempt_goes_on_and_marks_the_gap() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let end = speak(&mut writer, "TR_a", 0, 160, T0);
    drop(writer); // what a crash leaves: 200 ms after the last flush are gone with the process
    let later = end + 3_000_000;
    let (mut writer, recovery) = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), later).unwrap();
    assert!(recovery.continued);
    assert_eq!(recovery.segments_recovered, 1);
    assert_eq!(writer.track(later, track("TR_a", "ann")).unwrap(), 0);
    // The answers of before still count.
    let end = speak(&mut writer, "TR_a", 400, 100, later);
    writer.end(end, "call_ended").unwrap();
    seal(dir.path(), &site.signer, 5).unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    let seqs = seqs(&recording, 0);
    let before = seqs.iter().filter(|seq| **seq < 160).count();
    assert!((150..=160).contains(&before), "{before} of 160 kept");
    assert_eq!(seqs.iter().filter(|seq| **seq >= 400).count(), 100);
    assert_eq!(recording.manifest().gaps.len(), 1);
    assert_eq!(recording.tracks()[0].gaps[0].reason, GapReason::Worker);
    assert!(recording.records(0).any(|record| matches!(record.unwrap(), Record::Gap(gap) if gap.reason == GapReason::Worker)));
}

#[test]
fn stale_attempt_is_refused() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let writer = begin(dir.path(), &site);
    // While the first lives, nobody else may write.
    let busy = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), T0);
    assert!(matches!(busy, Err(CaptureError::Busy(_))));
    drop(writer);
    let (writer, _) = CaptureWriter::open(dir.path(), &site.grant(5), StartInfo::default(), T0).unwrap();
    drop(writer);
    for fence in [1, 4, 5] {
        let stale = CaptureWriter::open(dir.path(), &site.grant(fence), StartInfo::default(), T0);
        assert!(matches!(stale, Err(CaptureError::Stale { .. })), "fence {fence}");
    }
}

#[test]
fn writer_stops_when_another_one_has_written() {
    use std::io::Write;
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let mut file = std::fs::OpenOptions::new().append(true).open(dir.path().join(MANIFEST_FILE)).unwrap();
    file.write_all(b"x").unwrap();
    assert!(matches!(writer.consent(T0, yes("cat", true)), Err(CaptureError::Stale { .. })));
    assert!(matches!(writer.tick(T0), Err(CaptureError::Broken(_))));
}

#[test]
fn ended_recording_takes_nothing_more() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let writer = begin(dir.path(), &site);
    assert!(matches!(seal(dir.path(), &site.signer, 1), Err(SealError::NotEnded)));
    writer.end(T0, "stopped").unwrap();
    let more = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), T0);
    assert!(matches!(more, Err(CaptureError::Ended)));
}

#[test]
fn every_changed_byte_of_manifest_or_segment_breaks_the_seal() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let end = speak(&mut writer, "TR_a", 0, 20, T0);
    writer.end(end, "stopped").unwrap();
    seal(dir.path(), &site.signer, 5).unwrap();
    let segment = std::fs::read_dir(dir.path().join(SEGMENTS_DIR)).unwrap().next().unwrap().unwrap().path();
    for path in [dir.path().join(MANIFEST_FILE), segment, dir.path().join(archive::SEAL_FILE)] {
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            // White space between the seal's fields is no statement.
            if path.ends_with(archive::SEAL_FILE) && bytes[at].is_ascii_whitespace() {
                continue;
            }
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(seal(dir.path(), &site.signer, 5).is_err(), "{} byte {at}", path.display());
        }
        std::fs::write(&path, &bytes).unwrap();
        seal(dir.path(), &site.signer, 5).unwrap();
    }
}

/// Signed by the right key, and yet about something else.
#[test]
fn each_part_of_a_seal_is_compared() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let mut writer = begin(dir.path(), &site);
    let end = speak(&mut writer, "TR_a", 0, 20, T0);
    writer.end(end, "stopped").unwrap();
    let good = seal(dir.path(), &site.signer, 5).unwrap();
    let recording = Recording::open(dir.path(), &site.data_key).unwrap();
    let changes: [fn(&mut Seal); 8] = [
        |_| {},
        |seal| seal.recording_id = "rec-2".into(),
        |seal| seal.size += 1,
        |seal| seal.root = seal.head.clone(),
        |seal| seal.head = seal.root.clone(),
        |seal| seal.segments += 1,
        |seal| seal.bytes += 1,
        |seal| seal.key_id = "another".into(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut seal = good.clone();
        change(&mut seal);
        seal.signature = hex::encode(site.signer.sign(&seal.text()));
        assert_eq!(seal.verify(recording.manifest()).is_ok(), n == 0, "change {n}");
    }
}

#[test]
fn good_lines_after_a_bad_one_are_not_taken_for_a_crash() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    drop(begin(dir.path(), &site));
    let path = dir.path().join(MANIFEST_FILE);
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"granted\":true", "\"granted\":null", 1);
    std::fs::write(&path, text).unwrap();
    let opened = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), T0);
    assert!(matches!(opened, Err(CaptureError::Changed(_))));
}

#[test]
fn recording_taken_up_after_an_outage_only_to_be_ended_is_shown_until_the_outage() {
    const HOUR: i64 = 3_600_000_000;
    let shown = |back_us: i64, more: bool, ended_us: i64| {
        let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
        let (mut first, _) = CaptureWriter::open(dir.path(), &site.grant(1), StartInfo::default(), T0).unwrap();
        first.consent(T0, yes("ann", true)).unwrap();
        first.track(T0, track("TR_a", "ann")).unwrap();
        for n in 0..500 {
            first.push("TR_a", packet(n, T0 + n as i64 * 20_000)).unwrap();
        }
        first.pause(T0 + 10_000_000).unwrap();
        let (mut second, _) = CaptureWriter::open(dir.path(), &site.grant(2), StartInfo::default(), T0 + back_us).unwrap();
        if more {
            second.track(T0 + back_us, track("TR_a", "ann")).unwrap();
            second.push("TR_a", packet(1_000, T0 + back_us)).unwrap();
        }
        second.end(T0 + ended_us, "connection_lost").unwrap();
        seal(dir.path(), &site.signer, 1).unwrap();
        let recording = Recording::open(dir.path(), &site.data_key).unwrap();
        let manifest = recording.manifest();
        assert_eq!(manifest.end.as_ref().unwrap().0, T0 + ended_us, "the evidence says when it was ended");
        recording.shown_until_us() - T0
    };
    assert_eq!(shown(5 * HOUR, false, 5 * HOUR + 2_000_000), 499 * 20_000);
    // Something came after it, or a silent call was taken up at once and went on.
    assert_eq!(shown(5 * HOUR, true, 5 * HOUR + 2_000_000), 5 * HOUR + 2_000_000);
    assert_eq!(shown(11_000_000, false, HOUR), HOUR);
}

#[test]
fn control_characters_of_a_name_are_not_written_and_make_nobody_somebody_else() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
    let (mut writer, _) = CaptureWriter::open(dir.path(), &site.grant(1), StartInfo::default(), T0).unwrap();
    writer.consent(T0, yes("ann", true)).unwrap();
    writer.participant(T0, "ann".into(), "A\0nn\r\n".into(), true).unwrap();
    writer.track(T0, track("TR_a", "ann\0")).unwrap();
    assert_eq!(writer.push("TR_a", packet(1, T0)).unwrap(), Pushed::NoConsent, "it was ann who agreed");
    writer.end(T0 + 1_000_000, "stopped").unwrap();
    let manifest = std::fs::read(dir.path().join(MANIFEST_FILE)).unwrap();
    let manifest = archive::manifest::Manifest::parse(&manifest).unwrap();
    assert_eq!(manifest.participants[0].1.display_name, "A\u{fffd}nn\u{fffd}\u{fffd}");
    assert_eq!(manifest.tracks[0].info.identity, "ann\u{fffd}");
}
