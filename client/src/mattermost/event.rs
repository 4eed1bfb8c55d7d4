//! What happens in a call, and the site's frames that tell it.

use std::sync::Arc;

use rtc::rtp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{EMOJI_NAME_MAX, SESSIONS_MAX};
use super::site::JobType;

/// The prefix of the plugin's events and actions.
pub(super) const PREFIX: &str = "custom_com.mattermost.calls_";

/// A session's names. With both, another process can go on with it: see [`super::BotDial::resume`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The session: the first WebSocket's name. It stays.
    pub original_conn_id: String,
    /// The present WebSocket's.
    pub conn_id: String,
}

/// What a participant sees.
#[derive(Debug)]
pub enum Event {
    /// We are in the call. The first event.
    Joined(Ids),
    /// Our WebSocket is another one: what [`super::Bot::ids`] says now, to be kept where a successor finds it.
    Ids(Ids),
    /// The media connection.
    Media(MediaState),
    /// A track comes; before its first packet. Told again for one that is known: its packets come over a new connection and are
    /// counted anew.
    Track(TrackInfo),
    /// Nothing comes of a track for as long as it is muted. Only of rooms, where the media server says so.
    TrackMuted {
        /// Which.
        track_id: Arc<str>,
        /// What it carries.
        kind: TrackKind,
        /// Whose.
        session_id: String,
        /// It is, or no longer.
        muted: bool,
    },
    /// A packet of a track, authenticated and decrypted, in the order of arrival.
    Rtp {
        /// Whose.
        track_id: Arc<str>,
        /// When it came, in microseconds of Unix time.
        arrived_us: u64,
        /// The packet.
        packet: rtp::Packet,
    },
    /// A track is gone; after its last packet.
    TrackEnded {
        /// Which.
        track_id: Arc<str>,
    },
    /// A job of this call, as everybody sees it.
    JobState(JobState),
    /// A job has to stop. Compare the id: the bot is told of those of other calls too.
    JobStop {
        /// Which.
        job_id: String,
    },
    /// The whole call. Comes when the plugin thinks that we need it.
    CallState(Box<CallState>),
    /// Somebody did something.
    User {
        /// What.
        change: UserChange,
        /// Which session, if it said so.
        session_id: String,
        /// Whose, if it said so.
        user_id: String,
    },
    /// Somebody is there, by the media server's word: what it calls them, in case the site cannot say.
    Present {
        /// Which session.
        session_id: String,
        /// Whose; empty: of nobody whom the site knows, as of somebody on a telephone.
        user_id: String,
        /// A name, or nothing.
        name: String,
    },
    /// Somebody else is the host.
    HostChanged {
        /// Who.
        user_id: String,
    },
    /// Somebody reacts with an emoji.
    Reacted {
        /// Which session, if it said so.
        session_id: String,
        /// Whose, if it said so.
        user_id: String,
        /// The emoji's name in Mattermost, as `+1`: letters, digits, `_`, `-` and `+`.
        emoji: String,
    },
    /// What somebody says, as text.
    Caption {
        /// Whose words.
        session_id: String,
        /// The words, instead of those before.
        text: String,
    },
    /// The call is over.
    CallEnded,
    /// We are out of the call for good. The last event.
    Lost {
        /// Why.
        reason: String,
    },
}

/// How the media connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaState {
    /// Media flows.
    Connected,
    /// Nothing is heard of the node; it may come back.
    Disconnected,
    /// It is over.
    Failed,
}

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackKind {
    /// A microphone.
    Voice,
    /// A shared screen.
    Screen,
    /// Its sound.
    ScreenAudio,
    /// A camera.
    Video,
}

impl TrackKind {
    /// By its name in track ids and media maps.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "voice" => Some(Self::Voice),
            "screen" => Some(Self::Screen),
            "screen-audio" => Some(Self::ScreenAudio),
            "video" => Some(Self::Video),
            _ => None,
        }
    }

    /// Is it sound?
    #[must_use]
    pub fn is_audio(self) -> bool {
        matches!(self, Self::Voice | Self::ScreenAudio)
    }
}

