//! Several offloaders on one PostgreSQL database and one archive, waking each other over Redis: the real servers, and where a
//! whole machine dies, the real programs.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use archive::bundle::verify_bundle;
use conclave_proto::v1;
use offloader::settings::Settings;
use offloader::store::Store;
use offloader::store::catalogue::{Person, RecordingRow};
use offloader_jobs::{Job, Kind, Spec};
use rustix::process::{Signal, kill_process};

use crate::house::{House, TOKEN, client, manifest_has, record, until};
use crate::jobs::{Program, connected, now_ns, pid_of, until_job, with_model};
use crate::servers::{Server, free_port, postgres, program, redis};

/// What the offloaders of a site share.
struct Site {
    _postgres: Server,
    database: String,
    redis_port: u16,
    shared: tempfile::TempDir,
}

const HOUR_MS: u64 = 3_600_000;

impl Site {
    /// `None`, and said so, where the machine has not both servers.
    fn new() -> Option<Self> {
        let (_postgres, database) = program(&["redis-server"]).and_then(|_| postgres()).or_else(|| {
            eprintln!("no PostgreSQL or no Redis on this machine: several offloaders are not tested");
            None
        })?;
        Some(Self { _postgres, database, redis_port: free_port(), shared: tempfile::tempdir().unwrap() })
    }

    fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    fn path(&self, name: &str) -> String {
        self.shared.path().join(name).display().to_string()
    }

    fn settings(&self, poll_ms: u64) -> impl Fn(&mut Settings) + '_ {
        move |settings| {
            with_model(settings);
            settings.database.clone_from(&self.database);
            settings.redis = Some(self.redis_url());
            settings.poll_ms = poll_ms;
            settings.archive = format!("file://{}", self.path("archive"));
            settings.site_key_file = self.path("site.key").into();
            settings.signing_key_file = self.path("signing.pk8").into();
        }
    }

    async fn node(&self, poll_ms: u64) -> House {
        House::with(self.settings(poll_ms)).await
    }

    /// A node as an operator starts it; its log tells what it said.
    fn program(&self, house: &House, port: u16) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offloader"));
        command
            .env("OFFLOADER_LISTEN", format!("127.0.0.1:{port}"))
            .env("OFFLOADER_TOKEN", TOKEN)
            .env("OFFLOADER_TAP_SECRET", "test-tap-secret-0123456789")
            .env("OFFLOADER_DATA", house.path("data"))
            .env("OFFLOADER_WORKER_BIN", house.path("offload-worker"))
            .env("OFFLOADER_MODEL_PATH", "/some/model.bin")
            .env("OFFLOADER_DATABASE", &self.database)
            .env("OFFLOADER_REDIS", self.redis_url())
            .env("OFFLOADER_ARCHIVE", format!("file://{}", self.path("archive")))
            .env("OFFLOADER_SITE_KEY_FILE", self.path("site.key"))
            .env("OFFLOADER_SIGNING_KEY_FILE", self.path("signing.pk8"))
            .stdout(Stdio::null())
            .stderr(File::create(house.path(&format!("offloader-{}.log", now_ns()))).unwrap());
        Program(command.spawn().unwrap())
    }
}

