//! The media tap of our own rtcd as a [`Source`].

use archive::manifest::{Consent, Encryption, TrackInfo};
use archive::record::{GapReason, Packet};
use conclave_proto::v1::{self as pb, tap_client::TapClient, tap_gap::Reason, tap_item::Item, tap_request::Body};
use offloader_jobs::order::TapOrder;
use offloader_jobs::selection::PartOfCall;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use zeroize::Zeroizing;

use super::sealed::{Derivation, KeyName, Secret};
use super::source::{Event, Source, SourceError};
use crate::limits;

/// What the tap is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapPurpose {
    /// Everything, of those who agreed.
    Record,
    /// Microphones only.
    Caption,
}

/// Requests that may wait for the media node: key frames and captions, small.
const REQUEST_QUEUE: usize = 256;

/// An open tap.
pub struct TapSource {
    requests: mpsc::Sender<pb::TapRequest>,
    items: Streaming<pb::TapItem>,
}

impl TapSource {
    /// Opens the tap of one call.
    pub async fn open(order: &TapOrder, tap_id: &str, purpose: TapPurpose) -> Result<Self, SourceError> {
        let broken = |e: &dyn std::error::Error| SourceError::Broken(chain(e));
        let endpoint = Endpoint::from_shared(order.url.clone()).map_err(|e| broken(&e))?;
        let channel = endpoint
            .connect_timeout(limits::CALL_TIMEOUT)
            // Ten tracks of video over a distance of 100 ms need 3 MB in flight.
            .initial_stream_window_size(limits::TAP_WINDOW)
            .initial_connection_window_size(limits::TAP_WINDOW)
            // A media node that vanished without a word must be noticed before its packets are missed for long.
            .http2_keep_alive_interval(limits::CALL_TIMEOUT)
            .keep_alive_timeout(limits::CALL_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|e| broken(&e))?;
        let mut client = TapClient::new(channel).max_decoding_message_size(limits::TAP_MESSAGE_BYTES);
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        let open = pb::TapOpen {
            call_id: order.call_id.clone(),
            token: order.token.clone(),
            purpose: match purpose {
                TapPurpose::Record => pb::TapPurpose::Record.into(),
                TapPurpose::Caption => pb::TapPurpose::Caption.into(),
            },
            tap_id: tap_id.to_string(),
            audio: purpose == TapPurpose::Caption || order.selection.media.has_sound(),
            video: purpose == TapPurpose::Record && order.selection.media.has_pictures(),
            screen_only: false,
            from_packet: 0,
            part: order.selection.only.as_ref().map(part),
            opens_encrypted: purpose == TapPurpose::Record,
        };
        let first = pb::TapRequest { body: Some(Body::Open(open)) };
        requests.try_send(first).map_err(|e| SourceError::Broken(e.to_string()))?;
        let items = client.open(ReceiverStream::new(queue)).await.map_err(|s| refused(&s))?.into_inner();
        Ok(Self { requests, items })
    }

    /// A line for every participant. Dropped when the media node does not read: the next one replaces it anyway.
    pub fn send_caption(&self, caption: pb::Caption) -> bool {
        self.requests.try_send(pb::TapRequest { body: Some(Body::Caption(caption)) }).is_ok()
    }

    /// Says goodbye, so that the media node need not wonder.
    pub async fn close(self) {
        let _ = self.requests.send(pb::TapRequest { body: Some(Body::Close(pb::TapClose {})) }).await;
    }
}

impl Source for TapSource {
    async fn next(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            let Some(item) = self.items.message().await.map_err(|s| refused(&s))? else { return Ok(None) };
            if let Some(event) = event(item) {
                return Ok(Some(event));
            }
        }
    }

    fn request_key_frame(&mut self, track_sid: &str) {
        let body = Body::KeyFrame(pb::TapKeyFrame { track_sid: track_sid.to_string() });
        let _ = self.requests.try_send(pb::TapRequest { body: Some(body) });
    }
}

fn refused(status: &Status) -> SourceError {
    let text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_string() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "gRPC's codes: every other one means to try again")]
    match status.code() {
        Code::NotFound => SourceError::UnknownCall(text),
        Code::Unauthenticated | Code::PermissionDenied => SourceError::Refused(text),
        _ => SourceError::Broken(text),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}

