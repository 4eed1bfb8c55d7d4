//! Wake-ups between offloaders over a Redis Stream.
//!
//! The rows in SQL are the truth; a message only says "look at this job now". It may be lost, doubled or flushed away: every
//! offloader also looks by itself (`OFFLOADER_POLL_MS`), and does nothing else while Redis is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamMaxlen, StreamRangeReply, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::limits::{REDIS_BLOCK, REDIS_PAUSE, REDIS_STREAM, REDIS_TIMEOUT};

/// Sends what `ring` brings and hears what others send, until `stop`. Comes back after every break.
pub(crate) async fn run(app: Arc<App>, client: Client, mut ring: mpsc::Receiver<String>, stop: CancellationToken) {
    let mut pause = REDIS_PAUSE.0;
    let mut silent = false;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = connected(&app, &client, &mut ring) => ended,
        };
        let was_up = app.redis_up.swap(false, Ordering::Relaxed);
        app.counts.redis_errors.fetch_add(1, Ordering::Relaxed);
        if was_up {
            (pause, silent) = (REDIS_PAUSE.0, false);
        }
        if let Err(error) = ended
            && !silent
        {
            silent = true;
            tracing::warn!(%error, "Redis is away (OFFLOADER_REDIS): jobs go on, other offloaders hear of them when they look by themselves");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(REDIS_PAUSE.1);
    }
}

async fn connected(app: &App, client: &Client, ring: &mut mpsc::Receiver<String>) -> RedisResult<()> {
    let stream = format!("conclave:{}:jobs", app.site_id);
    let timeouts = AsyncConnectionConfig::new().set_connection_timeout(Some(REDIS_TIMEOUT));
    let mut sending =
        client.get_multiplexed_async_connection_with_config(&timeouts.clone().set_response_timeout(Some(REDIS_TIMEOUT))).await?;
    // Of its own: a read that waits holds up everything behind it.
    let mut hearing =
        client.get_multiplexed_async_connection_with_config(&timeouts.set_response_timeout(Some(REDIS_BLOCK + REDIS_TIMEOUT))).await?;
    let last = newest(&mut hearing, &stream).await?;
    app.redis_up.store(true, Ordering::Relaxed);
    tracing::info!("Redis answers: offloaders wake each other");
    // What was not heard while it was away is in the rows; what waits to be sent is old news to everybody who looked.
    while ring.try_recv().is_ok() {}
    app.wake.notify_one();
    tokio::select! {
        ended = hear(app, &mut hearing, &stream, last) => ended,
        ended = tell(app, &mut sending, &stream, ring) => ended,
    }
}

async fn tell(app: &App, redis: &mut MultiplexedConnection, stream: &str, ring: &mut mpsc::Receiver<String>) -> RedisResult<()> {
    while let Some(job) = ring.recv().await {
        let fields = [("node", app.node.as_str()), ("job", job.as_str())];
        let _: String = redis.xadd_maxlen(stream, StreamMaxlen::Approx(REDIS_STREAM), "*", &fields).await?;
        app.counts.wakes_sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn hear(app: &App, redis: &mut MultiplexedConnection, stream: &str, mut last: (u64, u64)) -> RedisResult<()> {
    let options = StreamReadOptions::default().block(REDIS_BLOCK.as_millis() as usize).count(64);
    loop {
        let id = format!("{}-{}", last.0, last.1);
        let heard: Option<StreamReadReply> = redis.xread_options(&[stream], &[id.as_str()], &options).await?;
        let entries: Vec<_> = heard.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
        if entries.is_empty() {
            // Flushed, and its clock set back: ids would count up to the old one in silence.
            last = last.min(newest(redis, stream).await?);
        }
        for entry in entries {
            last = numbers(&entry.id);
            let field = |name: &str| entry.get::<String>(name).unwrap_or_default();
            if field("node") != app.node {
                app.counts.wakes_heard.fetch_add(1, Ordering::Relaxed);
                app.heard_of(&field("job")).await;
            }
        }
    }
}

/// Id of the newest entry.
async fn newest(redis: &mut MultiplexedConnection, stream: &str) -> RedisResult<(u64, u64)> {
    let newest: StreamRangeReply = redis.xrevrange_count(stream, "+", "-", 1).await?;
    Ok(newest.ids.first().map_or((0, 0), |entry| numbers(&entry.id)))
}

fn numbers(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), n.parse().unwrap_or(0))
}

impl App {
    /// Another offloader says that this job changed.
    async fn heard_of(&self, job: &str) {
        self.wake.notify_one();
        // Who watches here is told; if the row cannot be read now, the next look finds it.
        if let Ok(Some(job)) = self.store.job(job).await {
            let _ = self.updates.send(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn ids_are_ordered_as_numbers() {
        assert!(numbers("1700000000000-9") < numbers("1700000000000-10"));
        assert!(numbers("999-5") < numbers("1000-0"));
        assert_eq!(numbers("nonsense"), (0, 0));
    }
}
