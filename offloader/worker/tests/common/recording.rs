//! Recordings written by the archive's own writer, as the record job leaves them.

use std::path::Path;
use std::process::Command;

use archive::capture::{CaptureWriter, StartInfo};
use archive::keys::{DataKey, SiteKey, SiteSigner};
use archive::manifest::{Consent, TrackInfo};
use archive::record::Packet;
use offload_worker::notes::{self, Sign};

pub struct Writer {
    pub writer: CaptureWriter,
    pub data_key: DataKey,
    pub start_us: i64,
}

/// A packet of a track at its time.
pub struct Timed {
    pub sid: String,
    pub packet: Packet,
}

impl Writer {
    pub fn new(dir: &Path, start_us: i64) -> Self {
        let site_key = SiteKey::generate().unwrap();
        let data_key = DataKey::generate().unwrap();
        let wrapped = site_key.wrap("rec-1", &data_key).unwrap();
        let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
        let grant = signer.grant("rec-1", 1, &data_key, &wrapped, &site_key.id()).unwrap();
        let (writer, _) = CaptureWriter::open(dir, &grant, StartInfo::default(), start_us).unwrap();
        Self { writer, data_key, start_us }
    }

    pub fn person(&mut self, identity: &str, name: &str) {
        let consent = Consent {
            identity: identity.into(),
            display_name: name.into(),
            granted: true,
            answered_at_ms: self.start_us / 1_000,
            notice_version: "1".into(),
        };
        self.writer.consent(self.start_us, consent).unwrap();
        self.writer.participant(self.start_us, identity.into(), name.into(), true).unwrap();
    }

    pub fn track(&mut self, sid: &str, identity: &str, name: &str, source: &str, mime: &str) {
        let audio = mime.starts_with("audio");
        let info = TrackInfo {
            track_sid: sid.into(),
            identity: identity.into(),
            display_name: name.into(),
            kind: if audio { "audio" } else { "video" }.into(),
            source: source.into(),
            mime: mime.into(),
            clock_rate: if audio { 48_000 } else { 90_000 },
            ..TrackInfo::default()
        };
        self.writer.track(self.start_us, info).unwrap();
    }

    /// What somebody signals at a moment.
    pub fn sign(&mut self, at_us: i64, identity: &str, sign: &Sign) -> Vec<Timed> {
        let info = notes::signs_track(identity, identity);
        let sid = info.track_sid.clone();
        self.writer.track(at_us, info).unwrap();
        notes::sign_packets(at_us, sign).into_iter().map(|packet| Timed { sid: sid.clone(), packet }).collect()
    }

    /// Somebody's portrait, which came at a moment.
    pub fn portrait(&mut self, at_us: i64, identity: &str, picture: Vec<u8>) -> Vec<Timed> {
        let info = notes::portrait_track(identity, identity, &picture).unwrap();
        let sid = info.track_sid.clone();
        self.writer.track(at_us, info).unwrap();
        notes::packets(at_us, &picture.into()).into_iter().map(|packet| Timed { sid: sid.clone(), packet }).collect()
    }

    /// Stores packets in order of arrival and ends the recording at `end_us`.
    pub fn finish(mut self, mut packets: Vec<Timed>, end_us: i64) -> DataKey {
        packets.sort_by_key(|t| t.packet.at_us);
        let mut tick = self.start_us;
        for Timed { sid, packet } in packets {
            while packet.at_us > tick + 500_000 {
                tick += 500_000;
                self.writer.tick(tick).unwrap();
            }
            self.writer.push(&sid, packet).unwrap();
        }
        self.writer.tick(end_us).unwrap();
        self.writer.end(end_us, "call_ended").unwrap();
        self.data_key
    }
}

/// A voice from `start_us` on.
pub fn voice(sid: &str, start_us: i64, samples_16k: &[f32]) -> Vec<Timed> {
    let packets = super::call::opus_packets(samples_16k);
    let timed = packets.into_iter().enumerate().map(|(n, payload)| Timed {
        sid: sid.into(),
        packet: Packet {
            at_us: start_us + n as i64 * 20_000 + [0, 3_000, 9_000][n % 3],
            seq: 500 + n as u64,
            timestamp: 7_777 + n as u64 * 960,
            marker: false,
            key_frame: false,
            audio_level: 20,
            payload: payload.into(),
        },
    });
    timed.collect()
}

