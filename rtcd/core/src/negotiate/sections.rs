//! What offers and answers have in common: reading the other end's transport, writing our sections.

use std::net::SocketAddr;

use super::agreed::{
    Codec, CodecKind, DtlsRole, ExtensionKind, ExtensionMap, IceCredentials, LocalSettings, Outgoing, Receive, RemoteTransport,
};
use super::codecs;
use super::error::NegotiateError;
use crate::ids::{Kind, Source};
use crate::limits;
use crate::sdp::{self, Direction, HashFunction, MediaKind, Setup};

/// The SCTP port everybody uses.
pub(super) const SCTP_PORT: u16 = 5000;

/// ICE, fingerprint and DTLS role from the tagged section, session level where it says nothing.
pub(super) fn remote_transport(
    description: &sdp::Description,
    tagged: &sdp::Media,
    role: fn(Setup) -> Option<DtlsRole>,
) -> Result<RemoteTransport, NegotiateError> {
    let own = &tagged.transport;
    let session = &description.transport;
    let ufrag = own.ice_ufrag.as_ref().or(session.ice_ufrag.as_ref()).ok_or(NegotiateError::Missing("a=ice-ufrag"))?;
    let pwd = own.ice_pwd.as_ref().or(session.ice_pwd.as_ref()).ok_or(NegotiateError::Missing("a=ice-pwd"))?;
    let setup = own.setup.or(session.setup).ok_or(NegotiateError::Missing("a=setup"))?;
    let fingerprint = own
        .fingerprints
        .iter()
        .chain(&session.fingerprints)
        .find(|fingerprint| fingerprint.hash == HashFunction::Sha256)
        .and_then(|fingerprint| fingerprint.digest.as_slice().try_into().ok())
        .ok_or(NegotiateError::Missing("a=fingerprint:sha-256"))?;
    Ok(RemoteTransport {
        ice: IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() },
        fingerprint,
        role: role(setup)
            .ok_or(NegotiateError::Unsupported("a=setup does not fit: this server waits for DTLS, the client has to be active"))?,
        data: None,
    })
}

/// Our ICE and DTLS attributes for one section.
pub(super) fn local_transport(settings: &LocalSettings, ice: &IceCredentials, setup: Setup) -> sdp::TransportAttributes {
    sdp::TransportAttributes {
        ice_ufrag: Some(ice.ufrag.clone()),
        ice_pwd: Some(ice.pwd.clone()),
        ice_options: Vec::new(),
        fingerprints: vec![sdp::Fingerprint { hash: HashFunction::Sha256, digest: settings.fingerprint.to_vec() }],
        setup: Some(setup),
    }
}

/// Our host candidates, UDP before TCP.
pub(super) fn candidates(settings: &LocalSettings) -> Vec<String> {
    // RFC 8445 5.1.2: type preference 126 (host), local preference by order, component 1. RFC 6544 4.2 puts passive TCP
    // (direction preference 4 in the top three bits) below every UDP candidate.
    let priority = |local: u32| (126 << 24) | (local << 8) | 255;
    let udp = settings.udp.iter().zip(0..).map(|(address, at)| ("udp", address, priority(65_535 - at), ""));
    let tcp = settings.tcp.iter().zip(0..).map(|(address, at)| ("tcp", address, priority((4 << 13) + 8_191 - at), " tcptype passive"));
    udp.chain(tcp)
        .take(2 * limits::CANDIDATES_MAX)
        .zip(1_u32..)
        .map(|((protocol, address, priority, tail), foundation): ((_, &SocketAddr, u32, _), _)| {
            format!("{foundation} 1 {protocol} {priority} {} {} typ host{tail}", address.ip(), address.port())
        })
        .collect()
}

