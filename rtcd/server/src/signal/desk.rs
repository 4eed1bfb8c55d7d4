//! As many desks as shards: the task that owns the dialect's state for its share of the calls and stands between links and cores.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conclave_proto::v1::{self, call_event, from_media::Body};
use rtcd_core::ids::{CallId, Channel, PeerId};
use rtcd_core::output::{EndReason, Event};
use rtcd_core::report::PeerReport;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc, oneshot};

use super::grpc::figures::measure;
use super::grpc::links::Links;
use super::livekit::{Adapter, end_reason};
use super::livekit_server::agents::Agents;
use super::livekit_server::egress::standing::Due;
use super::livekit_server::webhooks::Webhooks;
use super::mattermost::corner::Corner;
use super::mattermost::reception::is_ours;
use super::mattermost::session;
use super::media::Media;
use super::probe::{Probes, is_probe};
use super::seam::{AdapterInput, AdapterOutput, AdapterSettings, Moment, OWN_SOCKETS, RosterCall};
use crate::admit::split_call_id;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::shard::{Command, Note};

/// How often adapters may look at their timers.
const TICK: Duration = Duration::from_secs(1);

/// What a desk is asked.
#[derive(Debug)]
pub enum DeskInput {
    /// For the adapter.
    Adapter(AdapterInput),
    /// For the one of Mattermost's clients.
    Mattermost(session::Input),
    /// A probe's credentials; dropped unanswered when there are too many.
    Probe(oneshot::Sender<v1::ProbeResponse>),
    /// Who is in which call.
    Roster(oneshot::Sender<Vec<(RosterCall, Vec<u8>)>>),
    /// For the shards of a call.
    Media(Command),
    /// On which shard somebody is; dropped unanswered when on none.
    ShardOf(PeerId, oneshot::Sender<u8>),
}

/// See the module.
pub struct Desk {
    /// The media threads.
    pub media: Media,
    /// Where answers go.
    pub links: Arc<Links>,
    /// Who is where.
    pub directory: Arc<Directory>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where what happens in LiveKit's rooms is told, if anywhere.
    pub webhooks: Option<Arc<Webhooks>>,
    /// Who gives LiveKit's agents their jobs there.
    pub agents: Arc<Agents>,
    /// Where egresses are begun that a room's maker ordered.
    pub due: mpsc::Sender<Due>,
    /// For Mattermost's clients, where they are served.
    pub corner: Option<Corner>,
}

