//! Webhooks: what happens in rooms, told to the servers that the settings name, as LiveKit's own server tells it.
//!
//! Every URL has a queue and a task of its own, so that a slow or dead receiver delays neither a call nor another receiver. An event
//! is told after the one before it was delivered or given up ([`delivery`]); what a queue cannot hold is dropped, oldest first, counted,
//! and said in the next event (`num_dropped`), so that the receiver knows to ask for the rooms as they are.

mod delivery;
mod queue;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use livekit_protocol as lk;
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::delivery::Delivery;
use self::queue::{Queue, Waiting};
use super::keys::ApiKeys;
use crate::config::Config;

/// See the module.
#[derive(Debug)]
pub struct Webhooks {
    receivers: Vec<Arc<Receiver>>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// One URL.
#[derive(Debug)]
pub struct Receiver {
    url: Url,
    /// The URL without what may be secret in it.
    pub name: String,
    queue: Queue,
    /// What became of its events.
    pub counters: HookCounters,
}

/// What became of events, for metrics.
#[derive(Debug, Default)]
pub struct HookCounters {
    /// The receiver took them.
    pub delivered: AtomicU64,
    /// Requests that failed in a way that may pass.
    pub failed: AtomicU64,
    /// The receiver said no; not tried again.
    pub refused: AtomicU64,
    /// Given up: there was no room for them, or they had waited too long.
    pub dropped: AtomicU64,
}

impl HookCounters {
    /// With their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 4] {
        [("delivered", &self.delivered), ("failed", &self.failed), ("refused", &self.refused), ("dropped", &self.dropped)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

impl Receiver {
    fn new(url: Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let name = format!("{}://{host}{port}{}", url.scheme(), url.path());
        Self { url, name, queue: Queue::default(), counters: HookCounters::default() }
    }

    /// Events in its queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn count_dropped(&self, dropped: u32) {
        if dropped > 0 {
            self.counters.dropped.fetch_add(u64::from(dropped), Ordering::Relaxed);
        }
    }
}

impl Webhooks {
    /// Starts the deliveries. `None`: the settings name no receiver.
    ///
    /// # Errors
    /// There is no HTTP client to be had.
    pub fn start(config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        if config.webhook_urls.is_empty() {
            return Ok(None);
        }
        let closing = watch::Sender::new(false);
        let receivers: Vec<Arc<Receiver>> = config.webhook_urls.iter().map(|url| Arc::new(Receiver::new(url.clone()))).collect();
        let client = delivery::client()?;
        let keys = Arc::new(ApiKeys::new(config.livekit_keys.clone()));
        let deliver = |receiver: &Arc<Receiver>| {
            let key = config.webhook_api_key.clone();
            let delivery = Delivery {
                receiver: Arc::clone(receiver),
                client: client.clone(),
                keys: Arc::clone(&keys),
                key,
                closing: closing.subscribe(),
            };
            tokio::spawn(delivery.run())
        };
        let tasks = Mutex::new(receivers.iter().map(deliver).collect());
        for receiver in &receivers {
            tracing::info!(url = receiver.name, "what happens in LiveKit's rooms is told there");
        }
        Ok(Some(Arc::new(Self { receivers, closing, tasks })))
    }

    /// Queues an event for every receiver. Never waits.
    pub fn tell(&self, event: lk::WebhookEvent) {
        let waiting = Waiting::new(event);
        for receiver in &self.receivers {
            receiver.count_dropped(receiver.queue.push(waiting.clone()));
        }
    }

    /// All URLs.
    #[must_use]
    pub fn receivers(&self) -> &[Arc<Receiver>] {
        &self.receivers
    }

    /// The node ends: what is queued is tried once more, all of it within this time.
    pub async fn finish(&self, within: Duration) {
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let abort: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            abort.iter().for_each(tokio::task::AbortHandle::abort);
        }
        for receiver in &self.receivers {
            let left = receiver.waiting();
            if left > 0 {
                tracing::warn!(url = receiver.name, events = left, "webhook events are lost with the end of this node");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_name_has_no_secret_of_its_url() {
        let url = Url::parse("https://user:word@hooks.example:8443/calls/in?token=secret#part").expect("a URL");
        assert_eq!(Receiver::new(url).name, "https://hooks.example:8443/calls/in");
    }
}
