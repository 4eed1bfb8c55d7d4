//! Jobs of Mattermost's calls-offloader, asked for over HTTP and done by real worker processes.

use std::time::{Duration, Instant};

use conclave_proto::v1;
use offloader_jobs::order::{SourceOrder, WorkOrder};
use rustix::process::kill_process;
use serde_json::{Value, json};

use crate::calls_accounts::{ADMIN, Answer, KEY, OPEN, ask, basic};
use crate::house::{House, manifest_has, until};
use crate::jobs::pid_of;

const FULL: &str = "failed to create recording job: max concurrent jobs reached";

/// 26 letters.
fn id(name: &str) -> String {
    format!("{name:0<26}")
}

fn body(kind: &str, call: &str, piece: &str) -> Value {
    let (image, key) = match kind {
        "recording" => ("calls-recorder:v0.8.13", "recording_id"),
        _ => ("calls-transcriber:v0.7.2", "transcription_id"),
    };
    json!({ "type": kind, "max_duration_sec": 3600, "runner": format!("mattermost/{image}"), "input_data": {
        "site_url": "https://chat.example.org", "call_id": id(call), "post_id": id("post"), key: id(piece),
        "auth_token": id("token"), "width": 1280, "height": 720, "transcribe_api_options": "null" } })
}

async fn post(house: &House, client: &str, body: &Value) -> Answer {
    ask(house, "POST", "/jobs", &basic(client, KEY), body.to_string()).await
}