/// A video of one colour, encoded by the ffmpeg program and cut into RTP payloads.
pub fn pictures(sid: &str, codec: &str, colour: &str, size: &str, seconds: u32, start_us: i64) -> Vec<Timed> {
    filmed(sid, codec, &format!("color={colour}:s={size}:r=10:d={seconds}"), "500k", 300, seconds, start_us)
}

/// The same of a test pattern that moves, in packets as large as browsers make them.
pub fn moving(sid: &str, codec: &str, size: &str, seconds: u32, start_us: i64) -> Vec<Timed> {
    filmed(sid, codec, &format!("testsrc2=s={size}:r=10:d={seconds}"), "500k", 1_150, seconds, start_us)
}

/// The same of noise, which no encoder makes small: files grow fast by it.
pub fn noise(sid: &str, size: &str, seconds: u32, start_us: i64) -> Vec<Timed> {
    filmed(sid, "VP8", &format!("color=gray:s={size}:r=10:d={seconds},noise=alls=100:allf=t"), "6M", 1_150, seconds, start_us)
}

/// VP8 frames of one colour, ten a second, as an encoder gives them.
pub fn vp8_frames(colour: &str, size: &str, seconds: u32) -> Vec<Vec<u8>> {
    frames("VP8", &format!("color={colour}:s={size}:r=10:d={seconds}"), "500k", seconds)
}

fn frames(codec: &str, source: &str, rate: &str, seconds: u32) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (encoder, format, file): (&[&str], _, _) = match codec {
        "VP8" => (&["libvpx", "-b:v", rate], "ivf", "x.ivf"),
        "VP9" => (&["libvpx-vp9", "-b:v", rate, "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"], "ivf", "x.ivf"),
        "AV1" => (&["libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-b:v", rate, "-lag-in-frames", "0"], "ivf", "x.ivf"),
        "H264" => (&["libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-x264-params", "repeat-headers=1"], "h264", "x.h264"),
        _ => panic!("{codec}"),
    };
    let path = dir.path().join(file);
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", "-g", "20", "-c:v"])
        .args(encoder)
        .args(["-f", format])
        .arg(&path)
        .status()
        .expect("the ffmpeg program (./x installs it)");
    assert!(status.success());
    let bytes = std::fs::read(&path).unwrap();
    let frames = if codec == "H264" { annex_b(&bytes) } else { ivf(&bytes) };
    assert_eq!(frames.len() as u32, seconds * 10);
    frames
}

fn filmed(sid: &str, codec: &str, source: &str, rate: &str, payload: usize, seconds: u32, start_us: i64) -> Vec<Timed> {
    let frames = frames(codec, source, rate, seconds);
    let mut seq = 40;
    let mut timed = Vec::new();
    for (n, frame) in frames.iter().enumerate() {
        let payloads = match codec {
            "VP8" => vp8(frame, payload),
            "VP9" => vp9(frame),
            "AV1" => av1(frame),
            _ => h264(frame),
        };
        let count = payloads.len();
        for (k, payload) in payloads.into_iter().enumerate() {
            let packet = Packet {
                at_us: start_us + n as i64 * 100_000 + k as i64 * 300,
                seq,
                timestamp: 1_000 + n as u64 * 9_000,
                marker: k + 1 == count,
                key_frame: false,
                audio_level: 255,
                payload: payload.into(),
            };
            seq += 1;
            timed.push(Timed { sid: sid.into(), packet });
        }
    }
    timed
}

fn ivf(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut at = 32;
    let mut frames = Vec::new();
    while at + 12 <= bytes.len() {
        let size = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push(bytes[at + 12..at + 12 + size].to_vec());
        at += 12 + size;
    }
    frames
}

