//! The record job, run by the real program against a media tap and an offloader over real gRPC.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test"
)]

mod common;

use std::path::Path;

use archive::keys::{DataKey, SiteKey, SiteSigner};
use archive::read::Recording;
use archive::record::{GapReason, Record};
use common::call;
use common::servers::{State, Step, World};
use offload_worker::job::now_us;
use offloader_jobs::order::{
    ConsentParam, ModelOrder, RecordOrder, RecordParams, RecordResult, SourceOrder, TapOrder, TranscribeOrder, TranscribeResult,
    Transcript, WorkOrder,
};
use offloader_jobs::selection::Selection;

struct Site {
    signer: SiteSigner,
    data_key: DataKey,
    wrapped: String,
    site_key_id: String,
    free_bytes_min: u64,
}

impl Site {
    fn new() -> Self {
        let site_key = SiteKey::generate().unwrap();
        let data_key = DataKey::generate().unwrap();
        let wrapped = site_key.wrap("rec-1", &data_key).unwrap();
        let signer = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
        Self { signer, data_key, wrapped, site_key_id: site_key.id(), free_bytes_min: 0 }
    }

    fn order(&self, world: &World, dir: &Path, fence: u64, agreed: &[&str]) -> String {
        let grant = self.signer.grant("rec-1", fence, &self.data_key, &self.wrapped, &self.site_key_id).unwrap();
        let consent = |identity: &&str| ConsentParam {
            identity: identity.to_string(),
            display_name: call::name(identity),
            granted: true,
            answered_at_ms: 1,
        };
        let order = RecordOrder {
            params: RecordParams {
                call_id: "call-1".into(),
                tenant: "t".into(),
                notice_version: "1".into(),
                consents: agreed.iter().map(consent).collect(),
                ..RecordParams::default()
            },
            recording_id: "rec-1".into(),
            source: SourceOrder::Tap(TapOrder {
                url: world.url(),
                call_id: "call-1".into(),
                tenant: "t".into(),
                token: "tap-token".into(),
                selection: Selection::default(),
            }),
            dir: dir.to_path_buf(),
            grant: serde_json::to_value(&grant).unwrap(),
            free_bytes_min: self.free_bytes_min,
        };
        serde_json::to_string(&WorkOrder::Record(Box::new(order))).unwrap()
    }
}