/// Gives a job in and says what its client sees.
async fn given(house: &House, client: &str, body: &Value) -> Value {
    let answer = post(house, client, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn get(house: &House, client: &str, id: &Value) -> Answer {
    ask(house, "GET", &format!("/jobs/{}", id.as_str().unwrap()), &basic(client, KEY), "").await
}

async fn stop(house: &House, client: &str, id: &Value) {
    let answer = ask(house, "POST", &format!("/jobs/{}/stop", id.as_str().unwrap()), &basic(client, KEY), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until a client sees of its job what it is to see.
async fn until_seen(house: &House, client: &str, id: &Value, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = get(house, client, id).await;
        if holds(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}: {answer:?}\n{}", house.worker_log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_gone(house: &House, client: &str, id: &Value) {
    until_seen(house, client, id, "the job to be done", |answer| answer.status == 404).await;
}

async fn until_failed(house: &House, client: &str, id: &Value) -> Value {
    until_seen(house, client, id, "the job to fail", |answer| answer.status == 200 && answer.json()["state"] == "failed").await.json()
}

/// Our own jobs, the newest first.
async fn ours(house: &House) -> Vec<v1::Job> {
    house
        .client()
        .await
        .list(v1::ListJobsRequest { tenant: "mattermost".into(), ..v1::ListJobsRequest::default() })
        .await
        .unwrap()
        .into_inner()
        .jobs
}

/// Our captures; something of each is written.
async fn captured(house: &House, count: usize) -> Vec<v1::Job> {
    let captures: Vec<v1::Job> = ours(house).await.into_iter().filter(|job| job.kind == i32::from(v1::JobKind::Record)).collect();
    assert_eq!(captures.len(), count);
    for capture in &captures {
        let dir = house.path("data/recordings").join(&capture.recording_id);
        until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    }
    captures
}

async fn sql(house: &House, text: &'static str) {
    let pool = sqlx::AnyPool::connect(&format!("sqlite://{}", house.path("data/offloader.db").display())).await.unwrap();
    sqlx::query("PRAGMA busy_timeout = 10000").execute(&pool).await.unwrap();
    sqlx::query(text).execute(&pool).await.unwrap();
    pool.close().await;
}

fn with_model(settings: &mut offloader::settings::Settings) {
    settings.model_path = Some("/some/model.bin".into());
}

async fn house(env: &[(&str, &str)]) -> House {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut house = House::empty();
    house.open_as(&[&OPEN[..], env].concat(), with_model).await;
    house
}

#[tokio::test]
async fn a_recording_goes_from_the_request_to_its_publication_and_leaves_nothing() {
    let house = house(&[]).await;
    let mut asked = body("recording", "call", "rec");
    asked["input_data"]["some_new_option"] = "of a newer plugin".into();
    asked["input_data"]["width"] = "99999".into();
    let job = given(&house, "site", &asked).await;
    let id = job["id"].as_str().unwrap();
    assert!((12..=26).contains(&id.len()) && id.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()), "{id}");
    assert_eq!((&job["type"], &job["max_duration_sec"], &job["runner"]), (&asked["type"], &asked["max_duration_sec"], &asked["runner"]));
    assert!(job["start_at"].as_i64().unwrap() > 0 && job.get("stop_at").is_none(), "{job}");
    // What came, but for its secrets.
    for (key, value) in asked["input_data"].as_object().unwrap() {
        if key != "auth_token" {
            assert_eq!(job["input_data"][key], *value, "{key}");
        }
    }
    assert_eq!(job["input_data"]["auth_token"], "(redacted)");
    // Asked for again, as after an answer that was lost: the same job.
    assert_eq!(given(&house, "site", &asked).await["id"], job["id"]);
    let capture = captured(&house, 1).await.remove(0);
    // The bot's session is sealed where it lies and clear in the worker's order.
    assert!(!capture.params_json.contains(&self::id("token")), "{}", capture.params_json);
    let app = &house.daemon.as_ref().unwrap().app;
    let row = app.store.job(&capture.id).await.unwrap().unwrap();
    let WorkOrder::Record(order) = app.work_order(&row).await.unwrap() else { panic!("no order to record") };
    let SourceOrder::Mattermost(bot) = order.source else { panic!("no bot") };
    let recording = bot.call.recording.unwrap();
    assert_eq!((recording.auth_token, recording.id), (self::id("token"), self::id("rec")));
    assert_eq!((recording.picture.width, recording.picture.height, recording.picture.always), (3840, 720, true));
    assert_eq!(
        (bot.call.site_url.as_str(), bot.call.channel_id, bot.call.post_id),
        ("https://chat.example.org", self::id("call"), self::id("post"))
    );
    // While it runs it cannot be deleted; what its worker writes can be read, both of its outputs.
    let deleted = ask(&house, "DELETE", &format!("/jobs/{id}"), &basic("site", KEY), "").await;
    assert_eq!((deleted.status, deleted.json()), (400, json!({ "error": "job is running", "code": "400" })));
    let logs = ask(&house, "GET", &format!("/jobs/{id}/logs"), &basic("site", KEY), "").await;
    assert_eq!((logs.status, logs.kind.as_str()), (200, "text/plain; charset=utf-8"));
    for word in ["works: ", "warns: "] {
        assert!(logs.body.contains(&format!("{word}--job {}", capture.id)), "{}", logs.body);
    }
    stop(&house, "site", &job["id"]).await;
    until_gone(&house, "site", &job["id"]).await;
    // The original keeps nothing, and neither do we.
    let archive = house.path("data/archive/recordings").join(&capture.recording_id);
    let folder = house.path("data/recordings").join(&capture.recording_id);
    let files = |dir: &std::path::Path| walk(dir).len();
    until("the copies to be deleted", || files(&archive) == 0 && !folder.exists()).await;
    until("the logs to be deleted", || !house.path("data/job-logs").join(&capture.recording_id).exists()).await;
    let begun = Instant::now();
    while !ours(&house).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(house.get(&format!("/recordings/{}", capture.recording_id)).send().await.unwrap().status(), 404);
    // Who deleted what is on record.
    let accesses = house.json("/accesses").await;
    let purge = accesses["accesses"].as_array().unwrap().iter().find(|access| access["action"] == "purge").expect("a line in the log");
    assert_eq!(purge["recording_id"], capture.recording_id);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_copy_stays_where_the_site_wants_one() {
    let house = house(&[("OFFLOADER_MATTERMOST_KEEP", "true")]).await;
    let job = given(&house, "site", &body("recording", "call", "rec")).await;
    let capture = captured(&house, 1).await.remove(0);
    stop(&house, "site", &job["id"]).await;
    until_gone(&house, "site", &job["id"]).await;
    let view = house.json(&format!("/recordings/{}", capture.recording_id)).await;
    assert_eq!((view["state"].as_str(), view["render"]["state"].as_str()), (Some("sealed"), Some("done")), "{view}");
    let verified: Value = house.post(&format!("/recordings/{}/verify", capture.recording_id)).send().await.unwrap().json().await.unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
}

#[tokio::test]
async fn a_transcription_shares_the_capture_of_its_recording() {
    let models = tempfile::tempdir().unwrap();
    for name in ["ggml-base.bin", "ggml-small.bin", "ggml-tiny.en.bin"] {
        std::fs::write(models.path().join(name), name).unwrap();
    }
    std::fs::write(models.path().join("SHA256SUMS"), "aa11  ggml-small.bin\n").unwrap();
    let house = house(&[
        ("OFFLOADER_MATTERMOST_KEEP", "true"),
        ("OFFLOADER_VOCABULARY", "Grafana, Conclave"),
        ("OFFLOADER_MODELS_DIR", models.path().to_str().unwrap()),
        ("OFFLOADER_MODEL_PATH", "/models/the-sites.bin"),
    ])
    .await;
    let recording = given(&house, "site", &body("recording", "call", "rec")).await;
    captured(&house, 1).await;
    let mut words = body("transcribing", "call", "tra");
    words["input_data"]["live_captions_on"] = true.into();
    words["input_data"]["model_size"] = "small".into();
    words["input_data"]["language"] = "de".into();
    words["input_data"]["vocabulary"] = "Okafor, Grafana".into();
    let words = given(&house, "site", &words).await;
    assert_ne!(words["id"], recording["id"]);
    // Neither another client's nor another call's.
    given(&house, "other", &body("transcribing", "call", "tra")).await;
    let health = ask(&house, "GET", "/health", &basic("site", KEY), "").await.json();
    assert_eq!(
        (&health["jobs"]["running"], &health["jobs"]["waiting"]),
        (&json!(2), &json!(1)),
        "both count, and the other waits: {health}"
    );
    let captures: Vec<v1::Job> = ours(&house).await;
    let capture = captures.iter().find(|job| job.state == i32::from(v1::JobState::Running)).unwrap();
    let app = &house.daemon.as_ref().unwrap().app;
    let WorkOrder::Record(order) = app.work_order(&app.store.job(&capture.id).await.unwrap().unwrap()).await.unwrap() else { panic!() };
    let SourceOrder::Mattermost(bot) = order.source else { panic!("no bot") };
    let wanted = bot.call.transcription.expect("the running worker finds it in its order");
    assert_eq!((wanted.id, wanted.auth_token, wanted.captions.is_some()), (id("tra"), id("token"), true));
    assert_eq!(order.params.language.as_deref(), Some("de"));
    // The bot's captions expect its words before the site's, and so does what is transcribed afterwards.
    assert_eq!(String::from(wanted.vocabulary.and(&bot.model.vocabulary)), "Okafor, Grafana, Conclave");
    // Captions of no named size are tiny and English.
    assert_eq!((bot.model.path, bot.model.sha256), (Some(models.path().join("ggml-tiny.en.bin")), None));
    stop(&house, "site", &recording["id"]).await;
    until_gone(&house, "site", &recording["id"]).await;
    until_gone(&house, "site", &words["id"]).await;
    let made: Vec<i32> =
        ours(&house).await.into_iter().filter(|job| job.recording_id == capture.recording_id).map(|job| job.kind).collect();
    for kind in [v1::JobKind::Render, v1::JobKind::PublishRecording, v1::JobKind::Transcribe, v1::JobKind::PublishTranscript] {
        assert!(made.contains(&kind.into()), "{kind:?}: {made:?}");
    }
    assert_eq!(made.len(), 5);
    let transcribe = ours(&house).await.into_iter().find(|job| job.kind == i32::from(v1::JobKind::Transcribe)).unwrap();
    let app = &house.daemon.as_ref().unwrap().app;
    let WorkOrder::Transcribe(order) = app.work_order(&app.store.job(&transcribe.id).await.unwrap().unwrap()).await.unwrap() else {
        panic!()
    };
    assert_eq!(String::from(order.model.vocabulary), "Okafor, Grafana, Conclave");
    assert_eq!((order.model.path, order.model.sha256.as_deref()), (Some(models.path().join("ggml-small.bin")), Some("aa11")));
}

#[tokio::test]
async fn a_transcription_without_an_open_recording_captures_by_itself() {
    let house = house(&[("OFFLOADER_MATTERMOST_KEEP", "true"), ("JOBS_MAXCONCURRENTJOBS", "4")]).await;
    let recording = given(&house, "site", &body("recording", "call", "rec")).await;
    captured(&house, 1).await;
    stop(&house, "site", &recording["id"]).await;
    let late = given(&house, "site", &body("transcribing", "call", "tra")).await;
    let elsewhere = given(&house, "site", &body("transcribing", "elsewhere", "trb")).await;
    for piece in ["tra", "trb"] {
        captured_of(&house, piece).await;
    }
    for job in [&late, &elsewhere] {
        stop(&house, "site", &job["id"]).await;
        until_gone(&house, "site", &job["id"]).await;
    }
    until_gone(&house, "site", &recording["id"]).await;
    let made: Vec<i32> = ours(&house).await.into_iter().map(|job| job.kind).collect();
    let count = |kind: v1::JobKind| made.iter().filter(|made| **made == i32::from(kind)).count();
    assert_eq!((count(v1::JobKind::Render), count(v1::JobKind::PublishRecording)), (1, 1), "no picture of what only words are wanted of");
    assert_eq!((count(v1::JobKind::Transcribe), count(v1::JobKind::PublishTranscript)), (2, 2));
}

#[tokio::test]
async fn nobody_sees_or_touches_the_jobs_of_another_client() {
    let admin = [("API_SECURITY_ENABLEADMIN", "true"), ("API_SECURITY_ADMINSECRETKEY", ADMIN)];
    let house = house(&admin).await;
    let job = given(&house, "site", &body("recording", "call", "rec")).await;
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    let (other, admin) = (basic("other", KEY), basic("whoever", ADMIN));
    let nowhere = format!("/jobs/{}", id("nowhere"));
    for (method, route, status) in [("GET", "", 404), ("DELETE", "", 404), ("POST", "/stop", 404), ("GET", "/logs", 403)] {
        let theirs = ask(&house, method, &format!("{path}{route}"), &other, "").await;
        let none = ask(&house, method, &format!("{nowhere}{route}"), &other, "").await;
        assert_eq!((theirs.status, &theirs.body), (status, &none.body), "{method} {route}: as if it were not there");
        assert_eq!(theirs.json()["code"], status.to_string());
        assert_eq!(ask(&house, method, &format!("{path}{route}"), "", "").await.status, 401);
        assert_eq!(ask(&house, method, &format!("{path}{route}"), &basic("site", &KEY.to_uppercase()), "").await.status, 401);
    }
    assert_eq!(ask(&house, "GET", "/jobs", &other, "").await.json(), json!({ "jobs": [] }));
    for (auth, path) in [(basic("site", KEY), &path), (admin, &path)] {
        assert_eq!(ask(&house, "GET", path, &auth, "").await.json()["id"], job["id"]);
        assert_eq!(ask(&house, "GET", "/jobs", &auth, "").await.json()["jobs"][0]["id"], job["id"]);
    }
    // The same plugin's id from another client is another job, and a capture of its own.
    assert_ne!(given(&house, "other", &body("recording", "call", "rec")).await["id"], job["id"]);
}

#[tokio::test]
async fn routes_of_jobs_have_the_originals_quirks() {
    let house = house(&[]).await;
    let auth = basic("site", KEY);
    let there = id("some");
    for (method, path, status) in [
        ("PUT", "/jobs".to_owned(), 405),
        ("POST", format!("/jobs/{there}"), 405),
        ("PUT", format!("/jobs/{there}"), 405),
        ("POST", format!("/jobs/{there}/logs"), 405),
        ("GET", format!("/jobs/{there}/stop"), 405),
        ("GET", format!("/jobs/{there}"), 404),
        ("GET", "/jobs/short".to_owned(), 404),
        ("GET", format!("/jobs/{there}x"), 404),
        ("GET", format!("/jobs/{}", there.to_uppercase()), 404),
        ("GET", "/jobs/calls-recorder-job-x/logs".to_owned(), 404),
        ("GET", format!("/jobs/{there}/more"), 404),
        ("GET", "/jobs/".to_owned(), 404),
    ] {
        let answer = ask(&house, method, &path, &auth, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        let plain = path != format!("/jobs/{there}");
        assert_eq!(status == 404 && plain, answer.body == "404 page not found\n", "{path}: {answer:?}");
    }
    let of_one = get(&house, "site", &json!(there)).await.json();
    assert!(of_one["error"].as_str().unwrap().starts_with("failed to get job"), "{of_one}");
    let good = body("recording", "call", "rec");
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        match key.split_once('.') {
            Some((_, key)) => changed["input_data"][key] = value,
            None => changed[key] = value,
        }
        changed.to_string()
    };
    for (body, begin) in [
        (String::new(), "EOF"),
        ("{".to_owned(), "unexpected EOF"),
        ("[]".to_owned(), "json: cannot unmarshal array"),
        (with("type", json!("captioning")), "invalid job config: "),
        (with("type", json!("transcribing")), "invalid job config: "),
        (with("max_duration_sec", json!(0)), "invalid job config: "),
        (with("max_duration_sec", json!("x")), "invalid JSON: "),
        (with("runner", json!("evil/calls-recorder:v0.8.13")), "invalid job config: "),
        (with("input_data", Value::Null), "invalid input data: "),
        (with("input.call_id", json!("x")), "invalid input data: call_id"),
        (with("input.site_url", json!("file:///etc/passwd")), "invalid input data: site_url"),
        (with("input.filler", json!("x".repeat(1 << 20))), "http: request body too large"),
    ] {
        let answer = ask(&house, "POST", "/jobs", &auth, body).await;
        let said = answer.json();
        assert_eq!((answer.status, &said["code"]), (400, &json!("400")), "{said}");
        assert!(said["error"].as_str().unwrap().starts_with(begin), "{begin}: {said}");
    }
    assert_eq!(ask(&house, "POST", "/jobs", "", good.to_string()).await.status, 401);
    assert!(ours(&house).await.is_empty(), "none of these made a job");
    // A server in development says so to the original, and its runners are not checked.
    let free = self::house(&[("DEV_MODE", "true")]).await;
    given(&free, "site", &serde_json::from_str(&with("runner", json!("calls-recorder:master"))).unwrap()).await;
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_waits_for_a_turn_and_only_so_many_do() {
    let house =
        house(&[("JOBS_MAXCONCURRENTJOBS", "1"), ("OFFLOADER_MATTERMOST_QUEUE", "1"), ("OFFLOADER_MATTERMOST_QUEUE_S", "600")]).await;
    let first = given(&house, "site", &body("recording", "a", "reca")).await;
    let second = given(&house, "site", &body("recording", "b", "recb")).await;
    assert_eq!((first["state"].as_str(), second["state"].as_str()), (Some("running"), Some("waiting")));
    assert_eq!((&second["start_at"], second.get("stop_at")), (&json!(0), None));
    let third = post(&house, "other", &body("recording", "c", "recc")).await;
    assert_eq!((third.status, third.json()), (500, json!({ "error": FULL, "code": "500" })));
    let words = post(&house, "other", &body("transcribing", "c", "trac")).await;
    assert_eq!((words.status, words.json()["error"].as_str()), (500, Some(FULL)), "the same words for every type");
    // What shares a capture is never in the way of it.
    let words = given(&house, "site", &body("transcribing", "b", "trab")).await;
    assert_eq!(words["state"], "waiting");
    captured_of(&house, "reca").await;
    let metrics = ask(&house, "GET", "/metrics", &basic("site", KEY), "").await.body;
    for line in [
        "offloader_mattermost_jobs{state=\"running\"} 1",
        "offloader_mattermost_jobs{state=\"waiting\"} 2",
        "offloader_mattermost_refused_total 2",
        "offloader_mattermost_jobs_max 1",
        "offloader_mattermost_queue_max 1",
        "offloader_mattermost_clients 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    stop(&house, "site", &first["id"]).await;
    for job in [&second, &words] {
        let running = until_seen(&house, "site", &job["id"], "its turn", |answer| answer.json()["state"] == "running").await.json();
        assert!(running["start_at"].as_i64() > first["start_at"].as_i64(), "{running}");
    }
    captured_of(&house, "recb").await;
    stop(&house, "site", &words["id"]).await;
    for job in [&first, &second, &words] {
        until_gone(&house, "site", &job["id"]).await;
    }
}

/// Waits until something is written of the capture of that recording.
async fn captured_of(house: &House, piece: &str) {
    let jobs = ours(house).await;
    let capture = jobs.iter().find(|job| job.kind == i32::from(v1::JobKind::Record) && job.idempotency_key.contains(&id(piece))).unwrap();
    let dir = house.path("data/recordings").join(&capture.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
}

#[tokio::test]
async fn without_a_queue_it_is_refused_at_once_and_a_turn_that_comes_too_late_is_none() {
    let refusing = house(&[("JOBS_MAXCONCURRENTJOBS", "1"), ("OFFLOADER_MATTERMOST_QUEUE", "0")]).await;
    given(&refusing, "site", &body("recording", "a", "reca")).await;
    let second = post(&refusing, "site", &body("recording", "b", "recb")).await;
    assert_eq!((second.status, second.json()["error"].as_str()), (500, Some(FULL)));
    let impatient = house(&[("JOBS_MAXCONCURRENTJOBS", "1"), ("OFFLOADER_MATTERMOST_QUEUE_S", "1")]).await;
    given(&impatient, "site", &body("recording", "a", "reca")).await;
    let second = given(&impatient, "site", &body("recording", "b", "recb")).await;
    let failed = until_failed(&impatient, "site", &second["id"]).await;
    assert_eq!((failed["error"].as_str(), &failed["start_at"]), (Some(FULL), &json!(0)));
    assert!(failed["stop_at"].as_i64().unwrap() > 0);
    assert_eq!(ask(&impatient, "DELETE", &format!("/jobs/{}", second["id"].as_str().unwrap()), &basic("site", KEY), "").await.status, 200);
}

#[tokio::test]
async fn the_longest_duration_holds_across_a_restart() {
    let mut house = house(&[]).await;
    let mut short = body("recording", "call", "rec");
    short["max_duration_sec"] = 4.into();
    let job = given(&house, "site", &short).await;
    captured(&house, 1).await;
    house.close().await;
    house.open_as(&OPEN, with_model).await;
    // Nobody asks it to end: it is published, and gone.
    until_gone(&house, "site", &job["id"]).await;
    let counters = house.http.get(format!("{}/metrics", house.url())).send().await.unwrap().text().await.unwrap();
    assert!(counters.lines().any(|line| line == "offloader_mattermost_over_time_total 1"), "{counters}");
    assert!(counters.lines().any(|line| line == "offloader_mattermost_done_total 1"), "{counters}");
}

#[tokio::test]
async fn a_capture_that_does_not_end_is_killed_and_what_it_wrote_is_published() {
    let house = house(&[("OFFLOADER_MATTERMOST_KEEP", "true")]).await;
    std::fs::write(house.path("ignore-stop"), "").unwrap();
    let job = given(&house, "site", &body("recording", "call", "rec")).await;
    let capture = captured(&house, 1).await.remove(0);
    let pid = pid_of(&house, "record", 1).await;
    // Long ago, as far as the rows tell.
    sql(&house, "UPDATE calls_jobs SET deadline_ms = 1").await;
    until_gone(&house, "site", &job["id"]).await;
    until("the stuck worker's end", || kill_process(pid, rustix::process::Signal::CONT).is_err()).await;
    assert_eq!(house.json(&format!("/recordings/{}", capture.recording_id)).await["state"], "sealed");
}

#[tokio::test]
async fn a_failed_job_is_kept_with_its_capture_for_its_time_and_no_longer() {
    let mut house = house(&[("JOBS_FAILEDJOBSRETENTIONTIME", "1h")]).await;
    std::fs::write(house.path("fail-publish"), "").unwrap();
    let jobs = [given(&house, "site", &body("recording", "a", "reca")).await, given(&house, "site", &body("recording", "b", "recb")).await];
    let captures = captured(&house, 2).await;
    for job in &jobs {
        stop(&house, "site", &job["id"]).await;
        let failed = until_failed(&house, "site", &job["id"]).await;
        assert_eq!(failed["error"], "the server says no");
        assert!(failed["stop_at"].as_i64() > failed["start_at"].as_i64(), "{failed}");
    }
    // Everything is there, after a restart too: rows, copies, logs.
    house.close().await;
    house.open_as(&[&OPEN[..], &[("JOBS_FAILEDJOBSRETENTIONTIME", "1h")]].concat(), with_model).await;
    for (job, capture) in jobs.iter().zip(captures.iter().rev()) {
        assert_eq!(get(&house, "site", &job["id"]).await.json()["state"], "failed");
        assert_eq!(house.json(&format!("/recordings/{}", capture.recording_id)).await["state"], "sealed");
        let logs = ask(&house, "GET", &format!("/jobs/{}/logs", job["id"].as_str().unwrap()), &basic("site", KEY), "").await;
        assert!(logs.body.contains("works: "), "{logs:?}");
    }
    // One is deleted by its client, the other when its time is over.
    let deleted = ask(&house, "DELETE", &format!("/jobs/{}", jobs[0]["id"].as_str().unwrap()), &basic("site", KEY), "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (200, ""));
    assert_eq!(get(&house, "site", &jobs[0]["id"]).await.status, 404);
    sql(&house, "UPDATE calls_jobs SET stop_at_ms = 1").await;
    until_gone(&house, "site", &jobs[1]["id"]).await;
    for capture in captures {
        let archive = house.path("data/archive/recordings").join(&capture.recording_id);
        until("its copies to be deleted", || walk(&archive).is_empty()).await;
    }
}

/// The same rows in PostgreSQL: accounts, a queue, a shared capture, and nothing left at the end.
#[tokio::test]
async fn the_whole_contract_on_postgresql() {
    let Some((_server, url)) = crate::servers::postgres() else {
        eprintln!("no PostgreSQL on this machine: not tested against it");
        return;
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut house = House::empty();
    let more = [("OFFLOADER_DATABASE", url.as_str()), ("JOBS_MAXCONCURRENTJOBS", "1"), ("OFFLOADER_MATTERMOST_QUEUE_S", "600")];
    house.open_as(&[&OPEN[..], &more].concat(), with_model).await;
    let first = given(&house, "site", &body("recording", "a", "reca")).await;
    let second = given(&house, "site", &body("recording", "b", "recb")).await;
    let words = given(&house, "site", &body("transcribing", "b", "trab")).await;
    assert_eq!((second["state"].as_str(), words["state"].as_str()), (Some("waiting"), Some("waiting")));
    assert_eq!(given(&house, "site", &body("recording", "b", "recb")).await["id"], second["id"]);
    captured_of(&house, "reca").await;
    stop(&house, "site", &first["id"]).await;
    until_seen(&house, "site", &second["id"], "its turn", |answer| answer.json()["state"] == "running").await;
    captured_of(&house, "recb").await;
    stop(&house, "site", &second["id"]).await;
    for job in [&first, &second, &words] {
        until_gone(&house, "site", &job["id"]).await;
    }
    let begun = Instant::now();
    while !ours(&house).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "what was published is not deleted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(walk(&house.path("data/archive/recordings")).is_empty());
}
