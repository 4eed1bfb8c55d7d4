//! What Prometheus reads. Names and labels of Mattermost's rtcd where it has the same figure, ours as `conclave_rtcd_…`.
//!
//! Shards and core count in plain integers; this asks them at scrape time. Only rare events are counted here as they happen.

mod session;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use conclave_proto::v1;
use conclave_proto::v1::call_event;
use rtcd_core::ids::{CallId, PeerId};
use rtcd_core::output::{EndReason, Event, Signal, Step};
use rustc_hash::FxHashMap;

pub use session::{Measure, SessionError};
pub use text::CONTENT_TYPE;
use text::Text;

use crate::admit::split_call_id;
use crate::node::Node;
use crate::signal::mattermost::reception::tenant_label;
use crate::signal::probe::is_probe;
use crate::signal::seam::Fault;

/// Buckets of round trips and write times, seconds (rtcd's).
const BUCKETS_A: &[f64] = &[0.001, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0];
/// Buckets of loss rates (rtcd's).
const BUCKETS_B: &[f64] = &[0.001, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0];
/// Prometheus' default buckets, seconds.
const BUCKETS_DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Delay of captions, ms.
const BUCKETS_CAPTION: &[f64] = &[250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0, 10_000.0];
/// Passes of a media thread, s.
pub(crate) const BUCKETS_PASS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1];
/// What a media thread adds to a datagram, s.
pub(crate) const BUCKETS_FORWARDING: &[f64] =
    &[0.000_025, 0.000_05, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];
/// Label of the tenants beyond [`TENANT_SERIES_MAX`] together. No tenant may be called so.
const OTHER_TENANTS: &str = "(others)";
/// Peers waiting for their connection; joins that never connect are forgotten when it is full.
const CONNECTING_MAX: usize = 8192;

/// Counted as it happens.
#[derive(Default)]
pub struct Metrics {
    inner: Mutex<Inner>,
    /// Open taps.
    pub taps_open: AtomicU64,
    /// Taps opened since the start; numbers them.
    pub taps_opened: AtomicU64,
    /// Taps refused.
    pub taps_refused: AtomicU64,
    /// Pending caption lines dropped because a worker sent too many.
    pub captions_rationed: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Those that have series of their own.
    tenants: BTreeSet<String>,
    joins: u64,
    joins_refused: BTreeMap<&'static str, u64>,
    conn_states: BTreeMap<&'static str, u64>,
    errors: BTreeMap<(String, &'static str), u64>,
    /// Peers negotiated and not connected yet, since when.
    connecting: FxHashMap<PeerId, Instant>,
    connection_time: BTreeMap<String, Histogram>,
    /// Peers negotiated and without an open data channel yet, since their first description was answered.
    opening: FxHashMap<PeerId, Instant>,
    dc_open_time: BTreeMap<String, Histogram>,
    lock_grab_time: BTreeMap<String, Histogram>,
    lock_locked_time: BTreeMap<String, Histogram>,
    rtt: BTreeMap<String, Histogram>,
    loss: BTreeMap<String, Histogram>,
    jitter: BTreeMap<String, Histogram>,
    caption_delay: Option<Histogram>,
    captions: u64,
}

/// A histogram with fixed bounds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        self.observe_many(value, 1);
    }

    /// As so many observations of one value.
    pub(crate) fn observe_many(&mut self, value: f64, times: u64) {
        if times == 0 {
            return;
        }
        self.count += times;
        self.sum += value * times as f64;
        if let Some(count) = self.bounds.iter().position(|bound| value <= *bound).and_then(|at| self.counts.get_mut(at)) {
            *count += times;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds another one with the same bounds.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self.count += other.count;
    }

    /// What came since an earlier state of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, less) in since.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*less);
        }
        since.sum -= earlier.sum;
        since.count = since.count.saturating_sub(earlier.count);
        since
    }

    /// The bound below which this share of the observations lies; `None`: none were made. Beyond the last bound: twice that one.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count > 0).then(|| (share * self.count as f64).ceil())?;
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count;
            if total as f64 >= wanted {
                return Some(*bound);
            }
        }
        self.bounds.last().map(|last| last * 2.0)
    }
}

