//! Rendered files, checked with the ffprobe and ffmpeg programs: streams, length, what is to be seen and heard.
#![cfg(test)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use archive::keys::DataKey;
use common::film::{Still, sound, still};
use common::recording::{Writer, moving, pictures, voice};
use offload_worker::job::{JobAddress, Lease, Outcome};
use offload_worker::render::job::render;
use offloader_jobs::egress::FileForm;
use offloader_jobs::mattermost::PictureProfile;
use offloader_jobs::order::{RenderOrder, RenderResult};

const START_US: i64 = 1_795_000_000_000_000;

fn order(dir: &Path, data_key: &DataKey) -> RenderOrder {
    RenderOrder {
        recording_id: "rec-1".into(),
        dir: dir.join("rec"),
        data_key: data_key.to_hex(),
        output_dir: dir.join("out"),
        title: "Weekly".into(),
        picture: PictureProfile::default(),
        form: FileForm::default(),
        free_bytes_min: 0,
    }
}

fn made(dir: &Path, data_key: &DataKey) -> (PathBuf, RenderResult) {
    let mut progress = Vec::new();
    let started = std::time::Instant::now();
    let cpu = common::cpu_seconds();
    let result = render(&order(dir, data_key), &mut |p| {
        progress.push(p);
        true
    })
    .unwrap()
    .unwrap();
    println!(
        "{} ms of call rendered in {:?}, {:.2} s of it on this thread",
        result.duration_ms,
        started.elapsed(),
        common::cpu_seconds() - cpu
    );
    assert!(progress.is_sorted() && progress.iter().all(|p| (0.0..=1.0).contains(p)));
    (dir.join("out").join(&result.file), result)
}

/// Codec names and the file's length in seconds, by ffprobe.
fn probe(file: &Path) -> (Vec<String>, f64, serde_json::Value) {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_format", "-of", "json"])
        .arg(file)
        .output()
        .expect("the ffprobe program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let codecs = json["streams"].as_array().unwrap().iter().map(|s| s["codec_name"].as_str().unwrap().to_string()).collect();
    (codecs, json["format"]["duration"].as_str().unwrap().parse().unwrap(), json)
}

/// When each picture that can be decoded is to be shown, ms.
fn frames(file: &Path) -> Vec<i64> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_frames", "-show_entries", "frame=pts_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let seconds = text.lines().filter_map(|line| line.trim_end_matches(',').parse::<f64>().ok());
    seconds.map(|seconds| (seconds * 1_000.0).round() as i64).collect()
}

fn energy(samples: &[f32], from: f32, to: f32) -> f32 {
    let part = &samples[(from * 16_000.0) as usize..((to * 16_000.0) as usize).min(samples.len())];
    (part.iter().map(|s| s * s).sum::<f32>() / part.len() as f32).sqrt()
}

/// The index lies before the media, so that a browser can seek at once.
fn assert_index_first(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let find = |tag: &[u8]| bytes.windows(4).position(|w| w == tag).unwrap();
    assert!(find(b"moov") < find(b"mdat"));
}

#[test]
fn a_call_without_pictures_becomes_a_sound_file_with_everyone_at_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let (tracks, _) = common::meeting();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    let mut packets = Vec::new();
    for (identity, samples) in &tracks {
        writer.person(identity, identity);
        writer.track(identity, identity, identity, "microphone", "audio/opus");
        packets.extend(voice(identity, START_US, samples));
    }
    // Three seconds of nothing at the end belong to the recording.
    let data_key = writer.finish(packets, START_US + 40_400_000);
    let (file, result) = made(dir.path(), &data_key);
    assert_eq!((result.file.as_str(), result.mime.as_str(), result.has_video), ("media.m4a", "audio/mp4", false));
    let (codecs, seconds, _) = probe(&file);
    assert_eq!(codecs, ["aac"]);
    assert!((seconds - 40.4).abs() < 0.5, "{seconds}");
    assert_index_first(&file);

    let mixed = sound(&file);
    // The sum of the tracks, where it is not limited, by cross-correlation at a lag of nothing and elsewhere.
    let reference: Vec<f32> = (0..tracks[0].1.len()).map(|n| tracks.iter().map(|(_, s)| s[n]).sum()).collect();
    let likeness = |lag: i64| -> f32 {
        let pairs = (16_000..reference.len() - 16_000).step_by(3).map(|n| (reference[n], mixed[(n as i64 + lag) as usize]));
        let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
        pairs.for_each(|(x, y)| {
            xy += x * y;
            xx += x * x;
            yy += y * y;
        });
        xy / (xx * yy).sqrt()
    };
    // Opus delays by 6.5 ms; the rest is the files' own. Within ±40 ms must be a clear best.
    let best = (-640..=640).step_by(4).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
    println!("best lag {} ms, likeness {:.2}", best as f32 / 16.0, likeness(best));
    assert!(likeness(best) > 0.9, "{}", likeness(best));
    assert!(best.abs() <= 480, "{best} samples");
    assert!(energy(&mixed, 38.5, 40.0) < 1e-4, "silence at the end");
}

