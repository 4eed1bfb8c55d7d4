//! What a client says when it connects: single query parameters (`/rtc`) or one protobuf message (`/rtc/v1`).

use std::io::Read as _;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use livekit_protocol as lk;
use prost::Message as _;
use serde::Deserialize;

use crate::limits::{JOIN_REQUEST_BYTES_MAX, JOIN_REQUEST_CHARS_MAX};

/// The query as it comes. Unknown parameters are ignored, as LiveKit does: SDKs add new ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RtcQuery {
    /// The token, where it is no header.
    pub access_token: Option<String>,
    /// The room, where the token names none.
    pub room: String,
    /// A connection that only publishes, of SDKs before protocol 2.
    pub publish: String,
    auto_subscribe: String,
    auto_subscribe_data_track: String,
    adaptive_stream: String,
    reconnect: String,
    reconnect_reason: String,
    sid: String,
    sdk: String,
    version: String,
    protocol: String,
    os: String,
    os_version: String,
    device_model: String,
    browser: String,
    browser_version: String,
    network: String,
    client_protocol: String,
    capabilities: String,
    join_request: Option<String>,
}

/// Both forms in the newer one's shape.
#[derive(Debug, PartialEq)]
pub struct Connection {
    /// What the client says.
    pub request: lk::JoinRequest,
    /// One peer connection for both directions.
    pub single: bool,
}

impl RtcQuery {
    /// The connection that `/rtc` (or, `v1`, `/rtc/v1`) asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn connection(&self, v1: bool) -> Result<Connection, &'static str> {
        match &self.join_request {
            // LiveKit's Go SDK (2.18) sends the newer form to the older path.
            Some(text) => return Ok(Connection { request: decode(text)?, single: true }),
            None if v1 => return Err("the parameter join_request is missing"),
            None => {}
        }
        Ok(Connection { request: self.single_parameters(), single: false })
    }

    fn single_parameters(&self) -> lk::JoinRequest {
        let sdk = self.sdk.to_ascii_uppercase();
        let client_info = lk::ClientInfo {
            sdk: lk::client_info::Sdk::from_str_name(&sdk).unwrap_or_default().into(),
            version: short(&self.version),
            protocol: self.protocol.parse().unwrap_or_default(),
            os: short(&self.os),
            os_version: short(&self.os_version),
            device_model: short(&self.device_model),
            browser: short(&self.browser),
            browser_version: short(&self.browser_version),
            network: short(&self.network),
            client_protocol: self.client_protocol.parse().unwrap_or_default(),
            capabilities: self.capabilities.split(',').take(16).filter_map(|number| number.trim().parse().ok()).collect(),
            ..lk::ClientInfo::default()
        };
        lk::JoinRequest {
            client_info: Some(client_info),
            connection_settings: Some(lk::ConnectionSettings {
                auto_subscribe: flag(&self.auto_subscribe, true),
                adaptive_stream: flag(&self.adaptive_stream, false),
                auto_subscribe_data_track: Some(flag(&self.auto_subscribe_data_track, false)),
                ..lk::ConnectionSettings::default()
            }),
            reconnect: flag(&self.reconnect, false),
            reconnect_reason: self.reconnect_reason.parse().unwrap_or_default(),
            participant_sid: short(&self.sid),
            ..lk::JoinRequest::default()
        }
    }
}

fn flag(text: &str, default: bool) -> bool {
    match text {
        "1" | "t" | "true" => true,
        "0" | "f" | "false" => false,
        _ => default,
    }
}

/// Client names come from outside: short, printable.
fn short(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(64).collect()
}

