//! A call of more than three hours, by the real program: memory that does not grow with it, and nothing that moves in time.
//!
//! People whose microphones are off send nothing, so that the call of every test run is written and heard in seconds; its film is left out,
//! because a film of three hours takes a minute of a core. `LONG_CALL_HOURS=4` makes all of it, that long, with a microphone that is open
//! all the time and one that sends a packet every 0.4 s, as Chromium's does in silence:
//! `LONG_CALL_HOURS=4 cargo test -p offload-worker --test long -- --nocapture` prints what it took.
#![cfg(test)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use archive::keys::DataKey;
use common::film::{sound, still};
use common::recording::{Timed, Writer, pictures, voice};
use common::servers::World;
use common::wer;
use offloader_jobs::egress::FileForm;
use offloader_jobs::mattermost::PictureProfile;
use offloader_jobs::order::{ModelOrder, RenderOrder, TranscribeOrder, Transcript, WorkOrder};

const START_US: i64 = 1_795_000_000_000_000;
const MINUTE: i64 = 60_000_000;

/// Moves what begins with the recording to a moment of it, in the same stream: its count and its clock go on.
fn at(mut packets: Vec<Timed>, from_us: i64, clock_rate: u64, count: u64) -> Vec<Timed> {
    for timed in &mut packets {
        timed.packet.at_us += from_us;
        timed.packet.timestamp += from_us.unsigned_abs() * clock_rate / 1_000_000;
        timed.packet.seq += count;
    }
    packets
}

/// Packets of silence of one microphone, one every `every` times 20 ms.
fn silence(sid: &str, minutes: i64, every: usize) -> Vec<Timed> {
    let one = voice(sid, START_US, &[0.0; 3_200]).remove(5);
    let packets = (0..minutes * 60 * 50).step_by(every).map(|n| {
        let mut packet = one.packet.clone();
        packet.at_us = START_US + n * 20_000;
        packet.timestamp = 7_777 + n.unsigned_abs() * 960;
        packet.seq = 500 + n.unsigned_abs() / every as u64;
        Timed { sid: sid.into(), packet }
    });
    packets.collect()
}

struct Call {
    data_key: DataKey,
    /// When each sentence begins, and what it is.
    said: Vec<(i64, String, f32)>,
}

/// A call of so many minutes: sentences at its beginning, its middle, after its third hour and near its end, a screen at both ends.
fn call(dir: &Path, minutes: i64, open: bool) -> Call {
    let mut writer = Writer::new(&dir.join("rec"), START_US);
    let speech = common::utterances().into_iter().find(|utterance| utterance.name == "jfk.wav").unwrap();
    for (identity, name) in [("ada", "Ada"), ("bob", "Bob")] {
        writer.person(identity, name);
        writer.track(identity, identity, name, "microphone", "audio/opus");
    }
    writer.track("screen", "ada", "Ada", "screen_share", "video/VP8");
    let mut packets = Vec::new();
    if open {
        for (sid, every) in [("open", 1), ("dtx", 20)] {
            writer.person(sid, sid);
            writer.track(sid, sid, sid, "microphone", "audio/opus");
            packets.extend(silence(sid, minutes, every));
        }
    }
    let mut said = Vec::new();
    let last = (minutes - 6) * MINUTE;
    let mut moments = vec![MINUTE / 2, last / 2, (181 * MINUTE).min(last - MINUTE), last];
    moments.dedup();
    for (n, from_us) in moments.into_iter().enumerate() {
        let sid = ["ada", "bob"][n % 2];
        packets.extend(at(voice(sid, START_US, &speech.samples), from_us, 48_000, n as u64 * 2_000));
        said.push((from_us, speech.text.clone(), speech.samples.len() as f32 / 16_000.0));
    }
    packets.extend(pictures("screen", "VP8", "red", "640x360", 3, START_US));
    packets.extend(at(pictures("screen", "VP8", "blue", "640x360", 3, START_US), last, 90_000, 5_000));
    Call { data_key: writer.finish(packets, START_US + minutes * MINUTE), said }
}

/// What a worker took.
#[derive(Debug)]
struct Took {
    memory_mib: u64,
    cpu_s: f64,
}

/// Does a job by the real program.
async fn work(order: WorkOrder) -> Took {
    let world = World::start(Vec::new()).await;
    world.state.send_modify(|state| state.order_json = serde_json::to_string(&order).unwrap());
    let mut child = world.worker(1).spawn().unwrap();
    let id = child.id().unwrap();
    let mut took = Took { memory_mib: 0, cpu_s: 0.0 };
    let code = loop {
        // The kernel keeps the most there ever was, so that only what comes in the last moment is not seen.
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
        took.memory_mib = took.memory_mib.max(peak.unwrap_or(0) / 1024);
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let ticks: Vec<u64> = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
        took.cpu_s = took.cpu_s.max(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64);
        match tokio::time::timeout(Duration::from_millis(20), child.wait()).await {
            Ok(status) => break status.unwrap().code(),
            Err(_) => continue,
        }
    };
    let finished = world.seen.lock().unwrap().finished.clone();
    assert_eq!(code, Some(0), "{finished:?}");
    assert!(finished.is_some_and(|finished| finished.error.is_empty()));
    took
}