/// Access units: each begins with the first slice after other units.
fn annex_b(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut units: Vec<&[u8]> = Vec::new();
    let starts: Vec<usize> = (0..bytes.len().saturating_sub(3)).filter(|&n| bytes[n..n + 3] == [0, 0, 1]).collect();
    for (k, &start) in starts.iter().enumerate() {
        let end = starts.get(k + 1).copied().unwrap_or(bytes.len());
        let unit = &bytes[start + 3..end];
        units.push(unit.strip_suffix(&[0]).unwrap_or(unit));
    }
    let mut frames: Vec<Vec<u8>> = vec![Vec::new()];
    let mut had_slice = false;
    for unit in units {
        let slice = matches!(unit[0] & 0x1f, 1 | 5);
        // first_mb_in_slice is 0 (one bit set) in the first slice of a picture.
        let first = !slice || unit[1] & 0x80 != 0;
        if had_slice && first {
            frames.push(Vec::new());
            had_slice = false;
        }
        had_slice |= slice;
        let frame = frames.last_mut().unwrap();
        frame.extend_from_slice(&(unit.len() as u32).to_be_bytes());
        frame.extend_from_slice(unit);
    }
    frames
}

fn vp8(frame: &[u8], payload: usize) -> Vec<Vec<u8>> {
    frame.chunks(payload).enumerate().map(|(n, part)| [&[if n == 0 { 0x90 } else { 0x80 }, 0x80, 0x81, 0x02][..], part].concat()).collect()
}

fn vp9(frame: &[u8]) -> Vec<Vec<u8>> {
    // The inter flag from the uncompressed header: frame_type is bit 2 of the first byte for profile 0.
    let inter = if frame[0] & 0x04 != 0 { 0x40 } else { 0 };
    let count = frame.chunks(300).count();
    frame
        .chunks(300)
        .enumerate()
        .map(|(n, part)| {
            let flags = 0x80 | inter | if n == 0 { 0x08 } else { 0 } | if n + 1 == count { 0x04 } else { 0 };
            [&[flags, 0x81, 0x02][..], part].concat()
        })
        .collect()
}

/// Every OBU an element with its length, without size fields; packets of at most 300 bytes, with fragments.
fn av1(unit: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = unit;
    let mut obus = Vec::new();
    while !rest.is_empty() {
        assert!(rest[0] & 0x06 == 0x02, "size, no extension");
        let (mut size, mut used) = (0, 1);
        loop {
            size |= usize::from(rest[used] & 0x7f) << (7 * (used - 1));
            used += 1;
            if rest[used - 1] & 0x80 == 0 {
                break;
            }
        }
        if rest[0] >> 3 != 2 {
            obus.push([&[rest[0] & !0x02][..], &rest[used..used + size]].concat());
        }
        rest = &rest[used + size..];
    }
    let new_sequence = obus.iter().any(|o| o[0] >> 3 & 0x0f == 1);
    let mut packets = Vec::new();
    for (k, obu) in obus.iter().enumerate() {
        let pieces: Vec<&[u8]> = obu.chunks(300).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let mut head = 0x10;
            head |= if n > 0 { 0x80 } else { 0 };
            head |= if n + 1 < pieces.len() { 0x40 } else { 0 };
            head |= if k == 0 && n == 0 && new_sequence { 0x08 } else { 0 };
            packets.push([&[head][..], piece].concat());
        }
    }
    packets
}

fn h264(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = frame;
    let mut payloads = Vec::new();
    while rest.len() > 4 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let unit = &rest[4..4 + size];
        rest = &rest[4 + size..];
        if unit.len() <= 300 {
            payloads.push(unit.to_vec());
            continue;
        }
        let count = unit[1..].chunks(300).count();
        for (n, part) in unit[1..].chunks(300).enumerate() {
            let edge = if n == 0 {
                0x80
            } else if n + 1 == count {
                0x40
            } else {
                0
            };
            payloads.push([&[unit[0] & 0xe0 | 28, edge | unit[0] & 0x1f][..], part].concat());
        }
    }
    payloads
}