impl Inner {
    /// The label of a call's tenant.
    fn tenant_of(&mut self, call: &CallId) -> String {
        self.tenant(tenant_label(split_call_id(call).0))
    }
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A join was admitted.
    pub fn join_started(&self, _call: &CallId) {
        self.lock().joins += 1;
    }

    /// A join was refused.
    pub fn join_refused(&self, reason: v1::ErrorReason) {
        *self.lock().joins_refused.entry(reason.as_str_name()).or_default() += 1;
    }

    /// The core says something for a peer's signalling.
    pub fn observe_signal(&self, peer: &PeerId, signal: &Signal) {
        match signal {
            Signal::Ended { reason } => {
                let mut inner = self.lock();
                inner.connecting.remove(peer);
                inner.opening.remove(peer);
                let state = match reason {
                    EndReason::MediaLost => "failed",
                    EndReason::Left | EndReason::CallEnded | EndReason::Protocol | EndReason::Internal => "closed",
                };
                *inner.conn_states.entry(state).or_default() += 1;
            }
            Signal::Answer { .. }
            | Signal::Offer { .. }
            | Signal::Refused { .. }
            | Signal::NeedSections { .. }
            | Signal::Sending(_)
            | Signal::OffersHeld { .. }
            | Signal::Delivered
            | Signal::WantedLayers { .. }
            | Signal::StreamState { .. }
            | Signal::Subscribed { .. }
            | Signal::Undecodable { .. } => {}
        }
    }

    /// The core says something about a call.
    pub fn observe_core_event(&self, call: &CallId, event: &Event, now: Instant) {
        let (peer, step) = match event {
            Event::Step { peer, step, .. } => (peer, step),
            Event::DataOpen { peer, .. } => {
                let mut inner = self.lock();
                // Its first channel; the others follow within the same round trip.
                if let Some(since) = inner.opening.remove(peer) {
                    let tenant = inner.tenant_of(call);
                    let histogram = inner.dc_open_time.entry(tenant).or_insert_with(|| Histogram::new(BUCKETS_DEFAULT));
                    histogram.observe(now.saturating_duration_since(since).as_secs_f64());
                }
                return;
            }
            Event::TrackLive { .. }
            | Event::TrackEnded { .. }
            | Event::TrackMuted { .. }
            | Event::Speakers(_)
            | Event::AudioLevels { .. }
            | Event::Quality(_)
            | Event::Departed { .. }
            | Event::Ended => return,
        };
        let mut inner = self.lock();
        match step {
            Step::Joined | Step::Negotiated => {
                if inner.connecting.len() >= CONNECTING_MAX {
                    inner.connecting.clear();
                    inner.opening.clear();
                }
                inner.connecting.entry(peer.clone()).or_insert(now);
                if *step == Step::Negotiated {
                    inner.opening.entry(peer.clone()).or_insert(now);
                }
            }
            Step::DtlsDone => {
                *inner.conn_states.entry("connected").or_default() += 1;
                if let Some(since) = inner.connecting.remove(peer) {
                    let tenant = inner.tenant_of(call);
                    let histogram = inner.connection_time.entry(tenant).or_insert_with(|| Histogram::new(BUCKETS_DEFAULT));
                    histogram.observe(now.saturating_duration_since(since).as_secs_f64());
                }
            }
            Step::Lost => {
                *inner.conn_states.entry("disconnected").or_default() += 1;
                let tenant = inner.tenant_of(call);
                *inner.errors.entry((tenant, "ice")).or_default() += 1;
            }
            Step::IceChecked | Step::RtpIn | Step::RtpOut => {}
        }
    }

    /// Something of a client's was refused or could not be understood.
    pub fn observe_fault(&self, call: &CallId, fault: Fault) {
        let kind = match fault {
            Fault::Signaling => "signaling",
            Fault::Track => "track",
        };
        let mut inner = self.lock();
        let tenant = inner.tenant_of(call);
        *inner.errors.entry((tenant, kind)).or_default() += 1;
    }

