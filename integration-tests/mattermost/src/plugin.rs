//! What the plugin does with what people's pages and bots say, and as time goes by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::jobs::{Job, JobKind};
use crate::livekit::Ticket;
use crate::rtcd::ToRtcd;
use crate::world::{Call, Caption, Member, Out, Person, State, World, new_id, now_ms};

/// Somebody whose socket is lost is out of the call after this.
const GRACE: Duration = Duration::from_secs(10);
/// Messages of a session per second, and at once.
const RATE: (f64, f64) = (10.0, 100.0);

/// `rtc` message types.
pub(crate) const ICE: u8 = 1;
pub(crate) const SDP: u8 = 2;
const MUTE: u8 = 3;
const UNMUTE: u8 = 4;
const SCREEN_ON: u8 = 5;
const SCREEN_OFF: u8 = 6;
const VIDEO_ON: u8 = 9;
const VIDEO_OFF: u8 = 10;

impl World {
    /// An action of a connection's owner.
    pub(crate) fn act(&self, connection: &str, user: &str, action: &str, data: &Value, blob: Option<Vec<u8>>) {
        let mut state = self.lock();
        match action {
            "join" => self.join(&mut state, connection, user, data),
            "reconnect" => self.reconnect(&mut state, connection, user, data),
            "ping" => {}
            _ => {
                let Some(index) = state.members.iter().position(|one| one.connection.as_deref() == Some(connection)) else {
                    return state.breach(format!("{action} from a connection that is in no call"));
                };
                let (session, channel) = (state.members[index].session.clone(), state.members[index].channel.clone());
                if !state.members[index].may_speak() {
                    state.breach(format!("{action}: more messages than the plugin takes"));
                    return;
                }
                match action {
                    "leave" => self.leave(&mut state, &session),
                    "caption" => state.caption(user, &channel, data),
                    "metric" => state.metric(data),
                    "raise_hand" | "unraise_hand" => state.hand(index, action == "raise_hand"),
                    "react" => state.react(index, data),
                    _ => self.media(&mut state, index, &session, &channel, action, blob),
                }
            }
        }
    }

    fn media(&self, state: &mut State, index: usize, session: &str, channel: &str, action: &str, blob: Option<Vec<u8>>) {
        if self.livekit.is_some() {
            return state.breach(format!("{action}: with version 2 media is LiveKit's"));
        }
        let user = state.members[index].user.clone();
        let about = json!({ "session_id": session, "userID": user });
        let (kind, event) = match action {
            "sdp" => (SDP, None),
            "ice" => (ICE, None),
            "mute" => (MUTE, Some("user_muted")),
            "unmute" => (UNMUTE, Some("user_unmuted")),
            "screen_on" => (SCREEN_ON, Some("user_screen_on")),
            "screen_off" => (SCREEN_OFF, Some("user_screen_off")),
            "video_on" => (VIDEO_ON, Some("user_video_on")),
            "video_off" => (VIDEO_OFF, Some("user_video_off")),
            other => return state.breach(format!("no such action: {other}")),
        };
        if matches!(kind, ICE | SDP | SCREEN_ON | VIDEO_ON) && blob.is_none() {
            return state.breach(format!("{action} without data"));
        }
        match kind {
            MUTE | UNMUTE => state.members[index].unmuted = kind == UNMUTE,
            VIDEO_ON | VIDEO_OFF => state.members[index].video = kind == VIDEO_ON,
            SCREEN_ON | SCREEN_OFF => {
                let Some(call) = state.call(channel) else { return };
                match (&call.screen, kind) {
                    (Some(_), SCREEN_ON) => return,
                    (None, SCREEN_ON) => call.screen = Some(session.to_owned()),
                    (Some(holder), SCREEN_OFF) if holder == session => call.screen = None,
                    _ => return,
                }
            }
            _ => {}
        }
        let _ = self.to_rtcd.send(ToRtcd::Rtc { session: session.to_owned(), kind, data: blob.unwrap_or_default() });
        if let Some(event) = event {
            state.tell_call(channel, event, &about);
        }
    }

