//! The bot's part of a recording: it joins a call of a Mattermost server, says that it has begun, and hands on what it gets.
//!
//! One visit serves everything that the server asked for of a call: the file, the words, the live captions. Time zero of all of
//! them is the moment at which the plugin took the word that the recording has started.

mod notes;
mod people;
mod tracks;
mod way_in;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use offloader_jobs::mattermost::{BotCheckpoint, MattermostCall};
use offloader_jobs::order::{BotOrder, RecordOrder};
use rtc_client::mattermost::{self as mm, Address, Bot, JobStatus, JobType, Site, UserChange};
use tokio::sync::mpsc;

use self::notes::{Notes, Portrait};
use self::people::{Hints, NAMES_MAX, Named, Who, came};
use self::tracks::Track;
use self::way_in::{Entered, NoWayIn, enter, job_of, tell_started};
use self::words::{CAPTION_EVERY, Captions, next_caption, watch_order};
use super::{Command, KeyFrames, Last, Writing, told};
use crate::job::{JobAddress, Lease, Outcome, Word, now_us};
use crate::limits;

/// The plugin gives up on a bot that has not begun within a minute of the request; what is left is the way to the offloader.
const BEGIN_WITHIN: Duration = Duration::from_secs(50);

/// What the record of evidence says of consent.
const NOTICE_VERSION: &str = "mattermost-calls";
const NOTICE_TEXT: &str = "The Calls plugin of the Mattermost server shows everybody in the call that it is recorded; who stays agrees.";

/// Does a record job in a call of a Mattermost server.
pub(super) async fn run(address: &JobAddress, order: &RecordOrder, bot: BotOrder, lease: &Lease) -> Outcome {
    let mut order = order.clone();
    (order.params.notice_version, order.params.notice_text) = (NOTICE_VERSION.to_owned(), NOTICE_TEXT.to_owned());
    let began = !bot.checkpoint.started.is_empty();
    let (mut visit, events) = match Visit::begin(address, &bot, lease).await {
        Ok(begun) => begun,
        Err(NotBegun::Interrupted) => return interrupted(lease),
        Err(NotBegun::No(error)) if began => {
            // An earlier attempt recorded until it was killed; there is no way back into the call. What it has is the recording.
            tracing::warn!(job = %address.id, "{error}; the recording ends where the attempt before this one did");
            return match Writing::start(&order, now_us()) {
                Ok(writing) => writing.end(Last::End("connection_lost"), lease).await,
                Err(outcome) => outcome,
            };
        }
        Err(NotBegun::No(error)) => return Outcome::Failed { error, retry: false },
    };
    let mut writing = match Writing::start(&order, visit.began_us) {
        Ok(writing) => writing,
        Err(outcome) => return outcome,
    };
    let commands = writing.commands.clone();
    let last = tokio::select! {
        last = visit.follow(address, lease, &commands, events) => last,
        outcome = writing.broken() => {
            // A successor goes on with this session; for the plugin a job is over whose bot has left.
            if outcome.is_final() {
                let _ = visit.bot.leave().await;
            }
            return outcome;
        }
    };
    drop(commands);
    // A successor goes on with this session; otherwise people see at once that nobody records any more.
    if matches!(last, Last::End(reason) if reason != "call_ended") {
        let _ = visit.bot.leave().await;
    }
    writing.end(last, lease).await
}

fn interrupted(lease: &Lease) -> Outcome {
    match lease.word() {
        Word::Work | Word::Stop => Outcome::Done("{}".to_owned()),
        Word::Release => Outcome::Released,
        Word::Expired => Outcome::Expired,
        Word::Fenced => Outcome::Fenced,
    }
}

/// Why a visit did not begin.
enum NotBegun {
    /// The job was stopped or put down meanwhile.
    Interrupted,
    /// With words for people.
    No(String),
}

/// A bot in a call.
struct Visit {
    bot: Bot,
    site: Site,
    call: Box<MattermostCall>,
    checkpoint: BotCheckpoint,
    members: HashMap<String, Who>,
    hints: Hints,
    tracks: HashMap<Arc<str>, Track>,
    key_frames: KeyFrames,
    /// Answers to who sessions are.
    names: mpsc::Receiver<Named>,
    tell_name: mpsc::Sender<Named>,
    captions: Option<Captions>,
    /// What the picture shows besides.
    notes: Notes,
    portraits: mpsc::Receiver<Portrait>,
    /// The call's recording has started, by the plugin's own word.
    recording_started: bool,
    /// A state of the call had no recording that runs: the word to stop came while nobody listened.
    recording_over: bool,
    /// Time zero, by our clock, Unix µs.
    began_us: i64,
    /// When, by the plugin's clock: tells this recording's end from another's.
    start_at: i64,
    model: offloader_jobs::order::ModelOrder,
}

