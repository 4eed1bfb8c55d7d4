//! Every bound of the daemon on what others can make it hold, with its reason and the memory it commits.
//! Bounds of the media core itself are in [`rtcd_core::limits`].

use std::time::Duration;

// ---- shards ----

/// Commands waiting for one shard. A join storm of 1000 people makes about 4000; 100 bytes each plus their SDP.
pub const COMMANDS_MAX: usize = 4096;
/// Notes (signals, events, data) of one shard waiting for its desk. Beyond it notes wait in [`NOTE_BACKLOG_MAX`].
pub const NOTES_MAX: usize = 8192;
/// Notes kept inside the shard while the desk is behind. Beyond it they are dropped and counted: an operator has to know.
pub const NOTE_BACKLOG_MAX: usize = 65_536;
/// Datagrams handled before the core is polled: one `recvmmsg` of 32 buffers, each perhaps a train of several (GRO).
pub const DATAGRAMS_PER_PASS_MAX: usize = 64;
/// Messages from other shards waiting for one shard. At 1500 bytes each this commits 6 MiB per shard at most.
pub const NEIGHBOUR_MESSAGES_MAX: usize = 4096;
/// Parcels from other shards waiting for one shard. Each is what one pass has for it, 64 KiB and a datagram at most: 16 MiB.
pub const PARCELS_MAX: usize = 256;
/// Remote addresses of which a shard knows that another shard owns them: 64 bytes each, 4 MiB per shard.
pub const ROUTES_MAX: usize = 65_536;
/// An address whose owner proved it within so long is nobody else's: browsers check every 2.5 s at least. As within a shard.
pub const ROUTE_KEPT: Duration = Duration::from_secs(8);
/// A route nobody used for so long is forgotten: twice the consent time of RFC 7675.
pub const ROUTE_IDLE: Duration = Duration::from_secs(60);
/// Longest sleep of a shard: also the beat that `/healthz` watches.
pub const SHARD_BEAT: Duration = Duration::from_secs(1);
/// A shard that has not turned for so long is stuck: `/healthz` fails.
pub const SHARD_STUCK: Duration = Duration::from_secs(5);
/// Asked for both socket buffers. 8 MiB hold 0.4 s of a 50 kpps flood beside the calls.
pub const SOCKET_BUFFER_WANTED: usize = 8 << 20;

/// Checks that one port of an address that proved nothing may have looked at, at once …
pub const CHECKS_PER_PORT_BURST: f32 = 32.0;
/// … and per second: a browser checks a pair about ten times a second until it is answered.
pub const CHECKS_PER_PORT_PER_S: f32 = 16.0;
/// The same of one address (/64 of IPv6), where only refused checks count: a house full of people whose calls just ended, at once …
pub const CHECKS_PER_SOURCE_BURST: f32 = 2048.0;
/// … and per second. Refusing so many costs less than a thousandth of a core.
pub const CHECKS_PER_SOURCE_PER_S: f32 = 512.0;
/// Buckets of ports and of addresses per shard: 16 and 8 bytes each, 384 KiB.
pub const CHECK_SLOTS: usize = 16_384;

/// A capture of headers lasts at most so long …
pub const CAPTURE_TIME_MAX: Duration = Duration::from_secs(300);
/// … and its file is at most so long: 400 000 packets.
pub const CAPTURE_BYTES_MAX: usize = 64 << 20;
/// Stretches of it: so long when its reader is behind.
pub const CAPTURE_CHUNK: usize = 64 * 1024;
/// Stretches waiting for the reader: 16 MiB at most, then the capture ends.
pub const CAPTURE_CHUNKS_MAX: usize = 256;
/// Probes of one desk at once; each is a peer without media for at most a minute.
pub const PROBES_MAX: usize = 16;

// ---- TCP ----