    /// An event goes to the message servers.
    pub fn observe_event(&self, event: &v1::CallEvent) {
        if let Some(call_event::Event::Caption(_)) = &event.event {
            self.lock().captions += 1;
        }
    }

    /// A worker sent a caption.
    pub fn observe_caption(&self, caption: &v1::Caption) {
        if caption.r#final && caption.delay_ms > 0 {
            self.lock().caption_delay.get_or_insert_with(|| Histogram::new(BUCKETS_CAPTION)).observe(f64::from(caption.delay_ms));
        }
    }

    /// Regular sample of what clients report, from all shards' reports of one moment.
    pub fn sample(&self, report: &rtcd_core::report::Report) {
        let mut inner = self.lock();
        for call in &report.calls {
            let tenant = inner.tenant_of(&call.call);
            for peer in &call.peers {
                if let Some(rtt) = peer.rtt {
                    let histogram = inner.rtt.entry(tenant.clone()).or_insert_with(|| Histogram::new(BUCKETS_A));
                    histogram.observe(rtt.as_secs_f64());
                }
                if let Some(jitter) = peer.jitter_out {
                    let histogram = inner.jitter.entry(tenant.clone()).or_insert_with(|| Histogram::new(BUCKETS_A));
                    histogram.observe(jitter.as_secs_f64());
                }
                if peer.bitrate_out_bps > 0 {
                    let histogram = inner.loss.entry(tenant.clone()).or_insert_with(|| Histogram::new(BUCKETS_B));
                    histogram.observe(f64::from(peer.loss_out));
                }
            }
        }
    }
}

/// The whole page.
pub async fn render(node: &Node) -> String {
    let mut text = Text::default();
    let mut sessions: BTreeMap<String, f64> = BTreeMap::new();
    let mut tracks: BTreeMap<(String, &str, String), f64> = BTreeMap::new();
    let mut core: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut shells = Vec::new();
    for shard in 0..node.desks.len() {
        let Some(Ok(report)) = node.shard_report(shard).await else { continue };
        for call in report.core.calls.iter().filter(|call| !is_probe(&call.call)) {
            let tenant = node.metrics.lock().tenant_of(&call.call);
            *sessions.entry(tenant.clone()).or_default() += call.peers.len() as f64;
            for relayed in &call.relayed {
                *tracks.entry((tenant.clone(), "out", relayed.mime.clone())).or_default() += f64::from(relayed.subscribers);
            }
            for track in call.peers.iter().flat_map(|peer| &peer.tracks) {
                let mime = if track.mime.is_empty() { "unknown".to_owned() } else { track.mime.clone() };
                *tracks.entry((tenant.clone(), "in", mime.clone())).or_default() += 1.0;
                *tracks.entry((tenant.clone(), "out", mime)).or_default() += f64::from(track.subscribers);
            }
        }
        for (name, value) in &report.core.counters {
            *core.entry(name).or_default() += value;
        }
        shells.push((shard.to_string(), report));
    }

    text.head("rtcd_rtc_sessions_total", "gauge", "Participants connected or connecting, by tenant.");
    for (tenant, value) in &sessions {
        text.sample("rtcd_rtc_sessions_total", &[("groupID", tenant)], *value);
    }
    text.head("rtcd_rtc_rtp_tracks_total", "gauge", "Tracks published (in) and forwarded (out).");
    for ((tenant, direction, mime), value) in &tracks {
        text.sample("rtcd_rtc_rtp_tracks_total", &[("groupID", tenant), ("direction", direction), ("type", mime)], *value);
    }
    events(&mut text, &node.metrics);
    text.head("conclave_rtcd_core_total", "counter", "Counters of the media core, by name.");
    for (name, value) in &core {
        text.sample("conclave_rtcd_core_total", &[("name", name)], *value as f64);
    }
    shards(&mut text, node, &shells);
    links(&mut text, node);
    livekit(&mut text, node);
    text.head("conclave_rtcd_draining", "gauge", "1 while the node empties itself.");
    let left = node.drain_left();
    text.sample("conclave_rtcd_draining", &[], f64::from(u8::from(left.is_some())));
    if let Some(left) = left {
        text.head("conclave_rtcd_drain_left_seconds", "gauge", "Time until the drain ends the calls that are left.");
        text.sample("conclave_rtcd_drain_left_seconds", &[], left.as_secs_f64());
    }
    text.head("conclave_rtcd_calls", "gauge", "Calls.");
    text.sample("conclave_rtcd_calls", &[], node.directory.calls() as f64);
    process(&mut text);
    text.into_string()
}

