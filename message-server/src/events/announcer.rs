//! Tells the pages about changed calls, several changes at once: a join storm makes one event per call and beat, not
//! one per participant.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    app::App,
    calls,
    events::{Audience, Event},
};

/// Changes that come within this time are told together: shorter than people notice.
const BEAT: Duration = Duration::from_millis(60);

/// The calls that changed since the last beat.
#[derive(Debug, Default)]
pub struct Announcer {
    changed: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Announcer {
    /// A call has changed.
    pub fn changed(&self, call: &str) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(call.to_owned());
        self.wake.notify_one();
    }

    /// Runs for the life of the server.
    pub async fn run(app: Arc<App>) {
        loop {
            app.announcer.wake.notified().await;
            tokio::time::sleep(BEAT).await;
            let changed = std::mem::take(&mut *app.announcer.changed.lock().unwrap_or_else(PoisonError::into_inner));
            for id in changed {
                match calls::load(&app.store, &id).await {
                    Ok(call) => {
                        let audience = Audience::Conversing { guests_of: Some(id), except: None };
                        app.hub.send(&audience, Event::Call { call: Box::new(call) });
                    }
                    Err(error) => tracing::warn!(call = %calls::short(&id), error = error.message(), "a changed call cannot be told"),
                }
            }
        }
    }
}
