//! Jobs: asked for, killed, taken over, stopped, given back, given up.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conclave_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use crate::house::{Client, House, TOKEN, client, manifest_has, record, until};

pub(crate) async fn job(client: &mut Client, id: &str) -> v1::Job {
    client.get(v1::GetJobRequest { id: id.into() }).await.unwrap().into_inner()
}

pub(crate) async fn until_job(client: &mut Client, id: &str, what: &str, holds: impl Fn(&v1::Job) -> bool) -> v1::Job {
    let begun = Instant::now();
    loop {
        let job = job(client, id).await;
        if holds(&job) {
            return job;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}: {job:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn pid_of(house: &House, kind: &str, fence: u64) -> Pid {
    let path = house.path(&format!("pid-{kind}-{fence}"));
    until("the worker's pid", || std::fs::read_to_string(&path).is_ok_and(|pid| !pid.is_empty())).await;
    Pid::from_raw(std::fs::read_to_string(&path).unwrap().parse().unwrap()).unwrap()
}

pub(crate) fn with_model(settings: &mut offloader::settings::Settings) {
    settings.model_path = Some("/some/model.bin".into());
}

#[tokio::test]
async fn asking_a_hundred_times_at_once_gives_one_job() {
    let house = House::with(|settings| settings.worker_bin = "/bin/false".into()).await;
    let client = house.client().await;
    let asked = (0..100).map(|_| {
        let mut client = client.clone();
        async move { client.submit(record("c", "t")).await.unwrap().into_inner() }
    });
    let jobs = futures_util::future::join_all(asked).await;
    let first = &jobs[0];
    assert!(jobs.iter().all(|job| (&job.id, &job.recording_id) == (&first.id, &first.recording_id)));
    let all = house.client().await.list(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(all.len(), 1);
    // The same key for something else is no repetition.
    let other = v1::SubmitRequest { call_id: "other".into(), ..record("c", "t") };
    assert_eq!(house.client().await.submit(other).await.unwrap_err().code(), tonic::Code::AlreadyExists);
}

#[tokio::test]
async fn killed_recorder_is_replaced_and_the_recording_goes_on_as_one() {
    let house = House::with(with_model).await;
    let mut client = house.client().await;
    let asked = client.submit(record("c", "t")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    kill_process(pid_of(&house, "record", 1).await, Signal::KILL).unwrap();
    let running = until_job(&mut client, &asked.id, "the next attempt", |job| job.fence == 2).await;
    assert_eq!(running.attempt, 2);
    until("the next attempt's segments", || manifest_has(&dir, "\"index\":2,\"fence\":2") || manifest_has(&dir, "\"index\":3,\"fence\":2"))
        .await;
    client.stop(v1::StopRequest { id: asked.id.clone(), reason: String::new() }).await.unwrap();
    house.settled(&asked.recording_id).await;
    let view = house.json(&format!("/recordings/{}", asked.recording_id)).await;
    assert_eq!(view["state"], "sealed");
    let gap = &view["recording_gaps"][0];
    assert!(gap["reason"] == "worker" && gap["end_ms"].as_i64() > gap["start_ms"].as_i64(), "{gap}");
    assert_eq!(view["tracks"].as_array().unwrap().len(), 1);
    let all = house.json("/recordings").await;
    assert_eq!(all["recordings"].as_array().unwrap().len(), 1);
    let verified: serde_json::Value =
        house.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
}

#[tokio::test]
async fn worker_that_is_stuck_loses_its_lease_its_fence_and_its_life() {
    let house = House::with(with_model).await;
    let mut service = house.client().await;
    let asked = service.submit(record("c", "t")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    let stuck = pid_of(&house, "record", 1).await;
    kill_process(stuck, Signal::STOP).unwrap();
    // The zombie's token and fence, tried by somebody else: everything is refused once the next one has it.
    let token = house.daemon.as_ref().unwrap().app.tokens.for_worker(&asked.id, 1);
    until_job(&mut service, &asked.id, "the next attempt", |job| job.fence == 2 && !job.lease_owner.is_empty()).await;
    let mut zombie = client(&house.url(), &token).await;
    let id = asked.id.clone();
    let refused = |status: tonic::Status| assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    refused(zombie.renew(v1::RenewRequest { id: id.clone(), fence: 1, ..v1::RenewRequest::default() }).await.unwrap_err());
    refused(zombie.checkpoint(v1::CheckpointRequest { id: id.clone(), fence: 1, checkpoint_json: "{}".into() }).await.unwrap_err());
    refused(zombie.finish(v1::FinishRequest { id: id.clone(), fence: 1, ok: true, ..v1::FinishRequest::default() }).await.unwrap_err());
    refused(zombie.get(v1::GetJobRequest { id: id.clone() }).await.unwrap_err());
    // Its token does not fit the new fence either.
    let status = zombie.renew(v1::RenewRequest { id: id.clone(), fence: 2, ..v1::RenewRequest::default() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    until("the second attempt's line in the manifest", || manifest_has(&dir, "\"fence\":2")).await;
    service.stop(v1::StopRequest { id, reason: String::new() }).await.unwrap();
    house.settled(&asked.recording_id).await;
    // Killed and collected: no such process, or one that waits for us to look.
    until("the stuck worker's end", || kill_process(stuck, Signal::CONT).is_err() || zombie_state(stuck)).await;
}

fn zombie_state(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn daemon_that_ends_lets_captures_close_and_its_successor_goes_on() {
    let mut house = House::with(with_model).await;
    let asked = house.client().await.submit(record("c", "t")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    house.close().await;
    // Paused in order: everything closed and signed for, nothing torn.
    let manifest = std::fs::read_to_string(dir.join("manifest.jsonl")).unwrap();
    assert!(manifest.lines().last().unwrap().contains("\"kind\":\"checkpoint\""), "{manifest}");
    house.open(with_model).await;
    let mut client = house.client().await;
    let job = until_job(&mut client, &asked.id, "the next attempt", |job| job.fence == 2).await;
    assert_eq!(job.error, "");
    until("the next attempt's segments", || manifest_has(&dir, "\"fence\":2,\"bytes\"")).await;
    client.stop(v1::StopRequest { id: asked.id.clone(), reason: String::new() }).await.unwrap();
    house.settled(&asked.recording_id).await;
    let all = house.json("/recordings").await;
    assert_eq!(all["recordings"].as_array().unwrap().len(), 1);
}

/// The real program, started as an operator starts it.
fn program(house: &House, port: u16) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offloader"));
    command
        .env("OFFLOADER_LISTEN", format!("127.0.0.1:{port}"))
        .env("OFFLOADER_TOKEN", TOKEN)
        .env("OFFLOADER_TAP_SECRET", "test-tap-secret-0123456789")
        .env("OFFLOADER_DATA", house.path("data"))
        .env("OFFLOADER_WORKER_BIN", house.path("offload-worker"))
        .env("OFFLOADER_MODEL_PATH", "/some/model.bin")
        .stdout(Stdio::null())
        .stderr(File::create(house.path(&format!("offloader-{}.log", now_ns()))).unwrap());
    Program(command.spawn().unwrap())
}

/// Ends with the test, also with one that fails.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

pub(crate) async fn connected(port: u16) -> Client {
    until("the offloader to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    client(&format!("http://127.0.0.1:{port}"), TOKEN).await
}

#[tokio::test]
async fn killed_daemon_comes_back_to_workers_that_never_stopped() {
    let mut house = House::with(with_model).await;
    house.close().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut first = program(&house, port);
    let mut service = connected(port).await;
    let asked = service.submit(record("c", "t")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let killed = Instant::now();
    let mut second = program(&house, port);
    let mut service = connected(port).await;
    let before = job(&mut service, &asked.id).await.lease_until_ms;
    let running = until_job(&mut service, &asked.id, "the worker to be heard of", |job| job.lease_until_ms > before).await;
    // The same process in the same attempt, unless the machine is so slow that the lease rightly ran out.
    if killed.elapsed() < Duration::from_secs(5) {
        assert_eq!((running.attempt, running.fence), (1, 1));
    }
    service.stop(v1::StopRequest { id: asked.id.clone(), reason: String::new() }).await.unwrap();
    until_job(&mut service, &asked.id, "the end", |job| job.state == i32::from(v1::JobState::Done)).await;
    kill_process(Pid::from_child(&second.0), Signal::TERM).unwrap();
    assert!(second.0.wait().unwrap().success());
    // Whoever comes next settles what is left.
    house.open(with_model).await;
    house.settled(&asked.recording_id).await;
    let view = house.json(&format!("/recordings/{}", asked.recording_id)).await;
    // Nothing was doubled, and nothing is missing that is not marked.
    let takeovers = i64::from(running.attempt) - 1;
    assert_eq!(view["state"], "sealed", "{view:#}");
    assert_eq!(view["recording_gaps"].as_array().map(|gaps| gaps.len() as i64), Some(takeovers), "{view:#}");
}

#[tokio::test]
async fn second_daemon_in_the_same_folder_is_refused_and_told_what_to_do() {
    let house = House::new().await;
    let output = tokio::task::spawn_blocking({
        let mut child = program(&house, 0);
        move || child.0.wait()
    });
    assert!(!output.await.unwrap().unwrap().success());
    let logs = std::fs::read_dir(house.dir.path()).unwrap().map(|file| file.unwrap().path());
    let log = logs
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect::<String>();
    assert!(log.contains("OFFLOADER_DATA"), "{log}");
}

#[tokio::test]
async fn poison_job_is_parked_with_its_error_and_others_are_unharmed() {
    let house = House::with(with_model).await;
    std::fs::write(house.path("crash-render"), "").unwrap();
    let recording = house.recorded("c", "t").await;
    let view = house.json(&format!("/recordings/{recording}")).await;
    assert_eq!(view["render"]["state"], "failed");
    assert!(view["render"]["error"].as_str().unwrap().contains("3 attempts"), "{view}");
    assert_eq!(view["transcript"]["state"], "done");
    assert_eq!(house.get(&format!("/recordings/{recording}/media")).send().await.unwrap().status(), 404);
    // Once the cause is gone, asking again makes it.
    std::fs::remove_file(house.path("crash-render")).unwrap();
    let again = v1::SubmitRequest {
        kind: v1::JobKind::Render.into(),
        tenant: "t".into(),
        call_id: "c".into(),
        idempotency_key: "render:again".into(),
        params_json: String::new(),
        recording_id: recording.clone(),
    };
    let mut client = house.client().await;
    let job = client.submit(again).await.unwrap().into_inner();
    until_job(&mut client, &job.id, "the second rendering", |job| job.state == i32::from(v1::JobState::Done)).await;
    assert_eq!(house.get(&format!("/recordings/{recording}/media")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_model_the_transcript_says_which_setting_is_missing() {
    let house = House::new().await;
    let recording = house.recorded("c", "t").await;
    let view = house.json(&format!("/recordings/{recording}")).await;
    assert_eq!(view["transcript"]["state"], "failed");
    assert!(view["transcript"]["error"].as_str().unwrap().contains("OFFLOADER_MODEL_PATH"), "{view}");
    assert_eq!(view["render"]["state"], "done");
}

#[tokio::test]
async fn a_transcript_waits_for_memory_while_other_work_runs_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("ggml-huge.bin");
    // More than any machine has, and not a byte of disk.
    File::create(&model).unwrap().set_len(4 << 40).unwrap();
    let house = House::with(|settings| {
        settings.model_path = Some(model.clone());
        settings.workers_max = 4;
    })
    .await;
    // One after the other, each alone.
    let recording = house.recorded("c", "t").await;
    std::fs::write(house.path("hold-render"), "").unwrap();
    let again = |kind: v1::JobKind| v1::SubmitRequest {
        kind: kind.into(),
        tenant: "t".into(),
        call_id: "c".into(),
        idempotency_key: format!("{kind:?}:again"),
        params_json: String::new(),
        recording_id: recording.clone(),
    };
    let mut client = house.client().await;
    let render = client.submit(again(v1::JobKind::Render)).await.unwrap().into_inner();
    let render = until_job(&mut client, &render.id, "the second rendering", |job| job.state == i32::from(v1::JobState::Running)).await;
    let words = client.submit(again(v1::JobKind::Transcribe)).await.unwrap().into_inner();
    let page = async || house.http.get(format!("{}/metrics", house.url())).send().await.unwrap().text().await.unwrap();
    let begun = Instant::now();
    while !page().await.contains("\noffloader_no_memory_total 2\n") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", page().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(job(&mut client, &words.id).await.state, i32::from(v1::JobState::Queued));
    // The kernel would end it before a recording.
    let pid = pid_of(&house, "render", render.fence).await.as_raw_pid();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
    std::fs::remove_file(house.path("hold-render")).unwrap();
    for id in [&render.id, &words.id] {
        let done = until_job(&mut client, id, "its end", |job| job.state > i32::from(v1::JobState::Stopping)).await;
        assert_eq!((done.state, done.attempt), (v1::JobState::Done.into(), 1), "{}", done.error);
    }
}

#[tokio::test]
async fn missing_worker_program_names_its_setting_and_a_stop_still_ends_the_job() {
    let house = House::with(|settings| settings.worker_bin = "/nowhere/offload-worker".into()).await;
    let mut client = house.client().await;
    let asked = client.submit(record("c", "t")).await.unwrap().into_inner();
    let tried = until_job(&mut client, &asked.id, "the first try", |job| !job.error.is_empty()).await;
    assert!(tried.error.contains("OFFLOADER_WORKER_BIN"), "{}", tried.error);
    let stopped = client.stop(v1::StopRequest { id: asked.id.clone(), reason: "enough".into() }).await.unwrap().into_inner();
    assert!(stopped.state == i32::from(v1::JobState::Done) || stopped.state == i32::from(v1::JobState::Stopping));
    let begun = Instant::now();
    loop {
        let view = house.json(&format!("/recordings/{}", asked.recording_id)).await;
        if view["state"] == "failed" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn watcher_sees_a_job_from_queued_to_done() {
    let house = House::with(with_model).await;
    let mut client = house.client().await;
    let mut updates = client.watch(v1::WatchJobsRequest { tenant: "t".into() }).await.unwrap().into_inner();
    let recording = house.recorded("c", "t").await;
    let mut states = Vec::new();
    while let Some(job) = updates.message().await.unwrap() {
        assert_eq!(job.recording_id, recording);
        if job.kind == i32::from(v1::JobKind::Record) && states.last() != Some(&job.state) {
            states.push(job.state);
        }
        if job.kind == i32::from(v1::JobKind::Transcribe) && job.state == i32::from(v1::JobState::Done) {
            break;
        }
    }
    // A watcher sees states as they are when it looks: it may miss one, but never sees one go back.
    assert!(states.is_sorted(), "{states:?}");
    assert_eq!(states.last(), Some(&v1::JobState::Done.into()));
    assert!(states.len() >= 2, "{states:?}");
}
