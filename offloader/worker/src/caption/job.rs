//! The caption job: follows the tap, hears with one or more recognisers, sends lines back on the same stream.
//!
//! Three kinds of thread. The *listener* owns [`Live`] and never waits for a recogniser; each *recogniser* hears one run after
//! another; the async side reads the tap and sends the captions.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conclave_proto::v1 as pb;
use offloader_jobs::order::{CaptionOrder, CaptionResult, ModelOrder, WorkOrder};
use tokio::sync::mpsc as async_mpsc;

use super::ears::{Block, Ears};
use super::live::{Line, Live, Run};
use crate::capture::source::{Event, Source, SourceError};
use crate::capture::tap::{TapPurpose, TapSource};
use crate::job::{JobAddress, Lease, Outcome, Word, now_us};
use crate::limits;
use crate::speech::{Heard, Model, Recogniser, Request, VoiceDetector, model::Purpose, recogniser::known_language};

/// What the listener is told.
enum Told {
    Event(Event),
    Heard(Box<Run>, Option<Heard>, Option<String>),
    End,
}

/// The listener looks at its timers at least this often.
const LOOK: Duration = Duration::from_millis(50);
/// Packets may be this late before a track counts as quiet.
const LATE_US: i64 = 200_000;
/// After so long without packets the last, broken block is heard as well; just before a pause ends the line.
const FLUSH_US: i64 = 400_000;
/// Delays that the percentiles are taken over: the last ten minutes of one busy talker.
const DELAYS_KEPT: usize = 1_000;

/// Ears for one call: told of its tracks and packets, it says what was said. Its threads end with it.
pub struct Hearing {
    tell: SyncSender<Told>,
    captions: async_mpsc::Receiver<pb::Caption>,
    stats: Arc<Mutex<CaptionResult>>,
    dropped: u64,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let _ = self.tell.try_send(Told::End);
    }
}

