//! `/metrics` beside the list of names that Mattermost's rtcd has: dashboards made for it go on working.

#![cfg(test)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{TOKEN, TestNode, keep_talking, soon};
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use rtc_client::{Dial, Participant};

const A: &[f64] = &[0.001, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0];
const B: &[f64] = &[0.001, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0];
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const NONE: &[f64] = &[];

/// Name, kind, labels, buckets.
const KEPT: &[(&str, &str, &[&str], &[f64])] = &[
    ("rtcd_rtc_sessions_total", "gauge", &["groupID"], NONE),
    ("rtcd_rtc_rtp_tracks_total", "gauge", &["groupID", "direction", "type"], NONE),
    ("rtcd_rtc_conn_states_total", "counter", &["type"], NONE),
    ("rtcd_rtc_errors_total", "counter", &["groupID", "type"], NONE),
    ("rtcd_rtc_connection_time", "histogram", &["groupID"], DEFAULT),
    ("rtcd_rtc_dc_open_time", "histogram", &["groupID"], DEFAULT),
    ("rtcd_rtc_client_loss_rate", "histogram", &["groupID"], B),
    ("rtcd_rtc_client_rtt", "histogram", &["groupID"], A),
    ("rtcd_rtc_client_jitter", "histogram", &["groupID"], A),
    ("rtcd_ws_connections_total", "gauge", &["clientID"], NONE),
    ("rtcd_ws_messages_total", "counter", &["clientID", "type", "direction"], NONE),
    ("rtcd_process_cpu_seconds_total", "counter", &[], NONE),
    ("rtcd_process_open_fds", "gauge", &[], NONE),
    ("rtcd_process_max_fds", "gauge", &[], NONE),
    ("rtcd_process_resident_memory_bytes", "gauge", &[], NONE),
    ("rtcd_process_virtual_memory_bytes", "gauge", &[], NONE),
    ("rtcd_process_virtual_memory_max_bytes", "gauge", &[], NONE),
    ("rtcd_process_start_time_seconds", "gauge", &[], NONE),
];

/// Names that have no true figure here; the document says why.
const OMITTED: &[&str] =
    &["rtcd_rtc_rtp_tracks_writes_time", "go_goroutines", "go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes"];

/// Label values that a label may take, where Mattermost's rtcd names them.
const VALUES: &[(&str, &str, &[&str])] = &[
    ("rtcd_rtc_rtp_tracks_total", "direction", &["in", "out"]),
    ("rtcd_rtc_conn_states_total", "type", &["connected", "disconnected", "failed", "closed"]),
    ("rtcd_rtc_errors_total", "type", &["signaling", "ice", "rtp", "track", "signaling_lock_timeout"]),
    ("rtcd_ws_messages_total", "type", &["join", "leave", "reconnect", "rtc", "vad"]),
    ("rtcd_ws_messages_total", "direction", &["in", "out"]),
];

#[derive(Debug)]
struct Sample {
    /// With `_bucket`, `_sum` or `_count`.
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

/// Reads the text format, and insists on what a strict reader does: each family once, its samples right behind its head.
fn read(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut open = String::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(_, text)| !text.is_empty()), "{line}");
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect("a kind");
            open = name.to_owned();
            assert!(families.insert(open.clone(), Family { kind: kind.to_owned(), samples: Vec::new() }).is_none(), "{name} comes twice");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) =
                series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').expect("closed")));
            let tail = name.strip_prefix(open.as_str()).unwrap_or_else(|| panic!("{line} does not belong to {open}"));
            let family = families.get_mut(&open).expect("open");
            let tails: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(tails.contains(&tail), "{line} under a {}", family.kind);
            let labels = labels
                .split(',')
                .filter(|label| !label.is_empty())
                .map(|label| {
                    let (name, value) = label.split_once('=').expect("a label");
                    (name.to_owned(), value.trim_matches('"').to_owned())
                })
                .collect();
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            family.samples.push(Sample { name: name.to_owned(), labels, value });
        }
    }
    families
}

fn assert_family(name: &str, family: &Family, kind: &str, labels: &[&str], buckets: &[f64]) {
    assert_eq!(family.kind, kind, "{name}");
    let wanted: BTreeSet<&str> = labels.iter().copied().collect();
    let mut series: BTreeMap<Vec<&str>, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &family.samples {
        let found: BTreeSet<&str> = sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(found, wanted, "labels of {name}");
        if let Some(bound) = sample.labels.get("le") {
            let key = sample.labels.iter().filter(|(label, _)| *label != "le").map(|(_, value)| value.as_str()).collect();
            series.entry(key).or_default().push((bound.parse().expect("a bound"), sample.value));
        }
    }
    for (_, found) in series {
        let bounds: Vec<f64> = found.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds, [buckets, &[f64::INFINITY]].concat(), "buckets of {name}");
        assert!(found.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} is cumulative");
    }
    for (of, label, values) in VALUES.iter().filter(|(of, ..)| *of == name) {
        for sample in &family.samples {
            assert!(values.contains(&sample.labels[*label].as_str()), "{of}: {label} of {sample:?}");
        }
    }
}

