//! Every bound on what others can make us hold, with its reason and the memory it commits.

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
/// forgotten. 152 bytes of replay window each, RTP and RTCP apart: at most 76 KiB; a usual peer has two to eight.
pub const SRTP_SOURCES_MAX: usize = 256;
/// Attributes read of one STUN message: browsers send eight or nine.
pub const STUN_ATTRIBUTES_MAX: usize = 32;
/// Unknown attributes named in a 420 answer; the answer must stay shorter than the request.
pub const STUN_UNKNOWN_MAX: usize = 8;
/// Addresses of one transport that passed a check and are remembered (a browser with four interfaces, IPv4 and IPv6): 64 bytes each.
pub const ICE_LINKS_MAX: usize = 16;
/// Data channels a peer may open: LiveKit uses two (and a third for data tracks).
pub const DATA_CHANNELS_MAX: usize = 8;
/// Longest data message, bytes: LiveKit's SDKs cut at 15 KiB and stream larger things in pieces; 64 KiB is what every browser takes.
pub const DATA_MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Bytes that may wait per channel for a peer that does not read, and that a peer may have half-sent to us. 256 KiB × 2 per peer at worst.
pub const DATA_BUFFERED_MAX: usize = 256 * 1024;
