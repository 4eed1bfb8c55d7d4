//! The words of the call: the plugin is told that they have begun, and captions go to everybody as they are heard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use offloader_jobs::mattermost::MattermostTranscription;
use offloader_jobs::order::{SourceOrder, WorkOrder};
use rtc_client::mattermost::{JobType, TrackKind};
use tokio::sync::mpsc;

use super::Visit;
use super::way_in::tell_started;
use crate::caption::job::Hearing;
use crate::job::{JobAddress, Lease};
use crate::limits;

/// The offloader is asked so often whether a transcription came to this recording.
const ORDER_EVERY: Duration = Duration::from_secs(1);
/// The plugin takes ten messages a second of a session: with this between them captions leave room for others.
pub(super) const CAPTION_EVERY: Duration = Duration::from_millis(150);

/// The words have begun: the plugin was told, and the ears are open where captions are wanted.
pub(super) struct Words {
    id: String,
    hearing: Option<Hearing>,
}

/// Live captions of the call.
pub(super) struct Captions {
    pub(super) hearing: Hearing,
    /// The latest of each speaker that was not sent yet, in the order of speaking.
    waiting: Vec<(String, String, f64)>,
    /// How far the sound went that the last caption of a session told of, ms.
    told_to_ms: HashMap<String, u64>,
    pub(super) overrun: Option<Instant>,
}

impl Visit {
    /// The words are wanted too: says so and opens the ears, beside the capture, which waits for neither.
    pub(super) fn begin_words(&self, transcription: MattermostTranscription, ready: mpsc::Sender<Words>) {
        let told = self.checkpoint.started.contains(&transcription.id);
        let (site, channel, mut model) = (self.site.clone(), self.call.channel_id.clone(), self.model.clone());
        model.vocabulary = transcription.vocabulary.clone().and(&model.vocabulary);
        tokio::spawn(async move {
            if !told && let Err(error) = tell_started(&site, &channel, JobType::Transcribing, &transcription.id).await {
                // The recording goes on; the plugin will say that there is no transcript.
                tracing::warn!("the plugin does not take that the transcription has started: {error}");
            }
            let hearing = match transcription.captions {
                None => None,
                Some(wanted) => {
                    let threads = (wanted.transcribers.max(1) as usize).min(limits::CAPTION_THREADS);
                    Hearing::start(&model, &channel, Some(&wanted.language), threads)
                        .await
                        // Without captions the call is still recorded.
                        .map_err(|outcome| tracing::warn!(?outcome, "no captions"))
                        .ok()
                }
            };
            let _ = ready.send(Words { id: transcription.id, hearing }).await;
        });
    }

    pub(super) async fn words_begun(&mut self, address: &JobAddress, words: Words) {
        if !self.checkpoint.started.contains(&words.id) {
            self.checkpoint.started.push(words.id);
            self.save(address).await;
        }
        let Some(mut hearing) = words.hearing else { return };
        for track in self.tracks.values().filter(|track| track.announced && track.info.kind == TrackKind::Voice) {
            if let Some(event) = self.track_event(track) {
                hearing.tell(event);
            }
        }
        self.captions = Some(Captions { hearing, waiting: Vec::new(), told_to_ms: HashMap::new(), overrun: None });
    }

    /// Something was said.
    pub(super) fn heard(&mut self, caption: &conclave_proto::v1::Caption, lease: &Lease) {
        let Some(captions) = &mut self.captions else { return };
        lease.set_stats(serde_json::to_string(&captions.hearing.stats()).unwrap_or_default());
        let Some(track) = self.tracks.get(caption.track_sid.as_str()) else { return };
        let session = track.info.session_id.clone();
        let text = format!("{} {}", caption.committed.trim(), caption.pending.trim()).trim().to_owned();
        if text.is_empty() {
            return;
        }
        let (start_ms, end_ms) = (caption.start_ms.cast_unsigned(), caption.end_ms.cast_unsigned());
        let told_to = captions.told_to_ms.entry(session.clone()).or_insert(start_ms);
        let new_ms = end_ms.saturating_sub((*told_to).max(start_ms)) as f64;
        *told_to = end_ms.max(*told_to);
        match captions.waiting.iter_mut().find(|(waiting, _, _)| *waiting == session) {
            // Not sent yet: the newer text says it all.
            Some((_, old, ms)) => (*old, *ms) = (text, *ms + new_ms),
            None => captions.waiting.push((session, text, new_ms)),
        }
    }

    /// Sends one caption, the one that waits longest.
    pub(super) fn show(&mut self) {
        if let Some(captions) = self.captions.as_mut().filter(|captions| !captions.waiting.is_empty()) {
            let (session, text, new_ms) = captions.waiting.remove(0);
            let _ = self.bot.caption(&session, &text, new_ms);
        }
    }
}

pub(super) async fn next_caption(captions: &mut Option<Captions>) -> Option<conclave_proto::v1::Caption> {
    match captions {
        Some(captions) => captions.hearing.next().await,
        None => std::future::pending().await,
    }
}

/// Tells once that a transcription came to this recording.
pub(super) fn watch_order(address: JobAddress) -> mpsc::Receiver<MattermostTranscription> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        let Ok(mut client) = address.client() else { return };
        while !tell.is_closed() {
            tokio::time::sleep(ORDER_EVERY).await;
            if let Ok(WorkOrder::Record(order)) = address.order_over(&mut client).await
                && let SourceOrder::Mattermost(bot) = order.source
                && let Some(transcription) = bot.call.transcription
            {
                let _ = tell.send(transcription).await;
                return;
            }
        }
    });
    told
}