fn events(text: &mut Text, metrics: &Metrics) {
    let inner = metrics.lock();
    text.head("rtcd_rtc_conn_states_total", "counter", "Connection state changes.");
    for (state, value) in &inner.conn_states {
        text.sample("rtcd_rtc_conn_states_total", &[("type", state)], *value as f64);
    }
    text.head("rtcd_rtc_errors_total", "counter", "Errors.");
    for ((tenant, kind), value) in &inner.errors {
        text.sample("rtcd_rtc_errors_total", &[("groupID", tenant), ("type", kind)], *value as f64);
    }
    text.histograms("rtcd_rtc_connection_time", "From the first description to secured media, s.", &inner.connection_time);
    text.histograms("rtcd_rtc_dc_open_time", "From the first answered description to an open data channel, s.", &inner.dc_open_time);
    text.histograms("rtcd_rtc_client_jitter", "Jitter of sound as clients report it, s.", &inner.jitter);
    text.histograms("rtcd_rtc_client_rtt", "Round trip as measured, s.", &inner.rtt);
    text.histograms("rtcd_rtc_client_loss_rate", "Loss on the way to clients as they report it.", &inner.loss);
    session::families(text, &inner);
    text.head("conclave_rtcd_joins_total", "counter", "Joins admitted.");
    text.sample("conclave_rtcd_joins_total", &[], inner.joins as f64);
    text.head("conclave_rtcd_joins_refused_total", "counter", "Joins refused, by reason.");
    for (reason, value) in &inner.joins_refused {
        text.sample("conclave_rtcd_joins_refused_total", &[("reason", reason)], *value as f64);
    }
    text.head("conclave_rtcd_captions_total", "counter", "Caption lines delivered.");
    text.sample("conclave_rtcd_captions_total", &[], inner.captions as f64);
    if let Some(delay) = &inner.caption_delay {
        text.histograms(
            "conclave_rtcd_caption_delay_ms",
            "From a word's sound to its final caption, ms.",
            &BTreeMap::from([(String::new(), delay.clone())]),
        );
    }
    drop(inner);
    text.head("conclave_rtcd_taps", "gauge", "Open media taps.");
    text.sample("conclave_rtcd_taps", &[], metrics.taps_open.load(Ordering::Relaxed) as f64);
    text.head("conclave_rtcd_taps_refused_total", "counter", "Taps refused.");
    text.sample("conclave_rtcd_taps_refused_total", &[], metrics.taps_refused.load(Ordering::Relaxed) as f64);
}

