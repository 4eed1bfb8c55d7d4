//! What the shell gives a core at its birth.

use std::net::SocketAddr;
use std::time::Instant;

/// Settings of one core (one per shard). Read once; nothing inside reads configuration.
#[derive(Clone)]
pub struct CoreConfig {
    /// This core's shard, 0…; encoded in every ICE ufrag so that the shell finds the shard of an unknown sender.
    pub shard: u8,
    /// How many cores the node has. With one, nothing is said or kept for others.
    pub shards: u8,
    /// Seed of every random choice the core makes (ufrags, SSRCs, sequence offsets). From the operating system in
    /// production, fixed in simulation.
    pub seed: [u8; 32],
    /// Moment and wall-clock of the same instant, Unix µs: gives NTP times for sender reports and arrival times for taps.
    pub epoch: (Instant, u64),
    /// Host candidates to advertise over UDP, best first. At most [`crate::limits::CANDIDATES_MAX`].
    pub udp_candidates: Vec<SocketAddr>,
    /// Host candidates to advertise over TCP (passive).
    pub tcp_candidates: Vec<SocketAddr>,
    /// DTLS certificate (DER) and private key (PKCS#8 DER), ECDSA P-256. One per process, so a fingerprint is stable over shards.
    pub certificate: Certificate,
    /// Demand AEAD_AES_256_GCM first (policy). Default false: AEAD_AES_128_GCM first. AES_CM_128_HMAC_SHA1_80 is always last.
    pub prefer_aes256: bool,
    /// How long a peer whose signalling is gone keeps its media, and a peer whose media is gone its place. Default 30 s.
    pub grace: std::time::Duration,
    /// Microphones of a call that are forwarded at once: the loudest so many. 0: all. At most [`crate::limits::AUDIO_TOP_MAX`].
    pub audio_top_n: usize,
    /// The shell sends datagrams of one length for one receiver as one message: sounds are padded for that.
    pub trains: bool,
}

/// A DTLS certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// X.509, DER.
    pub certificate_der: Vec<u8>,
    /// PKCS#8, DER. Never printed.
    pub private_key_der: Vec<u8>,
}
