//! Counters, in Prometheus' text form.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::app::App;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers by class: index is the first digit of the status.
    pub responses: [Counter; 6],
    /// Wrong passwords and blocked tries.
    pub sign_ins_refused: Counter,
    /// LiveKit tokens that opened nothing.
    pub tokens_refused: Counter,
    /// Joins that the media node did not accept.
    pub joins_refused: Counter,
    /// LiveKit frames from browsers.
    pub relay_frames_in: Counter,
    /// LiveKit frames to browsers.
    pub relay_frames_out: Counter,
}

impl Metrics {
    /// The page for Prometheus.
    pub fn text(app: &App) -> String {
        let metrics = &app.metrics;
        let link = &app.link.counters;
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let _infallible =
                write!(text, "# HELP message_server_{name} {help}\n# TYPE message_server_{name} {kind}\nmessage_server_{name} {value}\n");
        };
        line("event_sockets", "gauge", "Open event sockets.", app.hub.len() as u64);
        line("livekit_sockets", "gauge", "Open LiveKit sockets.", app.relay.len() as u64);
        line("link_up", "gauge", "1 while the media node is connected.", u64::from(app.link.is_up()));
        line("link_unacknowledged_frames", "gauge", "Frames the media node has not confirmed.", app.link.unacknowledged() as u64);
        line("link_opened_total", "counter", "New links to the media node.", load(&link.opened));
        line("link_resumed_total", "counter", "Links taken up again after a break.", load(&link.resumed));
        line(
            "link_events_lost_total",
            "counter",
            "Events of the media node that did not fit; a comparison followed.",
            load(&link.events_lost),
        );
        line("livekit_slow_total", "counter", "LiveKit sockets closed because they read too slowly.", load(&link.slow_sessions));
        line("livekit_frames_in_total", "counter", "LiveKit frames from browsers.", metrics.relay_frames_in.value());
        line("livekit_frames_out_total", "counter", "LiveKit frames to browsers.", metrics.relay_frames_out.value());
        line("sign_ins_refused_total", "counter", "Sign-ins refused.", metrics.sign_ins_refused.value());
        line("tokens_refused_total", "counter", "LiveKit tokens refused.", metrics.tokens_refused.value());
        line("joins_refused_total", "counter", "Joins the media node refused.", metrics.joins_refused.value());
        let name = "message_server_http_responses_total";
        let _infallible = writeln!(text, "# HELP {name} Answers by class of status.\n# TYPE {name} counter");
        for (class, counter) in metrics.responses.iter().enumerate().skip(1) {
            let _infallible = writeln!(text, "{name}{{class=\"{class}xx\"}} {}", counter.value());
        }
        text
    }
}
