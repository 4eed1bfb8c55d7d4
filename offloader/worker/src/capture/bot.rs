//! The bot's part of a recording: it joins a call of a Mattermost server, says that it has begun, and hands on what it gets.
//!
//! One visit serves everything that the server asked for of a call: the file, the words, the live captions. Time zero of all of
//! them is the moment at which the plugin took the word that the recording has started.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::manifest::{Consent, TrackInfo};
use archive::record::GapReason;
use offloader_jobs::mattermost::{BotCheckpoint, MattermostCall, MattermostTranscription};
use offloader_jobs::order::{BotOrder, RecordOrder, SourceOrder, WorkOrder};
use rtc_client::ClientError;
use rtc_client::mattermost::{self as mm, Address, Bot, BotDial, Ids, JobStatus, JobType, Profile, Site, SiteError, TrackKind, UserChange};
use tokio::sync::mpsc;

use super::sequence::{Arrived, Ordered, Sequence};
use super::source::Event;
use super::{Command, KeyFrames, Last, Writing, told};
use crate::caption::job::Hearing;
use crate::job::{JobAddress, Lease, Outcome, Word, now_us};
use crate::limits;
use crate::render::depacket::is_key_frame;

/// The plugin gives up on a bot that has not begun within a minute of the request; what is left is the way to the offloader.
const BEGIN_WITHIN: Duration = Duration::from_secs(50);
/// Without media after this a call cannot be recorded.
const MEDIA_WITHIN: Duration = Duration::from_secs(20);
/// Who somebody is, is asked so often; then they are recorded without a name.
const PROFILE_TRIES: u32 = 5;
const PROFILE_PAUSE: Duration = Duration::from_secs(1);
/// A status is told so often.
const STATUS_TRIES: u32 = 3;
const STATUS_PAUSE: Duration = Duration::from_secs(2);
/// The offloader is asked so often whether a transcription came to this recording.
const ORDER_EVERY: Duration = Duration::from_secs(1);
/// Sounds are waited for as long as a talk bears; pictures until they were asked for again.
const AUDIO_WAIT_US: i64 = 100_000;
const VIDEO_WAIT_US: i64 = 400_000;
/// Packets of a track that wait for its owner's name.
const NAMELESS_MAX: usize = 8_192;
/// Answers that may wait to be read.
const NAMES_MAX: usize = 256;
/// The plugin takes ten messages a second of a session: with this between them captions leave room for others.
const CAPTION_EVERY: Duration = Duration::from_millis(150);

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
            return match Writing::start(&order) {
                Ok(writing) => writing.end(Last::End("connection_lost"), lease).await,
                Err(outcome) => outcome,
            };
        }
        Err(NotBegun::No(error)) => return Outcome::Failed { error, retry: false },
    };
    let mut writing = match Writing::start(&order) {
        Ok(writing) => writing,
        Err(outcome) => return outcome,
    };
    let commands = writing.commands.clone();
    let last = tokio::select! {
        last = visit.follow(address, lease, &commands, events) => last,
        outcome = writing.broken() => {
            let _ = visit.bot.leave().await;
            return outcome;
        }
    };
    drop(commands);
    // A successor goes on with this session; otherwise people see at once that nobody records any more.
    if matches!(last, Last::End(_)) {
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

/// Somebody in the call.
#[derive(Clone)]
struct Member {
    identity: String,
    name: String,
}

/// Whose session it is.
struct Named {
    session: String,
    member: Member,
}

/// What is known of a session's owner.
enum Who {
    Asked,
    Known(Member),
}

struct Track {
    info: mm::TrackInfo,
    order: Sequence,
    /// Told to the writer.
    announced: bool,
    waiting: Vec<Event>,
}

/// A bot in a call.
struct Visit {
    bot: Bot,
    site: Site,
    call: Box<MattermostCall>,
    checkpoint: BotCheckpoint,
    members: HashMap<String, Who>,
    tracks: HashMap<Arc<str>, Track>,
    key_frames: KeyFrames,
    /// Answers to who sessions are.
    names: mpsc::Receiver<Named>,
    tell_name: mpsc::Sender<Named>,
    captions: Option<Captions>,
    /// The call's recording has started, by the plugin's own word.
    recording_started: bool,
    /// When, by the plugin's clock: tells this recording's end from another's.
    start_at: i64,
    model: offloader_jobs::order::ModelOrder,
}

/// The words have begun: the plugin was told, and the ears are open where captions are wanted.
struct Words {
    id: String,
    hearing: Option<Hearing>,
}

/// Live captions of the call.
struct Captions {
    hearing: Hearing,
    /// The latest of each speaker that was not sent yet, in the order of speaking.
    waiting: Vec<(String, String, f64)>,
    /// How far the sound went that the last caption of a session told of, ms.
    told_to_ms: HashMap<String, u64>,
    overrun: Option<Instant>,
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
            let (bot, mut events, early) = enter(&at, order, &job).await?;
            let mut visit = Self::new(bot, site.clone(), order);
            visit.note_ids();
            visit.save(address).await;
            for event in early {
                visit.take(event, None).await;
            }
            visit.started(address, job_type, &job, &mut events).await?;
            Ok::<_, String>((visit, events))
        };
        let begun = tokio::select! {
            biased;
            _ = word.wait_for(|word| *word != Word::Work) => return Err(NotBegun::Interrupted),
            begun = begun => begun,
        };
        match begun {
            Ok(begun) => Ok(begun),
            Err(error) => {
                if order.checkpoint.started.is_empty() {
                    // The plugin tells people at once, instead of after its minute. It may be as far away as the call was.
                    let failed = JobStatus::Failed(error.clone());
                    if let Err(status) = site.status(&call.channel_id, &job, job_type, &failed).await {
                        tracing::debug!("the failure could not be told: {status}");
                    }
                }
                Err(NotBegun::No(error))
            }
        }
    }

    fn new(bot: Bot, site: Site, order: &BotOrder) -> Self {
        let (tell_name, names) = mpsc::channel(NAMES_MAX);
        Self {
            bot,
            site,
            call: order.call.clone(),
            checkpoint: order.checkpoint.clone(),
            members: HashMap::new(),
            tracks: HashMap::new(),
            key_frames: KeyFrames::default(),
            names,
            tell_name,
            captions: None,
            recording_started: false,
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

    /// Tells the plugin that the job has started; returns at time zero.
    async fn started(
        &mut self,
        address: &JobAddress,
        job_type: JobType,
        job: &str,
        events: &mut mpsc::Receiver<mm::Event>,
    ) -> Result<(), String> {
        if self.checkpoint.started.iter().any(|one| one == job) {
            self.recording_started = true;
            return Ok(());
        }
        if job_type == JobType::Transcribing {
            // Words alone: another offloader records, and its start is time zero for both.
            self.wait_for_recording(events).await?;
        }
        let asked = tell_started(&self.site, &self.call.channel_id, job_type, job).await;
        asked.map_err(|error| format!("the plugin does not take that the job has started: {error}"))?;
        self.recording_started = true;
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
                    pass(commands, Command::Tick).await;
                }
                _ = show.tick() => self.show(),
                Some(transcription) = orders.recv() => {
                    self.call.transcription = Some(transcription.clone());
                    self.begin_words(transcription, ready.clone());
                }
                Some(begun) = words.recv() => self.words_begun(address, begun).await,
                Some(named) = self.names.recv() => self.known(commands, named.session, named.member).await,
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

    /// The words are wanted too: says so and opens the ears, beside the capture, which waits for neither.
    fn begin_words(&self, transcription: MattermostTranscription, ready: mpsc::Sender<Words>) {
        let told = self.checkpoint.started.contains(&transcription.id);
        let (site, channel, model) = (self.site.clone(), self.call.channel_id.clone(), self.model.clone());
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

    async fn words_begun(&mut self, address: &JobAddress, words: Words) {
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

    fn known_members(&self) -> Vec<Member> {
        self.members.values().filter_map(|who| if let Who::Known(member) = who { Some(member.clone()) } else { None }).collect()
    }

    /// Takes what the client says. Before time zero there is nobody to hand it to: then packets are dropped.
    async fn take(&mut self, event: mm::Event, commands: Option<&mpsc::Sender<Command>>) -> Option<Last> {
        match event {
            mm::Event::Rtp { track_id, arrived_us, packet } => {
                if let Some(commands) = commands {
                    let arrived = Arrived {
                        at_us: arrived_us.cast_signed(),
                        sequence: packet.header.sequence_number,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        key_frame: false,
                        payload: packet.payload,
                    };
                    self.packet(commands, &track_id, arrived).await;
                }
            }
            // Where only words are wanted nobody needs the pictures.
            mm::Event::Track(info) if !info.kind.is_audio() && self.call.recording.is_none() => {}
            mm::Event::Track(info) => {
                self.ask_who(&info.session_id);
                let wait_us = if info.kind.is_audio() { AUDIO_WAIT_US } else { VIDEO_WAIT_US };
                let order = Sequence::new(info.clock_rate, wait_us);
                self.tracks.insert(Arc::clone(&info.track_id), Track { info, order, announced: false, waiting: Vec::new() });
            }
            mm::Event::TrackEnded { track_id } => {
                if let Some(commands) = commands {
                    self.track_ended(commands, &track_id).await;
                }
                self.tracks.remove(&track_id);
            }
            mm::Event::CallState(state) => {
                if let Some(job) = state.recording.as_ref().filter(|job| job.start_at > 0 && job.end_at == 0) {
                    (self.recording_started, self.start_at) = (true, job.start_at);
                }
                for session in &state.sessions {
                    self.ask_who(&session.session_id);
                }
            }
            mm::Event::User { change, session_id, .. } => self.changed(commands, change, &session_id).await,
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
            mm::Event::Joined(_) | mm::Event::Ids(_) | mm::Event::Media(_) | mm::Event::HostChanged { .. } | mm::Event::Caption { .. } => {}
        }
        None
    }

    async fn changed(&mut self, commands: Option<&mpsc::Sender<Command>>, change: UserChange, session: &str) {
        match change {
            UserChange::Joined => self.ask_who(session),
            UserChange::Left => {
                if let (Some(Who::Known(member)), Some(commands)) = (self.members.remove(session), commands) {
                    // Somebody with two pages open is there until the second is closed.
                    if !self.known_members().iter().any(|other| other.identity == member.identity) {
                        let Member { identity, name } = member;
                        let left = Event::Participant { at_us: now_us(), identity, display_name: name, present: false };
                        pass(commands, Command::Event(left)).await;
                    }
                }
            }
            UserChange::VideoOn | UserChange::VideoOff => {
                let muted = change == UserChange::VideoOff;
                let camera = self.tracks.values().find(|track| track.info.kind == TrackKind::Video && track.info.session_id == session);
                if let (Some(track), Some(commands)) = (camera.filter(|track| track.announced), commands) {
                    let track_sid = track.info.track_id.to_string();
                    pass(commands, Command::Event(Event::Muted { track_sid, at_us: now_us(), muted })).await;
                }
            }
            UserChange::ScreenOff => {
                let ended: Vec<Arc<str>> = self
                    .tracks
                    .iter()
                    .filter(|(_, track)| {
                        matches!(track.info.kind, TrackKind::Screen | TrackKind::ScreenAudio) && track.info.session_id == session
                    })
                    .map(|(id, _)| Arc::clone(id))
                    .collect();
                for id in ended {
                    if let Some(commands) = commands {
                        self.track_ended(commands, &id).await;
                    }
                    self.tracks.remove(&id);
                }
            }
            UserChange::Muted
            | UserChange::Unmuted
            | UserChange::VoiceOn
            | UserChange::VoiceOff
            | UserChange::ScreenOn
            | UserChange::HandRaised
            | UserChange::HandLowered => {}
        }
    }

    /// Asks the server whose session this is, once.
    fn ask_who(&mut self, session: &str) {
        if session.is_empty() || session == self.checkpoint.session_id || self.members.contains_key(session) {
            return;
        }
        self.members.insert(session.to_owned(), Who::Asked);
        let (site, channel, session, answer) =
            (self.site.clone(), self.call.channel_id.clone(), session.to_owned(), self.tell_name.clone());
        tokio::spawn(async move {
            let profile = ask(&site, &channel, &session).await;
            let member = match profile {
                Some(profile) => Member { name: profile.display_name().to_owned(), identity: profile.user_id },
                // Recorded all the same.
                None => Member { identity: session.clone(), name: "Unknown participant".to_owned() },
            };
            let _ = answer.send(Named { session, member }).await;
        });
    }

    /// Somebody's name came.
    async fn known(&mut self, commands: &mpsc::Sender<Command>, session: String, member: Member) {
        if !self.members.contains_key(&session) {
            // Left meanwhile; what they said is theirs all the same.
            self.members.insert(session.clone(), Who::Asked);
        }
        came(commands, &member).await;
        self.members.insert(session.clone(), Who::Known(member));
        let ids: Vec<Arc<str>> =
            self.tracks.iter().filter(|(_, track)| track.info.session_id == session).map(|(id, _)| Arc::clone(id)).collect();
        for id in ids {
            let waiting = self.tracks.get_mut(&id).map(|track| std::mem::take(&mut track.waiting)).unwrap_or_default();
            for event in waiting {
                self.hand_on(commands, &id, event).await;
            }
        }
    }

    async fn packet(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, arrived: Arrived) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        let key_frame = is_key_frame(&track.info.mime, &arrived.payload);
        track.order.push(Arrived { key_frame, ..arrived });
        self.drain(commands, id, now_us()).await;
    }

    /// What waits no longer.
    async fn flush(&mut self, commands: &mpsc::Sender<Command>, all: bool) {
        let now = if all { i64::MAX } else { now_us() };
        for id in self.tracks.keys().cloned().collect::<Vec<_>>() {
            self.drain(commands, &id, now).await;
        }
        if all {
            // Names that did not come in time do not cost anybody's words.
            for session in self.members.iter().filter(|(_, who)| matches!(who, Who::Asked)).map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                let member = Member { identity: session.clone(), name: "Unknown participant".to_owned() };
                self.known(commands, session, member).await;
            }
        }
    }

    async fn drain(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, now: i64) {
        while let Some(ordered) = self.tracks.get_mut(id).and_then(|track| track.order.poll(now)) {
            let track_sid = id.to_string();
            let event = match ordered {
                Ordered::Packet(packet) => Event::Packets { track_sid, packets: vec![packet] },
                Ordered::Gap { from_seq, packets, at_us } => Event::Gap { track_sid, at_us, from_seq, packets, reason: GapReason::Network },
            };
            self.hand_on(commands, id, event).await;
        }
    }

    /// To the writer and the ears, after the track itself; as long as nobody knows whose it is, it waits.
    async fn hand_on(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, event: Event) {
        let Some(track) = self.tracks.get(id) else { return };
        if !track.announced {
            let Some(first) = self.track_event(track) else {
                if let Some(track) = self.tracks.get_mut(id).filter(|track| track.waiting.len() < NAMELESS_MAX) {
                    track.waiting.push(event);
                }
                return;
            };
            if let Some(track) = self.tracks.get_mut(id) {
                track.announced = true;
            }
            self.tell(commands, id, first).await;
        }
        self.tell(commands, id, event).await;
    }

    async fn tell(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, event: Event) {
        if self.key_frames.wanted(&event).is_some() {
            // A session that is over says so by its last event.
            let _ = self.bot.request_key_frame(id);
        }
        if let Some(captions) = &mut self.captions
            && self.tracks.get(id).is_some_and(|track| track.info.kind == TrackKind::Voice)
            && !captions.hearing.tell(event.clone())
            && captions.overrun.is_none_or(|at| at.elapsed() > Duration::from_secs(1))
        {
            captions.overrun = Some(Instant::now());
            if let Some(track) = self.tracks.get(id) {
                let _ = self.bot.metric(&track.info.session_id, "live_captions_pktPayloadCh_buf_full");
            }
        }
        pass(commands, Command::Event(event)).await;
    }

    async fn track_ended(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>) {
        self.drain(commands, id, i64::MAX).await;
        if self.tracks.get(id).is_some_and(|track| track.announced) {
            self.tell(commands, id, Event::TrackEnded { track_sid: id.to_string(), at_us: now_us() }).await;
        }
    }

    /// The line that comes before a track's packets, once its owner is known.
    fn track_event(&self, track: &Track) -> Option<Event> {
        let info = &track.info;
        let Some(Who::Known(member)) = self.members.get(&info.session_id) else { return None };
        let (kind, source) = match info.kind {
            TrackKind::Voice => ("audio", "microphone"),
            TrackKind::Screen => ("video", "screen_share"),
            TrackKind::ScreenAudio => ("audio", "screen_share_audio"),
            TrackKind::Video => ("video", "camera"),
        };
        let info = TrackInfo {
            track_sid: info.track_id.to_string(),
            identity: member.identity.clone(),
            display_name: member.name.clone(),
            kind: kind.into(),
            source: source.into(),
            mime: info.mime.clone(),
            clock_rate: info.clock_rate,
            channels: info.channels.into(),
            payload_type: info.payload_type.into(),
            fmtp: info.fmtp.clone(),
            ..TrackInfo::default()
        };
        Some(Event::Track { at_us: now_us(), info })
    }

    /// Something was said.
    fn heard(&mut self, caption: &conclave_proto::v1::Caption, lease: &Lease) {
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
    fn show(&mut self) {
        if let Some(captions) = self.captions.as_mut().filter(|captions| !captions.waiting.is_empty()) {
            let (session, text, new_ms) = captions.waiting.remove(0);
            let _ = self.bot.caption(&session, &text, new_ms);
        }
    }
}

async fn tell_started(site: &Site, channel: &str, job_type: JobType, job: &str) -> Result<(), SiteError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match site.status(channel, job, job_type, &JobStatus::Started).await {
            Ok(()) => return Ok(()),
            // Told before, by us, and the answer was lost.
            Err(SiteError::Refused { status: 400, message }) if message.contains("already started") => return Ok(()),
            Err(error) if error.status().is_some_and(|status| status < 500) || tries == STATUS_TRIES => return Err(error),
            Err(error) => {
                tracing::warn!("{error}; trying again");
                tokio::time::sleep(STATUS_PAUSE).await;
            }
        }
    }
}