/// The codecs as payload types of a section that we write.
pub(super) fn write_codecs(agreed: &[Codec], opus_fmtp: &str) -> Vec<sdp::Codec> {
    let mut written = Vec::with_capacity(agreed.len() * 2);
    for codec in agreed {
        let mut feedback = Vec::new();
        if codec.transport_cc {
            feedback.push("transport-cc".to_owned());
        }
        if codec.nack {
            feedback.push("nack".to_owned());
        }
        if codec.pli {
            // Old endpoints ask with FIR where both are there; we answer either.
            feedback.extend(["nack pli".to_owned(), "ccm fir".to_owned()]);
        }
        written.push(sdp::Codec {
            payload_type: codec.payload_type,
            name: codecs::name(codec.kind).to_owned(),
            clock_rate: codec.kind.clock_rate(),
            channels: codec.kind.channels().max(1),
            fmtp: if codec.kind == CodecKind::Opus { opus_fmtp.to_owned() } else { codec.fmtp.clone() },
            feedback,
        });
        if let Some(red) = codec.red {
            written.push(sdp::Codec {
                payload_type: red,
                name: "red".to_owned(),
                clock_rate: codec.kind.clock_rate(),
                channels: codec.kind.channels().max(1),
                fmtp: format!("{0}/{0}", codec.payload_type),
                feedback: Vec::new(),
            });
        }
        if let Some(rtx) = codec.rtx {
            written.push(sdp::Codec {
                payload_type: rtx,
                name: "rtx".to_owned(),
                clock_rate: codec.kind.clock_rate(),
                channels: 1,
                fmtp: format!("apt={}", codec.payload_type),
                feedback: Vec::new(),
            });
        }
    }
    written
}

/// Stands in a rejected section.
pub(super) fn any_codec(kind: Kind) -> sdp::Codec {
    let (payload_type, codec) = match kind {
        Kind::Audio => (111, CodecKind::Opus),
        Kind::Video => (96, CodecKind::Vp8),
    };
    sdp::Codec {
        payload_type,
        name: codecs::name(codec).to_owned(),
        clock_rate: codec.clock_rate(),
        channels: codec.channels().max(1),
        fmtp: String::new(),
        feedback: Vec::new(),
    }
}

/// Opus parameters: in-band FEC always, 10 ms packets allowed, the rest as asked.
pub(super) fn opus_fmtp(dtx: bool, stereo_wanted: bool, stereo_sent: bool) -> String {
    let mut fmtp = "minptime=10;useinbandfec=1".to_owned();
    for (wanted, parameter) in [(dtx, ";usedtx=1"), (stereo_wanted, ";stereo=1"), (stereo_sent, ";sprop-stereo=1")] {
        if wanted {
            fmtp.push_str(parameter);
        }
    }
    fmtp
}

/// True where this server has a use for the extension in a section of that kind.
pub(super) fn extension_wanted(kind: Kind, extension: ExtensionKind) -> bool {
    match extension {
        ExtensionKind::Mid | ExtensionKind::AbsCaptureTime => true,
        ExtensionKind::AudioLevel => kind == Kind::Audio,
        // On sound it would make every audio packet cause feedback; the estimate follows the pictures.
        ExtensionKind::TransportCc
        | ExtensionKind::Rid
        | ExtensionKind::RepairedRid
        | ExtensionKind::AbsSendTime
        | ExtensionKind::VideoOrientation
        | ExtensionKind::PlayoutDelay
        | ExtensionKind::DependencyDescriptor => kind == Kind::Video,
    }
}

/// Extensions of an offered or answered section that we take, and the lines that say so.
pub(super) fn extensions(kind: Kind, media: &sdp::Media) -> (ExtensionMap, Vec<sdp::Extension>) {
    let mut map = ExtensionMap::default();
    let mut lines = Vec::new();
    let has_transport_cc = media.extensions.iter().any(|extension| extension.uri == ExtensionKind::TransportCc.uri());
    for extension in &media.extensions {
        let Some(known) = ExtensionKind::from_uri(&extension.uri) else { continue };
        // Send times are of use only to receivers without transport-wide feedback.
        let superfluous = known == ExtensionKind::AbsSendTime && has_transport_cc;
        if !extension_wanted(kind, known) || superfluous || map.id(known).is_some() {
            continue;
        }
        let direction = match extension.direction {
            Some(Direction::Inactive) => continue,
            Some(Direction::SendOnly) => Some(Direction::RecvOnly),
            Some(Direction::RecvOnly) => Some(Direction::SendOnly),
            Some(Direction::SendRecv) | None => extension.direction,
        };
        map.set(known, extension.id);
        lines.push(sdp::Extension { id: extension.id, direction, uri: extension.uri.clone() });
    }
    (map, lines)
}

