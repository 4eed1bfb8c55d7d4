//! Media threads. Each owns a [`rtcd_core::Core`], its sockets and its timers; nothing is shared, nothing is locked.
//!
//! Commands come in through a bounded queue that wakes the thread; notes go out through bounded queues, one per desk. Packets leave
//! the thread once at most: to another shard's core when the kernel delivered them to the wrong one, or when their call lives on both.

mod arrivals;
mod capture;
mod command;
mod counters;
mod crossing;
mod gather;
mod load;
mod neighbours;
mod notes;
mod ration;
mod requests;
mod routes;
mod run;
mod shell;
mod start;
mod taps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rtcd_core::ids::CallId;
use tokio::sync::{mpsc, oneshot};

pub use capture::CaptureOrder;
pub(crate) use command::as_input;
pub use command::{Command, Note};
pub use counters::ShardCounters;
pub use start::{Listening, Shards, StartError, start};
pub(crate) use taps::{track_kind, track_source};

use crate::limits::COMMANDS_MAX;
use crate::metrics::Histogram;
use crate::net::poller::Waker;
use crate::net::tcp::TcpCounters;

/// Figures of one shard.
#[derive(Debug)]
pub struct ShardReport {
    /// Of the core.
    pub core: rtcd_core::report::Report,
    /// Of the shell.
    pub shell: ShardCounters,
    /// Of its TCP connections.
    pub tcp: TcpCounters,
    /// Open TCP connections.
    pub tcp_connections: usize,
    /// How long passes took: from a batch's arrival until everything that follows from it was with the kernel, s.
    pub(crate) passes: Histogram,
    /// The same, once for every datagram sent in a pass: an upper bound of what was added to each, s.
    pub(crate) forwarding: Histogram,
}

/// What a running shard shows without being asked.
#[derive(Debug)]
pub(crate) struct Pulse {
    born: Instant,
    beat_ms: AtomicU64,
    load_permille: AtomicU32,
    dead: AtomicBool,
}

impl Pulse {
    fn new() -> Self {
        Self { born: Instant::now(), beat_ms: AtomicU64::new(0), load_permille: AtomicU32::new(0), dead: AtomicBool::new(false) }
    }

    fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.born).as_millis();
        self.beat_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The async side's hold on one shard.
#[derive(Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    pulse: Arc<Pulse>,
}

/// The shard's thread has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the media thread has ended")]
pub struct ShardGone;

impl ShardHandle {
    /// Queues a command, waiting while the queue is full.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn send(&self, command: Command) -> Result<(), ShardGone> {
        self.commands.send(command).await.map_err(|_| ShardGone)?;
        self.waker.wake();
        Ok(())
    }

    /// Queues a command that may get lost, and takes at most half of the queue with such ones. False: it is lost.
    #[must_use]
    pub fn offer(&self, command: Command) -> bool {
        let offered = self.commands.capacity() > COMMANDS_MAX / 2 && self.commands.try_send(command).is_ok();
        if offered {
            self.waker.wake();
        }
        offered
    }

    /// Asks for figures, with or without diagnoses.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn report(&self, diagnose: bool) -> Result<ShardReport, ShardGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Report { diagnose, reply }).await?;
        answer.await.map_err(|_| ShardGone)
    }

    /// Without a thread: what it would be told comes out here.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { commands, waker: Waker::new().unwrap(), pulse: Arc::new(Pulse::new()) }, receiver)
    }

    /// Share of the last second the thread was busy, 0…1.
    #[must_use]
    pub fn load(&self) -> f64 {
        f64::from(self.pulse.load_permille.load(Ordering::Relaxed)) / 1000.0
    }

    /// Time since the thread last turned.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        let beat = Duration::from_millis(self.pulse.beat_ms.load(Ordering::Relaxed));
        self.pulse.born.elapsed().saturating_sub(beat)
    }

    /// The thread has ended by a panic: the process must end too, so that its supervisor starts a fresh one.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.pulse.dead.load(Ordering::Relaxed)
    }
}

/// The desk that a call's signalling is at; its media may be on any shard.
#[must_use]
pub fn shard_of_call(call: &CallId, shards: usize) -> usize {
    // FNV-1a: the choice must be the same in every process that computes it, and ids are random anyway.
    let hash =
        call.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from(hash % u64::try_from(shards.max(1)).unwrap_or(1)).unwrap_or_default()
}
