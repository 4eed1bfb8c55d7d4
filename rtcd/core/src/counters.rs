//! What is counted: one array of numbers, one name each.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Everything counted since the core's birth.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Count {
            $($(#[$doc])* $variant,)*
        }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

counters! {
    /// Datagrams and frames given to the core.
    DatagramsIn = "datagrams_in",
    /// Longer than a datagram may be, or empty.
    DatagramsBadLength = "datagrams_bad_length",
    /// First byte of no protocol of ours (RFC 7983).
    DatagramsUnknown = "datagrams_unknown",
    /// Not STUN, from an address that passed no check.
    UnprovedSource = "datagrams_unproved_source",
    /// STUN that is damaged, not a binding request or too long.
    StunMalformed = "stun_malformed",
    /// STUN for a name nobody here has.
    StunUnknownName = "stun_unknown_name",
    /// STUN with a wrong or without an integrity code.
    StunBadIntegrity = "stun_bad_integrity",
    /// Checks answered.
    StunAnswered = "stun_answered",
    /// Role conflicts settled.
    StunRoleConflict = "stun_role_conflict",
    StunForeignAddress = "stun_foreign_address",
    /// DTLS before the transport expects it, or after its end.
    DtlsUnexpected = "dtls_unexpected",
    /// Handshakes that failed.
    DtlsFailed = "dtls_failed",
    /// Certificates that are not the one named in the SDP.
    DtlsBadFingerprint = "dtls_bad_fingerprint",
    /// Handshakes finished.
    DtlsDone = "dtls_done",
    /// SRTP before the keys are there.
    SrtpNoKeys = "srtp_no_keys",
    /// SRTP too short or damaged.
    SrtpMalformed = "srtp_malformed",
    /// SRTP with a wrong tag.
    SrtpBadTag = "srtp_bad_tag",
    /// SRTP seen before.
    SrtpReplayed = "srtp_replayed",
    /// Sources beyond the bound.
    SrtpTooManySources = "srtp_too_many_sources",
    /// SRTCP without encryption.
    SrtcpNotEncrypted = "srtcp_not_encrypted",
    /// Anything else SRTP can say; ours to look at.
    SrtpOther = "srtp_other",
    /// Authentic RTP that belongs to no negotiated section.
    RtpUnbound = "rtp_unbound",
    /// Authentic RTP with a payload type not negotiated.
    RtpBadPayloadType = "rtp_bad_payload_type",
    /// RTP with damaged padding or RTX payload.
    RtpMalformed = "rtp_malformed",
    /// RTP that came twice (mostly recovered twice).
    RtpDuplicate = "rtp_duplicate",
    /// RTP too old to be of use.
    RtpTooOld = "rtp_too_old",
    /// Packets received, RTX included.
    PacketsIn = "packets_received",
    /// Bytes received in them.
    BytesIn = "bytes_received",
    /// Packets of muted tracks, dropped.
    PacketsMuted = "packets_muted",
    /// Silent packets of microphones, kept back from viewers.
    PacketsSilent = "packets_silent",
    /// Video packets not forwarded because nothing but their publisher's padding is in them.
    PacketsOnlyPadding = "packets_only_padding",
    /// Packets of microphones that others were louder than, kept back from viewers.
    PacketsSofter = "packets_not_among_loudest",
    /// Of pictures, on ways where they wait for their turn.
    PacketsPaced = "packets_paced",
    /// Of pictures, left out for one viewer, because more came than its way takes.
    PacketsLeftOut = "packets_left_out",
    /// Sounds kept back from one viewer, whose way is too narrow for all of them.
    PacketsOutOfEarshot = "packets_out_of_earshot",
    /// Lost on the way in, recovered by RTX or from redundant sound.
    PacketsRecovered = "packets_recovered",
    /// Packets forwarded to viewers.
    PacketsForwarded = "packets_forwarded",
    /// Packets passed to another shard, once for each.
    PacketsRelayedOut = "packets_relayed_out",
    /// Packets that came from another shard.
    PacketsRelayedIn = "packets_relayed_in",
    /// What came from another shard for a track that is not (or no longer) here.
    RelayUnknown = "relay_unknown",
    /// Of the packets forwarded, sound packets with earlier ones beside them.
    PacketsRedundant = "packets_with_redundancy",
    /// Bytes forwarded.
    BytesForwarded = "bytes_forwarded",
    /// Packets sent again to viewers.
    PacketsResent = "packets_resent",
    /// Padding sent to see whether a way carries more.
    PacketsPadding = "packets_padding",
    /// Asked for again but no longer there.
    ResendMissing = "resend_missing",
    /// Asked for again too often, or beyond a viewer's ration.
    ResendRefused = "resend_refused",
    /// Packets that found a viewer's queue full.
    ViewerOverflow = "viewer_overflow",
    /// Damaged RTCP.
    RtcpMalformed = "rtcp_malformed",
    /// Compound RTCP packets received.
    RtcpIn = "rtcp_received",
    /// Requests for retransmission sent to publishers, packets asked for.
    NacksOut = "nack_packets_requested",
    /// Key frames asked of publishers.
    KeyFramesAsked = "key_frames_requested",
    /// Key frames that viewers asked for.
    KeyFramesWanted = "key_frames_wanted",
    /// Layers switched for viewers.
    LayerSwitches = "layer_switches",
    /// Data messages in.
    DataIn = "data_messages_received",
    /// Data messages out.
    DataOut = "data_messages_sent",
    /// Data messages dropped for their size, rate or a full buffer.
    DataDropped = "data_messages_dropped",
    /// Packets of data tracks in.
    DataTrackIn = "data_track_packets_received",
    /// Packets of data tracks given to a receiver's channel.
    DataTrackOut = "data_track_packets_sent",
    /// Of these, dropped for newer ones because the receiver takes fewer; and those for whom no channel was open.
    DataTrackDropped = "data_track_packets_dropped",
    /// Packets of data tracks beyond their sender's ration or without its right.
    DataTrackRationed = "data_track_packets_rationed",
    /// What came on the channel of data tracks and is no packet of one.
    DataTrackMalformed = "data_track_packets_malformed",
    /// Offers and answers refused.
    SdpRefused = "sdp_refused",
    /// Inputs about peers, tracks or calls that are not here.
    UnknownName = "unknown_name",
    /// Joins refused for a bound.
    JoinsRefused = "joins_refused",
    /// Peers that lost their media.
    PeersLost = "peers_media_lost",
    /// Bugs of ours that cost one peer.
    Panics = "peers_ended_by_panic",
    /// Packets for taps.
    TapPackets = "tap_packets",
    /// Packets that taps never got because they never came.
    TapGaps = "tap_gap_packets",
}

/// The numbers.
pub(crate) struct Counters([u64; NAMES.len()]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self([0; NAMES.len()])
    }

    #[inline]
    pub(crate) fn add(&mut self, count: Count, n: u64) {
        if let Some(number) = self.0.get_mut(count as usize) {
            *number = number.wrapping_add(n);
        }
    }

    #[inline]
    pub(crate) fn one(&mut self, count: Count) {
        self.add(count, 1);
    }

    /// All of them, by name.
    pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().copied().zip(self.0).collect()
    }
}