impl Desk {
    /// Serves until the node ends.
    pub async fn run(mut self, settings: AdapterSettings, mut inputs: mpsc::Receiver<DeskInput>, mut notes: mpsc::Receiver<Note>) {
        let mut adapter = Adapter::new(settings);
        let mut leaving = Leaving::default();
        let mut probes = Probes::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut outputs = Vec::new();
        loop {
            let input = tokio::select! {
                input = inputs.recv() => match input {
                    Some(DeskInput::Adapter(input)) => input,
                    Some(DeskInput::Mattermost(input)) => {
                        self.foreign(&mut leaving, input).await;
                        continue;
                    }
                    Some(DeskInput::Probe(reply)) => {
                        if let Some(join) = probes.open(reply) {
                            self.media.join_probe(join).await;
                        }
                        continue;
                    }
                    Some(DeskInput::Roster(reply)) => {
                        let foreign = self.corner.as_ref().map(Corner::roster).unwrap_or_default();
                        let calls = adapter.roster().into_iter().chain(foreign).map(|call| {
                            let shards = self.media.shards_of(&call.call);
                            (call, shards)
                        });
                        let _ = reply.send(calls.collect());
                        continue;
                    }
                    Some(DeskInput::Media(command)) => {
                        self.media.command(command).await;
                        continue;
                    }
                    Some(DeskInput::ShardOf(peer, reply)) => {
                        if let Some(shard) = self.media.shard_of(&peer) {
                            let _ = reply.send(shard);
                        }
                        continue;
                    }
                    None => return,
                },
                note = notes.recv() => match note {
                    Some(Note::Signal { peer, signal }) if probes.handle(&peer, &signal) => continue,
                    Some(Note::Event { call, .. }) if is_probe(&call) => continue,
                    Some(Note::Origin(origin)) => {
                        self.media.note_origin(origin).await;
                        continue;
                    }
                    Some(Note::Signal { peer, signal }) => {
                        self.media.note_signal(&peer, &signal).await;
                        if is_ours(peer.as_str()) {
                            self.metrics.observe_signal(&peer, &signal);
                            self.foreign(&mut leaving, session::Input::Signal { peer, signal }).await;
                            continue;
                        }
                        AdapterInput::Signal { peer, signal }
                    }
                    Some(Note::Event { call, event }) => {
                        self.media.note_event(&event).await;
                        AdapterInput::Event { call, event }
                    }
                    Some(Note::Data { peer, text, payload, .. }) if is_ours(peer.as_str()) => {
                        self.foreign(&mut leaving, session::Input::Data { peer, text, payload }).await;
                        continue;
                    }
                    Some(Note::Data { call, peer, channel, text: _, payload }) => {
                        AdapterInput::Data { call, peer, reliable: channel == Channel::Reliable, payload }
                    }
                    Some(Note::DataTrack { call, to, packet }) => {
                        self.media.packet(call, &to, packet);
                        continue;
                    }
                    // The shard has ended; the node notices by itself.
                    None => return,
                },
                _ = tick.tick() => AdapterInput::Tick,
            };
            let now = moment();
            self.observe_input(&input, now);
            if let AdapterInput::Event { call, event: Event::Departed { peer, reason, report } } = &input {
                self.departed(&mut leaving, call, peer, *reason, report, now);
                continue;
            }
            // What concerns everybody concerns Mattermost's clients too; an event of one of their calls nobody else.
            #[allow(clippy::wildcard_enum_match_arm, reason = "the others are of one dialect")]
            match input {
                AdapterInput::Event { call, event } if is_ours(call.as_str()) => {
                    self.foreign(&mut leaving, session::Input::Event { call, event }).await;
                    continue;
                }
                AdapterInput::Tick => self.foreign(&mut leaving, session::Input::Tick).await,
                AdapterInput::EndAll { .. } => self.foreign(&mut leaving, session::Input::EndAll).await,
                _ => {}
            }
            adapter.handle(now, input, &mut outputs);
            // What the links refuse comes back to the adapter, which may answer again.
            while !outputs.is_empty() {
                let mut refused = Vec::new();
                for output in outputs.drain(..) {
                    self.apply(output, &mut refused, &mut leaving).await;
                }
                for input in refused {
                    adapter.handle(now, input, &mut outputs);
                }
            }
        }
    }

    /// For Mattermost's clients.
    async fn foreign(&mut self, leaving: &mut Leaving, input: session::Input) {
        let Some(corner) = &mut self.corner else { return };
        for output in corner.handle(moment(), input) {
            // It says nothing over links, so nothing is refused there.
            self.apply(output, &mut Vec::new(), leaving).await;
        }
    }

