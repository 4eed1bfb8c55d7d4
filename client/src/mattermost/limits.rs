//! Bounds of a participant in Mattermost's calls on what the site and the media node can make it hold.

use std::time::Duration;

/// Events waiting for the reader: some seconds of a busy call with a shared screen.
pub(crate) const EVENTS_MAX: usize = 8192;
/// Of those, kept free of packets: what is not media must not be lost because media came fast.
pub(crate) const EVENTS_RESERVED: usize = 512;
/// Largest message of the site's WebSocket. The state of a call of 2000 sessions has a tenth of it.
pub(crate) const SOCKET_MESSAGE_MAX: usize = 4 << 20;
/// Actions waiting for the site's WebSocket, also while it is away.
pub(crate) const ACTIONS_MAX: usize = 256;
/// Largest answer of the site's HTTP routes.
pub(crate) const ANSWER_MAX: usize = 1 << 20;
/// Largest portrait.
pub(crate) const IMAGE_MAX: usize = 8 << 20;
/// Largest file of certificate authorities.
pub(crate) const CA_FILE_MAX: u64 = 4 << 20;
/// Largest description, unpacked.
pub(crate) const DESCRIPTION_MAX: usize = 1 << 20;
/// Sections of a description: what a node forwards to one participant.
pub(crate) const SECTIONS_MAX: usize = 4096;
/// Longest name of an emoji: Mattermost's own bound.
pub(crate) const EMOJI_NAME_MAX: usize = 64;
/// Sessions told of in the state of a call.
pub(crate) const SESSIONS_MAX: usize = 10_000;

/// Participants of a LiveKit room that are followed, and tracks of them all.
pub(crate) const PARTICIPANTS_MAX: usize = SESSIONS_MAX;
/// See [`PARTICIPANTS_MAX`].
pub(crate) const PUBLICATIONS_MAX: usize = SECTIONS_MAX;
/// Tracks of a LiveKit room that came before it was said what they are.
pub(crate) const STRANGERS_MAX: usize = 256;

/// The site's WebSocket and its first words.
pub(crate) const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// From the join to the plugin's answer.
pub(crate) const JOIN_WITHIN: Duration = Duration::from_secs(15);
/// From our first offer until media can flow. The page has as long.
pub(crate) const MEDIA_WITHIN: Duration = Duration::from_secs(15);
/// How often a LiveKit token is asked for, as the original does …
pub(crate) const TICKET_TRIES: u32 = 5;
/// … with this between …
pub(crate) const TICKET_PAUSE: Duration = Duration::from_secs(1);
/// … and how long in all.
pub(crate) const TICKET_WITHIN: Duration = Duration::from_secs(20);
/// A way into a LiveKit room: connection and first words.
pub(crate) const ROOM_WITHIN: Duration = Duration::from_secs(10);
/// A room that was lost and held for so long is as new.
pub(crate) const ROOM_STEADY: Duration = Duration::from_secs(10);
/// Where LiveKit does not say how often it wants to be pinged and when it is lost …
pub(crate) const ROOM_PINGS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));
/// … and the most that it may say.
pub(crate) const ROOM_PINGS_MAX: Duration = Duration::from_secs(60);
/// How long a lost WebSocket or room is tried again.
pub(crate) const RECONNECT_WITHIN: Duration = Duration::from_secs(30);
/// The first wait of those tries, and by how much it grows …
pub(crate) const RECONNECT_STEP: Duration = Duration::from_secs(1);
/// … with so much of chance in it.
pub(crate) const RECONNECT_JITTER: Duration = Duration::from_millis(500);
/// We ping the site this often …
pub(crate) const PING_EVERY: Duration = Duration::from_secs(10);
/// … and a WebSocket that has said nothing for so long is lost.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Data channel pings.
pub(crate) const CHANNEL_PING_EVERY: Duration = Duration::from_secs(1);
/// How often the lock is asked for again, and when that is given up.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(100);
/// See [`LOCK_RETRY`].
pub(crate) const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// The answer to a later offer of ours; without it, it is made again.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a leaving participant waits for its last words to be written.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);