fn sum(families: &BTreeMap<String, Family>, name: &str, tail: &str, labels: &[(&str, &str)]) -> f64 {
    let full = format!("{name}{tail}");
    let fits = |sample: &&Sample| {
        sample.name == full && labels.iter().all(|(label, value)| sample.labels.get(*label).map(String::as_str) == Some(*value))
    };
    families[name].samples.iter().filter(fits).map(|sample| sample.value).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_labels_and_buckets_of_rtcd_are_kept_and_filled_by_a_real_call() {
    let node = TestNode::start(&[]).await;
    let (ann, mut at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let talking = keep_talking(ann.publish_opus("mic-a", 0x1111).await.expect("publishes"), 0);
    tokio::spawn(async move { while at_ann.recv().await.is_some() {} });
    tokio::spawn(async move { while at_bob.recv().await.is_some() {} });
    // Refused: a track without a name for the client.
    ann.request(Request::AddTrack(lk::AddTrackRequest::default())).await.expect("asks");

    // What clients report is sampled every ten seconds.
    let filled =
        ["rtcd_rtc_connection_time", "rtcd_rtc_dc_open_time", "rtcd_rtc_client_loss_rate", "rtcd_rtc_client_rtt", "rtcd_rtc_client_jitter"];
    let page = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            let page = node.metrics().await;
            if filled.iter().all(|name| page.contains(&format!("{name}_count{{groupID=\"default\"}}"))) {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let Ok(page) = page else { panic!("not all of {filled:?} within 120 s:\n{}", node.metrics().await) };
    let families = read(&page);

    let kept: BTreeSet<&str> = KEPT.iter().map(|(name, ..)| *name).collect();
    // Of those that only sessions of Mattermost's clients feed there is the head alone.
    let filled = families.iter().filter(|(_, family)| !family.samples.is_empty()).map(|(name, _)| name.as_str());
    let exported: BTreeSet<&str> = filled.filter(|name| name.starts_with("rtcd_") || name.starts_with("go_")).collect();
    assert_eq!(exported, kept);
    for (name, kind, labels, buckets) in KEPT {
        assert!(!families[*name].samples.is_empty(), "{name} has no sample");
        assert_family(name, &families[*name], kind, labels, buckets);
    }

    let default = ("groupID", "default");
    assert_eq!(sum(&families, "rtcd_rtc_sessions_total", "", &[default]), 2.0);
    assert_eq!(sum(&families, "rtcd_rtc_rtp_tracks_total", "", &[default, ("direction", "in"), ("type", "audio/opus")]), 1.0);
    assert_eq!(sum(&families, "rtcd_rtc_errors_total", "", &[default, ("type", "track")]), 1.0);
    let ann_says = |kind, direction| {
        sum(&families, "rtcd_ws_messages_total", "", &[("clientID", "rtc-client-ann"), ("type", kind), ("direction", direction)])
    };
    assert_eq!(ann_says("join", "in"), 1.0);
    assert!(ann_says("rtc", "in") >= 3.0, "two tracks announced and an offer");
    assert!(ann_says("rtc", "out") >= 2.0, "at least the join's and the offer's answer");
    // Loopback: a jitter or a round trip of a second would be a unit mixed up.
    for name in ["rtcd_rtc_client_jitter", "rtcd_rtc_client_rtt"] {
        let (total, count) = (sum(&families, name, "_sum", &[]), sum(&families, name, "_count", &[]));
        assert!(total > 0.0 && total / count < 1.0, "{name}: {total} s in {count}");
    }
    assert!(sum(&families, "conclave_rtcd_pass_seconds", "_count", &[]) > 0.0);

    talking.abort();
    ann.leave().await.expect("leaves");
    drop(bob);
    soon("the departure's count", async {
        while node.metric_with("rtcd_ws_messages_total", &[("clientID", "rtc-client-ann"), ("type", "leave")]).await < 1.0 {}
    })
    .await;
    node.stop().await;
}

#[test]
fn each_name_that_is_left_out_has_its_reason_on_paper() {
    let document = include_str!("../../../docs/operate.md");
    for name in OMITTED {
        let row = document.lines().find(|line| line.contains(&format!("`{name}`"))).unwrap_or_else(|| panic!("{name} is not explained"));
        let reason = row.trim_matches('|').rsplit('|').next().unwrap_or_default().trim();
        assert!(reason.split_whitespace().count() >= 5, "{row}");
    }
    for kind in ["rtp", "signaling_lock_timeout"] {
        assert!(document.contains(&format!("type `{kind}`")), "{kind} is not explained");
    }
}
