//! How a session ends.

use super::outlet::Stuck;
use crate::ClientError;

/// Why.
pub(super) enum End {
    /// As its owner wanted.
    Left,
    /// For this reason.
    Lost(String),
}

impl From<Stuck> for End {
    fn from(_: Stuck) -> Self {
        Self::Lost("nobody takes our events any more".to_owned())
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Lost(error.to_string())
    }
}
