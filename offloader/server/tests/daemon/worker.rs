//! The worker of these tests: real protocol, real writer, made-up media.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use archive::capture::{CaptureError, CaptureWriter, StartInfo};
use archive::keys::DataKey;
use archive::manifest::{Consent, TrackInfo};
use archive::read::Recording;
use archive::record::{Packet, Record};
use bytes::Bytes;
use conclave_proto::v1;
use offloader_jobs::order::{
    ConsentParam, RecordOrder, RenderOrder, SourceOrder, TranscribeOrder, Transcript, TranscriptSegment, WorkOrder,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::house::{Client, client};

/// Sentences that the "transcriber" finds.
pub(crate) const SENTENCES: [&str; 3] = ["Good morning, everyone.", "The quarterly report is due on Thursday.", "Señor Núñez agrees."];

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Not a test of its own: what the daemon's worker processes run.
#[tokio::test]
async fn worker_process() {
    let Ok(arguments) = std::env::var("TEST_WORKER_ARGS") else { return };
    let words: Vec<&str> = arguments.split(' ').collect();
    let ["--job", id, "--fence", fence, "--kind", kind] = words[..] else { panic!("arguments: {arguments}") };
    let fence: u64 = fence.parse().unwrap();
    let dir = PathBuf::from(std::env::var("TEST_WORKER_DIR").unwrap());
    // The environment is an allow-list: nothing of ours but what a worker needs.
    assert!(std::env::var("OFFLOADER_TAP_SECRET").is_err());
    std::fs::write(dir.join(format!("pid-{kind}-{fence}")), std::process::id().to_string()).unwrap();
    let mut client = client(&std::env::var("OFFLOADER_URL").unwrap(), &std::env::var("OFFLOADER_TOKEN").unwrap()).await;
    let job = client.get(v1::GetJobRequest { id: id.into() }).await.unwrap().into_inner();
    if dir.join(format!("crash-{kind}")).exists() {
        std::process::exit(7);
    }
    match serde_json::from_str(&job.params_json).unwrap() {
        WorkOrder::Record(order) => record(client, id, fence, *order).await,
        WorkOrder::Caption(_) => panic!("no captions here"),
        WorkOrder::Upload(_) => panic!("no buckets here"),
        // What arrives at the other server is for the worker's own tests; here it counts when it is started.
        WorkOrder::Publish(_) if dir.join("fail-publish").exists() => {
            let error = "the server says no".to_owned();
            let request = v1::FinishRequest { id: id.into(), fence, error, ..v1::FinishRequest::default() };
            client.finish(request).await.unwrap();
        }
        WorkOrder::Publish(order) => finish(&mut client, id, fence, true, "", &serde_json::to_string(&order.piece).unwrap()).await,
        WorkOrder::Render(order) => {
            // Busy for as long as the test wants.
            while dir.join("hold-render").exists() {
                client.renew(v1::RenewRequest { id: id.into(), fence, progress: 0.5, stats_json: String::new() }).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if dir.join("fill-render").exists() {
                return fill(client, id, fence, order, 0).await;
            }
            if dir.join("fill-render-nearly").exists() {
                return fill(client, id, fence, order, 1 << 20).await;
            }
            render(client, id, fence, order).await
        }
        WorkOrder::Transcribe(order) => transcribe(client, id, fence, order).await,
    }
}

async fn record(mut client: Client, id: &str, fence: u64, order: RecordOrder) {
    let grant = serde_json::from_value(order.grant).unwrap();
    let start = StartInfo {
        call_id: order.params.call_id,
        title: order.params.title,
        notice_version: order.params.notice_version,
        free_bytes_min: order.free_bytes_min,
        ..StartInfo::default()
    };
    let mut writer = match CaptureWriter::open(&order.dir, &grant, start, now_us()) {
        Ok((writer, _)) => writer,
        Err(error @ CaptureError::NoRoom(_)) => return blocked(&mut client, id, fence, &error).await,
        Err(CaptureError::Ended) => return finish(&mut client, id, fence, true, "", "{}").await,
        Err(error) => panic!("{error}"),
    };
    let mut consents = order.params.consents;
    if matches!(order.source, SourceOrder::Mattermost(_)) {
        // There the plugin asks everybody; a bot takes it from the call.
        consents.push(ConsentParam { identity: "u-1".into(), granted: true, ..ConsentParam::default() });
    }
    for consent in consents {
        let consent = Consent {
            identity: consent.identity,
            display_name: consent.display_name,
            granted: consent.granted,
            answered_at_ms: consent.answered_at_ms,
            notice_version: "1".into(),
        };
        writer.consent(now_us(), consent).unwrap();
    }
    writer.participant(now_us(), "u-1".into(), "Ann".into(), true).unwrap();
    let track = TrackInfo {
        track_sid: "TR_a".into(),
        identity: "u-1".into(),
        display_name: "Ann".into(),
        kind: "audio".into(),
        source: "microphone".into(),
        mime: "audio/opus".into(),
        clock_rate: 48_000,
        channels: 1,
        ..TrackInfo::default()
    };
    writer.track(now_us(), track).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut heard = Instant::now();
    let mut renew = tokio::time::interval(Duration::from_millis(200));
    let mut speak = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            _ = speak.tick() => {
                let at_us = now_us();
                let seq = (at_us / 20_000) as u64;
                let packet = Packet { at_us, seq, timestamp: seq * 960, marker: false, key_frame: false, audio_level: 40, payload: Bytes::from_static(&[0xf8, 0xff, 0xfe]) };
                match writer.push("TR_a", packet).and_then(|_| writer.tick(at_us)) {
                    Ok(()) => {}
                    Err(error @ CaptureError::NoRoom(_)) => return blocked(&mut client, id, fence, &error).await,
                    Err(error) => panic!("{error}"),
                }
            }
            _ = renew.tick() => {
                let request = v1::RenewRequest { id: id.into(), fence, progress: 0.0, stats_json: String::new() };
                let stop = match client.renew(request).await {
                    Ok(answer) => {
                        heard = Instant::now();
                        answer.into_inner().stop
                    }
                    // The daemon may be starting again: until the lease is nearly over nobody else can have it.
                    Err(status) if status.code() != tonic::Code::FailedPrecondition && heard.elapsed() < Duration::from_secs(8) => false,
                    Err(status) => panic!("{status}"),
                };
                if stop && std::env::var("TEST_WORKER_DIR").is_ok_and(|dir| !Path::new(&dir).join("ignore-stop").exists()) {
                    writer.end(now_us(), "stopped").unwrap();
                    return finish(&mut client, id, fence, true, "", r#"{"reason":"stopped"}"#).await;
                }
            }
            _ = terminate.recv() => {
                writer.pause(now_us()).unwrap();
                return finish(&mut client, id, fence, false, "", "").await;
            }
        }
    }
}

async fn render(mut client: Client, id: &str, fence: u64, order: RenderOrder) {
    let bytes: Vec<u8> = (0..media_bytes()).map(|i| (i % 251) as u8).collect();
    assert!(packets(&order.dir, &order.data_key) > 0);
    std::fs::write(order.output_dir.join("media.m4a"), bytes).unwrap();
    let result = r#"{"file":"media.m4a","mime":"audio/mp4","duration_ms":2000,"has_video":false}"#;
    finish(&mut client, id, fence, true, "", result).await;
}

/// A film for which there is no room, or that leaves so much more than recordings need: none for what follows.
async fn fill(mut client: Client, id: &str, fence: u64, order: RenderOrder, leave: u64) {
    let path = order.output_dir.join("media.m4a");
    let mut file = std::fs::File::create(&path).unwrap();
    let room = || archive::free_bytes(&order.output_dir).unwrap() > order.free_bytes_min + leave;
    while room() {
        if let Err(error) = file.write_all(&[7; 256 * 1024]) {
            return finish(&mut client, id, fence, false, &error.to_string(), "").await;
        }
    }
    if leave == 0 {
        let error = "no room for the film".to_owned();
        let request = v1::FinishRequest { id: id.into(), fence, error, blocked: true, ..v1::FinishRequest::default() };
        client.finish(request).await.unwrap();
    } else {
        let result = r#"{"file":"media.m4a","mime":"audio/mp4","duration_ms":2000,"has_video":false}"#;
        finish(&mut client, id, fence, true, "", result).await;
    }
}

/// A few chunks and a bit: what a player reads piece by piece.
pub(crate) fn media_bytes() -> usize {
    3 * archive::limits::CHUNK_BYTES + 1234
}

async fn transcribe(mut client: Client, id: &str, fence: u64, order: TranscribeOrder) {
    assert!(packets(&order.dir, &order.data_key) > 0);
    let segments = SENTENCES.iter().enumerate().map(|(i, text)| TranscriptSegment {
        id: format!("s{i}"),
        identity: "u-1".into(),
        display_name: "Ann".into(),
        start_ms: i as i64 * 1000,
        end_ms: i as i64 * 1000 + 900,
        text: (*text).into(),
        confidence: 0.9,
        words: Vec::new(),
    });
    let transcript = Transcript { language: "en".into(), model: "test".into(), segments: segments.collect(), ..Transcript::default() };
    std::fs::write(order.output_dir.join("transcript.json"), serde_json::to_vec(&transcript).unwrap()).unwrap();
    std::fs::write(order.output_dir.join("transcript.vtt"), "WEBVTT\n").unwrap();
    std::fs::write(order.output_dir.join("transcript.txt"), SENTENCES.join("\n")).unwrap();
    finish(&mut client, id, fence, true, "", r#"{"language":"en","model":"test","words":12}"#).await;
}

fn packets(dir: &Path, data_key: &str) -> usize {
    let recording = Recording::open(dir, &DataKey::from_hex(data_key).unwrap()).unwrap();
    recording.records(0).filter(|record| matches!(record, Ok(Record::Packet(_)))).count()
}

async fn blocked(client: &mut Client, id: &str, fence: u64, error: &CaptureError) {
    let request = v1::FinishRequest { id: id.into(), fence, error: error.to_string(), blocked: true, ..v1::FinishRequest::default() };
    client.finish(request).await.unwrap();
}

async fn finish(client: &mut Client, id: &str, fence: u64, ok: bool, error: &str, result: &str) {
    let request =
        v1::FinishRequest { id: id.into(), fence, ok, error: error.into(), retry: !ok, result_json: result.into(), blocked: false };
    client.finish(request).await.unwrap();
}