#[test]
fn a_shared_screen_and_a_camera_are_seen_with_names_in_every_codec() {
    for (screen, camera) in [("VP8", "H264"), ("VP9", "VP8"), ("AV1", "VP9"), ("H264", "AV1")] {
        let dir = tempfile::tempdir().unwrap();
        let (tracks, _) = common::meeting();
        let mut writer = Writer::new(&dir.path().join("rec"), START_US);
        let mut packets = Vec::new();
        for (identity, name) in [("a", "Zoë Ångström"), ("b", "Bob")] {
            writer.person(identity, name);
            writer.track(&format!("mic-{identity}"), identity, name, "microphone", "audio/opus");
        }
        packets.extend(voice("mic-a", START_US, &tracks[0].1[..16_000 * 8]));
        writer.track("screen", "a", "Zoë Ångström", "screen_share", &format!("video/{screen}"));
        packets.extend(pictures("screen", screen, "red", "1920x1080", 4, START_US + 2_000_000));
        writer.track("camera", "b", "Bob", "camera", &format!("video/{camera}"));
        packets.extend(pictures("camera", camera, "blue", "640x360", 7, START_US + 1_000_000));
        writer.writer.track_ended(START_US + 6_000_000, "screen").unwrap();
        let data_key = writer.finish(packets, START_US + 8_000_000);

        let (file, result) = made(dir.path(), &data_key);
        assert_eq!((result.file.as_str(), result.mime.as_str(), result.has_video), ("media.mp4", "video/mp4", true));
        let (codecs, seconds, json) = probe(&file);
        assert!(codecs.contains(&"h264".to_string()) && codecs.contains(&"aac".to_string()), "{codecs:?}");
        assert!((seconds - 8.0).abs() < 0.5, "{seconds}");
        assert!(json["streams"].as_array().unwrap().iter().any(|s| s["width"] == 1_280 && s["height"] == 720));
        assert_index_first(&file);

        let red = |p: [u8; 3]| p[0] > 180 && p[1] < 70 && p[2] < 70;
        let blue = |p: [u8; 3]| p[2] > 180 && p[0] < 70 && p[1] < 70;
        let during = still(&file, 4.5);
        assert!(red(during.at(500, 300)), "{screen} screen: {:?}", during.at(500, 300));
        // The second tile of the column is Bob's camera.
        assert!(blue(during.at(1_140, 230)), "{camera} camera: {:?}", during.at(1_140, 230));
        let before = still(&file, 1.7);
        assert!(!red(before.at(500, 300)));
        let after = still(&file, 6.8);
        assert!(!red(after.at(500, 300)) && blue(after.at(960, 360)), "the grid again: {:?}", after.at(960, 360));
        // Who speaks has a green frame, who is silent none.
        let green = |p: [u8; 3]| p[1] > 150 && p[0] < 120;
        let edge = |still: &Still, x: usize| (200..500).any(|y| green(still.at(x, y)));
        assert!(edge(&after, 9) && !edge(&after, 645), "speaker's frame");
        if let Some(keep) = std::env::var_os("KEEP_PICTURES") {
            std::fs::copy(&file, Path::new(&keep).join(format!("{screen}-{camera}.mp4"))).unwrap();
        }
    }
}

#[test]
fn rendering_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "A");
    writer.track("mic", "a", "A", "microphone", "audio/opus");
    let data_key = writer.finish(voice("mic", START_US, &vec![0.1; 16_000 * 3]), START_US + 3_000_000);
    let mut asked = 0;
    let stopped = render(&order(dir.path(), &data_key), &mut |_| {
        asked += 1;
        asked < 2
    });
    assert!(stopped.unwrap().is_none());
    assert_eq!(asked, 2);
}

#[test]
fn a_recording_without_any_media_still_gives_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let data_key = Writer::new(&dir.path().join("rec"), START_US).finish(Vec::new(), START_US + 2_000_000);
    let (file, _) = made(dir.path(), &data_key);
    let (codecs, seconds, _) = probe(&file);
    assert_eq!(codecs, ["aac"]);
    assert!((seconds - 2.0).abs() < 0.5, "{seconds}");
}

