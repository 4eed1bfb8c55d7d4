//! JSON bodies: like axum's `Json`, with our error texts.

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// A decoded JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::too_large(format!("The request is larger than {} KiB. Send less.", crate::limits::BODY_BYTES / 1024)))
            }
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(ApiError::bad_request("The body has to be JSON: send the header Content-Type: application/json."))
            }
            Err(rejection) => {
                Err(ApiError::bad_request(format!("The body does not fit: {}. See /api/v1/openapi.json.", rejection.body_text())))
            }
        }
    }
}