/// Largest RFC 4571 frame taken: what the core takes from UDP.
pub const TCP_FRAME_MAX: usize = rtcd_core::limits::DATAGRAM_LEN_MAX;
/// Connections of one shard, 4 KiB of reading buffer each.
pub const TCP_CONNECTIONS_MAX: usize = 8192;
/// Of these, connections that have not passed an ICE check yet.
pub const TCP_UNPROVED_MAX: usize = 1024;
/// Unproved connections per source: /24 of IPv4, /48 of IPv6. A NAT with a whole class behind it passes.
pub const TCP_UNPROVED_PER_SOURCE_MAX: usize = 64;
/// Time for the first valid check. rtcd gives 30 s; browsers need one round trip.
pub const TCP_PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// Checks of an unproved connection that may fail. A browser's first one is valid, and TCP loses nothing.
pub const TCP_FAILED_CHECKS_MAX: u32 = 32;
/// A proved connection that says nothing for so long is closed: twice the consent time.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes waiting for a slow TCP reader: 1 s of a 2.5 Mbit/s share and some. Beyond it whole frames are dropped.
pub const TCP_WRITE_MAX: usize = 512 * 1024;
/// Connections accepted per wake-up, so that a connection flood cannot starve media.
pub const TCP_ACCEPTS_PER_PASS: usize = 16;

// ---- signalling ----

/// Links (message-server nodes), broken ones within their grace included.
pub const LINKS_MAX: usize = 256;
/// Sessions of one link.
pub const LINK_SESSIONS_MAX: usize = 20_000;
/// Frames waiting for one session; an honest client has a handful.
pub const SESSION_QUEUE_FRAMES_MAX: usize = 1024;
/// Bytes waiting for one session: room for a few large SDPs.
pub const SESSION_QUEUE_BYTES_MAX: usize = 4 << 20;
/// Events waiting for one call's watchers. Speakers and quality are dropped first; anything else lost loses the link.
pub const CALL_QUEUE_EVENTS_MAX: usize = 2048;
/// Frames sent and not acknowledged; kept for a resume.
pub const REPLAY_FRAMES_MAX: usize = 16_384;
/// Their bytes.
pub const REPLAY_BYTES_MAX: usize = 32 << 20;
/// A frame is acknowledged by itself when nothing else was sent after so many …
pub const ACK_EVERY_FRAMES: u64 = 64;
/// … or after this time.
pub const ACK_EVERY: Duration = Duration::from_millis(200);
/// Time for the first message of a link or tap.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Tenants with series of their own in the metrics, for as long as the node runs: 7 KiB of text each and scrape. Further ones share
/// theirs.
pub const TENANT_SERIES_MAX: usize = 256;
/// Names of message servers whose messages are counted, those without a link included: 100 bytes each.
pub const TRAFFIC_NAMES_MAX: usize = 4 * LINKS_MAX;
/// How long a broken link keeps its sessions. Media goes on meanwhile.
pub const LINK_GRACE: Duration = Duration::from_secs(30);
/// Signalling frames of one session per second, sustained. A browser joining a 50-person call sends about 60 in its first second.
pub const SESSION_FRAMES_PER_S: f64 = 100.0;
/// And at once.
pub const SESSION_FRAMES_BURST: f64 = 600.0;
/// Largest message from a message server: an SDP of [`rtcd_core::limits::SDP_LEN_MAX`] with its envelope.
pub const GRPC_MESSAGE_MAX: usize = 1 << 20;
/// Inputs waiting for one desk.
pub const DESK_INPUTS_MAX: usize = 4096;
/// Longest tenant name; with the call id it has to fit [`rtcd_core::ids::NAME_LEN_MAX`].
pub const TENANT_LEN_MAX: usize = 32;
/// Longest display name, bytes (LiveKit: 256).
pub const DISPLAY_NAME_LEN_MAX: usize = 256;
/// Metadata and attributes of one participant together, bytes (LiveKit: 64 KiB each).
pub const METADATA_LEN_MAX: usize = 64 * 1024;

// ---- taps ----