    fn join(&self, state: &mut State, connection: &str, user: &str, data: &Value) {
        let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        let (channel, job) = (text("channelID"), text("jobID"));
        let refuse = |state: &mut State, why: &str| {
            state.tell(connection, "error", &json!({ "data": why, "connID": connection }), &json!({ "connection_id": connection }));
        };
        if !state.channels.contains_key(&channel) {
            return refuse(state, "forbidden");
        }
        let bot = user == state.bot().id;
        if bot {
            // The guard of consent: a bot only comes for a job of this call that waits for it.
            let waits = |one: &&mut Job| one.id == job && one.channel == channel && one.start_at == 0 && one.end_at == 0;
            let waits = state.jobs.iter_mut().filter(|one| one.kind != JobKind::Captioning).find(waits);
            let Some(waits) = waits else {
                state.breach(format!("the bot joined for job {job:?}, which does not wait for it"));
                return refuse(state, "recording job not in progress");
            };
            connection.clone_into(&mut waits.bot_session);
            waits.joined_at = now_ms();
        } else if !data["jobID"].is_null() && !job.is_empty() {
            state.breach("somebody joined with a job");
        }
        if state.call(&channel).is_none() {
            if bot {
                return refuse(state, "no call ongoing");
            }
            state.calls.push(Call {
                id: new_id(),
                channel: channel.clone(),
                post: new_id(),
                start_at: now_ms(),
                screen: None,
                host: user.to_owned(),
            });
        }
        let there = state.connections.contains_key(connection);
        state.members.push(Member {
            session: connection.to_owned(),
            user: user.to_owned(),
            channel: channel.clone(),
            connection: there.then(|| connection.to_owned()),
            lost: None,
            unmuted: false,
            video: false,
            raised_hand: 0,
            tokens: RATE.1,
            filled: Instant::now(),
        });
        let call = state.call(&channel).map(|call| call.id.clone()).unwrap_or_default();
        let _ = self.to_rtcd.send(ToRtcd::Join {
            call,
            user: user.to_owned(),
            session: connection.to_owned(),
            channel: channel.clone(),
            av1: data["av1Support"].as_bool().unwrap_or_default(),
            dc_signaling: data["dcSignaling"].as_bool().unwrap_or_default(),
        });
        state.tell(connection, "join", &json!({ "connID": connection }), &json!({ "connection_id": connection }));
        state.tell_state(connection, &channel);
        if bot {
            // A bot that comes after the recording began hears of it.
            state.tell_jobs(&channel);
        } else {
            state.tell_call(&channel, "user_joined", &json!({ "user_id": user, "session_id": connection }));
        }
    }

    /// Somebody whose page is not played comes into a call of version 2; what the page would be given.
    pub(crate) fn admit(&self, person: &Person, channel: &str) -> anyhow::Result<Ticket> {
        let Some(livekit) = &self.livekit else { anyhow::bail!("with version 1 people join by their WebSocket") };
        let session = new_id();
        self.join(&mut self.lock(), &session, &person.id, &json!({ "channelID": channel }));
        let token = livekit.token(person, &session, channel, &livekit.secret);
        Ok(Ticket { session, url: livekit.url.clone(), token })
    }

    /// They go.
    pub(crate) fn dismiss(&self, session: &str) {
        self.leave(&mut self.lock(), session);
    }

    fn reconnect(&self, state: &mut State, connection: &str, user: &str, data: &Value) {
        let text = |key: &str| data[key].as_str().unwrap_or_default();
        let (channel, original, previous) = (text("channelID"), text("originalConnID"), text("prevConnID"));
        if previous.is_empty() {
            state.breach("reconnect without prevConnID");
        }
        let found = state.members.iter_mut().find(|one| one.session == original && one.channel == channel && one.user == user);
        let Some(member) = found else {
            let data = json!({ "data": "session not found", "connID": connection });
            return state.tell(connection, "error", &data, &json!({ "connection_id": connection }));
        };
        member.connection = Some(connection.to_owned());
        member.lost = None;
        let _ = self.to_rtcd.send(ToRtcd::Reconnect { session: original.to_owned() });
        state.tell_state(connection, channel);
        state.tell_jobs(channel);
    }