fn shards(text: &mut Text, node: &Node, shells: &[(String, crate::shard::ShardReport)]) {
    text.head("conclave_rtcd_shard_total", "counter", "Counters of the media threads' sockets and queues.");
    for (shard, report) in shells {
        for (name, value) in report.shell.named() {
            text.sample("conclave_rtcd_shard_total", &[("shard", shard), ("name", name)], value as f64);
        }
    }
    text.head("conclave_rtcd_tcp_total", "counter", "Counters of media over TCP.");
    for (shard, report) in shells {
        for (name, value) in report.tcp.named() {
            text.sample("conclave_rtcd_tcp_total", &[("shard", shard), ("name", name)], value as f64);
        }
    }
    text.head("conclave_rtcd_tcp_connections", "gauge", "Open media connections over TCP.");
    for (shard, report) in shells {
        text.sample("conclave_rtcd_tcp_connections", &[("shard", shard)], report.tcp_connections as f64);
    }
    text.head("conclave_rtcd_shard_load", "gauge", "Busy share of the last second.");
    for (shard, _) in shells {
        let load = shard.parse().map_or(0.0, |number| node.load_of(number));
        text.sample("conclave_rtcd_shard_load", &[("shard", shard)], load);
    }
    let name = "conclave_rtcd_pass_seconds";
    text.head(name, "histogram", "From the arrival of a batch until all that follows from it was given to the kernel.");
    for (shard, report) in shells {
        text.histogram(name, &[("shard", shard)], &report.passes);
    }
    let name = "conclave_rtcd_forward_seconds";
    text.head(name, "histogram", "The same for every datagram sent: an upper bound of what this node added to it.");
    for (shard, report) in shells {
        text.histogram(name, &[("shard", shard)], &report.forwarding);
    }
    text.head("conclave_rtcd_shard_lateness_seconds", "gauge", "Largest lateness of a timer since the last scrape.");
    for (shard, report) in shells {
        text.sample("conclave_rtcd_shard_lateness_seconds", &[("shard", shard)], report.shell.lateness_us_max as f64 / 1e6);
    }
}

fn links(text: &mut Text, node: &Node) {
    let links = node.links.all();
    let connections = links.iter().filter(|link| link.detached_at().is_none()).count();
    text.head("rtcd_ws_connections_total", "gauge", "Signalling connections of message servers.");
    // One message server has a link per tenant; one Mattermost installation has a connection per node.
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for link in links.iter().filter(|link| link.detached_at().is_none()) {
        *by_name.entry(link.node_id.clone()).or_default() += 1;
    }
    let foreign = node.mattermost.as_ref().map(|mattermost| &mattermost.connections);
    for (client, count) in foreign.into_iter().flat_map(|connections| connections.by_client()) {
        *by_name.entry(client).or_default() += count;
    }
    for (name, count) in by_name {
        text.sample("rtcd_ws_connections_total", &[("clientID", &name)], count as f64);
    }
    let mut messages: BTreeMap<(String, &str, &str), u64> = BTreeMap::new();
    for (name, traffic) in node.links.traffic.all() {
        for (kind, direction, count) in traffic.named() {
            *messages.entry((name.clone(), kind, direction)).or_default() += count;
        }
    }
    for (labels, count) in foreign.into_iter().flat_map(|connections| connections.figures.messages()) {
        *messages.entry(labels).or_default() += count;
    }
    text.head("rtcd_ws_messages_total", "counter", "Signalling messages of message servers, by kind and direction.");
    for ((name, kind, direction), count) in messages {
        text.sample("rtcd_ws_messages_total", &[("clientID", &name), ("type", kind), ("direction", direction)], count as f64);
    }
    if let Some(connections) = foreign {
        text.head("conclave_rtcd_ws_dropped_total", "counter", "Messages for Mattermost's nodes that could go nowhere.");
        text.sample("conclave_rtcd_ws_dropped_total", &[], connections.figures.frames_dropped() as f64);
    }
    text.head("conclave_rtcd_links", "gauge", "Links to message servers that have a stream.");
    text.sample("conclave_rtcd_links", &[], connections as f64);
    text.head("conclave_rtcd_links_broken", "gauge", "Links within their grace.");
    text.sample("conclave_rtcd_links_broken", &[], (links.len() - connections) as f64);
    text.head("conclave_rtcd_link_sessions", "gauge", "Signalling sessions.");
    text.sample("conclave_rtcd_link_sessions", &[], links.iter().map(|link| link.sessions()).sum::<usize>() as f64);
    text.head("conclave_rtcd_link_total", "counter", "What happened to links.");
    let counters = &node.links.counters;
    for (name, value) in [
        ("opened", &counters.opened),
        ("resumed", &counters.resumed),
        ("refused", &counters.refused),
        ("ended", &counters.ended),
        ("sessions_overflowed", &counters.overflowed),
        ("sessions_rationed", &counters.rationed),
        ("frames_in", &counters.frames_in),
        ("frames_out", &counters.frames_out),
        ("bad", &counters.bad),
    ] {
        text.sample("conclave_rtcd_link_total", &[("name", name)], value.load(Ordering::Relaxed) as f64);
    }
}