/// Open taps of the node; each may hold [`TAP_QUEUE_BYTES_MAX`].
pub const TAPS_MAX: usize = 256;
/// Media bytes waiting for one tap's reader: 4 MiB, over 2 s of everything a large call sends.
pub const TAP_QUEUE_BYTES_MAX: usize = 4 << 20;
/// Packets waiting for one tap's reader.
pub const TAP_QUEUE_PACKETS_MAX: usize = 16_384;
/// Room beside the packets for items that may not be lost (tracks, gaps, mutes).
pub const TAP_QUEUE_CONTROL_MAX: usize = 4096;
/// Packets are gathered for so long before a message is made of them: 50 messages a second instead of one per packet.
pub const TAP_BATCH: Duration = Duration::from_millis(20);
/// So long after the core has closed a tap its desk has told why; otherwise it was the reader's slowness.
pub const TAP_CLOSED_WHY: Duration = Duration::from_secs(2);
/// Packets in one message.
pub const TAP_BATCH_PACKETS_MAX: usize = 256;
/// Longest caption line, bytes.
pub const CAPTION_LEN_MAX: usize = 4096;
/// Captions of one tap per second: ten speakers with two updates a second.
pub const CAPTIONS_PER_S: f64 = 40.0;

// ---- HTTP ----

/// HTTP connections. Message servers need one each, scrapers a few.
pub const HTTP_CONNECTIONS_MAX: usize = 1024;
/// gRPC streams on one connection (hyper's cap, which tonic lifts).
pub const HTTP2_STREAMS_MAX: u32 = 512;

// ---- load ----

/// Busy share of the fullest shard above which new calls are refused …
pub const LOAD_NO_NEW_CALLS: f64 = 0.85;
/// … until it falls below this.
pub const LOAD_AGAIN: f64 = 0.70;
/// Above it joins are refused too; resumes and hosts never.
pub const LOAD_NO_JOINS: f64 = 0.95;

// ---- LiveKit dialect ----

