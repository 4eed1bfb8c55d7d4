//! The parameters of a LiveKit signalling connection: as single query parameters (`/rtc`) or as one compressed protobuf
//! message (`/rtc/v1`, parameter `join_request`).

use std::io::Read as _;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use conclave_proto::v1::ClientInfo;
use livekit_protocol as livekit;
use prost::Message as _;
use serde::Deserialize;

use crate::{
    error::{ApiError, ApiResult},
    limits,
};

/// The query as it comes. Unknown parameters are ignored: SDKs add new ones.
#[derive(Debug, Default, Deserialize)]
pub struct RtcQuery {
    /// The token; LiveKit also allows it as `Authorization: Bearer`.
    pub access_token: Option<String>,
    auto_subscribe: Option<String>,
    adaptive_stream: Option<String>,
    reconnect: Option<String>,
    sid: Option<String>,
    sdk: Option<String>,
    version: Option<String>,
    protocol: Option<String>,
    os: Option<String>,
    browser: Option<String>,
    browser_version: Option<String>,
    join_request: Option<String>,
}

impl RtcQuery {
    /// Whether this is `/rtc/v1`'s form.
    pub fn has_join_request(&self) -> bool {
        self.join_request.is_some()
    }
}

/// What the media node is told about the connection.
#[derive(Debug, Default, PartialEq)]
pub struct Connection {
    /// Subscribe to everything.
    pub auto_subscribe: bool,
    /// Layers follow what is shown.
    pub adaptive_stream: bool,
    /// Take the participant up again.
    pub reconnect: bool,
    /// Which one.
    pub participant_sid: String,
    /// One peer connection for both directions.
    pub single_peer_connection: bool,
    /// The decoded join request, empty on `/rtc`.
    pub join_request: Vec<u8>,
    /// The client.
    pub client: ClientInfo,
}

fn flag(value: Option<&str>, default: bool) -> bool {
    match value {
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        Some(_) | None => default,
    }
}

/// Client names come from outside: short, printable.
fn short(text: Option<String>) -> String {
    text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(40).collect()
}

impl Connection {
    /// From `/rtc`'s query.
    pub fn from_query(query: RtcQuery) -> Self {
        Self {
            auto_subscribe: flag(query.auto_subscribe.as_deref(), true),
            adaptive_stream: flag(query.adaptive_stream.as_deref(), false),
            reconnect: flag(query.reconnect.as_deref(), false),
            participant_sid: short(query.sid),
            single_peer_connection: false,
            join_request: Vec::new(),
            client: ClientInfo {
                sdk: short(query.sdk),
                version: short(query.version),
                os: short(query.os),
                browser: short(query.browser),
                browser_version: short(query.browser_version),
                protocol: query.protocol.and_then(|text| text.parse().ok()).unwrap_or_default(),
                remote_ip: String::new(),
            },
        }
    }

    /// From `/rtc/v1`'s query.
    pub fn from_join_request(query: RtcQuery) -> ApiResult<Self> {
        let Some(text) = query.join_request else {
            return Err(ApiError::bad_request("The parameter join_request is missing. Use a current livekit-client."));
        };
        let bytes = decode_join_request(&text)?;
        let request = livekit::JoinRequest::decode(bytes.as_slice()).map_err(|_| bad_join_request())?;
        let settings = request.connection_settings.unwrap_or_default();
        let client = request.client_info.unwrap_or_default();
        Ok(Self {
            auto_subscribe: settings.auto_subscribe,
            adaptive_stream: settings.adaptive_stream,
            reconnect: request.reconnect,
            participant_sid: short(Some(request.participant_sid)),
            single_peer_connection: true,
            join_request: bytes,
            client: ClientInfo {
                sdk: client.sdk().as_str_name().to_ascii_lowercase(),
                version: short(Some(client.version)),
                os: short(Some(client.os)),
                browser: short(Some(client.browser)),
                browser_version: short(Some(client.browser_version)),
                protocol: client.protocol,
                remote_ip: String::new(),
            },
        })
    }
}

