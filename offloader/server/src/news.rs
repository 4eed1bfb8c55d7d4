//! Changes that other offloaders made, found by looking: who watches jobs here hears of them without Redis too, only later.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use offloader_jobs::Job;

use crate::app::App;
use crate::limits::NEWS_OVERLAP_MS;

/// What was told of the jobs that changed lately.
#[derive(Default)]
pub(crate) struct News {
    since_ms: i64,
    told: HashMap<String, u64>,
}

impl App {
    /// Tells watchers what is new since the last look.
    pub(crate) async fn tell_news(&self, news: &mut News) -> anyhow::Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let now_ms = self.store.now_ms().await?;
        let first = news.since_ms == 0;
        let mut told = HashMap::new();
        if !first {
            // A row is written with the time at which its transaction looked, and seen when it ended: look back a little.
            for job in self.store.jobs_changed(news.since_ms - NEWS_OVERLAP_MS).await? {
                let mark = mark(&job);
                if news.told.get(&job.id) != Some(&mark) {
                    let _ = self.updates.send(job.clone());
                }
                told.insert(job.id, mark);
            }
        }
        *news = News { since_ms: now_ms, told };
        Ok(())
    }
}

/// The same for what is the same to a watcher: not every renewal is news.
fn mark(job: &Job) -> u64 {
    let mut hasher = DefaultHasher::new();
    (job.state, job.fence, job.progress.to_bits(), &job.error, &job.stats, &job.result).hash(&mut hasher);
    hasher.finish()
}