/// The wire's words into ours. `None`: nothing we know, from a newer media node.
fn event(item: pb::TapItem) -> Option<Event> {
    let at_us = item.at_us;
    Some(match item.item? {
        Item::Opened(_) => Event::Opened,
        Item::Track(track) => Event::Track { at_us, info: track_info(track) },
        Item::Packets(batch) => Event::Packets { track_sid: batch.track_sid, packets: batch.packets.into_iter().map(packet).collect() },
        Item::Gap(gap) => {
            let reason = match gap.reason() {
                Reason::Reader => GapReason::Reader,
                Reason::Network | Reason::Unspecified => GapReason::Network,
            };
            Event::Gap { track_sid: gap.track_sid, at_us, from_seq: gap.from_seq, packets: gap.packets, reason }
        }
        Item::TrackEnded(ended) => Event::TrackEnded { track_sid: ended.track_sid, at_us },
        Item::Participant(p) => Event::Participant { at_us, identity: p.identity, display_name: p.display_name, present: p.present },
        Item::Muted(muted) => Event::Muted { track_sid: muted.track_sid, at_us, muted: muted.muted },
        Item::CallEnded(_) => Event::CallEnded,
        Item::PartEnded(_) => Event::PartEnded,
        Item::MediaKey(key) => media_key(at_us, key)?,
        Item::Consent(c) => Event::Consent {
            at_us,
            consent: Consent {
                identity: c.identity,
                display_name: String::new(),
                granted: c.granted,
                answered_at_ms: c.answered_at_ms,
                notice_version: c.notice_version,
            },
        },
    })
}

/// `None`: of a form that we do not know, from a newer media node.
fn media_key(at_us: i64, key: pb::TapMediaKey) -> Option<Event> {
    let derivation = match key.derivation() {
        pb::tap_media_key::Derivation::Pbkdf2 => Some(Derivation::Pbkdf2),
        pb::tap_media_key::Derivation::Hkdf => Some(Derivation::Hkdf),
        pb::tap_media_key::Derivation::Unspecified => None,
    };
    let secret = match derivation {
        Some(derivation) if key.granted => Some(Secret {
            derivation,
            material: Zeroizing::new(key.material.to_vec()),
            salt: key.salt.to_vec(),
            bits: key.key_bits,
            ratchet_window: usize::try_from(key.ratchet_window).unwrap_or_default().min(limits::MEDIA_KEY_RATCHET),
        }),
        None if key.granted => return None,
        _ => None,
    };
    let name = KeyName { by: key.granted_by, of: key.of, index: u8::try_from(key.key_index).ok()? };
    Some(Event::MediaKey { at_us, key: name, secret, by_name: key.granted_by_name, at_ms: key.at_ms })
}

fn part(part: &PartOfCall) -> pb::TapPart {
    let source = |name: &String| match name.as_str() {
        "camera" => Some(pb::TrackSource::Camera.into()),
        "microphone" => Some(pb::TrackSource::Microphone.into()),
        "screen_share" => Some(pb::TrackSource::ScreenShare.into()),
        "screen_share_audio" => Some(pb::TrackSource::ScreenShareAudio.into()),
        _ => None,
    };
    pb::TapPart {
        identity: part.identity.clone(),
        track_sids: part.track_sids.clone(),
        sources: part.sources.iter().filter_map(source).collect(),
    }
}

fn packet(packet: pb::TapPacket) -> Packet {
    Packet {
        at_us: packet.at_us,
        seq: packet.seq,
        timestamp: packet.timestamp,
        marker: packet.marker,
        key_frame: packet.key_frame,
        audio_level: u8::try_from(packet.audio_level).unwrap_or(u8::MAX),
        payload: packet.payload,
    }
}

fn track_info(track: pb::TapTrack) -> TrackInfo {
    let kind = match track.kind() {
        pb::TrackKind::Video => "video",
        pb::TrackKind::Audio | pb::TrackKind::Unspecified => "audio",
    };
    let source = match track.source() {
        pb::TrackSource::Camera => "camera",
        pb::TrackSource::ScreenShare => "screen_share",
        pb::TrackSource::ScreenShareAudio => "screen_share_audio",
        pb::TrackSource::Microphone => "microphone",
        pb::TrackSource::Unspecified if kind == "video" => "camera",
        pb::TrackSource::Unspecified => "microphone",
    };
    let encryption = match track.encryption() {
        pb::TapEncryption::None => Encryption::None,
        pb::TapEncryption::Gcm => Encryption::Gcm,
        pb::TapEncryption::Custom => Encryption::Custom,
    };
    TrackInfo {
        encryption,
        track_sid: track.track_sid,
        identity: track.identity,
        display_name: track.display_name,
        kind: kind.into(),
        source: source.into(),
        mime: track.mime,
        clock_rate: track.clock_rate,
        channels: track.channels,
        payload_type: track.payload_type,
        fmtp: track.fmtp,
        width: track.width,
        height: track.height,
    }
}
