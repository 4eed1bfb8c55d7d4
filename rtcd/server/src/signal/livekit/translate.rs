//! LiveKit's words and ours.

use conclave_proto::v1;
use livekit_protocol as lk;
use rtcd_core::ids::{Kind, Side, Source};
use rtcd_core::input::Layer;
use rtcd_core::negotiate::CodecKind;
use rtcd_core::output::{EndReason, Quality, Step};

/// The release of LiveKit's server whose behaviour this dialect follows. Clients compare it: from 1.8.0 on they use RPC,
/// after 1.13.6 they may send SVC streams in several encodings, which the core does not take.
const DIALECT_VERSION: &str = "1.9.0";
/// How a track is encrypted end to end; `None`: not.
pub(super) fn encryption(how: lk::encryption::Type) -> Option<v1::TapEncryption> {
    match how {
        lk::encryption::Type::None => None,
        lk::encryption::Type::Gcm => Some(v1::TapEncryption::Gcm),
        lk::encryption::Type::Custom => Some(v1::TapEncryption::Custom),
    }
}

/// LiveKit's protocol number that goes with it.
const DIALECT_PROTOCOL: i32 = 16;

/// What clients, and workers of agents, are told of this server.
pub(crate) fn server_info(node_id: &str, version: &str) -> lk::ServerInfo {
    lk::ServerInfo {
        version: DIALECT_VERSION.to_owned(),
        protocol: DIALECT_PROTOCOL,
        node_id: node_id.to_owned(),
        debug_info: format!("conclave rtcd {version}"),
        ..lk::ServerInfo::default()
    }
}

/// A new unguessable id with LiveKit's prefix and 22 letters and digits: 122 random bits.
///
/// Not in hexadecimal: Firefox (ESR 153) cuts msid stream ids after 64 characters, and `PA_…|TR_…` has to fit.
pub(crate) fn new_sid(prefix: &str) -> String {
    sid_of(prefix, uuid::Uuid::new_v4().as_u128())
}

/// The id that random bits make.
pub(crate) fn sid_of(prefix: &str, random: u128) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut left = random;
    let mut sid = String::with_capacity(prefix.len() + 22);
    sid.push_str(prefix);
    for _ in 0..22 {
        let digit = usize::try_from(left % 62).unwrap_or(0);
        sid.push(LETTERS.get(digit).copied().map_or('0', char::from));
        left /= 62;
    }
    sid
}

pub(super) fn enabled_codecs() -> Vec<lk::Codec> {
    let mimes = ["audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1", "video/rtx"];
    mimes.into_iter().map(|mime| lk::Codec { mime: mime.to_owned(), fmtp_line: String::new() }).collect()
}

pub(super) fn permission(grants: &v1::Grants) -> lk::ParticipantPermission {
    lk::ParticipantPermission {
        can_subscribe: grants.can_subscribe,
        can_publish: grants.can_publish,
        can_publish_data: grants.can_publish_data,
        can_publish_sources: grants.can_publish_sources.iter().map(|name| source_by_name(name).into()).collect(),
        hidden: grants.hidden,
        can_update_metadata: grants.can_update_own_metadata,
        recorder: grants.recorder,
        agent: grants.agent,
        can_subscribe_metrics: grants.can_subscribe_metrics,
        can_manage_agent_session: grants.can_manage_agent_session,
    }
}

/// Grants after a server changed the permission.
pub(super) fn set_permission(grants: &mut v1::Grants, permission: &lk::ParticipantPermission) {
    grants.can_subscribe = permission.can_subscribe;
    grants.can_publish = permission.can_publish;
    grants.can_publish_data = permission.can_publish_data;
    grants.can_publish_sources = permission.can_publish_sources().map(|source| source.as_str_name().to_ascii_lowercase()).collect();
    grants.hidden = permission.hidden;
    grants.can_update_own_metadata = permission.can_update_metadata;
    grants.recorder = permission.recorder;
    grants.agent = permission.agent;
    grants.can_subscribe_metrics = permission.can_subscribe_metrics;
    grants.can_manage_agent_session = permission.can_manage_agent_session;
}

fn source_by_name(name: &str) -> lk::TrackSource {
    match name {
        "camera" => lk::TrackSource::Camera,
        "microphone" => lk::TrackSource::Microphone,
        "screen_share" => lk::TrackSource::ScreenShare,
        "screen_share_audio" => lk::TrackSource::ScreenShareAudio,
        _ => lk::TrackSource::Unknown,
    }
}

