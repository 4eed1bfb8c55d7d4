//! LiveKit's agents: programs of the site's own that join rooms as participants, to hear, speak, or write down.
//!
//! Their workers connect to `/agent` ([`socket`]) and are given jobs by the [`dispatcher`], which hears of rooms from the adapters
//! ([`News`]) and of what servers want from `AgentDispatchService` ([`service`]). An agent itself joins with a [`token`] like anybody
//! else. The dispatcher is one of this node, as its rooms are: workers connect to each node that they serve.

mod check;
pub mod dispatcher;
mod job;
mod news;
pub mod service;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod token;
pub mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use livekit_protocol as lk;
use prost::Message as _;
use rtcd_core::ids::CallId;
use tokio::sync::{Notify, mpsc};

pub(crate) use self::check::check_wanted;
use self::dispatcher::{AgentCounters, Assigned, Dispatcher, Output, Removal};
pub use self::news::News;
use self::worker::WorkerNumber;
use crate::limits::{AGENT_QUEUE_BYTES_MAX, AGENT_QUEUE_MAX, AGENT_WORKERS_MAX};
use crate::node::Node;
use crate::signal::desk::moment;
use crate::signal::seam::{RoomFault, RoomRequest};

/// How often the dispatcher is told the time.
const TICK: Duration = Duration::from_millis(500);

/// The dispatcher, and the connections of its workers.
pub struct Agents {
    inner: Mutex<Inner>,
    next: AtomicU64,
    /// There is somebody to be put out.
    due: Notify,
}

struct Inner {
    dispatcher: Dispatcher,
    /// All connections, registered or not.
    connections: HashMap<WorkerNumber, Connection>,
    /// Agents to be put out.
    removals: Vec<Removal>,
}

struct Connection {
    queue: mpsc::Sender<ToWorker>,
    /// Bytes in it.
    waiting: Arc<AtomicUsize>,
}

/// One message for a worker's task.
#[derive(Debug)]
pub enum ToWorker {
    /// As it is.
    Message(Box<lk::ServerMessage>),
    /// With a token to be signed.
    Assigned(Box<Assigned>),
    /// The worker is to go.
    Dismissed,
}

impl ToWorker {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.encoded_len(),
            Self::Assigned(assigned) => assigned.job.encoded_len() + assigned.agent.metadata.len(),
            Self::Dismissed => 0,
        }
    }
}

/// A connection's place; given back when dropped.
pub struct Place {
    agents: Arc<Agents>,
    number: WorkerNumber,
    queue: mpsc::Receiver<ToWorker>,
    waiting: Arc<AtomicUsize>,
}

impl Place {
    /// The next message. `None`: too much waited, the connection is over.
    async fn next(&mut self) -> Option<ToWorker> {
        let message = self.queue.recv().await?;
        self.waiting.fetch_sub(message.bytes(), Ordering::Relaxed);
        Some(message)
    }

    fn turn<T>(&self, does: impl FnOnce(&mut Dispatcher) -> T) -> T {
        self.agents.turn(does)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.agents.lock().connections.remove(&self.number);
        self.turn(|dispatcher| dispatcher.handle_gone(moment(), self.number));
    }
}

impl Default for Agents {
    fn default() -> Self {
        let chance = Box::new(|| uuid::Uuid::new_v4().as_u128());
        let inner = Inner { dispatcher: Dispatcher::new(chance), connections: HashMap::new(), removals: Vec::new() };
        Self { inner: Mutex::new(inner), next: AtomicU64::new(1), due: Notify::new() }
    }
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can leave it half done, so a poisoned one is as good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something for the dispatcher, and what follows from it.
    fn turn<T>(&self, does: impl FnOnce(&mut Dispatcher) -> T) -> T {
        let mut inner = self.lock();
        let done = does(&mut inner.dispatcher);
        // What a worker does not read is asked of another one, from which more may follow.
        while let Some(output) = inner.dispatcher.poll() {
            let (number, message) = match output {
                Output::Tell(number, message) => (number, ToWorker::Message(Box::new(lk::ServerMessage { message: Some(*message) }))),
                Output::Assign(number, assigned) => (number, ToWorker::Assigned(assigned)),
                Output::Dismiss(number) => (number, ToWorker::Dismissed),
                Output::Remove(removal) => {
                    inner.removals.push(*removal);
                    self.due.notify_one();
                    continue;
                }
            };
            let Some(connection) = inner.connections.get(&number) else { continue };
            let bytes = message.bytes();
            let fits = connection.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= AGENT_QUEUE_BYTES_MAX;
            if !fits || connection.queue.try_send(message).is_err() {
                tracing::warn!("a worker of agents does not read: its connection is ended");
                inner.connections.remove(&number);
                inner.dispatcher.handle_gone(moment(), number);
            }
        }
        done
    }

    /// A place for one more connection. `None`: there are too many.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(AGENT_QUEUE_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut inner = self.lock();
        if inner.connections.len() >= AGENT_WORKERS_MAX {
            return None;
        }
        inner.connections.insert(number, Connection { queue: sender, waiting: Arc::clone(&waiting) });
        Some(Place { agents: Arc::clone(self), number, queue, waiting })
    }

    /// Told what happened in a room. Never waits.
    pub fn tell(&self, news: News) {
        self.turn(|dispatcher| dispatcher.handle_news(moment(), news));
    }

    /// The dispatches of a room; of this id, or all.
    ///
    /// # Errors
    /// There is no such room.
    pub fn list(&self, call: &CallId, id: &str) -> Result<Vec<lk::AgentDispatch>, RoomFault> {
        self.lock().dispatcher.list(call, id)
    }

    /// For metrics: registered workers, jobs that are offered or run, and what became of them.
    #[must_use]
    pub fn figures(&self) -> (usize, usize, AgentCounters) {
        let inner = self.lock();
        (inner.dispatcher.workers(), inner.dispatcher.live_jobs(), inner.dispatcher.counters())
    }
}

/// Tells the dispatcher the time and of drains, and puts agents out, until the node ends.
pub async fn keep(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drain = node.watch_drain();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = node.agents.due.notified() => {}
            running = drain.changed() => if !running { return },
        }
        let draining = drain.is_draining();
        node.agents.turn(|dispatcher| {
            dispatcher.handle_drain(draining);
            dispatcher.handle_time(moment());
        });
        let removals = std::mem::take(&mut node.agents.lock().removals);
        for removal in removals {
            // It may have left meanwhile.
            let _ = node.ask_room(&removal.call, &removal.room, RoomRequest::Remove(removal.identity)).await;
        }
    }
}
