//! One receiver's task: one event at a time, signed anew at every try, with growing pauses while it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use livekit_protocol as lk;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use serde::Serialize;
use tokio::sync::watch;

use super::super::keys::{ApiKeys, sha256};
use super::Receiver;
use super::queue::Waiting;
use crate::limits::{WEBHOOK_CONNECT_TIME, WEBHOOK_KEPT, WEBHOOK_PAUSE_MAX, WEBHOOK_PAUSE_MIN, WEBHOOK_TOKEN_LIFE, WEBHOOK_TRY_TIME};

/// See the module.
pub(super) struct Delivery {
    pub(super) receiver: Arc<Receiver>,
    pub(super) client: Client,
    pub(super) keys: Arc<ApiKeys>,
    /// The key that signs.
    pub(super) key: String,
    /// Turns true when the node ends.
    pub(super) closing: watch::Receiver<bool>,
}

/// The claims of a request's token: who signed it, for how long it holds, and the body that it is of.
#[derive(Serialize)]
struct HookClaims<'a> {
    iss: &'a str,
    nbf: u64,
    exp: u64,
    sha256: &'a str,
}

enum Outcome {
    Delivered,
    /// Another try makes no sense.
    Refused(StatusCode),
    /// It may pass.
    Failed(String),
}

/// For all receivers. Redirects are not followed: what is told goes to the URL that was set and nowhere else.
pub(super) fn client() -> anyhow::Result<Client> {
    // Fails only where there is one already, which is all that is needed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .connect_timeout(WEBHOOK_CONNECT_TIME)
        .timeout(WEBHOOK_TRY_TIME)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("conclave-rtcd/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("webhooks need an HTTP client, and it could not be made; are this machine's root certificates there?")
}

impl Delivery {
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let waiting = match *self.closing.borrow() {
                true => self.receiver.queue.try_next(),
                false => None,
            };
            let waiting = match waiting {
                Some(waiting) => waiting,
                None if *self.closing.borrow() => return,
                None => tokio::select! {
                    biased;
                    waiting = self.receiver.queue.next() => waiting,
                    // Never dropped before this task ends.
                    _ = self.closing.wait_for(|closing| *closing) => continue,
                },
            };
            if !self.deliver(&waiting, &mut failures).await {
                return;
            }
        }
    }

    /// Until the event is delivered or given up. False: the node ends, and the receiver does not answer.
    async fn deliver(&mut self, waiting: &Waiting, failures: &mut u32) -> bool {
        let receiver = Arc::clone(&self.receiver);
        loop {
            let closing = *self.closing.borrow();
            let untold = receiver.queue.untold();
            match self.attempt(&waiting.event, untold).await {
                Outcome::Delivered => {
                    receiver.counters.delivered.fetch_add(1, Ordering::Relaxed);
                    receiver.queue.told(untold);
                    if std::mem::take(failures) > 0 {
                        tracing::info!(url = receiver.name, waiting = receiver.waiting(), "a webhook's receiver answers again");
                    }
                    return true;
                }
                Outcome::Refused(status) => {
                    receiver.counters.refused.fetch_add(1, Ordering::Relaxed);
                    receiver.queue.gave_up();
                    tracing::warn!(
                        url = receiver.name,
                        status = status.as_u16(),
                        event = waiting.event.event,
                        "a webhook's receiver refuses an event; it is not told again. Check webhook.urls and the receiver's API key"
                    );
                    return true;
                }
                Outcome::Failed(why) => {
                    receiver.counters.failed.fetch_add(1, Ordering::Relaxed);
                    *failures += 1;
                    if *failures == 1 {
                        tracing::warn!(url = receiver.name, why, "a webhook's receiver does not take an event; it is tried again");
                    }
                    if closing || waiting.since.elapsed() >= WEBHOOK_KEPT {
                        receiver.count_dropped(1);
                        receiver.queue.gave_up();
                        return !closing;
                    }
                    let pause = pause(*failures);
                    // At the end there is no time for pauses, only for one more try.
                    let _ = tokio::time::timeout(pause, self.closing.wait_for(|closing| *closing)).await;
                }
            }
        }
    }

    async fn attempt(&self, event: &lk::WebhookEvent, untold: u32) -> Outcome {
        #[expect(deprecated, reason = "receivers of today still read the field")]
        let body = if untold == 0 {
            serde_json::to_vec(event)
        } else {
            serde_json::to_vec(&lk::WebhookEvent { num_dropped: i32::try_from(untold).unwrap_or(i32::MAX), ..event.clone() })
        };
        let Ok(body) = body else { return Outcome::Failed("the event could not be written as JSON".to_owned()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let digest = sha256(&body);
        let claims = HookClaims { iss: &self.key, nbf: now, exp: now + WEBHOOK_TOKEN_LIFE.as_secs(), sha256: &digest };
        let Some(token) = self.keys.sign(&self.key, &claims) else {
            return Outcome::Failed("the event could not be signed".to_owned());
        };
        let request = self.client.post(self.receiver.url.clone());
        // The token alone, without `Bearer`: what LiveKit's receivers read.
        let request = request.header(CONTENT_TYPE, "application/webhook+json").header(AUTHORIZATION, token).body(body);
        match request.send().await {
            Ok(response) => outcome(response.status()),
            Err(error) => Outcome::Failed(error.without_url().to_string()),
        }
    }
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        _ if status.is_success() => Outcome::Delivered,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Outcome::Failed(status.to_string()),
        StatusCode::NOT_IMPLEMENTED => Outcome::Refused(status),
        _ if status.is_server_error() => Outcome::Failed(status.to_string()),
        _ => Outcome::Refused(status),
    }
}

/// Doubles from the first failure on.
fn pause(failures: u32) -> Duration {
    WEBHOOK_PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(WEBHOOK_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<Duration> = (1..=20).map(pause).collect();
        assert_eq!(pauses.first(), Some(&WEBHOOK_PAUSE_MIN));
        assert!(pauses.windows(2).all(|two| matches!(two, [one, next] if *next == (*one * 2).min(WEBHOOK_PAUSE_MAX))));
        assert_eq!((pauses.last(), pause(u32::MAX)), (Some(&WEBHOOK_PAUSE_MAX), WEBHOOK_PAUSE_MAX));
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        for (status, delivered, again) in [
            (200, true, false),
            (204, true, false),
            (302, false, false),
            (401, false, false),
            (404, false, false),
            (408, false, true),
            (429, false, true),
            (500, false, true),
            (501, false, false),
            (503, false, true),
        ] {
            let outcome = outcome(StatusCode::from_u16(status).expect("a status"));
            assert_eq!((matches!(outcome, Outcome::Delivered), matches!(outcome, Outcome::Failed(_))), (delivered, again), "{status}");
        }
    }
}