/// base64url (padded or not) of a `WrappedJoinRequest`, whose inside may be gzipped.
fn decode(text: &str) -> Result<lk::JoinRequest, &'static str> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::URL_SAFE, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
    const UNREADABLE: &str = "the parameter join_request cannot be read";
    const TOO_LARGE: &str = "the parameter join_request is too large";
    if text.len() > JOIN_REQUEST_CHARS_MAX {
        return Err(TOO_LARGE);
    }
    let wrapped = LENIENT.decode(text).map_err(|_| UNREADABLE)?;
    let wrapped = lk::WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| UNREADABLE)?;
    let bytes = match wrapped.compression() {
        lk::wrapped_join_request::Compression::None => wrapped.join_request,
        lk::wrapped_join_request::Compression::Gzip => {
            let mut bytes = Vec::new();
            let bound = JOIN_REQUEST_BYTES_MAX as u64;
            let mut inside = flate2::read::GzDecoder::new(wrapped.join_request.as_slice()).take(bound + 1);
            inside.read_to_end(&mut bytes).map_err(|_| UNREADABLE)?;
            bytes
        }
    };
    if bytes.len() > JOIN_REQUEST_BYTES_MAX {
        return Err(TOO_LARGE);
    }
    lk::JoinRequest::decode(bytes.as_slice()).map_err(|_| UNREADABLE)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn wrapped(join_request: Vec<u8>, gzipped: bool) -> Vec<u8> {
        lk::WrappedJoinRequest { compression: i32::from(gzipped), join_request }.encode_to_vec()
    }

    fn v1(join_request: String) -> Result<Connection, &'static str> {
        RtcQuery { join_request: Some(join_request), ..RtcQuery::default() }.connection(true)
    }

    #[test]
    fn both_forms_say_the_same() {
        let query = RtcQuery {
            auto_subscribe: "0".to_owned(),
            adaptive_stream: "1".to_owned(),
            reconnect: "1".to_owned(),
            sid: "PA_x".to_owned(),
            sdk: "js".to_owned(),
            version: "2.23.0".to_owned(),
            protocol: "17".to_owned(),
            capabilities: "1,2,x".to_owned(),
            ..RtcQuery::default()
        };
        let old = query.connection(false).expect("fine");
        let request = &old.request;
        assert!(request.reconnect && request.participant_sid == "PA_x" && !old.single);
        let info = request.client_info.as_ref().expect("a client");
        assert_eq!((info.sdk(), info.protocol, info.capabilities.as_slice()), (lk::client_info::Sdk::Js, 17, &[1, 2][..]));
        let settings = request.connection_settings.as_ref().expect("settings");
        assert!(!settings.auto_subscribe && settings.adaptive_stream);
        let bytes = request.encode_to_vec();
        for text in [URL_SAFE_NO_PAD.encode(wrapped(bytes.clone(), false)), URL_SAFE.encode(wrapped(gzip(&bytes), true))] {
            let newer = RtcQuery { join_request: Some(text), ..RtcQuery::default() };
            for path_is_v1 in [true, false] {
                assert_eq!(newer.connection(path_is_v1).expect("fine"), Connection { request: request.clone(), single: true });
            }
        }
        let silent = RtcQuery::default().connection(false).expect("fine").request.connection_settings.expect("settings");
        assert!(silent.auto_subscribe && !silent.adaptive_stream, "LiveKit's defaults");
    }

    #[test]
    fn garbage_and_compression_bombs_are_refused() {
        let bomb = URL_SAFE_NO_PAD.encode(wrapped(gzip(&vec![0; 50 << 20]), true));
        assert!(bomb.len() < JOIN_REQUEST_CHARS_MAX, "the bomb has to pass the first bound");
        for text in [
            bomb,
            "A".repeat(JOIN_REQUEST_CHARS_MAX + 1),
            "%%%".to_owned(),
            URL_SAFE_NO_PAD.encode(b"\xff\xff\xff\xff"),
            URL_SAFE_NO_PAD.encode(wrapped(b"not gzip".to_vec(), true)),
            URL_SAFE_NO_PAD.encode(wrapped(vec![0xff; 20], false)),
        ] {
            assert!(v1(text).is_err());
        }
        assert!(RtcQuery::default().connection(true).is_err());
    }
}
