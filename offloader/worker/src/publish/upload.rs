//! One file on its way: where to go on, how much at a time, and what the server says of it.

use bytes::Bytes;
use offloader_jobs::mattermost::UploadCheckpoint;
use rtc_client::mattermost::{Sent, Site, SiteError};

use super::job::is_nobodys;
use crate::job::JobAddress;
use crate::limits::{UPLOAD_CHUNK, UPLOAD_FIRST};

/// A file to be sent.
pub(super) enum Content {
    /// The rendered media, read from the offloader piece by piece.
    Media {
        /// Its length.
        size: u64,
    },
    /// Made here.
    Text(Bytes),
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Media { size } => *size,
            Self::Text(bytes) => bytes.len() as u64,
        }
    }
}

/// Why a file is not there yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The Mattermost server.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The offloader, from which the file is read.
    #[error("the offloader does not give the file: {0}")]
    Offloader(String),
}

/// Brings a file as far as one request does. True: it is whole, and `state` has its id.
pub(super) async fn advance(
    site: &Site,
    address: &JobAddress,
    content: &Content,
    state: &mut UploadCheckpoint,
    chunk: &mut u64,
) -> Result<bool, UploadError> {
    let size = content.size();
    let offset = match site.upload(&state.id).await {
        Ok(upload) => upload.file_offset,
        Err(error) if error.status() == Some(404) && !is_nobodys(&error) => {
            // Gone, or whole in the moment that its answer was lost: what was sent cannot be named any more.
            state.id.clear();
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let left = size.saturating_sub(offset);
    let length = left.min(*chunk);
    let body = match content {
        // All of it is there, and the server ended before it made the file: asked again, it makes it.
        _ if length == 0 => reqwest::Body::from(Bytes::new()),
        Content::Media { .. } => piece(address, offset, length).await?,
        Content::Text(bytes) => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            reqwest::Body::from(bytes.slice(from..(from + usize::try_from(length).unwrap_or(0)).min(bytes.len())))
        }
    };
    match site.send(&state.id, body, length).await {
        Ok(Sent::Complete(id)) => {
            state.file_id = id;
            Ok(true)
        }
        Ok(Sent::Incomplete) if length == 0 => {
            // It never does.
            state.id.clear();
            Ok(false)
        }
        Ok(Sent::Incomplete) => Ok(false),
        Err(error) => {
            if error.status() == Some(413) && *chunk > UPLOAD_FIRST {
                *chunk = (*chunk / 2).max(UPLOAD_FIRST);
                tracing::info!(chunk = *chunk, "the server or a proxy before it takes less at a time");
                return Ok(false);
            }
            Err(error.into())
        }
    }
}

/// The first size of a piece.
pub(super) const FIRST_CHUNK: u64 = UPLOAD_CHUNK;

/// The rendered media.
pub(super) struct Media {
    /// Its length.
    pub size: u64,
    /// Its type.
    pub mime: String,
}

/// What the media is.
pub(super) async fn media(address: &JobAddress) -> Result<Media, UploadError> {
    let response = read(address, "media", Some((0, 1))).await?;
    let header = |name| response.headers().get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    let size = header(reqwest::header::CONTENT_RANGE).and_then(|range| range.rsplit_once('/')?.1.parse().ok());
    let mime = header(reqwest::header::CONTENT_TYPE).unwrap_or("application/octet-stream").to_owned();
    Ok(Media { size: size.ok_or_else(|| UploadError::Offloader("it tells no length".to_owned()))?, mime })
}

async fn piece(address: &JobAddress, offset: u64, length: u64) -> Result<reqwest::Body, UploadError> {
    Ok(reqwest::Body::from(read(address, "media", Some((offset, length))).await?))
}

/// One of the files that this publication may read.
pub(super) async fn read(address: &JobAddress, name: &str, range: Option<(u64, u64)>) -> Result<reqwest::Response, UploadError> {
    let offloader = |error: reqwest::Error| UploadError::Offloader(error.to_string());
    let client = reqwest::Client::builder().no_proxy().connect_timeout(crate::limits::CALL_TIMEOUT).build().map_err(offloader)?;
    let mut request = client.get(format!("{}/archive/v1/publication/{name}", address.url)).bearer_auth(&address.token);
    if let Some((offset, length)) = range {
        request = request.header(reqwest::header::RANGE, format!("bytes={offset}-{}", offset + length.max(1) - 1));
    }
    request.send().await.map_err(offloader)?.error_for_status().map_err(offloader)
}
