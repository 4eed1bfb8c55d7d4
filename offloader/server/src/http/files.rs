//! Media and transcripts: decrypted piece by piece while they are sent.

use std::ops::Range;
use std::sync::Arc;

use archive::derived::{DerivedReader, HEAD_BYTES};
use axum::body::Body;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use serde::Deserialize;

use super::recordings::find;
use super::{ApiError, Officer};
use crate::app::App;
use crate::limits::PLAY_CHUNKS;
use crate::objects::Objects;
use crate::store::catalogue::DerivedRow;

#[derive(Deserialize)]
pub(super) struct FileQuery {
    #[serde(default)]
    download: String,
}

impl FileQuery {
    fn download(&self) -> bool {
        matches!(self.download.as_str(), "1" | "true")
    }
}

pub(super) async fn media(
    State(app): State<Arc<App>>,
    Officer(actor): Officer,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = find_file(&app, &id, |name| name.starts_with("media.")).await?;
    if query.download() {
        app.note_access(&actor, "download", &id, &file.statement.name).await?;
    } else {
        app.note_quietly(&actor, "play", &id, &file.statement.name).await?;
    }
    send(&app, &id, file, &headers, query.download()).await
}

macro_rules! transcript {
    ($handler:ident, $name:literal) => {
        pub(super) async fn $handler(
            State(app): State<Arc<App>>,
            Officer(actor): Officer,
            Path(id): Path<String>,
            UrlQuery(query): UrlQuery<FileQuery>,
            headers: HeaderMap,
        ) -> Result<Response, ApiError> {
            let file = find_file(&app, &id, |name| name == $name).await?;
            if query.download() {
                app.note_access(&actor, "download", &id, $name).await?;
            } else {
                app.note_quietly(&actor, concat!("read ", $name), &id, "").await?;
            }
            send(&app, &id, file, &headers, query.download()).await
        }
    };
}
transcript!(transcript_json, "transcript.json");
transcript!(transcript_vtt, "transcript.vtt");
transcript!(transcript_txt, "transcript.txt");

pub(super) async fn find_file(app: &App, id: &str, is_it: impl Fn(&str) -> bool) -> Result<DerivedRow, ApiError> {
    find(app, id).await?;
    let file = app.store.derived(id).await?.into_iter().find(|file| is_it(&file.statement.name));
    file.ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "not_ready", "it has not been made yet: the recording's page says how far it is")
    })
}

pub(super) async fn send(app: &App, id: &str, file: DerivedRow, headers: &HeaderMap, download: bool) -> Result<Response, ApiError> {
    let recording = find(app, id).await?;
    let key = app.data_key(&recording).map_err(|error| ApiError::internal(&error))?;
    let head = app.objects.get_range(&file.object, 0..HEAD_BYTES as u64).await?;
    let reader = DerivedReader::new(&head, id, &file.statement.name, &key).map_err(|error| ApiError::internal(&error))?;
    let total = reader.plain_bytes();
    let etag = format!("\"{}\"", file.statement.sha256);
    let same = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes());
    let asked = headers.get(header::RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    let range = match asked.map(|asked| read_range(asked, total)) {
        Some(Asked::Range(range)) => Some(range),
        Some(Asked::Impossible) => {
            let mut answer =
                ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", format!("the file has {total} bytes")).into_response();
            set(answer.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{total}"));
            return Ok(answer);
        }
        // Anything else in that header may be ignored (RFC 9110 section 14.2).
        Some(Asked::Unknown) | None => None,
    };
    let sent = range.clone().unwrap_or(0..total);
    let length = sent.end - sent.start;
    let body = Body::from_stream(plain(app.objects.clone(), file.object, reader, sent.clone()));
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = (status, body).into_response();
    let out = answer.headers_mut();
    set(out, header::CONTENT_TYPE, &file.statement.mime);
    set(out, header::CONTENT_LENGTH, &length.to_string());
    set(out, header::ETAG, &etag);
    set(out, header::ACCEPT_RANGES, "bytes");
    // Who may see it is decided each time.
    set(out, header::CACHE_CONTROL, "private, no-store");
    set(out, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if range.is_some() {
        set(out, header::CONTENT_RANGE, &format!("bytes {}-{}/{total}", sent.start, sent.end - 1));
    }
    if download {
        set(out, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{id}-{}\"", file.statement.name));
    }
    Ok(answer)
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Range(Range<u64>),
    Impossible,
    Unknown,
}

/// One range of bytes (RFC 9110 section 14.1.2). Several at once are answered with the whole.
fn read_range(value: &str, total: u64) -> Asked {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else { return Asked::Unknown };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(total),
        (Ok(first), Err(_)) if last.is_empty() => first..total,
        (Err(_), Ok(last)) if first.is_empty() => total.saturating_sub(last)..total,
        _ => return Asked::Unknown,
    };
    if range.start < range.end { Asked::Range(range) } else { Asked::Impossible }
}

struct Sending {
    objects: Objects,
    object: String,
    reader: DerivedReader,
    left: Range<u64>,
}

/// The plain bytes of a range, a few chunks at a time.
fn plain(objects: Objects, object: String, reader: DerivedReader, range: Range<u64>) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let sending = Sending { objects, object, reader, left: range };
    futures_util::stream::try_unfold(sending, |mut sending| async move {
        if sending.left.is_empty() {
            return Ok(None);
        }
        let bytes = sending.next().await?;
        sending.left.start += bytes.len() as u64;
        Ok(Some((bytes, sending)))
    })
}

impl Sending {
    async fn next(&self) -> Result<Bytes, std::io::Error> {
        let size = archive::limits::CHUNK_BYTES as u64;
        let first = self.left.start / size;
        let last = ((self.left.end - 1) / size).min(first + PLAY_CHUNKS - 1);
        let (from, to) = (self.reader.stored_range(first), self.reader.stored_range(last));
        let stored = self.objects.get_range(&self.object, from.start..to.end).await.map_err(std::io::Error::other)?;
        let mut plain = Vec::with_capacity(stored.len());
        for chunk in first..=last {
            let range = self.reader.stored_range(chunk);
            let piece = stored.get((range.start - from.start) as usize..(range.end - from.start) as usize);
            let piece = piece.ok_or_else(|| std::io::Error::other("the stored file is too short"))?;
            plain.extend(self.reader.open(chunk, piece).map_err(std::io::Error::other)?);
        }
        let begin = (self.left.start - first * size) as usize;
        let end = ((self.left.end - first * size) as usize).min(plain.len());
        Ok(Bytes::from(plain).slice(begin..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        assert_eq!(read_range("bytes=0-9", 100), Asked::Range(0..10));
        assert_eq!(read_range("bytes=90-", 100), Asked::Range(90..100));
        assert_eq!(read_range("bytes=-5", 100), Asked::Range(95..100));
        assert_eq!(read_range("bytes=-500", 100), Asked::Range(0..100));
        assert_eq!(read_range("bytes=50-500", 100), Asked::Range(50..100));
        assert_eq!(read_range("bytes=100-", 100), Asked::Impossible);
        assert_eq!(read_range("bytes=-0", 100), Asked::Impossible);
        assert_eq!(read_range("bytes=0-", 0), Asked::Impossible);
        for unknown in ["bytes=9-0", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6", "bytes=-"] {
            assert_eq!(read_range(unknown, 100), Asked::Unknown, "{unknown}");
        }
        assert_eq!(read_range("bytes=0-18446744073709551615", 100), Asked::Range(0..100));
    }
}
