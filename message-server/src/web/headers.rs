//! Security headers of every answer.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// Only our own files run and load. `blob:` and `data:` are what media elements, workers and icons need. The sockets'
/// address is spelled out because not every browser counts `wss:` of the same host as `'self'`.
fn content_security_policy(host: Option<&HeaderValue>) -> HeaderValue {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    let sockets = match host.and_then(|host| host.to_str().ok()).filter(|host| host.chars().all(plain)) {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    };
    let policy = format!(
        "default-src 'self'; connect-src 'self'{sockets}; media-src 'self' blob:; img-src 'self' data: blob:; \
         worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), \
     speaker-selection=(self), screen-wake-lock=(self), geolocation=(), payment=(), usb=()";

/// Middleware.
pub async fn security(request: Request, next: Next) -> Response {
    let policy = content_security_policy(request.headers().get(header::HOST));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(header::X_FRAME_OPTIONS, "DENY");
    // Answers of the API are about one person and one moment.
    set(header::CACHE_CONTROL, "no-store");
    response
}
