//! Every bound on what others can make this server hold, with its reason and what it costs.

use std::time::Duration;

/// A JSON body. The largest honest one is a chat message of [`MESSAGE_CHARS`].
pub const BODY_BYTES: usize = 64 * 1024;
/// One chat message, in characters: a long paragraph; 32 KiB at worst in UTF-8.
pub const MESSAGE_CHARS: usize = 8_000;
/// Names of people and channels, in characters: what a tile or a list row can show.
pub const NAME_CHARS: usize = 80;
/// A channel's topic, in characters.
pub const TOPIC_CHARS: usize = 300;
/// Channels of one server. Each costs a list row that every person loads.
pub const CHANNELS: i64 = 2_000;
/// People of one server.
pub const USERS: i64 = 50_000;
/// Sessions of one person; the oldest is signed out by the next sign-in.
pub const SESSIONS_PER_USER: i64 = 20;
/// Guest links alive in one call.
pub const GUEST_LINKS_PER_CALL: i64 = 50;
/// Guests admitted to one call over its whole life.
pub const GUESTS_PER_CALL: i64 = 500;
/// Messages returned by one request.
pub const MESSAGES_PER_PAGE: i64 = 200;
/// People returned by one search.
pub const PEOPLE_PER_PAGE: i64 = 50;
/// Caption lines kept of a running call, for late joiners: about 20 minutes of speech, 500 KiB.
pub const CAPTIONS_PER_CALL: i64 = 500;
/// Caption delays kept for the percentiles of the ops page: 32 KiB per call.
pub const CAPTION_DELAYS_PER_CALL: usize = 4_096;
/// Calls whose caption delays are kept.
pub const CAPTION_DELAY_CALLS: usize = 256;

/// A password, in characters. Length is what helps (NIST SP 800-63B); the upper bound keeps hashing cheap to refuse.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 10..=256;
/// Password hashes computed at once. Each takes 19 MiB and about 20 ms of a core.
pub const PASSWORD_HASHES_AT_ONCE: usize = 2;
/// Failed sign-ins of one account from one source before it has to wait.
pub const SIGN_IN_FAILURES_PER_ACCOUNT: u32 = 5;
/// Failed sign-ins from one source, over all accounts, before it has to wait.
pub const SIGN_IN_FAILURES_PER_SOURCE: u32 = 30;
/// How long failures count.
pub const SIGN_IN_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Remembered (account, source) pairs; the oldest is forgotten: about 1 MiB.
pub const SIGN_IN_ENTRIES: usize = 8_192;

/// How long a person stays signed in.
pub const SESSION_LIFE: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a guest stays signed in: one working day.
pub const GUEST_SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long a guest link opens its call.
pub const GUEST_LINK_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long the first administrator's link works.
pub const SETUP_LINK_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a media token works. It must outlast a call, because a client resumes with the token it joined with;
/// every use is checked against the call and the person anyway.
pub const MEDIA_TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// One LiveKit signalling frame from a browser. A session description of 100 media sections is about 130 KiB.
pub const RELAY_FRAME_BYTES: usize = 256 * 1024;
/// Frames waiting for one browser. With [`RELAY_QUEUE_BYTES`]: a slow client is closed, nobody else notices.
pub const RELAY_QUEUE_FRAMES: usize = 512;
/// Bytes waiting for one browser.
pub const RELAY_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes the WebSocket layer may hold for one browser before the write waits.
pub const WEBSOCKET_WRITE_BYTES: usize = 256 * 1024;
/// How long one write to a browser may take.
pub const WEBSOCKET_WRITE_TIME: Duration = Duration::from_secs(10);
/// How often a browser is pinged (it answers by itself) …
pub const WEBSOCKET_PING: Duration = Duration::from_secs(25);
/// … and how long it may be silent.
pub const WEBSOCKET_IDLE: Duration = Duration::from_secs(75);
/// LiveKit signalling connections of this server: 1 000 calls of five, at most 4 MiB each when all are slow.
pub const RELAY_SESSIONS: usize = 5_000;
/// A compressed `join_request` parameter, as base64 text. A publisher's first offer is about 10 KiB.
pub const JOIN_REQUEST_CHARS: usize = 96 * 1024;
/// The same after decompression: bounds what a compression bomb may cost.
pub const JOIN_REQUEST_BYTES: usize = 256 * 1024;

/// Frames sent on the link and not acknowledged by the media node. At the usual 200 B: 6 MiB.
pub const LINK_UNACKED_FRAMES: usize = 32_768;
/// Bytes of the same.
pub const LINK_UNACKED_BYTES: usize = 64 * 1024 * 1024;
/// Of these, one session's part, so that one browser cannot fill the link for all.
pub const LINK_UNACKED_BYTES_PER_SESSION: usize = 2 * 1024 * 1024;
/// A gRPC message from the media node.
pub const LINK_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The media node's list of calls: 1000 people with a diagnosis each are 3 MiB.
pub const LIST_BYTES: usize = 64 * 1024 * 1024;
/// How long a join waits for the link and for the media node's answer. livekit-client gives up after 15 s.
pub const JOIN_WAIT: Duration = Duration::from_secs(8);
/// How long a host action waits for its result.
pub const HOST_ACTION_WAIT: Duration = Duration::from_secs(5);
/// Acknowledge at the latest after so many handled frames …
pub const LINK_ACK_FRAMES: u64 = 64;
/// … or this long.
pub const LINK_ACK_TIME: Duration = Duration::from_secs(1);
/// Silence on the link (pings are answered each second) after which it is taken up anew.
pub const LINK_SILENCE: Duration = Duration::from_secs(8);

/// People who have left whose last diagnosis is kept. At the usual 3 KiB: 30 MiB of database.
pub const DEPARTURES: i64 = 10_000;
/// And for so long: a week, until somebody has complained and somebody has looked.
pub const DEPARTURES_KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// An operator's reason for a deed on record.
pub const DEED_REASON_CHARS: usize = 500;
/// Event sockets of this server.
pub const EVENT_SOCKETS: usize = 10_000;
/// Event sockets of one person or guest: browser tabs.
pub const EVENT_SOCKETS_PER_PERSON: usize = 20;
/// Events waiting for one socket; a reader that falls further behind is closed and comes back for the present state.
pub const EVENT_QUEUE: usize = 256;
/// A page's pings make its session be looked up again, at most so often: a page that floods costs no database.
pub const EVENT_SESSION_CHECK: Duration = Duration::from_secs(1);
/// A message from the page on its event socket: only pings come.
pub const EVENT_CLIENT_BYTES: usize = 1024;

/// How long a call nobody is in stays open: a media node that restarts. (For a page that reloads the node itself waits.)
pub const EMPTY_CALL_GRACE: Duration = Duration::from_secs(45);
/// How long a new call waits for its first participant: device choice takes a while.
pub const UNJOINED_CALL_GRACE: Duration = Duration::from_secs(180);
/// A request that is not a download or a socket.
pub const REQUEST_TIME: Duration = Duration::from_secs(20);
/// Reading the head of a request; an idle connection is kept for so long too. Longer than clients keep theirs (Node 4 s), so that a
/// busy one does not send a request into a connection that is just being closed.
pub const HEADER_TIME: Duration = Duration::from_secs(20);
