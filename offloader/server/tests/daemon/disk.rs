//! A full disk under a recording: the daemon and its worker on a small disk of their own, in a mount namespace that goes away
//! with the test.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use conclave_proto::v1;

use crate::house::{House, manifest_has, record, until};
use crate::jobs::{until_job, with_model};

const MIB: u64 = 1024 * 1024;

/// Runs one of the tests of this binary where it may mount. False, and said so, where nobody may.
fn in_own_mounts(test: &str) -> bool {
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(if rustix::process::geteuid().is_root() { &["-m"][..] } else { &["-rm"][..] }).args(arguments);
        command
    };
    if !unshare(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("no mount namespaces for us on this machine: a full disk is not tested");
        return false;
    }
    let this = std::env::current_exe().unwrap();
    let arguments = [this.to_str().unwrap(), test, "--exact", "--nocapture", "--test-threads=1"];
    let output = unshare(&arguments).env("TEST_OWN_MOUNTS", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn small_disk(path: &Path, mib: u64) {
    std::fs::create_dir_all(path).unwrap();
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(path).status().unwrap();
    assert!(done.success());
}

/// Writes a file until so many bytes are left.
fn fill(path: &Path, leave: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    while archive::free_bytes(path.parent().unwrap()).unwrap() > leave {
        file.write_all(&[7; 64 * 1024]).unwrap();
    }
}

#[test]
fn recording_on_a_full_disk_says_so_waits_and_goes_on_without_loss() {
    in_own_mounts("disk::full_disk_process");
}

/// Run by the test above.
#[tokio::test]
async fn full_disk_process() {
    if std::env::var("TEST_OWN_MOUNTS").is_err() {
        return;
    }
    let mut house = House::empty();
    small_disk(&house.path("data"), 64);
    let archive = format!("file://{}", house.path("elsewhere").display());
    // Database, captures and work lie on the small disk, as they do by default; what is sealed lies elsewhere.
    house
        .open(|settings| {
            with_model(settings);
            settings.archive.clone_from(&archive);
            settings.disk_free_min_mb = 8;
        })
        .await;
    let mut client = house.client().await;
    let asked = client.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&asked.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;

    let ballast = house.path("data/ballast");
    fill(&ballast, 4 * MIB);
    let waiting = until_job(&mut client, &asked.id, "the job to wait", |job| job.state == i32::from(v1::JobState::Queued)).await;
    assert!(waiting.error.starts_with("no room") && waiting.error.contains("OFFLOADER_DATA"), "{}", waiting.error);
    let view = house.json(&format!("/recordings/{}", asked.recording_id)).await;
    assert_eq!((view["state"].as_str(), view["error"].as_str()), (Some("capturing"), Some(waiting.error.as_str())));
    // Put down in order: all that came is closed and signed for.
    let before = std::fs::read_to_string(dir.join("manifest.jsonl")).unwrap();
    assert!(before.lines().last().unwrap().contains("\"kind\":\"checkpoint\""), "{before}");

    // Somebody else asks meanwhile: told the same, not refused.
    let other = client.submit(record("c2", "Another call")).await.unwrap().into_inner();
    let other = until_job(&mut client, &other.id, "the reason", |job| !job.error.is_empty()).await;
    assert!(other.error.starts_with("no room"), "{}", other.error);
    assert_eq!((other.state, other.attempt), (v1::JobState::Queued.into(), 0));
    client.stop(v1::StopRequest { id: other.id, reason: "test".into() }).await.unwrap();
    let page = house.http.get(format!("{}/metrics", house.url())).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("\noffloader_no_room_total 2\n"), "{page}");

    std::fs::remove_file(&ballast).unwrap();
    let running = until_job(&mut client, &asked.id, "the job to go on", |job| job.state == i32::from(v1::JobState::Running)).await;
    assert_eq!((running.error.as_str(), running.attempt), ("", 1), "waiting is no failure");
    until("segments of the next attempt", || manifest_has(&dir, &format!("\"fence\":{},\"bytes\"", running.fence))).await;
    client.stop(v1::StopRequest { id: asked.id, reason: "test".into() }).await.unwrap();
    house.settled(&asked.recording_id).await;
    let stored = house.path(&format!("elsewhere/recordings/{}/manifest.jsonl", asked.recording_id));
    assert!(std::fs::read_to_string(stored).unwrap().starts_with(&before), "not one line from before is missing");
    let view = house.json(&format!("/recordings/{}", asked.recording_id)).await;
    assert_eq!((view["error"].as_str(), view["recording_gaps"].as_array().map(Vec::len)), (Some(""), Some(1)), "{view:#}");
    let report: serde_json::Value =
        house.post(&format!("/recordings/{}/verify", asked.recording_id)).send().await.unwrap().json().await.unwrap();
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn film_that_would_fill_the_disk_waits_and_costs_no_recording_anything() {
    in_own_mounts("disk::film_on_a_small_disk_process");
}

/// Run by the test above.
#[tokio::test]
async fn film_on_a_small_disk_process() {
    if std::env::var("TEST_OWN_MOUNTS").is_err() {
        return;
    }
    let mut house = House::empty();
    small_disk(&house.path("data"), 64);
    house
        .open(|settings| {
            with_model(settings);
            settings.disk_free_min_mb = 8;
        })
        .await;
    let mut client = house.client().await;
    let live = client.submit(record("c", "Planning")).await.unwrap().into_inner();
    let dir = house.path("data/recordings").join(&live.recording_id);
    until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;

    // While it is written, and when it is to be stored.
    for (n, how) in ["fill-render", "fill-render-nearly"].iter().enumerate() {
        std::fs::write(house.path(how), "").unwrap();
        let (call, title) = (format!("ended-{n}"), "Before");
        let ended = client.submit(record(&call, title)).await.unwrap().into_inner();
        let ended_dir = house.path("data/recordings").join(&ended.recording_id);
        until("a closed segment", || manifest_has(&ended_dir, "\"kind\":\"segment\"")).await;
        client.stop(v1::StopRequest { id: ended.id.clone(), reason: "test".into() }).await.unwrap();
        let render = until_follow_up(&mut client, &call).await;
        let waiting =
            until_job(&mut client, &render, "the film to wait", |job| job.fence > 0 && job.state == i32::from(v1::JobState::Queued)).await;
        assert!(waiting.error.starts_with("no room"), "{}", waiting.error);
        let store = &house.daemon.as_ref().unwrap().app.store;
        let row = store.job(&render).await.unwrap().unwrap();
        assert_eq!((row.failures, row.attempt, row.blocked), (0, 0, 1));
        assert!(row.run_after_ms - row.updated_at_ms >= 30_000, "not again in the next moment");
        client.stop(v1::StopRequest { id: render, reason: "test".into() }).await.unwrap();
        let work = house.path("data/work");
        until("the unfinished file to go", || std::fs::read_dir(&work).is_ok_and(|mut left| left.next().is_none())).await;
        std::fs::remove_file(house.path(how)).unwrap();
    }
    let job = until_job(&mut client, &live.id, "the recording", |job| job.state == i32::from(v1::JobState::Running)).await;
    assert_eq!((job.fence, job.attempt), (1, 1), "it was never put down");
    client.stop(v1::StopRequest { id: live.id, reason: "test".into() }).await.unwrap();
    house.settled(&live.recording_id).await;
    let view = house.json(&format!("/recordings/{}", live.recording_id)).await;
    assert_eq!(view["recording_gaps"].as_array().map(Vec::len), Some(0), "{view:#}");
}

/// The render job of a call.
async fn until_follow_up(client: &mut crate::house::Client, call: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let request = v1::ListJobsRequest { call_id: call.into(), ..v1::ListJobsRequest::default() };
        let jobs = client.list(request).await.unwrap().into_inner().jobs;
        if let Some(job) = jobs.into_iter().find(|job| job.kind == i32::from(v1::JobKind::Render)) {
            return job.id;
        }
        assert!(begun.elapsed().as_secs() < 60, "no film is to be made");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