/// A track and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Its name.
    pub track_id: Arc<str>,
    /// What it carries.
    pub kind: TrackKind,
    /// Whose.
    pub session_id: String,
    /// `audio/opus`, `video/VP8` or `video/AV1`.
    pub mime: String,
    /// Of its packets.
    pub payload_type: u8,
    /// Of its time stamps.
    pub clock_rate: u32,
    /// Of sound; 0 for pictures.
    pub channels: u16,
    /// Format parameters, as negotiated.
    pub fmtp: String,
}

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserChange {
    /// Came.
    Joined,
    /// Left.
    Left,
    /// Muted the microphone.
    Muted,
    /// Unmuted it.
    Unmuted,
    /// Speaks.
    VoiceOn,
    /// Is silent.
    VoiceOff,
    /// Shares a screen.
    ScreenOn,
    /// No longer.
    ScreenOff,
    /// Shows the camera.
    VideoOn,
    /// No longer.
    VideoOff,
    /// Raised a hand.
    HandRaised,
    /// Lowered it.
    HandLowered,
}

impl UserChange {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "user_joined" => Self::Joined,
            "user_left" => Self::Left,
            "user_muted" => Self::Muted,
            "user_unmuted" => Self::Unmuted,
            "user_voice_on" => Self::VoiceOn,
            "user_voice_off" => Self::VoiceOff,
            "user_screen_on" => Self::ScreenOn,
            "user_screen_off" => Self::ScreenOff,
            "user_video_on" => Self::VideoOn,
            "user_video_off" => Self::VideoOff,
            "user_raise_hand" => Self::HandRaised,
            "user_unraise_hand" => Self::HandLowered,
            _ => return None,
        })
    }
}

/// How a job of the call stands. Times are milliseconds of Unix time, 0 for never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JobState {
    /// Which kind. Absent in the state of a call, where the place says it.
    #[serde(rename = "type", deserialize_with = "job_type")]
    pub job_type: Option<JobType>,
    /// Was asked for.
    pub init_at: i64,
    /// Began.
    pub start_at: i64,
    /// Ended.
    pub end_at: i64,
    /// Why it failed.
    pub err: String,
}

/// A kind that we do not know is none.
fn job_type<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<JobType>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// Who is in the call and what goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CallState {
    /// The call's id.
    pub id: String,
    /// Milliseconds of Unix time.
    pub start_at: i64,
    /// Who is there.
    pub sessions: Vec<CallSession>,
    /// The call's thread.
    pub thread_id: String,
    /// The call's post.
    pub post_id: String,
    /// Who shares a screen; empty: nobody.
    pub screen_sharing_session_id: String,
    /// Who began it.
    pub owner_id: String,
    /// Who may record.
    pub host_id: String,
    /// The recording.
    pub recording: Option<JobState>,
    /// The transcription.
    pub transcription: Option<JobState>,
    /// The captions.
    pub live_captions: Option<JobState>,
}

/// A session of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CallSession {
    /// Its id.
    pub session_id: String,
    /// Whose.
    pub user_id: String,
    /// The microphone is on.
    pub unmuted: bool,
    /// When the hand was raised, 0 when it is not.
    pub raised_hand: i64,
    /// The camera is on.
    pub video: bool,
}

/// A frame of the site's WebSocket.
#[derive(Debug)]
pub(super) enum Frame {
    /// The first one: the socket's name.
    Hello(String),
    /// An event of the plugin, without its prefix.
    Calls(Calls),
    /// An answer to one of our actions that says no.
    Refused(String),
    /// Not ours.
    Other,
}

/// An event of the plugin.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) name: String,
    pub(super) data: Map<String, Value>,
    broadcast: Broadcast,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Broadcast {
    channel_id: String,
    connection_id: String,
}