/// Renders and transcribes a call, and looks at what came of it.
async fn made(minutes: i64, open: bool, film: bool) -> (Took, Option<Took>) {
    let dir = tempfile::tempdir().unwrap();
    let call = call(dir.path(), minutes, open);
    let (rec, out) = (dir.path().join("rec"), dir.path().join("out"));
    let files = common::model_files();
    let transcribe = TranscribeOrder {
        recording_id: "rec-1".into(),
        dir: rec.clone(),
        data_key: call.data_key.to_hex(),
        output_dir: out.clone(),
        language: Some("en".into()),
        model: ModelOrder { path: files.model, vad_path: files.vad, ..ModelOrder::default() },
        threads: 0,
        last_try: false,
        free_bytes_min: 0,
    };
    let transcribed = work(WorkOrder::Transcribe(transcribe)).await;
    let words: Transcript = serde_json::from_slice(&std::fs::read(out.join("transcript.json")).unwrap()).unwrap();
    assert!(words.missing.is_empty(), "{:?}", words.missing);
    let all: Vec<_> = words.segments.iter().flat_map(|segment| &segment.words).collect();
    let mut heard_in_all = 0;
    for (from_us, text, seconds) in &call.said {
        let (begin, end) = (from_us / 1_000, from_us / 1_000 + (seconds * 1e3) as i64);
        let within: Vec<_> = all.iter().filter(|word| word.start_ms > begin - 500 && word.end_ms < end + 500).collect();
        let heard: String = within.iter().map(|word| format!("{} ", word.text)).collect();
        let (wrong, count) = wer::errors(text, &heard);
        println!(
            "{} min: {wrong} of {count} wrong, from {:?} to {:?}",
            from_us / MINUTE,
            within.first().map(|w| w.start_ms),
            within.last().map(|w| w.end_ms)
        );
        assert!(wrong * 10 <= count, "at {from_us} µs: {heard}");
        heard_in_all += within.len();
    }
    assert_eq!(heard_in_all, all.len(), "nothing was heard elsewhere: {:?}", words.segments);

    if !film {
        return (transcribed, None);
    }
    let picture = PictureProfile { always: true, ..PictureProfile::default() };
    let (dir, title) = (rec, "Long".into());
    let data_key = call.data_key.to_hex();
    let render = RenderOrder {
        recording_id: "rec-1".into(),
        dir,
        data_key,
        output_dir: out.clone(),
        title,
        picture,
        form: FileForm::default(),
        free_bytes_min: 0,
    };
    let rendered = work(WorkOrder::Render(render)).await;
    let film = out.join("media.mp4");
    looks_right(&film, minutes, &call.said);
    println!("{minutes} min: transcript {transcribed:?}, film {rendered:?}, {} kB", std::fs::metadata(&film).unwrap().len() / 1_000);
    (transcribed, Some(rendered))
}

/// The film is as long as the call, seeks everywhere, and says and shows everything at its time.
fn looks_right(film: &Path, minutes: i64, said: &[(i64, String, f32)]) {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,duration", "-of", "csv=p=0"])
        .arg(film)
        .output()
        .expect("the ffprobe program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let streams: Vec<(&str, f64)> =
        text.lines().filter_map(|line| line.split_once(',')).map(|(name, s)| (name, s.trim_end_matches(',').parse().unwrap())).collect();
    assert_eq!(streams.len(), 2, "{text}");
    for (name, seconds) in streams {
        assert!((seconds - (minutes * 60) as f64).abs() < 0.5, "{name}: {seconds} s");
    }
    for (from_us, _, seconds) in said {
        let loud = loudness(film, from_us / 1_000_000 - 5, 20);
        let first = loud.iter().position(|loud| *loud > 0.02).expect("it is heard") as f32 / 10.0 - 5.0;
        let last = loud.iter().rposition(|loud| *loud > 0.02).unwrap() as f32 / 10.0 - 5.0;
        assert!((-0.2..1.0).contains(&first) && (seconds - 1.5..seconds + 0.4).contains(&last), "{from_us} µs: from {first} to {last} s");
    }
    let last = said.last().unwrap().0 as f32 / 1e6;
    let colour = |at_s: f32| still(film, at_s).at(500, 300);
    let ([red, _, _], [_, _, blue]) = (colour(20.0), colour(last + 20.0));
    assert!(red > 180 && blue > 180, "{red} {blue}");
    let [red, _, blue] = colour(last - 20.0);
    assert!(red > 180 && blue < 80, "the first stands until the second comes: {red} {blue}");
}

/// The loudest of each tenth of a second from a moment on.
fn loudness(film: &Path, from_s: i64, seconds: i64) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part.wav");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-ss", &from_s.to_string(), "-t", &seconds.to_string(), "-i"])
        .arg(film)
        .args(["-vn", "-ac", "1"])
        .arg(&part)
        .status()
        .unwrap();
    assert!(status.success());
    sound(&part).chunks(1_600).map(|tenth| tenth.iter().fold(0.0_f32, |loud, sample| loud.max(sample.abs()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_more_than_three_hours_has_its_words_and_pictures_at_their_times() {
    let hours = std::env::var("LONG_CALL_HOURS").ok().map(|hours| hours.parse::<i64>().unwrap());
    let (all, minutes) = (hours.is_some(), hours.map_or(188, |hours| hours * 60));
    let (of_short, of_long) = (made(12, all, true).await, made(minutes, all, all).await);
    let words = of_long.0.memory_mib.saturating_sub(of_short.0.memory_mib);
    println!("the transcript's memory grew by {words} MiB");
    assert!(words <= 48, "{of_short:?} {of_long:?}");
    if let (Some(short), Some(long)) = (&of_short.1, &of_long.1) {
        // The file's own index is in memory until it is written: 24 bytes and more for each of 47 pieces of sound a second.
        let film = long.memory_mib.saturating_sub(short.memory_mib);
        println!("the film's memory grew by {film} MiB");
        assert!(film as i64 * 60 <= 16 * minutes, "{of_short:?} {of_long:?}");
    }
}