    async fn apply(&mut self, output: AdapterOutput, refused: &mut Vec<AdapterInput>, leaving: &mut Leaving) {
        match output {
            AdapterOutput::Core(command) => self.media.command(command).await,
            AdapterOutput::JoinAck { session, ack } => {
                if !ack.accepted {
                    // Nothing more is said on a refused session.
                    if let Some(link) = self.links.get(session.link) {
                        link.close_session(&session.id);
                    }
                }
                self.links.push_session(&session, Body::JoinAck(ack));
            }
            AdapterOutput::Frame { session, livekit } => {
                let frame = Links::session_frame(&session, livekit);
                if !self.links.push_session(&session, frame) {
                    tracing::warn!(session = %short(&session.id), "a client does not read its signalling: its session is ended");
                    refused.push(AdapterInput::Leave { session, connection_lost: true });
                }
            }
            // Message servers make the tokens of theirs.
            AdapterOutput::Refresh { session } if session.link == OWN_SOCKETS => self.links.sockets.refresh(&session.id),
            AdapterOutput::Refresh { .. } => {}
            AdapterOutput::SessionEnded { session, ended } => {
                if let Some(link) = self.links.get(session.link) {
                    link.close_session(&session.id);
                }
                self.links.push_session(&session, Body::SessionEnded(ended));
            }
            AdapterOutput::Fault { call, fault } => self.metrics.observe_fault(&call, fault),
            AdapterOutput::MediaKey { call, key } => self.directory.granted(&call, *key, moment().unix_ms),
            AdapterOutput::Encrypted { call, peer, track, how } => self.directory.encrypted(&call, &peer, &track, how),
            AdapterOutput::Consented { call, consent } => self.directory.consented(&call, &consent, moment().unix_ms),
            AdapterOutput::Webhook(event) => {
                if let Some(webhooks) = &self.webhooks {
                    webhooks.tell(*event);
                }
            }
            AdapterOutput::Agents(news) => self.agents.tell(*news),
            AdapterOutput::Egress(due) => {
                if let Err(error) = self.due.try_send(*due) {
                    tracing::error!(%error, "an egress that a room's maker ordered was not begun: more are due at once than this node begins");
                }
            }
            AdapterOutput::RoomAnswer { reply, answer } => drop(reply.send(answer)),
            AdapterOutput::HostActionResult { link, result } => self.links.push_link(link, Body::HostActionResult(result)),
            AdapterOutput::Event { call, event } => {
                match &event.event {
                    Some(call_event::Event::Joined(joined)) => {
                        tracing::info!(?call, peer = %short(&joined.participant_sid), "joined");
                        self.directory.joined(&call, joined, event.at_ms);
                    }
                    Some(call_event::Event::Left(left)) => {
                        tracing::info!(?call, peer = %short(&left.participant_sid), reason = left.reason().as_str_name(), "left");
                        leaving.note(&self.directory, &call, left);
                        self.directory.left(&call, left, event.at_ms);
                    }
                    Some(call_event::Event::Ended(ended)) => {
                        tracing::info!(?call, attendance = ended.attendance.len(), "call ended");
                        self.directory.ended(&call, event.at_ms);
                    }
                    _ => {}
                }
                self.metrics.observe_event(&event);
                self.links.push_event(&call, &event);
            }
        }
    }

    /// The core's last word about somebody: to the message servers, with a name to it.
    fn departed(&self, leaving: &mut Leaving, call: &CallId, peer: &PeerId, reason: EndReason, report: &PeerReport, now: Moment) {
        let known = leaving.people.remove(peer.as_str());
        if known.is_none() {
            leaving.spoken_of.insert(peer.as_str().to_owned());
        }
        let Some((identity, display_name)) = known.or_else(|| self.directory.person(call, peer.as_str())) else { return };
        let mut participant =
            v1::ParticipantInfo { identity, participant_sid: peer.as_str().to_owned(), display_name, ..v1::ParticipantInfo::default() };
        measure(&mut participant, report);
        let departed = v1::ParticipantDeparted { participant: Some(participant), reason: end_reason(reason).into() };
        let event = v1::CallEvent {
            call_id: split_call_id(call).1.to_owned(),
            at_ms: now.unix_ms,
            event: Some(call_event::Event::Departed(Box::new(departed))),
        };
        self.links.push_event(call, &event);
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "nothing is written down of the others")]
    fn observe_input(&self, input: &AdapterInput, now: Moment) {
        match input {
            AdapterInput::Consent { call, consent } => self.directory.consented(call, consent, now.unix_ms),
            AdapterInput::Join { call, .. } => self.metrics.join_started(call),
            AdapterInput::Signal { peer, signal } => self.metrics.observe_signal(peer, signal),
            AdapterInput::Event { call, event } => self.metrics.observe_core_event(call, event, now.instant),
            _ => {}
        }
    }
}

/// People whose signalling has ended, until the core has said its last word about their media: the call may be forgotten by then.
#[derive(Default)]
struct Leaving {
    /// By the core's peer id: identity and name.
    people: FxHashMap<String, (String, String)>,
    /// Whom the core ended by itself and has spoken of: their signalling ends next.
    spoken_of: FxHashSet<String>,
}

impl Leaving {
    /// Each is there for the time of one command; more only while a shard stands still.
    const MAX: usize = 8192;

    fn note(&mut self, directory: &Directory, call: &CallId, left: &v1::ParticipantLeft) {
        if self.spoken_of.remove(&left.participant_sid) {
            return;
        }
        if self.people.len() >= Self::MAX {
            self.people.clear();
            self.spoken_of.clear();
        }
        if let Some(person) = directory.person(call, &left.participant_sid) {
            self.people.insert(left.participant_sid.clone(), person);
        }
    }
}

/// Now.
#[must_use]
pub fn moment() -> Moment {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Moment { instant: Instant::now(), unix_ms }
}

/// The loggable form of an id.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..id.floor_char_boundary(8)).unwrap_or_default()
}