/// LiveKit's contract on this node itself.
fn livekit(text: &mut Text, node: &Node) {
    if node.livekit.keys.is_empty() {
        return;
    }
    let sockets = &node.links.sockets;
    text.head("conclave_rtcd_livekit_sockets", "gauge", "Signalling connections of LiveKit's clients to this node itself.");
    text.sample("conclave_rtcd_livekit_sockets", &[], sockets.len() as f64);
    text.head("conclave_rtcd_livekit_socket_total", "counter", "What happened to them.");
    for (name, value) in sockets.counters.named() {
        text.sample("conclave_rtcd_livekit_socket_total", &[("name", name)], value as f64);
    }
    let (workers, jobs, agents) = node.agents.figures();
    text.head("conclave_rtcd_agent_workers", "gauge", "Workers of LiveKit's agents that are registered.");
    text.sample("conclave_rtcd_agent_workers", &[], workers as f64);
    text.head("conclave_rtcd_agent_jobs", "gauge", "Jobs that are offered to them or that they run.");
    text.sample("conclave_rtcd_agent_jobs", &[], jobs as f64);
    text.head("conclave_rtcd_agent_total", "counter", "Workers registered, what they answered to offers, and how jobs ended.");
    for (name, value) in agents.named() {
        text.sample("conclave_rtcd_agent_total", &[("name", name)], value as f64);
    }
    let Some(webhooks) = &node.webhooks else { return };
    // Two URLs may differ in what is not shown of them.
    let mut totals: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for receiver in webhooks.receivers() {
        for (name, value) in receiver.counters.named() {
            *totals.entry((&receiver.name, name)).or_default() += value;
        }
        *waiting.entry(&receiver.name).or_default() += receiver.waiting();
    }
    text.head(
        "conclave_rtcd_webhook_total",
        "counter",
        "Webhook events delivered, refused by the receiver and dropped; requests that failed.",
    );
    for ((url, name), value) in totals {
        text.sample("conclave_rtcd_webhook_total", &[("url", url), ("name", name)], value as f64);
    }
    text.head("conclave_rtcd_webhooks_waiting", "gauge", "Webhook events that wait behind the one being told.");
    for (url, count) in waiting {
        text.sample("conclave_rtcd_webhooks_waiting", &[("url", url)], count as f64);
    }
}

/// The process itself, from /proc.
fn process(text: &mut Text) {
    let Some(process) = text::Process::read() else { return };
    for (name, kind, help, value) in [
        ("rtcd_process_cpu_seconds_total", "counter", "CPU time used, user and system.", process.cpu_seconds),
        ("rtcd_process_open_fds", "gauge", "Open file descriptors.", process.open_fds),
        ("rtcd_process_max_fds", "gauge", "File descriptors allowed.", process.max_fds),
        ("rtcd_process_resident_memory_bytes", "gauge", "Resident memory.", process.resident_bytes),
        ("rtcd_process_virtual_memory_bytes", "gauge", "Virtual memory.", process.virtual_bytes),
        ("rtcd_process_virtual_memory_max_bytes", "gauge", "Virtual memory allowed.", process.virtual_max_bytes),
        ("rtcd_process_start_time_seconds", "gauge", "Start of the process, Unix.", process.start_seconds),
    ] {
        text.head(name, kind, help);
        text.sample(name, &[], value);
    }
}