    fn leave(&self, state: &mut State, session: &str) {
        let _ = self.to_rtcd.send(ToRtcd::Leave { session: session.to_owned() });
        state.gone(session, self.end_event());
    }

    /// A WebSocket ended.
    pub(crate) fn disconnected(&self, connection: &str) {
        let mut state = self.lock();
        state.connections.remove(connection);
        for member in state.members.iter_mut().filter(|one| one.connection.as_deref() == Some(connection)) {
            member.connection = None;
            member.lost = Some(Instant::now());
        }
    }

    pub(crate) fn cut_bots(&self) {
        let state = self.lock();
        let bot = &state.bot().id;
        for connection in state.connections.values().filter(|connection| connection.user == *bot) {
            let _ = connection.out.send(Out::Cut);
        }
    }

    pub(crate) fn end_call(&self, channel: &str) {
        let mut state = self.lock();
        state.tell_call(channel, self.end_event(), &json!({ "channelID": channel }));
        let sessions: Vec<String> = state.members.iter().filter(|one| one.channel == channel).map(|one| one.session.clone()).collect();
        for session in sessions {
            self.leave(&mut state, &session);
        }
    }

    /// What rtcd says of a session.
    pub(crate) fn hear_rtcd(&self, kind: &str, session: &str, number: u64, data: &[u8]) {
        let mut state = self.lock();
        let Some(member) = state.members.iter().find(|one| one.session == session) else { return };
        let (channel, connection, user) = (member.channel.clone(), member.connection.clone(), member.user.clone());
        match (kind, number) {
            ("rtc", _) => {
                if let Some(connection) = connection {
                    let data = json!({ "data": String::from_utf8_lossy(data), "connID": session });
                    state.tell(&connection, "signal", &data, &json!({ "connection_id": connection }));
                }
            }
            ("vad", 7 | 8) => {
                let event = if number == 7 { "user_voice_on" } else { "user_voice_off" };
                state.tell_call(&channel, event, &json!({ "session_id": session, "userID": user }));
            }
            ("close", _) => state.gone(session, self.end_event()),
            _ => {}
        }
    }

    /// Removes those who did not come back, and jobs that nobody came for.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut state = self.lock();
            let lost = state.members.iter().filter(|one| one.lost.is_some_and(|at| at.elapsed() > GRACE)).map(|one| one.session.clone());
            for session in lost.collect::<Vec<_>>() {
                self.leave(&mut state, &session);
            }
            state.check_starts();
        }
    }
}

impl Member {
    fn may_speak(&mut self) -> bool {
        self.tokens = (self.tokens + self.filled.elapsed().as_secs_f64() * RATE.0).min(RATE.1) - 1.0;
        self.filled = Instant::now();
        self.tokens >= 0.0
    }
}

impl State {
    /// Takes a session out of its call.
    fn gone(&mut self, session: &str, end_event: &str) {
        let Some(index) = self.members.iter().position(|one| one.session == session) else { return };
        let member = self.members.remove(index);
        let channel = member.channel;
        let bot = self.bot().id.clone();
        if let Some(call) = self.call(&channel).filter(|call| call.screen.as_deref() == Some(session)) {
            call.screen = None;
        }
        if member.user == bot {
            self.bot_left(&channel, session);
        } else {
            self.tell_call(&channel, "user_left", &json!({ "session_id": session, "user_id": member.user }));
        }
        let humans = self.members.iter().filter(|one| one.channel == channel && one.user != bot).count();
        if humans == 0 {
            self.stop_jobs(&channel, "");
            self.tell_bots(end_event, &json!({ "channelID": channel }));
            self.calls.retain(|call| call.channel != channel);
        }
    }