#[test]
fn a_profile_gives_a_picture_of_its_size_even_of_a_silent_call_and_encodes_only_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "Ada Lovelace");
    writer.person("b", "Grace Hopper");
    writer.writer.participant(START_US + 4_000_000, "b".into(), "Grace Hopper".into(), false).unwrap();
    let data_key = writer.finish(Vec::new(), START_US + 8_000_000);
    let profile = PictureProfile {
        width: 1_920,
        height: 1_080,
        frame_rate: 20,
        video_kbps: 2_500,
        audio_kbps: 64,
        always: true,
        ..Default::default()
    };
    let order = RenderOrder { picture: profile, ..order(dir.path(), &data_key) };
    let result = render(&order, &mut |_| true).unwrap().unwrap();
    assert_eq!((result.file.as_str(), result.has_video), ("media.mp4", true));
    let file = dir.path().join("out/media.mp4");
    let (codecs, seconds, json) = probe(&file);
    assert!(codecs.contains(&"h264".to_string()) && codecs.contains(&"aac".to_string()), "{codecs:?}");
    assert!((seconds - 8.0).abs() < 0.2, "{seconds}");
    let video = json["streams"].as_array().unwrap().iter().find(|stream| stream["codec_name"] == "h264").unwrap().clone();
    assert_eq!((&video["width"], &video["height"]), (&1_920.into(), &1_080.into()));
    let seconds: f64 = video["duration"].as_str().unwrap().parse().unwrap();
    assert!((seconds - 8.0).abs() < 0.2, "the last picture stands to the end: {seconds}");
    // The clock moves once a second, somebody leaves once.
    let frames: u32 = video["nb_frames"].as_str().unwrap().parse().unwrap();
    assert!((8..=12).contains(&frames), "{frames} pictures for 8 s");

    let bright = |second: &str, crop: &str| {
        let out = Command::new("ffmpeg")
            .args(["-v", "error", "-ss", second, "-i"])
            .arg(&file)
            .args(["-frames:v", "1", "-vf", &format!("crop={crop}"), "-f", "rawvideo", "-pix_fmt", "gray", "-"])
            .output()
            .unwrap();
        out.stdout.iter().filter(|pixel| **pixel > 150).count()
    };
    assert!(bright("2", "900:900:0:0") > 100 && bright("2", "900:900:1000:0") > 100, "both names");
    let alone = bright("6", "900:900:500:0");
    assert!(alone > 100, "one name in the middle: {alone}");
    assert!(bright("2", "1920:48:0:1032") > 100, "the clock at the bottom");
    if let Some(keep) = std::env::var_os("KEEP_PICTURES") {
        std::fs::copy(&file, Path::new(&keep).join("silent.mp4")).unwrap();
    }
}

#[test]
fn sound_alone_is_opus_in_ogg_and_pictures_alone_have_no_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (tracks, _) = common::meeting();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "A");
    writer.track("mic", "a", "A", "microphone", "audio/opus");
    let data_key = writer.finish(voice("mic", START_US, &tracks[0].1[..16_000 * 8]), START_US + 8_000_000);
    for (form, always, name, mime, codec) in [
        (FileForm::Ogg, false, "media.ogg", "audio/ogg", "opus"),
        (FileForm::Mp4, false, "media.m4a", "audio/mp4", "aac"),
        (FileForm::SilentMp4, true, "media.mp4", "video/mp4", "h264"),
    ] {
        let picture = PictureProfile { always, ..PictureProfile::default() };
        let order = RenderOrder { form, picture, ..order(dir.path(), &data_key) };
        let result = render(&order, &mut |_| true).unwrap().unwrap();
        assert_eq!((result.file.as_str(), result.mime.as_str(), result.has_video), (name, mime, always));
        let file = dir.path().join("out").join(name);
        let (codecs, seconds, _) = probe(&file);
        assert_eq!(codecs, [codec]);
        assert!((seconds - 8.0).abs() < 0.5, "{name}: {seconds}");
        if !always {
            let heard = sound(&file);
            assert!(energy(&heard, 0.0, 8.0) > 0.01, "{name}");
        }
    }
}

#[test]
fn one_persons_newest_picture_fills_the_frame_and_nobody_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "A");
    writer.track("camera", "a", "A", "camera", "video/VP8");
    let data_key = writer.finish(pictures("camera", "VP8", "red", "640x360", 4, START_US + 2_000_000), START_US + 6_000_000);
    let picture_of = PictureProfile { always: true, single: true, ..PictureProfile::default() };
    let order = RenderOrder { picture: picture_of, ..order(dir.path(), &data_key) };
    render(&order, &mut |_| true).unwrap().unwrap();
    let file = dir.path().join("out/media.mp4");
    // What does not change is not encoded again: the first picture stands for the time before.
    let (before, during) = (still(&file, 0.0), still(&file, 4.0));
    for (x, y) in [(8, 8), (1_270, 8), (8, 710), (1_270, 710), (640, 360)] {
        let red = during.at(x, y);
        assert!(red[0] > 180 && red[1] < 70 && red[2] < 70, "{x} {y}: {red:?}");
        assert!(before.at(x, y).iter().all(|value| *value < 50), "nothing but the ground");
    }
}