/// Resident memory of this process, bytes; 0 when it cannot be told.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a memory size fits")]
pub fn resident_bytes() -> u64 {
    text::Process::read().map_or(0, |process| process.resident_bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TENANT_SERIES_MAX;
    use rtcd_core::ids::Channel;

    #[test]
    fn quantiles_are_of_what_came_since() {
        let mut histogram = Histogram::new(BUCKETS_FORWARDING);
        assert_eq!(histogram.quantile(0.5), None);
        histogram.observe_many(0.15, 1000);
        let before = histogram.clone();
        histogram.observe_many(0.000_09, 98);
        histogram.observe_many(0.004, 2);
        histogram.observe_many(9.0, 0);
        let recent = histogram.since(&before);
        assert_eq!((recent.count(), recent.quantile(0.5), recent.quantile(0.99)), (100, Some(0.0001), Some(0.005)));
        histogram.observe_many(9.0, 10_000);
        assert_eq!(histogram.quantile(0.99), Some(0.4));
    }

    #[test]
    fn connection_states_and_times_follow_the_steps() {
        let metrics = Metrics::default();
        let call = CallId::new("acme/x").expect("a name");
        let peer = PeerId::new("PA_1").expect("a name");
        let start = Instant::now();
        let step = |step| Event::Step { peer: peer.clone(), side: rtcd_core::ids::Side::Publish, step, detail: String::new() };
        metrics.observe_core_event(&call, &step(Step::Negotiated), start);
        metrics.observe_core_event(&call, &step(Step::DtlsDone), start + std::time::Duration::from_millis(200));
        for (channel, ms) in [(Channel::Reliable, 700), (Channel::Lossy, 5000)] {
            let open = Event::DataOpen { peer: peer.clone(), channel };
            metrics.observe_core_event(&call, &open, start + std::time::Duration::from_millis(ms));
        }
        metrics.observe_core_event(&call, &step(Step::Lost), start + std::time::Duration::from_secs(60));
        metrics.observe_signal(&peer, &Signal::Ended { reason: EndReason::MediaLost });
        let mut text = Text::default();
        events(&mut text, &metrics);
        let page = text.into_string();
        for line in [
            "rtcd_rtc_conn_states_total{type=\"connected\"} 1",
            "rtcd_rtc_conn_states_total{type=\"disconnected\"} 1",
            "rtcd_rtc_conn_states_total{type=\"failed\"} 1",
            "rtcd_rtc_errors_total{groupID=\"acme\",type=\"ice\"} 1",
            "rtcd_rtc_connection_time_bucket{groupID=\"acme\",le=\"0.1\"} 0",
            "rtcd_rtc_connection_time_bucket{groupID=\"acme\",le=\"0.25\"} 1",
            "rtcd_rtc_connection_time_bucket{groupID=\"acme\",le=\"+Inf\"} 1",
            "rtcd_rtc_connection_time_count{groupID=\"acme\"} 1",
            "rtcd_rtc_dc_open_time_bucket{groupID=\"acme\",le=\"0.5\"} 0",
            "rtcd_rtc_dc_open_time_bucket{groupID=\"acme\",le=\"1\"} 1",
            "rtcd_rtc_dc_open_time_count{groupID=\"acme\"} 1",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }

    /// Attack class G-05: a message server with the shared token may name any tenant.
    #[test]
    fn a_hundred_thousand_tenants_make_a_bounded_page() {
        let metrics = Metrics::default();
        for n in 0..100_000 {
            let call = CallId::new(&format!("tenant-{n}/call")).expect("a name");
            metrics.observe_fault(&call, Fault::Signaling);
        }
        let mut text = Text::default();
        events(&mut text, &metrics);
        let page = text.into_string();
        let series = page.lines().filter(|line| line.starts_with("rtcd_rtc_errors_total{")).count();
        assert_eq!(series, TENANT_SERIES_MAX + 1);
        let others = format!("rtcd_rtc_errors_total{{groupID=\"{OTHER_TENANTS}\",type=\"signaling\"}} {}", 100_000 - TENANT_SERIES_MAX);
        assert!(page.lines().any(|line| line == others), "nothing is lost, only the names are");
    }
}