async fn metric(house: &House, name: &str) -> f64 {
    let page = house.http.get(format!("{}/metrics", house.url())).send().await.unwrap().text().await.unwrap();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in {page}"));
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn until_redis(house: &House, up: bool) {
    let begun = std::time::Instant::now();
    while (metric(house, "offloader_redis_up").await == 1.0) != up {
        assert!(begun.elapsed().as_secs() < 60, "Redis: waited in vain for up={up}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Reads a watch until a job satisfies `holds`.
async fn watched(updates: &mut tonic::Streaming<v1::Job>, what: &str, holds: impl Fn(&v1::Job) -> bool) -> v1::Job {
    let seen = async {
        loop {
            let job = updates.message().await.unwrap().expect("the watch goes on");
            if holds(&job) {
                return job;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), seen).await.unwrap_or_else(|_| panic!("not told: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offloader_that_starts_waits_for_no_table_that_others_write() {
    let Some((_postgres, database)) = postgres() else { return eprintln!("no PostgreSQL on this machine: not tested") };
    Store::open(&database).await.unwrap();
    let others = sqlx::AnyPool::connect(&database).await.unwrap();
    let mut writing = others.begin().await.unwrap();
    sqlx::query("LOCK TABLE jobs, recordings, transcript_segments, audit IN ROW EXCLUSIVE MODE").execute(&mut *writing).await.unwrap();
    let opened = tokio::time::timeout(Duration::from_secs(20), Store::open(&database)).await;
    opened.expect("it does not wait for the transaction that goes on").unwrap();
    writing.rollback().await.unwrap();
    // Tables of another version are brought up to date, once nobody is in the way.
    sqlx::query("UPDATE tables_made SET statements = 'of another version'").execute(&others).await.unwrap();
    sqlx::query("ALTER TABLE jobs DROP COLUMN failed_checkpoint, DROP COLUMN blocked").execute(&others).await.unwrap();
    Store::open(&database).await.unwrap();
    sqlx::query("SELECT failed_checkpoint, blocked FROM jobs").fetch_all(&others).await.unwrap();
}

#[tokio::test]
async fn a_name_that_postgresql_does_not_take_keeps_no_recording_out_of_the_catalogue() {
    let Some((_postgres, database)) = postgres() else { return eprintln!("no PostgreSQL on this machine: not tested") };
    let store = Store::open(&database).await.unwrap();
    let recording = RecordingRow { id: "rec-1".into(), tenant: "t".into(), ..RecordingRow::default() };
    let people = [Person { identity: "u-1".into(), display_name: "A\0nn".into() }];
    let spec = Spec {
        kind: Kind::Record,
        tenant: "t".into(),
        call_id: "c".into(),
        recording_id: "rec-1".into(),
        idempotency_key: "k".into(),
        params: "{}".into(),
    };
    assert!(store.add_recording(&recording, &people, &Job::new("job-1".into(), spec, 1)).await.unwrap());
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&database).await.unwrap();
    let (name,): (String,) = sqlx::query_as("SELECT display_name FROM recording_people").fetch_one(&mut connection).await.unwrap();
    assert_eq!(name, "A\u{fffd}nn");
}

#[tokio::test]
async fn of_many_that_want_a_job_one_gets_it() {
    let Some(site) = Site::new() else { return };
    let stores = [Store::open(&site.database).await.unwrap(), Store::open(&site.database).await.unwrap()];
    let spec = |n: usize| Spec {
        kind: Kind::Caption,
        tenant: "t".into(),
        call_id: "c".into(),
        recording_id: String::new(),
        idempotency_key: format!("k{n}"),
        params: "{}".into(),
    };
    for n in 0..60 {
        stores[0].add_job(&Job::new(format!("job-{n}"), spec(n), 0)).await.unwrap();
    }
    let takers = (0..8).map(|taker| {
        let store = stores[taker % 2].clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for n in 0..60 {
                let owner = format!("node-{taker}");
                if store.change_job(&format!("job-{n}"), |job, now_ms| job.lease(&owner, now_ms)).await.is_ok() {
                    taken.push(n);
                }
            }
            taken
        })
    });
    let mut taken: Vec<usize> = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        taken.extend(taker.await.unwrap());
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..60).collect::<Vec<_>>(), "each once");
    for n in 0..60 {
        assert_eq!(stores[1].job(&format!("job-{n}")).await.unwrap().unwrap().fence, 1);
    }
}

#[tokio::test]
async fn job_wakes_the_other_offloader_over_redis() {
    let Some(site) = Site::new() else { return };
    let _redis = redis(site.redis_port);
    // By themselves they would look for work in an hour.
    let (first, second) = (site.node(HOUR_MS).await, site.node(HOUR_MS).await);
    until_redis(&first, true).await;
    until_redis(&second, true).await;
    let mut updates = second.client().await.watch(v1::WatchJobsRequest::default()).await.unwrap().into_inner();
    let asked = first.client().await.submit(record("c", "Planning")).await.unwrap().into_inner();
    watched(&mut updates, "a job that runs elsewhere", |job| job.id == asked.id && job.state == i32::from(v1::JobState::Running)).await;
    // Whichever node has the work, all answer for it: looked up, stopped and played through the other one.
    let on_first = first.path("data/recordings").join(&asked.recording_id);
    let on_second = second.path("data/recordings").join(&asked.recording_id);
    let segment = "\"kind\":\"segment\"";
    until("a closed segment", || manifest_has(&on_first, segment) || manifest_has(&on_second, segment)).await;
    let other = if manifest_has(&on_first, segment) { &second } else { &first };
    let mut asking = other.client().await;
    asking.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    watched(&mut updates, "its end", |job| job.id == asked.id && job.state == i32::from(v1::JobState::Done)).await;
    other.settled(&asked.recording_id).await;
    assert_eq!(other.get(&format!("/recordings/{}/media", asked.recording_id)).send().await.unwrap().status(), 200);
    // Busy with one, the first cannot take the next: the second is woken, brings the recording from the archive, and does it.
    std::fs::write(first.path("hold-render"), "").unwrap();
    std::fs::write(second.path("hold-render"), "").unwrap();
    let render = |key: &str| v1::SubmitRequest {
        kind: v1::JobKind::Render.into(),
        tenant: "t".into(),
        call_id: "c".into(),
        idempotency_key: key.into(),
        params_json: String::new(),
        recording_id: asked.recording_id.clone(),
    };
    let mut service = first.client().await;
    let one = service.submit(render("one")).await.unwrap().into_inner();
    let two = service.submit(render("two")).await.unwrap().into_inner();
    let running = |job: &v1::Job| job.state == i32::from(v1::JobState::Running);
    let one = until_job(&mut service, &one.id, "the first rendering", running).await;
    let two = until_job(&mut service, &two.id, "the second rendering", running).await;
    assert_ne!(one.lease_owner, two.lease_owner, "one each");
    std::fs::remove_file(first.path("hold-render")).unwrap();
    std::fs::remove_file(second.path("hold-render")).unwrap();
    for job in [&one, &two] {
        let done = until_job(&mut service, &job.id, "its end", |job| job.state > i32::from(v1::JobState::Stopping)).await;
        assert_eq!((done.state, done.attempt), (v1::JobState::Done.into(), 1), "{}", done.error);
    }
    assert!(metric(&second, "offloader_wakes_heard_total").await >= 1.0);
    assert!(metric(&first, "offloader_wakes_sent_total").await >= 1.0);
    assert_eq!(metric(&second, "offloader_nodes").await, 2.0);
}

#[tokio::test]
async fn jobs_run_while_redis_is_away_killed_or_flushed() {
    let Some(site) = Site::new() else { return };
    // Not there yet: everything works, only not at once.
    let (first, second) = (site.node(300).await, site.node(300).await);
    let mut updates = second.client().await.watch(v1::WatchJobsRequest::default()).await.unwrap().into_inner();
    recorded(&first, "before").await;
    watched(&mut updates, "a job before Redis", |job| job.call_id == "before" && job.state == i32::from(v1::JobState::Done)).await;
    assert!(metric(&first, "offloader_redis_errors_total").await >= 1.0);
    let health = first.http.get(format!("{}/healthz", first.url())).send().await.unwrap();
    assert_eq!(health.status(), 200, "Redis is no part of being alive");

    let server = redis(site.redis_port);
    until_redis(&first, true).await;
    until_redis(&second, true).await;
    let asked = first.client().await.submit(record("during", "During")).await.unwrap().into_inner();
    watched(&mut updates, "a job with Redis", |job| job.id == asked.id).await;
    // SIGKILL in the middle of the recording.
    drop(server);
    until_redis(&second, false).await;
    let mut asking = second.client().await;
    asking.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    watched(&mut updates, "its end", |job| job.id == asked.id && job.state == i32::from(v1::JobState::Done)).await;
    second.settled(&asked.recording_id).await;

    let _server = redis(site.redis_port);
    until_redis(&first, true).await;
    until_redis(&second, true).await;
    let client = ::redis::Client::open(site.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: String = ::redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    let heard = metric(&second, "offloader_wakes_heard_total").await;
    recorded(&first, "after").await;
    watched(&mut updates, "a job after the flush", |job| job.call_id == "after" && job.state == i32::from(v1::JobState::Done)).await;
    assert!(metric(&second, "offloader_wakes_heard_total").await > heard, "woken again after the flush");
    let kept: usize = ::redis::cmd("XLEN").arg(stream(&mut connection).await).query_async(&mut connection).await.unwrap();
    assert!(kept <= 2 * offloader::limits::REDIS_STREAM, "{kept} wake-ups kept");
}

#[tokio::test]
async fn redis_that_is_away_is_told_once_and_counted_each_time() {
    let Some(site) = Site::new() else { return };
    let house = House::empty();
    let port = free_port();
    let _program = site.program(&house, port);
    connected(port).await;
    let begun = std::time::Instant::now();
    loop {
        let page = house.http.get(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap().text().await.unwrap();
        let errors = page.lines().find_map(|line| line.strip_prefix("offloader_redis_errors_total ")?.parse::<u64>().ok());
        if errors >= Some(3) {
            assert!(page.contains("\noffloader_redis_up 0\n"), "{page}");
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{page}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let logs = std::fs::read_dir(house.dir.path()).unwrap().map(|file| file.unwrap().path());
    let log: String =
        logs.filter(|path| path.extension().is_some_and(|end| end == "log")).map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(log.matches("OFFLOADER_REDIS").count(), 1, "{log}");
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
}

async fn stream(connection: &mut ::redis::aio::MultiplexedConnection) -> String {
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("conclave:*").query_async(connection).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

/// Waits until this node can tell so many segments of a recording that is being captured, wherever that is.
async fn until_copied(http: &reqwest::Client, url: &str, recording: &str, segments: u64) {
    let begun = std::time::Instant::now();
    loop {
        let url = format!("{url}/archive/v1/recordings/{recording}");
        let answer = http.get(url).bearer_auth(TOKEN).header("x-conclave-actor", "u").send().await.unwrap();
        let view: serde_json::Value = answer.json().await.unwrap();
        if view["tracks"][0]["segments"].as_u64().is_some_and(|copied| copied >= segments) {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "not copied: {view:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A whole recording, asked of this node and captured by any.
async fn recorded(house: &House, call: &str) {
    let mut service = house.client().await;
    let asked = service.submit(record(call, call)).await.unwrap().into_inner();
    until_copied(&house.http, &house.url(), &asked.recording_id, 1).await;
    service.stop(v1::StopRequest { id: asked.id, reason: "test".into() }).await.unwrap();
    house.settled(&asked.recording_id).await;
}

#[tokio::test]
async fn killed_offloaders_recording_goes_on_at_another_as_one() {
    let Some(site) = Site::new() else { return };
    let _redis = redis(site.redis_port);
    let (dying, mut living) = (House::empty(), House::empty());
    let ports = [free_port(), free_port()];
    let mut first = site.program(&dying, ports[0]);
    let mut service = connected(ports[0]).await;
    let asked = service.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = dying.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    let second = site.program(&living, ports[1]);
    let mut service = connected(ports[1]).await;
    until_copied(&living.http, &format!("http://127.0.0.1:{}", ports[1]), &asked.recording_id, 2).await;
    // The whole machine: daemon, worker, and its disk for all that the other one knows.
    let worker = pid_of(&dying, "record", 1).await;
    first.0.kill().unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    first.0.wait().unwrap();
    let running = until_job(&mut service, &asked.id, "the other node's attempt", |job| job.fence == 2).await;
    let gone_on = living.path("data/recordings").join(&asked.recording_id);
    until("the next attempt's segments", || manifest_has(&gone_on, "\"fence\":2,\"bytes\"")).await;
    assert_eq!(running.attempt, 2);
    service.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    until_job(&mut service, &asked.id, "the end", |job| job.state == i32::from(v1::JobState::Done)).await;
    kill_process(rustix::process::Pid::from_child(&second.0), Signal::TERM).unwrap();
    drop(second);
    // What is left to do is done by whoever is there: here the one that was killed, with stale bytes on its disk.
    let mut dying = dying;
    dying.open(site.settings(1_000)).await;
    living.open(site.settings(1_000)).await;
    dying.settled(&asked.recording_id).await;
    let view = living.json(&format!("/recordings/{}", asked.recording_id)).await;
    assert_eq!((view["state"].as_str(), view["tracks"].as_array().map(Vec::len)), (Some("sealed"), Some(1)), "{view:#}");
    assert_eq!((view["recording_gaps"].as_array().map(Vec::len), &view["recording_gaps"][0]["reason"]), (Some(1), &"worker".into()));
    let bundle = dying.get(&format!("/recordings/{}/bundle", asked.recording_id)).send().await.unwrap().bytes().await.unwrap();
    let report = verify_bundle(&bundle[..], &[]).unwrap();
    assert!(report.ok, "{report:?}");
    // What the dead one had copied stands in the seal, and what it had not is gone from its disk too.
    let manifest = std::fs::read_to_string(site.shared.path().join(format!("archive/recordings/{}/manifest.jsonl", asked.recording_id)));
    let manifest = manifest.unwrap();
    for fence in [1, 2] {
        assert!(manifest.contains(&format!("\"fence\":{fence},\"bytes\"")), "no segment of attempt {fence}: {manifest}");
    }
    until("the folders to go", || !dir.exists() && !gone_on.exists()).await;
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(&site.database).await.unwrap();
    let (left,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM capture_lines").fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0, "lines of a sealed recording are not kept twice");
}

#[tokio::test]
async fn ended_recording_of_a_dead_offloader_is_sealed_by_another_from_the_copies() {
    let Some(site) = Site::new() else { return };
    let _redis = redis(site.redis_port);
    let dying = House::empty();
    let port = free_port();
    let mut first = site.program(&dying, port);
    let asked = connected(port).await.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = dying.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    let living = site.node(1_000).await;
    until_copied(&living.http, &living.url(), &asked.recording_id, 2).await;
    let worker = pid_of(&dying, "record", 1).await;
    let mut service = living.client().await;
    // Asked to stop in the moment of its death: nobody captures any more, and somebody must seal what there is.
    first.0.kill().unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    service.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    first.0.wait().unwrap();
    let ended = until_job(&mut service, &asked.id, "the lease to run out", |job| job.state == i32::from(v1::JobState::Done)).await;
    assert_eq!(ended.fence, 1, "not captured again");
    // It might come back to bytes that only its disk has: that is waited for. Here the minute passes at once.
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(&site.database).await.unwrap();
    let name = std::fs::read_to_string(dying.path("data/node")).unwrap();
    let passed = sqlx::query("UPDATE nodes SET seen_ms = seen_ms - 60000 WHERE name = $1").bind(name.trim());
    assert_eq!(passed.execute(&mut database).await.unwrap().rows_affected(), 1);
    living.settled(&asked.recording_id).await;
    let report: serde_json::Value =
        living.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert!(report["ok"] == true && report["checked_segments"].as_u64() >= Some(2), "{report}");
    // Back again, with more on its disk than was sealed: it finds the recording sealed, and clears up.
    assert!(dir.exists());
    let mut dying = dying;
    dying.open(site.settings(1_000)).await;
    until("the stale folder to go", || !dir.exists()).await;
    let again: serde_json::Value =
        dying.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["ok"], &again["root"]), (&true.into(), &report["root"]), "{again}");
}

#[tokio::test]
async fn ended_recording_whose_disk_was_replaced_is_sealed_from_the_copies() {
    let Some(site) = Site::new() else { return };
    let _redis = redis(site.redis_port);
    let mut home = House::empty();
    let port = free_port();
    let mut first = site.program(&home, port);
    let asked = connected(port).await.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = home.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    let other = site.node(1_000).await;
    until_copied(&other.http, &other.url(), &asked.recording_id, 2).await;
    let worker = pid_of(&home, "record", 1).await;
    first.0.kill().unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    let mut service = other.client().await;
    service.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    first.0.wait().unwrap();
    until_job(&mut service, &asked.id, "the lease to run out", |job| job.state == i32::from(v1::JobState::Done)).await;
    // The same node, by its name, with an empty disk.
    std::fs::remove_dir_all(&dir).unwrap();
    home.open(site.settings(1_000)).await;
    home.settled(&asked.recording_id).await;
    let report: serde_json::Value =
        home.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert!(report["ok"] == true && report["checked_segments"].as_u64() >= Some(2), "{report}");
}

#[tokio::test]
async fn offloader_that_ends_in_order_hands_its_recording_over_without_loss() {
    let Some(site) = Site::new() else { return };
    let _redis = redis(site.redis_port);
    let mut leaving = site.node(1_000).await;
    let asked = leaving.client().await.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = leaving.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
    let staying = site.node(1_000).await;
    leaving.close().await;
    let left = std::fs::read_to_string(dir.join("manifest.jsonl")).unwrap();
    assert!(left.lines().last().unwrap().contains("\"kind\":\"checkpoint\""), "{left}");
    let mut service = staying.client().await;
    until_job(&mut service, &asked.id, "the other node's attempt", |job| job.fence == 2).await;
    let gone_on = staying.path("data/recordings").join(&asked.recording_id);
    until("the next attempt's segments", || manifest_has(&gone_on, "\"fence\":2,\"bytes\"")).await;
    service.stop(v1::StopRequest { id: asked.id.clone(), reason: "test".into() }).await.unwrap();
    staying.settled(&asked.recording_id).await;
    let stored = std::fs::read_to_string(site.path(&format!("archive/recordings/{}/manifest.jsonl", asked.recording_id))).unwrap();
    assert!(stored.starts_with(&left), "not one line of the first is missing");
    let report: serde_json::Value =
        staying.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert_eq!(report["ok"], true, "{report}");
}

#[tokio::test]
async fn offloader_with_other_keys_or_another_archive_is_refused_and_told_what_to_set() {
    let Some(site) = Site::new() else { return };
    let house = site.node(1_000).await;
    let other = tempfile::tempdir().unwrap();
    let elsewhere = other.path().join("x").display().to_string();
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = house.daemon.as_ref().unwrap().app.settings.clone();
        settings.data = other.path().join("data");
        settings.listen.set_port(0);
        change(&mut settings);
        async move { offloader::start(settings).await.map(|_| ()).unwrap_err().to_string() }
    };
    let error = refused(&|settings| settings.site_key_file = elsewhere.clone().into()).await;
    assert!(error.contains("OFFLOADER_SITE_KEY_FILE"), "{error}");
    let error = refused(&|settings| settings.signing_key_file = format!("{elsewhere}-s").into()).await;
    assert!(error.contains("OFFLOADER_SIGNING_KEY_FILE"), "{error}");
    let error = refused(&|settings| settings.archive = format!("file://{elsewhere}-archive")).await;
    assert!(error.contains("OFFLOADER_ARCHIVE"), "{error}");
    // The same in all of that: welcome.
    let mut settings = house.daemon.as_ref().unwrap().app.settings.clone();
    settings.data = other.path().join("data");
    settings.listen.set_port(0);
    let second = offloader::start(settings).await.unwrap();
    let mut service = client(&format!("http://{}", second.address), TOKEN).await;
    assert!(service.list(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs.is_empty());
    second.shut_down().await.unwrap();
}
