//! `/metrics` in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::app::{App, lock};
use crate::calls_offloader::Calls;
use crate::store::StoreError;

/// The page.
pub async fn render(app: &App) -> Result<String, StoreError> {
    let mut page = String::new();
    let counts = &app.counts;
    let counters: [(&str, &str, &AtomicU64); 13] = [
        ("offloader_requests_refused_total", "Requests with a missing or wrong token.", &counts.refused),
        ("offloader_stale_writes_total", "Writes refused by fence or state.", &counts.stale),
        ("offloader_workers_started_total", "Worker processes started.", &counts.spawned),
        ("offloader_workers_died_total", "Worker processes that ended without finishing.", &counts.died),
        ("offloader_leases_expired_total", "Leases that ran out.", &counts.expired),
        ("offloader_recordings_sealed_total", "Recordings sealed.", &counts.sealed),
        ("offloader_settle_errors_total", "Sealing or storing that failed and is tried again.", &counts.settle_errors),
        ("offloader_accesses_total", "Entries written to the audit log.", &counts.accesses),
        ("offloader_no_room_total", "Times that a recording had to wait for room on the disk.", &counts.no_room),
        ("offloader_no_memory_total", "Times that rendering or a transcript had to wait for memory.", &counts.no_memory),
        ("offloader_wakes_sent_total", "Wake-ups sent to other offloaders over Redis.", &counts.wakes_sent),
        ("offloader_wakes_heard_total", "Wake-ups of other offloaders heard over Redis.", &counts.wakes_heard),
        ("offloader_redis_errors_total", "Connections to Redis that failed or broke.", &counts.redis_errors),
    ];
    for (name, help, value) in counters {
        let value = value.load(Ordering::Relaxed);
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
    }
    let _ = writeln!(page, "# HELP offloader_workers Worker processes of this daemon.\n# TYPE offloader_workers gauge");
    let _ = writeln!(page, "offloader_workers {}", lock(&app.workers).len());
    if app.settings.redis.is_some() {
        let _ = writeln!(page, "# HELP offloader_redis_up Redis answers.\n# TYPE offloader_redis_up gauge");
        let _ = writeln!(page, "offloader_redis_up {}", u8::from(app.redis_up.load(Ordering::Relaxed)));
    }
    let _ = writeln!(page, "# HELP offloader_nodes Offloaders of this site that live.\n# TYPE offloader_nodes gauge");
    let _ = writeln!(page, "offloader_nodes {}", app.nodes_alive());
    let _ = writeln!(page, "# HELP offloader_jobs Jobs by kind and state.\n# TYPE offloader_jobs gauge");
    for (kind, state, count) in app.store.job_counts().await? {
        let _ = writeln!(page, "offloader_jobs{{kind=\"{kind}\",state=\"{state}\"}} {count}");
    }
    let _ = writeln!(page, "# HELP offloader_recordings Recordings by state.\n# TYPE offloader_recordings gauge");
    for (state, count) in app.store.recording_counts().await? {
        let _ = writeln!(page, "offloader_recordings{{state=\"{state}\"}} {count}");
    }
    if let Some(calls) = &app.calls {
        render_calls(app, calls, &mut page).await?;
    }
    Ok(page)
}

async fn render_calls(app: &App, calls: &Calls, page: &mut String) -> Result<(), StoreError> {
    let counts = &app.calls_counts;
    let counters = [
        ("done", "Jobs of Mattermost servers brought to their end.", &counts.done),
        ("failed", "Jobs that failed.", &counts.failed),
        ("refused", "Jobs refused because as many ran and waited as may.", &counts.refused),
        ("gave_up", "Jobs whose turn did not come in time.", &counts.gave_up),
        ("over_time", "Captures that reached their longest duration.", &counts.over_time),
        ("purged", "Recordings deleted after their time.", &counts.purged),
    ];
    for (name, help, value) in counters {
        let (name, value) = (format!("offloader_mattermost_{name}_total"), value.load(Ordering::Relaxed));
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
    }
    let now = app.store.calls_counts().await?;
    let name = "offloader_mattermost_jobs";
    let _ = writeln!(page, "# HELP {name} Jobs of Mattermost servers by state.\n# TYPE {name} gauge");
    for (state, n) in [("running", now.running), ("waiting", now.waiting), ("publishing", now.publishing), ("failed", now.failed)] {
        let _ = writeln!(page, "{name}{{state=\"{state}\"}} {n}");
    }
    let (max, queue) = (calls.config.max_jobs, app.settings.mattermost_queue);
    let clients = app.store.calls_clients().await?;
    for (name, help, value) in [
        ("jobs_max", "Jobs that may run at a time; a recording and a transcription are two.", max.to_string()),
        ("queue_max", "Jobs that may wait.", queue.to_string()),
        ("clients", "Registered clients.", clients.to_string()),
    ] {
        let name = format!("offloader_mattermost_{name}");
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    Ok(())
}
