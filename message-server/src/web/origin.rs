//! Which site a request comes from. Cookies travel with requests of any site, so what changes something and what opens
//! a socket must come from our own pages.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    settings::Settings,
};

/// Host and port without what the scheme implies.
fn authority(scheme: &str, authority: &str) -> String {
    let default = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase()
}

fn origin_authority(origin: &str) -> Option<String> {
    let (scheme, rest) = origin.split_once("://")?;
    matches!(scheme, "http" | "https").then(|| authority(scheme, rest))
}

fn is_same(origin: &str, host: Option<&str>, settings: &Settings) -> bool {
    let Some(origin) = origin_authority(origin) else { return false };
    if !settings.public_url.is_empty() && origin_authority(settings.public_url.trim_end_matches('/')).as_ref() == Some(&origin) {
        return true;
    }
    // The scheme that reached us may differ from the page's (a proxy ends TLS): either default port may be left out.
    host.is_some_and(|host| origin == authority("https", host) || origin == authority("http", host))
}

fn check(origin: Option<&header::HeaderValue>, host: Option<&str>, settings: &Settings) -> ApiResult<()> {
    match origin.map(header::HeaderValue::to_str) {
        Some(Ok(origin)) if is_same(origin, host, settings) => Ok(()),
        Some(_) => Err(ApiError::forbidden(
            "The request comes from another site. If this is your own address, set MESSAGE_SERVER_PUBLIC_URL to it.",
        )),
        None => Err(ApiError::forbidden(
            "The request says not from which site it comes. Programs: send the header Origin with this server's address.",
        )),
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// The `Origin` has to be there and ours.
pub fn require_same(headers: &HeaderMap, settings: &Settings) -> ApiResult<()> {
    check(headers.get(header::ORIGIN), host(headers), settings)
}

/// A foreign `Origin` is refused, none is fine: for what carries its own token instead of a cookie.
pub fn refuse_foreign(headers: &HeaderMap, settings: &Settings) -> ApiResult<()> {
    if headers.contains_key(header::ORIGIN) { require_same(headers, settings) } else { Ok(()) }
}

/// Middleware: what changes something has to come from our pages.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe {
        // HTTP/2 has the host in the address instead of a header.
        let host = host(request.headers()).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        if let Err(error) = check(request.headers().get(header::ORIGIN), host, &app.settings) {
            return error.into_response();
        }
    }
    next.run(request).await
}

/// The address people use, for links.
pub fn public(headers: &HeaderMap, settings: &Settings) -> String {
    if !settings.public_url.is_empty() {
        return settings.public_url.trim_end_matches('/').to_owned();
    }
    // The page that asked is the best witness of the address that works; the guard has checked it.
    match headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) {
        Some(origin) => origin.to_owned(),
        None => format!("http://{}", settings.listen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(origin: Option<&str>, host: &str, public_url: &str) -> bool {
        let settings = Settings { public_url: public_url.to_owned(), ..Settings::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        require_same(&headers, &settings).is_ok()
    }

    #[test]
    fn only_our_own_pages_pass() {
        assert!(passes(Some("http://localhost:8065"), "localhost:8065", ""));
        assert!(passes(Some("https://calls.example.org"), "calls.example.org", ""));
        assert!(passes(Some("https://calls.example.org"), "calls.example.org:443", ""));
        assert!(passes(Some("https://calls.example.org"), "127.0.0.1:8065", "https://calls.example.org/"));
        for (origin, host) in [
            (None, "localhost:8065"),
            (Some("null"), "localhost:8065"),
            (Some("http://evil.example"), "localhost:8065"),
            (Some("http://localhost:8066"), "localhost:8065"),
            (Some("http://localhost.evil.example:8065"), "localhost:8065"),
            (Some("file://localhost:8065"), "localhost:8065"),
        ] {
            assert!(!passes(origin, host, ""), "{origin:?}");
        }
    }
}
