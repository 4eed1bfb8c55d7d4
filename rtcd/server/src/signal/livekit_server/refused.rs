//! A request that is not served, as LiveKit's server says it: a status and a line of text.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use conclave_proto::v1::ErrorReason;

use super::keys::TokenFault;
use crate::admit::Refusal;
use crate::signal::seam::RoomFault;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub status: StatusCode,
    /// For people.
    pub text: String,
}

impl Refused {
    /// A refusal.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// The token does not allow it.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "permissions denied")
    }
}

impl From<TokenFault> for Refused {
    fn from(fault: TokenFault) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, fault.to_string())
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.reason {
            ErrorReason::Forbidden => StatusCode::FORBIDDEN,
            ErrorReason::BadRequest => StatusCode::BAD_REQUEST,
            ErrorReason::NotFound => StatusCode::NOT_FOUND,
            ErrorReason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorReason::Unspecified | ErrorReason::Draining | ErrorReason::Full => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.text)
    }
}

impl From<RoomFault> for Refused {
    fn from(fault: RoomFault) -> Self {
        let status = match fault {
            RoomFault::NoRoom | RoomFault::NoParticipant | RoomFault::NoTrack | RoomFault::NoDispatch => StatusCode::NOT_FOUND,
            RoomFault::TooMuch(_) | RoomFault::Invalid(_) => StatusCode::BAD_REQUEST,
            RoomFault::NotInRoom => StatusCode::FORBIDDEN,
            RoomFault::NoRemoteUnmute
            | RoomFault::Empty
            | RoomFault::Sealed
            | RoomFault::SealedOtherwise
            | RoomFault::Unsupported(_)
            | RoomFault::Late(_)
            | RoomFault::Method { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, fault.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, self.text).into_response()
    }
}
