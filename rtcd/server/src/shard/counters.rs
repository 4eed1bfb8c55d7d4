//! Plain counters of one shard's shell, read at scrape.

/// Counts since the shard's birth.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardCounters {
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Messages given to the kernel: with trains fewer than datagrams.
    pub sends: u64,
    /// Datagrams dropped because the send buffer was full.
    pub send_buffer_full: u64,
    /// Sends the kernel refused.
    pub send_refused: u64,
    /// Receive calls that failed.
    pub receive_errors: u64,
    /// Datagrams longer than the core takes, or empty.
    pub bad_length: u64,
    /// Datagrams of other shards' peers, handed over.
    pub handed_over: u64,
    /// Datagrams dropped because the other shard's queue was full.
    pub handover_full: u64,
    /// Packets for calls that live on several shards, dropped because the other shard is behind.
    pub relay_full: u64,
    /// Checks naming a shard that does not exist.
    pub unknown_shard: u64,
    /// Checks of senders that proved nothing, dropped because they send too many.
    pub checks_rationed: u64,
    /// Wake-ups.
    pub wakes: u64,
    /// Largest lateness of a timer, µs, since the last report.
    pub lateness_us_max: u64,
    /// Notes dropped because the signalling side was far behind. Must stay 0.
    pub notes_lost: u64,
    /// Panics caught outside the core. Must stay 0.
    pub panics: u64,
    /// Packets that taps lost because their reader is slow.
    pub tap_packets_dropped: u64,
}

impl ShardCounters {
    /// `(name, value)` of all, for metrics. Names are final.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("datagrams_in", self.datagrams_in),
            ("bytes_in", self.bytes_in),
            ("datagrams_out", self.datagrams_out),
            ("bytes_out", self.bytes_out),
            ("sends", self.sends),
            ("send_buffer_full", self.send_buffer_full),
            ("send_refused", self.send_refused),
            ("receive_errors", self.receive_errors),
            ("bad_length", self.bad_length),
            ("handed_over", self.handed_over),
            ("handover_full", self.handover_full),
            ("relay_full", self.relay_full),
            ("unknown_shard", self.unknown_shard),
            ("checks_rationed", self.checks_rationed),
            ("wakes", self.wakes),
            ("notes_lost", self.notes_lost),
            ("panics", self.panics),
            ("tap_packets_dropped", self.tap_packets_dropped),
        ]
    }
}