fn bad_join_request() -> ApiError {
    ApiError::bad_request("The parameter join_request cannot be read. Use a current livekit-client.")
}

/// base64url (padded or not) of a WrappedJoinRequest, whose inside may be gzipped.
fn decode_join_request(text: &str) -> ApiResult<Vec<u8>> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::URL_SAFE, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
    if text.len() > limits::JOIN_REQUEST_CHARS {
        return Err(ApiError::too_large("The parameter join_request is too large."));
    }
    let wrapped = LENIENT.decode(text).map_err(|_| bad_join_request())?;
    let wrapped = livekit::WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| bad_join_request())?;
    match wrapped.compression() {
        livekit::wrapped_join_request::Compression::None => Ok(wrapped.join_request),
        livekit::wrapped_join_request::Compression::Gzip => {
            let mut bytes = Vec::new();
            let bound = limits::JOIN_REQUEST_BYTES as u64;
            flate2::read::GzDecoder::new(wrapped.join_request.as_slice())
                .take(bound + 1)
                .read_to_end(&mut bytes)
                .map_err(|_| bad_join_request())?;
            if bytes.len() as u64 > bound {
                return Err(ApiError::too_large("The parameter join_request is too large."));
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn query(join_request: String) -> RtcQuery {
        RtcQuery { join_request: Some(join_request), ..RtcQuery::default() }
    }

    fn wrapped(join_request: Vec<u8>, gzipped: bool) -> Vec<u8> {
        livekit::WrappedJoinRequest { compression: i32::from(gzipped), join_request }.encode_to_vec()
    }

    #[test]
    fn both_forms_say_the_same() {
        let request = livekit::JoinRequest {
            connection_settings: Some(livekit::ConnectionSettings { auto_subscribe: true, adaptive_stream: true, ..Default::default() }),
            reconnect: true,
            participant_sid: "PA_x".to_owned(),
            ..Default::default()
        }
        .encode_to_vec();
        let texts = [URL_SAFE_NO_PAD.encode(wrapped(request.clone(), false)), URL_SAFE.encode(wrapped(gzip(&request), true))];
        for text in texts {
            let connection = Connection::from_join_request(query(text)).unwrap();
            assert!(connection.auto_subscribe && connection.adaptive_stream && connection.reconnect);
            assert_eq!(connection.participant_sid, "PA_x");
            assert_eq!(connection.join_request, request);
        }
        let old = Connection::from_query(RtcQuery {
            auto_subscribe: Some("1".to_owned()),
            adaptive_stream: Some("1".to_owned()),
            reconnect: Some("1".to_owned()),
            sid: Some("PA_x".to_owned()),
            protocol: Some("17".to_owned()),
            ..RtcQuery::default()
        });
        assert!(old.auto_subscribe && old.adaptive_stream && old.reconnect && !old.single_peer_connection);
        assert_eq!((old.participant_sid.as_str(), old.client.protocol), ("PA_x", 17));
    }

    #[test]
    fn garbage_and_compression_bombs_are_refused() {
        let bomb = URL_SAFE_NO_PAD.encode(wrapped(gzip(&vec![0; 50 << 20]), true));
        assert!(bomb.len() < limits::JOIN_REQUEST_CHARS, "the bomb has to pass the first bound");
        for text in [
            bomb,
            "A".repeat(200_000),
            "%%%".to_owned(),
            URL_SAFE_NO_PAD.encode(b"\xff\xff\xff\xff"),
            URL_SAFE_NO_PAD.encode(wrapped(b"not gzip".to_vec(), true)),
            URL_SAFE_NO_PAD.encode(wrapped(vec![0xff; 20], false)),
        ] {
            assert!(Connection::from_join_request(query(text)).is_err());
        }
        assert!(Connection::from_join_request(RtcQuery::default()).is_err());
    }
}