impl Visit {
    /// Joins (or goes on for an attempt that was killed), waits for media, and says that the job has started.
    async fn begin(address: &JobAddress, order: &BotOrder, lease: &Lease) -> Result<(Self, mpsc::Receiver<mm::Event>), NotBegun> {
        let call = &order.call;
        let (job, job_type, token) = job_of(call).ok_or_else(|| NotBegun::No("nobody asked for anything of this call".to_owned()))?;
        let at = Address { site_url: call.site_url.clone(), token, ca_file: call.ca_file.clone() };
        let site = Site::new(&at).map_err(|error| NotBegun::No(error.to_string()))?;
        let mut word = lease.watch();
        let begun = async {
            let Entered { bot, mut events, early } = enter(&at, order, &job).await?;
            let mut visit = Self::new(bot, site.clone(), order);
            visit.note_ids();
            visit.save(address).await;
            for event in early {
                visit.take(event, None).await;
            }
            match visit.started(address, job_type, &job, &mut events).await {
                Ok(()) => Ok((visit, events)),
                Err(error) => Err(NoWayIn { error, bot: Some(visit.bot) }),
            }
        };
        let begun = tokio::select! {
            biased;
            _ = word.wait_for(|word| *word != Word::Work) => return Err(NotBegun::Interrupted),
            begun = begun => begun,
        };
        match begun {
            Ok(begun) => Ok(begun),
            Err(NoWayIn { error, bot }) => {
                if order.checkpoint.started.is_empty() {
                    // The plugin tells people at once, instead of after its minute. It may be as far away as the call was.
                    let failed = JobStatus::Failed(error.clone());
                    if let Err(status) = site.status(&call.channel_id, &job, job_type, &failed).await {
                        tracing::debug!("the failure could not be told: {status}");
                    }
                }
                // Not before: a job that its bot has left is over, and nobody would read why.
                if let Some(bot) = bot {
                    let _ = bot.leave().await;
                }
                Err(NotBegun::No(error))
            }
        }
    }

    fn new(bot: Bot, site: Site, order: &BotOrder) -> Self {
        let (tell_name, names) = mpsc::channel(NAMES_MAX);
        let (notes, portraits) = Notes::new();
        Self {
            bot,
            site,
            call: order.call.clone(),
            checkpoint: order.checkpoint.clone(),
            members: HashMap::new(),
            hints: Hints::new(),
            tracks: HashMap::new(),
            key_frames: KeyFrames::default(),
            names,
            tell_name,
            captions: None,
            notes,
            portraits,
            recording_started: false,
            recording_over: false,
            began_us: 0,
            start_at: 0,
            model: order.model.clone(),
        }
    }

    fn note_ids(&mut self) {
        let ids = self.bot.ids();
        (self.checkpoint.session_id, self.checkpoint.connection_id) = (ids.original_conn_id, ids.conn_id);
    }

    /// Where the next attempt goes on. Without it the recording still is whole up to the kill, so a failure ends nothing.
    async fn save(&self, address: &JobAddress) {
        if let Err(error) = address.checkpoint(&self.checkpoint).await {
            tracing::warn!(job = %address.id, "{error}");
        }
    }

    /// Tells the plugin that the job has started, and notes time zero: what is done between it and the recording's first line may take
    /// as long as a disk does.
    async fn started(
        &mut self,
        address: &JobAddress,
        job_type: JobType,
        job: &str,
        events: &mut mpsc::Receiver<mm::Event>,
    ) -> Result<(), String> {
        if self.checkpoint.started.iter().any(|one| one == job) {
            (self.recording_started, self.began_us) = (true, now_us());
            return Ok(());
        }
        if job_type == JobType::Transcribing {
            // Words alone: another offloader records, and its start is time zero for both.
            self.wait_for_recording(events).await?;
            self.began_us = now_us();
        }
        let asked = tell_started(&self.site, &self.call.channel_id, job_type, job).await;
        let taken_us = asked.map_err(|error| format!("the plugin does not take that the job has started: {error}"))?;
        self.recording_started = true;
        if self.began_us == 0 {
            self.began_us = taken_us;
        }
        self.checkpoint.started.push(job.to_owned());
        self.save(address).await;
        Ok(())
    }

    async fn wait_for_recording(&mut self, events: &mut mpsc::Receiver<mm::Event>) -> Result<(), String> {
        let until = tokio::time::Instant::now() + BEGIN_WITHIN;
        while !self.recording_started {
            let event = tokio::time::timeout_at(until, events.recv()).await;
            let event = event.map_err(|_| "the recording that these words belong to has not started".to_owned())?;
            self.take(event.ok_or("the call is over")?, None).await;
        }
        Ok(())
    }