impl Frame {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Raw {
            event: String,
            data: Option<Map<String, Value>>,
            broadcast: Option<Broadcast>,
            status: String,
            error: Option<Value>,
        }
        let raw: Raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if raw.status == "FAIL" {
            let error = raw.error.unwrap_or_default();
            return Ok(Self::Refused(error.get("message").and_then(Value::as_str).unwrap_or("no reason given").to_owned()));
        }
        let data = raw.data.unwrap_or_default();
        if raw.event == "hello" {
            return match text_of(&data, &["connection_id"]) {
                "" => Err("a hello without a connection_id".to_owned()),
                id => Ok(Self::Hello(id.to_owned())),
            };
        }
        let Some(name) = raw.event.strip_prefix(PREFIX) else { return Ok(Self::Other) };
        Ok(Self::Calls(Calls { name: name.to_owned(), data, broadcast: raw.broadcast.unwrap_or_default() }))
    }
}

/// What a frame means for one participant.
#[derive(Debug)]
pub(super) enum Said {
    /// We are in.
    Joined,
    /// The plugin says no, to a join above all.
    Error(String),
    /// Of the media node, JSON.
    Signal(String),
    /// For the reader.
    Event(Event),
}

impl Calls {
    /// Every connection of a bot is told of all its calls: what is not of this channel and this session is nothing.
    pub(super) fn said(self, channel: &str, ids: &Ids) -> Option<Said> {
        let connection = match text_of(&self.data, &["connID", "conn_id"]) {
            "" => &self.broadcast.connection_id,
            id => id,
        };
        let ours = connection.is_empty() || connection == ids.conn_id || connection == ids.original_conn_id;
        // The job's state has the channel under a name of its own.
        let of = match text_of(&self.data, &["channelID", "channel_id", "callID"]) {
            "" => self.broadcast.channel_id.as_str(),
            id => id,
        };
        let here = of == channel;
        let not_elsewhere = here || of.is_empty();
        let text = |names: &[&str]| text_of(&self.data, names).to_owned();
        match self.name.as_str() {
            "join" if ours && not_elsewhere => Some(Said::Joined),
            "error" if ours && not_elsewhere => Some(Said::Error(text(&["data", "error", "message"]))),
            "signal" if ours && not_elsewhere => Some(Said::Signal(text(&["data"]))),
            // Version 2 of the plugin says it by the second name.
            "call_end" | "call_ended" if here => Some(Said::Event(Event::CallEnded)),
            "job_stop" => Some(Said::Event(Event::JobStop { job_id: text(&["job_id"]) })),
            "call_job_state" if not_elsewhere => {
                Some(Said::Event(Event::JobState(JobState::deserialize(nested(self.data.get("jobState")?)?).ok()?)))
            }
            "call_state" if not_elsewhere => {
                let mut state = CallState::deserialize(nested(self.data.get("call")?)?).ok()?;
                state.sessions.truncate(SESSIONS_MAX);
                Some(Said::Event(Event::CallState(Box::new(state))))
            }
            "call_host_changed" if not_elsewhere => Some(Said::Event(Event::HostChanged { user_id: text(&["hostID"]) })),
            "caption" if not_elsewhere => Some(Said::Event(Event::Caption { session_id: text(&["session_id"]), text: text(&["text"]) })),
            "user_reacted" if not_elsewhere => {
                let emoji = emoji(self.data.get("emoji")?)?;
                Some(Said::Event(Event::Reacted {
                    session_id: text(&["session_id", "sessionID"]),
                    user_id: text(&["user_id", "userID"]),
                    emoji,
                }))
            }
            name if not_elsewhere => UserChange::named(name).map(|change| {
                let (session_id, user_id) = (text(&["session_id", "sessionID"]), text(&["user_id", "userID"]));
                Said::Event(Event::User { change, session_id, user_id })
            }),
            _ => None,
        }
    }
}