/// May a participant with these grants publish from this source?
pub(super) fn may_publish(grants: &v1::Grants, source: lk::TrackSource) -> bool {
    let sources = &grants.can_publish_sources;
    grants.can_publish && (sources.is_empty() || sources.iter().any(|name| source_by_name(name) == source))
}

pub(super) fn source(source: lk::TrackSource) -> Source {
    match source {
        lk::TrackSource::Camera => Source::Camera,
        lk::TrackSource::Microphone => Source::Microphone,
        lk::TrackSource::ScreenShare => Source::ScreenShare,
        lk::TrackSource::ScreenShareAudio => Source::ScreenShareAudio,
        lk::TrackSource::Unknown => Source::Unknown,
    }
}

pub(super) fn event_source(source: lk::TrackSource) -> v1::TrackSource {
    match source {
        lk::TrackSource::Camera => v1::TrackSource::Camera,
        lk::TrackSource::Microphone => v1::TrackSource::Microphone,
        lk::TrackSource::ScreenShare => v1::TrackSource::ScreenShare,
        lk::TrackSource::ScreenShareAudio => v1::TrackSource::ScreenShareAudio,
        lk::TrackSource::Unknown => v1::TrackSource::Unspecified,
    }
}

pub(super) fn kind(kind: lk::TrackType) -> Option<Kind> {
    match kind {
        lk::TrackType::Audio => Some(Kind::Audio),
        lk::TrackType::Video => Some(Kind::Video),
        lk::TrackType::Data => None,
    }
}

pub(super) fn event_kind(kind: lk::TrackType) -> v1::TrackKind {
    match kind {
        lk::TrackType::Audio => v1::TrackKind::Audio,
        lk::TrackType::Video => v1::TrackKind::Video,
        lk::TrackType::Data => v1::TrackKind::Unspecified,
    }
}

pub(super) fn side(target: lk::SignalTarget) -> Side {
    match target {
        lk::SignalTarget::Publisher => Side::Publish,
        lk::SignalTarget::Subscriber => Side::Subscribe,
    }
}

/// The core's layer number as LiveKit's quality, lowest first in both.
pub(super) fn video_quality(layer: u8) -> lk::VideoQuality {
    match layer {
        0 => lk::VideoQuality::Low,
        1 => lk::VideoQuality::Medium,
        _ => lk::VideoQuality::High,
    }
}

/// Highest layer for a quality.
pub(super) fn layer_max(quality: lk::VideoQuality) -> u8 {
    match quality {
        lk::VideoQuality::Low => 0,
        lk::VideoQuality::Medium => 1,
        lk::VideoQuality::High => 2,
        lk::VideoQuality::Off => 0,
    }
}

/// Announced layers, lowest first, with the rids that LiveKit's clients give them.
pub(super) fn layers(request: &lk::AddTrackRequest) -> Vec<Layer> {
    if request.r#type() != lk::TrackType::Video {
        return Vec::new();
    }
    let codec = request.simulcast_codecs.first();
    let announced = codec.map(|codec| &codec.layers).filter(|layers| !layers.is_empty()).unwrap_or(&request.layers);
    let mut announced: Vec<&lk::VideoLayer> = announced.iter().collect();
    announced.sort_by_key(|layer| layer.quality);
    // An SVC stream carries its layers inside one encoding.
    let svc = codec.is_some_and(|codec| ["vp9", "av1"].contains(&codec.codec.to_ascii_lowercase().as_str()));
    if svc && announced.len() > 1 {
        announced.drain(..announced.len() - 1);
    }
    let single = announced.len() == 1;
    let rids = ["q", "h", "f"];
    let take = rtcd_core::limits::LAYERS_MAX.min(rids.len());
    let layer = |(layer, rid): (&lk::VideoLayer, &str)| Layer {
        rid: if single {
            String::new()
        } else if layer.rid.is_empty() {
            rid.to_owned()
        } else {
            layer.rid.clone()
        },
        width: layer.width,
        height: layer.height,
        bitrate_bps_max: layer.bitrate,
    };
    announced.into_iter().take(take).zip(rids).map(layer).collect()
}