#[test]
fn a_track_comes_out_as_it_went_in_in_the_container_of_its_codec() {
    for (codec, name, mime, known_as) in [
        ("VP8", "media.webm", "video/webm", "vp8"),
        ("VP9", "media.webm", "video/webm", "vp9"),
        ("H264", "media.mp4", "video/mp4", "h264"),
        ("AV1", "media.ivf", "video/x-ivf", "av1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(&dir.path().join("rec"), START_US);
        writer.person("a", "A");
        writer.track("camera", "a", "A", "camera", &format!("video/{codec}"));
        // Before the first key frame that is whole there is nothing to see.
        let mut packets = moving("camera", codec, "1280x720", 6, START_US + 1_000_000);
        packets.remove(0);
        let data_key = writer.finish(packets, START_US + 8_000_000);
        let order = RenderOrder { form: FileForm::Track, ..order(dir.path(), &data_key) };
        let result = render(&order, &mut |_| true).unwrap_or_else(|error| panic!("{codec}: {error:#}")).unwrap();
        assert_eq!((result.file.as_str(), result.mime.as_str(), result.has_video), (name, mime, true));
        let file = dir.path().join("out").join(name);
        let (codecs, _, json) = probe(&file);
        assert_eq!(codecs, [known_as]);
        assert_eq!((&json["streams"][0]["width"], &json["streams"][0]["height"]), (&1_280.into(), &720.into()));
        // Key frames come every two seconds: four of six are left, each as it was, at its time.
        assert_eq!(result.duration_ms, 4_000, "{codec}");
        assert_eq!(frames(&file), (0..40).map(|n| n * 100).collect::<Vec<i64>>(), "{codec}");
        still(&file, 3.5);
    }
    let dir = tempfile::tempdir().unwrap();
    let (tracks, _) = common::meeting();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "A");
    writer.track("mic", "a", "A", "microphone", "audio/opus");
    let data_key = writer.finish(voice("mic", START_US, &tracks[0].1[..16_000 * 5]), START_US + 8_000_000);
    let order = RenderOrder { form: FileForm::Track, ..order(dir.path(), &data_key) };
    let result = render(&order, &mut |_| true).unwrap().unwrap();
    assert_eq!((result.file.as_str(), result.mime.as_str(), result.has_video), ("media.ogg", "audio/ogg", false));
    let (codecs, seconds, _) = probe(&dir.path().join("out/media.ogg"));
    assert_eq!(codecs, ["opus"]);
    assert!((seconds - 5.0).abs() < 0.1 && (result.duration_ms - 5_000).abs() < 100, "{seconds} {}", result.duration_ms);
}

#[test]
fn where_one_track_was_to_be_recorded_two_are_not_made_into_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("a", "A");
    let mut packets = Vec::new();
    for mic in ["one", "two"] {
        writer.track(mic, "a", "A", "microphone", "audio/opus");
        packets.extend(voice(mic, START_US, &[0.1; 16_000]));
    }
    let data_key = writer.finish(packets, START_US + 1_000_000);
    let order = RenderOrder { form: FileForm::Track, ..order(dir.path(), &data_key) };
    let refused = render(&order, &mut |_| true).unwrap_err().to_string();
    assert!(refused.contains("several tracks"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn film_for_which_there_is_no_room_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    writer.person("u-1", "Ann");
    writer.track("u-1", "u-1", "TR_a", "microphone", "audio/opus");
    let data_key = writer.finish(voice("TR_a", START_US, &[0.1; 160_000]), START_US + 10_000_000);
    let nobody = JobAddress { url: "http://127.0.0.1:9".into(), token: "t".into(), id: "job-1".into(), fence: 1 };
    let lease = Lease::keep(nobody).unwrap();
    let blocked = |order: RenderOrder| {
        let outcome = offload_worker::render::job::run(&order, &lease);
        assert!(matches!(&outcome, Outcome::Blocked { error } if error.starts_with("no room on the disk of")), "{outcome:?}");
    };
    blocked(RenderOrder { free_bytes_min: u64::MAX, ..order(dir.path(), &data_key) });
    // A disk that is full in the midst of it.
    std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("out/media.m4a")).unwrap();
    blocked(order(dir.path(), &data_key));
}