    /// Hands on what happens until the call or the job ends.
    async fn follow(
        &mut self,
        address: &JobAddress,
        lease: &Lease,
        commands: &mpsc::Sender<Command>,
        mut events: mpsc::Receiver<mm::Event>,
    ) -> Last {
        let mut word = lease.watch();
        let mut tick = tokio::time::interval(limits::CAPTURE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut show = tokio::time::interval(CAPTION_EVERY);
        show.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut orders = watch_order(address.clone());
        for member in self.known_members() {
            came(commands, &member).await;
        }
        let (ready, mut words) = mpsc::channel(1);
        if let Some(transcription) = self.call.transcription.clone() {
            self.begin_words(transcription, ready.clone());
        }
        loop {
            if self.recording_over {
                self.flush(commands, true).await;
                return Last::End("stopped");
            }
            tokio::select! {
                biased;
                _ = word.changed() => {
                    if let Some(last) = told(*word.borrow()) {
                        self.flush(commands, true).await;
                        return last;
                    }
                }
                _ = tick.tick() => {
                    self.flush(commands, false).await;
                    self.note(commands).await;
                    pass(commands, Command::Tick).await;
                }
                _ = show.tick() => self.show(),
                Some(transcription) = orders.recv() => {
                    self.call.transcription = Some(transcription.clone());
                    self.begin_words(transcription, ready.clone());
                }
                Some(begun) = words.recv() => self.words_begun(address, begun).await,
                Some(Named { session, member }) = self.names.recv() => {
                    let member = member.unwrap_or_else(|| self.unnamed(&session));
                    self.known(commands, session, member).await;
                }
                Some(portrait) = self.portraits.recv() => self.portrait(commands, portrait).await,
                Some(caption) = next_caption(&mut self.captions) => self.heard(&caption, lease),
                event = events.recv() => {
                    let Some(event) = event else { return Last::End("connection_lost") };
                    let ids = matches!(event, mm::Event::Ids(_));
                    if let Some(last) = self.take(event, Some(commands)).await {
                        self.flush(commands, true).await;
                        return last;
                    }
                    if ids {
                        self.note_ids();
                        self.save(address).await;
                    }
                }
            }
        }
    }

    /// Takes what the client says. Before time zero there is nobody to hand it to: then packets are dropped.
    async fn take(&mut self, event: mm::Event, commands: Option<&mpsc::Sender<Command>>) -> Option<Last> {
        match event {
            mm::Event::Rtp { track_id, arrived_us, packet } => {
                if let Some(commands) = commands {
                    self.packet(commands, &track_id, arrived_us, packet).await;
                }
            }
            mm::Event::Track(info) => self.track_came(info),
            mm::Event::TrackEnded { track_id } => match commands {
                Some(commands) => self.track_ended(commands, &track_id).await,
                None => drop(self.tracks.remove(&track_id)),
            },
            mm::Event::TrackMuted { kind: mm::TrackKind::Voice, session_id, muted, .. } => {
                self.notes.changed(if muted { UserChange::Muted } else { UserChange::Unmuted }, &session_id);
            }
            mm::Event::TrackMuted { track_id, muted, .. } => {
                if let Some(commands) = commands {
                    self.track_muted(commands, &track_id, muted).await;
                }
            }
            mm::Event::Present { session_id, user_id, name } => self.present(&session_id, user_id, name),
            mm::Event::CallState(state) => {
                if let Some(job) = state.recording.as_ref().filter(|job| job.start_at > 0 && job.end_at == 0) {
                    (self.recording_started, self.start_at) = (true, job.start_at);
                }
                // Told when a socket is another one: after our own start there is a recording for as long as ours goes on.
                let begun = !self.checkpoint.started.is_empty();
                self.recording_over |= begun && state.recording.as_ref().is_none_or(|job| job.end_at > 0);
                self.notes.state(&state);
                for session in &state.sessions {
                    self.ask_who(&session.session_id);
                }
            }
            mm::Event::User { change, session_id, .. } => {
                self.notes.changed(change, &session_id);
                self.changed(commands, change, &session_id).await;
            }
            mm::Event::HostChanged { user_id } => self.notes.host(user_id),
            mm::Event::Reacted { session_id, user_id, emoji } => self.notes.reacted(session_id, user_id, emoji),
            mm::Event::JobState(state) => {
                if state.job_type == Some(JobType::Recording) && state.start_at > 0 {
                    if state.end_at == 0 {
                        (self.recording_started, self.start_at) = (true, state.start_at);
                    } else if commands.is_some() && state.start_at == self.start_at {
                        // The end of this very recording, in case the word to stop got lost.
                        return Some(Last::End("stopped"));
                    }
                }
            }
            mm::Event::JobStop { job_id } => {
                let recording = self.call.recording.as_ref().is_some_and(|job| job.id == job_id);
                let transcription = self.call.transcription.as_ref().is_some_and(|job| job.id == job_id);
                if recording || transcription {
                    return Some(Last::End("stopped"));
                }
            }
            mm::Event::CallEnded => return Some(Last::End("call_ended")),
            mm::Event::Lost { reason } => {
                tracing::warn!("out of the call: {reason}");
                return Some(Last::End("connection_lost"));
            }
            mm::Event::Joined(_) | mm::Event::Ids(_) | mm::Event::Media(_) | mm::Event::Caption { .. } => {}
        }
        None
    }
}

/// Hands a command on. When the writer is gone its end decides.
async fn pass(commands: &mpsc::Sender<Command>, command: Command) {
    if commands.send(command).await.is_err() {
        std::future::pending::<()>().await;
    }
}
