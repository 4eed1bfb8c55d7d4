//! Twirp, as LiveKit's server SDKs speak it: `POST /twirp/livekit.Service/Method` with JSON or protobuf both ways, errors in JSON.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::refused::Refused;
use crate::signal::seam::RoomFault;

/// Twirp's error codes, those that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense.
    InvalidArgument,
    /// The body cannot be read.
    Malformed,
    /// An answer came too late.
    DeadlineExceeded,
    /// There is no such thing.
    NotFound,
    /// There is no such route.
    BadRoute,
    /// No token, or one that does not allow it.
    Unauthenticated,
    /// Over a bound.
    ResourceExhausted,
    /// A setting forbids it.
    FailedPrecondition,
    /// Not done by this server.
    Unimplemented,
    /// Somebody else's error.
    Unknown,
    /// Gone before it was done.
    Unavailable,
}

impl Code {
    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::REQUEST_TIMEOUT),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::BadRoute => ("bad_route", StatusCode::NOT_FOUND),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::PRECONDITION_FAILED),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            Self::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// An error for the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct TwirpError {
    /// Its code.
    pub code: Code,
    /// What happened and what to do.
    pub msg: String,
    /// For programs.
    pub meta: Vec<(&'static str, String)>,
}

impl TwirpError {
    /// Without more to say.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), meta: Vec::new() }
    }

    /// The token does not allow it.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(Code::Unauthenticated, Refused::forbidden().text)
    }
}

impl From<RoomFault> for TwirpError {
    fn from(fault: RoomFault) -> Self {
        let code = match &fault {
            RoomFault::NoRoom | RoomFault::NoParticipant | RoomFault::NoTrack | RoomFault::NoDispatch => Code::NotFound,
            RoomFault::NoRemoteUnmute | RoomFault::Empty | RoomFault::Sealed | RoomFault::SealedOtherwise | RoomFault::NotInRoom => {
                Code::FailedPrecondition
            }
            RoomFault::TooMuch(_) => Code::ResourceExhausted,
            RoomFault::Invalid(_) => Code::InvalidArgument,
            RoomFault::Unsupported(_) => Code::Unimplemented,
            RoomFault::Late(_) => Code::DeadlineExceeded,
            // LiveKit's RpcError: what the method itself says is nobody else's to judge.
            RoomFault::Method { code: 1400, .. } => Code::Unimplemented,
            RoomFault::Method { code: 1501 | 1502, .. } => Code::DeadlineExceeded,
            RoomFault::Method { code: 1503, .. } => Code::Unavailable,
            RoomFault::Method { .. } => Code::Unknown,
        };
        let msg = fault.to_string();
        let mut meta = Vec::new();
        if let RoomFault::Method { code, data, .. } = fault {
            meta.extend([("rpc_code", code.to_string()), ("rpc_data", data)]);
        }
        Self { code, msg, meta }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let (code, status) = self.code.parts();
        let mut body = serde_json::json!({ "code": code, "msg": self.msg });
        if !self.meta.is_empty() {
            let meta = self.meta.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
            body["meta"] = serde_json::Value::Object(meta.collect());
        }
        (status, axum::Json(body)).into_response()
    }
}

/// How a caller writes and reads messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`
    Json,
    /// `application/protobuf`
    Protobuf,
}

impl Form {
    /// Of a request.
    ///
    /// # Errors
    /// Neither of both.
    pub fn of(headers: &HeaderMap) -> Result<Self, TwirpError> {
        let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Self::Json),
            "application/protobuf" => Ok(Self::Protobuf),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(TwirpError::new(
                    Code::BadRoute,
                    format!("unexpected Content-Type: {shown:?}; use application/json or application/protobuf"),
                ))
            }
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read<T: prost::Message + Default + DeserializeOwned>(self, body: &Bytes) -> Result<T, TwirpError> {
        let malformed =
            |error: &dyn std::fmt::Display| TwirpError::new(Code::Malformed, format!("the request could not be decoded: {error}"));
        match self {
            Self::Json if body.is_empty() => Ok(T::default()),
            Self::Json => serde_json::from_slice(body).map_err(|error| malformed(&error)),
            Self::Protobuf => T::decode(body.clone()).map_err(|error| malformed(&error)),
        }
    }

    /// Writes an answer. JSON has protobuf's own names of fields, as Twirp's servers write it.
    pub fn write(self, message: &(impl prost::Message + Serialize)) -> Response {
        let (kind, body) = match self {
            Self::Protobuf => ("application/protobuf", message.encode_to_vec()),
            Self::Json => {
                let value = serde_json::to_value(message).unwrap_or_default();
                ("application/json", proto_names(value).to_string().into_bytes())
            }
        };
        ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
    }
}

/// Keys of these are people's own words, not names of fields.
const MAPS: [&str; 3] = ["attributes", "tags", "extra"];

fn proto_names(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(name, value)| {
                let value = if MAPS.contains(&name.as_str()) { value } else { proto_names(value) };
                (snake(&name), value)
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(proto_names).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn snake(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for char in camel.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use livekit_protocol as lk;

    use super::*;

    #[test]
    fn json_has_protobufs_names_and_leaves_peoples_words_alone() {
        let info = lk::ParticipantInfo {
            joined_at_ms: 7,
            attributes: [("someKey".to_owned(), "someValue".to_owned())].into(),
            tracks: vec![lk::TrackInfo { mime_type: "audio/opus".to_owned(), ..lk::TrackInfo::default() }],
            ..lk::ParticipantInfo::default()
        };
        let json = proto_names(serde_json::to_value(&info).expect("JSON"));
        assert_eq!(json["joined_at_ms"], "7");
        assert_eq!(json["attributes"]["someKey"], "someValue");
        assert_eq!(json["tracks"][0]["mime_type"], "audio/opus");
        let back: lk::ParticipantInfo = serde_json::from_value(json).expect("either form of names is read");
        assert_eq!(back, info);
    }

    #[test]
    fn both_forms_are_read_and_others_refused() {
        let request = lk::ListRoomsRequest { names: vec!["a".to_owned()] };
        let protobuf = Bytes::from(prost::Message::encode_to_vec(&request));
        assert_eq!(Form::Protobuf.read::<lk::ListRoomsRequest>(&protobuf).expect("read"), request);
        assert_eq!(Form::Json.read::<lk::ListRoomsRequest>(&Bytes::from_static(br#"{"names":["a"]}"#)).expect("read"), request);
        assert_eq!(Form::Json.read::<lk::ListRoomsRequest>(&Bytes::from_static(b"{")).expect_err("no JSON").code, Code::Malformed);
        assert_eq!(Form::Protobuf.read::<lk::ListRoomsRequest>(&Bytes::from_static(b"\xff")).expect_err("none").code, Code::Malformed);
        let of = |kind: &'static str| Form::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]));
        assert_eq!(of("application/json; charset=utf-8"), Ok(Form::Json));
        assert_eq!(of("application/protobuf"), Ok(Form::Protobuf));
        assert_eq!(of("text/plain").expect_err("neither").code, Code::BadRoute);
    }
}