/// `vp8`, `VP8` or `video/vp8` as a MIME type; the usual one of the kind where nothing is said.
pub(super) fn mime(kind: Kind, codec: &str) -> String {
    let name = codec.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let known = match (kind, name.as_str()) {
        (Kind::Audio, _) => "audio/opus",
        (Kind::Video, "h264") => "video/H264",
        (Kind::Video, "vp9") => "video/VP9",
        (Kind::Video, "av1") => "video/AV1",
        (Kind::Video, _) => "video/VP8",
    };
    known.to_owned()
}

/// The core's word for a MIME type made by [`mime`].
pub(super) fn codec(mime: &str) -> Option<CodecKind> {
    let kinds = [CodecKind::Opus, CodecKind::Vp8, CodecKind::H264, CodecKind::Vp9, CodecKind::Av1];
    kinds.into_iter().find(|kind| kind.mime() == mime)
}

pub(super) fn connection_quality(quality: Quality) -> lk::ConnectionQuality {
    match quality {
        Quality::Poor => lk::ConnectionQuality::Poor,
        Quality::Good => lk::ConnectionQuality::Good,
        Quality::Excellent => lk::ConnectionQuality::Excellent,
        Quality::Lost => lk::ConnectionQuality::Lost,
    }
}

pub(super) fn quality_name(quality: Quality) -> &'static str {
    match quality {
        Quality::Poor => "poor",
        Quality::Good => "good",
        Quality::Excellent => "excellent",
        Quality::Lost => "lost",
    }
}

pub(crate) fn media_step(step: Step) -> v1::MediaStep {
    match step {
        Step::Joined => v1::MediaStep::Joined,
        Step::Negotiated => v1::MediaStep::Negotiated,
        Step::IceChecked => v1::MediaStep::IceChecked,
        Step::DtlsDone => v1::MediaStep::DtlsDone,
        Step::RtpIn => v1::MediaStep::RtpIn,
        Step::RtpOut => v1::MediaStep::RtpOut,
        Step::Lost => v1::MediaStep::Lost,
    }
}

pub(crate) fn end_reason(reason: EndReason) -> v1::EndReason {
    match reason {
        EndReason::Left => v1::EndReason::Left,
        EndReason::CallEnded => v1::EndReason::CallEnded,
        EndReason::MediaLost => v1::EndReason::MediaLost,
        EndReason::Protocol => v1::EndReason::Protocol,
        EndReason::Internal => v1::EndReason::Internal,
    }
}

/// What a client is told that has to begin anew: its state and ours do not fit, and another try has a chance.
pub(super) fn start_over() -> lk::LeaveRequest {
    leave_request(v1::EndReason::Internal)
}

/// What a client is told when it is ended, and what it should do next.
pub(super) fn leave_request(reason: v1::EndReason) -> lk::LeaveRequest {
    use lk::DisconnectReason as Why;
    use lk::leave_request::Action;
    let (reason, action) = match reason {
        v1::EndReason::Left | v1::EndReason::Unspecified => (Why::ClientInitiated, Action::Disconnect),
        v1::EndReason::Replaced => (Why::DuplicateIdentity, Action::Disconnect),
        v1::EndReason::Removed => (Why::ParticipantRemoved, Action::Disconnect),
        v1::EndReason::CallEnded => (Why::RoomDeleted, Action::Disconnect),
        v1::EndReason::Protocol => (Why::StateMismatch, Action::Disconnect),
        // Another try, from the beginning, has a chance.
        v1::EndReason::MediaLost => (Why::ConnectionTimeout, Action::Reconnect),
        v1::EndReason::Internal => (Why::StateMismatch, Action::Reconnect),
        v1::EndReason::Drained => (Why::ServerShutdown, Action::Reconnect),
    };
    lk::LeaveRequest { can_reconnect: action != Action::Disconnect, reason: reason.into(), action: action.into(), regions: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sids_and_a_bar_fit_what_firefox_keeps_of_a_stream_id() {
        let sids: std::collections::HashSet<_> = (0..100).map(|_| new_sid("PA_")).collect();
        assert_eq!(sids.len(), 100);
        assert!(sids.iter().all(|sid| sid.len() == 25 && sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
        assert!(new_sid("PA_").len() + 1 + new_sid("TR_").len() <= 64);
    }
}
