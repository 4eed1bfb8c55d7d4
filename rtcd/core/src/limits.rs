//! Every bound on what others can make us hold, with its reason and the memory it commits.

use std::time::Duration;

/// Candidates advertised per protocol: a site has few addresses, an SDP line each.
pub const CANDIDATES_MAX: usize = 8;
/// Largest SDP accepted, bytes: a Chromium offer with 100 m-lines has about 250 KiB.
pub const SDP_LEN_MAX: usize = 512 * 1024;
/// Largest datagram handled: Ethernet minus headers, with room for tunnels' jumbo of RTP (1500). Larger ones are counted and dropped.
pub const DATAGRAM_LEN_MAX: usize = 2048;
/// Tracks one peer may publish: microphone, camera, screen, its sound, twice over and some.
pub const TRACKS_PER_PEER_MAX: usize = 16;
/// Peers of one call.
pub const PEERS_PER_CALL_MAX: usize = 1024;
/// Simulcast layers of a track (f, h, q).
pub const LAYERS_MAX: usize = 3;
/// Sources (SSRCs) that one transport may send from: 16 tracks × 3 layers × 2 (media and RTX), and as many ended but not yet
/// retired. 168 bytes of replay window each, RTP and RTCP apart: at most 84 KiB; a usual peer has two to eight.
pub const SRTP_SOURCES_MAX: usize = 256;
/// Sources that fell silent, of which only the highest number is kept: 300 shared screens with layers in one call. RTP and RTCP apart,
/// in tables of 2048 places of 17 bytes: at most 70 KiB.
pub const SRTP_RETIRED_MAX: usize = 1792;
/// Attributes read of one STUN message: browsers send eight or nine.
pub const STUN_ATTRIBUTES_MAX: usize = 32;
/// Unknown attributes named in a 420 answer; the answer must stay shorter than the request.
pub const STUN_UNKNOWN_MAX: usize = 8;
/// Addresses of one transport that passed a check and are remembered (a browser with four interfaces, IPv4 and IPv6): 64 bytes each.
pub const ICE_LINKS_MAX: usize = 16;
/// Data channels a peer may open: LiveKit uses three.
pub const DATA_CHANNELS_MAX: usize = 8;
/// Streams that a peer may have begun, channels or not. SCTP looks at each of them for every chunk that comes in: with one for each of the 65 536
/// numbers that takes a millisecond. Who begins more loses its data channels.
pub const DATA_STREAMS_MAX: usize = 4 * DATA_CHANNELS_MAX;
/// Longest data message, bytes: LiveKit's SDKs cut at 15 KiB and stream larger things in pieces; 64 KiB is what every browser takes.
pub const DATA_MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Bytes that may wait per channel for a peer that does not read, and that a peer may have half-sent to us. 256 KiB × 2 per peer at worst.
pub const DATA_BUFFERED_MAX: usize = 256 * 1024;
/// Bytes of data tracks' packets that may wait per receiver, oldest first to go: a second of 2 Mbit/s, or a frame of this size in one go.
pub const DATA_TRACK_WAITING_MAX: usize = 256 * 1024;
/// A packet that waited longer is not sent: who sees through a data track steers by it. LiveKit aims at 100 ms of what the way carries.
pub const DATA_TRACK_AGE_MAX: Duration = Duration::from_millis(200);
/// Packets of data tracks per second and peer: ten sensors at 200 Hz, or 250 Mbit/s in the 16 kB pieces that LiveKit's SDKs make. More are
/// dropped and counted.
pub const DATA_TRACK_PACKETS_PER_S_MAX: u32 = 2000;
/// Data tracks that a peer may publish: a robot's joints, each its own. 64 bytes each, and 8 per subscriber.
pub const DATA_TRACKS_PER_PEER_MAX: usize = 128;
/// Longest SDP line: an H.264 fmtp with parameter sets has under 1 KiB, an m-line with 128 payload types about 500 bytes.
pub const SDP_LINE_LEN_MAX: usize = 4096;
/// Sections of one description: 1 data, 16 published, the rest subscribed. A single-transport client of a 100-camera call fits.
/// A section costs about 20 KiB of text and as much parsed, so a whole description stays under [`SDP_LEN_MAX`].
pub const SDP_MEDIA_MAX: usize = 256;
/// Payload types of one section: there are 128 numbers, Chromium uses 30 of them.
pub const SDP_CODECS_MAX: usize = 64;
/// Feedback lines of one payload type; Chromium writes 5.
pub const SDP_FEEDBACK_MAX: usize = 16;
/// Longest fmtp kept.
pub const SDP_FMTP_LEN_MAX: usize = 1024;
/// Header extensions of one section; Chromium offers 13.
pub const SDP_EXTENSIONS_MAX: usize = 32;
/// Streams of one section's simulcast list or SSRC group, before ours ([`LAYERS_MAX`]) is applied.
pub const SDP_RIDS_MAX: usize = 8;
/// SSRCs of one description: Firefox declares 6 for a camera with 3 layers and RTX, one per receiving section.
pub const SDP_SSRCS_MAX: usize = 1024;
/// SSRC groups of one section: one FID per layer and one SIM.
pub const SDP_SSRC_GROUPS_MAX: usize = 8;
/// Candidates of one description. We are ICE-lite and do not use them; a client with many addresses repeats them per section.
pub const SDP_CANDIDATES_MAX: usize = 2048;
/// Longest mid: it has to fit the one-byte header extension's 16 bytes to be of use.
pub const SDP_MID_LEN_MAX: usize = 16;
/// Longest rid, for the same reason.
pub const SDP_RID_LEN_MAX: usize = 16;
/// Longest MediaStream id, track id or cname.
pub const SDP_ID_LEN_MAX: usize = 256;
/// Packets read of one RTCP compound: browsers send up to a dozen; a datagram could hold 500 empty ones.
pub const RTCP_PACKETS_MAX: usize = 64;
/// Packets that one transport-wide feedback may speak of. Its format allows 65 535 in a few bytes, which would be work for nothing.
pub const TWCC_STATUSES_MAX: usize = 8192;
/// Packets remembered per receiver with transport-wide feedback: 2 s at 1000 packets/s. 16 bytes each, 32 KiB.
pub const SEND_HISTORY_MAX: usize = 2048;
/// A gap longer than this is not asked for: at video rates it is more than a second, and a key frame is cheaper.
pub const NACK_GAP_MAX: u64 = 512;
/// Missing packets tracked per incoming stream: 48 bytes each, 24 KiB in the worst case.
pub const NACK_MISSING_MAX: usize = 512;
/// Clear packets kept per incoming layer, for retransmission and for taps: 0.6 s of 8 Mbit/s.
pub const CACHE_BYTES_MAX: usize = 1024 * 1024;
/// And how many of them: 0.6 s of 1700 packets/s. 150 bytes each.
pub const CACHE_ENTRIES_MAX: usize = 1024;
/// All such packets of one publisher, over all its tracks and layers: a screen of 8 Mbit/s, two cameras in three layers, and the sounds. A
/// layer that needs more then remembers for a shorter time.
pub const HISTORY_BYTES_MAX: usize = 1536 * 1024;
/// Largest key frame of a shared screen that viewers on narrow ways get as a slide: half a minute of 64 kbit/s. Kept once per layer while there are
/// such viewers, and once more while one of them is not through with the slide before …
pub const SLIDE_BYTES_MAX: usize = 256 * 1024;
/// … and its packets: 150 bytes each.
pub const SLIDE_PACKETS_MAX: usize = 512;
/// All slides of one publisher's screens that somebody is not through with: one of the largest, or a handful of the usual.
pub const SLIDES_BYTES_MAX: usize = 512 * 1024;
/// Packets that wait for one viewer until the next poll: 64 datagrams a wake-up, and a burst asked for again. 32 bytes each. As many
/// of pictures again wait for their turn where its way is narrow: a key frame of 1 MiB.
pub const VIEWER_QUEUE_MAX: usize = 1024;
/// Data messages per second and peer: a moving mouse pointer sends 60. More are dropped and counted.
pub const DATA_MESSAGES_PER_S_MAX: u32 = 500;
/// Calls in one core. 1 KiB each.
pub const CALLS_MAX: usize = 65_536;
/// Tracks of other shards that stand in here: 16 full calls' microphones and cameras; about 1 KiB each before they carry anything.
pub const STAND_INS_MAX: usize = 32_768;
/// Peers in one core: memory ends before.
pub const PEERS_MAX: usize = 65_536;
/// Subscriptions of one peer: what one description can carry. Half a KiB each.
pub const SUBSCRIPTIONS_PER_PEER_MAX: usize = SDP_MEDIA_MAX - 1;
/// Received tracks that one peer's diagnosis looks at, so that asking about a call of a thousand does not hold its media up …
pub const WATCHED_EXAMINED_MAX: usize = 64;
/// … and those it tells of, what is wrong first. 150 bytes each, while it is asked for.
pub const WATCHED_REPORTED_MAX: usize = 16;
/// Taps of one call: recorder, captions, and both again while one replaces the other.
pub const TAPS_PER_CALL_MAX: usize = 8;
/// Loudest microphones of a call that may be asked for: each packet is compared with so many. 72 bytes each.
pub const AUDIO_TOP_MAX: usize = 64;
/// Levels of a peer told at once: a fifth of a second of sounds, so that the event costs each of them little.
pub const AUDIO_LEVELS_TOLD: usize = 10;
/// Frames remembered of a stream with layers inside (SVC): 1.4 s of three spatial layers at 30 Hz. 48 bytes each beside 9 KiB for the
/// structure, per such stream that comes in; 6 bytes each per viewer.
pub const SVC_FRAMES_MAX: usize = 128;
/// Stretches of numbers remembered per viewer of such a stream: one for every picture of which something is withheld, 2 s. 24 bytes each.
pub const SVC_STRETCHES_MAX: usize = 64;
/// Steps of quality that one picture is chosen from: simulcast layers, or a stream's layers inside.
pub const STEPS_MAX: usize = 8;
