//! Runs two ends over a traced way, and sees what comes of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use link_model::{Fate, Link, Way};

use crate::traces::Trace;

/// A sender that follows its estimate, and its viewer.
pub trait Ends {
    /// When to be woken.
    fn next(&mut self) -> Duration;
    /// Time passed.
    fn wake(&mut self, now: Duration);
    /// The next datagram that leaves; true: to the viewer.
    fn take(&mut self, now: Duration) -> Option<(bool, Vec<u8>)>;
    /// A datagram reached one of them; true: the viewer.
    fn hear(&mut self, now: Duration, viewer: bool, bytes: &[u8]);
    /// Bytes of media, not padding, that reached the viewer.
    fn media_bytes(&self) -> u64;
}

/// What one run came to.
#[derive(Default)]
pub struct Seen {
    /// Media that arrived in each tenth of a second, bytes.
    pub tenths: Vec<u64>,
    /// How long datagrams queued, ms, in the order of sending, with when.
    pub queued: Vec<(Duration, f64)>,
    pub sent: u64,
    pub lost: u64,
}

const TENTH: Duration = Duration::from_millis(100);

struct Flying {
    at: Duration,
    order: u64,
    to: To,
}

enum To {
    Viewer(Vec<u8>),
    Sender(Vec<u8>),
    /// A packet of the download was acknowledged; false: missed.
    Download(bool),
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A download as TCP Reno does it: one more packet a round trip, half as many after a loss.
struct Download {
    window: f64,
    flying: u32,
    halved: Duration,
}

const DOWNLOAD_PACKET: usize = 1400;

struct Run<'a> {
    trace: &'a Trace,
    down: Link,
    up: Link,
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
    download: Download,
    seen: Seen,
}

pub fn run(trace: &Trace, ends: &mut dyn Ends) -> Seen {
    let (way, mut changes) = trace.way_at(Duration::ZERO);
    let mut run = Run {
        trace,
        down: Link::new(way, 7),
        // What is told is little; it only takes its time.
        up: Link::new(Way { delay_ms: way.delay_ms, ..Way::default() }, 8),
        flying: BinaryHeap::new(),
        order: 0,
        download: Download { window: 4.0, flying: 0, halved: Duration::ZERO },
        seen: Seen::default(),
    };
    let (mut now, mut tenth, mut counted) = (Duration::ZERO, TENTH, 0);
    while now < trace.lasts {
        let arrival = run.flying.peek().map(|flying| flying.0.at);
        let download = trace.download.map(|(from, _)| from).filter(|from| *from > now);
        now = [Some(ends.next()), arrival, changes, download, Some(tenth)].into_iter().flatten().min().unwrap().max(now);
        if now >= tenth {
            run.seen.tenths.push(ends.media_bytes() - counted);
            counted = ends.media_bytes();
            tenth += TENTH;
        }
        if changes.is_some_and(|at| at <= now) {
            let (way, next) = trace.way_at(now);
            run.down.change(way);
            changes = next;
        }
        while run.flying.peek().is_some_and(|flying| flying.0.at <= now) {
            let Some(Reverse(flying)) = run.flying.pop() else { break };
            match flying.to {
                To::Viewer(bytes) => ends.hear(now, true, &bytes),
                To::Sender(bytes) => ends.hear(now, false, &bytes),
                To::Download(acknowledged) => run.download_heard(now, acknowledged),
            }
            run.send(now, ends);
        }
        if ends.next() <= now {
            ends.wake(now);
        }
        run.send(now, ends);
        run.download(now);
    }
    run.seen
}

impl Run<'_> {
    fn fly(&mut self, at: Duration, to: To) {
        self.order += 1;
        self.flying.push(Reverse(Flying { at, order: self.order, to }));
    }

    fn send(&mut self, now: Duration, ends: &mut dyn Ends) {
        let delay = Duration::from_millis(self.trace.way_at(now).0.delay_ms);
        while let Some((to_viewer, bytes)) = ends.take(now) {
            if !to_viewer {
                if let Fate::Arrives(at) = self.up.pass(now, bytes.len()) {
                    self.fly(at, To::Sender(bytes));
                }
                continue;
            }
            self.seen.sent += 1;
            match self.down.pass(now, bytes.len()) {
                Fate::Arrives(at) => {
                    self.seen.queued.push((now, (at - now).saturating_sub(delay).as_secs_f64() * 1000.0));
                    self.fly(at, To::Viewer(bytes));
                }
                Fate::Lost | Fate::Dropped => self.seen.lost += 1,
            }
        }
    }

    fn download(&mut self, now: Duration) {
        if self.trace.download.is_none_or(|(from, until)| !(from..until).contains(&now)) {
            return;
        }
        let back = Duration::from_millis(self.trace.way_at(now).0.delay_ms);
        while f64::from(self.download.flying) < self.download.window {
            self.download.flying += 1;
            match self.down.pass(now, DOWNLOAD_PACKET) {
                Fate::Arrives(at) => self.fly(at + back, To::Download(true)),
                // Noticed by what comes after it.
                Fate::Lost | Fate::Dropped => self.fly(now + back * 2 + Duration::from_millis(300), To::Download(false)),
            }
        }
    }

    fn download_heard(&mut self, now: Duration, acknowledged: bool) {
        let download = &mut self.download;
        download.flying -= 1;
        if acknowledged {
            download.window += 1.0 / download.window;
        } else if now - download.halved > Duration::from_millis(400) {
            download.window = (download.window / 2.0).max(2.0);
            download.halved = now;
        }
    }
}