/// WebSockets of this node itself, those about to be refused included; a broken one and its successor overlap for a moment.
pub const SOCKETS_MAX: usize = 20_000;
/// One message to a WebSocket may take so long.
pub const WEBSOCKET_WRITE_TIME: Duration = Duration::from_secs(10);
/// A WebSocket is pinged so often (clients answer by themselves) …
pub const WEBSOCKET_PING: Duration = Duration::from_secs(10);
/// … and is gone when nothing came for so long.
pub const WEBSOCKET_IDLE: Duration = Duration::from_secs(30);
/// A desk answers a join within this, or the node is too busy for it.
pub const JOIN_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Clients get a new token so often; LiveKit's own number …
pub const TOKEN_REFRESH: Duration = Duration::from_secs(300);
/// … that holds at least so long: two of them may get lost.
pub const TOKEN_LIFE: Duration = Duration::from_secs(900);
/// Longest token: 64 KiB of metadata and of attributes, in base64.
pub const LIVEKIT_TOKEN_LEN_MAX: usize = 192 * 1024;
/// A compressed `join_request` parameter, as base64 text. A publisher's first offer is about 10 KiB.
pub const JOIN_REQUEST_CHARS_MAX: usize = 96 * 1024;
/// The same after decompression: bounds what a compression bomb may cost.
pub const JOIN_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a room and longest identity, bytes. LiveKit's own numbers.
pub const ROOM_TEXT_LEN_MAX: usize = 256;
/// Longest passphrase or random key that is granted to recordings, bytes.
pub const MEDIA_KEY_LEN_MAX: usize = 1024;
/// Longest salt of one, bytes.
pub const MEDIA_KEY_SALT_MAX: usize = 256;
/// Most steps of a ratchet that readers try ahead.
pub const MEDIA_KEY_RATCHET_MAX: u32 = 16;
/// A request that grants one: both in base64, an identity and the names of the fields.
pub const MEDIA_KEY_BODY_MAX: usize = 4 * 1024;
/// Keys of one room that are granted to recordings: 1.5 MiB.
pub const MEDIA_KEYS_MAX: usize = 1024;
/// Of one participant: four times the ring of sixteen that `livekit-client` has.
pub const MEDIA_KEYS_OF_ONE_MAX: usize = 64;
/// Of the same media and index, by different people: a reader tries each on every frame.
pub const MEDIA_KEYS_SAME_MAX: usize = 8;
/// Grants and withdrawals in the life of a room: each is a line of its recordings, on the disk before anything goes on.
pub const MEDIA_KEY_CHANGES_MAX: usize = 8192;
/// Encrypted tracks of one participant that are remembered: taps ask a moment after a track came.
pub const ENCRYPTED_TRACKS_MAX: usize = 256;
/// Rooms of one desk that nobody is in, made by servers: half a KiB each and their metadata.
pub const EMPTY_ROOMS_MAX: usize = 2000;
/// Methods of one room's participants that servers called and that are not answered, 16 KiB each at most.
pub const RPCS_MAX: usize = 256;
/// Longest payload of such a call, bytes. LiveKit's own number.
pub const RPC_PAYLOAD_MAX: usize = 15 * 1024;
/// Their answer may take so long where nothing is said; LiveKit's own number …
pub const RPC_WAIT: Duration = Duration::from_secs(15);
/// … and at most so long.
pub const RPC_WAIT_MAX: Duration = Duration::from_secs(120);
/// The offloader may take so long to answer a request about an egress.
pub const EGRESS_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Jobs that are looked through for egresses, the newest.
pub const EGRESS_LISTED_MAX: u32 = 1000;
/// Egresses that rooms' makers ordered and that wait to be begun, at once.
pub const EGRESS_DUE_MAX: usize = 1024;
/// Egresses of this node that are kept in mind for webhooks: 2 KiB each.
pub const EGRESS_KNOWN_MAX: usize = 1024;
/// Longest path that an egress may name, bytes; with a room's name in it the offloader takes 1024.
pub const EGRESS_PATH_LEN_MAX: usize = 512;
/// Tracks that a tap of one person's part may name: two, an egress's sound and pictures, and some room.
pub const TAP_PART_TRACKS_MAX: usize = 16;
/// Events waiting for one webhook's receiver: an hour of a room in which somebody comes or goes every four seconds.
pub const WEBHOOK_QUEUE_EVENTS_MAX: usize = 1024;
/// Their bytes; an event carries metadata and attributes of a room and a participant, 200 KiB at most.
pub const WEBHOOK_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Receivers of webhooks.
pub const WEBHOOK_URLS_MAX: usize = 16;
/// A connection to a receiver may take so long …
pub const WEBHOOK_CONNECT_TIME: Duration = Duration::from_secs(5);
/// … and a whole try, its answer included, so long.
pub const WEBHOOK_TRY_TIME: Duration = Duration::from_secs(10);
/// Pause after the first failure; each further one doubles it …
pub const WEBHOOK_PAUSE_MIN: Duration = Duration::from_millis(250);
/// … up to this.
pub const WEBHOOK_PAUSE_MAX: Duration = Duration::from_secs(30);
/// An event that still fails after so long is given up: a receiver's restart or update is over by then.
pub const WEBHOOK_KEPT: Duration = Duration::from_secs(15 * 60);
/// The token of one try holds so long; receivers' clocks may differ. LiveKit's own number.
pub const WEBHOOK_TOKEN_LIFE: Duration = Duration::from_secs(300);
/// What is queued when the node ends gets so long; other farewells go on meanwhile.
pub const WEBHOOK_FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Connections of agents' workers, those not registered yet included; a broken one and its successor overlap for a moment.
pub const AGENT_WORKERS_MAX: usize = 1024;
/// Longest frame of a worker: what it answers to an offer, with metadata and attributes of the agent.
pub const AGENT_FRAME_MAX: usize = 256 * 1024;
/// A worker registers within this. LiveKit's own number …
pub const AGENT_REGISTER_TIME: Duration = Duration::from_secs(10);
/// … as this one: it answers an offer of a job so soon, or another one is asked.
pub const AGENT_ANSWER_TIME: Duration = Duration::from_secs(10);
/// An agent whose dispatch was deleted leaves so soon, or is put out. LiveKit's own number.
pub const AGENT_LEAVE_TIME: Duration = Duration::from_secs(3);
/// An agent's token holds so long. LiveKit's own number.
pub const AGENT_TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Messages that wait for a worker which does not read …
pub const AGENT_QUEUE_MAX: usize = 1024;
/// … and their bytes; an offer carries a room, a participant and a dispatch, 400 KiB at most.
pub const AGENT_QUEUE_BYTES_MAX: usize = 4 << 20;
/// Agents wanted in one room, with metadata and attributes of 64 KiB each.
pub const AGENT_DISPATCHES_MAX: usize = 64;
/// Longest deployment of a worker, bytes. LiveKit's own number.
pub const AGENT_DEPLOYMENT_LEN_MAX: usize = 64;
/// Jobs that are offered or run, on all workers.
pub const AGENT_JOBS_MAX: usize = 20_000;
/// Jobs of one dispatch that are over and still told of, a KiB each.
pub const AGENT_JOBS_TOLD_MAX: usize = 64;
/// Longest error that a worker says of a job, bytes.
pub const AGENT_ERROR_LEN_MAX: usize = 1024;
/// Jobs that a worker names as still running after it has connected again.
pub const AGENT_MIGRATED_MAX: usize = 4096;
/// Largest body of a request to the API: metadata and attributes, or a data packet in base64, with their envelope.
pub const TWIRP_BODY_MAX: usize = 256 * 1024;
/// Largest data packet of a server: what a participant may send, less its envelope.
pub const SERVER_DATA_LEN_MAX: usize = rtcd_core::limits::DATA_MESSAGE_LEN_MAX - 1024;