    fn tell_state(&self, connection: &str, channel: &str) {
        let Some(call) = self.calls.iter().find(|call| call.channel == channel) else { return };
        let bot = &self.bot().id;
        let sessions: Vec<Value> = self
            .members
            .iter()
            .filter(|one| one.channel == channel && one.user != *bot)
            .map(|one| {
                json!({ "session_id": one.session, "user_id": one.user, "unmuted": one.unmuted, "raised_hand": one.raised_hand,
                "video": one.video })
            })
            .collect();
        let of_kind = |kind| self.jobs.iter().rfind(move |job| job.channel == channel && job.kind == kind && job.end_at == 0);
        let mut state = json!({
            "id": call.id, "start_at": call.start_at, "sessions": sessions, "thread_id": call.post, "post_id": call.post,
            "screen_sharing_session_id": call.screen.clone().unwrap_or_default(), "owner_id": call.host, "host_id": call.host,
        });
        let kinds = [("recording", JobKind::Recording), ("transcription", JobKind::Transcribing), ("live_captions", JobKind::Captioning)];
        for (name, kind) in kinds {
            if let Some(job) = of_kind(kind) {
                state[name] = job.state();
            }
        }
        self.tell(
            connection,
            "call_state",
            &json!({ "channel_id": channel, "call": state.to_string() }),
            &json!({ "connection_id": connection }),
        );
    }

    fn hand(&mut self, index: usize, raised: bool) {
        let member = &mut self.members[index];
        member.raised_hand = if raised { now_ms() } else { 0 };
        let data = json!({ "session_id": member.session, "userID": member.user, "raised_hand": member.raised_hand });
        let channel = member.channel.clone();
        self.tell_call(&channel, if raised { "user_raise_hand" } else { "user_unraise_hand" }, &data);
    }

    /// Pages send the emoji as JSON in a text.
    fn react(&mut self, index: usize, data: &Value) {
        let emoji: Option<Value> = data["data"].as_str().and_then(|text| serde_json::from_str(text).ok());
        let Some(emoji) = emoji.filter(|emoji| emoji["name"].is_string()) else {
            return self.breach(format!("a reaction without an emoji: {data}"));
        };
        let member = &self.members[index];
        let data = json!({ "session_id": member.session, "user_id": member.user, "emoji": emoji, "timestamp": now_ms() });
        self.tell_call(&member.channel, "user_reacted", &data);
    }

    /// Somebody else becomes host.
    pub(crate) fn hand_over(&mut self, channel: &str, user: &str) {
        let Some(call) = self.call(channel) else { return };
        user.clone_into(&mut call.host);
        let data = json!({ "hostID": user, "call_id": call.id });
        self.tell_call(channel, "call_host_changed", &data);
    }

    fn caption(&mut self, user: &str, channel: &str, data: &Value) {
        if user != self.bot().id {
            return self.breach("a caption from somebody who is no bot");
        }
        let (Some(session), Some(text), Some(length)) =
            (data["session_id"].as_str(), data["text"].as_str(), data["new_audio_len_ms"].as_f64())
        else {
            return self.breach(format!("a caption with other types: {data}"));
        };
        let Some(speaker) = self.members.iter().find(|one| one.session == session && one.channel == channel) else {
            return self.breach(format!("a caption of somebody who is not in the call: {session}"));
        };
        // One that comes after the end was on its way.
        if !self.jobs.iter().any(|job| job.channel == channel && job.kind == JobKind::Captioning && job.start_at > 0) {
            let text = format!("a caption in a call that has none, or before its words have begun: {data}");
            return self.breach(text);
        }
        let event = json!({ "channel_id": channel, "user_id": speaker.user, "session_id": session, "text": text });
        self.captions.push(Caption { session_id: session.to_owned(), text: text.to_owned(), new_audio_len_ms: length, at: Instant::now() });
        self.tell_call(channel, "caption", &event);
    }

    fn metric(&mut self, data: &Value) {
        let known = ["live_captions_window_dropped", "live_captions_transcriber_buf_full", "live_captions_pktPayloadCh_buf_full"];
        match (data["session_id"].as_str(), data["metric_name"].as_str()) {
            (Some(session), Some(name)) if known.contains(&name) => self.metrics.push((session.to_owned(), name.to_owned())),
            // Pages report candidate pairs by the same action.
            (None, _) => {}
            _ => self.breach(format!("a metric that the plugin does not know: {data}")),
        }
    }
}