impl Hearing {
    /// Opens the model and starts `threads` recognisers; 0: half the machine's cores.
    ///
    /// # Errors
    /// As the outcome of the job that wanted it.
    pub async fn start(model: &ModelOrder, call_id: &str, language: Option<&str>, threads: usize) -> Result<Self, Outcome> {
        let (files, vocabulary) = (crate::transcribe::job::files(model), model.vocabulary.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let model = Model::open(&files, Purpose::Live)?.expecting(&vocabulary);
            let detector = model.voice_detector()?;
            Ok::<_, crate::speech::ModelError>((model, detector))
        });
        let (model, detector) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(Outcome::Failed { error: error.to_string(), retry: false }),
            Err(error) => return Err(Outcome::Failed { error: error.to_string(), retry: true }),
        };
        let (tell, told) = sync_channel(limits::CAPTION_QUEUE);
        let (out, captions) = async_mpsc::channel(limits::CAPTIONS_WAITING);
        let language = language.map(|l| l.split(['-', '_']).next().unwrap_or_default().to_lowercase());
        let stats = Arc::new(Mutex::new(CaptionResult::default()));
        let listener = Listener {
            call_id: call_id.to_owned(),
            language: language.filter(|l| known_language(l)),
            detector,
            live: Live::new(),
            tracks: Vec::new(),
            by_sid: HashMap::new(),
            captions: out,
            stats: stats.clone(),
            delays: Vec::new(),
            skew_us: i64::MAX,
        };
        let half = std::thread::available_parallelism().map_or(1, |n| n.get() / 2);
        let threads = if threads == 0 { half } else { threads }.clamp(1, limits::CAPTION_THREADS);
        start_threads(&model, listener, threads, &tell, told)
            .map_err(|error| Outcome::Failed { error: format!("cannot start the recognisers: {error:#}"), retry: true })?;
        Ok(Self { tell, captions, stats, dropped: 0 })
    }

    /// Tells what happened in the call. A listener that is behind loses sound, nobody waits for it: what it would say is late
    /// already. False: this was lost.
    pub fn tell(&mut self, event: Event) -> bool {
        let taken = self.tell.try_send(Told::Event(event)).is_ok();
        if !taken {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(dropped = self.dropped, "captions cannot keep up with the call");
            }
        }
        taken
    }

    /// The next caption.
    pub async fn next(&mut self) -> Option<pb::Caption> {
        self.captions.recv().await
    }

    /// Figures so far.
    pub fn stats(&self) -> CaptionResult {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does a caption job.
pub async fn run(address: &JobAddress, order: CaptionOrder, lease: &Lease) -> Outcome {
    let mut hearing = match Hearing::start(&order.model, &order.params.call_id, order.params.language.as_deref(), 0).await {
        Ok(hearing) => hearing,
        Err(outcome) => return outcome,
    };
    match follow(address, order, lease, &mut hearing).await {
        Ok(()) => match lease.word() {
            Word::Work | Word::Stop => Outcome::Done(serde_json::to_string(&hearing.stats()).unwrap_or_default()),
            Word::Release => Outcome::Released,
            Word::Expired => Outcome::Expired,
            Word::Fenced => Outcome::Fenced,
        },
        Err(error) => Outcome::Failed { error, retry: true },
    }
}

fn start_threads(model: &Model, listener: Listener, threads: usize, tell: &SyncSender<Told>, told: Receiver<Told>) -> anyhow::Result<()> {
    let (runs, queue) = channel::<Run>();
    let queue = Arc::new(Mutex::new(queue));
    for n in 0..threads {
        let mut recogniser = model.recogniser()?;
        let (queue, tell) = (queue.clone(), tell.clone());
        std::thread::Builder::new().name(format!("hear-{n}")).spawn(move || {
            loop {
                // Held only while waiting: whoever waits longest gets the next run.
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(run) = next else { return };
                let (heard, language) = hear(&mut recogniser, &run);
                if tell.send(Told::Heard(Box::new(run), heard, language)).is_err() {
                    return;
                }
            }
        })?;
    }
    std::thread::Builder::new().name("listener".into()).spawn(move || listener.listen(&told, &runs, threads))?;
    Ok(())
}

/// One run on one recogniser: what was heard and in which language, if that was not known.
pub fn hear(recogniser: &mut Recogniser, run: &Run) -> (Option<Heard>, Option<String>) {
    let detected = match &run.language {
        Some(_) => None,
        None => recogniser.detect_language(&run.samples).ok(),
    };
    let request = Request { language: run.language.clone().or_else(|| detected.clone()), prefix: run.prefix.clone() };
    let heard = recogniser.hear(&run.samples, &request).and_then(|heard| {
        // The last run may not end in a loop: once more, free and with a wider window.
        if run.last && heard.looped { recogniser.hear_final(&run.samples, &request) } else { Ok(heard) }
    });
    if let Err(error) = &heard {
        tracing::warn!("speech recognition failed: {error}");
    }
    (heard.ok(), detected)
}

/// Reads the tap, sends captions, until the call or the job ends.
async fn follow(address: &JobAddress, mut order: CaptionOrder, lease: &Lease, hearing: &mut Hearing) -> Result<(), String> {
    let mut word = lease.watch();
    let mut backoff = limits::TAP_BACKOFF.0;
    let mut unknown_since: Option<Instant> = None;
    let mut refusals = 0;
    while *word.borrow() == Word::Work {
        let error = match TapSource::open(&order.tap, &address.id, TapPurpose::Caption).await {
            Err(error) => error,
            Ok(mut source) => loop {
                tokio::select! {
                    biased;
                    _ = word.changed() => if *word.borrow() != Word::Work {
                        source.close().await;
                        return Ok(());
                    },
                    Some(caption) = hearing.next() => {
                        source.send_caption(caption);
                        lease.set_stats(serde_json::to_string(&hearing.stats()).unwrap_or_default());
                    }
                    event = source.next() => match event {
                        Ok(Some(Event::CallEnded | Event::PartEnded)) => return Ok(()),
                        Ok(Some(event)) => {
                            (unknown_since, refusals, backoff) = (None, 0, limits::TAP_BACKOFF.0);
                            hearing.tell(event);
                        }
                        Ok(None) => break SourceError::Broken("the media node closed it".into()),
                        Err(error) => break error,
                    },
                }
            },
        };
        tracing::warn!(job = %address.id, "{error}; trying again in {} ms", backoff.as_millis());
        match error {
            SourceError::UnknownCall(_) => {
                if unknown_since.get_or_insert_with(Instant::now).elapsed() > limits::CALL_UNKNOWN {
                    return Ok(());
                }
            }
            SourceError::Refused(text) => {
                refusals += 1;
                if refusals > 3 {
                    return Err(SourceError::Refused(text).to_string());
                }
                if let Ok(WorkOrder::Caption(fresh)) = address.order().await {
                    order = fresh;
                }
            }
            SourceError::Broken(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = word.changed() => {}
        }
        backoff = (backoff * 2).min(limits::TAP_BACKOFF.1);
    }
    Ok(())
}

struct ListenedTrack {
    track_sid: String,
    identity: String,
    ears: Ears,
    last_packet_us: i64,
    flushed: bool,
    /// What was sent last, to tell new text from a confirmation.
    shown: (u64, usize),
}

struct Listener {
    call_id: String,
    language: Option<String>,
    detector: VoiceDetector,
    live: Live,
    tracks: Vec<ListenedTrack>,
    by_sid: HashMap<String, usize>,
    captions: async_mpsc::Sender<pb::Caption>,
    stats: Arc<Mutex<CaptionResult>>,
    delays: Vec<u64>,
    /// Least difference seen between our clock and a packet's arrival at the media node.
    skew_us: i64,
}

impl Listener {
    fn listen(mut self, told: &Receiver<Told>, runs: &Sender<Run>, threads: usize) {
        let mut busy = 0;
        loop {
            match told.recv_timeout(LOOK) {
                Ok(Told::Event(event)) => self.handle_event(event),
                Ok(Told::Heard(run, heard, language)) => {
                    busy -= 1;
                    self.handle_heard(&run, heard, language);
                }
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.handle_quiet();
            while let Some(line) = self.live.poll_line() {
                let language = self.live.language(line.track).unwrap_or("en").to_owned();
                self.send(&line, language);
            }
            self.live.handle_now(self.media_now_us());
            while busy < threads {
                let Some(run) = self.live.poll_run(self.media_now_us()) else { break };
                busy += 1;
                if runs.send(run).is_err() {
                    return;
                }
            }
        }
    }

    /// Now by the media node's clock. A difference within half a second is the way the packets took, not two clocks.
    fn media_now_us(&self) -> i64 {
        let own = now_us();
        if self.skew_us == i64::MAX || (0..500_000).contains(&self.skew_us) { own } else { own - self.skew_us }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Track { info, .. } if info.kind == "audio" && !self.by_sid.contains_key(&info.track_sid) => {
                if self.tracks.len() >= limits::CAPTION_TRACKS {
                    tracing::warn!("more than {} tracks: this one has no captions", limits::CAPTION_TRACKS);
                    return;
                }
                let Ok(ears) = Ears::new() else { return };
                let index = self.live.handle_track(self.language.clone());
                self.by_sid.insert(info.track_sid.clone(), index);
                self.tracks.push(ListenedTrack {
                    track_sid: info.track_sid,
                    identity: info.identity,
                    ears,
                    last_packet_us: 0,
                    flushed: true,
                    shown: (0, 0),
                });
            }
            Event::Packets { track_sid, packets } => {
                let Some(&index) = self.by_sid.get(&track_sid) else { return };
                for packet in packets {
                    self.skew_us = self.skew_us.min(now_us() - packet.at_us);
                    let Some(track) = self.tracks.get_mut(index) else { return };
                    (track.last_packet_us, track.flushed) = (packet.at_us, false);
                    match track.ears.handle_packet(&mut self.detector, packet.at_us, packet.seq, packet.timestamp, &packet.payload) {
                        Ok(blocks) => self.sound(index, blocks),
                        Err(error) => tracing::warn!("{error}"),
                    }
                }
            }
            Event::TrackEnded { track_sid, .. } => {
                if let Some(index) = self.by_sid.remove(&track_sid) {
                    let now = self.media_now_us();
                    self.live.handle_track_ended(index, now);
                }
            }
            Event::Opened
            | Event::Track { .. }
            | Event::Gap { .. }
            | Event::Participant { .. }
            | Event::Muted { .. }
            | Event::Consent { .. }
            | Event::MediaKey { .. }
            | Event::MediaKeyNote { .. }
            | Event::PartEnded
            | Event::CallEnded => {}
        }
    }

    fn sound(&mut self, index: usize, blocks: impl IntoIterator<Item = Block>) {
        for block in blocks {
            self.live.handle_sound(index, block.start_us, &block.samples, &block.probabilities);
        }
    }

    fn handle_quiet(&mut self) {
        let now = self.media_now_us() - LATE_US;
        for index in 0..self.tracks.len() {
            let Some(track) = self.tracks.get_mut(index) else { continue };
            // Not at every stall of the network: what a flush fills up shifts the rest of the line by up to 32 ms.
            if now > track.last_packet_us + FLUSH_US && !track.flushed {
                track.flushed = true;
                if let Ok(blocks) = track.ears.flush(&mut self.detector) {
                    self.sound(index, blocks);
                }
            }
            self.live.handle_quiet(index, now);
        }
    }

    fn handle_heard(&mut self, run: &Run, heard: Option<Heard>, language: Option<String>) {
        let language_now = run.language.clone().or_else(|| language.clone()).unwrap_or_else(|| "en".into());
        match heard {
            Some(heard) => {
                if let Some(line) = self.live.handle_heard(run, heard, language) {
                    self.send(&line, language_now);
                }
            }
            None => self.live.handle_failed(run),
        }
    }

    fn send(&mut self, line: &Line, language: String) {
        let delay_ms = ((self.media_now_us() - line.end_us) / 1_000).max(0);
        let Some(track) = self.tracks.get_mut(line.track) else { return };
        let length = line.committed.len() + line.pending.len();
        // A confirmation of what is on the screen already says nothing about how long people wait.
        let new_text = line.line > track.shown.0 || length > track.shown.1;
        track.shown = (line.line, length);
        let caption = pb::Caption {
            call_id: self.call_id.clone(),
            identity: track.identity.clone(),
            track_sid: track.track_sid.clone(),
            // The start makes it unique over the attempts of a job.
            segment_id: format!("{}-{}-{}", track.track_sid, line.start_us / 1_000, line.line),
            committed: line.committed.clone(),
            pending: line.pending.clone(),
            r#final: line.last,
            language,
            start_ms: line.start_us / 1_000,
            end_ms: line.end_us / 1_000,
            delay_ms: u32::try_from(delay_ms).unwrap_or(u32::MAX),
        };
        if new_text {
            if self.delays.len() >= DELAYS_KEPT {
                self.delays.remove(0);
            }
            self.delays.push(delay_ms.unsigned_abs());
        }
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        let at = |tenths: usize| sorted.get((sorted.len() * tenths / 10).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.segments += u64::from(line.last);
        (stats.delay_p50_ms, stats.delay_p90_ms) = (at(5), at(9));
        drop(stats);
        // While the tap is broken lines are lost; people see the next one.
        let _ = self.captions.try_send(caption);
    }
}