/// Adds msid and SSRC lines of a track that we send in the stream `stream`.
pub(super) fn write_outgoing(media: &mut sdp::Media, outgoing: &Outgoing, stream: String, rtx: bool) {
    media.msids.push(sdp::Msid { stream: stream.clone(), track: outgoing.shown_as.as_str().to_owned() });
    let mut ssrcs = vec![outgoing.ssrc];
    if rtx {
        ssrcs.push(outgoing.rtx_ssrc);
        media.ssrc_groups.push(sdp::SsrcGroup { semantics: "FID".to_owned(), ssrcs: ssrcs.clone() });
    }
    media.ssrcs.extend(ssrcs.into_iter().map(|ssrc| sdp::Ssrc { ssrc, cname: stream.clone(), msid: None }));
}

/// `PA_…|TR_…`: LiveKit clients split at the bar and take the track's sid from behind it. They need it where we offer: a browser
/// keeps the track id of the first track for ever when a section is used again (Chromium 156), and Firefox makes up its own.
pub(super) fn stream_of_track(outgoing: &Outgoing) -> String {
    format!("{}|{}", outgoing.publisher.as_str(), outgoing.shown_as.as_str())
}

/// `PA_…|camera`: browsers keep the tracks of one stream in lip-sync. For clients that find the track by its mid, which every client
/// with a single transport does.
pub(super) fn stream_of_source(outgoing: &Outgoing) -> String {
    let group = match outgoing.source {
        Source::Camera | Source::Microphone => "camera",
        Source::ScreenShare | Source::ScreenShareAudio => "screen",
        Source::Unknown => outgoing.shown_as.as_str(),
    };
    format!("{}|{group}", outgoing.publisher.as_str())
}

/// The publisher's name, without its tenant: every track of one person is one stream. For clients that learn by the mid what a track is.
pub(super) fn stream_of_publisher(outgoing: &Outgoing) -> String {
    let name = outgoing.publisher.as_str();
    name.rsplit_once('/').map_or(name, |(_, name)| name).to_owned()
}

/// Adds the lines of simulcast layers that we take.
pub(super) fn write_receive(media: &mut sdp::Media, receive: &Receive) {
    media.rids = receive.rids.iter().map(|id| sdp::Rid { id: id.clone(), send: false }).collect();
    media.simulcast.recv.clone_from(&receive.rids);
}

/// A data section with the other end's facts mirrored.
pub(super) fn write_data(mid: &str, transport: sdp::TransportAttributes) -> sdp::Media {
    sdp::Media {
        kind: MediaKind::Application,
        port: 9,
        protocol: "UDP/DTLS/SCTP".to_owned(),
        mid: mid.to_owned(),
        transport,
        sctp_port: Some(SCTP_PORT),
        max_message_size: Some(limits::DATA_MESSAGE_LEN_MAX as u64),
        ..sdp::Media::default()
    }
}

/// SCTP facts of the other end. RFC 8841: no size means 64 KiB, 0 means any.
pub(super) fn data_section(media: &sdp::Media) -> super::DataSection {
    let max = match media.max_message_size {
        None => 65_536,
        Some(0) => u32::MAX,
        Some(size) => u32::try_from(size).unwrap_or(u32::MAX),
    };
    super::DataSection { remote_port: media.sctp_port.unwrap_or(SCTP_PORT), max_message_size: max }
}

pub(super) fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

pub(super) fn kind(media: MediaKind) -> Option<Kind> {
    match media {
        MediaKind::Audio => Some(Kind::Audio),
        MediaKind::Video => Some(Kind::Video),
        MediaKind::Application | MediaKind::Other => None,
    }
}