/// The name of an emoji; `None` where it is none that Mattermost could have.
fn emoji(value: &Value) -> Option<String> {
    let emoji = nested(value)?;
    let name = emoji.get("name")?.as_str()?;
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"_-+".contains(&letter);
    ((1..=EMOJI_NAME_MAX).contains(&name.len()) && name.bytes().all(fits)).then(|| name.to_owned())
}

/// The first of these that is a text.
fn text_of<'a>(data: &'a Map<String, Value>, names: &[&str]) -> &'a str {
    names.iter().find_map(|name| data.get(*name)?.as_str()).unwrap_or_default()
}

/// An object, or one as JSON in a text.
fn nested(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Object(_) => Some(value.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHANNEL: &str = "chan";

    fn said(event: &str, data: &Value, broadcast: &Value) -> Option<Said> {
        let text = json!({ "event": format!("{PREFIX}{event}"), "data": data, "broadcast": broadcast, "seq": 3 }).to_string();
        let Frame::Calls(calls) = Frame::parse(&text).expect("a frame") else { panic!("an event of the plugin: {text}") };
        calls.said(CHANNEL, &Ids { original_conn_id: "first".to_owned(), conn_id: "now".to_owned() })
    }

    fn event(name: &str, data: &Value) -> Option<Event> {
        match said(name, data, &Value::Null)? {
            Said::Event(event) => Some(event),
            Said::Joined | Said::Error(_) | Said::Signal(_) => None,
        }
    }

    #[test]
    fn the_sites_own_frames() {
        let hello = r#"{"event":"hello","data":{"connection_id":"abc","server_version":"11"},"broadcast":{},"seq":0}"#;
        assert!(matches!(Frame::parse(hello), Ok(Frame::Hello(id)) if id == "abc"));
        assert!(matches!(Frame::parse(r#"{"status":"OK","seq_reply":1}"#), Ok(Frame::Other)));
        let refused = r#"{"status":"FAIL","error":{"id":"x","message":"no session"},"seq_reply":1}"#;
        assert!(matches!(Frame::parse(refused), Ok(Frame::Refused(why)) if why == "no session"));
        assert!(matches!(Frame::parse(r#"{"event":"posted","data":{"post":"{}"},"broadcast":null}"#), Ok(Frame::Other)));
        for wrong in ["", "1", r#"{"event":"hello","data":{}}"#, r#"{"event":7}"#] {
            assert!(Frame::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_for_another_connection_or_call_is_nothing() {
        for (ours, data) in [
            (true, json!({ "connID": "now", "data": "x" })),
            (true, json!({ "connID": "first", "data": "x" })),
            (true, json!({ "data": "x" })),
            (false, json!({ "connID": "another", "data": "x" })),
            (false, json!({ "connID": "now", "channelID": "elsewhere", "data": "x" })),
        ] {
            assert_eq!(matches!(said("signal", &data, &Value::Null), Some(Said::Signal(text)) if text == "x"), ours, "{data}");
            assert_eq!(matches!(said("error", &data, &Value::Null), Some(Said::Error(text)) if text == "x"), ours, "{data}");
            assert_eq!(matches!(said("join", &data, &Value::Null), Some(Said::Joined)), ours, "{data}");
        }
        assert!(said("join", &json!({}), &json!({ "connection_id": "another" })).is_none());
        assert!(said("user_muted", &json!({ "session_id": "s" }), &json!({ "channel_id": "elsewhere" })).is_none());
    }

    #[test]
    fn a_calls_end_is_only_that_of_this_channel() {
        assert!(matches!(said("call_end", &json!({}), &json!({ "channel_id": CHANNEL })), Some(Said::Event(Event::CallEnded))));
        assert!(matches!(event("call_end", &json!({ "channelID": CHANNEL })), Some(Event::CallEnded)));
        assert!(matches!(said("call_ended", &json!({}), &json!({ "channel_id": CHANNEL })), Some(Said::Event(Event::CallEnded))));
        assert!(event("call_ended", &json!({ "channelID": "elsewhere" })).is_none());
        assert!(event("call_end", &json!({ "channelID": "elsewhere" })).is_none());
        assert!(event("call_end", &json!({})).is_none());
    }

    #[test]
    fn jobs_and_their_states() {
        let data = json!({ "callID": CHANNEL, "jobState": { "type": "recording", "init_at": 1, "start_at": 2, "end_at": 0, "err": "" } });
        let Some(Event::JobState(state)) = event("call_job_state", &data) else { panic!("a state") };
        assert_eq!((state.job_type, state.init_at, state.start_at), (Some(JobType::Recording), 1, 2));
        let data = json!({ "callID": CHANNEL, "jobState": "{\"type\":\"new\",\"end_at\":5}" });
        let Some(Event::JobState(state)) = event("call_job_state", &data) else { panic!("a state") };
        assert_eq!((state.job_type, state.end_at), (None, 5));
        assert!(event("call_job_state", &json!({ "callID": "elsewhere", "jobState": {} })).is_none());
        assert!(matches!(event("job_stop", &json!({ "job_id": "j" })), Some(Event::JobStop { job_id }) if job_id == "j"));
    }

    #[test]
    fn the_state_of_a_call_comes_as_json_in_json() {
        let call = json!({
            "id": "call", "start_at": 7, "sessions": [{ "session_id": "s", "user_id": "u", "unmuted": true, "raised_hand": 0, "new": 1 }],
            "screen_sharing_session_id": "s", "host_id": "u", "recording": { "start_at": 9 },
        });
        let data = json!({ "channel_id": CHANNEL, "call": call.to_string() });
        let Some(Event::CallState(state)) = event("call_state", &data) else { panic!("a state") };
        assert_eq!((state.id.as_str(), state.start_at, state.sessions.len(), state.host_id.as_str()), ("call", 7, 1, "u"));
        assert!(state.sessions[0].unmuted && state.recording.is_some_and(|job| job.start_at == 9));
        assert!(event("call_state", &json!({ "channel_id": "elsewhere", "call": "{}" })).is_none());
        assert!(event("call_state", &json!({ "channel_id": CHANNEL, "call": "no json" })).is_none());
    }

    #[test]
    fn reactions_have_a_name_that_can_be_shown() {
        for emoji in [json!({ "name": "+1", "unified": "1f44d", "literal": "👍" }), json!("{\"name\":\"+1\"}")] {
            let data = json!({ "session_id": "s", "user_id": "u", "emoji": emoji, "timestamp": 7 });
            let Some(Event::Reacted { session_id, user_id, emoji }) = event("user_reacted", &data) else { panic!("{data}") };
            assert_eq!((session_id.as_str(), user_id.as_str(), emoji.as_str()), ("s", "u", "+1"));
        }
        for emoji in [json!(null), json!({}), json!({ "name": "" }), json!({ "name": "a\nb" }), json!({ "name": "x".repeat(65) })] {
            assert!(event("user_reacted", &json!({ "session_id": "s", "emoji": emoji })).is_none(), "{emoji}");
        }
    }

    #[test]
    fn who_did_what_under_either_spelling() {
        for data in [json!({ "session_id": "s", "user_id": "u" }), json!({ "sessionID": "s", "userID": "u", "channelID": CHANNEL })] {
            let Some(Event::User { change, session_id, user_id }) = event("user_voice_on", &data) else { panic!("{data}") };
            assert_eq!((change, session_id.as_str(), user_id.as_str()), (UserChange::VoiceOn, "s", "u"));
        }
        assert!(event("user_ready", &json!({})).is_none());
        assert!(matches!(event("call_host_changed", &json!({ "hostID": "h" })), Some(Event::HostChanged { user_id }) if user_id == "h"));
    }
}