async fn next_caption(captions: &mut Option<Captions>) -> Option<conclave_proto::v1::Caption> {
    match captions {
        Some(captions) => captions.hearing.next().await,
        None => std::future::pending().await,
    }
}

/// Somebody is there. Who stays after the plugin's notice agrees (docs/decisions/0019): the plugin lets a bot in only for a recording
/// that it has told everybody of.
async fn came(commands: &mpsc::Sender<Command>, member: &Member) {
    let Member { identity, name } = member.clone();
    let consent = Consent {
        identity: identity.clone(),
        display_name: name.clone(),
        granted: true,
        answered_at_ms: now_us() / 1_000,
        notice_version: NOTICE_VERSION.to_owned(),
    };
    pass(commands, Command::Event(Event::Consent { at_us: now_us(), consent })).await;
    pass(commands, Command::Event(Event::Participant { at_us: now_us(), identity, display_name: name, present: true })).await;
}

/// Hands a command on. When the writer is gone its end decides.
async fn pass(commands: &mpsc::Sender<Command>, command: Command) {
    if commands.send(command).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// For which of the plugin's jobs the bot comes, and with whose session.
fn job_of(call: &MattermostCall) -> Option<(String, JobType, String)> {
    let recording = call.recording.as_ref().map(|job| (job.id.clone(), JobType::Recording, job.auth_token.clone()));
    recording.or_else(|| call.transcription.as_ref().map(|job| (job.id.clone(), JobType::Transcribing, job.auth_token.clone())))
}

/// Into the call, with media: until that is so, what happens is kept.
async fn enter(at: &Address, order: &BotOrder, job: &str) -> Result<(Bot, mpsc::Receiver<mm::Event>, Vec<mm::Event>), String> {
    let until = Instant::now() + BEGIN_WITHIN;
    let checkpoint = &order.checkpoint;
    let resume = (!checkpoint.started.is_empty())
        .then(|| Ids { original_conn_id: checkpoint.session_id.clone(), conn_id: checkpoint.connection_id.clone() });
    loop {
        let dial = BotDial {
            address: at.clone(),
            channel_id: order.call.channel_id.clone(),
            job_id: Some(job.to_owned()),
            resume: resume.clone(),
            local: local(&at.site_url).to_owned(),
            av1: true,
            dc_signaling: true,
        };
        let error = match Bot::join(dial).await {
            Ok((bot, mut events)) => match connected(&mut events).await {
                Ok(early) => return Ok((bot, events, early)),
                Err(error) => {
                    let _ = bot.leave().await;
                    return Err(error);
                }
            },
            // The plugin's own word: it does not change its mind.
            Err(error @ ClientError::Refused(_)) => return Err(error.to_string()),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until || resume.is_some() && until.saturating_duration_since(Instant::now()) < BEGIN_WITHIN / 2 {
            return Err(error);
        }
        tracing::warn!("{error}; trying again");
        tokio::time::sleep(limits::SITE_BACKOFF.0).await;
    }
}

/// Where everything is on this machine, media is too; from elsewhere loopback cannot be reached.
fn local(site_url: &str) -> &'static str {
    let host = site_url.split_once("://").map_or(site_url, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if host == "localhost" || host.starts_with("localhost:") || host.starts_with("127.") { "127.0.0.1" } else { "0.0.0.0" }
}

async fn connected(events: &mut mpsc::Receiver<mm::Event>) -> Result<Vec<mm::Event>, String> {
    let mut early = Vec::new();
    let until = tokio::time::Instant::now() + MEDIA_WITHIN;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Err(_) => {
                return Err(format!(
                    "no media within {} s: can this machine reach rtcd's UDP and TCP port (8443), and does rtcd advertise an address of its own?",
                    MEDIA_WITHIN.as_secs()
                ));
            }
            Ok(None) => return Err("the call ended while the bot came".to_owned()),
            Ok(Some(mm::Event::Lost { reason })) => return Err(reason),
            Ok(Some(mm::Event::Media(mm::MediaState::Connected))) => return Ok(early),
            Ok(Some(mm::Event::Media(mm::MediaState::Failed))) => return Err("the media connection failed".to_owned()),
            Ok(Some(event)) => early.push(event),
        }
    }
}

async fn ask(site: &Site, channel: &str, session: &str) -> Option<Profile> {
    for n in 0..PROFILE_TRIES {
        if n > 0 {
            tokio::time::sleep(PROFILE_PAUSE).await;
        }
        match site.profile(channel, session).await {
            Ok(profile) => return Some(profile),
            Err(error) => tracing::debug!("{error}"),
        }
    }
    tracing::warn!(session, "nobody could say who this is: recorded without a name");
    None
}

/// Tells once that a transcription came to this recording.
fn watch_order(address: JobAddress) -> mpsc::Receiver<MattermostTranscription> {
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
