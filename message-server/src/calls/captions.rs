//! Live captions: from the media node to the participants' pages, kept for late joiners, their delay counted.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use conclave_proto::v1;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use utoipa::ToSchema;

use crate::{
    app::App,
    clock,
    error::ApiResult,
    events::{Audience, Event},
    limits,
    store::Store,
};

/// One line. Committed text never changes, pending text may; the same `segment_id` replaces the earlier line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaptionLine {
    /// The call.
    pub call_id: String,
    /// Who spoke.
    pub identity: String,
    /// Their name.
    pub display_name: String,
    /// LiveKit's track.
    pub track_sid: String,
    /// Names the line.
    pub segment_id: String,
    /// Never changes.
    pub committed: String,
    /// May change.
    pub pending: String,
    /// The line is complete.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// BCP 47.
    pub language: String,
    /// Unix ms of the first word's sound.
    pub start_ms: i64,
    /// Unix ms of the last word's sound.
    pub end_ms: i64,
    /// From the last word's sound to this line.
    pub delay_ms: u32,
}

/// A caption arrived from the media node.
pub async fn handle(app: &App, call: &str, at_ms: i64, caption: v1::Caption) -> ApiResult<()> {
    let rows = sqlx::query("SELECT identity, display_name FROM participants WHERE call_id = $1 AND (present = 1 OR identity = $2)")
        .bind(call)
        .bind(&caption.identity)
        .fetch_all(app.store.read())
        .await?;
    let mut display_name = String::new();
    let mut audience = HashSet::with_capacity(rows.len());
    for row in &rows {
        let identity: String = row.try_get("identity")?;
        if identity == caption.identity {
            display_name = row.try_get("display_name")?;
        }
        audience.insert(identity);
    }
    let mut line = CaptionLine {
        call_id: call.to_owned(),
        identity: caption.identity,
        display_name,
        track_sid: caption.track_sid,
        segment_id: caption.segment_id,
        committed: caption.committed,
        pending: caption.pending,
        is_final: caption.r#final,
        language: caption.language,
        start_ms: caption.start_ms,
        end_ms: caption.end_ms,
        delay_ms: caption.delay_ms,
    };
    // What people wait for is the way from the sound to their page: add the road from the worker to here.
    if line.end_ms > 0 && at_ms > line.end_ms {
        let whole = u32::try_from(clock::now_ms().saturating_sub(line.end_ms)).unwrap_or(u32::MAX);
        line.delay_ms = line.delay_ms.max(whole);
    }
    app.caption_delays.add(call, line.delay_ms);
    if !keep(&app.store, &line).await? {
        return Ok(());
    }
    app.hub.send(&Audience::Identities(audience), Event::Caption(line));
    Ok(())
}

/// Keeps a line of a running call. `false`: the call has ended, its lines have been deleted, and this one came too late.
async fn keep(store: &Store, line: &CaptionLine) -> ApiResult<bool> {
    let text = serde_json::to_string(line).unwrap_or_default();
    let mut tx = store.write_call(&line.call_id).await?;
    let runs: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM calls WHERE id = $1 AND ended_at_ms IS NULL")
        .bind(&line.call_id)
        .fetch_one(&mut *tx)
        .await?;
    if runs == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO captions (call_id, segment_id, start_ms, line) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (call_id, segment_id) DO UPDATE SET start_ms = excluded.start_ms, line = excluded.line",
    )
    .bind(&line.call_id)
    .bind(&line.segment_id)
    .bind(line.start_ms)
    .bind(&text)
    .execute(&mut *tx)
    .await?;
    if line.is_final {
        sqlx::query(
            "DELETE FROM captions WHERE call_id = $1 AND segment_id NOT IN \
             (SELECT segment_id FROM captions WHERE call_id = $2 ORDER BY start_ms DESC LIMIT $3)",
        )
        .bind(&line.call_id)
        .bind(&line.call_id)
        .bind(limits::CAPTIONS_PER_CALL)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// The kept lines of a running call, oldest first.
pub async fn recent(store: &Store, call: &str) -> ApiResult<Vec<CaptionLine>> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT line FROM captions WHERE call_id = $1 ORDER BY start_ms, segment_id")
        .bind(call)
        .fetch_all(store.read())
        .await?;
    Ok(rows.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Delays of the captions, for the ops page.
#[derive(Debug, Default)]
pub struct CaptionDelays {
    calls: Mutex<BTreeMap<String, Vec<u32>>>,
}

/// Percentiles of caption delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Delays {
    /// Half of the captions were quicker.
    pub p50_ms: u32,
    /// Nine of ten were quicker.
    pub p90_ms: u32,
    /// How many were counted.
    pub count: usize,
}

impl Delays {
    fn of(mut delays: Vec<u32>) -> Self {
        delays.sort_unstable();
        let at = |share: usize| {
            let last = delays.len().saturating_sub(1);
            delays.get((delays.len() * share / 100).min(last)).copied().unwrap_or_default()
        };
        Self { p50_ms: at(50), p90_ms: at(90), count: delays.len() }
    }
}

impl CaptionDelays {
    /// A caption took so long.
    pub fn add(&self, call: &str, delay_ms: u32) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if !calls.contains_key(call) && calls.len() >= limits::CAPTION_DELAY_CALLS {
            calls.pop_first();
        }
        let delays = calls.entry(call.to_owned()).or_default();
        if delays.len() >= limits::CAPTION_DELAYS_PER_CALL {
            delays.drain(..limits::CAPTION_DELAYS_PER_CALL / 4);
        }
        delays.push(delay_ms);
    }

    /// The call is over.
    pub fn forget(&self, call: &str) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(call);
    }

    /// Over all running calls, and each.
    pub fn summary(&self) -> (Delays, Vec<(String, Delays)>) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let all = Delays::of(calls.values().flatten().copied().collect());
        (all, calls.iter().map(|(call, delays)| (call.clone(), Delays::of(delays.clone()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_per_call_and_over_all() {
        let delays = CaptionDelays::default();
        for n in 1..=100 {
            delays.add("call-1", n);
        }
        delays.add("call-2", 5_000);
        let (all, by_call) = delays.summary();
        assert_eq!(all.count, 101);
        assert_eq!(by_call[0].1, Delays { p50_ms: 51, p90_ms: 91, count: 100 });
        assert_eq!(by_call[1].1, Delays { p50_ms: 5_000, p90_ms: 5_000, count: 1 });
        delays.forget("call-1");
        assert_eq!(delays.summary().0.count, 1);
    }

    #[test]
    fn the_table_is_bounded() {
        let delays = CaptionDelays::default();
        for n in 0..1_000 {
            delays.add(&format!("call-{n}"), 1);
        }
        for _ in 0..10_000 {
            delays.add("call-999", 1);
        }
        let (all, by_call) = delays.summary();
        assert!(by_call.len() <= limits::CAPTION_DELAY_CALLS);
        assert!(all.count <= limits::CAPTION_DELAY_CALLS + limits::CAPTION_DELAYS_PER_CALL);
    }
}