/// What clients are told: a ping so often …
pub const PING_INTERVAL_S: i32 = 5;
/// … and without any frame from us for so long they take the connection for dead. LiveKit's own numbers.
pub const PING_TIMEOUT_S: i32 = 15;
/// Longest client id or name of a track.
pub const TRACK_TEXT_LEN_MAX: usize = 256;
/// Track sids in one subscription request: every track of the largest call a browser survives, and some.
pub const SIDS_PER_REQUEST_MAX: usize = 2048;
/// Entries of a participant's subscription permissions, 200 bytes each.
pub const PERMISSIONS_MAX: usize = 1024;
/// Longest name of a data track, of its schema, and key of a data blob: the protocol's own number.
pub const DATA_NAME_LEN_MAX: usize = 256;
/// Longest name of an application's own encoding of data tracks: the protocol's own number.
pub const DATA_ENCODING_LEN_MAX: usize = 32;
/// Data tracks of one call: each is told to everybody, 100 bytes to a KiB each time, and has a handle of 16 bits.
pub const DATA_TRACKS_OF_CALL_MAX: usize = 8192;
/// Data blobs of one participant together, keys included, bytes: the number of LiveKit's server.
pub const DATA_BLOBS_LEN_MAX: usize = 64_000;
/// And how many: a schema for every data track it may have. 150 bytes each beside their contents.
pub const DATA_BLOBS_MAX: usize = 128;
/// Data blobs of one call together, bytes: 250 participants with all they may have.
pub const DATA_BLOBS_OF_CALL_LEN_MAX: usize = 16 * 1024 * 1024;
/// Departures of one call remembered for those who resume, newest first to stay: a full call, 200 bytes each. Older ones are told too, by
/// their absence, at the next full join.
pub const DEPARTURES_MAX: usize = 1024;
/// How long they are, beside the grace: a connection whose network is gone looks open until [`WEBSOCKET_IDLE`] has passed and the next ping
/// is due; 100 s at a message server, whose pings are rarer.
pub const DEPARTURES_KEPT: Duration = Duration::from_secs(100);
/// Joins of one call that its attendance list holds, about 100 bytes each.
pub const ATTENDANCE_MAX: usize = 10_000;
/// Largest user data packet that message servers are told about (everything is forwarded between clients).
pub const DATA_EVENT_LEN_MAX: usize = 16 * 1024;
