//! Where a request comes from.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};

use crate::{app::App, error::ApiError};

const FORWARDED: &str = "x-forwarded-for";

/// The client's address: the peer's, or what a trusted proxy says.
#[derive(Debug, Clone, Copy)]
pub struct Source(pub IpAddr);

impl FromRequestParts<Arc<App>> for Source {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let peer = peer(parts)?;
        if !app.settings.trusted_proxies.contains(&peer) {
            return Ok(Self(peer));
        }
        Ok(Self(forwarded(&parts.headers, &app.settings.trusted_proxies).unwrap_or(peer)))
    }
}

fn peer(parts: &Parts) -> Result<IpAddr, ApiError> {
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip().to_canonical())
        .ok_or_else(|| ApiError::internal("a request without a peer address"))
}

/// The last address that no trusted proxy added: what comes before it, anybody can write.
fn forwarded(headers: &HeaderMap, trusted: &[IpAddr]) -> Option<IpAddr> {
    let all: Vec<&str> = headers.get_all(FORWARDED).iter().filter_map(|value| value.to_str().ok()).collect();
    for text in all.join(",").rsplit(',') {
        match text.trim().parse::<IpAddr>() {
            Ok(address) if trusted.contains(&address) => {}
            Ok(address) => return Some(address.to_canonical()),
            Err(_) => return None,
        }
    }
    None
}

/// A request from this very machine, not passed on by a proxy on it.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<S: Send + Sync> FromRequestParts<S> for Local {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let proxied = [FORWARDED, "forwarded", "x-real-ip", "via"].iter().any(|name| parts.headers.contains_key(*name));
        if peer(parts)?.is_loopback() && !proxied { Ok(Self) } else { Err(ApiError::not_found("page")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_added_counts() {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED, text.parse().unwrap());
            forwarded(&headers, &[proxy])
        };
        assert_eq!(of("1.2.3.4"), Some(IpAddr::from([1, 2, 3, 4])));
        assert_eq!(of("6.6.6.6, 1.2.3.4, 10.0.0.1"), Some(IpAddr::from([1, 2, 3, 4])));
        assert_eq!(of("1.2.3.4, nonsense"), None);
        assert_eq!(of("10.0.0.1"), None);
    }
}