fn packets(recording: &Recording, identity: &str) -> Vec<u64> {
    let track = recording.tracks().iter().find(|t| t.info.identity == identity).unwrap();
    recording
        .records(track.number)
        .filter_map(|r| match r.unwrap() {
            Record::Packet(p) => Some(p.seq),
            Record::Gap(_) => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_recorded_untouched_and_its_transcript_has_the_right_words() {
    let dir = tempfile::tempdir().unwrap();
    let start_us = now_us() - 37_000_000;
    let (mut items, end_us) = call::meeting(start_us);
    items.push(call::call_ended(end_us));
    let mut world = World::start(vec![items.into_iter().map(Step::Item).collect()]).await;
    let site = Site::new();
    let folder = dir.path().join("rec");
    // ls27 has not agreed: the media node would hold his media back, and so does the writer.
    world.state.send_modify(|s| s.order_json = site.order(&world, &folder, 1, &["lj", "ls19"]));

    let status = world.worker(1).status().await.unwrap();
    assert_eq!(status.code(), Some(0));
    world.until(|seen| seen.finished.is_some()).await;
    let finished = world.seen.lock().unwrap().finished.clone().unwrap();
    assert!(finished.ok, "{}", finished.error);
    let result: RecordResult = serde_json::from_str(&finished.result_json).unwrap();
    assert_eq!(result.reason, "call_ended");

    let recording = Recording::open(&folder, &site.data_key).unwrap();
    let lj = packets(&recording, "lj");
    assert_eq!(lj.len(), 1_870 - 37, "all that came");
    assert_eq!(packets(&recording, "ls27").len(), 0, "nothing of someone who has not agreed");
    assert_eq!(result.packets as usize, lj.len() + packets(&recording, "ls19").len());
    assert_eq!(recording.tracks()[0].segments.iter().map(|s| s.lost).sum::<u64>(), 37, "losses are marked");

    // The same program makes words of it.
    let files = common::model_files();
    let output = dir.path().join("out");
    let order = TranscribeOrder {
        recording_id: "rec-1".into(),
        dir: folder,
        data_key: site.data_key.to_hex(),
        output_dir: output.clone(),
        language: Some("en-GB".into()),
        model: ModelOrder { path: files.model, vad_path: files.vad, ..ModelOrder::default() },
        threads: 0,
        last_try: false,
        free_bytes_min: 0,
    };
    world.state.send_modify(|s| s.order_json = serde_json::to_string(&WorkOrder::Transcribe(order)).unwrap());
    world.seen.lock().unwrap().finished = None;
    let started = std::time::Instant::now();
    assert_eq!(world.worker(1).status().await.unwrap().code(), Some(0));
    println!("transcribed 2 tracks of 37 s in {:?}", started.elapsed());
    let finished = world.seen.lock().unwrap().finished.clone().unwrap();
    let result: TranscribeResult = serde_json::from_str(&finished.result_json).unwrap();
    let transcript: Transcript = serde_json::from_slice(&std::fs::read(output.join("transcript.json")).unwrap()).unwrap();
    assert_eq!(result.words, transcript.segments.iter().map(|s| s.words.len() as u64).sum::<u64>());
    let (_, turns) = common::meeting();
    let (mut wrong, mut all) = (0, 0);
    for turn in turns.iter().filter(|t| t.speaker != "ls27") {
        let heard: String = transcript
            .segments
            .iter()
            .filter(|s| s.identity == turn.speaker)
            .flat_map(|s| &s.words)
            .filter(|w| w.start_ms as f32 > turn.start_s * 1e3 - 400.0 && (w.end_ms as f32) < turn.end_s * 1e3 + 400.0)
            .map(|w| format!("{} ", w.text))
            .collect();
        let (errors, words) = common::wer::errors(&turn.text, &heard);
        println!("{} {errors}/{words} {heard}", turn.speaker);
        (wrong, all) = (wrong + errors, all + words);
    }
    assert!(wrong * 100 <= all * 12, "{wrong} of {all} words wrong after 2 % loss");
    let order: Vec<i64> = transcript.segments.iter().map(|s| s.start_ms).collect();
    assert!(order.is_sorted(), "speakers are merged by time: {order:?}");
    let vtt = std::fs::read_to_string(output.join("transcript.vtt")).unwrap();
    assert!(vtt.starts_with("WEBVTT\n") && vtt.contains("<v LJ>"), "{vtt}");
    assert!(std::fs::read_to_string(output.join("transcript.txt")).unwrap().contains("LS19: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_followed_by_one_that_goes_on_with_the_same_recording() {
    let dir = tempfile::tempdir().unwrap();
    let (tracks, _) = common::meeting();
    let sound = call::opus_packets(&tracks[0].1[..16_000 * 8]);
    // After the encoding, which takes seconds on a busy machine: the writer closes segments by its own clock.
    let start_us = now_us();
    let head = |at| vec![call::opened(at), call::participant(at, "lj"), call::audio_track(at, "lj")].into_iter().map(Step::Item);
    let part = |range: std::ops::Range<usize>| -> Vec<Step> {
        range.map(|n| Step::Item(call::audio_packet(start_us, "lj", n, &sound[n]))).collect()
    };
    // Packets 200 to 250 go by while nobody listens.
    let first: Vec<Step> = head(start_us).chain(part(0..200)).chain([Step::Hold]).collect();
    let second: Vec<Step> =
        head(start_us).chain(part(250..400)).chain([Step::Item(call::screen_track(start_us + 8_000_000, "lj")), Step::Hold]).collect();
    let mut world = World::start(vec![first, second]).await;
    let site = Site::new();
    let folder = dir.path().join("rec");
    world.state.send_modify(|s| s.order_json = site.order(&world, &folder, 1, &["lj"]));

    let mut child = world.worker(1).spawn().unwrap();
    // A closed segment is on the disk.
    let segments = || {
        std::fs::read_dir(folder.join("segments"))
            .map_or(0, |d| d.flatten().filter(|f| !f.path().to_string_lossy().contains("open")).count())
    };
    while segments() < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    child.kill().await.unwrap();

    world.state.send_modify(|s| {
        s.fence = 2;
        s.order_json = site.order(&world, &folder, 2, &["lj"]);
    });
    let mut child = world.worker(2).spawn().unwrap();
    world.until(|seen| !seen.key_frames.is_empty()).await;
    world.state.send_modify(|s| s.stop = true);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let finished = world.seen.lock().unwrap().finished.clone().unwrap();
    assert!(finished.ok && finished.result_json.contains("stopped"), "{finished:?}");

    let recording = Recording::open(&folder, &site.data_key).unwrap();
    let seqs = packets(&recording, "lj");
    assert!(seqs.is_sorted_by(|a, b| a < b), "each packet once");
    assert!((1_250..1_400).all(|seq| seqs.contains(&seq)), "all that came after");
    let before = seqs.iter().filter(|s| **s < 1_200).count();
    assert!(before >= 1, "what was in closed segments is there: {before}");
    assert!(!recording.manifest().tracks[0].gaps.is_empty(), "the gap is marked");
    let tracks: Vec<_> = recording.manifest().tracks.iter().map(|track| track.info.kind.as_str()).collect();
    assert_eq!(tracks, ["audio", "video"], "one recording, one track of the sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tap_is_opened_again_and_the_gap_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let start_us = now_us();
    let packet = call::opus_packets(&vec![0.1; 16_000])[0].clone();
    // As rtcd does, every opening numbers from the same start; the packets' times go on.
    let part = |late_us: i64| (0..10).map(|n| Step::Item(call::audio_packet(start_us + late_us, "a", n, &packet))).collect::<Vec<_>>();
    let head = || vec![Step::Item(call::opened(start_us)), Step::Item(call::audio_track(start_us, "a"))];
    let mut world = World::start(vec![
        [head(), part(0), vec![Step::Break]].concat(),
        vec![Step::Break],
        [head(), part(600_000), vec![Step::Item(call::call_ended(start_us))]].concat(),
    ])
    .await;
    let site = Site::new();
    world.state.send_modify(|s| s.order_json = site.order(&world, &dir.path().join("rec"), 1, &["a"]));
    assert_eq!(world.worker(1).status().await.unwrap().code(), Some(0));
    world.until(|seen| seen.finished.as_ref().is_some_and(|f| f.ok)).await;
    let recording = Recording::open(&dir.path().join("rec"), &site.data_key).unwrap();
    let seqs = packets(&recording, "a");
    assert_eq!(seqs.len(), 20, "none is taken for a repetition");
    // A hole between two segments is told by the numbers alone, one inside a segment by a record as well.
    assert!(seqs[10] > 1_010, "a hole is left for what was missed: {seqs:?}");
    assert_eq!(seqs, (1_000..1_010).chain(seqs[10]..seqs[10] + 10).collect::<Vec<_>>());
    for record in recording.records(0) {
        if let Record::Gap(gap) = record.unwrap() {
            assert_eq!((gap.from_seq, gap.from_seq + gap.packets, gap.reason), (1_010, seqs[10], GapReason::Reader));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_fence_is_old_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_us();
    let mut world = World::start(vec![vec![Step::Item(call::opened(at)), Step::Item(call::audio_track(at, "a")), Step::Hold]]).await;
    let site = Site::new();
    world.state.send_modify(|s| s.order_json = site.order(&world, &dir.path().join("rec"), 1, &["a"]));
    let mut child = world.worker(1).spawn().unwrap();
    world.until(|seen| seen.taps == 1 && seen.renewals >= 1).await;
    world.state.send_modify(|s: &mut State| s.fence = 2);
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
    assert!(world.seen.lock().unwrap().finished.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_puts_the_recording_down_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_us();
    let mut world = World::start(vec![vec![Step::Item(call::opened(at)), Step::Item(call::audio_track(at, "a")), Step::Hold]]).await;
    let site = Site::new();
    world.state.send_modify(|s| s.order_json = site.order(&world, &dir.path().join("rec"), 1, &["a"]));
    let mut child = world.worker(1).spawn().unwrap();
    world.until(|seen| seen.taps == 1 && seen.renewals >= 1).await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let finished = world.seen.lock().unwrap().finished.clone().unwrap();
    assert!(!finished.ok && finished.retry && finished.error.is_empty(), "{finished:?}");
    let recording = Recording::open(&dir.path().join("rec"), &site.data_key).unwrap();
    assert!(recording.manifest().end.is_none(), "it is not ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_room_says_so_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_us();
    let mut world = World::start(vec![vec![Step::Item(call::opened(at)), Step::Item(call::audio_track(at, "lj")), Step::Hold]]).await;
    let mut site = Site::new();
    let folder = dir.path().join("rec");
    // More than any disk has: no room from the beginning.
    site.free_bytes_min = u64::MAX;
    world.state.send_modify(|s| s.order_json = site.order(&world, &folder, 1, &["lj"]));
    assert_eq!(world.worker(1).status().await.unwrap().code(), Some(1));
    world.until(|seen| seen.finished.is_some()).await;
    let finished = world.seen.lock().unwrap().finished.take().unwrap();
    assert!(finished.blocked && !finished.ok, "{finished:?}");
    assert!(finished.error.contains("OFFLOADER_DATA") && finished.error.contains("free space"), "{}", finished.error);
    assert!(!folder.join("manifest.jsonl").exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_takes_long_to_be_stored_is_handed_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_us();
    let items = [call::opened(at), call::audio_track(at, "lj"), call::call_ended(at + 1)];
    let world = World::start(vec![items.into_iter().map(Step::Item).collect()]).await;
    let site = Site::new();
    // Longer than any other call may take: asked again, the offloader would begin to store it anew.
    let finish_ms = 4_000;
    world.state.send_modify(|s| (s.order_json, s.finish_ms) = (site.order(&world, &dir.path().join("rec"), 1, &["lj"]), finish_ms));
    assert_eq!(world.worker(1).status().await.unwrap().code(), Some(0));
    let seen = world.seen.lock().unwrap().clone();
    assert_eq!((seen.finishes, seen.finished.map(|finished| finished.ok)), (1, Some(true)));
}
