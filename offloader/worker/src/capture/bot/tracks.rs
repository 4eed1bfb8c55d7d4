//! Tracks of the call: their packets in order, to the writer and the ears, once it is known whose they are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::manifest::TrackInfo;
use archive::record::GapReason;
use rtc_client::mattermost::{self as mm, TrackKind};
use rtc_client::rtp;
use tokio::sync::mpsc;

use super::people::Who;
use super::{Visit, pass};
use crate::capture::Command;
use crate::capture::sequence::{Arrived, Ordered, Sequence};
use crate::capture::source::Event;
use crate::job::now_us;
use crate::render::depacket::is_key_frame;

/// Sounds are waited for as long as a talk bears; pictures until they were asked for again.
const AUDIO_WAIT_US: i64 = 100_000;
const VIDEO_WAIT_US: i64 = 400_000;
/// Packets of a track that wait for its owner's name.
const NAMELESS_MAX: usize = 8_192;

pub(super) struct Track {
    pub(super) info: mm::TrackInfo,
    order: Sequence,
    /// Told to the writer.
    pub(super) announced: bool,
    pub(super) waiting: Vec<Event>,
    /// It ended before anybody knew whose it is.
    pub(super) ended: bool,
}

impl Visit {
    /// A track comes, or goes on over a new connection; what it holds is handed on from its first packet.
    pub(super) fn track_came(&mut self, info: mm::TrackInfo) {
        // Where only words are wanted nobody needs the pictures.
        if !info.kind.is_audio() && self.call.recording.is_none() {
            return;
        }
        self.ask_who(&info.session_id);
        if let Some(track) = self.tracks.get_mut(&info.track_id) {
            track.order.begin_anew();
            track.ended = false;
            if track.info.mime != info.mime {
                (track.info, track.announced) = (info, false);
            }
            return;
        }
        let wait_us = if info.kind.is_audio() { AUDIO_WAIT_US } else { VIDEO_WAIT_US };
        let order = Sequence::new(info.clock_rate, wait_us);
        self.tracks.insert(Arc::clone(&info.track_id), Track { info, order, announced: false, waiting: Vec::new(), ended: false });
    }

    pub(super) async fn packet(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, arrived_us: u64, packet: rtp::Packet) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        let rtp::Packet { header, payload } = packet;
        track.order.push(Arrived {
            at_us: arrived_us.cast_signed(),
            sequence: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            key_frame: is_key_frame(&track.info.mime, &payload),
            payload,
        });
        self.drain(commands, id, now_us()).await;
    }

    /// What waits no longer.
    pub(super) async fn flush(&mut self, commands: &mpsc::Sender<Command>, all: bool) {
        let now = if all { i64::MAX } else { now_us() };
        for id in self.tracks.keys().cloned().collect::<Vec<_>>() {
            self.drain(commands, &id, now).await;
        }
        if all {
            // Names that did not come in time do not cost anybody's words.
            let asked = self.members.iter().filter(|(_, who)| matches!(who, Who::Asked)).map(|(session, _)| session);
            // Of people who have left, too.
            let waiting = self.tracks.values().filter(|track| !track.waiting.is_empty()).map(|track| &track.info.session_id);
            for session in asked.chain(waiting).cloned().collect::<BTreeSet<_>>() {
                let member = self.unnamed(&session);
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
    pub(super) async fn hand_on(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, event: Event) {
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

    pub(super) async fn track_muted(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>, muted: bool) {
        if self.tracks.get(id).is_some_and(|track| track.announced) {
            pass(commands, Command::Event(Event::Muted { track_sid: id.to_string(), at_us: now_us(), muted })).await;
        }
    }

    pub(super) async fn track_ended(&mut self, commands: &mpsc::Sender<Command>, id: &Arc<str>) {
        self.drain(commands, id, i64::MAX).await;
        let Some(track) = self.tracks.get_mut(id) else { return };
        if track.announced {
            self.tell(commands, id, Event::TrackEnded { track_sid: id.to_string(), at_us: now_us() }).await;
        } else if !track.waiting.is_empty() {
            // Who left before anybody knew their name said it all the same.
            track.ended = true;
            return;
        }
        self.tracks.remove(id);
    }

    /// The line that comes before a track's packets, once its owner is known.
    pub(super) fn track_event(&self, track: &Track) -> Option<Event> {
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
}
