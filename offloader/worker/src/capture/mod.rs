//! Recording a call: what the source gives goes to the disk, untouched.
//!
//! Two halves. The *follower* reads the source, reopens it when it breaks, asks for key frames and notices what is missing; the
//! *writer* is a thread that owns the archive's writer and may wait for the disk. Between them is a bounded queue: when the
//! disk is too slow the source is read no further, the media node drops this reader's packets and marks the gap.

mod bot;
pub mod numbering;
pub mod sealed;
pub mod sequence;
pub mod source;
pub mod tap;

use std::collections::HashMap;
use std::time::Instant;

use archive::capture::{CaptureError, CaptureWriter, Pushed, StartInfo};
use archive::keys::AttemptGrant;
use archive::manifest::Consent;
use archive::record::GapReason;
use offloader_jobs::order::{RecordOrder, RecordResult, SourceOrder, TapOrder, WorkOrder};
use tokio::sync::{mpsc, oneshot};

use self::numbering::Numbering;
use self::sealed::Opener;
use self::source::{Event, Source, SourceError};
use self::tap::{TapPurpose, TapSource};
use crate::job::{JobAddress, Lease, Outcome, Word, now_us};
use crate::limits;

/// What the writer is told.
#[derive(Debug)]
enum Command {
    Event(Event),
    Tick,
    End(&'static str),
    Pause,
}

/// What the writer has to say at its end.
#[derive(Debug, Default)]
struct Written {
    packets: u64,
    segments: u64,
}

/// Does a record job.
pub async fn run(address: &JobAddress, order: RecordOrder, lease: &Lease) -> Outcome {
    match order.source.clone() {
        SourceOrder::Tap(tap) => {
            let mut writing = match Writing::start(&order, now_us()) {
                Ok(writing) => writing,
                Err(outcome) => return outcome,
            };
            let mut follower = Follower {
                commands: writing.commands.clone(),
                lease,
                numbering: Numbering::default(),
                opener: Opener::default(),
                key_frames: KeyFrames::default(),
            };
            let last = tokio::select! {
                last = follower.follow(address, tap) => last,
                outcome = writing.broken() => return outcome,
            };
            drop(follower);
            writing.end(last, lease).await
        }
        SourceOrder::Mattermost(bot) => bot::run(address, &order, *bot, lease).await,
    }
}

/// The writer's thread and what it is told.
struct Writing {
    commands: mpsc::Sender<Command>,
    end: oneshot::Receiver<Result<Written, CaptureError>>,
}

impl Writing {
    /// Starts it; the recording's first line says that it began then, and its files count from there.
    fn start(order: &RecordOrder, began_us: i64) -> Result<Self, Outcome> {
        let grant: AttemptGrant = serde_json::from_value(order.grant.clone())
            .map_err(|e| Outcome::Failed { error: format!("the order's grant is not readable: {e}"), retry: false })?;
        let (commands, queue) = mpsc::channel(limits::CAPTURE_QUEUE);
        let (ended, end) = oneshot::channel();
        let writing = order.clone();
        let spawned = std::thread::Builder::new().name("capture".into()).spawn(move || {
            let _ = ended.send(write(&writing, &grant, began_us, queue));
        });
        match spawned {
            Ok(_) => Ok(Self { commands, end }),
            Err(e) => Err(Outcome::Failed { error: format!("cannot start the writer: {e}"), retry: true }),
        }
    }

    /// The writer ends by itself only when it cannot write any more.
    async fn broken(&mut self) -> Outcome {
        outcome("", (&mut self.end).await.unwrap_or_else(|_| Err(lost_writer())))
    }

