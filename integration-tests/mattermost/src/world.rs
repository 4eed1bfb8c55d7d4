//! What the server knows: people, channels, calls, jobs, files, posts; and what goes wrong in it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::jobs::Job;
use crate::livekit::LiveKit;
use crate::rtcd::ToRtcd;

/// Somebody.
#[derive(Debug, Clone)]
pub struct Person {
    /// 26 letters.
    pub id: String,
    /// The session's token.
    pub token: String,
    /// User name.
    pub username: String,
    /// First and last name in one.
    pub full_name: String,
    /// The calls bot.
    pub bot: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The bot's session is not taken any more, on any route.
    pub unauthorised: bool,
    /// So many requests to the bot routes answer 502, from now on.
    pub bad_gateway: u32,
    /// A request's body is read only so far: the rest has to come in further requests.
    pub chunk_cap: Option<usize>,
    /// Of an upload that has some of its file nothing more is taken: 502, until this is taken back.
    pub uploads_held: bool,
    /// So many uploads break off in the middle of their body.
    pub broken_uploads: u32,
    /// So many times an upload that has all of its bytes is not made a file: first the answer breaks off, then there is none.
    pub unfinished_uploads: u32,
    /// So many profile lookups fail.
    pub profile_failures: u32,
    /// So many publications are done without the answer reaching anybody.
    pub lost_answers: u32,
    /// `job_stop` comes twice.
    pub double_stop: bool,
    /// A status is refused so many times with 500.
    pub status_failures: u32,
    /// So many times a status is taken without the answer reaching anybody.
    pub lost_statuses: u32,
    /// So many requests for a LiveKit token answer 502, from now on.
    pub token_failures: u32,
    /// The proxy before the server refuses longer bodies.
    pub body_limit: Option<usize>,
    /// The proxy before the server drops the headers of WebSockets.
    pub no_websockets: bool,
    /// The plugin is not active.
    pub no_plugin: bool,
    /// LiveKit tokens are signed with a secret that is not that server's.
    pub wrong_secret: bool,
}

/// A file that came whole.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A post of the bot.
#[derive(Debug, Clone)]
pub struct Post {
    /// `custom_calls_recording` or `custom_calls_transcription`.
    pub kind: &'static str,
    /// The plugin's job.
    pub job_id: String,
    /// The call's post.
    pub call_post_id: String,
    /// Its files.
    pub file_ids: Vec<String>,
    /// Of a transcript: title and language.
    pub title: String,
    /// See title.
    pub language: String,
}

/// A status that a job reported.
#[derive(Debug, Clone)]
pub struct Status {
    /// The plugin's job.
    pub job_id: String,
    /// `started` or `failed`.
    pub status: String,
    /// Error text.
    pub error: String,
    /// What was answered.
    pub answer: u16,
}

/// A caption that reached participants.
#[derive(Debug, Clone)]
pub struct Caption {
    /// Whose words.
    pub session_id: String,
    /// The text that replaces the one before.
    pub text: String,
    /// Length of new sound in it.
    pub new_audio_len_ms: f64,
    /// When it came.
    pub at: Instant,
}

pub(crate) struct Upload {
    pub(crate) channel: String,
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) requests: u32,
}

/// A WebSocket of somebody.
pub(crate) struct Connection {
    pub(crate) user: String,
    pub(crate) out: mpsc::UnboundedSender<Out>,
}

/// What goes to a WebSocket.
pub(crate) enum Out {
    Event(Value),
    Cut,
}

/// Somebody in a call.
pub(crate) struct Member {
    /// The connection they joined with: their session for good.
    pub(crate) session: String,
    pub(crate) user: String,
    pub(crate) channel: String,
    /// The connection they have now.
    pub(crate) connection: Option<String>,
    /// When it was lost.
    pub(crate) lost: Option<Instant>,
    pub(crate) unmuted: bool,
    pub(crate) video: bool,
    /// When, 0: not raised.
    pub(crate) raised_hand: i64,
    /// Messages within the last second: the plugin bounds them.
    pub(crate) tokens: f64,
    pub(crate) filled: Instant,
}

pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) channel: String,
    pub(crate) post: String,
    pub(crate) start_at: i64,
    pub(crate) screen: Option<String>,
    /// The user who may record: who began it, as a rule.
    pub(crate) host: String,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) people: Vec<Person>,
    /// By user.
    pub(crate) portraits: HashMap<String, Vec<u8>>,
    pub(crate) channels: HashMap<String, String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) members: Vec<Member>,
    pub(crate) connections: HashMap<String, Connection>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) uploads: HashMap<String, Upload>,
    pub(crate) files: HashMap<String, File>,
    pub(crate) posts: Vec<Post>,
    pub(crate) statuses: Vec<Status>,
    pub(crate) captions: Vec<Caption>,
    pub(crate) metrics: Vec<(String, String)>,
    pub(crate) faults: Faults,
    pub(crate) violations: Vec<String>,
    pub(crate) upload_bytes: u64,
    pub(crate) uploads_made: u64,
    pub(crate) upload_lengths: Vec<usize>,
    pub(crate) tokens_asked: u64,
}

pub(crate) struct World {
    state: Mutex<State>,
    /// Where media is with version 2 of the plugin; none: in rtcd, with version 1.
    pub(crate) livekit: Option<LiveKit>,
    pub(crate) to_rtcd: mpsc::UnboundedSender<ToRtcd>,
}

impl World {
    pub(crate) fn new(to_rtcd: mpsc::UnboundedSender<ToRtcd>, livekit: Option<LiveKit>) -> Self {
        let state = State::default();
        let world = Self { state: Mutex::new(state), livekit, to_rtcd };
        let bot = Person { bot: true, ..world.add_person("calls") };
        world.lock().people = vec![bot];
        world
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_person(&self, name: &str) -> Person {
        let full_name = name.split('-').map(capital).collect::<Vec<_>>().join(" ");
        let person = Person { id: new_id(), token: new_id(), username: name.to_owned(), full_name, bot: false };
        self.lock().people.push(person.clone());
        person
    }

    pub(crate) fn add_channel(&self, name: &str) -> String {
        let id = new_id();
        self.lock().channels.insert(id.clone(), name.to_owned());
        id
    }

    /// What the plugin calls the end of a call.
    pub(crate) fn end_event(&self) -> &'static str {
        if self.livekit.is_some() { "call_ended" } else { "call_end" }
    }

    pub(crate) fn sessions(&self, channel: &str) -> Vec<(String, String)> {
        let state = self.lock();
        state.members.iter().filter(|one| one.channel == channel).map(|one| (one.session.clone(), one.user.clone())).collect()
    }
}

impl State {
    pub(crate) fn breach(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(crate) fn bot(&self) -> &Person {
        &self.people[0]
    }

    /// Who has this token: a person, or the bot by one of its jobs' sessions.
    pub(crate) fn by_token(&self, token: &str) -> Option<Person> {
        if self.jobs.iter().any(|job| job.auth_token == token) {
            return Some(self.bot().clone());
        }
        self.people.iter().find(|person| !person.bot && person.token == token).cloned()
    }

    pub(crate) fn call(&mut self, channel: &str) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.channel == channel)
    }

    /// Sends an event to everybody in the call of a channel.
    pub(crate) fn tell_call(&self, channel: &str, event: &str, data: &Value) {
        for member in self.members.iter().filter(|member| member.channel == channel) {
            if let Some(connection) = &member.connection {
                self.tell(connection, event, data, &json!({ "channel_id": channel, "user_id": "", "connection_id": "" }));
            }
        }
    }

    /// Sends an event to every connection of the bot: the plugin addresses it by user, so all its jobs get it.
    pub(crate) fn tell_bots(&self, event: &str, data: &Value) {
        let bot = self.bot().id.clone();
        for (id, _) in self.connections.iter().filter(|(_, connection)| connection.user == bot) {
            self.tell(id, event, data, &json!({ "user_id": bot, "channel_id": "", "connection_id": "" }));
        }
    }

    pub(crate) fn tell(&self, connection: &str, event: &str, data: &Value, broadcast: &Value) {
        if let Some(to) = self.connections.get(connection) {
            let event = json!({ "event": format!("custom_com.mattermost.calls_{event}"), "data": data, "broadcast": broadcast });
            let _ = to.out.send(Out::Event(event));
        }
    }
}

/// 26 letters and digits.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..26].to_owned()
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