    /// Ends it as following ended, and says what became of the job.
    async fn end(self, last: Last, lease: &Lease) -> Outcome {
        let reason = match last {
            Last::End(reason) => {
                let _ = self.commands.send(Command::End(reason)).await;
                reason
            }
            Last::Pause => {
                let _ = self.commands.send(Command::Pause).await;
                ""
            }
            Last::Drop => return Outcome::Fenced,
            Last::Failed(error) => {
                let _ = self.commands.send(Command::Pause).await;
                let _ = self.end.await;
                return Outcome::Failed { error, retry: true };
            }
        };
        drop(self.commands);
        let written = self.end.await.unwrap_or_else(|_| Err(lost_writer()));
        match (lease.word(), reason) {
            (Word::Fenced, _) => Outcome::Fenced,
            (Word::Expired, "") => Outcome::Expired,
            (_, "") if written.is_ok() => Outcome::Released,
            (_, reason) => outcome(reason, written),
        }
    }
}

fn lost_writer() -> CaptureError {
    CaptureError::Broken("the writer's thread is gone".into())
}

fn outcome(reason: &str, written: Result<Written, CaptureError>) -> Outcome {
    match written {
        Ok(written) => {
            let result = RecordResult { reason: reason.into(), packets: written.packets, segments: written.segments };
            Outcome::Done(serde_json::to_string(&result).unwrap_or_default())
        }
        Err(CaptureError::Stale { .. }) => Outcome::Fenced,
        // Sealed by an earlier attempt that died between the last line and its report.
        Err(CaptureError::Ended) => Outcome::Done(
            serde_json::to_string(&RecordResult { reason: "call_ended".into(), ..RecordResult::default() }).unwrap_or_default(),
        ),
        Err(error @ CaptureError::NoRoom(_)) => Outcome::Blocked { error: error.to_string() },
        Err(error) => {
            Outcome::Failed { error: error.to_string(), retry: !matches!(error, CaptureError::Foreign(_) | CaptureError::Changed(_)) }
        }
    }
}

/// The writer's thread.
fn write(order: &RecordOrder, grant: &AttemptGrant, began_us: i64, mut queue: mpsc::Receiver<Command>) -> Result<Written, CaptureError> {
    let params = &order.params;
    let start = StartInfo {
        call_id: params.call_id.clone(),
        tenant: params.tenant.clone(),
        title: params.title.clone(),
        channel_id: params.channel_id.clone(),
        channel_name: params.channel_name.clone(),
        started_by: params.started_by.clone(),
        notice_version: params.notice_version.clone(),
        notice_text: params.notice_text.clone(),
        language: params.language.clone(),
        free_bytes_min: order.free_bytes_min,
    };
    let (mut writer, recovery) = CaptureWriter::open(&order.dir, grant, start, began_us)?;
    tracing::info!(recording = %order.recording_id, ?recovery, "recording");
    let mut names: HashMap<String, String> = HashMap::new();
    for consent in &params.consents {
        names.insert(consent.identity.clone(), consent.display_name.clone());
        writer.consent(
            now_us(),
            Consent {
                identity: consent.identity.clone(),
                display_name: consent.display_name.clone(),
                granted: consent.granted,
                answered_at_ms: consent.answered_at_ms,
                notice_version: params.notice_version.clone(),
            },
        )?;
    }
    let mut packets = 0_u64;
    while let Some(command) = queue.blocking_recv() {
        match command {
            Command::Tick => writer.tick(now_us())?,
            Command::Event(event) => packets += store(&mut writer, event, &mut names)?,
            Command::End(reason) => {
                let segments = writer.segments();
                writer.end(now_us(), reason)?;
                return Ok(Written { packets, segments });
            }
            Command::Pause => {
                let segments = writer.segments();
                writer.pause(now_us())?;
                return Ok(Written { packets, segments });
            }
        }
    }
    // The other half is gone without a word: leave it as a crash would, the next attempt knows how to go on.
    Ok(Written { packets, segments: writer.segments() })
}

/// Writes one event; answers how many packets were kept.
fn store(writer: &mut CaptureWriter, event: Event, names: &mut HashMap<String, String>) -> Result<u64, CaptureError> {
    let mut kept = 0;
    match event {
        Event::Opened | Event::MediaKey { .. } | Event::PartEnded | Event::CallEnded => {}
        Event::MediaKeyNote { at_us, note } => writer.media_key(at_us, note)?,
        Event::Track { at_us, info } => {
            if let Err(error) = writer.track(at_us, info) {
                // One track too many must not end the others' recording.
                if !matches!(error, CaptureError::Tracks) {
                    return Err(error);
                }
                tracing::warn!("{error}: this one is not recorded");
            }
        }
        Event::Packets { track_sid, packets } => {
            for packet in packets {
                kept += u64::from(writer.push(&track_sid, packet)? == Pushed::Stored);
            }
        }
        Event::Gap { track_sid, at_us, from_seq, packets, reason } => writer.gap(&track_sid, at_us, from_seq, packets, reason)?,
        Event::TrackEnded { track_sid, at_us } => writer.track_ended(at_us, &track_sid)?,
        Event::Participant { at_us, identity, display_name, present } => {
            names.insert(identity.clone(), display_name.clone());
            writer.participant(at_us, identity, display_name, present)?;
        }
        Event::Muted { track_sid, at_us, muted } => writer.muted(at_us, &track_sid, muted)?,
        Event::Consent { at_us, mut consent } => {
            if let Some(name) = names.get(&consent.identity) {
                consent.display_name.clone_from(name);
            }
            writer.consent(at_us, consent)?;
        }
    }
    Ok(kept)
}

/// How following ended.
#[derive(Debug)]
enum Last {
    /// Properly, with the manifest's reason.
    End(&'static str),
    /// Another attempt goes on.
    Pause,
    /// Another attempt has it already.
    Drop,
    /// Cannot be gone on with here.
    Failed(String),
}

struct Follower<'l> {
    commands: mpsc::Sender<Command>,
    lease: &'l Lease,
    numbering: Numbering,
    opener: Opener,
    key_frames: KeyFrames,
}

/// Video tracks, and when a key frame of each was last asked for.
#[derive(Default)]
struct KeyFrames {
    asked: HashMap<String, Option<Instant>>,
}

impl Follower<'_> {
    /// Opens the tap again and again until the call or the job ends.
    async fn follow(&mut self, address: &JobAddress, mut order: TapOrder) -> Last {
        let mut word = self.lease.watch();
        let mut backoff = limits::TAP_BACKOFF.0;
        let mut unknown_since: Option<Instant> = None;
        let mut refusals = 0;
        loop {
            if let Some(last) = told(*word.borrow()) {
                return last;
            }
            let opened = tokio::select! {
                opened = TapSource::open(&order, &address.id, TapPurpose::Record) => opened,
                _ = word.changed() => continue,
            };
            let error = match opened {
                Ok(mut source) => {
                    let began = Instant::now();
                    match self.read(&mut source, &mut word).await {
                        Ok(last) => {
                            source.close().await;
                            return last;
                        }
                        Err(error) => {
                            if !matches!(error, SourceError::UnknownCall(_) | SourceError::Refused(_))
                                || began.elapsed() > limits::TAP_BACKOFF.1
                            {
                                (unknown_since, refusals) = (None, 0);
                            }
                            if began.elapsed() > limits::TAP_BACKOFF.1 {
                                backoff = limits::TAP_BACKOFF.0;
                            }
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            self.numbering.handle_reopened();
            self.tell_unopened().await;
            tracing::warn!(job = %address.id, "{error}; trying again in {} ms", backoff.as_millis());
            match error {
                SourceError::UnknownCall(_) => {
                    if unknown_since.get_or_insert_with(Instant::now).elapsed() > limits::CALL_UNKNOWN {
                        return Last::End("call_ended");
                    }
                }
                SourceError::Refused(text) => {
                    // Tokens are short-lived: the offloader has a fresh one.
                    refusals += 1;
                    if refusals > 3 {
                        return Last::Failed(SourceError::Refused(text).to_string());
                    }
                    if let Ok(WorkOrder::Record(again)) = address.order().await
                        && let SourceOrder::Tap(fresh) = again.source
                    {
                        order = fresh;
                    }
                }
                SourceError::Broken(_) => {}
            }
            // Ticks go on, so that what was received before the break gets to the disk.
            if self.commands.send(Command::Tick).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                _ = word.changed() => {}
            }
            backoff = (backoff * 2).min(limits::TAP_BACKOFF.1);
        }
    }

    /// Reads one opened source until it or the job ends.
    async fn read<S: Source>(&mut self, source: &mut S, word: &mut tokio::sync::watch::Receiver<Word>) -> Result<Last, SourceError> {
        let mut tick = tokio::time::interval(limits::CAPTURE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                _ = word.changed() => {
                    if let Some(last) = told(*word.borrow()) {
                        self.tell_unopened().await;
                        return Ok(last);
                    }
                    continue;
                }
                _ = tick.tick() => {
                    self.pass(Command::Tick).await;
                    continue;
                }
                event = source.next() => event?,
            };
            let Some(mut event) = event else { return Err(SourceError::Broken("the media node closed it".into())) };
            if let Some(reason) = end(&event) {
                self.tell_unopened().await;
                return Ok(Last::End(reason));
            }
            let missed = self.numbering.renumber(&mut event);
            for event in missed.into_iter().chain([event]).flat_map(|event| self.opener.handle(event)).collect::<Vec<_>>() {
                if let Some(track_sid) = self.key_frames.wanted(&event) {
                    source.request_key_frame(&track_sid);
                }
                self.pass(Command::Event(event)).await;
            }
            for track_sid in self.opener.poll_key_frames() {
                if self.key_frames.may_ask(&track_sid) {
                    source.request_key_frame(&track_sid);
                }
            }
        }
    }

    /// Nothing follows what the opener still holds.
    async fn tell_unopened(&mut self) {
        for event in self.opener.handle_end() {
            self.pass(Command::Event(event)).await;
        }
    }

    /// Hands a command on. When the writer is gone its end decides; see [`run`].
    async fn pass(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl KeyFrames {
    /// The video track that must begin anew because of this event: a new one, or one with a hole.
    fn wanted(&mut self, event: &Event) -> Option<String> {
        let track_sid = match event {
            Event::Track { info, .. } if info.kind == "video" => {
                self.asked.insert(info.track_sid.clone(), None);
                &info.track_sid
            }
            // Where no key opens a track, its publisher need not send ever more key frames; the opener says when one helps.
            Event::Gap { reason: GapReason::Encrypted, .. } => return None,
            Event::Gap { track_sid, .. } => track_sid,
            Event::TrackEnded { track_sid, .. } => {
                self.asked.remove(track_sid);
                return None;
            }
            Event::Opened
            | Event::Track { .. }
            | Event::Packets { .. }
            | Event::Participant { .. }
            | Event::Muted { .. }
            | Event::Consent { .. }
            | Event::MediaKey { .. }
            | Event::MediaKeyNote { .. }
            | Event::PartEnded
            | Event::CallEnded => return None,
        };
        self.may_ask(track_sid).then(|| track_sid.clone())
    }

    /// A video track that was not asked for one just now.
    fn may_ask(&mut self, track_sid: &str) -> bool {
        let Some(last) = self.asked.get_mut(track_sid) else { return false };
        if last.is_some_and(|at| at.elapsed() < limits::KEY_FRAME_EVERY) {
            return false;
        }
        *last = Some(Instant::now());
        true
    }
}

/// The manifest's reason where an event is the last one.
fn end(event: &Event) -> Option<&'static str> {
    match event {
        Event::CallEnded => Some("call_ended"),
        Event::PartEnded => Some("part_ended"),
        Event::Opened
        | Event::Track { .. }
        | Event::Packets { .. }
        | Event::Gap { .. }
        | Event::TrackEnded { .. }
        | Event::Participant { .. }
        | Event::Muted { .. }
        | Event::Consent { .. }
        | Event::MediaKey { .. }
        | Event::MediaKeyNote { .. } => None,
    }
}

fn told(word: Word) -> Option<Last> {
    match word {
        Word::Work => None,
        Word::Stop => Some(Last::End("stopped")),
        Word::Release | Word::Expired => Some(Last::Pause),
        Word::Fenced => Some(Last::Drop),
    }
}
